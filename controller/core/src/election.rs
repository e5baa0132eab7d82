//! Which replica leads, decided from what the Lease says and when it was seen to change.
//!
//! No times of other machines are compared: a holder gives up before its lease can have ended for
//! anybody, counted from the moment it *sent* the request that renewed it, and others count from
//! the moment they last *saw* the holder renew. The Lease is there to keep two replicas from
//! working against each other: what the claims can't keep apart are two that decide at once.

use std::sync::Arc;
use std::time::Duration;

use herald_model::Instant;

/// What a Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaseView {
    /// Who holds it; `None` or empty: nobody.
    pub holder: Option<Arc<str>>,
    /// When the holder renewed it, as it says; only compared for being the same.
    pub renewed: Option<Arc<str>>,
}

/// What is to be done about the Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bid {
    /// There is none: create it.
    Create,
    /// It is ours: renew it.
    Renew,
    /// It is free: take it.
    Take,
    /// It is another's.
    Wait,
}

/// One replica's part in the election.
#[derive(Clone, Debug)]
pub struct Election {
    identity: Arc<str>,
    /// When the request that last made or kept the lease ours was sent.
    renewed: Option<Instant>,
    /// The lease as it was last seen to change, and when.
    seen: Option<(LeaseView, Instant)>,
}

impl Election {
    /// A lease that was not renewed for this long is free.
    pub const DURATION: Duration = Duration::from_secs(15);
    /// A holder that could not renew for this long does not lead any more.
    pub const DEADLINE: Duration = Duration::from_secs(10);
    /// How often the lease is looked at.
    pub const PERIOD: Duration = Duration::from_secs(2);
    /// How long one look may take.
    const PATIENCE: Duration = Duration::from_secs(4);

    /// A replica that has not looked yet.
    pub fn new(identity: impl Into<Arc<str>>) -> Self {
        Self {
            identity: identity.into(),
            renewed: None,
            seen: None,
        }
    }

    /// Takes what the Lease says now, and says what to do; `None`: there is no Lease.
    pub fn look(&mut self, now: Instant, lease: Option<LeaseView>) -> Bid {
        let Some(lease) = lease else {
            return Bid::Create;
        };
        let since = match &self.seen {
            Some((seen, since)) if *seen == lease => *since,
            _ => {
                self.seen = Some((lease.clone(), now));
                now
            }
        };
        match lease.holder.as_deref() {
            None | Some("") => Bid::Take,
            Some(holder) if *holder == *self.identity => Bid::Renew,
            Some(_) if now.saturating_since(since) >= Self::DURATION => Bid::Take,
            Some(_) => {
                self.renewed = None;
                Bid::Wait
            }
        }
    }

    /// The bid was accepted; `sent`: when the first request of the look was sent.
    pub const fn won(&mut self, sent: Instant) {
        self.renewed = Some(sent);
    }

    /// Until when this replica may decide; `None`: it may not.
    pub fn leads_until(&self, now: Instant) -> Option<Instant> {
        let until = self.renewed? + Self::DEADLINE;
        (now < until).then_some(until)
    }

    /// How long a look that begins now may take: never beyond the time to stop.
    pub fn patience(&self, now: Instant) -> Duration {
        let left = |renewed: Instant| Self::DEADLINE.saturating_sub(now.saturating_since(renewed));
        match self.renewed.map(left) {
            Some(left) if !left.is_zero() => left.min(Self::PATIENCE),
            _ => Self::PATIENCE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    /// Looks at a lease.
    fn look(replica: &mut Election, seconds: u64, holder: &str, renewed: &str) -> Bid {
        let lease = LeaseView {
            holder: Some(holder.into()),
            renewed: Some(renewed.into()),
        };
        replica.look(at(seconds), Some(lease))
    }

    #[test]
    fn lease_is_made_renewed_and_taken_when_given_back() {
        let mut me = Election::new("a");
        assert_eq!(me.look(at(0), None), Bid::Create);
        assert!(
            me.leads_until(at(0)).is_none(),
            "not before the API server agreed"
        );
        me.won(at(0));
        assert!(me.leads_until(at(1)).is_some());
        assert_eq!(look(&mut me, 2, "a", "t0"), Bid::Renew);
        let mut other = Election::new("b");
        assert_eq!(look(&mut other, 2, "a", "t0"), Bid::Wait);
        assert_eq!(look(&mut other, 4, "", "t0"), Bid::Take);
    }

    #[test]
    fn holder_that_cannot_renew_stops_before_anybody_takes_over() {
        let mut me = Election::new("a");
        let mut other = Election::new("b");
        me.won(at(0));
        // The other looks at once and sees no renewal from then on.
        assert_eq!(look(&mut other, 0, "a", "t0"), Bid::Wait);
        for second in 1..15 {
            assert_eq!(look(&mut other, second, "a", "t0"), Bid::Wait);
        }
        assert!(me.leads_until(at(9)).is_some() && me.leads_until(at(10)).is_none());
        assert_eq!(look(&mut other, 15, "a", "t0"), Bid::Take);
    }

    #[test]
    fn dead_holder_is_waited_for_from_the_moment_it_was_first_seen() {
        let mut late = Election::new("b");
        // The lease may be hours old: this replica cannot know whose clock wrote that.
        assert_eq!(look(&mut late, 1000, "a", "t0"), Bid::Wait);
        assert_eq!(look(&mut late, 1014, "a", "t0"), Bid::Wait);
        assert_eq!(look(&mut late, 1015, "a", "t0"), Bid::Take);
    }

    #[test]
    fn renewal_starts_the_wait_anew() {
        let mut other = Election::new("b");
        assert_eq!(look(&mut other, 0, "a", "t0"), Bid::Wait);
        assert_eq!(look(&mut other, 14, "a", "t1"), Bid::Wait);
        assert_eq!(look(&mut other, 28, "a", "t1"), Bid::Wait);
        assert_eq!(look(&mut other, 29, "a", "t1"), Bid::Take);
    }

    #[test]
    fn replica_that_sees_another_holder_does_not_lead() {
        let mut me = Election::new("a");
        me.won(at(0));
        assert_eq!(look(&mut me, 1, "b", "t1"), Bid::Wait);
        assert!(me.leads_until(at(1)).is_none());
    }

    #[test]
    fn request_to_renew_never_outlasts_the_time_to_stop() {
        let mut me = Election::new("a");
        assert_eq!(me.patience(at(0)), Duration::from_secs(4));
        me.won(at(0));
        assert_eq!(me.patience(at(2)), Duration::from_secs(4));
        assert_eq!(me.patience(at(9)), Duration::from_secs(1));
        assert_eq!(
            me.patience(at(10)),
            Duration::from_secs(4),
            "it does not lead any more"
        );
    }
}
