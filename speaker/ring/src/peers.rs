//! The members, and who observes whom.

use std::net::IpAddr;

use herald_model::{Incarnation, Instant, NodeName};

use crate::NodeId;
use crate::codec::{Evidence, MAX_VOTERS, Report, Standing, Statement, Voters};
use crate::config::Member;
use crate::id::hash;

/// Orderings of the members: as many as a member has observers.
const RINGS: usize = MAX_VOTERS;

/// A member's place in the table; changes with the list of members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Index(u16);

/// The observers of one member, or those that it observes in one place of the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Observers {
    list: [Option<Index>; RINGS],
}

impl Observers {
    pub(crate) fn iter(&self) -> impl Iterator<Item = Index> + use<> {
        self.list.into_iter().flatten()
    }

    pub(crate) fn contains(&self, index: Index) -> bool {
        self.list.contains(&Some(index))
    }

    pub(crate) fn len(&self) -> usize {
        self.iter().count()
    }

    /// The least number that is more than half.
    pub(crate) fn majority(&self) -> usize {
        self.len() / 2 + 1
    }
}

/// What we know of a member.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) node: NodeName,
    pub(crate) id: NodeId,
    pub(crate) address: IpAddr,
    /// Its last life we know of.
    pub(crate) incarnation: Incarnation,
    /// Its last life according to the list of members.
    pub(crate) listed: Incarnation,
    pub(crate) standing: Standing,
    pub(crate) by_witness: bool,
    pub(crate) voters: Voters,
    pub(crate) evidence: Evidence,
    /// Counts for quorum.
    pub(crate) in_base: bool,
    /// Anybody has heard of it in this life.
    pub(crate) heard_of: bool,
    /// Until then, what it says of others may be from the wrong side of a partition.
    pub(crate) tainted: Option<Instant>,
    /// Since when it goes on in a life that is over although it was told.
    pub(crate) disputed: Option<Instant>,
    /// It echoed a nonce of ours in this life.
    pub(crate) proved: bool,
    /// What it sent in this life.
    pub(crate) received: Received,
    /// When it last proved to be alive.
    pub(crate) heard: Instant,
    /// The nonce that it is to echo; 0 if none.
    pub(crate) nonce: u64,
    /// When it was last poked, and told that its life is over.
    pub(crate) poked: Option<Instant>,
    pub(crate) told: Option<Instant>,
    /// The last poll it was heard in.
    pub(crate) poll: u32,
    pub(crate) report: Report,
    /// The same for holds, and for how members stand.
    pub(crate) holds: Repair,
    pub(crate) repair: Repair,
}

/// Where a peer's view, which differs from ours, is being repaired.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Repair {
    /// The two digests, theirs and ours, when they last differed.
    pub(crate) views: (u64, u64),
    /// When they were first seen to differ in this way.
    pub(crate) since: Instant,
    /// Not before this.
    pub(crate) next: Instant,
    /// Where to go on in the table.
    pub(crate) cursor: usize,
    /// Whole tables sent without success.
    pub(crate) rounds: u32,
}

/// Sequences already received: the highest, and which of the 64 before it. Datagrams sent within
/// microseconds can overtake each other; none is taken twice.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Received {
    highest: u64,
    /// Bit n: `highest - n - 1`.
    before: u64,
}

impl Received {
    /// Everything up to this one.
    pub(crate) fn up_to(sequence: u64) -> Self {
        Self {
            highest: sequence,
            before: u64::MAX,
        }
    }

    /// Notes a sequence. Returns whether it is new.
    pub(crate) fn note(&mut self, sequence: u64) -> bool {
        if sequence > self.highest {
            let ahead = u32::try_from(sequence - self.highest).unwrap_or(u32::MAX);
            // The old highest is one of those before the new one now.
            let shifted = self.before.checked_shl(ahead).unwrap_or(0);
            let bit = 1_u64.checked_shl(ahead - 1).unwrap_or(0);
            self.before = shifted | bit;
            self.highest = sequence;
            return true;
        }
        let Some(behind) = (self.highest - sequence).checked_sub(1) else {
            return false;
        };
        let bit = u32::try_from(behind)
            .ok()
            .and_then(|it| 1_u64.checked_shl(it));
        match bit {
            Some(bit) if self.before & bit == 0 => {
                self.before |= bit;
                true
            }
            _ => false,
        }
    }
}

impl Peer {
    fn new(id: NodeId, member: &Member, now: Instant, in_base: bool) -> Self {
        Self {
            node: member.node.clone(),
            id,
            address: member.address,
            incarnation: member.incarnation,
            listed: member.incarnation,
            standing: Standing::Up,
            by_witness: false,
            voters: Voters::NONE,
            evidence: Evidence::default(),
            in_base,
            heard_of: false,
            tainted: None,
            disputed: None,
            proved: false,
            received: Received::default(),
            heard: now,
            nonce: 0,
            poked: None,
            told: None,
            poll: 0,
            report: Report::default(),
            holds: Repair::default(),
            repair: Repair::default(),
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        !self.standing.is_down()
    }

    /// What we would tell others of it.
    pub(crate) fn statement(&self) -> Statement {
        Statement {
            member: self.id,
            incarnation: self.incarnation,
            standing: self.standing,
            by_witness: self.by_witness,
            voters: self.voters,
            evidence: self.evidence,
        }
    }

    fn digest(&self) -> u64 {
        hash(
            b"view",
            &[
                &self.id.0.to_le_bytes(),
                &self.incarnation.0.to_le_bytes(),
                &[self.standing as u8],
            ],
        )
    }
}

/// All members, ourselves included, and the rings they form.
#[derive(Clone, Debug)]
pub(crate) struct Peers {
    /// In order of id.
    table: Vec<Peer>,
    orders: [Vec<Index>; RINGS],
    places: Vec<[usize; RINGS]>,
    me: Index,
    view: u64,
    base: u32,
    live: u16,
}

impl Peers {
    /// The members at the start: the last view. We are in it in any case.
    pub(crate) fn new(me: &Member, members: &[Member], now: Instant) -> Self {
        let mut peers = Self {
            table: Vec::new(),
            orders: [Vec::new(), Vec::new(), Vec::new()],
            places: Vec::new(),
            me: Index(0),
            view: 0,
            base: 0,
            live: 0,
        };
        let mut own = Peer::new(NodeId::of(&me.node), me, now, true);
        own.heard_of = true;
        own.proved = true;
        peers.table.push(own);
        peers.change(members, now, true);
        peers
    }

    /// Takes over a new list. What is known of those that stay, stays.
    pub(crate) fn change(&mut self, members: &[Member], now: Instant, in_base: bool) {
        let own_id = self.own().id;
        let mut old = std::mem::take(&mut self.table);
        let mut table: Vec<Peer> = Vec::with_capacity(members.len() + 1);
        table.extend(take(&mut old, own_id));
        for member in members {
            let id = NodeId::of(&member.node);
            if id == own_id {
                if let Some(own) = table.first_mut() {
                    own.listed = own.listed.max(member.incarnation);
                }
            } else if let Some(mut peer) =
                take(&mut old, id).filter(|peer| peer.node == member.node)
            {
                peer.address = member.address;
                peer.listed = peer.listed.max(member.incarnation);
                table.push(peer);
            } else {
                table.push(Peer::new(id, member, now, in_base));
            }
        }
        table.truncate(usize::from(u16::MAX));
        table.sort_by_key(|peer| peer.id);
        table.dedup_by_key(|peer| peer.id);
        self.table = table;
        self.me = self.find(own_id).unwrap_or(Index(0));
        self.arrange();
    }

    fn arrange(&mut self) {
        let mut places = vec![[0; RINGS]; self.table.len()];
        for (ring, order) in (0_u8..).zip(&mut self.orders) {
            let mut hashed: Vec<(u64, Index)> = (0..)
                .zip(&self.table)
                .map(|(index, peer)| {
                    let place = hash(b"ring", &[&[ring], peer.node.as_str().as_bytes()]);
                    (place, Index(index))
                })
                .collect();
            hashed.sort_unstable();
            *order = hashed.into_iter().map(|(_, index)| index).collect();
            for (place, index) in order.iter().enumerate() {
                if let Some(slot) = places
                    .get_mut(usize::from(index.0))
                    .and_then(|places| places.get_mut(usize::from(ring)))
                {
                    *slot = place;
                }
            }
        }
        self.places = places;
        self.view = self.table.iter().fold(0, |view, peer| view ^ peer.digest());
        let count = |which: fn(&&Peer) -> bool| self.table.iter().filter(which).count();
        self.base = u32::try_from(count(|peer| peer.in_base)).unwrap_or(u32::MAX);
        self.live = u16::try_from(count(|peer| peer.is_up())).unwrap_or(u16::MAX);
    }

    pub(crate) fn me(&self) -> Index {
        self.me
    }

    pub(crate) fn own(&self) -> &Peer {
        self.get(self.me)
    }

    pub(crate) fn own_mut(&mut self) -> &mut Peer {
        self.get_mut(self.me)
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Digest of how all members stand.
    pub(crate) fn view(&self) -> u64 {
        self.view
    }

    /// The number of members that count for quorum.
    pub(crate) fn base(&self) -> u32 {
        self.base
    }

    /// The number of members that are up.
    pub(crate) fn live(&self) -> u16 {
        self.live
    }

    pub(crate) fn get(&self, index: Index) -> &Peer {
        self.table
            .get(usize::from(index.0))
            .expect("an index is not kept when the table changes")
    }

    /// For all but incarnation, standing and `in_base`, which [`Self::set`] changes.
    pub(crate) fn get_mut(&mut self, index: Index) -> &mut Peer {
        self.table
            .get_mut(usize::from(index.0))
            .expect("an index is not kept when the table changes")
    }

    pub(crate) fn find(&self, id: NodeId) -> Option<Index> {
        let place = self.table.binary_search_by_key(&id, |peer| peer.id).ok()?;
        u16::try_from(place).ok().map(Index)
    }

    pub(crate) fn by_address(&self, address: IpAddr) -> Option<Index> {
        self.indices()
            .find(|index| self.get(*index).address == address)
    }

    pub(crate) fn by_name(&self, node: &NodeName) -> Option<&Peer> {
        self.find(NodeId::of(node))
            .map(|index| self.get(index))
            .filter(|peer| peer.node == *node)
    }

    pub(crate) fn indices(&self) -> impl Iterator<Item = Index> + use<> {
        (0..u16::try_from(self.table.len()).unwrap_or(u16::MAX)).map(Index)
    }

    /// The member at this place of the table, counted round and round.
    pub(crate) fn at(&self, place: usize) -> Index {
        Index(u16::try_from(place % self.table.len().max(1)).unwrap_or(0))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.table.iter()
    }

    /// Sets how a member stands, as the statement says.
    pub(crate) fn set(&mut self, index: Index, statement: &Statement, in_base: bool) {
        let peer = self.get(index);
        let (before, was_in_base, was_up) = (peer.digest(), peer.in_base, peer.is_up());
        let peer = self.get_mut(index);
        if statement.incarnation != peer.incarnation {
            peer.tainted = None;
            peer.proved = false;
            peer.received = Received::default();
        }
        peer.disputed = None;
        peer.incarnation = statement.incarnation;
        peer.standing = statement.standing;
        peer.by_witness = statement.by_witness;
        peer.voters = statement.voters;
        peer.evidence = statement.evidence;
        peer.heard_of = true;
        peer.in_base = in_base;
        let (after, is_up) = (peer.digest(), peer.is_up());
        self.view ^= before ^ after;
        match (was_up, is_up) {
            (false, true) => self.live = self.live.saturating_add(1),
            (true, false) => self.live = self.live.saturating_sub(1),
            _ => {}
        }
        match (was_in_base, in_base) {
            (false, true) => self.base = self.base.saturating_add(1),
            (true, false) => self.base = self.base.saturating_sub(1),
            _ => {}
        }
    }

    /// The members that observe this one: in each ring the next that is up and not yet chosen.
    pub(crate) fn observers_of(&self, member: Index) -> Observers {
        let mut observers = Observers::default();
        let Some(places) = self.places.get(usize::from(member.0)) else {
            return observers;
        };
        for ((ring, order), place) in self.orders.iter().enumerate().zip(places) {
            let (before, after) = order.split_at_checked(*place).unwrap_or_default();
            let next = after.iter().skip(1).chain(before).copied();
            let chosen = next
                .filter(|candidate| !observers.contains(*candidate))
                .find(|candidate| self.get(*candidate).is_up());
            if let Some(slot) = observers.list.get_mut(ring) {
                *slot = chosen;
            }
        }
        observers
    }
}

fn take(table: &mut Vec<Peer>, id: NodeId) -> Option<Peer> {
    let place = table.iter().position(|peer| peer.id == id)?;
    Some(table.swap_remove(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequence_is_taken_once_and_only_if_it_is_not_too_old() {
        let mut received = Received::up_to(100);
        let mut note = |sequence| received.note(sequence);
        assert!(!note(100) && !note(99) && !note(36) && !note(0));
        assert!(note(103) && note(101) && note(102));
        assert!(!note(101) && !note(102) && !note(103));
        assert!(note(200) && note(136) && !note(136) && !note(135));
        assert!(note(u64::MAX) && !note(200) && note(u64::MAX - 64) && !note(u64::MAX - 65));
    }
}
