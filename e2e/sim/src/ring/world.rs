//! Nodes, their rings, and time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::Hasher as _;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use herald_model::{Incarnation, Instant, NodeName};
use herald_ring::{
    Authenticator, Config, Effect, Input, KeyId, Keys, Member, Packet, Profile, Ring, Scope, Tag,
    Timeline,
};
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::lan::Lan;

/// A duration of so many milliseconds.
pub const fn millis(number: u64) -> Duration {
    Duration::from_millis(number)
}

/// The id of the n-th key.
pub const fn key(number: u32) -> KeyId {
    KeyId(number)
}

/// A quick tag, for tests only: it knows every key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quick;

impl Authenticator for Quick {
    fn tag(&self, key: KeyId, parts: [&[u8]; 2]) -> Option<Tag> {
        let mut hasher = SipHasher13::new_with_keys(u64::from(key.0), 7);
        for part in parts {
            hasher.write(part);
        }
        Some(Tag(hasher.finish128().as_bytes()))
    }
}

/// What a node's ring said, other than datagrams.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// When.
    pub at: Instant,
    /// Which node's.
    pub node: usize,
    /// What.
    pub what: What,
}

/// What a ring can say.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A member is dead.
    Down {
        /// Which.
        victim: usize,
        /// In which life.
        incarnation: Incarnation,
        /// How dead.
        scope: Scope,
        /// When it was noticed.
        timeline: Timeline,
    },
    /// A member is in a new life.
    Up {
        /// Which.
        member: usize,
        /// In which life.
        incarnation: Incarnation,
    },
    /// It began a new life itself, or was silenced, or has another quorum, or heard of a hold.
    Other(Effect),
}

/// How a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    /// Its speaker does not run and does not lose what it is sent.
    Stopped,
    /// Its speaker is gone, its kernel is not.
    SpeakerDead,
    NodeDead,
}

struct Node {
    ring: Ring<Quick>,
    name: NodeName,
    state: State,
    backlog: Vec<Arrival>,
    /// Until when it is stopped at least.
    stopped: Instant,
    /// How late it may be whenever it is to wake.
    lateness: Duration,
    /// How long it is stopped, and how long it then runs: at least and at most.
    stalls: Option<[[Duration; 2]; 2]>,
    /// When it is to be woken next.
    wake: Instant,
}

#[derive(Clone, Debug)]
enum Arrival {
    Datagram(Packet),
    Kernel(IpAddr),
    Witness,
}

#[derive(Debug)]
enum Happening {
    Arrival(usize, Arrival),
    Wake(usize),
    Thaw(usize),
    Stall(usize),
}

#[derive(Debug)]
struct Event {
    at: Instant,
    number: u64,
    happening: Happening,
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Event {}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// So many nodes on one LAN.
pub struct World {
    /// The LAN between them.
    pub lan: Lan,
    /// What the rings said so far.
    pub records: Vec<Record>,
    /// Datagrams on their way to be kept and played again by an attacker; `None`: not recorded.
    pub tape: Option<Vec<(usize, Packet)>>,
    /// A node, and how long its ring has worked on this machine.
    pub timed: Option<(usize, Duration)>,
    nodes: Vec<Node>,
    queue: BinaryHeap<Reverse<Event>>,
    now: Instant,
    number: u64,
    effects: Vec<Effect>,
    profile: Profile,
    seed: u64,
}

impl World {
    /// Starts the nodes within one heartbeat, all knowing each other, with key 1.
    pub fn new(nodes: usize, profile: Profile, seed: u64) -> Self {
        let start = Instant::ORIGIN + millis(1_000);
        let mut world = Self {
            lan: Lan::new(nodes, seed),
            records: Vec::new(),
            tape: None,
            timed: None,
            nodes: Vec::with_capacity(nodes),
            queue: BinaryHeap::new(),
            now: start,
            number: 0,
            effects: Vec::new(),
            profile,
            seed,
        };
        let members = world.members(nodes);
        for node in 0..nodes {
            world.nodes.push(Node {
                ring: world.ring(node, &members[node], &members),
                name: members[node].node.clone(),
                state: State::Running,
                backlog: Vec::new(),
                stopped: start,
                lateness: Duration::ZERO,
                stalls: None,
                wake: Instant::from_nanos(u64::MAX),
            });
        }
        for node in 0..nodes {
            let phase = profile.heartbeat().mul_f64(world.lan.draw());
            world.now = start + phase;
            world.tell(node, Input::KeysChanged(Some(Keys::only(key(1)))));
        }
        world.now = start;
        world
    }

    fn ring(&self, node: usize, me: &Member, members: &[Member]) -> Ring<Quick> {
        let config = Config {
            profile: self.profile,
            cluster: "cluster".to_owned(),
            segment: "10.0.0.0/16".into(),
            first_sequence: self.now.as_nanos(),
        };
        let seed = u128::from(self.seed) << 64 | u128::try_from(node).unwrap_or(0) << 32;
        let seed = seed | u128::from(self.now.as_nanos());
        Ring::new(&config, Quick, me, members, seed, self.now)
    }

    /// The first so many nodes as the API lists them, in their first life.
    pub fn members(&self, nodes: usize) -> Vec<Member> {
        (0..nodes)
            .map(|node| Member {
                node: format!("node{node}").into(),
                address: address(node),
                incarnation: Incarnation(1),
            })
            .collect()
    }

    /// Now.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// A node's ring.
    pub fn ring_of(&self, node: usize) -> &Ring<Quick> {
        &self.nodes[node].ring
    }

    /// Whether one knows the other up.
    pub fn knows_up(&self, node: usize, other: usize) -> bool {
        self.nodes[node]
            .ring
            .live(&self.nodes[other].name)
            .is_some()
    }

    /// Gives a node's ring an input.
    pub fn tell(&mut self, node: usize, input: Input<'_>) {
        let mut effects = std::mem::take(&mut self.effects);
        let begun = self.begin_work(node);
        self.nodes[node].ring.handle(self.now, input, &mut effects);
        self.end_work(begun);
        self.carry_out(node, &mut effects);
        self.effects = effects;
    }

    /// The node loses power.
    pub fn kill(&mut self, node: usize) {
        self.nodes[node].state = State::NodeDead;
    }

    /// The node's speaker is killed; its kernel stays.
    pub fn kill_speaker(&mut self, node: usize) {
        self.nodes[node].state = State::SpeakerDead;
    }

    /// The node's speaker starts anew, in the life it is said to be in, with the members given.
    pub fn start(&mut self, node: usize, incarnation: Incarnation, members: &[Member]) {
        let me = Member {
            node: self.nodes[node].name.clone(),
            address: address(node),
            incarnation,
        };
        let ring = self.ring(node, &me, members);
        let new = &mut self.nodes[node];
        new.ring = ring;
        new.state = State::Running;
        new.backlog.clear();
        new.wake = Instant::from_nanos(u64::MAX);
        self.tell(node, Input::KeysChanged(Some(Keys::only(key(1)))));
    }

    /// The node's speaker does nothing for so long; what arrives meanwhile waits.
    pub fn pause(&mut self, node: usize, time: Duration) {
        let end = self.now + time;
        let paused = &mut self.nodes[node];
        paused.state = State::Stopped;
        paused.stopped = paused.stopped.max(end);
        self.push(end, Happening::Thaw(node));
    }

    /// From now on the node's speaker wakes up to so late, whether a datagram or a deadline wakes it.
    pub fn wake_late(&mut self, node: usize, most: Duration) {
        self.nodes[node].lateness = most;
    }

    /// From now on the node's speaker stops again and again, for a time between the first two, and
    /// runs for a time between the second two.
    pub fn stall_often(&mut self, node: usize, stops: [Duration; 2], runs: [Duration; 2]) {
        self.nodes[node].stalls = Some([stops, runs]);
        let first = self.between(runs);
        self.push(self.now + first, Happening::Stall(node));
    }

    fn between(&mut self, [least, most]: [Duration; 2]) -> Duration {
        least + most.saturating_sub(least).mul_f64(self.lan.draw())
    }

    /// An attacker sends a datagram to a node.
    pub fn inject(&mut self, to: usize, packet: &Packet) {
        self.arrive(to, Arrival::Datagram(packet.clone()));
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.queue.peek().is_some_and(|event| event.0.at <= end) {
            let Some(Reverse(event)) = self.queue.pop() else {
                break;
            };
            self.now = event.at;
            match event.happening {
                Happening::Arrival(node, arrival) => self.arrive(node, arrival),
                Happening::Wake(node) => {
                    if !self.is_late(node) {
                        self.wake(node);
                    }
                }
                Happening::Thaw(node) => self.thaw(node),
                Happening::Stall(node) => self.stall(node),
            }
        }
        self.now = end;
    }

    fn arrive(&mut self, node: usize, arrival: Arrival) {
        // Perhaps it is stopped only now.
        self.is_late(node);
        match self.nodes[node].state {
            State::Running => self.deliver(node, &arrival),
            State::Stopped => self.nodes[node].backlog.push(arrival),
            State::SpeakerDead | State::NodeDead => {}
        }
    }

    fn deliver(&mut self, node: usize, arrival: &Arrival) {
        match arrival {
            Arrival::Datagram(packet) => {
                let bytes = packet.as_bytes();
                self.tell(node, Input::DatagramReceived { bytes });
            }
            Arrival::Kernel(address) => {
                let address = *address;
                self.tell(node, Input::KernelAnswered { address });
            }
            Arrival::Witness => self.tell(node, Input::WitnessAnswered),
        }
    }

    /// Whether it is late instead of waking now.
    fn is_late(&mut self, node: usize) -> bool {
        let lateness = self.nodes[node].lateness;
        if self.nodes[node].state != State::Running || lateness.is_zero() {
            return false;
        }
        let time = self.between([Duration::ZERO, lateness]);
        self.pause(node, time);
        true
    }

    fn stall(&mut self, node: usize) {
        let Some([stops, runs]) = self.nodes[node].stalls else {
            return;
        };
        let (stop, run) = (self.between(stops), self.between(runs));
        if matches!(self.nodes[node].state, State::Running | State::Stopped) {
            self.pause(node, stop);
            self.push(self.now + stop + run, Happening::Stall(node));
        }
    }

    fn wake(&mut self, node: usize) {
        let woken = &mut self.nodes[node];
        if woken.wake > self.now || woken.state != State::Running {
            return;
        }
        woken.wake = Instant::from_nanos(u64::MAX);
        if woken.ring.next_deadline().is_some_and(|it| it <= self.now) {
            let mut effects = std::mem::take(&mut self.effects);
            let begun = self.begin_work(node);
            self.nodes[node].ring.on_deadline(self.now, &mut effects);
            self.end_work(begun);
            self.carry_out(node, &mut effects);
            self.effects = effects;
        } else {
            self.schedule(node);
        }
    }

    fn begin_work(&self, node: usize) -> Option<std::time::Instant> {
        let is_timed = self.timed.is_some_and(|(timed, _)| timed == node);
        is_timed.then(std::time::Instant::now)
    }

    fn end_work(&mut self, begun: Option<std::time::Instant>) {
        if let (Some(begun), Some((_, worked))) = (begun, &mut self.timed) {
            *worked += begun.elapsed();
        }
    }

    fn thaw(&mut self, node: usize) {
        if self.nodes[node].state != State::Stopped || self.now < self.nodes[node].stopped {
            return;
        }
        self.nodes[node].state = State::Running;
        for arrival in std::mem::take(&mut self.nodes[node].backlog) {
            self.deliver(node, &arrival);
        }
        self.nodes[node].wake = self.now;
        self.wake(node);
    }

    fn carry_out(&mut self, node: usize, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            let nanos = self.now.as_nanos();
            match effect {
                Effect::Send { to, packet } => {
                    let to = index(to);
                    if let Some(tape) = &mut self.tape {
                        tape.push((to, packet.clone()));
                    }
                    if let Some(delay) = self.lan.send(nanos, node, to) {
                        self.push(
                            self.now + delay,
                            Happening::Arrival(to, Arrival::Datagram(packet)),
                        );
                    }
                }
                Effect::ProbeKernel { address } => {
                    let asked = index(address);
                    if self.nodes[asked].state != State::NodeDead
                        && let Some(there) = self.lan.send(nanos, node, asked)
                        && let Some(back) = self.lan.send(nanos, asked, node)
                    {
                        self.push(
                            self.now + there + back,
                            Happening::Arrival(node, Arrival::Kernel(address)),
                        );
                    }
                }
                Effect::AskWitness => {
                    if let Some(delay) = self.lan.ask_witness(nanos, node) {
                        self.push(self.now + delay, Happening::Arrival(node, Arrival::Witness));
                    }
                }
                other => self.record(node, other),
            }
        }
        self.schedule(node);
    }

    fn record(&mut self, node: usize, effect: Effect) {
        let what = match effect {
            Effect::MemberDown {
                node,
                incarnation,
                scope,
                timeline,
            } => What::Down {
                victim: number(&node),
                incarnation,
                scope,
                timeline,
            },
            Effect::MemberUp { node, incarnation } => What::Up {
                member: number(&node),
                incarnation,
            },
            other => What::Other(other),
        };
        self.records.push(Record {
            at: self.now,
            node,
            what,
        });
    }

    fn schedule(&mut self, node: usize) {
        let Some(deadline) = self.nodes[node].ring.next_deadline() else {
            return;
        };
        let at = deadline.max(self.now);
        if at < self.nodes[node].wake {
            self.nodes[node].wake = at;
            self.push(at, Happening::Wake(node));
        }
    }

    fn push(&mut self, at: Instant, happening: Happening) {
        self.number += 1;
        self.queue.push(Reverse(Event {
            at,
            number: self.number,
            happening,
        }));
    }
}

/// A node's address on the segment.
fn address(node: usize) -> IpAddr {
    let [.., high, low] = u32::try_from(node).unwrap_or(0).to_be_bytes();
    IpAddr::V4(Ipv4Addr::new(10, 0, high, low))
}

fn index(address: IpAddr) -> usize {
    let IpAddr::V4(v4) = address else {
        return usize::MAX;
    };
    let [_, _, high, low] = v4.octets();
    usize::from(high) << 8 | usize::from(low)
}

fn number(node: &NodeName) -> usize {
    node.as_str()
        .strip_prefix("node")
        .and_then(|number| number.parse().ok())
        .unwrap_or(usize::MAX)
}
