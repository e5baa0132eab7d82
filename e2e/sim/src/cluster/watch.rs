//! Who watches the API server, and what is written to it.

use herald_controller_core::testkit::{advertised, advertisement, pool};
use herald_controller_core::{self as controller, Controller, Write, WriteId, WriteResult};
use herald_speaker_core::{self as speaker, WriteOutcome};

use super::api::{CACHES, Change, KINDS};
use super::host::NEVER;
use super::world::{Happening, Leader, World, settings};
use crate::ring::millis;

impl World {
    /// Whether a watcher reaches the API server, which is on side 0.
    pub(super) fn reaches_api(&self, watcher: usize) -> bool {
        self.api_up && self.lan.sides.get(watcher).is_none_or(|side| *side == 0)
    }

    pub(super) fn generation(&self, watcher: usize) -> u64 {
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
    pub(super) fn spread(&mut self) {
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

    pub(super) fn deliver(&mut self, watcher: usize, generation: u64, kind: usize, to: usize) {
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

    pub(super) fn catch_up(&mut self, node: usize, kind: usize, to: usize) {
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

    pub(super) fn list(&mut self, watcher: usize, generation: u64) {
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

    pub(super) fn write(&mut self, node: usize, generation: u64, effect: speaker::Effect) {
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

    /// Another controller leads.
    pub(super) fn lead(&mut self) {
        let generation = self.leader.generation + 1;
        self.leader = Leader {
            controller: Controller::new(settings(self.seed)),
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
        self.controller(generation, controller::Input::LEADS_FOR_GOOD);
    }

    pub(super) fn controller(&mut self, generation: u64, input: controller::Input) {
        if generation == self.leader.generation {
            let mut out = Vec::new();
            self.leader.controller.handle(self.now, input, &mut out);
            self.carry_out_controller(out);
        }
    }

    pub(super) fn wake_controller(&mut self, generation: u64) {
        if generation == self.leader.generation && self.leader.wake <= self.now {
            self.leader.wake = NEVER;
            let mut out = Vec::new();
            self.leader.controller.on_deadline(self.now, &mut out);
            self.carry_out_controller(out);
        }
    }

    pub(super) fn carry_out_controller(&mut self, out: Vec<controller::Effect>) {
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

    pub(super) fn controller_write(&mut self, generation: u64, id: WriteId, write: &Write) {
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
}
