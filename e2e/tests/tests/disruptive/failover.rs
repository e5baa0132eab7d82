//! The announcer goes: another node takes the address over.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use herald_e2e::client::shares;
use herald_e2e::cluster::{Cluster, report};
use herald_e2e::object::text;
use herald_e2e::probe::Probe;
use herald_e2e::sandbox::{Sandbox, backend};
use herald_e2e::wait::{LONG, eventually, same, throughout};
use herald_lab::{HERALD_NAMESPACE, Program};
use serde_json::{Value, json};

use crate::{alone, start_api, stop_api};

/// What a takeover may take where observers are kept from running again and again: a late one votes
/// anew. How long it does take is what the benchmark is for.
pub(crate) const TAKEOVER: Duration = LONG;

/// A Service of both families whose addresses answer.
pub(crate) fn serve(it: &Sandbox) -> Result<Vec<IpAddr>> {
    it.pool(
        "a",
        json!({"addresses": [it.range_v4(0, 3), it.range_v6(0, 3)]}),
    )?;
    it.dual_service("web", json!({}))?;
    it.wait_announced("web")?;
    let addresses = it.wait_addresses("web")?;
    for address in &addresses {
        // kube-proxy may take a minute to ask an API server again that was away.
        let limit = Duration::from_mins(2);
        eventually(&format!("{address} answers"), limit, || {
            it.client().http(*address, 80, 12).map(drop)
        })?;
    }
    Ok(addresses)
}

/// Waits until another node than `old` announces the address, alone, and it serves: which.
pub(crate) fn moved(it: &Sandbox, address: IpAddr, old: &str, limit: Duration) -> Result<String> {
    let expected = format!("another node than {old} announces {address}");
    let (node, mac) = eventually(&expected, limit, || {
        let (node, mac) = it.cluster.announcer(address)?;
        ensure!(node != old, "it is still {node}");
        Ok((node, mac))
    })?;
    eventually(
        &format!("{node} answers for {address}, alone"),
        LONG,
        || same(&it.client().one_answer(address)?, &mac),
    )?;
    eventually(&format!("{address} answers"), LONG, || {
        it.client().http(address, 80, 20).map(drop)
    })?;
    Ok(node)
}

/// Waits until all nodes get their share again.
pub(crate) fn all_nodes_serve(it: &Sandbox, address: IpAddr) -> Result<()> {
    eventually("every node gets its share", Duration::from_mins(2), || {
        let replies = it.client().http(address, 80, 40)?;
        let nodes = shares(&replies, |reply| &reply.node);
        ensure!(nodes.len() == it.cluster.nodes().len(), "only {nodes:?}");
        Ok(())
    })
}

fn said(text: &str, probe: &Probe, began: Instant) {
    let (longest, lost) = probe.outage();
    report(&format!(
        "{text}: longest time without an answer {} ms, {lost} requests lost, all over after {} s",
        longest.as_millis(),
        began.elapsed().as_secs()
    ));
}

#[test]
fn a_speaker_killed_and_kept_down_hands_its_address_to_another_node() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let addresses = serve(it)?;
            let four = addresses[0];
            let (old, _) = cluster.announcer(four)?;
            let probe = Probe::start(&cluster.lab, "client", four, 80)?;
            let began = Instant::now();
            cluster.lab.kill_and_hold(&old, Program::Speaker)?;
            let new = moved(it, four, &old, TAKEOVER)?;
            said("speaker killed", &probe, began);
            drop(probe);
            for address in &addresses[1..] {
                if cluster.announcer(*address)?.0 == old {
                    moved(it, *address, &old, TAKEOVER)?;
                }
            }
            let note = it.expect_event_of("web", "Normal", "Moved", four)?;
            ensure!(
                note.contains(&old) && note.contains(&new),
                "the note does not name {old} and {new}: {note:?}"
            );
            cluster.lab.heal(&old)?;
            cluster.wait_whole()?;
            all_nodes_serve(it, four)?;
            // A node that returns takes nothing back by itself.
            throughout(
                "the address stays where it is",
                Duration::from_secs(3),
                || same(&cluster.announcer(four)?.0, &new),
            )
        })
    })
}

/// How often a speaker has timed the first packet of what it took over.
fn timed(cluster: &Cluster, node: &str) -> Result<f64> {
    let metrics = cluster.speaker_metrics(node)?;
    let stage = ["stage=\"forwarded\""];
    Ok(metrics.sum("herald_speaker_takeover_seconds_count", &stage))
}

#[test]
fn the_first_packet_through_a_node_that_took_an_address_over_is_timed() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
            // With a second address, its packets might be counted there already.
            it.service("web", json!({}))?;
            let address = it.wait_announced("web")?;
            let (old, _) = cluster.announcer(address)?;
            let mut before = BTreeMap::new();
            for node in cluster.nodes() {
                before.insert(node.clone(), timed(cluster, &node)?);
            }
            let _probe = Probe::start(&cluster.lab, "client", address, 80)?;
            cluster.lab.kill_and_hold(&old, Program::Speaker)?;
            let new = moved(it, address, &old, TAKEOVER)?;
            eventually("its first packet was timed", LONG, || {
                let (now, before) = (timed(cluster, &new)?, before[&new]);
                ensure!(now > before, "{now} times, as often as before");
                Ok(())
            })?;
            Ok(cluster.lab.heal(&old)?)
        })
    })
}

#[test]
fn a_node_without_power_loses_its_address_to_another_and_gets_nothing_back() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let addresses = serve(it)?;
            let four = addresses[0];
            let (old, _) = cluster.announcer(four)?;
            let probe = Probe::start(&cluster.lab, "client", four, 80)?;
            let began = Instant::now();
            cluster.lab.power_off(&old)?;
            let new = moved(it, four, &old, TAKEOVER)?;
            said("node off", &probe, began);
            drop(probe);
            // Kubernetes takes the dead node's pods for ready for half a minute, and one kube-proxy hears of it
            // later than the other.
            let replies = eventually("no request goes to a pod of the dead node", LONG, || {
                it.client().http(four, 80, 60)
            })?;
            ensure!(
                replies.iter().all(|reply| reply.node != old),
                "the dead {old} is said to have answered"
            );
            cluster.lab.power_on(&old, false)?;
            cluster.wait_whole()?;
            all_nodes_serve(it, four)?;
            same(&cluster.announcer(four)?.0, &new)?;
            it.client().one_answer(four).map(drop)
        })
    })
}

#[test]
fn a_speaker_pod_that_is_replaced_serves_on() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let four = serve(it)?[0];
            let (old, _) = cluster.announcer(four)?;
            let pods = cluster.pods("speaker")?;
            let pod = pods
                .iter()
                .find(|pod| text(&pod["spec"]["nodeName"]) == old)
                .context("no speaker on the announcer")?;
            let probe = Probe::start(&cluster.lab, "client", four, 80)?;
            let began = Instant::now();
            let name = text(&pod["metadata"]["name"]);
            cluster
                .lab
                .kubectl(["delete", "pod", "-n", HERALD_NAMESPACE, name])?;
            cluster.wait_whole()?;
            let mac = eventually("somebody answers, alone", LONG, || {
                let (_, mac) = cluster.announcer(four)?;
                same(&cluster.other_client().one_answer(four)?, &mac)?;
                Ok(mac)
            })?;
            eventually("the address answers", LONG, || {
                it.client().http(four, 80, 20).map(drop)
            })?;
            said("speaker replaced", &probe, began);
            drop(probe);
            same(&it.client().one_answer(four)?, &mac)
        })
    })
}

fn exclude(cluster: &Cluster, node: &str, value: &Value) -> Result<()> {
    let label = "node.kubernetes.io/exclude-from-external-load-balancers";
    cluster
        .api
        .merge(
            &format!("/api/v1/nodes/{node}"),
            &json!({"metadata": {"labels": {label: value}}}),
        )
        .map(drop)
}

#[test]
fn an_excluded_node_neither_announces_nor_receives() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let four = serve(it)?[0];
            let (old, _) = cluster.announcer(four)?;
            exclude(cluster, &old, &"".into())?;
            let result = (|| {
                let new = moved(it, four, &old, LONG)?;
                // Where kube-proxy sends it from there is its own affair: only what Herald counts is ours.
                let label = format!("service=\"{}/{}\"", it.namespace, it.service_name("web"));
                let flows = |node: &str| -> Result<f64> {
                    let metrics = cluster.speaker_metrics(node)?;
                    Ok(metrics.sum("herald_speaker_flows_total", &[&label]))
                };
                let before = flows(&new)?;
                it.client().http(four, 80, 20)?;
                ensure!(flows(&new)? >= before + 20.0, "not through {new}");
                Ok(new)
            })();
            exclude(cluster, &old, &Value::Null)?;
            let new = result?;
            all_nodes_serve(it, four)?;
            same(&cluster.announcer(four)?.0, &new)
        })
    })
}

#[test]
fn the_api_server_away_for_30_s_loses_nothing_and_all_goes_on_by_itself() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let four = serve(it)?[0];
            // What kube-proxy has not yet heard of when the API server goes, it does not serve.
            all_nodes_serve(it, four)?;
            let (_, mac) = cluster.announcer(four)?;
            stop_api(cluster)?;
            let probe = Probe::for_losses(&cluster.lab, "client", four, 80)?;
            // From elsewhere: who asks forgets what it knew, and a connection that waits for it fails.
            let other = cluster.other_client();
            let answered_for = throughout(
                "the address is answered for",
                Duration::from_secs(30),
                || same(&other.one_answer(four)?, &mac),
            );
            let asked = probe.asked();
            drop(probe);
            start_api(cluster)?;
            answered_for?;
            let lost: Vec<_> = asked.iter().filter(|asked| asked.reply.is_err()).collect();
            ensure!(lost.is_empty(), "lost of {}: {lost:?}", asked.len());
            it.service("after", json!({}))?;
            let address = it.wait_announced("after")?;
            it.client().one_answer(address)?;
            cluster.wait_whole()?;
            // Nothing the API server has missed is a reason to move.
            throughout(
                "the same node answers for the address",
                Duration::from_secs(5),
                || {
                    same(&it.client().one_answer(four)?, &mac)?;
                    same(&cluster.announcer(four)?.1, &mac)
                },
            )?;
            // The controller manager may take nodes for lost until it has heard of them again.
            all_nodes_serve(it, four)
        })
    })
}
