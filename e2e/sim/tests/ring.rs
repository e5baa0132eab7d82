//! The observer ring on a model LAN: how soon deaths are known, and that none are made up.
#![expect(
    clippy::print_stdout,
    reason = "seeds and times, shown when a test fails"
)]

use herald_ring::Profile;
use herald_sim::ring::{Detection, Loss, World, detection, false_alarms, millis};

/// Each test draws everything from a seed of its own, which it prints.
fn world(nodes: usize, seed: u64) -> World {
    println!("seed {seed}");
    let mut world = World::new(nodes, Profile::Fast, seed);
    world.run(millis(4_000));
    world
}

fn assert_detected(result: &Detection, p99: u64, max: u64) {
    println!(
        "p50 {:?} p99 {:?} max {:?} of {}, missed {}",
        result.percentile(0.5),
        result.percentile(0.99),
        result.percentile(1.0),
        result.times.len(),
        result.missed
    );
    assert_eq!(result.missed, 0);
    assert!(!result.times.is_empty());
    assert!(result.percentile(0.99) <= millis(p99));
    assert!(result.percentile(1.0) <= millis(max));
}

#[test]
fn a_death_among_three_is_known_within_3_2_heartbeats() {
    let (mut times, mut missed) = (Vec::new(), 0);
    for seed in 0..200 {
        let mut world = World::new(3, Profile::Fast, seed);
        world.run(millis(4_000));
        let result = detection(&mut world, 3, 1, 1, millis(1_000));
        times.extend(result.times);
        missed += result.missed;
    }
    times.sort_unstable();
    assert_detected(&Detection { times, missed }, 160, 175);
}

#[test]
fn a_death_among_ten_is_known_within_3_2_heartbeats() {
    let (mut times, mut missed) = (Vec::new(), 0);
    for seed in 0..60 {
        let mut world = World::new(10, Profile::Fast, seed);
        world.run(millis(4_000));
        let result = detection(&mut world, 10, 1, 3, millis(1_000));
        times.extend(result.times);
        missed += result.missed;
    }
    times.sort_unstable();
    assert_detected(&Detection { times, missed }, 160, 175);
}

#[test]
fn a_death_among_a_hundred_is_known_within_3_2_heartbeats() {
    let mut world = world(100, 3);
    let result = detection(&mut world, 100, 1, 25, millis(1_000));
    assert_detected(&result, 160, 175);
}

#[test]
fn a_death_among_a_thousand_is_known_within_3_2_heartbeats() {
    let mut world = world(1_000, 4);
    let result = detection(&mut world, 1_000, 1, 5, millis(1_000));
    assert_detected(&result, 160, 175);
}

#[test]
fn deaths_are_known_in_the_slower_profiles_as_well() {
    for (profile, p99) in [(Profile::Default, 320), (Profile::Slow, 1_260)] {
        let mut world = World::new(10, profile, 5);
        world.run(millis(10_000));
        let result = detection(&mut world, 10, 1, 4, millis(6_000));
        assert_detected(&result, p99, p99);
    }
}

#[test]
fn a_death_under_loss_is_known_to_everybody() {
    for (loss, max) in [(Loss::Independent(0.05), 400), (Loss::Bursty(0.05), 1_500)] {
        let mut world = world(100, 6);
        world.lan.loss = loss;
        let result = detection(&mut world, 100, 1, 10, millis(2_500));
        assert_detected(&result, 250, max);
    }
}

#[test]
fn ten_of_a_hundred_may_die_at_once() {
    let result = detection(&mut world(100, 7), 100, 10, 1, millis(2_000));
    assert_detected(&result, 350, 500);
}

#[test]
fn thirty_of_a_hundred_may_die_at_once() {
    let result = detection(&mut world(100, 8), 100, 30, 1, millis(3_000));
    assert_detected(&result, 600, 900);
}

#[test]
fn nobody_alive_is_declared_dead_under_five_percent_of_independent_loss() {
    let alarms = false_alarms(100, Profile::Fast, Loss::Independent(0.05), 6.0, 9);
    println!("{alarms:?}");
    assert_eq!(alarms.certificates, 0);
    assert!(alarms.sent_per_second < 70.0);
}

#[test]
fn nobody_alive_is_declared_dead_under_five_percent_of_bursty_loss() {
    let alarms = false_alarms(100, Profile::Fast, Loss::Bursty(0.05), 6.0, 10);
    println!("{alarms:?}");
    assert_eq!(alarms.certificates, 0);
    assert!(alarms.sent_per_second < 80.0);
}

#[test]
fn nobody_alive_is_declared_dead_among_three_either() {
    for loss in [Loss::Independent(0.05), Loss::Bursty(0.05)] {
        let alarms = false_alarms(3, Profile::Fast, loss, 3.0, 11);
        println!("{alarms:?}");
        assert_eq!(alarms.certificates, 0);
    }
}
