use etherparse::{EtherType, LaxPacketHeaders, LinkHeader};
use proptest::prelude::*;

use super::*;
use crate::{Heard, parse};

const CLIENT: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xc1]);
const NODE: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const CLIENT_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

fn golden(operation: u8, ethernet: [[u8; 6]; 2], body: [(&[u8; 6], [u8; 4]); 2]) -> Vec<u8> {
    let [destination, source] = ethernet;
    let [(sha, spa), (tha, tpa)] = body;
    [
        &destination[..],
        &source,
        &[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation],
        sha,
        &spa,
        tha,
        &tpa,
    ]
    .concat()
}

fn cases() -> [(Arp, Vec<u8>); 4] {
    let request = Arp::request(CLIENT, CLIENT_IP, VIP);
    let (vip, client_ip) = (VIP.octets(), CLIENT_IP.octets());
    [
        (
            request,
            golden(
                1,
                [[0xff; 6], CLIENT.0],
                [(&CLIENT.0, client_ip), (&[0; 6], vip)],
            ),
        ),
        (
            Arp::reply_to(&request, NODE),
            golden(
                2,
                [CLIENT.0, NODE.0],
                [(&NODE.0, vip), (&CLIENT.0, client_ip)],
            ),
        ),
        (
            Arp::announcement_request(NODE, VIP),
            golden(1, [[0xff; 6], NODE.0], [(&NODE.0, vip), (&[0; 6], vip)]),
        ),
        (
            Arp::announcement_reply(NODE, VIP),
            golden(2, [[0xff; 6], NODE.0], [(&NODE.0, vip), (&NODE.0, vip)]),
        ),
    ]
}

#[test]
fn every_form_has_its_golden_bytes_both_ways() {
    for (arp, bytes) in cases() {
        assert_eq!(arp.emit().as_bytes(), bytes);
        assert_eq!(parse(&bytes), Ok(Heard::Arp(arp)));
    }
}

#[test]
fn padding_of_a_short_frame_is_ignored() {
    for (arp, mut bytes) in cases() {
        bytes.resize(60, 0xa5);
        assert_eq!(parse(&bytes), Ok(Heard::Arp(arp)));
    }
}

#[test]
fn truncated_frames_are_refused_at_every_length() {
    for (_, bytes) in cases() {
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
fn probe_is_answered_to_its_hardware_address() {
    let probe = Arp::request(CLIENT, Ipv4Addr::UNSPECIFIED, VIP);
    let reply = Arp::reply_to(&probe, NODE);
    assert_eq!(reply.ethernet_destination, CLIENT);
    assert_eq!(reply.target_ip, Ipv4Addr::UNSPECIFIED);
}

#[test]
fn other_hardware_protocols_and_operations_are_foreign() {
    let (_, bytes) = cases()[0].clone();
    for (position, value) in [(15, 6), (16, 0x86), (18, 8), (19, 16), (21, 3), (12, 9)] {
        let mut changed = bytes.clone();
        changed[position] = value;
        assert_eq!(parse(&changed), Err(ParseError::Foreign), "byte {position}");
    }
}

#[test]
fn an_independent_decoder_agrees() {
    for (arp, bytes) in cases() {
        let headers = LaxPacketHeaders::from_ethernet(&bytes).unwrap();
        let Some(LinkHeader::Ethernet2(ethernet)) = headers.link else {
            panic!("no Ethernet header");
        };
        assert_eq!(ethernet.source, arp.ethernet_source.0);
        assert_eq!(ethernet.destination, arp.ethernet_destination.0);
        assert_eq!(ethernet.ether_type, EtherType::ARP);
        let packet = etherparse::ArpPacketSlice::from_slice(&bytes[HEADER_BYTES..])
            .unwrap()
            .to_packet()
            .try_eth_ipv4()
            .unwrap();
        assert_eq!(packet.sender_mac, arp.sender_mac.0);
        assert_eq!(packet.sender_ipv4, arp.sender_ip.octets());
        assert_eq!(packet.target_mac, arp.target_mac.0);
        assert_eq!(packet.target_ipv4, arp.target_ip.octets());
    }
}

proptest! {
    #[test]
    fn parsing_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..128)) {
        let _outcome = parse(&bytes);
    }

    #[test]
    fn parsing_arp_like_bytes_never_panics(
        bytes in proptest::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut frame = cases()[0].1.clone();
        frame.splice(14.., bytes);
        let _outcome = parse(&frame);
    }

    #[test]
    fn what_is_emitted_is_parsed(
        (source, destination, sender_mac, target_mac) in any::<([u8; 6], [u8; 6], [u8; 6], [u8; 6])>(),
        (sender_ip, target_ip, is_request) in any::<([u8; 4], [u8; 4], bool)>(),
    ) {
        let arp = Arp {
            ethernet_source: MacAddress(source),
            ethernet_destination: MacAddress(destination),
            operation: if is_request { ArpOperation::Request } else { ArpOperation::Reply },
            sender_mac: MacAddress(sender_mac),
            sender_ip: sender_ip.into(),
            target_mac: MacAddress(target_mac),
            target_ip: target_ip.into(),
        };
        prop_assert_eq!(parse(arp.emit().as_bytes()), Ok(Heard::Arp(arp)));
    }
}
