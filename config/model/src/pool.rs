//! Pools of addresses.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::{AddressRange, NamespaceName, PoolName, Selector};

/// Where VIPs come from: a valid `IPPool`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    /// The object's name.
    pub name: PoolName,
    /// When the object was created, seconds since 1970; the earlier pool keeps an overlap.
    pub created: i64,
    /// Its addresses, in the order written; the ranges of one pool do not overlap.
    pub ranges: Vec<AddressRange>,
    /// Whether a Service that asks for nothing may get an address from here.
    pub auto_assign: bool,
    /// Whether IPv4 addresses that end in .0 and .255 are skipped.
    pub avoid_buggy_ips: bool,
    /// Which Services it serves by their scope.
    pub scope: Scope,
    /// Higher is tried first; ties are broken by name.
    pub priority: i32,
    /// Which Services it serves by namespace and labels.
    pub allowed: Allowed,
    /// Who announces it when no advertisement selects it.
    pub advertisement: AdvertisementPolicy,
    /// Whether the LAN is asked before a new address is used.
    pub conflict_probe: bool,
    /// What is done when a stranger answers for an address in use.
    pub conflict_policy: ConflictPolicy,
    /// How long a freed address rests before it is given again.
    pub reuse_delay: Duration,
}

/// The scope of a pool, or of a Service's request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Reachable from outside.
    #[default]
    External,
    /// Serves only Services that ask for an internal address.
    Internal,
}

/// Who announces the addresses of a pool that no advertisement selects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdvertisementPolicy {
    /// Every node, on every segment.
    #[default]
    Default,
    /// Nobody.
    Explicit,
}

/// What is done when a stranger on the LAN answers for an address in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConflictPolicy {
    /// It is kept and defended.
    #[default]
    Defend,
    /// Nobody announces it until the stranger has been silent for a minute.
    Yield,
}

/// Which Services a pool serves: (namespaces ∪ namespace selectors) ∩ service selectors.
///
/// A part that is empty allows everything; a selector that matches nothing allows nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// Namespaces by name.
    pub namespaces: BTreeSet<NamespaceName>,
    /// Namespaces by label.
    pub namespace_selectors: Vec<Selector>,
    /// Services by label.
    pub service_selectors: Vec<Selector>,
}

impl Allowed {
    /// Whether it restricts anything at all.
    pub fn is_open(&self) -> bool {
        self.namespaces.is_empty()
            && self.namespace_selectors.is_empty()
            && self.service_selectors.is_empty()
    }
}
