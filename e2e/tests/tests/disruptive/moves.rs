//! Planned moves lose nothing: hundreds of new connections a second that are tried once, and streams that
//! go on, in both families.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use herald_e2e::client::Client;
use herald_e2e::cluster::{Cluster, OTHER_CLIENT, report};
use herald_e2e::newcomers::Newcomers;
use herald_e2e::sandbox::{Sandbox, backend};
use herald_e2e::streams::Streams;
use herald_e2e::wait::{LONG, eventually, same};
use herald_lab::{HERALD_NAMESPACE, Program};
use serde_json::json;

use crate::departures::uncordon_all;
use crate::takeover::{adopted, epoch, node_of, vip};
use crate::{alone, install, start_api, stop_api};

const PORT: u16 = 9090;
/// Of each family.
const NEWCOMERS: u32 = 300;
const STREAMS: usize = 50;
/// Of a cluster that nothing happens to.
const BEFORE: Duration = Duration::from_secs(1);
/// And after the last move.
const AFTER: Duration = Duration::from_secs(2);

/// An address of each family, and traffic to them.
struct Busy<'a> {
    it: &'a Sandbox,
    cluster: &'static Cluster,
    addresses: Vec<IpAddr>,
}

impl Busy<'_> {
    fn holder(&self, address: IpAddr) -> Result<String> {
        Ok(self.cluster.announcer(address)?.0)
    }

    /// Does something to the holder of each address that makes it give the address up, and undoes it.
    fn move_each(
        &self,
        act: impl Fn(&Self, &str) -> Result<()>,
        undo: impl Fn(&Self) -> Result<()>,
    ) -> Result<()> {
        for address in &self.addresses {
            let old = self.holder(*address)?;
            let moved = act(self, &old).and_then(|()| self.moved(*address, &old));
            undo(self)?;
            moved?;
            self.cluster.wait_whole()?;
        }
        Ok(())
    }

    /// Waits until another node than `old` answers on the LAN, and no second one: which. Asks from elsewhere:
    /// who asks forgets what it knew, and the client under test is not to.
    fn moved(&self, address: IpAddr, old: &str) -> Result<String> {
        let other = Client::at(&self.cluster.lab, OTHER_CLIENT);
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

/// Nothing is lost while something is done to those that hold the addresses; with node ports, no stream.
fn unnoticed(forwarding: &str, act: impl FnOnce(&Busy<'_>) -> Result<()>) -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let lab = &cluster.lab;
            it.pool(
                "a",
                json!({"addresses": [it.range_v4(0, 3), it.range_v6(0, 3)]}),
            )?;
            it.dual_service(
                "web",
                json!({
                    "metadata": {"annotations": {"heraldlb.io/forwarding": forwarding}},
                    "spec": {"ports": [{"name": "tcp", "port": PORT}]},
                }),
            )?;
            it.wait_announced("web")?;
            let busy = Busy {
                it,
                cluster,
                addresses: it.wait_addresses("web")?,
            };
            for address in &busy.addresses {
                eventually(&format!("{address} answers"), LONG, || {
                    it.client().echo("tcp", *address, PORT, 0, 12).map(drop)
                })?;
            }
            let mut traffic = Vec::new();
            for address in &busy.addresses {
                let to = SocketAddr::new(*address, PORT);
                traffic.push((
                    *address,
                    Newcomers::start(lab, "client", to, NEWCOMERS)?,
                    Streams::start(lab, "client", to, STREAMS)?,
                ));
            }
            std::thread::sleep(BEFORE);
            let acted = act(&busy);
            std::thread::sleep(AFTER);
            let mut lost = Vec::new();
            for (address, newcomers, streams) in traffic {
                let tally = newcomers.finish(lab)?;
                report(&format!("{address}, {forwarding}: {tally}"));
                ensure!(tally.count > 0, "no connection to {address} was made");
                // With node ports a reply may be lost in the moment of a move: docs/moves.md.
                if forwarding != "nodeport" && !tally.failed.is_empty() {
                    lost.push(format!("{address}: {tally}"));
                }
                let broken = streams.finish(&[])?.into_iter();
                lost.extend(broken.filter_map(|fate| {
                    let why = fate.broken?;
                    Some(format!("{address}: a stream with {}: {why}", fate.node))
                }));
            }
            acted?;
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

fn terminate(busy: &Busy<'_>, node: &str) -> Result<()> {
    Ok(busy
        .cluster
        .lab
        .kill(node, Program::Speaker, "TERM")
        .map(drop)?)
}

#[test]
fn a_speaker_that_is_asked_to_end_loses_no_connection() -> Result<()> {
    unnoticed("dsr", |busy| busy.move_each(terminate, |_| Ok(())))
}

#[test]
fn a_speaker_that_is_asked_to_end_loses_no_connection_straight_to_pods() -> Result<()> {
    unnoticed("pod", |busy| busy.move_each(terminate, |_| Ok(())))
}

#[test]
fn a_speaker_that_is_asked_to_end_breaks_no_stream_through_node_ports() -> Result<()> {
    unnoticed("nodeport", |busy| busy.move_each(terminate, |_| Ok(())))
}

#[test]
fn a_speaker_that_is_asked_to_end_hands_over_without_the_api_server() -> Result<()> {
    unnoticed("dsr", |busy| {
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
    unnoticed("dsr", rollout)
}

#[test]
fn a_rolling_restart_of_the_speakers_loses_no_connection_straight_to_pods() -> Result<()> {
    unnoticed("pod", rollout)
}

#[test]
fn a_rolling_restart_of_the_speakers_breaks_no_stream_through_node_ports() -> Result<()> {
    unnoticed("nodeport", rollout)
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
    unnoticed("dsr", |busy| {
        busy.move_each(drain, |busy| uncordon_all(busy.cluster))
    })
}

#[test]
fn an_upgrade_of_the_chart_loses_no_connection() -> Result<()> {
    unnoticed("dsr", |busy| {
        let upgrade = |set: &[&str]| {
            install(busy.cluster, set)?;
            wait_rolled_out(busy)
        };
        let changed = upgrade(&["logFormat=json"]);
        upgrade(&[])?;
        changed
    })
}

#[test]
fn a_successor_killed_in_the_middle_of_a_hand_over_is_passed_over() -> Result<()> {
    unnoticed("dsr", |busy| {
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
    unnoticed("dsr", |busy| {
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
