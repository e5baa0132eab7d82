//! What a peer missed: noticed by the digest of its view, and sent again.

use herald_model::Instant;

use super::Ring;
use crate::auth::Authenticator;
use crate::codec::Kind;
use crate::face::Effect;
use crate::peers::{Index, Repair};

impl<A: Authenticator> Ring<A> {
    /// Compares a peer's view with ours. If they have differed in the same way for a while, no
    /// news under way will make them equal: we send ours, and, if asked to, let the peer see that
    /// its own differs.
    pub(super) fn compare_views(
        &mut self,
        now: Instant,
        index: Index,
        view: u64,
        show_ours: bool,
        out: &mut Vec<Effect>,
    ) {
        let ours = self.peers.view();
        if view == ours {
            self.pending.withdraw(self.peers.get(index).id);
            return;
        }
        if view == 0 {
            return;
        }
        let patience = self.profile.heartbeat() / 5;
        let repair = &mut self.peers.get_mut(index).repair;
        if repair.views != (view, ours) {
            *repair = Repair {
                views: (view, ours),
                since: now,
                next: now + patience,
                cursor: repair.cursor,
                rounds: 0,
            };
            return;
        }
        if now < repair.next {
            return;
        }
        let first = repair.since + patience * 5 > repair.next;
        let (cursor, wrapped) = self.send_view(index, first, out);
        let heartbeat = self.profile.heartbeat();
        let repair = &mut self.peers.get_mut(index).repair;
        repair.cursor = cursor;
        if wrapped {
            repair.rounds = (repair.rounds + 1).min(6);
        }
        // Once all has been sent in vain, the lists of members differ, which only time repairs.
        repair.next = now + heartbeat / 2 * (1 << repair.rounds);
        if show_ours {
            self.send_heartbeat(index, out);
        }
    }

    /// Sends as much of our view as fits, what changed last before the rest. Returns where in the
    /// table to go on, and whether its end was reached.
    fn send_view(&mut self, to: Index, recent_too: bool, out: &mut Vec<Effect>) -> (usize, bool) {
        let (peers, flood) = (&self.peers, &self.flood);
        let life = peers.own().incarnation;
        let mut cursor = peers.get(to).repair.cursor % peers.len().max(1);
        let mut wrapped = false;
        let packet = self.post.list(life, Kind::Statements, |draft| {
            if recent_too {
                for index in flood.recent().filter_map(|member| peers.find(member)) {
                    draft.push(&peers.get(index).statement());
                }
            }
            for _ in 0..peers.len() {
                let statement = peers.get(peers.at(cursor)).statement();
                if Self::is_worth_telling(&statement) && !draft.push(&statement) {
                    break;
                }
                cursor += 1;
                if cursor >= peers.len() {
                    cursor = 0;
                    wrapped = true;
                }
            }
        });
        if let Some(packet) = packet {
            self.counters.repairs += 1;
            self.post_to(to, &packet, out);
        } else {
            wrapped = true;
        }
        (cursor, wrapped)
    }
}
