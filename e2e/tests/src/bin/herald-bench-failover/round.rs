//! One round: a Service of its own, load, the fault, what came of it, and all made whole again.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use herald_e2e::fault::Fault;
use herald_e2e::flows::{FLOWS, Flows, PATIENCE};
use herald_e2e::object::text;
use herald_e2e::streams::{Fate, Streams};
use herald_e2e::wait::{LONG, eventually, same};
use herald_model::VirtualIp;
use serde_json::{Value, json};

use herald_e2e::bench::group::Measured;
use herald_e2e::bench::stage::{
    CLIENT, NAMESPACE, PORT, Stage, all_but, everywhere, load, rest, service,
};

const STREAMS: usize = 100;
/// Of load before the fault: how long nobody answers when nothing is wrong.
const BEFORE: Duration = Duration::from_secs(2);
/// How long the fault is left to itself.
const IN_PEACE: Duration = Duration::from_secs(1);
/// Of load after all is answered again.
const AFTER: Duration = Duration::from_secs(2);
/// How long an address may be without an answer before a round is given up.
const GIVE_UP: Duration = Duration::from_mins(1);

/// Where the pods are, and so the slots: the policy is Local in either case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pods {
    /// One on each node.
    Everywhere,
    /// None on the node that announces.
    Elsewhere,
}

/// What one round has measured.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    old: String,
    new: String,
    /// The load of the machine when the fault befell.
    load: f64,
    /// How many of the UDP flows went to each node.
    flows: BTreeMap<String, usize>,
    /// The longest time nobody answered before the fault.
    pub(crate) quiet: Duration,
    /// The longest time after it without an answer to any flow that is not with the failed node's pods.
    pub(crate) outage: Duration,
    /// The same for the TCP streams.
    pub(crate) tcp_outage: Duration,
    /// How many questions of theirs were lost after the fault.
    pub(crate) lost: usize,
    /// From the fault until no question of theirs was lost any more.
    pub(crate) settled: Duration,
    /// The same for the flows that were with the pods that went with the node.
    pub(crate) others: Option<Duration>,
    /// What the speaker that took over says.
    pub(crate) speaker: Option<Takeover>,
    /// And of the first packet that went through it.
    pub(crate) forwarded: Option<Duration>,
    /// How the streams fared.
    pub(crate) streams: Verdict,
}

/// How the streams fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Those that could finish: not with a pod of a node that is gone.
    pub(crate) all: usize,
    /// How many of these did.
    pub(crate) finished: usize,
    /// Those with a pod of a node that is gone, counted before the fault.
    pub(crate) predicted: usize,
    /// How many of these were lost.
    pub(crate) lost: usize,
    /// The longest time one that finished had no answer.
    pub(crate) longest: Duration,
    /// Why one did not that could.
    broken: Option<String>,
}

impl Verdict {
    fn of(gone: Option<&str>, fates: &[Fate]) -> Self {
        let (with_it, rest): (Vec<_>, Vec<_>) = fates
            .iter()
            .partition(|fate| gone.is_some_and(|gone| fate.node == gone));
        let finished = |fate: &&&Fate| fate.broken.is_none();
        let broken = rest.iter().find_map(|fate| {
            let why = fate.broken.as_ref()?;
            Some(format!("a stream with {}: {why}", fate.node))
        });
        let longest = rest.iter().filter(finished).map(|fate| fate.longest).max();
        Self {
            all: rest.len(),
            finished: rest.iter().filter(finished).count(),
            predicted: with_it.len(),
            lost: with_it.len() - with_it.iter().filter(finished).count(),
            longest: longest.unwrap_or_default(),
            broken,
        }
    }

    /// Whether exactly those were lost that had to be.
    pub(crate) fn is_as_predicted(&self) -> bool {
        self.finished == self.all && self.lost == self.predicted
    }
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
        write!(
            f,
            "{} to {}, {} ms without an answer ({} ms before the fault), TCP {} ms, {} lost, none after {} ms, ",
            self.old,
            self.new,
            self.outage.as_millis(),
            self.quiet.as_millis(),
            self.tcp_outage.as_millis(),
            self.lost,
            self.settled.as_millis(),
        )?;
        if let Some(others) = self.others {
            let others = others.as_millis();
            write!(f, "of the node's own flows after {others} ms, ")?;
        }
        match self.speaker {
            Some(said) => write!(f, "speaker says {} ms, ", said.announced.as_millis())?,
            None => write!(f, "no word of the speaker's, ")?,
        }
        if let Some(forwarded) = self.forwarded {
            write!(f, "first packet after {} ms, ", forwarded.as_millis())?;
        }
        let streams = &self.streams;
        write!(
            f,
            "{} of {} streams finished, longest wait {} ms, {} of {} lost with the node; flows {}; load {}",
            streams.finished,
            streams.all,
            streams.longest.as_millis(),
            streams.lost,
            streams.predicted,
            shares(&self.flows),
            self.load,
        )?;
        match &streams.broken {
            Some(broken) => write!(f, "; {broken}"),
            None => Ok(()),
        }
    }
}

/// How much each node has.
fn shares(of: &BTreeMap<String, usize>) -> String {
    let each: Vec<_> = of
        .iter()
        .map(|(node, count)| format!("{node}={count}"))
        .collect();
    each.join(" ")
}

impl Measured for Round {
    fn json(&self) -> Value {
        let ms = |time: Duration| time.as_secs_f64() * 1000.0;
        json!({
            "from": self.old,
            "to": self.new,
            "load": self.load,
            "flowsByNode": self.flows,
            "quietMs": ms(self.quiet),
            "udpOutageMs": ms(self.outage),
            "tcpOutageMs": ms(self.tcp_outage),
            "lostQuestions": self.lost,
            "settledMs": ms(self.settled),
            "ownFlowsSettledMs": self.others.map(ms),
            "speaker": self.speaker.map(|it| json!({
                "suspectedMs": ms(it.suspected),
                "certifiedMs": ms(it.certified),
                "announcedMs": ms(it.announced),
            })),
            "forwardedMs": self.forwarded.map(ms),
            "streams": {
                "couldFinish": self.streams.all,
                "finished": self.streams.finished,
                "predictedLost": self.streams.predicted,
                "lost": self.streams.lost,
                "longestWaitMs": ms(self.streams.longest),
                "firstBroken": self.streams.broken,
            },
        })
    }

    fn load(&self) -> f64 {
        self.load
    }

    fn is_good(&self) -> bool {
        self.streams.is_as_predicted()
    }
}

/// One round, in which all is made whole again in any case.
pub(crate) fn play(stage: Stage<'_>, fault: Fault, pods: Pods) -> Result<Round> {
    let name = "web";
    stage.wait_whole()?;
    let (address, old) = stage.serve(name, json!({"selector": everywhere()}))?;
    let mut hurt = None;
    let round = target(stage, name, address, &old, pods)
        .and_then(|()| measure(stage, fault, name, address, pods, &mut hurt));
    let mended = hurt.map_or(Ok(()), |node: String| stage.mend(fault, &node));
    let removed = stage.remove(name);
    let round = round?;
    mended.and(removed).map(|()| round)
}

/// Has the pods where they are to be.
fn target(stage: Stage<'_>, name: &str, address: IpAddr, old: &str, pods: Pods) -> Result<()> {
    if pods == Pods::Everywhere {
        return Ok(());
    }
    let selector = json!({"spec": {"selector": all_but(old)}});
    stage.cluster.api.merge(&service(name), &selector)?;
    let expected = u64::try_from(stage.cluster.nodes().len())? - 1;
    eventually("the node that announces is no target", LONG, || {
        let vip = herald_e2e::api::herald("virtualips", &VirtualIp::object_name(address));
        let targets = &stage.cluster.api.get(&vip)?["status"]["targets"];
        same(&targets.as_u64(), &Some(expected))
    })
}

fn measure(
    stage: Stage<'_>,
    fault: Fault,
    name: &str,
    address: IpAddr,
    pods: Pods,
    hurt: &mut Option<String>,
) -> Result<Round> {
    let (cluster, lab) = (stage.cluster, stage.lab());
    let to = SocketAddr::new(address, PORT);
    let (announcer, _) = cluster.announcer(address)?;
    let mut nodes = cluster.nodes();
    nodes.retain(|node| pods == Pods::Everywhere || *node != announcer);
    let flows = Flows::start(lab, CLIENT, to)?;
    eventually("every node's pod answers, and none is lost", LONG, || {
        let record = flows.record();
        let now = record.until;
        let by_node = record.by_node(now);
        let answered = record.answered_by(now, |by| nodes.iter().any(|node| node == by));
        ensure!(
            answered.len() == FLOWS,
            "flows by node: {}",
            shares(&by_node)
        );
        for node in &nodes {
            let its = record.answered_by(now, |by| by == node);
            ensure!(!its.is_empty(), "no flow with {node}");
        }
        let Some(since) = now.checked_sub(PATIENCE * 2) else {
            return Ok(());
        };
        same(&record.settled(&answered, since), &Some(Duration::ZERO))
    })?;
    let streams = Streams::start(lab, CLIENT, to, STREAMS)?;
    let began = Instant::now();
    rest(BEFORE)?;

    let (old, _) = cluster.announcer(address)?;
    ensure!(old == announcer, "it has moved from {announcer} to {old}");
    *hurt = Some(old.clone());
    let before = forwarded(stage);
    let load = load()?;
    let struck = Instant::now();
    fault.befall(lab, &old)?;

    // Whoever looks now takes time from those who measure.
    rest(IN_PEACE)?;
    let limit = struck + GIVE_UP;
    let is_gone = |node: &str| fault.takes_the_node() && node == old;
    let record = flows.record();
    let by_node = record.by_node(struck);
    let all = record.answered_by(struck, |by| !is_gone(by));
    let gone = record.answered_by(struck, is_gone);
    let new = eventually("another node holds the address", GIVE_UP, || {
        let (node, _) = cluster.announcer(address)?;
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
    let ended = Instant::now();
    let dead = fault.takes_the_node().then_some(old.as_str());
    let fates = streams.finish(dead.as_slice())?;
    let note = note(stage, name, address, &old);
    let after = forwarded(stage);
    Ok(Round {
        load,
        flows: by_node,
        quiet: record.silence(&all, began, struck),
        outage: record.silence(&all, struck, record.until),
        tcp_outage: silence(fates.iter().filter(|it| !is_gone(&it.node)), struck, ended),
        settled: record.settled(&all, struck).context("it was before")?,
        lost: record.lost(&all, struck),
        others: if gone.is_empty() {
            None
        } else {
            record.settled(&gone, struck)
        },
        speaker: note.ok().as_deref().and_then(Takeover::parse),
        forwarded: before
            .get(&new)
            .zip(after.get(&new))
            .filter(|(before, after)| after.0 > before.0)
            .map(|(before, after)| Duration::from_secs_f64((after.1 - before.1).max(0.0))),
        streams: Verdict::of(dead, &fates),
        old,
        new,
    })
}

/// How often each speaker has timed the first packet of what it took over, and the sum of these times in
/// seconds.
fn forwarded(stage: Stage<'_>) -> BTreeMap<String, (f64, f64)> {
    let mut all = BTreeMap::new();
    for node in stage.cluster.nodes() {
        // One that has just been killed says nothing.
        let Ok(metrics) = stage.cluster.speaker_metrics(&node) else {
            continue;
        };
        let [count, sum] = ["count", "sum"].map(|what| {
            let name = format!("herald_speaker_takeover_seconds_{what}");
            metrics.sum(&name, &["stage=\"forwarded\""])
        });
        all.insert(node, (count, sum));
    }
    all
}

/// The longest time in which none of these streams had an answer.
pub(crate) fn silence<'a>(
    fates: impl Iterator<Item = &'a Fate>,
    from: Instant,
    to: Instant,
) -> Duration {
    let mut times: Vec<_> = fates
        .flat_map(|fate| &fate.answers)
        .copied()
        .filter(|at| (from..to).contains(at))
        .chain([from, to])
        .collect();
    times.sort();
    let gaps = times.iter().zip(times.iter().skip(1));
    gaps.map(|(before, at)| *at - *before)
        .max()
        .unwrap_or_default()
}

/// What the speaker says that took the address over. A Service before may have had the same name and address.
fn note(stage: Stage<'_>, name: &str, address: IpAddr, old: &str) -> Result<String> {
    let path = format!("/apis/events.k8s.io/v1/namespaces/{NAMESPACE}/events");
    let vip = VirtualIp::object_name(address);
    let uid = stage.cluster.api.get(&service(name))?["metadata"]["uid"].clone();
    eventually("its speaker has said so", Duration::from_secs(5), || {
        let events = stage.cluster.api.list(&path)?;
        let note = events
            .iter()
            .filter(|event| {
                event["regarding"]["uid"] == uid
                    && text(&event["related"]["name"]) == vip
                    && text(&event["reason"]) == "Moved"
            })
            .map(|event| text(&event["note"]))
            .find(|note| note.contains(old));
        note.map(str::to_owned).context("no Event Moved")
    })
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

    fn fate(node: &str, broken: Option<&str>) -> Fate {
        Fate {
            node: node.to_owned(),
            lines: 1,
            longest: Duration::from_millis(50),
            answers: Vec::new(),
            broken: broken.map(str::to_owned),
        }
    }

    #[test]
    fn exactly_the_streams_of_the_dead_node_are_to_be_lost() {
        let dead = || fate("node1", Some("its node is gone"));
        let as_predicted = Verdict::of(Some("node1"), &[dead(), fate("node2", None)]);
        assert_eq!((as_predicted.predicted, as_predicted.lost), (1, 1));
        assert!(as_predicted.is_as_predicted());
        let too_many = Verdict::of(Some("node1"), &[dead(), fate("node2", Some("reset"))]);
        assert!(!too_many.is_as_predicted());
        let too_few = Verdict::of(Some("node1"), &[fate("node1", None), fate("node2", None)]);
        assert!(!too_few.is_as_predicted());
        assert!(!Verdict::of(None, &[dead()]).is_as_predicted());
    }
}
