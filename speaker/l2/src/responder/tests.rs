use std::net::{Ipv4Addr, Ipv6Addr};

use herald_wire::{multicast_mac, solicited_node};

use super::*;

const ETH0: IfIndex = IfIndex(2);
const ETH1: IfIndex = IfIndex(3);
const NODE: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const CLIENT: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xc1]);
const VIP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const CLIENT_IP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
const CLIENT_IP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xc1);
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

fn responder() -> Responder {
    let mut responder = Responder::new();
    for index in [ETH0, ETH1] {
        responder.set_port(Port {
            index,
            mac: NODE,
            source: Some(LINK_LOCAL),
        });
    }
    responder.hold(ETH0, VIP.into());
    responder.hold(ETH0, VIP6.into());
    responder
}

fn solicitation(target: Ipv6Addr) -> NeighbourSolicitation {
    NeighbourSolicitation {
        ethernet_source: CLIENT,
        ethernet_destination: multicast_mac(solicited_node(target)),
        source: CLIENT_IP6,
        destination: solicited_node(target),
        target,
        source_mac: Some(CLIENT),
    }
}

#[test]
fn request_is_answered_only_where_the_address_is_held() {
    let mut responder = responder();
    let request = Arp::request(CLIENT, CLIENT_IP, VIP);
    let frame = request.emit();
    assert_eq!(
        responder.frame_received(ETH0, frame.as_bytes()),
        Some(Answer::Reply(Arp::reply_to(&request, NODE).emit()))
    );
    assert_eq!(responder.frame_received(ETH1, frame.as_bytes()), None);
    assert_eq!(responder.frame_received(IfIndex(9), frame.as_bytes()), None);
    let other = Arp::request(CLIENT, CLIENT_IP, Ipv4Addr::new(192, 0, 2, 11)).emit();
    assert_eq!(responder.frame_received(ETH0, other.as_bytes()), None);
    responder.release(ETH0, VIP.into());
    assert_eq!(responder.frame_received(ETH0, frame.as_bytes()), None);
}

#[test]
fn probe_without_sender_address_is_answered() {
    let mut responder = responder();
    let probe = Arp::request(CLIENT, Ipv4Addr::UNSPECIFIED, VIP);
    assert_eq!(
        responder.frame_received(ETH0, probe.emit().as_bytes()),
        Some(Answer::Reply(Arp::reply_to(&probe, NODE).emit()))
    );
}

#[test]
fn unicast_request_is_answered_unless_it_is_for_another_host() {
    let mut responder = responder();
    let to = |destination| Arp {
        ethernet_destination: destination,
        ..Arp::request(CLIENT, CLIENT_IP, VIP)
    };
    let mut answered = |destination| {
        responder
            .frame_received(ETH0, to(destination).emit().as_bytes())
            .is_some()
    };
    assert!(answered(NODE));
    assert!(!answered(MacAddress([2, 0, 0, 0, 0, 7])));
}

#[test]
fn own_announcements_and_replies_of_others_lead_to_nothing() {
    let mut responder = responder();
    for frame in [
        Arp::announcement_request(NODE, VIP).emit(),
        Arp::announcement_reply(NODE, VIP).emit(),
        Arp::announcement_request(CLIENT, CLIENT_IP).emit(),
        NeighbourAdvertisement::unsolicited(VIP6, NODE, LINK_LOCAL).emit(),
    ] {
        assert_eq!(responder.frame_received(ETH0, frame.as_bytes()), None);
    }
}

#[test]
fn solicitation_is_answered_only_where_the_address_is_held() {
    let mut responder = responder();
    let asked = solicitation(VIP6);
    let frame = asked.emit();
    assert_eq!(
        responder.frame_received(ETH0, frame.as_bytes()),
        Some(Answer::Reply(
            NeighbourAdvertisement::answer(&asked, NODE, LINK_LOCAL).emit()
        ))
    );
    assert_eq!(responder.frame_received(ETH1, frame.as_bytes()), None);
    let neighbour = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, 0x10);
    let same_group = solicitation(neighbour).emit();
    assert_eq!(responder.frame_received(ETH0, same_group.as_bytes()), None);
}

#[test]
fn solicitation_for_another_hosts_ethernet_address_is_not_answered() {
    let mut responder = responder();
    let mut to = |destination| {
        let asked = NeighbourSolicitation {
            ethernet_destination: destination,
            ..solicitation(VIP6)
        };
        responder
            .frame_received(ETH0, asked.emit().as_bytes())
            .is_some()
    };
    assert!(to(NODE));
    assert!(!to(MacAddress([2, 0, 0, 0, 0, 7])));
}

#[test]
fn detection_of_duplicates_is_defended_to_everybody() {
    let mut responder = responder();
    let probe = NeighbourSolicitation::probe(CLIENT, VIP6).emit();
    assert_eq!(
        responder.frame_received(ETH0, probe.as_bytes()),
        Some(Answer::Reply(
            NeighbourAdvertisement::unsolicited(VIP6, NODE, LINK_LOCAL).emit()
        ))
    );
}

#[test]
fn without_a_link_local_address_the_held_one_is_the_source() {
    let mut responder = responder();
    responder.set_port(Port {
        index: ETH0,
        mac: NODE,
        source: None,
    });
    let asked = solicitation(VIP6);
    assert_eq!(
        responder.frame_received(ETH0, asked.emit().as_bytes()),
        Some(Answer::Reply(
            NeighbourAdvertisement::answer(&asked, NODE, VIP6).emit()
        ))
    );
}

#[test]
fn claims_of_strangers_are_reported() {
    let mut responder = responder();
    for frame in [
        Arp::announcement_request(CLIENT, VIP).emit(),
        Arp::announcement_reply(CLIENT, VIP).emit(),
        Arp::request(CLIENT, VIP, CLIENT_IP).emit(),
    ] {
        assert_eq!(
            responder.frame_received(ETH0, frame.as_bytes()),
            Some(Answer::ForeignClaim {
                address: VIP.into(),
                mac: CLIENT
            })
        );
    }
    let advertisement = NeighbourAdvertisement::unsolicited(VIP6, CLIENT, LINK_LOCAL).emit();
    assert_eq!(
        responder.frame_received(ETH0, advertisement.as_bytes()),
        Some(Answer::ForeignClaim {
            address: VIP6.into(),
            mac: CLIENT
        })
    );
}

#[test]
fn requests_and_replies_are_counted_and_forgotten_with_the_address() {
    let mut responder = responder();
    let frame = Arp::request(CLIENT, CLIENT_IP, VIP).emit();
    for _ in 0..3 {
        responder.frame_received(ETH0, frame.as_bytes());
    }
    let counts = responder.counts(ETH0, VIP.into()).unwrap();
    assert_eq!((counts.requests, counts.replies), (3, 3));
    responder.release(ETH0, VIP.into());
    assert_eq!(responder.counts(ETH0, VIP.into()), None);
}

#[test]
fn garbage_leads_to_nothing() {
    let mut responder = responder();
    let frame = Arp::request(CLIENT, CLIENT_IP, VIP).emit();
    for length in 0..42 {
        assert_eq!(
            responder.frame_received(ETH0, &frame.as_bytes()[..length]),
            None
        );
    }
}
