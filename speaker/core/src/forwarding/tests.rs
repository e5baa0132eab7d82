use std::time::Duration;

use herald_dataplane::DesiredPod;
use herald_model::{
    EndpointPort, Incarnation, IpFamilyPolicy, Labels, MacAddress, Request, Scope, SpeakerSegment,
};

use super::*;
use crate::input::{ObservedSpeaker, SpeakerReport};

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
        departure: None,
        pod_ranges: Vec::new(),
    }
}

fn endpoint(node: &str, last: u8, state: (bool, bool, bool)) -> Endpoint {
    Endpoint {
        address: IpAddr::from([10, 244, 0, last]),
        node: Some(node.into()),
        ready: state.0,
        serving: state.1,
        terminating: state.2,
        ports: Arc::new([own_port("http", Protocol::Tcp, 8_080)]),
    }
}

fn own_port(name: &str, protocol: Protocol, port: u16) -> EndpointPort {
    EndpointPort {
        name: name.into(),
        protocol,
        port,
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
        name: "http".into(),
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
    ipvs: bool,
    /// The nodes on the segment of the address.
    near: Vec<&'static str>,
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
            ipvs: false,
            near: vec!["node1", "node2", "node3"],
            data_plane: DataPlaneReport {
                mode: DataPlaneMode::Tcx,
                reason: None,
            },
        }
    }

    fn reach(&self, cluster: &Targets) -> Reach {
        let speakers = self.near.iter().map(|name| {
            let report = SpeakerReport {
                segments: vec![SpeakerSegment {
                    name: "lan".into(),
                    interface: "eth0".into(),
                    mac: MacAddress([2, 0, 0, 0, 0, 1]),
                    prefixes: Vec::new(),
                    gateways: Vec::new(),
                    carrier: true,
                    incarnation: Incarnation(1),
                }],
                ..SpeakerReport::default()
            };
            let speaker = ObservedSpeaker {
                node: (*name).into(),
                resource_version: "1".into(),
                retire: false,
                crash: None,
                report,
            };
            (speaker.node.clone(), speaker)
        });
        Reach::of_segments(&speakers.collect(), cluster, |_, _| false)
            .remove("lan")
            .unwrap_or_default()
    }

    fn plan(&self, services: &[&Service]) -> Plan {
        let cluster = cluster_targets(&self.nodes, &self.dead);
        plan(
            VIP.parse().unwrap(),
            services,
            &Facts {
                me: &"node1".into(),
                nodes: &self.nodes,
                dead: &self.dead,
                endpoints: &self.endpoints,
                data_plane: Some(&self.data_plane),
                ipvs: self.ipvs,
                cluster: &cluster,
                reach: &self.reach(&cluster),
            },
        )
    }
}

fn weights(plan: &Plan) -> Vec<(String, u32)> {
    match &plan.services[0].forwarding {
        Forwarding::NodePort { targets, .. }
        | Forwarding::Dsr { targets, .. }
        | Forwarding::Pod { targets, .. } => targets
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

    let by_node_port = || Service {
        forwarding: ForwardingMode::NodePort,
        ..service("a")
    };
    let mut sticky = by_node_port();
    sticky.affinity = SessionAffinity::ClientIp(Duration::from_hours(3));
    let (state, reason) = said(&world, &sticky);
    assert_eq!(state, ForwardingState::Off);
    assert!(reason.contains("ClientIP"), "{reason}");

    let mut without = by_node_port();
    without.ports[0].node_port = None;
    let (state, reason) = said(&world, &without);
    assert_eq!(state, ForwardingState::Off);
    assert!(reason.contains("port 80/TCP has no NodePort"), "{reason}");

    let mut mixed = by_node_port();
    mixed.ports.push(port(Protocol::Sctp, 132, Some(30_132)));
    let (state, reason) = said(&world, &mixed);
    assert_eq!(state, ForwardingState::NodePort);
    assert!(reason.contains("132/SCTP"), "{reason}");

    let mut asked = service("a");
    asked.forwarding = ForwardingMode::Off;
    assert_eq!(said(&world, &asked), (ForwardingState::Off, String::new()));

    world.data_plane = DataPlaneReport {
        mode: DataPlaneMode::None,
        reason: Some("no BPF file system".into()),
    };
    let (state, reason) = said(&world, &service("a"));
    assert_eq!(state, ForwardingState::Off);
    assert!(reason.contains("no BPF file system"), "{reason}");
}

#[test]
fn what_another_proxy_has_is_left_to_it_unless_a_mode_is_asked_for() {
    let mut labelled = service("a");
    let name = PROXY_NAME.to_owned();
    labelled.labels.insert(name, "mesh".to_owned());
    let world = World::new(&[endpoint("node1", 1, READY)]);
    let ipvs = World {
        ipvs: true,
        ..World::new(&[endpoint("node1", 1, READY)])
    };
    for (world, service, what) in [(&world, labelled, "mesh"), (&ipvs, service("a"), "ipvs")] {
        let plan = world.plan(&[&service]);
        assert_eq!(plan.state, Some(ForwardingState::Off));
        assert!(plan.reasons[0].contains(what), "{:?}", plan.reasons);
        let asked = Service {
            forwarding: ForwardingMode::Dsr,
            ..service
        };
        let plan = world.plan(&[&asked]);
        assert_eq!(plan.state, Some(ForwardingState::Dsr));
        assert_eq!(plan.reasons, [""; 0]);
    }
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

/// What `auto` makes of a Service with nothing special, and `dsr` as well.
fn dsr() -> Service {
    service("a")
}

/// Of the first port: whether the client's address chooses, the `NodePort`.
fn direct(plan: &Plan) -> (bool, Option<u16>) {
    match &plan.services[0].forwarding {
        Forwarding::Dsr {
            by_address,
            node_port,
            ..
        } => (*by_address, *node_port),
        other => panic!("{other:?}"),
    }
}

#[test]
fn dsr_needs_no_node_port_and_keeps_affinity_by_the_clients_address() {
    let world = World::new(&[endpoint("node1", 1, READY)]);
    let mut web = dsr();
    web.ports.push(port(Protocol::Sctp, 132, None));
    let plan = world.plan(&[&web]);
    assert_eq!(plan.state, Some(ForwardingState::Dsr));
    assert_eq!(plan.targets, Some(3));
    assert_eq!(plan.reasons, [""; 0]);
    assert_eq!(direct(&plan), (false, Some(30_080)));
    web.forwarding = ForwardingMode::Dsr;
    assert_eq!(world.plan(&[&web]), plan);
    assert!(matches!(
        plan.services[1].forwarding,
        Forwarding::Dsr { .. }
    ));

    web.ports[0].node_port = None;
    assert_eq!(direct(&world.plan(&[&web])), (false, None));
    web.affinity = SessionAffinity::ClientIp(Duration::from_hours(3));
    web.ports[0].node_port = Some(30_080);
    let plan = world.plan(&[&web]);
    assert_eq!(direct(&plan), (true, None));
    assert_eq!(plan.reasons, [""; 0]);
}

#[test]
fn under_cluster_dsr_leaves_out_nodes_without_a_speaker_on_the_segment() {
    let mut world = World::new(&[endpoint("node1", 1, READY)]);
    world.near = vec!["node1", "node3"];
    let plan = world.plan(&[&dsr()]);
    assert_eq!(weights(&plan), pairs(&[("node1", 1), ("node3", 1)]));
    assert_eq!(plan.targets, Some(2));
    assert_eq!(
        plan.reasons,
        ["without a speaker on the segment, hence get no traffic: node2"]
    );
}

#[test]
fn under_local_dsr_reaches_other_nodes_by_nodeport_where_that_can_be() {
    let mut world = World::new(&[
        endpoint("node1", 1, READY),
        endpoint("node2", 2, READY),
        endpoint("node2", 3, READY),
    ]);
    world.near = vec!["node1", "node3"];
    let mut web = dsr();
    web.traffic_policy = TrafficPolicy::Local;
    let plan = world.plan(&[&web]);
    assert_eq!(weights(&plan), pairs(&[("node1", 1), ("node2", 2)]));
    assert_eq!(
        plan.reasons,
        ["without a speaker on the segment, hence are reached by nodeport: node2"]
    );
    for change in [
        |web: &mut Service| web.ports[0].node_port = None,
        |web: &mut Service| {
            web.affinity = SessionAffinity::ClientIp(Duration::from_hours(3));
        },
    ] {
        let mut web = web.clone();
        change(&mut web);
        let plan = world.plan(&[&web]);
        assert_eq!(weights(&plan), pairs(&[("node1", 1)]));
        assert_eq!(
            plan.reasons,
            ["without a speaker on the segment, hence get no traffic: node2"]
        );
    }
}

#[test]
fn where_dsr_reaches_no_target_nodeport_is_used_and_said() {
    let mut world = World::new(&[endpoint("node2", 1, READY)]);
    world.near = vec![];
    let mut web = dsr();
    for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
        web.traffic_policy = policy;
        let plan = world.plan(&[&web]);
        assert_eq!(plan.state, Some(ForwardingState::NodePort));
        assert_eq!(
            plan.reasons,
            ["dsr reaches no target: none has a speaker on the segment"]
        );
    }
    web.affinity = SessionAffinity::ClientIp(Duration::from_hours(3));
    let plan = world.plan(&[&web]);
    assert_eq!(plan.state, Some(ForwardingState::Off));
    assert!(plan.reasons[0].contains("ClientIP"), "{:?}", plan.reasons);
}

#[test]
fn without_endpoints_a_service_stays_in_dsr() {
    let world = World::new(&[]);
    for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
        let mut web = dsr();
        web.traffic_policy = policy;
        let plan = world.plan(&[&web]);
        assert_eq!(
            (plan.state, plan.targets),
            (Some(ForwardingState::Dsr), Some(0))
        );
    }
}

#[test]
fn node_that_is_dead_takes_no_traffic_in_dsr_either() {
    let mut world = World::new(&[endpoint("node1", 1, READY), endpoint("node3", 2, READY)]);
    world.dead.insert("node3".into());
    let mut web = dsr();
    let both = [("node1", 1), ("node2", 1)];
    assert_eq!(weights(&world.plan(&[&web])), pairs(&both));
    web.traffic_policy = TrafficPolicy::Local;
    assert_eq!(weights(&world.plan(&[&web])), pairs(&both[..1]));
}

fn to_pods() -> Service {
    Service {
        forwarding: ForwardingMode::Pod,
        ..service("a")
    }
}

/// Our own pods of a port: port, and whether it takes new connections, by the last byte of the address.
fn own(plan: &Plan, port: usize) -> Vec<(String, bool)> {
    match &plan.services[port].forwarding {
        Forwarding::Pod { pods, .. } => pods
            .iter()
            .map(|DesiredPod { address, takes_new }| (address.to_string(), *takes_new))
            .collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn pod_weighs_nodes_by_their_pods_under_every_policy_and_knows_its_own() {
    let world = World::new(&[
        endpoint("node1", 1, READY),
        endpoint("node1", 2, READY),
        endpoint("node1", 3, DRAINING),
        endpoint("node2", 4, READY),
        endpoint("node3", 5, DRAINING),
        endpoint("node3", 6, STARTING),
    ]);
    let mut web = to_pods();
    for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
        web.traffic_policy = policy;
        let plan = world.plan(&[&web]);
        assert_eq!(
            (plan.state, plan.targets),
            (Some(ForwardingState::Pod), Some(2))
        );
        assert_eq!(plan.reasons, [""; 0]);
        // node3 keeps the connections it has.
        let expected = [("node1", 2), ("node2", 1), ("node3", 0)];
        assert_eq!(weights(&plan), pairs(&expected));
        let expected = [(1, true), (2, true), (3, false)]
            .map(|(last, takes)| (format!("10.244.0.{last}:8080"), takes));
        assert_eq!(own(&plan, 0), expected);
    }
}

#[test]
fn without_a_ready_pod_those_that_still_serve_take_new_connections_of_pod_too() {
    let world = World::new(&[
        endpoint("node1", 1, DRAINING),
        endpoint("node2", 2, STARTING),
    ]);
    let mut web = to_pods();
    let plan = world.plan(&[&web]);
    assert_eq!(weights(&plan), pairs(&[("node1", 1), ("node2", 0)]));
    assert_eq!(own(&plan, 0), [("10.244.0.1:8080".to_owned(), true)]);
    web.publish_not_ready = true;
    let plan = world.plan(&[&web]);
    assert_eq!(weights(&plan), pairs(&[("node1", 1), ("node2", 1)]));
}

#[test]
fn each_port_of_pod_goes_to_the_port_that_the_pod_has_under_its_name() {
    let mut first = endpoint("node1", 1, READY);
    first.ports = Arc::new([
        own_port("dns", Protocol::Udp, 5_353),
        own_port("http", Protocol::Tcp, 8_080),
    ]);
    let mut second = endpoint("node1", 2, READY);
    second.ports = Arc::new([own_port("http", Protocol::Tcp, 9_090)]);
    let world = World::new(&[first, second]);
    let mut web = to_pods();
    let named = |name: &str, protocol, number| ServicePort {
        name: name.into(),
        ..port(protocol, number, None)
    };
    web.ports.push(named("dns", Protocol::Udp, 53));
    web.ports.push(named("dns-tcp", Protocol::Tcp, 53));
    let plan = world.plan(&[&web]);
    let ready = |pods: &[&str]| -> Vec<(String, bool)> {
        pods.iter().map(|pod| ((*pod).to_owned(), true)).collect()
    };
    assert_eq!(
        own(&plan, 0),
        ready(&["10.244.0.1:8080", "10.244.0.2:9090"])
    );
    assert_eq!(own(&plan, 1), ready(&["10.244.0.1:5353"]));
    assert_eq!(own(&plan, 2), ready(&[]));
}

#[test]
fn pod_keeps_affinity_by_the_clients_address() {
    let world = World::new(&[endpoint("node1", 1, READY)]);
    let mut web = to_pods();
    web.affinity = SessionAffinity::ClientIp(Duration::from_hours(3));
    let plan = world.plan(&[&web]);
    assert!(matches!(
        plan.services[0].forwarding,
        Forwarding::Pod {
            by_address: true,
            ..
        }
    ));
}

#[test]
fn what_pod_cannot_do_is_left_to_dsr_and_the_reason_is_said() {
    let dsr_because = |world: &World| {
        let plan = world.plan(&[&to_pods()]);
        assert_eq!(plan.state, Some(ForwardingState::Dsr));
        assert_eq!(
            plan.targets,
            Some(u32::try_from(weights(&plan).len()).unwrap())
        );
        plan.reasons.join(" / ")
    };
    let mut outside = endpoint("node1", 2, READY);
    outside.node = None;
    let world = World::new(&[endpoint("node1", 1, READY), outside.clone()]);
    let expected =
        "pod reaches only pods on nodes of the cluster, which 10.244.0.2 is not: dsr is used";
    assert_eq!(dsr_because(&world), expected);
    outside.node = Some("elsewhere".into());
    assert_eq!(dsr_because(&World::new(&[outside.clone()])), expected);
    // One that takes nothing does not matter.
    outside.ready = false;
    outside.serving = false;
    let world = World::new(&[endpoint("node1", 1, READY), outside]);
    assert_eq!(world.plan(&[&to_pods()]).state, Some(ForwardingState::Pod));

    let mut world = World::new(&[endpoint("node2", 1, READY)]);
    world.nodes.get_mut("node2").unwrap().excluded = true;
    let expected = "pod reaches no endpoint: none is on a node that takes traffic and has a speaker on the \
                    segment: dsr is used";
    assert_eq!(dsr_because(&world), expected);
    let mut world = World::new(&[endpoint("node2", 1, READY)]);
    world.near = vec!["node1", "node3"];
    assert!(dsr_because(&world).starts_with(expected));
}

#[test]
fn port_that_pod_cannot_translate_is_left_to_dsr_alone() {
    let world = World::new(&[endpoint("node1", 1, READY)]);
    let mut web = to_pods();
    web.ports.push(port(Protocol::Sctp, 132, None));
    let plan = world.plan(&[&web]);
    assert_eq!(plan.state, Some(ForwardingState::Pod));
    assert_eq!(
        plan.reasons,
        ["port 132/SCTP is forwarded by dsr, as pod cannot translate it"]
    );
    assert!(matches!(
        plan.services[1].forwarding,
        Forwarding::Dsr { .. }
    ));
}

#[test]
fn pods_of_nodes_that_no_frame_reaches_get_no_traffic_and_that_is_said() {
    let mut world = World::new(&[
        endpoint("node1", 1, READY),
        endpoint("node2", 2, READY),
        endpoint("node3", 3, READY),
    ]);
    world.near = vec!["node1", "node3"];
    world.dead.insert("node3".into());
    let plan = world.plan(&[&to_pods()]);
    assert_eq!(weights(&plan), pairs(&[("node1", 1)]));
    assert_eq!(
        plan.reasons,
        ["without a speaker on the segment, hence get no traffic: node2"]
    );
}

#[test]
fn without_endpoints_a_service_stays_in_pod() {
    let plan = World::new(&[]).plan(&[&to_pods()]);
    assert_eq!(
        (plan.state, plan.targets),
        (Some(ForwardingState::Pod), Some(0))
    );
    assert!(!plan.has_endpoints);
    assert_eq!(plan.reasons, [""; 0]);
}

#[test]
fn own_pods_go_on_when_our_node_takes_no_new_connections() {
    let mut world = World::new(&[endpoint("node1", 1, READY), endpoint("node2", 2, READY)]);
    world.nodes.get_mut("node1").unwrap().excluded = true;
    let plan = world.plan(&[&to_pods()]);
    assert_eq!(own(&plan, 0), [("10.244.0.1:8080".to_owned(), false)]);
    assert_eq!(weights(&plan), pairs(&[("node1", 0), ("node2", 1)]));
}

#[test]
fn node_that_takes_no_new_connections_of_pod_keeps_those_it_has_unless_it_is_dead() {
    let mut world = World::new(&[endpoint("node1", 1, READY), endpoint("node2", 2, READY)]);
    world.nodes.get_mut("node2").unwrap().ready = false;
    let plan = world.plan(&[&to_pods()]);
    assert_eq!(weights(&plan), pairs(&[("node1", 1), ("node2", 0)]));
    world.dead.insert("node2".into());
    let plan = world.plan(&[&to_pods()]);
    assert_eq!(weights(&plan), pairs(&[("node1", 1)]));
}
