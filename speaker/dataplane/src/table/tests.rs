use std::collections::BTreeSet;
use std::net::SocketAddr;

use herald_model::NodeName;
use proptest::prelude::*;

use super::*;

fn targets(weights: &[u32]) -> BTreeMap<NodeName, (u32, char)> {
    ('a'..)
        .zip(weights)
        .map(|(letter, &weight)| (NodeName::from(format!("node-{letter}")), (weight, letter)))
        .collect()
}

fn letters(seed: u64, slots: u32, weights: &[u32]) -> String {
    fill(seed, slots, &targets(weights))
        .into_iter()
        .map(|slot| slot.unwrap_or('-'))
        .collect()
}

#[test]
fn tables_are_the_same_on_every_machine() {
    // From an independent implementation in Python, of which SipHash gave its paper's vector.
    assert_eq!(
        letters(42, 64, &[1, 2, 1]),
        "bccacbcbbbcccbabcbbabbbbacbbccbcbbcabbbaabbbbbbbaaabbbaabbababbc"
    );
    assert_eq!(
        letters(0xfedc_ba98_7654_3210, 64, &[1, 1, 1, 1]),
        "accbcaabadacbacbadccbcaccaacddccccadcbadcdbbcabacbbadddadddbbcbb"
    );
}

#[test]
fn tables_of_pods_are_the_same_on_every_machine() {
    let pods: BTreeMap<SocketAddr, (u32, char)> = [
        ("10.244.1.5:8080", 'a'),
        ("10.244.1.6:8080", 'b'),
        ("[fd00:10:244:1::7]:53", 'c'),
    ]
    .map(|(pod, letter)| (pod.parse().unwrap(), (1, letter)))
    .into();
    let names: BTreeMap<String, (u32, char)> = pods
        .iter()
        .map(|(pod, &target)| (pod.to_string(), target))
        .collect();
    assert_eq!(fill(42, 256, &pods), fill(42, 256, &names));
    assert!(names.contains_key("[fd00:10:244:1::7]:53"));
}

#[test]
fn table_without_targets_is_empty() {
    assert_eq!(letters(42, 4, &[]), "----");
    assert_eq!(letters(42, 4, &[0, 0]), "----");
}

#[test]
fn shares_follow_the_weights() {
    let table = letters(7, CLUSTER_SLOTS, &[1, 2, 5]);
    for (letter, eighths) in [('a', 1), ('b', 2), ('c', 5)] {
        let share = table.matches(letter).count() * 8;
        let ideal = CLUSTER_SLOTS as usize * eighths;
        assert!(
            share.abs_diff(ideal) * 20 < ideal,
            "{letter} has {share} of {ideal} eighths"
        );
    }
}

#[test]
fn tables_of_pods_grow_with_them() {
    let sizes: Vec<u32> = [1, 8, 9, 32, 33, 500].map(slots_for_pods).to_vec();
    assert_eq!(sizes, [256, 256, 1_024, 1_024, 4_096, 4_096]);
}

proptest! {
    #[test]
    fn removing_a_target_moves_only_its_own_slots(
        seed: u64,
        weights in prop::collection::vec(1_u32..5, 2..12),
        position: prop::sample::Index,
    ) {
        let before = targets(&weights);
        let (gone, (_, letter)) = before.iter().nth(position.index(before.len())).unwrap();
        let mut after = before.clone();
        after.remove(gone);
        let pairs = fill(seed, 256, &before).into_iter().zip(fill(seed, 256, &after));
        for (before, after) in pairs {
            prop_assert!(before == Some(*letter) || before == after);
            prop_assert!(after != Some(*letter));
        }
    }

    #[test]
    fn larger_weight_only_takes_slots(
        seed: u64,
        weights in prop::collection::vec(1_u32..5, 2..12),
        position: prop::sample::Index,
    ) {
        let mut more = weights.clone();
        let position = position.index(more.len());
        more[position] += 1;
        let letter = ('a'..).nth(position);
        let pairs = fill(seed, 256, &targets(&weights)).into_iter().zip(fill(seed, 256, &targets(&more)));
        for (before, after) in pairs {
            prop_assert!(before == after || after == letter);
        }
    }

    #[test]
    fn every_slot_has_a_target(seed: u64, weights in prop::collection::vec(1_u32..5, 1..12)) {
        let known: BTreeSet<char> = targets(&weights).values().map(|&(_, letter)| letter).collect();
        for slot in fill(seed, 256, &targets(&weights)) {
            prop_assert!(slot.is_some_and(|letter| known.contains(&letter)));
        }
    }
}
