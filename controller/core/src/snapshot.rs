//! What metrics and people are shown.

use herald_model::PoolName;

use crate::allocator::{Counts, PerFamily};

/// The controller's state in numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Whether every kind has been told of completely.
    pub synced: bool,
    /// Whether this replica leads.
    pub leading: bool,
    /// Services that Herald serves.
    pub services: usize,
    /// Of those, the ones that have not what they should have; 0 on standby.
    pub pending: usize,
    /// Addresses of Services that nobody announces, or only since a moment ago; 0 on standby.
    pub unannounced: usize,
    /// Claims, resting ones included.
    pub claims: usize,
    /// Objects that wait to be written, or are being written.
    pub outbox: usize,
    /// The pools, by name; empty on standby.
    pub pools: Vec<PoolSnapshot>,
}

/// One pool in numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSnapshot {
    /// Its name.
    pub name: PoolName,
    /// Its addresses; `None` for a family it has none of.
    pub counts: PerFamily<Option<Counts>>,
}
