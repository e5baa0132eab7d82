//! The endpoints of a Service, one value from all its `EndpointSlices`.

use std::net::IpAddr;
use std::sync::Arc;

use crate::{NodeName, Protocol, ServiceKey};

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
    /// Its own ports, ordered, without repetition; all endpoints of a slice share them.
    pub ports: Arc<[EndpointPort]>,
}

/// A port of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EndpointPort {
    /// The name of the Service's port that leads there.
    pub name: Arc<str>,
    /// The transport protocol.
    pub protocol: Protocol,
    /// Its number.
    pub port: u16,
}
