//! The announcer fails: the other speakers agree on it and one of them takes over, whether there is an
//! API server or not. With an API server, killed speakers and nodes without power are in `failover`.
//! Times are the benchmark's business (`make bench-failover`).

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use herald_e2e::api::herald;
use herald_e2e::capture::Capture;
use herald_e2e::cluster::Cluster;
use herald_e2e::fault::Fault;
use herald_e2e::object::{items, text};
use herald_e2e::sandbox::{Sandbox, backend};
use herald_e2e::wait::{LONG, eventually, same, throughout};
use herald_lab::Loss;
use herald_model::VirtualIp;
use serde_json::Value;

use crate::failover::{TAKEOVER, all_nodes_serve, serve};
use crate::{alone, start_api, stop_api};

pub(crate) fn vip(cluster: &Cluster, address: IpAddr) -> Result<Value> {
    let name = VirtualIp::object_name(address);
    cluster.api.get(&herald("virtualips", &name))
}

pub(crate) fn epoch(vip: &Value) -> Result<u64> {
    vip["spec"]["epoch"].as_u64().context("no epoch")
}

/// The node with this MAC address.
pub(crate) fn node_of(cluster: &Cluster, mac: &str) -> Result<String> {
    let nodes = cluster.lab.nodes();
    let node = nodes.into_iter().find(|node| node.address.mac == mac);
    Ok(node.with_context(|| format!("{mac} is no node's"))?.name)
}

/// Waits until another node than `old` answers on the LAN, and no second one: which. Asks no API server.
pub(crate) fn taken_over(it: &Sandbox, address: IpAddr, old: &str) -> Result<String> {
    let expected = format!("another node than {old} answers for {address}, alone");
    eventually(&expected, TAKEOVER, || {
        let node = node_of(it.cluster, &it.client().one_answer(address)?)?;
        ensure!(node != old, "it is still {node}");
        Ok(node)
    })
}

/// Waits until status and plan say that `new` holds the address, under a plan made after `before`.
pub(crate) fn adopted(it: &Sandbox, address: IpAddr, new: &str, before: u64) -> Result<()> {
    let expected = format!("status and plan of {address} name {new}");
    eventually(&expected, LONG, || {
        let vip = vip(it.cluster, address)?;
        let holders = items(&vip["status"]["segments"]);
        let holders: Vec<_> = holders.iter().map(|it| text(&it["node"])).collect();
        let first = text(&vip["spec"]["segments"][0]["candidates"][0]["node"]);
        let epoch = epoch(&vip)?;
        ensure!(
            holders == [new] && first == new && epoch > before,
            "holders {holders:?}, first candidate {first}, epoch {epoch} after {before}"
        );
        Ok(())
    })
}

/// That the node is there and is not heard about the address, from `capture` on, nor in a while.
pub(crate) fn gets_nothing_back(
    it: &Sandbox,
    capture: &Capture,
    address: IpAddr,
    old: &str,
    new: &str,
) -> Result<()> {
    let lab = &it.cluster.lab;
    let (old, new) = (lab.node(old)?.address.mac, lab.node(new)?.address.mac);
    throughout("the new one answers", Duration::from_secs(3), || {
        same(&it.client().one_answer(address)?, &new)
    })?;
    let heard: Vec<_> = capture
        .frames()
        .into_iter()
        .filter(|frame| frame.source == old)
        .filter(|frame| frame.answers(address) || frame.announces(address))
        .collect();
    ensure!(heard.is_empty(), "{old} is heard: {heard:?}");
    Ok(())
}

/// Whether there is an API server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Api {
    There,
    Away,
}

/// The whole story of one fault.
fn story(fault: Fault, api: Api) -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let lab = &cluster.lab;
            let addresses = serve(it)?;
            let address = addresses[0];
            let (old, _) = cluster.announcer(address)?;
            let before = epoch(&vip(cluster, address)?)?;
            let mut also = Vec::new();
            for other in &addresses[1..] {
                if cluster.announcer(*other)?.0 == old {
                    also.push(*other);
                }
            }
            if api == Api::Away {
                stop_api(cluster)?;
            }

            fault.befall(lab, &old)?;
            let new = taken_over(it, address, &old)?;
            for other in also {
                taken_over(it, other, &old)?;
            }
            eventually(&format!("{address} serves"), LONG, || {
                it.client().http(address, 80, 1).map(drop)
            })?;
            if api == Api::There {
                let note = it.expect_event_of("web", "Normal", "Moved", address)?;
                ensure!(
                    note.contains(&old) && note.contains(&new),
                    "the note does not name {old} and {new}: {note:?}"
                );
            }
            start_api(cluster)?;
            adopted(it, address, &new, before)?;

            // What it was asked meanwhile may still wait for it.
            let capture = Capture::start(lab, "client")?;
            fault.mend(lab, &old)?;
            gets_nothing_back(it, &capture, address, &old, &new)?;
            cluster.wait_whole()?;
            all_nodes_serve(it, address)?;
            gets_nothing_back(it, &capture, address, &old, &new)?;
            adopted(it, address, &new, before)
        })
    })
}

#[test]
fn a_node_whose_link_passes_nothing_hands_its_address_over_without_the_api_server() -> Result<()> {
    story(Fault::CutSilently, Api::Away)
}

#[test]
fn a_node_without_carrier_hands_its_address_over_without_the_api_server() -> Result<()> {
    story(Fault::Cut, Api::Away)
}

#[test]
fn a_node_without_power_hands_its_address_over_without_the_api_server() -> Result<()> {
    story(Fault::Power, Api::Away)
}

#[test]
fn a_killed_speaker_hands_its_address_over_without_the_api_server() -> Result<()> {
    story(Fault::Kill, Api::Away)
}

#[test]
fn a_frozen_speaker_hands_its_address_over_and_is_silent_when_thawed() -> Result<()> {
    story(Fault::Stop, Api::There)
}

#[test]
fn a_frozen_speaker_hands_its_address_over_without_the_api_server() -> Result<()> {
    story(Fault::Stop, Api::Away)
}

#[test]
fn the_greater_part_of_a_split_lan_takes_over_though_the_api_server_is_in_the_other() -> Result<()>
{
    alone(|cluster| {
        backend(|it| {
            let lab = &cluster.lab;
            let address = serve(it)?[0];
            let (old, _) = cluster.announcer(address)?;
            let before = epoch(&vip(cluster, address)?)?;
            let mut rest = cluster.nodes();
            rest.retain(|node| *node != old);
            rest.extend(["gateway", "client"].map(str::to_owned));
            lab.partition(&[vec![old.clone(), "cp".to_owned()], rest])?;
            let new = taken_over(it, address, &old)?;
            let capture = Capture::start(lab, "client")?;
            lab.heal_all()?;
            gets_nothing_back(it, &capture, address, &old, &new)?;
            adopted(it, address, &new, before)?;
            cluster.wait_whole()?;
            all_nodes_serve(it, address)?;
            gets_nothing_back(it, &capture, address, &old, &new)
        })
    })
}

#[test]
fn a_lan_that_loses_5_percent_moves_nothing() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let lab = &cluster.lab;
            let address = serve(it)?[0];
            let (holder, mac) = cluster.announcer(address)?;
            let before = epoch(&vip(cluster, address)?)?;
            let capture = Capture::start(lab, "client")?;
            for node in cluster.nodes() {
                lab.lose(&node, Loss::percent(5))?;
            }
            throughout("it stays", Duration::from_secs(20), || {
                same(&cluster.announcer(address)?.0, &holder)
            })?;
            lab.heal_all()?;
            same(&it.client().one_answer(address)?, &mac)?;
            same(&epoch(&vip(cluster, address)?)?, &before)?;
            let others: Vec<_> = capture
                .frames()
                .into_iter()
                .filter(|frame| frame.answers(address) || frame.announces(address))
                .filter(|frame| frame.source != mac)
                .collect();
            ensure!(others.is_empty(), "others are heard: {others:?}");
            Ok(())
        })
    })
}
