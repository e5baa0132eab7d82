//! What is measured: how soon a death is known, and how often one is made up.

use std::time::Duration;

use herald_ring::{Effect, Profile};

use super::lan::Loss;
use super::world::{Record, What, World, millis};

/// How soon survivors knew.
#[derive(Clone, Debug)]
pub struct Detection {
    /// For each survivor and victim, sorted.
    pub times: Vec<Duration>,
    /// Survivors and victims for which it was not known in time.
    pub missed: usize,
}

impl Detection {
    /// The time within which this share of them knew.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        clippy::cast_sign_loss,
        reason = "a share of a count is a count"
    )]
    pub fn percentile(&self, share: f64) -> Duration {
        let last = self.times.len().saturating_sub(1);
        self.times
            .get((last as f64 * share).ceil() as usize)
            .copied()
            .unwrap_or_default()
    }
}

/// Kills nodes, `at_once` at a time, `rounds` times, each time waiting so long, and notes when each
/// survivor knew. The dead stay dead.
pub fn detection(
    world: &mut World,
    nodes: usize,
    at_once: usize,
    rounds: usize,
    wait: Duration,
) -> Detection {
    let mut dead = vec![false; nodes];
    let mut times = Vec::new();
    let mut missed = 0;
    for _ in 0..rounds {
        let phase = millis(300).mul_f64(world.lan.draw());
        world.run(millis(1_000) + phase);
        world.records.clear();
        let mut victims = Vec::new();
        while victims.len() < at_once {
            let victim = world.lan.below(nodes);
            if !dead[victim] {
                dead[victim] = true;
                victims.push(victim);
                world.kill(victim);
            }
        }
        let killed = world.now();
        world.run(wait);
        for victim in &victims {
            let mut known = vec![None; nodes];
            for record in &world.records {
                if matches!(&record.what, What::Down { victim: it, .. } if it == victim) {
                    known[record.node].get_or_insert_with(|| record.at.saturating_since(killed));
                }
            }
            for (node, at) in known.into_iter().enumerate() {
                match at {
                    _ if dead[node] => {}
                    Some(at) => times.push(at),
                    None => missed += 1,
                }
            }
        }
    }
    times.sort_unstable();
    Detection { times, missed }
}

/// What went wrong while nothing had happened.
#[derive(Clone, Debug, Default)]
pub struct FalseAlarms {
    /// Lives declared over that were not: each counted once for all who believed it.
    pub certificates: usize,
    /// Datagrams sent by a node in a second.
    pub sent_per_second: f64,
    /// Their bytes, with 42 bytes of headers each.
    pub bytes_per_second: f64,
    /// Suspicions by a node in an hour.
    pub suspicions_per_hour: f64,
    /// Votes by a node in an hour.
    pub votes_per_hour: f64,
}

/// Lets healthy nodes run under loss for so many hours of all together.
#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub fn false_alarms(
    nodes: usize,
    profile: Profile,
    loss: Loss,
    node_hours: f64,
    seed: u64,
) -> FalseAlarms {
    let mut world = World::new(nodes, profile, seed);
    world.run(millis(3_000));
    world.lan.loss = loss;
    let before = sums(&world, nodes);
    let time = Duration::from_secs_f64(node_hours * 3_600.0 / nodes as f64);
    world.records.clear();
    world.run(time);
    let after = sums(&world, nodes);
    let is_alarm =
        |record: &&Record| matches!(&record.what, What::Other(Effect::IncarnationRaised { .. }));
    let raised = world.records.iter().filter(is_alarm).count();
    let mut downs: Vec<_> = world
        .records
        .iter()
        .filter_map(|record| match &record.what {
            What::Down {
                victim,
                incarnation,
                ..
            } => Some((*victim, *incarnation)),
            _ => None,
        })
        .collect();
    downs.sort_unstable();
    downs.dedup();
    let per = |count: u64, seconds: f64| count as f64 / nodes as f64 / seconds;
    let seconds = time.as_secs_f64();
    let [sent, bytes, suspicions, votes] =
        std::array::from_fn(|which| after[which] - before[which]);
    FalseAlarms {
        certificates: downs.len().max(raised),
        sent_per_second: per(sent, seconds),
        bytes_per_second: per(bytes + 42 * sent, seconds),
        suspicions_per_hour: per(suspicions, seconds / 3_600.0),
        votes_per_hour: per(votes, seconds / 3_600.0),
    }
}

fn sums(world: &World, nodes: usize) -> [u64; 4] {
    (0..nodes).fold([0; 4], |sums, node| {
        let counters = world.ring_of(node).counters();
        let each = [
            counters.sent,
            counters.sent_bytes,
            counters.suspicions,
            counters.votes,
        ];
        std::array::from_fn(|which| sums[which] + each[which])
    })
}
