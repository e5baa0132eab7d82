//! Mode `pod`: streams go on when the announcer goes, and kube-proxy is not needed.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use herald_e2e::sandbox::{Sandbox, backend};
use herald_e2e::streams::Streams;
use herald_e2e::wait::{LONG, eventually, same};
use herald_lab::Program;
use serde_json::json;

use crate::alone;
use crate::takeover::taken_over;

const PORT: u16 = 9090;
const STREAMS: usize = 100;

/// A Service of both families in mode `pod`; its addresses, which are announced.
fn announce(it: &Sandbox) -> Result<Vec<IpAddr>> {
    it.pool(
        "a",
        json!({"addresses": [it.range_v4(0, 3), it.range_v6(0, 3)]}),
    )?;
    it.dual_service(
        "web",
        json!({
            "metadata": {"annotations": {"heraldlb.io/forwarding": "pod"}},
            "spec": {"ports": [{"name": "tcp", "port": PORT}]},
        }),
    )?;
    it.wait_announced("web")?;
    it.wait_addresses("web")
}

fn answers(it: &Sandbox, address: IpAddr) -> Result<()> {
    eventually(&format!("{address} answers"), LONG, || {
        it.client().echo("tcp", address, PORT, 0, 12).map(drop)
    })
}

/// One address only: a node that returns gets slots back, and a slot that changes its node twice breaks
/// connections (docs/forwarding.md).
fn goes_without_power(is_ipv4: bool) -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let mut addresses = announce(it)?.into_iter();
            let address = addresses.find(|address| address.is_ipv4() == is_ipv4);
            let address = address.context("no address of the family")?;
            answers(it, address)?;
            let (old, _) = cluster.announcer(address)?;
            let to = SocketAddr::new(address, PORT);
            let streams = Streams::start(&cluster.lab, "client", to, STREAMS)?;
            cluster.lab.power_off(&old)?;
            taken_over(it, address, &old)?;
            // Kubernetes takes the dead node's pods for ready for half a minute; we don't.
            answers(it, address)?;
            let fates = streams.finish(&[&old])?;
            let others = fates.iter().filter(|fate| fate.node != old);
            ensure!(others.clone().count() > 0, "all streams were with {old}");
            for fate in others {
                same(&fate.broken, &None).with_context(|| format!("with {}", fate.node))?;
            }
            Ok(())
        })
    })
}

#[test]
fn an_announcer_without_power_takes_only_the_streams_of_its_own_pods_with_it() -> Result<()> {
    goes_without_power(true)
}

#[test]
fn an_announcer_without_power_takes_only_its_own_pods_ipv6_streams_with_it() -> Result<()> {
    goes_without_power(false)
}

#[test]
fn an_address_that_no_kube_proxy_knows_is_served() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            for node in cluster.nodes() {
                // It may just be starting again: it ends when an API server that has only begun refuses it.
                eventually("kube-proxy is frozen", LONG, || {
                    Ok(cluster.lab.freeze_program(&node, Program::KubeProxy)?)
                })?;
            }
            let result = announce(it).and_then(|addresses| {
                let mut addresses = addresses.into_iter();
                addresses.try_for_each(|address| answers(it, address))
            });
            for node in cluster.nodes() {
                cluster.lab.thaw_program(&node, Program::KubeProxy)?;
            }
            result
        })
    })
}
