//! What the kernel says of the maps that a process has open: proc(5), `fdinfo`.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// `BPF_MAP_TYPE_LRU_HASH`: the tables of flows, which take their memory at once.
const LRU_HASH: u32 = 9;

/// One map.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Map {
    pub(crate) id: u32,
    pub(crate) kind: u32,
    pub(crate) key_bytes: u32,
    pub(crate) value_bytes: u32,
    bytes: u64,
}

/// The kernel's memory for them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Memory {
    /// Of the two tables of flows.
    pub(crate) flows_bytes: u64,
    /// Of all else.
    pub(crate) tables_bytes: u64,
}

impl Memory {
    pub(crate) fn of_this_process() -> Result<Self> {
        let mut text = String::new();
        for file in fs::read_dir("/proc/self/fdinfo")? {
            // The one that is being read is closed meanwhile.
            text += &fs::read_to_string(file?.path()).unwrap_or_default();
        }
        Ok(Self::of(&maps(&text)?))
    }

    pub(crate) fn of(maps: &[Map]) -> Self {
        let (flows, tables): (Vec<&Map>, Vec<&Map>) =
            maps.iter().partition(|map| map.kind == LRU_HASH);
        let sum = |maps: Vec<&Map>| maps.iter().map(|map| map.bytes).sum();
        Self {
            flows_bytes: sum(flows),
            tables_bytes: sum(tables),
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({"flowsBytes": self.flows_bytes, "tablesBytes": self.tables_bytes})
    }
}

/// MiB, with one digit after the point.
pub(crate) fn mib(bytes: u64) -> String {
    let tenths = bytes * 10 / (1 << 20);
    format!("{}.{}", tenths / 10, tenths % 10)
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tables, flows) = (mib(self.tables_bytes), mib(self.flows_bytes));
        write!(f, "maps {tables} MiB and those of flows {flows} MiB")
    }
}

/// The maps in the text of all files of a `fdinfo` folder, each once.
pub(crate) fn maps(text: &str) -> Result<Vec<Map>> {
    let mut found = BTreeMap::new();
    let mut map = Map::default();
    for line in text.lines() {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        let number = || -> Result<u64> {
            let value = value.trim();
            value.parse().with_context(|| format!("reading {line:?}"))
        };
        match name {
            "map_type" => {
                map = Map {
                    kind: u32::try_from(number()?)?,
                    ..Map::default()
                }
            }
            "key_size" => map.key_bytes = u32::try_from(number()?)?,
            "value_size" => map.value_bytes = u32::try_from(number()?)?,
            "memlock" => map.bytes = number()?,
            // The last of these.
            "map_id" => {
                map.id = u32::try_from(number()?)?;
                found.insert(map.id, map);
            }
            _ => {}
        }
    }
    Ok(found.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_is_open_twice_is_counted_once() -> Result<()> {
        let flows = "pos:\t0\nmap_type:\t9\nkey_size:\t40\nvalue_size:\t48\nmemlock:\t1000\nmap_id:\t7\nfrozen:\t0\n";
        let blocks =
            "pos:\t0\nmap_type:\t2\nkey_size:\t4\nvalue_size:\t512\nmemlock:\t500\nmap_id:\t8\n";
        let program = "pos:\t0\nprog_type:\t3\nmemlock:\t4096\nprog_id:\t9\n";
        let maps = maps(&[flows, blocks, program, flows].concat())?;
        assert_eq!(maps.iter().map(|map| map.id).collect::<Vec<_>>(), [7, 8]);
        let expected = Memory {
            flows_bytes: 1000,
            tables_bytes: 500,
        };
        assert_eq!(Memory::of(&maps), expected);
        assert_eq!(mib((1 << 20) * 5 / 2), "2.5");
        Ok(())
    }
}
