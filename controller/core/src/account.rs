//! Why things are as they are, for whoever asks: read from what was decided, with the functions that
//! decide.

use std::fmt;
use std::net::IpAddr;

use herald_model::{
    AdvertisementName, Announce, Candidate, Departure, InterfaceName, NodeName, Phase, PoolName,
    SegmentName, ServiceKey, ServiceRef,
};

use crate::allocator::{Disagreement, Offer, Refusal};

/// How a Service came to its addresses, or why it has none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAccount {
    /// The addresses it should have, in the order of its families.
    pub target: Vec<IpAddr>,
    /// Those it is about to lose.
    pub leaving: Vec<IpAddr>,
    /// Why it has not what it should have.
    pub problem: Option<Refusal>,
    /// Why it has one family only, under `PreferDualStack`.
    pub missing: Option<Refusal>,
    /// What each pool says to it, in the order in which they are tried.
    pub offers: Vec<Offer>,
    /// Who holds an address that it asks for and would not share it, and why.
    pub disagreements: Vec<(IpAddr, ServiceKey, Disagreement)>,
    /// What the API server said of fields of its status that somebody else owns.
    pub owned: Option<String>,
}

/// Who may announce an address, and what is planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressAccount {
    /// The pool it is of; `None`: of none any more.
    pub pool: Option<PoolName>,
    /// Who holds it.
    pub holders: Vec<ServiceRef>,
    /// Where it is in its life; `None`: the claim is to end.
    pub phase: Option<Phase>,
    /// Who announces it.
    pub announce: Announce,
    /// What became of each advertisement, by name.
    pub advertisements: Vec<AdvertisementAccount>,
    /// Whether it is announced only from nodes with an endpoint.
    pub needs_local_endpoint: bool,
    /// The segments there are.
    pub segments: Vec<SegmentAccount>,
    /// The nodes that announce nothing on any segment, and why.
    pub absent: Vec<(NodeName, Obstacle)>,
    /// What the API server said when it refused the claim.
    pub error: Option<String>,
}

/// Whether an advertisement counts for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdvertisementAccount {
    /// Its name.
    pub name: AdvertisementName,
    /// It selects the pool.
    pub selects_pool: bool,
    /// It selects every Service that holds the address.
    pub selects_services: bool,
}

/// An address on a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentAccount {
    /// The segment.
    pub name: SegmentName,
    /// The plan, the first one first; empty: nobody is planned here.
    pub candidates: Vec<Candidate>,
    /// Every node with an interface in the segment.
    pub nodes: Vec<NodeAccount>,
}

/// How a node stands to an address on a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAccount {
    /// The node.
    pub node: NodeName,
    /// Its interface in the segment.
    pub interface: InterfaceName,
    /// The sum of the weights by which advertisements prefer it.
    pub preference: u32,
    /// For how many addresses it is the first candidate on the segment.
    pub load: usize,
    /// What speaks against it.
    pub obstacles: Vec<Obstacle>,
}

impl NodeAccount {
    /// Whether it may announce the address, and can, as far as it says itself.
    pub fn is_eligible(&self) -> bool {
        !self.obstacles.iter().any(Obstacle::forbids)
    }
}

/// Something that speaks against a node as the announcer of an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// There is a `Speaker` object for it, and no Node.
    NoNode,
    /// There is no `Speaker` object for it.
    NoSpeaker,
    /// It has no interface in any segment.
    NoSegment,
    /// It is labelled as excluded from load balancers.
    Excluded,
    /// It has the taint that takes it out of service.
    OutOfService,
    /// Its speaker is being taken down.
    SpeakerStopping,
    /// Its condition `NetworkUnavailable` is true.
    NetworkUnavailable,
    /// Its interface has no carrier.
    NoCarrier {
        /// The interface.
        interface: InterfaceName,
    },
    /// An advertisement is wanted, and none selects the address.
    NoAdvertisement,
    /// No advertisement of the address selects the node.
    NodeNotSelected,
    /// Advertisements of the address select the node, but not its interface.
    InterfaceNotSelected,
    /// Only a node with an endpoint may announce it, and this one has none.
    NoLocalEndpoint,
    /// Kubernetes says that the node is not ready: a hint, the speakers find out by themselves.
    NodeNotReady,
    /// Kubernetes says that its speaker's Pod is not ready, or there is none: a hint.
    SpeakerNotReady,
    /// It is about to go: it hands over where another is well.
    Departs {
        /// Why.
        departure: Departure,
    },
}

impl Obstacle {
    /// Whether it alone keeps a node from being planned; else the node only comes after others.
    pub const fn forbids(&self) -> bool {
        !matches!(
            self,
            Self::NodeNotReady | Self::SpeakerNotReady | Self::Departs { .. }
        )
    }
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoNode => f.write_str("there is no such Node"),
            Self::NoSpeaker => f.write_str("it has no speaker"),
            Self::NoSegment => f.write_str("it has no interface to announce on"),
            Self::Excluded => f.write_str(
                "it has the label node.kubernetes.io/exclude-from-external-load-balancers",
            ),
            Self::OutOfService => f.write_str("it has the taint node.kubernetes.io/out-of-service"),
            Self::SpeakerStopping => f.write_str("its speaker is being taken down"),
            Self::NetworkUnavailable => f.write_str("its condition NetworkUnavailable is true"),
            Self::NoCarrier { interface } => write!(f, "its interface {interface} has no carrier"),
            Self::NoAdvertisement => f.write_str("no L2Advertisement selects the address"),
            Self::NodeNotSelected => {
                f.write_str("no L2Advertisement of the address selects the node")
            }
            Self::InterfaceNotSelected => {
                f.write_str("no L2Advertisement of the address names its interface")
            }
            Self::NoLocalEndpoint => f.write_str(
                "it has no ready endpoint, and kube-proxy takes the traffic under Local",
            ),
            Self::NodeNotReady => f.write_str("the node is not Ready"),
            Self::SpeakerNotReady => f.write_str("its speaker's Pod is not Ready"),
            Self::Departs { departure } => write!(f, "it {departure}"),
        }
    }
}
