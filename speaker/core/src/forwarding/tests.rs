use std::time::Duration;

use herald_model::{Endpoint, IpFamilyPolicy, Labels, Request, Scope, ServicePort};

use super::*;

const VIP: &str = "192.0.2.10";

fn node(name: &str) -> Node {
    Node {
        name: name.into(),
        labels: Labels::new(),
        addresses: vec!["192.0.2.1".parse().unwrap()],
        ready: true,
        network_unavailable: false,
        excluded: false,
        out_of_service: false,
    }
}

fn endpoint(node: &str, last: u8, state: (bool, bool, bool)) -> Endpoint {
    Endpoint {
        address: IpAddr::from([10, 244, 0, last]),
        node: Some(node.into()),
        ready: state.0,
        serving: state.1,
        terminating: state.2,
    }
}

const READY: (bool, bool, bool) = (true, true, false);
const DRAINING: (bool, bool, bool) = (false, true, true);
const STARTING: (bool, bool, bool) = (false, false, false);

fn service(name: &str) -> Service {
    Service {
        key: ServiceKey::new("ns", name),
        uid: "uid".into(),
        created: 0,
        labels: Labels::new(),
        families: vec![Family::V4],
        ip_family_policy: IpFamilyPolicy::SingleStack,
        request: Request::default(),
        sharing_key: None,
        scope: Scope::External,
        ports: vec![port(Protocol::Tcp, 80, Some(30_080))],
        traffic_policy: TrafficPolicy::Cluster,
        health_check_node_port: None,
        affinity: SessionAffinity::None,
        source_ranges: Vec::new(),
        publish_not_ready: false,
        selector: Labels::new(),
        forwarding: ForwardingMode::Auto,
        ingress: vec![VIP.parse().unwrap()],
        allocated_from: None,
        deleting: false,
    }
}

fn port(protocol: Protocol, port: u16, node_port: Option<u16>) -> ServicePort {
    ServicePort {
        protocol,
        port,
        node_port,
    }
}

struct World {
    nodes: BTreeMap<NodeName, Node>,
    dead: BTreeSet<NodeName>,
    endpoints: BTreeMap<ServiceKey, ServiceEndpoints>,
    data_plane: DataPlaneReport,
}

impl World {
    fn new(endpoints: &[Endpoint]) -> Self {
        let nodes = ["node1", "node2", "node3"].map(node);
        Self {
            nodes: nodes.map(|node| (node.name.clone(), node)).into(),
            endpoints: ["a", "b"]
                .map(|name| {
                    let service = ServiceKey::new("ns", name);
                    let endpoints = endpoints.to_vec();
                    (service.clone(), ServiceEndpoints { service, endpoints })
                })
                .into(),
            dead: BTreeSet::new(),
            data_plane: DataPlaneReport {
                mode: DataPlaneMode::Tcx,
                reason: None,
            },
        }
    }

    fn plan(&self, services: &[&Service]) -> Plan {
        plan(
            VIP.parse().unwrap(),
            services,
            &Facts {
                nodes: &self.nodes,
                dead: &self.dead,
                endpoints: &self.endpoints,
                data_plane: Some(&self.data_plane),
                cluster: &cluster_targets(&self.nodes, &self.dead),
            },
        )
    }
}

fn weights(plan: &Plan) -> Vec<(String, u32)> {
    match &plan.services[0].forwarding {
        Forwarding::NodePort { targets, .. } => targets
            .weights
            .iter()
            .map(|(node, weight)| (node.to_string(), *weight))
            .collect(),
        Forwarding::Off => panic!("off"),
    }
}

fn pairs(expected: &[(&str, u32)]) -> Vec<(String, u32)> {
    expected
        .iter()
        .map(|(node, weight)| ((*node).to_owned(), *weight))
        .collect()
}

#[test]
fn under_cluster_every_usable_node_is_a_target() {
    let mut world = World::new(&[endpoint("node1", 1, READY)]);
    let all = [("node1", 1), ("node2", 1), ("node3", 1)];
    assert_eq!(weights(&world.plan(&[&service("a")])), pairs(&all));
    world.nodes.get_mut("node2").unwrap().excluded = true;
    world.nodes.get_mut("node3").unwrap().ready = false;
    assert_eq!(weights(&world.plan(&[&service("a")])), pairs(&all[..1]));
}

#[test]
fn under_local_the_targets_are_weighted_by_their_endpoints() {
    let world = World::new(&[
        endpoint("node1", 1, READY),
        endpoint("node1", 2, READY),
        endpoint("node2", 3, READY),
        endpoint("node3", 4, STARTING),
        endpoint("node3", 5, DRAINING),
    ]);
    let mut local = service("a");
    local.traffic_policy = TrafficPolicy::Local;
    let plan = world.plan(&[&local]);
    assert_eq!(weights(&plan), pairs(&[("node1", 2), ("node2", 1)]));
    assert_eq!(plan.targets, Some(2));
}

#[test]
fn without_a_ready_endpoint_those_that_still_serve_take_the_traffic() {
    let world = World::new(&[
        endpoint("node2", 1, DRAINING),
        endpoint("node3", 2, STARTING),
    ]);
    let mut local = service("a");
    local.traffic_policy = TrafficPolicy::Local;
    assert_eq!(weights(&world.plan(&[&local])), pairs(&[("node2", 1)]));
}

#[test]
fn unready_endpoints_count_when_they_are_published() {
    let world = World::new(&[endpoint("node3", 2, STARTING)]);
    let mut local = service("a");
    local.traffic_policy = TrafficPolicy::Local;
    assert_eq!(weights(&world.plan(&[&local])), pairs(&[]));
    local.publish_not_ready = true;
    assert_eq!(weights(&world.plan(&[&local])), pairs(&[("node3", 1)]));
}

#[test]
fn endpoints_of_the_other_family_do_not_count() {
    let mut world = World::new(&[endpoint("node1", 1, READY)]);
    for endpoints in world.endpoints.values_mut() {
        endpoints.endpoints[0].address = "fd00::1".parse().unwrap();
    }
    let plan = world.plan(&[&service("a")]);
    assert!(!plan.has_endpoints);
    assert_eq!(weights(&plan), pairs(&[]));
}

#[test]
fn node_port_is_refused_with_a_reason() {
    let mut world = World::new(&[endpoint("node1", 1, READY)]);
    let said = |world: &World, service: &Service| {
        let plan = world.plan(&[service]);
        (plan.state.unwrap(), plan.reasons.join(" / "))
    };

    let mut sticky = service("a");
    sticky.affinity = SessionAffinity::ClientIp(Duration::from_hours(3));
    let (state, reason) = said(&world, &sticky);
    assert_eq!(state, ForwardingState::Off);
    assert!(reason.contains("ClientIP"), "{reason}");

    let mut without = service("a");
    without.ports[0].node_port = None;
    let (state, reason) = said(&world, &without);
    assert_eq!(state, ForwardingState::Off);
    assert!(reason.contains("port 80/TCP has no NodePort"), "{reason}");

    let mut mixed = service("a");
    mixed.ports.push(port(Protocol::Sctp, 132, Some(30_132)));
    let (state, reason) = said(&world, &mixed);
    assert_eq!(state, ForwardingState::NodePort);
    assert!(reason.contains("132/SCTP"), "{reason}");

    let mut asked = service("a");
    asked.forwarding = ForwardingMode::Off;
    assert_eq!(said(&world, &asked), (ForwardingState::Off, String::new()));

    asked.forwarding = ForwardingMode::Dsr;
    let (state, reason) = said(&world, &asked);
    assert_eq!(state, ForwardingState::NodePort);
    assert!(reason.contains("dsr is not available yet"), "{reason}");

    world.data_plane = DataPlaneReport {
        mode: DataPlaneMode::None,
        reason: Some("no BPF file system".into()),
    };
    let (state, reason) = said(&world, &service("a"));
    assert_eq!(state, ForwardingState::Off);
    assert!(reason.contains("no BPF file system"), "{reason}");
}

#[test]
fn sharers_have_the_union_of_their_ports_and_the_first_keeps_a_port() {
    let world = World::new(&[endpoint("node1", 1, READY)]);
    let first = service("a");
    let mut second = service("b");
    second.ports = vec![
        port(Protocol::Tcp, 80, Some(31_080)),
        port(Protocol::Udp, 80, Some(31_081)),
    ];
    second.source_ranges = vec!["198.51.100.0/24".parse().unwrap()];
    let plan = world.plan(&[&first, &second]);
    let ports: Vec<_> = plan
        .services
        .iter()
        .map(|desired| {
            (
                desired.service.name.to_string(),
                desired.protocol,
                desired.port,
                desired.source_ranges.len(),
            )
        })
        .collect();
    assert_eq!(
        ports,
        [
            ("a".to_owned(), Protocol::Tcp, 80, 0),
            ("b".to_owned(), Protocol::Udp, 80, 1),
        ]
    );
}

#[test]
fn node_that_the_observers_found_dead_takes_no_traffic() {
    let mut world = World::new(&[endpoint("node1", 1, READY), endpoint("node3", 2, READY)]);
    world.dead.insert("node3".into());
    let mut web = service("a");
    assert_eq!(
        weights(&world.plan(&[&web])),
        pairs(&[("node1", 1), ("node2", 1)])
    );
    web.traffic_policy = TrafficPolicy::Local;
    assert_eq!(weights(&world.plan(&[&web])), pairs(&[("node1", 1)]));
}
