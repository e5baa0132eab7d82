//! Where the traffic of an address goes: the mode of each port, and its target nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use herald_dataplane::{DesiredService, Forwarding, Spread, Targets};
use herald_model::{
    Family, ForwardingMode, Node, NodeName, Protocol, Service, ServiceEndpoints, ServiceKey,
    SessionAffinity, TrafficPolicy,
};

use crate::input::{DataPlaneMode, DataPlaneReport};
use crate::status::ForwardingState;

/// What an address's traffic is to go to, and what there is to say of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Its ports.
    pub(crate) services: Vec<DesiredService>,
    /// How it is forwarded on the whole; `None` without ports.
    pub(crate) state: Option<ForwardingState>,
    /// Why it is not forwarded as was asked, one reason for each Service it holds for.
    pub(crate) reasons: Vec<String>,
    /// The nodes that Herald forwards to; `None` if kube-proxy does it.
    pub(crate) targets: Option<u32>,
    /// Whether any endpoint exists.
    pub(crate) has_endpoints: bool,
}

/// What the decision rests on besides the Services themselves.
pub(crate) struct Facts<'a> {
    pub(crate) nodes: &'a BTreeMap<NodeName, Node>,
    /// Nodes that the observers found dead.
    pub(crate) dead: &'a BTreeSet<NodeName>,
    pub(crate) endpoints: &'a BTreeMap<ServiceKey, ServiceEndpoints>,
    pub(crate) data_plane: Option<&'a DataPlaneReport>,
    /// All usable nodes with equal weights, shared by every Service under Cluster.
    pub(crate) cluster: &'a Arc<Targets>,
}

/// The targets of every Service under Cluster: all usable nodes, ourselves included, but for those
/// that the observers found dead.
pub(crate) fn cluster_targets(
    nodes: &BTreeMap<NodeName, Node>,
    dead: &BTreeSet<NodeName>,
) -> Arc<Targets> {
    Arc::new(Targets {
        spread: Spread::Cluster,
        weights: nodes
            .values()
            .filter(|node| node.is_usable() && !dead.contains(&node.name))
            .map(|node| (node.name.clone(), 1))
            .collect(),
    })
}

/// Plans for an address that these Services hold. Of two that want the same port, the first in
/// the order given gets it.
pub(crate) fn plan(address: IpAddr, services: &[&Service], facts: &Facts<'_>) -> Plan {
    let mut plan = Plan::default();
    let mut taken = BTreeSet::new();
    let mut nodes = BTreeSet::new();
    for service in services {
        let (targets, has_endpoints) = targets(address, service, facts);
        plan.has_endpoints |= has_endpoints;
        let refusal = refusal(service, facts.data_plane);
        let mut off_ports = Vec::new();
        let source_ranges: Arc<[_]> = service.source_ranges.iter().copied().collect();
        for port in &service.ports {
            if !taken.insert((port.protocol, port.port)) {
                continue;
            }
            let node_port = match (&refusal, port.protocol, port.node_port) {
                (Mode::NodePort, Protocol::Tcp | Protocol::Udp, Some(node_port)) => Some(node_port),
                (Mode::NodePort, Protocol::Sctp, _) => {
                    off_ports.push(format!("port {}/SCTP cannot be translated", port.port));
                    None
                }
                (Mode::NodePort, protocol, None) => {
                    off_ports.push(format!("port {}/{protocol} has no NodePort", port.port));
                    None
                }
                (Mode::Off(_), ..) => None,
            };
            let forwarding = if let Some(node_port) = node_port {
                nodes.extend(targets.weights.keys().cloned());
                plan.state = Some(ForwardingState::NodePort);
                Forwarding::NodePort {
                    node_port,
                    targets: Arc::clone(&targets),
                }
            } else {
                plan.state = plan.state.or(Some(ForwardingState::Off));
                Forwarding::Off
            };
            plan.services.push(DesiredService {
                service: service.key.clone(),
                protocol: port.protocol,
                port: port.port,
                forwarding,
                source_ranges: Arc::clone(&source_ranges),
            });
        }
        let mut said: Vec<String> = Vec::new();
        match (&refusal, service.forwarding) {
            (Mode::Off(Some(reason)), _) => {
                said.push(format!("left to kube-proxy: {reason}"));
            }
            (Mode::NodePort, mode @ (ForwardingMode::Dsr | ForwardingMode::Pod)) => {
                said.push(format!("{mode} is not available yet, nodeport is used"));
            }
            _as_asked => {}
        }
        if !off_ports.is_empty() {
            said.push(format!("left to kube-proxy: {}", off_ports.join(", ")));
        }
        if !said.is_empty() {
            let said = said.join("; ");
            plan.reasons.push(if services.len() > 1 {
                format!("{}: {said}", service.key)
            } else {
                said
            });
        }
    }
    if plan.state == Some(ForwardingState::NodePort) {
        plan.targets = Some(u32::try_from(nodes.len()).unwrap_or(u32::MAX));
    }
    plan
}

/// How a Service as a whole is forwarded.
enum Mode {
    NodePort,
    /// By kube-proxy; why, unless it was asked for.
    Off(Option<String>),
}

fn refusal(service: &Service, data_plane: Option<&DataPlaneReport>) -> Mode {
    if service.forwarding == ForwardingMode::Off {
        return Mode::Off(None);
    }
    if let SessionAffinity::ClientIp(_) = service.affinity {
        return Mode::Off(Some(
            "nodeport cannot keep ClientIP affinity, as pods would see one client".into(),
        ));
    }
    match data_plane {
        Some(report) if report.mode == DataPlaneMode::None => Mode::Off(Some(format!(
            "the data plane is not available on the announcing node: {}",
            report.reason.as_deref().unwrap_or("no reason given")
        ))),
        _known_or_expected => Mode::NodePort,
    }
}

/// The targets of one Service, and whether it has any endpoint that takes traffic.
fn targets(address: IpAddr, service: &Service, facts: &Facts<'_>) -> (Arc<Targets>, bool) {
    let endpoints = facts.endpoints.get(&service.key);
    let of_family = || {
        endpoints
            .iter()
            .flat_map(|endpoints| &endpoints.endpoints)
            .filter(|endpoint| Family::of(endpoint.address) == Family::of(address))
    };
    let is_ready = |ready: bool| ready || service.publish_not_ready;
    let any_ready = of_family().any(|endpoint| is_ready(endpoint.ready));
    let takes_traffic = |ready: bool, serving: bool, terminating: bool| {
        if any_ready {
            is_ready(ready)
        } else {
            serving && terminating
        }
    };
    let mut weights: BTreeMap<NodeName, u32> = BTreeMap::new();
    let mut has_endpoints = false;
    for endpoint in of_family() {
        if !takes_traffic(endpoint.ready, endpoint.serving, endpoint.terminating) {
            continue;
        }
        has_endpoints = true;
        let node = endpoint.node.as_ref();
        let takes_any = |node: &&NodeName| {
            !facts.dead.contains(*node)
                && facts.nodes.get(node.as_str()).is_some_and(Node::is_usable)
        };
        if let Some(node) = node.filter(takes_any) {
            let weight = weights.entry(node.clone()).or_default();
            *weight = weight.saturating_add(1);
        }
    }
    let targets = match service.traffic_policy {
        TrafficPolicy::Cluster if has_endpoints => Arc::clone(facts.cluster),
        TrafficPolicy::Cluster => Arc::new(Targets {
            spread: Spread::Cluster,
            weights: BTreeMap::new(),
        }),
        TrafficPolicy::Local => Arc::new(Targets {
            spread: Spread::Local,
            weights,
        }),
    };
    (targets, has_endpoints)
}

#[cfg(test)]
mod tests;
