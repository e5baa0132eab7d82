//! `make bench-failover`: how long a client on the LAN has no answer when the announcer fails.
#![expect(clippy::print_stderr, reason = "a program for people to read")]

mod atrest;
mod compare;
mod connections;
mod heal;
mod lease;
mod many;
mod report;
mod round;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use herald_e2e::api::Api;
use herald_e2e::bench::finish::{Format, finish};
use herald_e2e::cluster::Cluster;
use herald_e2e::fault::Fault;
use herald_e2e::wait::{INTERRUPT, go_on, stop_on_signals};
use herald_lab::{KubeProxy, Lab, Options, Step};

use crate::many::Room;
use crate::report::Report;
use crate::round::Pods;
use herald_e2e::bench::group::{Group, Measured};
use herald_e2e::bench::stage::Stage;

/// How long a client on the LAN has no answer when the announcer fails: UDP questions each millisecond
/// from 64 ports, and 100 TCP streams of which two speak each millisecond.
#[derive(Debug, Parser)]
#[command(name = "herald-bench-failover", version)]
struct Cli {
    /// Name of the lab
    #[arg(long, default_value = "bench")]
    name: String,
    /// Mode of kube-proxy: nftables or iptables
    #[arg(long, default_value = "nftables")]
    kube_proxy: KubeProxy,
    /// What is measured [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    part: Vec<Part>,
    /// How often each fault is measured, with each profile
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// How often everything else is
    #[arg(long, default_value_t = 3)]
    other_rounds: u32,
    /// Profiles of the observer ring
    #[arg(long, value_delimiter = ',', default_value = "fast,default")]
    profile: Vec<String>,
    /// What is done to the announcer in part "faults" [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    case: Vec<Fault>,
    /// How many addresses the dead node had in part "addresses"
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000")]
    addresses: Vec<usize>,
    /// For how many seconds part "rest" looks at the speakers
    #[arg(long, default_value_t = 30)]
    rest_time: u64,
    /// Form of the result
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
    /// Further values for Helm
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Let the cluster stay
    #[arg(long)]
    keep: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// What a speaker costs while nothing happens
    Rest,
    /// Each fault, with a pod on each node
    Faults,
    /// TCP streams when a link is cut: none with the node, and some
    Streams,
    /// New connections when a link is cut, policy Cluster
    Connections,
    /// Many addresses on the node whose link is cut
    Addresses,
    /// Two holders, as the LAN broke apart and is whole again
    Heal,
    /// The same cut with a Kubernetes Lease as the only detector
    Lease,
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
    let mut cluster: Option<Cluster> = None;
    for (number, profile) in cli.profile.iter().enumerate() {
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
        OneProfile {
            cli,
            stage,
            name: profile,
        }
        .measure(report)?;
        // The ring has no part in it.
        if number == 0 && wanted(cli, Part::Lease) {
            let case = "a Kubernetes Lease of 15/10/2 s";
            let ways = lease::ways(&cluster.lab)?;
            let play = |number| compare::play(stage, &ways, number);
            rounds(
                stage,
                &mut report.lease,
                (case, "-"),
                cli.other_rounds,
                play,
            )?;
        }
    }
    ensure!(
        report.is_good(),
        "not all is as it has to be: the result names it"
    );
    Ok(())
}

fn wanted(cli: &Cli, part: Part) -> bool {
    cli.part.is_empty() || cli.part.contains(&part)
}

/// All that is measured with one profile of the ring.
struct OneProfile<'a> {
    cli: &'a Cli,
    stage: Stage<'a>,
    name: &'a str,
}

impl OneProfile<'_> {
    fn measure(&self, report: &mut Report) -> Result<()> {
        let (cli, stage, profile) = (self.cli, self.stage, self.name);
        let few = cli.other_rounds;
        if wanted(cli, Part::Rest) {
            let time = Duration::from_secs(cli.rest_time);
            let play = |_| atrest::measure(stage, time);
            rounds(stage, &mut report.rest, ("at rest", profile), 1, play)?;
        }
        if wanted(cli, Part::Faults) {
            let all = Fault::ALL;
            let faults = if cli.case.is_empty() {
                &all[..]
            } else {
                &cli.case
            };
            for &fault in faults {
                let case = fault.to_string();
                let play = |_| round::play(stage, fault, Pods::Everywhere);
                rounds(
                    stage,
                    &mut report.faults,
                    (&case, profile),
                    cli.rounds,
                    play,
                )?;
            }
        }
        if wanted(cli, Part::Streams) {
            for (case, pods) in [
                ("no pod and no slot on it", Pods::Elsewhere),
                ("Local, pods everywhere", Pods::Everywhere),
            ] {
                let play = |_| round::play(stage, Fault::CutSilently, pods);
                rounds(stage, &mut report.streams, (case, profile), few, play)?;
            }
        }
        if wanted(cli, Part::Connections) {
            let case = "new connections, link cut, Cluster, pods everywhere";
            let play = |_| connections::play(stage);
            rounds(stage, &mut report.connections, (case, profile), few, play)?;
        }
        if wanted(cli, Part::Heal) {
            let case = "the holder was cut off";
            let play = |_| heal::play(stage);
            rounds(stage, &mut report.heal, (case, profile), few, play)?;
        }
        if wanted(cli, Part::Addresses) {
            let _room = Room::make()?;
            for &count in &cli.addresses {
                eprintln!("{profile}: {count} addresses");
                many::prepare(stage, count)?;
                let case = count.to_string();
                let play = |_| many::play(stage);
                rounds(stage, &mut report.many, (&case, profile), few, play)?;
            }
            stage.remove_all()?;
        }
        Ok(())
    }
}

/// So many rounds of one case. What a failed one leaves is undone, so that the next has a chance.
fn rounds<R: Measured>(
    stage: Stage<'_>,
    groups: &mut Vec<Group<R>>,
    (case, profile): (&str, &str),
    count: u32,
    mut play: impl FnMut(u32) -> Result<R>,
) -> Result<()> {
    let mut group = Group::new(case, profile);
    let mut played = Ok(());
    for number in 1..=count {
        let round = play(number);
        // One that was interrupted says nothing.
        played = go_on();
        if played.is_err() {
            break;
        }
        match &round {
            Ok(round) => eprintln!("{profile}, {case}, round {number}: {round}"),
            Err(error) => eprintln!("{profile}, {case}, round {number}: FAILED: {error:#}"),
        }
        let failed = round.is_err();
        group.add(round);
        if failed {
            played = stage.mend_all().context("after a round that failed");
            if played.is_err() {
                break;
            }
        }
    }
    groups.push(group);
    played
}
