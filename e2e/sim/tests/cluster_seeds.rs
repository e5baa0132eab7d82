//! The whole cluster under random faults: as many of these seeds as fit in a short time; the binary
//! `cluster-sim` runs a thousand.

use std::time::{Duration, Instant};

use herald_sim::cluster::tell;

const TIME: Duration = Duration::from_secs(15);
const SEEDS: u64 = 1_000;

#[test]
fn addresses_are_held_by_one_node_each_whatever_befalls_the_cluster() {
    let begun = Instant::now();
    for seed in 0..SEEDS {
        if begun.elapsed() > TIME {
            assert!(seed > 0, "not one seed in {TIME:?}");
            return;
        }
        let end = tell(seed, false);
        assert_eq!(
            end.wrong, None,
            "cargo run -p herald-sim --bin cluster-sim -- --seed {seed} --trace"
        );
    }
}

#[test]
fn seed_tells_the_same_story_every_time() {
    for seed in [3, 44] {
        let (one, other) = (tell(seed, true).trace, tell(seed, true).trace);
        assert!(one.len() > 100, "nothing happened");
        assert!(one == other, "seed {seed}");
    }
}
