//! Nodes, as far as Herald looks at them.

use std::fmt;
use std::net::IpAddr;

use crate::{AddressRange, Labels, NodeName};

/// A Kubernetes Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its labels.
    pub labels: Labels,
    /// Its `InternalIP` addresses, the primary one first.
    pub addresses: Vec<IpAddr>,
    /// The ranges that its pods get their addresses from, as far as Kubernetes gives them out.
    pub pod_ranges: Vec<AddressRange>,
    /// Condition `Ready` is true.
    pub ready: bool,
    /// Condition `NetworkUnavailable` is true.
    pub network_unavailable: bool,
    /// Label `node.kubernetes.io/exclude-from-external-load-balancers` is set and counts.
    pub excluded: bool,
    /// Taint `node.kubernetes.io/out-of-service` is set.
    pub out_of_service: bool,
    /// Why it is about to go, if somebody said so: it had better announce nothing when it does. Until
    /// then it is as good a target as any.
    pub departure: Option<Departure>,
}

/// Why a node is about to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Departure {
    /// The Node object is being deleted.
    Deleted,
    /// Its machine is shut down.
    ShutDown,
    /// An autoscaler is removing it.
    ScaledDown,
    /// It is cordoned, as before a drain.
    Cordoned,
}

impl fmt::Display for Departure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deleted => "is being deleted",
            Self::ShutDown => "is shut down",
            Self::ScaledDown => "is being removed by an autoscaler",
            Self::Cordoned => "is cordoned",
        })
    }
}

impl Node {
    /// Whether nothing about the Node itself speaks against it as announcer or target.
    pub const fn is_usable(&self) -> bool {
        self.ready && !self.network_unavailable && !self.excluded && !self.out_of_service
    }
}
