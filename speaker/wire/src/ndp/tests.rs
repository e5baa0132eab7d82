use etherparse::{LaxPacketHeaders, TransportHeader};
use proptest::prelude::*;

use super::*;
use crate::parse;

const CLIENT: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xc1]);
const NODE: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const VIP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12, 0x3456);
const CLIENT_IP: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xc1);
const NODE_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 1);

fn solicitation() -> NeighbourSolicitation {
    let group = solicited_node(VIP);
    NeighbourSolicitation {
        ethernet_source: CLIENT,
        ethernet_destination: multicast_mac(group),
        source: CLIENT_IP,
        destination: group,
        target: VIP,
        source_mac: Some(CLIENT),
    }
}

#[rustfmt::skip]
const GOLDEN_SOLICITATION: [u8; 86] = [
    0x33, 0x33, 0xff, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 0xc1, 0x86, 0xdd,
    0x60, 0, 0, 0, 0, 32, 58, 255,
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc1,
    0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x12, 0x34, 0x56,
    135, 0, 0, 0, 0, 0, 0, 0,
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56,
    1, 1, 2, 0, 0, 0, 0, 0xc1,
];

#[rustfmt::skip]
const GOLDEN_ANSWER: [u8; 86] = [
    2, 0, 0, 0, 0, 0xc1, 2, 0, 0, 0, 0, 1, 0x86, 0xdd,
    0x60, 0, 0, 0, 0, 32, 58, 255,
    0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 1,
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc1,
    136, 0, 0, 0, 0x60, 0, 0, 0,
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56,
    2, 1, 2, 0, 0, 0, 0, 1,
];

#[rustfmt::skip]
const GOLDEN_UNSOLICITED: [u8; 86] = [
    0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 1, 0x86, 0xdd,
    0x60, 0, 0, 0, 0, 32, 58, 255,
    0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 1,
    0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
    136, 0, 0, 0, 0x20, 0, 0, 0,
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56,
    2, 1, 2, 0, 0, 0, 0, 1,
];

#[rustfmt::skip]
const GOLDEN_PROBE: [u8; 78] = [
    0x33, 0x33, 0xff, 0x12, 0x34, 0x56, 2, 0, 0, 0, 0, 0xc1, 0x86, 0xdd,
    0x60, 0, 0, 0, 0, 24, 58, 255,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0x12, 0x34, 0x56,
    135, 0, 0, 0, 0, 0, 0, 0,
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12, 0x34, 0x56,
];

/// The internet checksum over pseudo header and message, written independently of pnet.
#[expect(
    clippy::arithmetic_side_effects,
    reason = "a test's frames are short enough"
)]
fn with_checksum(golden: &[u8]) -> Vec<u8> {
    let mut bytes = golden.to_vec();
    bytes[56] = 0;
    bytes[57] = 0;
    let mut sum = 58 + u32::try_from(bytes.len() - 54).unwrap();
    for pair in bytes[22..].chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair[1]);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [high, low] = (!u16::try_from(sum).unwrap()).to_be_bytes();
    bytes[56] = high;
    bytes[57] = low;
    bytes
}

fn cases() -> [(Heard, Frame, Vec<u8>); 4] {
    let answer = NeighbourAdvertisement::answer(&solicitation(), NODE, NODE_LINK_LOCAL);
    let unsolicited = NeighbourAdvertisement::unsolicited(VIP, NODE, NODE_LINK_LOCAL);
    let probe = NeighbourSolicitation::probe(CLIENT, VIP);
    [
        (
            Heard::Solicitation(solicitation()),
            solicitation().emit(),
            with_checksum(&GOLDEN_SOLICITATION),
        ),
        (
            Heard::Advertisement(answer),
            answer.emit(),
            with_checksum(&GOLDEN_ANSWER),
        ),
        (
            Heard::Advertisement(unsolicited),
            unsolicited.emit(),
            with_checksum(&GOLDEN_UNSOLICITED),
        ),
        (
            Heard::Solicitation(probe),
            probe.emit(),
            with_checksum(&GOLDEN_PROBE),
        ),
    ]
}

/// Changes one byte and makes the checksum right again.
fn changed(bytes: &[u8], position: usize, value: u8) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[position] = value;
    with_checksum(&bytes)
}

#[test]
fn every_form_has_its_golden_bytes_both_ways() {
    for (heard, frame, bytes) in cases() {
        assert_eq!(frame.as_bytes(), bytes, "{heard:?}");
        assert_eq!(parse(&bytes), Ok(heard));
    }
}

#[test]
fn padding_of_a_frame_is_ignored() {
    for (heard, _, mut bytes) in cases() {
        bytes.extend([0xa5; 9]);
        assert_eq!(parse(&bytes), Ok(heard));
    }
}

#[test]
fn truncated_frames_are_refused_at_every_length() {
    for (_, _, bytes) in cases() {
        for length in 0..bytes.len() {
            assert_eq!(
                parse(&bytes[..length]),
                Err(ParseError::Truncated),
                "{length}"
            );
        }
    }
}

#[test]
fn detection_of_duplicates_is_answered_to_all_nodes_and_not_solicited() {
    let answer = NeighbourAdvertisement::answer(
        &NeighbourSolicitation::probe(CLIENT, VIP),
        NODE,
        NODE_LINK_LOCAL,
    );
    assert_eq!(
        answer,
        NeighbourAdvertisement::unsolicited(VIP, NODE, NODE_LINK_LOCAL)
    );
    assert!(answer.overriding && !answer.solicited);
}

#[test]
fn solicitation_without_option_is_answered_to_the_sender_of_the_frame() {
    let bare = NeighbourSolicitation {
        source_mac: None,
        ..solicitation()
    };
    let answer = NeighbourAdvertisement::answer(&bare, NODE, NODE_LINK_LOCAL);
    assert_eq!(answer.ethernet_destination, CLIENT);
}

#[test]
fn a_message_that_breaks_a_rule_is_discarded() {
    let invalid = |bytes: &[u8]| matches!(parse(bytes), Err(ParseError::Invalid { .. }));
    let solicitation = with_checksum(&GOLDEN_SOLICITATION);
    assert!(invalid(&changed(&solicitation, 21, 254)), "hop limit");
    assert!(invalid(&changed(&solicitation, 55, 1)), "code");
    assert!(invalid(&changed(&solicitation, 62, 0xff)), "target");
    assert!(invalid(&changed(&solicitation, 79, 0)), "option length");
    let mut wrong = solicitation;
    wrong[57] ^= 1;
    assert!(invalid(&wrong), "checksum");

    let probe = with_checksum(&GOLDEN_PROBE);
    assert!(invalid(&changed(&probe, 53, 1)), "group of another address");
    let mut with_option = GOLDEN_SOLICITATION.to_vec();
    with_option[22..38].fill(0);
    assert!(invalid(&with_checksum(&with_option)), "option in a probe");
    let unsolicited = with_checksum(&GOLDEN_UNSOLICITED);
    assert!(invalid(&changed(&unsolicited, 58, 0x60)), "answer to all");
}

#[test]
fn options_of_other_kinds_and_lengths_are_skipped() {
    let mut bytes = GOLDEN_SOLICITATION.to_vec();
    let long = [[14, 32].as_slice(), &[7; 254]].concat();
    bytes.splice(78..78, long);
    bytes[18..20].copy_from_slice(&(32u16 + 256).to_be_bytes());
    assert_eq!(
        parse(&with_checksum(&bytes)),
        Ok(Heard::Solicitation(solicitation()))
    );
}

#[test]
fn other_messages_are_foreign() {
    let solicitation = with_checksum(&GOLDEN_SOLICITATION);
    for (position, value) in [(14, 0x40), (20, 17), (54, 134)] {
        assert_eq!(
            parse(&changed(&solicitation, position, value)),
            Err(ParseError::Foreign),
            "byte {position}"
        );
    }
}

#[test]
fn an_independent_decoder_agrees() {
    for (_, _, bytes) in cases() {
        let headers = LaxPacketHeaders::from_ethernet(&bytes).unwrap();
        let Some(etherparse::NetHeaders::Ipv6(ipv6, _)) = &headers.net else {
            panic!("no IPv6 header");
        };
        assert_eq!(ipv6.hop_limit, 255);
        assert_eq!(usize::from(ipv6.payload_length), bytes.len() - 54);
        let Some(TransportHeader::Icmpv6(icmp)) = &headers.transport else {
            panic!("no ICMPv6 header");
        };
        let computed = icmp
            .icmp_type
            .calc_checksum(ipv6.source, ipv6.destination, headers.payload.slice())
            .unwrap();
        assert_eq!(icmp.checksum, computed);
    }
}

proptest! {
    #[test]
    fn parsing_never_panics_behind_an_ipv6_header(
        form in 0..4usize,
        from in 14..78usize,
        noise in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut frame = cases()[form].2.clone();
        frame.splice(from.., noise);
        let _outcome = parse(&frame);
        if frame.len() > 58 && frame.len().is_multiple_of(2) {
            let _outcome = parse(&with_checksum(&frame));
        }
    }

    #[test]
    fn what_is_emitted_is_parsed(
        (mac, source, target, option) in any::<([u8; 6], [u8; 16], [u8; 16], Option<[u8; 6]>)>(),
    ) {
        let (source, mut target) = (Ipv6Addr::from(source), target);
        target[0] &= 0x7f;
        let target = Ipv6Addr::from(target);
        prop_assume!(!source.is_unspecified());
        let solicitation = NeighbourSolicitation {
            ethernet_source: MacAddress(mac),
            ethernet_destination: multicast_mac(solicited_node(target)),
            source,
            destination: solicited_node(target),
            target,
            source_mac: option.map(MacAddress),
        };
        let emitted = solicitation.emit();
        prop_assert_eq!(parse(emitted.as_bytes()), Ok(Heard::Solicitation(solicitation)));
    }
}
