//! Deterministic tests across crates, and the architecture test.
