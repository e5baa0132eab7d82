//! What leaves a node that is a target of `nodeport` itself: its own answers come by tc egress.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type};
use herald_dataplane::{Event, Holder};
use herald_model::Protocol;
use herald_speaker::io::bpf::TestRun;

use crate::bench::{Bench, NODE_PORT, PEER_MAC, is_sent_as, node4, node6};
use crate::fragments::first_bytes;
use crate::frame::{CLIENT_PORT, CLIENT4, CLIENT6, Frame, VIP4, VIP6, error_about, icmp};

/// As our own kernel addresses what it sends to itself.
const OURSELVES: [u8; 6] = [0; 6];

/// We are the only target, and hold the address.
fn own_target() -> Result<Bench> {
    let mut bench = Bench::new()?;
    bench.aim_at(&[1])?;
    Ok(bench)
}

fn frames() -> [Frame; 4] {
    [
        Frame::v4(Protocol::Tcp),
        Frame::v6(Protocol::Tcp),
        Frame::v4(Protocol::Udp),
        Frame::v6(Protocol::Udp),
    ]
}

fn us(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => node4(1).into(),
        IpAddr::V6(_) => node6(1).into(),
    }
}

/// What our own server answers, as it leaves it.
fn answer(frame: &Frame) -> Frame {
    let from = (us(frame.to.0), NODE_PORT);
    let mut answer = Frame::between(frame.protocol, from, (frame.to.0, CLIENT_PORT));
    answer.mac = OURSELVES;
    answer
}

/// The same with other ends, and all its hops: nothing was routed.
fn between(frame: &Frame, from: (IpAddr, u16), to: (IpAddr, u16)) -> Frame {
    Frame {
        from,
        to,
        ..frame.clone()
    }
}

fn leaves(bench: &mut Bench, frame: &[u8]) -> Result<TestRun> {
    let data_plane = &mut bench.data_plane;
    bench.lan.hosts[0].run(|| Ok(data_plane.test_egress(frame)?))
}

fn leaves_as(bench: &mut Bench, frame: &[u8], expected: &[u8]) -> Result<()> {
    is_sent_as(&leaves(bench, frame)?, expected)
}

/// The frame leaves as it is, and nothing is counted.
fn is_left_alone(bench: &mut Bench, frame: &[u8]) -> Result<()> {
    let before = bench.data_plane.counters()?;
    let result = leaves(bench, frame)?;
    ensure!(
        (result.verdict, result.frame.as_slice()) == (TestRun::NEXT, frame),
        "verdict {}",
        result.verdict
    );
    assert_eq!(bench.data_plane.counters()?, before);
    Ok(())
}

#[test]
fn our_own_answer_is_the_addresss_and_keeps_its_hops() -> Result<()> {
    let mut bench = own_target()?;
    for frame in frames() {
        bench.run(&frame.bytes())?;
        for hops in [1, 64] {
            let mut answer = answer(&frame);
            answer.hops = hops;
            let expected = between(&answer, frame.to, frame.from);
            leaves_as(&mut bench, &answer.bytes(), &expected.bytes())?;
        }
    }
    let counted = bench.data_plane.counters()?.services;
    assert_eq!(
        counted.values().map(|all| all.reply_packets).sum::<u64>(),
        8
    );
    Ok(())
}

#[test]
fn fragments_of_our_own_answer_follow_the_first() -> Result<()> {
    let mut bench = own_target()?;
    for (id, frame) in (100..).zip(frames()) {
        bench.run(&frame.bytes())?;
        let answer = answer(&frame);
        let cut = |frame: &Frame| frame.fragments(id, first_bytes(frame));
        let [first, later] = cut(&answer);
        let [first_out, later_out] = cut(&between(&answer, frame.to, frame.from));
        is_left_alone(&mut bench, &later)?;
        leaves_as(&mut bench, &first, &first_out)?;
        leaves_as(&mut bench, &later, &later_out)?;
    }
    Ok(())
}

#[test]
fn what_is_no_answer_of_a_flow_we_know_leaves_as_it_is() -> Result<()> {
    let mut bench = own_target()?;
    for frame in frames() {
        let answer = answer(&frame);
        is_left_alone(&mut bench, &answer.bytes())?;
        bench.run(&frame.bytes())?;
        let mut from_another_port = answer.clone();
        from_another_port.from.1 += 1;
        is_left_alone(&mut bench, &from_another_port.bytes())?;
        let mut to_another_port = answer.clone();
        to_another_port.to.1 += 1;
        is_left_alone(&mut bench, &to_another_port.bytes())?;
        let mut elsewhere = answer.clone();
        elsewhere.to.0 = frame.from.0;
        is_left_alone(&mut bench, &elsewhere.bytes())?;
        let mut sctp = answer;
        sctp.protocol = Protocol::Sctp;
        is_left_alone(&mut bench, &sctp.bytes())?;
    }
    let header = IcmpEchoHeader { id: 7, seq: 9 };
    let echo = (
        Icmpv4Type::EchoRequest(header),
        Icmpv6Type::EchoRequest(header),
    );
    for vip in [IpAddr::from(VIP4), VIP6.into()] {
        is_left_alone(&mut bench, &icmp(us(vip), vip, 64, &echo.0, &echo.1))?;
    }

    // Of an earlier time as holder.
    bench.held_by(Holder::Nobody)?;
    bench.held_by(Holder::Me)?;
    for frame in frames() {
        is_left_alone(&mut bench, &answer(&frame).bytes())?;
    }
    Ok(())
}

#[test]
fn our_own_answer_to_a_flow_of_the_holder_before_us_is_handed_to_it() -> Result<()> {
    let mut bench = own_target()?;
    bench.held_by(Holder::MeAfter {
        address: node4(3).into(),
    })?;
    for (times, frame) in (1..).zip(frames()) {
        let answer = answer(&frame);
        let handed_on = answer.sent_on(answer.from, answer.to);
        leaves_as(&mut bench, &answer.bytes(), &handed_on.bytes())?;
        let events = bench.data_plane.counters()?.events;
        assert_eq!(events[&Event::Relayed], times);
        // Not what goes to who holds it by another's word, nor what is from no NodePort.
        let mut to_a_peer = answer.clone();
        to_a_peer.mac = PEER_MAC;
        is_left_alone(&mut bench, &to_a_peer.bytes())?;
        let mut from_another_port = answer.clone();
        from_another_port.from.1 += 100;
        is_left_alone(&mut bench, &from_another_port.bytes())?;
        let mut last = answer;
        last.hops = 1;
        let before = bench.data_plane.counters()?.events[&Event::Ttl];
        assert_eq!(leaves(&mut bench, &last.bytes())?.verdict, TestRun::DROP);
        let after = bench.data_plane.counters()?.events[&Event::Ttl];
        assert_eq!(after, before + 1);
    }
    Ok(())
}

#[test]
fn errors_that_our_own_kernel_sends_reach_the_client() -> Result<()> {
    let mut bench = own_target()?;
    for frame in frames().into_iter().take(2) {
        let client = frame.from.0;
        let vip = frame.to.0;
        let as_we_got_it = between(&frame, (vip, CLIENT_PORT), (us(vip), NODE_PORT));
        let error = error_about(us(vip), vip, 1, &as_we_got_it.bytes());
        is_left_alone(&mut bench, &error)?;
        bench.run(&frame.bytes())?;
        let expected = error_about(vip, client, 1, &frame.bytes());
        leaves_as(&mut bench, &error, &expected)?;
    }
    assert_eq!(
        bench.data_plane.counters()?.events[&Event::ErrorTranslated],
        2
    );
    Ok(())
}

#[test]
fn an_answer_that_ends_before_its_checksum_is_dropped_and_counted() -> Result<()> {
    let mut bench = own_target()?;
    for (client, headers) in [(IpAddr::from(CLIENT4), 34), (CLIENT6.into(), 54)] {
        let frame = frames()
            .into_iter()
            .find(|frame| frame.from.0 == client)
            .expect("one of each family");
        bench.run(&frame.bytes())?;
        let answer = answer(&frame).bytes();
        let before = bench.data_plane.counters()?.events[&Event::RewriteFailed];
        let result = leaves(&mut bench, &answer[..headers + 14])?;
        let after = bench.data_plane.counters()?.events[&Event::RewriteFailed];
        assert_eq!((result.verdict, after), (TestRun::DROP, before + 1));
    }
    Ok(())
}
