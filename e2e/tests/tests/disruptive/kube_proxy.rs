//! kube-proxy is late, so that a node gets packets for an address that it does not know yet; or runs in another
//! mode.

use anyhow::{Result, ensure};
use herald_e2e::api::herald;
use herald_e2e::client::Client;
use herald_e2e::object::text;
use herald_e2e::sandbox::backend;
use herald_e2e::wait::{LONG, eventually, same};
use herald_lab::Program;
use serde_json::json;

use crate::alone;
use crate::failover::serve;
use crate::takeover::vip;

/// Source ports that the kernel gives to nobody by itself. One for each address: who closes keeps its
/// port for a minute.
const FROM: [u16; 2] = [30_123, 30_124];

#[test]
fn who_asks_before_kube_proxy_knows_the_address_is_answered_from_the_same_port_afterwards()
-> Result<()> {
    alone(|cluster| {
        backend(|it| {
            it.pool(
                "a",
                json!({"addresses": [it.range_v4(0, 3), it.range_v6(0, 3)]}),
            )?;
            for node in cluster.nodes() {
                cluster.lab.freeze_program(&node, Program::KubeProxy)?;
            }
            let ports = json!([{"name": "tcp", "port": 80, "targetPort": 9090}]);
            it.dual_service("web", json!({"spec": {"ports": ports}}))?;
            it.wait_announced("web")?;
            let addresses = it.wait_addresses("web")?;
            let from = || addresses.iter().zip(FROM);
            let ask = |address, port| it.client().echo("tcp", address, 80, port, 1);
            for (address, port) in from() {
                ensure!(
                    ask(*address, port).is_err(),
                    "{address} answers without kube-proxy"
                );
            }
            for node in cluster.nodes() {
                cluster.lab.thaw_program(&node, Program::KubeProxy)?;
            }
            // What conntrack remembers of the first attempt, each further one would keep alive.
            for (address, port) in from() {
                eventually(&format!("{address} answers port {port}"), LONG, || {
                    ask(*address, port).map(drop)
                })?;
            }
            Ok(())
        })
    })
}

#[test]
fn beside_kube_proxy_in_mode_ipvs_forwarding_is_left_to_it_and_comes_back_with_another_mode()
-> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let address = serve(it)?[0];
            let (node, _) = cluster.announcer(address)?;
            let said = |expected: &str| {
                eventually(&format!("forwarding is {expected}"), LONG, || {
                    let status = &vip(cluster, address)?["status"];
                    same(&text(&status["forwarding"]), &expected)?;
                    Ok(text(&status["forwardingReason"]).to_owned())
                })
            };
            said("dsr")?;
            // This kernel has no IPVS: what tells of it is the interface that kube-proxy makes.
            let client = Client::at(&cluster.lab, &node);
            client.ip("link add kube-ipvs0 type bridge")?;
            let seen = said("off");
            let reported = eventually("the Speaker says so", LONG, || {
                let speaker = cluster.api.get(&herald("speakers", &node))?;
                same(&text(&speaker["status"]["kubeProxyMode"]), &"ipvs")
            });
            client.ip("link delete kube-ipvs0")?;
            let reason = seen?;
            ensure!(reason.contains("ipvs"), "the reason: {reason:?}");
            reported?;
            said("dsr").map(drop)
        })
    })
}
