//! `kubectl herald what-if` and `check`, compared with what then happens to nodes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use herald_e2e::cli;
use herald_e2e::cluster::{Cluster, report};
use herald_e2e::object::{items, text};
use herald_e2e::sandbox::{Sandbox, backend};
use herald_e2e::streams::Streams;
use herald_e2e::wait::{LONG, eventually, same};
use herald_lab::{HERALD_NAMESPACE, Program};
use serde_json::{Value, json};

use crate::alone;
use crate::departures::{cordon, uncordon_all};
use crate::failover::{TAKEOVER, serve};
use crate::segments::SecondLan;
use crate::verified::Distrust;

/// Has a leader that remembers no node as failed: what-if can't know its memory (docs/cli.md).
fn forget_failures(cluster: &Cluster) -> Result<()> {
    let controllers = ["-n", HERALD_NAMESPACE, "deployment/herald-controller"];
    let restart = ["rollout", "restart"];
    cluster.lab.kubectl(restart.iter().chain(&controllers))?;
    let done = ["rollout", "status", "--timeout", "120s"];
    cluster.lab.kubectl(done.iter().chain(&controllers))?;
    cluster.wait_whole()
}

/// Services with addresses of both families: the addresses.
fn serve_many(it: &Sandbox) -> Result<Vec<IpAddr>> {
    it.pool(
        "a",
        json!({"addresses": [it.range_v4(0, 9), it.range_v6(0, 9)]}),
    )?;
    let names: Vec<String> = (0..6).map(|number| format!("s{number}")).collect();
    for name in &names {
        it.dual_service(name, json!({}))?;
    }
    let mut addresses = Vec::new();
    for name in &names {
        it.wait_announced(name)?;
        addresses.extend(it.wait_addresses(name)?);
    }
    Ok(addresses)
}

fn announcers(cluster: &Cluster, addresses: &[IpAddr]) -> Result<BTreeMap<IpAddr, String>> {
    let of = |address: &IpAddr| Ok((*address, cluster.announcer(*address)?.0));
    addresses.iter().map(of).collect()
}

/// Who would announce each of the addresses.
fn foreseen(answer: &Value, addresses: &[IpAddr]) -> Result<BTreeMap<IpAddr, String>> {
    let holders = items(&answer["holders"]).iter().filter_map(|holder| {
        let address: IpAddr = text(&holder["address"]).parse().ok()?;
        Some((address, text(&holder["node"]).to_owned()))
    });
    let holders: BTreeMap<IpAddr, String> = holders
        .filter(|(address, _)| addresses.contains(address))
        .collect();
    same(&holders.len(), &addresses.len()).with_context(|| answer.to_string())?;
    Ok(holders)
}

/// The node that announces the most of them.
fn busiest(now: &BTreeMap<IpAddr, String>) -> Result<String> {
    let mut counts: BTreeMap<&String, usize> = BTreeMap::new();
    for node in now.values() {
        *counts.entry(node).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(_, count)| *count);
    Ok(most.context("nobody announces anything")?.0.clone())
}

#[test]
fn a_node_without_power_does_what_was_said_of_it() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            forget_failures(cluster)?;
            let addresses = serve_many(it)?;
            let now = announcers(cluster, &addresses)?;
            let node = busiest(&now)?;
            let (_, answer) = cli::ask(&cluster.lab, &["what-if", "--node-down", &node])?;
            let foreseen = foreseen(&answer, &addresses)?;
            let moves = now
                .iter()
                .filter(|(address, old)| foreseen[*address] != **old);
            let moves: Vec<&IpAddr> = moves.map(|(address, _)| address).collect();
            let of_node = now.iter().filter(|(_, holder)| **holder == node);
            let of_node: Vec<&IpAddr> = of_node.map(|(address, _)| address).collect();
            same(&moves, &of_node).context("what it announces moves, and nothing else")?;
            // Two of six pods are on the node, and a third of the table's slots.
            let shares: Vec<f64> = items(&answer["flows"])
                .iter()
                .filter(|flows| text(&flows["service"]).starts_with(&it.namespace))
                .filter_map(|flows| flows["share"].as_f64())
                .collect();
            ensure!(
                shares.len() >= addresses.len() && shares.iter().all(|it| (0.4..0.7).contains(it)),
                "shares of flows that break: {shares:?}"
            );
            cluster.lab.power_off(&node)?;
            eventually("the announcers are those foreseen", TAKEOVER, || {
                same(&announcers(cluster, &addresses)?, &foreseen)
            })
        })
    })
}

/// Of connections with a Service, how many end when a node does; of each policy.
const STREAMS: u32 = 120;
/// Three standard deviations of the share of so many that a hash spreads.
const CHANCE: f64 = 0.14;

#[test]
fn as_many_connections_end_with_a_node_as_was_said() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let lab = &cluster.lab;
            it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
            let mut serving = Vec::new();
            for policy in ["Cluster", "Local"] {
                let name = policy.to_lowercase();
                let ports = json!([{"name": "tcp", "port": 9090}]);
                let spec = json!({"externalTrafficPolicy": policy, "ports": ports});
                it.service(&name, json!({"spec": spec}))?;
                let address = it.wait_announced(&name)?;
                eventually(&format!("{address} answers"), LONG, || {
                    it.client().echo("tcp", address, 9090, 0, 12).map(drop)
                })?;
                serving.push((it.service_name(&name), address));
            }
            let first = serving[0].1;
            let (node, _) = cluster.announcer(first)?;
            let (_, answer) = cli::ask(lab, &["what-if", "--node-down", &node])?;
            let mut traffic = Vec::new();
            for (name, address) in &serving {
                let key = format!("{}/{name}", it.namespace);
                let mut flows = items(&answer["flows"]).iter();
                let flows = flows.find(|flows| text(&flows["service"]) == key);
                let share = flows.and_then(|flows| flows["share"].as_f64());
                let share = share.with_context(|| format!("no share of {key} in {answer}"))?;
                let streams = Streams::start(
                    lab,
                    "client",
                    SocketAddr::new(*address, 9090),
                    usize::try_from(STREAMS)?,
                )?;
                traffic.push((key, share, streams));
            }
            lab.power_off(&node)?;
            eventually("another node announces it", TAKEOVER, || {
                let (holder, _) = cluster.announcer(first)?;
                ensure!(holder != node, "{node} does");
                Ok(())
            })?;
            for (key, foretold, streams) in traffic {
                let fates = streams.finish(&[&node])?;
                let ended = fates.iter().filter(|fate| fate.broken.is_some()).count();
                let share = f64::from(u32::try_from(ended)?) / f64::from(STREAMS);
                report(&format!("{key}: {foretold:.2} was said, {share:.2} ended"));
                ensure!(
                    (share - foretold).abs() < CHANCE,
                    "{share} of the connections with {key} ended, {foretold} was said"
                );
            }
            Ok(())
        })
    })
}

#[test]
fn a_cordoned_node_does_what_was_said_of_it() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            forget_failures(cluster)?;
            let addresses = serve_many(it)?;
            let node = busiest(&announcers(cluster, &addresses)?)?;
            let (_, answer) = cli::ask(&cluster.lab, &["what-if", "--drain", &node])?;
            let foreseen = foreseen(&answer, &addresses)?;
            ensure!(
                foreseen.values().all(|holder| *holder != node),
                "{node} would keep some: {foreseen:?}"
            );
            let result = (|| {
                cordon(cluster, &node, true)?;
                eventually("the announcers are those foreseen", LONG, || {
                    same(&announcers(cluster, &addresses)?, &foreseen)
                })
            })();
            uncordon_all(cluster)?;
            result
        })
    })
}

/// What `check` finds of a kind.
fn found(cluster: &Cluster, check: &str, level: &str) -> Result<Vec<String>> {
    let (_, answer) = cli::ask(&cluster.lab, &["check"])?;
    let findings = items(&answer["findings"]).iter();
    Ok(findings
        .filter(|finding| finding["check"] == check && finding["level"] == level)
        .map(|finding| format!("{}: {}", text(&finding["subject"]), text(&finding["text"])))
        .collect())
}

fn expect_found(cluster: &Cluster, check: &str, level: &str, word: &str) -> Result<()> {
    planted(cluster, check, level, word, || Ok(()))
}

#[test]
fn check_finds_what_is_wrong_with_nodes_and_programs() -> Result<()> {
    alone(|cluster| {
        let lab = &cluster.lab;
        let node = cluster.nodes().into_iter().next().context("no node")?;
        for check in [
            "ring",
            "kube-proxy",
            "leader",
            "controller",
            "speakers",
            "clock",
            "sysctl",
        ] {
            expect_found(cluster, check, "ok", "")?;
        }
        let forward = |value: u8| {
            let setting = format!("net.ipv4.ip_forward={value}");
            lab.exec(&node, ["sysctl", "-q", "-w", &setting])?.ok()
        };
        forward(0)?;
        let found = expect_found(cluster, "sysctl", "problem", "net.ipv4.ip_forward");
        forward(1)?;
        found?;
        lab.kill_and_hold(&node, Program::KubeProxy)?;
        expect_found(cluster, "kube-proxy", "problem", &node)?;
        lab.heal(&node)?;
        lab.kill_and_hold(&node, Program::Speaker)?;
        expect_found(cluster, "node", "warning", &node)?;
        expect_found(cluster, "speakers", "warning", "are ready")?;
        lab.heal(&node)?;
        cluster.wait_whole()?;
        lab.cut(&node, true)?;
        expect_found(cluster, "ring", "problem", "of 3 speakers")?;
        lab.heal(&node)?;
        cluster.wait_whole()
    })
}

#[test]
fn check_finds_what_is_wrong_with_the_second_interface_of_a_node() -> Result<()> {
    alone(|cluster| {
        let node = cluster.nodes().into_iter().next().context("no node")?;
        // Over the first one the speaker goes on telling.
        let lan = SecondLan::lay(cluster)?;
        expect_found(cluster, "interface", "ok", "eth1")?;
        let filter = |value: u8| {
            let setting = format!("sysctl -q -w net.ipv4.conf.eth1.rp_filter={value}");
            lan.run(&node, &setting)
        };
        filter(1)?;
        expect_found(cluster, "sysctl", "problem", "eth1.rp_filter is 1")?;
        filter(2)?;
        lan.run("lan", &format!("ip link set {node}-2 down"))?;
        expect_found(cluster, "interface", "problem", "eth1 has no carrier")
    })
}

#[test]
fn check_finds_what_is_wrong_with_kubernetes_and_controllers() -> Result<()> {
    alone(|cluster| {
        let node = cluster.nodes().into_iter().next().context("no node")?;
        let mode = |strict: bool| {
            let config = format!("mode: ipvs\nipvs:\n  strictARP: {strict}\n");
            cluster.api.apply(&json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "kube-proxy", "namespace": "kube-system"},
                "data": {"config.conf": config},
            }))
        };
        let kube_proxy = (|| {
            mode(false)?;
            expect_found(cluster, "kube-proxy", "problem", "without strict ARP")?;
            mode(true)?;
            expect_found(cluster, "kube-proxy", "warning", "ipvs, strict ARP")
        })();
        let map = "/api/v1/namespaces/kube-system/configmaps/kube-proxy";
        cluster.api.delete(map)?;
        kube_proxy?;

        // Its kubelet corrects both within seconds.
        let lease =
            format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{node}");
        let late = json!({"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}});
        planted(cluster, "clock", "warning", &node, || {
            cluster.api.merge(&lease, &late).map(drop)
        })?;
        let status = format!("/api/v1/nodes/{node}/status");
        let old = json!({"status": {"nodeInfo": {"kernelVersion": "5.10.0"}}});
        planted(cluster, "kernel", "problem", "5.10.0", || {
            cluster.api.merge(&status, &old).map(drop)
        })?;

        let deployment = "/apis/apps/v1/namespaces/herald-system/deployments/herald-controller";
        let scale = |replicas: u8| {
            let spec = json!({"spec": {"replicas": replicas}});
            cluster.api.merge(deployment, &spec).map(drop)
        };
        scale(0)?;
        let stopped = expect_found(cluster, "leader", "problem", "no replica works");
        scale(2)?;
        stopped
    })
}

/// As [`expect_found`], of a fault that is mended by somebody else and so made again before each look.
fn planted(
    cluster: &Cluster,
    check: &str,
    level: &str,
    word: &str,
    plant: impl Fn() -> Result<()>,
) -> Result<()> {
    let expected = format!("check {check} finds a {level} with {word:?}");
    eventually(&expected, LONG, || {
        plant()?;
        let found = found(cluster, check, level)?;
        ensure!(
            found.iter().any(|it| it.contains(word)),
            "it finds {found:?}"
        );
        Ok(())
    })
}

#[test]
fn check_finds_a_switch_that_drops_what_a_node_announces() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let address = serve(it)?[0];
            let (old, _) = cluster.announcer(address)?;
            let distrust = Distrust::of(&cluster.lab, address)?;
            cluster.lab.kill_and_hold(&old, Program::Speaker)?;
            expect_found(cluster, "switch", "problem", &address.to_string())?;
            drop(distrust);
            cluster.lab.heal(&old)?;
            cluster.wait_whole()
        })
    })
}
