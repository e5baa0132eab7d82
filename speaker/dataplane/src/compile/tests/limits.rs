//! What the maps have no room for, and that it stops nobody else.

use super::*;
use crate::{PORTS, RANGES, SERVICE_RANGES, VIPS};

const VIP: &str = "192.0.2.100";

fn key(name: &str) -> ServiceKey {
    ServiceKey::new("default", name)
}

/// A Service with so many source ranges, of its own.
fn ranged(number: u8, ranges: usize) -> DesiredService {
    let weights = targets(Spread::Cluster, &[(1, 1), (2, 1)]);
    let mut service = service(&format!("s{number}"), u16::from(number), weights);
    service.source_ranges = (0..ranges)
        .map(|range| {
            let [_, second, third, fourth] = u32::try_from(range).unwrap().to_be_bytes();
            let address = Ipv4Addr::new(number, second, third, fourth);
            IpNet::new(address.into(), 32).unwrap()
        })
        .collect();
    service
}

fn is_off(contents: &MapContents, number: u8) -> bool {
    entry(contents, VIP, number.into()).route.is_none()
}

fn wish(services: &[DesiredService]) -> Desired {
    desired(2, &[(VIP, services.to_vec())])
}

/// As many Services as fill the map, but for `left` ranges.
fn full_but_for(left: usize) -> Vec<DesiredService> {
    let all = usize::try_from(RANGES).unwrap();
    assert_eq!(all % SERVICE_RANGES, 0);
    let count = u8::try_from(all / SERVICE_RANGES).unwrap();
    let mut services: Vec<DesiredService> = (1..count)
        .map(|number| ranged(number, SERVICE_RANGES))
        .collect();
    services.push(ranged(count, SERVICE_RANGES - left));
    services
}

#[test]
fn a_service_with_more_ranges_than_one_may_have_is_kube_proxys_and_others_are_not() {
    let services = [ranged(1, SERVICE_RANGES + 1), ranged(2, SERVICE_RANGES)];
    let compiled = compile(&MapContents::default(), &wish(&services));
    let refused = Refused::TooManyRanges {
        service: key("s1"),
        ranges: 16_385,
    };
    assert_eq!(compiled.refused, [refused]);
    assert!(is_off(&compiled.contents, 1));
    assert!(!is_off(&compiled.contents, 2));
    let ranges = compiled.contents.entries(MapName::Ranges);
    assert_eq!(ranges.count(), SERVICE_RANGES);
}

#[test]
fn of_services_that_come_together_the_largest_is_refused_and_who_has_room_keeps_it() {
    let mut services = full_but_for(10);
    services.extend([ranged(100, 11), ranged(101, 10)]);
    let compiled = compile(&MapContents::default(), &wish(&services));
    let count = u8::try_from(services.len()).unwrap() - 2;
    // The least first: of those with as many, the last by name has no room.
    let off: Vec<u8> = (1..=count)
        .filter(|&n| is_off(&compiled.contents, n))
        .collect();
    assert_eq!(off, [9]);
    assert_eq!(
        compiled.refused,
        [Refused::NoRoomForRanges {
            service: key("s9"),
            ranges: SERVICE_RANGES,
        }]
    );

    let full = compile(&MapContents::default(), &wish(&full_but_for(10)));
    assert_eq!(full.refused, []);
    let more = compile(&full.contents, &wish(&services));
    assert_eq!(
        more.refused,
        [Refused::NoRoomForRanges {
            service: key("s100"),
            ranges: 11,
        }]
    );
    assert!(is_off(&more.contents, 100));
    assert!(!is_off(&more.contents, 101));
    let ranges = more.contents.entries(MapName::Ranges);
    assert_eq!(ranges.count(), usize::try_from(RANGES).unwrap());
}

#[test]
fn what_leaves_makes_room_once_it_is_gone() {
    let before = compile(&MapContents::default(), &wish(&full_but_for(0)));
    let mut services = full_but_for(0);
    services[0] = ranged(100, SERVICE_RANGES);
    let wish = wish(&services);
    let first = compile(&before.contents, &wish);
    assert_eq!(first.refused.len(), 1);
    assert!(is_off(&first.contents, 100));
    // Every write finds room.
    let mut contents = before.contents;
    for op in diff(&contents, &first.contents) {
        contents.apply(&[op]);
        assert!(contents.count(MapName::Ranges) <= usize::try_from(RANGES).unwrap());
    }
    let second = compile(&first.contents, &wish);
    assert_eq!(second.refused, []);
    assert!(!is_off(&second.contents, 100));
}

#[test]
fn an_address_whose_ports_have_no_room_is_left_to_kube_proxy_as_a_whole() {
    let weights = targets(Spread::Cluster, &[(1, 1), (2, 1)]);
    let full = |name: &str, ports: u16| -> Vec<DesiredService> {
        (1..=ports)
            .map(|port| {
                let mut service = service(name, port, Arc::clone(&weights));
                // Each port has two entries.
                if let Forwarding::NodePort { node_port, .. } = &mut service.forwarding {
                    *node_port = port;
                }
                service
            })
            .collect()
    };
    let half = u16::try_from(PORTS / 4).unwrap();
    let listed = [
        ("192.0.2.101", full("b", half)),
        ("192.0.2.102", full("c", half)),
    ];
    let before = compile(&MapContents::default(), &desired(2, &listed));
    assert_eq!(before.refused, []);
    let [b, c] = listed;
    let more = desired(2, &[("192.0.2.100", full("a", 1)), b, c]);
    let after = compile(&before.contents, &more);
    assert_eq!(
        after.refused,
        [Refused::NoRoomForPorts {
            service: key("a"),
            address: "192.0.2.100".parse().unwrap(),
        }]
    );
    assert_eq!(after.contents, before.contents);
    // Alone it has room.
    let alone = desired(2, &[("192.0.2.100", full("a", 1))]);
    assert_eq!(compile(&MapContents::default(), &alone).refused, []);
}

#[test]
fn an_address_without_room_on_the_interfaces_is_left_to_kube_proxy() {
    let mut wish = desired(2, &[]);
    let many = VIPS / 2;
    wish.interfaces = (2..4).map(|index| (IfIndex(index), mac(1))).collect();
    let vip = |number: u32| IpAddr::from(Ipv4Addr::from(0x0a00_0000 + number));
    let weights = targets(Spread::Cluster, &[(1, 1)]);
    let of = DesiredVip {
        holders: BTreeMap::new(),
        services: vec![service("a", 80, weights)],
    };
    wish.vips = (1..=many).map(|number| (vip(number), of.clone())).collect();
    let before = compile(&MapContents::default(), &wish);
    assert_eq!(before.refused, []);
    wish.vips.insert(vip(0), of);
    let after = compile(&before.contents, &wish);
    assert_eq!(
        after.refused,
        [Refused::NoRoomForPorts {
            service: key("a"),
            address: vip(0),
        }]
    );
}

#[test]
fn words_name_the_limit_and_what_is_over_it() {
    let service = || key("a");
    let said = [
        Refused::TooManyRanges {
            service: service(),
            ranges: 16_385,
        },
        Refused::NoRoomForRanges {
            service: service(),
            ranges: 12,
        },
        Refused::NoRoomForTable { service: service() },
        Refused::TooManyPods {
            service: service(),
            pods: 3,
        },
        Refused::TooManyNodes { node: node(9) },
    ]
    .map(|refused| refused.to_string());
    assert_eq!(
        said,
        [
            "it has 16385 source ranges, and one Service may have 16384",
            "there is no room for its 12 source ranges: all Services together may have 262144",
            "there is no room for its target table: all tables together have 12582912 slots",
            "3 of its pods on this node get nothing: all Services together may have 65535 there",
            "node n9 is no target: a cluster may have 8191 nodes",
        ]
    );
}
