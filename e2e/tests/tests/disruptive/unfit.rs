//! A node whose kernel forwards nothing to pods.

use anyhow::{Context as _, Result, ensure};
use herald_e2e::api::herald;
use herald_e2e::client::shares;
use herald_e2e::object::{condition, text};
use herald_e2e::sandbox::{Sandbox, backend};
use herald_e2e::wait::{LONG, eventually, same};
use serde_json::json;

use crate::alone;
use crate::failover::all_nodes_serve;
use crate::takeover::vip;

#[test]
fn a_node_that_does_not_forward_says_so_and_gets_no_traffic_until_it_does() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            it.pool(
                "a",
                json!({"addresses": [it.range_v4(0, 3), it.range_v6(0, 3)]}),
            )?;
            // Otherwise kube-proxy on another node would send to that node's pods.
            it.dual_service("web", json!({"spec": {"externalTrafficPolicy": "Local"}}))?;
            let address = it.wait_announced("web")?;
            all_nodes_serve(it, address)?;
            let (announcer, _) = cluster.announcer(address)?;
            let nodes = cluster.nodes();
            let node = nodes.iter().find(|node| **node != announcer);
            let node = node.context("there is one node")?;
            let forward = |value: u8| {
                let setting = format!("net.ipv4.ip_forward={value}");
                let command = ["sysctl", "-q", "-w", &setting];
                cluster.lab.exec(node, command)?.ok()
            };
            forward(0)?;
            let avoided = is_avoided(it, node);
            forward(1)?;
            avoided?;
            for address in it.wait_addresses("web")? {
                all_nodes_serve(it, address)?;
            }
            eventually("it says nothing of the kind any more", LONG, || {
                let speaker = cluster.api.get(&herald("speakers", node))?;
                let conditions = speaker["status"]["conditions"].as_array();
                let conditions = conditions.context("no conditions")?;
                let kinds: Vec<&str> = conditions.iter().map(|it| text(&it["type"])).collect();
                same(&kinds, &vec!["Ready"])
            })
        })
    })
}

fn is_avoided(it: &Sandbox, node: &str) -> Result<()> {
    let cluster = it.cluster;
    eventually(&format!("{node} says why"), LONG, || {
        let speaker = cluster.api.get(&herald("speakers", node))?;
        let said = condition(&speaker, "TakesTraffic");
        same(
            &(text(&said["status"]), text(&said["reason"])),
            &("False", "NotForwarding"),
        )?;
        let message = text(&said["message"]);
        ensure!(message.contains("net.ipv4.ip_forward"), "{message}");
        Ok(())
    })?;
    let rest = u64::try_from(cluster.nodes().len() - 1)?;
    for address in it.wait_addresses("web")? {
        eventually(&format!("{address} does without {node}"), LONG, || {
            same(
                &vip(cluster, address)?["status"]["targets"].as_u64(),
                &Some(rest),
            )?;
            let replies = it.client().http(address, 80, 20)?;
            let nodes = shares(&replies, |reply| &reply.node);
            ensure!(!nodes.contains_key(node), "{nodes:?}");
            Ok(())
        })?;
        // Not one is lost.
        let replies = it.client().http(address, 80, 60)?;
        let nodes = shares(&replies, |reply| &reply.node);
        same(&u64::try_from(nodes.len())?, &rest)?;
    }
    Ok(())
}
