//! Many addresses on the node that dies: when the client hears each announced, and when each answers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use herald_e2e::api::herald;
use herald_e2e::capture::Capture;
use herald_e2e::client::Client;
use herald_e2e::fault::Fault;
use herald_e2e::inside::inside;
use herald_e2e::object::{items, text};
use herald_e2e::wait::{eventually, go_on};
use serde_json::{Value, json};

use herald_e2e::bench::group::Measured;
use herald_e2e::bench::stage::{CLIENT, PORT, Stage, load};
use herald_e2e::bench::table::milliseconds;

const POOL: &str = "bench-many";
/// A question may not be lost in the crowd of questions: this many a second, if each address is asked no
/// more often than each millisecond.
const QUESTIONS_PER_SECOND: u32 = 20_000;
const GIVE_UP: Duration = Duration::from_secs(30);
const LONG: Duration = Duration::from_mins(5);

/// What one round has measured.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    old: String,
    load: f64,
    /// Addresses on the node that died.
    on_it: usize,
    /// From the fault to the first announcement by another node that the client saw, of each address.
    pub(crate) announced: Vec<Duration>,
    /// From the fault to the first answer, of each address.
    pub(crate) answered: Vec<Duration>,
}

impl Measured for Round {
    fn json(&self) -> Value {
        let all = |times: &[Duration]| -> Vec<f64> {
            times.iter().map(|it| it.as_secs_f64() * 1000.0).collect()
        };
        json!({
            "from": self.old,
            "load": self.load,
            "addresses": self.on_it,
            "announcedMs": all(&self.announced),
            "answeredMs": all(&self.answered),
        })
    }

    fn load(&self) -> f64 {
        self.load
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} goes with {} addresses; least/median/last announced {} ms, answered {} ms; load {}",
            self.old,
            self.on_it,
            milliseconds(&self.announced),
            milliseconds(&self.answered),
            self.load,
        )
    }
}

/// How many neighbours the kernel knows at most, over all of its network namespaces: client and nodes
/// share the number here that each machine has for itself elsewhere.
#[derive(Debug)]
pub(crate) struct Room {
    before: Vec<(String, String)>,
}

impl Room {
    const NEEDED: u32 = 8192;

    pub(crate) fn make() -> Result<Self> {
        let mut room = Self { before: Vec::new() };
        // The greatest first: none may be above the next.
        for name in ["gc_thresh3", "gc_thresh2", "gc_thresh1"] {
            let path = format!("/proc/sys/net/ipv4/neigh/default/{name}");
            let before = fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
            if before.trim().parse::<u32>()? < Self::NEEDED {
                let needed = Self::NEEDED.to_string();
                fs::write(&path, needed).with_context(|| format!("writing {path}"))?;
                room.before.push((path, before));
            }
        }
        Ok(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        for (path, before) in self.before.iter().rev() {
            fs::write(path, before).ok();
        }
    }
}

/// Has so many Services with an address each, all on one node. As their plans are alike they also move together.
pub(crate) fn prepare(stage: Stage<'_>, count: usize) -> Result<()> {
    // Those of another count are on any node by now.
    stage.remove_all()?;
    let api = &stage.cluster.api;
    api.apply(&json!({
        "apiVersion": "heraldlb.io/v1alpha1",
        "kind": "IPPool",
        "metadata": {"name": POOL, "labels": {"bench": "many"}},
        "spec": {"addresses": ["172.30.80.0/20"], "autoAssign": false},
    }))?;
    let prefer = |weight: u32, node: &str| {
        let preference = json!({"matchLabels": {"kubernetes.io/hostname": node}});
        json!({"weight": weight, "preference": preference})
    };
    api.apply(&json!({
        "apiVersion": "heraldlb.io/v1alpha1",
        "kind": "L2Advertisement",
        "metadata": {"name": POOL},
        "spec": {
            "poolSelectors": [{"matchLabels": {"bench": "many"}}],
            "preferredNodeSelectors": [prefer(100, "node1"), prefer(50, "node2")],
        },
    }))?;
    for number in 0..count {
        go_on()?;
        let pool = json!({"heraldlb.io/pool": POOL});
        stage.apply(&format!("many-{number}"), &pool, json!({}))?;
    }
    eventually("each address is announced", LONG, || {
        let announced = holders(stage)?.len();
        ensure!(announced == count, "{announced} of {count} are");
        Ok(())
    })
}

/// Who announces each address.
fn holders(stage: Stage<'_>) -> Result<BTreeMap<Ipv4Addr, String>> {
    let mut holders = BTreeMap::new();
    for vip in stage.cluster.api.list(&herald("virtualips", ""))? {
        if text(&vip["spec"]["pool"]) != POOL {
            continue;
        }
        if let [segment] = items(&vip["status"]["segments"]) {
            let address = text(&vip["spec"]["address"]).parse()?;
            holders.insert(address, text(&segment["node"]).to_owned());
        }
    }
    Ok(holders)
}

/// When each address answered first. One that has is asked no more.
#[derive(Debug)]
struct Questions {
    socket: UdpSocket,
    answered: Arc<Mutex<BTreeMap<Ipv4Addr, Instant>>>,
}

impl Questions {
    fn start(stage: Stage<'_>) -> Result<Self> {
        let socket = inside(stage.lab(), CLIENT, || {
            Ok(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?)
        })?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let answered = Arc::new(Mutex::new(BTreeMap::new()));
        let (hearing, heard) = (socket.try_clone()?, Arc::downgrade(&answered));
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Some(heard) = heard.upgrade() {
                if let Ok((_, SocketAddr::V4(from))) = hearing.recv_from(&mut buffer) {
                    let at = Instant::now();
                    let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                    heard.entry(*from.ip()).or_insert(at);
                }
            }
        });
        Ok(Self { socket, answered })
    }

    /// Asks until each has answered: when each did.
    fn ask(&self, all: &[Ipv4Addr], limit: Duration) -> Result<BTreeMap<Ipv4Addr, Instant>> {
        let locked = || self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        locked().clear();
        let until = Instant::now() + limit;
        let pause = Duration::from_millis(1);
        let at_once = usize::try_from(QUESTIONS_PER_SECOND / 1000)?.min(all.len());
        let mut due = Instant::now();
        let mut round = all.iter().cycle();
        loop {
            go_on()?;
            let open: Vec<Ipv4Addr> = {
                let answered = locked();
                if all.iter().all(|address| answered.contains_key(address)) {
                    return Ok(answered.clone());
                }
                let next = round.by_ref().take(all.len());
                let open = next.filter(|address| !answered.contains_key(address));
                open.take(at_once).copied().collect()
            };
            for address in open {
                // The first error may be an earlier question's.
                let question = || self.socket.send_to(b"0", (address, PORT));
                if question().is_err() {
                    drop(question());
                }
            }
            let missing = all.len() - locked().len();
            ensure!(
                Instant::now() < until,
                "{missing} of {} do not answer",
                all.len()
            );
            due = (due + pause).max(Instant::now());
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
}

/// One round with the addresses there are, in which all is made whole again in any case.
pub(crate) fn play(stage: Stage<'_>) -> Result<Round> {
    stage.wait_whole()?;
    let mut hurt = None;
    let round = measure(stage, &mut hurt);
    let mended = hurt.map_or(Ok(()), |node: String| stage.mend(Fault::CutSilently, &node));
    let round = round?;
    mended.map(|()| round)
}

/// The node with the most addresses, its MAC address, and these, if the client sees them all there: a status
/// may be late.
fn seen_where_they_are(
    stage: Stage<'_>,
    questions: &Questions,
) -> Result<(String, String, Vec<Ipv4Addr>)> {
    let holders = holders(stage)?;
    let nodes = stage.cluster.nodes().into_iter();
    let held = |node: &str| holders.values().filter(|holder| *holder == node).count();
    let old = nodes.max_by_key(|node| held(node)).context("no node")?;
    let addresses: Vec<_> = holders
        .iter()
        .filter(|(_, node)| **node == old)
        .map(|(address, _)| *address)
        .collect();
    ensure!(!addresses.is_empty(), "{old} announces nothing");
    let mac = stage.lab().node(&old)?.address.mac;
    questions.ask(&addresses, LONG)?;
    let shown = Client::at(stage.lab(), CLIENT).ip("-4 neigh show dev eth0")?;
    let lines = shown.lines().filter(|line| line.contains(&mac));
    let there: BTreeSet<_> = lines.filter_map(|line| line.split(' ').next()).collect();
    let missing = addresses
        .iter()
        .filter(|address| !there.contains(address.to_string().as_str()))
        .count();
    ensure!(missing == 0, "{missing} are elsewhere than {old}");
    Ok((old, mac, addresses))
}

fn measure(stage: Stage<'_>, hurt: &mut Option<String>) -> Result<Round> {
    let lab = stage.lab();
    let capture = Capture::start(lab, CLIENT)?;
    let questions = Questions::start(stage)?;
    // From then on the client knows where each address is.
    let (old, mac, addresses) =
        eventually("the client sees all where the status says", LONG, || {
            seen_where_they_are(stage, &questions)
        })?;
    thread::sleep(Duration::from_secs(1));

    let load = load()?;
    *hurt = Some(old.clone());
    let (struck, on_the_clock) = (
        Instant::now(),
        SystemTime::now().duration_since(UNIX_EPOCH)?,
    );
    Fault::CutSilently.befall(lab, &old)?;
    let answers = questions.ask(&addresses, GIVE_UP)?;
    // What is captured may be late, and what is announced need not have been waited for.
    let announced = eventually("each is announced anew", GIVE_UP, || {
        let first = first_heard(&capture, &mac, on_the_clock);
        let heard = addresses.iter().filter_map(|it| first.get(it).copied());
        let mut heard: Vec<_> = heard.collect();
        heard.sort();
        let missing = addresses.len() - heard.len();
        ensure!(missing == 0, "{missing} of {} are not", addresses.len());
        Ok(heard)
    })?;
    let mut answered: Vec<_> = answers.values().map(|at| *at - struck).collect();
    answered.sort();
    Ok(Round {
        old,
        load,
        on_it: addresses.len(),
        announced,
        answered,
    })
}

/// How long after a moment each address was first announced by another than `old`.
fn first_heard(capture: &Capture, old: &str, since: Duration) -> BTreeMap<Ipv4Addr, Duration> {
    let mut first = BTreeMap::new();
    for frame in capture.frames().iter().filter(|frame| frame.source != old) {
        let after = frame.at.checked_sub(since);
        if let (Some(after), Some(IpAddr::V4(address))) = (after, frame.announced()) {
            first.entry(address).or_insert(after);
        }
    }
    first
}
