//! One round: a Service of its own, load, the fault, what came of it, and all made whole again.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use herald_e2e::api::herald;
use herald_e2e::cluster::Cluster;
use herald_e2e::fault::Fault;
use herald_e2e::flows::{FLOWS, Flows, PATIENCE};
use herald_e2e::object::{conditions, ingress, items, namespace, text};
use herald_e2e::streams::{Fate, Streams};
use herald_e2e::wait::{LONG, eventually, go_on, same};
use herald_lab::{ECHO_IMAGE, HERALD_NAMESPACE, Lab};
use herald_model::VirtualIp;
use serde_json::{Value, json};

const NAMESPACE: &str = "bench";
const POOL: &str = "bench";
const PORT: u16 = 9090;
const STREAMS: usize = 100;
/// Of load before the fault: how long nobody answers when nothing is wrong.
const BEFORE: Duration = Duration::from_secs(2);
/// How long the fault is left to itself.
const IN_PEACE: Duration = Duration::from_secs(1);
/// Of load after all is answered again.
const AFTER: Duration = Duration::from_secs(2);
/// How long an address may be without an answer before a round is given up.
const GIVE_UP: Duration = Duration::from_mins(1);

/// What one round has measured.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    old: String,
    new: String,
    /// The longest time nobody answered before the fault.
    pub(crate) quiet: Duration,
    /// The longest time after it without an answer to any flow that is not with the failed node's pods.
    pub(crate) outage: Duration,
    /// How many questions of theirs were lost after the fault.
    pub(crate) lost: usize,
    /// From the fault until no question of theirs was lost any more.
    pub(crate) settled: Duration,
    /// The same for the flows that were with the pods that went with the node.
    pub(crate) others: Option<Duration>,
    /// What the speaker that took over says.
    pub(crate) speaker: Option<Takeover>,
    /// Streams that could finish, and how many did.
    pub(crate) streams: (usize, usize),
    /// The longest time a stream of these had no answer.
    pub(crate) stream_wait: Duration,
    broken: Option<String>,
}

/// What a speaker says of its taking over, since the last sign of life of the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Takeover {
    pub(crate) suspected: Duration,
    pub(crate) certified: Duration,
    pub(crate) announced: Duration,
}

impl Takeover {
    /// From the note of its Event.
    fn parse(note: &str) -> Option<Self> {
        let after = |words: &str| {
            let rest = note.split(words).nth(1)?;
            let number: u64 = rest.split(' ').next()?.parse().ok()?;
            Some(Duration::from_millis(number))
        };
        let announced = note.split(" ms after its last sign of life").next()?;
        let announced: u64 = announced.rsplit(' ').next()?.parse().ok()?;
        Some(Self {
            suspected: after("suspected after ")?,
            certified: after("certified after ")?,
            announced: Duration::from_millis(announced),
        })
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (finished, all) = (self.streams.1, self.streams.0);
        write!(
            f,
            "{} to {}, {} ms without an answer ({} ms before the fault), {} lost, none after {} ms, ",
            self.old,
            self.new,
            self.outage.as_millis(),
            self.quiet.as_millis(),
            self.lost,
            self.settled.as_millis(),
        )?;
        if let Some(others) = self.others {
            write!(
                f,
                "of the node's own flows after {} ms, ",
                others.as_millis()
            )?;
        }
        match self.speaker {
            Some(said) => write!(f, "speaker says {} ms, ", said.announced.as_millis())?,
            None => write!(f, "no word of the speaker's, ")?,
        }
        write!(f, "{finished} of {all} streams finished, ")?;
        write!(f, "longest wait {} ms", self.stream_wait.as_millis())?;
        match &self.broken {
            Some(broken) => write!(f, "; {broken}"),
            None => Ok(()),
        }
    }
}

/// A pool and a pod on each node, which all rounds share.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    cluster: &'a Cluster,
}

impl<'a> Stage<'a> {
    pub(crate) fn set(cluster: &'a Cluster) -> Result<Self> {
        let env = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let labels = json!({"app": "echo"});
        cluster.api.apply(&namespace(NAMESPACE))?;
        cluster.api.apply(&json!({
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "echo", "namespace": NAMESPACE},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "terminationGracePeriodSeconds": 1,
                        "containers": [{
                            "name": "echo",
                            "image": ECHO_IMAGE,
                            "env": [env("POD", "metadata.name"), env("NODE", "spec.nodeName")],
                            "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
                        }],
                    },
                },
            },
        }))?;
        cluster.api.apply(&json!({
            "apiVersion": "heraldlb.io/v1alpha1",
            "kind": "IPPool",
            "metadata": {"name": POOL},
            "spec": {
                "addresses": ["172.30.64.0/24"],
                // The client knows the addresses of the last rounds.
                "reuseDelay": "10m",
                "allowed": {"namespaces": [NAMESPACE]},
            },
        }))?;
        Ok(Self { cluster })
    }

    /// One round, in which all is made whole again in any case.
    pub(crate) fn play(&self, fault: Fault) -> Result<Round> {
        let name = "web";
        self.wait_whole()?;
        let address = self.serve(name)?;
        let mut hurt = None;
        let round = self.measure(fault, name, address, &mut hurt);
        let mended = hurt.map_or(Ok(()), |node| self.mend(fault, &node));
        let path = format!("/api/v1/namespaces/{NAMESPACE}/services/{name}");
        let removed = self.cluster.api.delete(&path).and_then(|()| {
            eventually("the Service is gone", LONG, || {
                same(&self.cluster.api.find(&path)?, &None)
            })
        });
        let round = round?;
        mended.and(removed).map(|()| round)
    }

    fn lab(&self) -> &Lab {
        &self.cluster.lab
    }

    fn wait_whole(&self) -> Result<()> {
        self.cluster.wait_whole()?;
        let limit = Duration::from_mins(2);
        self.lab().wait_workloads_ready(NAMESPACE, limit)?;
        eventually("every speaker says it is ready", limit, || {
            for node in self.cluster.nodes() {
                let speaker = self.cluster.api.get(&herald("speakers", &node))?;
                let ready = herald_e2e::object::condition(&speaker, "Ready");
                same(&text(&ready["status"]), &"True").with_context(|| conditions(&speaker))?;
            }
            Ok(())
        })
    }

    /// A Service whose address every node answers for through its own pod.
    fn serve(&self, name: &str) -> Result<IpAddr> {
        let port = |protocol: &str| json!({"name": protocol.to_lowercase(), "protocol": protocol, "port": PORT});
        self.cluster.api.apply(&json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "type": "LoadBalancer",
                "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack",
                // What is answered by a pod's node went to that node: the others' flows have nothing
                // to do with the one that fails.
                "externalTrafficPolicy": "Local",
                "selector": {"app": "echo"},
                "ports": [port("UDP"), port("TCP")],
            },
        }))?;
        let path = format!("/api/v1/namespaces/{NAMESPACE}/services/{name}");
        let address = eventually("the Service has an address", LONG, || {
            let service = self.cluster.api.get(&path)?;
            let address = ingress(&service).first().copied();
            address.with_context(|| conditions(&service))
        })?;
        eventually("it is announced", LONG, || self.cluster.announcer(address))?;
        Ok(address)
    }

    fn measure(
        &self,
        fault: Fault,
        name: &str,
        address: IpAddr,
        hurt: &mut Option<String>,
    ) -> Result<Round> {
        let to = SocketAddr::new(address, PORT);
        let flows = Flows::start(self.lab(), "client", to)?;
        let nodes = self.cluster.nodes();
        eventually("every node's pod answers, and none is lost", LONG, || {
            let record = flows.record();
            let now = record.until;
            let answered = record.answered_by(now, |_| true);
            ensure!(answered.len() == FLOWS, "{} flows answered", answered.len());
            for node in &nodes {
                let its = record.answered_by(now, |by| by == node);
                ensure!(!its.is_empty(), "no flow with {node}");
            }
            let Some(since) = now.checked_sub(PATIENCE * 2) else {
                return Ok(());
            };
            same(&record.settled(&answered, since), &Some(Duration::ZERO))
        })?;
        let streams = Streams::start(self.lab(), "client", to, STREAMS)?;
        let began = Instant::now();
        rest(BEFORE)?;

        let (old, _) = self.cluster.announcer(address)?;
        *hurt = Some(old.clone());
        let struck = Instant::now();
        fault.befall(self.lab(), &old)?;

        // Whoever looks now takes time from those who measure.
        rest(IN_PEACE)?;
        let limit = struck + GIVE_UP;
        let is_gone = |node: &str| fault.takes_the_node() && node == old;
        let record = flows.record();
        let all = record.answered_by(struck, |by| !is_gone(by));
        let gone = record.answered_by(struck, is_gone);
        let new = eventually("another node holds the address", GIVE_UP, || {
            let (node, _) = self.cluster.announcer(address)?;
            ensure!(node != old, "it is still {node}");
            Ok(node)
        })?;
        let wait = limit.saturating_duration_since(Instant::now());
        eventually("every question is answered again", wait, || {
            let record = flows.record();
            record.settled(&all, struck).context("not yet")?;
            record.settled(&gone, struck).context("not the node's own")
        })?;
        rest(AFTER)?;
        let record = flows.record();
        drop(flows);
        let dead: &[&str] = if fault.takes_the_node() { &[&old] } else { &[] };
        let fates = streams.finish(dead)?;
        let (streams, stream_wait, broken) = judge(fault, &old, &fates);
        let note = self.note(name, address, &old);
        Ok(Round {
            quiet: record.silence(&all, began, struck),
            outage: record.silence(&all, struck, record.until),
            settled: record.settled(&all, struck).context("it was before")?,
            lost: record.lost(&all, struck),
            others: if gone.is_empty() {
                None
            } else {
                record.settled(&gone, struck)
            },
            speaker: note.ok().as_deref().and_then(Takeover::parse),
            streams,
            stream_wait,
            broken,
            old,
            new,
        })
    }

    /// What the speaker says that took the address over.
    fn note(&self, name: &str, address: IpAddr, old: &str) -> Result<String> {
        let path = format!("/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events");
        let vip = VirtualIp::object_name(address);
        eventually("its speaker has said so", Duration::from_secs(5), || {
            let events = self.cluster.api.list(&path)?;
            let note = events
                .iter()
                .filter(|event| {
                    text(&event["regarding"]["name"]) == name
                        && text(&event["related"]["name"]) == vip
                        && text(&event["reason"]) == "Moved"
                })
                .map(|event| text(&event["note"]))
                .find(|note| note.contains(old));
            note.map(str::to_owned).context("no Event Moved")
        })
    }

    fn mend(&self, fault: Fault, node: &str) -> Result<()> {
        fault.mend(self.lab(), node)?;
        self.cluster.wait_whole()?;
        if matches!(fault, Fault::Kill | Fault::Stop) {
            // A container that dies often is started less and less soon; that of a new pod is at once.
            let pods = self.cluster.pods("speaker")?;
            let on_node = |pod: &&Value| {
                let restarted = items(&pod["status"]["containerStatuses"])
                    .iter()
                    .any(|container| container["restartCount"].as_u64() > Some(0));
                text(&pod["spec"]["nodeName"]) == node && restarted
            };
            if let Some(pod) = pods.iter().find(on_node) {
                let name = text(&pod["metadata"]["name"]);
                let args = ["delete", "pod", "--namespace", HERALD_NAMESPACE, name];
                self.lab().kubectl(args)?;
            }
        }
        Ok(())
    }
}

/// Streams that could finish and how many did, the longest wait of one, and why one did not.
fn judge(fault: Fault, old: &str, fates: &[Fate]) -> ((usize, usize), Duration, Option<String>) {
    let could = |fate: &&Fate| !(fault.takes_the_node() && fate.node == old);
    let all = fates.iter().filter(could).count();
    let finished = || fates.iter().filter(could).filter(|it| it.broken.is_none());
    let longest = finished().map(|fate| fate.longest).max();
    let broken = fates.iter().filter(could).find_map(|fate| {
        let why = fate.broken.as_ref()?;
        Some(format!("a stream with {}: {why}", fate.node))
    });
    (
        (all, finished().count()),
        longest.unwrap_or_default(),
        broken,
    )
}

/// Lets the load go on for so long.
fn rest(time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        go_on()?;
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_speaker_says_of_its_taking_over() {
        let note = "node2 announces 172.30.64.7 on eth0 (02:30:00:00:00:02), taken over from node1, \
            143 ms after its last sign of life: suspected after 101 ms, certified after 139 ms";
        let ms = Duration::from_millis;
        assert_eq!(
            Takeover::parse(note),
            Some(Takeover {
                suspected: ms(101),
                certified: ms(139),
                announced: ms(143)
            })
        );
        let planned = "node2 announces 172.30.64.7 on eth0 (02:30:00:00:00:02), node1 did before";
        assert_eq!(Takeover::parse(planned), None);
    }
}
