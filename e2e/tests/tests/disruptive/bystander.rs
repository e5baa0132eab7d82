//! A speaker that announces nothing goes: nobody notices. Its node's pods keep their traffic, since its
//! kernel still answers.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use herald_e2e::capture::Capture;
use herald_e2e::cluster::Cluster;
use herald_e2e::flows::{FLOWS, Flows, PATIENCE, Record};
use herald_e2e::sandbox::backend;
use herald_e2e::streams::Streams;
use herald_e2e::wait::{LONG, eventually, same, throughout};
use herald_lab::Program;
use serde_json::json;

use crate::alone;

const PORT: u16 = 9090;
const STREAMS: usize = 40;

/// The nodes that answered a flow since a moment.
fn answered_by(record: &Record, flow: usize, since: Instant) -> BTreeSet<&str> {
    let asked = record.questions.iter().skip(flow).step_by(FLOWS);
    asked
        .filter_map(|question| question.answer.as_ref())
        .filter(|(at, _)| *at >= since)
        .map(|(_, node)| &**node)
        .collect()
}

/// Waits until another speaker knows that of this node to be dead, and its kernel to be alive.
fn certified(cluster: &Cluster, by: &str) -> Result<()> {
    eventually(&format!("{by} knows a dead speaker"), LONG, || {
        let members = cluster.speaker_metrics(by)?;
        let down = |state: &str| {
            let label = format!("state=\"{state}\"");
            members.sum("herald_speaker_ring_members", &[&label])
        };
        same(&(down("speaker_down"), down("node_down")), &(1.0, 0.0))
    })
}

/// A Service of policy Local: a flow's node is its slot's.
fn story(
    go: impl Fn(&Cluster, &str) -> Result<()>,
    mend: impl Fn(&Cluster, &str) -> Result<()>,
) -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
            let port = |protocol: &str| json!({"name": protocol.to_lowercase(), "protocol": protocol, "port": PORT});
            let ports = json!([port("UDP"), port("TCP")]);
            let spec = json!({"externalTrafficPolicy": "Local", "ports": ports});
            it.service("web", json!({"spec": spec}))?;
            let address = it.wait_announced("web")?;
            let (holder, mac) = cluster.announcer(address)?;
            let nodes = cluster.nodes();
            let bystander = nodes.iter().find(|node| **node != holder);
            let bystander = bystander.context("there are three")?;

            let to = SocketAddr::new(address, PORT);
            let flows = Flows::start(&cluster.lab, "client", to)?;
            eventually("every flow is answered, none is lost", LONG, || {
                let record = flows.record();
                let all = record.answered_by(record.until, |_| true);
                ensure!(all.len() == FLOWS, "{} of {FLOWS} flows", all.len());
                let since = record.until.checked_sub(PATIENCE * 4);
                let since = since.context("it is too early")?;
                same(&record.settled(&all, since), &Some(Duration::ZERO))
            })?;
            let streams = Streams::start(&cluster.lab, "client", to, STREAMS)?;
            let capture = Capture::start(&cluster.lab, "client")?;
            let record = flows.record();
            let since = record.until.checked_sub(PATIENCE).context("it is later")?;
            let before: Vec<_> = (0..FLOWS)
                .map(|flow| answered_by(&record, flow, since))
                .collect();
            let its = before
                .iter()
                .filter(|nodes| nodes.contains(bystander.as_str()));
            ensure!(its.count() > 0, "no flow is with {bystander}");

            go(cluster, bystander)?;
            certified(cluster, &holder)?;
            let gone = Instant::now();
            throughout("it stays", Duration::from_secs(3), || {
                same(&cluster.announcer(address)?.0, &holder)
            })?;
            let record = flows.record();
            for (flow, before) in before.iter().enumerate() {
                // Not one slot has moved.
                same(&answered_by(&record, flow, since), before)
                    .with_context(|| format!("flow {flow}"))?;
                let after = answered_by(&record, flow, gone);
                ensure!(!after.is_empty(), "flow {flow} is answered no more");
            }
            mend(cluster, bystander)?;
            cluster.wait_whole()?;

            let record = flows.record();
            drop(flows);
            for (flow, before) in before.iter().enumerate() {
                same(&answered_by(&record, flow, since), before)
                    .with_context(|| format!("flow {flow}, since it is back"))?;
            }
            let fates = streams.finish(&[])?;
            ensure!(
                fates.iter().any(|fate| fate.node == *bystander),
                "no stream is with {bystander}"
            );
            for fate in fates {
                same(&fate.broken, &None).with_context(|| format!("with {}", fate.node))?;
            }
            let heard: Vec<_> = capture
                .frames()
                .into_iter()
                .filter(|frame| frame.answers(address) || frame.announces(address))
                .filter(|frame| frame.source != mac)
                .collect();
            ensure!(heard.is_empty(), "others are heard: {heard:?}");
            same(&cluster.announcer(address)?.0, &holder)
        })
    })
}

#[test]
fn killing_a_speaker_that_announces_nothing_moves_nothing_and_its_pods_go_on() -> Result<()> {
    story(
        |cluster, node| {
            Ok(cluster
                .lab
                .kill_and_hold(node, Program::Speaker)
                .map(drop)?)
        },
        |cluster, node| Ok(cluster.lab.heal(node)?),
    )
}

#[test]
fn freezing_a_speaker_that_announces_nothing_moves_nothing_and_its_pods_go_on() -> Result<()> {
    story(
        |cluster, node| {
            Ok(cluster
                .lab
                .freeze_program(node, Program::Speaker)
                .map(drop)?)
        },
        |cluster, node| Ok(cluster.lab.thaw_program(node, Program::Speaker).map(drop)?),
    )
}
