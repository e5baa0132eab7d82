//! The end of a partition in which either side declared the other dead.
//!
//! That takes a witness: without one only a side with most of the last view certifies. With one, a
//! smaller side does so as well after a second, for it can't tell that the others live. When both
//! meet again, the side that knows fewer members up gives in: its members begin new lives, forget
//! whom they took for dead, and learn it anew from the others. Lives of the larger side go on.

use herald_model::{Incarnation, Instant};

use super::Ring;
use crate::auth::Authenticator;
use crate::codec::{Answer, Standing, Statement};
use crate::face::{Effect, RaiseReason};

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

    /// Whether one that we take for dead takes us for dead, and knows more members up than we do.
    /// Among equals the digest of the view decides, which all of a side share.
    pub(super) fn is_outweighed(&self, answer: &Answer) -> bool {
        answer.standing.is_down()
            && answer.incarnation == self.peers.own().incarnation
            && (answer.live, answer.view) > (self.peers.live(), self.peers.view())
    }

    /// Gives in to the larger side.
    pub(super) fn change_sides(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let me = self.peers.me();
        for index in self.peers.indices() {
            if index == me {
                continue;
            }
            let peer = self.peers.get_mut(index);
            if peer.is_up() {
                peer.tainted = true;
                continue;
            }
            let statement = Statement {
                member: peer.id,
                incarnation: peer.incarnation,
                standing: Standing::Up,
                ..Statement::default()
            };
            self.peers.set(index, &statement, true);
            let peer = self.peers.get_mut(index);
            peer.heard_of = false;
            out.push(Effect::MemberUp {
                node: peer.node.clone(),
                incarnation: statement.incarnation,
            });
        }
        self.votes.clear();
        self.pending.clear();
        self.rearrange = true;
        let next = Incarnation(self.peers.own().incarnation.0.saturating_add(1));
        self.raise(now, next, RaiseReason::Certified, out);
    }
}
