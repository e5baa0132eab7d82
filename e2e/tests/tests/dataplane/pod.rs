//! Mode `pod`, frame by frame.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Result, ensure};
use etherparse::{Icmpv4Type, Icmpv6Type, icmpv4, icmpv6};
use herald_dataplane::{
    DesiredPod, Event, Forwarding, Holder, Spread, Targets, fill, flow_hash, pod_hash, slot,
};
use herald_model::{Protocol, ServiceKey};
use herald_speaker::io::bpf::TestRun;

use crate::bench::{Bench, DIRECT_PORT, DIRECT_RANGED_PORT, PEER_MAC, SEED, node, node4, node6};
use crate::direct::{framed, frames, only_direct_ports, other_client, sent_to};
use crate::fragments::first_bytes;
use crate::frame::{Frame, VIP4, VIP6, error_about, icmp};

mod late;

const POD_PORT: u16 = 8_080;
/// Of a table of up to eight pods.
const POD_SLOTS: u32 = 256;

/// One of our pods, of the family of an address.
fn pod(number: u8, like: IpAddr) -> (IpAddr, u16) {
    let address = match like {
        IpAddr::V4(_) => Ipv4Addr::new(10, 244, 1, number).into(),
        IpAddr::V6(_) => Ipv6Addr::new(0xfd00, 0x10, 0x244, 1, 0, 0, 0, number.into()).into(),
    };
    (address, POD_PORT)
}

/// Nodes with their weights, our own pods, and whether those take new flows.
#[derive(Clone, Copy)]
struct Plan<'a> {
    nodes: &'a [(u8, u32)],
    pods: &'a [(u8, bool)],
    by_address: bool,
}

/// Everything goes to our own pods.
const OWN: &[(u8, u32)] = &[(1, 1)];

fn to(nodes: &'static [(u8, u32)], pods: &'static [(u8, bool)]) -> Plan<'static> {
    Plan {
        nodes,
        pods,
        by_address: false,
    }
}

/// Forwards the direct ports this way.
fn forward(bench: &mut Bench, plan: Plan<'_>) -> Result<()> {
    let targets = Arc::new(Targets {
        spread: Spread::Local,
        weights: plan
            .nodes
            .iter()
            .map(|&(number, weight)| (node(number), weight))
            .collect(),
    });
    for (address, vip) in &mut bench.desired.vips {
        let pods: Arc<[DesiredPod]> = plan
            .pods
            .iter()
            .map(|&(number, takes_new)| DesiredPod {
                address: pod(number, *address).into(),
                takes_new,
            })
            .collect();
        for service in &mut vip.services {
            if [DIRECT_PORT, DIRECT_RANGED_PORT].contains(&service.port) {
                service.forwarding = Forwarding::Pod {
                    targets: Arc::clone(&targets),
                    by_address: plan.by_address,
                    pods: Arc::clone(&pods),
                };
            }
        }
    }
    let compiled = bench.program()?;
    ensure!(compiled.refused.is_empty(), "{:?}", compiled.refused);
    // What a speaker that starts finds is what was written.
    ensure!(bench.data_plane.read()? == bench.contents, "read otherwise");
    Ok(())
}

fn planned(plan: Plan<'_>) -> Result<Bench> {
    let mut bench = Bench::new()?;
    forward(&mut bench, plan)?;
    Ok(bench)
}

/// The address with ports in mode `nodeport` too, and without: then there is less to look at.
fn benches(plan: Plan<'_>) -> Result<[Bench; 2]> {
    let mut alone = Bench::new()?;
    only_direct_ports(&mut alone)?;
    forward(&mut alone, plan)?;
    Ok([planned(plan)?, alone])
}

/// The frame as the pod gets it.
fn at_pod(number: u8, frame: &Frame) -> Frame {
    Frame {
        to: pod(number, frame.to.0),
        ..frame.clone()
    }
}

/// The frame goes up to our own stack as this one.
fn goes_up(bench: &mut Bench, frame: &[u8], expected: &[u8]) -> Result<()> {
    let result = bench.run(frame)?;
    same_run(&result, expected)
}

/// A frame that leaves does so as this one.
fn leaves_as(bench: &mut Bench, frame: &[u8], expected: &[u8]) -> Result<()> {
    let data_plane = &mut bench.data_plane;
    let result = bench.lan.hosts[0].run(|| Ok(data_plane.test_egress(frame)?))?;
    same_run(&result, expected)
}

fn same_run(result: &TestRun, expected: &[u8]) -> Result<()> {
    ensure!(
        result.verdict == TestRun::NEXT,
        "verdict {}",
        result.verdict
    );
    ensure!(
        result.frame == expected,
        "is       {:02x?}\nshould be {expected:02x?}",
        result.frame
    );
    Ok(())
}

/// How often each of these has happened.
fn events(bench: &Bench, events: &[Event]) -> Result<Vec<u64>> {
    let counted = bench.data_plane.counters()?.events;
    Ok(events.iter().map(|event| counted[event]).collect())
}

/// A frame of a connection that is open already.
fn later(frame: &Frame) -> Frame {
    Frame {
        syn: false,
        ..frame.clone()
    }
}

fn reply(number: u8, frame: &Frame) -> Frame {
    Frame::between(frame.protocol, pod(number, frame.to.0), frame.from)
}

#[test]
fn frames_of_clients_go_on_to_a_node_that_has_pods() -> Result<()> {
    for mut bench in benches(to(&[(2, 3)], &[]))? {
        let peer = Holder::Peer {
            address: node4(3).into(),
        };
        for holder in [Holder::Me, peer, Holder::Nobody] {
            bench.held_by(holder)?;
            for mut frame in frames() {
                bench.becomes(&frame.bytes(), &sent_to(2, &frame))?;
                frame.syn = false;
                bench.becomes(&frame.bytes(), &sent_to(2, &frame))?;
                frame.hops = 1;
                bench.drops(&frame.bytes(), Event::Ttl)?;
            }
        }
    }
    Ok(())
}

#[test]
fn our_pod_gets_the_packet_as_its_own_and_its_answer_is_the_addresss() -> Result<()> {
    // Ours by the table, whoever holds the address; and one that another node has chosen us for.
    for (nodes, mac) in [(OWN, None), (&[(2, 1)], Some(PEER_MAC))] {
        for mut bench in benches(to(nodes, &[(5, true)]))? {
            for mut frame in frames() {
                frame.mac = mac.unwrap_or(frame.mac);
                for hops in [1, 64] {
                    frame.hops = hops;
                    goes_up(&mut bench, &frame.bytes(), &at_pod(5, &frame).bytes())?;
                    // Again, by the pin.
                    let next = later(&frame);
                    goes_up(&mut bench, &next.bytes(), &at_pod(5, &next).bytes())?;
                }
                let mut answer = reply(5, &frame);
                answer.syn = false;
                let mut expected = answer.clone();
                expected.from = frame.to;
                leaves_as(&mut bench, &answer.bytes(), &expected.bytes())?;
            }
            let counted = events(
                &bench,
                &[Event::PodChosen, Event::FlowAdopted, Event::NoPod],
            )?;
            assert_eq!(counted, [4, 0, 0]);
        }
    }
    Ok(())
}

#[test]
fn options_extension_headers_and_a_missing_checksum_stay_as_they_are() -> Result<()> {
    let mut bench = planned(to(OWN, &[(5, true)]))?;
    for mut frame in frames() {
        if frame.from.0.is_ipv4() {
            frame.options = vec![1; 40];
            frame.udp_sum = false;
        } else {
            let padding = vec![0, 1, 4, 0, 0, 0, 0];
            frame.extensions = vec![(0, padding.clone()), (60, padding)];
        }
        goes_up(&mut bench, &frame.bytes(), &at_pod(5, &frame).bytes())?;
        let mut answer = reply(5, &frame);
        answer.options.clone_from(&frame.options);
        answer.extensions.clone_from(&frame.extensions);
        answer.udp_sum = frame.udp_sum;
        let expected = Frame {
            from: frame.to,
            ..answer.clone()
        };
        leaves_as(&mut bench, &answer.bytes(), &expected.bytes())?;
    }
    Ok(())
}

#[test]
fn fragments_go_to_the_pod_of_the_first_and_those_of_its_answer_are_the_addresss() -> Result<()> {
    let mut bench = planned(to(OWN, &[(5, true)]))?;
    for (id, frame) in (100..).zip(frames()) {
        let [first, later] = frame.fragments(id, first_bytes(&frame));
        let [first_in, later_in] = at_pod(5, &frame).fragments(id, first_bytes(&frame));
        bench.drops(&later, Event::Fragment)?;
        goes_up(&mut bench, &first, &first_in)?;
        goes_up(&mut bench, &later, &later_in)?;

        let answer = reply(5, &frame);
        let mut expected = answer.clone();
        expected.from = frame.to;
        let [first, later] = answer.fragments(id, first_bytes(&frame));
        let [first_out, later_out] = expected.fragments(id, first_bytes(&frame));
        leaves_as(&mut bench, &later, &later)?;
        leaves_as(&mut bench, &first, &first_out)?;
        leaves_as(&mut bench, &later, &later_out)?;
    }
    Ok(())
}

/// The client of a connection gives it up.
fn reset(frame: &Frame) -> Vec<u8> {
    let mut reset = later(frame).bytes();
    let flags = if frame.from.0.is_ipv4() { 34 } else { 54 } + 13;
    reset[flags] = 0x04;
    reset
}

#[test]
fn what_a_pod_answers_to_a_client_that_did_not_come_by_the_address_is_left_alone() -> Result<()> {
    let mut bench = planned(to(OWN, &[(5, true)]))?;
    for frame in frames() {
        if frame.protocol != Protocol::Tcp {
            continue;
        }
        let answer = reply(5, &frame);
        let mut expected = answer.clone();
        expected.from = frame.to;
        for _ in 0..2 {
            bench.run(&frame.bytes())?;
            leaves_as(&mut bench, &answer.bytes(), &expected.bytes())?;
            // The client closes; then it connects to the pod itself, from the same port.
            bench.run(&reset(&frame))?;
            let data = later(&answer);
            let mut as_the_address = data.clone();
            as_the_address.from = frame.to;
            leaves_as(&mut bench, &data.bytes(), &as_the_address.bytes())?;
            leaves_as(&mut bench, &answer.bytes(), &answer.bytes())?;
            leaves_as(&mut bench, &data.bytes(), &data.bytes())?;
        }
    }
    Ok(())
}

#[test]
fn what_leaves_and_is_no_answer_stays_as_it_is() -> Result<()> {
    let mut bench = planned(to(OWN, &[(5, true)]))?;
    for frame in frames() {
        bench.run(&frame.bytes())?;
        let answer = reply(5, &frame);
        for change in [
            |frame: &mut Frame| frame.from.0 = pod(6, frame.from.0).0,
            |frame: &mut Frame| frame.from.1 += 1,
            |frame: &mut Frame| frame.to.0 = other_client(frame.to.0),
            |frame: &mut Frame| frame.to.1 += 1,
            |frame: &mut Frame| {
                frame.protocol = match frame.protocol {
                    Protocol::Tcp => Protocol::Sctp,
                    other => other,
                };
                frame.from.1 += u16::from(frame.protocol == Protocol::Udp);
            },
        ] {
            let mut other = answer.clone();
            change(&mut other);
            leaves_as(&mut bench, &other.bytes(), &other.bytes())?;
        }
    }
    Ok(())
}

#[test]
fn every_client_gets_the_pod_that_the_table_says() -> Result<()> {
    let pods = &[(5, true), (6, true), (7, true), (8, false)];
    for by_address in [false, true] {
        let plan = Plan {
            by_address,
            ..to(OWN, pods)
        };
        let mut bench = planned(plan)?;
        let mut shares: BTreeMap<u8, u32> = BTreeMap::new();
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
                let names: BTreeMap<SocketAddr, (u32, u8)> = [5, 6, 7]
                    .map(|number| (pod(number, vip).into(), (1, number)))
                    .into();
                let table = fill(SEED, POD_SLOTS, &names);
                let frame = Frame::between(Protocol::Udp, (client, port), (vip, DIRECT_PORT));
                let hashed = if by_address { 0 } else { port };
                let hash = flow_hash(client, hashed, u32::try_from(SEED)?);
                let number = table[slot(pod_hash(hash), POD_SLOTS) as usize].unwrap();
                *shares.entry(number).or_default() += 1;
                goes_up(&mut bench, &frame.bytes(), &at_pod(number, &frame).bytes())?;
            }
        }
        ensure!(
            shares.len() == 3 && shares.values().all(|share| *share >= 80),
            "{shares:?}"
        );
    }
    Ok(())
}

#[test]
fn a_pod_that_terminates_keeps_its_connections_and_gets_no_new_ones() -> Result<()> {
    let mut bench = planned(to(OWN, &[(5, true)]))?;
    for frame in frames() {
        bench.run(&frame.bytes())?;
    }
    forward(&mut bench, to(OWN, &[(5, false), (6, true)]))?;
    for frame in frames() {
        let is_tcp = frame.protocol == Protocol::Tcp;
        let next = later(&frame);
        let has_it = if is_tcp { 5 } else { 6 };
        goes_up(&mut bench, &next.bytes(), &at_pod(has_it, &next).bytes())?;
        let answer = later(&reply(has_it, &frame));
        let expected = Frame {
            from: frame.to,
            ..answer.clone()
        };
        leaves_as(&mut bench, &answer.bytes(), &expected.bytes())?;
        if is_tcp {
            // The same ports, for another connection.
            goes_up(&mut bench, &frame.bytes(), &at_pod(6, &frame).bytes())?;
        }
    }
    Ok(())
}

#[test]
fn what_a_pod_that_is_gone_had_goes_to_another_which_resets_it() -> Result<()> {
    let mut bench = planned(to(OWN, &[(5, true)]))?;
    for frame in frames() {
        bench.run(&frame.bytes())?;
    }
    // The number of the one may be the other's now, or not.
    for pods in [&[(6, true)], &[(7, true)]] {
        forward(&mut bench, to(OWN, pods))?;
        for frame in frames() {
            let next = later(&frame);
            let expected = at_pod(pods[0].0, &next);
            goes_up(&mut bench, &next.bytes(), &expected.bytes())?;
        }
    }
    assert_eq!(events(&bench, &[Event::FlowAdopted])?, [4]);
    Ok(())
}

/// As [`sent_to`], with the hops left that a connection has which this node does not know.
fn handed_to(target: u8, frame: &Frame) -> Vec<u8> {
    let frame = Frame {
        hops: frame.hops.min(8),
        ..frame.clone()
    };
    sent_to(target, &frame)
}

#[test]
fn a_connection_that_is_not_known_goes_on_to_the_node_that_has_its_slot() -> Result<()> {
    // Another node takes its slot for ours; whether we have pods or not.
    for pods in [&[][..], &[(5, true)]] {
        for mut bench in benches(to(&[(2, 1)], pods))? {
            for frame in frames().into_iter().take(2) {
                let mut next = later(&frame);
                next.mac = [2, 0, 0, 0, 0, 3];
                bench.becomes(&next.bytes(), &handed_to(2, &next))?;
                next.hops = 5;
                bench.becomes(&next.bytes(), &handed_to(2, &next))?;
                next.hops = 1;
                bench.drops(&next.bytes(), Event::Ttl)?;
            }
            assert_eq!(events(&bench, &[Event::HandedBack])?, [4]);
        }
    }
    Ok(())
}

#[test]
fn a_connection_that_is_not_known_goes_on_to_the_node_that_had_its_slot() -> Result<()> {
    for mut bench in benches(to(&[(2, 1)], &[(5, true)]))? {
        // All slots come to us; node 2 keeps what it has.
        forward(&mut bench, to(&[(1, 1), (2, 0)], &[(5, true)]))?;
        for frame in frames() {
            if frame.protocol == Protocol::Udp {
                goes_up(&mut bench, &frame.bytes(), &at_pod(5, &frame).bytes())?;
                continue;
            }
            let mut next = later(&frame);
            bench.becomes(&next.bytes(), &handed_to(2, &next))?;
            next.hops = 1;
            bench.drops(&next.bytes(), Event::Ttl)?;
            next.hops = 64;
            // From whoever chose us.
            next.mac = [2, 0, 0, 0, 0, 3];
            bench.becomes(&next.bytes(), &handed_to(2, &next))?;
            // A new connection is ours, and stays so.
            goes_up(&mut bench, &frame.bytes(), &at_pod(5, &frame).bytes())?;
            next.mac = frame.mac;
            goes_up(&mut bench, &next.bytes(), &at_pod(5, &next).bytes())?;
            // What that node itself asks us for is not sent back.
            next.from.1 += 1;
            next.mac = PEER_MAC;
            goes_up(&mut bench, &next.bytes(), &at_pod(5, &next).bytes())?;
        }
        assert_eq!(events(&bench, &[Event::HandedBack])?, [4]);
        // It has no pods any more, or is dead: another resets the connection.
        forward(&mut bench, to(&[(1, 1)], &[(5, true)]))?;
        for mut frame in frames().into_iter().take(2) {
            frame.syn = false;
            frame.from.1 += 2;
            goes_up(&mut bench, &frame.bytes(), &at_pod(5, &frame).bytes())?;
        }
    }
    Ok(())
}

#[test]
fn a_slot_that_comes_and_goes_is_known_to_have_been_the_others() -> Result<()> {
    let mut bench = planned(to(&[(1, 1)], &[(5, true)]))?;
    for nodes in [&[(1, 0), (2, 1)], &[(1, 1), (2, 0)]] {
        forward(&mut bench, to(nodes, &[(5, true)]))?;
    }
    for mut frame in frames().into_iter().take(2) {
        frame.syn = false;
        bench.becomes(&frame.bytes(), &handed_to(2, &frame))?;
    }
    // A change of something else does not make it forget.
    forward(&mut bench, to(&[(1, 1), (2, 0)], &[(5, true), (6, true)]))?;
    for mut frame in frames().into_iter().take(2) {
        frame.syn = false;
        bench.becomes(&frame.bytes(), &handed_to(2, &frame))?;
    }
    Ok(())
}

#[test]
fn the_node_that_is_asked_for_what_it_had_serves_it_and_asks_nobody() -> Result<()> {
    let mut bench = planned(to(OWN, &[(5, true)]))?;
    for frame in frames() {
        bench.run(&frame.bytes())?;
    }
    forward(&mut bench, to(&[(1, 0), (2, 1)], &[(5, false)]))?;
    for frame in frames().into_iter().take(2) {
        let mut next = later(&frame);
        // Nor does it send a client's packet of it away, or an error about one.
        goes_up(&mut bench, &next.bytes(), &at_pod(5, &next).bytes())?;
        let sent = reply(5, &frame).bytes();
        let router = other_client(frame.to.0);
        let expected = error_about(router, pod(5, frame.to.0).0, 50, &sent);
        goes_up(&mut bench, &error_about_reply(&frame, 50), &expected)?;
        bench.becomes(&frame.bytes(), &sent_to(2, &frame))?;
        next.mac = PEER_MAC;
        goes_up(&mut bench, &next.bytes(), &at_pod(5, &next).bytes())?;
        // What it never had: no pod of ours takes it, and kube-proxy resets it.
        next.from.1 += 1;
        bench.leaves(&next.bytes(), TestRun::NEXT, Some(Event::NoPod))?;
        next.mac = frame.mac;
        bench.becomes(&next.bytes(), &sent_to(2, &next))?;
    }
    Ok(())
}

#[test]
fn without_a_pod_here_it_is_kube_proxys_and_stays_so() -> Result<()> {
    for mut bench in benches(to(&[(2, 1)], &[]))? {
        for mut frame in frames() {
            frame.mac = PEER_MAC;
            for _ in 0..2 {
                bench.leaves(&frame.bytes(), TestRun::NEXT, Some(Event::NoPod))?;
            }
        }
        forward(&mut bench, to(&[(2, 1)], &[(5, true)]))?;
        for mut frame in frames() {
            frame.mac = PEER_MAC;
            if frame.protocol == Protocol::Tcp {
                let next = later(&frame).bytes();
                bench.leaves(&next, TestRun::NEXT, Some(Event::PassedToStack))?;
            }
            // A new connection, and any datagram.
            goes_up(&mut bench, &frame.bytes(), &at_pod(5, &frame).bytes())?;
            let next = later(&frame);
            goes_up(&mut bench, &next.bytes(), &at_pod(5, &next).bytes())?;
        }
    }
    Ok(())
}

#[test]
fn without_any_node_kube_proxy_is_to_refuse() -> Result<()> {
    let mut bench = planned(to(&[(1, 0)], &[(5, false)]))?;
    for frame in frames() {
        bench.leaves(&frame.bytes(), TestRun::NEXT, Some(Event::PassedToStack))?;
    }
    Ok(())
}

/// The frame to the second direct port, which is another Service's.
fn to_other_service(frame: &Frame) -> Frame {
    Frame {
        to: (frame.to.0, DIRECT_RANGED_PORT),
        ..frame.clone()
    }
}

#[test]
fn two_flows_that_a_pod_could_not_tell_apart_get_two_pods_or_one_is_kube_proxys() -> Result<()> {
    let mut bench = planned(to(OWN, &[(5, true)]))?;
    for frame in frames() {
        let other = to_other_service(&frame);
        goes_up(&mut bench, &frame.bytes(), &at_pod(5, &frame).bytes())?;
        bench.leaves(&other.bytes(), TestRun::NEXT, Some(Event::PodTaken))?;
        if frame.protocol == Protocol::Tcp {
            let next = later(&other).bytes();
            bench.leaves(&next, TestRun::NEXT, Some(Event::PassedToStack))?;
        }
        // From another port it is told apart.
        let mut third = other.clone();
        third.from.1 += 1;
        goes_up(&mut bench, &third.bytes(), &at_pod(5, &third).bytes())?;
        // Nor does one that has ended stand in the way.
        if frame.protocol == Protocol::Tcp {
            bench.run(&reset(&frame))?;
            goes_up(&mut bench, &other.bytes(), &at_pod(5, &other).bytes())?;
        }
    }

    let mut bench = planned(to(OWN, &[(5, true), (6, true)]))?;
    let mut shared = 0;
    for port in 0..40 {
        for mut frame in frames() {
            frame.from.1 += port;
            let other = to_other_service(&frame);
            let mut both = Vec::new();
            for frame in [&frame, &other] {
                let result = bench.run(&frame.bytes())?;
                let found = [5, 6]
                    .into_iter()
                    .find(|&number| result.frame == at_pod(number, frame).bytes());
                both.extend(found);
                if let Some(number) = found {
                    let answer = reply(number, frame);
                    let expected = Frame {
                        from: frame.to,
                        ..answer.clone()
                    };
                    leaves_as(&mut bench, &answer.bytes(), &expected.bytes())?;
                }
            }
            if let [one, other] = both.as_slice() {
                ensure!(one != other, "both at pod {one}");
                shared += 1;
            }
        }
    }
    // Of four attempts each hits the one or the other.
    ensure!(shared > 120, "only {shared} of 160");
    Ok(())
}

#[test]
fn client_outside_the_ranges_is_dropped_by_every_node() -> Result<()> {
    for nodes in [OWN, &[(2, 1)]] {
        let mut bench = planned(to(nodes, &[(5, true)]))?;
        for frame in frames() {
            let mut outside = to_other_service(&frame);
            outside.from.0 = other_client(frame.from.0);
            for mac in [frame.mac, PEER_MAC] {
                outside.mac = mac;
                bench.drops(&outside.bytes(), Event::SourceRange)?;
            }
        }
    }
    Ok(())
}

/// An error about what the pod sent, which the client's side knows as the address's.
fn error_about_reply(frame: &Frame, hops: u8) -> Vec<u8> {
    let sent = Frame::between(frame.protocol, frame.to, frame.from).bytes();
    error_about(other_client(frame.to.0), frame.to.0, hops, &sent)
}

#[test]
fn errors_about_a_pods_packets_reach_the_pod() -> Result<()> {
    // Of UDP the quoted eight bytes hold the checksum, which stays as it was.
    let tcp = || frames().into_iter().take(2);
    let mut bench = planned(to(OWN, &[(5, true)]))?;
    for frame in tcp() {
        bench.leaves(
            &error_about_reply(&frame, 50),
            TestRun::NEXT,
            Some(Event::PassedToStack),
        )?;
        bench.run(&frame.bytes())?;
        let sent = reply(5, &frame).bytes();
        let router = other_client(frame.to.0);
        let expected = error_about(router, pod(5, frame.to.0).0, 50, &sent);
        for mac in [frame.mac, PEER_MAC] {
            let mut error = error_about_reply(&frame, 50);
            error[6..12].copy_from_slice(&mac);
            let mut expected = expected.clone();
            expected[6..12].copy_from_slice(&mac);
            goes_up(&mut bench, &error, &expected)?;
        }
    }
    assert_eq!(events(&bench, &[Event::ErrorTranslated])?, [4]);

    // Of another node's pod: to that node. Of one that had the slot: likewise.
    forward(&mut bench, to(&[(2, 1)], &[]))?;
    for frame in tcp() {
        let error = error_about_reply(&frame, 50);
        bench.becomes(&error, &framed(2, &error_about_reply(&frame, 49)))?;
    }
    forward(&mut bench, to(&[(1, 1), (2, 0)], &[(5, true)]))?;
    for mut frame in tcp() {
        frame.from.1 += 1;
        let error = error_about_reply(&frame, 50);
        bench.becomes(&error, &framed(2, &error_about_reply(&frame, 7)))?;
    }
    assert_eq!(events(&bench, &[Event::HandedBack])?, [2]);
    Ok(())
}

#[test]
fn errors_about_clients_packets_to_a_pod_are_about_the_address_to_the_client() -> Result<()> {
    let mut bench = planned(to(OWN, &[(5, true)]))?;
    for frame in frames().into_iter().take(2) {
        let seen = at_pod(5, &frame).bytes();
        let own: IpAddr = match frame.to.0 {
            IpAddr::V4(_) => node4(1).into(),
            IpAddr::V6(_) => node6(1).into(),
        };
        let at = pod(5, frame.to.0).0;
        // Before there is a flow it is somebody else's.
        let error = error_about(at, frame.from.0, 50, &seen);
        leaves_as(&mut bench, &error, &error)?;
        bench.run(&frame.bytes())?;
        // Of the pod itself, which the client does not know, and of our node.
        for (finder, told) in [(at, frame.to.0), (own, own)] {
            let error = error_about(finder, frame.from.0, 50, &seen);
            let expected = error_about(told, frame.from.0, 50, &frame.bytes());
            leaves_as(&mut bench, &error, &expected)?;
        }
        // About a packet to somebody else, and about none.
        let foreign = Frame::between(Protocol::Tcp, frame.from, (own, POD_PORT)).bytes();
        let error = error_about(own, frame.from.0, 50, &foreign);
        leaves_as(&mut bench, &error, &error)?;
        let whole = error_about(at, frame.from.0, 50, &seen);
        let (headers, needed) = if at.is_ipv4() { (42, 24) } else { (62, 44) };
        for quoted in 0..needed {
            let cut = &whole[..headers + quoted];
            leaves_as(&mut bench, cut, cut)?;
        }
    }
    assert_eq!(events(&bench, &[Event::ErrorTranslated])?, [4]);
    Ok(())
}

#[test]
fn pings_of_a_pod_leave_as_they_are() -> Result<()> {
    let mut bench = planned(to(OWN, &[(5, true)]))?;
    let header = etherparse::IcmpEchoHeader { id: 7, seq: 9 };
    let port = (
        Icmpv4Type::DestinationUnreachable(icmpv4::DestUnreachableHeader::Port),
        Icmpv6Type::DestinationUnreachable(icmpv6::DestUnreachableCode::Port),
    );
    for frame in frames() {
        bench.run(&frame.bytes())?;
        let at = pod(5, frame.to.0).0;
        let four = Icmpv4Type::EchoRequest(header);
        let six = Icmpv6Type::EchoRequest(header);
        for (four, six) in [(four, six), port.clone()] {
            // What the second one should quote is no IP header.
            let message = icmp(at, frame.from.0, 9, &four, &six);
            leaves_as(&mut bench, &message, &message)?;
        }
    }
    Ok(())
}

#[test]
fn what_is_sent_on_is_counted_by_who_sends_it_and_answers_by_who_answers() -> Result<()> {
    let name = ServiceKey::new("default", format!("s{DIRECT_PORT}"));
    let [tcp, ..] = frames();
    let bytes = u64::try_from(tcp.bytes().len())?;
    let mut bench = planned(to(OWN, &[(5, true)]))?;
    let id = bench.program()?.service_ids[&name];
    bench.run(&tcp.bytes())?;
    bench.run(&later(&tcp).bytes())?;
    // Another node has counted this one.
    let mut of_node = later(&tcp);
    of_node.mac = PEER_MAC;
    bench.run(&of_node.bytes())?;
    let data_plane = &mut bench.data_plane;
    let answer = later(&reply(5, &tcp)).bytes();
    bench.lan.hosts[0].run(|| Ok(data_plane.test_egress(&answer)?))?;
    let counted = bench.data_plane.counters()?.services[&id];
    assert_eq!(
        (counted.packets, counted.bytes, counted.flows),
        (2, 2 * bytes, 1)
    );
    assert_eq!((counted.reply_packets, counted.reply_bytes), (1, bytes));
    Ok(())
}

#[test]
fn a_node_without_a_link_to_the_target_drops_and_says_so() -> Result<()> {
    let mut bench = planned(to(&[(2, 1)], &[]))?;
    bench.desired.nodes.get_mut(&node(2)).unwrap().links.clear();
    bench.program()?;
    for frame in frames() {
        bench.drops(&frame.bytes(), Event::NoLink)?;
    }
    Ok(())
}
