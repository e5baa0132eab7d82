//! Mode `dsr`, frame by frame.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use herald_dataplane::{CLUSTER_SLOTS, Event, Forwarding, Holder, fill, flow_hash, slot};
use herald_model::{Protocol, ServiceKey};
use herald_speaker::io::bpf::TestRun;

use crate::bench::{
    Bench, DIRECT_PORT, DIRECT_RANGED_PORT, NODE_PORT, OUR_MAC, PEER_MAC, SEED, direct, node,
    node4, node6, targets,
};
use crate::frame::{CLIENT_PORT, Frame, VIP4, VIP6, error_about};

/// A frame of each family and protocol for the direct port.
pub(crate) fn frames() -> [Frame; 4] {
    [
        Frame::v4(Protocol::Tcp),
        Frame::v6(Protocol::Tcp),
        Frame::v4(Protocol::Udp),
        Frame::v6(Protocol::Udp),
    ]
    .map(|mut frame| {
        frame.to.1 = DIRECT_PORT;
        frame
    })
}

/// The same frame as a node gets it from us.
pub(crate) fn sent_to(target: u8, frame: &Frame) -> Vec<u8> {
    let bytes = frame.sent_on(frame.from, frame.to).bytes();
    framed(target, &bytes)
}

pub(crate) fn framed(target: u8, bytes: &[u8]) -> Vec<u8> {
    [&[2, 0, 0, 0, 0, target][..], &OUR_MAC, &bytes[12..]].concat()
}

pub(crate) fn other_client(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::new(203, 0, 113, 1).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 8, 0, 0, 0, 0, 1).into(),
    }
}

/// The Service's `NodePort` is there too, as with most.
fn with_node_port(nodes: &[u8]) -> Forwarding {
    Forwarding::Dsr {
        targets: targets(nodes),
        by_address: false,
        node_port: Some(NODE_PORT),
    }
}

/// The address with ports in mode `nodeport` too, and without: then there is less to look at.
fn benches() -> Result<[Bench; 2]> {
    let mut alone = Bench::new()?;
    only_direct_ports(&mut alone)?;
    Ok([Bench::new()?, alone])
}

pub(crate) fn only_direct_ports(bench: &mut Bench) -> Result<()> {
    for vip in bench.desired.vips.values_mut() {
        vip.services.retain(|service| service.port >= DIRECT_PORT);
    }
    bench.program()?;
    Ok(())
}

#[test]
fn frames_go_on_to_the_targets_mac_address_one_hop_further() -> Result<()> {
    for mut bench in benches()? {
        go_on(&mut bench)?;
    }
    Ok(())
}

fn go_on(bench: &mut Bench) -> Result<()> {
    for mut frame in frames() {
        // Every value that the checksum's carry may meet.
        for hops in 2..=255 {
            frame.hops = hops;
            bench.becomes(&frame.bytes(), &sent_to(2, &frame))?;
        }
        if frame.from.0.is_ipv4() {
            frame.options = vec![1; 40];
        } else {
            let padding = vec![0, 1, 4, 0, 0, 0, 0];
            frame.extensions = vec![(0, padding.clone()), (60, padding)];
        }
        bench.becomes(&frame.bytes(), &sent_to(2, &frame))?;
    }
    Ok(())
}

#[test]
fn whoever_holds_the_address_a_clients_frame_goes_to_its_target() -> Result<()> {
    let mut bench = Bench::new()?;
    let peer = Holder::Peer {
        address: node4(3).into(),
    };
    for holder in [peer, Holder::Nobody] {
        bench.held_by(holder)?;
        for frame in frames() {
            bench.becomes(&frame.bytes(), &sent_to(2, &frame))?;
        }
    }
    Ok(())
}

#[test]
fn frame_from_a_node_is_left_to_kube_proxy_and_never_sent_on() -> Result<()> {
    for mut bench in benches()? {
        come_from_a_node(&mut bench)?;
    }
    Ok(())
}

fn come_from_a_node(bench: &mut Bench) -> Result<()> {
    for mut frame in frames() {
        frame.mac = PEER_MAC;
        for hops in [0, 1, 64] {
            frame.hops = hops;
            bench.leaves(&frame.bytes(), TestRun::NEXT, Some(Event::FromNode))?;
        }
        // A port that the other node knows of already.
        frame.to.1 = 9_999;
        bench.leaves(&frame.bytes(), TestRun::NEXT, Some(Event::FromNode))?;
    }
    Ok(())
}

#[test]
fn what_is_for_ourselves_is_left_to_our_kube_proxy() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.aim_at(&[1])?;
    for mut frame in frames() {
        frame.hops = 1;
        bench.leaves(&frame.bytes(), TestRun::NEXT, None)?;
    }
    Ok(())
}

#[test]
fn without_a_target_kube_proxy_is_to_refuse() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.aim_at(&[])?;
    for frame in frames() {
        bench.leaves(&frame.bytes(), TestRun::NEXT, Some(Event::PassedToStack))?;
    }
    Ok(())
}

#[test]
fn each_reason_to_drop_is_counted_under_its_name() -> Result<()> {
    for mut bench in benches()? {
        are_dropped(&mut bench)?;
    }
    Ok(())
}

fn are_dropped(bench: &mut Bench) -> Result<()> {
    for plain in frames() {
        for hops in [0, 1] {
            let mut frame = plain.clone();
            frame.hops = hops;
            bench.drops(&frame.bytes(), Event::Ttl)?;
        }
        let mut frame = plain.clone();
        frame.to.1 = DIRECT_RANGED_PORT;
        bench.becomes(&frame.bytes(), &sent_to(2, &frame))?;
        frame.from.0 = other_client(frame.from.0);
        bench.drops(&frame.bytes(), Event::SourceRange)?;
        // Nor does a node's frame get by.
        frame.mac = PEER_MAC;
        bench.drops(&frame.bytes(), Event::SourceRange)?;

        let mut frame = plain.clone();
        frame.to.1 = 9_999;
        bench.drops(&frame.bytes(), Event::UnknownPort)?;
    }
    for node in bench.desired.nodes.values_mut() {
        node.links.clear();
    }
    bench.program()?;
    for frame in frames() {
        bench.drops(&frame.bytes(), Event::NoLink)?;
    }
    Ok(())
}

#[test]
fn sctp_goes_on_like_any_other() -> Result<()> {
    let mut bench = Bench::new()?;
    for vip in bench.desired.vips.values_mut() {
        let mut service = vip.services[0].clone();
        service.service = ServiceKey::new("default", "sctp");
        service.protocol = Protocol::Sctp;
        service.port = DIRECT_PORT;
        service.forwarding = direct(&[2]);
        vip.services.push(service);
    }
    assert_eq!(bench.program()?.refused, []);
    for mut frame in [Frame::v4(Protocol::Sctp), Frame::v6(Protocol::Sctp)] {
        frame.to.1 = DIRECT_PORT;
        bench.becomes(&frame.bytes(), &sent_to(2, &frame))?;
    }
    Ok(())
}

#[test]
fn every_client_goes_where_the_tables_say() -> Result<()> {
    let mut bench = Bench::new()?;
    let names = [2, 3].map(|number| (node(number), (1, number)));
    let table = fill(SEED, CLUSTER_SLOTS, &BTreeMap::from(names));
    for by_address in [false, true] {
        bench.forward_direct_ports(&Forwarding::Dsr {
            targets: targets(&[2, 3]),
            by_address,
            node_port: None,
        })?;
        // A sequence that hits all bits; the multiplier is that of the flow table's generator.
        let mut state: u32 = 1;
        for _ in 0..200 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let port = u16::try_from(state >> 16)? | 1;
            let far = (0x2001_0db8_u128 << 96) | (u128::from(state) << 40) | u128::from(port);
            let clients: [(IpAddr, IpAddr); 2] = [
                (Ipv4Addr::from(state).into(), VIP4.into()),
                (Ipv6Addr::from(far).into(), VIP6.into()),
            ];
            for (client, vip) in clients {
                let frame = Frame::between(Protocol::Udp, (client, port), (vip, DIRECT_PORT));
                let hashed = if by_address { 0 } else { port };
                let hash = flow_hash(client, hashed, u32::try_from(SEED)?);
                let target = table[slot(hash, CLUSTER_SLOTS) as usize].unwrap();
                bench.becomes(&frame.bytes(), &sent_to(target, &frame))?;
            }
        }
    }
    Ok(())
}

#[test]
fn errors_about_replies_are_sent_to_the_target_that_sent_them() -> Result<()> {
    let mut bench = Bench::new()?;
    let peer = Holder::Peer {
        address: node4(3).into(),
    };
    for holder in [Holder::Me, peer] {
        bench.held_by(holder)?;
        bench.aim_at(&[2])?;
        for frame in frames() {
            let vip = frame.to.0;
            let reply = Frame::between(frame.protocol, frame.to, frame.from).bytes();
            let router = other_client(vip);
            let error = error_about(router, vip, 50, &reply);
            let expected = framed(2, &error_about(router, vip, 49, &reply));
            bench.becomes(&error, &expected)?;
            let last = error_about(router, vip, 1, &reply);
            bench.drops(&last, Event::Ttl)?;

            let mut of_node = error.clone();
            of_node[6..12].copy_from_slice(&PEER_MAC);
            bench.leaves(&of_node, TestRun::NEXT, Some(Event::FromNode))?;
        }
        bench.aim_at(&[1])?;
        for frame in frames() {
            let reply = Frame::between(frame.protocol, frame.to, frame.from).bytes();
            let error = error_about(other_client(frame.to.0), frame.to.0, 1, &reply);
            bench.leaves(&error, TestRun::NEXT, Some(Event::ErrorSteered))?;
        }
    }
    Ok(())
}

#[test]
fn target_off_the_segment_is_reached_by_its_node_port_from_the_holder() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.desired.nodes.get_mut(&node(3)).unwrap().links.clear();
    bench.forward_direct_ports(&with_node_port(&[3]))?;
    for frame in frames() {
        let (vip, target) = match frame.to.0 {
            IpAddr::V4(_) => (VIP4.into(), IpAddr::from(node4(3))),
            IpAddr::V6(_) => (VIP6.into(), node6(3).into()),
        };
        let expected = frame.sent_on((vip, CLIENT_PORT), (target, NODE_PORT));
        bench.becomes(&frame.bytes(), &expected.bytes())?;
        // Another node that does not hold the address hands a client's frame on.
        let mut handed_on = frame.clone();
        handed_on.mac = PEER_MAC;
        let mut expected = expected.clone();
        expected.mac = PEER_MAC;
        bench.becomes(&handed_on.bytes(), &expected.bytes())?;

        let mut reply = Frame::between(frame.protocol, expected.to, expected.from);
        reply.mac = PEER_MAC;
        bench.becomes(&reply.bytes(), &reply.sent_on(frame.to, frame.from).bytes())?;
    }
    bench.held_by(Holder::Peer {
        address: node4(2).into(),
    })?;
    for frame in frames() {
        let relayed = frame.sent_on(frame.from, frame.to);
        bench.becomes(&frame.bytes(), &relayed.bytes())?;
    }
    Ok(())
}

#[test]
fn connections_of_nodeport_go_on_when_the_mode_becomes_dsr() -> Result<()> {
    let mut bench = Bench::new()?;
    only_direct_ports(&mut bench)?;
    let node_port = Forwarding::NodePort {
        node_port: NODE_PORT,
        targets: targets(&[2]),
    };
    for mut frame in frames().into_iter().take(2) {
        bench.forward_direct_ports(&node_port)?;
        bench.held_by(Holder::Me)?;
        let target = match frame.to.0 {
            IpAddr::V4(_) => node4(2).into(),
            IpAddr::V6(_) => IpAddr::from(node6(2)),
        };
        let open = frame.sent_on((frame.to.0, CLIENT_PORT), (target, NODE_PORT));
        bench.becomes(&frame.bytes(), &open.bytes())?;

        bench.forward_direct_ports(&with_node_port(&[2, 3]))?;
        frame.syn = false;
        let open = frame.sent_on((frame.to.0, CLIENT_PORT), (target, NODE_PORT));
        bench.becomes(&frame.bytes(), &open.bytes())?;
        let mut reply = Frame::between(frame.protocol, open.to, open.from);
        reply.mac = PEER_MAC;
        let expected = reply.sent_on(frame.to, frame.from);
        bench.becomes(&reply.bytes(), &expected.bytes())?;

        // A connection of the time since then, from the same address.
        bench.forward_direct_ports(&with_node_port(&[2]))?;
        let mut new = frame.clone();
        new.from.1 += 1;
        bench.becomes(&new.bytes(), &sent_to(2, &new))?;
        // The same ports, for another connection.
        frame.syn = true;
        bench.becomes(&frame.bytes(), &sent_to(2, &frame))?;
    }
    Ok(())
}

#[test]
fn a_holder_that_comes_again_has_no_connections_of_nodeport() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.forward_direct_ports(&Forwarding::NodePort {
        node_port: NODE_PORT,
        targets: targets(&[2]),
    })?;
    only_direct_ports(&mut bench)?;
    let [mut frame, ..] = frames();
    bench.run(&frame.bytes())?;
    bench.forward_direct_ports(&with_node_port(&[2]))?;
    bench.held_by(Holder::Nobody)?;
    bench.held_by(Holder::Me)?;
    frame.syn = false;
    bench.becomes(&frame.bytes(), &sent_to(2, &frame))
}

#[test]
fn what_is_sent_on_is_counted_for_its_service() -> Result<()> {
    let mut bench = Bench::new()?;
    let [mut tcp, _, udp, _] = frames();
    bench.run(&tcp.bytes())?;
    tcp.syn = false;
    bench.run(&tcp.bytes())?;
    bench.run(&udp.bytes())?;
    let id = bench.program()?.service_ids[&ServiceKey::new("default", format!("s{DIRECT_PORT}"))];
    let counted = bench.data_plane.counters()?.services[&id];
    let bytes = tcp.bytes().len() * 2 + udp.bytes().len();
    assert_eq!((counted.packets, counted.flows), (3, 1));
    assert_eq!(counted.bytes, u64::try_from(bytes)?);
    Ok(())
}
