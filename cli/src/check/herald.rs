//! Herald itself: its programs, their versions, what people wrote for them.

use std::collections::{BTreeMap, BTreeSet};

use herald_controller_core::{Input, Obstacle, UserObject};

use super::{Finding, Probes};
use crate::explain::{Outcome, outcome};
use crate::picture::Picture;
use crate::text::{Level, count, list};

/// A Lease that was not renewed for longer is held by nobody.
const LEASE_SECONDS: i64 = 15;

pub(super) fn findings(picture: &Picture, probes: &Probes) -> Vec<Finding> {
    let mut findings = controller(picture, probes);
    findings.push(speakers(picture));
    findings.extend(versions(picture));
    findings.extend(invalid(picture));
    findings.extend(pools(picture));
    findings.extend(services(picture));
    findings
}

fn controller(picture: &Picture, probes: &Probes) -> Vec<Finding> {
    let installation = &picture.objects.installation;
    let mut findings = Vec::new();
    if let Some(deployment) = &installation.controller {
        let status = deployment.status.as_ref();
        let ready = status.and_then(|it| it.ready_replicas).unwrap_or_default();
        let wanted = deployment
            .spec
            .as_ref()
            .and_then(|it| it.replicas)
            .unwrap_or(1);
        let text = format!("{ready} of {wanted} replicas are ready");
        let level = match ready {
            0 => Level::Problem,
            ready if ready < wanted => Level::Warning,
            _ => Level::Ok,
        };
        let finding = Finding::new("controller", "", level, text);
        findings.push(if level == Level::Ok {
            finding
        } else {
            let namespace = installation.namespace.as_deref().unwrap_or("herald-system");
            finding.remedy(format!(
                "kubectl describe deployment herald-controller -n {namespace}"
            ))
        });
    } else if installation.is_hidden {
        let text = "its Deployment can't be seen";
        findings.push(Finding::new("controller", "", Level::Unknown, text));
    } else {
        let finding = Finding::new(
            "controller",
            "",
            Level::Problem,
            "there is no Deployment of it",
        );
        findings
            .push(finding.remedy("install the chart: helm install herald ./helm -n herald-system"));
    }
    findings.push(match &probes.leader {
        None => Finding::new(
            "leader",
            "",
            Level::Unknown,
            "the Lease herald-controller can't be read",
        ),
        Some((holder, renewed)) => {
            let age = picture.now - renewed;
            if !holder.is_empty() && age <= LEASE_SECONDS {
                Finding::new("leader", "", Level::Ok, format!("{holder} works"))
            } else {
                let text = format!("no replica works: the Lease was renewed {age} s ago");
                let finding = Finding::new("leader", "", Level::Problem, text);
                finding.remedy(
                    "look at the controllers' log; addresses stay as they are until one works",
                )
            }
        }
    });
    if let Some(guess) = &installation.guess {
        let text = format!("they are not known, the defaults are assumed: {guess}");
        let finding = Finding::new("flags", "", Level::Warning, text);
        findings.push(finding.remedy("use an account that may list deployments and daemonsets"));
    }
    findings
}

fn speakers(picture: &Picture) -> Finding {
    let installation = &picture.objects.installation;
    let Some(set) = &installation.speaker else {
        if installation.is_hidden {
            let text = "their DaemonSet can't be seen";
            return Finding::new("speakers", "", Level::Unknown, text);
        }
        let finding = Finding::new(
            "speakers",
            "",
            Level::Problem,
            "there is no DaemonSet of them",
        );
        return finding.remedy("install the chart: helm install herald ./helm -n herald-system");
    };
    let status = set.status.as_ref();
    let wanted = status
        .map(|it| it.desired_number_scheduled)
        .unwrap_or_default();
    let ready = status.map(|it| it.number_ready).unwrap_or_default();
    let text = format!("{ready} of {wanted} are ready");
    if ready >= wanted && wanted > 0 {
        return Finding::new("speakers", "", Level::Ok, text);
    }
    let level = if ready == 0 {
        Level::Problem
    } else {
        Level::Warning
    };
    let finding = Finding::new("speakers", "", level, text);
    finding.remedy("look at the nodes below; /readyz of a speaker says what it waits for")
}

fn versions(picture: &Picture) -> Option<Finding> {
    let of = |speaker: &herald_api::Speaker| {
        let status = speaker.status.as_ref()?;
        (!status.version.is_empty()).then(|| status.version.clone())
    };
    let versions: BTreeSet<String> = picture.objects.speakers.iter().filter_map(of).collect();
    let ours = env!("CARGO_PKG_VERSION");
    if versions.len() > 1 {
        let text = format!("the speakers are of versions {}", list(&versions));
        let finding = Finding::new("versions", "", Level::Warning, text);
        return Some(finding.remedy("wait for the end of the update, or look why it does not end: kubectl rollout status daemonset"));
    }
    let theirs = versions.first()?;
    Some(if theirs == ours {
        Finding::new("versions", "", Level::Ok, format!("all of version {ours}"))
    } else {
        let text = format!("the speakers are of version {theirs}, this program is of {ours}");
        let finding = Finding::new("versions", "", Level::Warning, text);
        finding.remedy("use kubectl-herald of the same version: it decides as the version it is of")
    })
}

fn invalid(picture: &Picture) -> Vec<Finding> {
    let invalid = |input: &Input| match input {
        Input::ObjectInvalid {
            object, message, ..
        } => {
            let name = match object {
                UserObject::Pool(name) => format!("IPPool {name}"),
                UserObject::Advertisement(name) => format!("L2Advertisement {name}"),
            };
            let finding = Finding::new("object", &name, Level::Problem, message.to_string());
            Some(finding.remedy("correct it; its last valid state stays in force until then"))
        }
        Input::VipInvalid { address } => {
            let text = "its VirtualIP can't be read: the address is not given";
            Some(Finding::new("object", address, Level::Problem, text))
        }
        _ => None,
    };
    picture.objects.inputs.iter().filter_map(invalid).collect()
}

fn pools(picture: &Picture) -> Vec<Finding> {
    let names = picture.pool_names();
    if names.is_empty() {
        let finding = Finding::new("pools", "", Level::Warning, "there is no IPPool");
        return vec![finding.remedy("create one: docs/pools.md")];
    }
    let mut findings = Vec::new();
    let mut well = 0;
    for name in names {
        let status = picture
            .controller()
            .pool_status(picture.rehearsal.now(), &name);
        let ready = status.as_ref().and_then(|status| status.ready.as_ref());
        match ready {
            // Of these is told above.
            Some(ready) if !ready.status && &*ready.reason == "Invalid" => {}
            Some(ready) if !ready.status => {
                let finding =
                    Finding::new("pool", &name, Level::Problem, ready.message.to_string());
                findings.push(finding.remedy(format!("kubectl herald explain pool {name}")));
            }
            _ => {
                let counts = status.iter().flat_map(|status| [&status.v4, &status.v6]);
                let is_full = counts.flatten().any(|counts| counts.available == "0");
                if is_full {
                    let finding =
                        Finding::new("pool", &name, Level::Warning, "it has no free address");
                    findings.push(finding.remedy("add addresses, or delete Services"));
                } else {
                    well += 1;
                }
            }
        }
    }
    if well > 0 {
        let text = format!("{} with free addresses", count(well, "pool"));
        findings.insert(0, Finding::new("pools", "", Level::Ok, text));
    }
    findings
}

fn services(picture: &Picture) -> Vec<Finding> {
    let ours = picture.controller().services();
    let ours = ours.filter(|observed| observed.served().is_some());
    let mut by_outcome: BTreeMap<(Level, &str), Vec<String>> = BTreeMap::new();
    let mut well = 0;
    for observed in ours {
        let Some((outcome, reason, _)) = outcome(picture, &observed.key) else {
            continue;
        };
        let word = match outcome {
            Outcome::Serving | Outcome::NotServed => {
                well += 1;
                continue;
            }
            Outcome::Degraded => "not as it should be",
            Outcome::Refusing => "announced, and nobody takes the traffic",
            Outcome::Silent => "announced by nobody",
            Outcome::Pending => "without an address",
        };
        let all = by_outcome.entry((outcome.level(), word)).or_default();
        all.push(format!("{} ({reason})", observed.key));
    }
    let mut findings = Vec::new();
    if well > 0 || by_outcome.is_empty() {
        let text = format!("{} served", count(well, "Service"));
        findings.push(Finding::new("services", "", Level::Ok, text));
    }
    for ((level, word), all) in by_outcome {
        let named = list(all.iter().take(5));
        let more = match all.len().saturating_sub(5) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let text = format!("{word}: {named}{more}");
        let finding = Finding::new("services", "", level, text);
        findings.push(finding.remedy("kubectl herald explain service NAMESPACE/NAME"));
    }
    findings
}

/// What speaks against a node, worst first.
pub(super) fn obstacles(picture: &Picture, node: &str) -> Vec<Obstacle> {
    let mut all = picture.controller().node_obstacles(&node.into());
    all.sort_by_key(|obstacle| !obstacle.forbids());
    all
}
