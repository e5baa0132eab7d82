//! The observer ring: who is alive on a segment, decided by the speakers among themselves.

#![deny(clippy::iter_over_hash_type, clippy::indexing_slicing)]

mod auth;
pub mod codec;
mod config;
mod face;
mod id;
mod machine;
mod packet;
mod peers;
mod post;
mod watch;

pub use auth::{Authenticator, KeyId, Keys, Tag};
pub use codec::{Report, Standing};
pub use config::{Config, Member, Profile};
pub use face::{Counters, Effect, Hold, Input, RaiseReason, Scope, Timeline};
pub use id::NodeId;
pub use machine::Ring;
pub use packet::{MAX_DATAGRAM_BYTES, Packet};
