//! `make demo`: the main job, told step by step on a genuine cluster.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people to read"
)]

mod story;
mod tell;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use herald_e2e::wait::{INTERRUPTED, go_on, stop_on_signals};
use herald_lab::{KubeProxy, Lab};

/// Herald's main job on a genuine cluster of three nodes, told step by step.
#[derive(Debug, Parser)]
#[command(name = "herald-demo", version)]
struct Cli {
    /// Name of the lab
    #[arg(long, default_value = "demo")]
    name: String,
    /// Mode of kube-proxy: nftables or iptables
    #[arg(long, default_value = "nftables")]
    kube_proxy: KubeProxy,
    /// Let the cluster stay
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let began = Instant::now();
    let told = stop_on_signals()
        .and_then(|()| story::tell(&cli.name, cli.kube_proxy))
        .map_err(|error| {
            eprintln!("\nherald-demo: {error:#}");
            if let Ok(lab) = Lab::attach(&cli.name) {
                eprintln!("logs are in {} while the lab is up", lab.folder().display());
            }
        });
    let removed = take_down(&cli);
    match (told, removed) {
        (Ok(summary), Ok(())) => {
            println!("{summary}");
            println!("\nAll as it should be, in {} s.", began.elapsed().as_secs());
            ExitCode::SUCCESS
        }
        (_, Err(error)) => {
            eprintln!("herald-demo: taking the lab down: {error:#}");
            ExitCode::FAILURE
        }
        (Err(()), Ok(())) if go_on().is_err() => ExitCode::from(INTERRUPTED),
        (Err(()), Ok(())) => ExitCode::FAILURE,
    }
}

fn take_down(cli: &Cli) -> Result<()> {
    if cli.keep {
        println!(
            "\nThe cluster stays. `herald-lab --name {0} status` shows it, `herald-lab --name {0} down` removes it.",
            cli.name
        );
        return Ok(());
    }
    Lab::down(&cli.name)?;
    Ok(())
}
