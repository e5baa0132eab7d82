//! Which nodes have pods that a client's packets can go straight to, and which pods are our own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use herald_dataplane::DesiredPod;
use herald_model::{Endpoint, NodeName, ServicePort};

use super::{Behind, Facts, takes_any};

/// The endpoints of a Service whose every endpoint that takes traffic is a pod on a node of the cluster.
pub(super) struct Pods<'a> {
    me: &'a NodeName,
    /// On nodes that live and share a segment with the address, and our own node's; and whether each takes
    /// new connections.
    near: Vec<(&'a Endpoint, &'a NodeName, bool)>,
    /// Nodes that have pods and share no segment with the address.
    pub(super) far: BTreeSet<NodeName>,
}

impl<'a> Pods<'a> {
    /// # Errors
    ///
    /// Why not, in a sentence.
    pub(super) fn new(behind: Behind<'a>, facts: &Facts<'a>) -> Result<Self, String> {
        let mut pods = Self {
            me: facts.me,
            near: Vec::new(),
            far: BTreeSet::new(),
        };
        let mut takes_new = false;
        let mut has_any = false;
        for (endpoint, takes) in behind.endpoints {
            has_any |= takes;
            let known = endpoint.node.as_ref();
            let Some(node) = known.filter(|node| facts.nodes.contains_key(*node)) else {
                if takes {
                    return Err(format!(
                        "pod reaches only pods on nodes of the cluster, which {} is not: dsr is used",
                        endpoint.address
                    ));
                }
                continue;
            };
            let is_near = facts.reach.has(node);
            let takes = takes && takes_any(node, facts);
            if is_near && !facts.dead.contains(node) || node == facts.me {
                takes_new |= takes && is_near;
                pods.near.push((endpoint, node, takes && is_near));
            } else if takes {
                pods.far.insert(node.clone());
            }
        }
        if has_any && !takes_new {
            return Err(
                "pod reaches no endpoint: none is on a node that takes traffic and has a speaker on the \
                 segment: dsr is used"
                    .into(),
            );
        }
        Ok(pods)
    }

    /// The nodes of one port, each with the number of its pods that take new connections, and our own pods.
    pub(super) fn of_port(&self, port: &ServicePort) -> (BTreeMap<NodeName, u32>, Vec<DesiredPod>) {
        let mut weights: BTreeMap<NodeName, u32> = BTreeMap::new();
        let mut own = BTreeMap::new();
        for &(endpoint, node, takes_new) in &self.near {
            let number = endpoint
                .ports
                .iter()
                .find(|known| known.name == port.name && known.protocol == port.protocol);
            let Some(number) = number else {
                continue;
            };
            let weight = weights.entry(node.clone()).or_default();
            *weight = weight.saturating_add(u32::from(takes_new));
            if node == self.me {
                let address = SocketAddr::new(endpoint.address, number.port);
                *own.entry(address).or_insert(false) |= takes_new;
            }
        }
        let own = own
            .into_iter()
            .map(|(address, takes_new)| DesiredPod { address, takes_new });
        (weights, own.collect())
    }
}
