//! What the maps have no room for.

use std::net::IpAddr;

use herald_model::{NodeName, Protocol, ServiceKey};

use crate::layout::{BLOCKS, NODES, PODS, PORTS, RANGES, SERVICE_RANGES, SLOTS_PER_BLOCK, VIPS};

/// A wish that is not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Two Services want the same port of an address; the first one has it.
    #[error("port {port}/{protocol} of {address} is another Service's")]
    PortTaken {
        /// The Service that does not have it.
        service: ServiceKey,
        /// The address.
        address: IpAddr,
        /// The protocol.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
    /// A Service in a protocol whose packets can't be translated; it is forwarded as with
    /// [`Forwarding::Off`](crate::Forwarding::Off).
    #[error("{protocol} cannot be translated")]
    Protocol {
        /// The Service.
        service: ServiceKey,
        /// The protocol.
        protocol: Protocol,
    },
    /// There is no room for the ports of one more address; as a whole it is left to kube-proxy.
    #[error(
        "there is no room for {address}: there may be {VIPS} pairs of an address and an interface, and {} ports of addresses",
        PORTS / 2
    )]
    NoRoomForPorts {
        /// A Service that has it.
        service: ServiceKey,
        /// The address.
        address: IpAddr,
    },
    /// There is no room for one more target table; the Service is forwarded as with
    /// [`Forwarding::Off`](crate::Forwarding::Off).
    #[error(
        "there is no room for its target table: all tables together have {} slots",
        slots()
    )]
    NoRoomForTable {
        /// The Service.
        service: ServiceKey,
    },
    /// There is no room for one more table of our own pods; of the Service, what comes to this node is
    /// left to kube-proxy.
    #[error(
        "there is no room for a table of its pods: all tables together have {} slots",
        slots()
    )]
    NoRoomForPods {
        /// The Service.
        service: ServiceKey,
    },
    /// The Service has more source ranges than one may have; it is forwarded as with
    /// [`Forwarding::Off`](crate::Forwarding::Off).
    #[error("it has {ranges} source ranges, and one Service may have {SERVICE_RANGES}")]
    TooManyRanges {
        /// The Service.
        service: ServiceKey,
        /// How many it has.
        ranges: usize,
    },
    /// There is no room for the source ranges of one more Service; it is forwarded as with
    /// [`Forwarding::Off`](crate::Forwarding::Off).
    #[error(
        "there is no room for its {ranges} source ranges: all Services together may have {RANGES}"
    )]
    NoRoomForRanges {
        /// The Service.
        service: ServiceKey,
        /// How many it has.
        ranges: usize,
    },
    /// There are more nodes than numbers; this one is no target.
    #[error("node {node} is no target: a cluster may have {} nodes", NODES - 1)]
    TooManyNodes {
        /// The node.
        node: NodeName,
    },
    /// There are more pods on our node than numbers; these get nothing.
    #[error("{pods} of its pods on this node get nothing: all Services together may have {} there", PODS - 1)]
    TooManyPods {
        /// The Service.
        service: ServiceKey,
        /// How many of its pods, a pod for each port.
        pods: usize,
    },
}

const fn slots() -> u64 {
    BLOCKS as u64 * SLOTS_PER_BLOCK as u64
}

impl Refused {
    /// The Service that it is about; `None`: a node.
    pub const fn service(&self) -> Option<&ServiceKey> {
        match self {
            Self::PortTaken { service, .. }
            | Self::Protocol { service, .. }
            | Self::NoRoomForPorts { service, .. }
            | Self::NoRoomForTable { service }
            | Self::NoRoomForPods { service }
            | Self::TooManyRanges { service, .. }
            | Self::NoRoomForRanges { service, .. }
            | Self::TooManyPods { service, .. } => Some(service),
            Self::TooManyNodes { .. } => None,
        }
    }

    /// Whether what comes to this node for an address of the Service is left to kube-proxy.
    pub fn leaves(&self, to: IpAddr) -> bool {
        match self {
            Self::NoRoomForTable { .. }
            | Self::TooManyRanges { .. }
            | Self::NoRoomForRanges { .. } => true,
            Self::NoRoomForPorts { address, .. } => *address == to,
            Self::PortTaken { .. }
            | Self::Protocol { .. }
            | Self::NoRoomForPods { .. }
            | Self::TooManyNodes { .. }
            | Self::TooManyPods { .. } => false,
        }
    }

    /// Its kind, a metric label.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::PortTaken { .. } => "port_taken",
            Self::Protocol { .. } => "protocol",
            Self::NoRoomForPorts { .. } => "ports",
            Self::NoRoomForTable { .. } => "table",
            Self::NoRoomForPods { .. } => "pod_table",
            Self::TooManyRanges { .. } => "ranges_of_service",
            Self::NoRoomForRanges { .. } => "ranges",
            Self::TooManyNodes { .. } => "nodes",
            Self::TooManyPods { .. } => "pods",
        }
    }
}
