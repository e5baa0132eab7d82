//! What must be so at every moment, and in the end.

use std::net::IpAddr;
use std::time::Duration;

use herald_model::Instant;

use super::host::NEVER;
use super::world::{World, moves_by_itself};
use crate::ring::millis;

/// For how long an address may be without a holder, or have two.
const LIMIT: Duration = millis(1_000);
/// A fault may be the reason for a move for so long after it.
const AFTER: Duration = millis(4_000);

#[derive(Clone, Copy)]
struct Vip {
    unserved_since: Option<Instant>,
    doubled_since: Option<Instant>,
    /// Who holds it among those on side 0, and since when.
    holder: Option<(usize, Instant)>,
}

/// What was seen so far.
pub(super) struct Check {
    /// Not while everything starts.
    pub(super) is_on: bool,
    /// Whether enough nodes are up and together for somebody to take over.
    pub(super) has_quorum: bool,
    /// The first thing that was wrong.
    pub(super) failure: Option<String>,
    pub(super) moves: u64,
    /// The longest time that an address was without a holder.
    pub(super) longest: Duration,
    vips: Vec<Vip>,
    /// Until when a fault may be the reason why a node loses what it holds.
    touched: Vec<Instant>,
}

impl Check {
    pub(super) fn new(nodes: usize, vips: usize, now: Instant) -> Self {
        Self {
            is_on: false,
            has_quorum: true,
            failure: None,
            moves: 0,
            longest: Duration::ZERO,
            vips: vec![
                Vip {
                    unserved_since: None,
                    doubled_since: None,
                    holder: None,
                };
                vips
            ],
            touched: vec![now; nodes],
        }
    }

    /// A fault befalls a node.
    pub(super) fn touch(&mut self, node: usize) {
        self.touched[node] = NEVER;
    }

    /// Nothing befalls any node any more.
    pub(super) fn healed(&mut self, now: Instant) {
        for until in &mut self.touched {
            if *until == NEVER {
                *until = now + AFTER;
            }
        }
    }
}

impl World {
    pub(super) fn fail(&mut self, what: &str) {
        if self.check.failure.is_none() {
            self.say(|| format!("WRONG: {what}"));
            let time = self.now.saturating_since(Instant::ORIGIN);
            self.check.failure = Some(format!("at {:.3} s: {what}", time.as_secs_f64()));
        }
    }

    /// Looks at who answers for what.
    pub(super) fn observe(&mut self) {
        for place in 0..self.vips.len() {
            self.observe_vip(place);
        }
    }

    fn observe_vip(&mut self, place: usize) {
        let (now, address) = (self.now, self.vips[place]);
        let answering: Vec<usize> = (0..self.hosts.len())
            .filter(|node| self.hosts[*node].answers(address))
            .collect();
        let side = |node: &usize| self.lan.sides[*node];
        let main: Vec<usize> = answering.iter().copied().filter(|n| side(n) == 0).collect();
        let is_doubled = answering.iter().enumerate().any(|(at, one)| {
            answering
                .iter()
                .skip(at + 1)
                .any(|it| side(it) == side(one))
        });
        let mut vip = self.check.vips[place];
        vip.doubled_since = is_doubled.then(|| vip.doubled_since.unwrap_or(now));
        vip.unserved_since =
            (main.is_empty() && self.check.has_quorum).then(|| vip.unserved_since.unwrap_or(now));
        let wrong =
            |since: Option<Instant>| since.is_some_and(|since| now.saturating_since(since) > LIMIT);
        let mut failures = Vec::new();
        if self.check.is_on {
            if let Some(since) = vip.unserved_since {
                self.check.longest = self.check.longest.max(now.saturating_since(since));
            }
            if wrong(vip.unserved_since) {
                failures.push(format!("{address} has no holder for 1 s"));
            }
            if wrong(vip.doubled_since) {
                failures.push(format!("{address} has the holders {answering:?} for 1 s"));
            }
        }
        if let [holder] = main[..] {
            match vip.holder {
                Some((before, _)) if before == holder => {}
                before => {
                    self.say(|| format!("{address} is held by node{holder}, before: {before:?}"));
                    if let Some((before, since)) = before
                        && self.check.is_on
                    {
                        self.check.moves += 1;
                        let was_well = self.check.touched[before] <= since.max(now - AFTER);
                        if was_well && !self.is_planned(address, holder) {
                            failures.push(format!(
                                "{address} moved from node{before}, which was well, to node{holder}"
                            ));
                        }
                    }
                    vip.holder = Some((holder, now));
                }
            }
        }
        self.check.vips[place] = vip;
        for failure in failures {
            self.fail(&failure);
        }
    }

    /// Whether the address is where the controller moved it, in a story in which it does.
    fn is_planned(&self, address: IpAddr, holder: usize) -> bool {
        let planned = self.api.vips.get(&address);
        let segment = planned.and_then(|stored| stored.spec.segments.first());
        let first = segment.and_then(|segment| segment.candidates.first());
        moves_by_itself(self.seed)
            && first.is_some_and(|first| first.node == self.hosts[holder].name)
    }

    /// What must be so when nothing has happened for long enough.
    pub(super) fn check_rest(&mut self) {
        for address in self.vips.clone() {
            let holders: Vec<usize> = (0..self.hosts.len())
                .filter(|node| self.hosts[*node].answers(address))
                .collect();
            let [holder] = holders[..] else {
                self.fail(&format!("at rest {address} has the holders {holders:?}"));
                continue;
            };
            let name = self.hosts[holder].name.clone();
            let life = self.ring_of(holder).map(|ring| ring.incarnation());
            let Some(stored) = self.api.vips.get(&address) else {
                self.fail(&format!("at rest there is no claim on {address}"));
                continue;
            };
            let epoch = stored.spec.epoch;
            let planned = stored
                .spec
                .segments
                .first()
                .and_then(|segment| segment.candidates.first())
                .cloned();
            let said = stored.status.segments.first().cloned();
            let reported = self
                .api
                .speakers
                .get(&name)
                .and_then(|speaker| speaker.report.segments.first())
                .map(|segment| segment.incarnation);
            if planned
                .as_ref()
                .is_none_or(|it| it.node != name || Some(it.incarnation) != life)
            {
                self.fail(&format!(
                    "at rest {address} is held by {name} in life {life:?}, planned is {planned:?}"
                ));
            }
            if said
                .as_ref()
                .is_none_or(|it| it.node != name || it.epoch != epoch)
            {
                self.fail(&format!(
                    "at rest {address} is held by {name} under epoch {epoch}, its status says {said:?}"
                ));
            }
            if reported != life {
                self.fail(&format!(
                    "at rest {name} is in life {life:?}, its Speaker says {reported:?}"
                ));
            }
            for node in 0..self.hosts.len() {
                let announces = self.hosts[node].process.as_ref().is_some_and(|process| {
                    let announced = process.core.overview().announced;
                    announced.iter().any(|it| it.address == address)
                });
                if announces != (node == holder) {
                    self.fail(&format!(
                        "at rest node{node} believes otherwise of {address} than node{holder}"
                    ));
                }
            }
        }
    }
}
