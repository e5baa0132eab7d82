//! Reasons of Events: one Event per change, on the object it happened to.

/// A Service got an address.
pub const ADDRESS_ALLOCATED: &str = "AddressAllocated";
/// A Service gave an address back.
pub const ADDRESS_RELEASED: &str = "AddressReleased";
/// A Service cannot have an address; the note says why and what to do.
pub const ALLOCATION_FAILED: &str = "AllocationFailed";
/// A stranger on the LAN answers for an address.
pub const ADDRESS_CONFLICT: &str = "AddressConflict";
/// A node began to announce an address that nobody announced.
pub const ANNOUNCED: &str = "Announced";
/// An address moved to another node.
pub const MOVED: &str = "Moved";
/// No node may announce an address.
pub const NO_ELIGIBLE_NODE: &str = "NoEligibleNode";
/// No advertisement selects an address whose pool wants one.
pub const NO_ADVERTISEMENT: &str = "NoAdvertisement";
/// An annotation of an older form was used; the note names the one to write.
pub const DEPRECATED_ANNOTATION: &str = "DeprecatedAnnotation";
/// An object says something that cannot be; its last valid state stays in force.
pub const INVALID: &str = "Invalid";
/// A pool has addresses in common with an earlier one.
pub const OVERLAP: &str = "Overlap";
