//! What the ingress program costs: printed, not judged, as machines differ.

use anyhow::{Result, ensure};
use herald_model::{Protocol, ServiceKey};

use crate::bench::{Bench, DIRECT_PORT, desired};
use crate::frame::Frame;

/// As many as a frame has hops for.
const RUNS: u32 = 250;
const ROUNDS: usize = 200;

/// Least and median over the rounds, each the mean over its runs.
fn cost(bench: &mut Bench, frame: &[u8], runs: u32) -> Result<String> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let data_plane = &mut bench.data_plane;
        let time = bench.lan.hosts[0].run(|| Ok(data_plane.time_ingress(frame, runs)?))?;
        times.push(time.as_nanos());
    }
    times.sort_unstable();
    Ok(format!("{}/{}", times[0], times[ROUNDS / 2]))
}

#[test]
fn every_run_sends_on_and_its_cost_is_told() -> Result<()> {
    let mut bench = Bench::new()?;
    for plain in [Frame::v4(Protocol::Tcp), Frame::v6(Protocol::Tcp)] {
        let family = if plain.from.0.is_ipv4() { 4 } else { 6 };
        let mut frame = plain.clone();
        frame.hops = 255;
        frame.syn = false;
        // A run changes the packet, so the next would not be one of nodeport: one at a time.
        let node_port = cost(&mut bench, &frame.bytes(), 1)?;
        frame.to.1 = DIRECT_PORT;
        let mixed = cost(&mut bench, &frame.bytes(), RUNS)?;

        // Without anything of nodeport, ever: no flow is asked for.
        let mut wish = desired();
        for vip in wish.vips.values_mut() {
            vip.services.retain(|service| service.port >= DIRECT_PORT);
        }
        let mut alone = Bench::with(wish, 1_024)?;
        let compiled = alone.program()?;
        let id = compiled.service_ids[&ServiceKey::new("default", format!("s{DIRECT_PORT}"))];
        let direct = cost(&mut alone, &frame.bytes(), RUNS)?;
        let single = cost(&mut alone, &frame.bytes(), 1)?;
        let mut foreign = plain.clone();
        foreign.to.0 = foreign.from.0;
        let none = cost(&mut alone, &foreign.bytes(), RUNS)?;
        // Of this the program sees no more than that it is not IP: what the measurement itself costs.
        let mut other = plain.bytes();
        other[12..14].copy_from_slice(&[0x88, 0xb5]);
        let empty = cost(&mut alone, &other, RUNS)?;
        println!(
            "IPv{family}, least/median ns, of which {empty} are the measurement's: not for us {none}; \
             dsr {direct}, beside nodeport on the same address {mixed}; run once: dsr {single}, nodeport {node_port}"
        );
        let expected = u64::from(RUNS + 1) * u64::try_from(ROUNDS)?;
        let sent = alone.data_plane.counters()?.services[&id].packets;
        ensure!(sent == expected, "{sent} sent on of {expected}");
    }
    Ok(())
}
