//! Herald's controller: watches, decides, writes.
//!
//! All decisions are in `herald-controller-core`; here are the watches that feed it, the writes it
//! asks for, the Lease, the admin port and the command line.
//!
//! What it does at the API server, which is what its roles must allow and no more:
//!
//! | kind | verbs | why |
//! |---|---|---|
//! | services, nodes, namespaces | list, watch | |
//! | servicecidrs.networking.k8s.io | list, watch | what pools must not overlap; since Kubernetes 1.33 |
//! | endpointslices.discovery.k8s.io | list, watch | nodes with endpoints, for `Local` with `off` |
//! | ippools, l2advertisements, speakers, virtualips (heraldlb.io) | list, watch | |
//! | virtualips | create, update, delete | the claims |
//! | services/status | patch | address, conditions, and the annotation allocated-from with them |
//! | ippools/status, l2advertisements/status | patch | counters, `Ready` |
//! | events.events.k8s.io | create | in every namespace |
//! | pods (own namespace) | list, watch | which speakers are ready |
//! | secrets (own namespace) | create; get, update of the one with the keys of the speakers' rings | |
//! | leases.coordination.k8s.io (own namespace) | create; get, patch of herald-controller | |
//!
//! Its subcommands `retire` and `check` run in Pods of their own, with roles of their own.

mod admin;
mod args;
mod check;
mod clock;
mod lease;
mod metrics;
mod once;
mod retire;
mod ring_keys;
mod run;
mod write;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use herald_controller::{kinds, watch};

use args::{Args, Command};

/// Exit codes: 0 after a signal, 1 after a failure, 2 for a wrong command line.
fn main() -> ExitCode {
    let mut args = Args::parse();
    // What a subcommand has to say is no log.
    if args.command.is_none() {
        args.log.start();
    }
    let result = match args.command.take() {
        None => start(run::run(args)),
        Some(Command::Retire(args)) => return end(start(retire::retire(args))),
        Some(Command::Check(args)) => return end(start(check::check(args))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "cannot go on");
            ExitCode::FAILURE
        }
    }
}

/// The end of a subcommand.
#[expect(clippy::print_stderr, reason = "people read it on a terminal")]
fn end(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(work)
}
