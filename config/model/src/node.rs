//! Nodes, as far as Herald looks at them.

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
}

impl Node {
    /// Whether nothing about the Node itself speaks against it as announcer or target.
    pub const fn is_usable(&self) -> bool {
        self.ready && !self.network_unavailable && !self.excluded && !self.out_of_service
    }
}
