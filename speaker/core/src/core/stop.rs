//! The end of a speaker that was asked to end: others take its addresses on, one by one, while it
//! goes on announcing them; what it forwards goes on after it.

use std::sync::Arc;
use std::time::Duration;

use herald_model::{Instant, Tenure};

use super::{Core, Timer};
use crate::input::{Cache, Effect, ObservedSpeaker};
use crate::ring::RingCommand;

/// How long a speaker that was asked to end goes on answering for what nobody has taken over.
const STOPPING: Duration = Duration::from_secs(5);
/// How long the one that should take an address on may take to say that it has: then it is the next
/// one's.
const CONFIRMATION: Duration = Duration::from_millis(500);
/// How long it then stays to see others believe that it gave up.
const LAST_WORDS: Duration = Duration::from_millis(300);

/// That this process was asked to end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopping {
    /// Until then what nobody has taken over is answered for.
    until: Instant,
    /// How many of those who should have taken on what is left did not in time.
    passed_over: u8,
    /// What was left has been given up; the process ends then.
    gave_up: Option<Instant>,
    /// Whether everything of ours is to be removed from the node.
    pub(super) retires: bool,
}

/// Whether people want this process to crash.
#[derive(Clone, Debug, Default)]
pub(super) struct Crash {
    /// What our object said while everything was listed: that was meant for a process before us.
    old: Option<Arc<str>>,
    pub(super) is_asked: bool,
}

impl Core {
    /// Our own object says something.
    pub(super) fn hear_of_ourselves(&mut self, now: Instant, own: &ObservedSpeaker) {
        let cache = Cache::Speakers;
        if self.synced.contains(&cache) && !self.restored.contains(&cache) {
            self.crash.is_asked |= own.crash.is_some() && own.crash != self.crash.old;
        } else {
            self.crash.old.clone_from(&own.crash);
        }
        if own.retire && self.stopping.is_none() {
            self.begin_to_stop(now, true);
        }
    }

    pub(super) fn begin_to_stop(&mut self, now: Instant, retires: bool) {
        let stopping = self.stopping.get_or_insert(Stopping {
            until: now + STOPPING,
            passed_over: 0,
            gave_up: None,
            retires,
        });
        stopping.retires = retires;
        self.timers.insert((now + STOPPING, Timer::Stop));
        self.hand_all_over(now);
    }

    /// Lets everybody know that what is held here is for others to take.
    fn hand_all_over(&mut self, now: Instant) {
        for vip in self.vips.values_mut() {
            for hold in vip.holds.values_mut() {
                hold.told = false;
            }
        }
        self.dirty.all_vips = true;
        self.timers.insert((now + CONFIRMATION, Timer::HandOver));
    }

    /// Those who should have taken on what is left had their time.
    pub(super) fn pass_over(&mut self, now: Instant) {
        if let Some(stopping) = &mut self.stopping
            && stopping.gave_up.is_none()
        {
            stopping.passed_over = stopping.passed_over.saturating_add(1);
            self.hand_all_over(now);
        }
    }

    /// How this node stands to what it holds.
    pub(super) fn tenure(&self) -> Tenure {
        self.stopping
            .map_or(Tenure::Held, |stopping| Tenure::HandingOver {
                passed_over: stopping.passed_over,
            })
    }

    /// Ends the process once nothing is held. When the time is up, gives up what is left: the other
    /// speakers take a life that ended by itself over at once, one that falls silent only later.
    pub(super) fn stop(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let holds_nothing = self.vips.values().all(|vip| vip.holds.is_empty());
        let is_settled = self.is_data_plane_settled();
        let Some(stopping) = &mut self.stopping else {
            return;
        };
        let retires = stopping.retires;
        let is_late = now >= stopping.until;
        match stopping.gave_up {
            // The kernel goes on alone: it is to know who holds them now.
            None if holds_nothing && (is_settled || is_late) => self.stopping_is_over(retires, out),
            None if is_late => {
                let last = now + LAST_WORDS;
                stopping.gave_up = Some(last);
                self.timers.insert((last, Timer::Stop));
                for segment in self.rings.keys() {
                    out.push(Effect::Ring {
                        segment: segment.clone(),
                        command: RingCommand::StepDown,
                    });
                }
            }
            Some(last) if now >= last => self.stopping_is_over(retires, out),
            None | Some(_) => {}
        }
    }

    fn stopping_is_over(&mut self, retires: bool, out: &mut Vec<Effect>) {
        if std::mem::replace(&mut self.exited, true) {
            return;
        }
        for (address, vip) in &self.vips {
            for hold in vip.holds.values().filter(|hold| hold.announced) {
                out.push(Effect::Layer2(herald_l2::Input::Released {
                    interface: hold.interface,
                    address: *address,
                }));
            }
        }
        out.push(Effect::Exit { retires });
    }
}
