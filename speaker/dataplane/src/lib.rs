//! The data plane as data: target tables and the contents of the eBPF maps.
//!
//! This crate decides what the maps of `speaker/ebpf` hold for a wish ([`Desired`]). It never
//! touches a map: the adapter in `speaker/src/io/bpf` does.

#![deny(clippy::iter_over_hash_type, clippy::indexing_slicing)]

mod compile;
mod contents;
mod counters;
mod desired;
mod hash;
mod layout;
mod table;

pub use compile::{Compiled, Refused, compile};
pub use contents::{Entries, MapContents, MapName, MapOp, diff};
pub use counters::{Counters, Event, ServiceCounters};
pub use desired::{
    Desired, DesiredNode, DesiredService, DesiredVip, Forwarding, Holder, Spread, Targets,
};
pub use hash::{flow_hash, slot};
pub use layout::{BLOCKS, NODES, SLOTS_PER_BLOCK};
pub use table::{CLUSTER_SLOTS, LOCAL_SLOTS, LOCAL_SLOTS_PER_NODE, fill, slots_for};
