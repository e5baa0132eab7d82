//! The data plane as data: target tables and the contents of the eBPF maps.
//!
//! This crate decides what the maps of `speaker/ebpf` hold for a wish ([`Desired`]): which node takes
//! which share of the flows, which number stands for what, and in which order to write. It never touches
//! a map, knows no interface but by number, and does not know who should hold an address: the adapter
//! in `speaker/src/io/bpf` and the speaker's core do.
//!
//! Invariants:
//!
//! - Tables depend on the seed, the names of the targets and their weights, and on nothing else: they are
//!   the same on every node. A target that goes gives up its own slots and moves no other.
//! - With [`Forwarding::Pod`] a table also says who had each slot before, for as long as that node has
//!   pods. This comes from what was observed, and may differ from node to node.
//! - [`compile`] of what was compiled changes nothing, [`diff`] of equal contents is empty, and carrying
//!   a diff out leads to what was desired.
//! - Between two writes of a diff every packet goes where it went before or where it goes after.
//! - What was read back from the maps is as good as what was remembered: a restart is no special case.
//!
//! ```
//! use std::collections::{BTreeMap, BTreeSet};
//! use herald_dataplane::{Desired, DesiredNode, MapContents, MapName, compile, diff};
//! use herald_model::{IfIndex, Instant, MacAddress, NodeName};
//!
//! let interfaces = BTreeMap::from([(IfIndex(2), MacAddress([2, 0, 0, 0, 0, 1]))]);
//! let mut desired = Desired { seed: 42, interfaces, ..Desired::default() };
//! let node = DesiredNode { ipv4: Some("192.0.2.1".parse()?), is_self: true, ..DesiredNode::default() };
//! desired.nodes.insert(NodeName::from("node1"), node);
//!
//! let mut contents = MapContents::default();
//! let compiled = compile(&contents, &desired, Instant::ORIGIN);
//! contents.apply(&diff(&contents, &compiled.contents));
//! assert_eq!(contents.referenced(MapName::Nodes), BTreeSet::from([1]));
//! assert_eq!(compile(&contents, &desired, Instant::from_nanos(1)), compiled);
//! # Ok::<(), std::net::AddrParseError>(())
//! ```

#![deny(clippy::iter_over_hash_type, clippy::indexing_slicing)]

mod compile;
mod contents;
mod counters;
mod desired;
mod filter;
mod hash;
mod layout;
mod refused;
mod table;

pub use compile::{Compiled, compile};
pub use contents::{Entries, MapContents, MapName, MapOp, diff};
pub use counters::{Counters, Event, ServiceCounters};
pub use desired::{
    Desired, DesiredNode, DesiredPod, DesiredService, DesiredVip, Forwarding, Holder, Spread,
    Targets,
};
pub use hash::{flow_hash, pod_hash, slot};
pub use layout::{
    BLOCKS, LINKS, NODES, PODS, PORTS, RANGES, SERVICE_RANGES, SERVICES, SLOTS_PER_BLOCK, VIPS,
};
pub use refused::Refused;
pub use table::{CLUSTER_SLOTS, LOCAL_SLOTS, POD_SLOTS, SLOTS_PER_POD, fill, slots_for};
