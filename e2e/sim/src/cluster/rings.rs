//! Rings, as the speaker's thread runs them.

use std::time::Duration;

use herald_ring::{Config, Keys, Profile, Ring};
use herald_speaker_core::{self as speaker, RingCommand, RingEvent};

use super::host::{NEVER, SEGMENT, Segment, index};
use super::world::{Happening, World};
use crate::ring::{Quick, key};

impl World {
    pub(super) fn command(&mut self, node: usize, command: RingCommand) {
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
                tenure,
            } => self.ring(
                node,
                herald_ring::Input::HoldChanged {
                    vip,
                    epoch,
                    rank,
                    tenure,
                },
            ),
        }
    }

    pub(super) fn begin_ring(&mut self, node: usize) {
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

    pub(super) fn ring(&mut self, node: usize, input: herald_ring::Input<'_>) {
        let now = self.now;
        let mut out = Vec::new();
        if let Some(ring) = self.ring_of(node) {
            ring.handle(now, input, &mut out);
            self.carry_out_ring(node, out);
        }
    }

    pub(super) fn wake_ring(&mut self, node: usize) {
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

    pub(super) fn segment_of(&mut self, node: usize) -> Option<&mut Segment> {
        self.hosts[node].process.as_mut()?.segment.as_mut()
    }

    pub(super) fn ring_of(&mut self, node: usize) -> Option<&mut Ring<Quick>> {
        self.segment_of(node)?.ring.as_mut()
    }

    pub(super) fn carry_out_ring(&mut self, node: usize, out: Vec<herald_ring::Effect>) {
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
                herald_ring::Effect::AskWitness => {
                    let nanos = self.now.as_nanos();
                    if let Some(delay) = self.lan.ask_witness(nanos, node) {
                        self.push(delay, Happening::Witness(node));
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

    pub(super) fn note(&mut self, node: usize, effect: herald_ring::Effect) {
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
    pub(super) fn tell_core(&mut self, node: usize, event: RingEvent) {
        let generation = self.hosts[node].generation;
        let input = speaker::Input::RingSaid {
            segment: SEGMENT.into(),
            event,
        };
        let delay = Duration::from_micros(50);
        self.push(delay, Happening::Core(node, generation, Box::new(input)));
    }
}
