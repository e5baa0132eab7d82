//! Time, and what happens in it.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::net::IpAddr;
use std::time::Duration;

use herald_controller_core::testkit::{advertised, advertisement, pool, svc};
use herald_controller_core::{
    self as controller, Controller, Settings, SpeakerPod, Write, WriteId, WriteResult,
};
use herald_model::{Endpoint, Instant, Labels, MacAddress, Node, ServiceEndpoints};
use herald_ring::{Config, Keys, Packet, Profile, Ring};
use herald_speaker_core::{
    self as speaker, Cache, Core, DataPlaneMode, DataPlaneReport, Link, RingCommand, RingEvent,
    WriteOutcome,
};

use super::api::{Api, CACHES, Change, KINDS};
use super::check::Check;
use super::host::{ETH0, Host, NEVER, Process, SEGMENT, Segment, address, index, mac};
use crate::ring::{Lan, Quick, key, millis};

/// What happens at a moment; to a process only while it is the one meant.
#[derive(Debug)]
pub(super) enum Happening {
    Datagram(usize, Packet),
    Kernel(usize, IpAddr),
    Ring(usize, u64),
    Core(usize, u64, Box<speaker::Input>),
    Wake(usize, u64),
    Thaw(usize),
    Deliver(usize, u64, usize, usize),
    List(usize, u64),
    Write(usize, u64, Box<speaker::Effect>),
    Probe(usize, u64, IpAddr),
    Controller(u64, Box<controller::Input>),
    ControllerWake(u64),
    ControllerWrite(u64, WriteId, Box<Write>),
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

struct Leader {
    controller: Controller,
    generation: u64,
    positions: [usize; KINDS],
    wake: Instant,
}

/// Somebody who watches the API server, and how far behind it is.
#[derive(Clone, Copy)]
struct Watcher {
    lag: Duration,
    told_at: [Instant; KINDS],
}

/// A cluster.
pub(super) struct World {
    pub(super) now: Instant,
    pub(super) lan: Lan,
    pub(super) api: Api,
    pub(super) api_up: bool,
    /// Whether a write may take place and be reported as failed.
    pub(super) flaky: bool,
    pub(super) hosts: Vec<Host>,
    pub(super) vips: Vec<IpAddr>,
    pub(super) check: Check,
    /// What happened, if it is to be told.
    pub(super) trace: Option<Vec<String>>,
    leader: Leader,
    watchers: Vec<Watcher>,
    queue: BinaryHeap<Reverse<Event>>,
    number: u64,
    seed: u64,
}

impl World {
    pub(super) fn new(nodes: usize, vips: usize, seed: u64, trace: bool) -> Self {
        let now = Instant::ORIGIN + millis(1_000);
        let hosts = (0..nodes).map(|node| Host {
            name: format!("node{node}").into(),
            boot: 1,
            powered: true,
            carrier: true,
            paused: false,
            backlog: Vec::new(),
            process: None,
            generation: 0,
            snapshot: [0; KINDS],
        });
        let watcher = Watcher {
            lag: millis(5),
            told_at: [now; KINDS],
        };
        let mut world = Self {
            now,
            lan: Lan::new(nodes, seed),
            api: Api::default(),
            api_up: true,
            flaky: true,
            hosts: hosts.collect(),
            vips: (1..=vips)
                .map(|vip| IpAddr::from([10, 0, 9, u8::try_from(vip).unwrap_or(u8::MAX)]))
                .collect(),
            check: Check::new(nodes, vips, now),
            trace: trace.then(Vec::new),
            leader: Leader {
                controller: Controller::new(Settings::default()),
                generation: 0,
                positions: [0; KINDS],
                wake: NEVER,
            },
            watchers: vec![watcher; nodes + 1],
            queue: BinaryHeap::new(),
            number: 0,
            seed,
        };
        world.put_objects(nodes);
        for node in 0..nodes {
            world.start(node);
        }
        world.lead();
        world
    }

    fn put_objects(&mut self, nodes: usize) {
        for node in 0..nodes {
            self.put_node(node, |_| {});
            self.put_pod(node, true);
        }
        for vip in self.vips.clone() {
            let name = format!("ns/s{}", index(vip));
            let service = svc(&name).port(80).requests(&[&vip.to_string()]).observed();
            let endpoint = Endpoint {
                address: IpAddr::from([10, 244, 0, 1]),
                node: Some(self.hosts[0].name.clone()),
                ready: true,
                serving: true,
                terminating: false,
            };
            self.put(Change::Endpoints(ServiceEndpoints {
                service: service.key.clone(),
                endpoints: vec![endpoint],
            }));
            self.put(Change::Service(service));
        }
    }

    /// A Node as its kubelet and its users say it is.
    pub(super) fn put_node(&mut self, node: usize, change: impl FnOnce(&mut Node)) {
        let mut object = Node {
            name: self.hosts[node].name.clone(),
            labels: Labels::new(),
            addresses: vec![address(node)],
            ready: true,
            network_unavailable: false,
            excluded: false,
            out_of_service: false,
        };
        change(&mut object);
        self.put(Change::Node(object));
    }

    pub(super) fn put_pod(&mut self, node: usize, ready: bool) {
        let name = self.hosts[node].name.clone();
        self.put(Change::Pod(SpeakerPod {
            name: format!("speaker-{name}").into(),
            node: name,
            ready,
        }));
    }

    fn put(&mut self, change: Change) {
        self.api.put(change);
        self.spread();
    }

    pub(super) fn say(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let time = self.now.saturating_since(Instant::ORIGIN);
            trace.push(format!("{:10.4} {}", time.as_secs_f64(), what()));
        }
    }

    fn push(&mut self, after: Duration, happening: Happening) {
        self.push_at(self.now + after, happening);
    }

    fn push_at(&mut self, at: Instant, happening: Happening) {
        self.number += 1;
        self.queue.push(Reverse(Event {
            at,
            number: self.number,
            happening,
        }));
    }

    pub(super) fn up_to(&mut self, limit: Duration) -> Duration {
        limit.mul_f64(self.lan.draw())
    }

    /// Lets time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        let mut tick = self.now;
        while tick <= end {
            while self.queue.peek().is_some_and(|event| event.0.at <= tick) {
                let Some(Reverse(event)) = self.queue.pop() else {
                    break;
                };
                self.now = event.at;
                self.happen(event.happening);
            }
            self.now = tick;
            self.observe();
            tick = tick + millis(10);
        }
        self.now = end;
    }

    fn happen(&mut self, happening: Happening) {
        let node = match &happening {
            Happening::Datagram(node, _) | Happening::Kernel(node, _) => Some(*node),
            Happening::Ring(node, generation)
            | Happening::Core(node, generation, _)
            | Happening::Wake(node, generation)
            | Happening::Deliver(node, generation, ..)
            | Happening::List(node, generation)
            | Happening::Probe(node, generation, _)
                if *node < self.hosts.len() =>
            {
                if self.hosts[*node].generation != *generation {
                    return;
                }
                Some(*node)
            }
            _other => None,
        };
        if let Some(node) = node {
            let host = &mut self.hosts[node];
            if host.process.is_none() {
                return;
            }
            if host.paused {
                host.backlog.push(happening);
                return;
            }
        }
        match happening {
            Happening::Datagram(node, packet) => self.ring(
                node,
                herald_ring::Input::DatagramReceived {
                    bytes: packet.as_bytes(),
                },
            ),
            Happening::Kernel(node, address) => {
                self.ring(node, herald_ring::Input::KernelAnswered { address });
            }
            Happening::Ring(node, _) => self.wake_ring(node),
            Happening::Core(node, _, input) => self.core(node, *input),
            Happening::Wake(node, _) => self.wake_core(node),
            Happening::Thaw(node) => self.thaw(node),
            Happening::Deliver(watcher, generation, kind, to) => {
                self.deliver(watcher, generation, kind, to);
            }
            Happening::List(watcher, generation) => self.list(watcher, generation),
            Happening::Write(node, generation, effect) => self.write(node, generation, *effect),
            Happening::Probe(node, _, vip) => self.probe(node, vip),
            Happening::Controller(generation, input) => self.controller(generation, *input),
            Happening::ControllerWake(generation) => self.wake_controller(generation),
            Happening::ControllerWrite(generation, id, write) => {
                self.controller_write(generation, id, &write);
            }
        }
    }

    // The API server and those who watch it.

    /// Whether a watcher reaches the API server, which is on side 0.
    fn reaches_api(&self, watcher: usize) -> bool {
        self.api_up && self.lan.sides.get(watcher).is_none_or(|side| *side == 0)
    }

    fn generation(&self, watcher: usize) -> u64 {
        self.hosts
            .get(watcher)
            .map_or(self.leader.generation, |host| host.generation)
    }

    /// Watches grow slower and faster.
    pub(super) fn change_lags(&mut self) {
        for watcher in 0..self.watchers.len() {
            let most = match self.lan.below(4) {
                0 => 400,
                _ => 20,
            };
            self.watchers[watcher].lag = millis(1) + self.up_to(millis(most));
        }
    }

    /// Whoever watches will be told of what is new.
    fn spread(&mut self) {
        let ends = self.api.ends();
        for watcher in 0..self.watchers.len() {
            let generation = self.generation(watcher);
            for (kind, end) in ends.into_iter().enumerate() {
                let seen = match self.hosts.get(watcher) {
                    Some(host) => match &host.process {
                        Some(process) => process.positions[kind],
                        None => continue,
                    },
                    None => self.leader.positions[kind],
                };
                if seen < end {
                    let lag = self.watchers[watcher].lag;
                    let lag = lag / 2 + self.up_to(lag);
                    let told_at = self.watchers[watcher].told_at[kind].max(self.now + lag);
                    self.watchers[watcher].told_at[kind] = told_at;
                    self.push_at(told_at, Happening::Deliver(watcher, generation, kind, end));
                }
            }
        }
    }

    /// Those who reach the API server again list everything anew.
    pub(super) fn reconnect(&mut self) {
        for watcher in 0..self.watchers.len() {
            let generation = self.generation(watcher);
            let wait = millis(20) + self.up_to(millis(1_000));
            self.push(wait, Happening::List(watcher, generation));
        }
    }

    fn deliver(&mut self, watcher: usize, generation: u64, kind: usize, to: usize) {
        if !self.reaches_api(watcher) || self.generation(watcher) != generation {
            return;
        }
        if watcher == self.hosts.len() {
            let from = self.leader.positions[kind];
            self.leader.positions[kind] = to.max(from);
            let inputs: Vec<_> = self.api.between(kind, from, to).to_vec();
            for change in inputs {
                self.controller(generation, change.for_controller());
            }
            return;
        }
        let Some(process) = &mut self.hosts[watcher].process else {
            return;
        };
        if process.synced && !process.restored {
            self.catch_up(watcher, kind, to);
        }
    }

    fn catch_up(&mut self, node: usize, kind: usize, to: usize) {
        let host = &mut self.hosts[node];
        let Some(process) = &mut host.process else {
            return;
        };
        let from = process.positions[kind];
        process.positions[kind] = to.max(from);
        host.snapshot[kind] = host.snapshot[kind].max(to);
        let changes = self.api.between(kind, from, to).to_vec();
        for input in changes.iter().filter_map(Change::for_speaker) {
            self.core(node, input);
        }
    }

    fn list(&mut self, watcher: usize, generation: u64) {
        let ends = self.api.ends();
        if watcher == self.hosts.len() {
            for (kind, end) in ends.into_iter().enumerate() {
                self.deliver(watcher, generation, kind, end);
            }
            return;
        }
        let reaches = self.reaches_api(watcher);
        let host = &mut self.hosts[watcher];
        let Some(process) = &mut host.process else {
            return;
        };
        let (synced, restored) = (process.synced, process.restored);
        if !reaches && synced {
            return;
        }
        process.synced = true;
        process.restored = !reaches;
        let ends = if reaches { ends } else { host.snapshot };
        if !reaches {
            for cache in CACHES {
                self.core(watcher, speaker::Input::Restored(cache));
            }
        }
        for (kind, end) in ends.into_iter().enumerate() {
            self.catch_up(watcher, kind, end);
        }
        for cache in CACHES {
            if restored && reaches {
                self.core(watcher, speaker::Input::Renewed(cache));
            }
            if !synced {
                self.core(watcher, speaker::Input::Synced(cache));
            }
        }
    }

    fn write(&mut self, node: usize, generation: u64, effect: speaker::Effect) {
        let reached = self.reaches_api(node);
        let lost = !reached || self.flaky && self.lan.draw() < 0.01;
        let failed = WriteOutcome::Failed;
        let name = self.hosts[node].name.clone();
        let answer = match effect {
            speaker::Effect::WriteSpeaker { create, report } => {
                let outcome = if reached {
                    self.api.write_speaker(&name, create, report)
                } else {
                    failed
                };
                self.say(|| format!("{name} writes its Speaker: {outcome:?}"));
                speaker::Input::SpeakerWritten(if lost { failed } else { outcome })
            }
            speaker::Effect::WriteVipStatus {
                address,
                resource_version,
                status,
            } => {
                let text = self.trace.is_some().then(|| {
                    let entry = status.segments.first();
                    entry.map(|it| format!("{} epoch {} {}", it.node, it.epoch, it.reason))
                });
                let outcome = if reached {
                    self.api
                        .write_vip_status(address, &resource_version, status)
                } else {
                    failed
                };
                self.say(|| format!("{name} writes status of {address}: {outcome:?}, {text:?}"));
                let outcome = if lost { failed } else { outcome };
                speaker::Input::VipStatusWritten { address, outcome }
            }
            _other => return,
        };
        self.spread();
        let wait = if reached {
            millis(1) + self.up_to(millis(4))
        } else {
            millis(300)
        };
        self.push(wait, Happening::Core(node, generation, Box::new(answer)));
    }

    // The controller.

    /// Another controller leads.
    pub(super) fn lead(&mut self) {
        let generation = self.leader.generation + 1;
        self.leader = Leader {
            controller: Controller::new(Settings::default()),
            generation,
            positions: [0; KINDS],
            wake: NEVER,
        };
        self.controller(
            generation,
            pool("public").range("10.0.9.1-10.0.9.9").applied(),
        );
        self.controller(generation, advertised(advertisement("all")));
        self.list(self.hosts.len(), generation);
        self.controller(generation, controller::Input::Synced);
        self.controller(generation, controller::Input::LeadershipGained);
    }

    fn controller(&mut self, generation: u64, input: controller::Input) {
        if generation == self.leader.generation {
            let mut out = Vec::new();
            self.leader.controller.handle(self.now, input, &mut out);
            self.carry_out_controller(out);
        }
    }

    fn wake_controller(&mut self, generation: u64) {
        if generation == self.leader.generation && self.leader.wake <= self.now {
            self.leader.wake = NEVER;
            let mut out = Vec::new();
            self.leader.controller.on_deadline(self.now, &mut out);
            self.carry_out_controller(out);
        }
    }

    fn carry_out_controller(&mut self, out: Vec<controller::Effect>) {
        let generation = self.leader.generation;
        for effect in out {
            let controller::Effect::Write { id, write } = effect;
            let wait = millis(1) + self.up_to(millis(4));
            self.push(wait, Happening::ControllerWrite(generation, id, write));
        }
        if let Some(at) = self.leader.controller.next_deadline() {
            let at = at.max(self.now);
            if at < self.leader.wake {
                self.leader.wake = at;
                self.push_at(at, Happening::ControllerWake(generation));
            }
        }
    }

    fn controller_write(&mut self, generation: u64, id: WriteId, write: &Write) {
        let failed = WriteResult::Failed {
            message: "simulated".to_owned(),
            refused: false,
        };
        let mut result = if self.api_up {
            self.api.write(write)
        } else {
            failed.clone()
        };
        self.say(|| match write {
            Write::CreateVip(vip) | Write::ReplaceVip { vip, .. } => format!(
                "controller plans {} epoch {} {:?}: {}",
                vip.address,
                vip.epoch,
                vip.segments.first().map(|it| &it.candidates),
                match &result {
                    WriteResult::VipWritten(_) => "written",
                    _ => "not written",
                }
            ),
            _other => "controller writes".to_owned(),
        });
        if self.flaky && self.lan.draw() < 0.01 {
            result = failed;
        }
        self.spread();
        let wait = millis(1) + self.up_to(millis(4));
        let done = controller::Input::WriteDone { id, result };
        self.push(wait, Happening::Controller(generation, Box::new(done)));
    }

    // Speakers.

    /// A speaker starts on a node.
    pub(super) fn start(&mut self, node: usize) {
        self.say(|| format!("node{node}: speaker starts"));
        let host = &mut self.hosts[node];
        host.generation += 1;
        host.paused = false;
        host.backlog.clear();
        let generation = host.generation;
        let config = speaker::Config {
            boot_id: format!("boot-{}", host.boot).into(),
            ..speaker::Config::new(host.name.clone())
        };
        host.process = Some(Process {
            core: Core::new(config),
            wake: NEVER,
            positions: [0; KINDS],
            synced: false,
            restored: false,
            keys: None,
            segment: None,
            held: BTreeSet::new(),
        });
        self.core(node, self.link(node));
        let prefix = ipnet::IpNet::new(address(node), 16);
        for input in [
            prefix.ok().map(|address| speaker::Input::AddressAdded {
                interface: ETH0,
                address,
            }),
            Some(speaker::Input::Synced(Cache::Links)),
            Some(speaker::Input::DataPlaneKnown(DataPlaneReport {
                mode: DataPlaneMode::Tcx,
                reason: None,
            })),
            Some(speaker::Input::RingKeysKnown(vec![key(1)])),
        ]
        .into_iter()
        .flatten()
        {
            self.core(node, input);
        }
        let wait = if self.reaches_api(node) { 20 } else { 1_000 };
        let wait = millis(wait) + self.up_to(millis(100));
        self.push(wait, Happening::List(node, generation));
    }

    fn link(&self, node: usize) -> speaker::Input {
        speaker::Input::LinkApplied(Link {
            index: ETH0,
            name: "eth0".into(),
            mac: Some(mac(node)),
            carrier: self.hosts[node].carrier,
            up: true,
        })
    }

    /// A speaker is gone at once.
    pub(super) fn kill(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        host.process = None;
        host.generation += 1;
        host.paused = false;
        host.backlog.clear();
    }

    pub(super) fn stop(&mut self, node: usize) {
        self.core(node, speaker::Input::Stopping);
    }

    pub(super) fn pause(&mut self, node: usize, time: Duration) {
        self.hosts[node].paused = true;
        self.push(time, Happening::Thaw(node));
    }

    pub(super) fn set_carrier(&mut self, node: usize, carrier: bool) {
        self.hosts[node].carrier = carrier;
        let input = Box::new(self.link(node));
        let generation = self.hosts[node].generation;
        self.push(millis(1), Happening::Core(node, generation, input));
    }

    fn thaw(&mut self, node: usize) {
        if !std::mem::take(&mut self.hosts[node].paused) {
            return;
        }
        self.say(|| format!("node{node}: goes on"));
        self.wake_ring(node);
        for happening in std::mem::take(&mut self.hosts[node].backlog) {
            self.happen(happening);
        }
        self.wake_core(node);
    }

    fn core(&mut self, node: usize, input: speaker::Input) {
        let Some(process) = &mut self.hosts[node].process else {
            return;
        };
        let life = match &input {
            speaker::Input::RingSaid {
                event: RingEvent::View(view),
                ..
            } => Some(view.incarnation),
            _other => None,
        };
        process.core.handle(self.now, input);
        if let (Some(life), Some(segment)) = (life, &mut process.segment) {
            segment.unseen.take_if(|unseen| *unseen <= life);
        }
        self.decide(node);
    }

    fn wake_core(&mut self, node: usize) {
        if let Some(process) = &mut self.hosts[node].process {
            process.wake = NEVER;
            self.decide(node);
        }
    }

    fn decide(&mut self, node: usize) {
        let Some(process) = &mut self.hosts[node].process else {
            return;
        };
        let mut out = Vec::new();
        if process
            .core
            .next_deadline()
            .is_some_and(|at| at <= self.now)
        {
            process.core.on_deadline(self.now, &mut out);
        }
        for effect in out {
            self.carry_out(node, effect);
        }
        let generation = self.hosts[node].generation;
        let Some(process) = &mut self.hosts[node].process else {
            return;
        };
        if let Some(at) = process.core.next_deadline()
            && at < process.wake
        {
            process.wake = at.max(self.now);
            let at = process.wake;
            self.push_at(at, Happening::Wake(node, generation));
        }
    }

    fn carry_out(&mut self, node: usize, effect: speaker::Effect) {
        let generation = self.hosts[node].generation;
        let answer = |world: &mut Self, after, input| {
            world.push(after, Happening::Core(node, generation, Box::new(input)));
        };
        match effect {
            speaker::Effect::Layer2(input) => self.layer2(node, input),
            speaker::Effect::Ring { command, .. } => self.command(node, command),
            speaker::Effect::SetRingKeys(keys) => {
                if let Some(process) = &mut self.hosts[node].process {
                    process.keys = keys.0;
                }
                self.begin_ring(node);
                self.ring(node, herald_ring::Input::KeysChanged(keys.0));
            }
            speaker::Effect::ApplyDataPlane { generation, .. } => {
                let applied = speaker::Input::DataPlaneApplied {
                    generation,
                    outcome: Ok(()),
                };
                answer(self, millis(1), applied);
            }
            write @ (speaker::Effect::WriteSpeaker { .. }
            | speaker::Effect::WriteVipStatus { .. }) => {
                let wait = millis(1) + self.up_to(millis(4));
                self.push(wait, Happening::Write(node, generation, Box::new(write)));
            }
            speaker::Effect::Refresh => {
                let wait = millis(10) + self.up_to(millis(50));
                self.push(wait, Happening::List(node, generation));
            }
            speaker::Effect::Exit => {
                self.say(|| format!("node{node}: speaker ends"));
                self.kill(node);
            }
            _for_the_kernel_or_for_people => {}
        }
    }

    fn layer2(&mut self, node: usize, input: herald_l2::Input) {
        let generation = self.hosts[node].generation;
        let Some(process) = &mut self.hosts[node].process else {
            return;
        };
        match input {
            herald_l2::Input::PortSet(port) => {
                let opened = Box::new(speaker::Input::PortOpened(port.index));
                self.push(millis(1), Happening::Core(node, generation, opened));
            }
            herald_l2::Input::PortRemoved(_) => process.held.clear(),
            herald_l2::Input::Held { address, .. } => {
                let unseen = process.segment.as_ref().and_then(|it| it.unseen);
                if unseen.is_none() {
                    process.held.insert(address);
                    self.say(|| format!("node{node}: holds {address}"));
                    self.claim(node, address);
                }
            }
            herald_l2::Input::Released { address, .. } => {
                process.held.remove(&address);
                self.say(|| format!("node{node}: releases {address}"));
            }
            herald_l2::Input::Probe { address, .. } => {
                self.push(millis(700), Happening::Probe(node, generation, address));
            }
            herald_l2::Input::Challenged { .. } => {}
        }
    }

    /// Its announcement reaches those who hold the address as well.
    fn claim(&mut self, node: usize, vip: IpAddr) {
        for other in 0..self.hosts.len() {
            let holds = self.hosts[other]
                .process
                .as_ref()
                .is_some_and(|process| process.held.contains(&vip));
            if other != node
                && holds
                && let Some(delay) = self.lan.send(self.now.as_nanos(), node, other)
            {
                let claim = speaker::Input::ForeignClaim {
                    interface: ETH0,
                    address: vip,
                    mac: mac(node),
                };
                let generation = self.hosts[other].generation;
                self.push(delay, Happening::Core(other, generation, Box::new(claim)));
            }
        }
    }

    /// The LAN was asked whether anybody uses an address.
    fn probe(&mut self, node: usize, vip: IpAddr) {
        let side = self.lan.sides[node];
        let user: Option<MacAddress> = (0..self.hosts.len())
            .find(|other| {
                *other != node && self.lan.sides[*other] == side && self.hosts[*other].answers(vip)
            })
            .map(mac);
        let probed = speaker::Input::Probed {
            interface: ETH0,
            address: vip,
            user,
        };
        self.core(node, probed);
    }

    // Rings, as the speaker's thread runs them.

    fn command(&mut self, node: usize, command: RingCommand) {
        let name = self.hosts[node].name.clone();
        let Some(process) = &mut self.hosts[node].process else {
            return;
        };
        match command {
            RingCommand::Start { me, peers, .. } => {
                process.segment = Some(Segment {
                    me,
                    peers,
                    carrier: true,
                    ring: None,
                    wake: NEVER,
                    told: None,
                    changed: true,
                    silenced: false,
                    unseen: None,
                });
                self.begin_ring(node);
            }
            RingCommand::Stop => process.segment = None,
            RingCommand::PeersChanged(peers) => {
                let Some(segment) = &mut process.segment else {
                    return;
                };
                segment.peers = peers;
                segment.changed = true;
                let members = segment.members();
                self.ring(node, herald_ring::Input::MembersChanged(&members));
            }
            RingCommand::CarrierChanged(carrier) => {
                if let Some(segment) = &mut process.segment {
                    segment.carrier = carrier;
                }
                self.ring(node, herald_ring::Input::CarrierChanged(carrier));
            }
            RingCommand::StepDown => {
                self.say(|| format!("{name}: steps down"));
                self.ring(node, herald_ring::Input::SteppedDown);
            }
            RingCommand::HoldChanged {
                vip,
                epoch,
                rank,
                held,
            } => self.ring(
                node,
                herald_ring::Input::HoldChanged {
                    vip,
                    epoch,
                    rank,
                    held,
                },
            ),
        }
    }

    fn begin_ring(&mut self, node: usize) {
        let (now, seed) = (self.now, self.seed);
        let Some(process) = &mut self.hosts[node].process else {
            return;
        };
        let (Some(segment), Some(_)) = (&mut process.segment, process.keys) else {
            return;
        };
        if segment.ring.is_some() {
            return;
        }
        let config = Config {
            profile: Profile::Fast,
            cluster: "cluster".to_owned(),
            segment: SEGMENT.into(),
            first_sequence: now.as_nanos(),
        };
        let place = u128::try_from(node).unwrap_or(0);
        let seed = u128::from(seed) << 64 | place << 56 | u128::from(now.as_nanos());
        let members = segment.members();
        segment.ring = Some(Ring::new(&config, Quick, &segment.me, &members, seed, now));
        let carrier = segment.carrier;
        let keys = Some(Keys::only(key(1)));
        self.ring(node, herald_ring::Input::KeysChanged(keys));
        if !carrier {
            self.ring(node, herald_ring::Input::CarrierChanged(false));
        }
    }

    fn ring(&mut self, node: usize, input: herald_ring::Input<'_>) {
        let now = self.now;
        let mut out = Vec::new();
        if let Some(ring) = self.ring_of(node) {
            ring.handle(now, input, &mut out);
            self.carry_out_ring(node, out);
        }
    }

    fn wake_ring(&mut self, node: usize) {
        let now = self.now;
        if let Some(segment) = self.segment_of(node) {
            segment.wake = NEVER;
        }
        let mut out = Vec::new();
        if let Some(ring) = self.ring_of(node) {
            if ring.next_deadline().is_some_and(|at| at <= now) {
                ring.on_deadline(now, &mut out);
            }
            self.carry_out_ring(node, out);
        }
    }

    fn segment_of(&mut self, node: usize) -> Option<&mut Segment> {
        self.hosts[node].process.as_mut()?.segment.as_mut()
    }

    pub(super) fn ring_of(&mut self, node: usize) -> Option<&mut Ring<Quick>> {
        self.segment_of(node)?.ring.as_mut()
    }

    fn carry_out_ring(&mut self, node: usize, out: Vec<herald_ring::Effect>) {
        for effect in out {
            match effect {
                herald_ring::Effect::Send { to, packet } => {
                    let to = index(to);
                    if let Some(delay) = self.lan.send(self.now.as_nanos(), node, to) {
                        self.push(delay, Happening::Datagram(to, packet));
                    }
                }
                herald_ring::Effect::ProbeKernel { address } => {
                    let asked = index(address);
                    let nanos = self.now.as_nanos();
                    if self.hosts[asked].powered
                        && let Some(there) = self.lan.send(nanos, node, asked)
                        && let Some(back) = self.lan.send(nanos, asked, node)
                    {
                        self.push(there + back, Happening::Kernel(node, address));
                    }
                }
                other => self.note(node, other),
            }
        }
        let generation = self.hosts[node].generation;
        let now = self.now;
        let Some(segment) = self.segment_of(node) else {
            return;
        };
        let deadline = segment.ring.as_ref().and_then(Ring::next_deadline);
        let wake = deadline
            .map(|at| at.max(now))
            .filter(|at| *at < segment.wake);
        if let Some(at) = wake {
            segment.wake = at;
        }
        let view = segment.view();
        if let Some(at) = wake {
            self.push_at(at, Happening::Ring(node, generation));
        }
        if let Some(view) = view {
            self.tell_core(node, RingEvent::View(view));
        }
    }

    fn note(&mut self, node: usize, effect: herald_ring::Effect) {
        self.say(|| format!("node{node}: ring {effect:?}"));
        let Some(process) = &mut self.hosts[node].process else {
            return;
        };
        let Some(segment) = &mut process.segment else {
            return;
        };
        match effect {
            herald_ring::Effect::MemberDown {
                node: victim,
                incarnation,
                scope,
                timeline,
            } => {
                segment.changed = true;
                let down = RingEvent::Down {
                    node: victim,
                    incarnation,
                    scope,
                    timeline,
                };
                self.tell_core(node, down);
            }
            herald_ring::Effect::MemberUp { .. } | herald_ring::Effect::QuorumChanged { .. } => {
                segment.changed = true;
            }
            herald_ring::Effect::IncarnationRaised { incarnation, .. } => {
                segment.changed = true;
                segment.me.incarnation = incarnation;
                segment.silenced = false;
                segment.unseen = Some(incarnation);
                process.held.clear();
            }
            herald_ring::Effect::Silenced { .. } => segment.silenced = true,
            herald_ring::Effect::Confirmed => segment.silenced = false,
            herald_ring::Effect::HoldHeard(hold) => self.tell_core(node, RingEvent::Hold(hold)),
            _for_nobody => {}
        }
    }

    /// From the ring's thread to the core's.
    fn tell_core(&mut self, node: usize, event: RingEvent) {
        let generation = self.hosts[node].generation;
        let input = speaker::Input::RingSaid {
            segment: SEGMENT.into(),
            event,
        };
        let delay = Duration::from_micros(50);
        self.push(delay, Happening::Core(node, generation, Box::new(input)));
    }
}
