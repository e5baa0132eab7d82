//! The controller's decisions: which Service gets which address, and who is to announce it.
//!
//! [`Controller`] is fed with what the API server holds ([`Input`]) and says what is to be written
//! ([`Effect`]). It knows no clock, socket, task or Kubernetes client. It decides only while it
//! leads; on standby it keeps its picture of the API server warm and writes nothing.
//!
//! It never releases an address before the Service's status has stopped showing it, never shows an
//! address before its claim (the `VirtualIP`) is certain, and never takes an address from a
//! Service that may keep it: a restart changes nothing.
//!
//! Invariants, which `tests/sim` checks against a small API server under failures, restarts and
//! late writes of a deposed leader:
//!
//! - a claim stops naming a Service only when that Service's status does not show the address;
//! - a status shows an address only while the claim on it names that life of the Service;
//! - the Services in one claim agree to share;
//! - another plan has a higher epoch;
//! - when everything is at rest, nodes that may announce the same addresses announce about as many, and
//!   those that are about to go none;
//! - whatever failed, when the failures end everything converges, no further write is made, and a
//!   restart makes none.
//!
//! Decisions where the design is silent:
//!
//! - A new claim is `Probing` until the nodes planned for it have asked their LANs, or a second has
//!   passed. Where no node is planned nobody can ask, and an address that a status shows is in use
//!   already: such a claim is `Active` at once.
//! - An address that a stranger uses is put aside for two minutes; who asked for it by name gets it
//!   after that, if it is free then.
//! - Higher priority first; among pools of one priority, those limited to some Services come
//!   before those open to all, as whoever limits a pool to them wants them to use it; then by name.
//! - A Service with a sharing key takes the lowest address of the pool that others would share,
//!   else the lowest free one.
//! - An address that turns out to be a node's own, or a subnet's first or last, is not taken back
//!   from a Service that has it.
//! - A `RequireDualStack` Service one of whose addresses was lost keeps the other, with the reason
//!   in its condition, until both can be had.
//! - Who may not use a pool any more (`allowed`) loses its address; a changed request, scope or
//!   `autoAssign` never costs an address before another one is certain.
//! - Who is alive is for the speakers to find out: a node or Pod that is not ready loses nothing, the
//!   plan follows the speaker that took over.
//! - A node that is about to go (cordoned, shut down, being removed) hands over while another is well;
//!   where none is, it keeps what it has. Nothing comes back to it by itself.
//! - Addresses move to nodes that announce fewer or are preferred, a few at a time, and not soon after
//!   a failure. How much traffic an address has, and how old the cluster is, this crate does not know:
//!   there are no exceptions for addresses without traffic and for new clusters. Who fell, and what was
//!   moved, is in the memory of the leader alone: another one moves nothing for its first minutes.
//! - A speaker that ends, or a node that comes back after it was about to go, has not failed.
//! - Where no node fits, the plan stays as it is: a node that only seems unfit had better go on.
//! - That nobody announces an address is said after three seconds, so that a move is not three
//!   writes and a Warning.
//! - A claim that names a Service nobody told of is left alone for three seconds: one watch may be
//!   slower than another.
//! - A status that somebody else owns is not forced: the condition says so, the claim is kept.
//!
//! ```
//! use herald_controller_core::{Controller, Input, Settings, testkit::{pool, svc}};
//! use herald_model::Instant;
//!
//! let mut controller = Controller::new(Settings::default());
//! let mut effects = Vec::new();
//! let now = Instant::ORIGIN;
//! for input in [
//!     pool("public").range("192.0.2.0/24").applied(),
//!     svc("ns/web").port(80).applied(),
//!     Input::Synced,
//!     Input::LEADS_FOR_GOOD,
//! ] {
//!     controller.handle(now, input, &mut effects);
//! }
//! assert!(format!("{effects:?}").contains("CreateVip"));
//! ```

#![deny(clippy::iter_over_hash_type, clippy::indexing_slicing)]

mod account;
mod allocator;
mod balance;
mod controller;
mod election;
mod falls;
mod io;
mod leader;
mod observed;
mod outbox;
mod placement;
mod rehearsal;
mod ring_keys;
mod snapshot;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
mod world;

pub use account::{
    AddressAccount, AdvertisementAccount, NodeAccount, Obstacle, SegmentAccount, ServiceAccount,
};
pub use allocator::{
    Allocator, Ask, Choice, Counts, Disagreement, Offer, Overlap, PerFamily, Refusal, Terms,
};
pub use controller::{Controller, Rebalancing, Settings};
pub use election::{Bid, Election, LeaseView};
pub use io::{Effect, Event, Input, Regarding, ServiceStatus, Write, WriteId, WriteResult};
pub use observed::{
    Condition, Holding, Identity, Lan, ObservedAdvertisement, ObservedPool, ObservedService,
    ObservedVip, PoolStatus, Slice, SpeakerPod, TextCounts, UserObject, Version,
};
pub use outbox::{Outbox, Urgency};
pub use rehearsal::Rehearsal;
pub use ring_keys::{KeyFault, KeySecret, KeyStep, key_step};
pub use snapshot::{PoolSnapshot, Snapshot};
