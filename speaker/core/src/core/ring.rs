//! The observer rings: who is to be in them, and what follows from what they say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use herald_elect::hold::{self, Claim};
use herald_model::{
    Candidate, IfIndex, Incarnation, Instant, MacAddress, NodeName, SegmentName, Tenure,
};
use herald_ring::{KeyId, Keys, Member, Scope, Timeline};
use ipnet::IpNet;

use super::{Core, Timer};
use crate::input::{Cache, Effect, ObservedSpeaker};
use crate::ring::{Peer, RingCommand, RingEvent, RingKeys, View};
use crate::uplinks::Uplink;

/// The ring on one segment.
#[derive(Debug)]
pub(super) struct RingState {
    told: Told,
    /// `None`: it has not said anything yet.
    pub(super) view: Option<View>,
    /// From then on something may be taken: when there first was quorum, those reached had not all said
    /// yet what they hold, and that our life is over.
    pub(super) settled_at: Option<Instant>,
    /// Why it does not run.
    pub(super) failed: Option<Arc<str>>,
    /// The lives that were certified over, by node.
    deaths: BTreeMap<NodeName, (Incarnation, Timeline)>,
}

/// What a ring was told.
#[derive(Debug, PartialEq, Eq)]
struct Told {
    interface: IfIndex,
    address: IpAddr,
    mac: MacAddress,
    carrier: bool,
    peers: Vec<Peer>,
}

/// Who has a right to an address on a segment, ourselves or others.
#[derive(Debug, Default)]
pub(super) struct Right {
    pub(super) hold: hold::Hold,
    /// Who held it until its life was over, and when that was noticed.
    pub(super) fallen: Option<(NodeName, Option<Timeline>)>,
    /// Whether the LAN was asked if anybody uses it.
    pub(super) probe: Probe,
}

/// How far the LAN was asked whether anybody uses an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Probe {
    #[default]
    NotAsked,
    Asked,
    /// Somebody does; it is asked again later.
    InUse,
    /// Nobody does.
    Silent,
}

/// How long a ring that has just begun listens before anything is taken.
const SETTLING: Duration = Duration::from_millis(300);

impl RingState {
    /// Whether what nobody is known to hold may be taken.
    pub(super) fn may_take(&self, now: Instant) -> bool {
        self.settled_at.is_some_and(|at| now >= at)
            && self.view.as_ref().is_some_and(|view| view.quorum)
    }

    /// Whether somebody else is up.
    pub(super) fn reaches_others(&self) -> bool {
        self.view.as_ref().is_some_and(|view| view.live.len() > 1)
    }

    /// Whether a node is up, as far as the ring knows.
    pub(super) fn reaches(&self, node: &NodeName) -> bool {
        self.view
            .as_ref()
            .is_some_and(|view| view.live.contains_key(node))
    }

    /// Whether a node is dead and its kernel silent, as far as the ring knows.
    pub(super) fn has_lost(&self, node: &NodeName) -> bool {
        let death = self.view.as_ref().and_then(|view| view.dead.get(node));
        death.is_some_and(|(_, scope)| *scope == Scope::Node)
    }

    /// Whether this is the present life of a node that is up.
    pub(super) fn is_live(&self, who: &Candidate) -> bool {
        self.view
            .as_ref()
            .is_some_and(|view| view.live.get(&who.node) == Some(&who.incarnation))
    }

    /// The candidates' nodes in their present lives.
    pub(super) fn reborn(&self, candidates: &[Candidate]) -> Vec<Candidate> {
        let view = self.view.as_ref();
        candidates
            .iter()
            .filter_map(|candidate| {
                Some(Candidate {
                    node: candidate.node.clone(),
                    incarnation: *view?.live.get(&candidate.node)?,
                })
            })
            .collect()
    }
}

impl Core {
    /// Tells the rings who is in them, and with which keys.
    pub(super) fn update_rings(&mut self, out: &mut Vec<Effect>) {
        if !self.synced.contains(&Cache::Speakers) || !self.synced.contains(&Cache::Links) {
            return;
        }
        self.update_keys(out);
        if !self.takes_part() {
            return;
        }
        let gone: Vec<SegmentName> = self
            .rings
            .keys()
            .filter(|name| !self.uplinks.contains_key(*name))
            .cloned()
            .collect();
        for segment in gone {
            self.rings.remove(&segment);
            self.dirty.all_vips = true;
            out.push(Effect::Ring {
                segment,
                command: RingCommand::Stop,
            });
        }
        let uplinks = self.uplinks.clone();
        for (segment, uplink) in &uplinks {
            self.update_ring(segment, uplink, out);
        }
    }

    fn update_ring(&mut self, segment: &SegmentName, uplink: &Uplink, out: &mut Vec<Effect>) {
        let (Some(address), Some(incarnation)) = (
            own_address(&uplink.addresses),
            self.incarnations.get(segment).copied(),
        ) else {
            return;
        };
        let wanted = Told {
            interface: uplink.index,
            address,
            mac: uplink.mac,
            carrier: uplink.carrier,
            peers: self.peers(segment),
        };
        let mut say = |command| {
            out.push(Effect::Ring {
                segment: segment.clone(),
                command,
            });
        };
        let state = self.rings.get_mut(segment).filter(|state| {
            let told = &state.told;
            (told.interface, told.address, told.mac)
                == (wanted.interface, wanted.address, wanted.mac)
        });
        let Some(state) = state else {
            say(RingCommand::Start {
                interface: wanted.interface,
                me: Member {
                    node: self.config.node.clone(),
                    address,
                    incarnation,
                },
                mac: wanted.mac,
                peers: wanted.peers.clone(),
            });
            if !wanted.carrier {
                say(RingCommand::CarrierChanged(false));
            }
            let state = RingState {
                told: wanted,
                view: None,
                settled_at: None,
                failed: None,
                deaths: BTreeMap::new(),
            };
            self.rings.insert(segment.clone(), state);
            // The new ring does not know what we hold.
            for vip in self.vips.values_mut() {
                if let Some(hold) = vip.holds.get_mut(segment) {
                    hold.told = false;
                }
            }
            self.dirty.all_vips = true;
            return;
        };
        if state.told.peers != wanted.peers {
            say(RingCommand::PeersChanged(wanted.peers.clone()));
        }
        if state.told.carrier != wanted.carrier {
            say(RingCommand::CarrierChanged(wanted.carrier));
        }
        state.told = wanted;
    }

    /// Whether this node can serve. The others take one that has booted anew for dead until it is in their
    /// rings, and send it traffic as soon as it is: not before kube-proxy and our programs can take it.
    fn takes_part(&mut self) -> bool {
        if !self.takes_part {
            let own = self.speakers.get(&self.config.node);
            let is_same_boot = own.is_some_and(|own| own.report.boot_id == self.config.boot_id);
            self.takes_part = !self.config.awaits_rules
                || is_same_boot
                || self.rules_written && self.is_data_plane_ready();
        }
        self.takes_part
    }

    /// The other speakers on a segment.
    fn peers(&self, segment: &SegmentName) -> Vec<Peer> {
        let peer = |speaker: &ObservedSpeaker| {
            let theirs = speaker
                .report
                .segments
                .iter()
                .find(|theirs| theirs.name == *segment)?;
            Some(Peer {
                member: Member {
                    node: speaker.node.clone(),
                    address: own_address(&theirs.prefixes)?,
                    incarnation: theirs.incarnation,
                },
                mac: theirs.mac,
            })
        };
        self.speakers
            .values()
            .filter(|speaker| speaker.node != self.config.node)
            .filter_map(peer)
            .collect()
    }

    /// A key that is new is accepted at once, and sent when everybody we reach accepts it.
    fn update_keys(&mut self, out: &mut Vec<Effect>) {
        let views: Vec<&View> = self
            .rings
            .values()
            .filter_map(|ring| ring.view.as_ref())
            .collect();
        let others: Vec<&[KeyId]> = self
            .speakers
            .values()
            .filter(|speaker| speaker.node != self.config.node)
            .filter(|speaker| {
                views
                    .iter()
                    .any(|view| view.live.contains_key(&speaker.node))
            })
            .map(|speaker| speaker.report.key_ids.as_slice())
            .collect();
        let keys = RingKeys(Keys::choose(&self.secret_keys, others));
        if keys != self.ring_keys {
            self.ring_keys = keys;
            out.push(Effect::SetRingKeys(keys));
        }
    }

    pub(super) fn ring_said(&mut self, now: Instant, segment: &SegmentName, event: RingEvent) {
        let Some(ring) = self.rings.get_mut(segment) else {
            return;
        };
        match event {
            RingEvent::Failed { reason } => ring.failed = Some(reason),
            RingEvent::Down {
                node,
                incarnation,
                timeline,
                ..
            } => {
                ring.deaths.insert(node, (incarnation, timeline));
            }
            RingEvent::Hold(heard) => {
                let right = self.rights.entry((heard.vip, segment.clone())).or_default();
                let before = right.hold.other().map(|other| other.node.clone());
                let fallen = right.fallen.as_ref().map(|(node, _)| node.clone());
                let was_ours = right.hold.is_held();
                if heard.tenure.is_held() {
                    right.fallen = None;
                }
                let holder = Candidate {
                    node: heard.node,
                    incarnation: heard.incarnation,
                };
                right.hold.heard(Claim {
                    epoch: heard.epoch,
                    rank: heard.rank,
                    holder: holder.clone(),
                    tenure: heard.tenure,
                });
                let was_anothers = before.or(fallen).is_some_and(|node| node != holder.node);
                let is_known = right.hold.other() == Some(&holder);
                self.dirty.vips.insert(heard.vip);
                if heard.tenure == Tenure::Held && is_known && (was_ours || was_anothers) {
                    self.verify_later(now, heard.vip, segment, holder);
                }
            }
            RingEvent::View(view) => self.view_changed(now, segment, view),
        }
    }

    fn view_changed(&mut self, now: Instant, segment: &SegmentName, view: View) {
        let Some(ring) = self.rings.get_mut(segment) else {
            return;
        };
        let is_over = |life: &Candidate| {
            view.live
                .get(&life.node)
                .is_none_or(|present| *present > life.incarnation)
        };
        let rights = self.rights.iter_mut();
        for (_, right) in rights.filter(|((_, name), _)| name == segment) {
            let Some(life) = right.hold.other().filter(|life| is_over(life)).cloned() else {
                continue;
            };
            right.hold.ended(&life);
            let death = ring.deaths.get(&life.node);
            let timeline = death
                .filter(|(incarnation, _)| *incarnation == life.incarnation)
                .map(|(_, timeline)| *timeline);
            right.fallen = Some((life.node, timeline));
        }
        let seen = ring.view.as_ref();
        let others_live = seen.is_none_or(|seen| !seen.live.keys().eq(view.live.keys()));
        let before = self.incarnations.insert(segment.clone(), view.incarnation);
        self.dirty.members |= before != Some(view.incarnation) || others_live;
        self.dirty.nodes |= others_live || seen.is_none_or(|seen| seen.dead != view.dead);
        ring.failed = None;
        if view.quorum && ring.settled_at.is_none() {
            ring.settled_at = Some(now + SETTLING);
            self.timers.insert((now + SETTLING, Timer::Ring));
        }
        ring.view = Some(view);
        self.dirty.all_vips = true;
    }

    pub(super) fn failed_rings(&self) -> impl Iterator<Item = (&SegmentName, &Arc<str>)> {
        self.rings
            .iter()
            .filter_map(|(segment, ring)| Some((segment, ring.failed.as_ref()?)))
    }

    /// The nodes that take no traffic: their kernels are silent, too, and on no other segment they are up.
    pub(super) fn dead_nodes(&self) -> BTreeSet<NodeName> {
        let views = self.rings.values().filter_map(|ring| ring.view.as_ref());
        let dead = views.flat_map(|view| view.dead.keys()).filter(|node| {
            let mut rings = self.rings.values();
            rings.clone().any(|ring| ring.has_lost(node)) && !rings.any(|ring| ring.reaches(node))
        });
        dead.cloned().collect()
    }
}

/// The address at which a node takes part: its first, IPv4 if it has one.
fn own_address(prefixes: &[IpNet]) -> Option<IpAddr> {
    prefixes
        .iter()
        .find(|prefix| prefix.addr().is_ipv4())
        .or_else(|| prefixes.first())
        .map(IpNet::addr)
}
