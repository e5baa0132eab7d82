//! Entries of maps as bytes: aya's maps are typed by the sizes of keys and values.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd as _;

use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use herald_dataplane::{Counters, Event, MapContents, MapName, MapOp, ServiceCounters};

use super::BpfError;
use super::batch::per_cpu_elements;

type Stats = [u64; ServiceCounters::FIELDS];

/// Bytes of a value of `nodes`.
const NODE: usize = MapName::Nodes.value_bytes();
/// And of `services`.
const SERVICE: usize = MapName::Services.value_bytes();
/// And of `filters`.
const FILTERS: usize = MapName::Filters.value_bytes();

fn failed(call: &'static str, map: MapName) -> impl Fn(MapError) -> BpfError {
    move |source| BpfError::Map {
        call,
        map: map.as_str(),
        source,
    }
}

fn sized<const N: usize>(map: MapName, bytes: &[u8]) -> Result<[u8; N], BpfError> {
    bytes.try_into().map_err(|_other_size| BpfError::EntrySize {
        map: map.as_str(),
        bytes: bytes.len(),
    })
}

/// Adds the entries of one map.
pub(super) fn read(name: MapName, map: &Map, into: &mut MapContents) -> Result<(), BpfError> {
    match name {
        MapName::Config => read_array::<12>(name, map, into),
        MapName::Filters => read_array::<FILTERS>(name, map, into),
        MapName::Nodes => read_array::<NODE>(name, map, into),
        MapName::Blocks => read_array::<512>(name, map, into),
        MapName::Addresses => read_hash::<16, 4>(name, map, into),
        MapName::Macs => read_hash::<8, 4>(name, map, into),
        MapName::Pods => read_hash::<4, 24>(name, map, into),
        MapName::Services => read_hash::<20, SERVICE>(name, map, into),
        MapName::Vips => read_hash::<20, 28>(name, map, into),
        MapName::Ranges => read_ranges(name, map, into),
        MapName::Stats => {
            read_stats(name, into);
            Ok(())
        }
    }
}

/// Whether an entry is in a map with this value. Only of those maps that say what is done with an
/// address; of others everything counts as there.
pub(super) fn has(name: MapName, map: &Map, key: &[u8], value: &[u8]) -> Result<bool, BpfError> {
    match name {
        MapName::Config => has_element::<12>(name, map, key, value),
        MapName::Filters => has_element::<FILTERS>(name, map, key, value),
        MapName::Services => has_entry::<20, SERVICE>(name, map, key, value),
        MapName::Vips => has_entry::<20, 28>(name, map, key, value),
        MapName::Nodes
        | MapName::Addresses
        | MapName::Macs
        | MapName::Pods
        | MapName::Blocks
        | MapName::Ranges
        | MapName::Stats => Ok(true),
    }
}

fn has_element<const V: usize>(
    name: MapName,
    map: &Map,
    key: &[u8],
    value: &[u8],
) -> Result<bool, BpfError> {
    let array: Array<&MapData, [u8; V]> = map.try_into().map_err(failed("open", name))?;
    let index = u32::from_le_bytes(sized(name, key)?);
    let found = array.get(&index, 0).map_err(failed("read", name))?;
    Ok(found == *value)
}

fn has_entry<const K: usize, const V: usize>(
    name: MapName,
    map: &Map,
    key: &[u8],
    value: &[u8],
) -> Result<bool, BpfError> {
    let hash: HashMap<&MapData, [u8; K], [u8; V]> = map.try_into().map_err(failed("open", name))?;
    match hash.get(&sized(name, key)?, 0) {
        Ok(found) => Ok(found == *value),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(source) => Err(failed("read", name)(source)),
    }
}

/// Carries one write out.
pub(super) fn write(map: &mut Map, op: &MapOp) -> Result<(), BpfError> {
    match op {
        MapOp::Put {
            map: name,
            key,
            value,
        } => match name {
            MapName::Config => set::<12>(*name, map, key, value),
            MapName::Filters => set::<FILTERS>(*name, map, key, value),
            MapName::Nodes => set::<NODE>(*name, map, key, value),
            MapName::Blocks => set::<512>(*name, map, key, value),
            MapName::Addresses => insert::<16, 4>(*name, map, key, value),
            MapName::Macs => insert::<8, 4>(*name, map, key, value),
            MapName::Pods => insert::<4, 24>(*name, map, key, value),
            MapName::Services => insert::<20, SERVICE>(*name, map, key, value),
            MapName::Vips => insert::<20, 28>(*name, map, key, value),
            MapName::Ranges => insert_range(*name, map, key, value),
            MapName::Stats => start_at_zero(*name, map, key),
        },
        MapOp::Delete { map: name, key } => match name {
            MapName::Config => set::<12>(*name, map, key, &[0; 12]),
            MapName::Filters => set::<FILTERS>(*name, map, key, &vec![0; FILTERS]),
            MapName::Nodes => set::<NODE>(*name, map, key, &[0; NODE]),
            MapName::Blocks => set::<512>(*name, map, key, &[0; 512]),
            MapName::Addresses => remove::<16, 4>(*name, map, key),
            MapName::Macs => remove::<8, 4>(*name, map, key),
            MapName::Pods => remove::<4, 24>(*name, map, key),
            MapName::Services => remove::<20, SERVICE>(*name, map, key),
            MapName::Vips => remove::<20, 28>(*name, map, key),
            MapName::Ranges => remove_range(*name, map, key),
            // Whoever gets this number next starts at zero.
            MapName::Stats => Ok(()),
        },
    }
}

fn read_array<const V: usize>(
    name: MapName,
    map: &Map,
    into: &mut MapContents,
) -> Result<(), BpfError> {
    let array: Array<&MapData, [u8; V]> = map.try_into().map_err(failed("open", name))?;
    for index in into.referenced(name) {
        let value = array.get(&index, 0).map_err(failed("read", name))?;
        into.put(name, index.to_le_bytes().to_vec(), value.to_vec());
    }
    Ok(())
}

fn read_hash<const K: usize, const V: usize>(
    name: MapName,
    map: &Map,
    into: &mut MapContents,
) -> Result<(), BpfError> {
    let hash: HashMap<&MapData, [u8; K], [u8; V]> = map.try_into().map_err(failed("open", name))?;
    for entry in &hash {
        let (key, value) = entry.map_err(failed("read", name))?;
        into.put(name, key.to_vec(), value.to_vec());
    }
    Ok(())
}

fn read_ranges(name: MapName, map: &Map, into: &mut MapContents) -> Result<(), BpfError> {
    let trie: LpmTrie<&MapData, [u8; 20], [u8; 4]> =
        map.try_into().map_err(failed("open", name))?;
    for entry in &trie {
        let (key, value) = entry.map_err(failed("read", name))?;
        let key = [&key.prefix_len().to_le_bytes()[..], &key.data()].concat();
        into.put(name, key, value.to_vec());
    }
    Ok(())
}

/// The values are not ours.
fn read_stats(name: MapName, into: &mut MapContents) {
    for id in into.referenced(name) {
        into.put(name, id.to_le_bytes().to_vec(), Vec::new());
    }
}

/// Keeps track of which elements of `stats` are in use.
pub(super) fn note_counted(op: &MapOp, counted: &mut BTreeSet<u32>) {
    let (MapOp::Put { map, key, .. } | MapOp::Delete { map, key }) = op;
    let id = key.as_slice().try_into().map(u32::from_le_bytes);
    if let (MapName::Stats, Ok(id)) = (*map, id) {
        match op {
            MapOp::Put { .. } => counted.insert(id),
            MapOp::Delete { .. } => counted.remove(&id),
        };
    }
}

fn set<const V: usize>(
    name: MapName,
    map: &mut Map,
    key: &[u8],
    value: &[u8],
) -> Result<(), BpfError> {
    let mut array: Array<&mut MapData, [u8; V]> = map.try_into().map_err(failed("open", name))?;
    let index = u32::from_le_bytes(sized(name, key)?);
    let value: [u8; V] = sized(name, value)?;
    array.set(index, value, 0).map_err(failed("write", name))
}

fn insert<const K: usize, const V: usize>(
    name: MapName,
    map: &mut Map,
    key: &[u8],
    value: &[u8],
) -> Result<(), BpfError> {
    let mut hash: HashMap<&mut MapData, [u8; K], [u8; V]> =
        map.try_into().map_err(failed("open", name))?;
    let key: [u8; K] = sized(name, key)?;
    let value: [u8; V] = sized(name, value)?;
    hash.insert(key, value, 0).map_err(failed("write", name))
}

fn remove<const K: usize, const V: usize>(
    name: MapName,
    map: &mut Map,
    key: &[u8],
) -> Result<(), BpfError> {
    let mut hash: HashMap<&mut MapData, [u8; K], [u8; V]> =
        map.try_into().map_err(failed("open", name))?;
    let key: [u8; K] = sized(name, key)?;
    gone(hash.remove(&key)).map_err(failed("delete from", name))
}

fn range_key(name: MapName, key: &[u8]) -> Result<Key<[u8; 20]>, BpfError> {
    let key: [u8; 24] = sized(name, key)?;
    let (length, data) = key.split_at(4);
    Ok(Key::new(
        u32::from_le_bytes(sized(name, length)?),
        sized(name, data)?,
    ))
}

fn insert_range(name: MapName, map: &mut Map, key: &[u8], value: &[u8]) -> Result<(), BpfError> {
    let mut trie: LpmTrie<&mut MapData, [u8; 20], [u8; 4]> =
        map.try_into().map_err(failed("open", name))?;
    let value: [u8; 4] = sized(name, value)?;
    trie.insert(&range_key(name, key)?, value, 0)
        .map_err(failed("write", name))
}

fn remove_range(name: MapName, map: &mut Map, key: &[u8]) -> Result<(), BpfError> {
    let mut trie: LpmTrie<&mut MapData, [u8; 20], [u8; 4]> =
        map.try_into().map_err(failed("open", name))?;
    gone(trie.remove(&range_key(name, key)?)).map_err(failed("delete from", name))
}

fn start_at_zero(name: MapName, map: &mut Map, key: &[u8]) -> Result<(), BpfError> {
    let mut array: PerCpuArray<&mut MapData, Stats> =
        map.try_into().map_err(failed("open", name))?;
    let unreadable = |source| BpfError::PinFolder {
        call: "count CPUs in",
        path: "/sys/devices/system/cpu".into(),
        source,
    };
    let cpus = aya::util::nr_cpus().map_err(|(_what, source)| unreadable(source))?;
    let zeros =
        PerCpuValues::try_from(vec![[0; ServiceCounters::FIELDS]; cpus]).map_err(unreadable)?;
    let index = u32::from_le_bytes(sized(name, key)?);
    array.set(index, zeros, 0).map_err(failed("write", name))
}

/// An entry that is gone already is as good as removed.
fn gone(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.kind() == std::io::ErrorKind::NotFound =>
        {
            Ok(())
        }
        result => result,
    }
}

/// The counters of one Service, summed over CPUs.
pub(super) fn counted(stats: &Map, id: u32) -> Result<ServiceCounters, BpfError> {
    let name = MapName::Stats;
    let services: PerCpuArray<&MapData, Stats> = stats.try_into().map_err(failed("open", name))?;
    let shares = services.get(&id, 0).map_err(failed("read", name))?;
    let mut total = ServiceCounters::default();
    for &share in shares.iter() {
        total.add(share);
    }
    Ok(total)
}

/// Values that one call reads: 640 KiB.
const BATCH: usize = 16_384;

/// Reads in few calls: with thousands of Services one for each would take most of a scrape's time.
fn count_services(
    stats: &Map,
    counted: &BTreeSet<u32>,
    into: &mut BTreeMap<u32, ServiceCounters>,
) -> Result<(), BpfError> {
    let name = MapName::Stats;
    // It has values of our size, or this fails.
    let _array: PerCpuArray<&MapData, Stats> = stats.try_into().map_err(failed("open", name))?;
    let Map::PerCpuArray(data) = stats else {
        return Err(BpfError::Missing {
            name: name.as_str(),
        });
    };
    let cpus = aya::util::nr_cpus().map_err(|(_what, source)| BpfError::PinFolder {
        call: "count CPUs in",
        path: "/sys/devices/system/cpu".into(),
        source,
    })?;
    let batch = u32::try_from(BATCH.checked_div(cpus).unwrap_or(0).max(1)).unwrap_or(u32::MAX);
    let Some(&last) = counted.last() else {
        return Ok(());
    };
    let mut after = None;
    while after.is_none_or(|after| after < last) {
        let next = after.map_or(0, |after: u32| after.saturating_add(1));
        let elements = batch.min(last.saturating_sub(next).saturating_add(1));
        let read = per_cpu_elements(data.fd().as_fd(), after, elements, cpus);
        let (keys, values) = read.map_err(|source| BpfError::Batch {
            map: name.as_str(),
            source,
        })?;
        for (key, shares) in keys.iter().zip(values.chunks(cpus)) {
            if counted.contains(key) {
                let mut total = ServiceCounters::default();
                for &share in shares {
                    total.add(share);
                }
                into.insert(*key, total);
            }
        }
        let Some(&read) = keys.last() else {
            return Ok(());
        };
        after = Some(read);
    }
    Ok(())
}

/// All counters, summed over CPUs.
pub(super) fn counters(
    stats: &Map,
    counted: &BTreeSet<u32>,
    events: &Map,
) -> Result<Counters, BpfError> {
    let failed = |call, map| move |source| BpfError::Map { call, map, source };
    let mut counters = Counters::default();
    count_services(stats, counted, &mut counters.services)?;
    let array: PerCpuArray<&MapData, u64> = events.try_into().map_err(failed("open", "events"))?;
    for (index, &event) in (0_u32..).zip(Event::ALL) {
        let shares = array.get(&index, 0).map_err(failed("read", "events"))?;
        counters.events.insert(event, shares.iter().sum());
    }
    Ok(counters)
}
