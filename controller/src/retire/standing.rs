//! How far a node is on the way to having nothing of Herald's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use herald_api::{Speaker, conditions};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::ResourceExt as _;

use crate::once::readiness;

/// Of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Its speaker has removed everything.
    Retired,
    /// Its speaker is there and has not yet; what it says of itself.
    Awaited(String),
    /// The node is off or out of reach: nobody there would hear that it is to retire.
    NotReady,
    /// The node is no longer part of the cluster.
    NoNode,
    /// No speaker runs there that could.
    NoSpeaker,
}

impl Standing {
    /// Whether waiting may help.
    pub(super) const fn is_awaited(&self) -> bool {
        matches!(self, Self::Awaited(_))
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retired => f.write_str("retired, nothing is left"),
            Self::Awaited(said) => write!(f, "not retired yet: {said}"),
            Self::NotReady => f.write_str("the node is not Ready"),
            Self::NoNode => f.write_str("there is no such node any more"),
            Self::NoSpeaker => f.write_str("no speaker runs there"),
        }
    }
}

/// The standing of each node that has a speaker, or had one.
pub(super) fn standings(
    speakers: &[Speaker],
    pods: &[Pod],
    nodes: &[Node],
) -> BTreeMap<String, Standing> {
    let speakers: BTreeMap<String, &Speaker> =
        speakers.iter().map(|it| (it.name_any(), it)).collect();
    let alive: BTreeSet<&str> = pods.iter().filter_map(node_of_living).collect();
    let nodes: BTreeMap<String, bool> = nodes
        .iter()
        .map(|node| (node.name_any(), is_ready(node)))
        .collect();
    let names = speakers.keys().map(String::as_str);
    let names: BTreeSet<&str> = names.chain(alive.iter().copied()).collect();
    let of = |name: &str| match nodes.get(name) {
        None => Standing::NoNode,
        _ if speakers.get(name).is_some_and(|it| has_retired(it)) => Standing::Retired,
        Some(false) => Standing::NotReady,
        Some(true) if !alive.contains(name) => Standing::NoSpeaker,
        Some(true) => Standing::Awaited(said(speakers.get(name).copied())),
    };
    names
        .into_iter()
        .map(|name| (name.to_owned(), of(name)))
        .collect()
}

/// The names of Pods that are to end on nodes that can't say when they have.
pub(super) fn out_of_reach<'a>(
    pods: &'a [Pod],
    nodes: &'a [Node],
) -> impl Iterator<Item = &'a str> {
    let ready = |name: &str| {
        let node = nodes.iter().find(|node| node.name_any() == name);
        node.is_some_and(is_ready)
    };
    pods.iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_some())
        .filter(move |pod| node_of_living(pod).is_some_and(|node| !ready(node)))
        .filter_map(|pod| pod.metadata.name.as_deref())
}

/// The node of a Pod that has not ended for good.
fn node_of_living(pod: &Pod) -> Option<&str> {
    let phase = pod.status.as_ref().and_then(|it| it.phase.as_deref());
    let has_ended = matches!(phase, Some("Succeeded" | "Failed"));
    let node = pod.spec.as_ref()?.node_name.as_deref()?;
    (!has_ended).then_some(node)
}

fn is_ready(node: &Node) -> bool {
    let all = node.status.iter().flat_map(|it| &it.conditions).flatten();
    all.into_iter()
        .any(|it| it.type_ == "Ready" && it.status == conditions::TRUE)
}

fn has_retired(speaker: &Speaker) -> bool {
    let said = readiness(speaker);
    speaker.spec.retire && said.is_some_and(|it| it.reason == conditions::reasons::RETIRED)
}

fn said(speaker: Option<&Speaker>) -> String {
    let Some(speaker) = speaker else {
        return "it has no Speaker object yet".to_owned();
    };
    match readiness(speaker) {
        Some(ready) if speaker.spec.retire => ready.message.clone(),
        None if speaker.spec.retire => "it has said nothing yet".to_owned(),
        _ => "it is asked now".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::serde::de::DeserializeOwned;
    use serde_json::{Value, json};

    use super::*;

    fn object<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn node(name: &str, ready: &str) -> Node {
        object(json!({
            "metadata": {"name": name},
            "status": {"conditions": [{"type": "Ready", "status": ready}]},
        }))
    }

    fn pod(node: &str, phase: &str) -> Pod {
        object(json!({
            "metadata": {"name": format!("herald-speaker-{node}")},
            "spec": {"nodeName": node, "containers": []},
            "status": {"phase": phase},
        }))
    }

    fn speaker(node: &str, retire: bool, reason: &str) -> Speaker {
        object(json!({
            "apiVersion": "heraldlb.io/v1alpha1",
            "kind": "Speaker",
            "metadata": {"name": node},
            "spec": {"retire": retire},
            "status": {"conditions": [{
                "type": "Ready", "status": "False", "reason": reason, "message": "so it says",
                "lastTransitionTime": "2026-11-30T12:00:00Z",
            }]},
        }))
    }

    #[test]
    fn only_a_pod_that_is_to_end_on_a_node_that_is_not_ready_is_out_of_reach() {
        let ending = |node| {
            let mut pod = pod(node, "Running");
            pod.metadata.deletion_timestamp = Some(object(json!("2026-11-30T12:00:00Z")));
            pod
        };
        let pods = [pod("off", "Running"), ending("on"), ending("off")];
        let nodes = [node("on", "True"), node("off", "Unknown")];
        let expected = pods[2].metadata.name.as_deref();
        let found: Vec<&str> = out_of_reach(&pods, &nodes).collect();
        assert_eq!(found, Vec::from_iter(expected));
    }

    #[test]
    fn only_a_speaker_that_runs_on_a_ready_node_is_awaited() {
        let speakers = [
            speaker("asked", true, "Stopping"),
            speaker("off", true, "Ready"),
            speaker("removed", true, "Ready"),
            speaker("unasked", false, "Ready"),
            speaker("without-pod", true, "Ready"),
            speaker("ended", true, "Ready"),
            speaker("done", true, "Retired"),
            speaker("done-then-off", true, "Retired"),
            speaker("works-again", false, "Retired"),
        ];
        let pods: Vec<Pod> = ["asked", "off", "unasked", "silent", "done", "works-again"]
            .into_iter()
            .map(|node| pod(node, "Running"))
            .chain([pod("ended", "Failed")])
            .collect();
        let nodes: Vec<Node> = pods
            .iter()
            .filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref())
            .filter(|name| *name != "off")
            .chain(["without-pod"])
            .map(|name| node(name, "True"))
            .chain([node("off", "Unknown"), node("done-then-off", "Unknown")])
            .collect();
        let awaited = |text: &str| Standing::Awaited(text.to_owned());
        let expected = [
            ("asked", awaited("so it says")),
            ("done", Standing::Retired),
            ("done-then-off", Standing::Retired),
            ("ended", Standing::NoSpeaker),
            ("off", Standing::NotReady),
            ("removed", Standing::NoNode),
            ("silent", awaited("it has no Speaker object yet")),
            ("unasked", awaited("it is asked now")),
            ("without-pod", Standing::NoSpeaker),
            ("works-again", awaited("it is asked now")),
        ];
        let expected = expected.map(|(node, standing)| (node.to_owned(), standing));
        assert_eq!(
            standings(&speakers, &pods, &nodes),
            BTreeMap::from(expected)
        );
    }
}
