//! The controller beside an API server that takes every write: what would come of a change.

use std::time::Duration;

use herald_model::{Instant, VirtualIp};

use crate::controller::{Controller, Rebalancing, Settings};
use crate::io::{Effect, Input, Write, WriteResult};
use crate::observed::{Identity, ObservedVip, Version};

/// What is due later than this is not waited for: addresses that rest, and repairs of what others broke.
const PATIENCE: Duration = Duration::from_secs(20);
/// More rounds than any change takes; it ends even if the machine and this API server disagreed.
const ROUNDS: usize = 10_000;

/// A controller that leads, on its own. Nothing that it decides is written anywhere.
///
/// Addresses are not moved to even out loads, as that is not what anybody asks about, and the LAN never
/// answers, so that every address that is asked for is free.
#[derive(Debug)]
pub struct Rehearsal {
    controller: Controller,
    now: Instant,
    counter: u64,
    effects: Vec<Effect>,
}

impl Rehearsal {
    /// Begins with what the API server holds; `unix` is the time, seconds since 1970. What the controller
    /// makes of it is decided when this returns, and nothing of it is written yet.
    pub fn new(unix: i64, inputs: impl IntoIterator<Item = Input>) -> Self {
        let settings = Settings {
            writes_at_once: usize::MAX,
            rebalancing: Rebalancing {
                is_on: false,
                ..Rebalancing::default()
            },
            ..Settings::default()
        };
        let mut controller = Controller::new(settings);
        let now = Instant::ORIGIN;
        let first = [Input::WallClockSet { origin: unix }];
        let last = [Input::Synced, Input::LEADS_FOR_GOOD];
        for input in first.into_iter().chain(inputs).chain(last) {
            controller.note(now, input);
        }
        let mut effects = Vec::new();
        controller.on_deadline(now, &mut effects);
        Self {
            controller,
            now,
            counter: 0,
            effects,
        }
    }

    /// Something changes.
    pub fn tell(&mut self, input: Input) {
        self.controller.handle(self.now, input, &mut self.effects);
    }

    /// Takes every write, and what follows from it, until nothing more is to be written.
    pub fn settle(&mut self) {
        let end = self.now + PATIENCE;
        for _ in 0..ROUNDS {
            let effects = std::mem::take(&mut self.effects);
            if !effects.is_empty() {
                for Effect::Write { id, write } in effects {
                    let result = self.take(*write);
                    let done = Input::WriteDone { id, result };
                    self.controller.note(self.now, done);
                }
            } else if let Some(at) = self.controller.next_deadline().filter(|at| *at <= end) {
                self.now = self.now.max(at);
            } else {
                return;
            }
            self.controller.on_deadline(self.now, &mut self.effects);
        }
    }

    /// The controller with what it has decided.
    pub const fn controller(&self) -> &Controller {
        &self.controller
    }

    /// Its time.
    pub const fn now(&self) -> Instant {
        self.now
    }

    fn take(&mut self, write: Write) -> WriteResult {
        match write {
            Write::CreateVip(vip) => self.stored(None, vip),
            Write::ReplaceVip { identity, vip } => self.stored(Some(identity), vip),
            Write::DeleteVip { .. } => WriteResult::VipGone,
            Write::ApplyServiceStatus {
                key,
                identity,
                status,
            } => {
                let known = self.controller.service(&key);
                let shown = known.map(|service| service.ingress.clone());
                WriteResult::ServiceWritten {
                    ingress: status.ingress.or(shown).unwrap_or_default(),
                    version: self.after(&identity.version),
                }
            }
            Write::ApplyPoolStatus { .. }
            | Write::ApplyAdvertisementReady { .. }
            | Write::RecordEvent(_) => WriteResult::Done,
        }
    }

    fn stored(&mut self, before: Option<Identity>, vip: VirtualIp) -> WriteResult {
        let known = self.controller.vip(vip.address).cloned();
        let known = known.filter(|known| {
            let uid = before.as_ref().map(|before| &before.uid);
            uid == Some(&known.identity.uid)
        });
        let identity = match before {
            Some(before) => Identity {
                version: self.after(&before.version),
                uid: before.uid,
            },
            None => Identity {
                uid: format!("rehearsed-{}", vip.address).into(),
                version: self.after(&Version::default()),
            },
        };
        let (holdings, mut lan) = known
            .map(|known| (known.holdings, known.lan))
            .unwrap_or_default();
        // Nobody waits for the LAN here.
        lan.probed = vip.segments.iter().map(|s| s.name.clone()).collect();
        WriteResult::VipWritten(Box::new(ObservedVip {
            identity,
            vip,
            holdings,
            lan,
            move_to: None,
        }))
    }

    /// A version that comes after another.
    fn after(&mut self, version: &Version) -> Version {
        self.counter += 1;
        let known: u64 = version.as_str().parse().unwrap_or_default();
        Version::new(known.saturating_add(self.counter).to_string())
    }
}

#[cfg(test)]
mod tests;
