//! Everything that was told, kept whether this replica leads or not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use herald_model::{
    AddressRange, AdvertisementName, Endpoint, Family, InterfaceName, Labels, NamespaceName, Node,
    NodeName, PoolName, ServiceKey, ServiceRef, Speaker, SpeakerSegment, Uid,
};
use ipnet::IpNet;

use crate::account::Obstacle;
use crate::observed::{
    Condition, ObservedAdvertisement, ObservedPool, ObservedService, ObservedVip, Slice,
    SpeakerPod, UserObject,
};
use crate::placement::{Spot, Terrain};

/// An object that says something that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Invalid {
    pub(crate) uid: Uid,
    pub(crate) message: Arc<str>,
    pub(crate) ready: Option<Condition>,
}

/// What the cluster uses a range for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ClusterUse<'a> {
    /// Cluster addresses of Services, by the `ServiceCIDR` of this name.
    Services(&'a str),
    /// Addresses of pods on this node.
    Pods(&'a NodeName),
}

impl fmt::Display for ClusterUse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Services(name) => write!(f, "Services' cluster addresses (ServiceCIDR {name})"),
            Self::Pods(node) => write!(f, "pods on node {node}"),
        }
    }
}

/// The API server's state, as far as it was told.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) services: BTreeMap<ServiceKey, ObservedService>,
    pub(crate) pools: BTreeMap<PoolName, ObservedPool>,
    pub(crate) advertisements: BTreeMap<AdvertisementName, ObservedAdvertisement>,
    pub(crate) invalid: BTreeMap<UserObject, Invalid>,
    pub(crate) vips: BTreeMap<IpAddr, ObservedVip>,
    pub(crate) unreadable_vips: BTreeSet<IpAddr>,
    /// Lives of claims that are over, though the watch has not told yet: what it tells of them is old.
    ended_vips: BTreeSet<Uid>,
    pub(crate) nodes: BTreeMap<NodeName, Node>,
    pub(crate) speakers: BTreeMap<NodeName, Speaker>,
    pub(crate) terrain: Terrain,
    pods: BTreeMap<Arc<str>, SpeakerPod>,
    /// The ranges of cluster addresses, by the name of the object that says so.
    pub(crate) service_ranges: BTreeMap<Arc<str>, Vec<AddressRange>>,
    namespaces: BTreeMap<NamespaceName, Labels>,
    endpoints: BTreeMap<ServiceKey, BTreeMap<Arc<str>, Vec<Endpoint>>>,
    /// Which claims name a Service.
    claims: BTreeMap<ServiceRef, BTreeSet<IpAddr>>,
}

impl World {
    /// Takes a Service unless it is older than what is known; whether it did.
    pub(crate) fn apply_service(&mut self, service: ObservedService) -> bool {
        if let Some(known) = self.services.get(&service.key)
            && known.identity.uid == service.identity.uid
            && service.identity.version.is_before(&known.identity.version)
        {
            return false;
        }
        self.services.insert(service.key.clone(), service);
        true
    }

    /// Takes a claim unless it is older than what is known; whether it did.
    pub(crate) fn apply_vip(&mut self, vip: ObservedVip) -> bool {
        let address = vip.vip.address;
        if let Some(known) = self.vips.get(&address)
            && vip.identity.version.is_before(&known.identity.version)
        {
            return false;
        }
        if self.ended_vips.contains(&vip.identity.uid) {
            return false;
        }
        self.unreadable_vips.remove(&address);
        self.forget_vip(address);
        for service in &vip.vip.services {
            self.claims
                .entry(service.clone())
                .or_default()
                .insert(address);
        }
        self.vips.insert(address, vip);
        true
    }

    /// A write has shown that this life of a claim is over.
    pub(crate) fn end_vip(&mut self, address: IpAddr, uid: &Uid) {
        self.delete_vip(address, uid);
        self.ended_vips.insert(uid.clone());
    }

    /// Removes a claim, if it is still this one; whether it was.
    pub(crate) fn delete_vip(&mut self, address: IpAddr, uid: &Uid) -> bool {
        self.ended_vips.remove(uid);
        let unreadable = self.unreadable_vips.remove(&address);
        let known = self
            .vips
            .get(&address)
            .is_some_and(|vip| vip.identity.uid == *uid);
        if known {
            self.forget_vip(address);
        }
        known || unreadable
    }

    fn forget_vip(&mut self, address: IpAddr) {
        let Some(vip) = self.vips.remove(&address) else {
            return;
        };
        for service in vip.vip.services {
            if let Some(addresses) = self.claims.get_mut(&service) {
                addresses.remove(&address);
                if addresses.is_empty() {
                    self.claims.remove(&service);
                }
            }
        }
    }

    /// The addresses on which there is a claim that names the Service.
    pub(crate) fn claims_of(&self, service: &ServiceRef) -> Vec<IpAddr> {
        self.claims
            .get(service)
            .map_or_else(Vec::new, |set| set.iter().copied().collect())
    }

    /// Whether the claim on the address is there and names the Service.
    pub(crate) fn is_claimed(&self, address: IpAddr, service: &ServiceRef) -> bool {
        self.vips
            .get(&address)
            .is_some_and(|vip| vip.vip.services.contains(service))
    }

    /// Whether this life of the Service is there and its status shows the address.
    pub(crate) fn shows(&self, service: &ServiceRef, address: IpAddr) -> bool {
        self.services.get(&service.key).is_some_and(|observed| {
            observed.identity.uid == service.uid && observed.ingress.contains(&address)
        })
    }

    pub(crate) fn set_namespace(&mut self, name: NamespaceName, labels: Option<Labels>) -> bool {
        match labels {
            Some(labels) => self.namespaces.insert(name, labels.clone()) != Some(labels),
            None => self.namespaces.remove(&name).is_some(),
        }
    }

    /// The labels of a namespace; `None`: nobody has told of it.
    pub(crate) fn namespace_labels(&self, name: &NamespaceName) -> Option<&Labels> {
        self.namespaces.get(name)
    }

    /// Takes the endpoints of a slice; whether that changed anything.
    pub(crate) fn apply_slice(&mut self, slice: Slice) -> bool {
        let slices = self.endpoints.entry(slice.service).or_default();
        slices.insert(slice.name, slice.endpoints.clone()) != Some(slice.endpoints)
    }

    pub(crate) fn delete_slice(&mut self, service: &ServiceKey, name: &str) -> bool {
        let Some(slices) = self.endpoints.get_mut(service) else {
            return false;
        };
        let there = slices.remove(name).is_some();
        if slices.is_empty() {
            self.endpoints.remove(service);
        }
        there
    }

    /// The nodes with an endpoint that kube-proxy on that node would use.
    pub(crate) fn endpoint_nodes(
        &self,
        service: &ServiceKey,
        publish_not_ready: bool,
    ) -> BTreeSet<NodeName> {
        let all = || {
            self.endpoints
                .get(service)
                .into_iter()
                .flat_map(BTreeMap::values)
                .flatten()
        };
        let on_nodes = |useful: &dyn Fn(&Endpoint) -> bool| -> BTreeSet<NodeName> {
            all()
                .filter(|e| useful(e))
                .filter_map(|e| e.node.clone())
                .collect()
        };
        let ready = on_nodes(&|endpoint| endpoint.ready || publish_not_ready);
        if ready.is_empty() {
            on_nodes(&|endpoint| endpoint.serving && endpoint.terminating)
        } else {
            ready
        }
    }

    pub(crate) fn set_node(&mut self, name: &NodeName, node: Option<Node>) -> bool {
        let changed = set(&mut self.nodes, name, node);
        changed && self.survey(name)
    }

    /// Whether kube-proxy runs in mode ipvs: on all nodes, or on some while that is being changed.
    pub(crate) fn has_ipvs(&self) -> bool {
        self.speakers.values().any(|speaker| speaker.ipvs)
    }

    pub(crate) fn set_speaker(&mut self, name: &NodeName, speaker: Option<Speaker>) -> bool {
        let ipvs = self.has_ipvs();
        let changed = set(&mut self.speakers, name, speaker);
        changed && (self.survey(name) || ipvs != self.has_ipvs())
    }

    /// Takes a speaker's Pod; returns the nodes about which that changed anything.
    pub(crate) fn set_pod(&mut self, name: &Arc<str>, pod: Option<SpeakerPod>) -> Vec<NodeName> {
        let before = match &pod {
            Some(pod) => self.pods.insert(Arc::clone(name), pod.clone()),
            None => self.pods.remove(name),
        };
        if before == pod {
            return Vec::new();
        }
        let mut nodes: Vec<NodeName> = before.into_iter().chain(pod).map(|pod| pod.node).collect();
        nodes.dedup();
        nodes.retain(|node| self.survey(node));
        nodes
    }

    /// Looks at a node anew; whether it offers something else than before.
    fn survey(&mut self, name: &NodeName) -> bool {
        let spots = self.spots(name);
        self.terrain.set(name, spots)
    }

    fn spots(&self, name: &NodeName) -> Vec<Spot> {
        let (Some(node), Some(speaker)) = (self.nodes.get(name), self.speakers.get(name)) else {
            return Vec::new();
        };
        if barred(node).is_some() {
            return Vec::new();
        }
        let seems_alive = self.signs_of_death(node).next().is_none();
        let spot = |segment: &SpeakerSegment| Spot {
            segment: segment.name.clone(),
            interface: segment.interface.clone(),
            incarnation: segment.incarnation,
            fits: unfit(node, speaker, segment).is_none(),
            seems_alive,
            departs: node.departure.is_some(),
            labels: node.labels.clone(),
        };
        speaker.segments.iter().map(spot).collect()
    }

    /// What keeps a node from announcing anything anywhere; `None`: nothing.
    pub(crate) fn absence(&self, name: &NodeName) -> Option<Obstacle> {
        let Some(node) = self.nodes.get(name) else {
            return Some(Obstacle::NoNode);
        };
        if !self.speakers.contains_key(name) {
            return Some(Obstacle::NoSpeaker);
        }
        barred(node)
    }

    /// What a node and its speaker say of themselves that speaks against it on an interface, and what
    /// Kubernetes says of them.
    pub(crate) fn flaws(&self, name: &NodeName, interface: &InterfaceName) -> Vec<Obstacle> {
        let (Some(node), Some(speaker)) = (self.nodes.get(name), self.speakers.get(name)) else {
            return Vec::new();
        };
        let segments = speaker.segments.iter();
        segments
            .filter(|segment| segment.interface == *interface)
            .filter_map(|segment| unfit(node, speaker, segment))
            .chain(self.signs_of_death(node))
            .chain(
                node.departure
                    .map(|departure| Obstacle::Departs { departure }),
            )
            .collect()
    }

    /// What speaks against a node wherever it has an interface.
    pub(crate) fn node_obstacles(&self, name: &NodeName) -> Vec<Obstacle> {
        if let Some(absence) = self.absence(name) {
            return vec![absence];
        }
        let segments = self.speakers.get(name).map_or(&[][..], |it| &it.segments);
        let mut segments = segments.iter();
        let Some(first) = segments.next() else {
            return vec![Obstacle::NoSegment];
        };
        let mut everywhere = self.flaws(name, &first.interface);
        for segment in segments {
            let here = self.flaws(name, &segment.interface);
            everywhere.retain(|obstacle| here.contains(obstacle));
        }
        everywhere
    }

    /// Why Kubernetes takes a node or its speaker not to be well.
    fn signs_of_death(&self, node: &Node) -> impl Iterator<Item = Obstacle> {
        let mut pods = self.pods.values();
        let speaks = pods.any(|pod| pod.node == node.name && pod.ready);
        let of_node = (!node.ready).then_some(Obstacle::NodeNotReady);
        let of_speaker = (!speaks).then_some(Obstacle::SpeakerNotReady);
        of_node.into_iter().chain(of_speaker)
    }

    /// The addresses never to be given because of a node: its own, and the first and last of its
    /// subnets.
    pub(crate) fn reserved_by(&self, name: &NodeName) -> BTreeSet<IpAddr> {
        let mut reserved = self.addresses_of(name);
        reserved.extend(self.gateways_of(name));
        reserved.extend(self.prefixes_of(name).flat_map(reserved_in));
        reserved
    }

    /// The ranges that the cluster itself uses, each with what for.
    pub(crate) fn cluster_ranges(&self) -> impl Iterator<Item = (AddressRange, ClusterUse<'_>)> {
        let services = self.service_ranges.iter().flat_map(|(name, ranges)| {
            let of = ClusterUse::Services(name);
            ranges.iter().map(move |range| (*range, of))
        });
        let pods = self.nodes.values().flat_map(|node| {
            let of = ClusterUse::Pods(&node.name);
            node.pod_ranges.iter().map(move |range| (*range, of))
        });
        services.chain(pods)
    }

    /// A node's own addresses.
    pub(crate) fn addresses_of(&self, name: &NodeName) -> BTreeSet<IpAddr> {
        let node = self.nodes.get(name).into_iter();
        let addresses = node.flat_map(|node| node.addresses.iter().copied());
        let own = self
            .prefixes_of(name)
            .filter(|prefix| is_host(prefix))
            .map(IpNet::addr);
        addresses.chain(own).collect()
    }

    /// The routers that a node knows.
    pub(crate) fn gateways_of(&self, name: &NodeName) -> impl Iterator<Item = IpAddr> {
        let speaker = self.speakers.get(name).into_iter();
        speaker
            .flat_map(|speaker| &speaker.segments)
            .flat_map(|segment| segment.gateways.iter().copied())
    }

    fn prefixes_of(&self, name: &NodeName) -> impl Iterator<Item = &IpNet> {
        let segments = self.speakers.get(name).into_iter();
        segments
            .flat_map(|speaker| &speaker.segments)
            .flat_map(|segment| &segment.prefixes)
    }
}

/// What keeps a node from announcing anything.
const fn barred(node: &Node) -> Option<Obstacle> {
    if node.excluded {
        Some(Obstacle::Excluded)
    } else if node.out_of_service {
        Some(Obstacle::OutOfService)
    } else {
        None
    }
}

/// What the node and its speaker say of themselves that speaks against an interface.
fn unfit(node: &Node, speaker: &Speaker, segment: &SpeakerSegment) -> Option<Obstacle> {
    if speaker.stopping {
        Some(Obstacle::SpeakerStopping)
    } else if node.network_unavailable {
        Some(Obstacle::NetworkUnavailable)
    } else if !segment.carrier {
        let interface = segment.interface.clone();
        Some(Obstacle::NoCarrier { interface })
    } else {
        None
    }
}

/// Whether a prefix has the address of a host in it.
fn is_host(prefix: &IpNet) -> bool {
    prefix.addr() != prefix.network() || prefix.prefix_len() == prefix.max_prefix_len()
}

/// The addresses of a subnet that are not for hosts, and the one that the node has in it.
fn reserved_in(prefix: &IpNet) -> Vec<IpAddr> {
    let hosts = prefix.max_prefix_len() - prefix.prefix_len();
    let mut reserved = Vec::new();
    if is_host(prefix) {
        reserved.push(prefix.addr());
    }
    // RFC 3021 for /31, RFC 6164 for /127: both addresses are for hosts.
    if hosts > 1 {
        reserved.push(prefix.network());
        // IPv6 has no broadcast address; its first is the subnet-router anycast, RFC 4291 2.6.1.
        if Family::of(prefix.addr()) == Family::V4 {
            reserved.push(prefix.broadcast());
        }
    }
    reserved
}

fn set<K: Ord + Clone, V: PartialEq + Clone>(
    map: &mut BTreeMap<K, V>,
    key: &K,
    value: Option<V>,
) -> bool {
    match value {
        Some(value) => map.insert(key.clone(), value.clone()) != Some(value),
        None => map.remove(key).is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_of_a_claim_that_is_known_to_be_over_is_old() {
        let vip = |uid: &str, version: &str| ObservedVip {
            identity: crate::Identity {
                uid: uid.into(),
                version: crate::Version::new(version),
            },
            vip: herald_model::VirtualIp {
                address: crate::testkit::ip("192.0.2.1"),
                pool: "p".into(),
                epoch: herald_model::Epoch(1),
                phase: herald_model::Phase::Active,
                announce: herald_model::Announce::All,
                conflict_policy: herald_model::ConflictPolicy::Defend,
                advertisements: Vec::new(),
                services: Vec::new(),
                segments: Vec::new(),
            },
            holdings: Vec::new(),
            lan: crate::Lan::default(),
            move_to: None,
        };
        let address = crate::testkit::ip("192.0.2.1");
        let mut world = World::default();
        assert!(world.apply_vip(vip("one", "1")));
        world.end_vip(address, &"one".into());
        assert!(!world.apply_vip(vip("one", "2")), "the watch is behind");
        assert!(world.apply_vip(vip("two", "4")));
        assert!(!world.delete_vip(address, &"one".into()), "not this one");
        assert!(world.delete_vip(address, &"two".into()));
    }

    #[test]
    fn first_last_and_own_address_of_a_subnet_are_reserved() {
        let of = |text: &str| -> Vec<String> {
            reserved_in(&text.parse().unwrap())
                .iter()
                .map(ToString::to_string)
                .collect()
        };
        assert_eq!(
            of("192.0.2.7/24"),
            ["192.0.2.7", "192.0.2.0", "192.0.2.255"]
        );
        assert_eq!(of("192.0.2.0/24"), ["192.0.2.0", "192.0.2.255"]);
        assert_eq!(of("192.0.2.7/31"), ["192.0.2.7"]);
        assert_eq!(of("192.0.2.7/32"), ["192.0.2.7"]);
        assert_eq!(of("2001:db8::5/64"), ["2001:db8::5", "2001:db8::"]);
        assert_eq!(of("2001:db8::5/127"), ["2001:db8::5"]);
    }
}
