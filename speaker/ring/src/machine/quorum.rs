//! Whether we are on the larger side of whatever happened.

use std::time::Duration;

use herald_model::Instant;

use super::Ring;
use crate::auth::Authenticator;
use crate::codec::{Kind, Poke};
use crate::face::Effect;
use crate::peers::Index;

/// The time between two questions to the witness.
const ASK_EVERY: Duration = Duration::from_millis(20);
/// Pokes in quick succession, for those that get lost.
const QUICK_TRIES: u32 = 4;
/// Pokes in all before we say that too few can be reached.
const TRIES: u32 = 7;
/// In views up to this size, the witness is asked from the suspicion on, else once too few are heard.
const SMALL: u32 = 4;

/// Who of the last view has been heard since a certain time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Poll {
    pub(super) number: u32,
    /// Who is heard after this counts.
    since: Instant,
    pub(super) nonce: u64,
    /// How many of the last view count, ourselves included.
    count: u32,
    pub(super) next: Option<Instant>,
    tries: u32,
    /// Since when too few have been heard.
    pub(super) lacking: Option<Instant>,
    pub(super) said: Option<Said>,
}

/// What was last said of quorum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Said {
    reached: u32,
    base: u32,
    pub(super) quorum: bool,
}

/// What stands in for members that are gone.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Witness {
    pub(super) next: Option<Instant>,
    /// Since when it has been answering, and when it last did.
    answered: Option<(Instant, Instant)>,
}

impl Poll {
    /// At the start, who is heard from the start on counts; greetings make them speak.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            number: 1,
            since: now,
            nonce: 0,
            count: 0,
            next: None,
            tries: 0,
            lacking: None,
            said: None,
        }
    }

    pub(super) fn shift(&mut self, late: Duration) {
        self.next = self.next.map(|next| next + late);
    }

    /// While we could not hear, nobody was lacking.
    pub(super) fn forgive(&mut self, late: Duration) {
        self.lacking = self.lacking.map(|since| since + late);
    }
}

impl<A: Authenticator> Ring<A> {
    /// Counts anew who of the last view has been heard; after the list has changed.
    pub(super) fn recount(&mut self) {
        let number = self.poll.number;
        self.peers.own_mut().poll = number;
        let counted = self
            .peers
            .iter()
            .filter(|peer| peer.in_base && peer.poll == number);
        self.poll.count = u32::try_from(counted.count()).unwrap_or(u32::MAX);
    }

    /// Notes a sign of life for the poll.
    pub(super) fn count_in(&mut self, index: Index) {
        let number = self.poll.number;
        let peer = self.peers.get_mut(index);
        if peer.in_base && peer.poll != number {
            peer.poll = number;
            self.poll.count += 1;
        }
    }

    /// Notes that a member left the last view.
    pub(super) fn count_out(&mut self, index: Index) {
        let peer = self.peers.get_mut(index);
        if peer.in_base && peer.poll == self.poll.number {
            peer.poll = 0;
            self.poll.count = self.poll.count.saturating_sub(1);
        }
    }

    /// More than half of the last view has been heard since then.
    pub(super) fn most_heard_since(&self, since: Instant) -> bool {
        self.poll.since >= since && u64::from(self.poll.count) * 2 > u64::from(self.peers.base())
    }

    /// Exactly half of it has.
    pub(super) fn half_heard_since(&self, since: Instant) -> bool {
        self.poll.since >= since && u64::from(self.poll.count) * 2 == u64::from(self.peers.base())
    }

    pub(super) fn was_heard_since(&self, index: Index, since: Instant) -> bool {
        self.peers.get(index).heard > since
    }

    /// Makes sure that a poll runs which counts those heard since then.
    pub(super) fn start_poll(&mut self, now: Instant, since: Instant, out: &mut Vec<Effect>) {
        let runs = self.poll.next.is_some() || self.most_heard_since(since);
        if self.poll.since >= since && runs {
            return;
        }
        self.poll.tries = 0;
        self.count_since(since);
        self.poll.next = Some(now);
        if self.most_heard_since(since) {
            self.poll.lacking = None;
        } else {
            self.poll.lacking.get_or_insert(now);
        }
        self.tick_poll(now, out);
    }

    /// Counts those heard since then, and from now on those that answer.
    pub(super) fn count_since(&mut self, since: Instant) {
        self.poll.number = self.poll.number.wrapping_add(1).max(1);
        self.poll.since = since;
        self.poll.nonce = self.random.next().max(1);
        self.poll.count = 0;
        let me = self.peers.me();
        for index in self.peers.indices() {
            if index == me || self.was_heard_since(index, since) {
                self.count_in(index);
            }
        }
    }

    /// If most of the last view is heard again after a while, the votes from that while count no
    /// more: those they are against may speak in the very next moment. The poll begins before the
    /// vote, so that even a short while is noticed.
    pub(super) fn regain(&mut self, now: Instant) {
        if self.poll.lacking.is_none() || !self.most_heard_since(self.poll.since) {
            return;
        }
        let lacked = self.poll.lacking.take();
        if lacked.is_some_and(|since| now.saturating_since(since) > self.profile.poke_every() / 2) {
            self.doubt_all(now);
        }
    }

    /// The witness answered. If it had not before, the same holds.
    pub(super) fn witness_answered(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let fresh = self.profile.heartbeat() * 3;
        let streak = self
            .witness
            .answered
            .filter(|(_, last)| now.saturating_since(*last) <= fresh);
        if streak.is_none() {
            self.doubt_all(now);
        }
        self.witness.answered = Some((streak.map_or(now, |(first, _)| first), now));
        self.certify_all(now, out);
    }

    /// Whether the witness answers, and has for long enough that a suspect would have as well.
    pub(super) fn is_witnessed(&self, now: Instant) -> bool {
        self.witness.answered.is_some_and(|(first, last)| {
            now.saturating_since(last) <= self.profile.heartbeat() * 3
                && now.saturating_since(first) >= self.settling()
        })
    }

    /// The time in which a few pokes are answered.
    fn settling(&self) -> Duration {
        self.profile.poke_every() * 3
    }

    fn doubt_all(&mut self, now: Instant) {
        for watch in &mut self.watches {
            watch.doubt(now, self.profile);
        }
    }

    pub(super) fn tick_poll(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.poll.next.is_none_or(|next| now < next) {
            return;
        }
        if self.most_heard_since(self.poll.since) {
            self.poll.next = None;
            self.poll.tries = 0;
            return;
        }
        self.poll.tries += 1;
        let gap = if self.poll.tries <= QUICK_TRIES {
            self.profile.poke_every() / 5
        } else if self.poll.tries <= TRIES {
            self.profile.poke_every()
        } else {
            self.profile.heartbeat()
        };
        self.poll.next = Some(now + gap);
        if self.poll.tries > TRIES {
            // Who answered long ago may be out of reach as well by now.
            self.count_since(now - self.profile.vote_after());
        }
        let item = Poke {
            nonce: self.poll.nonce,
            origin: self.peers.own().id,
            view: self.peers.view(),
        };
        let Some(packet) = self.write(Kind::Poke, &item) else {
            return;
        };
        for index in self.peers.indices() {
            let peer = self.peers.get(index);
            if peer.in_base && peer.is_up() && peer.poll != self.poll.number {
                self.post_to(index, &packet, out);
            }
        }
    }

    /// Asks the witness while a vote stands that the others heard do not suffice for.
    pub(super) fn tick_witness(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let small = self.peers.base() <= SMALL;
        let wanted = self.watches.iter().any(|watch| {
            let stage = if small {
                watch.suspicion.is_some()
            } else {
                watch.ballot().is_some() && self.poll.tries > QUICK_TRIES
            };
            stage && !self.most_heard_since(watch.silent_since(self.profile))
        });
        if !wanted {
            self.witness.next = None;
        } else if self.witness.next.is_none_or(|next| now >= next) {
            let slow = self.poll.tries > TRIES + 20;
            self.witness.next = Some(if slow {
                now + self.profile.heartbeat()
            } else {
                now + ASK_EVERY
            });
            out.push(Effect::AskWitness);
        }
    }

    /// Says so when quorum is won or lost.
    pub(super) fn check_quorum(&mut self, out: &mut Vec<Effect>) {
        let now_has = self.most_heard_since(self.poll.since);
        let had = self.poll.said.map(|said| said.quorum);
        let given_up = self.poll.tries > TRIES;
        let changed = match had {
            None => now_has || given_up,
            Some(true) => !now_has && given_up,
            Some(false) => now_has,
        };
        if changed {
            let said = Said {
                reached: self.poll.count,
                base: self.peers.base(),
                quorum: now_has,
            };
            self.poll.said = Some(said);
            out.push(Effect::QuorumChanged {
                reached: said.reached,
                base: said.base,
                quorum: said.quorum,
            });
        }
    }
}
