//! `make soak`: Services come and go while controllers are killed, the API server is restarted and
//! etcd paused; no address is given twice, none changes, nobody waits while an address is free.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people to read"
)]

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Parser;
use herald_e2e::api::Api;
use herald_e2e::cluster::Cluster;
use herald_e2e::object::namespace;
use herald_e2e::soak::{Ground, Outcome, Plan, soak};
use herald_e2e::wait::{INTERRUPT, INTERRUPTED, go_on, stop_on_signals};
use herald_lab::{Lab, Options, Step};
use serde_json::json;

const NAMESPACE: &str = "soak";
const ADDRESSES: usize = 16;

/// Services come and go on a genuine cluster while controllers are killed, the API server is restarted
/// and etcd is paused. It fails at once if an address is given twice or changes, and if a Service waits
/// while an address is free.
#[derive(Debug, Parser)]
#[command(name = "herald-soak", version)]
struct Cli {
    /// Name of the lab
    #[arg(long, default_value = "soak")]
    name: String,
    /// How often a controller is killed
    #[arg(long, default_value_t = 50)]
    kills: u32,
    /// How often the API server is killed and started again
    #[arg(long, default_value_t = 5)]
    api_restarts: u32,
    /// How often etcd is paused
    #[arg(long, default_value_t = 5)]
    etcd_pauses: u32,
    /// For how many seconds
    #[arg(long, default_value_t = 20)]
    etcd_pause: u64,
    /// What decides about everything that is random
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Let the cluster stay
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let began = Instant::now();
    let outcome = stop_on_signals().and_then(|()| run(&cli));
    let interrupted = go_on().is_err();
    // One that failed is to be looked at.
    let removed = if cli.keep || outcome.is_err() && !interrupted {
        Ok(())
    } else {
        Lab::down(&cli.name).map(drop)
    };
    if let Err(error) = removed {
        eprintln!("herald-soak: taking the lab down: {error:#}");
        return ExitCode::FAILURE;
    }
    match outcome {
        Ok(outcome) => {
            println!(
                "{} Services created and {} deleted in {} s, {} controllers killed: of {} states none showed an address \
                 twice or another than before, and nobody waited while an address was free",
                outcome.created,
                outcome.deleted,
                began.elapsed().as_secs(),
                outcome.kills,
                outcome.states,
            );
            ExitCode::SUCCESS
        }
        Err(_) if interrupted => ExitCode::from(INTERRUPTED),
        Err(error) => {
            eprintln!("herald-soak: seed {}: {error:#}", cli.seed);
            eprintln!("The lab stays: herald-lab --name {} status", cli.name);
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<Outcome> {
    let mut tell = |step: &Step| {
        eprintln!("{:6.1} s  {}", step.elapsed.as_secs_f32(), step.text);
    };
    let options = Options {
        interrupt: Arc::clone(&INTERRUPT),
        ..Options::named(&cli.name)
    };
    let lab = Lab::ensure(&options, &mut tell)?;
    lab.deploy(&options.chart, &mut tell)?;
    let api = Api::connect(&lab)?;
    let cluster = Cluster { lab, api };
    cluster.wait_whole()?;
    cluster.api.apply(&namespace(NAMESPACE))?;
    cluster.api.apply(&json!({
        "apiVersion": "heraldlb.io/v1alpha1",
        "kind": "IPPool",
        "metadata": {"name": NAMESPACE},
        "spec": {"addresses": ["172.30.64.0-172.30.64.15", "fd30::1:0:0-fd30::1:0:f"]},
    }))?;
    let ground = Ground {
        cluster: &cluster,
        namespace: NAMESPACE.to_owned(),
        pool: NAMESPACE.to_owned(),
        addresses: ADDRESSES,
    };
    let plan = Plan {
        kills: cli.kills,
        api_restarts: cli.api_restarts,
        etcd_pauses: cli.etcd_pauses,
        etcd_pause: Duration::from_secs(cli.etcd_pause),
        seed: cli.seed,
    };
    soak(&ground, &plan, |line| eprintln!("{line}"))
}
