//! What a speaker takes with many Services, and how soon the kernel's tables follow an `EndpointSlice`.

use std::fmt;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use aya::maps::{Array, HashMap, Map as AyaMap, MapData};
use herald_e2e::api::herald;
use herald_e2e::bench::group::Measured;
use herald_e2e::bench::stage::{NAMESPACE, PORT, Stage, load, rest, service};
use herald_e2e::bench::table::milliseconds;
use herald_e2e::object::{items, text};
use herald_e2e::wait::{LONG, eventually, go_on, same};
use herald_lab::HERALD_NAMESPACE;
use serde_json::{Value, json};

use crate::maps::{Map, Memory, maps, mib};

const POOL: &str = "bench-speaker";
/// The Service whose endpoint moves from node to node.
const MOVED: &str = "moved";
/// How often it does.
const MOVES: usize = 50;
/// Services that are made at a time.
const AT_ONCE: usize = 4;
/// After so long a speaker has done what Services stirred up.
const SETTLED: Duration = Duration::from_secs(20);
/// A table is looked at this often.
const LOOK: Duration = Duration::from_micros(200);

/// Bytes that a speaker has in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Resident {
    pub(crate) now: u64,
    /// Of these, what is not in a file.
    anonymous: u64,
    pub(crate) most: u64,
}

impl Resident {
    /// From a process' `status` (proc(5)).
    fn parse(status: &str) -> Option<Self> {
        let bytes = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
            Some(kib << 10)
        };
        Some(Self {
            now: bytes("VmRSS:")?,
            anonymous: bytes("RssAnon:")?,
            most: bytes("VmHWM:")?,
        })
    }

    fn json(self) -> Value {
        json!({"rssBytes": self.now, "anonymousBytes": self.anonymous, "mostBytes": self.most})
    }
}

/// One speaker.
#[derive(Debug, Clone)]
pub(crate) struct Speaker {
    pub(crate) node: String,
    /// After the Services came one by one.
    pub(crate) grown: Resident,
    /// After a start at which all were there.
    pub(crate) started: Resident,
    pub(crate) memory: Memory,
}

/// What one round has measured.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    load: f64,
    pub(crate) speakers: Vec<Speaker>,
    /// From the request that writes an `EndpointSlice` to the moment at which the tables of all nodes are
    /// right, each time.
    pub(crate) moves: Vec<Duration>,
}

impl Measured for Round {
    fn json(&self) -> Value {
        let speakers = self.speakers.iter().map(|speaker| {
            json!({
                "node": speaker.node,
                "grown": speaker.grown.json(),
                "started": speaker.started.json(),
                "memory": speaker.memory.json(),
            })
        });
        let moves = self.moves.iter().map(|time| time.as_secs_f64() * 1000.0);
        json!({
            "load": self.load,
            "speakers": speakers.collect::<Vec<_>>(),
            "movesMs": moves.collect::<Vec<_>>(),
        })
    }

    fn load(&self) -> f64 {
        self.load
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for speaker in &self.speakers {
            write!(
                f,
                "{}: {} MiB resident (most {}), started anew {} ({}), {}; ",
                speaker.node,
                mib(speaker.grown.now),
                mib(speaker.grown.most),
                mib(speaker.started.now),
                mib(speaker.started.most),
                speaker.memory,
            )?;
        }
        write!(
            f,
            "table after a change {} ms; load {}",
            milliseconds(&self.moves),
            self.load
        )
    }
}

/// One round with so many Services under Local, two ports each and a pod on each node.
pub(crate) fn play(stage: Stage<'_>, services: usize) -> Result<Round> {
    let load = load()?;
    stage.wait_whole()?;
    prepare(stage, services)?;
    rest(SETTLED)?;
    let nodes = stage.cluster.nodes();
    let resident = || -> Result<Vec<Resident>> {
        let all = nodes.iter().map(|node| {
            let said = said(stage, node)?;
            Resident::parse(&said).with_context(|| format!("reading {said:?}"))
        });
        all.collect()
    };
    let grown = resident()?;
    let moves = moves(stage)?;
    let workload = format!("daemonset/{}", daemon_set(stage)?);
    let args = [
        "rollout",
        "restart",
        &workload,
        "--namespace",
        HERALD_NAMESPACE,
    ];
    stage.lab().kubectl(args)?;
    let args = [
        "rollout",
        "status",
        &workload,
        "--namespace",
        HERALD_NAMESPACE,
    ];
    stage.lab().kubectl(args)?;
    stage.wait_whole()?;
    rest(SETTLED)?;
    let started = resident()?;
    let speakers = nodes.iter().zip(grown.into_iter().zip(started));
    let speakers = speakers.map(|(node, (grown, started))| {
        Ok(Speaker {
            node: node.clone(),
            grown,
            started,
            memory: Memory::of(&maps(&said(stage, node)?)?),
        })
    });
    Ok(Round {
        load,
        speakers: speakers.collect::<Result<_>>()?,
        moves,
    })
}

/// The speakers' workload.
fn daemon_set(stage: Stage<'_>) -> Result<String> {
    let pods = stage.cluster.pods("speaker")?;
    let owner = pods.first().and_then(|pod| {
        let owners = items(&pod["metadata"]["ownerReferences"]);
        owners.first().map(|owner| text(&owner["name"]).to_owned())
    });
    owner.context("no speaker")
}

/// What the kernel says of the speaker of a node.
fn said(stage: Stage<'_>, node: &str) -> Result<String> {
    // A file that is not open any more is no error.
    let script = "cd /proc/$(pidof herald-speaker) && cat status && cat fdinfo/* 2>/dev/null; true";
    Ok(stage.lab().exec(node, ["sh", "-c", script])?.ok()?)
}

fn prepare(stage: Stage<'_>, services: usize) -> Result<()> {
    let api = &stage.cluster.api;
    api.apply(&json!({
        "apiVersion": "heraldlb.io/v1alpha1",
        "kind": "IPPool",
        "metadata": {"name": POOL},
        "spec": {"addresses": ["172.30.192.0/18"], "autoAssign": false},
    }))?;
    let asked = json!({"heraldlb.io/pool": POOL});
    stage.apply(MOVED, &asked, json!({"selector": null}))?;
    put_slice(stage, "node2")?;
    thread::scope(|scope| {
        let asked = &asked;
        let workers: Vec<_> = (0..AT_ONCE)
            .map(|worker| {
                scope.spawn(move || -> Result<()> {
                    for number in (1..services).skip(worker).step_by(AT_ONCE) {
                        go_on()?;
                        stage.apply(&format!("many-{number}"), asked, json!({}))?;
                    }
                    Ok(())
                })
            })
            .collect();
        workers
            .into_iter()
            .try_for_each(|it| it.join().map_err(|_panic| anyhow!("a thread panicked"))?)
    })?;
    let limit = Duration::from_mins(30);
    eventually("every address is announced", limit, || {
        let all = api.list(&herald("virtualips", ""))?;
        let of_pool = all.iter().filter(|vip| text(&vip["spec"]["pool"]) == POOL);
        let announced = of_pool.filter(|vip| items(&vip["status"]["segments"]).len() == 1);
        same(&announced.count(), &services)
    })
}

/// Has the endpoint of the Service that is moved be on a node. Nobody asks it anything.
fn put_slice(stage: Stage<'_>, node: &str) -> Result<()> {
    let port = |protocol: &str| json!({"name": protocol.to_lowercase(), "protocol": protocol, "port": PORT});
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": MOVED,
            "namespace": NAMESPACE,
            "labels": {
                "kubernetes.io/service-name": MOVED,
                "endpointslice.kubernetes.io/managed-by": "herald-bench",
            },
        },
        "addressType": "IPv4",
        "ports": [port("UDP"), port("TCP")],
        "endpoints": [{
            "addresses": ["10.255.255.1"],
            "conditions": {"ready": true},
            "nodeName": node,
        }],
    });
    stage.cluster.api.apply(&slice).map(drop)
}

/// The table of one Service port in the kernel of one node.
struct Table {
    services: HashMap<MapData, [u8; 20], [u8; 24]>,
    blocks: Array<MapData, [u8; 512]>,
    key: [u8; 20],
}

impl Table {
    fn of(stage: Stage<'_>, node: &str, address: IpAddr) -> Result<Self> {
        let maps = maps(&said(stage, node)?)?;
        let find = |key_bytes: u32, value_bytes: u32| -> Result<MapData> {
            let is_it = |map: &&Map| (map.key_bytes, map.value_bytes) == (key_bytes, value_bytes);
            let map = maps.iter().find(is_it);
            let map = map.with_context(|| format!("{node} has no such map"))?;
            Ok(MapData::from_id(map.id)?)
        };
        // VIP, port, protocol, kind, as in speaker/ebpf/maps.h.
        let mut key = [0; 20];
        let IpAddr::V4(address) = address else {
            anyhow::bail!("{address} is not IPv4");
        };
        key[..16].copy_from_slice(&address.to_ipv6_mapped().octets());
        key[16..18].copy_from_slice(&PORT.to_be_bytes());
        key[18] = 6;
        Ok(Self {
            services: AyaMap::HashMap(find(20, 24)?).try_into()?,
            blocks: AyaMap::Array(find(4, 512)?).try_into()?,
            key,
        })
    }

    /// The node that has the first slots.
    fn node(&self) -> Result<u16> {
        let service = self.services.get(&self.key, 0)?;
        let first_block = u32::from_le_bytes([service[4], service[5], service[6], service[7]]);
        let block = self.blocks.get(&first_block, 0)?;
        Ok(u16::from_le_bytes([block[0], block[1]]))
    }
}

fn moves(stage: Stage<'_>) -> Result<Vec<Duration>> {
    let path = service(MOVED);
    let found = stage.cluster.api.get(&path)?;
    let address = herald_e2e::object::ingress(&found);
    let address = *address.first().context("no address")?;
    let nodes = stage.cluster.nodes();
    let tables: Vec<Table> = nodes
        .iter()
        .map(|node| {
            let what = format!("{node} knows the Service");
            eventually(&what, LONG, || {
                let table = Table::of(stage, node, address)?;
                ensure!(table.node()? != 0, "no target");
                Ok(table)
            })
        })
        .collect::<Result<_>>()?;
    let mut times = Vec::new();
    for number in 0..MOVES {
        // What the last one stirred up, as in kube-proxy.
        rest(Duration::from_millis(500))?;
        let before: Vec<u16> = tables.iter().map(Table::node).collect::<Result<_>>()?;
        let to = if number % 2 == 0 { "node3" } else { "node2" };
        let time = thread::scope(|scope| -> Result<Duration> {
            let began = Instant::now();
            let written = scope.spawn(move || put_slice(stage, to));
            let mut open: Vec<_> = tables.iter().zip(&before).collect();
            while !open.is_empty() {
                ensure!(began.elapsed() < LONG, "{} tables stay", open.len());
                thread::sleep(LOOK);
                let mut left = Vec::new();
                for (table, before) in open {
                    if table.node()? == *before {
                        left.push((table, before));
                    }
                }
                open = left;
            }
            let time = began.elapsed();
            written.join().map_err(|_panic| anyhow!("it panicked"))??;
            Ok(time)
        })?;
        times.push(time);
    }
    times.sort_unstable();
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_resident() {
        let status = "Name:\ta\nVmHWM:\t   300 kB\nVmRSS:\t   200 kB\nRssAnon:\t    50 kB\n";
        let expected = Resident {
            now: 200 << 10,
            anonymous: 50 << 10,
            most: 300 << 10,
        };
        assert_eq!(Resident::parse(status), Some(expected));
        assert_eq!(Resident::parse("Name:\ta\n"), None);
    }
}
