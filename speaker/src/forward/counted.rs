//! What the data plane counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use herald_dataplane::{Counters, MapOp, Refused};
use herald_model::ServiceKey;

/// Counters, and what the numbers in them stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) counters: Counters,
    pub(crate) services: BTreeMap<ServiceKey, u32>,
    pub(crate) repairs: Repairs,
    pub(crate) updates: Updates,
    /// What there is no room for.
    pub(crate) refused: Arc<[Refused]>,
}

/// What was done to the maps, to bring them to what is wished.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Updates {
    /// How often they were brought there, with something to do or not.
    pub(crate) wishes: u64,
    /// Entries written.
    pub(crate) written: u64,
    /// Entries removed.
    pub(crate) removed: u64,
}

impl Updates {
    pub(super) fn count(&mut self, ops: &[MapOp]) {
        for op in ops {
            match op {
                MapOp::Put { .. } => self.written += 1,
                MapOp::Delete { .. } => self.removed += 1,
            }
        }
    }
}

/// What had to be put back, as somebody else had taken it away.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Repairs {
    /// How often programs were attached again.
    pub(crate) programs: u64,
    /// How often entries of maps were written again.
    pub(crate) entries: u64,
}
