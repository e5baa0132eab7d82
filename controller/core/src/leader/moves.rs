//! Addresses that move though the nodes that announce them are well, and what is said of those that
//! leave a node which is about to go.
//!
//! A move is a plan with another first candidate. The former one is the second: it goes on
//! announcing until the new one says that it has the address, and is the first to take it back.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Bound;
use std::time::Duration;

use herald_model::{
    Candidate, Incarnation, Instant, MOVE_TO, NodeName, Phase, SegmentName, VipSegment,
};

use super::Leader;
use crate::balance::{self, Cause, Search, Step};
use crate::controller::Rebalancing;
use crate::falls::Falls;
use crate::io::{Event, Regarding};
use crate::placement::{self, Known, Ledger, Move, Rules};
use crate::world::World;

/// After a speaker has said that it ends, or its node was about to go, the next life is not taken for
/// the sign of a failure for so long.
const CALM: Duration = Duration::from_mins(1);
/// How long a move is remembered, in quiet times: so long the address is not moved again.
const REMEMBERED: u32 = 2;

/// When addresses may move, and what has to be known for it. All of it ends with the term.
#[derive(Debug)]
pub(super) struct Mover {
    settings: Rebalancing,
    /// When to look for something to move; `None`: nothing has changed since nothing was found.
    look_at: Option<Instant>,
    /// Nothing moves before.
    quiet_until: Instant,
    /// The next moves are not before.
    next: Instant,
    made: BTreeMap<(IpAddr, SegmentName), Made>,
    falls: Falls,
    /// The lives of nodes, as they say themselves.
    lives: BTreeMap<NodeName, BTreeMap<SegmentName, Incarnation>>,
    /// Nodes whose end was announced, and until when another life is no wonder.
    calm: BTreeMap<NodeName, Instant>,
}

/// A move that was made.
#[derive(Debug)]
struct Made {
    to: NodeName,
    until: Instant,
}

impl Mover {
    /// The term begins.
    pub(super) fn new(now: Instant, settings: Rebalancing, world: &World) -> Self {
        let nodes = world.speakers.keys();
        Self {
            settings,
            look_at: Some(now),
            quiet_until: now + settings.quiet,
            next: now,
            made: BTreeMap::new(),
            falls: Falls::new(settings.quiet),
            lives: nodes
                .map(|node| (node.clone(), lives_of(world, node)))
                .collect(),
            calm: BTreeMap::new(),
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let at = self.look_at.filter(|_| self.settings.is_on)?;
        Some(at.max(self.quiet_until).max(self.next))
    }

    /// Something changed.
    pub(super) const fn look_again(&mut self) {
        self.look_at = Some(Instant::ORIGIN);
    }

    /// An address is free.
    pub(super) fn forget(&mut self, address: IpAddr) {
        self.made.retain(|(other, _), _| *other != address);
    }

    /// Something failed.
    fn be_quiet(&mut self, now: Instant) {
        self.quiet_until = now + self.settings.quiet;
    }

    fn begin(&mut self, now: Instant) {
        self.next = now + self.settings.interval;
        self.falls.forget(now);
        self.made.retain(|_, made| now < made.until);
        self.calm.retain(|_, until| now < *until);
        // What is not moved now because of them may be when their time is over.
        let made = self.made.values().map(|made| made.until);
        self.look_at = made.chain(self.falls.next_end(now)).min();
    }

    fn is_made(&self, address: IpAddr, segment: &SegmentName) -> bool {
        self.made.contains_key(&(address, segment.clone()))
    }
}

/// The life of a node on each of its segments.
fn lives_of(world: &World, node: &NodeName) -> BTreeMap<SegmentName, Incarnation> {
    let speaker = world.speakers.get(node).into_iter();
    speaker
        .flat_map(|speaker| &speaker.segments)
        .map(|segment| (segment.name.clone(), segment.incarnation))
        .collect()
}

/// Whether a node or its speaker was told to end: what it hands over has not failed.
fn is_ending(world: &World, node: &NodeName) -> bool {
    let speaker = world.speakers.get(node);
    let object = world.nodes.get(node);
    speaker.is_some_and(|speaker| speaker.stopping)
        || object.is_some_and(|node| node.departure.is_some())
}

impl Leader {
    pub(super) const fn ledger(&self, now: Instant) -> Ledger<'_> {
        Ledger {
            now,
            loads: &self.loads,
            falls: &self.moves.falls,
        }
    }

    /// Before something else is told of a node: whether its end has been announced.
    pub(crate) fn end_told(&mut self, now: Instant, world: &World, node: &NodeName) {
        if is_ending(world, node) {
            self.moves.calm.insert(node.clone(), now + CALM);
        }
    }

    /// A speaker said something of its node: another life than before tells of a failure.
    pub(crate) fn lives_told(&mut self, now: Instant, world: &World, node: &NodeName) {
        let lives = lives_of(world, node);
        let is_calm =
            is_ending(world, node) || self.moves.calm.get(node).is_some_and(|until| now < *until);
        let known = self.moves.lives.entry(node.clone()).or_default();
        let mut ended = Vec::new();
        for (segment, life) in lives {
            let before = known.insert(segment.clone(), life).unwrap_or(life);
            if before < life && !is_calm {
                ended.push((segment, before));
            }
        }
        for (segment, life) in ended {
            self.moves.falls.ended(now, &segment, node, life);
            self.moves.be_quiet(now);
        }
    }

    /// A node has no speaker any more.
    pub(crate) fn lives_forgotten(&mut self, node: &NodeName) {
        self.moves.lives.remove(node);
    }

    /// The plan follows a speaker that took an address over.
    pub(super) fn taken_over(
        &mut self,
        now: Instant,
        world: &World,
        address: IpAddr,
        segment: &SegmentName,
        fallen: &Candidate,
    ) {
        if is_ending(world, &fallen.node) {
            return;
        }
        self.moves.be_quiet(now);
        // Where it was brought and not taken, more would fare alike.
        let made = self.moves.made.get(&(address, segment.clone()));
        if made.is_some_and(|made| made.to == fallen.node) {
            let falls = &mut self.moves.falls;
            falls.fell(now, segment, &fallen.node, fallen.incarnation);
        }
    }

    /// Forgets the moves that the API server has by now, and those that nothing came of.
    pub(super) fn settle_moves(
        &mut self,
        address: IpAddr,
        known: Known<'_>,
        planned: &[VipSegment],
    ) {
        if let Some(claim) = self.claims.get_mut(&address) {
            claim.moves.retain(|segment, decided| {
                first(planned, segment) == Some(&decided.to)
                    && first(known.segments, segment) != Some(&decided.to)
            });
        }
    }

    /// Moves what may move now, if anything should; whether something did.
    pub(super) fn rebalance(&mut self, now: Instant, world: &World) -> bool {
        if self.moves.next_deadline().is_none_or(|at| now < at) {
            return false;
        }
        self.moves.begin(now);
        let limit = (self.claims.len() / 100).max(1);
        let mut count = 0;
        let mut preferring = world.advertisements.values();
        if preferring.any(|observed| !observed.advertisement.preferred_nodes.is_empty()) {
            count += self.move_to_preferred(now, world, limit);
        }
        for segment in world.terrain.names() {
            let mut search = Search::default();
            while count < limit
                && let Some(found) = self.next_uneven(now, world, &segment, &mut search)
            {
                let (address, from, step) = found;
                self.make(now, world, address, &segment, &from, &step);
                count += 1;
            }
        }
        if count > 0 {
            self.moves.look_again();
        }
        count > 0
    }

    fn move_to_preferred(&mut self, now: Instant, world: &World, limit: usize) -> usize {
        let addresses: Vec<IpAddr> = self.claims.keys().copied().collect();
        let mut count = 0;
        for address in addresses {
            let segments = self.claims.get(&address).map(|claim| &claim.plan.segments);
            for planned in segments.cloned().into_iter().flatten() {
                if count == limit {
                    return count;
                }
                let step = self.step(now, world, address, &planned.name);
                if let Some((from, step)) = step
                    && matches!(step.cause, Cause::Preferred { .. })
                {
                    self.make(now, world, address, &planned.name, &from, &step);
                    count += 1;
                }
            }
        }
        count
    }

    /// The next address that had better be elsewhere, so that nodes have about as many.
    fn next_uneven<'a>(
        &self,
        now: Instant,
        world: &'a World,
        segment: &SegmentName,
        search: &mut Search<IpAddr>,
    ) -> Option<(IpAddr, NodeName, Step<'a>)> {
        let nodes = world.terrain.lasting(segment);
        let nodes = nodes.map(|node| (self.loads.of(segment, node), node));
        let addresses = |node: &NodeName, after: Option<&IpAddr>| {
            let after = after.map_or(Bound::Unbounded, |after| Bound::Excluded(*after));
            let all = self.planned_on.get(node).into_iter();
            all.flat_map(move |all| all.range((after, Bound::Unbounded)).copied())
        };
        let step = |address: &IpAddr, node: &NodeName| {
            let (from, step) = self.step(now, world, *address, segment)?;
            (from == *node).then_some(step)
        };
        search.next(nodes.collect(), addresses, step)
    }

    /// Where an address had better be on a segment, and who announces it there; `None`: it stays.
    fn step<'a>(
        &self,
        now: Instant,
        world: &'a World,
        address: IpAddr,
        segment: &SegmentName,
    ) -> Option<(NodeName, Step<'a>)> {
        let from = self.at_rest(world, address, segment)?;
        if self.moves.is_made(address, segment) {
            return None;
        }
        let holders = self.allocator.holders(address);
        let rules: Vec<Rules<'_>> = self.rules_of(world, address, &holders)?;
        let places = placement::places(&rules, &world.terrain, segment, self.ledger(now));
        let load = |node: &NodeName| self.loads.of(segment, node);
        let step = balance::better(from, &places, load)?;
        Some((from.clone(), step))
    }

    /// Moves an address to where people want it, once what was planned before is done.
    pub(super) fn move_as_asked(&mut self, now: Instant, world: &World, address: IpAddr) {
        let observed = world.vips.get(&address);
        let Some(wanted) = observed.and_then(|observed| observed.move_to.as_ref()) else {
            return;
        };
        let holders = self.allocator.holders(address);
        let (Some(claim), Some(rules)) = (
            self.claims.get(&address),
            self.rules_of(world, address, &holders),
        ) else {
            return;
        };
        let segments = claim.plan.segments.iter();
        let segments: Vec<SegmentName> = segments.map(|segment| segment.name.clone()).collect();
        let mut steps = Vec::new();
        for segment in segments {
            let from = self.at_rest(world, address, &segment);
            let Some(from) = from.filter(|from| *from != wanted).cloned() else {
                continue;
            };
            let places = placement::places(&rules, &world.terrain, &segment, self.ledger(now));
            if let Some(place) = places.iter().find(|place| place.node == wanted) {
                let step = Step {
                    to: place.node,
                    cause: Cause::Asked,
                };
                steps.push((segment, from, step));
            }
        }
        for (segment, from, step) in steps {
            self.make(now, world, address, &segment, &from, &step);
        }
    }

    /// Who announces an address on a segment, if that is as planned and known to all.
    fn at_rest(&self, world: &World, address: IpAddr, segment: &SegmentName) -> Option<&NodeName> {
        let claim = self.claims.get(&address)?;
        let observed = world.vips.get(&address)?;
        let first = first(&claim.plan.segments, segment)?;
        let is_announced = observed.holdings.iter().any(|holding| {
            holding.segment == *segment
                && holding.node == *first
                && holding.epoch == observed.vip.epoch
        });
        let is_known = observed.vip.segments == claim.plan.segments
            && observed.vip.epoch == claim.plan.epoch
            && observed.vip.phase == Phase::Active
            && claim.uncertain.is_none();
        (is_announced && is_known).then_some(first)
    }

    fn make(
        &mut self,
        now: Instant,
        world: &World,
        address: IpAddr,
        segment: &SegmentName,
        from: &NodeName,
        step: &Step<'_>,
    ) {
        let to = step.to;
        let made = Made {
            to: to.clone(),
            until: now + self.moves.settings.quiet * REMEMBERED,
        };
        self.moves.made.insert((address, segment.clone()), made);
        let why = match step.cause {
            Cause::Uneven {
                from: many,
                to: few,
            } => format!("{from} announced {many}, {to} {few}"),
            Cause::Preferred {
                from: less,
                to: more,
            } => format!("{to} is preferred by {more}, {from} by {less}"),
            Cause::Asked => format!("its annotation {MOVE_TO} asks for that"),
        };
        if let Some(claim) = self.claims.get_mut(&address) {
            let decided = Move {
                from: from.clone(),
                to: to.clone(),
            };
            claim.moves.insert(segment.clone(), decided);
        }
        self.refresh_claim(now, world, address);
        let claim = self.claims.get(&address);
        if claim.is_some_and(|claim| first(&claim.plan.segments, segment) == Some(to)) {
            self.tell_of_move(address, from, to, &why);
        }
    }

    /// Tells why addresses leave nodes that are about to go.
    pub(super) fn tell_of_departures(
        &mut self,
        world: &World,
        address: IpAddr,
        known: Known<'_>,
        before: &[VipSegment],
        planned: &[VipSegment],
    ) {
        for segment in before {
            let (Some(from), Some(to)) =
                (first(before, &segment.name), first(planned, &segment.name))
            else {
                continue;
            };
            let is_holder = known
                .holdings
                .iter()
                .any(|holding| holding.segment == segment.name && holding.node == *from);
            let node = world.nodes.get(from);
            if let Some(departure) = node.and_then(|node| node.departure)
                && from != to
                && is_holder
            {
                self.tell_of_move(address, from, to, &format!("{from} {departure}"));
            }
        }
    }

    fn tell_of_move(&mut self, address: IpAddr, from: &NodeName, to: &NodeName, why: &str) {
        for holder in self.allocator.holders(address) {
            self.record(Event {
                regarding: Regarding::Service {
                    key: holder.key,
                    uid: holder.uid,
                },
                warning: false,
                reason: "Moving".into(),
                note: format!("{address} is to move from {from} to {to}: {why}"),
            });
        }
    }
}

/// The first candidate on a segment.
fn first<'a>(segments: &'a [VipSegment], segment: &SegmentName) -> Option<&'a NodeName> {
    let planned = segments.iter().find(|planned| planned.name == *segment)?;
    planned.candidates.first().map(|candidate| &candidate.node)
}
