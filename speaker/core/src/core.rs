//! The machine.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use herald_dataplane::{Desired, Targets};
use herald_l2::Pace;
use herald_model::{
    IfIndex, Incarnation, Instant, InterfaceName, InterfacePattern, MacAddress, Node, NodeName,
    SegmentName, Service, ServiceEndpoints, ServiceKey,
};
use herald_ring::KeyId;

use crate::forwarding::{Reach, cluster_targets, is_unfit, no_targets};
use crate::input::{
    Cache, Effect, Grants, Input, KernelForwarding, ObservedSpeaker, ObservedVip, SpeakerReport,
    WriteOutcome,
};
use crate::ring::RingKeys;
use crate::uplinks::{Interfaces, Uplink};
use crate::vip::Vip;
use crate::writer::Writer;
use data_plane::DataPlane;
pub(crate) use data_plane::SEED;
pub use election::Elections;
pub use overview::{Announced, Overview};
use ring::{Right, RingState};
use stop::{Crash, Stopping};
pub use verify::Verified;
use verify::Verifying;

mod conflict;
mod data_plane;
mod election;
mod hold;
mod overview;
mod probe;
mod report;
mod ring;
mod stop;
mod verify;

/// How long a stranger's claim is remembered.
const CONFLICT: Duration = Duration::from_mins(1);
/// How long after a peer's claim an address is defended: by then the watches have told whose it is.
const DEFENCE: Duration = Duration::from_secs(2);
/// Between two fresh looks at everything.
const REFRESH: Duration = Duration::from_secs(10);
/// When something that the kernel refused is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// What a core is made with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node it decides for.
    pub node: NodeName,
    /// The program's version, for the `Speaker` object.
    pub version: Arc<str>,
    /// The kernel's boot id.
    pub boot_id: Arc<str>,
    /// Whether to take part, after a boot of the node, no sooner than kube-proxy has written its rules: see
    /// [`Input::RulesWritten`].
    pub awaits_rules: bool,
    /// Whether echo requests to an address held here are dropped.
    pub ignores_echo: bool,
    /// Interfaces on which nothing is announced.
    pub excluded_interfaces: Vec<InterfacePattern>,
    /// How many frames each interface sends to announce addresses.
    pub pace: Pace,
    /// Seconds since 1970 at [`Instant::ORIGIN`].
    pub wall_origin: i64,
}

impl Config {
    /// A configuration for a node, with nothing excluded and nothing awaited.
    pub fn new(node: NodeName) -> Self {
        Self {
            node,
            version: Arc::from(""),
            boot_id: Arc::from(""),
            awaits_rules: false,
            ignores_echo: false,
            excluded_interfaces: Vec::new(),
            pace: Pace::default(),
            wall_origin: 0,
        }
    }
}

/// Decides for one node. See the crate's documentation.
#[derive(Debug)]
pub struct Core {
    config: Config,
    vips: BTreeMap<IpAddr, Vip>,
    services: BTreeMap<ServiceKey, Service>,
    /// Which addresses list a Service.
    claims: BTreeMap<ServiceKey, BTreeSet<IpAddr>>,
    endpoints: BTreeMap<ServiceKey, ServiceEndpoints>,
    nodes: BTreeMap<NodeName, Node>,
    speakers: BTreeMap<NodeName, ObservedSpeaker>,
    synced: BTreeSet<Cache>,
    /// Caches that still hold what a snapshot on disk said.
    restored: BTreeSet<Cache>,

    interfaces: Interfaces,
    segment_names: BTreeMap<InterfaceName, SegmentName>,
    uplinks: BTreeMap<SegmentName, Uplink>,
    /// Whether kube-proxy here runs in mode ipvs.
    ipvs: bool,
    /// Whether the kernel here forwards; `None`: not known.
    kernel: Option<KernelForwarding>,
    ports: BTreeMap<IfIndex, Port>,
    incarnations: BTreeMap<SegmentName, Incarnation>,
    /// The lives in which nothing can be served any more.
    lame: BTreeMap<SegmentName, Incarnation>,
    groups: BTreeMap<(IfIndex, Ipv6Addr), BTreeSet<IpAddr>>,
    /// Neighbour entries, some of an earlier life of this program, not looked at yet.
    found_neighbours: BTreeMap<(IfIndex, IpAddr), MacAddress>,

    /// Whether kube-proxy has written its rules in this boot, as far as we know.
    rules_written: bool,
    /// Whether this node takes part in rings. Once it does, it goes on.
    takes_part: bool,
    rings: BTreeMap<SegmentName, RingState>,
    /// Who has which right to an address on a segment, also to addresses not known here yet.
    rights: BTreeMap<(IpAddr, SegmentName), Right>,
    /// The keys in the Secret, oldest first.
    secret_keys: Vec<KeyId>,
    ring_keys: RingKeys,
    /// Nodes that take no traffic: the observers found them dead, or they say so themselves.
    dead: BTreeSet<NodeName>,

    data_plane: DataPlane,
    cluster: Arc<Targets>,
    reach: BTreeMap<SegmentName, Reach>,
    report_writer: Writer<SpeakerReport>,
    grants: Option<Grants>,
    stopping: Option<Stopping>,
    crash: Crash,
    exited: bool,
    refreshed_at: Option<Instant>,
    /// Strangers heard of so far, each as often as it begins.
    conflicts: u64,
    elections: Elections,
    /// How many frames announce everything once that an interface holds.
    frames: BTreeMap<IfIndex, u64>,
    verifying: Verifying,

    dirty: Dirty,
    timers: BTreeSet<(Instant, Timer)>,
}

/// An interface that layer 2 was told of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Port {
    told: herald_l2::Port,
    state: PortState,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum PortState {
    Opening,
    Open,
    Failed { reason: Arc<str> },
}

/// What has to be looked at.
#[derive(Debug, Default)]
struct Dirty {
    /// Since when, which is at once the deadline.
    since: Option<Instant>,
    vips: BTreeSet<IpAddr>,
    all_vips: bool,
    uplinks: bool,
    nodes: bool,
    /// Who is in the rings, and with which keys.
    members: bool,
    /// Addresses that are to be defended if they are still held.
    challenged: BTreeSet<IpAddr>,
    /// Segments on which our life is to end.
    lame: BTreeSet<SegmentName>,
    /// Whether what the watches said may be old.
    stale: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Vip(IpAddr),
    Defence(IpAddr),
    Probe(IpAddr),
    Port(IfIndex),
    DataPlane,
    Rested,
    Ring,
    Speaker,
    HandOver,
    Stop,
    Verify,
}

impl Core {
    /// A core that knows nothing yet.
    pub fn new(config: Config) -> Self {
        let ignores_echo = config.ignores_echo;
        Self {
            config,
            vips: BTreeMap::new(),
            services: BTreeMap::new(),
            claims: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            nodes: BTreeMap::new(),
            speakers: BTreeMap::new(),
            synced: BTreeSet::new(),
            restored: BTreeSet::new(),
            interfaces: Interfaces::default(),
            segment_names: BTreeMap::new(),
            uplinks: BTreeMap::new(),
            ipvs: false,
            kernel: None,
            ports: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            lame: BTreeMap::new(),
            groups: BTreeMap::new(),
            found_neighbours: BTreeMap::new(),
            rules_written: false,
            takes_part: false,
            rings: BTreeMap::new(),
            rights: BTreeMap::new(),
            secret_keys: Vec::new(),
            ring_keys: RingKeys(None),
            dead: BTreeSet::new(),
            data_plane: DataPlane {
                desired: Arc::new(Desired {
                    seed: SEED,
                    ignores_echo,
                    ..Desired::default()
                }),
                ..DataPlane::default()
            },
            cluster: cluster_targets(&BTreeMap::new(), &BTreeSet::new()),
            reach: BTreeMap::new(),
            report_writer: Writer::default(),
            grants: None,
            stopping: None,
            crash: Crash::default(),
            exited: false,
            refreshed_at: None,
            conflicts: 0,
            elections: Elections::default(),
            frames: BTreeMap::new(),
            verifying: Verifying::default(),
            dirty: Dirty::default(),
            timers: BTreeSet::new(),
        }
    }

    /// Records what happened. What follows from it comes out of [`Self::on_deadline`], which is
    /// due at once.
    pub fn handle(&mut self, now: Instant, input: Input) {
        match input {
            Input::VipApplied(_)
            | Input::VipDeleted(_)
            | Input::ServiceApplied(_)
            | Input::ServiceDeleted(_)
            | Input::EndpointsApplied(_)
            | Input::EndpointsDeleted(_)
            | Input::NodeApplied { .. }
            | Input::NodeDeleted(_)
            | Input::SpeakerDeleted(_) => self.object_changed(input),
            Input::SpeakerApplied(ref speaker) => {
                if speaker.node == self.config.node {
                    self.hear_of_ourselves(now, speaker);
                }
                self.object_changed(input);
            }
            Input::Synced(cache) => {
                self.synced.insert(cache);
                self.dirty.uplinks = true;
                self.dirty.all_vips = true;
            }
            Input::LinkApplied(_)
            | Input::LinkRemoved(_)
            | Input::AddressAdded { .. }
            | Input::AddressRemoved { .. } => self.interface_changed(input),
            Input::GatewaysKnown(gateways) => self.interfaces.set_gateways(gateways),
            Input::NeighbourFound {
                interface,
                address,
                mac,
            } => {
                self.found_neighbours.insert((interface, address), mac);
            }
            Input::PortOpened(index) => self.port_answered(index, PortState::Open),
            Input::PortFailed { interface, reason } => {
                self.port_answered(interface, PortState::Failed { reason });
                self.timers.insert((now + RETRY, Timer::Port(interface)));
            }
            Input::DataPlaneKnown(report) => self.data_plane_known(report),
            Input::KernelForwards(kernel) => self.kernel = Some(kernel),
            Input::Granted(grants) => self.grants = Some(grants),
            Input::RulesWritten => {
                self.rules_written = true;
                self.dirty.members = true;
            }
            Input::DataPlaneApplied {
                generation,
                outcome,
            } => self.data_plane_applied(now, generation, outcome),
            Input::DataPlaneChecked(wrong) => self.data_plane_checked(wrong),
            Input::NeighbourFailed { interface, address } => {
                self.neighbour_failed(now, interface, address);
            }
            Input::VipStatusWritten { address, outcome } => {
                self.vip_status_written(now, address, outcome);
            }
            Input::SpeakerWritten(outcome) => self.speaker_written(now, outcome),
            Input::ForeignClaim {
                interface,
                address,
                mac,
            } => self.foreign_claim(now, interface, address, mac),
            Input::Restored(cache) => {
                self.restored.insert(cache);
            }
            Input::Renewed(cache) => {
                self.restored.remove(&cache);
                self.dirty.all_vips = true;
            }
            Input::Probed {
                interface,
                address,
                user,
            } => self.probed(now, interface, address, user),
            Input::RingSaid { segment, event } => self.ring_said(now, &segment, event),
            Input::RingKeysKnown(ids) => {
                self.secret_keys = ids;
                self.dirty.members = true;
            }
            // A process that is ended removes nothing: the next one goes on.
            Input::Stopping => self.begin_to_stop(now, false),
        }
        self.dirty.since.get_or_insert(now);
    }

    /// When [`Self::on_deadline`] is to be called.
    pub fn next_deadline(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [self.dirty.since, timer].into_iter().flatten().min()
    }

    /// Decides; early calls do nothing.
    pub fn on_deadline(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.fire_timers(now);
        if self.dirty.since.take().is_none() {
            return;
        }
        if self.crash.is_asked {
            out.push(Effect::Crash);
            return;
        }
        if std::mem::take(&mut self.dirty.nodes) {
            self.dead = no_targets(&self.nodes, &self.speakers, self.dead_nodes());
            self.cluster = cluster_targets(&self.nodes, &self.dead);
            self.reach = Reach::of_segments(&self.speakers, &self.cluster, |segment, node| {
                self.rings
                    .get(segment)
                    .is_some_and(|ring| ring.has_lost(node))
            });
            self.dirty.all_vips = true;
            self.data_plane.is_urgent = true;
        }
        if std::mem::take(&mut self.dirty.uplinks) {
            self.update_uplinks(out);
            self.dirty.members = true;
        }
        if std::mem::take(&mut self.dirty.members) {
            self.update_rings(out);
        }
        if self.is_synced() {
            self.update_vips(now, out);
            self.update_data_plane(now, out);
            self.announce(now, out);
            self.remove_found_neighbours(now, out);
            self.write_statuses(now, out);
        }
        self.defend(out);
        self.verify(now, out);
        self.tell_unverified(out);
        self.refresh(now, out);
        self.write_report(now, out);
        self.stop(now, out);
    }

    /// Whether everything is complete that a decision rests on.
    fn is_synced(&self) -> bool {
        Cache::ALL.iter().all(|cache| self.synced.contains(cache))
    }

    fn object_changed(&mut self, input: Input) {
        self.hurry_report();
        match input {
            Input::VipApplied(observed) => self.vip_applied(observed),
            Input::VipDeleted(address) => {
                self.dirty.vips.insert(address);
                self.vip_deleted(address);
            }
            Input::ServiceApplied(service) => {
                self.mark_service(&service.key);
                self.services.insert(service.key.clone(), *service);
            }
            Input::ServiceDeleted(key) => {
                self.services.remove(&key);
                self.mark_service(&key);
            }
            Input::EndpointsApplied(endpoints) => {
                self.mark_service(&endpoints.service);
                self.endpoints.insert(endpoints.service.clone(), endpoints);
            }
            Input::EndpointsDeleted(key) => {
                self.endpoints.remove(&key);
                self.mark_service(&key);
            }
            Input::NodeApplied { node, segments } => self.node_applied(node, segments),
            Input::NodeDeleted(name) => {
                self.nodes.remove(&name);
                self.dirty.nodes = true;
            }
            Input::SpeakerApplied(speaker) => {
                self.dirty.members = true;
                self.dirty.nodes |= self.speakers.get(&speaker.node).is_none_or(|before| {
                    before.report.segments != speaker.report.segments
                        || is_unfit(before) != is_unfit(&speaker)
                });
                self.speakers.insert(speaker.node.clone(), speaker);
            }
            Input::SpeakerDeleted(node) => {
                self.speakers.remove(&node);
                self.dirty.members = true;
                self.dirty.nodes = true;
            }
            _about_something_else => {}
        }
    }

    fn interface_changed(&mut self, input: Input) {
        match input {
            Input::LinkApplied(link) => self.interfaces.set_link(link),
            Input::LinkRemoved(index) => self.interfaces.remove_link(index),
            Input::AddressAdded { interface, address } => {
                self.interfaces.add_address(interface, address);
            }
            Input::AddressRemoved { interface, address } => {
                self.interfaces.remove_address(interface, address);
            }
            _about_something_else => return,
        }
        self.dirty.uplinks = true;
    }

    fn vip_applied(&mut self, observed: ObservedVip) {
        let address = observed.vip.address;
        self.forget_claims(address);
        for service in &observed.vip.services {
            self.claims
                .entry(service.key.clone())
                .or_default()
                .insert(address);
        }
        self.dirty.vips.insert(address);
        match self.vips.get_mut(&address) {
            Some(vip) => {
                vip.observed = observed;
                vip.deleted = false;
                vip.finding_is_said |= vip.says_finding();
            }
            None => {
                self.vips.insert(address, Vip::new(observed));
            }
        }
    }

    /// The address is kept without Services until its holds are undone.
    fn vip_deleted(&mut self, address: IpAddr) {
        self.forget_claims(address);
        if let Some(vip) = self.vips.get_mut(&address) {
            vip.deleted = true;
            vip.questions.clear();
        }
    }

    fn forget_claims(&mut self, address: IpAddr) {
        let Some(vip) = self.vips.get(&address) else {
            return;
        };
        for service in &vip.observed.vip.services {
            if let Some(addresses) = self.claims.get_mut(&service.key) {
                addresses.remove(&address);
                if addresses.is_empty() {
                    self.claims.remove(&service.key);
                }
            }
        }
    }

    fn node_applied(&mut self, node: Node, segments: BTreeMap<InterfaceName, SegmentName>) {
        if node.name == self.config.node && self.segment_names != segments {
            self.segment_names = segments;
            self.dirty.uplinks = true;
        }
        self.dirty.nodes |= self.nodes.get(&node.name).is_none_or(|before| {
            before.is_usable() != node.is_usable() || before.addresses != node.addresses
        });
        self.nodes.insert(node.name.clone(), node);
    }

    /// Others plan with what our object says: it is not to be the last to be written after an outage.
    fn hurry_report(&mut self) {
        if let Some(at) = self.report_writer.hurry() {
            self.timers.insert((at, Timer::Speaker));
        }
    }

    fn vip_status_written(&mut self, now: Instant, address: IpAddr, outcome: WriteOutcome) {
        if outcome == WriteOutcome::Done {
            self.hurry_report();
        }
        if let Some(vip) = self.vips.get_mut(&address)
            && let Some(at) = vip.writer.written(now, outcome)
        {
            self.timers.insert((at, Timer::Vip(address)));
        }
    }

    fn speaker_written(&mut self, now: Instant, outcome: WriteOutcome) {
        if let Some(at) = self.report_writer.written(now, outcome) {
            self.timers.insert((at, Timer::Speaker));
        }
    }

    fn fire_timers(&mut self, now: Instant) {
        while let Some(&(at, timer)) = self.timers.first()
            && at <= now
        {
            self.timers.remove(&(at, timer));
            self.dirty.since.get_or_insert(now);
            match timer {
                Timer::Vip(address) => {
                    self.dirty.vips.insert(address);
                    if let Some(vip) = self.vips.get_mut(&address) {
                        vip.conflict = vip
                            .conflict
                            .filter(|(_, heard)| now.saturating_since(*heard) < CONFLICT);
                    }
                }
                Timer::Defence(address) => {
                    self.dirty.challenged.insert(address);
                }
                Timer::Probe(address) => self.ask_again(address),
                Timer::Port(index) => {
                    let is_failed =
                        |port: &mut Port| matches!(port.state, PortState::Failed { .. });
                    if self.ports.get_mut(&index).is_some_and(is_failed) {
                        self.ports.remove(&index);
                        self.dirty.uplinks = true;
                    }
                }
                Timer::DataPlane => self.data_plane.changed = true,
                Timer::Ring => self.dirty.all_vips = true,
                Timer::HandOver => self.pass_over(now),
                Timer::Rested | Timer::Speaker | Timer::Stop | Timer::Verify => {}
            }
        }
    }
}

#[cfg(test)]
mod tests;
