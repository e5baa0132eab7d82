//! The loop around the core.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use herald_model::{IfIndex, Incarnation, MacAddress, SegmentName};
use herald_speaker_core::{Core, Effect, Input, Overview, RingEvent};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;
use tracing::{debug, info, warn};

use crate::clock::Clock;
use crate::forward;
use crate::io::groups::Groups;
use crate::io::layer2;
use crate::io::netlink::Neighbours;
use crate::metrics::Takeovers;
use crate::write::Writer;

/// Inputs taken in before a decision, so that a flood of them delays it no further.
const BATCH: usize = 4_096;

/// The core and everything that carries its effects out.
pub(crate) struct Driver {
    pub(crate) core: Core,
    pub(crate) clock: Clock,
    pub(crate) inputs: UnboundedReceiver<Input>,
    pub(crate) layer2: Arc<layer2::Handle>,
    pub(crate) data_plane: forward::Handle,
    pub(crate) groups: Groups,
    pub(crate) neighbours: UnboundedSender<NeighbourChange>,
    pub(crate) writer: Writer,
    pub(crate) refresh: watch::Sender<u64>,
    pub(crate) overview: Arc<ArcSwap<Overview>>,
    pub(crate) takeovers: Takeovers,
    /// Our lives that the core has just heard of.
    pub(crate) lives: BTreeMap<SegmentName, Incarnation>,
}

impl Driver {
    /// Runs until the core says that it is over.
    pub(crate) async fn run(mut self) {
        let mut out = Vec::new();
        loop {
            let deadline = self.core.next_deadline();
            let wait = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep(self.clock.until(deadline)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                input = self.inputs.recv() => match input {
                    Some(input) => self.take(input),
                    None => return,
                },
                () = wait => {}
            }
            for _ in 1..BATCH {
                match self.inputs.try_recv() {
                    Ok(input) => self.take(input),
                    Err(_empty) => break,
                }
            }
            let now = self.clock.now();
            self.core.on_deadline(now, &mut out);
            // Before the effects: they are about these lives, what was said before is not.
            while let Some((segment, life)) = self.lives.pop_first() {
                self.layer2.life_seen(segment, life);
            }
            let mut is_over = false;
            for effect in out.drain(..) {
                match &effect {
                    Effect::Exit => is_over = true,
                    Effect::Refresh => self.refresh.send_modify(|times| *times += 1),
                    _other => {}
                }
                carry_out(
                    effect,
                    &self.layer2,
                    &self.data_plane,
                    &mut self.groups,
                    &self.neighbours,
                    &self.writer,
                    &self.takeovers,
                );
            }
            let overview = self.core.overview();
            let before = self.overview.load_full();
            if *before != overview {
                log_readiness(&before, &overview);
                self.overview.store(Arc::new(overview));
            }
            if is_over {
                return;
            }
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
        self.core.handle(self.clock.now(), input);
    }
}

/// People want to know when it changes; what it waits for while it starts is of less interest.
fn log_readiness(before: &Overview, now: &Overview) {
    if before.waiting_for == now.waiting_for {
        return;
    }
    let waiting_for = now.waiting_for.join(", ");
    if now.waiting_for.is_empty() {
        info!("ready");
    } else if before.waiting_for.is_empty() {
        info!(waiting_for, "no longer ready");
    } else {
        debug!(waiting_for, "not ready");
    }
}

fn carry_out(
    effect: Effect,
    layer2: &layer2::Handle,
    data_plane: &forward::Handle,
    groups: &mut Groups,
    neighbours: &UnboundedSender<NeighbourChange>,
    writer: &Writer,
    takeovers: &Takeovers,
) {
    match effect {
        Effect::Layer2(input) => {
            match input {
                herald_l2::Input::Held { interface, address } => {
                    info!(vip = %address, iface = %interface, "announcing");
                }
                herald_l2::Input::Released { interface, address } => {
                    info!(vip = %address, iface = %interface, "no longer announcing");
                }
                _about_ports => debug!(?input, "layer 2"),
            }
            layer2.tell(input);
        }
        Effect::Ring { segment, command } => {
            debug!(%segment, ?command, "ring");
            layer2.ring(segment, command);
        }
        Effect::SetRingKeys(keys) => {
            info!(ids = ?keys.ids(), "keys of the rings");
            layer2.set_ring_keys(keys);
        }
        Effect::TookOver(takeover) => takeovers.observe(&takeover),
        Effect::JoinGroup { interface, group } => {
            if let Err(error) = groups.join(interface, group) {
                warn!(%interface, %group, %error, "cannot join a group: solicitations may not arrive");
            }
        }
        Effect::LeaveGroup { interface, group } => {
            if let Err(error) = groups.leave(interface, group) {
                warn!(%interface, %group, %error, "cannot leave a group");
            }
        }
        Effect::SetNeighbour {
            interface,
            address,
            mac,
        } => change_neighbour(neighbours, (interface, address, Some(mac))),
        Effect::RemoveNeighbour { interface, address } => {
            change_neighbour(neighbours, (interface, address, None));
        }
        Effect::ApplyDataPlane {
            generation,
            desired,
            names,
        } => data_plane.apply(generation, desired, names),
        Effect::WriteSpeaker { create, report } => writer.speaker(create, report),
        Effect::WriteVipStatus {
            address,
            resource_version,
            status,
        } => writer.vip_status(address, resource_version, status),
        Effect::EmitEvent {
            service,
            address,
            reason,
            note,
        } => {
            info!(service = %service.key, vip = %address, ?reason, "{note}");
            writer.event(&service, address, reason, note);
        }
        Effect::Refresh | Effect::Exit => {}
    }
}

/// A neighbour entry to have (with its MAC address) or not to have.
pub(crate) type NeighbourChange = (IfIndex, IpAddr, Option<MacAddress>);

fn change_neighbour(neighbours: &UnboundedSender<NeighbourChange>, change: NeighbourChange) {
    if neighbours.send(change).is_err() {
        warn!("the task that writes neighbour entries is gone");
    }
}

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
            let (interface, address, mac) = tokio::select! {
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
            match mac {
                Some(mac) => drop(entries.insert((interface, address), mac)),
                None => drop(entries.remove(&(interface, address))),
            }
            let outcome = match mac {
                Some(mac) => netlink.set(interface, address, mac).await,
                None => netlink.remove(interface, address).await,
            };
            let Err(error) = outcome else {
                debug!(%interface, %address, ?mac, "changed a neighbour entry");
                continue;
            };
            warn!(
                %interface, %address, ?mac,
                error = &error as &dyn Error,
                "cannot change a neighbour entry"
            );
            entries.remove(&(interface, address));
            let failed = Input::NeighbourFailed { interface, address };
            if mac.is_some() && inputs.send(failed).is_err() {
                return;
            }
        }
    });
    (sender, task)
}
