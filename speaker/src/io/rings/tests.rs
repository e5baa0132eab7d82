use std::io::Write as _;
use std::net::Ipv4Addr;

use herald_model::MacAddress;
use herald_ring::{Authenticator as _, Member, Tag};
use herald_speaker_core::{self as core, Peer, RingEvent, View};
use herald_wire::{Arp, ArpOperation, Heard, NeighbourSolicitation};
use socket2::{Domain, Socket, Type};

use super::segment::Hmac;
use super::*;
use crate::io::reports::{self, Listener};

pub(crate) const INTERFACE: IfIndex = IfIndex(2);
pub(crate) const SEGMENT: &str = "192.0.2.0/24";

pub(crate) fn mac(last: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, last])
}

fn v4(last: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, last])
}

pub(crate) fn member(last: u8) -> Member {
    Member {
        node: format!("node{last}").as_str().into(),
        address: v4(last),
        incarnation: Incarnation(1),
    }
}

pub(crate) fn store(uid: &str, key: &[u8]) -> KeyStore {
    let keys = BTreeMap::from([(KeyId(1), hmac::Key::new(hmac::HMAC_SHA256, key))]);
    let file = KeyFile {
        cluster: uid.to_owned(),
        keys,
    };
    Arc::new(ArcSwapOption::from_pointee(file))
}

impl Rings {
    /// Has the ring of a segment begin with a socket that is bound to no interface.
    pub(crate) fn begin_with(&mut self, name: &SegmentName, socket: Socket) {
        let now = self.clock.now();
        let file = self.store.load_full().unwrap();
        let segment = self.segments.get_mut(name).unwrap();
        segment
            .begin(now, name, socket, self.options.profile, &self.store, &file)
            .unwrap();
    }
}

/// A node with one peer on one segment, and the other end of its socket.
struct Node {
    rings: Rings,
    inputs: Listener,
    network: Socket,
}

impl Node {
    fn start(witness: Witness) -> Self {
        let (reporter, inputs) = reports::channel();
        let options = Options {
            profile: Profile::Fast,
            port: 7948,
            witness,
        };
        let store = store("uid", b"a key");
        let mut rings = Rings::new(options, Clock::start(), Arc::clone(&store), reporter);
        let name = SegmentName::from(SEGMENT);
        let start = RingCommand::Start {
            interface: INTERFACE,
            me: member(1),
            mac: mac(1),
            peers: vec![Peer {
                member: member(2),
                mac: mac(2),
            }],
        };
        rings.command(&name, start);
        assert_eq!(rings.next_deadline(), None, "without a key nothing is due");
        let (socket, network) = Socket::pair(Domain::UNIX, Type::DGRAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        rings.begin_with(&name, socket);
        rings.set_keys(RingKeys(Some(Keys::only(KeyId(1)))));
        Self {
            rings,
            inputs,
            network,
        }
    }

    fn round(&mut self) {
        self.rings.listen();
        self.rings.run();
    }

    fn events(&mut self) -> Vec<RingEvent> {
        std::iter::from_fn(|| self.inputs.next())
            .map(|input| match input {
                core::Input::RingSaid { segment, event } => {
                    assert_eq!(segment, SEGMENT.into());
                    event
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }
}

/// RFC 4231 section 4.3.
#[test]
fn tag_is_the_front_of_hmac_sha256_over_both_parts() {
    let auth = Hmac(store("uid", b"Jefe"));
    let tag = auth.tag(KeyId(1), [b"what do ya want ", b"for nothing?"]);
    let expected = [
        0x5b, 0xdc, 0xc1, 0x46, 0xbf, 0x60, 0x75, 0x4e, 0x6a, 0x04, 0x24, 0x26, 0x08, 0x95, 0x75,
        0xc7,
    ];
    assert_eq!(tag, Some(Tag(expected)));
    assert_eq!(auth.tag(KeyId(2), [b"", b""]), None, "not a key of ours");
}

#[test]
fn kernel_is_asked_by_unicast_in_our_own_name() {
    let frame = question(mac(1), v4(1), v4(2), Some(mac(2))).unwrap();
    let Ok(Heard::Arp(arp)) = herald_wire::parse(frame.as_bytes()) else {
        panic!("{frame:?}");
    };
    assert_eq!(arp.operation, ArpOperation::Request);
    assert_eq!((arp.ethernet_source, arp.sender_mac), (mac(1), mac(1)));
    assert_eq!(arp.ethernet_destination, mac(2));
    assert_eq!((arp.sender_ip.into(), arp.target_ip.into()), (v4(1), v4(2)));

    let ours = "2001:db8::1".parse().unwrap();
    let theirs = "2001:db8::2".parse().unwrap();
    let frame = question(mac(1), ours, theirs, Some(mac(2))).unwrap();
    let Ok(Heard::Solicitation(asked)) = herald_wire::parse(frame.as_bytes()) else {
        panic!("{frame:?}");
    };
    assert_eq!(asked.ethernet_destination, mac(2));
    assert_eq!(IpAddr::V6(asked.source), ours);
    assert_eq!(IpAddr::V6(asked.destination), theirs);
    assert_eq!(IpAddr::V6(asked.target), theirs);
    assert_eq!(asked.source_mac, Some(mac(1)));

    assert_eq!(question(mac(1), v4(1), theirs, None), None);
}

#[test]
fn witness_is_asked_by_everybody_at_once() {
    let frame = question(mac(1), v4(1), v4(254), None).unwrap();
    let Ok(Heard::Arp(arp)) = herald_wire::parse(frame.as_bytes()) else {
        panic!("{frame:?}");
    };
    assert_eq!(arp.ethernet_destination, MacAddress::BROADCAST);

    let ours = "2001:db8::1".parse().unwrap();
    let gateway = "fe80::1".parse().unwrap();
    let frame = question(mac(1), ours, gateway, None).unwrap();
    let Ok(Heard::Solicitation(asked)) = herald_wire::parse(frame.as_bytes()) else {
        panic!("{frame:?}");
    };
    assert!(asked.destination.is_multicast());
    assert_eq!(IpAddr::V6(asked.target), gateway);
    assert_eq!(IpAddr::V6(asked.source), ours);
}

#[test]
fn answers_of_members_and_of_the_witness_are_of_interest() {
    let mut node = Node::start(Witness::Gateway);
    let watched = |node: &Node, index| node.rings.watched(index).collect::<Vec<_>>();
    assert_eq!(watched(&node, INTERFACE), [v4(2)]);
    node.rings
        .set_gateways(BTreeMap::from([(INTERFACE, v4(254))]));
    assert_eq!(watched(&node, INTERFACE), [v4(2), v4(254)]);
    assert_eq!(watched(&node, IfIndex(3)), [] as [IpAddr; 0]);

    let listed = Witness::Addresses(vec!["2001:db8::fe".parse().unwrap(), v4(253)]);
    let node = Node::start(listed);
    assert_eq!(watched(&node, INTERFACE), [v4(2), v4(253)]);
}

#[test]
fn garbage_is_counted_and_the_first_view_names_everybody() {
    let mut node = Node::start(Witness::None);
    assert_eq!((&node.network).write(b"garbage").unwrap(), 7);
    node.round();
    let status = node.rings.status();
    let status = status.get(&SegmentName::from(SEGMENT)).unwrap();
    assert_eq!(
        (status.counters.received, status.counters.malformed),
        (1, 1)
    );
    assert_eq!(status.members, [2, 0, 0]);
    let view = View {
        incarnation: Incarnation(1),
        quorum: status.quorum,
        live: BTreeMap::from([
            ("node1".into(), Incarnation(1)),
            ("node2".into(), Incarnation(1)),
        ]),
        dead: BTreeMap::new(),
    };
    assert_eq!(node.events(), [RingEvent::View(view)]);
    node.round();
    assert_eq!(node.events(), [], "nothing has changed");
}

#[test]
fn what_the_core_wants_is_about_the_last_life_until_it_has_heard_of_the_new_one() {
    let mut node = Node::start(Witness::None);
    let name = SegmentName::from(SEGMENT);
    node.round();
    node.events();
    assert_eq!(node.rings.take_ended(), []);
    node.rings.command(&name, RingCommand::StepDown);
    assert_eq!(node.rings.take_ended(), [INTERFACE]);
    assert!(node.rings.is_in_unseen_life(INTERFACE));
    assert!(!node.rings.is_in_unseen_life(IfIndex(3)));
    node.round();
    let lives: Vec<Incarnation> = node
        .events()
        .into_iter()
        .filter_map(|event| match event {
            RingEvent::View(view) => Some(view.incarnation),
            _other => None,
        })
        .collect();
    assert_eq!(lives, [Incarnation(2)]);
    node.rings.life_seen(&name, Incarnation(1));
    assert!(node.rings.is_in_unseen_life(INTERFACE));
    node.rings.life_seen(&name, Incarnation(2));
    assert!(!node.rings.is_in_unseen_life(INTERFACE));
}

#[test]
fn only_an_answer_tells_of_a_kernel() {
    let [ours, theirs] = [1, 2].map(|last| Ipv4Addr::new(192, 0, 2, last));
    let request = Arp::request(mac(2), theirs, ours);
    let reply = Arp::reply_to(&Arp::request(mac(1), ours, theirs), mac(2));
    assert_eq!(answering(request.emit().as_bytes()), None);
    assert_eq!(answering(reply.emit().as_bytes()), Some(v4(2)));
    assert_eq!(answering(b"short"), None);
    let target = "2001:db8::2".parse().unwrap();
    let solicited = NeighbourSolicitation::probe(mac(1), target);
    assert_eq!(answering(solicited.emit().as_bytes()), None);
}
