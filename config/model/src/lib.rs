//! The shared vocabulary of Herald: validated domain values.
//!
//! This crate decides nothing and knows nothing of Kubernetes, clocks, sockets or tasks. Values
//! are valid by construction: whoever holds an [`AddressRange`] need not ask whether its ends are
//! in order. API objects become these values in `herald-config`, the only place both meet.
//!
//! Invariants: an [`AddressRange`] has two ends of one family, first ≤ last; ids are never
//! compared across kinds; every map is ordered, so that whatever is derived from these values is
//! the same on every node.
//!
//! ```
//! use herald_model::{AddressRange, Family};
//!
//! let range: AddressRange = "192.0.2.10-192.0.2.19".parse()?;
//! assert_eq!(range.family(), Family::V4);
//! assert_eq!(range.size(), 10);
//! assert!(range.contains("192.0.2.12".parse()?));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(clippy::iter_over_hash_type, clippy::indexing_slicing)]

mod address;
mod advertisement;
mod endpoint;
mod ids;
mod node;
mod pool;
mod selector;
mod service;
mod speaker;
mod time;
mod vip;

pub use address::{AddressRange, Family, ParseRangeError};
pub use advertisement::{Advertisement, InterfacePattern, WeightedSelector};
pub use endpoint::{Endpoint, EndpointPort, ServiceEndpoints};
pub use ids::{
    AdvertisementName, Epoch, IfIndex, Incarnation, InterfaceName, MacAddress, NamespaceName,
    NodeName, ParseMacError, PoolName, SegmentName, ServiceKey, Uid,
};
pub use node::{Departure, Node};
pub use pool::{AdvertisementPolicy, Allowed, ConflictPolicy, Pool, Scope};
pub use selector::{Labels, Operator, Requirement, Selector};
pub use service::{
    ForwardingMode, IpFamilyPolicy, PROXY_NAME, Protocol, Request, Service, ServicePort,
    SessionAffinity, TrafficPolicy,
};
pub use speaker::{CRASH, Speaker, SpeakerSegment};
pub use time::Instant;
pub use vip::{Announce, Candidate, MOVE_TO, Phase, ServiceRef, Tenure, VipSegment, VirtualIp};
