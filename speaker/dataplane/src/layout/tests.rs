use std::collections::BTreeMap;

use super::*;
use crate::MapName;

fn hex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    (0..digits.len() / 2)
        .map(|byte| u8::from_str_radix(&digits[byte * 2..byte * 2 + 2], 16).unwrap())
        .collect()
}

const MAPPED: &str = "00000000 00000000 0000ffff c0000264";
const IPV6: &str = "20010db8 00000000 00000000 00000064";

#[test]
fn sizes_are_those_of_the_c_header() {
    let header = include_str!("../../../ebpf/maps.h");
    let sizes: BTreeMap<&str, usize> = header
        .lines()
        .filter_map(|line| line.strip_prefix("SIZE_IS(struct ")?.strip_suffix(");"))
        .map(|arguments| arguments.split_once(", ").unwrap())
        .map(|(name, bytes)| (name, bytes.parse().unwrap()))
        .collect();
    let structs = [
        (MapName::Config, None, Some("config")),
        (MapName::Filters, None, Some("filters")),
        (MapName::Nodes, None, Some("node")),
        (MapName::Addresses, Some("address"), None),
        (MapName::Macs, Some("mac_key"), None),
        (MapName::Pods, None, Some("pod")),
        (MapName::Blocks, None, Some("block")),
        (MapName::Ranges, Some("range_key"), None),
        (MapName::Stats, None, None),
        (MapName::Services, Some("service_key"), Some("service")),
        (MapName::Vips, Some("vip_key"), Some("vip")),
    ];
    assert_eq!(structs.map(|(map, ..)| map), MapName::ALL);
    for (map, key, value) in structs {
        let number = 4;
        let key = key.map_or(number, |name| sizes[name]);
        assert_eq!(map.key_bytes(), key, "key of {map}");
        if map != MapName::Stats {
            let value = value.map_or(number, |name| sizes[name]);
            assert_eq!(map.value_bytes(), value, "value of {map}");
        }
    }
    assert_eq!(sizes["stats"], crate::ServiceCounters::FIELDS * 8);
}

#[test]
fn capacities_are_those_of_the_c_header() {
    let header = include_str!("../../../ebpf/maps.h");
    let pods = PODS - 1;
    assert!(header.contains(&format!("MAP(pods, BPF_MAP_TYPE_HASH, {pods},")));
    for (map, entries) in [("blocks", BLOCKS), ("nodes", NODES)] {
        let start = format!("MAP({map}, BPF_MAP_TYPE_ARRAY, {entries},");
        assert!(header.contains(&start), "{start}");
    }
    let start = format!("MAP(stats, BPF_MAP_TYPE_PERCPU_ARRAY, {SERVICES},");
    assert!(header.contains(&start), "{start}");
    assert!(header.contains(&format!("#define LINKS {LINKS}\n")));
    assert!(header.contains(&format!("#define SLOTS_PER_BLOCK {SLOTS_PER_BLOCK}\n")));
}

#[test]
fn config_has_its_bytes() {
    let config = Config {
        hash_seed: 0x0403_0201,
        generation: 7,
        ignores_echo: false,
    };
    assert_eq!(config.encode(), hex("01020304 07000000 02000000"));
    assert_eq!(Config::decode(&config.encode()), Some(config));
    let config = Config {
        ignores_echo: true,
        ..config
    };
    assert_eq!(config.encode(), hex("01020304 07000000 03000000"));
    assert_eq!(Config::decode(&config.encode()), Some(config));
    assert_eq!(Config::decode(&[0; Config::BYTES]), None);
}

#[test]
fn vip_has_its_bytes() {
    let key = VipKey {
        address: "192.0.2.100".parse().unwrap(),
        interface: IfIndex(0x0102),
    };
    assert_eq!(key.encode(), hex(&format!("{MAPPED} 02010000")));
    let zeros = "00000000 00000000 00000000";
    let cases = [
        (
            Role::Nobody,
            format!("00000000 09000000 00000000 00000000 {zeros}"),
        ),
        (
            Role::Me,
            format!("01000000 09000000 00000000 00000000 {zeros}"),
        ),
        (
            Role::MeAfter("192.0.2.3".parse().unwrap()),
            format!("01000000 09000000 02000000 c0000203 {zeros}"),
        ),
        (
            Role::Peer("192.0.2.3".parse().unwrap()),
            format!("02000000 09000000 02000000 c0000203 {zeros}"),
        ),
        (
            Role::Peer("2001:db8::64".parse().unwrap()),
            format!("02000000 09000000 0a000000 {IPV6}"),
        ),
    ];
    for (role, bytes) in cases {
        let vip = Vip {
            role,
            generation: 9,
        };
        assert_eq!(vip.encode(), hex(&bytes), "{role:?}");
        assert_eq!(Vip::decode(&vip.encode()), Some(vip));
    }
}

#[test]
fn service_has_its_bytes() {
    let key = PortKey {
        address: "2001:db8::64".parse().unwrap(),
        protocol: Protocol::Udp,
        port: 0x0102,
    };
    assert_eq!(key.encode(), hex(&format!("{IPV6} 0102 11 00")));
    assert_eq!(PortKey::decode(&key.encode()), Some(key));
    let node_port = key.encode_node_port(0x7530);
    assert_eq!(node_port, hex(&format!("{IPV6} 7530 11 01")));
    assert_eq!(PortKey::decode(&node_port), None);

    let table = TableRef {
        first_block: 3,
        slots: 1_024,
        has_before: false,
    };
    let cases = [
        (
            ServiceEntry {
                id: 5,
                route: Some(Route {
                    table,
                    node_port: 0x7530,
                    direct: None,
                    pods: None,
                }),
                has_ranges: true,
            },
            "05000000 03000000 00040000 7530 01 01 00000000 00000000 0000000000000000",
        ),
        (
            ServiceEntry {
                id: 5,
                route: Some(Route {
                    table,
                    node_port: 0,
                    direct: Some(Direct {
                        by_address: true,
                        has_flows: false,
                        to_pods_since: None,
                    }),
                    pods: None,
                }),
                has_ranges: true,
            },
            "05000000 03000000 00040000 0000 02 03 00000000 00000000 0000000000000000",
        ),
        (
            ServiceEntry {
                id: 5,
                route: Some(Route {
                    table,
                    node_port: 0x7530,
                    direct: Some(Direct {
                        by_address: false,
                        has_flows: true,
                        to_pods_since: None,
                    }),
                    pods: None,
                }),
                has_ranges: false,
            },
            "05000000 03000000 00040000 7530 02 04 00000000 00000000 0000000000000000",
        ),
    ];
    for (entry, bytes) in cases {
        assert_eq!(entry.encode(), hex(bytes));
        assert_eq!(ServiceEntry::decode(&entry.encode()), Some(entry));
    }
    assert_eq!(table.block_numbers(), 3..7);
}

#[test]
fn node_has_its_bytes() {
    let node = NodeEntry {
        ipv4: Some("192.0.2.100".parse().unwrap()),
        ipv6: Some("2001:db8::64".parse().unwrap()),
        interface: Some(IfIndex(2)),
        is_self: true,
        links: vec![
            LinkEntry {
                interface: IfIndex(2),
                target: MacAddress([2, 0, 0, 0, 0, 9]),
                source: MacAddress([2, 0, 0, 0, 0, 1]),
            },
            LinkEntry {
                interface: IfIndex(3),
                target: MacAddress([2, 0, 0, 0, 1, 9]),
                source: MacAddress([2, 0, 0, 0, 1, 1]),
            },
        ],
    };
    let links = "02000000 020000000009 020000000001 03000000 020000000109 020000000101";
    let rest = "00000000 00000000 00000000 00000000".repeat(2);
    let bytes = hex(&format!("c0000264 {IPV6} 02000000 03000000 {links} {rest}"));
    assert_eq!(node.encode(), bytes);
    assert_eq!(NodeEntry::decode(&bytes), Some(node));
    assert_eq!(NodeEntry::decode(&[0; NodeEntry::BYTES]), None);
}

#[test]
fn service_whose_targets_have_pods_has_its_bytes() {
    let table = TableRef {
        first_block: 3,
        slots: 1_024,
        has_before: true,
    };
    let pods = TableRef {
        first_block: 9,
        slots: 256,
        has_before: false,
    };
    let cases = [
        (Some(pods), "09000000 00010000"),
        (None, "00000000 00000000"),
    ];
    for (pods, bytes) in cases {
        let entry = ServiceEntry {
            id: 5,
            route: Some(Route {
                table,
                node_port: 0,
                direct: Some(Direct {
                    by_address: true,
                    has_flows: false,
                    to_pods_since: Some(Instant::from_nanos(0x0102)),
                }),
                pods,
            }),
            has_ranges: false,
        };
        let start = "05000000 03000000 00040000 0000 03 02";
        assert_eq!(
            entry.encode(),
            hex(&format!("{start} {bytes} 0201000000000000"))
        );
        assert_eq!(ServiceEntry::decode(&entry.encode()), Some(entry));
    }
    assert_eq!(table.block_numbers(), 3..11);
}

#[test]
fn pod_has_its_bytes() {
    let pod = PodEntry {
        address: "192.0.2.100:8080".parse().unwrap(),
        service: 5,
        takes_new: true,
    };
    assert_eq!(pod.encode(), hex(&format!("{MAPPED} 05000000 1f90 01 00")));
    assert_eq!(PodEntry::decode(&pod.encode()), Some(pod));
    let pod = PodEntry {
        address: "[2001:db8::64]:53".parse().unwrap(),
        service: 0x0102,
        takes_new: false,
    };
    assert_eq!(pod.encode(), hex(&format!("{IPV6} 02010000 0035 00 00")));
    assert_eq!(PodEntry::decode(&pod.encode()), Some(pod));
}

#[test]
fn ranges_of_the_families_are_apart() {
    let cases = [
        (
            "192.0.2.0/24",
            "98000000 0a000000 00000000 00000000 0000ffff c0000200",
        ),
        (
            "0.0.0.0/0",
            "80000000 0a000000 00000000 00000000 0000ffff 00000000",
        ),
        (
            "2001:db8::/64",
            "60000000 0b000000 20010db8 00000000 00000000 00000000",
        ),
        (
            "::/0",
            "20000000 0b000000 00000000 00000000 00000000 00000000",
        ),
    ];
    for (range, bytes) in cases {
        assert_eq!(
            encode_range(5, range.parse().unwrap()),
            hex(bytes),
            "{range}"
        );
    }
}

#[test]
fn other_entries_have_their_bytes() {
    assert_eq!(encode_block(&[1, 0x0203])[..6], [1, 0, 3, 2, 0, 0]);
    assert_eq!(encode_block(&[]).len(), 512);
    let slots: Vec<u16> = decode_block(&encode_block(&[1, 0x0203])).collect();
    assert_eq!((slots.len(), &slots[..3]), (256, &[1, 0x0203, 0][..]));
    assert_eq!(
        encode_mac(MacAddress([2, 0, 0, 0, 0, 9])),
        hex("020000000009 0000")
    );
    assert_eq!(encode_address("192.0.2.100".parse().unwrap()), hex(MAPPED));
    assert_eq!(decode_number(&encode_number(77)), Some(77));
}

#[test]
fn values_cut_short_are_no_values() {
    let whole = hex(&format!("02000000 09000000 0a000000 {IPV6}"));
    for length in 0..whole.len() {
        assert_eq!(Vip::decode(&whole[..length]), None, "{length}");
    }
    let whole = hex("05000000 03000000 00040000 7530 01 01 00000000 00000000 0000000000000000");
    for length in 0..whole.len() {
        assert_eq!(ServiceEntry::decode(&whole[..length]), None, "{length}");
    }
}
