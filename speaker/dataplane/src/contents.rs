//! What is in the maps, and what has to be written.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::filter::Filters;
use crate::layout::{
    Config, NodeEntry, PodEntry, PortKey, SERVICES, SLOTS_PER_BLOCK, ServiceEntry, TableRef, Vip,
    decode_number,
};

/// A map that the speaker writes.
///
/// The order is the order of writing: whatever an entry refers to comes before it, and deletions go
/// the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MapName {
    /// Seed and generation; an array of one.
    Config,
    /// Which VIPs and nodes there may be; an array of one.
    Filters,
    /// Node number → addresses and interface; an array.
    Nodes,
    /// Address → node number.
    Addresses,
    /// MAC address → node number.
    Macs,
    /// Number → pod of this node.
    Pods,
    /// 256 slots of a target table; an array.
    Blocks,
    /// Service id and prefix → allowed.
    Ranges,
    /// Service id → counters; an array. Only which elements are in use is ours; the values count on.
    Stats,
    /// VIP, port, protocol → Service.
    Services,
    /// VIP, interface → role.
    Vips,
}

impl MapName {
    /// Every map, in the order of writing.
    pub const ALL: [Self; 11] = [
        Self::Config,
        Self::Filters,
        Self::Nodes,
        Self::Addresses,
        Self::Macs,
        Self::Pods,
        Self::Blocks,
        Self::Ranges,
        Self::Stats,
        Self::Services,
        Self::Vips,
    ];

    /// The map's name in the eBPF object.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Config => "config",
            Self::Filters => "filters",
            Self::Nodes => "nodes",
            Self::Addresses => "addresses",
            Self::Macs => "macs",
            Self::Pods => "pods",
            Self::Blocks => "blocks",
            Self::Ranges => "ranges",
            Self::Stats => "stats",
            Self::Services => "services",
            Self::Vips => "vips",
        }
    }

    /// Whether it is an array whose values are ours: then an entry of zeros and no entry are the same.
    pub const fn is_array(self) -> bool {
        matches!(
            self,
            Self::Config | Self::Filters | Self::Nodes | Self::Blocks
        )
    }

    /// Bytes of a key.
    pub const fn key_bytes(self) -> usize {
        match self {
            Self::Config
            | Self::Filters
            | Self::Nodes
            | Self::Pods
            | Self::Blocks
            | Self::Stats => 4,
            Self::Macs => 8,
            Self::Addresses => 16,
            Self::Vips | Self::Services => 20,
            Self::Ranges => 24,
        }
    }

    /// Bytes of a value, zero for [`MapName::Stats`], whose values are not ours.
    pub const fn value_bytes(self) -> usize {
        match self {
            Self::Stats => 0,
            Self::Addresses | Self::Macs | Self::Ranges => 4,
            Self::Config => Config::BYTES,
            Self::Filters => Filters::BYTES,
            Self::Pods => PodEntry::BYTES,
            Self::Services => ServiceEntry::BYTES,
            Self::Vips => Vip::BYTES,
            Self::Nodes => NodeEntry::BYTES,
            Self::Blocks => SLOTS_PER_BLOCK * 2,
        }
    }
}

impl fmt::Display for MapName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The entries of one map. Values are shared: what does not change from one wish to the next is in memory once, as
/// are equal tables of thousands of Services.
pub type Entries = BTreeMap<Vec<u8>, Arc<[u8]>>;

/// The contents of all maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapContents {
    maps: BTreeMap<MapName, Entries>,
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MapOp {
    /// Write an entry, over the old one if there is one.
    Put {
        /// Where.
        map: MapName,
        /// The entry's key.
        key: Vec<u8>,
        /// Its value; empty for [`MapName::Stats`], where it means "start at zero".
        value: Arc<[u8]>,
    },
    /// Remove an entry; in an array, write zeros.
    Delete {
        /// Where.
        map: MapName,
        /// The entry's key.
        key: Vec<u8>,
    },
}

impl MapContents {
    /// Notes an entry. In an array, zeros count as none.
    pub fn put(&mut self, map: MapName, key: Vec<u8>, value: impl Into<Arc<[u8]>>) {
        let value = value.into();
        if map.is_array() && value.iter().all(|&byte| byte == 0) {
            self.delete(map, &key);
        } else {
            self.maps.entry(map).or_default().insert(key, value);
        }
    }

    /// Strikes an entry out.
    pub fn delete(&mut self, map: MapName, key: &[u8]) {
        if let Some(entries) = self.maps.get_mut(&map) {
            entries.remove(key);
            if entries.is_empty() {
                self.maps.remove(&map);
            }
        }
    }

    /// The value of an entry.
    pub fn get(&self, map: MapName, key: &[u8]) -> Option<&[u8]> {
        self.shared(map, key).map(AsRef::as_ref)
    }

    /// The same, to be put elsewhere.
    pub(crate) fn shared(&self, map: MapName, key: &[u8]) -> Option<&Arc<[u8]>> {
        self.maps.get(&map)?.get(key)
    }

    /// The entries of one map, by key.
    pub fn entries(&self, map: MapName) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.maps
            .get(&map)
            .into_iter()
            .flatten()
            .map(|(key, value)| (key.as_slice(), value.as_ref()))
    }

    /// How many entries one map has.
    pub(crate) fn count(&self, map: MapName) -> usize {
        self.maps.get(&map).map_or(0, BTreeMap::len)
    }

    /// The elements of an array, or of [`MapName::Stats`], that entries here refer to; empty for a hash. All others may hold
    /// anything: they are written before they are used.
    pub fn referenced(&self, array: MapName) -> BTreeSet<u32> {
        match array {
            MapName::Config | MapName::Filters => BTreeSet::from([0]),
            MapName::Nodes => self
                .entries(MapName::Addresses)
                .chain(self.entries(MapName::Macs))
                .filter_map(|(_, value)| decode_number(value))
                .collect(),
            MapName::Blocks => self
                .entries(MapName::Services)
                .filter_map(|(_, value)| ServiceEntry::decode(value)?.route)
                .flat_map(|route| {
                    let pods = route.pods.map(TableRef::block_numbers);
                    route
                        .table
                        .block_numbers()
                        .chain(pods.into_iter().flatten())
                })
                .collect(),
            MapName::Stats => self
                .entries(MapName::Services)
                .filter_map(|(key, value)| {
                    PortKey::decode(key)?;
                    Some(ServiceEntry::decode(value)?.id)
                })
                .filter(|&id| id < SERVICES)
                .collect(),
            _ => BTreeSet::new(),
        }
    }

    /// Carries writes out.
    pub fn apply(&mut self, ops: &[MapOp]) {
        for op in ops {
            match op {
                MapOp::Put { map, key, value } => {
                    self.put(*map, key.clone(), Arc::clone(value));
                }
                MapOp::Delete { map, key } => self.delete(*map, key),
            }
        }
    }
}

/// The writes that turn `observed` into `desired`, in an order in which no packet is misdirected in
/// between: additions and changes from what is referred to, to what refers; deletions after them and
/// the other way round.
pub fn diff(observed: &MapContents, desired: &MapContents) -> Vec<MapOp> {
    let puts = MapName::ALL.into_iter().flat_map(|map| {
        let entries = desired.maps.get(&map).into_iter().flatten();
        entries
            .filter(move |(key, value)| {
                let before = observed.shared(map, key);
                !before.is_some_and(|before| Arc::ptr_eq(before, value) || before == *value)
            })
            .map(move |(key, value)| MapOp::Put {
                map,
                key: key.clone(),
                value: Arc::clone(value),
            })
    });
    let deletes = MapName::ALL.into_iter().rev().flat_map(|map| {
        observed
            .entries(map)
            .filter(move |&(key, _)| desired.get(map, key).is_none())
            .map(move |(key, _)| MapOp::Delete {
                map,
                key: key.to_vec(),
            })
    });
    puts.chain(deletes).collect()
}
