//! Random faults, one after the other: in the end all that are alive know exactly each other.
//! A failure prints its seed; `RING_SEED=n cargo test -p herald-sim --test ring_seeds` repeats it,
//! and `RING_SEEDS=n` runs so many.
#![expect(
    clippy::print_stdout,
    reason = "seeds and times, shown when a test fails"
)]

use herald_model::Incarnation;
use herald_ring::{Effect, Input, Profile};
use herald_sim::ring::{Loss, What, World, millis};

const SEEDS: u64 = 300;

/// One story of faults.
fn story(seed: u64) {
    let mut world = World::new(2 + usize::try_from(seed % 11).unwrap(), Profile::Fast, seed);
    let nodes = world.lan.sides.len();
    let mut alive = vec![true; nodes];
    let mut life = vec![1; nodes];
    world.run(millis(4_000));
    world.lan.witness = (seed % 2 == 0).then_some(0);
    world.lan.loss = match seed % 3 {
        0 => Loss::None,
        1 => Loss::Independent(0.05),
        _ => Loss::Bursty(0.02),
    };
    for _ in 0..6 {
        let node = world.lan.below(nodes);
        let fault = world.lan.below(7);
        if std::env::var("RING_SEED").is_ok() {
            println!(
                "{:?}: fault {fault} of node {node}, sides {:?}",
                world.now(),
                world.lan.sides
            );
        }
        match fault {
            0 if alive[node] => {
                world.kill(node);
                alive[node] = false;
            }
            1 if alive[node] => {
                world.kill_speaker(node);
                alive[node] = false;
            }
            2 if alive[node] => {
                let time = millis(u64::try_from(world.lan.below(600)).unwrap());
                world.pause(node, time);
                world.run(time);
            }
            3 => {
                for side in 0..nodes {
                    world.lan.sides[side] = u8::try_from(world.lan.below(2)).unwrap();
                }
            }
            4 => world.lan.sides.fill(0),
            5 if !alive[node] => {
                // Its disk remembers its life, or it has lost it.
                life[node] = own_life(&world, node, life[node]);
                let forgets = world.lan.below(2) == 0;
                let members = world.members(nodes);
                world.start(
                    node,
                    Incarnation(if forgets { 1 } else { life[node] }),
                    &members,
                );
                alive[node] = true;
            }
            _ => {
                if alive[node] {
                    world.tell(node, Input::SteppedDown);
                }
            }
        }
        let time = millis(u64::try_from(world.lan.below(1_500)).unwrap());
        world.run(time);
    }
    world.lan.sides.fill(0);
    world.lan.loss = Loss::None;
    world.lan.witness = Some(0);
    world.run(millis(8_000));
    if std::env::var("RING_SEED").is_ok() {
        for record in &world.records {
            println!("{record:?}");
        }
        for node in 0..nodes {
            println!(
                "{node}: {:?} {:?}",
                world.ring_of(node).incarnation(),
                world.ring_of(node).counters()
            );
        }
    }
    let living: Vec<usize> = (0..nodes).filter(|node| alive[*node]).collect();
    for node in &living {
        let known: Vec<usize> = (0..nodes)
            .filter(|other| world.knows_up(*node, *other))
            .collect();
        assert_eq!(known, living, "as node {node} sees it");
        for other in &living {
            let name = &world.members(nodes)[*other].node;
            assert_eq!(
                world.ring_of(*node).live(name),
                Some(world.ring_of(*other).incarnation()),
                "node {node} of node {other}"
            );
        }
    }
    // And it stays so.
    world.records.clear();
    world.run(millis(2_000));
    let said = world.records.iter().find(|record| {
        !matches!(
            record.what,
            What::Other(Effect::QuorumChanged { .. } | Effect::PeerReported { .. })
        )
    });
    assert_eq!(said, None);
}

fn own_life(world: &World, node: usize, before: u64) -> u64 {
    world.ring_of(node).incarnation().0.max(before)
}

#[test]
fn all_that_are_alive_know_each_other_after_any_story() {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let seeds = match number("RING_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("RING_SEEDS").unwrap_or(SEEDS),
    };
    let mut failed = Vec::new();
    for seed in seeds {
        let result = std::panic::catch_unwind(|| story(seed));
        if result.is_err() {
            failed.push(seed);
        }
    }
    assert!(failed.is_empty(), "RING_SEED fails with each of {failed:?}");
}
