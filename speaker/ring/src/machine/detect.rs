//! Silence, suspicion, votes, certificates.

use std::net::IpAddr;

use herald_model::Instant;

use super::Ring;
use crate::NodeId;
use crate::auth::Authenticator;
use crate::codec::{Ask, Evidence, Kind, Standing, Statement, Vote, Voters};
use crate::face::Effect;
use crate::peers::Index;
use crate::watch::{Ballot, PATIENCE, PROBE_EVERY, Suspicion, Watch};

/// Members asked at a time to poke a suspect for us.
const RELAYS: usize = 2;
/// With which pokes they are asked.
const ASK_WITH_EVERY: u32 = 2;
/// Pokes at the usual pace. They almost always suffice; what follows until the vote comes ten
/// times as fast, because in a burst of loss only numbers help.
const CALM_POKES: u32 = 2;
/// Pokes that were due while we were late, sent at a time.
const POKES_AT_ONCE: u32 = 8;

impl<A: Authenticator> Ring<A> {
    pub(super) fn tick_watches(&mut self, now: Instant, out: &mut Vec<Effect>) {
        for place in 0..self.watches.len() {
            if let Some(watch) = self.watches.get(place).copied()
                && now >= watch.deadline(self.profile)
            {
                let watch = self.tick_watch(now, watch, out);
                self.put_back(watch);
                if watch.ballot().is_some() {
                    self.certify(now, watch, out);
                }
            }
        }
        self.tick_witness(now, out);
    }

    /// Stores what a tick changed; a certificate may have changed the list meanwhile.
    fn put_back(&mut self, watch: Watch) {
        if let Some(slot) = self.watches.iter_mut().find(|slot| slot.id == watch.id) {
            *slot = watch;
        }
    }

    fn tick_watch(&mut self, now: Instant, mut watch: Watch, out: &mut Vec<Effect>) -> Watch {
        let profile = self.profile;
        let silent = now.saturating_since(watch.quiet_from);
        if watch.suspicion.is_none() && silent >= profile.suspect_after() {
            self.counters.suspicions += 1;
            // An old answer that comes only now proves nothing.
            self.peers.get_mut(watch.index).nonce = self.random.next().max(1);
            watch.next_probe = now;
            watch.suspicion = Some(Suspicion::new(now));
        }
        let slow = watch
            .ballot()
            .is_some_and(|ballot| now.saturating_since(ballot.since) >= PATIENCE);
        if now >= watch.next_probe && (watch.kernel_only || watch.suspicion.is_some()) {
            let calm = watch.suspicion.is_none() || slow;
            watch.next_probe = now
                + if calm {
                    profile.heartbeat()
                } else {
                    PROBE_EVERY
                };
            if let Some(suspicion) = &mut watch.suspicion {
                suspicion.probes = suspicion.probes.saturating_add(1);
            }
            out.push(Effect::ProbeKernel {
                address: self.peers.get(watch.index).address,
            });
        }
        let Some(mut suspicion) = watch.suspicion else {
            return watch;
        };
        if !watch.kernel_only {
            self.poke_suspect(now, watch.index, &mut suspicion, slow, out);
        }
        suspicion.ripen(now, watch.kernel_only, profile);
        if silent >= profile.poll_after() {
            self.start_poll(now, watch.silent_since(profile), out);
        }
        if silent >= profile.vote_after() && suspicion.is_ripe(now) {
            suspicion.ballot = Some(self.vote(now, &watch, suspicion.ballot, slow, out));
        }
        watch.suspicion = Some(suspicion);
        watch
    }

    /// Sends the pokes that are due. Those we were late with are made up for: their number counts
    /// more than their times.
    fn poke_suspect(
        &mut self,
        now: Instant,
        index: Index,
        suspicion: &mut Suspicion,
        slow: bool,
        out: &mut Vec<Effect>,
    ) {
        let mut left = POKES_AT_ONCE;
        while now >= suspicion.next_poke {
            let gap = if slow {
                self.profile.heartbeat()
            } else if suspicion.pokes < CALM_POKES || suspicion.ballot.is_some() {
                self.profile.poke_every()
            } else {
                self.profile.poke_every() / 10
            };
            left -= 1;
            let is_last = left == 0 || suspicion.ballot.is_some();
            let begin = if is_last { now } else { suspicion.next_poke };
            suspicion.next_poke = begin + gap;
            self.poke(now, index, out);
            if suspicion.pokes.is_multiple_of(ASK_WITH_EVERY) {
                self.ask_others(index, out);
            }
            suspicion.pokes = suspicion.pokes.saturating_add(1);
        }
    }

    /// Votes against the watched, or says so again.
    fn vote(
        &mut self,
        now: Instant,
        watch: &Watch,
        ballot: Option<Ballot>,
        slow: bool,
        out: &mut Vec<Effect>,
    ) -> Ballot {
        if let Some(ballot) = ballot
            && now < ballot.next
        {
            return ballot;
        }
        if ballot.is_none() {
            self.counters.votes += 1;
        }
        let heartbeat = self.profile.heartbeat();
        self.tell_observers(now, watch, true, out);
        let gap = if slow {
            heartbeat * 2
        } else {
            heartbeat / 5 * 2
        };
        Ballot {
            since: ballot.map_or(now, |ballot| ballot.since),
            next: now + gap,
        }
    }

    /// Tells the other observers of one that we observe whether it is silent.
    fn tell_observers(&mut self, now: Instant, watch: &Watch, silent: bool, out: &mut Vec<Effect>) {
        let item = Vote {
            victim: watch.id,
            incarnation: self.peers.get(watch.index).incarnation,
            silent,
            kernel_silent: silent && watch.kernel_silent(now, self.profile),
        };
        let Some(packet) = self.write(Kind::Votes, &item) else {
            return;
        };
        for observer in self.peers.observers_of(watch.index).iter() {
            if observer != self.peers.me() {
                self.post_to(observer, &packet, out);
            }
        }
    }

    /// Asks two other members, each time others, to poke a suspect for us.
    fn ask_others(&mut self, target: Index, out: &mut Vec<Effect>) {
        let peer = self.peers.get(target);
        let item = Ask {
            target: peer.id,
            nonce: peer.nonce,
        };
        let mut chosen = [None; RELAYS];
        let draws = 4 * RELAYS;
        for _ in 0..draws {
            let size = u64::try_from(self.peers.len()).unwrap_or(1);
            let place = usize::try_from(self.random.below(size)).unwrap_or(0);
            let index = self.peers.at(place);
            if index == target
                || index == self.peers.me()
                || chosen.contains(&Some(index))
                || !self.peers.get(index).is_up()
            {
                continue;
            }
            let Some(slot) = chosen.iter_mut().find(|slot| slot.is_none()) else {
                break;
            };
            *slot = Some(index);
            self.send(index, Kind::Ask, &item, out);
        }
    }

    /// A member proved to be alive.
    pub(super) fn heard(&mut self, now: Instant, index: Index, out: &mut Vec<Effect>) {
        self.peers.get_mut(index).heard = now;
        self.count_in(index);
        let Some(place) = self
            .watches
            .iter()
            .position(|watch| watch.index == index && !watch.kernel_only)
        else {
            return;
        };
        let Some(watch) = self.watches.get_mut(place) else {
            return;
        };
        let ended = watch.hear(now);
        let watch = *watch;
        if ended.is_some_and(|suspicion| suspicion.ballot.is_some()) {
            self.tell_observers(now, &watch, false, out);
        }
    }

    pub(super) fn kernel_answered(&mut self, now: Instant, address: IpAddr) {
        let Some(index) = self.peers.by_address(address) else {
            return;
        };
        for watch in &mut self.watches {
            if watch.index == index {
                watch.kernel = Some(now);
                if watch.kernel_only {
                    watch.hear(now);
                }
            }
        }
    }

    /// Another observer voted, or took its vote back.
    pub(super) fn voted(
        &mut self,
        now: Instant,
        voter: NodeId,
        vote: &Vote,
        out: &mut Vec<Effect>,
    ) {
        if !vote.silent {
            self.votes.take_back(vote.victim, voter);
            return;
        }
        let Some(index) = self.peers.find(vote.victim) else {
            return;
        };
        self.agree_or_tell(index, voter, vote, out);
        let valid = self.profile.heartbeat() * 4;
        self.votes
            .cast(now, vote.victim, voter, vote.kernel_silent, now + valid);
        let watch = self.watches.iter().find(|watch| watch.index == index);
        if let Some(watch) = watch.copied() {
            self.certify(now, watch, out);
        }
    }

    /// If the victim is dead as far as we know, the voter is told so; if we know it dead only in an
    /// earlier life, we vote as well, for we have heard of it in none since.
    fn agree_or_tell(&mut self, index: Index, voter: NodeId, vote: &Vote, out: &mut Vec<Effect>) {
        let peer = self.peers.get(index);
        let (statement, life) = (peer.statement(), peer.incarnation);
        let Some(to) = self.peers.find(voter) else {
            return;
        };
        if !statement.standing.is_down() {
            return;
        }
        if life >= vote.incarnation {
            let kernel_only = statement.standing == Standing::SpeakerDown && vote.kernel_silent;
            if life > vote.incarnation || !kernel_only {
                self.send(to, Kind::Statements, &statement, out);
            }
        } else if self.peers.observers_of(index).contains(self.peers.me()) {
            let item = Vote {
                kernel_silent: statement.standing == Standing::NodeDown,
                ..*vote
            };
            self.send(to, Kind::Votes, &item, out);
        }
    }

    /// Tries all open votes again.
    pub(super) fn certify_all(&mut self, now: Instant, out: &mut Vec<Effect>) {
        for place in 0..self.watches.len() {
            if let Some(watch) = self.watches.get(place).copied() {
                self.certify(now, watch, out);
            }
        }
    }

    /// Makes a certificate if our own vote stands, most observers agree, and most members of the
    /// last view are on our side, or a witness is.
    pub(super) fn certify(&mut self, now: Instant, watch: Watch, out: &mut Vec<Effect>) {
        let (Some(suspicion), Some(ballot)) = (watch.suspicion, watch.ballot()) else {
            return;
        };
        let peer = self.peers.get(watch.index);
        if watch.kernel_only != peer.standing.is_down() || peer.standing == Standing::NodeDown {
            return; // Certified in this very round.
        }
        let life = peer.incarnation;
        let since = watch.silent_since(self.profile);
        let votes = self.count_votes(now, &watch, since);
        let agreed = votes.voters.as_slice().len() >= votes.majority;
        let witnessed = self.is_witnessed(now);
        // Not before `regain` has had those accused asked anew: the last view may shrink, too, so that those
        // heard are most of it.
        let most = self.poll.lacking.is_none() && self.most_heard_since(since);
        let half = witnessed && self.half_heard_since(since);
        let by_witness = !(agreed && (most || half));
        if by_witness {
            // Observers that are gone themselves can't vote; those that are here must all agree.
            let patient = now.saturating_since(ballot.since) >= PATIENCE;
            if !witnessed || !patient || votes.dissenters > 0 {
                return;
            }
        }
        let needed = if by_witness {
            votes.voters.as_slice().len()
        } else {
            votes.majority
        };
        let standing = if votes.kernel_silent >= needed {
            Standing::NodeDown
        } else if watch.kernel_only {
            return;
        } else {
            Standing::SpeakerDown
        };
        self.counters.certificates += 1;
        let statement = Statement {
            member: watch.id,
            incarnation: life,
            standing,
            by_witness,
            voters: votes.voters,
            evidence: Evidence {
                silent: now.saturating_since(watch.heard),
                suspected: now.saturating_since(suspicion.since),
            },
        };
        self.apply(now, watch.index, &statement, out);
        self.flood.begin(now, watch.id, true);
    }

    fn count_votes(&self, now: Instant, watch: &Watch, since: Instant) -> Count {
        let observers = self.peers.observers_of(watch.index);
        let me = self.peers.me();
        let mut count = Count {
            majority: observers.majority(),
            ..Count::default()
        };
        for observer in observers.iter() {
            let id = self.peers.get(observer).id;
            let vote = if observer == me {
                Some(watch.kernel_silent(now, self.profile))
            } else {
                self.votes.by(now, watch.id, id)
            };
            match vote {
                Some(kernel_silent) => {
                    count.voters.push(id);
                    count.kernel_silent += usize::from(kernel_silent);
                }
                None if self.was_heard_since(observer, since) => count.dissenters += 1,
                None => {}
            }
        }
        count
    }
}

/// The votes against one member.
#[derive(Default)]
struct Count {
    voters: Voters,
    kernel_silent: usize,
    /// What suffices.
    majority: usize,
    /// Observers on our side that have not voted.
    dissenters: usize,
}
