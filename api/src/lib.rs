//! Herald's objects as the API server sees them, and every name Herald uses there.
//!
//! The crate holds the types of the group `heraldlb.io/v1alpha1` ([`IPPool`], [`L2Advertisement`],
//! [`VirtualIP`], [`Speaker`]), their schemas with the rules that the API server enforces, and the
//! names of annotations, labels, conditions, Event reasons and field managers. It decides nothing,
//! has no client, and is never seen by a pure crate: `herald-config` turns its types into validated
//! values first.
//!
//! Invariants: the files in `helm/crds/` are what these types generate (a test compares them); a
//! rule that a schema can check is checked by the schema, with a message that names the field and
//! what is expected there.
//!
//! ```
//! use herald_api::{IPPool, IPPoolSpec};
//!
//! let pool = IPPool::new(
//!     "public",
//!     IPPoolSpec {
//!         addresses: vec!["192.0.2.0/24".to_owned()],
//!         ..IPPoolSpec::default()
//!     },
//! );
//! assert!(pool.spec.auto_assign && pool.spec.conflict_probe);
//! ```

#![expect(
    unreachable_pub,
    reason = "KubeSchema copies each struct, with its visibility, into a function body"
)]
#![expect(
    clippy::duplicated_attributes,
    reason = "several columns of one kind have a type or a priority in common"
)]

pub mod annotations;
pub mod conditions;
mod crds;
pub mod events;
mod ip_pool;
mod l2_advertisement;
pub mod labels;
pub mod managers;
mod schema;
mod speaker;
mod virtual_ip;

pub use crds::{crd_files, crds};
pub use ip_pool::{
    AddressCounts, AdvertisementPolicy, Allowed, ConflictPolicy, IPPool, IPPoolSpec, IPPoolStatus,
    Scope,
};
pub use l2_advertisement::{
    L2Advertisement, L2AdvertisementSpec, L2AdvertisementStatus, PreferredNodeSelector,
};
pub use speaker::{DataPlane, DataPlaneMode, Speaker, SpeakerSegment, SpeakerSpec, SpeakerStatus};
pub use virtual_ip::{
    AnnouncedSegment, Announcers, Candidate, Forwarding, PlannedSegment, ServiceReference,
    VipPhase, VirtualIP, VirtualIPSpec, VirtualIPStatus,
};

/// The API group of all of Herald's objects.
pub const GROUP: &str = "heraldlb.io";
/// The version of the group.
pub const VERSION: &str = "v1alpha1";
