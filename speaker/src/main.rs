//! Herald's speaker: announces addresses and forwards their traffic.
//!
//! Watches of the API server, netlink, packet sockets and the eBPF data plane around
//! [`herald_speaker_core::Core`], which decides. Nothing here does.
//!
//! What it asks of the API server, and nothing else (helm/ grants exactly this):
//!
//! | group | resource | verbs |
//! |---|---|---|
//! | `heraldlb.io` | `virtualips` | list, watch |
//! | `heraldlb.io` | `virtualips/status` | patch |
//! | `heraldlb.io` | `speakers` | list, watch, create, patch (an admission policy limits writes to its own) |
//! | `heraldlb.io` | `speakers/status` | patch |
//! | (core) | `services`, `nodes` | list, watch |
//! | `discovery.k8s.io` | `endpointslices` | list, watch |
//! | (core) | `secrets` | list, watch: the one with the keys of the rings |
//! | `events.k8s.io` | `events` | create |
//!
//! Threads: one for layer 2 and the observer rings (`layer2`), one that decides (`core`), one for eBPF system calls
//! (`data-plane`), all three with real-time priority where the kernel gives it; and the runtime's for everything else.

mod admin;
mod args;
mod cleanup;
mod clock;
mod convert;
mod deciding;
mod driver;
mod forward;
mod io;
mod keys;
mod kube_proxy;
mod metrics;
mod retire;
mod snapshot;
mod watch;
mod write;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use clap::Parser as _;
use herald_l2::Pace;
use herald_model::{InterfacePattern, NodeName};
use herald_speaker_core::{Config, Core, Input};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tracing::{error, info};

use crate::admin::Admin;
use crate::args::{Args, Command};
use crate::cleanup::{CleanupArgs, cleanup};
use crate::clock::Clock;
use crate::deciding::Parts;
use crate::io::layer2::Paces;
use crate::io::netlink;
use crate::io::reports::{self, Listener};
use crate::io::rings::{KeyStore, Rings};
use crate::io::settings;
use crate::metrics::Takeovers;
use crate::retire::retire;
use crate::snapshot::Folder;
use crate::watch::{OwnNode, RingSecret};
use crate::write::Writer;

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The kernel's id of this boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

fn main() -> ExitCode {
    let args = Args::parse();
    // What a subcommand has to say is no log.
    if let Some(Command::Cleanup(args)) = &args.command {
        return clean_up(args);
    }
    args.log.start();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("cannot start: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "people read it on a terminal")]
fn clean_up(args: &CleanupArgs) -> ExitCode {
    match cleanup(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Nothing of this is urgent, and it takes little work: one thread is enough for it.
fn run(args: Args) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the runtime cannot be made")?
        .block_on(serve(args))
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let clock = Clock::start();
    let node_name = args.node_name.clone().context("there is no --node-name")?;
    info!(node = node_name, version = VERSION, "the speaker starts");
    let node = NodeName::from(node_name.as_str());
    let core = new_core(&args, node.clone())?;

    let folder = Folder::open(args.state_dir.clone())
        .with_context(|| format!("cannot make --state-dir {:?}", args.state_dir))?;
    let (sender, inputs) = unbounded_channel();
    stop_on_signal(sender.clone()).context("signals cannot be waited for")?;
    let listener = admin::bind(args.admin_address)
        .await
        .with_context(|| format!("cannot serve on --admin-address {}", args.admin_address))?;
    let client = kube::Client::try_default()
        .await
        .context("no way to reach the API server")?;
    let store = KeyStore::default();
    let (layer2, reports) = start_layer2(&args, clock, &store)?;
    let options = io::bpf::Options {
        pin_root: args.bpf_pins,
        flows: args.flows,
        ..io::bpf::Options::default()
    };
    let takeovers = Takeovers::default();
    let stopwatch = forward::Stopwatch::new(clock, takeovers.clone());
    let data_plane = forward::start(options, sender.clone(), stopwatch)
        .context("the data plane thread cannot be started")?;
    let waiting_for = Arc::new(ArcSwap::from_pointee(core.waiting_for()));
    let (ask, asked) = unbounded_channel();
    let last_words = admin::LastWords::default();

    let background = [
        tokio::spawn(netlink::follow(sender.clone(), Arc::clone(&layer2))),
        tokio::spawn(admin::serve(
            listener,
            Arc::new(Admin {
                node: node_name,
                waiting_for: Arc::clone(&waiting_for),
                core: admin::AskCore::new(ask, Arc::clone(&last_words)),
                layer2: Arc::clone(&layer2),
                data_plane: data_plane.clone(),
                takeovers: takeovers.clone(),
            }),
        )),
    ];
    tokio::spawn(settings::watch(sender.clone()));
    if let Some(url) = args.kube_proxy_healthz.0 {
        tokio::spawn(kube_proxy::wait(url, sender.clone()));
    }
    let (refresh, refreshed) = tokio::sync::watch::channel(0);
    let own_node = OwnNode::new(node.clone());
    let watches = watch::start(
        &client,
        &args.services,
        &sender,
        &refreshed,
        &own_node,
        &folder,
        RingSecret {
            name: args.ring_key_secret,
            store,
        },
    );
    let writer = Writer::new(client, node, own_node, sender.clone());
    let parts = Parts {
        core,
        clock,
        inputs,
        layer2: Arc::clone(&layer2),
        data_plane: data_plane.clone(),
        writer: writer.clone(),
        refresh,
        asked,
        last_words,
        waiting_for,
        takeovers,
    };
    let retired = deciding::run(parts, reports, sender).await?;

    drop(watches);
    layer2.stop();
    match retired {
        None => info!("the speaker ends; the eBPF programs go on forwarding"),
        Some(report) => retire(&data_plane, &folder, &writer, &report).await?,
    }
    for task in background {
        task.abort();
    }
    Ok(())
}

fn new_core(args: &Args, node: NodeName) -> anyhow::Result<Core> {
    let boot_id = std::fs::read_to_string(BOOT_ID).with_context(|| format!("reading {BOOT_ID}"))?;
    Ok(Core::new(Config {
        node,
        version: VERSION.into(),
        boot_id: boot_id.trim().into(),
        awaits_rules: args.kube_proxy_healthz.0.is_some(),
        ignores_echo: !args.answer_echo,
        excluded_interfaces: args
            .exclude_interface
            .iter()
            .cloned()
            .map(InterfacePattern)
            .collect(),
        pace: args.announcements(),
        wall_origin: clock::wall(),
    }))
}

/// Starts the thread that answers and announces, and runs the rings.
fn start_layer2(
    args: &Args,
    clock: Clock,
    store: &KeyStore,
) -> anyhow::Result<(Arc<io::layer2::Handle>, Listener)> {
    let paces = Paces {
        announcements: args.announcements(),
        questions: Pace {
            burst_frames: args.probe_burst,
            frames_per_second: args.probe_rate,
        },
    };
    let options = io::rings::Options {
        profile: args.ring_profile.into(),
        port: args.ring_port,
        witness: args.ring_witness.clone(),
    };
    let (reporter, listener) = reports::channel();
    let rings = Rings::new(options, clock, Arc::clone(store), reporter.clone());
    let layer2 = io::layer2::start(paces, clock, rings, reporter)
        .context("the layer 2 thread cannot be started")?;
    Ok((Arc::new(layer2), listener))
}

/// The first signal asks for an orderly end, the second is not waited for.
fn stop_on_signal(inputs: UnboundedSender<Input>) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        for attempt in 0.. {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            info!(signal = name, "asked to end");
            if attempt > 0 || inputs.send(Input::Stopping).is_err() {
                std::process::exit(0);
            }
        }
    });
    Ok(())
}
