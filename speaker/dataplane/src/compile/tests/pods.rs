//! What mode `pod` adds: our own pods, and who had a slot before.

use super::*;
use crate::layout::{NOBODY_BEFORE, decode_block};

/// Our own pods, and whether each takes new flows.
pub(super) fn own(pods: &[(u8, bool)]) -> Arc<[DesiredPod]> {
    let pods = pods.iter().map(|&(number, takes_new)| DesiredPod {
        address: pod(number),
        takes_new,
    });
    pods.collect()
}

fn pod(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 244, 1, number], 8_080))
}

fn to_pods(name: &str, port: u16, weights: &[(u8, u32)], pods: &[(u8, bool)]) -> DesiredService {
    DesiredService {
        forwarding: Forwarding::Pod {
            targets: targets(Spread::Local, weights),
            by_address: false,
            pods: own(pods),
        },
        ..service(name, port, targets(Spread::Local, &[]))
    }
}

const VIP: &str = "192.0.2.100";

fn wish(services: &[DesiredService]) -> Desired {
    desired(3, &[(VIP, services.to_vec())])
}

/// The slots of a table, and those of before.
fn slots(contents: &MapContents, table: TableRef) -> (Vec<u16>, Vec<u16>) {
    let slots: Vec<u16> = table
        .block_numbers()
        .map(|block| {
            contents
                .get(MapName::Blocks, &encode_number(block))
                .unwrap()
        })
        .flat_map(decode_block)
        .collect();
    let (now, before) = slots.split_at(table.slots as usize);
    (now.to_vec(), before.to_vec())
}

fn number(contents: &MapContents, pod: SocketAddr, service: u32) -> Option<u32> {
    contents
        .entries(MapName::Pods)
        .find(|(_, value)| {
            let entry = PodEntry::decode(value).unwrap();
            (entry.address, entry.service) == (pod, service)
        })
        .and_then(|(key, _)| decode_number(key))
}

#[test]
fn own_pods_share_the_slots_of_their_table_and_one_that_drains_has_none() {
    let wish = wish(&[to_pods(
        "a",
        80,
        &[(1, 2), (2, 1)],
        &[(5, true), (6, true), (7, false)],
    )]);
    let compiled = compile(&MapContents::default(), &wish);
    assert_eq!(compiled.refused, []);
    let contents = &compiled.contents;
    let id = compiled.service_ids[&ServiceKey::new("default", "a")];
    let route = entry(contents, VIP, 80).route.unwrap();
    let (own, none) = slots(contents, route.pods.unwrap());
    assert_eq!((own.len(), none.len()), (256, 0));
    let numbers = [5, 6].map(|last| number(contents, pod(last), id).unwrap());
    let share = |number: u32| {
        own.iter()
            .filter(|slot| u32::from(**slot) == number)
            .count()
    };
    assert_eq!(share(numbers[0]) + share(numbers[1]), 256);
    assert!(numbers.iter().all(|&number| share(number) > 90));
    let draining = number(contents, pod(7), id).unwrap();
    assert_eq!(share(draining), 0);
    let (now, before) = slots(contents, route.table);
    assert_eq!((now.len(), before.len()), (1_024, 1_024));
    // Ours is twice the other's, which would have it without us.
    let ours = now.iter().filter(|slot| **slot == 1).count();
    assert!((620..740).contains(&ours), "{ours}");
    for (now, before) in now.into_iter().zip(before) {
        assert_eq!(before, if now == 1 { 2 } else { NOBODY_BEFORE });
    }
}

#[test]
fn pod_keeps_its_number_and_nobody_inherits_it_at_once() {
    let of = |pods: &[(u8, bool)]| wish(&[to_pods("a", 80, &[(1, 1)], pods)]);
    let first = compile(&MapContents::default(), &of(&[(5, true), (6, true)])).contents;
    let second = compile(&first, &of(&[(4, true), (6, true)])).contents;
    assert_eq!(number(&second, pod(6), 1), number(&first, pod(6), 1));
    assert_eq!(number(&second, pod(5), 1), None);
    let new = number(&second, pod(4), 1).unwrap();
    assert_ne!(Some(new), number(&first, pod(5), 1));
    assert_ne!(Some(new), number(&first, pod(6), 1));
}

#[test]
fn a_pod_of_two_services_is_two() {
    let services = [
        to_pods("a", 80, &[(1, 1)], &[(5, true)]),
        to_pods("a", 81, &[(1, 1)], &[(5, true)]),
        to_pods("b", 82, &[(1, 1)], &[(5, false)]),
    ];
    let compiled = compile(&MapContents::default(), &wish(&services));
    let pods: Vec<PodEntry> = compiled
        .contents
        .entries(MapName::Pods)
        .map(|(_, value)| PodEntry::decode(value).unwrap())
        .collect();
    let expected = [(1, true), (2, false)].map(|(service, takes_new)| PodEntry {
        address: pod(5),
        service,
        takes_new,
    });
    assert_eq!(pods, expected);
    let contents = &compiled.contents;
    let pods = |port| entry(contents, VIP, port).route.unwrap().pods;
    assert_eq!(pods(80), pods(81));
    assert_eq!(pods(82), None);
    let filters = contents.get(MapName::Filters, &encode_number(0)).unwrap();
    let set = filters.iter().map(|byte| byte.count_ones()).sum::<u32>();
    let mut without = wish(&[]);
    without
        .vips
        .insert(VIP.parse().unwrap(), DesiredVip::default());
    let without = compile(&MapContents::default(), &without).contents;
    let filters = without.get(MapName::Filters, &encode_number(0)).unwrap();
    let others = filters.iter().map(|byte| byte.count_ones()).sum::<u32>();
    assert_eq!(set, others + 1);
}

#[test]
fn slot_knows_who_had_it_for_as_long_as_that_node_has_pods() {
    let of = |weights: &[(u8, u32)]| wish(&[to_pods("a", 80, weights, &[(5, true)])]);
    let alone = compile(&MapContents::default(), &of(&[(1, 1)])).contents;
    let mut contents = compile(&alone, &of(&[(1, 1), (2, 1)])).contents;
    let table = entry(&contents, VIP, 80).route.unwrap().table;
    let (first, _) = slots(&contents, table);
    // Node 2 drains: its slots come to node 1.
    contents = compile(&contents, &of(&[(1, 1), (2, 0)])).contents;
    let route = entry(&contents, VIP, 80).route.unwrap();
    assert_eq!(route.table, table);
    let (now, before) = slots(&contents, table);
    assert!(now.iter().all(|slot| *slot == 1));
    let had = |number: u16| if number == 2 { 2 } else { NOBODY_BEFORE };
    let expected: Vec<u16> = first.iter().map(|slot| had(*slot)).collect();
    assert_eq!(before, expected);
    // Node 3 comes and takes some: they were node 1's last.
    contents = compile(&contents, &of(&[(1, 1), (2, 0), (3, 1)])).contents;
    let (now, last) = slots(&contents, table);
    for ((now, last), before) in now.into_iter().zip(last).zip(&before) {
        let expected = if now == 3 { 1 } else { *before };
        assert_eq!(last, expected);
    }
    // It has no pods any more, or is dead.
    contents = compile(&contents, &of(&[(1, 1), (3, 1)])).contents;
    let (_, before) = slots(&contents, table);
    assert!(!before.contains(&2));
    assert!(before.contains(&1));
}

#[test]
fn service_without_a_pod_that_takes_new_flows_is_off() {
    let wish = wish(&[to_pods("a", 80, &[(1, 0)], &[(5, false)])]);
    let compiled = compile(&MapContents::default(), &wish);
    assert_eq!(entry(&compiled.contents, VIP, 80).route, None);
    assert_eq!(compiled.refused, []);
}

#[test]
fn sctp_cannot_be_translated_to_a_pod() {
    let mut sctp = to_pods("a", 80, &[(1, 1)], &[(5, true)]);
    sctp.protocol = Protocol::Sctp;
    let compiled = compile(&MapContents::default(), &wish(&[sctp]));
    let expected = Refused::Protocol {
        service: ServiceKey::new("default", "a"),
        protocol: Protocol::Sctp,
    };
    assert_eq!(compiled.refused, [expected]);
}

#[test]
fn five_thousand_services_find_room_for_the_tables_of_mode_pod() {
    let weights = [(1, 1), (2, 1), (3, 1)];
    let services: Vec<DesiredService> = (1..=5_400)
        .map(|port| to_pods(&format!("s{port}"), port, &weights, &[(5, true)]))
        .collect();
    let compiled = compile(&MapContents::default(), &wish(&services));
    assert_eq!(compiled.refused, []);
    // Twice 1,024 slots for the nodes, and 256 for the pods.
    assert_eq!(
        compiled.contents.entries(MapName::Blocks).count(),
        5_400 * 9
    );
    assert_eq!(compiled.contents.entries(MapName::Pods).count(), 5_400);
}

#[test]
fn a_port_is_in_mode_pod_since_it_is_so_without_a_break_and_in_new_maps_for_ever() {
    let since = |contents: &MapContents| {
        let route = entry(contents, VIP, 80).route?;
        route.direct?.to_pods_since.map(Instant::as_nanos)
    };
    let at = |observed: &MapContents, weight: u32, nanos: u64| {
        let wish = wish(&[to_pods("a", 80, &[(1, weight)], &[(5, true)])]);
        super::super::compile(observed, &wish, Instant::from_nanos(nanos)).contents
    };
    let first = at(&MapContents::default(), 1, 7);
    assert_eq!(since(&first), Some(0));
    let same = at(&first, 2, 8);
    assert_eq!(since(&same), Some(0));
    let without = at(&first, 0, 9);
    assert_eq!(since(&without), None);
    let again = at(&without, 1, 10);
    assert_eq!(since(&again), Some(10));
    assert_eq!(since(&at(&again, 2, 11)), Some(10));
}
