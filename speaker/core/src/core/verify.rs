//! After an address has changed hands, one node that does not hold it asks the LAN for it, as a client
//! would. What it finds is counted, and said in the address's status once the holder has said there that it
//! holds it; that another machine answers, or nobody, is told by an Event too, and asked again.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use herald_elect::score;
use herald_model::{Candidate, Instant, MacAddress, SegmentName};

use super::{Core, Timer};
use crate::input::{Effect, EventReason};
use crate::status::reasons;
use crate::vip::Finding;

/// After so long no answer comes any more.
const FORGET: Duration = Duration::from_secs(10);
/// From when a new holder is heard of until the LAN is asked: between two of its repeated announcements, so that
/// none of them is taken for an answer. Until the last of three questions is over it takes 600 ms.
const AFTER: Duration = Duration::from_millis(1_200);
/// Until it is asked again where the holder did not answer.
const AGAIN: Duration = Duration::from_mins(1);

/// That an address is to be asked for.
#[derive(Debug)]
pub(super) struct Verification {
    holder: Candidate,
    at: Instant,
    /// Whether we have asked.
    is_asked: bool,
}

/// What is asked for, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Verifying {
    open: BTreeMap<(IpAddr, SegmentName), Verification>,
    pub(super) tally: Verified,
    /// What people have not been told yet.
    to_tell: Vec<(IpAddr, String)>,
}

/// How often the LAN answered in which way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// The holder answered.
    pub right: u64,
    /// Another machine did.
    pub wrong: u64,
    /// Nobody did.
    pub silent: u64,
}

impl Core {
    /// Another node holds an address that somebody else held before.
    pub(super) fn verify_later(
        &mut self,
        now: Instant,
        address: IpAddr,
        segment: &SegmentName,
        holder: Candidate,
    ) {
        if let Some(vip) = self.vips.get_mut(&address) {
            vip.finding = None;
            vip.finding_is_said = false;
        }
        self.verify_at(now + AFTER, address, segment, holder);
    }

    fn verify_at(
        &mut self,
        at: Instant,
        address: IpAddr,
        segment: &SegmentName,
        holder: Candidate,
    ) {
        let verification = Verification {
            holder,
            at,
            is_asked: false,
        };
        let place = (address, segment.clone());
        self.verifying.open.insert(place, verification);
        self.timers.insert((at, Timer::Verify));
    }

    /// Asks for what it is time to ask for, if it is for us to do. Everybody who hears of the holder knows
    /// who is to.
    pub(super) fn verify(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let open = &mut self.verifying.open;
        open.retain(|_, verification| now < verification.at + FORGET);
        let due: Vec<(IpAddr, SegmentName)> = open
            .iter()
            .filter(|(_, verification)| !verification.is_asked && verification.at <= now)
            .map(|(place, _)| place.clone())
            .collect();
        for place in due {
            let Some(mut verification) = self.verifying.open.remove(&place) else {
                continue;
            };
            let (address, segment) = &place;
            let uplink = self.uplinks.get(segment).filter(|uplink| uplink.carrier);
            let is_ours = self.is_verifier(*address, segment, &verification.holder);
            if let (true, Some(uplink)) = (is_ours, uplink) {
                out.push(Effect::Layer2(herald_l2::Input::Probe {
                    interface: uplink.index,
                    address: *address,
                }));
                verification.is_asked = true;
                self.verifying.open.insert(place, verification);
            }
        }
    }

    /// Whether the address is still held by that node, and this one is to ask: of the others that live, the one
    /// with the highest score.
    fn is_verifier(&self, address: IpAddr, segment: &SegmentName, holder: &Candidate) -> bool {
        let right = self.rights.get(&(address, segment.clone()));
        let is_held = right.is_some_and(|right| right.hold.other() == Some(holder));
        let Some(view) = self.rings.get(segment).and_then(|ring| ring.view.as_ref()) else {
            return false;
        };
        let first = view
            .live
            .keys()
            .filter(|node| **node != holder.node)
            .max_by_key(|node| (score(address, node), *node));
        is_held && first == Some(&self.config.node)
    }

    /// The LAN has answered on a segment, or nobody did.
    pub(super) fn verified(
        &mut self,
        now: Instant,
        address: IpAddr,
        segment: &SegmentName,
        user: Option<MacAddress>,
    ) {
        let place = (address, segment.clone());
        let open = &mut self.verifying.open;
        // Another question may have been about the same address.
        if open.get(&place).is_none_or(|open| !open.is_asked) {
            return;
        }
        let Some(Verification { holder, .. }) = open.remove(&place) else {
            return;
        };
        let right = self.rights.get(&place);
        let is_held = right.is_some_and(|right| right.hold.other() == Some(&holder));
        let speaker = self.speakers.get(&holder.node).filter(|_| is_held);
        let expected = speaker.and_then(|speaker| {
            let mut segments = speaker.report.segments.iter();
            segments.find(|theirs| theirs.name == *segment)
        });
        let Some(expected) = expected.map(|theirs| theirs.mac) else {
            return;
        };
        let tally = &mut self.verifying.tally;
        let (count, reason, found) = match user {
            Some(mac) if mac == expected => {
                let found = format!("{mac} answered");
                (&mut tally.right, reasons::HOLDER_ANSWERS, found)
            }
            Some(mac) => {
                let found = format!("{mac} answered instead of {expected}");
                (&mut tally.wrong, reasons::ANOTHER_ANSWERS, found)
            }
            None => {
                let found = "nobody answered in three times".to_owned();
                (&mut tally.silent, reasons::NOBODY_ANSWERS, found)
            }
        };
        *count = count.saturating_add(1);
        let is_right = reason == reasons::HOLDER_ANSWERS;
        let (taker, me) = (holder.node.clone(), &self.config.node);
        let but = if is_right { "and" } else { "but" };
        let note =
            format!("{taker} took {address} over, {but} when {me} asked the LAN for it, {found}");
        let Some(vip) = self.vips.get_mut(&address) else {
            return;
        };
        let finding = Finding {
            segment: segment.clone(),
            holder: taker,
            is_right,
            reason,
            message: note.clone(),
        };
        self.dirty.vips.insert(address);
        let is_news = vip.finding.as_ref() != Some(&finding);
        vip.finding_is_said &= !is_news;
        vip.finding = Some(finding);
        if is_right {
            return;
        }
        if is_news {
            self.verifying.to_tell.push((address, note));
        }
        self.verify_at(now + AGAIN, address, segment, holder);
    }

    pub(super) fn tell_unverified(&mut self, out: &mut Vec<Effect>) {
        for (address, note) in std::mem::take(&mut self.verifying.to_tell) {
            self.emit_events(address, EventReason::Unverified, &note, out);
        }
    }
}
