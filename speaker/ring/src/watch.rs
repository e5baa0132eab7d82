//! What an observer knows of one it observes.

use std::time::Duration;

use herald_model::Instant;

use crate::NodeId;
use crate::config::Profile;
use crate::peers::Index;

/// The time between two questions to a suspect's kernel.
pub(crate) const PROBE_EVERY: Duration = Duration::from_millis(10);
/// A kernel that has not answered for this long when it was first asked is silent.
const KERNEL_SILENT_AFTER: Duration = Duration::from_millis(40);
/// After this long, what is asked over and over is asked less often.
pub(crate) const PATIENCE: Duration = Duration::from_secs(1);
/// Fewer unanswered questions than these are no reason to vote.
const ENOUGH: u32 = 8;
/// The same where only the kernel is asked.
const ENOUGH_OF_KERNEL: u32 = 3;

/// One that we observe.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Watch {
    pub(crate) index: Index,
    pub(crate) id: NodeId,
    /// Its speaker is certified dead, and only its kernel is observed.
    pub(crate) kernel_only: bool,
    /// Its last sign of life.
    pub(crate) heard: Instant,
    /// From when its silence counts: mostly `heard`. Later than now while it may be starting.
    pub(crate) quiet_from: Instant,
    /// When its kernel last answered.
    pub(crate) kernel: Option<Instant>,
    pub(crate) next_probe: Instant,
    /// How much of our own lateness its silence was forgiven.
    pub(crate) forgiven: Duration,
    pub(crate) suspicion: Option<Suspicion>,
}

/// It has been silent for too long, and is being asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suspicion {
    pub(crate) since: Instant,
    pub(crate) next_poke: Instant,
    pub(crate) pokes: u32,
    pub(crate) probes: u32,
    /// From when on it had the time to answer enough of them.
    pub(crate) ripe: Option<Instant>,
    pub(crate) ballot: Option<Ballot>,
}

impl Suspicion {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            since: now,
            next_poke: now,
            pokes: 0,
            probes: 0,
            ripe: None,
            ballot: None,
        }
    }

    /// Notes when enough was asked.
    pub(crate) fn ripen(&mut self, now: Instant, kernel_only: bool, profile: Profile) {
        let enough = if kernel_only {
            self.probes >= ENOUGH_OF_KERNEL
        } else {
            self.pokes >= ENOUGH
        };
        if enough && self.ripe.is_none() {
            self.ripe = Some(now + profile.poke_every() / 2);
        }
    }

    pub(crate) fn is_ripe(&self, now: Instant) -> bool {
        self.ripe.is_some_and(|ripe| now >= ripe)
    }
}

/// Our vote against it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ballot {
    pub(crate) since: Instant,
    pub(crate) next: Instant,
}

impl Watch {
    pub(crate) fn new(index: Index, id: NodeId, kernel_only: bool, quiet_from: Instant) -> Self {
        Self {
            index,
            id,
            kernel_only,
            heard: quiet_from,
            quiet_from,
            kernel: None,
            next_probe: quiet_from,
            forgiven: Duration::ZERO,
            suspicion: None,
        }
    }

    pub(crate) fn ballot(&self) -> Option<Ballot> {
        self.suspicion.and_then(|suspicion| suspicion.ballot)
    }

    /// Whether its kernel has been asked long enough without an answer. One that has answered since the
    /// speaker fell silent outlives it, and must be silent for as long as a speaker before it counts as dead.
    pub(crate) fn kernel_silent(&self, now: Instant, profile: Profile) -> bool {
        let outlives = |answered| self.suspicion.is_some_and(|it| answered >= it.since);
        self.kernel.is_none_or(|answered| {
            let patience = if outlives(answered) {
                profile.vote_after()
            } else {
                KERNEL_SILENT_AFTER
            };
            now.saturating_since(answered) > patience
        })
    }

    /// When its next heartbeat was due: who is heard after this is on our side of whatever
    /// came between us and it.
    pub(crate) fn silent_since(&self, profile: Profile) -> Instant {
        self.quiet_from + profile.heartbeat()
    }

    /// When there is something to do about it.
    pub(crate) fn deadline(&self, profile: Profile) -> Instant {
        match self.suspicion {
            None if self.kernel_only => self
                .next_probe
                .min(self.quiet_from + profile.suspect_after()),
            None => self.quiet_from + profile.suspect_after(),
            Some(suspicion) => {
                let vote = match suspicion.ballot {
                    Some(ballot) => Some(ballot.next),
                    None => suspicion
                        .ripe
                        .map(|ripe| ripe.max(self.quiet_from + profile.vote_after())),
                };
                let poke = (!self.kernel_only).then_some(suspicion.next_poke);
                let asks = poke.unwrap_or(self.next_probe).min(self.next_probe);
                vote.unwrap_or(asks).min(asks)
            }
        }
    }

    /// Notes a sign of life. Returns the suspicion that ends with it.
    pub(crate) fn hear(&mut self, now: Instant) -> Option<Suspicion> {
        self.heard = now;
        self.quiet_from = now;
        self.forgiven = Duration::ZERO;
        self.suspicion.take()
    }

    /// Begins the suspicion anew: what kept us from hearing may be over.
    pub(crate) fn doubt(&mut self, now: Instant, profile: Profile) {
        if self.ballot().is_some() {
            self.suspicion = None;
            self.quiet_from = self.quiet_from.max(now - profile.suspect_after());
        }
    }

    /// Forgives a short lateness of ours: all may have been late. One that is alive is heard
    /// between two of them, so in one silence no more is forgiven than the longest lasts.
    pub(crate) fn forgive(&mut self, late: Duration, profile: Profile) {
        let left = profile.suspect_after().saturating_sub(self.forgiven);
        let forgiven = late.min(left);
        self.forgiven += forgiven;
        self.quiet_from = self.quiet_from + forgiven;
        self.kernel = self.kernel.map(|answered| answered + late);
    }

    /// Forgives our own absence: it had no chance to be heard, and is asked anew.
    pub(crate) fn begin_anew(&mut self, late: Duration) {
        self.quiet_from = self.quiet_from + late;
        self.next_probe = self.next_probe + late;
        self.kernel = self.kernel.map(|answered| answered + late);
        self.forgiven = Duration::ZERO;
        self.suspicion = None;
    }
}

/// Another observer's vote.
#[derive(Clone, Copy, Debug)]
struct Cast {
    victim: NodeId,
    voter: NodeId,
    kernel_silent: bool,
    until: Instant,
}

/// The votes of others that still count.
#[derive(Debug, Default)]
pub(crate) struct Votes {
    cast: Vec<Cast>,
}

/// More votes than these at a time are not kept.
const MOST_VOTES: usize = 256;

impl Votes {
    pub(crate) fn new() -> Self {
        Self {
            cast: Vec::with_capacity(MOST_VOTES),
        }
    }

    pub(crate) fn cast(
        &mut self,
        now: Instant,
        victim: NodeId,
        voter: NodeId,
        kernel_silent: bool,
        until: Instant,
    ) {
        self.cast
            .retain(|cast| cast.until > now && !(cast.victim == victim && cast.voter == voter));
        if self.cast.len() < MOST_VOTES {
            self.cast.push(Cast {
                victim,
                voter,
                kernel_silent,
                until,
            });
        }
    }

    pub(crate) fn take_back(&mut self, victim: NodeId, voter: NodeId) {
        self.cast
            .retain(|cast| !(cast.victim == victim && cast.voter == voter));
    }

    pub(crate) fn forget(&mut self, victim: NodeId) {
        self.cast.retain(|cast| cast.victim != victim);
    }

    pub(crate) fn clear(&mut self) {
        self.cast.clear();
    }

    /// Whether the voter voted against the victim, and if so, whether it found the kernel silent.
    ///
    /// In which life the voter knows the victim does not matter: it hears it in none.
    pub(crate) fn by(&self, now: Instant, victim: NodeId, voter: NodeId) -> Option<bool> {
        self.cast
            .iter()
            .find(|cast| cast.victim == victim && cast.voter == voter && cast.until > now)
            .map(|cast| cast.kernel_silent)
    }
}
