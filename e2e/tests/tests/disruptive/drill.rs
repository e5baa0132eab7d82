//! `kubectl herald drill`: addresses that move on purpose, and what is measured meanwhile.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use herald_e2e::api::herald;
use herald_e2e::cluster::{Cluster, report};
use herald_e2e::object::{condition, text};
use herald_e2e::probe::Probe;
use herald_e2e::sandbox::{Sandbox, backend};
use herald_e2e::wait::{LONG, eventually, same};
use serde_json::Value;

use crate::alone;
use crate::failover::serve;
use crate::takeover::vip;

/// How long the client is cut off while it measures.
const OUTAGE: Duration = Duration::from_millis(2_500);

/// Runs it where the client is; its answer.
fn drill(cluster: &Cluster, service: &str, more: &[&str]) -> Result<Value> {
    let lab = &cluster.lab;
    let program = herald_lab::built("kubectl-herald")?;
    let program = program.to_str().context("a path that is no text")?;
    let config = lab.kubeconfig_path();
    let config = config.to_str().context("a path that is no text")?;
    let options = ["--kubeconfig", config, "--output", "json"];
    let command = [program, "drill", service, "--yes"]
        .into_iter()
        .chain(options)
        .chain(more.iter().copied());
    let output = lab.exec("client", command)?;
    serde_json::from_str(&output.stdout)
        .with_context(|| format!("it said {:?}, {:?}", output.stdout, output.stderr))
}

fn number(answer: &Value, name: &str) -> Result<u64> {
    let number = answer[name].as_u64();
    number.with_context(|| format!("there is no {name} in {answer}"))
}

fn service(it: &Sandbox) -> String {
    format!("{}/{}", it.namespace, it.service_name("web"))
}

#[test]
fn a_planned_move_goes_where_it_should_again_and_again_and_loses_nothing() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let address = serve(it)?[0];
            for _ in 0..2 {
                let (old, _) = cluster.announcer(address)?;
                let next = vip(cluster, address)?;
                let next = herald_e2e::sandbox::candidates(&next)[1].to_owned();
                let answer = drill(cluster, &service(it), &["--address", &address.to_string()])?;
                same(&text(&answer["from"]), &old.as_str())?;
                same(&text(&answer["to"]), &next.as_str())?;
                same(&cluster.announcer(address)?.0, &next)?;
                report(&format!("drill: {answer}"));
                ensure!(number(&answer, "connections")? > 100, "{answer}");
                same(&number(&answer, "failed")?, &0)?;
                let left = &vip(cluster, address)?["metadata"]["annotations"];
                ensure!(left["heraldlb.io/move-to"].is_null(), "{left}");
            }
            Ok(())
        })
    })
}

#[test]
fn a_speaker_that_is_killed_on_purpose_crashes_once_and_another_takes_over() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let address = serve(it)?[0];
            let (old, _) = cluster.announcer(address)?;
            let restarts = || -> Result<u64> {
                let pods = cluster.lab.kubectl_json([
                    "get",
                    "pods",
                    "-n",
                    herald_lab::HERALD_NAMESPACE,
                    "--field-selector",
                    &format!("spec.nodeName={old}"),
                    "-l",
                    "app.kubernetes.io/component=speaker",
                ])?;
                let status = &pods["items"][0]["status"]["containerStatuses"][0];
                let restarts = status["restartCount"].as_u64();
                restarts.with_context(|| format!("no restarts in {status}"))
            };
            let before = restarts()?;
            let options = ["--kill", "--address", &address.to_string()];
            let answer = drill(cluster, &service(it), &options)?;
            report(&format!("drill --kill: {answer}"));
            same(&text(&answer["from"]), &old.as_str())?;
            same(
                &cluster.announcer(address)?.0,
                &text(&answer["to"]).to_owned(),
            )?;
            // It is back for good: what made it crash was for the process before.
            cluster.wait_whole()?;
            eventually("its speaker is ready", LONG, || {
                let speaker = cluster.api.get(&herald("speakers", &old))?;
                same(&text(&condition(&speaker, "Ready")["status"]), &"True")
            })?;
            same(&restarts()?, &(before + 1))
        })
    })
}

#[test]
fn an_outage_is_measured_as_the_client_beside_it_measures_it() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let lab = &cluster.lab;
            let address = serve(it)?[0];
            let (old, _) = cluster.announcer(address)?;
            let probe = Probe::start(lab, "client", address, 80)?;
            let answer = thread::scope(|scope| {
                let (name, shown) = (service(it), address.to_string());
                let drill = scope
                    .spawn(move || drill(cluster, &name, &["--after", "8s", "--address", &shown]));
                let moved = eventually("it has moved", LONG, || {
                    let vip = vip(cluster, address)?;
                    let node = text(&vip["status"]["segments"][0]["node"]);
                    ensure!(!node.is_empty() && node != old, "it is at {node:?}");
                    Ok(())
                });
                let cut = moved.and_then(|()| Ok(lab.cut("client", true)?));
                thread::sleep(OUTAGE);
                lab.heal("client")?;
                cut?;
                drill
                    .join()
                    .map_err(|_panic| anyhow!("the drill panicked"))?
            })?;
            let (outage, _) = probe.outage();
            let said = Duration::from_millis(number(&answer, "outageMs")?);
            report(&format!(
                "the drill measured {said:?}, the client {outage:?}"
            ));
            ensure!(said >= OUTAGE, "{said:?} of {OUTAGE:?}");
            ensure!(
                said.abs_diff(outage) <= outage / 5,
                "the drill measured {said:?}, the client {outage:?}"
            );
            ensure!(number(&answer, "failed")? > 100, "{answer}");
            Ok(())
        })
    })
}
