//! What the API server is known to hold: values of `herald-model` with the few facts around them
//! that the controller needs.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use herald_model::{
    Advertisement, AdvertisementName, Endpoint, Epoch, InterfaceName, Labels, MacAddress, NodeName,
    Pool, PoolName, SegmentName, Service, ServiceKey, ServiceRef, Uid, VirtualIp,
};

/// The version of an object, as its `metadata.resourceVersion` says.
///
/// Versions of one object compare by age; the API server guarantees that they are decimal numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version(Arc<str>);

impl Version {
    /// Wraps the text as it is.
    pub fn new(text: impl Into<Arc<str>>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is an earlier version than the other.
    pub fn is_before(&self, other: &Self) -> bool {
        (self.0.len(), &self.0) < (other.0.len(), &other.0)
    }
}

/// One life of an API object at one version: what writes are made conditional on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The object's uid.
    pub uid: Uid,
    /// Its version.
    pub version: Version,
}

/// A condition, as far as it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Whether it holds.
    pub status: bool,
    /// Why, in one word.
    pub reason: Arc<str>,
    /// Why, in a sentence.
    pub message: Arc<str>,
    /// Since when it holds or does not, seconds since 1970.
    pub since: i64,
}

/// A Service, ours or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedService {
    /// Namespace and name.
    pub key: ServiceKey,
    /// Which life of it, and how old.
    pub identity: Identity,
    /// The addresses in its status.
    pub ingress: Vec<IpAddr>,
    /// Its condition `heraldlb.io/Allocated`.
    pub allocated: Option<Condition>,
    /// Its condition `heraldlb.io/Announced`.
    pub announced: Option<Condition>,
    /// Its annotation `heraldlb.io/allocated-from`.
    pub allocated_from: Option<PoolName>,
    /// Annotations of an older form that it carries, each with the one to write instead.
    pub deprecated: Vec<(&'static str, &'static str)>,
    /// What it asks for; `None`: it is not of type `LoadBalancer`, or not of one of our classes.
    pub service: Option<Arc<Service>>,
}

impl ObservedService {
    /// This life of it, as claims name it.
    pub fn service_ref(&self) -> ServiceRef {
        ServiceRef {
            key: self.key.clone(),
            uid: self.identity.uid.clone(),
        }
    }

    /// Whether it carries conditions of Herald's.
    pub fn is_marked(&self) -> bool {
        self.allocated.is_some() || self.announced.is_some()
    }

    /// The Service, if it is ours and not on its way out.
    pub fn served(&self) -> Option<&Service> {
        self.service.as_deref().filter(|service| !service.deleting)
    }
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedPool {
    /// Its uid.
    pub uid: Uid,
    /// Its labels, which advertisements select by.
    pub labels: Labels,
    /// What it says.
    pub pool: Pool,
    /// What its status says.
    pub status: PoolStatus,
}

/// The status of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolStatus {
    /// Its IPv4 addresses; `None` if it has none.
    pub v4: Option<TextCounts>,
    /// Its IPv6 addresses; `None` if it has none.
    pub v6: Option<TextCounts>,
    /// Its condition `Ready`.
    pub ready: Option<Condition>,
}

/// Counts as the status holds them: decimal text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextCounts {
    /// All that can be given.
    pub total: String,
    /// Those that Services hold.
    pub assigned: String,
    /// Those that can be given now.
    pub available: String,
}

/// An advertisement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedAdvertisement {
    /// Its uid.
    pub uid: Uid,
    /// What it says.
    pub advertisement: Advertisement,
    /// Its condition `Ready`.
    pub ready: Option<Condition>,
}

/// An object of a kind that people write.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum UserObject {
    /// An `IPPool`.
    Pool(PoolName),
    /// An `L2Advertisement`.
    Advertisement(AdvertisementName),
}

/// A claim: a `VirtualIP` with its status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedVip {
    /// Which life of it, and how old.
    pub identity: Identity,
    /// Its spec.
    pub vip: VirtualIp,
    /// Who announces it, from its status.
    pub holdings: Vec<Holding>,
    /// What is known of others on the LAN that use it, from its status.
    pub lan: Lan,
    /// Its annotation `heraldlb.io/move-to`: where people want it.
    pub move_to: Option<NodeName>,
}

/// What speakers say of an address and the LAN.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lan {
    /// The segments on which it was asked for before it is used.
    pub probed: BTreeSet<SegmentName>,
    /// The stranger that uses it, in a sentence; `None`: none is known.
    pub stranger: Option<Arc<str>>,
}

/// A node that announces an address on a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// The segment.
    pub segment: SegmentName,
    /// The node.
    pub node: NodeName,
    /// The node's interface.
    pub interface: InterfaceName,
    /// The MAC address it answers with.
    pub mac: MacAddress,
    /// The version of the plan it acted on.
    pub epoch: Epoch,
    /// Whether its speaker took it over: this life of the node was not the first candidate.
    pub taken_over: bool,
}

/// A speaker's Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeakerPod {
    /// The Pod's name.
    pub name: Arc<str>,
    /// The node it runs on.
    pub node: NodeName,
    /// Whether it is ready and not on its way out.
    pub ready: bool,
}

/// The endpoints in one `EndpointSlice`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// The Service it belongs to; its namespace is the slice's.
    pub service: ServiceKey,
    /// The slice's name.
    pub name: Arc<str>,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}
