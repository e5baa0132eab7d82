//! The only sockets, netlink, eBPF maps and unsafe code of the speaker. Adapters: they decide
//! nothing.

pub(crate) mod filter;
pub(crate) mod groups;
pub(crate) mod layer2;
pub(crate) mod netlink;
pub(crate) mod reports;
pub(crate) mod rings;
pub(crate) mod settings;
pub(crate) mod sys;

// In the library, where the tests of the data plane find it too.
pub(crate) use herald_speaker::io::{black_holes, bpf};
