//! What the speakers decide about an address, for whoever asks from outside: by the same functions, with
//! what the API server says instead of what the ring, the kernel and the watches do.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use herald_dataplane::{DesiredService, Forwarding, Spread, Targets, fill, slots_for};
use herald_elect::elected;
use herald_model::{
    Announce, Candidate, Epoch, Family, Incarnation, Node, NodeName, Phase, SegmentName, Service,
    ServiceEndpoints, ServiceKey, TrafficPolicy, VirtualIp,
};

use crate::core::SEED;
use crate::forwarding::{self, Behind, Reach, cluster_targets, no_targets, plan, targets};
use crate::input::ObservedSpeaker;
use crate::status::ForwardingState;
use crate::vip::holders;

/// What the API server says.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The nodes.
    pub nodes: BTreeMap<NodeName, Node>,
    /// The `Speaker` objects.
    pub speakers: BTreeMap<NodeName, ObservedSpeaker>,
    /// The nodes whose speakers don't live: they hold nothing.
    pub silent: BTreeSet<NodeName>,
    /// The nodes that are dead altogether: they take no traffic either.
    pub dead: BTreeSet<NodeName>,
    /// The Services that are ours.
    pub services: BTreeMap<ServiceKey, Service>,
    /// Where their pods are.
    pub endpoints: BTreeMap<ServiceKey, ServiceEndpoints>,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Forecast {
    facts: Facts,
    /// The nodes that take no traffic.
    none: BTreeSet<NodeName>,
    cluster: Arc<Targets>,
    reach: BTreeMap<SegmentName, Reach>,
    /// The table that was filled last: Services under Cluster share one.
    last: RefCell<Option<(Weights, Arc<Slots>)>>,
}

/// Targets with their shares, as [`fill`] takes them, and the size of the table.
type Weights = (BTreeMap<NodeName, (u32, usize)>, u32);

/// How the traffic of an address is forwarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Forwarded {
    /// Its ports.
    pub ports: Vec<DesiredService>,
    /// How it is forwarded on the whole; `None` without ports.
    pub state: Option<ForwardingState>,
    /// Why it is not forwarded as was asked.
    pub reasons: Vec<String>,
    /// The number of nodes that Herald forwards to; `None` if kube-proxy does it.
    pub targets: Option<u32>,
    /// Whether any endpoint takes traffic.
    pub has_endpoints: bool,
}

/// A target table: which node takes which share of the flows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slots {
    spread: Spread,
    nodes: Vec<NodeName>,
    /// By slot, the place of its node among them; `None`: nobody takes its flows.
    owners: Vec<Option<usize>>,
}

impl Slots {
    /// The node that takes the flows of a slot.
    fn owner(&self, slot: usize) -> Option<&NodeName> {
        self.nodes.get((*self.owners.get(slot)?)?)
    }

    /// How many slots each node has; those without any are left out.
    pub fn by_node(&self) -> BTreeMap<&NodeName, usize> {
        let mut counts = BTreeMap::new();
        for slot in 0..self.owners.len() {
            if let Some(node) = self.owner(slot) {
                *counts.entry(node).or_default() += 1;
            }
        }
        counts
    }

    /// The share of the flows that a node takes, from 0 to 1.
    pub fn share(&self, node: &NodeName) -> f64 {
        let slots = (0..self.owners.len()).filter(|slot| self.owner(*slot) == Some(node));
        ratio(slots.count(), self.owners.len())
    }

    /// The share of the flows that go to another node by another table, from 0 to 1. A table of another
    /// size sends all elsewhere, as far as anybody can count on it.
    pub fn moved(&self, other: &Self) -> f64 {
        if self.owners.len() != other.owners.len() {
            return 1.0;
        }
        let slots = 0..self.owners.len();
        let moved = slots.filter(|slot| self.owner(*slot) != other.owner(*slot));
        ratio(moved.count(), self.owners.len())
    }
}

fn ratio(part: usize, whole: usize) -> f64 {
    let number = |count: usize| u32::try_from(count).map_or(f64::MAX, f64::from);
    if whole == 0 {
        0.0
    } else {
        number(part) / number(whole)
    }
}

impl Forecast {
    /// From these facts.
    pub fn new(facts: Facts) -> Self {
        let none = no_targets(&facts.nodes, &facts.speakers, facts.dead.clone());
        let cluster = cluster_targets(&facts.nodes, &none);
        let reach = Reach::of_segments(&facts.speakers, &cluster, |_, _| false);
        Self {
            facts,
            none,
            cluster,
            reach,
            last: RefCell::new(None),
        }
    }

    /// What it was made from.
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The Services for which an address is announced: listed in its claim, with that uid, and with the
    /// address in their status.
    pub fn holders(&self, vip: &VirtualIp) -> Vec<&Service> {
        holders(vip, &self.facts.services)
    }

    /// Whether an address is to be announced at all.
    pub fn is_wanted(&self, vip: &VirtualIp) -> bool {
        vip.phase == Phase::Active
            && vip.announce != Announce::None
            && !self.holders(vip).is_empty()
    }

    /// The present life of a node on a segment, if it can announce there.
    fn life(&self, segment: &SegmentName, node: &NodeName) -> Option<Incarnation> {
        if self.facts.silent.contains(node) || self.facts.dead.contains(node) {
            return None;
        }
        let segments = &self.facts.speakers.get(node)?.report.segments;
        segments
            .iter()
            .find(|theirs| theirs.name == *segment && theirs.carrier)
            .map(|theirs| theirs.incarnation)
    }

    /// Whom the speakers elect for an address on a segment.
    pub fn elected(&self, vip: &VirtualIp, segment: &SegmentName) -> Option<Candidate> {
        let planned = vip.segments.iter().find(|s| s.name == *segment)?;
        let is_live = |who: &Candidate| self.life(segment, &who.node) == Some(who.incarnation);
        let reborn = |candidate: &Candidate| {
            Some(Candidate {
                node: candidate.node.clone(),
                incarnation: self.life(segment, &candidate.node)?,
            })
        };
        let others: Vec<Candidate> = planned.candidates.iter().filter_map(reborn).collect();
        elected(vip.address, &planned.candidates, is_live, &others).cloned()
    }

    /// Who holds an address on a segment in the end, if `now` holds it under the plan of this epoch.
    ///
    /// A holder that lives keeps it under the same plan, and under a newer one until the elected one has
    /// it.
    pub fn holder(
        &self,
        vip: &VirtualIp,
        segment: &SegmentName,
        now: Option<(&NodeName, Epoch)>,
    ) -> Option<NodeName> {
        if !self.is_wanted(vip) {
            return None;
        }
        let living = now.filter(|(node, _)| self.life(segment, node).is_some());
        if let Some((node, epoch)) = living
            && epoch >= vip.epoch
        {
            return Some(node.clone());
        }
        self.elected(vip, segment)
            .map(|elected| elected.node)
            .or_else(|| living.map(|(node, _)| node.clone()))
    }

    /// How the traffic of an address is forwarded where `announcer` announces it.
    pub fn forwarding(&self, vip: &VirtualIp, announcer: &NodeName) -> Forwarded {
        let reach = self.reach(vip, announcer);
        let services = self.holders(vip);
        let plan = plan(
            vip.address,
            &services,
            &self.forwarding_facts(&reach, announcer),
        );
        Forwarded {
            ports: plan.services,
            state: plan.state,
            reasons: plan.reasons,
            targets: plan.targets,
            has_endpoints: plan.has_endpoints,
        }
    }

    fn forwarding_facts<'a>(
        &'a self,
        reach: &'a Reach,
        announcer: &'a NodeName,
    ) -> forwarding::Facts<'a> {
        let speaker = self.facts.speakers.get(announcer);
        forwarding::Facts {
            me: announcer,
            nodes: &self.facts.nodes,
            dead: &self.none,
            endpoints: &self.facts.endpoints,
            data_plane: speaker.and_then(|speaker| speaker.report.data_plane.as_ref()),
            ipvs: speaker.is_some_and(|speaker| speaker.report.ipvs),
            cluster: &self.cluster,
            reach,
        }
    }

    /// The nodes on the segments on which an address may come to a node.
    fn reach(&self, vip: &VirtualIp, node: &NodeName) -> Reach {
        let speaker = self.facts.speakers.get(node);
        let is_there = |segment: &SegmentName| {
            let mut segments = speaker.into_iter().flat_map(|it| &it.report.segments);
            segments.any(|theirs| theirs.name == *segment)
        };
        let segments = vip.segments.iter().map(|segment| &segment.name);
        let parts = segments
            .filter(|segment| is_there(segment))
            .filter_map(|segment| self.reach.get(segment));
        Reach::joined(parts, &self.cluster)
    }

    /// How many endpoints that take traffic for an address of a Service's each node has; those on nodes
    /// that can't be used are left out.
    pub fn endpoints(&self, address: IpAddr, service: &Service) -> BTreeMap<NodeName, u32> {
        let local = Service {
            traffic_policy: TrafficPolicy::Local,
            ..service.clone()
        };
        let reach = Reach::default();
        let nobody = NodeName::from("");
        let facts = self.forwarding_facts(&reach, &nobody);
        let behind = Behind::new(address, &local, &facts);
        targets(&local, &behind, &facts).weights.clone()
    }

    /// The table of a port of an address; `None`: kube-proxy on the announcing node takes its traffic.
    pub fn slots(&self, address: IpAddr, forwarding: &Forwarding) -> Option<Arc<Slots>> {
        let targets = match forwarding {
            Forwarding::Pod { targets, .. }
            | Forwarding::Dsr { targets, .. }
            | Forwarding::NodePort { targets, .. } => targets,
            Forwarding::Off => return None,
        };
        let has_address = |name: &NodeName| {
            let node = self.facts.nodes.get(name);
            let mut addresses = node.into_iter().flat_map(|node| &node.addresses);
            addresses.any(|own| Family::of(*own) == Family::of(address))
        };
        let targets_by_name: BTreeMap<NodeName, (u32, usize)> = targets
            .weights
            .iter()
            .filter(|(name, weight)| **weight > 0 && has_address(name))
            .enumerate()
            .map(|(place, (name, weight))| (name.clone(), (*weight, place)))
            .collect();
        let total = slots_for(targets.spread);
        let weights: Weights = (targets_by_name, total);
        let mut last = self.last.borrow_mut();
        if let Some((known, slots)) = &*last
            && *known == weights
            && slots.spread == targets.spread
        {
            return Some(Arc::clone(slots));
        }
        let slots = Arc::new(Slots {
            spread: targets.spread,
            owners: fill(SEED, total, &weights.0),
            nodes: weights.0.keys().cloned().collect(),
        });
        *last = Some((weights, Arc::clone(&slots)));
        Some(slots)
    }
}

#[cfg(test)]
mod tests;
