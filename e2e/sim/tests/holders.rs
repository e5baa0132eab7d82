//! Who is to hold an address after every way in which nodes can be lost or parted: the whole speaker
//! core of every node on a model LAN, mostly while the API server is away.

use herald_sim::cluster::Cluster;
use herald_sim::ring::millis;

/// A cluster, and the nodes planned for its first address.
fn cluster(nodes: usize, seed: u64) -> (Cluster, Vec<usize>) {
    let cluster = Cluster::new(nodes, 1, seed);
    let candidates = cluster.candidates(0);
    assert_eq!(candidates.len(), nodes.min(3));
    assert_eq!(cluster.holders(0), candidates[..1]);
    (cluster, candidates)
}

fn sorted(mut nodes: Vec<usize>) -> Vec<usize> {
    nodes.sort_unstable();
    nodes
}

fn lives(cluster: &mut Cluster, nodes: &[usize]) -> Vec<Option<u64>> {
    nodes.iter().map(|node| cluster.life(*node)).collect()
}

/// Parts so many nodes from the rest and the API server and lets them return; the holder is among
/// them or not.
fn part(cluster: &mut Cluster, nodes: usize, small: usize, with_holder: bool) {
    let planned = cluster.candidates(0);
    let what = format!("{small} of {nodes}, with the holder: {with_holder}");
    assert_eq!(cluster.holders(0), planned[..1], "before {what}");
    let rest = (0..nodes).filter(|node| !planned.contains(node));
    let holder = with_holder.then_some(planned[0]);
    let cut: Vec<usize> = holder.into_iter().chain(rest).take(small).collect();
    assert_eq!(cut.len(), small);
    let before = lives(cluster, &cut);
    let is_taken_over = with_holder && small * 2 < nodes;

    cluster.part(&cut);
    cluster.run(millis(1_000));
    // The holder on the smaller side goes on: keeping needs nothing.
    let holders = if is_taken_over {
        sorted(planned[..2].to_vec())
    } else {
        vec![planned[0]]
    };
    assert_eq!(cluster.holders(0), holders, "{what}");

    cluster.part(&[]);
    cluster.run(millis(1_000));
    let holder = planned[usize::from(is_taken_over)];
    assert_eq!(cluster.holders(0), [holder], "after {what}");
    let after = lives(cluster, &cut);
    // Who was on the smaller side is in another life, if there was a larger one.
    let raised = after.iter().zip(&before).filter(|(it, was)| it > was);
    let expected = if small * 2 < nodes { small } else { 0 };
    assert_eq!(raised.count(), expected, "after {what}");
    // Plans follow.
    cluster.run(millis(3_000));
}

fn part_often(nodes: usize, sizes: impl IntoIterator<Item = usize>) {
    let mut cluster = Cluster::new(nodes, 1, 1);
    cluster.return_api();
    cluster.run(millis(2_000));
    for small in sizes {
        part(&mut cluster, nodes, small, false);
        part(&mut cluster, nodes, small, true);
    }
}

#[test]
fn after_a_partition_the_larger_side_holds_and_of_halves_who_held_before() {
    part_often(10, 1..=5);
    part_often(7, 1..=3);
}

/// `ring_faults.rs` has all other sizes, without the cores.
#[test]
fn after_a_partition_of_a_hundred_nodes_it_is_the_same() {
    part_often(100, [1, 25, 49, 50]);
}

#[test]
fn three_become_two_and_then_one() {
    for (witness, last) in [(None, false), (Some(0), true)] {
        for seed in 0..5 {
            let (mut cluster, candidates) = cluster(3, seed);
            cluster.set_witness(witness);
            cluster.cut_power(candidates[0]);
            cluster.run(millis(250));
            assert_eq!(cluster.holders(0), candidates[1..2]);
            cluster.run(millis(1_000));
            cluster.cut_power(candidates[1]);
            // Exactly half of the last view is left: with a witness, it takes over at once.
            cluster.run(millis(250));
            let holders: &[usize] = if last { &candidates[2..] } else { &[] };
            assert_eq!(cluster.holders(0), holders);
            cluster.run(millis(5_000));
            assert_eq!(cluster.holders(0), holders);
            // Who returns gets nothing back as long as another holds it.
            cluster.boot(candidates[0]);
            cluster.run(millis(6_000));
            if last {
                assert_eq!(cluster.holders(0), holders);
            } else {
                assert_eq!(cluster.holders(0).len(), 1, "two of two are a majority");
            }
        }
    }
}

#[test]
fn three_become_one_at_once() {
    for (witness, after, last) in [
        (None, 5_000, false),
        // Less than half is left: the witness has to answer for a second.
        (Some(0), 1_000, false),
        (Some(0), 1_400, true),
    ] {
        for seed in 0..5 {
            let (mut cluster, candidates) = cluster(3, seed);
            cluster.set_witness(witness);
            cluster.cut_power(candidates[0]);
            cluster.cut_power(candidates[1]);
            cluster.run(millis(after));
            let holders: &[usize] = if last { &candidates[2..] } else { &[] };
            assert_eq!(cluster.holders(0), holders, "after {after} ms");
        }
    }
}

#[test]
fn of_two_the_other_takes_over_only_where_a_witness_answers() {
    for (witness, taken) in [(None, false), (Some(0), true)] {
        for seed in 0..10 {
            let (mut cluster, candidates) = cluster(2, seed);
            cluster.set_witness(witness);
            cluster.cut_power(candidates[0]);
            cluster.run(millis(250));
            let holders: &[usize] = if taken { &candidates[1..] } else { &[] };
            assert_eq!(cluster.holders(0), holders);
            cluster.run(millis(5_000));
            assert_eq!(cluster.holders(0), holders);
            cluster.boot(candidates[0]);
            cluster.run(millis(6_000));
            // Two of two are a majority, and the plan names the other in its present life.
            assert_eq!(cluster.holders(0), candidates[1..]);
        }
    }
}

#[test]
fn of_two_that_are_parted_the_one_without_the_witness_gives_way_in_the_end() {
    for (witness, both) in [(None, false), (Some(0), true), (Some(1), false)] {
        for seed in 0..5 {
            let (mut cluster, candidates) = cluster(2, seed);
            cluster.set_witness(witness);
            cluster.part(&candidates[..1]);
            cluster.run(millis(2_000));
            let holders = if both {
                vec![0, 1]
            } else {
                vec![candidates[0]]
            };
            assert_eq!(cluster.holders(0), holders, "witness {witness:?}");
            cluster.part(&[]);
            cluster.run(millis(3_000));
            let holder = candidates[usize::from(both)];
            assert_eq!(cluster.holders(0), [holder], "witness {witness:?}");
        }
    }
}

/// Lets time pass, while never nobody and after a moment one alone holds the address.
fn hand_over(cluster: &mut Cluster, time: u64, within: u64) {
    for passed in 0..time {
        cluster.run(millis(1));
        let holders = cluster.holders(0);
        assert!(!holders.is_empty(), "after {passed} ms");
        assert!(
            holders.len() == 1 || passed < within,
            "{holders:?} after {passed} ms"
        );
    }
}

#[test]
fn a_speaker_that_is_asked_to_end_hands_over_at_once_without_the_api_server() {
    for (nodes, seed) in [(3, 1), (3, 2), (10, 3), (2, 4)] {
        let (mut cluster, candidates) = cluster(nodes, seed);
        cluster.stop(candidates[0]);
        hand_over(&mut cluster, 500, 20);
        assert_eq!(cluster.holders(0), candidates[1..2], "{nodes} nodes");
        // It ends, is found dead, begins anew, and gets nothing back.
        cluster.run(millis(3_000));
        assert_eq!(cluster.holders(0), candidates[1..2], "{nodes} nodes");
    }
}

#[test]
fn one_that_dies_before_it_has_taken_an_address_on_is_passed_over() {
    let (mut cluster, candidates) = cluster(3, 5);
    cluster.cut_power(candidates[1]);
    cluster.stop(candidates[0]);
    hand_over(&mut cluster, 1_500, 600);
    assert_eq!(cluster.holders(0), candidates[2..]);
}

#[test]
fn when_both_die_in_the_middle_of_it_the_third_takes_over() {
    let (mut cluster, candidates) = cluster(5, 6);
    cluster.stop(candidates[0]);
    cluster.cut_power(candidates[0]);
    cluster.cut_power(candidates[1]);
    cluster.run(millis(1_000));
    assert_eq!(cluster.holders(0), candidates[2..]);
}
