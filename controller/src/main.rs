//! Herald's controller: watches, decides, writes.

fn main() {}
