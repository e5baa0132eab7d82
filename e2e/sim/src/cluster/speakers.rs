//! Speakers, as their driver runs them, and the kernels below them.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use herald_model::MacAddress;
use herald_speaker_core::{
    self as speaker, Cache, Core, DataPlaneMode, DataPlaneReport, Link, RingEvent,
};

use super::api::KINDS;
use super::host::{ETH0, NEVER, Process, address, mac};
use super::world::{Happening, World};
use crate::ring::{key, millis};

impl World {
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

    pub(super) fn link(&self, node: usize) -> speaker::Input {
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

    pub(super) fn thaw(&mut self, node: usize) {
        if !std::mem::take(&mut self.hosts[node].paused) {
            return;
        }
        self.say(|| format!("node{node}: goes on"));
        // As its thread does: it notes that it is late, takes in what queued, then does what is due.
        self.ring(node, herald_ring::Input::Woken);
        for happening in std::mem::take(&mut self.hosts[node].backlog) {
            self.happen(happening);
        }
        self.wake_ring(node);
        self.wake_core(node);
    }

    pub(super) fn core(&mut self, node: usize, input: speaker::Input) {
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

    pub(super) fn wake_core(&mut self, node: usize) {
        if let Some(process) = &mut self.hosts[node].process {
            process.wake = NEVER;
            self.decide(node);
        }
    }

    pub(super) fn decide(&mut self, node: usize) {
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

    pub(super) fn carry_out(&mut self, node: usize, effect: speaker::Effect) {
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
                    outcome: Ok(Arc::default()),
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
            speaker::Effect::Exit { .. } | speaker::Effect::Crash => {
                self.say(|| format!("node{node}: speaker ends"));
                self.kill(node);
            }
            _for_the_kernel_or_for_people => {}
        }
    }

    pub(super) fn layer2(&mut self, node: usize, input: herald_l2::Input) {
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
    pub(super) fn claim(&mut self, node: usize, vip: IpAddr) {
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
    pub(super) fn probe(&mut self, node: usize, vip: IpAddr) {
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
}
