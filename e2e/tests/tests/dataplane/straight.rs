//! Mode `dsr` on the LAN: targets answer clients themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Result;
use herald_dataplane::{Event, Spread};
use herald_e2e::netns::Host;

use crate::spread;
use crate::world::{Mode, PORT, Talk, VIP4, VIP6, World, connect_from, is_refused};

const BULK_BYTES: usize = 1 << 20;

fn straight() -> Result<World> {
    World::by(Mode::Direct)
}

pub(crate) fn client(host: &Host, like: &str) -> Result<IpAddr> {
    Ok(match like.parse()? {
        IpAddr::V4(_) => host.ipv4.into(),
        IpAddr::V6(_) => host.ipv6.into(),
    })
}

/// Open connections, and what each was answered.
pub(crate) fn talks(world: &World, vip: &str, number: usize) -> Result<Vec<(Talk, String)>> {
    (0..number)
        .map(|_| {
            let mut talk = world.connect(vip, PORT, 0)?;
            let node = talk.ask()?.node;
            Ok((talk, node))
        })
        .collect()
}

#[test]
fn every_node_sees_the_clients_address_and_answers_it_itself() -> Result<()> {
    let world = straight()?;
    for vip in [VIP4, VIP6] {
        let peer = client(world.client(), vip)?;
        let (mut by_tcp, mut by_udp) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..30 {
            let answer = world.connect(vip, PORT, 0)?.ask()?;
            assert_eq!(answer.peer.ip(), peer);
            by_tcp.insert(answer.node);
            let answer = world.ask(vip, 0)?;
            assert_eq!(answer.peer.ip(), peer);
            by_udp.insert(answer.node);
        }
        assert_eq!((by_tcp.len(), by_udp.len()), (3, 3));
    }
    let counted = world.service(1)?;
    // A SYN that a client repeats counts again.
    assert!((60..70).contains(&counted.flows), "{counted:?}");
    for target in [2, 3] {
        assert!(world.event(target, Event::FromNode)? > 0);
        assert_eq!(world.service(target)?.packets, 0);
    }
    // Who answers counts it: the last packet of each connection is the client's.
    for target in 1..=3 {
        let counted = world.service(target)?;
        assert!(counted.reply_packets >= 20 && counted.reply_bytes > 0);
    }
    Ok(())
}

#[test]
fn client_whose_neighbour_entry_points_at_another_node_goes_to_the_same_target() -> Result<()> {
    let world = straight()?;
    for vip in [VIP4, VIP6] {
        let mut open = talks(&world, vip, 12)?;
        for stale in [2, 3] {
            world.point_neighbour(world.client(), stale)?;
            for (talk, node) in &mut open {
                assert_eq!(talk.ask()?.node, *node);
            }
            assert_eq!(spread(&world, vip, 20)?.len(), 3);
            assert_eq!(world.event(stale, Event::Relayed)?, 0);
        }
        world.point_neighbour(world.client(), 1)?;
    }
    Ok(())
}

#[test]
fn a_packet_that_two_nodes_send_to_and_fro_dies_by_its_hop_limit() -> Result<()> {
    let mut world = straight()?;
    // What forbids it, that a node's frame is known as one, is out of order; and each takes the other for the target.
    world.wish.strangers = true;
    world.wish.astray = BTreeMap::from([(1, 2), (2, 1)]);
    world.program()?;
    for (times, vip) in (1..).zip([VIP4, VIP6]) {
        world.client().run(|| {
            let to: IpAddr = vip.parse()?;
            let socket = std::net::UdpSocket::bind((client(world.client(), vip)?, 0))?;
            // 64 hops.
            socket.send_to(b"hello", (to, PORT))?;
            Ok(())
        })?;
        world.await_event(2, Event::Ttl, times)?;
        assert_eq!(world.event(1, Event::Ttl)?, 0);
        // The last one is counted by who drops it.
        let packets = [1, 2].map(|node| world.service(node).map(|counted| counted.packets));
        let [first, second] = packets;
        assert_eq!((first?, second?), (32 * times, 32 * times));
        assert_eq!(world.event(2, Event::FromNode)?, 0);
    }
    Ok(())
}

#[test]
fn open_connections_survive_the_move_of_the_address() -> Result<()> {
    for vip in [VIP4, VIP6] {
        let mut world = straight()?;
        let mut open = talks(&world, vip, 20)?;
        for holder in [2, 3, 1] {
            world.hold(holder)?;
            for (talk, node) in &mut open {
                assert_eq!(talk.ask()?.node, *node);
                assert_eq!(talk.upload(10_000)?, 10_000);
            }
        }
    }
    Ok(())
}

#[test]
fn open_connections_survive_the_removal_of_another_target() -> Result<()> {
    let mut world = straight()?;
    let mut open = talks(&world, VIP4, 20)?;
    world.wish.targets = vec![1, 2];
    world.program()?;
    let gone = open.iter().filter(|(_, node)| node == "n3").count();
    assert!((1..20).contains(&gone), "{gone} of 20 on n3");
    for (talk, node) in open.iter_mut().filter(|(_, node)| node != "n3") {
        assert_eq!(talk.ask()?.node, *node);
    }
    assert_eq!(spread(&world, VIP4, 20)?.len(), 2);
    Ok(())
}

#[test]
fn connections_of_nodeport_go_on_when_the_mode_becomes_dsr() -> Result<()> {
    for vip in [VIP4, VIP6] {
        let mut world = World::new()?;
        let mut open = talks(&world, vip, 20)?;
        world.wish.mode = Mode::Direct;
        world.program()?;
        world.translate()?;
        for _ in 0..2 {
            for (talk, node) in &mut open {
                let answer = talk.ask()?;
                assert_eq!((&answer.node, answer.peer.ip()), (&*node, vip.parse()?));
            }
            let new = world.connect(vip, PORT, 0)?.ask()?;
            assert_eq!(new.peer.ip(), client(world.client(), vip)?);
        }
    }
    Ok(())
}

#[test]
fn large_transfers_pass_both_ways() -> Result<()> {
    let mut world = straight()?;
    for target in [1, 2] {
        world.wish.targets = vec![target];
        world.program()?;
        for vip in [VIP4, VIP6] {
            let mut talk = world.connect(vip, PORT, 0)?;
            assert_eq!(talk.upload(BULK_BYTES)?, BULK_BYTES);
            assert_eq!(talk.download(BULK_BYTES)?, BULK_BYTES);
        }
    }
    Ok(())
}

#[test]
fn all_connections_of_a_client_go_to_one_node_if_its_address_is_to_choose() -> Result<()> {
    let mut world = straight()?;
    world.wish.mode = Mode::ByAddress;
    world.program()?;
    for vip in [VIP4, VIP6] {
        for host in [world.client(), world.other_client()] {
            let mut nodes = BTreeSet::new();
            for _ in 0..12 {
                nodes.insert(connect_from(host, vip, PORT, 0)?.ask()?.node);
            }
            assert_eq!(nodes.len(), 1, "{nodes:?}");
        }
    }
    Ok(())
}

#[test]
fn target_off_the_segment_is_reached_by_its_node_port() -> Result<()> {
    let mut world = straight()?;
    world.wish.far = vec![3];
    world.wish.spread = Spread::Local;
    world.program()?;
    for vip in [VIP4, VIP6] {
        let near = client(world.client(), vip)?;
        // Also by way of a node that does not hold the address.
        for first in [1, 2] {
            world.point_neighbour(world.client(), first)?;
            let mut nodes = BTreeSet::new();
            for _ in 0..30 {
                let answer = world.connect(vip, PORT, 0)?.ask()?;
                let peer = if answer.node == "n3" {
                    vip.parse()?
                } else {
                    near
                };
                assert_eq!(answer.peer.ip(), peer);
                nodes.insert(answer.node);
                world.ask(vip, 0)?;
            }
            assert_eq!(nodes.len(), 3, "{nodes:?}");
        }
    }
    Ok(())
}

#[test]
fn client_outside_the_source_ranges_is_refused_by_every_node() -> Result<()> {
    let mut world = straight()?;
    world.wish.source_ranges = vec![client(world.client(), VIP4)?.into()];
    world.program()?;
    for node in 1..=3 {
        world.point_neighbour(world.client(), node)?;
        world.point_neighbour(world.other_client(), node)?;
        world.connect(VIP4, PORT, 0)?.ask()?;
        assert!(is_refused(world.other_client(), VIP4, PORT)?);
        assert!(world.event(node, Event::SourceRange)? > 0);
    }
    Ok(())
}

#[test]
fn strict_reverse_path_filter_does_not_mind_where_there_is_one_uplink() -> Result<()> {
    let world = straight()?;
    for node in 1..=3 {
        let host = &world.lan.hosts[node];
        host.exec(&["sysctl", "-q", "net.ipv4.conf.all.rp_filter=1"])?;
    }
    assert_eq!(spread(&world, VIP4, 20)?.len(), 3);
    Ok(())
}

#[test]
fn replies_that_are_too_big_for_a_router_are_sent_smaller() -> Result<()> {
    let world = straight()?;
    download_through_a_narrow_router(&world)?;
    // Each node was told at least once in each family, itself included.
    assert!(world.event(1, Event::ErrorSteered)? >= 6);
    Ok(())
}

/// A client downloads from every node, by way of a router whose way to it takes 1300 bytes.
pub(crate) fn download_through_a_narrow_router(world: &World) -> Result<()> {
    // The client's other addresses are behind host 4, whose way to them takes 1300 bytes.
    let mut remote = world.client().clone();
    let router = world.other_client();
    (remote.ipv4, remote.ipv6) = ("198.51.100.7".parse()?, "2001:db8:7::7".parse()?);
    let (back4, back6) = (world.client().ipv4, world.client().ipv6);
    remote.ip(&format!("address add {}/32 dev lo", remote.ipv4))?;
    remote.ip(&format!("address add {}/128 dev lo nodad", remote.ipv6))?;
    for setting in [
        "net.ipv4.ip_forward=1",
        "net.ipv6.conf.all.forwarding=1",
        "net.ipv4.conf.all.send_redirects=0",
        "net.ipv4.conf.eth0.send_redirects=0",
    ] {
        router.exec(&["sysctl", "-q", setting])?;
    }
    router.ip_batch(&[
        format!("route add {} via {back4} mtu lock 1300", remote.ipv4),
        format!("route add {} via {back6} mtu lock 1300", remote.ipv6),
    ])?;
    for node in 1..=3 {
        world.lan.hosts[node].exec(&["sysctl", "-q", "net.ipv6.conf.eth0.accept_redirects=0"])?;
        world.lan.hosts[node].ip_batch(&[
            format!("route add {} via {}", remote.ipv4, router.ipv4),
            format!("route add {} via {}", remote.ipv6, router.ipv6),
        ])?;
    }
    for vip in [VIP4, VIP6] {
        let mut nodes = BTreeSet::new();
        for _ in 0..36 {
            let mut talk = connect_from(&remote, vip, PORT, 0)?;
            assert_eq!(talk.download(BULK_BYTES)?, BULK_BYTES);
            nodes.insert(talk.ask()?.node);
        }
        assert_eq!(nodes.len(), 3, "{nodes:?}");
    }
    Ok(())
}
