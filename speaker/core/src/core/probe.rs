//! Asking the LAN whether somebody uses an address: before a new one is used, and before one is taken
//! that only a snapshot says is ours.

use std::collections::BTreeMap;
use std::net::IpAddr;

use herald_model::{IfIndex, Instant, MacAddress, Phase, SegmentName};

use super::ring::Probe;
use super::{Core, RETRY, Timer};
use crate::input::Effect;
use crate::uplinks::Uplink;
use crate::vip::Answer;

impl Core {
    /// Asks for a new address on each segment that this node is planned for, once for each plan.
    pub(super) fn ask_for_new(
        &mut self,
        address: IpAddr,
        uplinks: &BTreeMap<SegmentName, Uplink>,
        out: &mut Vec<Effect>,
    ) {
        let Some(vip) = self.vips.get_mut(&address) else {
            return;
        };
        let spec = &vip.observed.vip;
        if spec.phase != Phase::Probing || vip.deleted {
            vip.questions.clear();
            return;
        }
        // What a snapshot says is new may have been in use for long.
        if !self.restored.is_empty() {
            return;
        }
        for planned in &spec.segments {
            let first = planned.candidates.first();
            let is_mine = first.is_some_and(|first| first.node == self.config.node);
            let asked = vip.questions.get(&planned.name);
            let is_asked = asked.is_some_and(|(epoch, _)| *epoch == spec.epoch)
                || vip.observed.status.probed.contains(&planned.name);
            let uplink = uplinks.get(&planned.name).filter(|uplink| uplink.carrier);
            if let (true, false, Some(uplink)) = (is_mine, is_asked, uplink) {
                let question = (spec.epoch, Answer::Open);
                vip.questions.insert(planned.name.clone(), question);
                out.push(Effect::Layer2(herald_l2::Input::Probe {
                    interface: uplink.index,
                    address,
                }));
            }
        }
    }

    /// The answer of the LAN. An address in use that was thought ours is asked for again later: by then
    /// the API server may have told whose it is, or it is free.
    pub(super) fn probed(
        &mut self,
        now: Instant,
        interface: IfIndex,
        address: IpAddr,
        user: Option<MacAddress>,
    ) {
        // A node of ours that answers has only not heard yet that the address was given back.
        let stranger = user.filter(|mac| !self.is_peer(*mac));
        let segments: Vec<SegmentName> = self
            .uplinks
            .iter()
            .filter(|(_, uplink)| uplink.index == interface)
            .map(|(segment, _)| segment.clone())
            .collect();
        for segment in &segments {
            self.stranger_answered(now, address, segment, stranger);
            self.verified(now, address, segment, user);
            let key = (address, segment.clone());
            if let Some(right) = self.rights.get_mut(&key)
                && right.probe == Probe::Asked
            {
                right.probe = match user {
                    None => Probe::Silent,
                    Some(_) => Probe::InUse,
                };
            }
            if let Some(vip) = self.vips.get_mut(&address)
                && let Some((_, answer)) = vip.questions.get_mut(segment)
            {
                *answer = stranger.map_or(Answer::Silent, Answer::InUse);
            }
        }
        self.dirty.vips.insert(address);
        if user.is_some() {
            self.timers.insert((now + RETRY, Timer::Probe(address)));
        }
    }

    /// Who used an address may use it no more.
    pub(super) fn ask_again(&mut self, address: IpAddr) {
        let rights = self
            .rights
            .range_mut((address, SegmentName::from(""))..)
            .take_while(|((vip, _), _)| *vip == address);
        for (_, right) in rights {
            if right.probe == Probe::InUse {
                right.probe = Probe::NotAsked;
            }
        }
        self.dirty.vips.insert(address);
    }
}
