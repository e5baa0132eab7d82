//! What holds across crates, tested without a cluster.
//!
//! `tests/architecture.rs` keeps the crates apart as the import table says, the pure ones free of
//! clocks, sockets and files, and the chart in step with the workspace. It reads the tree and
//! `cargo metadata`, never the network.
//!
//! [`ring`] is a simulator of observer rings; `tests/ring*.rs` and the binary `ring-sim` use it.
//! [`cluster`] puts speakers and the controller around such rings; `tests/cluster_seeds.rs` and the
//! binary `cluster-sim` use it.

pub mod cluster;
pub mod ring;
