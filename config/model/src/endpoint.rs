//! The endpoints of a Service, one value from all its `EndpointSlices`.

use std::net::IpAddr;

use crate::{NodeName, ServiceKey};

/// Where a Service's pods are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceEndpoints {
    /// The Service.
    pub service: ServiceKey,
    /// Its endpoints, ordered, without repetition.
    pub endpoints: Vec<Endpoint>,
}

/// One endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// The node it runs on; `None`: outside the cluster or unknown.
    pub node: Option<NodeName>,
    /// Condition `ready`; absent counts as true.
    pub ready: bool,
    /// Condition `serving`; absent counts as `ready`.
    pub serving: bool,
    /// Condition `terminating`.
    pub terminating: bool,
}
