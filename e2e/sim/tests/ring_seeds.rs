//! Random faults, one after the other: in the end all that are alive know exactly each other.
//! A failure prints its seed; `RING_SEED=n cargo test -p herald-sim --test ring_seeds` repeats it,
//! told in full, and `RING_SEEDS=n` runs so many.
#![expect(clippy::print_stdout, reason = "a story is told when it fails")]

use std::panic::catch_unwind;
use std::time::Duration;

use herald_model::Incarnation;
use herald_ring::{Effect, Input, Profile};
use herald_sim::ring::{Loss, What, World, millis};

const SEEDS: u64 = 300;

/// A cluster and what is left of it.
struct Story {
    world: World,
    nodes: usize,
    alive: Vec<bool>,
    /// The last life of each that its disk remembers.
    lives: Vec<Incarnation>,
}

impl Story {
    fn begin(seed: u64) -> Self {
        let nodes = 2 + usize::try_from(seed % 11).unwrap_or(0);
        let mut world = World::new(nodes, Profile::Fast, seed);
        world.run(millis(4_000));
        world.lan.witness = seed.is_multiple_of(2).then_some(0);
        world.lan.loss = match seed % 3 {
            0 => Loss::None,
            1 => Loss::Independent(0.05),
            _ => Loss::Bursty(0.02),
        };
        Self {
            world,
            nodes,
            alive: vec![true; nodes],
            lives: vec![Incarnation(1); nodes],
        }
    }

    fn up_to(&mut self, limit: Duration) -> Duration {
        limit.mul_f64(self.world.lan.draw())
    }

    fn fault(&mut self) {
        let node = self.world.lan.below(self.nodes);
        let fault = self.world.lan.below(7);
        match fault {
            0 if self.alive[node] => {
                self.world.kill(node);
                self.alive[node] = false;
            }
            1 if self.alive[node] => {
                self.world.kill_speaker(node);
                self.alive[node] = false;
            }
            2 if self.alive[node] => {
                let time = self.up_to(millis(600));
                self.world.pause(node, time);
                self.world.run(time);
            }
            3 => {
                for other in 0..self.nodes {
                    self.world.lan.sides[other] = u8::from(self.world.lan.below(2) == 1);
                }
            }
            4 => self.world.lan.sides.fill(0),
            5 if !self.alive[node] => {
                let life = self.world.ring_of(node).incarnation();
                self.lives[node] = life.max(self.lives[node]);
                let forgets = self.world.lan.below(2) == 0;
                let life = if forgets {
                    Incarnation(1)
                } else {
                    self.lives[node]
                };
                let members = self.world.members(self.nodes);
                self.world.start(node, life, &members);
                self.alive[node] = true;
            }
            _ if self.alive[node] => self.world.tell(node, Input::SteppedDown),
            _ => {}
        }
        println!(
            "{:?}: fault {fault} of node {node}, sides {:?}",
            self.world.now(),
            self.world.lan.sides
        );
        let time = self.up_to(millis(1_500));
        self.world.run(time);
    }

    fn end(&mut self) {
        self.world.lan.sides.fill(0);
        self.world.lan.loss = Loss::None;
        self.world.lan.witness = Some(0);
        self.world.run(millis(8_000));
        for record in &self.world.records {
            println!("{record:?}");
        }
        let living: Vec<usize> = (0..self.nodes).filter(|node| self.alive[*node]).collect();
        for node in &living {
            let ring = self.world.ring_of(*node);
            let known: Vec<usize> = (0..self.nodes)
                .filter(|other| self.world.knows_up(*node, *other))
                .collect();
            assert_eq!(known, living, "as node {node} sees it");
            for other in &living {
                let name = &self.world.members(self.nodes)[*other].node;
                let life = self.world.ring_of(*other).incarnation();
                assert_eq!(ring.live(name), Some(life), "node {node} of node {other}");
            }
        }
        // And it stays so.
        self.world.records.clear();
        self.world.run(millis(2_000));
        let mut said = self.world.records.iter();
        let quorum = |what: &What| matches!(what, What::Other(Effect::QuorumChanged { .. }));
        assert_eq!(said.find(|record| !quorum(&record.what)), None);
    }
}

#[test]
fn all_that_are_alive_know_each_other_after_any_story() {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let tell = |seed| {
        let mut story = Story::begin(seed);
        for _ in 0..6 {
            story.fault();
        }
        story.end();
    };
    if let Some(seed) = number("RING_SEED") {
        return tell(seed);
    }
    let seeds = 0..number("RING_SEEDS").unwrap_or(SEEDS);
    let failed: Vec<u64> = seeds
        .filter(|seed| catch_unwind(|| tell(*seed)).is_err())
        .collect();
    assert!(failed.is_empty(), "RING_SEED fails with each of {failed:?}");
}
