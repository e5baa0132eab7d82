//! The machine: keeps what it is told, and decides while it leads.

use std::net::IpAddr;
use std::time::Duration;

use herald_model::{AddressRange, Instant, NodeName, PoolName, ServiceKey};

use crate::account::{AddressAccount, Obstacle, ServiceAccount};
use crate::allocator::Allocator;
use crate::io::{Effect, Input, WriteId, WriteResult};
use crate::leader::Leader;
use crate::observed::{
    ObservedAdvertisement, ObservedPool, ObservedService, ObservedVip, PoolStatus, UserObject,
};
use crate::snapshot::{PoolSnapshot, Snapshot};
use crate::world::{Invalid, World};

/// What the controller is started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How many writes may be under way.
    pub writes_at_once: usize,
    /// Seeds the spread of retries.
    pub seed: u64,
    /// Whether and when addresses move to nodes that have fewer.
    pub rebalancing: Rebalancing,
}

/// Whether and when addresses move though the nodes that announce them are well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebalancing {
    /// Whether they do at all.
    pub is_on: bool,
    /// How long nothing moves after a failure and after the start of a term. After its first failure
    /// nothing is brought to a node for as long.
    pub quiet: Duration,
    /// The time between moves: in each, one address in a hundred may move, and at least one.
    pub interval: Duration,
}

impl Default for Rebalancing {
    fn default() -> Self {
        Self {
            is_on: true,
            quiet: Duration::from_mins(5),
            interval: Duration::from_mins(1),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            writes_at_once: 32,
            seed: 0,
            rebalancing: Rebalancing::default(),
        }
    }
}

/// See the crate's documentation.
#[derive(Debug)]
pub struct Controller {
    settings: Settings,
    world: World,
    synced: bool,
    /// The end of the lease, of a replica that leads.
    leads_until: Option<Instant>,
    leader: Option<Box<Leader>>,
    next_write: WriteId,
    /// Seconds since 1970 at the origin of the monotonic clock.
    origin: i64,
}

impl Controller {
    /// A controller that has been told nothing.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            world: World::default(),
            synced: false,
            leads_until: None,
            leader: None,
            next_write: WriteId(0),
            origin: 0,
        }
    }

    /// Takes an input and appends what is to be done.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Effect>) {
        self.note(now, input);
        self.settle(now, out);
    }

    /// When [`Self::on_deadline`] has something to do; `None`: not before the next input.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.leader
            .as_ref()
            .and_then(|leader| leader.next_deadline())
    }

    /// Does what is due; called early it does nothing.
    pub fn on_deadline(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.settle(now, out);
    }

    /// Takes an input without deciding anything yet; [`Self::on_deadline`] decides. With many
    /// inputs at hand, as after a start, it is better to decide once.
    pub fn note(&mut self, now: Instant, input: Input) {
        self.obey_lease(now);
        match input {
            Input::WallClockSet { origin } => {
                self.origin = origin;
                if let Some(leader) = &mut self.leader {
                    leader.set_origin(origin);
                }
            }
            Input::Synced => self.synced = true,
            Input::LeadershipGained { until } => self.leads_until = Some(until),
            Input::LeadershipLost => self.step_down(),
            Input::WriteDone { id, result } => self.note_result(now, id, result),
            input => self.note_object(now, input),
        }
        if self.synced && self.leads_until.is_some() && self.leader.is_none() {
            let leader = Leader::new(
                now,
                self.settings,
                self.next_write,
                self.origin,
                &self.world,
            );
            self.leader = Some(Box::new(leader));
        }
    }

    fn step_down(&mut self) {
        self.leads_until = None;
        if let Some(leader) = self.leader.take() {
            self.next_write = leader.next_write();
        }
    }

    /// That no address is given twice rests on the claims, and on there being one who decides: two, each
    /// with writes of its own under way, would not see what the other is about to do.
    fn obey_lease(&mut self, now: Instant) {
        if self.leads_until.is_some_and(|until| now >= until) {
            self.step_down();
        }
    }

    fn settle(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.obey_lease(now);
        if let Some(leader) = &mut self.leader {
            leader.settle(now, &mut self.world, out);
        }
    }

    fn note_result(&mut self, now: Instant, id: WriteId, result: WriteResult) {
        if let Some(leader) = &mut self.leader {
            leader.note_result(now, &mut self.world, id, result);
        } else if let WriteResult::VipWritten(vip) = result {
            // A write of a term that is over: what it made is there all the same.
            self.world.apply_vip(*vip);
        }
    }

    fn note_object(&mut self, now: Instant, input: Input) {
        match input {
            Input::ServiceApplied(service) => {
                let key = service.key.clone();
                let before = self.world.services.get(&key).cloned();
                if self.world.apply_service(*service)
                    && let Some(leader) = &mut self.leader
                {
                    leader.service_changed(&self.world, &key, before.as_ref());
                }
            }
            Input::ServiceDeleted { key, uid } => {
                let known = self.world.services.get(&key);
                if known.is_some_and(|service| service.identity.uid == uid) {
                    self.world.services.remove(&key);
                    if let Some(leader) = &mut self.leader {
                        leader.service_changed(&self.world, &key, None);
                    }
                }
            }
            Input::PoolApplied(pool) => self.note_pool(*pool),
            Input::PoolDeleted(name) => {
                self.world.pools.remove(&name);
                self.world.invalid.remove(&UserObject::Pool(name.clone()));
                if let Some(leader) = &mut self.leader {
                    leader.pool_deleted(&self.world, &name);
                }
            }
            Input::AdvertisementApplied(object) => self.note_advertisement(*object),
            Input::AdvertisementDeleted(name) => {
                let was_there = self.world.advertisements.remove(&name).is_some();
                self.world.invalid.remove(&UserObject::Advertisement(name));
                if let Some(leader) = &mut self.leader
                    && was_there
                {
                    leader.advertisements_changed();
                }
            }
            Input::ObjectInvalid {
                object,
                uid,
                message,
                ready,
            } => {
                let invalid = Invalid {
                    uid,
                    message,
                    ready,
                };
                self.world.invalid.insert(object.clone(), invalid);
                if let Some(leader) = &mut self.leader {
                    leader.object_changed(&object);
                }
            }
            Input::VipApplied(vip) => self.note_vip(now, *vip),
            Input::VipInvalid { address } => {
                self.world.unreadable_vips.insert(address);
                if let Some(leader) = &mut self.leader {
                    leader.vip_changed(now, &self.world, address);
                }
            }
            Input::VipDeleted { address, uid } => {
                if self.world.delete_vip(address, &uid)
                    && let Some(leader) = &mut self.leader
                {
                    leader.vip_changed(now, &self.world, address);
                }
            }
            other => self.note_place(now, other),
        }
    }

    fn note_pool(&mut self, pool: ObservedPool) {
        let name = pool.pool.name.clone();
        let before = self.world.pools.insert(name.clone(), pool);
        let was_invalid = self
            .world
            .invalid
            .remove(&UserObject::Pool(name.clone()))
            .is_some();
        if let Some(leader) = &mut self.leader {
            leader.pool_applied(&self.world, &name, before.as_ref(), was_invalid);
        }
    }

    fn note_advertisement(&mut self, object: ObservedAdvertisement) {
        let name = object.advertisement.name.clone();
        let advertisement = object.advertisement.clone();
        let before = self.world.advertisements.insert(name.clone(), object);
        let object = UserObject::Advertisement(name);
        self.world.invalid.remove(&object);
        if let Some(leader) = &mut self.leader {
            if before.is_none_or(|before| before.advertisement != advertisement) {
                leader.advertisements_changed();
            }
            leader.object_changed(&object);
        }
    }

    fn note_vip(&mut self, now: Instant, vip: ObservedVip) {
        let address = vip.vip.address;
        let before = self
            .world
            .vips
            .get(&address)
            .map(|vip| vip.identity.clone());
        let changed = before.as_ref() != Some(&vip.identity);
        if changed
            && self.world.apply_vip(vip)
            && let Some(leader) = &mut self.leader
        {
            leader.vip_changed(now, &self.world, address);
        }
    }

    /// Nodes, speakers, namespaces, endpoints: what decides where, not what.
    fn note_place(&mut self, now: Instant, input: Input) {
        let segments = self.world.terrain.names();
        let ipvs = self.world.has_ipvs();
        let mut nodes: Vec<NodeName> = Vec::new();
        match input {
            Input::NodeApplied(node) => {
                let name = node.name.clone();
                let pods = node.pod_ranges.clone();
                let before = self.pod_ranges(&name);
                self.note_end(now, &name);
                if self.world.set_node(&name, Some(*node)) {
                    nodes.push(name.clone());
                }
                self.note_reserved(&name);
                self.note_cluster_ranges(before != pods);
            }
            Input::NodeDeleted(name) => {
                let before = self.pod_ranges(&name);
                if self.world.set_node(&name, None) {
                    nodes.push(name.clone());
                }
                self.note_reserved(&name);
                self.note_cluster_ranges(!before.is_empty());
            }
            Input::SpeakerApplied(speaker) => {
                let name = speaker.node.clone();
                self.note_end(now, &name);
                if self.world.set_speaker(&name, Some(*speaker)) {
                    nodes.push(name.clone());
                }
                if let Some(leader) = &mut self.leader {
                    leader.lives_told(now, &self.world, &name);
                }
                self.note_reserved(&name);
            }
            Input::SpeakerDeleted(name) => {
                if let Some(leader) = &mut self.leader {
                    leader.lives_forgotten(&name);
                }
                if self.world.set_speaker(&name, None) {
                    nodes.push(name.clone());
                }
                self.note_reserved(&name);
            }
            Input::SpeakerPodApplied(pod) => {
                let name = std::sync::Arc::clone(&pod.name);
                nodes = self.world.set_pod(&name, Some(pod));
            }
            Input::SpeakerPodDeleted(name) => nodes = self.world.set_pod(&name, None),
            Input::ServiceRangesApplied(name, ranges) => {
                let before = self.world.service_ranges.insert(name, ranges.clone());
                self.note_cluster_ranges(before != Some(ranges));
            }
            Input::ServiceRangesDeleted(name) => {
                let before = self.world.service_ranges.remove(&name);
                self.note_cluster_ranges(before.is_some());
            }
            Input::NamespaceApplied(name, labels) => {
                if self.world.set_namespace(name.clone(), Some(labels))
                    && let Some(leader) = &mut self.leader
                {
                    leader.namespace_changed(&self.world, &name);
                }
            }
            Input::NamespaceDeleted(name) => {
                self.world.set_namespace(name, None);
            }
            Input::SliceApplied(slice) => {
                let service = slice.service.clone();
                if self.world.apply_slice(slice)
                    && let Some(leader) = &mut self.leader
                {
                    leader.endpoints_changed(&self.world, &service);
                }
            }
            Input::SliceDeleted { service, name } => {
                if self.world.delete_slice(&service, &name)
                    && let Some(leader) = &mut self.leader
                {
                    leader.endpoints_changed(&self.world, &service);
                }
            }
            // Every other input is taken before.
            _ => {}
        }
        if let Some(leader) = &mut self.leader
            && !nodes.is_empty()
        {
            let everywhere =
                segments != self.world.terrain.names() || ipvs != self.world.has_ipvs();
            for node in &nodes {
                leader.node_changed(node, everywhere);
            }
        }
    }

    /// Something else will be told of a node: was it about to end?
    fn note_end(&mut self, now: Instant, node: &NodeName) {
        if let Some(leader) = &mut self.leader {
            leader.end_told(now, &self.world, node);
        }
    }

    fn note_reserved(&mut self, node: &NodeName) {
        if let Some(leader) = &mut self.leader {
            leader.reserve_for(&self.world, node);
        }
    }

    fn pod_ranges(&self, node: &NodeName) -> Vec<AddressRange> {
        let known = self.world.nodes.get(node);
        known.map_or_else(Vec::new, |node| node.pod_ranges.clone())
    }

    fn note_cluster_ranges(&mut self, changed: bool) {
        if let Some(leader) = &mut self.leader
            && changed
        {
            leader.cluster_ranges_changed(&self.world);
        }
    }

    /// How a Service came to its addresses, or why it has none; `None`: it is not ours, or this replica
    /// does not lead.
    pub fn service_account(&self, key: &ServiceKey) -> Option<ServiceAccount> {
        let leader = self.leader.as_ref()?;
        leader.service_account(&self.world, key)
    }

    /// Who may announce an address, and what is planned; `None`: there is no claim on it, or this
    /// replica does not lead.
    pub fn address_account(&self, address: IpAddr) -> Option<AddressAccount> {
        let leader = self.leader.as_ref()?;
        leader.address_account(&self.world, address)
    }

    /// What speaks against a node as an announcer of anything, whatever the address: of itself, or on
    /// all of its interfaces.
    pub fn node_obstacles(&self, node: &NodeName) -> Vec<Obstacle> {
        self.world.node_obstacles(node)
    }

    /// What the status of a pool should say; `None`: there is no such pool, or this replica does not
    /// lead.
    pub fn pool_status(&self, now: Instant, pool: &PoolName) -> Option<PoolStatus> {
        let leader = self.leader.as_ref()?;
        leader.pool_status(now, &self.world, pool)
    }

    /// Pools, and what became of their addresses; `None`: this replica does not lead.
    pub fn allocator(&self) -> Option<&Allocator> {
        Some(self.leader.as_ref()?.allocator())
    }

    /// A Service that was told of.
    pub fn service(&self, key: &ServiceKey) -> Option<&ObservedService> {
        self.world.services.get(key)
    }

    /// A claim that was told of or made.
    pub fn vip(&self, address: IpAddr) -> Option<&ObservedVip> {
        self.world.vips.get(&address)
    }

    /// The Services that were told of, ours and others.
    pub fn services(&self) -> impl Iterator<Item = &ObservedService> {
        self.world.services.values()
    }

    /// The claims that were told of or made.
    pub fn vips(&self) -> impl Iterator<Item = &ObservedVip> {
        self.world.vips.values()
    }

    /// How long Services waited that were given an address since this was last asked: from when this
    /// replica led and knew of each until its status showed the address. One that is given another
    /// address instead did not wait.
    pub fn take_waits(&mut self) -> Vec<Duration> {
        let leader = self.leader.as_mut();
        leader.map_or_else(Vec::new, |leader| leader.take_waits())
    }

    /// The state in numbers.
    pub fn snapshot(&self) -> Snapshot {
        let served = |service: &&ObservedService| service.served().is_some();
        let mut snapshot = Snapshot {
            synced: self.synced,
            leading: self.leader.is_some(),
            services: self.world.services.values().filter(served).count(),
            claims: self.world.vips.len(),
            ..Snapshot::default()
        };
        if let Some(leader) = &self.leader {
            snapshot.pending = leader.pending();
            snapshot.unannounced = leader.unannounced();
            snapshot.outbox = leader.outbox_depth();
            snapshot.pools = self
                .world
                .pools
                .keys()
                .map(|name| PoolSnapshot {
                    name: name.clone(),
                    counts: leader.counts(name),
                })
                .collect();
        }
        snapshot
    }
}
