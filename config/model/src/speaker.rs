//! What a speaker says of itself and its node.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::{Incarnation, InterfaceName, MacAddress, NodeName, SegmentName};

/// The annotation of a `Speaker` whose every new value makes the speaker crash: it ends without handing over.
pub const CRASH: &str = "heraldlb.io/crash";

/// A speaker: from its `Speaker` object, and whether its Pod is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// The node it runs on, which the object is named after.
    pub node: NodeName,
    /// Where it can announce.
    pub segments: Vec<SpeakerSegment>,
    /// It was asked to end: others are to take its addresses over.
    pub stopping: bool,
    /// The node's kube-proxy runs in mode ipvs.
    pub ipvs: bool,
}

/// One L2 segment as one node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeakerSegment {
    /// The segment's name, the same on every node in it.
    pub name: SegmentName,
    /// The node's interface in it.
    pub interface: InterfaceName,
    /// That interface's MAC address.
    pub mac: MacAddress,
    /// The interface's prefixes that are not link-local.
    pub prefixes: Vec<IpNet>,
    /// The next hops of the interface's default routes that are not link-local.
    pub gateways: Vec<IpAddr>,
    /// Whether the interface is up and has carrier.
    pub carrier: bool,
    /// The number of this node's life on the segment.
    pub incarnation: Incarnation,
}
