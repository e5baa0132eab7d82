//! Planned moves lose nothing: hundreds of new connections a second that are tried once, and streams that
//! go on, in both families.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use herald_dataplane::Event;
use herald_e2e::cluster::{Cluster, report};
use herald_e2e::newcomers::Newcomers;
use herald_e2e::object::{items, text};
use herald_e2e::sandbox::{Sandbox, backend};
use herald_e2e::streams::Streams;
use herald_e2e::wait::{LONG, eventually, same};
use herald_lab::{HERALD_NAMESPACE, HERALD_RELEASE, Program};
use serde_json::json;

use crate::departures::{cordon, uncordon_all};
use crate::takeover::{adopted, epoch, node_of, vip};
use crate::{alone, install, start_api, stop_api};

const PORT: u16 = 9090;
const MODES: [&str; 3] = ["dsr", "nodeport", "pod"];
/// A second to each address: one of each family in each mode.
const NEWCOMERS: u32 = 100;
const STREAMS: usize = 25;
/// Of a cluster that nothing happens to.
const BEFORE: Duration = Duration::from_secs(1);
/// And after the last move.
const AFTER: Duration = Duration::from_secs(2);

/// An address of each family in each mode, and traffic to them.
pub(crate) struct Busy<'a> {
    pub(crate) it: &'a Sandbox,
    pub(crate) cluster: &'static Cluster,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Busy<'_> {
    pub(crate) fn holder(&self, address: IpAddr) -> Result<String> {
        Ok(self.cluster.announcer(address)?.0)
    }

    /// Does something to the holder of each address that makes it give the address up, and undoes it.
    fn move_each(
        &self,
        act: impl Fn(&Self, &str) -> Result<()>,
        undo: impl Fn(&Self) -> Result<()>,
    ) -> Result<()> {
        let mut waiting = self.addresses.clone();
        while let Some(first) = waiting.first() {
            let old = self.holder(*first)?;
            let mut gone = Vec::new();
            for address in &waiting {
                if self.holder(*address)? == old {
                    gone.push(*address);
                }
            }
            let moved = act(self, &old).and_then(|()| {
                let mut gone = gone.iter();
                gone.try_for_each(|address| self.moved(*address, &old).map(drop))
            });
            undo(self)?;
            moved?;
            self.cluster.wait_whole()?;
            waiting.retain(|address| !gone.contains(address));
        }
        Ok(())
    }

    /// Waits until another node than `old` answers on the LAN, and no second one: which. Asks from elsewhere:
    /// who asks forgets what it knew, and the client under test is not to.
    pub(crate) fn moved(&self, address: IpAddr, old: &str) -> Result<String> {
        let other = self.cluster.other_client();
        let expected = format!("another node than {old} answers for {address}, alone");
        eventually(&expected, LONG, || {
            let node = node_of(self.cluster, &other.one_answer(address)?)?;
            ensure!(node != old, "it is still {node}");
            Ok(node)
        })
    }

    fn successor(&self, address: IpAddr) -> Result<String> {
        let vip = vip(self.cluster, address)?;
        let candidates = herald_e2e::sandbox::candidates(&vip);
        let next = candidates.get(1).context("there is no second candidate")?;
        Ok((*next).to_owned())
    }
}

/// What happened to packets on each node, as a hint where they were lost.
fn packet_events(cluster: &Cluster) -> Result<BTreeSet<(String, &'static str, u64)>> {
    let mut found = BTreeSet::new();
    for node in cluster.nodes() {
        let metrics = cluster.speaker_metrics(&node)?;
        for event in Event::ALL {
            let label = format!("event=\"{}\"", event.as_str());
            let count = metrics.sum("herald_speaker_packet_events_total", &[&label]);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a count of packets"
            )]
            found.insert((node.clone(), event.as_str(), count as u64));
        }
    }
    Ok(found)
}

/// An address of each family in each of these modes, and the mode, once they answer.
pub(crate) fn serve_each<'a>(it: &Sandbox, modes: &[&'a str]) -> Result<Vec<(IpAddr, &'a str)>> {
    it.pool(
        "a",
        json!({"addresses": [it.range_v4(0, 3), it.range_v6(0, 3)]}),
    )?;
    let mut addresses = Vec::new();
    for &forwarding in modes {
        it.dual_service(
            forwarding,
            json!({
                "metadata": {"annotations": {"heraldlb.io/forwarding": forwarding}},
                "spec": {"ports": [{"name": "tcp", "port": PORT}]},
            }),
        )?;
        it.wait_announced(forwarding)?;
        for address in it.wait_addresses(forwarding)? {
            eventually(&format!("{address} answers"), LONG, || {
                it.client().echo("tcp", address, PORT, 0, 12).map(drop)
            })?;
            addresses.push((address, forwarding));
        }
    }
    Ok(addresses)
}

/// Nothing is lost in any mode while something is done to those that hold the addresses.
pub(crate) fn unnoticed(act: impl FnOnce(&Busy<'_>) -> Result<()>) -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let lab = &cluster.lab;
            let addresses = serve_each(it, &MODES)?;
            let busy = Busy {
                it,
                cluster,
                addresses: addresses.iter().map(|(address, _)| *address).collect(),
            };
            let before = packet_events(cluster)?;
            let mut traffic = Vec::new();
            for (address, forwarding) in addresses {
                let to = SocketAddr::new(address, PORT);
                traffic.push((
                    format!("{address}, {forwarding}"),
                    Newcomers::start(lab, "client", to, NEWCOMERS)?,
                    Streams::start(lab, "client", to, STREAMS)?,
                ));
            }
            std::thread::sleep(BEFORE);
            let acted = act(&busy);
            std::thread::sleep(AFTER);
            let mut lost = Vec::new();
            for (what, newcomers, streams) in traffic {
                let tally = newcomers.finish(lab)?;
                report(&format!("{what}: {tally}"));
                ensure!(tally.count > 0, "no connection to {what} was made");
                if !tally.failed.is_empty() {
                    lost.push(format!("{what}: {tally}"));
                }
                let broken = streams.finish(&[])?.into_iter();
                lost.extend(broken.filter_map(|fate| {
                    let why = fate.broken?;
                    Some(format!("{what}: a stream with {}: {why}", fate.node))
                }));
            }
            acted?;
            if !lost.is_empty() {
                cluster.wait_whole()?;
                let after = packet_events(cluster)?;
                let changed = after.difference(&before);
                lost.extend(changed.map(|(node, event, count)| format!("{node}: {count} {event}")));
            }
            same(&lost, &Vec::new())
        })
    })
}

/// Every speaker ends and begins anew, node after node.
fn rollout(busy: &Busy<'_>) -> Result<()> {
    let lab = &busy.cluster.lab;
    let speakers = ["-n", HERALD_NAMESPACE, "daemonset/herald-speaker"];
    lab.kubectl(["rollout", "restart"].iter().chain(&speakers))?;
    wait_rolled_out(busy)
}

fn wait_rolled_out(busy: &Busy<'_>) -> Result<()> {
    let status = [
        "rollout",
        "status",
        "--timeout",
        "120s",
        "-n",
        HERALD_NAMESPACE,
    ];
    let speakers = ["daemonset/herald-speaker"];
    busy.cluster.lab.kubectl(status.iter().chain(&speakers))?;
    busy.cluster.wait_whole()
}

pub(crate) fn terminate(busy: &Busy<'_>, node: &str) -> Result<()> {
    Ok(busy
        .cluster
        .lab
        .kill(node, Program::Speaker, "TERM")
        .map(drop)?)
}

#[test]
fn a_speaker_that_is_asked_to_end_loses_no_connection() -> Result<()> {
    unnoticed(|busy| busy.move_each(terminate, |_| Ok(())))
}

#[test]
fn a_client_that_goes_on_asking_the_old_holder_loses_no_connection() -> Result<()> {
    unnoticed(|busy| {
        let client = busy.it.client();
        for address in &busy.addresses {
            let (_, mac) = busy.cluster.announcer(*address)?;
            client.ip(&format!(
                "neigh replace {address} lladdr {mac} dev eth0 nud permanent"
            ))?;
        }
        let moved = busy.move_each(terminate, |_| Ok(()));
        for address in &busy.addresses {
            client.ip(&format!("neigh del {address} dev eth0"))?;
        }
        moved
    })
}

#[test]
fn a_speaker_that_is_asked_to_end_hands_over_without_the_api_server() -> Result<()> {
    unnoticed(|busy| {
        let address = busy.addresses[0];
        let old = busy.holder(address)?;
        let before = epoch(&vip(busy.cluster, address)?)?;
        let next = busy.successor(address)?;
        stop_api(busy.cluster)?;
        terminate(busy, &old)?;
        let new = busy.moved(address, &old)?;
        same(&new, &next)?;
        start_api(busy.cluster)?;
        adopted(busy.it, address, &new, before)
    })
}

#[test]
fn a_rolling_restart_of_the_speakers_loses_no_connection() -> Result<()> {
    unnoticed(rollout)
}

/// As `kubectl drain` before maintenance; the pods under test stay, for their end is not the point.
fn drain(busy: &Busy<'_>, node: &str) -> Result<()> {
    let options = [
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--force",
        "--pod-selector=app!=echo",
        "--timeout=120s",
    ];
    let command = ["drain", node].into_iter().chain(options);
    Ok(busy.cluster.lab.kubectl(command).map(drop)?)
}

#[test]
fn draining_the_holder_loses_no_connection() -> Result<()> {
    unnoticed(|busy| busy.move_each(drain, |busy| uncordon_all(busy.cluster)))
}

/// The taint of a node that its cloud provider has shut down.
fn shut_down(busy: &Busy<'_>, node: &str, is: bool) -> Result<()> {
    let taint =
        json!([{"key": "node.cloudprovider.kubernetes.io/shutdown", "effect": "NoSchedule"}]);
    let taints = if is { taint } else { json!([]) };
    let spec = json!({"spec": {"taints": taints}});
    let path = format!("/api/v1/nodes/{node}");
    busy.cluster.api.merge(&path, &spec).map(drop)
}

#[test]
fn a_holder_that_is_tainted_as_shut_down_loses_no_connection() -> Result<()> {
    unnoticed(|busy| {
        busy.move_each(
            |busy, node| shut_down(busy, node, true),
            |busy| {
                let mut nodes = busy.cluster.nodes().into_iter();
                nodes.try_for_each(|node| shut_down(busy, &node, false))
            },
        )
    })
}

#[test]
fn rebalancing_after_nodes_are_there_again_loses_no_connection() -> Result<()> {
    unnoticed(|busy| {
        let nodes = busy.cluster.nodes();
        let (only, rest) = nodes.split_first().context("no node")?;
        let elsewhere = || -> Result<usize> {
            let holders = busy.addresses.iter().map(|it| busy.holder(*it));
            let holders = holders.collect::<Result<Vec<_>>>()?;
            Ok(holders.iter().filter(|it| *it != only).count())
        };
        let evened_out = (|| {
            for node in rest {
                cordon(busy.cluster, node, true)?;
                // A reply of a flow that only the holder before the last one knows would be lost.
                eventually(&format!("{node} has none"), LONG, || {
                    let mut addresses = busy.addresses.iter();
                    addresses.try_for_each(|address| {
                        ensure!(busy.holder(*address)? != *node, "it has {address}");
                        Ok(())
                    })
                })?;
            }
            same(&elsewhere()?, &0)?;
            uncordon_all(busy.cluster)?;
            let often = [
                "controller.rebalance.enabled=true",
                "controller.rebalance.quiet=2s",
                "controller.rebalance.interval=1s",
            ];
            install(busy.cluster, &often)?;
            eventually("others have some", LONG, || {
                let count = elsewhere()?;
                ensure!(count >= 2, "{count} of {}", busy.addresses.len());
                Ok(())
            })
        })();
        uncordon_all(busy.cluster)?;
        install(busy.cluster, &[])?;
        evened_out
    })
}

#[test]
fn an_upgrade_to_another_profile_and_back_loses_no_connection() -> Result<()> {
    unnoticed(|busy| {
        let upgrade = |set: &[&str]| {
            install(busy.cluster, set)?;
            wait_rolled_out(busy)
        };
        let changed =
            upgrade(&["ring.profile=fast"]).and_then(|()| busy.move_each(terminate, |_| Ok(())));
        upgrade(&[])?;
        changed
    })
}

#[test]
fn an_upgrade_that_is_rolled_back_loses_no_connection() -> Result<()> {
    unnoticed(|busy| {
        let lab = &busy.cluster.lab;
        let profile = || -> Result<String> {
            let speakers = "/apis/apps/v1/namespaces/herald-system/daemonsets/herald-speaker";
            let set = busy.cluster.api.get(speakers)?;
            let args = &set["spec"]["template"]["spec"]["containers"][0]["args"];
            let mut args = items(args).iter().map(text);
            let profile = args.find_map(|arg| arg.strip_prefix("--ring-profile="));
            Ok(profile.context("no profile")?.to_owned())
        };
        let before = profile()?;
        let rolled_back = (|| {
            install(busy.cluster, &["ring.profile=slow"])?;
            wait_rolled_out(busy)?;
            same(&profile()?.as_str(), &"slow")?;
            lab.helm(["rollback", HERALD_RELEASE, "--namespace", HERALD_NAMESPACE])?;
            wait_rolled_out(busy)?;
            same(&profile()?, &before)
        })();
        if rolled_back.is_err() {
            install(busy.cluster, &[])?;
        }
        rolled_back
    })
}

#[test]
fn a_successor_killed_in_the_middle_of_a_hand_over_is_passed_over() -> Result<()> {
    unnoticed(|busy| {
        let address = busy.addresses[0];
        let old = busy.holder(address)?;
        let next = busy.successor(address)?;
        busy.cluster.lab.kill_and_hold(&next, Program::Speaker)?;
        terminate(busy, &old)?;
        let new = busy.moved(address, &old)?;
        ensure!(new != next, "{next} was killed");
        busy.cluster.lab.heal(&next)?;
        busy.cluster.wait_whole()
    })
}

#[test]
fn both_killed_in_the_middle_of_a_hand_over_lose_no_connection() -> Result<()> {
    unnoticed(|busy| {
        let address = busy.addresses[0];
        let old = busy.holder(address)?;
        let next = busy.successor(address)?;
        terminate(busy, &old)?;
        let lab = &busy.cluster.lab;
        lab.kill_and_hold(&next, Program::Speaker)?;
        // It may have ended meanwhile.
        lab.kill_and_hold(&old, Program::Speaker).ok();
        let new = busy.moved(address, &old)?;
        ensure!(new != old, "{old} was killed");
        for node in [&old, &next] {
            lab.heal(node)?;
        }
        busy.cluster.wait_whole()
    })
}
