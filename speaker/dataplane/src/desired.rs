//! What the data plane is to do: the caller's whole wish, in domain values.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use herald_model::{IfIndex, MacAddress, NodeName, Protocol, ServiceKey};
use ipnet::IpNet;

/// Everything the data plane of one node is to do. It is handed over whole on every change; what
/// has to be written is found out by comparing.
///
/// Every node builds the same `seed`, `vips[..].services` and target weights from the API; only
/// `holders`, `is_self`, the interfaces and its own pods differ. That is what makes the tables equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Spreads flows and fills tables; the same on every node of the cluster.
    pub seed: u64,
    /// Whether echo requests to an address are dropped, and not answered by who holds it.
    pub ignores_echo: bool,
    /// The uplinks the programs are to run on, and their MAC addresses.
    pub interfaces: BTreeMap<IfIndex, MacAddress>,
    /// All nodes of the cluster that run a speaker or are a target, ourselves included.
    pub nodes: BTreeMap<NodeName, DesiredNode>,
    /// All addresses of the cluster that any node announces or may announce.
    pub vips: BTreeMap<IpAddr, DesiredVip>,
}

impl Desired {
    /// The addresses all of whose ports are served by [`Forwarding::Dsr`] or [`Forwarding::Pod`]: what
    /// kube-proxy does not take of the packets that nodes get for them, it does not know yet. Of a Service without endpoints that
    /// is not so: kube-proxy refuses such packets when they have been routed.
    pub fn vips_of_targets(&self) -> impl Iterator<Item = IpAddr> {
        self.vips
            .iter()
            .filter(|(_, vip)| {
                !vip.services.is_empty() && vip.services.iter().all(DesiredService::is_straight)
            })
            .map(|(address, _)| *address)
    }
}

impl DesiredService {
    fn is_straight(&self) -> bool {
        match &self.forwarding {
            Forwarding::Dsr { targets, .. } | Forwarding::Pod { targets, .. } => {
                targets.weights.values().any(|weight| *weight > 0)
            }
            Forwarding::NodePort { .. } | Forwarding::Off => false,
        }
    }
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
    /// We do, and another node that is still there did before: a target's reply of a flow that only
    /// that one knows is handed to it.
    MeAfter {
        /// That node's own address on the segment, of either family.
        address: IpAddr,
    },
    /// Another node does: a client's frame that reaches us all the same is relayed there.
    Peer {
        /// That node's own address on the segment, of either family.
        address: IpAddr,
    },
    /// Nobody: packets are dropped and counted.
    #[default]
    Nobody,
}

impl Holder {
    /// Whether we do.
    pub const fn is_me(&self) -> bool {
        matches!(self, Self::Me | Self::MeAfter { .. })
    }
}

/// One port of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredService {
    /// The Service; its ports share counters and source ranges.
    pub service: ServiceKey,
    /// TCP, UDP or SCTP; SCTP only with [`Forwarding::Dsr`] and [`Forwarding::Off`].
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
    /// As with [`Forwarding::Dsr`] to a node's MAC address; that node gives each flow to one of its own
    /// pods, without kube-proxy.
    Pod {
        /// The nodes, and how many of their pods take new flows. Those with a weight of zero get no new
        /// connections, and keep those they have.
        targets: Arc<Targets>,
        /// Whether the client's address alone chooses the node and the pod: `sessionAffinity: ClientIP`.
        by_address: bool,
        /// The pods on our own node, each once.
        pods: Arc<[DesiredPod]>,
    },
    /// Up to our own stack, where kube-proxy takes them.
    Off,
}

/// A pod on our own node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DesiredPod {
    /// Its address, of the VIP's family, and its own port.
    pub address: SocketAddr,
    /// Whether it takes new flows; else only those it has go on.
    pub takes_new: bool,
}

/// The nodes that take a Service's traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// The kind of table.
    pub spread: Spread,
    /// Nodes and their shares; a node that is not in [`Desired::nodes`], one without an address of the VIP's
    /// family and, but for [`Forwarding::Pod`], one with a weight of zero count as absent.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn service(forwarding: Forwarding) -> DesiredService {
        DesiredService {
            service: ServiceKey {
                namespace: "default".into(),
                name: "web".into(),
            },
            protocol: Protocol::Tcp,
            port: 80,
            forwarding,
            source_ranges: Arc::default(),
        }
    }

    fn targets(weight: u32) -> Arc<Targets> {
        Arc::new(Targets {
            spread: Spread::Local,
            weights: BTreeMap::from([("node1".into(), weight)]),
        })
    }

    fn dsr(weight: u32) -> DesiredService {
        service(Forwarding::Dsr {
            targets: targets(weight),
            by_address: false,
            node_port: None,
        })
    }

    fn pod(weight: u32) -> DesiredService {
        service(Forwarding::Pod {
            targets: targets(weight),
            by_address: false,
            pods: Arc::default(),
        })
    }

    #[test]
    fn an_address_is_one_of_targets_if_all_its_ports_have_some() {
        let node_port = || {
            service(Forwarding::NodePort {
                node_port: 30_080,
                targets: targets(1),
            })
        };
        let addresses = [
            ("192.0.2.1", vec![dsr(1)]),
            ("192.0.2.2", vec![dsr(1), dsr(2)]),
            ("192.0.2.3", vec![dsr(1), dsr(0)]),
            ("192.0.2.4", vec![dsr(1), service(Forwarding::Off)]),
            ("192.0.2.5", vec![dsr(1), node_port()]),
            ("192.0.2.6", vec![]),
            ("192.0.2.7", vec![dsr(1), pod(1)]),
            ("192.0.2.8", vec![pod(0)]),
        ];
        let desired = Desired {
            vips: addresses
                .into_iter()
                .map(|(address, services)| {
                    let vip = DesiredVip {
                        services,
                        ..DesiredVip::default()
                    };
                    (address.parse().unwrap(), vip)
                })
                .collect(),
            ..Desired::default()
        };
        let found: Vec<IpAddr> = desired.vips_of_targets().collect();
        assert_eq!(
            found,
            ["192.0.2.1", "192.0.2.2", "192.0.2.7"]
                .map(|address| address.parse::<IpAddr>().unwrap())
        );
    }
}
