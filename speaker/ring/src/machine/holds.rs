//! Who holds which address: flooded and repaired like certificates, decided elsewhere.

use std::net::IpAddr;
use std::time::Duration;

use herald_model::{Epoch, Incarnation, Instant, Tenure};

use super::Ring;
use super::view::TOGETHER;
use crate::NodeId;
use crate::auth::Authenticator;
use crate::codec::{HoldRecord, Kind, tenure_byte};
use crate::face::{Effect, Hold};
use crate::id::hash;
use crate::peers::Index;

/// When a hold is sent again, counted from the first time.
const AGAIN: [Duration; 4] = [
    Duration::from_millis(15),
    Duration::from_millis(30),
    Duration::from_millis(200),
    Duration::from_secs(1),
];
const NO_MORE: Instant = Instant::from_nanos(u64::MAX);

/// The best right to each address that we know of.
#[derive(Debug)]
pub(super) struct Holds {
    /// In order of address.
    entries: Vec<Entry>,
    digest: u64,
    /// The earliest time that an entry is to be told again.
    next: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    record: HoldRecord,
    first: Instant,
    next: Instant,
    told: usize,
}

fn digest(record: &HoldRecord) -> u64 {
    let mut address = [0; 16];
    let octets: &[u8] = match record.vip {
        IpAddr::V4(v4) => {
            if let Some(front) = address.first_chunk_mut() {
                *front = v4.octets();
            }
            address.first_chunk::<4>().map_or(&[], |front| front)
        }
        IpAddr::V6(v6) => {
            address = v6.octets();
            &address
        }
    };
    hash(
        b"hold",
        &[
            octets,
            &record.epoch.0.to_le_bytes(),
            &[record.rank, tenure_byte(record.tenure)],
            &record.holder.0.to_le_bytes(),
            &record.incarnation.0.to_le_bytes(),
        ],
    )
}

/// Whether the one beats the other: a higher epoch, then a hold over one that is handed over and
/// that over none, then a higher rank (a lower number), then the later life. Of the same life the later word
/// counts: it hands over, passes one after another over, and lets go in the end.
fn beats(new: &HoldRecord, old: &HoldRecord) -> bool {
    if (new.epoch, new.holder, new.incarnation) == (old.epoch, old.holder, old.incarnation) {
        return match (old.tenure, new.tenure) {
            (
                Tenure::HandingOver { passed_over: old },
                Tenure::HandingOver { passed_over: new },
            ) => new > old,
            (old, new) => new < old,
        };
    }
    let right = |it: &HoldRecord| {
        (
            it.epoch,
            it.tenure,
            std::cmp::Reverse(it.rank),
            it.incarnation,
            it.holder,
        )
    };
    right(new) > right(old)
}

impl Holds {
    pub(super) fn new() -> Self {
        Self {
            entries: Vec::new(),
            digest: 0,
            next: NO_MORE,
        }
    }

    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    fn find(&self, vip: IpAddr) -> Result<usize, usize> {
        self.entries.binary_search_by_key(&vip, |it| it.record.vip)
    }

    /// Takes a record over, over whatever is there.
    fn put(&mut self, record: HoldRecord, tell_at: Instant) {
        let entry = Entry {
            record,
            first: tell_at,
            next: tell_at,
            told: 0,
        };
        self.digest ^= digest(&record);
        self.next = self.next.min(tell_at);
        match self.find(record.vip) {
            Ok(place) => {
                if let Some(slot) = self.entries.get_mut(place) {
                    self.digest ^= digest(&slot.record);
                    *slot = entry;
                }
            }
            Err(place) => self.entries.insert(place, entry),
        }
    }

    /// Forgets what a member held in lives before this one.
    pub(super) fn forget(&mut self, holder: NodeId, life: Incarnation) {
        let digest_of_all = &mut self.digest;
        self.entries.retain(|entry| {
            let over = entry.record.holder == holder && entry.record.incarnation < life;
            if over {
                *digest_of_all ^= digest(&entry.record);
            }
            !over
        });
    }
}

impl<A: Authenticator> Ring<A> {
    /// We hold an address, or let go of it.
    pub(super) fn hold_changed(
        &mut self,
        now: Instant,
        (vip, epoch, rank, tenure): (IpAddr, Epoch, u8, Tenure),
    ) {
        let own = self.peers.own();
        let record = HoldRecord {
            vip,
            epoch,
            rank,
            holder: own.id,
            incarnation: own.incarnation,
            tenure,
        };
        self.holds.put(record, now);
    }

    /// Another says who holds an address.
    pub(super) fn hold_received(
        &mut self,
        now: Instant,
        record: &HoldRecord,
        out: &mut Vec<Effect>,
    ) {
        let Some(holder) = self.peers.find(record.holder) else {
            return;
        };
        let peer = self.peers.get(holder);
        if !peer.is_up() || peer.incarnation != record.incarnation {
            return;
        }
        let known = self
            .holds
            .find(record.vip)
            .ok()
            .and_then(|place| self.holds.entries.get(place))
            .map(|entry| entry.record);
        let mine = self.peers.own().id;
        if record.holder == mine {
            // An old word of ours comes back. If it is not what we last said, we say that again.
            if let Some(known) = known.filter(|known| known.holder == mine && known != record) {
                self.holds.put(known, now);
            }
            return;
        }
        if known.is_some_and(|known| !beats(record, &known)) {
            return;
        }
        let hold = Hold {
            vip: record.vip,
            epoch: record.epoch,
            rank: record.rank,
            node: peer.node.clone(),
            incarnation: record.incarnation,
            tenure: record.tenure,
        };
        self.holds.put(*record, NO_MORE);
        out.push(Effect::HoldHeard(hold));
    }

    /// Tells everybody about our own holds. Those that changed at the same time go together, so not
    /// when one changes, but when all that the driver knows of have.
    pub(super) fn tick_holds(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.holds.next > now {
            return;
        }
        let due = now + TOGETHER;
        let mut place = 0;
        while place < self.holds.entries.len() {
            let life = self.peers.own().incarnation;
            let entries = &mut self.holds.entries;
            let packet = self.post.list(life, Kind::Holds, |draft| {
                while let Some(entry) = entries.get_mut(place) {
                    if entry.next <= due {
                        if !draft.push(&entry.record) {
                            break;
                        }
                        let delay = AGAIN.get(entry.told);
                        entry.next = delay.map_or(NO_MORE, |delay| entry.first + *delay);
                        entry.told += 1;
                    }
                    place += 1;
                }
            });
            let Some(packet) = packet else {
                break;
            };
            for index in self.peers.indices() {
                if index != self.peers.me() && self.peers.get(index).is_up() {
                    self.post_to(index, &packet, out);
                }
            }
        }
        let next = self.holds.entries.iter().map(|entry| entry.next).min();
        self.holds.next = next.unwrap_or(NO_MORE);
    }

    pub(super) fn holds_deadline(&self) -> Option<Instant> {
        (self.holds.next != NO_MORE).then_some(self.holds.next)
    }

    /// Sends our holds to one that knows others, a datagram at a time.
    pub(super) fn compare_holds(
        &mut self,
        now: Instant,
        index: Index,
        theirs: u64,
        out: &mut Vec<Effect>,
    ) {
        let ours = self.holds.digest();
        if theirs == ours {
            return;
        }
        let heartbeat = self.profile.heartbeat();
        let peer = self.peers.get_mut(index);
        if peer.holds.views != (theirs, ours) {
            peer.holds.views = (theirs, ours);
            peer.holds.next = now + heartbeat / 5;
            peer.holds.rounds = 0;
            return;
        }
        if now < peer.holds.next {
            return;
        }
        let mut cursor = peer.holds.cursor;
        let entries = &self.holds.entries;
        let mut wrapped = entries.is_empty();
        let life = self.peers.own().incarnation;
        let packet = self.post.list(life, Kind::Holds, |draft| {
            for _ in 0..entries.len() {
                if cursor >= entries.len() {
                    cursor = 0;
                    wrapped = true;
                }
                match entries.get(cursor) {
                    Some(entry) if draft.push(&entry.record) => cursor += 1,
                    _ => break,
                }
            }
        });
        if let Some(packet) = packet {
            self.counters.repairs += 1;
            self.post_to(index, &packet, out);
        }
        let peer = self.peers.get_mut(index);
        peer.holds.cursor = cursor;
        if wrapped {
            peer.holds.rounds = (peer.holds.rounds + 1).min(6);
        }
        peer.holds.next = now + heartbeat / 2 * (1 << peer.holds.rounds);
        self.send_heartbeat(index, out);
    }
}
