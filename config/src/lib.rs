//! API objects to validated domain values, and the flags that decide which objects are ours.
//!
//! This crate is the only place where the API's types and the model's meet. It decides what an
//! object says, never what to do about it. It never fills in a guess: what cannot be understood is
//! an error, or, on a Service, a sentence in [`herald_model::Request::invalid`], that names the
//! field and the value.
//!
//! It also holds what controller and speaker have in common when they watch: [`Relist`] keeps a
//! deletion from being lost when a list is broken off.
//!
//! Invariants: a value that comes out needs no further checks; two objects that mean the same give
//! equal values (lists whose order means nothing come out sorted); [`virtual_ip`] undoes
//! [`virtual_ip_spec`].
//!
//! ```
//! use herald_api::{IPPool, IPPoolSpec};
//!
//! let mut object = IPPool::new(
//!     "public",
//!     IPPoolSpec {
//!         addresses: vec!["192.0.2.0/24".to_owned()],
//!         ..IPPoolSpec::default()
//!     },
//! );
//! let pool = herald_config::pool(&object)?;
//! assert_eq!(pool.ranges.len(), 1);
//!
//! object.spec.addresses = vec!["192.0.2.20-192.0.2.10".to_owned()];
//! let error = herald_config::pool(&object).unwrap_err();
//! assert!(herald_config::sentence(&error).starts_with("spec.addresses[0]"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod advertisement;
mod duration;
mod endpoints;
mod flags;
mod log;
mod meta;
mod node;
mod pool;
mod relist;
mod selector;
mod service;
mod speaker;
mod virtual_ip;

pub use advertisement::{InvalidAdvertisement, advertisement};
pub use duration::duration;
pub use endpoints::{endpoints, endpoints_of_slice, service_of_slice};
pub use flags::{DEFAULT_CLASS, ServiceFlags};
pub use log::{LogFlags, LogFormat};
pub use meta::sentence;
pub use node::{node, segment_overrides, service_ranges};
pub use pool::{InvalidPool, pool};
pub use relist::{Change, Relist, WatchEvent};
pub use selector::{InvalidSelector, selector};
pub use service::{NotOurs, deprecated_annotations, not_ours, service, service_key};
pub use speaker::{InvalidSpeaker, speaker, speaker_segment};
pub use virtual_ip::{InvalidVirtualIp, virtual_ip, virtual_ip_spec};
