//! `make bench-dataplane`: what a connection through an announced address costs, beside one that needs none; and
//! what thousands of Services cost.
#![expect(clippy::print_stderr, reason = "a program for people to read")]

mod load;
mod maps;
#[path = "../../tests/dataplane/object.rs"]
mod object;
mod program;
mod report;
mod speaker;
mod tables;
#[path = "../../tests/dataplane/turns.rs"]
mod turns;
mod variant;
mod world;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use herald_e2e::api::Api;
use herald_e2e::bench::finish::{Format, finish};
use herald_e2e::bench::group::{Group, Measured};
use herald_e2e::bench::stage::{Stage, rest};
use herald_e2e::cluster::Cluster;
use herald_e2e::wait::{INTERRUPT, go_on, stop_on_signals};
use herald_lab::{KubeProxy, Lab, Options, Step};

use crate::report::{Report, Setting};
use crate::variant::{Times, Variant};
use crate::world::Kind;

/// New connections, datagrams and a stream from a client on the LAN to pods: to a node directly, and through
/// an address by way of an announcer that has no pod, with each mode of forwarding in turn. And what
/// thousands of Services take: time, memory, time of each packet.
#[derive(Debug, Parser)]
#[command(name = "herald-bench-dataplane", version)]
struct Cli {
    /// Name of the lab
    #[arg(long, default_value = "bench")]
    name: String,
    /// Modes of kube-proxy, a lab for each: nftables, iptables
    #[arg(long, value_delimiter = ',', default_value = "nftables,iptables")]
    kube_proxy: Vec<KubeProxy>,
    /// What is measured [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    part: Vec<Part>,
    /// How many Services there are in part "ways"
    #[arg(long, value_delimiter = ',', default_value = "10")]
    services: Vec<usize>,
    /// How many there are in part "speaker"
    #[arg(long, value_delimiter = ',', default_value = "1000")]
    speaker_services: Vec<usize>,
    /// How many there are in parts "tables" and "program"
    #[arg(long, value_delimiter = ',', default_value = "10,1000,10000")]
    programmed: Vec<u32>,
    /// How often each way, table and program is measured
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Time until the kernel's maps hold a wish, and another after a change; no cluster
    Tables,
    /// Time of the ingress program for a packet, by Services and flows; no cluster
    Program,
    /// Memory of speakers, and how soon their tables follow a change of endpoints
    Speaker,
    /// Connections, datagrams and a stream each way
    Ways,
}

impl Cli {
    fn wants(&self, part: Part) -> bool {
        self.part.is_empty() || self.part.contains(&part)
    }
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
    // Without a cluster, which would be in the way.
    if cli.wants(Part::Tables) {
        tables(cli, report)?;
    }
    if cli.wants(Part::Program) {
        program(cli, report)?;
    }
    if cli.wants(Part::Speaker) || cli.wants(Part::Ways) {
        on_clusters(cli, report)?;
    }
    ensure!(
        report.is_good(),
        "not all is as it has to be: the result names it"
    );
    Ok(())
}

fn tables(cli: &Cli, report: &mut Report) -> Result<()> {
    for &services in &cli.programmed {
        for kind in [Kind::Cluster, Kind::Local] {
            let mut group = Group::new(kind.as_str(), &services.to_string());
            let played = rounds(cli, &mut group, || tables::play(kind, services));
            report.tables.push(group);
            played?;
        }
    }
    Ok(())
}

fn program(cli: &Cli, report: &mut Report) -> Result<()> {
    for &services in &cli.programmed {
        let kinds = [
            (Kind::Cluster, "dsr"),
            (Kind::Pod, "pod"),
            (Kind::NodePort, "nodeport"),
        ];
        for (kind, name) in kinds {
            let mut ready = program::Ready::new(kind, services)?;
            let mut group = Group::new(name, &services.to_string());
            let played = rounds(cli, &mut group, || ready.play());
            report.programs.push(group);
            played?;
        }
    }
    Ok(())
}

/// So many rounds of one case.
fn rounds<R: Measured>(
    cli: &Cli,
    group: &mut Group<R>,
    mut play: impl FnMut() -> Result<R>,
) -> Result<()> {
    for number in 1..=cli.rounds {
        let round = play();
        // One that was interrupted says nothing.
        go_on()?;
        let (case, profile) = (&group.case, &group.profile);
        match &round {
            Ok(round) => eprintln!("{case}, {profile} Services, round {number}: {round}"),
            Err(error) => {
                eprintln!("{case}, {profile} Services, round {number}: FAILED: {error:#}");
            }
        }
        group.add(round);
    }
    Ok(())
}

fn on_clusters(cli: &Cli, report: &mut Report) -> Result<()> {
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
        // kube-proxy has no part in it.
        if number == 0 && cli.wants(Part::Speaker) {
            speakers(cli, stage, report)?;
        }
        let ways = if cli.wants(Part::Ways) {
            cli.services.as_slice()
        } else {
            &[]
        };
        for &services in ways {
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
        if !cli.wants(Part::Ways) {
            break;
        }
    }
    Ok(())
}

fn speakers(cli: &Cli, stage: Stage<'_>, report: &mut Report) -> Result<()> {
    for &services in &cli.speaker_services {
        let mut group = Group::new("Local", &services.to_string());
        let round = speaker::play(stage, services);
        go_on()?;
        match &round {
            Ok(round) => eprintln!("speakers, {services} Services: {round}"),
            Err(error) => eprintln!("speakers, {services} Services: FAILED: {error:#}"),
        }
        group.add(round);
        report.speakers.push(group);
        stage.remove_all()?;
    }
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
