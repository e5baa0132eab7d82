//! `make bench-dataplane`: what a connection through an announced address costs, beside one that needs none.
#![expect(clippy::print_stderr, reason = "a program for people to read")]

mod load;
mod report;
mod variant;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use herald_e2e::api::Api;
use herald_e2e::bench::finish::{Format, finish};
use herald_e2e::bench::group::Group;
use herald_e2e::bench::stage::{Stage, rest};
use herald_e2e::cluster::Cluster;
use herald_e2e::wait::{INTERRUPT, go_on, stop_on_signals};
use herald_lab::{KubeProxy, Lab, Options, Step};

use crate::report::{Report, Setting};
use crate::variant::{Times, Variant};

/// New connections, datagrams and a stream from a client on the LAN to pods: to a node directly, and through
/// an address by way of an announcer that has no pod, with each mode of forwarding in turn.
#[derive(Debug, Parser)]
#[command(name = "herald-bench-dataplane", version)]
struct Cli {
    /// Name of the lab
    #[arg(long, default_value = "bench")]
    name: String,
    /// Modes of kube-proxy, a lab for each: nftables, iptables
    #[arg(long, value_delimiter = ',', default_value = "nftables,iptables")]
    kube_proxy: Vec<KubeProxy>,
    /// How many Services there are
    #[arg(long, value_delimiter = ',', default_value = "10")]
    services: Vec<usize>,
    /// How often each way is measured
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// For how many seconds connections are made in a round; all else takes half of it
    #[arg(long, default_value_t = 4)]
    time: u64,
    /// Form of the result
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
    /// Further values for Helm
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Let the last lab stay
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut report = Report::default();
    let measured = stop_on_signals().and_then(|()| measure(&cli, &mut report));
    let result = match cli.output {
        Format::Text => format!("\n{}", report.text()),
        Format::Json => format!("{:#}", report.json()),
    };
    finish(&cli.name, cli.keep, &result, &measured)
}

/// Measures all that is asked for. What is measured when something goes wrong is in the report.
fn measure(cli: &Cli, report: &mut Report) -> Result<()> {
    let mut tell = |step: &Step| {
        eprintln!("{:6.1} s  {}", step.elapsed.as_secs_f32(), step.text);
    };
    for (number, &kube_proxy) in cli.kube_proxy.iter().enumerate() {
        if number > 0 {
            Lab::down(&cli.name)?;
        }
        let mut options = Options {
            kube_proxy,
            interrupt: Arc::clone(&INTERRUPT),
            ..Options::named(&cli.name)
        };
        options.chart.set.clone_from(&cli.set);
        let lab = Lab::ensure(&options, &mut tell)?;
        lab.deploy(&options.chart, &mut tell)?;
        let api = Api::connect(&lab)?;
        let cluster = Cluster { lab, api };
        let stage = Stage::set(&cluster)?;
        for &services in &cli.services {
            stage.wait_whole()?;
            let variants = variant::prepare(stage, services)?;
            let mut setting = Setting {
                kube_proxy: kube_proxy.as_str(),
                services,
                ways: Vec::new(),
            };
            let played = play(cli, stage, &variants, &mut setting);
            report.settings.push(setting);
            played?;
        }
        stage.remove_all()?;
    }
    ensure!(
        report.is_good(),
        "not all is as it has to be: the result names it"
    );
    Ok(())
}

/// Every way once in each round, so that what changes on the machine meets them all.
fn play(cli: &Cli, stage: Stage<'_>, variants: &[Variant], setting: &mut Setting) -> Result<()> {
    let name = format!("{}, {}", setting.kube_proxy, setting.services);
    let times = Times {
        connections: Duration::from_secs(cli.time),
        others: Duration::from_secs(cli.time) / 2,
    };
    for variant in variants {
        let group = Group::new(variant.way.as_str(), &name);
        setting.ways.push((variant.way, group));
    }
    for number in 1..=cli.rounds {
        for (variant, (way, group)) in variants.iter().zip(&mut setting.ways) {
            // What the last one left on its way.
            rest(Duration::from_millis(500))?;
            let round = variant.play(stage, times);
            // One that was interrupted says nothing.
            go_on()?;
            let way = way.as_str();
            match &round {
                Ok(round) => eprintln!("{name}, {way}, round {number}: {round}"),
                Err(error) => eprintln!("{name}, {way}, round {number}: FAILED: {error:#}"),
            }
            group.add(round);
        }
    }
    Ok(())
}
