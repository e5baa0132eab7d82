//! Datagrams in fragments, of which only the first has the ports.

use anyhow::Result;
use etherparse::{IcmpEchoHeader, Icmpv4Type, Icmpv6Type};
use herald_dataplane::Event;
use herald_model::Protocol;

use crate::bench::{Bench, DIRECT_RANGED_PORT, PEER_MAC};
use crate::direct::{framed, frames, only_direct_ports, other_client};
use crate::frame::{Frame, error_about, icmp};
use crate::plain;

/// So that 8 bytes of UDP or 20 of TCP and the first of the payload end where a fragment may.
pub(crate) fn first_bytes(frame: &Frame) -> usize {
    match frame.protocol {
        Protocol::Tcp => 12,
        Protocol::Udp | Protocol::Sctp => 16,
    }
}

fn cut(frame: &Frame, id: u32) -> [Vec<u8>; 2] {
    frame.fragments(id, first_bytes(frame))
}

#[test]
fn later_fragments_go_where_the_first_went_and_their_answers_come_back() -> Result<()> {
    let mut bench = Bench::new()?;
    for (id, (frame, expected)) in (100..).zip(plain()) {
        let [first, later] = cut(&frame, id);
        let [first_out, later_out] = cut(&expected, id);
        bench.drops(&later, Event::Fragment)?;
        bench.becomes(&first, &first_out)?;
        bench.becomes(&later, &later_out)?;
        // Neither another datagram nor another client's with the same number.
        let [_, other] = cut(&frame, id + 100);
        bench.drops(&other, Event::Fragment)?;
        let mut stranger = frame.clone();
        stranger.from.0 = other_client(frame.from.0);
        let [_, other] = cut(&stranger, id);
        bench.drops(&other, Event::Fragment)?;

        let mut reply = Frame::between(frame.protocol, expected.to, expected.from);
        reply.mac = PEER_MAC;
        let [first, later] = cut(&reply, id);
        let [first_out, later_out] = cut(&reply.sent_on(frame.to, frame.from), id);
        bench.drops(&later, Event::Fragment)?;
        bench.becomes(&first, &first_out)?;
        bench.becomes(&later, &later_out)?;
    }
    Ok(())
}

#[test]
fn fragments_are_sent_on_as_they_are() -> Result<()> {
    let mut bench = Bench::new()?;
    for (id, mut frame) in (100..).zip(frames()) {
        let sent_on = |frame: &Frame| {
            let hop_further = frame.sent_on(frame.from, frame.to);
            cut(&hop_further, id).map(|bytes| framed(2, &bytes))
        };
        let [first, later] = cut(&frame, id);
        let [first_out, later_out] = sent_on(&frame);
        bench.drops(&later, Event::Fragment)?;
        bench.becomes(&first, &first_out)?;
        bench.becomes(&later, &later_out)?;
        // A number comes again, for another port.
        frame.to.1 = DIRECT_RANGED_PORT;
        frame.from.1 += 1;
        let [first, later] = cut(&frame, id);
        let [first_out, later_out] = sent_on(&frame);
        bench.becomes(&first, &first_out)?;
        bench.becomes(&later, &later_out)?;
    }
    Ok(())
}

#[test]
fn fragments_of_strangers_to_no_service_take_no_room() -> Result<()> {
    let mut bench = Bench::new()?;
    for (id, mut frame) in (100..).zip(frames()) {
        frame.to.1 = 9_999;
        let [first, later] = cut(&frame, id);
        bench.drops(&first, Event::UnknownPort)?;
        bench.drops(&later, Event::Fragment)?;
    }
    Ok(())
}

#[test]
fn errors_about_an_answers_first_fragment_find_the_target_and_those_about_later_ones_nobody()
-> Result<()> {
    let mut bench = Bench::new()?;
    only_direct_ports(&mut bench)?;
    for (id, frame) in (100..).zip(frames()) {
        let answer = Frame::between(frame.protocol, frame.to, frame.from);
        let [first, later] = cut(&answer, id);
        let (router, vip) = (other_client(frame.to.0), frame.to.0);
        let error = error_about(router, vip, 50, &first);
        let expected = framed(2, &error_about(router, vip, 49, &first));
        bench.becomes(&error, &expected)?;
        bench.drops(&error_about(router, vip, 50, &later), Event::UnknownError)?;
    }
    Ok(())
}

#[test]
fn fragment_that_is_the_only_one_is_whole() -> Result<()> {
    let mut bench = Bench::new()?;
    for (mut frame, mut expected) in plain() {
        if frame.from.0.is_ipv6() {
            let header = vec![(44, vec![0, 0, 0, 0, 0, 0, 9])];
            frame.extensions.clone_from(&header);
            expected.extensions = header;
            bench.becomes(&frame.bytes(), &expected.bytes())?;
        }
    }
    Ok(())
}

#[test]
fn fragments_of_what_has_no_ports_are_dropped() -> Result<()> {
    let mut bench = Bench::new()?;
    let echo = IcmpEchoHeader { id: 1, seq: 1 };
    let (v4, v6) = (Icmpv4Type::EchoRequest(echo), Icmpv6Type::EchoRequest(echo));
    for frame in [Frame::v4(Protocol::Udp), Frame::v6(Protocol::Udp)] {
        let mut first = icmp(frame.from.0, frame.to.0, 64, &v4, &v6);
        if frame.from.0.is_ipv4() {
            // More to come; the header's sum is nothing that the program looks at.
            first[20] = 0x20;
        } else {
            let rest = first.split_off(54);
            first[20] = 44;
            first.extend([58, 0, 0, 1, 0, 0, 0, 9]);
            first.extend(rest);
        }
        bench.drops(&first, Event::Fragment)?;
    }
    Ok(())
}
