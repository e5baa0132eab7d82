//! The part of the speaker that tests of the data plane drive without the rest of it.

/// Adapters.
pub mod io {
    pub mod black_holes;
    pub mod bpf;
}
