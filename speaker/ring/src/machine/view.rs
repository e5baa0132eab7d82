//! How members stand: what is believed, what is told.

use std::time::Duration;

use herald_model::{Incarnation, Instant};

use super::Ring;
use crate::NodeId;
use crate::auth::Authenticator;
use crate::codec::{Kind, Standing, Statement, Voters};
use crate::face::{Effect, RaiseReason, Scope, Timeline};
use crate::peers::{Index, Received};

/// When a certificate is sent again, counted from the first time: loss comes in bursts.
const CERTIFICATE_AGAIN: [Duration; 4] = [
    Duration::from_millis(15),
    Duration::from_millis(30),
    Duration::from_millis(200),
    Duration::from_secs(1),
];
/// News of a life are collected for this long before they are sent; they are in no hurry.
const NEWS_AFTER: Duration = Duration::from_millis(20);
const NEWS_AGAIN: [Duration; 1] = [Duration::from_millis(200)];
/// What is due within this time goes into the same datagram.
pub(super) const TOGETHER: Duration = Duration::from_millis(2);
/// Statements that are not borne out yet, kept at a time.
const MOST_PENDING: usize = 64;
/// Heartbeats after which what was not borne out and not said again is forgotten: more than lie between two
/// repairs of one view.
const UNREPEATED: u32 = 40;
/// Members whose standing changed last, told first to those that lack something.
const RECENT: usize = 16;

/// Members whose standing is being told to everybody.
#[derive(Debug)]
pub(super) struct Flood {
    items: Vec<Telling>,
    recent: [Option<NodeId>; RECENT],
    next_recent: usize,
}

#[derive(Clone, Copy, Debug)]
struct Telling {
    member: NodeId,
    first: Instant,
    next: Instant,
    told: usize,
    certificate: bool,
}

impl Flood {
    pub(super) fn new() -> Self {
        Self {
            items: Vec::with_capacity(64),
            recent: [None; RECENT],
            next_recent: 0,
        }
    }

    pub(super) fn make_room(&mut self, members: usize) {
        self.items.reserve(members.saturating_sub(self.items.len()));
    }

    pub(super) fn begin(&mut self, now: Instant, member: NodeId, certificate: bool) {
        self.items.retain(|item| item.member != member);
        let first = if certificate { now } else { now + NEWS_AFTER };
        self.items.push(Telling {
            member,
            first,
            next: first,
            told: 0,
            certificate,
        });
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.items.iter().map(|item| item.next).min()
    }

    pub(super) fn shift(&mut self, late: Duration) {
        for item in &mut self.items {
            item.first = item.first + late;
            item.next = item.next + late;
        }
    }

    fn changed(&mut self, member: NodeId) {
        if let Some(slot) = self.recent.get_mut(self.next_recent) {
            *slot = Some(member);
        }
        self.next_recent = (self.next_recent + 1) % RECENT;
    }

    pub(super) fn recent(&self) -> impl Iterator<Item = NodeId> {
        self.recent.into_iter().flatten()
    }

    fn advance(&mut self, due: Instant) {
        for item in &mut self.items {
            if item.next <= due {
                let again: &[Duration] = if item.certificate {
                    &CERTIFICATE_AGAIN
                } else {
                    &NEWS_AGAIN
                };
                let delay = again.get(item.told).copied();
                item.told += 1;
                // The far end of the clock stands for "no more".
                item.next = delay.map_or(Instant::from_nanos(u64::MAX), |it| item.first + it);
            }
        }
        self.items
            .retain(|item| item.next != Instant::from_nanos(u64::MAX));
    }
}

/// Statements whose voters are not, by our own view, the member's observers. Mostly we have yet
/// to hear that one observer died and another took its place.
#[derive(Debug)]
pub(super) struct Pending {
    items: Vec<Unsupported>,
}

#[derive(Clone, Copy, Debug)]
struct Unsupported {
    statement: Statement,
    first: Instant,
    last: Instant,
    senders: [Option<NodeId>; 2],
}

impl Pending {
    pub(super) fn new() -> Self {
        Self {
            items: Vec::with_capacity(MOST_PENDING),
        }
    }

    pub(super) fn clear(&mut self) {
        self.items.clear();
    }

    pub(super) fn forget(&mut self, member: NodeId) {
        self.items.retain(|item| item.statement.member != member);
    }

    /// Keeps the statement. Returns since when it is there and how many have sent it.
    fn add(&mut self, now: Instant, statement: &Statement, sender: NodeId) -> (Instant, usize) {
        let same = |item: &Unsupported| {
            let kept = &item.statement;
            (kept.member, kept.incarnation, kept.standing)
                == (statement.member, statement.incarnation, statement.standing)
        };
        if let Some(item) = self.items.iter_mut().find(|item| same(item)) {
            item.statement = *statement;
            item.last = now;
            if !item.senders.contains(&Some(sender))
                && let Some(slot) = item.senders.iter_mut().find(|slot| slot.is_none())
            {
                *slot = Some(sender);
            }
            return (item.first, item.senders.iter().flatten().count());
        }
        if self.items.len() >= MOST_PENDING {
            self.items.remove(0);
        }
        self.items.push(Unsupported {
            statement: *statement,
            first: now,
            last: now,
            senders: [Some(sender), None],
        });
        (now, 1)
    }

    /// One whose view is the same as ours no longer says what it said of a member: it has given in, or
    /// learnt more since.
    pub(super) fn withdraw(&mut self, sender: NodeId) {
        for item in &mut self.items {
            for slot in &mut item.senders {
                *slot = slot.filter(|it| *it != sender);
            }
        }
        self.items
            .retain(|item| item.senders.iter().any(Option::is_some));
    }

    /// What nobody has said again for so long is not said any more.
    fn expire(&mut self, now: Instant, after: Duration) {
        self.items
            .retain(|item| now.saturating_since(item.last) < after);
    }
}

impl<A: Authenticator> Ring<A> {
    /// A member that has proved itself says how another stands, or how we do.
    pub(super) fn consider(
        &mut self,
        now: Instant,
        statement: &Statement,
        sender: NodeId,
        out: &mut Vec<Effect>,
    ) {
        let Some(index) = self.peers.find(statement.member) else {
            return;
        };
        if !self.is_news(index, statement) {
            return;
        }
        if self.is_supported(index, statement) {
            self.believe(now, index, statement, out);
            return;
        }
        self.counters.unsupported += 1;
        if statement.standing.is_down() {
            // Neither its voters nor the sender will vote again; if we observe the member too, our
            // vote may be the one that is missing.
            let until = now + self.profile.heartbeat() * 4;
            let kernel_silent = statement.standing == Standing::NodeDown;
            for voter in statement.voters.as_slice().iter().chain([&sender]) {
                self.votes
                    .cast(now, statement.member, *voter, kernel_silent, until);
            }
        }
        let (first, senders) = self.pending.add(now, statement, sender);
        // Two others say so for a while: it is our own view of the observers that is behind. That a
        // member got as far as a life, one may know alone.
        let others = self.peers.iter().filter(|peer| peer.is_up()).count();
        let heartbeat = self.profile.heartbeat();
        let age = now.saturating_since(first);
        let many = (senders >= 2 || others <= 2) && age >= heartbeat * 4;
        if many || (!statement.standing.is_down() && age >= heartbeat * 20) {
            self.believe(now, index, statement, out);
        }
    }

    /// Looks again at what was not borne out before.
    pub(super) fn consider_pending(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.pending
            .expire(now, self.profile.heartbeat() * UNREPEATED);
        let mut place = 0;
        while let Some(item) = self.pending.items.get(place).copied() {
            let Some(index) = self.peers.find(item.statement.member) else {
                self.pending.items.remove(place);
                continue;
            };
            if !self.is_news(index, &item.statement) {
                self.pending.items.remove(place);
            } else if self.is_supported(index, &item.statement) {
                self.pending.items.remove(place);
                self.believe(now, index, &item.statement, out);
                place = 0; // It may bear out others.
            } else {
                place += 1;
            }
        }
    }

    fn is_news(&self, index: Index, statement: &Statement) -> bool {
        let peer = self.peers.get(index);
        let known = (peer.incarnation, peer.standing);
        (statement.incarnation, statement.standing) > known
            || ((statement.incarnation, statement.standing) == known && !peer.heard_of)
    }

    /// Whether those whose word it is are, as we see it, the member's observers.
    fn is_supported(&self, index: Index, statement: &Statement) -> bool {
        let observers = self.peers.observers_of(index);
        let support = statement
            .voters
            .as_slice()
            .iter()
            .filter_map(|voter| self.peers.find(*voter))
            .filter(|voter| observers.contains(*voter))
            .count();
        // Our own vote, if we have cast one, stands against any life of it.
        let voted = self
            .watches
            .iter()
            .any(|watch| watch.index == index && watch.ballot().is_some());
        let own = usize::from(
            voted
                && statement.standing.is_down()
                && !statement.voters.as_slice().contains(&self.peers.own().id),
        );
        let needed = if statement.by_witness || !statement.standing.is_down() {
            1
        } else {
            observers.majority()
        };
        support > 0 && support + own >= needed
    }

    fn believe(
        &mut self,
        now: Instant,
        index: Index,
        statement: &Statement,
        out: &mut Vec<Effect>,
    ) {
        if index == self.peers.me() {
            if statement.standing.is_down() {
                self.begin_anew(now, statement.incarnation, out);
            } else {
                let next = Incarnation(statement.incarnation.0.saturating_add(1));
                self.raise(now, next, RaiseReason::Behind, out);
            }
        } else {
            self.apply(now, index, statement, out);
        }
    }

    /// Takes a statement over, and says what follows from it.
    pub(super) fn apply(
        &mut self,
        now: Instant,
        index: Index,
        statement: &Statement,
        out: &mut Vec<Effect>,
    ) {
        let down = statement.standing.is_down();
        let incarnation = statement.incarnation;
        let peer = self.peers.get(index);
        let (life, standing) = (peer.incarnation, peer.standing);
        if down {
            self.count_out(index);
        }
        self.peers.set(index, statement, !down);
        let peer = self.peers.get_mut(index);
        peer.nonce = 0;
        let node = peer.node.clone();
        if (life, standing) != (incarnation, statement.standing) {
            self.flood.changed(statement.member);
            self.votes.forget(statement.member);
        }
        // Only who is up and who is not makes a difference for who observes whom.
        self.rearrange |= standing != statement.standing;
        if let Some(watch) = self.watches.iter_mut().find(|watch| watch.index == index) {
            watch.hear(now);
        }
        match Scope::of(statement.standing) {
            None => {
                self.holds.forget(statement.member, incarnation);
                out.push(Effect::MemberUp { node, incarnation });
            }
            Some(scope) => {
                let life_after = Incarnation(incarnation.0.saturating_add(1));
                self.holds.forget(statement.member, life_after);
                out.push(Effect::MemberDown {
                    node,
                    incarnation,
                    scope,
                    timeline: Timeline {
                        last_heartbeat: now - statement.evidence.silent,
                        suspected: now - statement.evidence.suspected,
                        certified: now,
                    },
                });
            }
        }
    }

    /// A member echoed our nonce, so this is its life, and it is in it now.
    pub(super) fn prove(
        &mut self,
        now: Instant,
        index: Index,
        (incarnation, sequence): (Incarnation, u64),
        out: &mut Vec<Effect>,
    ) {
        let own_id = self.peers.own().id;
        let peer = self.peers.get(index);
        if incarnation > peer.incarnation || !peer.heard_of {
            let news = incarnation > peer.incarnation;
            let statement = Statement {
                member: peer.id,
                incarnation,
                voters: Voters::one(own_id),
                ..Statement::default()
            };
            let observed = self.peers.observers_of(index).contains(self.peers.me());
            self.apply(now, index, &statement, out);
            if news && observed {
                self.flood.begin(now, statement.member, false);
            }
        }
        let peer = self.peers.get_mut(index);
        if peer.voters == Voters::NONE {
            peer.voters = Voters::one(own_id);
        }
        peer.proved = true;
        peer.received = Received::up_to(sequence);
        peer.nonce = 0;
    }

    /// Tells everybody what is due: members that are up, and those whom it is about.
    pub(super) fn tick_flood(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if self.flood.deadline().is_none_or(|next| now < next) {
            return;
        }
        let due = now + TOGETHER;
        let mut place = 0;
        while place < self.flood.items.len() {
            let begin = place;
            let (flood, peers) = (&self.flood, &self.peers);
            let life = peers.own().incarnation;
            let packet = self.post.list(life, Kind::Statements, |draft| {
                while let Some(item) = flood.items.get(place) {
                    if item.next <= due
                        && let Some(index) = peers.find(item.member)
                        && !draft.push(&peers.get(index).statement())
                    {
                        break;
                    }
                    place += 1;
                }
            });
            let Some(packet) = packet else {
                break;
            };
            for index in self.peers.indices() {
                let peer = self.peers.get(index);
                let concerned = || {
                    let told = self.flood.items.get(begin..place).unwrap_or_default();
                    told.iter()
                        .any(|item| item.next <= due && item.member == peer.id)
                };
                if index != self.peers.me() && (peer.is_up() || concerned()) {
                    self.post_to(index, &packet, out);
                }
            }
        }
        self.flood.advance(due);
    }

    /// Tells one that goes on in a life that is over.
    pub(super) fn tell_standing(&mut self, now: Instant, index: Index, out: &mut Vec<Effect>) {
        let pace = self.profile.poke_every() * 2;
        let peer = self.peers.get_mut(index);
        if peer
            .told
            .is_some_and(|told| now.saturating_since(told) < pace)
        {
            return;
        }
        peer.told = Some(now);
        let statement = peer.statement();
        self.send(index, Kind::Statements, &statement, out);
    }

    /// The standing of one that is up by our own knowledge, for those that want to know more.
    pub(super) fn is_worth_telling(statement: &Statement) -> bool {
        statement.standing != Standing::Up || statement.voters != Voters::NONE
    }
}
