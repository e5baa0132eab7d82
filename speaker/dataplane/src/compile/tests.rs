use herald_model::{IfIndex, MacAddress, Protocol};
use ipnet::IpNet;
use proptest::prelude::*;

use super::*;
use crate::LOCAL_SLOTS;
use crate::layout::TableRef;
use crate::{CLUSTER_SLOTS, DesiredNode, DesiredVip, MapOp, Spread, Targets, diff, slot};

mod laws;
mod limits;
mod pods;

const ETH0: IfIndex = IfIndex(2);

/// At a time that matters only to what is in mode `pod`.
fn compile(observed: &MapContents, desired: &Desired) -> Compiled {
    super::compile(observed, desired, Instant::from_nanos(7))
}

fn node(number: u8) -> NodeName {
    NodeName::from(format!("n{number}"))
}

fn address(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

fn mac(number: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, number])
}

fn targets(spread: Spread, weights: &[(u8, u32)]) -> Arc<Targets> {
    Arc::new(Targets {
        spread,
        weights: weights
            .iter()
            .map(|&(number, weight)| (node(number), weight))
            .collect(),
    })
}

fn service(name: &str, port: u16, targets: Arc<Targets>) -> DesiredService {
    DesiredService {
        service: ServiceKey::new("default", name),
        protocol: Protocol::Tcp,
        port,
        forwarding: Forwarding::NodePort {
            node_port: 30_000 + port,
            targets,
        },
        source_ranges: Arc::from([]),
    }
}

fn desired(nodes: u8, vips: &[(&str, Vec<DesiredService>)]) -> Desired {
    let nodes = (1..=nodes).map(|number| {
        let wish = DesiredNode {
            ipv4: Some(address(number)),
            ipv6: Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into())),
            is_self: number == 1,
            interface: None,
            macs: BTreeSet::from([mac(number)]),
            links: BTreeMap::from([(ETH0, mac(number))]),
        };
        (node(number), wish)
    });
    let vips = vips.iter().map(|(vip, services)| {
        let wish = DesiredVip {
            holders: BTreeMap::from([(ETH0, Holder::Me)]),
            services: services.clone(),
        };
        (vip.parse().unwrap(), wish)
    });
    Desired {
        seed: 42,
        ignores_echo: false,
        interfaces: BTreeMap::from([(ETH0, mac(1))]),
        nodes: nodes.collect(),
        vips: vips.collect(),
    }
}

fn entry(contents: &MapContents, vip: &str, port: u16) -> ServiceEntry {
    let key = PortKey {
        address: vip.parse().unwrap(),
        protocol: Protocol::Tcp,
        port,
    };
    ServiceEntry::decode(contents.get(MapName::Services, &key.encode()).unwrap()).unwrap()
}

fn table(contents: &MapContents, vip: &str, port: u16) -> TableRef {
    entry(contents, vip, port).route.unwrap().table
}

fn generation(contents: &MapContents, vip: &str) -> u32 {
    let key = VipKey {
        address: vip.parse().unwrap(),
        interface: ETH0,
    };
    Vip::decode(contents.get(MapName::Vips, &key.encode()).unwrap())
        .unwrap()
        .generation
}

/// The maps that a write touches.
fn maps(ops: &[MapOp]) -> BTreeSet<MapName> {
    ops.iter()
        .map(|op| match op {
            MapOp::Put { map, .. } | MapOp::Delete { map, .. } => *map,
        })
        .collect()
}

#[test]
fn cluster_services_with_equal_targets_share_one_table() {
    let everyone = [(1, 1), (2, 1), (3, 1)];
    let wish = desired(
        3,
        &[
            (
                "192.0.2.100",
                vec![service("a", 80, targets(Spread::Cluster, &everyone))],
            ),
            (
                "192.0.2.101",
                vec![service("b", 80, targets(Spread::Cluster, &everyone))],
            ),
            (
                "2001:db8::100",
                vec![service("a", 80, targets(Spread::Cluster, &everyone))],
            ),
        ],
    );
    let contents = compile(&MapContents::default(), &wish).contents;
    let shared = table(&contents, "192.0.2.100", 80);
    assert_eq!(
        shared,
        TableRef {
            first_block: 0,
            slots: CLUSTER_SLOTS,
            has_before: false,
        }
    );
    assert_eq!(table(&contents, "192.0.2.101", 80), shared);
    assert_eq!(table(&contents, "2001:db8::100", 80), shared);
    assert_eq!(contents.entries(MapName::Blocks).count(), 64);
}

#[test]
fn local_services_have_tables_of_their_own_that_are_the_same_whatever_was_before() {
    let vips = |weights: &[(u8, u32)]| {
        let services = ["a", "b"].map(|name| {
            let port = if name == "a" { 80 } else { 81 };
            service(name, port, targets(Spread::Local, weights))
        });
        desired(4, &[("192.0.2.100", services.to_vec())])
    };
    let first = compile(&MapContents::default(), &vips(&[(1, 3)])).contents;
    let place = |first_block| TableRef {
        first_block,
        slots: LOCAL_SLOTS,
        has_before: false,
    };
    assert_eq!(table(&first, "192.0.2.100", 80), place(0));
    assert_eq!(table(&first, "192.0.2.100", 81), place(4));

    let four = vips(&[(1, 3), (2, 1), (3, 1), (4, 1)]);
    let second = compile(&first, &four).contents;
    assert_eq!(
        maps(&diff(&first, &second)),
        BTreeSet::from([MapName::Blocks])
    );
    assert_eq!(second, compile(&MapContents::default(), &four).contents);
}

#[test]
fn change_of_targets_touches_no_service() {
    let wish = |weights: &[(u8, u32)]| {
        let shared = targets(Spread::Cluster, weights);
        let services = (1..=50).map(|port| service(&format!("s{port}"), port, Arc::clone(&shared)));
        desired(3, &[("192.0.2.100", services.collect())])
    };
    let before = compile(&MapContents::default(), &wish(&[(1, 1), (2, 1), (3, 1)])).contents;
    let after = compile(&before, &wish(&[(1, 1), (3, 1)])).contents;
    assert_eq!(
        maps(&diff(&before, &after)),
        BTreeSet::from([MapName::Blocks])
    );
}

#[test]
fn services_that_part_get_tables_apart_and_the_unchanged_one_keeps_its_own() {
    let all = targets(Spread::Cluster, &[(1, 1), (2, 1)]);
    let one = targets(Spread::Cluster, &[(2, 1)]);
    let wish = |first: &Arc<Targets>, second: &Arc<Targets>| {
        let services = vec![
            service("a", 80, Arc::clone(first)),
            service("b", 81, Arc::clone(second)),
        ];
        desired(2, &[("192.0.2.100", services)])
    };
    let together = compile(&MapContents::default(), &wish(&all, &all)).contents;
    let apart = compile(&together, &wish(&one, &all)).contents;
    assert_eq!(
        table(&apart, "192.0.2.100", 81),
        table(&together, "192.0.2.100", 81)
    );
    assert_eq!(table(&apart, "192.0.2.100", 80).first_block, 64);

    let again = compile(&apart, &wish(&one, &one)).contents;
    assert_eq!(
        table(&again, "192.0.2.100", 80),
        table(&again, "192.0.2.100", 81)
    );
    assert_eq!(again.entries(MapName::Blocks).count(), 64);
}

#[test]
fn service_that_goes_another_way_to_other_targets_gets_another_table() {
    let wish = |node_port, of: &[(u8, u32)]| {
        let mut one = service("a", 80, targets(Spread::Cluster, of));
        if let Forwarding::NodePort {
            node_port: port, ..
        } = &mut one.forwarding
        {
            *port = node_port;
        }
        desired(2, &[("192.0.2.100", vec![one])])
    };
    let before = compile(&MapContents::default(), &wish(30_080, &[(1, 1)])).contents;
    let first = table(&before, "192.0.2.100", 80);
    let way = compile(&before, &wish(30_081, &[(1, 1)])).contents;
    assert_eq!(table(&way, "192.0.2.100", 80), first);
    let targets = compile(&before, &wish(30_080, &[(2, 1)])).contents;
    assert_eq!(table(&targets, "192.0.2.100", 80), first);
    let both = compile(&before, &wish(30_081, &[(2, 1)])).contents;
    assert_ne!(table(&both, "192.0.2.100", 80), first);
}

#[test]
fn port_that_goes_keeps_its_targets_to_the_end() {
    let both = targets(Spread::Cluster, &[(1, 1), (2, 1)]);
    let one = targets(Spread::Cluster, &[(2, 1)]);
    let a = service("a", 80, Arc::clone(&both));
    let b = |of| service("b", 81, of);
    let before = desired(2, &[("192.0.2.100", vec![a, b(both)])]);
    let before = compile(&MapContents::default(), &before).contents;
    let after = desired(2, &[("192.0.2.100", vec![b(one)])]);
    let after = compile(&before, &after).contents;
    assert_ne!(
        table(&after, "192.0.2.100", 81),
        table(&before, "192.0.2.100", 80)
    );
}

#[test]
fn node_with_a_new_address_gets_a_new_number() {
    let weights = targets(Spread::Cluster, &[(1, 1), (2, 1)]);
    let vips = [("192.0.2.100", vec![service("a", 80, weights)])];
    let before = compile(&MapContents::default(), &desired(2, &vips)).contents;
    let mut wish = desired(2, &vips);
    wish.nodes.get_mut(&node(2)).unwrap().ipv4 = Some(address(77));
    let after = compile(&before, &wish).contents;
    let number = |contents: &MapContents, of: Ipv4Addr| {
        contents
            .get(MapName::Addresses, &encode_address(of.into()))
            .and_then(decode_number)
    };
    assert_eq!(number(&after, address(1)), number(&before, address(1)));
    assert_eq!(number(&after, address(2)), None);
    assert_eq!(number(&after, address(77)), Some(3));
    assert_eq!(after.referenced(MapName::Nodes), BTreeSet::from([1, 3]));
}

#[test]
fn generation_rises_when_the_address_comes_and_stays_when_it_goes() {
    let mut wish = desired(2, &[("192.0.2.100", vec![])]);
    let vip: IpAddr = "192.0.2.100".parse().unwrap();
    let mut contents = MapContents::default();
    let mut seen = Vec::new();
    let peer = Holder::Peer {
        address: address(2).into(),
    };
    for holder in [
        peer,
        Holder::Me,
        Holder::Me,
        peer,
        Holder::Nobody,
        Holder::MeAfter {
            address: address(2).into(),
        },
        Holder::Me,
    ] {
        let of_vip = wish.vips.get_mut(&vip).unwrap();
        of_vip.holders = BTreeMap::from([(ETH0, holder)]);
        contents = compile(&contents, &wish).contents;
        seen.push(generation(&contents, "192.0.2.100"));
    }
    assert_eq!(seen, [0, 1, 1, 1, 1, 2, 2]);

    let without = Desired {
        vips: BTreeMap::new(),
        ..wish.clone()
    };
    contents = compile(&contents, &without).contents;
    contents = compile(&contents, &wish).contents;
    assert_eq!(
        generation(&contents, "192.0.2.100"),
        3,
        "an address that comes back is another"
    );
}

#[test]
fn service_keeps_its_number_and_nobody_inherits_it_at_once() {
    let weights = targets(Spread::Cluster, &[(1, 1)]);
    let a = service("a", 80, Arc::clone(&weights));
    let b = service("b", 81, Arc::clone(&weights));
    let c = service("c", 82, weights);
    let id =
        |compiled: &Compiled, name: &str| compiled.service_ids[&ServiceKey::new("default", name)];
    let first = compile(
        &MapContents::default(),
        &desired(1, &[("192.0.2.100", vec![a, b.clone()])]),
    );
    let second = compile(
        &first.contents,
        &desired(1, &[("192.0.2.100", vec![b.clone(), c.clone()])]),
    );
    assert_eq!((id(&first, "a"), id(&first, "b")), (1, 2));
    assert_eq!((id(&second, "b"), id(&second, "c")), (2, 3));
    let third = compile(
        &second.contents,
        &desired(1, &[("192.0.2.100", vec![b, c])]),
    );
    assert_eq!(third.contents, second.contents);
}

#[test]
fn wishes_that_cannot_be_fulfilled_are_told() {
    let weights = targets(Spread::Cluster, &[(1, 1)]);
    let mut sctp = service("sctp", 82, Arc::clone(&weights));
    sctp.protocol = Protocol::Sctp;
    let services = vec![
        service("a", 80, Arc::clone(&weights)),
        service("b", 80, weights),
        sctp,
    ];
    let compiled = compile(
        &MapContents::default(),
        &desired(1, &[("192.0.2.100", services)]),
    );
    assert_eq!(
        compiled.refused,
        [
            Refused::PortTaken {
                service: ServiceKey::new("default", "b"),
                address: "192.0.2.100".parse().unwrap(),
                protocol: Protocol::Tcp,
                port: 80,
            },
            Refused::Protocol {
                service: ServiceKey::new("default", "sctp"),
                protocol: Protocol::Sctp,
            },
        ]
    );
}

#[test]
fn service_without_usable_targets_is_off() {
    let cases: [&[(u8, u32)]; 3] = [&[], &[(1, 0)], &[(9, 1)]];
    for weights in cases {
        let services = vec![service("a", 80, targets(Spread::Local, weights))];
        let compiled = compile(
            &MapContents::default(),
            &desired(2, &[("192.0.2.100", services)]),
        );
        assert_eq!(entry(&compiled.contents, "192.0.2.100", 80).route, None);
        assert_eq!(compiled.refused, []);
    }
}

#[test]
fn ten_thousand_local_services_find_room_and_no_more_than_there_is() {
    // Three nodes have 1,024 slots, which are four blocks.
    let weights = targets(Spread::Local, &[(1, 1), (2, 1), (3, 1)]);
    let services = |count: u16| {
        let services =
            (1..=count).map(|port| service(&format!("s{port}"), port, Arc::clone(&weights)));
        vec![("192.0.2.100", services.collect())]
    };
    let many = compile(&MapContents::default(), &desired(3, &services(10_000)));
    assert_eq!(many.refused, []);
    assert_eq!(many.contents.entries(MapName::Blocks).count(), 40_000);
    let too_many = compile(&many.contents, &desired(3, &services(12_294)));
    assert_eq!(too_many.refused.len(), 6);
}
