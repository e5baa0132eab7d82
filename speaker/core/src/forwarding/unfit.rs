//! Which nodes take no traffic.

use std::collections::{BTreeMap, BTreeSet};

use herald_model::{Node, NodeName};

use crate::input::ObservedSpeaker;
use crate::status::ConditionKind;

/// The dead, and those whose speakers say that their kernels pass nothing on. If that leaves nobody, the dead
/// alone: what all say of themselves may be meant so, as where all pods are in their nodes' networks.
pub(crate) fn no_targets(
    nodes: &BTreeMap<NodeName, Node>,
    speakers: &BTreeMap<NodeName, ObservedSpeaker>,
    dead: BTreeSet<NodeName>,
) -> BTreeSet<NodeName> {
    let unfit = speakers.values().filter(|speaker| is_unfit(speaker));
    let mut none: BTreeSet<NodeName> = unfit.map(|speaker| speaker.node.clone()).collect();
    if none.is_empty() {
        return dead;
    }
    none.extend(dead.iter().cloned());
    let takes_any = |node: &Node| node.is_usable() && !none.contains(&node.name);
    if nodes.values().any(takes_any) {
        none
    } else {
        dead
    }
}

/// Whether a speaker says that its node is to get no traffic.
pub(crate) fn is_unfit(speaker: &ObservedSpeaker) -> bool {
    let mut conditions = speaker.report.conditions.iter();
    conditions.any(|said| said.kind == ConditionKind::TakesTraffic && !said.holds)
}
