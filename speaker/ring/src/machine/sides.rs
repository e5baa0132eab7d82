//! The end of a partition in which either side declared the other dead.
//!
//! That takes a witness: without one only a side with most of the last view certifies. With one, a
//! smaller side does so as well after a second, for it can't tell that the others live. When both
//! meet again, the side that knows fewer members up gives in: its members begin new lives, forget
//! whom they took for dead, and learn it anew from the others. Lives of the larger side go on.

use herald_model::{Incarnation, Instant};

use super::Ring;
use crate::auth::Authenticator;
use crate::codec::{Answer, Standing, Statement, Voters};
use crate::face::{Effect, RaiseReason};
use crate::peers::Index;

impl<A: Authenticator> Ring<A> {
    /// Asks one of those that are down, each time another.
    pub(super) fn seek_lost(&mut self, now: Instant, out: &mut Vec<Effect>) {
        for _ in 0..self.peers.len() {
            let index = self.peers.at(self.sought);
            self.sought = (self.sought + 1) % self.peers.len();
            if !self.peers.get(index).is_up() {
                self.challenge(now, index, out);
                break;
            }
        }
    }

    /// One that we take for dead answers, in the life that we take for over.
    pub(super) fn contradicted(
        &mut self,
        now: Instant,
        sender: Index,
        answer: &Answer,
        out: &mut Vec<Effect>,
    ) {
        // Among equals the digest of the view decides, which all of a side share.
        let outweighs = (answer.live, answer.view) > (self.peers.live(), self.peers.view());
        let takes_us_for_dead =
            answer.standing.is_down() && answer.incarnation == self.peers.own().incarnation;
        if takes_us_for_dead && outweighs {
            self.begin_anew(now, answer.incarnation, out);
            return;
        }
        let persists = self.profile.heartbeat() * 6;
        let peer = self.peers.get_mut(sender);
        if let Some(since) = peer.disputed {
            if outweighs && now.saturating_since(since) >= persists {
                // It has been told, and its own observers do not agree with us.
                self.forget_the_dead(now, out);
                return;
            }
        } else if peer.told.is_some() {
            peer.disputed = Some(now);
        }
        self.tell_standing(now, sender, out);
    }

    pub(super) fn is_tainted(&self, now: Instant, sender: Index) -> bool {
        let tainted = self.peers.get(sender).tainted;
        tainted.is_some_and(|until| now < until)
    }

    /// Gives in: our life is over, and what we knew of others in it may be wrong.
    pub(super) fn begin_anew(&mut self, now: Instant, over: Incarnation, out: &mut Vec<Effect>) {
        self.forget_the_dead(now, out);
        let next = Incarnation(over.0.saturating_add(1));
        self.raise(now, next, RaiseReason::Certified, out);
    }

    /// Takes nobody for dead any more; who is, will be told us by others, or found out.
    fn forget_the_dead(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let me = self.peers.me();
        let own = self.peers.own().id;
        let mut forgotten = false;
        for index in self.peers.indices() {
            let peer = self.peers.get(index);
            if index == me || peer.is_up() {
                continue;
            }
            let statement = Statement {
                member: peer.id,
                incarnation: peer.incarnation,
                standing: Standing::Up,
                // That it got as far as this life is true in any case.
                voters: Voters::one(own),
                ..Statement::default()
            };
            self.peers.set(index, &statement, true);
            let peer = self.peers.get_mut(index);
            peer.heard_of = false;
            peer.nonce = 0;
            out.push(Effect::MemberUp {
                node: peer.node.clone(),
                incarnation: statement.incarnation,
            });
            forgotten = true;
        }
        if forgotten {
            // Those that were on our side have to find out for themselves first.
            let until = now + self.profile.heartbeat() * 20;
            for index in self.peers.indices() {
                let peer = self.peers.get_mut(index);
                if peer.heard_of {
                    peer.tainted = Some(until);
                }
            }
            self.rearrange = true;
        }
        self.votes.clear();
        self.pending.clear();
    }
}
