//! Tests, demo and benchmarks on the lab.
