//! Tests, demo and benchmarks on the lab.

pub mod netns;
