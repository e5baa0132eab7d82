//! The ingress program on single frames, byte by byte, by `BPF_PROG_TEST_RUN`. Frames come by
//! interface 1; expected frames are built by another codec, checksums included.

#[cfg(test)]
#[path = "dataplane/ageing.rs"]
mod ageing;
#[cfg(test)]
#[path = "dataplane/bench.rs"]
mod bench;
#[cfg(test)]
#[path = "dataplane/cost.rs"]
mod cost;
#[cfg(test)]
#[path = "dataplane/direct.rs"]
mod direct;
#[cfg(test)]
#[path = "dataplane/egress.rs"]
mod egress;
#[cfg(test)]
#[path = "dataplane/flows.rs"]
mod flows;
#[cfg(test)]
#[path = "dataplane/fragments.rs"]
mod fragments;
#[cfg(test)]
#[path = "dataplane/frame.rs"]
mod frame;
#[cfg(test)]
#[path = "dataplane/full.rs"]
mod full;
#[cfg(test)]
#[path = "dataplane/object.rs"]
mod object;
#[cfg(test)]
#[path = "dataplane/pod.rs"]
mod pod;
#[cfg(test)]
#[path = "dataplane/turns.rs"]
mod turns;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::Result;
use bench::{Bench, NODE_PORT, OFF_PORT, PEER_MAC, RANGED_PORT, SEED, desired, node, node4, node6};
use etherparse::{EtherType, Icmpv4Type, Icmpv6Type, icmpv4, icmpv6};
use frame::{
    CLIENT_MAC, CLIENT_PORT, CLIENT4, CLIENT6, Frame, PORT, VIP4, VIP6, error_about, ethernet, icmp,
};
use herald_dataplane::{CLUSTER_SLOTS, Event, Holder, fill, flow_hash, slot};
use herald_model::Protocol;
use herald_speaker::io::bpf::{DEFAULT_FLOWS, TestRun};

/// A plain frame of each family and protocol, and what it is sent on as to node 2.
fn plain() -> Vec<(Frame, Frame)> {
    let mut frames = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let frame = Frame::v4(protocol);
        let expected = frame.sent_on((VIP4.into(), CLIENT_PORT), (node4(2).into(), NODE_PORT));
        frames.push((frame, expected));
        let frame = Frame::v6(protocol);
        let expected = frame.sent_on((VIP6.into(), CLIENT_PORT), (node6(2).into(), NODE_PORT));
        frames.push((frame, expected));
    }
    frames
}

#[test]
fn frames_of_clients_are_rewritten_to_the_byte() -> Result<()> {
    let mut bench = Bench::new()?;
    for (frame, expected) in plain() {
        bench.becomes(&frame.bytes(), &expected.bytes())?;
        // Again, from the flow table.
        bench.becomes(&frame.bytes(), &expected.bytes())?;
    }
    Ok(())
}

#[test]
fn replies_are_rewritten_to_the_byte() -> Result<()> {
    let mut bench = Bench::new()?;
    for (frame, forwarded) in plain() {
        bench.run(&frame.bytes())?;
        let mut reply = Frame::between(frame.protocol, forwarded.to, forwarded.from);
        reply.mac = PEER_MAC;
        let expected = reply.sent_on(frame.to, frame.from);
        bench.becomes(&reply.bytes(), &expected.bytes())?;
    }
    Ok(())
}

#[test]
fn packet_for_ourselves_keeps_its_hop_limit_and_goes_up() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.aim_at(&[1])?;
    for mut frame in [Frame::v4(Protocol::Tcp), Frame::v6(Protocol::Udp)] {
        frame.hops = 1;
        let result = bench.run(&frame.bytes())?;
        let expected = match frame.to.0 {
            IpAddr::V4(vip) => {
                frame.sent_on((vip.into(), CLIENT_PORT), (node4(1).into(), NODE_PORT))
            }
            IpAddr::V6(vip) => {
                frame.sent_on((vip.into(), CLIENT_PORT), (node6(1).into(), NODE_PORT))
            }
        };
        let expected = Frame {
            hops: 1,
            ..expected
        };
        assert_eq!(
            (result.verdict, result.frame),
            (TestRun::NEXT, expected.bytes())
        );
    }
    Ok(())
}

#[test]
fn every_client_goes_where_the_tables_say() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.aim_at(&[2, 3])?;
    let names = [2, 3].map(|number| (node(number), (1, number)));
    let table = fill(SEED, CLUSTER_SLOTS, &BTreeMap::from(names));
    // A sequence that hits all bits; the multiplier is that of the flow table's generator.
    let mut state: u32 = 1;
    for _ in 0..300 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let port = u16::try_from(state >> 16).unwrap() | 1;
        let clients: [IpAddr; 2] = [
            Ipv4Addr::from(state).into(),
            Ipv6Addr::from((0x2001_0db8_u128 << 96) | (u128::from(state) << 40) | u128::from(port))
                .into(),
        ];
        for client in clients {
            let mut frame = Frame::v4(Protocol::Udp);
            frame.from = (client, port);
            frame.to.0 = if client.is_ipv4() {
                VIP4.into()
            } else {
                VIP6.into()
            };
            let hash = flow_hash(client, port, u32::try_from(SEED)?);
            let target = table[slot(hash, CLUSTER_SLOTS) as usize].unwrap();
            let to = match client {
                IpAddr::V4(_) => node4(target).into(),
                IpAddr::V6(_) => node6(target).into(),
            };
            let result = bench.run(&frame.bytes())?;
            let expected = frame.sent_on((frame.to.0, port), (to, NODE_PORT));
            assert_eq!(result.frame, expected.bytes(), "{client} {port}");
        }
    }
    Ok(())
}

#[test]
fn options_and_extension_headers_stay_as_they_are() -> Result<()> {
    let mut bench = Bench::new()?;
    for (mut frame, mut expected) in plain() {
        if frame.from.0.is_ipv4() {
            for words in [1, 10] {
                frame.options = vec![1; words * 4];
                expected.options.clone_from(&frame.options);
                bench.becomes(&frame.bytes(), &expected.bytes())?;
            }
        } else {
            // Hop-by-hop, destination, authentication: padding, and lengths in their own units.
            let padding = vec![0, 1, 4, 0, 0, 0, 0];
            let authentication = vec![
                4, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18,
            ];
            frame.extensions = vec![(0, padding.clone()), (60, padding), (51, authentication)];
            expected.extensions.clone_from(&frame.extensions);
            bench.becomes(&frame.bytes(), &expected.bytes())?;
        }
    }
    Ok(())
}

#[test]
fn datagram_without_a_checksum_stays_without() -> Result<()> {
    let mut bench = Bench::new()?;
    let mut frame = Frame::v4(Protocol::Udp);
    frame.udp_sum = false;
    let expected = frame.sent_on((VIP4.into(), CLIENT_PORT), (node4(2).into(), NODE_PORT));
    bench.becomes(&frame.bytes(), &expected.bytes())
}

#[test]
fn echo_requests_are_answered_to_the_byte() -> Result<()> {
    let mut bench = Bench::new()?;
    let header = etherparse::IcmpEchoHeader { id: 7, seq: 9 };
    let request = (
        Icmpv4Type::EchoRequest(header),
        Icmpv6Type::EchoRequest(header),
    );
    let reply = (Icmpv4Type::EchoReply(header), Icmpv6Type::EchoReply(header));
    let pairs: [(IpAddr, IpAddr); 2] =
        [(CLIENT4.into(), VIP4.into()), (CLIENT6.into(), VIP6.into())];
    for (client, vip) in pairs {
        let asked = icmp(client, vip, 9, &request.0, &request.1);
        let answered = icmp(vip, client, 64, &reply.0, &reply.1);
        bench.becomes(&asked, &answered)?;
    }
    bench.desired.ignores_echo = true;
    bench.program()?;
    for (client, vip) in pairs {
        let asked = icmp(client, vip, 9, &request.0, &request.1);
        bench.drops(&asked, Event::UnsupportedProtocol)?;
    }
    Ok(())
}

#[test]
fn what_is_not_for_a_vip_passes_untouched() -> Result<()> {
    let mut bench = Bench::new()?;
    let mut frame = Frame::v4(Protocol::Tcp);
    frame.to.0 = node4(1).into();
    bench.passes(&frame.bytes())?;
    let mut frame = Frame::v6(Protocol::Udp);
    frame.to.0 = node6(1).into();
    bench.passes(&frame.bytes())?;

    let mut arp = ethernet(CLIENT_MAC, EtherType::ARP);
    arp.extend([0; 28]);
    bench.passes(&arp)?;
    let mut tagged = Frame::v4(Protocol::Tcp).bytes();
    tagged.splice(12..12, [0x81, 0, 0, 5]);
    bench.passes(&tagged)?;
    let mut for_another = Frame::v4(Protocol::Tcp).bytes();
    for_another[5] = 9;
    bench.passes(&for_another)?;
    let mut broadcast = Frame::v4(Protocol::Tcp).bytes();
    broadcast[..6].fill(0xff);
    bench.passes(&broadcast)?;
    let mut version = Frame::v4(Protocol::Tcp).bytes();
    version[14] = 0x44;
    bench.passes(&version)
}

#[test]
fn neighbour_discovery_for_a_vip_passes_untouched() -> Result<()> {
    let mut bench = Bench::new()?;
    for kind in 133..=137 {
        let message = Icmpv6Type::Unknown {
            type_u8: kind,
            code_u8: 0,
            bytes5to8: [0; 4],
        };
        let v4 = Icmpv4Type::Unknown {
            type_u8: 8,
            code_u8: 0,
            bytes5to8: [0; 4],
        };
        bench.passes(&icmp(CLIENT6.into(), VIP6.into(), 255, &v4, &message))?;
    }
    Ok(())
}

#[test]
fn each_reason_to_drop_is_counted_under_its_name() -> Result<()> {
    let mut bench = Bench::new()?;
    for (plain, _) in plain() {
        let is_ipv4 = plain.from.0.is_ipv4();
        let mut frame = plain.clone();
        frame.to.1 = 9_999;
        bench.drops(&frame.bytes(), Event::UnknownPort)?;

        let mut frame = plain.clone();
        frame.hops = 1;
        bench.drops(&frame.bytes(), Event::Ttl)?;

        let mut frame = plain.clone();
        frame.to.1 = RANGED_PORT;
        frame.from.0 = if is_ipv4 {
            Ipv4Addr::new(203, 0, 113, 1).into()
        } else {
            Ipv6Addr::new(0x2001, 0xdb8, 8, 0, 0, 0, 0, 1).into()
        };
        bench.drops(&frame.bytes(), Event::SourceRange)?;
        frame.from.0 = plain.from.0;
        assert_eq!(bench.run(&frame.bytes())?.verdict, TestRun::REDIRECT);

        // A target's reply to nobody: with the port of a Service, and with another.
        for port in [PORT, 50_000] {
            let mut frame = plain.clone();
            frame.from = (
                if is_ipv4 {
                    node4(3).into()
                } else {
                    node6(3).into()
                },
                NODE_PORT,
            );
            frame.to.1 = port;
            bench.drops(&frame.bytes(), Event::StrayReply)?;
        }

        let bytes = plain.bytes();
        let network = if is_ipv4 { 34 } else { 54 };
        let needed = if plain.protocol == Protocol::Tcp {
            14
        } else {
            8
        };
        for length in network..network + needed {
            bench.drops(&bytes[..length], Event::Malformed)?;
        }
        // All that is read is there, and the checksum is not.
        if plain.protocol == Protocol::Tcp {
            for length in network + needed..network + 18 {
                bench.drops(&bytes[..length], Event::RewriteFailed)?;
            }
        }
    }
    for frame in [Frame::v4(Protocol::Udp), Frame::v6(Protocol::Udp)] {
        let [_, later] = frame.fragments(9, 8);
        bench.drops(&later, Event::Fragment)?;
    }

    let mut frame = Frame::v6(Protocol::Tcp);
    frame.extensions = vec![(60, vec![0, 1, 4, 0, 0, 0, 0]); 5];
    bench.drops(&frame.bytes(), Event::Malformed)?;
    frame.extensions = vec![(60, vec![0xff, 1, 4, 0, 0, 0, 0])];
    bench.drops(&frame.bytes(), Event::Malformed)?;

    for mut frame in [Frame::v4(Protocol::Sctp), Frame::v6(Protocol::Sctp)] {
        bench.drops(&frame.bytes(), Event::UnknownPort)?;
        frame.to.1 = 9_999;
        bench.drops(&frame.bytes(), Event::UnknownPort)?;
    }
    let mut gre = Frame::v6(Protocol::Tcp).bytes();
    gre[20] = 47;
    bench.drops(&gre, Event::UnsupportedProtocol)?;
    let errors = (
        Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port),
        Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port),
    );
    let pairs: [(IpAddr, IpAddr); 2] =
        [(CLIENT4.into(), VIP4.into()), (CLIENT6.into(), VIP6.into())];
    for (client, vip) in pairs {
        // Not about any packet: what should be quoted is no IP header.
        let error = icmp(client, vip, 9, &errors.0, &errors.1);
        bench.drops(&error, Event::UnknownError)?;
        let timestamp = (other(13), other6(200));
        bench.drops(
            &icmp(client, vip, 9, &timestamp.0, &timestamp.1),
            Event::UnsupportedProtocol,
        )?;
    }
    Ok(())
}

fn other(type_u8: u8) -> Icmpv4Type {
    Icmpv4Type::Unknown {
        type_u8,
        code_u8: 0,
        bytes5to8: [0; 4],
    }
}

fn other6(type_u8: u8) -> Icmpv6Type {
    Icmpv6Type::Unknown {
        type_u8,
        code_u8: 0,
        bytes5to8: [0; 4],
    }
}

/// A router on the way to the client or to the target.
fn router(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::new(203, 0, 113, 9).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 9, 0, 0, 0, 0, 9).into(),
    }
}

#[test]
fn errors_about_packets_to_the_client_reach_the_target() -> Result<()> {
    let mut bench = Bench::new()?;
    // TCP: of UDP the quoted eight bytes hold the checksum, which stays as it was.
    for (frame, forwarded) in plain().into_iter().take(2) {
        let reply = Frame::between(Protocol::Tcp, frame.to, frame.from).bytes();
        let router = router(frame.to.0);
        let error = error_about(router, frame.to.0, 50, &reply);
        bench.drops(&error, Event::UnknownError)?;

        bench.run(&frame.bytes())?;
        let sent = Frame::between(Protocol::Tcp, forwarded.to, forwarded.from).bytes();
        let expected = error_about(router, forwarded.to.0, 49, &sent);
        bench.becomes(&error, &expected)?;
    }
    Ok(())
}

#[test]
fn errors_about_packets_to_the_target_reach_the_client() -> Result<()> {
    let mut bench = Bench::new()?;
    for (frame, forwarded) in plain().into_iter().take(2) {
        let vip = frame.to.0;
        bench.run(&frame.bytes())?;
        // Hop limits of quoted packets are what the finder of the error saw.
        let mut as_sent = frame.clone();
        as_sent.hops = forwarded.hops;
        for finder in [router(vip), forwarded.to.0] {
            let error = error_about(finder, vip, 50, &forwarded.bytes());
            let expected = error_about(vip, frame.from.0, 49, &as_sent.bytes());
            bench.becomes(&error, &expected)?;
        }
    }
    Ok(())
}

#[test]
fn errors_that_quote_too_little_or_something_else_are_dropped() -> Result<()> {
    let mut bench = Bench::new()?;
    for (frame, _) in plain().into_iter().take(2) {
        bench.run(&frame.bytes())?;
        let vip = frame.to.0;
        let reply = Frame::between(Protocol::Tcp, frame.to, frame.from).bytes();
        let whole = error_about(router(vip), vip, 50, &reply);
        // Up to the quoted ports.
        let (headers, needed) = if vip.is_ipv4() { (42, 24) } else { (62, 44) };
        for quoted in 0..needed {
            bench.drops(&whole[..headers + quoted], Event::UnknownError)?;
        }
        bench.run(&whole[..headers + needed])?;
        let mut last = whole.clone();
        last[if vip.is_ipv4() { 22 } else { 21 }] = 1;
        bench.drops(&last, Event::Ttl)?;
        // About a packet that was not the address's.
        let foreign = Frame::between(Protocol::Tcp, (router(vip), PORT), frame.from).bytes();
        let error = error_about(router(vip), vip, 50, &foreign);
        bench.drops(&error, Event::UnknownError)?;
    }
    Ok(())
}

#[test]
fn service_that_is_off_is_left_to_the_stack() -> Result<()> {
    let mut bench = Bench::new()?;
    for mut frame in [Frame::v4(Protocol::Tcp), Frame::v6(Protocol::Udp)] {
        frame.to.1 = OFF_PORT;
        bench.leaves(&frame.bytes(), TestRun::NEXT, Some(Event::PassedToStack))?;
    }
    bench.aim_at(&[])?;
    for frame in [Frame::v4(Protocol::Tcp), Frame::v6(Protocol::Udp)] {
        bench.leaves(&frame.bytes(), TestRun::NEXT, Some(Event::PassedToStack))?;
    }
    Ok(())
}

#[test]
fn node_that_is_not_the_holder_hands_on_once_or_drops() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.held_by(Holder::Peer {
        address: node4(3).into(),
    })?;
    for (frame, _) in plain() {
        let expected = frame.sent_on(frame.from, frame.to);
        bench.becomes(&frame.bytes(), &expected.bytes())?;
        let mut handed_on = frame.clone();
        handed_on.mac = PEER_MAC;
        bench.drops(&handed_on.bytes(), Event::Loop)?;
        let mut last = frame.clone();
        last.hops = 1;
        bench.drops(&last.bytes(), Event::Ttl)?;

        // A target's own reply is handed on, one that somebody else handed on is not.
        let is_ipv4 = frame.from.0.is_ipv4();
        let mut reply = frame.clone();
        reply.from = (
            if is_ipv4 {
                node4(2).into()
            } else {
                node6(2).into()
            },
            NODE_PORT,
        );
        reply.mac = PEER_MAC;
        let expected = reply.sent_on(reply.from, reply.to);
        bench.becomes(&reply.bytes(), &expected.bytes())?;
        reply.mac = [2, 0, 0, 0, 0, 3];
        bench.drops(&reply.bytes(), Event::Loop)?;
    }
    bench.held_by(Holder::Nobody)?;
    for (frame, _) in plain() {
        bench.drops(&frame.bytes(), Event::NoHolder)?;
    }
    Ok(())
}

#[test]
fn what_another_node_sends_us_of_a_service_that_has_no_targets_here_is_kube_proxys() -> Result<()> {
    let mut bench = Bench::new()?;
    let peer = Holder::Peer {
        address: node4(3).into(),
    };
    for holder in [peer, Holder::Nobody, Holder::Me] {
        bench.held_by(holder)?;
        for (mut frame, _) in plain() {
            frame.to.1 = OFF_PORT;
            frame.mac = PEER_MAC;
            bench.leaves(&frame.bytes(), TestRun::NEXT, Some(Event::FromNode))?;
        }
    }
    bench.held_by(peer)?;
    for (mut frame, _) in plain() {
        frame.to.1 = OFF_PORT;
        let expected = frame.sent_on(frame.from, frame.to);
        bench.becomes(&frame.bytes(), &expected.bytes())?;
    }
    Ok(())
}

#[test]
fn reply_of_a_flow_that_only_the_holder_before_knows_is_handed_to_it_once() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.held_by(Holder::MeAfter {
        address: node4(3).into(),
    })?;
    for (frame, _) in plain() {
        let mut reply = frame.clone();
        let is_ipv4 = frame.from.0.is_ipv4();
        let target = if is_ipv4 {
            node4(2).into()
        } else {
            node6(2).into()
        };
        reply.from = (target, NODE_PORT);
        reply.mac = PEER_MAC;
        let expected = reply.sent_on(reply.from, reply.to);
        bench.becomes(&reply.bytes(), &expected.bytes())?;
        reply.mac = [2, 0, 0, 0, 0, 3];
        bench.drops(&reply.bytes(), Event::Loop)?;
    }
    bench.held_by(Holder::Me)?;
    let mut reply = Frame::v4(Protocol::Tcp);
    reply.from = (node4(2).into(), NODE_PORT);
    reply.mac = PEER_MAC;
    bench.drops(&reply.bytes(), Event::StrayReply)
}

#[test]
fn flows_of_an_earlier_time_as_holder_are_forgotten() -> Result<()> {
    let mut bench = Bench::new()?;
    let frame = Frame::v4(Protocol::Tcp);
    let expected = frame.sent_on((VIP4.into(), CLIENT_PORT), (node4(2).into(), NODE_PORT));
    bench.becomes(&frame.bytes(), &expected.bytes())?;
    bench.held_by(Holder::Peer {
        address: node4(3).into(),
    })?;
    bench.held_by(Holder::Me)?;
    // Another client has the port now: what the old flow says must not stand in its way.
    let mut other = frame.clone();
    other.from.0 = Ipv4Addr::new(198, 51, 100, 8).into();
    bench.becomes(&other.bytes(), &expected.bytes())?;
    let mut reply = Frame::between(Protocol::Tcp, expected.to, expected.from);
    reply.mac = PEER_MAC;
    let sent_on = reply.sent_on(other.to, other.from);
    bench.becomes(&reply.bytes(), &sent_on.bytes())
}

#[test]
fn a_connection_from_a_port_that_was_used_before_is_counted_and_a_repeated_syn_is_not() -> Result<()>
{
    const TCP_FLAGS: usize = 14 + 20 + 13;
    const RST: u8 = 4;
    let mut bench = Bench::new()?;
    let syn = Frame::v4(Protocol::Tcp).bytes();
    let mut reset = syn.clone();
    reset[TCP_FLAGS] = RST;
    for (frame, flows) in [(&syn, 1), (&syn, 1), (&reset, 1), (&syn, 2)] {
        bench.run(frame)?;
        let services = bench.data_plane.counters()?.services;
        assert_eq!(
            services.values().map(|counts| counts.flows).sum::<u64>(),
            flows
        );
    }
    Ok(())
}

#[test]
fn a_client_that_finds_every_port_taken_is_dropped_and_counted() -> Result<()> {
    let mut bench = Bench::with(desired(), DEFAULT_FLOWS)?;
    let mut frame = Frame::v4(Protocol::Udp);
    for port in 1_024..=u16::MAX {
        frame.from.1 = port;
        let result = bench.run(&frame.bytes())?;
        assert_eq!(result.verdict, TestRun::REDIRECT, "{port}");
    }
    let mut other = frame.clone();
    other.from = (Ipv4Addr::new(198, 51, 100, 8).into(), CLIENT_PORT);
    bench.drops(&other.bytes(), Event::NoSourcePort)?;
    // Below there is room: nobody has been given a port there.
    other.from.1 = 1_023;
    assert_eq!(bench.run(&other.bytes())?.verdict, TestRun::REDIRECT);
    Ok(())
}

#[test]
fn second_client_with_the_same_port_gets_another() -> Result<()> {
    let mut bench = Bench::new()?;
    let frame = Frame::v4(Protocol::Tcp);
    bench.run(&frame.bytes())?;
    let mut other = frame.clone();
    other.from.0 = Ipv4Addr::new(198, 51, 100, 8).into();
    let result = bench.run(&other.bytes())?;
    let changed = bench.data_plane.counters()?.events[&Event::SourcePortChanged];
    assert_eq!((result.verdict, changed), (TestRun::REDIRECT, 1));
    Ok(())
}
