//! Every way in which the LAN of three nodes can break apart and heal: who answers meanwhile, and that
//! one does afterwards.

use std::net::IpAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use herald_e2e::asking::Asking;
use herald_e2e::capture::Capture;
use herald_e2e::cluster::{Cluster, report};
use herald_e2e::object::{items, text};
use herald_e2e::sandbox::{Sandbox, backend};
use herald_e2e::wait::{LONG, eventually, same};

use crate::alone;
use crate::failover::{all_nodes_serve, serve};
use crate::takeover::{node_of, vip};

/// Who is with whom; the client, the gateway and the API server are with the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// The holder alone, the others with the client.
    HolderOut,
    /// The holder with the client, the others without.
    HolderWithClient,
    /// One that does not hold it alone.
    OtherOut,
    /// The holder and another without the client, the third with it.
    ThirdWithClient,
    /// Each node alone, the holder with the client.
    EachAlone,
    /// Each node alone, none with the client.
    ClientAlone,
}

impl Shape {
    fn parts(self, holder: &str, others: &[String]) -> Vec<Vec<String>> {
        let rest = ["gateway", "client", "cp"];
        let part = |nodes: &[&str], with_rest: bool| -> Vec<String> {
            let rest = rest.iter().filter(|_| with_rest);
            nodes.iter().chain(rest).map(|&it| it.to_owned()).collect()
        };
        let (first, second) = (&*others[0], &*others[1]);
        match self {
            Self::HolderOut => vec![part(&[holder], false), part(&[first, second], true)],
            Self::HolderWithClient => vec![part(&[first, second], false), part(&[holder], true)],
            Self::OtherOut => vec![part(&[first], false), part(&[holder, second], true)],
            Self::ThirdWithClient => vec![part(&[holder, second], false), part(&[first], true)],
            Self::EachAlone => vec![
                part(&[first], false),
                part(&[second], false),
                part(&[holder], true),
            ],
            Self::ClientAlone => vec![
                part(&[holder], false),
                part(&[first], false),
                part(&[second], false),
                part(&[], true),
            ],
        }
    }

    /// Whether two nodes that see each other do not see the holder: they are more than half.
    fn moves(self) -> bool {
        matches!(self, Self::HolderOut | Self::HolderWithClient)
    }
}

/// Waits until the status names one holder: which.
fn said_holder(cluster: &Cluster, address: IpAddr) -> Result<String> {
    let vip = vip(cluster, address)?;
    let holders = items(&vip["status"]["segments"]);
    ensure!(holders.len() == 1, "the status names {}", holders.len());
    Ok(text(&holders[0]["node"]).to_owned())
}

fn heals(it: &Sandbox, address: IpAddr, shape: Shape) -> Result<()> {
    let cluster = it.cluster;
    let lab = &cluster.lab;
    let (old, _) = cluster.announcer(address)?;
    let mut others = cluster.nodes();
    others.retain(|node| *node != old);
    let expected = |node: &str| -> Result<()> {
        ensure!(
            (node != old) == shape.moves(),
            "{node} holds it after {old} did"
        );
        Ok(())
    };

    let announces = |node: &String| -> Result<bool> {
        let ip = format!("ip=\"{address}\"");
        let metrics = cluster.speaker_metrics(node)?;
        Ok(metrics.sum("herald_speaker_announced", &[&ip]) > 0.0)
    };
    lab.partition(&shape.parts(&old, &others))?;
    for node in cluster.nodes() {
        eventually(
            &format!("{node} knows that it does not see all"),
            LONG,
            || {
                let metrics = cluster.speaker_metrics(&node)?;
                let up = metrics.sum("herald_speaker_ring_members", &["state=\"up\""]);
                // One alone declares nobody dead.
                let quorum = metrics.sum("herald_speaker_ring_quorum", &[]);
                ensure!(up < 3.0 || quorum < 1.0, "it sees {up}, quorum {quorum}");
                Ok(())
            },
        )?;
    }
    if shape.moves() {
        eventually("one of the others has taken it over", LONG, || {
            for node in &others {
                if announces(node)? {
                    return Ok(());
                }
            }
            bail!("neither has")
        })?;
    }
    let capture = Capture::start(lab, "client")?;
    let asking = Asking::start(lab, address)?;
    let healed = SystemTime::now().duration_since(UNIX_EPOCH)?;
    lab.heal_all()?;
    cluster.wait_whole()?;
    let holder = eventually("one answers and is named", LONG, || {
        let node = node_of(cluster, &it.client().one_answer(address)?)?;
        same(&said_holder(cluster, address)?, &node)?;
        Ok(node)
    })?;
    drop(asking);
    expected(&holder)?;
    all_nodes_serve(it, address)?;

    let mac = lab.node(&holder)?.address.mac;
    let frames = capture.frames();
    let others = frames
        .iter()
        .filter(|frame| frame.answers(address) || frame.announces(address))
        .filter(|frame| frame.source != mac && frame.at > healed);
    let last = others.map(|frame| frame.at.saturating_sub(healed)).max();
    report(&format!(
        "{shape:?}: {old}, then {holder}; another one was heard until {:.3} s after healing",
        last.unwrap_or(Duration::ZERO).as_secs_f64()
    ));
    let last_of_all = frames.last().context("nothing was heard")?.at;
    ensure!(
        last.is_none_or(|last| healed + last < last_of_all),
        "the other one is still heard"
    );
    Ok(())
}

#[test]
fn every_partition_heals_to_one_holder() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let address = serve(it)?[0];
            for shape in [
                Shape::HolderOut,
                Shape::HolderWithClient,
                Shape::OtherOut,
                Shape::ThirdWithClient,
                Shape::EachAlone,
                Shape::ClientAlone,
            ] {
                heals(it, address, shape).with_context(|| format!("{shape:?}"))?;
                cluster.wait_whole()?;
            }
            Ok(())
        })
    })
}
