//! Speakers that start while the API server is away: they serve from what they keep on disk.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use herald_e2e::cluster::Cluster;
use herald_e2e::sandbox::{Sandbox, backend};
use herald_e2e::wait::{LONG, eventually, same, throughout};
use herald_lab::Program;

use crate::failover::serve;
use crate::{alone, start_api, stop_api};

/// Kills every speaker at once; the kubelets start them anew.
fn kill_all_speakers(cluster: &Cluster) -> Result<()> {
    for node in cluster.nodes() {
        cluster.lab.kill(&node, Program::Speaker, "KILL")?;
    }
    Ok(())
}

/// Waits until every speaker has on disk what a Service's status shows.
fn kept_on_disk(cluster: &Cluster, addresses: &[IpAddr]) -> Result<()> {
    for node in cluster.nodes() {
        eventually(&format!("{node} has it on disk"), LONG, || {
            for kind in ["services", "virtualips"] {
                let path = format!("/var/lib/herald/{kind}.json");
                let kept = cluster.lab.exec(&node, ["cat", &path])?.ok()?;
                for address in addresses {
                    let is_kept = kept.contains(&format!("\"{address}\""));
                    ensure!(is_kept, "{path} does not speak of {address}");
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}

/// Waits until exactly one node answers for an address: its MAC address.
fn answered(it: &Sandbox, address: IpAddr) -> Result<String> {
    eventually(&format!("one node answers for {address}"), LONG, || {
        it.client().one_answer(address)
    })
}

#[test]
fn speakers_that_all_start_without_the_api_server_serve_and_nothing_moves_when_it_is_back()
-> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let addresses = serve(it)?;
            kept_on_disk(cluster, &addresses)?;
            stop_api(cluster)?;
            kill_all_speakers(cluster)?;
            let mut holders = Vec::new();
            for address in &addresses {
                holders.push((*address, answered(it, *address)?));
                it.client().http(*address, 80, 6)?;
            }
            start_api(cluster)?;
            cluster.wait_whole()?;
            throughout("nothing moves", Duration::from_secs(5), || {
                for (address, mac) in &holders {
                    same(&it.client().one_answer(*address)?, mac)?;
                }
                Ok(())
            })?;
            for (address, mac) in &holders {
                eventually("the status names the holder", LONG, || {
                    same(&cluster.announcer(*address)?.1, mac)
                })?;
            }
            Ok(())
        })
    })
}

#[test]
fn what_was_deleted_while_a_speaker_was_down_is_withdrawn_when_the_api_server_is_back() -> Result<()>
{
    alone(|cluster| {
        backend(|it| {
            let address = serve(it)?[0];
            kept_on_disk(cluster, &[address])?;
            let lab = &cluster.lab;
            // Their snapshots still know the Service when they start.
            for node in cluster.nodes() {
                lab.kill_and_hold(&node, Program::Speaker)?;
            }
            it.delete_service("web")?;
            stop_api(cluster)?;
            lab.heal_all()?;
            answered(it, address)?;
            start_api(cluster)?;
            eventually("nobody answers any more", LONG, || {
                same(&it.client().who_has(address)?, &Vec::new())
            })?;
            cluster.wait_whole()
        })
    })
}

#[test]
fn address_that_somebody_else_uses_by_now_is_not_announced_from_a_snapshot() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let address = serve(it)?[0];
            kept_on_disk(cluster, &[address])?;
            let lab = &cluster.lab;
            stop_api(cluster)?;
            kill_all_speakers(cluster)?;
            // A machine on the LAN has the address now.
            let other = herald_e2e::cluster::OTHER_CLIENT;
            let local = format!("{address}/32");
            lab.exec(other, ["ip", "address", "add", &local, "dev", "eth0"])?
                .ok()?;
            let stranger = lab.address(other)?.mac;
            eventually("the speakers are ready again", LONG, || {
                for node in lab.nodes() {
                    let url = format!("http://{}:7471/readyz", node.address.primary());
                    lab.exec("client", ["curl", "-sf", &url])?.ok()?;
                }
                Ok(())
            })?;
            let alone = throughout("the stranger alone answers", Duration::from_secs(5), || {
                same(&it.client().one_answer(address)?, &stranger)
            });
            lab.exec(other, ["ip", "address", "del", &local, "dev", "eth0"])?
                .ok()?;
            alone?;
            answered(it, address)?;
            ensure!(
                it.client().http(address, 80, 6).is_ok(),
                "it does not serve"
            );
            start_api(cluster)?;
            cluster.wait_whole()
        })
    })
}
