//! What the data plane is to do: the caller's whole wish, in domain values.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use herald_model::{IfIndex, MacAddress, NodeName, Protocol, ServiceKey};
use ipnet::IpNet;

/// Everything the data plane of one node is to do. It is handed over whole on every change; what
/// has to be written is found out by comparing.
///
/// Every node builds the same `seed`, `vips[..].services` and target weights from the API; only
/// `holders`, `is_self` and the interfaces differ. That is what makes the tables equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Spreads flows and fills tables; the same on every node of the cluster.
    pub seed: u64,
    /// The uplinks the programs are to run on, and their MAC addresses.
    pub interfaces: BTreeMap<IfIndex, MacAddress>,
    /// All nodes of the cluster that run a speaker or are a target, ourselves included.
    pub nodes: BTreeMap<NodeName, DesiredNode>,
    /// All addresses of the cluster that any node announces or may announce.
    pub vips: BTreeMap<IpAddr, DesiredVip>,
}

/// A node, as a target and as the sender of frames.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredNode {
    /// Its primary IPv4 `InternalIP`; without one it is no target of IPv4 addresses.
    pub ipv4: Option<Ipv4Addr>,
    /// Its primary IPv6 `InternalIP`; without one it is no target of IPv6 addresses.
    pub ipv6: Option<Ipv6Addr>,
    /// Whether it is the node we run on: then its packets go up to our own stack.
    pub is_self: bool,
    /// Our interface that leads to its addresses; `None`: the one the client's packet came by,
    /// which is right where a node has one uplink.
    pub interface: Option<IfIndex>,
    /// The MAC addresses of its uplinks: a frame from one of them is never relayed or balanced again.
    pub macs: BTreeSet<MacAddress>,
    /// By our interface into a segment, its MAC address there; without any, it can't be reached by
    /// [`Forwarding::Dsr`].
    pub links: BTreeMap<IfIndex, MacAddress>,
}

impl DesiredNode {
    /// Its addresses.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        let ipv4 = self.ipv4.map(IpAddr::V4);
        ipv4.into_iter().chain(self.ipv6.map(IpAddr::V6))
    }
}

/// An address and what is behind it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DesiredVip {
    /// Who answers for it, by our interface into that segment; an interface that is missing here
    /// counts as [`Holder::Nobody`].
    pub holders: BTreeMap<IfIndex, Holder>,
    /// Its ports. (protocol, port) is unique within one address; the first one wins if it is not.
    pub services: Vec<DesiredService>,
}

/// Who holds an address on a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holder {
    /// We do.
    Me,
    /// Another node does: a client's frame that reaches us all the same is relayed there.
    Peer {
        /// That node's own address on the segment, of either family.
        address: IpAddr,
    },
    /// Nobody: packets are dropped and counted.
    #[default]
    Nobody,
}

/// One port of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredService {
    /// The Service; its ports share counters and source ranges.
    pub service: ServiceKey,
    /// TCP, UDP or SCTP; SCTP not with [`Forwarding::NodePort`].
    pub protocol: Protocol,
    /// The port on the address.
    pub port: u16,
    /// Where its packets go.
    pub forwarding: Forwarding,
    /// The clients that may use it, of any family; empty: everybody. Not looked at with
    /// [`Forwarding::Off`], where kube-proxy does it.
    pub source_ranges: Arc<[IpNet]>,
}

/// How packets reach the pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forwarding {
    /// To a node's `NodePort`, with the VIP as source.
    NodePort {
        /// The port on the nodes.
        node_port: u16,
        /// The nodes. With none left (no endpoint at all) packets are handled as with `Off`, so
        /// that kube-proxy on the holder refuses at once.
        targets: Arc<Targets>,
    },
    /// To a node's MAC address, where kube-proxy takes the packets and answers clients itself, whoever
    /// holds the address.
    Dsr {
        /// The nodes, as with [`Forwarding::NodePort`].
        targets: Arc<Targets>,
        /// Whether the client's address alone chooses the node: `sessionAffinity: ClientIP`.
        by_address: bool,
        /// The port on the nodes, if there is one: for targets that can't be reached by MAC address,
        /// and for connections of an earlier [`Forwarding::NodePort`].
        node_port: Option<u16>,
    },
    /// Up to our own stack, where kube-proxy takes them.
    Off,
}

/// The nodes that take a Service's traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// The kind of table.
    pub spread: Spread,
    /// Nodes and their shares; a weight of zero, a node that is not in [`Desired::nodes`] and one
    /// without an address of the VIP's family count as absent.
    pub weights: BTreeMap<NodeName, u32>,
}

/// Which table a Service uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Spread {
    /// `externalTrafficPolicy: Cluster`: 16,384 slots, shared by all Services with the same
    /// targets.
    Cluster,
    /// `externalTrafficPolicy: Local`: a table of the Service's own, sized for its nodes when it
    /// is first needed.
    Local,
}
