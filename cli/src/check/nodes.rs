//! Each node: its speaker, its kernel, its interfaces.

use std::collections::BTreeMap;

use herald_api::{DataPlaneMode, Speaker, conditions};
use herald_controller_core::Obstacle;
use k8s_openapi::api::core::v1::Node;

use super::herald::obstacles;
use super::{Finding, Probes};
use crate::picture::Picture;
use crate::text::{Level, list};

/// The least kernel that the eBPF programs are written for, and the first with tcx.
const LEAST: (u32, u32) = (5, 15);
const TCX: (u32, u32) = (6, 6);

pub(super) fn findings(picture: &Picture, probes: &Probes) -> Vec<Finding> {
    let mut nodes: Vec<&Node> = picture.objects.nodes.iter().collect();
    nodes.sort_by_key(|node| node.metadata.name.clone());
    nodes
        .into_iter()
        .flat_map(|node| of_node(picture, probes, node))
        .collect()
}

fn of_node(picture: &Picture, probes: &Probes, node: &Node) -> Vec<Finding> {
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let mut findings: Vec<Finding> = kernel(name, node).into_iter().collect();
    findings.extend(architecture(name, node));
    let against = obstacles(picture, name);
    if against.is_empty() {
        findings.push(Finding::new(
            "node",
            name,
            Level::Ok,
            "Ready, and its speaker is",
        ));
    }
    for obstacle in &against {
        let level = if obstacle.forbids() {
            Level::Problem
        } else {
            Level::Warning
        };
        let level = match obstacle {
            // What people wanted.
            Obstacle::Excluded | Obstacle::Departs { .. } => Level::Info,
            _ => level,
        };
        let finding = Finding::new("node", name, level, obstacle.to_string());
        findings.push(finding.remedy(format!("kubectl herald explain node {name}")));
    }
    let Some(speaker) = picture.speaker(name) else {
        return findings;
    };
    findings.extend(ready(name, speaker));
    findings.extend(data_plane(name, speaker));
    findings.extend(interfaces(name, speaker));
    let counted = probes.speakers.get(name).and_then(|it| it.as_ref().ok());
    let told = counted.map(|counted| &counted.settings);
    findings.extend(settings(name, node, speaker, told));
    findings
}

fn kernel(name: &str, node: &Node) -> Option<Finding> {
    let info = node.status.as_ref()?.node_info.as_ref()?;
    let version = &info.kernel_version;
    let mut numbers = version.split(|c: char| !c.is_ascii_digit());
    let mut number = || numbers.next()?.parse::<u32>().ok();
    let (Some(major), Some(minor)) = (number(), number()) else {
        let text = format!("version {version} is no number");
        return Some(Finding::new("kernel", name, Level::Unknown, text));
    };
    Some(if (major, minor) < LEAST {
        let text =
            format!("{version}: the eBPF programs need 5.15 or later, kube-proxy forwards alone");
        Finding::new("kernel", name, Level::Problem, text).remedy("update the kernel")
    } else if (major, minor) < TCX {
        let text = format!("{version}: no tcx before 6.6, a clsact filter is used");
        Finding::new("kernel", name, Level::Info, text)
    } else {
        Finding::new("kernel", name, Level::Ok, version.clone())
    })
}

fn architecture(name: &str, node: &Node) -> Option<Finding> {
    let it = &node.status.as_ref()?.node_info.as_ref()?.architecture;
    let text = format!("{it}: Herald is built for amd64 and arm64");
    let is_ours = ["amd64", "arm64"].contains(&it.as_str());
    let finding = Finding::new("kernel", name, Level::Problem, text);
    (!is_ours).then(|| finding.remedy("keep speakers off it: speaker.nodeSelector"))
}

/// What the speaker says of itself.
fn ready(name: &str, speaker: &Speaker) -> Vec<Finding> {
    let status = speaker.status.as_ref();
    let conditions = status
        .map(|status| &status.conditions)
        .into_iter()
        .flatten();
    let mut conditions = conditions.filter(|it| it.type_ == conditions::READY);
    let Some(ready) = conditions.next() else {
        return Vec::new();
    };
    if ready.status == conditions::TRUE {
        return wants(name, &ready.message);
    }
    let finding = Finding::new("speaker", name, Level::Problem, ready.message.clone());
    let remedy = match ready.reason.as_str() {
        conditions::reasons::NO_SEGMENT => {
            "give the node an interface with an address, or look at speaker.excludeInterfaces"
        }
        conditions::reasons::NO_RING_KEY => {
            "look at Secret herald-ring in Herald's namespace: the controller makes it"
        }
        conditions::reasons::NO_RING => "look at UDP port 7948 (chart value ring.port) on the node",
        conditions::reasons::RETIRED => "set spec.retire of its Speaker object to false",
        _ => "look at the speaker's log",
    };
    vec![finding.remedy(remedy)]
}

/// What a speaker that is ready lacks: it says so after what it does.
fn wants(name: &str, message: &str) -> Vec<Finding> {
    // That kube-proxy forwards alone is told of the data plane.
    let wants = message.split("; ").skip(1);
    let wants = wants.filter(|want| !want.starts_with("forwarding is left"));
    let finding = |want: &str| {
        let remedy = if want.starts_with("the data plane is full") {
            "give the Service fewer of what is said, or set heraldlb.io/forwarding: \"off\" on those that can do without"
        } else if want.contains("RLIMIT_MEMLOCK") {
            "let the container runtime give its containers 8 MiB (systemd: LimitMEMLOCK)"
        } else if want.contains("priority") {
            "raise speaker.resources.requests.cpu: it is the share of a processor that is left to it"
        } else {
            "raise speaker.announceBurst and speaker.announceRate as far as the switches allow: docs/l2-advertisements.md"
        };
        Finding::new("speaker", name, Level::Warning, want).remedy(remedy)
    };
    wants.map(finding).collect()
}

fn data_plane(name: &str, speaker: &Speaker) -> Option<Finding> {
    let report = speaker.status.as_ref()?.data_plane.as_ref()?;
    let why = report.reason.clone().unwrap_or_default();
    Some(match report.mode {
        DataPlaneMode::Tcx => Finding::new("data plane", name, Level::Ok, "eBPF, by tcx"),
        DataPlaneMode::Clsact => {
            let text = format!("eBPF, by a clsact filter {why}");
            Finding::new("data plane", name, Level::Ok, text.trim_end())
        }
        DataPlaneMode::None => {
            let text = format!("no eBPF, kube-proxy forwards alone: {why}");
            let finding = Finding::new("data plane", name, Level::Problem, text);
            finding.remedy("look at the kernel's version and at the speaker's capabilities (BPF, NET_ADMIN, PERFMON)")
        }
    })
}

/// Its interfaces.
fn interfaces(name: &str, speaker: &Speaker) -> Vec<Finding> {
    let segments = speaker.status.as_ref().map_or(&[][..], |it| &it.segments);
    let mut findings = Vec::new();
    for segment in segments.iter().filter(|segment| !segment.carrier) {
        let text = format!("{} has no carrier", segment.interface);
        let finding = Finding::new("interface", name, Level::Problem, text);
        findings.push(finding.remedy("look at the cable or the switch port"));
    }
    if segments.iter().any(|segment| segment.carrier) {
        let of = segments
            .iter()
            .map(|it| format!("{} in {}", it.interface, it.name));
        findings.push(Finding::new("interface", name, Level::Ok, list(of)));
    }
    findings
}

/// What the kernel does with packets that are not for the node itself.
fn settings(
    name: &str,
    node: &Node,
    speaker: &Speaker,
    told: Option<&BTreeMap<String, u64>>,
) -> Vec<Finding> {
    let Some(told) = told.filter(|told| !told.is_empty()) else {
        let text = "nobody can tell from here whether the kernel lets packets pass";
        let finding = Finding::new("sysctl", name, Level::Unknown, text);
        let remedy = "on the node: sysctl net.ipv4.ip_forward (1), and rp_filter of its uplinks (not 1 where there are several)";
        return vec![finding.remedy(remedy)];
    };
    let pods = node.spec.as_ref().and_then(|it| it.pod_cidrs.as_deref());
    let has_pods =
        |ipv6: bool| pods.is_none_or(|all| all.iter().any(|it| it.contains(':') == ipv6));
    let segments = speaker.status.as_ref().map_or(&[][..], |it| &it.segments);
    let mut findings = Vec::new();
    for (setting, value) in told {
        let (wrong, why, right) = match setting.as_str() {
            "net.ipv4.ip_forward" => (
                *value == 0 && has_pods(false),
                "nothing reaches a pod from elsewhere",
                1,
            ),
            "net.ipv6.conf.all.forwarding" => (
                *value == 0 && pods.is_some() && has_pods(true),
                "nothing reaches a pod from elsewhere by IPv6",
                1,
            ),
            it if it.starts_with("net.bridge.") => (
                *value != 0,
                "kube-proxy's rules are applied on the port of the bridge that is an uplink, and pods of other nodes are out of reach",
                0,
            ),
            it if it.ends_with(".rp_filter") => (
                *value == 1 && segments.len() > 1,
                "packets are dropped whose way back is another of the node's uplinks",
                2,
            ),
            _another => continue,
        };
        if wrong {
            let finding = Finding::new(
                "sysctl",
                name,
                Level::Problem,
                format!("{setting} is {value}: {why}"),
            );
            findings.push(finding.remedy(format!(
                "on the node: sysctl -w {setting}={right}, and in /etc/sysctl.d"
            )));
        }
    }
    if findings.is_empty() {
        let all = told.iter().map(|(name, value)| format!("{name}={value}"));
        findings.push(Finding::new("sysctl", name, Level::Ok, list(all)));
    }
    findings
}
