//! What the ingress program costs by the number of flows: printed, not judged, as machines differ.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use herald_dataplane::Forwarding;
use herald_model::{Protocol, ServiceKey};
use herald_speaker::io::bpf::DEFAULT_FLOWS;

use crate::bench::{Bench, DIRECT_PORT, desired};
use crate::frame::{Frame, PORT};
use crate::turns::{Turn, Turns};

const FLOWS: [u32; 4] = [1, 1 << 10, 1 << 16, 1 << 20];
const ROUNDS: usize = 3;

#[test]
fn every_flow_is_sent_on_and_its_cost_is_told() -> Result<()> {
    for direct in [true, false] {
        let mut wish = desired();
        for vip in wish.vips.values_mut() {
            let is_wanted = |it: &Forwarding| matches!(it, Forwarding::Dsr { .. }) == direct;
            vip.services.retain(|it| is_wanted(&it.forwarding));
        }
        measure(direct, Bench::with(wish, DEFAULT_FLOWS)?)?;
    }
    Ok(())
}

fn measure(direct: bool, mut bench: Bench) -> Result<()> {
    let port = if direct { DIRECT_PORT } else { PORT };
    let id = bench.program()?.service_ids[&ServiceKey::new("default", format!("s{port}"))];
    let mut layouts = fs::read_dir(bench.lan.bpf_folder()?)?;
    let pins = layouts.next().context("no maps")??.path();
    let mut turns = Turns::load(&pins)?;
    let mut frame = Frame::v4(Protocol::Tcp);
    frame.to.1 = port;
    frame.hops = 255;
    frame.syn = false;
    let frame = frame.bytes();

    let mut told = Vec::new();
    let mut sent = 0;
    // With nodeport the ports towards a target are limited.
    let counts = FLOWS
        .into_iter()
        .filter(|&flows| direct || flows <= 1 << 16);
    for flows in counts {
        let turn = Turn {
            frame: &frame,
            flows,
            services: 1,
            goes_up: false,
        };
        let host = &bench.lan.hosts[0];
        let own = turns.cost(host, turn, true)?;
        // The first round meets new flows.
        turns.cost(host, turn, false)?;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let time = turns.cost(host, turn, false)?;
            times.push(time.saturating_sub(own).as_nanos());
        }
        sent += u64::from(turn.runs()) * (ROUNDS as u64 + 1);
        times.sort_unstable();
        let (least, median) = (times[0], times[ROUNDS / 2]);
        told.push(format!(
            "{flows} flows {least}/{median} (+ {})",
            own.as_nanos()
        ));
    }
    let mode = if direct { "dsr" } else { "nodeport" };
    println!(
        "{mode}, least/median ns (+ what the measurement itself takes): {}",
        told.join(", ")
    );
    let counted = bench.data_plane.counters()?.services[&id].packets;
    ensure!(counted == sent, "{counted} sent on of {sent}");
    Ok(())
}
