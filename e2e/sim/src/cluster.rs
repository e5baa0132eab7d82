//! A whole cluster under one virtual clock: speaker cores, rings and the controller are those that
//! ship; API server, LAN, kernels and data planes are models.
//!
//! What the speaker's threads do between core and ring is done here as `speaker/src/io/rings.rs`
//! does it. Everything is drawn from one seed.

mod api;
mod check;
mod host;
mod rings;
mod speakers;
mod story;
mod table;
mod watch;
mod world;

pub use story::{Failure, tell};
pub use table::Cluster;
