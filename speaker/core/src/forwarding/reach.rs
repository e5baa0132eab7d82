//! Which nodes a frame can be sent to by MAC address.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use herald_dataplane::{Spread, Targets};
use herald_model::{NodeName, SegmentName};

use crate::input::ObservedSpeaker;

/// The nodes on one segment, or on several. They are those whose `Speaker` objects say so, and which the
/// observers there have not found dead: then every node of the segment knows the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    nodes: BTreeSet<NodeName>,
    /// The targets of every Service under Cluster, as far as they are among these.
    cluster: Arc<Targets>,
}

impl Reach {
    /// By segment, without nodes whose kernels are silent there.
    pub(crate) fn of_segments(
        speakers: &BTreeMap<NodeName, ObservedSpeaker>,
        cluster: &Targets,
        is_silent: impl Fn(&SegmentName, &NodeName) -> bool,
    ) -> BTreeMap<SegmentName, Self> {
        let mut segments: BTreeMap<SegmentName, BTreeSet<NodeName>> = BTreeMap::new();
        for speaker in speakers.values() {
            for segment in &speaker.report.segments {
                let nodes = segments.entry(segment.name.clone()).or_default();
                if !is_silent(&segment.name, &speaker.node) {
                    nodes.insert(speaker.node.clone());
                }
            }
        }
        segments
            .into_iter()
            .map(|(segment, nodes)| (segment, Self::new(nodes, cluster)))
            .collect()
    }

    /// Of several segments together.
    pub(crate) fn joined<'a>(parts: impl Iterator<Item = &'a Self>, cluster: &Targets) -> Self {
        let nodes = parts.flat_map(|part| &part.nodes).cloned().collect();
        Self::new(nodes, cluster)
    }

    fn new(nodes: BTreeSet<NodeName>, cluster: &Targets) -> Self {
        let cluster = Arc::new(among(&nodes, cluster));
        Self { nodes, cluster }
    }

    /// Whether a node is on the segment.
    pub(super) fn has(&self, node: &NodeName) -> bool {
        self.nodes.contains(node)
    }

    /// Those of the targets that are on the segment. `cluster` is what every Service under Cluster
    /// shares; they go on sharing what is left of it.
    pub(super) fn of(&self, targets: &Arc<Targets>, cluster: &Arc<Targets>) -> Arc<Targets> {
        if Arc::ptr_eq(targets, cluster) {
            Arc::clone(&self.cluster)
        } else if targets.weights.keys().all(|node| self.nodes.contains(node)) {
            Arc::clone(targets)
        } else {
            Arc::new(among(&self.nodes, targets))
        }
    }
}

fn among(nodes: &BTreeSet<NodeName>, targets: &Targets) -> Targets {
    Targets {
        spread: targets.spread,
        weights: targets
            .weights
            .iter()
            .filter(|(node, _)| nodes.contains(*node))
            .map(|(node, weight)| (node.clone(), *weight))
            .collect(),
    }
}

impl Default for Reach {
    /// Nobody.
    fn default() -> Self {
        Self {
            nodes: BTreeSet::new(),
            cluster: Arc::new(Targets {
                spread: Spread::Cluster,
                weights: BTreeMap::new(),
            }),
        }
    }
}
