//! The observer ring under pauses, partitions, returns, replays, and a changing key.
#![expect(
    clippy::print_stdout,
    reason = "seeds and times, shown when a test fails"
)]

use herald_model::Incarnation;
use herald_ring::{Effect, Input, Keys, Profile, RaiseReason, Scope};
use herald_sim::ring::{What, World, key, millis};

fn world(nodes: usize, seed: u64) -> World {
    println!("seed {seed}");
    let mut world = World::new(nodes, Profile::Fast, seed);
    world.run(millis(5_000));
    world.records.clear();
    world
}

/// Who declared whom dead, each pair once, sorted.
fn deaths(world: &World) -> Vec<(usize, usize)> {
    let down = |what: &What| match what {
        What::Down { victim, .. } => Some(*victim),
        _ => None,
    };
    let pairs = world.records.iter();
    let mut pairs: Vec<_> = pairs
        .filter_map(|record| down(&record.what).map(|victim| (record.node, victim)))
        .collect();
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

/// What a node's ring said of the node itself.
fn of_itself(world: &World, node: usize) -> Vec<Effect> {
    let own = world.records.iter().filter(|record| record.node == node);
    own.filter_map(|record| match &record.what {
        What::Other(Effect::QuorumChanged { .. } | Effect::HoldHeard(_)) => None,
        What::Other(effect) => Some(effect.clone()),
        _ => None,
    })
    .collect()
}

fn raised(incarnation: u64, reason: RaiseReason) -> Effect {
    Effect::IncarnationRaised {
        incarnation: Incarnation(incarnation),
        reason,
    }
}

/// All that are on one side know each other up, and all others down.
fn assert_knows_exactly(world: &World, nodes: usize, alive: &[usize]) {
    for node in alive {
        let known: Vec<usize> = (0..nodes)
            .filter(|other| world.knows_up(*node, *other))
            .collect();
        assert_eq!(known, alive, "as node {node} sees it");
    }
}

/// Parts the nodes, the first so many on one side, the rest on the other.
fn split(world: &mut World, parts: [usize; 2]) {
    let [first, second] = parts;
    world.lan.sides = [vec![0; first], vec![1; second]].concat();
}

fn heal(world: &mut World) {
    world.lan.sides.fill(0);
}

#[test]
fn a_pause_of_everybody_kills_nobody_and_all_answer_again_once_confirmed() {
    for seed in 0..20 {
        let mut world = world(3, seed);
        for node in 0..3 {
            let phase = millis(10).mul_f64(world.lan.draw());
            world.pause(node, millis(300) + phase);
        }
        world.run(millis(2_000));
        assert_eq!(deaths(&world), []);
        for node in 0..3 {
            let said = of_itself(&world, node);
            assert!(
                matches!(said[..], [Effect::Silenced { .. }, Effect::Confirmed]),
                "{said:?}"
            );
        }
    }
}

#[test]
fn a_pause_of_a_hundred_kills_nobody() {
    let mut world = world(100, 1);
    for node in 0..100 {
        world.pause(node, millis(300));
    }
    world.run(millis(3_000));
    assert_eq!(deaths(&world), []);
}

#[test]
fn a_short_pause_of_one_kills_it_not() {
    for seed in 0..10 {
        let mut world = world(3, seed);
        world.pause(1, millis(90));
        world.run(millis(2_000));
        assert_eq!(deaths(&world), []);
        assert_eq!(of_itself(&world, 1), []);
    }
}

#[test]
fn a_long_pause_of_one_ends_its_life_as_a_speaker_and_begins_another() {
    for seed in 0..10 {
        let mut world = world(3, seed);
        world.pause(1, millis(400));
        world.run(millis(390));
        assert_eq!(deaths(&world), [(0, 1), (2, 1)]);
        let scopes = world.records.iter().filter_map(|record| match record.what {
            What::Down { scope, .. } => Some(scope),
            _ => None,
        });
        assert!(scopes.into_iter().all(|scope| scope == Scope::Speaker));
        world.run(millis(2_000));
        let said = of_itself(&world, 1);
        assert!(matches!(said[0], Effect::Silenced { .. }), "{said:?}");
        assert_eq!(said[1..], [raised(2, RaiseReason::Certified)]);
        assert_knows_exactly(&world, 3, &[0, 1, 2]);
        assert_eq!(deaths(&world), [(0, 1), (2, 1)]);
    }
}

#[test]
fn a_speaker_killed_and_its_node_lost_later_are_certified_one_after_the_other() {
    let mut world = world(10, 2);
    world.kill_speaker(4);
    world.run(millis(1_000));
    world.kill(4);
    world.run(millis(1_000));
    for node in (0..10).filter(|node| *node != 4) {
        let scopes: Vec<Scope> = world
            .records
            .iter()
            .filter(|record| record.node == node)
            .filter_map(|record| match record.what {
                What::Down {
                    victim: 4, scope, ..
                } => Some(scope),
                _ => None,
            })
            .collect();
        assert_eq!(scopes, [Scope::Speaker, Scope::Node], "node {node}");
    }
}

#[test]
fn a_speaker_that_restarts_at_once_is_not_missed() {
    let mut world = world(5, 3);
    world.kill_speaker(2);
    world.run(millis(80));
    let members = world.members(5);
    world.start(2, Incarnation(1), &members);
    world.run(millis(3_000));
    assert_eq!(deaths(&world), []);
    assert_eq!(of_itself(&world, 2), []);
}

#[test]
fn a_node_that_returns_in_a_life_that_is_over_begins_a_new_one() {
    let mut world = world(10, 4);
    world.kill(7);
    world.run(millis(2_000));
    let members = world.members(10);
    world.start(7, Incarnation(1), &members);
    world.run(millis(2_000));
    assert_eq!(of_itself(&world, 7), [raised(2, RaiseReason::Certified)]);
    let all: Vec<usize> = (0..10).collect();
    assert_knows_exactly(&world, 10, &all);
    for node in 0..10 {
        let name = world.members(10)[7].node.clone();
        assert_eq!(world.ring_of(node).live(&name), Some(Incarnation(2)));
    }
}

#[test]
fn a_node_that_forgot_its_lives_learns_from_the_others() {
    let mut world = world(5, 5);
    let mut members = world.members(5);
    members[2].incarnation = Incarnation(8);
    world.kill_speaker(2);
    world.start(2, Incarnation(8), &members);
    for node in 0..5 {
        world.tell(node, Input::MembersChanged(&members));
    }
    world.run(millis(1_000));
    world.records.clear();
    // It loses its disk, and the API is away.
    let old = world.members(5);
    world.start(2, Incarnation(1), &old);
    world.run(millis(1_000));
    assert_eq!(of_itself(&world, 2), [raised(9, RaiseReason::Behind)]);
    assert_knows_exactly(&world, 5, &[0, 1, 2, 3, 4]);
}

fn part_a_hundred(sizes: impl Iterator<Item = usize>) {
    for small in sizes {
        let mut world = World::new(100, Profile::Fast, u64::try_from(small).unwrap_or(0));
        world.run(millis(3_000));
        world.records.clear();
        split(&mut world, [100 - small, small]);
        world.run(millis(2_000));
        let large: Vec<usize> = (0..100 - small).collect();
        assert_knows_exactly(&world, 100, &large);
        assert!(deaths(&world).iter().all(|(who, _)| large.contains(who)));
        heal(&mut world);
        world.run(millis(2_500));
        let all: Vec<usize> = (0..100).collect();
        assert_knows_exactly(&world, 100, &all);
        for node in 0..100 {
            let expected = if large.contains(&node) {
                vec![]
            } else {
                vec![raised(2, RaiseReason::Certified)]
            };
            assert_eq!(of_itself(&world, node), expected, "node {node}");
        }
    }
}

#[test]
fn the_larger_side_of_a_partition_declares_the_smaller_dead_and_never_the_reverse() {
    part_a_hundred((1..50).step_by(2));
}

/// At the same time as the others.
#[test]
fn the_larger_side_of_a_partition_declares_an_even_number_dead_and_never_the_reverse() {
    part_a_hundred((2..50).step_by(2));
}

#[test]
fn two_equal_sides_declare_nobody_dead_unless_one_has_the_witness() {
    for nodes in [2, 4, 10, 100] {
        let mut world = world(nodes, 6);
        split(&mut world, [nodes / 2, nodes / 2]);
        world.run(millis(3_000));
        assert_eq!(deaths(&world), [], "{nodes} nodes");
        heal(&mut world);
        world.run(millis(1_000));
        assert!((0..nodes).all(|node| of_itself(&world, node).is_empty()));
        assert!((0..nodes).all(|node| world.ring_of(node).has_quorum()));

        world.lan.witness = Some(0);
        split(&mut world, [nodes / 2, nodes / 2]);
        world.run(millis(5_000));
        let with_witness: Vec<usize> = (0..nodes / 2).collect();
        assert_knows_exactly(&world, nodes, &with_witness);
        assert!(
            deaths(&world)
                .iter()
                .all(|(who, _)| with_witness.contains(who))
        );
        heal(&mut world);
        world.run(millis(3_000));
        let all: Vec<usize> = (0..nodes).collect();
        assert_knows_exactly(&world, nodes, &all);
    }
}

#[test]
fn three_nodes_dwindle_to_one_in_sequence() {
    for witness in [None, Some(0)] {
        let mut world = world(3, 7);
        world.lan.witness = witness;
        world.kill(1);
        world.run(millis(200));
        assert_eq!(deaths(&world), [(0, 1), (2, 1)]);
        world.run(millis(1_000));
        world.records.clear();
        world.kill(2);
        world.run(millis(200));
        // The last one has exactly half of the last view, so it needs the witness, at once.
        let expected: &[(usize, usize)] = if witness.is_some() { &[(0, 2)] } else { &[] };
        assert_eq!(deaths(&world), expected);
        world.run(millis(5_000));
        assert_eq!(deaths(&world), expected);
        assert_eq!(of_itself(&world, 0), []);
    }
}

#[test]
fn three_nodes_become_one_at_once() {
    for (witness, after, expected) in [
        (None, 5_000, &[][..]),
        (Some(0), 1_100, &[]),
        (Some(0), 1_300, &[(0, 1), (0, 2)]),
    ] {
        let mut world = world(3, 8);
        world.lan.witness = witness;
        world.kill(1);
        world.kill(2);
        world.run(millis(after));
        assert_eq!(deaths(&world), expected, "after {after} ms");
    }
}

#[test]
fn two_speakers_killed_one_after_the_other_are_taken_for_speakers_while_their_kernels_answer() {
    for profile in [Profile::Fast, Profile::Default, Profile::Slow] {
        for seed in 0..40 {
            println!("{profile:?}, seed {seed}");
            let mut world = World::new(3, profile, seed);
            world.lan.witness = Some(0);
            world.run(millis(10_000));
            world.records.clear();
            world.kill_speaker(1);
            world.run(millis(10) * u32::try_from(seed).unwrap());
            world.kill_speaker(2);
            world.run(millis(10_000));
            assert_knows_exactly(&world, 3, &[0]);
            let mut scopes = world.records.iter().filter_map(|record| match record.what {
                What::Down { scope, .. } => Some(scope),
                _ => None,
            });
            assert!(scopes.all(|scope| scope == Scope::Speaker));
        }
    }
}

#[test]
fn what_was_said_of_a_life_and_taken_back_is_not_believed_later() {
    for (seed, [first, second]) in (0..20).flat_map(|it| [(it, [1, 2]), (it, [2, 1])]) {
        let mut world = world(3, seed);
        world.lan.witness = Some(0);
        // The one that is left declares both dead by itself, and gives in when both are back.
        world.kill_speaker(1);
        world.kill_speaker(2);
        world.run(millis(3_000));
        assert_knows_exactly(&world, 3, &[0]);
        let members = world.members(3);
        for node in [first, second] {
            world.start(node, Incarnation(1), &members);
            world.run(millis(10));
        }
        world.run(millis(1_500));
        assert_knows_exactly(&world, 3, &[0, 1, 2]);
        world.records.clear();

        world.tell(first, Input::SteppedDown);
        world.run(millis(50));
        world.kill_speaker(first);
        world.run(millis(5_000));
        for node in [0, second] {
            assert_eq!(of_itself(&world, node), [], "of node {node} itself");
        }
        assert!(!world.knows_up(0, first) && !world.knows_up(second, first));
    }
}

#[test]
fn the_second_of_two_is_declared_dead_at_once_where_a_witness_answers() {
    for seed in 0..20 {
        let mut world = world(2, seed);
        world.lan.witness = Some(0);
        world.kill(1);
        world.run(millis(160));
        assert_eq!(deaths(&world), [(0, 1)]);
    }
}

#[test]
fn one_node_alone_has_quorum() {
    let mut world = World::new(1, Profile::Fast, 9);
    world.run(millis(100));
    assert!(world.ring_of(0).has_quorum());
    world.pause(0, millis(1_000));
    world.run(millis(1_100));
    assert!(matches!(
        of_itself(&world, 0)[..],
        [Effect::Silenced { .. }, Effect::Confirmed]
    ));
}

#[test]
fn a_certificate_that_some_missed_reaches_them_through_heartbeats() {
    let mut world = world(100, 10);
    // Ten are cut off while the certificate and all its repetitions are sent.
    world.kill(50);
    world.run(millis(90));
    split(&mut world, [90, 10]);
    world.run(millis(105));
    heal(&mut world);
    world.run(millis(90));
    let late: Vec<usize> = (90..100).filter(|node| world.knows_up(*node, 50)).collect();
    println!("late: {late:?}");
    world.run(millis(700));
    let alive: Vec<usize> = (0..100).filter(|node| *node != 50).collect();
    assert_knows_exactly(&world, 100, &alive);
}

#[test]
fn a_new_life_of_a_neighbour_missed_in_a_cut_is_learnt_afterwards() {
    let mut world = world(20, 11);
    split(&mut world, [19, 1]);
    world.tell(3, Input::SteppedDown);
    world.run(millis(1_500));
    heal(&mut world);
    world.run(millis(3_000));
    let all: Vec<usize> = (0..20).collect();
    assert_knows_exactly(&world, 20, &all);
    let name = world.members(20)[3].node.clone();
    for node in 0..20 {
        assert_eq!(world.ring_of(node).live(&name), Some(Incarnation(2)));
    }
}

#[test]
fn an_old_recording_revives_nobody() {
    let mut world = world(5, 12);
    world.tape = Some(Vec::new());
    world.run(millis(1_000));
    let tape = world.tape.take().unwrap();
    world.kill(2);
    world.run(millis(1_000));
    assert_eq!(deaths(&world).len(), 4);
    world.records.clear();
    let before: Vec<_> = (0..5).map(|node| world.ring_of(node).counters()).collect();
    for (to, packet) in &tape {
        world.inject(*to, packet);
    }
    world.run(millis(1_000));
    assert_knows_exactly(&world, 5, &[0, 1, 3, 4]);
    assert!(world.records.is_empty(), "{:?}", world.records);
    for node in [0, 1, 3, 4] {
        let counters = world.ring_of(node).counters();
        assert!(counters.replayed > before[node].replayed);
    }
    // Nor does it where one starts afresh, and knows nobody yet.
    let members = world.members(5);
    world.start(1, Incarnation(1), &members);
    for (to, packet) in tape.iter().filter(|(to, _)| *to == 1) {
        world.inject(*to, packet);
        world.run(millis(2));
    }
    world.run(millis(4_000));
    assert!(!world.knows_up(1, 2));
}

#[test]
fn a_key_is_replaced_while_nothing_is_missed() {
    let mut world = world(10, 13);
    let both = |send, also| {
        Some(Keys {
            send: key(send),
            also: Some(key(also)),
        })
    };
    let steps = [both(1, 2), both(2, 1), Some(Keys::only(key(2)))];
    for keys in steps {
        for node in 0..10 {
            world.tell(node, Input::KeysChanged(keys));
            world.run(millis(170)); // Each in its own time.
        }
    }
    world.run(millis(1_000));
    assert_eq!(deaths(&world), []);
    for node in 0..10 {
        assert_eq!(of_itself(&world, node), []);
        assert_eq!(world.ring_of(node).counters().unknown_key, 0);
    }
}

#[test]
fn without_a_key_nothing_is_said_or_believed_and_with_it_all_goes_on() {
    let mut world = world(4, 14);
    world.tell(1, Input::KeysChanged(None));
    let sent = world.ring_of(1).counters().sent;
    world.run(millis(2_000));
    assert_eq!(world.ring_of(1).counters().sent, sent);
    assert_eq!(deaths(&world), [(0, 1), (2, 1), (3, 1)]);
    world.tell(1, Input::KeysChanged(Some(Keys::only(key(1)))));
    world.run(millis(1_000));
    assert_eq!(of_itself(&world, 1), [raised(2, RaiseReason::Certified)]);
    assert_knows_exactly(&world, 4, &[0, 1, 2, 3]);
}

#[test]
fn a_member_that_leaves_is_forgotten_and_one_that_joins_is_watched() {
    let mut world = world(6, 15);
    let members = world.members(6);
    world.kill(5);
    for node in 0..5 {
        world.tell(node, Input::MembersChanged(&members[..5]));
    }
    world.run(millis(3_000));
    assert_eq!(deaths(&world), []);
    assert_knows_exactly(&world, 6, &[0, 1, 2, 3, 4]);
    // It comes back, and the watches of the others lag behind each other.
    world.start(5, Incarnation(2), &members);
    for node in 0..5 {
        world.run(millis(300));
        world.tell(node, Input::MembersChanged(&members));
    }
    world.run(millis(3_000));
    assert_eq!(deaths(&world), []);
    assert_knows_exactly(&world, 6, &[0, 1, 2, 3, 4, 5]);
    world.kill(5);
    world.run(millis(200));
    assert_eq!(deaths(&world), [(0, 5), (1, 5), (2, 5), (3, 5), (4, 5)]);
}

#[test]
fn the_whole_cluster_restarts_in_a_new_life() {
    let mut world = world(20, 16);
    let members = world.members(20);
    for node in 0..20 {
        world.kill(node);
    }
    world.run(millis(10_000));
    for node in 0..20 {
        world.start(node, Incarnation(2), &members);
        world.run(millis(40));
    }
    world.run(millis(4_000));
    assert_eq!(deaths(&world), []);
    for node in 0..20 {
        for member in &members {
            let live = world.ring_of(node).live(&member.node);
            assert_eq!(live, Some(Incarnation(2)), "{} at {node}", member.node);
        }
        assert!(world.ring_of(node).has_quorum());
    }
}

#[test]
fn the_stopwatch_says_when_it_was_last_heard_suspected_and_certified() {
    let mut world = world(10, 17);
    let killed = world.now();
    world.kill(3);
    world.run(millis(500));
    let mut seen = 0;
    for record in &world.records {
        if let What::Down { timeline, .. } = &record.what {
            seen += 1;
            assert_eq!(timeline.certified, record.at);
            assert!(timeline.last_heartbeat <= killed + millis(1));
            assert!(killed.saturating_since(timeline.last_heartbeat) <= millis(52));
            let suspicion = timeline.suspected.saturating_since(timeline.last_heartbeat);
            assert!(suspicion >= millis(110) && suspicion < millis(112));
        }
    }
    assert_eq!(seen, 9);
}
