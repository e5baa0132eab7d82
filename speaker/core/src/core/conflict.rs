//! Strangers on the LAN that answer for an address in use: it is defended, or left to them, as its
//! pool wants.
//!
//! An address that is left to a stranger is announced by nobody. The one that would hold it asks the LAN
//! for it from time to time, and takes it again when the stranger has been silent for a minute. The
//! others know by the address's status.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use herald_elect::elected;
use herald_model::{
    Announce, ConflictPolicy, IfIndex, Instant, MacAddress, Phase, SegmentName, VipSegment,
};

use super::{CONFLICT, Core, DEFENCE, Timer};
use crate::input::{Effect, EventReason};
use crate::uplinks::Uplink;
use crate::vip::Yielded;

/// How often the LAN is asked for an address that is left to a stranger.
const ASK: Duration = Duration::from_secs(20);

impl Core {
    /// Somebody else claims an address held here. A stranger is a conflict. A peer acts on another plan
    /// than we do, and the ring says by which right; from one that the ring does not reach we can't hear
    /// it, so everything is asked for anew. Who holds the address after that defends it.
    pub(super) fn foreign_claim(
        &mut self,
        now: Instant,
        interface: IfIndex,
        address: IpAddr,
        mac: MacAddress,
    ) {
        let peer = self.speakers.values().find(|speaker| {
            speaker
                .report
                .segments
                .iter()
                .any(|segment| segment.mac == mac)
        });
        let Some(vip) = self.vips.get_mut(&address) else {
            return;
        };
        let mut holds = vip.holds.iter();
        let Some((segment, _)) = holds.find(|(_, hold)| hold.interface == interface) else {
            return;
        };
        if let Some(peer) = peer {
            self.dirty.stale |= !self.rings.values().any(|ring| ring.reaches(&peer.node));
            self.timers.insert((now + DEFENCE, Timer::Defence(address)));
            return;
        }
        let before = match vip.observed.vip.conflict_policy {
            ConflictPolicy::Defend => {
                self.dirty.challenged.insert(address);
                self.timers.insert((now + CONFLICT, Timer::Vip(address)));
                let before = vip.conflict.replace((mac, now));
                before.map(|(before, _heard)| before)
            }
            ConflictPolicy::Yield => {
                self.timers.insert((now + ASK, Timer::Vip(address)));
                let yielded = Yielded::to(mac, now);
                let before = vip.yielded.insert(segment.clone(), yielded);
                before.and_then(|before| before.stranger)
            }
        };
        if before != Some(mac) {
            vip.conflict_to_tell = Some(mac);
            self.conflicts = self.conflicts.saturating_add(1);
        }
        self.dirty.vips.insert(address);
    }

    pub(super) fn defend(&mut self, out: &mut Vec<Effect>) {
        for address in std::mem::take(&mut self.dirty.challenged) {
            let holds = self
                .vips
                .get(&address)
                .into_iter()
                .flat_map(|vip| vip.holds.values());
            for hold in holds.filter(|hold| hold.announced) {
                out.push(Effect::Layer2(herald_l2::Input::Challenged {
                    interface: hold.interface,
                    address,
                }));
            }
        }
    }

    /// Finds out on which segments an address is left to a stranger.
    pub(super) fn follow_strangers(&mut self, now: Instant, address: IpAddr) {
        let Some(vip) = self.vips.get(&address) else {
            return;
        };
        let (spec, status) = (&vip.observed.vip, &vip.observed.status);
        let yields = spec.conflict_policy == ConflictPolicy::Yield
            && spec.phase == Phase::Active
            && spec.announce != Announce::None
            && !vip.deleted;
        let mut yielded = BTreeMap::new();
        let concerns = |planned: &&VipSegment| {
            yields
                && (vip.yielded.contains_key(&planned.name)
                    || status.yielded.contains(&planned.name))
        };
        for planned in spec.segments.iter().filter(concerns) {
            let name = &planned.name;
            let right = self.rights.get(&(address, name.clone()));
            let seen = Seen {
                is_listed: status.yielded.contains(name),
                is_held: vip.holds.contains_key(name),
                of_another: right.is_some_and(|right| right.hold.other().is_some()),
            };
            let left = seen.follow(now, vip.yielded.get(name).copied());
            let was_ours = |left: &Yielded| left.stranger.is_some_and(|mac| self.is_peer(mac));
            if let Some(left) = left.filter(|left| !was_ours(left)) {
                yielded.insert(name.clone(), left);
            }
        }
        if let Some(vip) = self.vips.get_mut(&address) {
            vip.yielded = yielded;
        }
    }

    /// Asks the LAN whether strangers are still there, where that is for us to do.
    pub(super) fn ask_for_yielded(
        &mut self,
        now: Instant,
        address: IpAddr,
        uplinks: &BTreeMap<SegmentName, Uplink>,
        out: &mut Vec<Effect>,
    ) {
        let Some(vip) = self.vips.get(&address) else {
            return;
        };
        let mut yielded = vip.yielded.clone();
        for (name, left) in &mut yielded {
            let planned = vip.observed.vip.segments.iter();
            let uplink = uplinks.get(name).filter(|uplink| uplink.carrier);
            let is_ours = planned
                .filter(|planned| planned.name == *name)
                .any(|planned| self.is_elected(address, planned));
            let Some(uplink) = uplink.filter(|_| is_ours) else {
                left.is_for_others();
                continue;
            };
            if left.is_to_be_asked(now) {
                self.timers.insert((now + ASK, Timer::Vip(address)));
                out.push(Effect::Layer2(herald_l2::Input::Probe {
                    interface: uplink.index,
                    address,
                }));
            }
        }
        if let Some(vip) = self.vips.get_mut(&address) {
            vip.yielded = yielded;
        }
    }

    /// Whether this node would hold an address if there were no stranger.
    fn is_elected(&self, address: IpAddr, planned: &VipSegment) -> bool {
        let (Some(ring), Some(incarnation)) = (
            self.rings.get(&planned.name),
            self.incarnations.get(&planned.name),
        ) else {
            return false;
        };
        let candidates = &planned.candidates;
        let others = ring.reborn(candidates);
        let first = elected(address, candidates, |who| ring.is_live(who), &others);
        first.is_some_and(|first| {
            first.node == self.config.node && first.incarnation == *incarnation
        })
    }

    /// The LAN has answered for an address that may be left to a stranger on a segment.
    pub(super) fn stranger_answered(
        &mut self,
        now: Instant,
        address: IpAddr,
        segment: &SegmentName,
        stranger: Option<MacAddress>,
    ) {
        let Some(vip) = self.vips.get_mut(&address) else {
            return;
        };
        let Some(yielded) = vip.yielded.get_mut(segment) else {
            return;
        };
        match stranger {
            Some(mac) => {
                let before = yielded.stranger.replace(mac);
                yielded.heard = now;
                yielded.is_free = false;
                if before.is_some_and(|before| before != mac) {
                    vip.conflict_to_tell = Some(mac);
                    self.conflicts = self.conflicts.saturating_add(1);
                }
            }
            None => yielded.is_free |= now.saturating_since(yielded.heard) >= CONFLICT,
        }
    }

    pub(super) fn tell_conflicts(&mut self, out: &mut Vec<Effect>) {
        let told: Vec<(IpAddr, MacAddress)> = self
            .dirty
            .vips
            .iter()
            .filter_map(|address| {
                let vip = self.vips.get_mut(address)?;
                Some((*address, vip.conflict_to_tell.take()?))
            })
            .collect();
        for (address, mac) in told {
            let vip = self.vips.get(&address);
            let policy = vip.map(|vip| vip.observed.vip.conflict_policy);
            let left = match policy {
                Some(ConflictPolicy::Yield) => {
                    ". As its pool wants, nobody announces it until that machine has been silent for a minute"
                }
                Some(ConflictPolicy::Defend) | None => "",
            };
            let note = format!(
                "{mac} answers for {address} too, and belongs to no node of the cluster: find the \
                 machine that uses the address, or take it out of the pool{left}"
            );
            self.emit_events(address, EventReason::AddressConflict, &note, out);
        }
    }

    /// Whether a MAC address belongs to a node of the cluster.
    pub(super) fn is_peer(&self, mac: MacAddress) -> bool {
        self.speakers
            .values()
            .flat_map(|speaker| &speaker.report.segments)
            .any(|segment| segment.mac == mac)
    }

    /// The strangers that are known to answer for addresses.
    pub(super) fn strangers(&self) -> Vec<(IpAddr, MacAddress)> {
        let of = |(address, vip): (&IpAddr, &crate::vip::Vip)| {
            let left = vip.yielded.values().filter_map(|left| left.stranger);
            let conflict = vip.conflict.map(|(mac, _heard)| mac);
            Some((*address, conflict.or_else(|| left.min())?))
        };
        self.vips.iter().filter_map(of).collect()
    }
}

/// How an address stands on a segment.
struct Seen {
    /// The status says that it is left to a stranger.
    is_listed: bool,
    is_held: bool,
    /// Another is known to hold it.
    of_another: bool,
}

impl Seen {
    /// What is known of the stranger from now on; `None`: the address is left to none.
    fn follow(&self, now: Instant, known: Option<Yielded>) -> Option<Yielded> {
        match known {
            // Until it is let go.
            Some(known) if self.is_held => Some(known),
            // Whoever holds it hears the stranger, too.
            _any if self.is_held || self.of_another => None,
            Some(known) if !self.is_listed && (known.is_said || known.is_free) => None,
            Some(known) => Some(Yielded {
                is_said: known.is_said || self.is_listed,
                ..known
            }),
            None => self.is_listed.then(|| Yielded::as_said(now)),
        }
    }
}

impl Yielded {
    /// A stranger was heard.
    fn to(stranger: MacAddress, now: Instant) -> Self {
        Self {
            stranger: Some(stranger),
            heard: now,
            asked: None,
            is_said: false,
            is_free: false,
        }
    }

    /// The status says so.
    fn as_said(now: Instant) -> Self {
        Self {
            stranger: None,
            heard: now,
            asked: None,
            is_said: true,
            is_free: false,
        }
    }

    /// It is for us to ask; whether it is time to.
    fn is_to_be_asked(&mut self, now: Instant) -> bool {
        let Some(before) = self.asked else {
            // What was heard before we listened is not known.
            self.heard = now;
            self.asked = Some(now);
            return true;
        };
        let is_due = now.saturating_since(before) >= ASK;
        if is_due {
            self.asked = Some(now);
        }
        is_due
    }

    /// Another asks, or nobody can.
    fn is_for_others(&mut self) {
        self.asked = None;
        self.is_free = false;
        if self.is_said {
            self.stranger = None;
        }
    }
}
