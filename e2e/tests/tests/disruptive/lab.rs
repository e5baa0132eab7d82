//! The lab's own faults do what they say: tests that use them rely on it.

use anyhow::{Context as _, Result, ensure};
use herald_e2e::client::Client;
use herald_e2e::cluster::Cluster;
use herald_e2e::wait::same;
use herald_lab::{Lab, Loss, Program};

use crate::alone;

/// How many of so many pings are answered.
fn pings(lab: &Lab, from: &str, to: &str, count: u32) -> Result<u32> {
    let address = match to {
        "gateway" => "172.30.0.1".to_owned(),
        place => lab.address(place)?.all().swap_remove(0),
    };
    let count = count.to_string();
    let said = lab.exec(
        from,
        [
            "ping", "-q", "-c", &count, "-i", "0.002", "-W", "1", &address,
        ],
    )?;
    said.stdout
        .split(", ")
        .find_map(|part| part.strip_suffix(" received")?.parse().ok())
        .with_context(|| format!("ping says {}{}", said.stdout, said.stderr))
}

fn sees(lab: &Lab, from: &str, to: &str, expected: bool) -> Result<()> {
    let seen = pings(lab, from, to, 3)? > 0;
    same(&seen, &expected).with_context(|| format!("whether {from} sees {to}"))
}

/// Tells a place the MAC of another one.
fn know(lab: &Lab, place: &str, other: &str, state: &str) -> Result<()> {
    let other = lab.address(other)?;
    let (address, mac) = (other.all().swap_remove(0), &other.mac);
    let command = format!("neigh replace {address} lladdr {mac} dev eth0 nud {state}");
    Client::at(lab, place).ip(&command).map(drop)
}

#[test]
fn a_split_lan_passes_frames_within_its_parts_and_to_those_in_none() -> Result<()> {
    alone(|cluster: &Cluster| {
        let lab = &cluster.lab;
        let part = |places: &[&str]| places.iter().map(|&place| place.to_owned()).collect();
        lab.partition(&[part(&["node1", "cp"]), part(&["node2", "node3", "gateway"])])?;
        for (from, to, expected) in [
            ("node1", "node2", false),
            ("node2", "node1", false),
            ("node1", "gateway", false),
            ("cp", "node3", false),
            ("node1", "cp", true),
            ("node2", "node3", true),
            ("node2", "gateway", true),
            ("client", "node1", true),
            ("client", "node2", true),
        ] {
            sees(lab, from, to, expected)?;
        }
        lab.heal("node1")?;
        sees(lab, "node1", "node2", true)?;
        lab.heal_all()?;
        sees(lab, "cp", "node3", true)?;
        same(&lab.status()?.partition, &Vec::new())
    })
}

#[test]
fn a_lossy_link_loses_its_share_each_way() -> Result<()> {
    alone(|cluster: &Cluster| {
        let lab = &cluster.lab;
        // The two need not ask for each other's MAC: while an answer to that is missing, no ping is sent.
        know(lab, "client", "other", "permanent")?;
        know(lab, "other", "client", "permanent")?;
        lab.lose("other", Loss::percent(50))?;
        let answered = pings(lab, "client", "other", 2000)?;
        lab.heal("other")?;
        know(lab, "client", "other", "stale")?;
        know(lab, "other", "client", "stale")?;
        // Half of the half that arrived, with ten standard deviations to either side.
        ensure!((400..=600).contains(&answered), "{answered} of 2000");
        same(&pings(lab, "client", "other", 100)?, &100)
    })
}

#[test]
fn a_frozen_program_is_seen_to_be_and_goes_on_when_thawed() -> Result<()> {
    alone(|cluster: &Cluster| {
        let lab = &cluster.lab;
        let stopped = || -> Result<Vec<String>> {
            let node = lab.status()?.nodes.swap_remove(0);
            Ok(node.stopped)
        };
        lab.freeze_program("node1", Program::Speaker)?;
        same(&stopped()?, &vec!["herald-speaker".to_owned()])?;
        cluster
            .speaker_metrics("node1")
            .map_or(Ok(()), |_| anyhow::bail!("a frozen speaker answers"))?;
        lab.thaw_program("node1", Program::Speaker)?;
        same(&stopped()?, &Vec::new())?;
        cluster.speaker_metrics("node1").map(drop)
    })
}
