//! Many rings under one virtual clock: the machines are those that ship, the LAN is a model.
//!
//! The model is that of the study behind the protocol: 80 µs one way plus an exponential 40 µs, one
//! datagram in a thousand 1–5 ms late; loss independent of each other, or in bursts of 60 ms on
//! average on one direction of one link, with nine in ten lost. Everything is drawn from one seed.

mod figures;
mod lan;
mod world;

pub use figures::{Detection, FalseAlarms, detection, false_alarms};
pub use lan::{Lan, Loss};
pub use world::{Quick, Record, What, World, key, millis};
