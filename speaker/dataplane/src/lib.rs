//! The data plane as data: target tables and the contents of the eBPF maps.
//!
//! This crate decides what the maps of `speaker/ebpf` hold for a wish ([`Desired`]). It never
//! touches a map: the adapter in `speaker/src/io/bpf` does.

#![deny(clippy::iter_over_hash_type, clippy::indexing_slicing)]

mod desired;

pub use desired::{
    Desired, DesiredNode, DesiredService, DesiredVip, Forwarding, Holder, Spread, Targets,
};
