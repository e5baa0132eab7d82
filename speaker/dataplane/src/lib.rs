//! Target tables and the contents of the eBPF maps; pure.
