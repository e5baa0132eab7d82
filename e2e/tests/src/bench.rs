//! What the benchmarks share: pods and Services on a cluster, rounds, tables.

pub mod finish;
pub mod group;
pub mod stage;
pub mod table;
