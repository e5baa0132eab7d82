//! What disturbs the whole cluster, one after another: components killed, nodes switched off, the API
//! server gone, pools that are open to everybody.

#[path = "disruptive/alerts.rs"]
mod alerts;
#[path = "disruptive/bystander.rs"]
mod bystander;
#[path = "disruptive/departures.rs"]
mod departures;
#[path = "disruptive/drill.rs"]
mod drill;
#[path = "disruptive/failover.rs"]
mod failover;
#[path = "disruptive/first_steps.rs"]
mod first_steps;
#[path = "disruptive/fixtures.rs"]
mod fixtures;
#[path = "disruptive/kube_proxy.rs"]
mod kube_proxy;
#[path = "disruptive/lab.rs"]
mod lab;
#[path = "disruptive/links.rs"]
mod links;
#[path = "disruptive/moves.rs"]
mod moves;
#[path = "disruptive/neighbours.rs"]
mod neighbours;
#[path = "disruptive/pace.rs"]
mod pace;
#[path = "disruptive/partitions.rs"]
mod partitions;
#[path = "disruptive/restarts.rs"]
mod restarts;
#[path = "disruptive/retire.rs"]
mod retire;
#[path = "disruptive/returns.rs"]
mod returns;
#[path = "disruptive/ring_secret.rs"]
mod ring_secret;
#[path = "disruptive/segments.rs"]
mod segments;
#[path = "disruptive/snapshot.rs"]
mod snapshot;
#[path = "disruptive/soak.rs"]
mod soak;
#[path = "disruptive/straight.rs"]
mod straight;
#[path = "disruptive/takeover.rs"]
mod takeover;
#[path = "disruptive/targets.rs"]
mod targets;
#[path = "disruptive/two_nodes.rs"]
mod two_nodes;
#[path = "disruptive/unfit.rs"]
mod unfit;
#[path = "disruptive/uninstall.rs"]
mod uninstall;
#[path = "disruptive/verified.rs"]
mod verified;
#[path = "disruptive/what_if.rs"]
mod what_if;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result};
use herald_e2e::cluster::{CHART, Cluster, cluster, report};
use herald_e2e::wait::LONG;
use herald_lab::{Action, ChartOptions, Program};

/// Runs a test when no other one runs and all is whole, and makes all whole again after it.
fn alone(test: impl FnOnce(&'static Cluster) -> Result<()>) -> Result<()> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = cluster()?;
    cluster.wait_whole()?;
    let began = Instant::now();
    let result = test(cluster);
    let tested = began.elapsed().as_secs();
    let mended = mend(cluster).context("after the test");
    let all = began.elapsed().as_secs();
    report(&format!("{tested} s, mended after {all} s"));
    result?;
    mended
}

/// Installs the chart anew with further values.
fn install(cluster: &Cluster, set: &[&str]) -> Result<()> {
    let set = CHART.iter().chain(set).map(|&value| value.to_owned());
    let options = ChartOptions {
        set: set.collect(),
        ..ChartOptions::default()
    };
    Ok(cluster.lab.deploy(&options, &mut |_| ())?)
}

static API_WAS_STOPPED: AtomicBool = AtomicBool::new(false);

/// Stops the API server until [`start_api`], or the test's end.
fn stop_api(cluster: &Cluster) -> Result<()> {
    API_WAS_STOPPED.store(true, Ordering::Relaxed);
    Ok(cluster.lab.api(Action::Stop)?)
}

/// Starts it again. Kubernetes' own programs start anew with it: after an outage they take up to a
/// minute to ask it again, and the controller manager may take nodes for lost that it has not heard
/// of. That is theirs; the tests are about ours, which go on as they are.
fn start_api(cluster: &Cluster) -> Result<()> {
    let lab = &cluster.lab;
    lab.api(Action::Start)?;
    lab.wait_api_ready(LONG)?;
    if !API_WAS_STOPPED.swap(false, Ordering::Relaxed) {
        return Ok(());
    }
    lab.restart_controllers()?;
    for node in lab.status()?.nodes {
        if node.on && !node.frozen {
            // One that is just about to start need not be killed.
            lab.kill(&node.name, Program::KubeProxy, "KILL").ok();
        }
    }
    Ok(())
}

fn mend(cluster: &Cluster) -> Result<()> {
    cluster.lab.api(Action::Thaw)?;
    start_api(cluster)?;
    cluster.mend_nodes()
}
