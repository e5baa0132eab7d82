//! Segments: whether the speakers reach each other there, and whether anybody can take over.

use std::collections::BTreeMap;

use super::{Finding, Probes};
use crate::picture::Picture;
use crate::text::{Level, count, list};

pub(super) fn findings(picture: &Picture, probes: &Probes) -> Vec<Finding> {
    let mut members: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let facts = picture.forecast.facts();
    for speaker in facts.speakers.values() {
        if facts.silent.contains(&speaker.node) {
            continue;
        }
        for segment in speaker.report.segments.iter().filter(|it| it.carrier) {
            let nodes = members.entry(segment.name.as_str()).or_default();
            nodes.push(speaker.node.as_str());
        }
    }
    if members.is_empty() {
        let finding = Finding::new("segment", "", Level::Problem, "no speaker has one");
        return vec![finding.remedy("look at the nodes above")];
    }
    let mut findings = Vec::new();
    for (segment, nodes) in members {
        findings.push(size(segment, &nodes));
        findings.extend(reach(segment, &nodes, probes));
    }
    findings.extend(off_link(picture));
    findings
}

fn size(segment: &str, nodes: &[&str]) -> Finding {
    match nodes {
        [only] => {
            let text = format!("{only} is alone: nobody can take over from it");
            let finding = Finding::new("segment", segment, Level::Warning, text);
            finding.remedy("put another node on it; nodes whose interfaces are in one LAN but in other subnets: annotation heraldlb.io/segment.INTERFACE")
        }
        [_, _] => {
            let text = "two nodes: one takes over from the other only if the witness answers (chart value ring.witness)";
            Finding::new("segment", segment, Level::Info, text)
        }
        nodes => {
            let text = format!("{} announce on it", count(nodes.len(), "node"));
            Finding::new("segment", segment, Level::Ok, text)
        }
    }
}

/// Whether each speaker sees all the others.
fn reach(segment: &str, nodes: &[&str], probes: &Probes) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut unknown = Vec::new();
    for node in nodes {
        let Some(Ok(counted)) = probes.speakers.get(*node) else {
            unknown.push(*node);
            continue;
        };
        let up = counted.up.get(segment).copied().unwrap_or_default();
        let all = u64::try_from(nodes.len()).unwrap_or(u64::MAX);
        if counted.without_quorum.iter().any(|it| it == segment) {
            let text = format!("{node} can take nothing over: it sees {up} of {all} speakers");
            let finding = Finding::new("ring", segment, Level::Problem, text);
            findings.push(finding.remedy(
                "look at the LAN, and at UDP port 7948 (chart value ring.port) between the nodes",
            ));
        } else if up < all {
            let text = format!("{node} sees {up} of {all} speakers");
            let finding = Finding::new("ring", segment, Level::Problem, text);
            findings.push(finding.remedy(
                "look at the LAN, and at UDP port 7948 (chart value ring.port) between the nodes",
            ));
        }
    }
    if findings.is_empty() && unknown.len() < nodes.len() {
        let text = "the speakers see each other";
        findings.push(Finding::new("ring", segment, Level::Ok, text));
    }
    if !unknown.is_empty() {
        let text = format!("whom these see is not known: {}", list(unknown));
        findings.push(Finding::new("ring", segment, Level::Unknown, text));
    }
    findings
}

/// Addresses that no node shares a subnet with.
fn off_link(picture: &Picture) -> Vec<Finding> {
    let facts = picture.forecast.facts();
    let prefixes = || {
        let speakers = facts.speakers.values();
        let segments = speakers.flat_map(|speaker| &speaker.report.segments);
        segments.flat_map(|segment| &segment.prefixes)
    };
    let off = picture.objects.inputs.iter().filter_map(|input| match input {
        herald_controller_core::Input::PoolApplied(pool) => {
            let ranges = pool.pool.ranges.iter();
            let mut off = ranges.filter(|range| {
                !prefixes().any(|prefix| prefix.contains(&range.first()))
            });
            let range = off.next()?;
            let text = format!("{range} is in no node's subnet: clients need a route to it");
            let finding = Finding::new("pool", &pool.pool.name, Level::Warning, text);
            Some(finding.remedy("use addresses of the nodes' subnet, or let a router send this range to the LAN"))
        }
        _ => None,
    });
    off.collect()
}
