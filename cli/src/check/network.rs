//! What switches, hypervisors and clouds have to allow, as far as it shows.

use std::collections::BTreeMap;

use herald_api::conditions;
use herald_api::conditions::reasons;
use k8s_openapi::api::apps::v1::DaemonSet;

use super::Finding;
use crate::picture::Picture;
use crate::text::{Level, list};

/// What dynamic ARP inspection allows a port in a second, as several vendors set it.
const INSPECTED: u64 = 15;
/// Frames for an IPv4 address within a second of its takeover: two forms, at once and after 10, 50 and 200 ms.
const FRAMES: u64 = 8;
/// Where it is written what to do.
const DOCS: &str = "docs/troubleshooting.md, Switches, hypervisors, clouds";

/// What makes virtual machines with MAC addresses that begin so, what of it drops packets from addresses it was
/// not told of, and what to do.
const HYPERVISORS: [(&str, &str, &str, &str); 3] = [
    (
        "52:54:00",
        "QEMU",
        "libvirt's filters no-ip-spoofing, no-arp-spoofing and clean-traffic drop packets from the addresses",
        "take them off, or list the pools in them",
    ),
    (
        "bc:24:11",
        "Proxmox",
        "its firewall's ipfilter, where it is on, drops packets from the addresses",
        "add the pools to the ipfilter sets of each node's interface",
    ),
    (
        "fa:16:3e",
        "OpenStack",
        "port security drops packets from the addresses",
        "name the pools in allowed_address_pairs of each node's port",
    ),
];
/// Clouds whose networks answer ARP themselves, as a node's providerID begins.
const CLOUDS: [&str; 6] = ["aws", "azure", "digitalocean", "gce", "hcloud", "linode"];

pub(super) fn findings(picture: &Picture) -> Vec<Finding> {
    let mut findings = unverified(picture);
    findings.extend(inspected(picture));
    findings.extend(hypervisors(picture));
    findings.extend(clouds(picture));
    findings
}

/// Addresses of which another node found that the LAN does not answer with their new holder.
fn unverified(picture: &Picture) -> Vec<Finding> {
    let mut findings = Vec::new();
    for vip in &picture.objects.vips {
        let conditions = vip.status.iter().flat_map(|status| &status.conditions);
        let mut verified = conditions.filter(|it| it.type_ == conditions::VERIFIED);
        let Some(verified) = verified.find(|it| it.status == conditions::FALSE) else {
            continue;
        };
        let remedy = if verified.reason == reasons::ANOTHER_ANSWERS {
            "find that machine: docs/troubleshooting.md, Two nodes announce it, A stranger uses the address".to_owned()
        } else {
            format!("a switch or hypervisor drops what the node announces: {DOCS}")
        };
        let message = verified.message.clone();
        let finding = Finding::new("switch", &vip.spec.address, Level::Problem, message);
        findings.push(finding.remedy(remedy));
    }
    findings
}

/// Whether the node with the most addresses would announce too many for a switch that counts, or the one that
/// takes over from it.
fn inspected(picture: &Picture) -> Option<Finding> {
    let mut held: BTreeMap<&str, u64> = BTreeMap::new();
    for observed in picture.controller().vips() {
        if observed.vip.address.is_ipv4() {
            for holding in &observed.holdings {
                *held.entry(holding.node.as_str()).or_default() += 1;
            }
        }
    }
    let most = held.into_values().max()?;
    let set = picture.objects.installation.speaker.as_ref()?;
    let allowed =
        number(set, "--announce-burst=")?.saturating_add(number(set, "--announce-rate=")?);
    let frames = (most * FRAMES).min(allowed);
    if frames <= INSPECTED {
        return None;
    }
    let text = format!(
        "whoever takes over {most} IPv4 addresses announces them by {frames} frames within a second; dynamic ARP inspection often allows {INSPECTED}, and shuts the port down beyond"
    );
    let finding = Finding::new("switch", "", Level::Info, text);
    Some(finding.remedy("where a switch inspects ARP: trust the nodes' ports, or lower speaker.announceBurst and speaker.announceRate"))
}

/// A number among the flags of the speakers.
fn number(set: &DaemonSet, flag: &str) -> Option<u64> {
    let pod = set.spec.as_ref()?.template.spec.as_ref()?;
    let mut args = pod.containers.first()?.args.iter().flatten();
    args.find_map(|arg| arg.strip_prefix(flag)?.parse().ok())
}

fn hypervisors(picture: &Picture) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (prefix, maker, why, remedy) in HYPERVISORS {
        let is_of = |speaker: &&herald_api::Speaker| {
            let status = speaker.status.iter();
            let mut segments = status.flat_map(|status| &status.segments);
            segments.any(|segment| segment.mac.starts_with(prefix))
        };
        let speakers = picture.objects.speakers.iter().filter(is_of);
        let names = list(speakers.filter_map(|it| it.metadata.name.clone()));
        if !names.is_empty() {
            let text = format!("{names}: of {maker}, as MAC addresses tell; {why}");
            findings.push(Finding::new("hypervisor", "", Level::Info, text).remedy(remedy));
        }
    }
    findings
}

fn clouds(picture: &Picture) -> Vec<Finding> {
    let mut of: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in &picture.objects.nodes {
        let id = node.spec.as_ref().and_then(|it| it.provider_id.as_deref());
        let scheme = id.and_then(|id| id.split_once("://")).map(|(it, _)| it);
        if let Some(cloud) = scheme.filter(|scheme| CLOUDS.contains(scheme)) {
            let nodes = of.entry(cloud).or_default();
            nodes.push(node.metadata.name.as_deref().unwrap_or_default());
        }
    }
    let finding = |(cloud, nodes): (&str, Vec<&str>)| {
        let text = format!(
            "{}: machines of {cloud}, whose network answers ARP itself; an address that it does not know reaches no node",
            list(nodes)
        );
        let finding = Finding::new("cloud", cloud, Level::Warning, text);
        finding.remedy(format!("use the provider's load balancers: {DOCS}"))
    };
    of.into_iter().map(finding).collect()
}
