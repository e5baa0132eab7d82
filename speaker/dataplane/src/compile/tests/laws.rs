//! Laws of [`compile`] and [`diff`] over arbitrary wishes.

use super::pods::own;
use super::*;
use crate::layout::decode_block;
use crate::{SLOTS_PER_BLOCK, flow_hash, pod_hash};

/// The pod of ours that the program would give a packet to that is for us.
fn own_fate(contents: &MapContents, key: PortKey, hash: u32) -> Option<PodEntry> {
    let service = contents.get(MapName::Services, &key.encode())?;
    let table = ServiceEntry::decode(service).unwrap().route?.pods?;
    let slot = slot(pod_hash(hash), table.slots) as usize;
    let block = table.first_block + u32::try_from(slot / SLOTS_PER_BLOCK).unwrap();
    let block = contents
        .get(MapName::Blocks, &encode_number(block))
        .expect("no block");
    let number = decode_block(block).nth(slot % SLOTS_PER_BLOCK).unwrap();
    let pod = contents.get(MapName::Pods, &encode_number(number.into()));
    PodEntry::decode(pod.expect("no pod"))
}

/// What the program would do with a client's packet, read from the maps as it does.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Passed,
    UnknownPort,
    Off,
    /// By its `NodePort`: the addresses of the target, and the port there.
    NodePort((Option<Ipv4Addr>, Option<Ipv6Addr>), u16),
    /// By MAC address; itself if it has none.
    Frame(Option<LinkEntry>),
    /// Something that no reader of consistent maps would find.
    Broken(&'static str),
}

fn fate(contents: &MapContents, key: PortKey, hash: u32) -> Fate {
    let vip = VipKey {
        address: key.address,
        interface: ETH0,
    };
    let filters = contents.get(MapName::Filters, &encode_number(0));
    if !filters.is_some_and(|filters| Filters::may_be_vip(filters, key.address)) {
        return Fate::Passed;
    }
    let service = contents
        .get(MapName::Services, &key.encode())
        .map(|service| ServiceEntry::decode(service).unwrap());
    let direct = service.and_then(|service| service.route?.direct);
    let matters = direct.is_none_or(|direct| direct.has_flows);
    if matters && contents.get(MapName::Vips, &vip.encode()).is_none() {
        return Fate::Passed;
    }
    let Some(service) = service else {
        return Fate::UnknownPort;
    };
    let Some(route) = service.route else {
        return Fate::Off;
    };
    let table = route.table;
    let slot = slot(hash, table.slots) as usize;
    let block = table.first_block + u32::try_from(slot / SLOTS_PER_BLOCK).unwrap();
    let Some(block) = contents.get(MapName::Blocks, &encode_number(block)) else {
        return Fate::Broken("no block");
    };
    let at = slot % SLOTS_PER_BLOCK * 2;
    let number = u16::from_le_bytes([block[at], block[at + 1]]);
    let node = contents
        .get(MapName::Nodes, &encode_number(number.into()))
        .and_then(NodeEntry::decode);
    let Some(node) = node else {
        return Fate::Broken("no node");
    };
    if route.direct.is_some() && (node.is_self || !node.links.is_empty()) {
        return Fate::Frame(node.links.first().copied());
    }
    match route.node_port {
        0 => Fate::Broken("no way to the node"),
        port => Fate::NodePort((node.ipv4, node.ipv6), port),
    }
}

fn weights() -> impl Strategy<Value = Vec<(u8, u32)>> {
    prop::collection::vec((1_u8..6, 0_u32..4), 0..5)
}

fn services() -> impl Strategy<Value = Vec<DesiredService>> {
    let spread = prop_oneof![Just(Spread::Cluster), Just(Spread::Local)];
    let ranges = prop_oneof![
        Just(vec![]),
        Just(vec!["192.0.2.0/24"]),
        Just(vec!["0.0.0.0/0", "2001:db8::/32"])
    ];
    let pods = prop::collection::btree_map(1_u8..5, any::<bool>(), 0..4);
    let one = (
        0_u8..5,
        80_u16..84,
        spread,
        weights(),
        ranges,
        0_u8..7,
        pods,
    );
    let one = one.prop_map(|(name, port, spread, weights, ranges, mode, pods)| {
        let ranges: Vec<IpNet> = ranges.iter().map(|range| range.parse().unwrap()).collect();
        let mut service = service(&format!("s{name}"), port, targets(spread, &weights));
        service.source_ranges = ranges.into();
        let targets = targets(spread, &weights);
        match mode {
            0 => service.forwarding = Forwarding::Off,
            1 => {}
            4.. => {
                service.forwarding = Forwarding::Pod {
                    targets,
                    by_address: mode == 4,
                    pods: own(&pods.into_iter().collect::<Vec<_>>()),
                };
            }
            _ => {
                service.forwarding = Forwarding::Dsr {
                    targets,
                    by_address: mode == 2,
                    node_port: Some(30_000 + port),
                };
            }
        }
        service
    });
    prop::collection::vec(one, 0..6)
}

fn wishes() -> impl Strategy<Value = Desired> {
    let vips = prop::collection::vec((0_u8..4, services(), 0_u8..4), 0..4);
    let moved = prop::collection::vec((1_u8..6, 100_u8..104, any::<bool>()), 0..3);
    (vips, 0_u8..6, moved).prop_map(|(vips, nodes, moved)| {
        let names = [
            "192.0.2.200",
            "192.0.2.201",
            "2001:db8::200",
            "2001:db8::201",
        ];
        let listed: Vec<(&str, Vec<DesiredService>)> = vips
            .iter()
            .map(|(vip, services, _)| (names[usize::from(*vip)], services.clone()))
            .collect();
        let mut wish = desired(nodes, &listed);
        for (name, new, is_far) in moved {
            if let Some(node) = wish.nodes.get_mut(&node(name)) {
                node.ipv4 = Some(address(new));
                node.links = if is_far {
                    BTreeMap::new()
                } else {
                    BTreeMap::from([(ETH0, mac(new))])
                };
            }
        }
        for (vip, _, holder) in vips {
            let vip: IpAddr = names[usize::from(vip)].parse().unwrap();
            let holder = match holder {
                0 => Holder::Me,
                1 => Holder::Peer {
                    address: address(2).into(),
                },
                2 => Holder::MeAfter {
                    address: address(2).into(),
                },
                _ => Holder::Nobody,
            };
            wish.vips.get_mut(&vip).unwrap().holders = BTreeMap::from([(ETH0, holder)]);
        }
        wish
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn writes_lead_to_the_wish_and_no_write_is_left(first in wishes(), second in wishes()) {
        let before = compile(&MapContents::default(), &first).contents;
        let after = compile(&before, &second).contents;
        let mut contents = before.clone();
        contents.apply(&diff(&before, &after));
        prop_assert_eq!(&contents, &after);
        prop_assert_eq!(diff(&after, &after), vec![]);
        prop_assert_eq!(&compile(&after, &second).contents, &after);
    }

    #[test]
    fn no_packet_is_misdirected_between_two_writes(
        first in wishes(),
        second in wishes(),
        clients in prop::collection::vec(any::<[u8; 4]>(), 4),
    ) {
        let before = compile(&MapContents::default(), &first).contents;
        let after = compile(&before, &second).contents;
        let hashes: Vec<u32> = clients
            .iter()
            .map(|&client| flow_hash(IpAddr::from(client), 4_000, 42))
            .collect();
        let keys: BTreeSet<PortKey> = [&first, &second]
            .into_iter()
            .flat_map(|wish| &wish.vips)
            .flat_map(|(&address, vip)| {
                vip.services.iter().map(move |service| PortKey {
                    address,
                    protocol: service.protocol,
                    port: service.port,
                })
            })
            .collect();
        let mut contents = before.clone();
        for op in diff(&before, &after) {
            contents.apply(&[op]);
            for &key in &keys {
                for &hash in &hashes {
                    let now = fate(&contents, key, hash);
                    // While an address or port comes or goes, it may already or still be unknown.
                    prop_assert!(
                        now == fate(&before, key, hash) || now == fate(&after, key, hash),
                        "{:?}: {:?}", key, now
                    );
                    let pod = |contents| own_fate(contents, key, hash).map(|pod| (pod.service, pod.address));
                    let now = pod(&contents);
                    prop_assert!(
                        now == pod(&before) || now == pod(&after),
                        "{:?}: {:?}", key, now
                    );
                }
            }
        }
    }

    #[test]
    fn what_is_read_back_is_compiled_alike(first in wishes(), second in wishes()) {
        let before = compile(&MapContents::default(), &first).contents;
        let mut read = MapContents::default();
        for map in MapName::ALL {
            let numbers = map.is_array().then(|| before.referenced(map));
            for (key, value) in before.entries(map) {
                let number = decode_number(key).unwrap_or_default();
                if numbers.as_ref().is_none_or(|numbers| numbers.contains(&number)) {
                    read.put(map, key.to_vec(), value.to_vec());
                }
            }
        }
        prop_assert_eq!(&read, &before);
        prop_assert_eq!(compile(&read, &second), compile(&before, &second));
    }
}
