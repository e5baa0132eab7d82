//! Herald's speaker: announces addresses and forwards their traffic.

fn main() {}
