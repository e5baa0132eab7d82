//! What one node announces and forwards.
//!
//! [`Core`] takes in what the API server, the kernel and the other threads of the speaker say, and
//! says what must be true: which addresses this node holds on which interface, what its data plane
//! does, what its objects say. It knows no clock, socket, task or Kubernetes client.
//!
//! Invariants:
//! - An address is announced only while one listed Service exists with that uid and that address
//!   in its status, in caches that were complete once; only by the elected node in its present
//!   life on the segment; and only once the data plane knows the address or is known to be absent.
//! - Nothing is withdrawn because a watch broke: caches change by events alone.
//! - What is withdrawn leaves no residue: no answer, no group, no neighbour entry.
//! - A status of a higher epoch is never overwritten: writes name the version they were made for.
//!
//! Inputs only record; the effects come out of [`Core::on_deadline`], so that a flood of events
//! leads to one decision. A driver takes in what is there, then calls it.
//!
//! ```
//! use herald_model::Instant;
//! use herald_speaker_core::{Cache, Config, Core, Input};
//!
//! let mut core = Core::new(Config::new("node1".into()));
//! let mut out = Vec::new();
//! core.handle(Instant::ORIGIN, Input::Synced(Cache::Services));
//! assert_eq!(core.next_deadline(), Some(Instant::ORIGIN));
//! core.on_deadline(Instant::ORIGIN, &mut out);
//! assert!(out.is_empty(), "one complete cache is not enough to decide anything: {out:?}");
//! ```

#![deny(clippy::iter_over_hash_type, clippy::indexing_slicing)]

mod core;
mod forecast;
mod forwarding;
mod input;
mod ring;
mod status;
mod uplinks;
mod vip;
mod writer;

pub use crate::core::{Announced, Config, Core, Elections, Overview, Verified};
pub use crate::forecast::{Facts, Forecast, Forwarded, Slots};
pub use crate::input::{
    Cache, DataPlaneMode, DataPlaneReport, Effect, EventReason, Grants, Input, KernelForwarding,
    Link, ObservedSpeaker, ObservedVip, Priority, SpeakerReport, Takeover, WriteOutcome,
};
pub use crate::ring::{Peer, RingCommand, RingEvent, RingKeys, View};
pub use crate::status::{AnnouncedSegment, Condition, ConditionKind, ForwardingState, VipStatus};
