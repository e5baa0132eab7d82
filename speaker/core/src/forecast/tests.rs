use herald_model::{
    ConflictPolicy, Endpoint, ForwardingMode, InterfaceName, IpFamilyPolicy, MacAddress, Protocol,
    Request, Scope, ServicePort, ServiceRef, SessionAffinity, SpeakerSegment, VipSegment,
};

use super::*;
use crate::input::SpeakerReport;

const LAN: &str = "192.0.2.0/24";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn name(number: u8) -> NodeName {
    format!("node{number}").into()
}

fn node(number: u8) -> Node {
    Node {
        name: name(number),
        labels: BTreeMap::new(),
        addresses: vec![IpAddr::from([192, 0, 2, number])],
        pod_ranges: Vec::new(),
        ready: true,
        network_unavailable: false,
        excluded: false,
        out_of_service: false,
        departure: None,
    }
}

fn speaker(number: u8, incarnation: u64) -> ObservedSpeaker {
    ObservedSpeaker {
        node: name(number),
        resource_version: "1".into(),
        retire: false,
        crash: None,
        report: SpeakerReport {
            segments: vec![SpeakerSegment {
                name: LAN.into(),
                interface: InterfaceName::from("eth0"),
                mac: MacAddress([2, 0, 0, 0, 0, number]),
                prefixes: vec![format!("192.0.2.{number}/24").parse().unwrap()],
                gateways: Vec::new(),
                carrier: true,
                incarnation: Incarnation(incarnation),
            }],
            ..SpeakerReport::default()
        },
    }
}

fn web(policy: TrafficPolicy) -> Service {
    Service {
        key: ServiceKey::new("shop", "web"),
        uid: "u1".into(),
        created: 0,
        labels: BTreeMap::new(),
        families: vec![Family::V4],
        ip_family_policy: IpFamilyPolicy::SingleStack,
        request: Request::default(),
        sharing_key: None,
        scope: Scope::External,
        ports: vec![ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(30_080),
        }],
        traffic_policy: policy,
        health_check_node_port: None,
        affinity: SessionAffinity::None,
        source_ranges: Vec::new(),
        publish_not_ready: false,
        selector: BTreeMap::new(),
        forwarding: ForwardingMode::Auto,
        ingress: vec![ip("192.0.2.50")],
        allocated_from: None,
        deleting: false,
    }
}

/// Three nodes with a pod each.
fn facts(policy: TrafficPolicy) -> Facts {
    let pod = |number: u8| Endpoint {
        address: IpAddr::from([10, 0, 0, number]),
        node: Some(name(number)),
        ready: true,
        serving: true,
        terminating: false,
        ports: Arc::new([]),
    };
    let service = web(policy);
    let endpoints = ServiceEndpoints {
        service: service.key.clone(),
        endpoints: [1, 2, 3].map(pod).to_vec(),
    };
    Facts {
        nodes: [1, 2, 3].map(|number| (name(number), node(number))).into(),
        speakers: [1, 2, 3]
            .map(|number| (name(number), speaker(number, 1)))
            .into(),
        silent: BTreeSet::new(),
        dead: BTreeSet::new(),
        endpoints: [(service.key.clone(), endpoints)].into(),
        services: [(service.key.clone(), service)].into(),
    }
}

/// Planned on node 1, then 2, then 3.
fn vip(epoch: u64) -> VirtualIp {
    let candidate = |number: u8| Candidate {
        node: name(number),
        incarnation: Incarnation(1),
    };
    VirtualIp {
        address: ip("192.0.2.50"),
        pool: "public".into(),
        epoch: Epoch(epoch),
        phase: Phase::Active,
        announce: Announce::All,
        conflict_policy: ConflictPolicy::Defend,
        advertisements: Vec::new(),
        services: vec![ServiceRef {
            key: ServiceKey::new("shop", "web"),
            uid: "u1".into(),
        }],
        segments: vec![VipSegment {
            name: LAN.into(),
            candidates: [1, 2, 3].map(candidate).to_vec(),
        }],
    }
}

fn without(number: u8) -> Facts {
    let mut facts = facts(TrafficPolicy::Cluster);
    facts.silent.insert(name(number));
    facts.dead.insert(name(number));
    facts
}

#[test]
fn a_living_holder_keeps_the_address_until_the_plan_is_newer() {
    let forecast = Forecast::new(facts(TrafficPolicy::Cluster));
    let (second, lan) = (name(2), SegmentName::from(LAN));
    let holder = |epoch, held| forecast.holder(&vip(epoch), &lan, held);
    assert_eq!(holder(4, None), Some(name(1)));
    assert_eq!(holder(4, Some((&second, Epoch(4)))), Some(name(2)));
    assert_eq!(holder(5, Some((&second, Epoch(4)))), Some(name(1)));
}

#[test]
fn the_next_candidate_takes_over_from_a_dead_holder_and_nothing_else_moves() {
    let forecast = Forecast::new(without(1));
    let (first, third, lan) = (name(1), name(3), SegmentName::from(LAN));
    let holder = |held| forecast.holder(&vip(4), &lan, Some((held, Epoch(4))));
    assert_eq!(holder(&first), Some(name(2)));
    assert_eq!(holder(&third), Some(name(3)));
}

#[test]
fn a_candidate_in_another_life_comes_after_those_in_the_planned_one() {
    let mut facts = facts(TrafficPolicy::Cluster);
    facts.speakers.insert(name(1), speaker(1, 2));
    let forecast = Forecast::new(facts);
    let elected = forecast.elected(&vip(4), &LAN.into()).unwrap();
    assert_eq!(elected.node, name(2));
}

#[test]
fn nobody_holds_what_is_not_to_be_announced() {
    let forecast = Forecast::new(facts(TrafficPolicy::Cluster));
    let (first, lan) = (name(1), SegmentName::from(LAN));
    let held = Some((&first, Epoch(4)));
    let nobody = VirtualIp {
        announce: Announce::None,
        ..vip(4)
    };
    assert_eq!(forecast.holder(&nobody, &lan, held), None);
    let probing = VirtualIp {
        phase: Phase::Probing,
        ..vip(4)
    };
    assert_eq!(forecast.holder(&probing, &lan, held), None);
    let mut others = vip(4);
    others.services.clear();
    assert_eq!(forecast.holder(&others, &lan, held), None);
}

#[test]
fn a_dead_node_gives_up_its_own_slots_and_moves_no_other() {
    for policy in [TrafficPolicy::Cluster, TrafficPolicy::Local] {
        let before = Forecast::new(facts(policy));
        let mut dead = facts(policy);
        dead.dead.insert(name(3));
        let after = Forecast::new(dead);
        let table = |forecast: &Forecast| {
            let forwarded = forecast.forwarding(&vip(4), &name(1));
            let port = forwarded.ports.first().unwrap();
            forecast.slots(ip("192.0.2.50"), &port.forwarding).unwrap()
        };
        let (now, followed) = (table(&before), table(&after));
        let share = now.share(&name(3));
        assert!((0.25..0.42).contains(&share), "{share}");
        assert!((followed.moved(&now) - share).abs() < f64::EPSILON);
        assert_eq!(
            followed.by_node().keys().collect::<Vec<_>>(),
            [&&name(1), &&name(2)]
        );
        assert_eq!(followed.owners.len(), now.owners.len());
    }
}

#[test]
fn what_kube_proxy_takes_has_no_table_and_endpoints_are_counted_by_node() {
    let mut facts = facts(TrafficPolicy::Cluster);
    let service = facts.services.values_mut().next().unwrap();
    service.forwarding = ForwardingMode::Off;
    let service = service.clone();
    let forecast = Forecast::new(facts);
    let forwarded = forecast.forwarding(&vip(4), &name(1));
    assert_eq!(forwarded.state, Some(ForwardingState::Off));
    let port = forwarded.ports.first().unwrap();
    assert_eq!(forecast.slots(ip("192.0.2.50"), &port.forwarding), None);
    let endpoints = forecast.endpoints(ip("192.0.2.50"), &service);
    assert_eq!(endpoints, [1, 2, 3].map(|number| (name(number), 1)).into());
}
