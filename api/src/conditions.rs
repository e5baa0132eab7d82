//! Condition types, and the reasons they are given.

/// A condition that holds.
pub const TRUE: &str = "True";
/// A condition that does not hold.
pub const FALSE: &str = "False";
/// A condition nobody can tell.
pub const UNKNOWN: &str = "Unknown";

/// On a Service: it has every address it should have.
pub const ALLOCATED: &str = "heraldlb.io/Allocated";
/// On a Service: a node announces each of its addresses.
pub const SERVICE_ANNOUNCED: &str = "heraldlb.io/Announced";

/// On an `IPPool`, `L2Advertisement` or `Speaker`: it is valid and in use.
pub const READY: &str = "Ready";

/// On a `VirtualIP`: a node announces it.
pub const ANNOUNCED: &str = "Announced";
/// On a `VirtualIP`: its traffic reaches its Services.
pub const FORWARDING: &str = "Forwarding";
/// On a `VirtualIP`: a stranger on the LAN answers for the address.
pub const CONFLICT: &str = "Conflict";
/// On a `VirtualIP` that has moved: its new holder answers for it, as another node found.
pub const VERIFIED: &str = "Verified";
/// On a `Speaker`, if it is false: other nodes send its node nothing for the addresses.
pub const TAKES_TRAFFIC: &str = "TakesTraffic";

/// Reasons of conditions: one word a program can compare, in the form Kubernetes wants.
pub mod reasons {
    /// All is as it should be.
    pub const READY: &str = "Ready";
    /// The object says something that cannot be.
    pub const INVALID: &str = "Invalid";
    /// It has addresses in common with an earlier pool.
    pub const OVERLAP: &str = "Overlap";
    /// An address was given.
    pub const ALLOCATED: &str = "Allocated";
    /// What the Service asks for cannot be understood.
    pub const INVALID_REQUEST: &str = "InvalidRequest";
    /// The pool that the Service names does not exist.
    pub const UNKNOWN_POOL: &str = "UnknownPool";
    /// There is no pool at all.
    pub const NO_POOL: &str = "NoPool";
    /// The node that took the address over answers for it.
    pub const HOLDER_ANSWERS: &str = "HolderAnswers";
    /// Another machine answers for the address than the node that took it over.
    pub const ANOTHER_ANSWERS: &str = "AnotherAnswers";
    /// Nobody answers for the address that a node took over.
    pub const NOBODY_ANSWERS: &str = "NobodyAnswers";
    /// No pool allows this Service.
    pub const NOT_ALLOWED: &str = "NotAllowed";
    /// The pools that allow this Service are full.
    pub const POOL_EXHAUSTED: &str = "PoolExhausted";
    /// The address that the Service asks for is in no pool.
    pub const OUTSIDE_POOLS: &str = "OutsidePools";
    /// The address that the Service asks for belongs to another Service.
    pub const ADDRESS_IN_USE: &str = "AddressInUse";
    /// No pool has addresses of a family the Service needs.
    pub const NO_ADDRESS_OF_FAMILY: &str = "NoAddressOfFamily";
    /// The address that the Service asks for is one that its pool leaves out.
    pub const ADDRESS_AVOIDED: &str = "AddressAvoided";
    /// The address that the Service asks for is one that is never given, such as a node's network
    /// address.
    pub const ADDRESS_RESERVED: &str = "AddressReserved";
    /// The Service has no cluster address yet, so that nobody knows which families it needs.
    pub const NO_CLUSTER_ADDRESS: &str = "NoClusterAddress";
    /// The API server does not take the claim on the address.
    pub const CLAIM_REFUSED: &str = "ClaimRefused";
    /// Another controller has written the Service's status.
    pub const STATUS_OWNED: &str = "StatusOwned";
    /// A node announces it.
    pub const ANNOUNCED: &str = "Announced";
    /// No node says yet that it announces it.
    pub const WAITING_FOR_SPEAKER: &str = "WaitingForSpeaker";
    /// No node may announce it.
    pub const NO_ELIGIBLE_NODE: &str = "NoEligibleNode";
    /// Its pool is announced only by an advertisement, and none selects it.
    pub const NO_ADVERTISEMENT: &str = "NoAdvertisement";
    /// Its traffic is forwarded.
    pub const FORWARDING: &str = "Forwarding";
    /// The node's kube-proxy takes the traffic, Herald does not forward it.
    pub const LEFT_TO_KUBE_PROXY: &str = "LeftToKubeProxy";
    /// No Service behind it has an endpoint.
    pub const NO_ENDPOINTS: &str = "NoEndpoints";
    /// Endpoints exist, but no node can take their traffic.
    pub const NO_TARGETS: &str = "NoTargets";
    /// The data plane could not be set up.
    pub const DATA_PLANE_FAILED: &str = "DataPlaneFailed";
    /// The announcing node's data plane has no room for something of a Service's.
    pub const DATA_PLANE_FULL: &str = "DataPlaneFull";
    /// A foreign MAC address answers for it.
    pub const ADDRESS_CONFLICT: &str = "AddressConflict";
    /// Nobody else answers for it.
    pub const NO_CONFLICT: &str = "NoConflict";
    /// The node's kernel is set not to forward packets.
    pub const NOT_FORWARDING: &str = "NotForwarding";
    /// The node has no interface to announce on.
    pub const NO_SEGMENT: &str = "NoSegment";
    /// The speaker has no key for the observer ring.
    pub const NO_RING_KEY: &str = "NoRingKey";
    /// The speaker can't take part in an observer ring.
    pub const NO_RING: &str = "NoRing";
    /// Of a holder: the plan names it first.
    pub const PLANNED: &str = "Planned";
    /// Of a holder: another node was planned, but does not live.
    pub const TAKEN_OVER: &str = "TakenOver";
    /// The speaker is being taken down.
    pub const STOPPING: &str = "Stopping";
    /// The speaker has removed everything of Herald's from its node, as it was asked to.
    pub const RETIRED: &str = "Retired";
}
