//! What the ingress program costs by the number of flows: printed, not judged, as machines differ.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use aya::EbpfLoader;
use aya::maps::Array;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use herald_dataplane::Forwarding;
use herald_model::{Protocol, ServiceKey};
use herald_speaker::io::bpf::{DEFAULT_FLOWS, TestRun};

use crate::bench::{Bench, DIRECT_PORT, desired};
use crate::frame::{Frame, PORT};

const FLOWS: [u32; 4] = [1, 1 << 10, 1 << 16, 1 << 20];
/// Each flow at least once.
const LEAST_RUNS: u32 = 1 << 17;
const ROUNDS: usize = 3;

/// `struct turn` of `flows.c`.
fn turn(frame: &[u8], flows: u32, is_empty: bool) -> Result<[u8; 68]> {
    let mut bytes = Vec::from((flows - 1).to_le_bytes());
    bytes.extend(u32::from(is_empty).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(frame.get(..54).context("a short frame")?);
    bytes.resize(68, 0);
    bytes.try_into().ok().context("68 bytes")
}

/// What clang makes of `flows.c`.
fn object() -> Result<Vec<u8>> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("clang")
        .args(["-target", "bpf", "-O2", "-g", "-mcpu=v3", "-I"])
        .arg(here.join("../../speaker/ebpf"))
        .arg("-c")
        .arg(here.join("tests/dataplane/flows.c"))
        .args(["-o", "-"])
        .output()
        .context("cannot run clang")?;
    if !output.status.success() {
        bail!("clang: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(output.stdout)
}

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
    let mut ebpf = EbpfLoader::new()
        .default_map_pin_directory(&pins)
        .load(&object()?)?;
    let program: &mut SchedClassifier = ebpf
        .program_mut("herald_flows")
        .context("no program")?
        .try_into()?;
    program.load()?;
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
        let runs = LEAST_RUNS.max(flows);
        let mut cost = |is_empty: bool| -> Result<u128> {
            let mut map: Array<_, [u8; 68]> = ebpf.map_mut("turn").context("no map")?.try_into()?;
            map.set(0, turn(&frame, flows, is_empty)?, 0)?;
            let program: &mut SchedClassifier = ebpf
                .program_mut("herald_flows")
                .context("no program")?
                .try_into()?;
            let options = TestRunOptions {
                data_in: Some(&frame),
                repeat: runs,
                ..TestRunOptions::new()
            };
            let result = bench.lan.hosts[0].run(|| Ok(program.test_run(options)?))?;
            let verdict = result.return_value.cast_signed();
            let expected = if is_empty {
                TestRun::NEXT
            } else {
                TestRun::REDIRECT
            };
            ensure!(verdict == expected, "verdict {verdict}");
            Ok(result.duration.as_nanos())
        };
        let own = cost(true)?;
        // The first round meets new flows.
        cost(false)?;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            times.push(cost(false)?.saturating_sub(own));
        }
        sent += u64::from(runs) * (ROUNDS as u64 + 1);
        times.sort_unstable();
        let (least, median) = (times[0], times[ROUNDS / 2]);
        told.push(format!("{flows} flows {least}/{median} (+ {own})"));
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
