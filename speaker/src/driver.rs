//! The loop around the core.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use herald_model::{CRASH, IfIndex, Incarnation, InterfaceName, MacAddress, SegmentName};
use herald_speaker_core::{Effect, EventReason, Input, RingEvent, SpeakerReport};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tracing::{debug, error, info, warn};

use crate::deciding::Parts;
use crate::forward;
use crate::io::groups::Groups;
use crate::io::layer2::Wish;
use crate::io::netlink::Neighbours;

/// Inputs taken in before a decision, so that a flood of them delays it no further.
const BATCH: usize = 4_096;
/// The exit code of a crash that people asked for: `EX_SOFTWARE` of sysexits.h.
const CRASHED: i32 = 70;

/// The core and everything that carries its effects out.
pub(crate) struct Driver {
    parts: Parts,
    groups: Groups,
    neighbours: UnboundedSender<NeighbourChange>,
    /// Our lives that the core has just heard of.
    lives: BTreeMap<SegmentName, Incarnation>,
    /// What was said last of the interface that announces for longest.
    pace: Option<(InterfaceName, u64)>,
}

impl Driver {
    pub(crate) fn new(parts: Parts, neighbours: UnboundedSender<NeighbourChange>) -> Self {
        Self {
            parts,
            groups: Groups::default(),
            neighbours,
            lives: BTreeMap::new(),
            pace: None,
        }
    }

    fn change_neighbour(&self, interface: IfIndex, address: IpAddr, neighbour: Neighbour) {
        if self
            .neighbours
            .send((interface, address, neighbour))
            .is_err()
        {
            warn!("the task that writes neighbour entries is gone");
        }
    }

    /// Runs until the core says that it is over. What our object is to say after everything of ours was
    /// removed from the node; `None`: nothing is to be removed.
    pub(crate) async fn run(mut self) -> Option<SpeakerReport> {
        let mut out = Vec::new();
        loop {
            let deadline = self.parts.core.next_deadline();
            let wait = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep(self.parts.clock.until(deadline)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                input = self.parts.inputs.recv() => match input {
                    Some(input) => self.take(input),
                    None => return None,
                },
                Some(answer) = self.parts.asked.recv() => {
                    // Who asked may have gone.
                    drop(answer.send(self.parts.core.overview()));
                    continue;
                }
                () = wait => {}
            }
            for _ in 1..BATCH {
                match self.parts.inputs.try_recv() {
                    Ok(input) => self.take(input),
                    Err(_empty) => break,
                }
            }
            let now = self.parts.clock.now();
            self.parts.core.on_deadline(now, &mut out);
            if out.contains(&Effect::Crash) {
                error!("crashing, as the annotation {CRASH} of our Speaker asks");
                std::process::exit(CRASHED);
            }
            let exit = out.iter().find_map(|effect| match effect {
                Effect::Exit { retires } => Some(*retires),
                _other => None,
            });
            self.carry_out(&mut out);
            self.tell_readiness();
            self.tell_pace();
            if let Some(retires) = exit {
                // There are none yet.
                drop(self.parts.last_words.set(self.parts.core.overview()));
                return retires.then(|| self.parts.core.retired(now));
            }
        }
    }

    fn tell_readiness(&self) {
        let now = self.parts.core.waiting_for();
        let before = self.parts.waiting_for.load();
        if **before == now {
            return;
        }
        let waiting_for = now.join(", ");
        if now.is_empty() {
            info!("ready");
        } else if before.is_empty() {
            info!(waiting_for, "no longer ready");
        } else {
            debug!(waiting_for, "not ready");
        }
        self.parts.waiting_for.store(Arc::new(now));
    }

    /// A failure that moves the addresses here or away lasts as long.
    fn tell_pace(&mut self) {
        let now = self.parts.core.slowest_announcement();
        if now == self.pace {
            return;
        }
        match &now {
            None => info!("all addresses can be announced at once again"),
            Some((interface, seconds)) => info!(
                %interface, seconds,
                "more addresses than --announce-burst allows at once: this long until the last is announced"
            ),
        }
        self.pace = now;
    }

    fn carry_out(&mut self, out: &mut Vec<Effect>) {
        let Sorted {
            work,
            wishes,
            words,
        } = Sorted::of(out.drain(..));
        // Before the wishes: they are about these lives, what was said before is not.
        let lives = std::mem::take(&mut self.lives).into_iter();
        let lives = lives.map(|(segment, life)| Wish::LifeSeen(segment, life));
        let wishes = lives.chain(wishes).collect();
        for effect in work {
            self.work(effect);
        }
        self.parts.layer2.wish(wishes);
        for effect in words {
            self.say(effect);
        }
    }

    fn work(&mut self, effect: Effect) {
        match effect {
            Effect::JoinGroup { interface, group } => {
                if let Err(error) = self.groups.join(interface, group) {
                    warn!(%interface, %group, %error, "cannot join a group: solicitations may not arrive");
                }
            }
            Effect::LeaveGroup { interface, group } => {
                if let Err(error) = self.groups.leave(interface, group) {
                    warn!(%interface, %group, %error, "cannot leave a group");
                }
            }
            Effect::SetNeighbour {
                interface,
                address,
                mac,
            } => self.change_neighbour(interface, address, Neighbour::Ours(mac)),
            Effect::LeaveNeighbour {
                interface,
                address,
                mac,
            } => self.change_neighbour(interface, address, Neighbour::Theirs(mac)),
            Effect::RemoveNeighbour { interface, address } => {
                self.change_neighbour(interface, address, Neighbour::Nobodys);
            }
            Effect::ApplyDataPlane {
                generation,
                desired,
                names,
                taken_over,
            } => {
                let wish = forward::Wish { desired, names };
                self.parts.data_plane.apply(generation, wish, taken_over);
            }
            Effect::Refresh => self.parts.refresh.send_modify(|times| *times += 1),
            _a_wish_or_a_word => {}
        }
    }

    fn say(&self, effect: Effect) {
        match effect {
            Effect::Layer2(herald_l2::Input::Held { interface, address }) => {
                info!(vip = %address, iface = %interface, "announcing");
            }
            Effect::Layer2(herald_l2::Input::Released { interface, address }) => {
                info!(vip = %address, iface = %interface, "no longer announcing");
            }
            Effect::Layer2(input) => debug!(?input, "layer 2"),
            Effect::Ring { segment, command } => debug!(%segment, ?command, "ring"),
            Effect::SetRingKeys(keys) => info!(ids = ?keys.ids(), "keys of the rings"),
            Effect::TookOver(takeover) => self.parts.takeovers.observe(&takeover),
            Effect::WriteSpeaker { create, report } => self.parts.writer.speaker(create, report),
            Effect::WriteVipStatus {
                address,
                resource_version,
                status,
            } => self
                .parts
                .writer
                .vip_status(address, resource_version, status),
            Effect::EmitEvent {
                service,
                address,
                reason,
                note,
            } => {
                if reason == EventReason::Unverified {
                    warn!(service = %service.key, vip = %address, ?reason, "{note}");
                } else {
                    info!(service = %service.key, vip = %address, ?reason, "{note}");
                }
                self.parts.writer.event(&service, address, reason, note);
            }
            _work => {}
        }
    }

    fn take(&mut self, input: Input) {
        if let Input::RingSaid {
            segment,
            event: RingEvent::View(view),
        } = &input
        {
            self.lives.insert(segment.clone(), view.incarnation);
        }
        self.parts.core.handle(self.parts.clock.now(), input);
    }
}

/// People want to know when it changes; what it waits for while it starts is of less interest.
/// The effects of one decision in the order in which they are carried out, each kind in the core's.
#[derive(Debug, Default, PartialEq)]
struct Sorted {
    /// What the kernel is to do; none of it waits.
    work: Vec<Effect>,
    /// What the thread of layer 2 is to do.
    wishes: Vec<Wish>,
    /// What is only said, in the log as well. A log that is read slowly is waited for, and clients wait for
    /// what is done.
    words: Vec<Effect>,
}

impl Sorted {
    fn of(effects: impl Iterator<Item = Effect>) -> Self {
        let mut sorted = Self::default();
        for effect in effects {
            let wish = match &effect {
                Effect::Layer2(input) => Some(Wish::Layer2(*input)),
                Effect::Ring { segment, command } => {
                    Some(Wish::Ring(segment.clone(), command.clone()))
                }
                Effect::SetRingKeys(keys) => Some(Wish::RingKeys(*keys)),
                _other => None,
            };
            let is_word = wish.is_some()
                || matches!(
                    effect,
                    Effect::TookOver(_)
                        | Effect::EmitEvent { .. }
                        | Effect::WriteSpeaker { .. }
                        | Effect::WriteVipStatus { .. }
                );
            sorted.wishes.extend(wish);
            let group = if is_word {
                &mut sorted.words
            } else {
                &mut sorted.work
            };
            group.push(effect);
        }
        sorted
    }
}

/// Whose a neighbour entry is to be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Neighbour {
    /// Ours: kept and confirmed.
    Ours(MacAddress),
    /// Another node's: the kernel's to change or to forget.
    Theirs(MacAddress),
    /// There is to be none.
    Nobodys,
}

pub(crate) type NeighbourChange = (IfIndex, IpAddr, Neighbour);

/// How often neighbour entries are confirmed; see [`Neighbours::set`].
const CONFIRM: Duration = Duration::from_secs(5);

/// Starts the task that writes neighbour entries, in the order it is told, and confirms those there
/// are to be. It ends when everything is written after the channel was closed.
pub(crate) fn write_neighbours(
    netlink: Neighbours,
    inputs: UnboundedSender<Input>,
) -> (UnboundedSender<NeighbourChange>, JoinHandle<()>) {
    let (sender, mut changes) = unbounded_channel::<NeighbourChange>();
    let task = tokio::spawn(async move {
        let mut entries = BTreeMap::new();
        let mut confirm = tokio::time::interval(CONFIRM);
        confirm.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let (interface, address, neighbour) = tokio::select! {
                biased;
                change = changes.recv() => match change {
                    Some(change) => change,
                    None => return,
                },
                _ = confirm.tick() => {
                    for (&(interface, address), &mac) in &entries {
                        if let Err(error) = netlink.set(interface, address, mac).await {
                            let error = &error as &dyn Error;
                            warn!(%interface, %address, error, "cannot confirm a neighbour entry");
                        }
                    }
                    continue;
                }
            };
            let key = (interface, address);
            let outcome = match neighbour {
                Neighbour::Ours(mac) => {
                    entries.insert(key, mac);
                    netlink.set(interface, address, mac).await
                }
                Neighbour::Theirs(mac) => {
                    entries.remove(&key);
                    netlink.leave(interface, address, mac).await
                }
                Neighbour::Nobodys => {
                    entries.remove(&key);
                    netlink.remove(interface, address).await
                }
            };
            let Err(error) = outcome else {
                debug!(%interface, %address, ?neighbour, "changed a neighbour entry");
                continue;
            };
            warn!(
                %interface, %address, ?neighbour,
                error = &error as &dyn Error,
                "cannot change a neighbour entry"
            );
            let failed = Input::NeighbourFailed { interface, address };
            if entries.remove(&key).is_some() && inputs.send(failed).is_err() {
                return;
            }
        }
    });
    (sender, task)
}

#[cfg(test)]
mod tests;
