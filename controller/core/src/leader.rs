//! What the leading replica has decided, and what follows from a change.
//!
//! Three layers, each derived from the one before and each redone only where something changed:
//! *assignments* (which addresses a Service should have), *claims* (which `VirtualIP` objects
//! should exist, with which plan), *statuses* (what Services and pools should show). The
//! [`Outbox`] brings the API server to it.

mod account;
mod adopt;
mod claims;
mod lan;
mod moves;
mod objects;
mod results;
mod rules;
mod services;
mod status;
mod tell;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use herald_model::{
    AdvertisementName, Announce, Epoch, Instant, NamespaceName, NodeName, PoolName, ServiceKey,
    ServiceRef, Uid, VipSegment, VirtualIp,
};

use crate::allocator::{Allocator, Counts, PerFamily, Refusal, Terms};
use crate::balance::Loads;
use crate::controller::Settings;
use crate::io::{Effect, Event, Write, WriteId};
use crate::observed::{Condition, ObservedService, UserObject, Version};
use crate::outbox::{Outbox, Urgency};
use crate::placement;
use crate::world::World;
use moves::Mover;
use waiting::{Turn, Waiting};

/// How long after a pool's numbers have changed those who wait for its addresses are told.
const REFRESH_AFTER: Duration = Duration::from_secs(2);

/// What is written, each under its own key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Key {
    Claim(IpAddr),
    Status(ServiceKey),
    Object(UserObject),
    Event(u64),
}

/// What was decided for a Service.
#[derive(Clone, Debug)]
struct Assignment {
    me: ServiceRef,
    created: i64,
    /// The addresses it should have, in the order of its families.
    target: Vec<IpAddr>,
    /// Addresses it is still a holder of, as its status may still show them.
    leaving: BTreeSet<IpAddr>,
    /// Why it has not what it should have.
    problem: Option<Refusal>,
    /// Why it has one family only, under `PreferDualStack`.
    missing: Option<Refusal>,
    /// Fields of the Service that somebody else owns.
    owned: Option<Owned>,
    /// A status write at this version may or may not have taken place.
    uncertain: Option<Version>,
    /// Whoever led before may be writing it still, at whatever version: until a write of ours is
    /// certain, it stays uncertain.
    contested: bool,
    /// What its status showed when Events last told of it.
    told: Told,
    /// When it was first known to show no address of ours; `None`: it shows one.
    waits_since: Option<Instant>,
}

/// What people were told of a Service.
#[derive(Clone, Debug, Default, PartialEq)]
struct Told {
    ingress: Vec<IpAddr>,
    allocated: Option<Condition>,
    announced: Option<Condition>,
}

impl Told {
    /// What a Service shows now; `ours`: whether an address is Herald's.
    fn by(observed: &ObservedService, ours: impl Fn(IpAddr) -> bool) -> Self {
        Self {
            ingress: observed
                .ingress
                .iter()
                .copied()
                .filter(|a| ours(*a))
                .collect(),
            allocated: observed.allocated.clone(),
            announced: observed.announced.clone(),
        }
    }
}

/// Fields of a Service that somebody else owns.
#[derive(Clone, Debug, Default)]
struct Owned {
    ingress: bool,
    allocated_from: bool,
    message: String,
}

/// What people know of a pool or an advertisement.
#[derive(Clone, Debug)]
struct Known {
    uid: Uid,
    /// Its condition `Ready`.
    ready: Option<Condition>,
    /// What is wrong with it, thing by thing.
    matters: BTreeSet<String>,
}

/// What was decided for an address.
#[derive(Clone, Debug, Default)]
struct Claim {
    plan: Plan,
    /// Moves that the API server has not been seen to have.
    moves: placement::Moves,
    /// What the `VirtualIP` should be; `None`: it should not exist.
    wanted: Option<VirtualIp>,
    /// It rests until then, seconds since 1970.
    rests_until: Option<i64>,
    /// The LAN's answer is waited for until then.
    probing_until: Option<Instant>,
    /// Left alone until then, as it names a Service that may only not have been told of yet.
    untouched_until: Option<Instant>,
    /// Since when nobody announces it, or can; `None`: somebody does.
    unannounced: Option<Instant>,
    /// What the API server said when it refused the last write.
    error: Option<Arc<str>>,
    /// A write at this version, of this or an earlier term, may still take place.
    uncertain: Option<Version>,
    /// Whoever led before may be writing it still, at whatever version: until a write of ours is
    /// certain, it stays uncertain.
    contested: bool,
    /// Services that the claim names still, though it is certain that they are done with it, or not
    /// known who they are: a write that takes them out is all that is to be done.
    released: BTreeSet<ServiceRef>,
}

/// Who is to announce an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Plan {
    epoch: Epoch,
    announce: Announce,
    advertisements: Vec<AdvertisementName>,
    segments: Vec<VipSegment>,
    /// Whether some node may and can.
    eligible: bool,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Leader {
    allocator: Allocator,
    assignments: BTreeMap<ServiceKey, Assignment>,
    /// Services that have not what they should have.
    waiting: Waiting,
    /// The numbers in what is said to those who wait may be of yesterday.
    stale: bool,
    /// When they are put right.
    refresh_at: Option<Instant>,
    claims: BTreeMap<IpAddr, Claim>,
    dirty_services: BTreeSet<(i64, ServiceKey)>,
    dirty_claims: BTreeSet<IpAddr>,
    dirty_statuses: BTreeSet<ServiceKey>,
    /// Claims to look at again at a time.
    timers: BTreeSet<(Instant, IpAddr)>,
    loads: Loads,
    /// When addresses move though their nodes are well.
    moves: Mover,
    /// The claims each node is a candidate for.
    planned_on: BTreeMap<NodeName, BTreeSet<IpAddr>>,
    /// Claims with fewer candidates than there could be.
    short: BTreeSet<IpAddr>,
    reserved: BTreeMap<NodeName, BTreeSet<IpAddr>>,
    /// Addresses that strangers use, or used when last asked for, each with who that is.
    strangers: BTreeMap<IpAddr, Arc<str>>,
    /// Services that are not ours and whose statuses were cleared of what Herald owned.
    cleared: BTreeMap<ServiceKey, Uid>,
    dirty_objects: BTreeSet<UserObject>,
    /// Which state of an object people know of: as it was when it was first seen, or as they were told.
    known_ready: BTreeMap<UserObject, Known>,
    /// When the status of an object was last written.
    written_at: BTreeMap<UserObject, Instant>,
    events: BTreeMap<u64, Event>,
    next_event: u64,
    /// How long Services waited that show an address by now; nobody has asked for these yet.
    waits: Vec<Duration>,
    outbox: Outbox<Key>,
    /// What is being written.
    writing: BTreeMap<WriteId, Write>,
    origin: i64,
}

impl Leader {
    /// Begins a term: reads back what is claimed and decides the rest.
    pub(crate) fn new(
        now: Instant,
        settings: Settings,
        first: WriteId,
        origin: i64,
        world: &World,
    ) -> Self {
        let mut leader = Self {
            allocator: Allocator::default(),
            assignments: BTreeMap::new(),
            waiting: Waiting::default(),
            stale: false,
            refresh_at: None,
            claims: BTreeMap::new(),
            dirty_services: BTreeSet::new(),
            dirty_claims: BTreeSet::new(),
            dirty_statuses: BTreeSet::new(),
            timers: BTreeSet::new(),
            loads: Loads::default(),
            moves: Mover::new(now, settings.rebalancing, world),
            planned_on: BTreeMap::new(),
            short: BTreeSet::new(),
            reserved: BTreeMap::new(),
            strangers: BTreeMap::new(),
            cleared: BTreeMap::new(),
            dirty_objects: BTreeSet::new(),
            known_ready: BTreeMap::new(),
            written_at: BTreeMap::new(),
            events: BTreeMap::new(),
            next_event: 0,
            waits: Vec::new(),
            outbox: Outbox::new(settings.writes_at_once, settings.seed ^ first.0, first),
            writing: BTreeMap::new(),
            origin,
        };
        leader.adopt_all(now, world);
        leader
    }

    pub(crate) const fn set_origin(&mut self, origin: i64) {
        self.origin = origin;
    }

    /// Seconds since 1970.
    fn unix(&self, now: Instant) -> i64 {
        let seconds = now.saturating_since(Instant::ORIGIN).as_secs();
        self.origin.saturating_add_unsigned(seconds)
    }

    pub(crate) const fn next_write(&self) -> WriteId {
        self.outbox.next_id()
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        let others = [
            self.outbox.next_deadline(),
            self.moves.next_deadline(),
            self.refresh_at,
        ];
        timer.into_iter().chain(others.into_iter().flatten()).min()
    }

    /// Redoes what is dirty, layer by layer, then begins writes.
    pub(crate) fn settle(&mut self, now: Instant, world: &mut World, out: &mut Vec<Effect>) {
        while let Some((at, address)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.pop_first();
            self.dirty_claims.insert(address);
        }
        if self.refresh_at.is_some_and(|at| at <= now) {
            self.refresh_at = None;
            self.retry_waiting();
        }
        loop {
            if let Some((_, key)) = self.dirty_services.pop_first() {
                self.evaluate(world, &key);
            } else if let Some(address) = self.dirty_claims.pop_first() {
                self.moves.look_again();
                self.refresh_claim(now, world, address);
                self.move_as_asked(now, world, address);
            } else if let Some(key) = self.waiting.next(&self.allocator) {
                self.evaluate(world, &key);
            } else if let Some(key) = self.dirty_statuses.pop_first() {
                self.refresh_status(now, world, &key);
            } else if !self.rebalance(now, world) {
                break;
            }
        }
        #[cfg(debug_assertions)]
        self.check_waiting(world);
        if std::mem::take(&mut self.stale) && !self.waiting.is_empty() {
            self.refresh_at.get_or_insert(now + REFRESH_AFTER);
        }
        while let Some(object) = self.dirty_objects.pop_first() {
            self.meet_object(world, &object);
            self.want_object(now, object);
        }
        while let Some((id, key)) = self.outbox.begin(now) {
            if let Some(write) = self.content(now, world, &key) {
                self.writing.insert(id, write.clone());
                let write = Box::new(write);
                out.push(Effect::Write { id, write });
            } else {
                self.outbox.done(id);
                if let Key::Object(object) = &key {
                    self.object_shown(world, object);
                }
            }
        }
    }

    /// What is to be written now; `None` if nothing is.
    fn content(&self, now: Instant, world: &World, key: &Key) -> Option<Write> {
        match key {
            Key::Claim(address) => self.claim_write(world, *address),
            Key::Status(key) => self.status_write(now, world, key),
            Key::Object(object) => self.object_write(now, world, object),
            Key::Event(number) => self.events.get(number).cloned().map(Write::RecordEvent),
        }
    }

    pub(crate) fn service_changed(
        &mut self,
        world: &World,
        key: &ServiceKey,
        before: Option<&ObservedService>,
    ) {
        let observed = world.services.get(key);
        let shown =
            |service: &ObservedService| (service.ingress.clone(), service.allocated_from.clone());
        if let Some(assignment) = self.assignments.get_mut(key)
            && observed.map(shown) != before.map(shown)
        {
            // Somebody changed it: what was somebody else's may be ours now.
            assignment.owned = None;
        }
        self.outbox.hurry(&Key::Status(key.clone()));
        self.mark_service(world, key);
    }

    fn mark_service(&mut self, world: &World, key: &ServiceKey) {
        let service = world.services.get(key).and_then(ObservedService::served);
        let created = service.map_or(i64::MIN, |service| service.created);
        self.dirty_services.insert((created, key.clone()));
    }

    /// Looks at everybody who waits.
    fn retry_waiting(&mut self) {
        self.dirty_services.extend(self.waiting.all().cloned());
    }

    pub(crate) fn namespace_changed(&mut self, world: &World, namespace: &NamespaceName) {
        let from = ServiceKey::new(namespace.clone(), "");
        let keys: Vec<ServiceKey> = world
            .services
            .range(from..)
            .take_while(|(key, _)| key.namespace == *namespace)
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            self.mark_service(world, &key);
        }
    }

    pub(crate) fn endpoints_changed(&mut self, world: &World, service: &ServiceKey) {
        let served = world
            .services
            .get(service)
            .and_then(ObservedService::served);
        if served.is_some_and(|service| rules::needs_local_endpoint(world, service))
            && let Some(assignment) = self.assignments.get(service)
        {
            self.dirty_claims.extend(&assignment.target);
        }
    }

    /// A node offers something else than before; `everywhere`: a segment came or went.
    pub(crate) fn node_changed(&mut self, node: &NodeName, everywhere: bool) {
        self.moves.look_again();
        if everywhere {
            self.dirty_claims.extend(self.claims.keys());
            return;
        }
        if let Some(addresses) = self.planned_on.get(node) {
            self.dirty_claims.extend(addresses);
        }
        self.dirty_claims.extend(&self.short);
    }

    pub(crate) fn advertisements_changed(&mut self) {
        self.dirty_claims.extend(self.claims.keys());
    }

    /// Takes anew which addresses are never given because of a node.
    pub(crate) fn reserve_for(&mut self, world: &World, node: &NodeName) {
        let reserved = world.reserved_by(node);
        let before = self.reserved.remove(node).unwrap_or_default();
        if before == reserved {
            if !reserved.is_empty() {
                self.reserved.insert(node.clone(), reserved);
            }
            return;
        }
        for address in reserved.difference(&before) {
            self.allocator.reserve(*address);
            self.mark_pool_of(*address);
        }
        for address in before.difference(&reserved) {
            self.allocator.unreserve(*address);
            self.mark_pool_of(*address);
        }
        self.retry_waiting();
        if !reserved.is_empty() {
            self.reserved.insert(node.clone(), reserved);
        }
    }

    fn hold(&mut self, address: IpAddr, holder: ServiceRef, terms: Terms) {
        self.dirty_claims.insert(address);
        if self.allocator.hold(address, holder, terms) {
            self.mark_pool_of(address);
            self.opened(address);
        }
    }

    fn drop_holder(&mut self, address: IpAddr, holder: &ServiceRef) {
        self.allocator.drop_holder(address, holder);
        if let Some(claim) = self.claims.get_mut(&address) {
            claim.released.insert(holder.clone());
        }
        self.dirty_claims.insert(address);
        self.mark_pool_of(address);
        self.opened(address);
    }

    /// An address may be had that could not be had before, at least by some.
    fn opened(&mut self, address: IpAddr) {
        // Who leaves it and asks for it again holds it still, and may be all who does.
        for holder in self.allocator.holders(address) {
            let assignment = self.assignments.get(&holder.key);
            if let Some(waits) = assignment.filter(|a| a.problem.is_some() || a.missing.is_some()) {
                self.dirty_services.insert((waits.created, holder.key));
            }
        }
        self.waiting.open(&self.allocator, address);
    }

    fn mark_pool_of(&mut self, address: IpAddr) {
        self.stale = true;
        if let Some(pool) = self.allocator.pool_of(address) {
            self.dirty_objects
                .insert(UserObject::Pool(pool.name.clone()));
        }
    }

    fn record(&mut self, event: Event) {
        let number = self.next_event;
        self.next_event += 1;
        self.events.insert(number, event);
        self.outbox.want(Key::Event(number), Urgency::Eventually);
    }

    pub(crate) fn take_waits(&mut self) -> Vec<Duration> {
        std::mem::take(&mut self.waits)
    }

    pub(crate) fn pending(&self) -> usize {
        let pending = |(_, key): &&Turn| {
            self.assignments
                .get(key)
                .is_some_and(|assignment| assignment.problem.is_some())
        };
        self.waiting.all().filter(pending).count()
    }

    pub(crate) fn unannounced(&self) -> usize {
        let is_idle = |(address, claim): &(&IpAddr, &Claim)| {
            claim.unannounced.is_some() && !self.allocator.holders(**address).is_empty()
        };
        self.claims.iter().filter(is_idle).count()
    }

    pub(crate) fn outbox_depth(&self) -> usize {
        self.outbox.depth()
    }

    pub(crate) fn counts(&self, pool: &PoolName) -> PerFamily<Option<Counts>> {
        self.allocator.counts(pool)
    }
}
