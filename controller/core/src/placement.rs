//! Which nodes are to announce an address, segment by segment.
//!
//! Who is alive is found out by the speakers among themselves, faster and better than Kubernetes
//! does: a node or Pod that is not ready loses nothing because of it. The plan follows a speaker that
//! took over; it moves an address by itself only from a node that may not announce it any more, says
//! that it can't, or is in another life.
//!
//! The plan is sticky: who is planned stays planned while it may announce, whoever else comes. Where
//! nobody is planned, the least loaded of the four highest by rendezvous hash becomes the first, and
//! the next two follow; nodes that seem dead come last, before them those that are about to go, before
//! them those that fell not long ago.
//!
//! A node that is about to go goes behind those that stay, while it can still hand over: the next
//! candidate becomes the first. Where no other is well it keeps what it has.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hasher;
use std::net::IpAddr;

use herald_model::{
    Advertisement, Announce, Candidate, Epoch, Incarnation, Instant, InterfaceName, Labels,
    NodeName, SegmentName, VipSegment,
};
use siphasher::sip::SipHasher13;

use crate::account::Obstacle;
use crate::balance::{Loads, Place};
use crate::falls::Falls;
use crate::observed::Holding;

/// How many candidates a plan has for a segment.
pub(crate) const CANDIDATES: usize = 3;
/// Among how many of the highest by hash the least loaded is taken.
const CHOICES: usize = 4;

/// A node's interface in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spot {
    pub(crate) segment: SegmentName,
    pub(crate) interface: InterfaceName,
    pub(crate) incarnation: Incarnation,
    /// Whether nothing that the node and its speaker say of themselves speaks against it.
    pub(crate) fits: bool,
    /// Whether Kubernetes takes the node and the speaker to be well: a hint, when there is a choice.
    pub(crate) seems_alive: bool,
    /// Whether the node is about to go.
    pub(crate) departs: bool,
    /// The node's labels.
    pub(crate) labels: Labels,
}

impl Spot {
    /// Whether an address had better be here than on a node that goes.
    const fn lasts(&self) -> bool {
        self.seems_alive && !self.departs
    }
}

/// Where addresses can be announced: segment → node → its interfaces there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Terrain {
    segments: BTreeMap<SegmentName, BTreeMap<NodeName, Vec<Spot>>>,
    by_node: BTreeMap<NodeName, Vec<Spot>>,
}

impl Terrain {
    /// Takes what a node offers; whether it is something else than before.
    pub(crate) fn set(&mut self, node: &NodeName, spots: Vec<Spot>) -> bool {
        let before = self.by_node.remove(node).unwrap_or_default();
        if before == spots {
            if !spots.is_empty() {
                self.by_node.insert(node.clone(), spots);
            }
            return false;
        }
        for spot in before {
            if let Some(nodes) = self.segments.get_mut(&spot.segment) {
                nodes.remove(node);
                if nodes.is_empty() {
                    self.segments.remove(&spot.segment);
                }
            }
        }
        for spot in &spots {
            let nodes = self.segments.entry(spot.segment.clone()).or_default();
            nodes.entry(node.clone()).or_default().push(spot.clone());
        }
        if !spots.is_empty() {
            self.by_node.insert(node.clone(), spots);
        }
        true
    }

    /// The nodes of a segment that are well there, and stay.
    pub(crate) fn lasting(&self, segment: &SegmentName) -> impl Iterator<Item = &NodeName> {
        let nodes = self.segments.get(segment).into_iter().flatten();
        let lasts = |spots: &[Spot]| spots.iter().any(|spot| spot.fits && spot.lasts());
        nodes.filter_map(move |(node, spots)| lasts(spots).then_some(node))
    }

    /// The names of the segments.
    pub(crate) fn names(&self) -> BTreeSet<SegmentName> {
        self.segments.keys().cloned().collect()
    }
}

/// What one holder of an address says of who may announce it.
#[derive(Clone, Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) announce: Announce,
    /// Those that select its pool and the Service; they count under [`Announce::Listed`].
    pub(crate) advertisements: Vec<&'a Advertisement>,
    /// Only these nodes; `None`: all.
    pub(crate) only: Option<BTreeSet<NodeName>>,
}

impl Rules<'_> {
    fn permit(&self, node: &NodeName, spot: &Spot) -> bool {
        self.objection(node, spot).is_none()
    }

    /// Why a node may not announce; `None`: it may.
    fn objection(&self, node: &NodeName, spot: &Spot) -> Option<Obstacle> {
        if self.only.as_ref().is_some_and(|only| !only.contains(node)) {
            return Some(Obstacle::NoLocalEndpoint);
        }
        match self.announce {
            Announce::All => None,
            Announce::None => Some(Obstacle::NoAdvertisement),
            Announce::Listed => {
                let by_node = self.advertisements.iter().filter(|advertisement| {
                    let nodes = &advertisement.node_selectors;
                    nodes.is_empty() || nodes.iter().any(|s| s.matches(&spot.labels))
                });
                let mut selected = false;
                for advertisement in by_node {
                    let interfaces = &advertisement.interfaces;
                    selected = true;
                    if interfaces.is_empty()
                        || interfaces.iter().any(|p| p.matches(&spot.interface))
                    {
                        return None;
                    }
                }
                Some(if selected {
                    Obstacle::InterfaceNotSelected
                } else {
                    Obstacle::NodeNotSelected
                })
            }
        }
    }

    fn preference(&self, spot: &Spot) -> u32 {
        self.advertisements
            .iter()
            .flat_map(|advertisement| &advertisement.preferred_nodes)
            .filter(|preferred| preferred.preference.matches(&spot.labels))
            .map(|preferred| u32::from(preferred.weight))
            .sum()
    }
}

/// The plan as it is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Present<'a> {
    pub(crate) segments: &'a [VipSegment],
    /// The plan that speakers know: a newer one may not be written yet.
    pub(crate) known: Known<'a>,
    /// Moves that speakers do not know of yet.
    pub(crate) moves: &'a Moves,
}

/// Moves that were decided on, segment by segment.
pub(crate) type Moves = BTreeMap<SegmentName, Move>;

/// Another node is to be the first candidate, though the first is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) from: NodeName,
    pub(crate) to: NodeName,
}

/// What the controller remembers of nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ledger<'a> {
    pub(crate) now: Instant,
    pub(crate) loads: &'a Loads,
    pub(crate) falls: &'a Falls,
}

impl Ledger<'_> {
    fn is_held(&self, segment: &SegmentName, node: &NodeName) -> bool {
        self.falls.is_held(self.now, segment, node)
    }
}

/// What the API server has of an address.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known<'a> {
    pub(crate) epoch: Epoch,
    pub(crate) segments: &'a [VipSegment],
    /// Who says that it announces the address.
    pub(crate) holdings: &'a [Holding],
}

impl<'a> Known<'a> {
    fn candidates(&self, segment: &SegmentName) -> &'a [Candidate] {
        let planned = self.segments.iter().find(|s| s.name == *segment);
        planned.map_or(&[], |segment| &segment.candidates)
    }

    /// The life of a node that took the address over under the known plan, if one did.
    ///
    /// An entry names no life. While candidates live, speakers elect among them only, so that the
    /// entry of a node that began another life is left from the one before; when none does, it is
    /// the node's present life that says it took over.
    fn taken_over(
        &self,
        segment: &SegmentName,
        eligible: &BTreeMap<&NodeName, &Spot>,
    ) -> Option<Candidate> {
        let holding = self
            .holdings
            .iter()
            .find(|holding| holding.segment == *segment && holding.epoch == self.epoch)?;
        let holder = Candidate {
            node: holding.node.clone(),
            incarnation: eligible.get(&holding.node)?.incarnation,
        };
        let candidates = self.candidates(segment);
        let lives = |candidate: &Candidate| {
            eligible
                .get(&candidate.node)
                .is_some_and(|spot| spot.incarnation == candidate.incarnation)
        };
        let orphaned = !candidates.iter().any(lives) && holding.taken_over;
        (candidates.contains(&holder) || orphaned).then_some(holder)
    }
}

/// The plan as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    pub(crate) segments: Vec<VipSegment>,
    /// Whether there is a node that may and can announce.
    pub(crate) eligible: bool,
    /// Whether more nodes could change the plan.
    pub(crate) short: bool,
    /// The first candidates, as planned until now, that speakers took the address over from.
    pub(crate) taken_from: Vec<(SegmentName, Candidate)>,
}

impl Planned {
    /// Notes that the plan follows a speaker that took over, if it does so now for the first time.
    fn note_takeover(
        &mut self,
        segment: &SegmentName,
        holder: &Candidate,
        now: &[Candidate],
        known: &[Candidate],
    ) {
        let news = |first: &&Candidate| first.node != holder.node;
        if let (Some(first), Some(_)) = (now.first().filter(news), known.first().filter(news)) {
            self.taken_from.push((segment.clone(), first.clone()));
        }
    }
}

/// The nodes that all rules permit, each with its interface that counts.
fn permitted<'a>(
    rules: &[Rules<'_>],
    nodes: &'a BTreeMap<NodeName, Vec<Spot>>,
) -> BTreeMap<&'a NodeName, &'a Spot> {
    let counts = |(node, spots): (&'a NodeName, &'a Vec<Spot>)| {
        let permit = |spot: &&Spot| rules.iter().all(|rules| rules.permit(node, spot));
        // Of several interfaces one that is well decides.
        let mut spots: Vec<&Spot> = spots.iter().filter(permit).collect();
        spots.sort_by_key(|spot| !spot.fits);
        spots.first().map(|spot| (node, *spot))
    };
    nodes.iter().filter_map(counts).collect()
}

/// How a node of a segment stands to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeStanding<'a> {
    pub(crate) node: &'a NodeName,
    /// The interface that counts.
    pub(crate) interface: &'a InterfaceName,
    /// The sum of the weights that prefer it.
    pub(crate) preference: u32,
    /// Why it may not announce the address; `None`: it may.
    pub(crate) objection: Option<Obstacle>,
}

/// How all nodes of a segment stand to an address, those of no use included.
pub(crate) fn standings<'a>(
    rules: &[Rules<'_>],
    terrain: &'a Terrain,
    segment: &SegmentName,
) -> Vec<NodeStanding<'a>> {
    let Some(nodes) = terrain.segments.get(segment) else {
        return Vec::new();
    };
    let permitted = permitted(rules, nodes);
    let standing = |(node, spots): (&'a NodeName, &'a Vec<Spot>)| {
        let spot = permitted.get(node).copied().or_else(|| spots.first())?;
        let mut rules_of_all = rules.iter();
        Some(NodeStanding {
            node,
            interface: &spot.interface,
            preference: preference(rules, spot),
            objection: rules_of_all.find_map(|rules| rules.objection(node, spot)),
        })
    };
    nodes.iter().filter_map(standing).collect()
}

fn preference(rules: &[Rules<'_>], spot: &Spot) -> u32 {
    rules.iter().map(|rules| rules.preference(spot)).sum()
}

/// Where on a segment an address could be: the nodes that may announce it, are well, and stay.
pub(crate) fn places<'a>(
    rules: &[Rules<'_>],
    terrain: &'a Terrain,
    segment: &SegmentName,
    ledger: Ledger<'_>,
) -> Vec<Place<'a>> {
    let Some(nodes) = terrain.segments.get(segment) else {
        return Vec::new();
    };
    let lasting = permitted(rules, nodes)
        .into_iter()
        .filter(|(_, spot)| spot.fits && spot.lasts());
    let place = |(node, spot): (&'a NodeName, &Spot)| Place {
        node,
        preference: preference(rules, spot),
        is_open: !ledger.is_held(segment, node),
    };
    lasting.map(place).collect()
}

/// Plans who announces an address. All rules, one for each holder, must permit a node.
pub(crate) fn plan(
    address: IpAddr,
    rules: &[Rules<'_>],
    terrain: &Terrain,
    present: Present<'_>,
    ledger: Ledger<'_>,
) -> Planned {
    let mut planned = Planned {
        segments: Vec::new(),
        eligible: false,
        short: false,
        taken_from: Vec::new(),
    };
    for (segment, nodes) in &terrain.segments {
        let permitted = permitted(rules, nodes);
        let now = present.segments.iter().find(|s| s.name == *segment);
        let now = now.map_or(&[][..], |segment| &segment.candidates);
        let eligible: BTreeMap<&NodeName, &Spot> = permitted
            .iter()
            .filter(|(_, spot)| spot.fits)
            .map(|(n, s)| (*n, *s))
            .collect();
        planned.eligible |= eligible.values().any(|spot| spot.seems_alive);
        let candidates = if eligible.is_empty() {
            // Nobody is well: who may announce keeps the plan, as a node that only seems unfit
            // from here had better go on.
            planned.short = true;
            now.iter()
                .filter(|c| permitted.contains_key(&c.node))
                .cloned()
                .collect()
        } else {
            let taken_over = present.known.taken_over(segment, &eligible);
            if let Some(holder) = &taken_over {
                planned.note_takeover(segment, holder, now, present.known.candidates(segment));
            }
            let is_held = |node: &NodeName| ledger.is_held(segment, node);
            let mut sticky = sticky(now, taken_over.as_ref(), &eligible, is_held);
            if let Some(decided) = present.moves.get(segment) {
                make(decided, &mut sticky, &eligible);
            }
            fill(address, segment, sticky, &eligible, rules, ledger)
        };
        let departs = |candidate: &Candidate| {
            let spot = permitted.get(&candidate.node);
            spot.is_some_and(|spot| spot.departs)
        };
        planned.short |= candidates.len() < CANDIDATES || candidates.iter().any(departs);
        if !candidates.is_empty() {
            planned.segments.push(VipSegment {
                name: segment.clone(),
                candidates,
            });
        }
    }
    planned
}

/// The candidates that stay, in their order. A speaker that has taken over by itself comes first: the
/// plan follows, nothing moves again.
fn sticky(
    now: &[Candidate],
    holder: Option<&Candidate>,
    eligible: &BTreeMap<&NodeName, &Spot>,
    is_held: impl Fn(&NodeName) -> bool,
) -> Vec<Candidate> {
    let stays = |candidate: &&Candidate| {
        eligible
            .get(&candidate.node)
            .is_some_and(|spot| spot.incarnation == candidate.incarnation)
            && Some(*candidate) != holder
    };
    let rest = now.iter().filter(stays).cloned();
    let mut candidates: Vec<Candidate> = holder.into_iter().cloned().chain(rest).collect();
    let is = |candidate: &Candidate, what: fn(&Spot) -> bool| {
        let spot = eligible.get(&candidate.node);
        spot.is_some_and(|spot| what(spot))
    };
    let departs = |candidate: &Candidate| is(candidate, |spot| spot.departs);
    let seems_alive = |candidate: &Candidate| is(candidate, |spot| spot.seems_alive);
    if eligible.values().any(|spot| spot.lasts()) {
        // Who is about to go gives up its place while it can hand over. Behind those that stay there
        // may be one for it.
        let is_first = candidates.first().is_some_and(departs);
        candidates.retain(|candidate| !departs(candidate));
        if is_first {
            candidates.retain(|candidate| seems_alive(candidate) && !is_held(&candidate.node));
        }
    }
    // Who seems dead gives its place to one that does not, if there is one: another order of the same
    // nodes is not worth a write for each address. The first stays: whether that one is dead is for the
    // speakers to say.
    let waiting = eligible
        .iter()
        .filter(|(node, spot)| spot.lasts() && !candidates.iter().any(|c| c.node == ***node))
        .count();
    let mut surplus = (candidates.len() + waiting).saturating_sub(CANDIDATES);
    for place in (1..candidates.len()).rev() {
        if surplus > 0 && !candidates.get(place).is_some_and(seems_alive) {
            candidates.remove(place);
            surplus -= 1;
        }
    }
    candidates
}

/// Makes a move, unless something has happened meanwhile: the first is another one by now, or where the
/// address was to go is not well.
fn make(decided: &Move, candidates: &mut Vec<Candidate>, eligible: &BTreeMap<&NodeName, &Spot>) {
    let is_first = candidates
        .first()
        .is_some_and(|first| first.node == decided.from);
    let Some(spot) = eligible.get(&decided.to).filter(|spot| spot.lasts()) else {
        return;
    };
    if is_first {
        candidates.retain(|candidate| candidate.node != decided.to);
        let to = Candidate {
            node: decided.to.clone(),
            incarnation: spot.incarnation,
        };
        candidates.insert(0, to);
    }
}

/// Completes a list of candidates.
fn fill(
    address: IpAddr,
    segment: &SegmentName,
    mut candidates: Vec<Candidate>,
    eligible: &BTreeMap<&NodeName, &Spot>,
    rules: &[Rules<'_>],
    ledger: Ledger<'_>,
) -> Vec<Candidate> {
    candidates.truncate(CANDIDATES);
    if candidates.len() == CANDIDATES {
        return candidates;
    }
    let mut others: Vec<(Standing, Reverse<u64>, &NodeName, &Spot)> = eligible
        .iter()
        .filter(|(node, _)| !candidates.iter().any(|c| c.node == ***node))
        .map(|(node, spot)| {
            let standing = Standing {
                seems_dead: !spot.seems_alive,
                departs: spot.departs,
                is_held: ledger.is_held(segment, node),
                preference: Reverse(preference(rules, spot)),
            };
            let score = Reverse(score(address, segment, node));
            (standing, score, *node, *spot)
        })
        .collect();
    others.sort_by_key(|(standing, score, node, _)| (*standing, *score, *node));
    if candidates.is_empty()
        && let Some((best, ..)) = others.first()
    {
        let best = *best;
        let choices = others.iter().take_while(|(standing, ..)| *standing == best);
        let least = choices
            .take(CHOICES)
            .enumerate()
            .min_by_key(|(_, (_, _, node, _))| ledger.loads.of(segment, node))
            .map_or(0, |(position, _)| position);
        let first = others.remove(least);
        others.insert(0, first);
    }
    candidates.extend(others.into_iter().map(|(_, _, node, spot)| Candidate {
        node: node.clone(),
        incarnation: spot.incarnation,
    }));
    candidates.truncate(CANDIDATES);
    candidates
}

/// What counts before the hash, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Standing {
    seems_dead: bool,
    departs: bool,
    is_held: bool,
    preference: Reverse<u32>,
}

/// The rendezvous score of a node for an address on a segment: SipHash-1-3 with a zero key.
fn score(address: IpAddr, segment: &SegmentName, node: &NodeName) -> u64 {
    let mut hasher = SipHasher13::new();
    match address {
        IpAddr::V4(address) => hasher.write(&address.octets()),
        IpAddr::V6(address) => hasher.write(&address.octets()),
    }
    for name in [segment.as_str(), node.as_str()] {
        hasher.write(&[0]);
        hasher.write(name.as_bytes());
    }
    hasher.finish()
}

#[cfg(test)]
mod tests;
