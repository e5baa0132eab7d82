//! Kubernetes: its version, kube-proxy, the clocks.

use herald_speaker_core::ObservedSpeaker;

use super::probe::Mode;
use super::{Finding, Probes};
use crate::picture::Picture;
use crate::text::{Level, list};

/// The least version of Kubernetes.
const MINOR: u32 = 33;
/// How far the clock of a node may be from the others'. A kubelet renews its Lease every ten seconds.
const SKEW_MS: i64 = 20_000;

pub(super) fn findings(picture: &Picture, probes: &Probes) -> Vec<Finding> {
    let mut findings = vec![version(probes)];
    findings.extend(modes(picture, probes));
    findings.extend(health(picture, probes));
    findings.extend(clocks(picture, probes));
    findings
}

fn version(probes: &Probes) -> Finding {
    let Some(version) = &probes.server else {
        let text = "the API server does not say its version";
        return Finding::new("kubernetes", "", Level::Unknown, text);
    };
    let mut numbers = version.trim_start_matches('v').split('.');
    let major = numbers.next().and_then(|number| number.parse::<u32>().ok());
    let minor = numbers.next().and_then(|number| number.parse::<u32>().ok());
    match (major, minor) {
        (Some(1), Some(minor)) if minor < MINOR => {
            let text = format!("{version}: Herald needs 1.{MINOR} or later");
            Finding::new("kubernetes", "", Level::Problem, text).remedy("update Kubernetes")
        }
        (Some(_), Some(_)) => Finding::new("kubernetes", "", Level::Ok, version.clone()),
        _ => Finding::new(
            "kubernetes",
            "",
            Level::Unknown,
            format!("version {version}"),
        ),
    }
}

fn modes(picture: &Picture, probes: &Probes) -> Vec<Finding> {
    let ipvs = traces_of_ipvs(picture, probes);
    if !ipvs.is_empty() {
        return ipvs;
    }
    if probes.modes.is_empty() {
        let text = "its mode is not known: it tells nobody but its own node, and there is no ConfigMap kube-system/kube-proxy";
        let finding = Finding::new("kube-proxy", "", Level::Unknown, text);
        return vec![finding.remedy(
            "on a node: curl http://127.0.0.1:10249/proxyMode; nftables and iptables are good",
        )];
    }
    let finding = |(node, mode): (&String, &Mode)| match mode.name.as_str() {
        "nftables" | "iptables" => {
            Finding::new("kube-proxy", node, Level::Ok, format!("mode {}", mode.name))
        }
        "ipvs" if mode.strict_arp == Some(true) => {
            let text = "mode ipvs, strict ARP: only forwarding off is known to work";
            let finding = Finding::new("kube-proxy", node, Level::Warning, text);
            finding.remedy("use mode nftables or iptables")
        }
        "ipvs" => {
            let text = "mode ipvs without strict ARP: every node answers ARP for every address";
            let finding = Finding::new("kube-proxy", node, Level::Problem, text);
            finding.remedy("use mode nftables or iptables; with ipvs set ipvs.strictARP: true in its configuration")
        }
        other => {
            let text = format!("mode {other} is not known to Herald");
            let finding = Finding::new("kube-proxy", node, Level::Warning, text);
            finding.remedy("use mode nftables or iptables")
        }
    };
    probes.modes.iter().map(finding).collect()
}

/// Where a speaker sees that its node's kube-proxy works by IPVS, and nothing else says so.
fn traces_of_ipvs(picture: &Picture, probes: &Probes) -> Vec<Finding> {
    if probes.modes.values().any(|mode| mode.name == "ipvs") {
        return Vec::new();
    }
    let speakers = picture.forecast.facts().speakers.values();
    let traces = speakers.filter(|speaker| speaker.report.ipvs);
    let finding = |speaker: &ObservedSpeaker| {
        let text = "mode ipvs, as its interface kube-ipvs0 tells; without strict ARP the node answers for every address";
        let finding = Finding::new("kube-proxy", &speaker.node, Level::Warning, text);
        finding.remedy("use mode nftables or iptables; with ipvs set ipvs.strictARP: true in its configuration")
    };
    traces.map(finding).collect()
}

fn health(picture: &Picture, probes: &Probes) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut well = Vec::new();
    let mut unknown = Vec::new();
    for (node, health) in &probes.kube_proxy {
        let is_ready = picture
            .forecast
            .facts()
            .nodes
            .get(node.as_str())
            .is_some_and(|node| node.ready);
        match health {
            Ok(()) => well.push(node),
            Err(why) if why.contains("forbidden") || !is_ready => unknown.push((node, why)),
            Err(why) => {
                let text = format!("it does not say that it is well: {why}");
                let finding = Finding::new("kube-proxy", node, Level::Problem, text);
                findings.push(finding.remedy(
                    "look at kube-proxy on the node; what replaces it must take traffic for addresses in status.loadBalancer: docs/forwarding.md",
                ));
            }
        }
    }
    if !well.is_empty() {
        let text = format!("well on {}", list(well));
        findings.push(Finding::new("kube-proxy", "", Level::Ok, text));
    }
    for (node, why) in unknown {
        let text = format!("its health is not known: {why}");
        findings.push(Finding::new("kube-proxy", node, Level::Unknown, text));
    }
    findings
}

/// Kubelets write the time of their own clocks into their Leases.
fn clocks(picture: &Picture, probes: &Probes) -> Vec<Finding> {
    let ready = |node: &str| {
        let nodes = &picture.forecast.facts().nodes;
        nodes.get(node).is_some_and(|node| node.ready)
    };
    let beats: Vec<(&String, i64)> = probes
        .heartbeats
        .iter()
        .filter(|(node, _)| ready(node))
        .map(|(node, at)| (node, *at))
        .collect();
    let mut times: Vec<i64> = beats.iter().map(|(_, at)| *at).collect();
    times.sort_unstable();
    let Some(&median) = times.get(times.len() / 2) else {
        let text = "the kubelets' Leases can't be read";
        return vec![Finding::new("clock", "", Level::Unknown, text)];
    };
    let off = beats.iter().filter(|(_, at)| (at - median).abs() > SKEW_MS);
    let mut findings: Vec<Finding> = off
        .map(|(node, at)| {
            let seconds = (at - median) / 1_000;
            let text = format!("its clock is about {seconds:+} s from the other nodes'");
            let finding = Finding::new("clock", node, Level::Warning, text);
            finding.remedy(
                "synchronise it (NTP): times in statuses and logs are wrong, tokens may be refused",
            )
        })
        .collect();
    if findings.is_empty() {
        let text = format!(
            "those of {} nodes agree within {} s",
            beats.len(),
            SKEW_MS / 1_000
        );
        findings.push(Finding::new("clock", "", Level::Ok, text));
    }
    findings
}
