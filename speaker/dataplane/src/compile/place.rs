//! Where target tables lie.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use herald_model::NodeName;

use super::{Compiler, GroupKey, Member};
use crate::Spread;
use crate::contents::MapName;
use crate::layout::{BLOCKS, SLOTS_PER_BLOCK, TableRef, encode_block, encode_number};
use crate::table::{LOCAL_SLOTS, fill, slots_for};

/// Weights and numbers of targets.
type Weights = BTreeMap<NodeName, (u32, u16)>;

/// The blocks of tables, by their slots and targets: those of many Services are equal.
#[derive(Default)]
struct Filled<'a>(BTreeMap<(u32, &'a Weights), Vec<Arc<[u8]>>>);

impl<'a> Filled<'a> {
    fn blocks(&mut self, seed: u64, slots: u32, targets: &'a Weights) -> &[Arc<[u8]>] {
        self.0.entry((slots, targets)).or_insert_with(|| {
            let slots: Vec<u16> = fill(seed, slots, targets)
                .into_iter()
                .map(Option::unwrap_or_default)
                .collect();
            let blocks = slots.chunks(SLOTS_PER_BLOCK).map(encode_block);
            blocks.map(Arc::from).collect()
        })
    }
}

impl<'a> Compiler<'a> {
    /// Finds each group its place and writes its table there. A table is changed in place if nobody
    /// else uses it, and those who do go the same way as before; so its Services need not be touched,
    /// and none of them ever goes its old way to new targets.
    pub(super) fn place(
        &mut self,
        members: &[Member<'a>],
        groups: &[GroupKey<'a>],
    ) -> Vec<Option<TableRef>> {
        let mut candidates: Vec<BTreeSet<TableRef>> =
            groups.iter().map(|_| BTreeSet::new()).collect();
        let mut users: BTreeMap<TableRef, BTreeSet<usize>> = BTreeMap::new();
        let mut busy = BTreeSet::new();
        let mut leaving = self.ports.clone();
        let mut free = FreeBlocks::default();
        for entry in self.ports.values() {
            if let Some(route) = entry.route {
                free.take(route.table);
            }
        }
        for member in members {
            let before = leaving.remove(&member.key).and_then(|entry| entry.route);
            if let Some(route) = before {
                let table = route.table;
                if (route.node_port, route.direct) != (member.node_port, member.direct) {
                    busy.insert(table);
                }
                users.entry(table).or_default().insert(member.group);
                if let Some(candidates) = candidates.get_mut(member.group) {
                    candidates.insert(table);
                }
            }
        }
        let mut filled = Filled::default();
        let seed = self.desired.seed;
        let leaving = leaving.values().filter_map(|entry| entry.route);
        busy.extend(leaving.map(|route| route.table));
        groups
            .iter()
            .zip(candidates)
            .map(|(group, candidates)| {
                let fits = |table: &TableRef| match group.spread {
                    Spread::Cluster => table.slots == slots_for(Spread::Cluster, 0),
                    Spread::Local => LOCAL_SLOTS.contains(&table.slots),
                };
                let is_alone = |table: &TableRef| {
                    !busy.contains(table) && users.get(table).is_some_and(|of| of.len() == 1)
                };
                let kept = candidates.iter().copied().find(|table| {
                    fits(table)
                        && (is_alone(table)
                            || self.holds(*table, filled.blocks(seed, table.slots, &group.targets)))
                });
                let table = match kept {
                    Some(table) => table,
                    None => free.allocate(slots_for(group.spread, group.targets.len()))?,
                };
                let blocks = filled.blocks(seed, table.slots, &group.targets);
                for (key, block) in block_keys(table).zip(blocks) {
                    self.put_shared(MapName::Blocks, key, Arc::clone(block));
                }
                Some(table)
            })
            .collect()
    }

    fn holds(&self, table: TableRef, blocks: &[Arc<[u8]>]) -> bool {
        block_keys(table)
            .zip(blocks)
            .all(|(key, block)| self.observed.get(MapName::Blocks, &key) == Some(&**block))
    }
}

fn block_keys(table: TableRef) -> impl Iterator<Item = Vec<u8>> {
    table.block_numbers().map(encode_number)
}

/// Blocks that no table lies in, first fit.
#[derive(Default)]
struct FreeBlocks {
    /// First block → the block after the last, of tables that must not be written over.
    taken: BTreeMap<u32, u32>,
    /// Size → where the last table of this size ends: there is no room for another before that.
    searched: BTreeMap<u32, u32>,
}

impl FreeBlocks {
    fn take(&mut self, table: TableRef) {
        let end = table.block_numbers().end;
        let known = self.taken.entry(table.first_block).or_default();
        *known = end.max(*known);
    }

    fn allocate(&mut self, slots: u32) -> Option<TableRef> {
        let mut table = TableRef {
            first_block: self.searched.get(&slots).copied().unwrap_or(0),
            slots,
        };
        for (&first, &end) in self.taken.range(table.first_block..) {
            if table.block_numbers().end <= first {
                break;
            }
            table.first_block = table.first_block.max(end);
        }
        let end = table.block_numbers().end;
        (end <= BLOCKS).then(|| {
            self.take(table);
            self.searched.insert(slots, end);
            table
        })
    }
}
