//! What was looked at, and how it is.

use std::collections::BTreeMap;
use std::fmt;

use herald_api::{Speaker, conditions};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

use crate::once::{LEASE, SPEAKERS, readiness};

/// What the API server said, or why it said nothing.
pub(super) type Answer<T> = Result<T, String>;

/// What was seen at one time.
pub(super) struct Seen {
    /// Kinds, and whether they can be listed.
    pub(super) definitions: Vec<(&'static str, Answer<()>)>,
    pub(super) speakers: Answer<Vec<Speaker>>,
    pub(super) lease: Answer<Option<Lease>>,
    pub(super) set: Answer<Option<DaemonSet>>,
    pub(super) pods: Answer<Vec<Pod>>,
    pub(super) now: Timestamp,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub(super) is_well: bool,
    pub(super) subject: String,
    pub(super) text: String,
}

impl Finding {
    fn new(is_well: bool, subject: &str, text: impl Into<String>) -> Self {
        Self {
            is_well,
            subject: subject.to_owned(),
            text: text.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.is_well { "ok   " } else { "WRONG" };
        write!(f, "{mark}  {}: {}", self.subject, self.text)
    }
}

/// All findings.
pub(super) fn findings(seen: &Seen) -> Vec<Finding> {
    let mut findings = definitions(seen);
    findings.push(controller(seen));
    findings.extend(speakers(seen));
    findings
}

fn definitions(seen: &Seen) -> Vec<Finding> {
    let speakers = seen.speakers.as_ref().map(|_all| ()).map_err(String::clone);
    let all = seen.definitions.iter().cloned();
    all.chain([("Speaker", speakers)])
        .map(|(kind, answer)| match answer {
            Ok(()) => Finding::new(true, kind, "is served"),
            Err(error) => Finding::new(
                false,
                kind,
                format!("{error}; kubectl apply --server-side -f helm/crds/ defines it"),
            ),
        })
        .collect()
}

fn controller(seen: &Seen) -> Finding {
    let wrong = |text: String| Finding::new(false, "controller", text);
    let lease = match &seen.lease {
        Ok(Some(lease)) => lease.spec.clone().unwrap_or_default(),
        Ok(None) => return wrong(format!("no replica has made the Lease {LEASE}")),
        Err(error) => return wrong(error.clone()),
    };
    let holder = lease.holder_identity.unwrap_or_default();
    let Some(renewed) = lease.renew_time.filter(|_| !holder.is_empty()) else {
        return wrong("no replica leads: its log says why".to_owned());
    };
    let seconds = (seen.now - renewed.0).get_seconds();
    if seconds > i64::from(lease.lease_duration_seconds.unwrap_or_default()) {
        return wrong(format!(
            "no replica leads: {holder} renewed the Lease {seconds} s ago"
        ));
    }
    Finding::new(true, "controller", format!("{holder} leads"))
}

fn speakers(seen: &Seen) -> Vec<Finding> {
    let wrong = |text: String| vec![Finding::new(false, "speakers", text)];
    let (set, pods) = match (&seen.set, &seen.pods) {
        (Ok(Some(set)), Ok(pods)) => (set, pods),
        (Ok(None), _) => return wrong(format!("there is no DaemonSet {SPEAKERS}")),
        (Err(error), _) | (_, Err(error)) => return wrong(error.clone()),
    };
    let by_name: BTreeMap<String, &Speaker> = seen
        .speakers
        .iter()
        .flatten()
        .map(|speaker| (speaker.name_any(), speaker))
        .collect();
    let status = set.status.clone().unwrap_or_default();
    let wanted = status.desired_number_scheduled;
    let mut findings = Vec::new();
    if status.observed_generation < set.metadata.generation || wanted == 0 {
        findings.extend(wrong("no node is meant to have one yet".to_owned()));
    }
    let mut nodes = BTreeMap::new();
    for pod in pods
        .iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
    {
        let node = pod.spec.as_ref().and_then(|it| it.node_name.clone());
        if let Some(node) = node {
            nodes.insert(node, pod);
        }
    }
    if i32::try_from(nodes.len()).is_ok_and(|count| count < wanted) {
        let text = format!("only {} of {wanted} nodes have one", nodes.len());
        findings.extend(wrong(text));
    }
    findings.extend(nodes.into_iter().map(|(node, pod)| {
        let subject = format!("speaker of {node}");
        match fault(pod, by_name.get(&node).copied()) {
            None => Finding::new(true, &subject, "is ready"),
            Some(fault) => Finding::new(false, &subject, fault),
        }
    }));
    findings
}

/// What is wrong with the speaker of a node. What it says of itself is newest while it runs; whether it
/// does, its Pod tells.
fn fault(pod: &Pod, speaker: Option<&Speaker>) -> Option<String> {
    let Some(ready) = speaker.and_then(readiness) else {
        return Some("it has no Speaker object that says how it is".to_owned());
    };
    if ready.status != conditions::TRUE {
        return Some(format!("{}: {}", ready.reason, ready.message));
    }
    let status = pod.status.as_ref();
    let mut all = status.iter().flat_map(|it| &it.conditions).flatten();
    let is_ready = all.any(|it| it.type_ == "Ready" && it.status == conditions::TRUE);
    (!is_ready).then(|| {
        let name = pod.name_any();
        let waiting = status
            .iter()
            .flat_map(|it| &it.container_statuses)
            .flatten()
            .find_map(|it| it.state.as_ref()?.waiting.as_ref()?.reason.clone());
        let why = waiting.map_or_else(String::new, |why| format!(" ({why})"));
        format!("its Pod {name} is not ready{why}")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn speaker(node: &str, status: &str, reason: &str) -> Speaker {
        object(json!({
            "apiVersion": "heraldlb.io/v1alpha1",
            "kind": "Speaker",
            "metadata": {"name": node},
            "spec": {},
            "status": {"conditions": [{
                "type": "Ready", "status": status, "reason": reason, "message": "so it says",
                "lastTransitionTime": "2026-11-30T12:00:00Z",
            }]},
        }))
    }

    fn pod(node: &str, ready: &str) -> Pod {
        object(json!({
            "metadata": {"name": format!("herald-speaker-{node}")},
            "spec": {"nodeName": node, "containers": []},
            "status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "containerStatuses": [{
                    "name": "speaker", "image": "", "imageID": "", "ready": false, "restartCount": 3,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                }],
            },
        }))
    }

    fn lease(holder: &str, renewed: &str) -> Lease {
        object(json!({
            "metadata": {"name": "herald-controller"},
            "spec": {"holderIdentity": holder, "renewTime": renewed, "leaseDurationSeconds": 15},
        }))
    }

    fn set(wanted: i32) -> DaemonSet {
        object(json!({
            "metadata": {"name": "herald-speaker", "generation": 2},
            "status": {
                "observedGeneration": 2, "desiredNumberScheduled": wanted,
                "currentNumberScheduled": 0, "numberMisscheduled": 0, "numberReady": 0,
            },
        }))
    }

    fn whole() -> Seen {
        Seen {
            definitions: vec![("IPPool", Ok(()))],
            speakers: Ok(vec![speaker("node1", "True", "Ready")]),
            lease: Ok(Some(lease("a", "2026-11-30T12:00:00.000000Z"))),
            set: Ok(Some(set(1))),
            pods: Ok(vec![pod("node1", "True")]),
            now: "2026-11-30T12:00:05Z".parse().unwrap(),
        }
    }

    /// What is wrong, as people read it.
    fn wrong(seen: &Seen) -> Vec<String> {
        let all = findings(seen).into_iter();
        all.filter(|finding| !finding.is_well)
            .map(|finding| format!("{}: {}", finding.subject, finding.text))
            .collect()
    }

    #[test]
    fn of_a_whole_installation_every_part_is_well() {
        let all: Vec<String> = findings(&whole()).iter().map(Finding::to_string).collect();
        let expected = [
            "ok     IPPool: is served",
            "ok     Speaker: is served",
            "ok     controller: a leads",
            "ok     speaker of node1: is ready",
        ];
        assert_eq!(all, expected);
    }

    #[test]
    fn a_speaker_that_is_not_well_is_named() {
        let said = Seen {
            speakers: Ok(vec![speaker("node1", "False", "NoRingKey")]),
            ..whole()
        };
        assert_eq!(
            wrong(&said),
            ["speaker of node1: NoRingKey: so it says"],
            "what it says of itself"
        );
        let silent = Seen {
            speakers: Ok(Vec::new()),
            ..whole()
        };
        assert_eq!(
            wrong(&silent),
            ["speaker of node1: it has no Speaker object that says how it is"]
        );
        let stale = Seen {
            pods: Ok(vec![pod("node1", "False")]),
            ..whole()
        };
        assert_eq!(
            wrong(&stale),
            ["speaker of node1: its Pod herald-speaker-node1 is not ready (CrashLoopBackOff)"],
            "it says that it is ready, and is dead"
        );
        let missing = Seen {
            set: Ok(Some(set(2))),
            ..whole()
        };
        assert_eq!(wrong(&missing), ["speakers: only 1 of 2 nodes have one"]);
        let none = Seen {
            set: Ok(Some(set(0))),
            pods: Ok(Vec::new()),
            ..whole()
        };
        assert_eq!(wrong(&none), ["speakers: no node is meant to have one yet"]);
    }

    #[test]
    fn what_is_not_there_or_can_not_be_seen_is_wrong() {
        let refused = || "refused".to_owned();
        let seen = Seen {
            definitions: vec![("IPPool", Err(refused()))],
            lease: Ok(None),
            set: Err(refused()),
            ..whole()
        };
        let defines = "kubectl apply --server-side -f helm/crds/ defines it";
        assert_eq!(
            wrong(&seen),
            [
                format!("IPPool: refused; {defines}"),
                "controller: no replica has made the Lease herald-controller".to_owned(),
                "speakers: refused".to_owned(),
            ]
        );
        let gone = Seen {
            set: Ok(None),
            ..whole()
        };
        assert_eq!(
            wrong(&gone),
            ["speakers: there is no DaemonSet herald-speaker"]
        );
    }

    #[test]
    fn a_lease_that_nobody_renews_is_held_by_nobody() {
        for (lease, expected) in [
            (
                lease("a", "2026-11-30T11:59:00.000000Z"),
                "controller: no replica leads: a renewed the Lease 65 s ago",
            ),
            (
                lease("", "2026-11-30T12:00:00.000000Z"),
                "controller: no replica leads: its log says why",
            ),
        ] {
            let seen = Seen {
                lease: Ok(Some(lease)),
                ..whole()
            };
            assert_eq!(wrong(&seen), [expected]);
        }
    }
}
