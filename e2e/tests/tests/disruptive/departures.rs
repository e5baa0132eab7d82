//! Addresses that the controller moves by itself: from nodes that are about to go, and to nodes that
//! have fewer.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use herald_e2e::cluster::Cluster;
use herald_e2e::object::text;
use herald_e2e::sandbox::{Sandbox, backend, sandbox};
use herald_e2e::wait::{LONG, eventually, same, throughout};
use serde_json::json;

use crate::failover::{moved, serve};
use crate::{alone, install};

pub(crate) fn cordon(cluster: &Cluster, node: &str, cordon: bool) -> Result<()> {
    let spec = json!({"spec": {"unschedulable": cordon}});
    let path = format!("/api/v1/nodes/{node}");
    cluster.api.merge(&path, &spec).map(drop)
}

pub(crate) fn uncordon_all(cluster: &Cluster) -> Result<()> {
    let mut nodes = cluster.nodes().into_iter();
    nodes.try_for_each(|node| cordon(cluster, &node, false))
}

/// Waits for the Event that says why an address is to move.
fn expect_reason(it: &Sandbox, name: &str, note: &str) -> Result<()> {
    eventually(&format!("an Event {note:?}"), LONG, || {
        let events = it.events(name, "Moving")?;
        let notes: Vec<_> = events.iter().map(|event| text(&event["note"])).collect();
        ensure!(notes.iter().any(|it| it.contains(note)), "{notes:?}");
        Ok(())
    })
}

#[test]
fn a_cordoned_node_gives_its_address_away_unless_all_are_and_gets_nothing_back() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let four = serve(it)?[0];
            let stays = |node: &str| {
                throughout("it stays", Duration::from_secs(4), || {
                    same(&cluster.announcer(four)?.0.as_str(), &node)
                })
            };
            let result = (|| -> Result<()> {
                let mut holder = cluster.announcer(four)?.0;
                for _ in 1..cluster.nodes().len() {
                    cordon(cluster, &holder, true)?;
                    let new = moved(it, four, &holder, LONG)?;
                    let why =
                        format!("{four} is to move from {holder} to {new}: {holder} is cordoned");
                    expect_reason(it, "web", &why)?;
                    holder = new;
                }
                cordon(cluster, &holder, true)?;
                stays(&holder)?;
                // Were another the first to stay, that one would get the address.
                cordon(cluster, &holder, false)?;
                uncordon_all(cluster)?;
                stays(&holder)
            })();
            uncordon_all(cluster)?;
            result
        })
    })
}

#[test]
fn addresses_move_to_a_node_that_has_none_and_an_event_says_why() -> Result<()> {
    alone(|cluster| {
        sandbox(|it| {
            it.pool("a", json!({"addresses": [it.range_v4(0, 9)]}))?;
            let result = (|| -> Result<()> {
                install(
                    cluster,
                    &[
                        "controller.rebalance.enabled=true",
                        "controller.rebalance.quiet=2s",
                        "controller.rebalance.interval=1s",
                    ],
                )?;
                let idle = cluster.nodes().pop().context("no node")?;
                cordon(cluster, &idle, true)?;
                let names: Vec<String> = (0..4).map(|number| format!("web{number}")).collect();
                let mut addresses: Vec<IpAddr> = Vec::new();
                for name in &names {
                    it.service(name, json!({}))?;
                    addresses.push(it.wait_announced(name)?);
                }
                for address in &addresses {
                    ensure!(cluster.announcer(*address)?.0 != idle);
                }
                cordon(cluster, &idle, false)?;
                let place = eventually("it has one", LONG, || {
                    for (place, address) in addresses.iter().enumerate() {
                        if cluster.announcer(*address)?.0 == idle {
                            return Ok(place);
                        }
                    }
                    anyhow::bail!("{idle} has none")
                })?;
                expect_reason(it, &names[place], &format!("to {idle}: "))?;
                expect_reason(it, &names[place], &format!(", {idle} 0"))
            })();
            uncordon_all(cluster)?;
            install(cluster, &[])?;
            result
        })
    })
}
