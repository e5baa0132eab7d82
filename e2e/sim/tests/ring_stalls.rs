//! The observer ring where speakers wake late, again and again: a death is known within a bound,
//! and nobody alive is declared dead.
#![expect(
    clippy::print_stdout,
    reason = "seeds and times, shown when a test fails"
)]

use std::time::Duration;

use herald_ring::{Profile, Scope};
use herald_sim::ring::{Loss, What, World, millis};

/// Stops as seen of threads without real-time priority on a machine with too little CPU.
const STOPS: [Duration; 2] = [millis(25), millis(60)];
const RUNS: [Duration; 2] = [millis(50), millis(200)];

#[derive(Clone, Copy, Debug)]
enum Trouble {
    /// It stops again and again, whatever it does.
    StopsOften,
    /// Whenever it is to wake, it is late by up to so much.
    WakesLate(Duration),
}

impl Trouble {
    fn befalls(self, world: &mut World, node: usize) {
        match self {
            Self::StopsOften => world.stall_often(node, STOPS, RUNS),
            Self::WakesLate(most) => world.wake_late(node, most),
        }
    }

    /// How late it wakes at most.
    fn most(self) -> Duration {
        match self {
            Self::StopsOften => STOPS[1],
            Self::WakesLate(most) => most,
        }
    }
}

/// What docs/observer-ring.md promises.
fn bound(profile: Profile, late: Duration) -> Duration {
    profile.vote_after() + profile.suspect_after() + late * 4
}

fn world(nodes: usize, profile: Profile, seed: u64) -> World {
    println!("seed {seed}");
    let mut world = World::new(nodes, profile, seed);
    world.run(profile.heartbeat() * 40 + millis(2_000));
    world
}

/// When all others knew the last node dead, and how dead they took it for. Every other seed, its
/// kernel lives on.
fn death(world: &mut World, nodes: usize, frozen: bool) -> (Duration, Vec<Scope>) {
    let phase = millis(300).mul_f64(world.lan.draw());
    world.run(millis(1_000) + phase);
    world.records.clear();
    let (victim, died) = (nodes - 1, world.now());
    if frozen {
        world.pause(victim, millis(60_000));
    } else {
        world.kill(victim);
    }
    world.run(millis(4_000));
    let mut latest = Duration::ZERO;
    let mut scopes = Vec::new();
    for node in 0..victim {
        let downs = world.records.iter().filter_map(|record| match record.what {
            What::Down {
                victim: it, scope, ..
            } if (record.node, it) == (node, victim) => Some((record.at, scope)),
            _ => None,
        });
        let downs: Vec<_> = downs.collect();
        assert!(!downs.is_empty(), "node {node} never knew");
        latest = latest.max(downs[0].0.saturating_since(died));
        scopes.extend(downs.iter().map(|(_, scope)| *scope));
    }
    (latest, scopes)
}

/// Deaths, each life once.
fn deaths(world: &World) -> usize {
    let downs = world.records.iter().filter_map(|record| match record.what {
        What::Down {
            victim,
            incarnation,
            ..
        } => Some((victim, incarnation)),
        _ => None,
    });
    let mut downs: Vec<_> = downs.collect();
    downs.sort_unstable();
    downs.dedup();
    downs.len()
}

fn stalls(world: &World, nodes: usize) -> u64 {
    (0..nodes)
        .map(|node| world.ring_of(node).counters().stalls)
        .sum()
}

#[test]
fn a_death_among_three_is_known_in_time_though_observers_wake_late() {
    for profile in [Profile::Fast, Profile::Default] {
        for troubled in [1, 2] {
            for trouble in [
                Trouble::StopsOften,
                Trouble::WakesLate(millis(20)),
                Trouble::WakesLate(millis(60)),
                Trouble::WakesLate(millis(100)),
            ] {
                let (mut worst, mut late) = (Duration::ZERO, 0);
                for seed in 0..100 {
                    let mut world = world(3, profile, seed);
                    for node in 0..troubled {
                        trouble.befalls(&mut world, node);
                    }
                    let frozen = seed % 2 == 0;
                    let (time, scopes) = death(&mut world, 3, frozen);
                    assert!(!frozen || !scopes.contains(&Scope::Node), "{scopes:?}");
                    assert!(frozen || scopes.contains(&Scope::Node), "{scopes:?}");
                    worst = worst.max(time);
                    late += stalls(&world, troubled);
                }
                println!("{profile:?}, {troubled} with {trouble:?}: {worst:?}");
                assert!(worst <= bound(profile, trouble.most()));
                assert!(late > 0 || trouble.most() <= millis(40));
            }
        }
    }
}

#[test]
fn a_death_is_known_in_time_though_all_others_of_ten_stop_often_and_datagrams_get_lost() {
    for loss in [Loss::None, Loss::Independent(0.05)] {
        let mut worst = Duration::ZERO;
        for seed in 0..40 {
            let mut world = world(10, Profile::Default, seed);
            world.lan.loss = loss;
            for node in 0..9 {
                Trouble::StopsOften.befalls(&mut world, node);
            }
            let (time, _) = death(&mut world, 10, false);
            worst = worst.max(time);
        }
        println!("{loss:?}: {worst:?}");
        assert!(worst <= bound(Profile::Default, STOPS[1]));
    }
}

#[test]
fn the_second_of_two_is_declared_dead_in_time_where_a_witness_answers() {
    for trouble in [Trouble::StopsOften, Trouble::WakesLate(millis(60))] {
        let mut worst = Duration::ZERO;
        for seed in 0..100 {
            let mut world = world(2, Profile::Fast, seed);
            world.lan.witness = Some(0);
            trouble.befalls(&mut world, 0);
            let (time, _) = death(&mut world, 2, seed % 2 == 0);
            worst = worst.max(time);
        }
        println!("{trouble:?}: {worst:?}");
        assert!(worst <= bound(Profile::Fast, trouble.most()));
    }
}

#[test]
fn nobody_alive_is_declared_dead_though_all_wake_late() {
    for (profile, losses) in [
        (Profile::Fast, &[Loss::None][..]),
        (
            Profile::Default,
            &[Loss::None, Loss::Independent(0.05), Loss::Bursty(0.05)],
        ),
    ] {
        for (nodes, loss) in losses.iter().flat_map(|loss| [(3, loss), (10, loss)]) {
            for trouble in [Trouble::StopsOften, Trouble::WakesLate(millis(60))] {
                let mut world = world(nodes, profile, 1);
                for node in 0..nodes {
                    trouble.befalls(&mut world, node);
                }
                world.lan.loss = *loss;
                world.run(millis(600_000));
                println!("{profile:?}, {nodes} nodes, {loss:?}, {trouble:?}");
                assert_eq!(deaths(&world), 0);
                assert!(stalls(&world, nodes) > 100);
            }
        }
    }
}

#[test]
fn pauses_of_everybody_kill_nobody_however_often_they_come() {
    for (pause, run) in [(60, 40), (100, 30), (105, 200), (300, 200), (2_000, 500)] {
        for seed in 0..5 {
            let mut world = world(3, Profile::Fast, seed);
            let before = stalls(&world, 3);
            for _ in 0..200 {
                for node in 0..3 {
                    let phase = millis(10).mul_f64(world.lan.draw());
                    world.pause(node, millis(pause) + phase);
                }
                world.run(millis(pause + run));
            }
            println!("{pause} ms, every {} ms", pause + run);
            assert_eq!(deaths(&world), 0);
            assert!(stalls(&world, 3) > before + 300);
        }
    }
}

#[test]
fn a_pause_of_everybody_kills_nobody_though_all_stop_often() {
    for seed in 0..40 {
        let mut world = world(3, Profile::Fast, seed);
        for node in 0..3 {
            Trouble::StopsOften.befalls(&mut world, node);
        }
        world.run(millis(1_000));
        for node in 0..3 {
            let phase = millis(10).mul_f64(world.lan.draw());
            world.pause(node, millis(300) + phase);
        }
        world.run(millis(3_000));
        assert_eq!(deaths(&world), 0);
    }
}
