//! Where target tables lie.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Compiler;
use super::group::{GroupKey, Kind, Member, TargetName, Weights};
use crate::Spread;
use crate::contents::MapName;
use crate::layout::{
    BLOCKS, Direct, NOBODY_BEFORE, PortKey, Route, SLOTS_PER_BLOCK, TableRef, decode_block,
    encode_block, encode_number,
};
use crate::table::{POD_SLOTS, fill, slots_for, slots_for_pods};

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

/// How the packets of a port go the way that a table says.
type Way = (u16, Option<Direct>);

/// That a port uses a table: that of nodes, or that of our own pods.
type Use = (PortKey, bool);

/// The tables that a port uses, by whether they are of pods.
fn tables_of(route: Route) -> impl Iterator<Item = (bool, TableRef)> {
    let pods = route.pods.map(|pods| (true, pods));
    std::iter::once((false, route.table)).chain(pods)
}

impl GroupKey<'_> {
    /// Whether a table can be this one's, with other contents.
    fn fits(&self, table: TableRef) -> bool {
        let has_size = match self.kind {
            Kind::Nodes(_) | Kind::NodesOfPods => table.slots == self.slots(),
            Kind::Pods => POD_SLOTS.contains(&table.slots),
        };
        has_size && table.has_before == self.has_before()
    }

    fn has_before(&self) -> bool {
        self.kind == Kind::NodesOfPods
    }

    /// How many slots a new table has.
    fn slots(&self) -> u32 {
        match self.kind {
            Kind::Nodes(spread) => slots_for(spread),
            Kind::NodesOfPods => slots_for(Spread::Local),
            Kind::Pods => slots_for_pods(self.targets.len()),
        }
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
        let mut leaving: BTreeMap<Use, (TableRef, Way)> = BTreeMap::new();
        let mut free = FreeBlocks::default();
        for (&key, entry) in &self.ports {
            for (route, (is_pods, table)) in entry
                .route
                .into_iter()
                .flat_map(|route| tables_of(route).map(move |table| (route, table)))
            {
                free.take(table);
                leaving.insert((key, is_pods), (table, (route.node_port, route.direct)));
            }
        }
        for member in members {
            let nodes = (false, member.group);
            for (is_pods, group) in [Some(nodes), member.pods.map(|pods| (true, pods))]
                .into_iter()
                .flatten()
            {
                let Some((table, way)) = leaving.remove(&(member.key, is_pods)) else {
                    continue;
                };
                if way != (member.node_port, member.direct) {
                    busy.insert(table);
                }
                users.entry(table).or_default().insert(group);
                if let Some(candidates) = candidates.get_mut(group) {
                    candidates.insert(table);
                }
            }
        }
        let mut filled = Filled::default();
        let seed = self.desired.seed;
        busy.extend(leaving.into_values().map(|(table, _way)| table));
        groups
            .iter()
            .zip(candidates)
            .map(|(group, candidates)| {
                let is_alone = |table: &TableRef| {
                    !busy.contains(table) && users.get(table).is_some_and(|of| of.len() == 1)
                };
                let kept = candidates.iter().copied().find(|table| {
                    // Of two with equal slots each has a history of its own.
                    let mut can_share = || {
                        let blocks = filled.blocks(seed, table.slots, &group.targets);
                        !group.has_before() && self.holds(*table, blocks)
                    };
                    group.fits(*table) && (is_alone(table) || can_share())
                });
                let table = match kept {
                    Some(table) => table,
                    None => free.allocate(group.slots(), group.has_before())?,
                };
                let blocks = filled.blocks(seed, table.slots, &group.targets);
                let before = if table.has_before {
                    let is_like =
                        |old: &TableRef| (old.slots, old.has_before) == (table.slots, true);
                    let old = kept.or_else(|| candidates.iter().copied().find(is_like));
                    match old {
                        Some(old) => self.before(old, blocks, &group.targets),
                        None => self.before_us(table.slots, blocks, &group.targets),
                    }
                } else {
                    Vec::new()
                };
                for (key, block) in block_keys(table).zip(blocks.iter().chain(&before)) {
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

    /// The slots of before, where none are known: as after a boot, when the slots that are ours now were those of
    /// the nodes that would have them without us.
    fn before_us(&self, slots: u32, now: &[Arc<[u8]>], targets: &Weights) -> Vec<Arc<[u8]>> {
        let is_us = |name: &TargetName| match name {
            TargetName::Node(name) => self
                .desired
                .nodes
                .get(name)
                .is_some_and(|node| node.is_self),
            TargetName::Pod(_) => false,
        };
        let us = targets.iter().find(|(name, _)| is_us(name));
        let us = us.map(|(_, &(_, number))| number);
        let mut others = targets.clone();
        others.retain(|name, _| !is_us(name));
        let owners = fill(self.desired.seed, slots, &others);
        let now = now.iter().flat_map(|block| decode_block(block));
        let before: Vec<u16> = now
            .zip(owners)
            .map(|(now, owner)| owner.filter(|_| Some(now) == us).unwrap_or(NOBODY_BEFORE))
            .collect();
        let blocks = before.chunks(SLOTS_PER_BLOCK).map(encode_block);
        blocks.map(Arc::from).collect()
    }

    /// The slots of before, given the table of before: each belonged to the last one that had it, is not
    /// the one that has it now, and still is among the targets. A slot may belong to the same for ever;
    /// what has forgotten its connections by then says so.
    fn before(&self, old: TableRef, now: &[Arc<[u8]>], targets: &Weights) -> Vec<Arc<[u8]>> {
        let known: BTreeSet<u16> = targets.values().map(|&(_, number)| number).collect();
        let old_blocks: Vec<&[u8]> = block_keys(old)
            .map(|key| self.observed.get(MapName::Blocks, &key).unwrap_or_default())
            .collect();
        now.iter()
            .enumerate()
            .map(|(index, block)| {
                let slots_of = |index: usize| {
                    let bytes = old_blocks.get(index).copied().unwrap_or_default();
                    decode_block(bytes).chain(std::iter::repeat(0))
                };
                let slots: Vec<u16> = decode_block(block)
                    .zip(slots_of(index))
                    .zip(slots_of(now.len().saturating_add(index)))
                    .map(|((now, last), earlier)| {
                        [last, earlier]
                            .into_iter()
                            .find(|number| *number != now && known.contains(number))
                            .unwrap_or(NOBODY_BEFORE)
                    })
                    .collect();
                encode_block(&slots).into()
            })
            .collect()
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
    /// Number of blocks → where the last table of this size ends: there is no room for another before that.
    searched: BTreeMap<u32, u32>,
}

impl FreeBlocks {
    fn take(&mut self, table: TableRef) {
        let end = table.block_numbers().end;
        let known = self.taken.entry(table.first_block).or_default();
        *known = end.max(*known);
    }

    fn allocate(&mut self, slots: u32, has_before: bool) -> Option<TableRef> {
        let mut table = TableRef {
            first_block: 0,
            slots,
            has_before,
        };
        let blocks = table.block_numbers().end;
        table.first_block = self.searched.get(&blocks).copied().unwrap_or(0);
        for (&first, &end) in self.taken.range(table.first_block..) {
            if table.block_numbers().end <= first {
                break;
            }
            table.first_block = table.first_block.max(end);
        }
        let end = table.block_numbers().end;
        (end <= BLOCKS).then(|| {
            self.take(table);
            self.searched.insert(blocks, end);
            table
        })
    }
}
