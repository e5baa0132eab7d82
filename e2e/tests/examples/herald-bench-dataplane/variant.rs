//! The ways to a pod, and one round of each.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use herald_e2e::api::herald;
use herald_e2e::bench::group::Measured;
use herald_e2e::bench::stage::{NAMESPACE, PORT, Stage, all_but, load, service};
use herald_e2e::object::{items, text};
use herald_e2e::wait::{LONG, eventually, go_on, same};
use herald_model::VirtualIp;
use serde_json::{Value, json};

use crate::load::{Connections, bulk, connections, datagrams};

/// The node that announces every address, and has no pod.
pub(crate) const ANNOUNCER: &str = "node1";
const POOL: &str = "bench-dataplane";
/// Of the Service in mode `dsr`, for what goes to a node directly.
const NODE_PORT: u16 = 31_990;
/// Threads, and sockets, of the client.
const AT_ONCE: usize = 8;

/// How packets get from the client to a pod's node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// By the client to the `NodePort` of a node with a pod: nobody in between.
    Direct,
    /// By the announcer's kube-proxy.
    Off,
    NodePort,
    Dsr,
    Pod,
}

impl Way {
    pub(crate) const ALL: [Self; 5] = [
        Self::Direct,
        Self::Off,
        Self::NodePort,
        Self::Dsr,
        Self::Pod,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Off => "off",
            Self::NodePort => "nodeport",
            Self::Dsr => "dsr",
            Self::Pod => "pod",
        }
    }

    /// Whether the announcer's eBPF program sends the packets on.
    fn is_ours(self) -> bool {
        matches!(self, Self::NodePort | Self::Dsr | Self::Pod)
    }
}

/// A way that is ready for rounds.
#[derive(Debug)]
pub(crate) struct Variant {
    pub(crate) way: Way,
    to: Vec<SocketAddr>,
}

/// How long each measurement of a round takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) connections: Duration,
    pub(crate) others: Duration,
}

/// What one round has measured.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    load: f64,
    /// Many at once.
    pub(crate) connections: Connections,
    /// One at a time.
    pub(crate) alone: Connections,
    pub(crate) datagrams_per_second: f64,
    pub(crate) bytes_per_second: f64,
}

impl Measured for Round {
    fn json(&self) -> Value {
        let micros = |time: Duration| time.as_secs_f64() * 1e6;
        json!({
            "load": self.load,
            "connectionsPerSecond": self.connections.per_second,
            "cpuPerConnectionUs": micros(self.connections.cpu_each),
            "failed": self.connections.failed + self.alone.failed,
            "latencyP50Us": micros(self.alone.median),
            "latencyP99Us": micros(self.alone.p99),
            "datagramsPerSecond": self.datagrams_per_second,
            "bulkBytesPerSecond": self.bytes_per_second,
        })
    }

    fn load(&self) -> f64 {
        self.load
    }

    fn is_good(&self) -> bool {
        self.connections.failed + self.alone.failed == 0
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.0} connections/s of {} us CPU, {} failed; one at a time {}/{} us (p50/p99); {:.0} \
             datagrams/s; {:.0} MB/s; load {}",
            self.connections.per_second,
            self.connections.cpu_each.as_micros(),
            self.connections.failed + self.alone.failed,
            self.alone.median.as_micros(),
            self.alone.p99.as_micros(),
            self.datagrams_per_second,
            self.bytes_per_second / 1e6,
            self.load,
        )
    }
}

/// Has a Service for each way, and so many Services in all.
pub(crate) fn prepare(stage: Stage<'_>, services: usize) -> Result<Vec<Variant>> {
    let api = &stage.cluster.api;
    api.apply(&json!({
        "apiVersion": "heraldlb.io/v1alpha1",
        "kind": "IPPool",
        "metadata": {"name": POOL, "labels": {"bench": "dataplane"}},
        "spec": {"addresses": ["172.30.128.0/18"], "autoAssign": false},
    }))?;
    api.apply(&json!({
        "apiVersion": "heraldlb.io/v1alpha1",
        "kind": "L2Advertisement",
        "metadata": {"name": POOL},
        "spec": {
            "poolSelectors": [{"matchLabels": {"bench": "dataplane"}}],
            "nodeSelectors": [{"matchLabels": {"kubernetes.io/hostname": ANNOUNCER}}],
        },
    }))?;
    let ways = [Way::Off, Way::NodePort, Way::Dsr, Way::Pod];
    for way in ways {
        // Under Local the announcer's kube-proxy would need a pod of its own.
        let policy = if way == Way::Off { "Cluster" } else { "Local" };
        let mut spec = json!({"externalTrafficPolicy": policy, "selector": all_but(ANNOUNCER)});
        if way == Way::Dsr {
            let port = |name: &str, protocol: &str| json!({"name": name, "protocol": protocol, "port": PORT, "nodePort": NODE_PORT});
            spec["ports"] = json!([port("udp", "UDP"), port("tcp", "TCP")]);
        }
        stage.apply(way.as_str(), &asked(way), spec)?;
    }
    let others = json!({
        "externalTrafficPolicy": "Cluster",
        "allocateLoadBalancerNodePorts": false,
        "selector": all_but(ANNOUNCER),
        "ports": [{"name": "tcp", "port": PORT}],
    });
    for number in ways.len()..services {
        go_on()?;
        stage.apply(&format!("other-{number}"), &asked(Way::Dsr), others.clone())?;
    }
    let mut variants = Vec::new();
    for way in Way::ALL {
        let to = match way {
            Way::Direct => nodes_with_pods(stage),
            _ => vec![SocketAddr::new(announced(stage, way)?, PORT)],
        };
        variants.push(Variant { way, to });
    }
    if services > ways.len() {
        let limit = Duration::from_mins(20);
        eventually("every address is announced", limit, || {
            let all = api.list(&herald("virtualips", ""))?;
            let of_pool = all.iter().filter(|vip| text(&vip["spec"]["pool"]) == POOL);
            let announced = of_pool.filter(|vip| items(&vip["status"]["segments"]).len() == 1);
            same(&announced.count(), &services)
        })?;
    }
    for variant in &variants {
        variant.warm_up(stage)?;
    }
    Ok(variants)
}

fn asked(way: Way) -> Value {
    json!({"heraldlb.io/pool": POOL, "heraldlb.io/forwarding": way.as_str()})
}

/// The address of a way's Service, once it is announced and forwarded that way.
fn announced(stage: Stage<'_>, way: Way) -> Result<IpAddr> {
    let path = service(way.as_str());
    eventually(&format!("{} is announced", way.as_str()), LONG, || {
        let service = stage.cluster.api.get(&path)?;
        let address = herald_e2e::object::ingress(&service);
        let address = *address.first().context("no address")?;
        let (node, _) = stage.cluster.announcer(address)?;
        same(&node.as_str(), &ANNOUNCER)?;
        let vip = herald("virtualips", &VirtualIp::object_name(address));
        let status = &stage.cluster.api.get(&vip)?["status"];
        same(&text(&status["forwarding"]), &way.as_str())?;
        Ok(address)
    })
}

/// The `NodePort` of the Service in mode `dsr`, on each node with a pod.
fn nodes_with_pods(stage: Stage<'_>) -> Vec<SocketAddr> {
    let nodes = stage.lab().nodes().into_iter();
    nodes
        .filter(|node| node.name != ANNOUNCER)
        .filter_map(|node| Some(SocketAddr::new(node.address.v4?.into(), NODE_PORT)))
        .collect()
}

impl Variant {
    /// Until a moment passes without a failure: a new Service is known to one node after the other.
    fn warm_up(&self, stage: Stage<'_>) -> Result<()> {
        let moment = Duration::from_millis(500);
        eventually(&format!("{} serves", self.way.as_str()), LONG, || {
            let seen = connections(stage.lab(), &self.to, ANNOUNCER, AT_ONCE, moment)?;
            same(&seen.failed, &0)
        })
    }

    /// One round.
    pub(crate) fn play(&self, stage: Stage<'_>, times: Times) -> Result<Round> {
        let lab = stage.lab();
        let load = load()?;
        let before = self.sent_on(stage)?;
        let many = connections(lab, &self.to, ANNOUNCER, AT_ONCE, times.connections)?;
        let sent_on = self.sent_on(stage)? - before;
        let expected = many.per_second * times.connections.as_secs_f64();
        // At least SYN, acknowledgement and reset of each.
        ensure!(
            !self.way.is_ours() || sent_on >= 2.5 * expected,
            "the announcer's program sent {sent_on:.0} packets on, for {expected:.0} connections"
        );
        let alone = connections(lab, &self.to, ANNOUNCER, 1, times.others)?;
        let first = *self.to.first().context("nowhere to go")?;
        Ok(Round {
            load,
            connections: many,
            alone,
            datagrams_per_second: datagrams(lab, &self.to, AT_ONCE, times.others)?,
            bytes_per_second: bulk(lab, first, times.others)?,
        })
    }

    /// Packets that the announcer's program has sent on for this Service.
    fn sent_on(&self, stage: Stage<'_>) -> Result<f64> {
        let metrics = stage.cluster.speaker_metrics(ANNOUNCER)?;
        let label = format!("service=\"{NAMESPACE}/{}\"", self.way.as_str());
        Ok(metrics.sum("herald_speaker_forwarded_packets_total", &[&label]))
    }
}
