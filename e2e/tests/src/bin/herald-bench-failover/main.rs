//! `make bench-failover`: how long a client on the LAN has no answer when the announcer fails.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people to read"
)]

mod round;
mod table;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use clap::Parser;
use herald_e2e::api::Api;
use herald_e2e::cluster::Cluster;
use herald_e2e::fault::Fault;
use herald_e2e::wait::{INTERRUPT, go_on};
use herald_lab::{KubeProxy, Lab, Options, Step};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::round::{Round, Stage};
use crate::table::Row;

/// Exit code of a shell for a command that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

/// How long a client on the LAN has no answer when the announcer fails: UDP questions every
/// millisecond from 64 ports, and 100 TCP connections that must finish.
#[derive(Debug, Parser)]
#[command(name = "herald-bench-failover", version)]
struct Cli {
    /// Name of the lab
    #[arg(long, default_value = "bench")]
    name: String,
    /// Mode of kube-proxy: nftables or iptables
    #[arg(long, default_value = "nftables")]
    kube_proxy: KubeProxy,
    /// How often each case is measured, with each profile
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Profiles of the observer ring
    #[arg(long, value_delimiter = ',', default_value = "fast,default")]
    profile: Vec<String>,
    /// What is done to the announcer [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    case: Vec<Fault>,
    /// Further values for Helm
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Let the cluster stay
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let began = Instant::now();
    let measured = stop_on_signals().and_then(|()| measure(&cli));
    let removed = take_down(&cli);
    if let Err(error) = &measured {
        eprintln!("herald-bench-failover: {error:#}");
    }
    if let Err(error) = removed {
        eprintln!("herald-bench-failover: taking the lab down: {error:#}");
        return ExitCode::FAILURE;
    }
    match measured {
        Ok(true) => {
            println!("\nAll streams finished. {} s.", began.elapsed().as_secs());
            ExitCode::SUCCESS
        }
        Err(_) if go_on().is_err() => ExitCode::from(INTERRUPTED),
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

/// The first signal ends all waiting, and the lab is taken down; the second ends us at once.
fn stop_on_signals() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let code = i32::from(INTERRUPTED);
        signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&INTERRUPT))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&INTERRUPT)))
            .context("handling signals")?;
    }
    Ok(())
}

fn take_down(cli: &Cli) -> Result<()> {
    if !cli.keep {
        Lab::down(&cli.name)?;
    }
    Ok(())
}

/// Measures all that is asked for, and prints it. Whether every round came to its end with every stream
/// that could finish.
fn measure(cli: &Cli) -> Result<bool> {
    let faults = if cli.case.is_empty() {
        Fault::ALL.to_vec()
    } else {
        cli.case.clone()
    };
    let mut tell = |step: &Step| {
        println!("{:6.1} s  {}", step.elapsed.as_secs_f32(), step.text);
    };
    let mut rows = Vec::new();
    let mut cluster: Option<Cluster> = None;
    for profile in &cli.profile {
        let mut options = Options {
            kube_proxy: cli.kube_proxy,
            interrupt: Arc::clone(&INTERRUPT),
            ..Options::named(&cli.name)
        };
        options.chart.set = vec![format!("ring.profile={profile}")];
        options.chart.set.extend(cli.set.iter().cloned());
        let cluster = if let Some(cluster) = &cluster {
            cluster.lab.deploy(&options.chart, &mut tell)?;
            cluster
        } else {
            let lab = Lab::ensure(&options, &mut tell)?;
            lab.deploy(&options.chart, &mut tell)?;
            let api = Api::connect(&lab)?;
            cluster.insert(Cluster { lab, api })
        };
        let stage = Stage::set(cluster)?;
        for fault in &faults {
            let mut row = Row::new(*fault, profile);
            for number in 1..=cli.rounds {
                go_on()?;
                let round = stage.play(*fault);
                println!("{}", told(profile, *fault, number, &round));
                go_on()?;
                row.add(round);
            }
            rows.push(row);
        }
    }
    println!("\n{}", table::table(&rows));
    Ok(rows.iter().all(Row::is_good))
}

fn told(profile: &str, fault: Fault, number: u32, round: &Result<Round>) -> String {
    let said = match round {
        Ok(round) => round.to_string(),
        Err(error) => format!("FAILED: {error:#}"),
    };
    format!("{profile}, {fault}, round {number}: {said}")
}
