//! Who holds an address, and from when it is announced.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use herald_elect::hold::{Change, Reason, Situation};
use herald_elect::{elected, successor};
use herald_model::{Announce, Candidate, Epoch, Instant, NodeName, Phase, SegmentName, Tenure};

use super::Core;
use super::ring::Probe;
use crate::input::{Effect, EventReason};
use crate::ring::RingCommand;
use crate::uplinks::Uplink;
use crate::vip::{Hold, holders};

/// What elections came to for this node, counted by address and segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elections {
    /// It took an address, as the first of the plan.
    pub planned: u64,
    /// It took an address, though others of the plan, or a plan, come before it.
    pub taken_over: u64,
    /// It keeps an address under a new plan.
    pub renewed: u64,
    /// It let an address go: another holds it by a better right.
    pub succeeded: u64,
    /// The life in which it held an address is over.
    pub life_over: u64,
    /// An address is not to be announced any more.
    pub unwanted: u64,
    /// It can't serve an address.
    pub cannot_serve: u64,
}

impl Elections {
    const fn count(&mut self, change: Change) {
        let counter = match change {
            Change::Take { rank: 0, .. } => &mut self.planned,
            Change::Take { .. } => &mut self.taken_over,
            Change::Renew { .. } => &mut self.renewed,
            Change::LetGo { reason } => match reason {
                Reason::Succeeded => &mut self.succeeded,
                Reason::LifeOver => &mut self.life_over,
                Reason::Unwanted => &mut self.unwanted,
                Reason::CannotServe => &mut self.cannot_serve,
            },
        };
        *counter = counter.saturating_add(1);
    }
}

impl Core {
    /// Decides anew where the addresses that something happened to are held.
    pub(super) fn update_vips(&mut self, now: Instant, out: &mut Vec<Effect>) {
        if std::mem::take(&mut self.dirty.all_vips) {
            self.dirty.vips.extend(self.vips.keys());
        }
        let uplinks = self.open_uplinks();
        let dirty: Vec<IpAddr> = self.dirty.vips.iter().copied().collect();
        let mut lame = std::mem::take(&mut self.dirty.lame);
        for address in dirty {
            self.update_vip(now, address, &uplinks, &mut lame, out);
        }
        for segment in lame {
            out.push(Effect::Ring {
                segment,
                command: RingCommand::StepDown,
            });
        }
    }

    /// Adds segments on which something is held that can't be served to `lame`.
    fn update_vip(
        &mut self,
        now: Instant,
        address: IpAddr,
        uplinks: &BTreeMap<SegmentName, Uplink>,
        lame: &mut BTreeSet<SegmentName>,
        out: &mut Vec<Effect>,
    ) {
        self.follow_strangers(now, address);
        let Some(vip) = self.vips.get(&address) else {
            return;
        };
        let mut segments: BTreeSet<SegmentName> = vip.holds.keys().cloned().collect();
        let planned = vip.observed.vip.segments.iter();
        segments.extend(planned.map(|segment| segment.name.clone()));
        for segment in segments {
            let uplink = uplinks.get(&segment);
            // What is let go with a life may be taken again in the next.
            while let Some(change) = self.change(now, address, &segment, uplink, out) {
                self.elections.count(change);
                match change {
                    Change::Take { epoch, rank } => {
                        if let Some(uplink) = uplink {
                            self.take(now, address, &segment, uplink, (epoch, rank));
                        }
                    }
                    Change::Renew { epoch, rank } => self.renew(address, &segment, epoch, rank),
                    Change::LetGo { reason } => {
                        self.let_go(address, &segment, reason, out);
                        if reason == Reason::CannotServe {
                            lame.insert(segment.clone());
                        }
                    }
                }
            }
            if let Some(uplink) = uplink {
                self.follow_uplink(address, &segment, uplink, out);
            }
        }
        self.ask_for_new(address, uplinks, out);
        self.ask_for_yielded(now, address, uplinks, out);
        let Some(vip) = self.vips.get_mut(&address) else {
            return;
        };
        if vip.holds.is_empty() {
            vip.conflict = None;
        }
        if vip.deleted {
            self.vips.remove(&address);
            self.rights
                .retain(|(vip, _), right| *vip != address || right.hold.other().is_some());
        }
        self.update_desired_vip(address);
    }

    /// What is to change about an address on a segment.
    fn change(
        &mut self,
        now: Instant,
        address: IpAddr,
        segment: &SegmentName,
        uplink: Option<&Uplink>,
        out: &mut Vec<Effect>,
    ) -> Option<Change> {
        let vip = self.vips.get(&address)?;
        let spec = &vip.observed.vip;
        let planned = spec
            .segments
            .iter()
            .find(|planned| planned.name == *segment);
        let candidates = planned.map_or(&[][..], |planned| &planned.candidates);
        let me = Candidate {
            node: self.config.node.clone(),
            incarnation: self.incarnations.get(segment).copied().unwrap_or_default(),
        };
        let ring = self.rings.get(segment);
        let others = ring.map_or_else(Vec::new, |ring| ring.reborn(candidates));
        let is_live = |who: &Candidate| ring.is_some_and(|ring| ring.is_live(who));
        // A plan that names the holder's node in an earlier life is older than the holder: nothing is taken
        // from it because of that.
        let is_plan_old = |holder: &Candidate| {
            is_live(holder)
                && candidates.iter().any(|planned| {
                    planned.node == holder.node && planned.incarnation < holder.incarnation
                })
        };
        let key = (address, segment.clone());
        let hold = self.rights.get(&key).map(|right| &right.hold);
        let holder = hold.and_then(|hold| hold.other());
        let elected = match hold.and_then(|hold| hold.handing_over()) {
            Some((old, passed_over)) => successor(
                address,
                candidates,
                |who| is_live(who) && who != old,
                &others,
                passed_over,
            ),
            None => elected(address, candidates, is_live, &others),
        };
        let may_take = ring.is_some_and(|ring| ring.may_take(now))
            && self.stopping.is_none()
            && !holder.is_some_and(is_plan_old);
        let situation = Situation {
            me: &me,
            epoch: spec.epoch,
            candidates,
            elected,
            wanted: planned.is_some()
                && !vip.deleted
                && spec.phase == Phase::Active
                && spec.announce != Announce::None
                && vip.yielded.get(segment).is_none_or(|left| left.is_free)
                && !holders(spec, &self.services).is_empty(),
            can_serve: uplink.is_some_and(|uplink| uplink.carrier)
                && self.lame.get(segment) != Some(&me.incarnation),
            may_take,
            hands_over: self.stopping.is_some(),
        };
        let right = self.rights.entry(key).or_default();
        // What a snapshot says may be old, and somebody else may have got the address since; but if it was
        // held by a speaker just now, it is ours.
        let is_certain = self.restored.is_empty() || right.fallen.is_some();
        if is_certain || right.probe == Probe::Silent {
            return right.hold.change(&situation);
        }
        let takes = matches!(
            right.hold.clone().change(&situation),
            Some(Change::Take { .. })
        );
        if let (true, Some(uplink)) = (takes, uplink) {
            if right.probe == Probe::NotAsked {
                right.probe = Probe::Asked;
                out.push(Effect::Layer2(herald_l2::Input::Probe {
                    interface: uplink.index,
                    address,
                }));
            }
            return None;
        }
        right.hold.change(&situation)
    }

    fn take(
        &mut self,
        now: Instant,
        address: IpAddr,
        segment: &SegmentName,
        uplink: &Uplink,
        (epoch, rank): (Epoch, u8),
    ) {
        let wall = self.wall(now);
        let predecessor = self.predecessor(address, segment);
        let fallen = self
            .rights
            .get_mut(&(address, segment.clone()))
            .and_then(|right| right.fallen.take())
            .filter(|(node, _)| *node != self.config.node);
        if let Some((_, Some(timeline))) = &fallen {
            self.time_first_packet(address, timeline.last_heartbeat);
        }
        let Some(vip) = self.vips.get_mut(&address) else {
            return;
        };
        let before = vip.observed.status.segments.iter().find(|entry| {
            entry.name == *segment
                && entry.node == self.config.node
                && entry.interface == uplink.name
        });
        let hold = Hold {
            interface: uplink.index,
            interface_name: uplink.name.clone(),
            mac: uplink.mac,
            epoch,
            rank,
            told: false,
            fallen,
            before: predecessor,
            since: before.map_or(wall, |entry| entry.since),
            announced: false,
            generation: None,
            neighbour: None,
        };
        vip.holds.insert(segment.clone(), Box::new(hold));
        vip.yielded.remove(segment);
        self.count_held(uplink.index, address);
    }

    fn renew(&mut self, address: IpAddr, segment: &SegmentName, epoch: Epoch, rank: u8) {
        let vip = self.vips.get_mut(&address);
        if let Some(hold) = vip.and_then(|vip| vip.holds.get_mut(segment)) {
            hold.epoch = epoch;
            hold.rank = rank;
            hold.told = false;
        }
    }

    fn let_go(
        &mut self,
        address: IpAddr,
        segment: &SegmentName,
        reason: Reason,
        out: &mut Vec<Effect>,
    ) {
        let hold = self
            .vips
            .get(&address)
            .and_then(|vip| vip.holds.get(segment));
        // Who succeeds us knows; that a life is over, everybody does.
        if let Some(hold) = hold
            && hold.announced
            && reason == Reason::Unwanted
        {
            out.push(hold_changed(address, segment, hold, Tenure::LetGo));
        }
        self.release_where(address, out, |name, _| name == segment);
    }

    /// Another interface may stand for the segment now, or the same one have another name or MAC address.
    fn follow_uplink(
        &mut self,
        address: IpAddr,
        segment: &SegmentName,
        uplink: &Uplink,
        out: &mut Vec<Effect>,
    ) {
        let vip = self.vips.get_mut(&address);
        let Some(hold) = vip.and_then(|vip| vip.holds.get_mut(segment)) else {
            return;
        };
        hold.mac = uplink.mac;
        hold.interface_name.clone_from(&uplink.name);
        if hold.interface == uplink.index {
            return;
        }
        let moved = Hold {
            interface: uplink.index,
            interface_name: uplink.name.clone(),
            announced: false,
            generation: None,
            neighbour: None,
            ..Hold::clone(hold)
        };
        self.release_where(address, out, |name, _| name == segment);
        if let Some(vip) = self.vips.get_mut(&address) {
            vip.holds.insert(segment.clone(), Box::new(moved));
            self.count_held(uplink.index, address);
        }
    }

    /// Announces what is held and not announced yet, as soon as the data plane is ready for it.
    pub(super) fn announce(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let gate = self.gate();
        let tenure = self.tenure();
        let addresses: BTreeSet<IpAddr> = self.dirty.vips.iter().copied().collect();
        for address in addresses {
            let wants_neighbour = self.wants_neighbour(address);
            let Some(vip) = self.vips.get_mut(&address) else {
                continue;
            };
            let mut joins = Vec::new();
            let mut tell = Vec::new();
            let mut events = Vec::new();
            for (name, hold) in &mut vip.holds {
                let interface = hold.interface;
                let is_ready = gate.is_open(&mut hold.generation);
                // Before the programs know that we hold it, nobody would take what goes by that entry.
                let is_known = hold.announced || is_ready;
                let neighbour = (wants_neighbour && is_known).then_some(hold.mac);
                if hold.neighbour != neighbour {
                    out.push(match neighbour {
                        Some(mac) => Effect::SetNeighbour {
                            interface,
                            address,
                            mac,
                        },
                        None => Effect::RemoveNeighbour { interface, address },
                    });
                    hold.neighbour = neighbour;
                }
                if !hold.announced && is_ready {
                    hold.announced = true;
                    joins.push(interface);
                    let entries = &vip.observed.status.segments;
                    let before = entries.iter().find(|entry| entry.name == *name);
                    let me = &self.config.node;
                    if let Some(takeover) = hold.takeover(now) {
                        out.push(Effect::TookOver(takeover));
                    }
                    events.extend(told(
                        me,
                        address,
                        hold,
                        before.map(|entry| &entry.node),
                        now,
                    ));
                }
                if hold.announced && !std::mem::replace(&mut hold.told, true) {
                    tell.push(hold_changed(address, name, hold, tenure));
                }
            }
            for interface in joins {
                self.join_group(interface, address, out);
                out.push(Effect::Layer2(herald_l2::Input::Held {
                    interface,
                    address,
                }));
            }
            out.append(&mut tell);
            for (reason, note) in events {
                self.emit_events(address, reason, &note, out);
            }
        }
    }
}

fn hold_changed(address: IpAddr, segment: &SegmentName, hold: &Hold, tenure: Tenure) -> Effect {
    Effect::Ring {
        segment: segment.clone(),
        command: RingCommand::HoldChanged {
            vip: address,
            epoch: hold.epoch,
            rank: hold.rank,
            tenure,
        },
    }
}

/// What people are to know of an address that is announced from now on; nothing if it was before.
fn told(
    me: &NodeName,
    address: IpAddr,
    hold: &Hold,
    before: Option<&NodeName>,
    now: Instant,
) -> Option<(EventReason, String)> {
    let announces = format!(
        "{me} announces {address} on {} ({})",
        hold.interface_name, hold.mac
    );
    if let Some((fallen, _)) = &hold.fallen {
        let how = hold.takeover(now).map_or_else(String::new, |takeover| {
            format!(
                ", {} ms after its last sign of life: suspected after {} ms, certified after {} ms",
                takeover.announced.as_millis(),
                takeover.suspected.as_millis(),
                takeover.certified.as_millis(),
            )
        });
        let note = format!("{announces}, taken over from {fallen}{how}");
        return Some((EventReason::Moved, note));
    }
    match before {
        Some(before) if before == me => None,
        Some(before) => Some((
            EventReason::Moved,
            format!("{announces}, {before} did before"),
        )),
        None => Some((EventReason::Announced, announces)),
    }
}
