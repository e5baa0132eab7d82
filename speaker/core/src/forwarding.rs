//! Where the traffic of an address goes: the mode of each port, and its target nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use herald_dataplane::{DesiredService, Forwarding, Refused, Spread, Targets};
use herald_model::{
    Endpoint, Family, ForwardingMode, Node, NodeName, PROXY_NAME, Protocol, Service,
    ServiceEndpoints, ServiceKey, ServicePort, SessionAffinity, TrafficPolicy,
};

use crate::input::{DataPlaneMode, DataPlaneReport};
use crate::status::ForwardingState;

mod pods;
mod reach;
mod unfit;

use pods::Pods;
pub(crate) use reach::Reach;
pub(crate) use unfit::{is_unfit, no_targets};

/// What an address's traffic is to go to, and what there is to say of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    /// Its ports.
    pub(crate) services: Vec<DesiredService>,
    /// How it is forwarded on the whole; `None` without ports.
    pub(crate) state: Option<ForwardingState>,
    /// Why it is not forwarded as was asked, one reason for each Service it holds for.
    pub(crate) reasons: Vec<String>,
    /// What the data plane has no room for, by Service; among `reasons`, too.
    pub(crate) refused: Vec<String>,
    /// The nodes that Herald forwards to; `None` if kube-proxy does it.
    pub(crate) targets: Option<u32>,
    /// Whether any endpoint exists.
    pub(crate) has_endpoints: bool,
}

/// What the decision rests on besides the Services themselves.
pub(crate) struct Facts<'a> {
    /// Our own node.
    pub(crate) me: &'a NodeName,
    pub(crate) nodes: &'a BTreeMap<NodeName, Node>,
    /// Nodes that take no traffic.
    pub(crate) dead: &'a BTreeSet<NodeName>,
    pub(crate) endpoints: &'a BTreeMap<ServiceKey, ServiceEndpoints>,
    pub(crate) data_plane: Option<&'a DataPlaneReport>,
    /// Whether kube-proxy on the announcing node runs in mode ipvs.
    pub(crate) ipvs: bool,
    /// All usable nodes with equal weights, shared by every Service under Cluster.
    pub(crate) cluster: &'a Arc<Targets>,
    /// The nodes on the segments of the address.
    pub(crate) reach: &'a Reach,
}

/// Nodes that are named in a reason; of more, only the number is.
const NAMED: usize = 3;

/// The targets of every Service under Cluster: all usable nodes, ourselves included, but for those
/// that take no traffic.
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
    for service in services {
        let behind = Behind::new(address, service, facts);
        plan.has_endpoints |= behind.taking().next().is_some();
        let mut route = route(service, behind, facts);
        let source_ranges: Arc<[_]> = service.source_ranges.iter().copied().collect();
        for port in &service.ports {
            if !taken.insert((port.protocol, port.port)) {
                continue;
            }
            plan.services.push(DesiredService {
                service: service.key.clone(),
                protocol: port.protocol,
                port: port.port,
                forwarding: route.of_port(port),
                source_ranges: Arc::clone(&source_ranges),
            });
        }
        let said = route.said();
        if !said.is_empty() {
            plan.reasons.push(if services.len() > 1 {
                format!("{}: {said}", service.key)
            } else {
                said
            });
        }
    }
    plan.sum_up();
    plan
}

/// What the data plane has no room for of a Service's, each once.
pub(crate) fn no_room(service: &ServiceKey, refused: &[Refused]) -> Vec<String> {
    let of_service = refused
        .iter()
        .filter(|refused| refused.service() == Some(service));
    let said: BTreeSet<String> = of_service.map(ToString::to_string).collect();
    let fate = "left to kube-proxy on the announcing node, as its data plane is full: ";
    said.into_iter()
        .map(|what| format!("{fate}{what}"))
        .collect()
}

impl Plan {
    /// How the address is forwarded on the whole, by its ports.
    fn sum_up(&mut self) {
        let mut nodes = BTreeSet::new();
        self.state = None;
        for service in &self.services {
            let (state, targets) = match &service.forwarding {
                Forwarding::Pod { targets, .. } => (ForwardingState::Pod, Some(targets)),
                Forwarding::Dsr { targets, .. } => (ForwardingState::Dsr, Some(targets)),
                Forwarding::NodePort { targets, .. } => (ForwardingState::NodePort, Some(targets)),
                Forwarding::Off => (ForwardingState::Off, None),
            };
            // Of several ports, the best.
            self.state = Some(self.state.map_or(state, |best| best.min(state)));
            let weights = targets.into_iter().flat_map(|targets| &targets.weights);
            let takes_new = weights.filter(|(_, weight)| **weight > 0);
            nodes.extend(takes_new.map(|(node, _)| node));
        }
        let is_ours = self
            .state
            .is_some_and(|state| state != ForwardingState::Off);
        self.targets = is_ours.then(|| u32::try_from(nodes.len()).unwrap_or(u32::MAX));
    }

    /// The same as it came out: what the data plane of this node has no room for is left to kube-proxy.
    pub(crate) fn without(mut self, address: IpAddr, refused: &[Refused]) -> Self {
        let keys: BTreeSet<ServiceKey> = self
            .services
            .iter()
            .map(|service| service.service.clone())
            .collect();
        for service in &mut self.services {
            let leaves = |refused: &Refused| {
                refused.service() == Some(&service.service) && refused.leaves(address)
            };
            if refused.iter().any(leaves) {
                service.forwarding = Forwarding::Off;
            }
        }
        for key in &keys {
            let said = no_room(key, refused).into_iter();
            let named = |what| format!("{key}: {what}");
            if keys.len() > 1 {
                self.refused.extend(said.map(named));
            } else {
                self.refused.extend(said);
            }
        }
        self.sum_up();
        if !self.refused.is_empty() && self.state == Some(ForwardingState::Off) {
            self.reasons.clear();
        }
        self.reasons.extend(self.refused.iter().cloned());
        self
    }
}

/// How a Service as a whole is forwarded.
fn route<'a>(service: &Service, behind: Behind<'a>, facts: &Facts<'a>) -> Route<'a> {
    let all = targets(service, &behind, facts);
    let near = facts.reach.of(&all, facts.cluster);
    let is_sticky = service.affinity != SessionAffinity::None;
    let mut route = Route {
        mode: Mode::Off,
        far: all
            .weights
            .keys()
            .filter(|node| !near.weights.contains_key(*node))
            .cloned()
            .collect(),
        all,
        near,
        is_sticky,
        reasons: Vec::new(),
        off_ports: Vec::new(),
        leaves_out: false,
        pods: None,
    };
    let wish = match service.forwarding {
        ForwardingMode::Off => return route,
        ForwardingMode::NodePort => Mode::NodePort,
        ForwardingMode::Auto | ForwardingMode::Dsr | ForwardingMode::Pod => Mode::Dsr,
    };
    if service.forwarding == ForwardingMode::Auto
        && let Some(reason) = unknown_proxy(service, facts)
    {
        route.reasons.push(reason);
        return route;
    }
    if let Some(report) = facts.data_plane
        && report.mode == DataPlaneMode::None
    {
        let reason = report.reason.as_deref().unwrap_or("no reason given");
        route.reasons.push(format!(
            "left to kube-proxy: the data plane is not available on the announcing node: {reason}"
        ));
        return route;
    }
    if service.forwarding == ForwardingMode::Pod {
        match Pods::new(behind, facts) {
            Ok(pods) => {
                route.mode = Mode::Pod;
                route.far = pods.far.iter().cloned().collect();
                route.leaves_out = !route.far.is_empty();
                route.pods = Some(pods);
                return route;
            }
            Err(reason) => route.reasons.push(reason),
        }
    }
    // Without any target there is nothing to reach: then the mode stays what it will be.
    let reaches_none = route.near.weights.is_empty() && !route.far.is_empty();
    if wish == Mode::Dsr && !reaches_none {
        route.mode = Mode::Dsr;
        return route;
    }
    if wish == Mode::Dsr {
        route
            .reasons
            .push("dsr reaches no target: none has a speaker on the segment".into());
    }
    if is_sticky {
        route.reasons.push(
            "left to kube-proxy: nodeport cannot keep ClientIP affinity, as pods would see one client"
                .into(),
        );
    } else {
        route.mode = Mode::NodePort;
    }
    route
}

/// Why another program, or a mode of kube-proxy, has a Service's traffic that we don't know enough of to send
/// anything on to nodes where it runs. On the announcing node it takes what comes by itself.
fn unknown_proxy(service: &Service, facts: &Facts<'_>) -> Option<String> {
    if let Some(proxy) = service.proxy_name() {
        return Some(format!(
            "left to the proxy {proxy:?} that the label {PROXY_NAME} names, on the announcing node"
        ));
    }
    facts.ipvs.then(|| {
        "left to kube-proxy, whose mode is ipvs on the announcing node: it has to have ipvs.strictARP, or \
         every node answers for the address"
            .to_owned()
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pod,
    Dsr,
    NodePort,
    /// By kube-proxy.
    Off,
}

/// The way of one Service's traffic, and what there is to say of it.
struct Route<'a> {
    mode: Mode,
    all: Arc<Targets>,
    /// Those of them that share a segment with the address.
    near: Arc<Targets>,
    /// The others.
    far: Vec<NodeName>,
    /// All connections of a client belong together.
    is_sticky: bool,
    reasons: Vec<String>,
    /// What is left to kube-proxy, and why.
    off_ports: Vec<String>,
    /// Whether a port does without those that are far.
    leaves_out: bool,
    /// With [`Mode::Pod`].
    pods: Option<Pods<'a>>,
}

impl Route<'_> {
    fn of_port(&mut self, port: &ServicePort) -> Forwarding {
        let translatable = port.node_port.filter(|_| port.protocol != Protocol::Sctp);
        match (self.mode, translatable) {
            (Mode::Off, _) => Forwarding::Off,
            (Mode::Pod, _) if port.protocol == Protocol::Sctp => {
                self.reasons.push(format!(
                    "port {}/{} is forwarded by dsr, as pod cannot translate it",
                    port.port, port.protocol
                ));
                Forwarding::Dsr {
                    targets: Arc::clone(&self.near),
                    by_address: self.is_sticky,
                    node_port: None,
                }
            }
            (Mode::Pod, _) => {
                let (targets, pods) = self
                    .pods
                    .as_ref()
                    .map(|pods| pods.of_port(port))
                    .unwrap_or_default();
                Forwarding::Pod {
                    targets: Arc::new(Targets {
                        spread: Spread::Local,
                        weights: targets,
                    }),
                    by_address: self.is_sticky,
                    pods: pods.into(),
                }
            }
            (Mode::Dsr, translatable) => {
                let node_port = translatable.filter(|_| !self.is_sticky);
                // Under Cluster any node is as good as another, under Local each has its own pods.
                let takes_all = node_port.is_some() && self.all.spread == Spread::Local;
                self.leaves_out |= !takes_all;
                Forwarding::Dsr {
                    targets: Arc::clone(if takes_all { &self.all } else { &self.near }),
                    by_address: self.is_sticky,
                    node_port,
                }
            }
            (Mode::NodePort, Some(node_port)) => Forwarding::NodePort {
                node_port,
                targets: Arc::clone(&self.all),
            },
            (Mode::NodePort, None) => {
                let why = match port.protocol {
                    Protocol::Sctp => "cannot be translated",
                    Protocol::Tcp | Protocol::Udp => "has no NodePort",
                };
                self.off_ports
                    .push(format!("port {}/{} {why}", port.port, port.protocol));
                Forwarding::Off
            }
        }
    }

    fn said(mut self) -> String {
        if !self.off_ports.is_empty() {
            let ports = self.off_ports.join(", ");
            self.reasons.push(format!("left to kube-proxy: {ports}"));
        }
        if matches!(self.mode, Mode::Pod | Mode::Dsr) && !self.far.is_empty() {
            let some: Vec<&str> = self.far.iter().map(NodeName::as_str).take(NAMED).collect();
            let more = match self.far.len().saturating_sub(NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let fate = if self.leaves_out {
                "get no traffic"
            } else {
                "are reached by nodeport"
            };
            self.reasons.push(format!(
                "without a speaker on the segment, hence {fate}: {}{more}",
                some.join(", ")
            ));
        }
        self.reasons.join("; ")
    }
}

/// What is behind one Service, for one family.
pub(crate) struct Behind<'a> {
    /// The endpoints that take new connections, and those that keep the ones they have.
    endpoints: Vec<(&'a Endpoint, bool)>,
}

impl<'a> Behind<'a> {
    pub(crate) fn new(address: IpAddr, service: &Service, facts: &Facts<'a>) -> Self {
        let of_family: Vec<&Endpoint> = facts
            .endpoints
            .get(&service.key)
            .into_iter()
            .flat_map(|endpoints| &endpoints.endpoints)
            .filter(|endpoint| Family::of(endpoint.address) == Family::of(address))
            .collect();
        let is_ready = |endpoint: &Endpoint| endpoint.ready || service.publish_not_ready;
        let any_ready = of_family.iter().any(|endpoint| is_ready(endpoint));
        let takes_new = |endpoint: &Endpoint| {
            if any_ready {
                is_ready(endpoint)
            } else {
                endpoint.serving && endpoint.terminating
            }
        };
        Self {
            endpoints: of_family
                .into_iter()
                .map(|endpoint| (endpoint, takes_new(endpoint)))
                .collect(),
        }
    }

    /// Those that take new connections.
    fn taking(&self) -> impl Iterator<Item = &'a Endpoint> {
        let taking = self.endpoints.iter().filter(|(_, takes_new)| *takes_new);
        taking.map(|(endpoint, _)| *endpoint)
    }
}

/// Whether traffic may go to a node.
fn takes_any(node: &NodeName, facts: &Facts<'_>) -> bool {
    !facts.dead.contains(node) && facts.nodes.get(node.as_str()).is_some_and(Node::is_usable)
}

/// The targets of one Service.
pub(crate) fn targets(service: &Service, behind: &Behind<'_>, facts: &Facts<'_>) -> Arc<Targets> {
    let mut weights: BTreeMap<NodeName, u32> = BTreeMap::new();
    let nodes = behind
        .taking()
        .filter_map(|endpoint| endpoint.node.as_ref());
    for node in nodes.filter(|node| takes_any(node, facts)) {
        let weight = weights.entry(node.clone()).or_default();
        *weight = weight.saturating_add(1);
    }
    match service.traffic_policy {
        TrafficPolicy::Cluster if behind.taking().next().is_some() => Arc::clone(facts.cluster),
        TrafficPolicy::Cluster => Arc::new(Targets {
            spread: Spread::Cluster,
            weights: BTreeMap::new(),
        }),
        TrafficPolicy::Local => Arc::new(Targets {
            spread: Spread::Local,
            weights,
        }),
    }
}

#[cfg(test)]
mod tests;
