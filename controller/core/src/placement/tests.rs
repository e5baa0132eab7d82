use std::time::Duration;

use herald_model::{InterfacePattern, MacAddress, Selector, WeightedSelector};

use super::*;
use crate::testkit::{advertisement, ip, labels};

mod moves;

const VIP: &str = "192.0.2.10";

fn spot(node: &str, segment: &str) -> Spot {
    Spot {
        segment: segment.into(),
        interface: "eth0".into(),
        incarnation: Incarnation(1),
        fits: true,
        seems_alive: true,
        departs: false,
        labels: labels(&[("node", node)]),
    }
}

fn terrain(nodes: &[&str]) -> Terrain {
    let mut terrain = Terrain::default();
    for node in nodes {
        terrain.set(&NodeName::from(*node), vec![spot(node, "lan")]);
    }
    terrain
}

fn all() -> Rules<'static> {
    Rules {
        announce: Announce::All,
        advertisements: Vec::new(),
        only: None,
    }
}

fn listed<'a>(advertisements: &[&'a Advertisement]) -> Rules<'a> {
    Rules {
        announce: Announce::Listed,
        advertisements: advertisements.to_vec(),
        only: None,
    }
}

/// What the controller remembers.
struct Memory {
    loads: Loads,
    falls: Falls,
}

impl Default for Memory {
    fn default() -> Self {
        Self {
            loads: Loads::default(),
            falls: Falls::new(Duration::from_mins(5)),
        }
    }
}

impl Memory {
    fn ledger(&self) -> Ledger<'_> {
        Ledger {
            now: Instant::ORIGIN,
            loads: &self.loads,
            falls: &self.falls,
        }
    }

    fn busy(&mut self, node: &NodeName, load: usize) {
        for _ in 0..load {
            self.loads.add(&"lan".into(), node);
        }
    }
}

fn known<'a>(segments: &'a [VipSegment], known: Known<'a>) -> Present<'a> {
    const NONE: &Moves = &BTreeMap::new();
    Present {
        segments,
        known,
        moves: NONE,
    }
}

fn planned(rules: &[Rules<'_>], terrain: &Terrain, segments: &[VipSegment]) -> Planned {
    let present = known(segments, Known::default());
    plan(ip(VIP), rules, terrain, present, Memory::default().ledger())
}

/// The nodes of a plan's only segment.
fn names(planned: &Planned) -> Vec<&str> {
    assert!(planned.segments.len() <= 1, "{planned:?}");
    let candidates = planned
        .segments
        .iter()
        .flat_map(|segment| &segment.candidates);
    candidates
        .map(|candidate| candidate.node.as_str())
        .collect()
}

/// The scores decide who announces: another value moves every address of every cluster.
#[test]
fn scores_are_what_they_were() {
    let score = |address: &str| score(ip(address), &"192.0.2.0/24".into(), &"node1".into());
    assert_eq!(score("192.0.2.10"), 0xd9d6_9d1b_490f_ee63);
    assert_eq!(score("2001:db8::a"), 0xfb0b_d3fe_b230_b228);
}

#[test]
fn plan_is_the_same_whatever_the_order_of_events() {
    let forward = planned(&[all()], &terrain(&["a", "b", "c", "d", "e"]), &[]);
    let backward = planned(&[all()], &terrain(&["e", "d", "c", "b", "a"]), &[]);
    assert_eq!(forward, backward);
    assert_eq!(names(&forward).len(), CANDIDATES);
    assert!(forward.eligible && !forward.short);
}

#[test]
fn first_is_the_least_loaded_of_the_four_highest() {
    let terrain = terrain(&["a", "b", "c", "d", "e", "f"]);
    let names: Vec<NodeName> = ["a", "b", "c", "d", "e", "f"].map(NodeName::from).to_vec();
    let mut by_score = names.clone();
    by_score.sort_by_key(|node| Reverse(score(ip(VIP), &"lan".into(), node)));
    let first = |busy: &[usize]| {
        let mut memory = Memory::default();
        for place in busy {
            memory.busy(&by_score[*place], 5);
        }
        let present = known(&[], Known::default());
        let planned = plan(ip(VIP), &[all()], &terrain, present, memory.ledger());
        planned.segments[0].candidates[0].node.clone()
    };
    assert_eq!(first(&[]), by_score[0]);
    assert_eq!(first(&[0]), by_score[1]);
    assert_eq!(first(&[0, 1, 2]), by_score[3]);
    assert_eq!(first(&[0, 1, 2, 3]), by_score[0], "the fifth is not asked");
}

#[test]
fn many_addresses_are_spread_evenly() {
    let terrain = terrain(&["a", "b", "c", "d", "e"]);
    let mut memory = Memory::default();
    for number in 0..1000_u32 {
        let address = herald_model::Family::V4.address(u128::from(0x0a00_0000 + number));
        let present = known(&[], Known::default());
        let planned = plan(address, &[all()], &terrain, present, memory.ledger());
        memory.busy(&planned.segments[0].candidates[0].node, 1);
    }
    for node in ["a", "b", "c", "d", "e"] {
        let load = memory.loads.of(&"lan".into(), &node.into());
        assert!((198..=202).contains(&load), "{node} has {load}");
    }
}

#[test]
fn nobody_moves_when_nodes_come_or_return() {
    let few = terrain(&["a", "b", "c"]);
    let before = planned(&[all()], &few, &[]);
    let many = terrain(&["a", "b", "c", "d", "e", "f", "g", "h"]);
    assert_eq!(planned(&[all()], &many, &before.segments), before);
}

#[test]
fn next_candidate_follows_one_that_cannot_and_who_returns_goes_last() {
    let mut terrain = terrain(&["a", "b", "c"]);
    let before = planned(&[all()], &terrain, &[]);
    let [first, second, third] = names(&before)[..] else {
        panic!("three nodes, three candidates")
    };
    let unfit = Spot {
        fits: false,
        ..spot(first, "lan")
    };
    terrain.set(&first.into(), vec![unfit]);
    let failed = planned(&[all()], &terrain, &before.segments);
    assert_eq!(names(&failed), [second, third]);
    assert!(failed.short);
    terrain.set(&first.into(), vec![spot(first, "lan")]);
    let back = planned(&[all()], &terrain, &failed.segments);
    assert_eq!(names(&back), [second, third, first]);
}

#[test]
fn who_only_seems_dead_stays_first_and_gives_up_any_other_place() {
    let mut terrain = terrain(&["a", "b", "c", "d"]);
    let before = planned(&[all()], &terrain, &[]);
    let [first, second, third] = names(&before)[..] else {
        panic!("four nodes, three candidates")
    };
    for node in [first, second] {
        let silent = Spot {
            seems_alive: false,
            ..spot(node, "lan")
        };
        terrain.set(&node.into(), vec![silent]);
    }
    let after = planned(&[all()], &terrain, &before.segments);
    assert_eq!(names(&after)[..2], [first, third]);
    assert!(!names(&after).contains(&second), "{after:?}");

    let fresh = planned(&[all()], &terrain, &[]);
    assert!(![first, second].contains(&names(&fresh)[0]), "{fresh:?}");
}

#[test]
fn who_seems_dead_keeps_its_place_when_nobody_is_there_to_take_it() {
    let mut terrain = terrain(&["a", "b", "c"]);
    let before = planned(&[all()], &terrain, &[]);
    for node in names(&before) {
        let silent = Spot {
            seems_alive: false,
            ..spot(node, "lan")
        };
        terrain.set(&node.into(), vec![silent]);
        let after = planned(&[all()], &terrain, &before.segments);
        assert_eq!(after.segments, before.segments, "without {node}");
    }
    // Two are gone, one comes: the last one makes room.
    terrain.set(
        &names(&before)[0].into(),
        vec![spot(names(&before)[0], "lan")],
    );
    terrain.set(&"d".into(), vec![spot("d", "lan")]);
    let after = planned(&[all()], &terrain, &before.segments);
    assert_eq!(names(&after)[..2], names(&before)[..2]);
    assert_eq!(names(&after)[2], "d");
}

#[test]
fn api_outage_after_which_all_nodes_seem_dead_changes_no_plan() {
    let mut terrain = terrain(&["a", "b", "c", "d", "e"]);
    let before = planned(&[all()], &terrain, &[]);
    for node in ["a", "b", "c", "d", "e"] {
        let silent = Spot {
            seems_alive: false,
            ..spot(node, "lan")
        };
        terrain.set(&node.into(), vec![silent]);
    }
    let after = planned(&[all()], &terrain, &before.segments);
    assert_eq!((&after.segments, after.eligible), (&before.segments, false));
}

#[test]
fn node_in_another_life_is_another_candidate() {
    let mut terrain = terrain(&["a", "b", "c"]);
    let before = planned(&[all()], &terrain, &[]);
    let first = before.segments[0].candidates[0].node.clone();
    let reborn = Spot {
        incarnation: Incarnation(2),
        ..spot(first.as_str(), "lan")
    };
    terrain.set(&first, vec![reborn]);
    let after = planned(&[all()], &terrain, &before.segments);
    let candidates = &after.segments[0].candidates;
    assert_eq!(candidates[..2], before.segments[0].candidates[1..]);
    assert_eq!(
        (&candidates[2].node, candidates[2].incarnation),
        (&first, Incarnation(2))
    );
}

#[test]
fn plan_stays_while_nobody_is_well_and_goes_when_nobody_may() {
    let mut terrain = terrain(&["a", "b"]);
    let before = planned(&[all()], &terrain, &[]);
    for node in ["a", "b"] {
        let unfit = Spot {
            fits: false,
            ..spot(node, "lan")
        };
        terrain.set(&node.into(), vec![unfit]);
    }
    let stuck = planned(&[all()], &terrain, &before.segments);
    assert_eq!((&stuck.segments, stuck.eligible), (&before.segments, false));
    let nobody = Rules {
        announce: Announce::None,
        ..all()
    };
    assert_eq!(planned(&[nobody], &terrain, &before.segments).segments, []);
}

/// The plan after a node said that it holds the address.
fn followed(terrain: &Terrain, present: &[VipSegment], seen: Known<'_>) -> Vec<Candidate> {
    let present = known(present, seen);
    let mut planned = plan(
        ip(VIP),
        &[all()],
        terrain,
        present,
        Memory::default().ledger(),
    );
    planned.segments.remove(0).candidates
}

fn holding(node: &NodeName, epoch: u64, taken_over: bool) -> Holding {
    Holding {
        segment: "lan".into(),
        node: node.clone(),
        interface: "eth0".into(),
        mac: MacAddress::ZERO,
        epoch: Epoch(epoch),
        taken_over,
    }
}

fn reborn(node: &NodeName, incarnation: u64) -> Spot {
    Spot {
        incarnation: Incarnation(incarnation),
        ..spot(node.as_str(), "lan")
    }
}

#[test]
fn plan_follows_a_speaker_that_took_over_in_the_same_epoch() {
    let terrain = terrain(&["a", "b", "c"]);
    let before = planned(&[all()], &terrain, &[]).segments;
    let [first, second, _] = &before[0].candidates[..] else {
        panic!("three nodes, three candidates")
    };
    let now = |epoch| {
        let holdings = [holding(&second.node, epoch, true)];
        let known = Known {
            epoch: Epoch(2),
            segments: &before,
            holdings: &holdings,
        };
        followed(&terrain, &before, known).swap_remove(0)
    };
    assert_eq!(now(2), *second);
    assert_eq!(
        now(1),
        *first,
        "a holder of an older plan is on its way out"
    );
}

#[test]
fn plan_that_nobody_knows_yet_gives_way_to_a_takeover_under_the_known_one() {
    let terrain = terrain(&["a", "b", "c"]);
    let known = planned(&[all()], &terrain, &[]).segments;
    let second = known[0].candidates[1].clone();
    let mut unwritten = known.clone();
    unwritten[0].candidates.remove(1);
    let holdings = [holding(&second.node, 4, true)];
    let known = Known {
        epoch: Epoch(4),
        segments: &known,
        holdings: &holdings,
    };
    assert_eq!(followed(&terrain, &unwritten, known)[0], second);
}

/// A node that stalled is back before whoever took its address over is heard of: the entry that is
/// seen is from its former life.
#[test]
fn entry_of_a_node_in_another_life_takes_nothing_from_the_candidates_that_live() {
    let mut terrain = terrain(&["a", "b", "c"]);
    let before = planned(&[all()], &terrain, &[]).segments;
    let [first, second, third] = &before[0].candidates[..] else {
        panic!("three nodes, three candidates")
    };
    terrain.set(&first.node, vec![reborn(&first.node, 2)]);
    for taken_over in [false, true] {
        let holdings = [holding(&first.node, 1, taken_over)];
        let known = Known {
            epoch: Epoch(1),
            segments: &before,
            holdings: &holdings,
        };
        let after = followed(&terrain, &before, known);
        assert_eq!(after[..2], [second.clone(), third.clone()]);
        assert_eq!(
            (&after[2].node, after[2].incarnation),
            (&first.node, Incarnation(2))
        );
    }
}

#[test]
fn plan_follows_a_holder_in_its_next_life_when_no_candidate_lives() {
    let mut terrain = terrain(&["a", "b", "c"]);
    let before = planned(&[all()], &terrain, &[]).segments;
    for candidate in &before[0].candidates {
        terrain.set(&candidate.node, vec![reborn(&candidate.node, 2)]);
    }
    let fresh = followed(&terrain, &before, Known::default())[0]
        .node
        .clone();
    for candidate in &before[0].candidates {
        let now = |taken_over| {
            let holdings = [holding(&candidate.node, 1, taken_over)];
            let known = Known {
                epoch: Epoch(1),
                segments: &before,
                holdings: &holdings,
            };
            followed(&terrain, &before, known).swap_remove(0)
        };
        let present_life = Candidate {
            node: candidate.node.clone(),
            incarnation: Incarnation(2),
        };
        assert_eq!(now(true), present_life);
        assert_eq!(now(false).node, fresh, "left from the life before");
    }
}

#[derive(Clone, Copy, Debug)]
enum Turn {
    Dies(usize),
    Returns(usize),
    /// What its `Speaker` object says reaches the controller.
    SpeakerSeen(usize),
    /// What the holder wrote reaches the controller.
    EntrySeen,
}

/// Speakers that elect among themselves, and a controller that hears of it late and in any order.
struct Lan {
    nodes: Vec<NodeName>,
    lives: Vec<(u64, bool)>,
    terrain: Terrain,
    epoch: u64,
    plan: Vec<VipSegment>,
    entry: Option<Holding>,
}

impl Lan {
    fn new(count: usize) -> Self {
        let names = &["a", "b", "c", "d", "e"][..count];
        let terrain = terrain(names);
        Self {
            nodes: names.iter().map(|name| NodeName::from(*name)).collect(),
            lives: vec![(1, true); count],
            plan: planned(&[all()], &terrain, &[]).segments,
            terrain,
            epoch: 1,
            entry: None,
        }
    }

    fn lives(&self, candidate: &Candidate) -> bool {
        let place = self.nodes.iter().position(|node| *node == candidate.node);
        place.is_some_and(|place| self.lives[place] == (candidate.incarnation.0, true))
    }

    /// The place of the first live candidate.
    fn elected(&self) -> Option<usize> {
        self.plan[0].candidates.iter().position(|c| self.lives(c))
    }

    fn holder(&self) -> Option<Candidate> {
        Some(self.plan[0].candidates[self.elected()?].clone())
    }

    fn turn(&mut self, turn: Turn) {
        match turn {
            Turn::Dies(place) => {
                let before = self.lives[place];
                self.lives[place].1 = false;
                if self.elected().is_none() {
                    self.lives[place] = before;
                }
            }
            Turn::Returns(place) => {
                let (life, alive) = &mut self.lives[place];
                *life += u64::from(!*alive);
                *alive = true;
            }
            Turn::SpeakerSeen(place) => {
                let node = self.nodes[place].clone();
                let spot = reborn(&node, self.lives[place].0);
                self.terrain.set(&node, vec![spot]);
            }
            Turn::EntrySeen => {
                let holder = self.holder().expect("somebody lives");
                let taken_over = self.elected() != Some(0);
                self.entry = Some(holding(&holder.node, self.epoch, taken_over));
            }
        }
    }

    /// Whether there is another plan.
    fn replan(&mut self) -> bool {
        let holdings: Vec<Holding> = self.entry.iter().cloned().collect();
        let seen = Known {
            epoch: Epoch(self.epoch),
            segments: &self.plan,
            holdings: &holdings,
        };
        let present = known(&self.plan, seen);
        let memory = Memory::default();
        let next = plan(ip(VIP), &[all()], &self.terrain, present, memory.ledger());
        let changed = next.segments != self.plan;
        self.plan = next.segments;
        self.epoch += u64::from(changed);
        changed
    }
}

fn turn() -> impl proptest::strategy::Strategy<Value = Turn> {
    use proptest::prelude::*;
    prop_oneof![
        2 => (0..5_usize).prop_map(Turn::Dies),
        2 => (0..5_usize).prop_map(Turn::Returns),
        3 => (0..5_usize).prop_map(Turn::SpeakerSeen),
        3 => Just(Turn::EntrySeen),
    ]
}

proptest::proptest! {
    #[test]
    fn planner_never_takes_an_address_from_who_lives_and_comes_to_rest(
        count in 2..=5_usize,
        turns in proptest::collection::vec(turn(), 1..60),
    ) {
        let mut lan = Lan::new(count);
        for turn in turns {
            match turn {
                Turn::Dies(place) | Turn::Returns(place) | Turn::SpeakerSeen(place)
                    if place >= count => {}
                turn => lan.turn(turn),
            }
            let holder = lan.holder();
            lan.replan();
            proptest::prop_assert_eq!(lan.holder(), holder);
        }
        let holder = lan.holder();
        for place in 0..count {
            lan.turn(Turn::SpeakerSeen(place));
            lan.replan();
        }
        for _ in 0..3 {
            lan.turn(Turn::EntrySeen);
            lan.replan();
        }
        proptest::prop_assert!(!lan.replan());
        proptest::prop_assert_eq!(Some(&lan.plan[0].candidates[0]), holder.as_ref());
    }
}

#[test]
fn advertisements_unite_and_each_binds_its_nodes_to_its_interfaces() {
    let mut terrain = terrain(&["a", "b", "c"]);
    for node in ["a", "b", "c"] {
        let second = Spot {
            interface: "eth1".into(),
            ..spot(node, "other")
        };
        terrain.set(&node.into(), vec![spot(node, "lan"), second]);
    }
    let mut on_a = advertisement("on-a");
    on_a.node_selectors = vec![Selector::label("node", "a")];
    on_a.interfaces = vec![InterfacePattern("eth0".into())];
    let mut on_b = advertisement("on-b");
    on_b.node_selectors = vec![Selector::label("node", "b")];
    let plan = planned(&[listed(&[&on_a, &on_b])], &terrain, &[]);
    let by_segment: BTreeMap<&str, BTreeSet<&str>> = plan
        .segments
        .iter()
        .map(|segment| {
            let nodes = segment.candidates.iter().map(|c| c.node.as_str()).collect();
            (segment.name.as_str(), nodes)
        })
        .collect();
    let expected = [("lan", ["a", "b"].into()), ("other", ["b"].into())];
    assert_eq!(by_segment, BTreeMap::from(expected));
}

#[test]
fn sharers_are_announced_where_all_of_them_may_be() {
    let terrain = terrain(&["a", "b", "c"]);
    let only = |nodes: &[&str]| Rules {
        only: Some(nodes.iter().map(|node| NodeName::from(*node)).collect()),
        ..all()
    };
    let both = planned(&[only(&["a", "b"]), only(&["b", "c"])], &terrain, &[]);
    assert_eq!(names(&both), ["b"]);
    let none = planned(&[only(&["a"]), only(&["c"])], &terrain, &[]);
    assert_eq!((none.segments.len(), none.eligible), (0, false));
}

#[test]
fn preferred_nodes_come_first_by_the_sum_of_weights() {
    let terrain = terrain(&["a", "b", "c", "d", "e"]);
    let mut preferring = advertisement("p");
    for (weight, node) in [(10, "c"), (5, "e"), (6, "e")] {
        preferring.preferred_nodes.push(WeightedSelector {
            weight,
            preference: Selector::label("node", node),
        });
    }
    let plan = planned(&[listed(&[&preferring])], &terrain, &[]);
    assert_eq!(names(&plan)[..2], ["e", "c"]);
}
