//! Nodes that are about to go, moves that were decided on, and nodes that fell.

use super::*;

fn change(terrain: &mut Terrain, node: &str, change: impl FnOnce(&mut Spot)) {
    let mut changed = spot(node, "lan");
    change(&mut changed);
    terrain.set(&node.into(), vec![changed]);
}

fn depart(terrain: &mut Terrain, node: &str) {
    change(terrain, node, |spot| spot.departs = true);
}

#[test]
fn a_node_that_is_about_to_go_goes_last_and_gets_nothing_back_when_it_stays() {
    let mut terrain = terrain(&["a", "b", "c"]);
    let before = planned(&[all()], &terrain, &[]);
    let [first, second, third] = names(&before)[..] else {
        panic!("three nodes, three candidates")
    };
    depart(&mut terrain, first);
    let after = planned(&[all()], &terrain, &before.segments);
    assert_eq!(names(&after), [second, third, first]);
    assert!(after.short, "another node would take the last place");
    assert_eq!(after, planned(&[all()], &terrain, &after.segments));

    terrain.set(&first.into(), vec![spot(first, "lan")]);
    let stays = planned(&[all()], &terrain, &after.segments);
    assert_eq!(names(&stays), [second, third, first]);
}

#[test]
fn a_node_that_is_about_to_go_gives_any_place_to_one_that_stays() {
    let mut terrain = terrain(&["a", "b", "c", "d"]);
    let before = planned(&[all()], &terrain, &[]);
    let [first, second, third] = names(&before)[..] else {
        panic!("four nodes, three candidates")
    };
    depart(&mut terrain, second);
    let after = planned(&[all()], &terrain, &before.segments);
    assert_eq!(names(&after)[..2], [first, third]);
    assert!(!names(&after).contains(&second) && !after.short);
}

#[test]
fn nothing_changes_when_every_node_is_about_to_go_until_one_comes_that_stays() {
    let mut terrain = terrain(&["a", "b", "c"]);
    let before = planned(&[all()], &terrain, &[]);
    for node in ["a", "b", "c"] {
        depart(&mut terrain, node);
    }
    let after = planned(&[all()], &terrain, &before.segments);
    assert_eq!(after.segments, before.segments);
    assert!(after.eligible, "they announce as before");
    assert!(after.short, "whoever comes is to be looked at");
    terrain.set(&"d".into(), vec![spot("d", "lan")]);
    let new = planned(&[all()], &terrain, &after.segments);
    assert_eq!(names(&new)[0], "d");
    assert_eq!(names(&new)[1..], names(&before)[..2]);
}

#[test]
fn a_node_that_is_about_to_go_keeps_what_only_one_that_seems_dead_could_take() {
    let mut terrain = terrain(&["a", "b"]);
    let before = planned(&[all()], &terrain, &[]);
    let [first, second] = names(&before)[..] else {
        panic!("two nodes, two candidates")
    };
    depart(&mut terrain, first);
    change(&mut terrain, second, |spot| spot.seems_alive = false);
    let after = planned(&[all()], &terrain, &before.segments);
    assert_eq!(after.segments, before.segments);
}

#[test]
fn what_leaves_a_node_goes_to_none_that_seems_dead_or_fell_while_there_is_another() {
    let names_of = ["a", "b", "c", "d"];
    let mut terrain = terrain(&names_of);
    let before = planned(&[all()], &terrain, &[]);
    let [first, second, third] = names(&before)[..] else {
        panic!("four nodes, three candidates")
    };
    let fourth = names_of
        .into_iter()
        .find(|node| !names(&before).contains(node));
    depart(&mut terrain, first);
    change(&mut terrain, second, |spot| spot.seems_alive = false);
    let after = planned(&[all()], &terrain, &before.segments);
    assert_eq!(names(&after)[0], third);

    let mut memory = Memory::default();
    let life = Incarnation(0);
    memory
        .falls
        .fell(Instant::ORIGIN, &"lan".into(), &third.into(), life);
    let present = known(&before.segments, Known::default());
    let after = plan(ip(VIP), &[all()], &terrain, present, memory.ledger());
    assert_eq!(Some(names(&after)[0]), fourth);
    assert_eq!(names(&after)[1], third, "held down is better than dead");
}

#[test]
fn new_addresses_go_to_nodes_that_stay_and_did_not_fall() {
    let mut terrain = terrain(&["a", "b", "c", "d"]);
    let fresh = planned(&[all()], &terrain, &[]);
    let first = names(&fresh)[0].to_owned();
    let second = names(&fresh)[1].to_owned();
    depart(&mut terrain, &first);
    let mut memory = Memory::default();
    let node = second.as_str().into();
    memory
        .falls
        .fell(Instant::ORIGIN, &"lan".into(), &node, Incarnation(0));
    let present = known(&[], Known::default());
    let after = plan(ip(VIP), &[all()], &terrain, present, memory.ledger());
    assert!(!names(&after)[..2].contains(&first.as_str()), "{after:?}");
    assert!(!names(&after)[..2].contains(&second.as_str()), "{after:?}");
    assert_eq!(names(&after)[2], second);

    // Of those that fell and those that go, one that fell is better off.
    for node in ["a", "b", "c", "d"] {
        if node != second {
            depart(&mut terrain, node);
        }
    }
    let present = known(&[], Known::default());
    let after = plan(ip(VIP), &[all()], &terrain, present, memory.ledger());
    assert_eq!(names(&after)[0], second);
}

/// The first candidates after a move was decided on, with what the API server has and shows.
fn moved(
    terrain: &Terrain,
    present: &[VipSegment],
    seen: Known<'_>,
    from: &str,
    to: &str,
) -> Vec<String> {
    let decided = Move {
        from: from.into(),
        to: to.into(),
    };
    let moves = BTreeMap::from([("lan".into(), decided)]);
    let present = Present {
        segments: present,
        known: seen,
        moves: &moves,
    };
    let planned = plan(
        ip(VIP),
        &[all()],
        terrain,
        present,
        Memory::default().ledger(),
    );
    assert_eq!(planned.taken_from, [], "a move is no takeover");
    names(&planned).into_iter().map(str::to_owned).collect()
}

#[test]
fn a_move_is_planned_until_the_api_server_has_it_unless_something_happens_meanwhile() {
    let names_of = ["a", "b", "c", "d"];
    let mut terrain = terrain(&names_of);
    let before = planned(&[all()], &terrain, &[]).segments;
    let [first, second, third] = &before[0].candidates[..] else {
        panic!("four nodes, three candidates")
    };
    let planned_before = [first, second, third].map(|c| c.node.as_str());
    let fourth = names_of
        .into_iter()
        .find(|node| !planned_before.contains(node))
        .unwrap();
    let holdings = [holding(&first.node, 1, false)];
    let seen = Known {
        epoch: Epoch(1),
        segments: &before,
        holdings: &holdings,
    };
    let [first, second, third] = planned_before;
    assert_eq!(
        moved(&terrain, &before, seen, first, fourth),
        [fourth, first, second]
    );
    assert_eq!(
        moved(&terrain, &before, seen, first, second),
        [second, first, third]
    );
    let mut unwritten = before.clone();
    unwritten[0].candidates.swap(0, 1);
    assert_eq!(
        moved(&terrain, &unwritten, seen, first, second),
        [second, first, third],
        "the holder under the known plan takes nothing back"
    );
    assert_eq!(
        moved(&terrain, &before, seen, third, fourth),
        [first, second, third],
        "another is the first by now"
    );
    depart(&mut terrain, fourth);
    assert_eq!(
        moved(&terrain, &before, seen, first, fourth),
        [first, second, third],
        "it is about to go by now"
    );
}

#[test]
fn a_takeover_is_told_of_once() {
    let terrain = terrain(&["a", "b", "c"]);
    let before = planned(&[all()], &terrain, &[]).segments;
    let second = before[0].candidates[1].clone();
    let holdings = [holding(&second.node, 1, true)];
    let seen = Known {
        epoch: Epoch(1),
        segments: &before,
        holdings: &holdings,
    };
    let memory = Memory::default();
    let present = known(&before, seen);
    let after = plan(ip(VIP), &[all()], &terrain, present, memory.ledger());
    let fallen = before[0].candidates[0].clone();
    assert_eq!(after.taken_from, [("lan".into(), fallen)]);
    let present = known(&after.segments, seen);
    let again = plan(ip(VIP), &[all()], &terrain, present, memory.ledger());
    assert_eq!(
        (&again.segments, &again.taken_from[..]),
        (&after.segments, &[][..])
    );
}

#[test]
fn places_are_the_nodes_that_may_are_well_and_stay() {
    let mut terrain = terrain(&["a", "b", "c", "d", "e"]);
    change(&mut terrain, "a", |spot| spot.fits = false);
    change(&mut terrain, "b", |spot| spot.seems_alive = false);
    depart(&mut terrain, "c");
    let mut memory = Memory::default();
    memory
        .falls
        .fell(Instant::ORIGIN, &"lan".into(), &"d".into(), Incarnation(0));
    let mut preferring = advertisement("p");
    preferring.preferred_nodes.push(WeightedSelector {
        weight: 7,
        preference: Selector::label("node", "e"),
    });
    let rules = [listed(&[&preferring])];
    let expected = [("d", 0, false), ("e", 7, true)]
        .map(|(node, preference, is_open)| (node.to_owned(), preference, is_open));
    let got: Vec<_> = places(&rules, &terrain, &"lan".into(), memory.ledger())
        .into_iter()
        .map(|place| (place.node.to_string(), place.preference, place.is_open))
        .collect();
    assert_eq!(got, expected);
}
