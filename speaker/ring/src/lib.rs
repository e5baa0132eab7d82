//! The observer ring: who is alive on a segment, decided by the speakers among themselves.
//!
//! Each member sends heartbeats to three others, its observers: the next live ones in three
//! orderings by hash. An observer that hears nothing asks the suspect directly and through others,
//! and asks its kernel by ARP or NS; then it votes. Most observers make a certificate, if most of
//! the last view, or a witness, is on their side; it goes to everybody. A life that is certified
//! over stays over: who was in it begins a new one, with a higher incarnation, and nobody believes
//! a new life that has not echoed a fresh nonce. What somebody missed is noticed by the digest on
//! heartbeats, and sent again.
//!
//! The crate decides who is alive, never who announces what; holds of addresses it only carries. It
//! has no clock, socket or key: the driver hands in datagrams and time, sends what
//! [`Effect::Send`] says, and makes tags through [`Authenticator`].
//!
//! Invariants:
//! - the side of a partition without most of the last view, and without a witness, declares nobody
//!   dead; a certificate is proof of that, so who hears one need not ask for quorum again;
//! - nothing that was sent before counts when it is sent again, not even to one that just started;
//! - our own lateness is held against nobody, and yet ends: in one silence, short ones are forgiven
//!   as much as the longest of them lasts, and nobody is voted against who was not asked enough;
//! - after the start nothing is allocated, as long as the driver keeps no more packets than before,
//!   the list of members stays, and no new address is held.
//!
//! ```
//! # use herald_model::{Incarnation, Instant};
//! # use herald_ring::{Authenticator, Config, Effect, Input, KeyId, Keys, Member, Profile, Ring, Tag};
//! # struct NoTag;
//! # impl Authenticator for NoTag {
//! #     fn tag(&self, _: KeyId, _: [&[u8]; 2]) -> Option<Tag> { Some(Tag([0; 16])) }
//! # }
//! let member = |node: &str, last| Member {
//!     node: node.into(),
//!     address: [192, 0, 2, last].into(),
//!     incarnation: Incarnation(1),
//! };
//! let members = [member("node1", 1), member("node2", 2)];
//! let config = Config {
//!     profile: Profile::Fast,
//!     cluster: "5a4c".to_owned(),
//!     segment: "192.0.2.0/24".into(),
//!     first_sequence: 1,
//! };
//! let (mut now, mut effects) = (Instant::from_nanos(5_000_000_000), Vec::new());
//! let mut ring = Ring::new(&config, NoTag, &members[0], &members, 7, now);
//! ring.handle(now, Input::KeysChanged(Some(Keys::only(KeyId(1)))), &mut effects);
//! while effects.is_empty() {
//!     now = ring.next_deadline().expect("with a key there are heartbeats");
//!     ring.on_deadline(now, &mut effects);
//! }
//! assert!(matches!(effects[0], Effect::Send { to, .. } if to == members[1].address));
//! ```

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
