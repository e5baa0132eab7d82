//! What a ring costs one of many nodes: `cargo run --release -p herald-sim --bin ring-cost -- --nodes 1000`.
//!
//! Tags are `SipHash`, not HMAC-SHA256: the datagrams per second say what that adds.
#![expect(clippy::print_stdout, reason = "it prints figures")]

use std::time::Duration;

use herald_ring::Profile;
use herald_sim::ring::{Loss, World, millis};

const TIME: Duration = Duration::from_secs(10);

fn main() {
    let mut nodes = 1_000;
    let mut arguments = std::env::args().skip(1);
    while let (Some(name), Some(value)) = (arguments.next(), arguments.next()) {
        match name.as_str() {
            "--nodes" => nodes = value.parse().unwrap_or(nodes),
            _ => println!("unknown: {name}"),
        }
    }
    let before = resident_bytes();
    let mut world = World::new(nodes, Profile::Fast, 1);
    world.run(millis(6_000));
    println!(
        "memory: {} kB per ring, its part of the model LAN included",
        (resident_bytes() - before) / 1_024 / u64::try_from(nodes).unwrap_or(u64::MAX)
    );
    cost(&mut world, "at rest");
    world.lan.loss = Loss::Independent(0.05);
    cost(&mut world, "5 % of datagrams lost");
    world.lan.loss = Loss::None;
    for node in 1..=nodes / 10 {
        world.kill(node);
    }
    cost(&mut world, "every tenth node dies");
}

/// What node 0 does in the time to come.
fn cost(world: &mut World, when: &str) {
    let before = world.ring_of(0).counters();
    world.timed = Some((0, Duration::ZERO));
    world.run(TIME);
    let worked = world.timed.take().map_or(Duration::ZERO, |(_, time)| time);
    let after = world.ring_of(0).counters();
    let per_second = |count: u64| count / TIME.as_secs();
    let sent = after.sent - before.sent;
    println!(
        "{when}: {} datagrams/s and {} B/s sent with headers, {} datagrams/s received, {:.3} % of a processor",
        per_second(sent),
        per_second(after.sent_bytes - before.sent_bytes + 42 * sent),
        per_second(after.received - before.received),
        worked.as_secs_f64() / TIME.as_secs_f64() * 100.0,
    );
}

/// What this process has in memory, from the second field of statm, in pages.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|text| text.parse().ok());
    pages.unwrap_or(0_u64) * 4_096
}
