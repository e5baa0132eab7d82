//! Frames, built by another codec than the one under test; checksums included.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Type, Icmpv6Type, IpFragOffset, IpNumber, Ipv4Header,
    Ipv4Options, Ipv6FlowLabel, Ipv6FragmentHeader, Ipv6Header, TcpHeader, UdpHeader, icmpv4,
};
use herald_model::Protocol;

pub(crate) const VIP4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 100);
pub(crate) const VIP6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x100);
pub(crate) const CLIENT4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
pub(crate) const CLIENT6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 7);
pub(crate) const CLIENT_PORT: u16 = 40_000;
pub(crate) const PORT: u16 = 80;
pub(crate) const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0xc1];
pub(crate) const PAYLOAD: &[u8] = b"odd length payload!";

/// Everything that makes a frame; changed field by field from a plain one.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) mac: [u8; 6],
    pub(crate) from: (IpAddr, u16),
    pub(crate) to: (IpAddr, u16),
    pub(crate) hops: u8,
    pub(crate) protocol: Protocol,
    pub(crate) syn: bool,
    pub(crate) options: Vec<u8>,
    /// IPv6 extension headers: number and bytes, without their first byte.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    pub(crate) udp_sum: bool,
}

impl Frame {
    /// A client's frame to the VIP of a family.
    pub(crate) fn v4(protocol: Protocol) -> Self {
        Self::between(protocol, (CLIENT4.into(), CLIENT_PORT), (VIP4.into(), PORT))
    }

    pub(crate) fn v6(protocol: Protocol) -> Self {
        Self::between(protocol, (CLIENT6.into(), CLIENT_PORT), (VIP6.into(), PORT))
    }

    pub(crate) fn between(protocol: Protocol, from: (IpAddr, u16), to: (IpAddr, u16)) -> Self {
        Self {
            mac: CLIENT_MAC,
            from,
            to,
            hops: 64,
            protocol,
            syn: true,
            options: Vec::new(),
            extensions: Vec::new(),
            udp_sum: true,
        }
    }

    /// The same with another sender and receiver, one hop further.
    pub(crate) fn sent_on(&self, from: (IpAddr, u16), to: (IpAddr, u16)) -> Self {
        Self {
            from,
            to,
            hops: self.hops - 1,
            ..self.clone()
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let transport = self.transport();
        let number = IpNumber(self.protocol.number());
        match (self.from.0, self.to.0) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut ip = Ipv4Header::new(
                    u16::try_from(transport.len()).unwrap(),
                    self.hops,
                    number,
                    from.octets(),
                    to.octets(),
                )
                .unwrap();
                ip.options = Ipv4Options::try_from(self.options.as_slice()).unwrap();
                ip.set_payload_len(transport.len()).unwrap();
                ip.header_checksum = ip.calc_header_checksum();
                let mut bytes = ethernet(self.mac, EtherType::IPV4);
                ip.write_raw(&mut bytes).unwrap();
                bytes.extend(transport);
                bytes
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut payload = Vec::new();
                let mut next = self.extensions.iter().map(|(number, _)| *number).skip(1);
                for (_, rest) in &self.extensions {
                    payload.push(next.next().unwrap_or(number.0));
                    payload.extend(rest);
                }
                payload.extend(transport);
                let first = self
                    .extensions
                    .first()
                    .map_or(number.0, |(number, _)| *number);
                let ip = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::ZERO,
                    payload_length: u16::try_from(payload.len()).unwrap(),
                    next_header: IpNumber(first),
                    hop_limit: self.hops,
                    source: from.octets(),
                    destination: to.octets(),
                };
                let mut bytes = ethernet(self.mac, EtherType::IPV6);
                ip.write(&mut bytes).unwrap();
                bytes.extend(payload);
                bytes
            }
            _ => panic!("two families"),
        }
    }

    /// The same in two fragments: the transport header and `first` bytes, a multiple of eight together, and
    /// the rest.
    pub(crate) fn fragments(&self, id: u32, first: usize) -> [Vec<u8>; 2] {
        let whole = self.bytes();
        let transport = self.transport();
        let network = whole.len() - transport.len();
        let cut = transport.len() - PAYLOAD.len() + first;
        assert_eq!(cut % 8, 0);
        [(0, &transport[..cut]), (cut, &transport[cut..])].map(|(offset, payload)| {
            let offset = IpFragOffset::try_new(u16::try_from(offset / 8).unwrap()).unwrap();
            let is_first = offset == IpFragOffset::ZERO;
            let mut bytes = whole[..14].to_vec();
            if self.from.0.is_ipv4() {
                let (mut ip, _) = Ipv4Header::from_slice(&whole[14..]).unwrap();
                ip.identification = u16::try_from(id).unwrap();
                ip.dont_fragment = false;
                ip.more_fragments = is_first;
                ip.fragment_offset = offset;
                ip.set_payload_len(payload.len()).unwrap();
                ip.header_checksum = ip.calc_header_checksum();
                ip.write_raw(&mut bytes).unwrap();
            } else {
                // What is before the fragment header stays.
                let (mut ip, _) = Ipv6Header::from_slice(&whole[14..]).unwrap();
                let header = Ipv6FragmentHeader::new(ip.next_header, offset, is_first, id);
                ip.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
                assert_eq!(network, 14 + ip.header_len());
                ip.set_payload_length(header.header_len() + payload.len())
                    .unwrap();
                ip.write(&mut bytes).unwrap();
                header.write(&mut bytes).unwrap();
            }
            bytes.extend(payload);
            bytes
        })
    }

    fn transport(&self) -> Vec<u8> {
        let (from, to) = (self.from.0, self.to.0);
        let mut bytes = Vec::new();
        match self.protocol {
            Protocol::Tcp => {
                let mut tcp = TcpHeader::new(self.from.1, self.to.1, 7, 1_000);
                tcp.syn = self.syn;
                tcp.ack = !self.syn;
                tcp.checksum = match (from, to) {
                    (IpAddr::V4(from), IpAddr::V4(to)) => {
                        tcp.calc_checksum_ipv4_raw(from.octets(), to.octets(), PAYLOAD)
                    }
                    (IpAddr::V6(from), IpAddr::V6(to)) => {
                        tcp.calc_checksum_ipv6_raw(from.octets(), to.octets(), PAYLOAD)
                    }
                    _ => panic!("two families"),
                }
                .unwrap();
                tcp.write(&mut bytes).unwrap();
            }
            Protocol::Udp => {
                let mut udp =
                    UdpHeader::without_ipv4_checksum(self.from.1, self.to.1, PAYLOAD.len())
                        .unwrap();
                if self.udp_sum {
                    udp.checksum = match (from, to) {
                        (IpAddr::V4(from), IpAddr::V4(to)) => {
                            udp.calc_checksum_ipv4_raw(from.octets(), to.octets(), PAYLOAD)
                        }
                        (IpAddr::V6(from), IpAddr::V6(to)) => {
                            udp.calc_checksum_ipv6_raw(from.octets(), to.octets(), PAYLOAD)
                        }
                        _ => panic!("two families"),
                    }
                    .unwrap();
                }
                udp.write(&mut bytes).unwrap();
            }
            Protocol::Sctp => {
                bytes.extend(self.from.1.to_be_bytes());
                bytes.extend(self.to.1.to_be_bytes());
                bytes.extend([0; 8]);
            }
        }
        bytes.extend(PAYLOAD);
        bytes
    }
}

/// For MAC address zero, which is the loopback device's.
pub(crate) fn ethernet(from: [u8; 6], ether_type: EtherType) -> Vec<u8> {
    let mut bytes = Vec::new();
    let header = Ethernet2Header {
        source: from,
        destination: [0; 6],
        ether_type,
    };
    header.write(&mut bytes).unwrap();
    bytes
}

/// A frame with an ICMP message of its family.
pub(crate) fn icmp(
    from: IpAddr,
    to: IpAddr,
    hops: u8,
    v4: &Icmpv4Type,
    v6: &Icmpv6Type,
) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2(CLIENT_MAC, [0; 6]);
    let mut bytes = Vec::new();
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => builder
            .ipv4(from.octets(), to.octets(), hops)
            .icmpv4(v4.clone())
            .write(&mut bytes, PAYLOAD),
        (IpAddr::V6(from), IpAddr::V6(to)) => builder
            .ipv6(from.octets(), to.octets(), hops)
            .icmpv6(*v6)
            .write(&mut bytes, PAYLOAD),
        _ => panic!("two families"),
    }
    .unwrap();
    bytes
}

/// An ICMP error that quotes a packet, given as its frame: the network headers and eight bytes, if there are so
/// many.
pub(crate) fn error_about(from: IpAddr, to: IpAddr, hops: u8, frame: &[u8]) -> Vec<u8> {
    let builder = etherparse::PacketBuilder::ethernet2(CLIENT_MAC, [0; 6]);
    let mut bytes = Vec::new();
    let quoted = |end: usize| &frame[14..end.min(frame.len())];
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let next_hop_mtu = 1_300;
            let header = icmpv4::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu };
            builder
                .ipv4(from.octets(), to.octets(), hops)
                .icmpv4(Icmpv4Type::DestinationUnreachable(header))
                .write(&mut bytes, quoted(42))
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => builder
            .ipv6(from.octets(), to.octets(), hops)
            .icmpv6(Icmpv6Type::PacketTooBig { mtu: 1_300 })
            // A fragment header has eight bytes, too.
            .write(&mut bytes, quoted(if frame[20] == 44 { 70 } else { 62 })),
        _ => panic!("two families"),
    }
    .unwrap();
    bytes
}
