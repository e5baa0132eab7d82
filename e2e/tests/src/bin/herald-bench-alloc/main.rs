//! `make bench-alloc`: how fast Services get their addresses on a genuine API server, beside a bare
//! client that makes the same writes; and what a restart of the controller costs.
#![expect(clippy::print_stderr, reason = "a program for people to read")]

mod audit;
mod bare;
mod report;
mod stage;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use herald_e2e::api::Api;
use herald_e2e::bench::finish::{Format, finish};
use herald_e2e::cluster::Cluster;
use herald_e2e::wait::{INTERRUPT, stop_on_signals};
use herald_lab::{Lab, Options, Step};

use crate::bare::Bare;
use crate::report::{Report, Run};
use crate::stage::Stage;

/// How many writes a controller has under way at once.
const AT_ONCE: usize = 32;

/// How fast Services get their addresses on a genuine API server, beside a bare client that makes the
/// same number and kinds of writes with the same concurrency; and what a restart of the controller costs.
///
/// The Services are there before the controller starts. What counts is the time from its first claim to
/// the moment when the last Service has an address, as the audit log has it.
#[derive(Debug, Parser)]
#[command(name = "herald-bench-alloc", version)]
struct Cli {
    /// Name of the lab
    #[arg(long, default_value = "bench-alloc")]
    name: String,
    /// How many Services
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=16_000))]
    services: u32,
    /// How often each case is measured; the median counts
    #[arg(long, default_value_t = 1)]
    rounds: u32,
    /// Without conflict probing, with it, or both
    #[arg(long, value_enum, value_delimiter = ',', default_value = "off,on")]
    probe: Vec<Probe>,
    /// Form of the result
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
    /// Let the cluster stay
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Probe {
    Off,
    On,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut report = Report {
        services: cli.services,
        ..Report::default()
    };
    let measured = stop_on_signals().and_then(|()| measure(&cli, &mut report));
    let result = match cli.output {
        Format::Text => format!("\n{}", report.text()),
        Format::Json => format!("{:#}", report.json()),
    };
    finish(&cli.name, cli.keep, &result, &measured)
}

/// Measures all that is asked for. What is measured when something goes wrong is in the report.
fn measure(cli: &Cli, report: &mut Report) -> Result<()> {
    let began = Instant::now();
    let mut tell = |step: &Step| {
        eprintln!("{:6.1} s  {}", step.elapsed.as_secs_f32(), step.text);
    };
    let mut options = Options {
        interrupt: Arc::clone(&INTERRUPT),
        ..Options::named(&cli.name)
    };
    // One that stands by costs the API server as much in watches as the one that works.
    options.chart.set = ["controller.replicas=1", "logFormat=json"]
        .map(str::to_owned)
        .to_vec();
    let lab = Lab::ensure(&options, &mut tell)?;
    lab.deploy(&options.chart, &mut tell)?;
    let api = Api::connect(&lab)?;
    let cluster = Cluster { lab, api };
    let stage = Stage {
        cluster: &cluster,
        bare: Bare {
            lab: &cluster.lab,
            at_once: AT_ONCE,
        },
        services: usize::try_from(cli.services)?,
    };
    stage.set()?;
    let say = |what: &str| eprintln!("{:6.1} s  {what}", began.elapsed().as_secs_f32());
    for round in 1..=cli.rounds {
        for probe in cli.probe.iter().map(|probe| *probe == Probe::On) {
            say(&format!("round {round}, conflict probing {probe}: Herald"));
            stage.pool(probe)?;
            let herald = stage.assign()?;
            if report.restart.is_none() {
                say("restart");
                let restart = stage.restart()?;
                eprint!("{restart}");
                report.restart = Some(restart);
            }
            stage.clear(false)?;
            say(&format!(
                "round {round}, conflict probing {probe}: the bare client"
            ));
            let bare = stage.assign_barely(&herald)?;
            stage.clear(true)?;
            let run = Run {
                probe,
                herald,
                bare,
            };
            eprint!("{}", report.run(&run));
            report.runs.push(run);
        }
    }
    Ok(())
}
