//! The wish for the data plane, and how far it is carried out.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use herald_dataplane::{Desired, DesiredNode, DesiredVip, Holder, Refused};
use herald_elect::elected;
use herald_model::{
    Candidate, IfIndex, Instant, InterfaceName, MacAddress, Node, NodeName, SegmentName,
    ServiceKey, ServiceRef, SpeakerSegment, VipSegment, VirtualIp,
};

use super::ring::RingState;
use super::{Core, RETRY, Timer};
use crate::forwarding::{Facts, Plan, Reach, no_room, plan};
use crate::input::{DataPlaneMode, DataPlaneReport, Effect, EventReason};
use crate::vip::{Vip, holders};

/// Spreads flows and fills tables. The same for every cluster: the tables have to be equal on all
/// nodes of one cluster, and no secret is needed for that.
pub(crate) const SEED: u64 = 0x6865_7261_6c64_6c62;

/// After a wish was carried out, for so many times as long as that took the next one waits: in a stream of changes
/// the data plane takes a fifth of a processor.
const REST: u32 = 4;
const LONGEST_REST: Duration = Duration::from_secs(1);

/// The wish for the data plane, and how far it is carried out.
#[derive(Debug, Default)]
pub(super) struct DataPlane {
    pub(super) report: Option<DataPlaneReport>,
    /// Copied when it changes while it is being carried out.
    pub(super) desired: Arc<Desired>,
    pub(super) changed: bool,
    /// Whether connections depend on the change.
    pub(super) is_urgent: bool,
    pub(super) generation: u64,
    pub(super) in_flight: bool,
    /// When the last wish was handed over.
    pub(super) handed_over: Instant,
    /// Until when what is not urgent waits.
    pub(super) rests_until: Instant,
    /// The last generation that was handed over, well or not.
    pub(super) answered: u64,
    /// The Services that this node took over since the last wish, with the last sign of life of the node
    /// before it.
    pub(super) taken_over: BTreeMap<ServiceKey, Instant>,
    pub(super) error: Option<Arc<str>>,
    /// What there was no room for.
    pub(super) refused: Arc<[Refused]>,
    /// The Services of which that is still to be told.
    pub(super) refused_to_tell: BTreeSet<ServiceKey>,
    /// The interfaces on which something is missing that can't be put back, and why.
    pub(super) wrong: BTreeMap<IfIndex, Arc<str>>,
}

/// When an address may be announced.
#[derive(Clone, Copy, Debug)]
pub(super) enum Gate {
    /// Not before it is known how the data plane runs.
    Shut,
    /// At once: there is nothing to wait for.
    Open,
    /// Once the wish that knows it was carried out.
    After {
        /// The number of the wish that knows everything decided so far.
        next: u64,
        /// The number of the last wish that was carried out.
        answered: u64,
    },
}

impl Gate {
    /// Whether an address with this number may be announced; gives it a number if it has none.
    pub(super) fn is_open(self, generation: &mut Option<u64>) -> bool {
        match self {
            Self::Shut => false,
            Self::Open => true,
            Self::After { next, answered } => answered >= *generation.get_or_insert(next),
        }
    }
}

/// The Services that there was no room for something of.
fn services_of(refused: &[Refused]) -> impl Iterator<Item = &ServiceKey> {
    refused.iter().filter_map(Refused::service)
}

impl Core {
    /// Whether a program is there to carry wishes out.
    pub(super) fn data_plane_runs(&self) -> bool {
        self.data_plane
            .report
            .as_ref()
            .is_some_and(|report| report.mode != DataPlaneMode::None)
    }

    /// What addresses have to wait for before they are announced.
    pub(super) fn gate(&self) -> Gate {
        match &self.data_plane.report {
            None => Gate::Shut,
            Some(report) if report.mode == DataPlaneMode::None => Gate::Open,
            // A data plane that fails must not keep an address silent: kube-proxy serves it.
            Some(_) if self.data_plane_error().is_some() => Gate::Open,
            Some(_) => Gate::After {
                next: self
                    .data_plane
                    .generation
                    .saturating_add(u64::from(self.data_plane.changed)),
                answered: self.data_plane.answered,
            },
        }
    }

    /// How the traffic of an address is forwarded.
    pub(super) fn forwarding_plan(&self, address: IpAddr, vip: &Vip) -> Plan {
        let services = holders(&vip.observed.vip, &self.services);
        let reach = self.reach(&vip.observed.vip);
        plan(
            address,
            &services,
            &Facts {
                me: &self.config.node,
                nodes: &self.nodes,
                dead: &self.dead,
                endpoints: &self.endpoints,
                data_plane: self.data_plane.report.as_ref(),
                ipvs: self.ipvs,
                cluster: &self.cluster,
                reach: &reach,
            },
        )
    }

    /// The nodes on the segments on which an address may come to this node.
    fn reach(&self, vip: &VirtualIp) -> Cow<'_, Reach> {
        let mut segments = vip
            .segments
            .iter()
            .filter(|segment| self.uplinks.contains_key(&segment.name))
            .filter_map(|segment| self.reach.get(&segment.name));
        match (segments.next(), segments.next()) {
            (None, _) => Cow::Owned(Reach::default()),
            (Some(only), None) => Cow::Borrowed(only),
            (Some(first), Some(second)) => {
                let parts = [first, second].into_iter().chain(segments);
                Cow::Owned(Reach::joined(parts, &self.cluster))
            }
        }
    }

    /// The addresses of a Service are to be looked at.
    pub(super) fn mark_service(&mut self, key: &ServiceKey) {
        if let Some(addresses) = self.claims.get(key) {
            self.dirty.vips.extend(addresses);
        }
    }

    /// Brings the wish up to date for one address.
    pub(super) fn update_desired_vip(&mut self, address: IpAddr) {
        let wanted = self.vips.get(&address).and_then(|vip| {
            let plan = self.forwarding_plan(address, vip);
            let is_active = vip.observed.vip.phase == herald_model::Phase::Active;
            (is_active && !plan.services.is_empty()).then(|| DesiredVip {
                holders: self.holders_by_interface(vip),
                services: plan.services,
            })
        });
        let state = &mut self.data_plane;
        let before = state.desired.vips.get(&address);
        if before == wanted.as_ref() {
            return;
        }
        if let (Some(before), Some(wanted)) = (before, &wanted) {
            state.is_urgent |= before.holders != wanted.holders;
        }
        let vips = &mut Arc::make_mut(&mut state.desired).vips;
        match wanted {
            Some(wanted) => drop(vips.insert(address, wanted)),
            None => drop(vips.remove(&address)),
        }
        state.changed = true;
    }

    fn holders_by_interface(&self, vip: &Vip) -> BTreeMap<IfIndex, Holder> {
        let planned = |segment: &VipSegment| {
            let uplink = self.uplinks.get(&segment.name)?;
            let holder = match vip.holds.get(&segment.name) {
                Some(hold) => hold
                    .before
                    .map_or(Holder::Me, |address| Holder::MeAfter { address }),
                None => self
                    .peer(&vip.observed.vip, segment)
                    .map_or(Holder::Nobody, |address| Holder::Peer { address }),
            };
            Some((uplink.index, holder))
        };
        vip.observed
            .vip
            .segments
            .iter()
            .filter_map(planned)
            .collect()
    }

    /// The address, on the segment, of the one that holds it, or else is to; of the same family if it
    /// has one.
    fn peer(&self, vip: &VirtualIp, segment: &VipSegment) -> Option<IpAddr> {
        let key = (vip.address, segment.name.clone());
        let holder = self.rights.get(&key).and_then(|right| right.hold.other());
        let ring = self.rings.get(&segment.name);
        let candidates = &segment.candidates;
        let reborn = ring.map_or_else(Vec::new, |ring| ring.reborn(candidates));
        let is_live = |who: &Candidate| ring.is_some_and(|ring| ring.is_live(who));
        let candidate = holder
            .or_else(|| elected(vip.address, candidates, is_live, &reborn))
            .or_else(|| candidates.first())?;
        self.address_of(&candidate.node, vip.address, &segment.name)
    }

    /// The address, on the segment, of another node that is known to hold it, or that did until its
    /// speaker died: its programs go on, and know where the replies of its flows go.
    pub(super) fn predecessor(&self, address: IpAddr, segment: &SegmentName) -> Option<IpAddr> {
        let right = self.rights.get(&(address, segment.clone()))?;
        let ring = self.rings.get(segment);
        let fallen = || {
            let (node, _) = right.fallen.as_ref()?;
            (!ring.is_some_and(|ring| ring.has_lost(node))).then_some(node)
        };
        let holder = right.hold.other().map(|other| &other.node);
        self.address_of(holder.or_else(fallen)?, address, segment)
    }

    /// The MAC address, on the segment, of another node that is known to hold it.
    pub(super) fn mac_of_holder(
        &self,
        address: IpAddr,
        segment: &SegmentName,
    ) -> Option<MacAddress> {
        let right = self.rights.get(&(address, segment.clone()))?;
        Some(self.place_of(&right.hold.other()?.node, segment)?.mac)
    }

    /// Where another node is on a segment.
    fn place_of(&self, node: &NodeName, segment: &SegmentName) -> Option<&SpeakerSegment> {
        if *node == self.config.node {
            return None;
        }
        let places = &self.speakers.get(node)?.report.segments;
        places.iter().find(|place| place.name == *segment)
    }

    /// The address of another node on a segment, of a VIP's family if it has one.
    fn address_of(
        &self,
        node: &NodeName,
        address: IpAddr,
        segment: &SegmentName,
    ) -> Option<IpAddr> {
        let prefixes = &self.place_of(node, segment)?.prefixes;
        prefixes
            .iter()
            .find(|prefix| prefix.addr().is_ipv4() == address.is_ipv4())
            .or_else(|| prefixes.first())
            .map(ipnet::IpNet::addr)
    }

    /// Hands the wish over if it changed, one at a time, and unless it is urgent with a rest between two: each
    /// is the whole, which takes its time with thousands of Services, on a thread that goes before others.
    pub(super) fn update_data_plane(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if !self.data_plane_runs() {
            self.data_plane.changed = false;
            self.data_plane.taken_over.clear();
            return;
        }
        let nodes = self.desired_nodes();
        let names: BTreeMap<IfIndex, InterfaceName> = self
            .uplinks
            .values()
            .map(|uplink| (uplink.index, uplink.name.clone()))
            .collect();
        let interfaces: BTreeMap<IfIndex, MacAddress> = self
            .uplinks
            .values()
            .map(|uplink| (uplink.index, uplink.mac))
            .collect();
        let state = &mut self.data_plane;
        if state.desired.nodes != nodes || state.desired.interfaces != interfaces {
            let desired = Arc::make_mut(&mut state.desired);
            desired.nodes = nodes;
            desired.interfaces = interfaces;
            state.changed = true;
            state.is_urgent = true;
        }
        if !state.changed || state.in_flight {
            return;
        }
        let waits = !state.is_urgent && self.stopping.is_none();
        if waits && now < state.rests_until {
            self.timers.insert((state.rests_until, Timer::Rested));
            return;
        }
        state.changed = false;
        state.is_urgent = false;
        state.handed_over = now;
        state.in_flight = true;
        state.generation = state.generation.saturating_add(1);
        out.push(Effect::ApplyDataPlane {
            generation: state.generation,
            desired: Arc::clone(&state.desired),
            names,
            taken_over: std::mem::take(&mut state.taken_over),
        });
    }

    /// Has the first packet timed of what comes here with an address from a dead node. A Service that has an
    /// address here already, or this one on another segment, has its packets counted, and says nothing about
    /// this takeover.
    pub(super) fn time_first_packet(&mut self, address: IpAddr, last_heartbeat: Instant) {
        let Some(vip) = self.vips.get(&address) else {
            return;
        };
        let taken_over = &mut self.data_plane.taken_over;
        for service in holders(&vip.observed.vip, &self.services) {
            let is_here = |address: &IpAddr| {
                let vip = self.vips.get(address);
                vip.is_some_and(|vip| !vip.holds.is_empty())
            };
            if !service.ingress.iter().any(is_here) {
                taken_over.insert(service.key.clone(), last_heartbeat);
            }
        }
    }

    fn desired_nodes(&self) -> BTreeMap<NodeName, DesiredNode> {
        self.nodes
            .values()
            .map(|node| (node.name.clone(), self.desired_node(node)))
            .collect()
    }

    fn desired_node(&self, node: &Node) -> DesiredNode {
        let is_self = node.name == self.config.node;
        let ipv4 = node.addresses.iter().find_map(|address| match address {
            IpAddr::V4(address) => Some(*address),
            IpAddr::V6(_) => None,
        });
        let ipv6 = node.addresses.iter().find_map(|address| match address {
            IpAddr::V6(address) => Some(*address),
            IpAddr::V4(_) => None,
        });
        let leads_there = |address: IpAddr| {
            self.uplinks
                .values()
                .find(|uplink| uplink.reaches(address))
                .map(|uplink| uplink.index)
        };
        let interface = ipv4
            .map(IpAddr::V4)
            .and_then(leads_there)
            .or_else(|| ipv6.map(IpAddr::V6).and_then(leads_there));
        let segments = self
            .speakers
            .get(&node.name)
            .map_or(&[][..], |speaker| speaker.report.segments.as_slice());
        let macs = segments.iter().map(|segment| segment.mac).collect();
        let links = segments
            .iter()
            .filter_map(|theirs| Some((self.uplinks.get(&theirs.name)?.index, theirs.mac)))
            .collect();
        DesiredNode {
            ipv4,
            ipv6,
            is_self,
            interface,
            macs,
            links,
        }
    }

    /// Whether the kernel has all that was first asked of it.
    pub(super) fn is_data_plane_ready(&self) -> bool {
        let is_known = self.data_plane.report.is_some();
        is_known && (!self.data_plane_runs() || self.data_plane.answered > 0)
    }

    /// Whether the kernel has all that it should.
    pub(super) fn is_data_plane_settled(&self) -> bool {
        !self.data_plane_runs() || !self.data_plane.changed && !self.data_plane.in_flight
    }

    pub(super) fn data_plane_known(&mut self, report: DataPlaneReport) {
        let ran = self.data_plane_runs();
        self.data_plane.report = Some(report);
        self.data_plane.changed |= ran != self.data_plane_runs();
        self.dirty.members |= !self.takes_part;
        self.dirty.all_vips = true;
    }

    pub(super) fn data_plane_applied(
        &mut self,
        now: Instant,
        generation: u64,
        outcome: Result<Arc<[Refused]>, Arc<str>>,
    ) {
        let waits = |vip: &Vip| vip.holds.values().any(|hold| !hold.announced);
        let waiting = self.vips.iter().filter(|(_, vip)| waits(vip));
        self.dirty.vips.extend(waiting.map(|(address, _)| *address));
        self.dirty.members |= !self.takes_part;
        let state = &mut self.data_plane;
        state.in_flight = false;
        let rest = now.saturating_since(state.handed_over).saturating_mul(REST);
        state.rests_until = now + rest.min(LONGEST_REST);
        state.answered = generation;
        let error = match outcome {
            Ok(refused) => {
                if state.refused != refused {
                    let before: BTreeSet<&ServiceKey> = services_of(&state.refused).collect();
                    let new = services_of(&refused).filter(|service| !before.contains(service));
                    state.refused_to_tell.extend(new.cloned());
                    state.refused = refused;
                    self.dirty.all_vips = true;
                }
                None
            }
            Err(error) => {
                self.timers.insert((now + RETRY, Timer::DataPlane));
                Some(error)
            }
        };
        if state.error != error {
            state.error = error;
            self.dirty.all_vips = true;
        }
    }

    /// Tells people on a Service what there is no room for, where this node holds its address.
    pub(super) fn tell_refused(&mut self, out: &mut Vec<Effect>) {
        let told = std::mem::take(&mut self.data_plane.refused_to_tell);
        let is_held = |address: &&IpAddr| {
            let vip = self.vips.get(address);
            vip.is_some_and(|vip| !vip.holds.is_empty())
        };
        for key in &told {
            let addresses = self.claims.get(key);
            let held = addresses.and_then(|addresses| addresses.iter().find(is_held));
            let (Some(service), Some(&address)) = (self.services.get(key), held) else {
                continue;
            };
            out.push(Effect::EmitEvent {
                service: ServiceRef {
                    key: key.clone(),
                    uid: service.uid.clone(),
                },
                address,
                reason: EventReason::DataPlaneFull,
                note: no_room(key, &self.data_plane.refused).join("; "),
            });
        }
    }

    /// What this node has no room for, in a few words.
    pub(super) fn crowded(&self) -> Option<String> {
        let first = self.data_plane.refused.first()?;
        let about = match first.service() {
            Some(service) => format!("{service}: {first}"),
            None => first.to_string(),
        };
        let more = match self.data_plane.refused.len().saturating_sub(1) {
            0 => String::new(),
            more => format!(", and {more} more of the kind"),
        };
        Some(format!("{about}{more}"))
    }

    /// Where something is missing that can't be put back, the others serve better: our life there ends, once.
    /// With nobody to take over, kube-proxy on this node goes on serving.
    pub(super) fn data_plane_checked(&mut self, wrong: BTreeMap<IfIndex, Arc<str>>) {
        let before = std::mem::replace(&mut self.data_plane.wrong, wrong);
        let is_new = |index: &IfIndex| {
            self.data_plane.wrong.contains_key(index) && !before.contains_key(index)
        };
        let lame: Vec<SegmentName> = self
            .uplinks
            .iter()
            .filter(|(name, uplink)| {
                let ring = self.rings.get(*name);
                is_new(&uplink.index) && ring.is_some_and(RingState::reaches_others)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in lame {
            if let Some(life) = self.incarnations.get(&name) {
                self.lame.insert(name.clone(), *life);
                self.dirty.lame.insert(name);
            }
        }
        self.dirty.all_vips = true;
    }

    /// Why it does not do all it should.
    pub(super) fn data_plane_error(&self) -> Option<&Arc<str>> {
        let wrong = self.data_plane.wrong.values().next();
        self.data_plane.error.as_ref().or(wrong)
    }
}
