//! Measures the ring at length: `cargo run --release -p herald-sim --bin ring-sim -- --node-hours 100`.
#![expect(clippy::print_stdout, reason = "it prints figures")]

use std::time::Duration;

use herald_ring::Profile;
use herald_sim::ring::{Loss, World, detection, false_alarms};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut node_hours = 10.0;
    let mut seed = 1;
    let mut nodes = 100;
    let mut only = String::new();
    while let (Some(name), Some(value)) = (arguments.next(), arguments.next()) {
        match name.as_str() {
            "--node-hours" => node_hours = value.parse().unwrap_or(node_hours),
            "--only" => only = value,
            "--nodes" => nodes = value.parse().unwrap_or(nodes),
            "--seed" => seed = value.parse().unwrap_or(seed),
            _ => println!("unknown: {name}"),
        }
    }
    println!("seed {seed}");
    if only != "false" {
        detect_all(seed);
    }
    for (name, loss) in [
        ("iid1", Loss::Independent(0.01)),
        ("iid5", Loss::Independent(0.05)),
        ("bursty1", Loss::Bursty(0.01)),
        ("bursty5", Loss::Bursty(0.05)),
    ] {
        let alarms = false_alarms(nodes, Profile::Fast, loss, node_hours, seed);
        println!(
            "loss {name}: {node_hours} node-hours, {:.1} datagrams/s and {:.0} B/s sent per node, \
             {:.1} suspicions and {:.4} votes per node-hour",
            alarms.sent_per_second,
            alarms.bytes_per_second,
            alarms.suspicions_per_hour,
            alarms.votes_per_hour,
        );
        figure(
            &format!("ring.false.{nodes}.{name}"),
            f64::from(u32::try_from(alarms.certificates).unwrap_or(u32::MAX)),
            "certificates",
            0.0,
        );
    }
}

fn detect_all(seed: u64) {
    for (name, profile) in [
        ("fast", Profile::Fast),
        ("default", Profile::Default),
        ("slow", Profile::Slow),
    ] {
        for nodes in [3, 10, 100, 1_000] {
            if nodes == 1_000 && name != "fast" {
                continue;
            }
            detect(name, profile, nodes, seed);
        }
    }
}

fn detect(name: &str, profile: Profile, nodes: usize, seed: u64) {
    let mut times = Vec::new();
    let mut missed = 0;
    let rounds = match nodes {
        3 => 300,
        10 => 60,
        100 => 6,
        _ => 1,
    };
    for round in 0..rounds {
        let mut world = World::new(nodes, profile, seed + round);
        world.run(profile.heartbeat() * 40 + Duration::from_secs(2));
        let victims = match nodes {
            3 => 1,
            10 => 2,
            _ => 20,
        };
        let result = detection(&mut world, nodes, 1, victims, profile.heartbeat() * 30);
        times.extend(result.times);
        missed += result.missed;
    }
    times.sort_unstable();
    let result = herald_sim::ring::Detection { times, missed };
    let beat = profile.heartbeat().as_secs_f64();
    println!(
        "detection {name} {nodes} nodes: p50 {:.1} p99 {:.1} max {:.1} ms, {} cases, {} missed",
        result.percentile(0.5).as_secs_f64() * 1e3,
        result.percentile(0.99).as_secs_f64() * 1e3,
        result.percentile(1.0).as_secs_f64() * 1e3,
        result.times.len(),
        result.missed
    );
    figure(
        &format!("ring.detection.{name}.{nodes}.p99"),
        result.percentile(0.99).as_secs_f64() / beat,
        "heartbeats",
        f64::from(profile.multiplier()) + 0.2,
    );
}

fn figure(name: &str, value: f64, unit: &str, target: f64) {
    let verdict = if value <= target { "ok" } else { "short" };
    println!("figure {name} {value:.2} {unit} target <= {target} {verdict}");
}
