//! Late wake-ups: what others did meanwhile can't be held against them, and what they think of us
//! must be asked.

use std::time::Duration;

use herald_model::{Incarnation, Instant};

use super::Ring;
use super::quorum::Witness;
use crate::auth::Authenticator;
use crate::codec::Standing;
use crate::face::Effect;
use crate::peers::{Index, Observers};

/// Observers to be heard before we answer clients again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    /// When to ask again.
    pub(super) next: Instant,
    /// Those that know us alive.
    confirmed: [Option<Index>; 3],
}

impl Silence {
    /// Asks all of them again.
    pub(super) fn restart(&mut self) {
        self.confirmed = [None; 3];
    }

    fn count(&self, observers: &Observers) -> usize {
        self.confirmed
            .iter()
            .flatten()
            .filter(|index| observers.contains(**index))
            .count()
    }
}

impl<A: Authenticator> Ring<A> {
    /// If we wake late, others are given the time that we lost: all of it when they may have
    /// taken us for dead meanwhile, else only so much in all that it ends.
    pub(super) fn forgive_stall(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let Some(expected) = self.deadline else {
            return;
        };
        let late = now.saturating_since(expected);
        if late <= self.profile.late_after() {
            return;
        }
        self.counters.stalls += 1;
        self.deadline = Some(now);
        self.heartbeat_at = now;
        self.flood.shift(late);
        if late >= self.profile.suspect_after() {
            self.begin_all_anew(now, late, out);
            return;
        }
        self.poll.forgive(late);
        for watch in &mut self.watches {
            watch.forgive(late, self.profile);
        }
    }

    /// What we knew before a long pause is of no worth: all others may have been paused as well.
    fn begin_all_anew(&mut self, now: Instant, late: Duration, out: &mut Vec<Effect>) {
        self.votes.clear();
        for watch in &mut self.watches {
            watch.begin_anew(late);
        }
        self.poll.shift(late);
        self.count_since(now);
        if !self.has_quorum() {
            self.poll.next = Some(now);
        }
        self.witness = Witness::default();
        out.push(Effect::Silenced { late });
        self.silence = Some(Silence {
            next: now,
            confirmed: [None; 3],
        });
        self.confirmed_by_fewer(out);
    }

    /// Asks the observers that have not confirmed us yet.
    pub(super) fn tick_silence(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let Some(silence) = &mut self.silence else {
            return;
        };
        if now < silence.next {
            return;
        }
        silence.next = now + self.profile.poke_every();
        let asked = silence.confirmed;
        for observer in self.observers.iter() {
            if asked.contains(&Some(observer)) {
                continue;
            }
            let fresh = self.random.next().max(1);
            let peer = self.peers.get_mut(observer);
            if peer.nonce == 0 {
                peer.nonce = fresh;
            }
            self.poke(now, observer, out);
        }
    }

    /// An observer said in which life it knows us, and how we stand in it.
    pub(super) fn heard_of_ourselves(
        &mut self,
        observer: Index,
        (incarnation, standing): (Incarnation, Standing),
        out: &mut Vec<Effect>,
    ) {
        let known = incarnation == self.peers.own().incarnation && standing == Standing::Up;
        let Some(silence) = &mut self.silence else {
            return;
        };
        if known
            && self.observers.contains(observer)
            && !silence.confirmed.contains(&Some(observer))
            && let Some(slot) = silence
                .confirmed
                .iter_mut()
                .find(|slot| slot.is_none_or(|index| !self.observers.contains(index)))
        {
            *slot = Some(observer);
        }
        self.confirmed_by_fewer(out);
    }

    /// Ends the silence if most observers have confirmed us, or none are left.
    pub(super) fn confirmed_by_fewer(&mut self, out: &mut Vec<Effect>) {
        if let Some(silence) = &self.silence
            && (self.observers.len() == 0
                || silence.count(&self.observers) >= self.observers.majority())
        {
            self.silence = None;
            out.push(Effect::Confirmed);
        }
    }
}
