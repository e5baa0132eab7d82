//! Time, and what happens in it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use herald_controller_core::testkit::svc;
use herald_controller_core::{
    self as controller, Controller, Rebalancing, Settings, SpeakerPod, Write, WriteId,
};
use herald_model::{Endpoint, Instant, Labels, Node, ServiceEndpoints};
use herald_ring::Packet;
use herald_speaker_core as speaker;

use super::api::{Api, Change, KINDS};
use super::check::Check;
use super::host::{Host, NEVER, address, index};
use crate::ring::{Lan, millis};

/// What happens at a moment; to a process only while it is the one meant.
#[derive(Debug)]
pub(super) enum Happening {
    Datagram(usize, Packet),
    Kernel(usize, IpAddr),
    Witness(usize),
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

pub(super) struct Leader {
    pub(super) controller: Controller,
    pub(super) generation: u64,
    pub(super) positions: [usize; KINDS],
    pub(super) wake: Instant,
}

/// Somebody who watches the API server, and how far behind it is.
#[derive(Clone, Copy)]
pub(super) struct Watcher {
    pub(super) lag: Duration,
    pub(super) told_at: [Instant; KINDS],
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
    pub(super) leader: Leader,
    pub(super) watchers: Vec<Watcher>,
    queue: BinaryHeap<Reverse<Event>>,
    number: u64,
    pub(super) seed: u64,
}

/// Whether this is a story in which addresses move to nodes that have fewer: every other one.
pub(super) const fn moves_by_itself(seed: u64) -> bool {
    !seed.is_multiple_of(2)
}

/// Where addresses move by themselves, they do so soon and often.
pub(super) fn settings(seed: u64) -> Settings {
    Settings {
        rebalancing: Rebalancing {
            is_on: moves_by_itself(seed),
            quiet: millis(2_000),
            interval: millis(1_000),
        },
        ..Settings::default()
    }
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
                controller: Controller::new(settings(seed)),
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
                ports: Arc::default(),
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
            departure: None,
            pod_ranges: Vec::new(),
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

    pub(super) fn put(&mut self, change: Change) {
        self.api.put(change);
        self.spread();
    }

    pub(super) fn say(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let time = self.now.saturating_since(Instant::ORIGIN);
            trace.push(format!("{:10.4} {}", time.as_secs_f64(), what()));
        }
    }

    pub(super) fn push(&mut self, after: Duration, happening: Happening) {
        self.push_at(self.now + after, happening);
    }

    pub(super) fn push_at(&mut self, at: Instant, happening: Happening) {
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

    pub(super) fn happen(&mut self, happening: Happening) {
        let node = match &happening {
            Happening::Datagram(node, _)
            | Happening::Kernel(node, _)
            | Happening::Witness(node) => Some(*node),
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
            Happening::Witness(node) => self.ring(node, herald_ring::Input::WitnessAnswered),
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
}
