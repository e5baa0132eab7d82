//! API objects to validated domain values.

mod relist;

pub use relist::{Change, Relist, WatchEvent};
