//! Neighbour solicitation and advertisement: RFC 4861, RFC 4862 section 5.4.

use std::net::Ipv6Addr;

use herald_model::MacAddress;
use pnet_packet::Packet as _;
use pnet_packet::icmpv6::ndp::{
    MutableNeighborAdvertPacket, MutableNeighborSolicitPacket, NeighborAdvertFlags,
    NeighborAdvertPacket, NeighborSolicitPacket,
};
use pnet_packet::icmpv6::{Icmpv6Code, Icmpv6Packet, Icmpv6Types, MutableIcmpv6Packet, checksum};
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv6::{Ipv6Packet, MutableIpv6Packet};

use crate::ethernet::{self, Ethernet, HEADER_BYTES};
use crate::{Frame, Heard, ParseError};

/// `ff02::1`, every node on the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const IPV6_BYTES: usize = 40;
/// A solicitation or advertisement without options.
const MESSAGE_BYTES: usize = 24;
/// A link-layer address option for Ethernet.
const OPTION_BYTES: usize = 8;
/// RFC 4861 section 11.2: a message that crossed a router has a lower one.
const HOP_LIMIT: u8 = 255;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;

/// The solicited-node group of an address: `ff02::1:ff` and its low 24 bits (RFC 4291 section 2.7.1).
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::from_octets([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c])
}

/// The Ethernet address of an IPv6 group: 33:33 and its low 32 bits (RFC 2464 section 7).
pub const fn multicast_mac(group: Ipv6Addr) -> MacAddress {
    let [.., a, b, c, d] = group.octets();
    MacAddress([0x33, 0x33, a, b, c, d])
}

/// "Who has this address?"
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourSolicitation {
    /// Who sent the frame.
    pub ethernet_source: MacAddress,
    /// Whom the frame is for.
    pub ethernet_destination: MacAddress,
    /// Who asks; `::` for duplicate address detection.
    pub source: Ipv6Addr,
    /// The solicited-node group, or the target itself.
    pub destination: Ipv6Addr,
    /// The address asked for, never a multicast one.
    pub target: Ipv6Addr,
    /// The source link-layer option, if it has one for Ethernet.
    pub source_mac: Option<MacAddress>,
}

/// "This address is here."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourAdvertisement {
    /// Who sent the frame.
    pub ethernet_source: MacAddress,
    /// Whom the frame is for.
    pub ethernet_destination: MacAddress,
    /// Who says it.
    pub source: Ipv6Addr,
    /// Who asked, or every node.
    pub destination: Ipv6Addr,
    /// The address spoken of, never a multicast one.
    pub target: Ipv6Addr,
    /// Flag R: the sender is a router.
    pub router: bool,
    /// Flag S: the answer to a solicitation.
    pub solicited: bool,
    /// Flag O: replaces what a cache holds.
    pub overriding: bool,
    /// The target link-layer option, if it has one for Ethernet.
    pub target_mac: Option<MacAddress>,
}

impl NeighbourSolicitation {
    /// Duplicate address detection: whether anybody uses `target` already. Nothing is claimed by it.
    pub const fn probe(mac: MacAddress, target: Ipv6Addr) -> Self {
        let group = solicited_node(target);
        Self {
            ethernet_source: mac,
            ethernet_destination: multicast_mac(group),
            source: Ipv6Addr::UNSPECIFIED,
            destination: group,
            target,
            source_mac: None,
        }
    }

    /// The frame.
    pub fn emit(&self) -> Frame {
        message(
            Envelope {
                ethernet_source: self.ethernet_source,
                ethernet_destination: self.ethernet_destination,
                source: self.source,
                destination: self.destination,
            },
            self.source_mac.map(|mac| (SOURCE_LINK_LAYER, mac)),
            |message| {
                let mut packet = solicitation_writer(message);
                packet.set_icmpv6_type(Icmpv6Types::NeighborSolicit);
                packet.set_target_addr(self.target);
            },
        )
    }
}

impl NeighbourAdvertisement {
    /// The answer to a solicitation, from `source` at `mac`.
    ///
    /// Override is always set: without it Linux keeps the MAC address of the former holder. A
    /// duplicate address detection has nobody to answer to, so all nodes are told, with S = 0
    /// (RFC 4861 section 7.2.4).
    pub const fn answer(
        solicitation: &NeighbourSolicitation,
        mac: MacAddress,
        source: Ipv6Addr,
    ) -> Self {
        if solicitation.source.is_unspecified() {
            return Self::unsolicited(solicitation.target, mac, source);
        }
        Self {
            ethernet_source: mac,
            ethernet_destination: match solicitation.source_mac {
                Some(mac) => mac,
                None => solicitation.ethernet_source,
            },
            source,
            destination: solicitation.source,
            target: solicitation.target,
            router: false,
            solicited: true,
            overriding: true,
            target_mac: Some(mac),
        }
    }

    /// What all nodes are told when an address moves to `mac`.
    pub const fn unsolicited(target: Ipv6Addr, mac: MacAddress, source: Ipv6Addr) -> Self {
        Self {
            ethernet_source: mac,
            ethernet_destination: multicast_mac(ALL_NODES),
            source,
            destination: ALL_NODES,
            target,
            router: false,
            solicited: false,
            overriding: true,
            target_mac: Some(mac),
        }
    }

    /// The frame.
    pub fn emit(&self) -> Frame {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        message(
            Envelope {
                ethernet_source: self.ethernet_source,
                ethernet_destination: self.ethernet_destination,
                source: self.source,
                destination: self.destination,
            },
            self.target_mac.map(|mac| (TARGET_LINK_LAYER, mac)),
            |message| {
                let mut packet = advertisement_writer(message);
                packet.set_icmpv6_type(Icmpv6Types::NeighborAdvert);
                packet.set_flags(
                    flag(self.router, NeighborAdvertFlags::Router)
                        | flag(self.solicited, NeighborAdvertFlags::Solicited)
                        | flag(self.overriding, NeighborAdvertFlags::Override),
                );
                packet.set_target_addr(self.target);
            },
        )
    }
}

fn solicitation_writer(message: &mut [u8]) -> MutableNeighborSolicitPacket<'_> {
    MutableNeighborSolicitPacket::new(message).expect("24 bytes hold a neighbour solicitation")
}

fn advertisement_writer(message: &mut [u8]) -> MutableNeighborAdvertPacket<'_> {
    MutableNeighborAdvertPacket::new(message).expect("24 bytes hold a neighbour advertisement")
}

#[derive(Clone, Copy)]
struct Envelope {
    ethernet_source: MacAddress,
    ethernet_destination: MacAddress,
    source: Ipv6Addr,
    destination: Ipv6Addr,
}

/// Ethernet, IPv6 and `ICMPv6` around the message that `fill` writes.
fn message(
    envelope: Envelope,
    option: Option<(u8, MacAddress)>,
    fill: impl FnOnce(&mut [u8]),
) -> Frame {
    let (icmp_bytes, payload_length) = if option.is_some() {
        (MESSAGE_BYTES + OPTION_BYTES, 32)
    } else {
        (MESSAGE_BYTES, 24)
    };
    let mut frame = Frame::zeroed(if option.is_some() {
        HEADER_BYTES + IPV6_BYTES + MESSAGE_BYTES + OPTION_BYTES
    } else {
        HEADER_BYTES + IPV6_BYTES + MESSAGE_BYTES
    });
    let packet = ethernet::emit(
        frame.as_mut_bytes(),
        envelope.ethernet_source,
        envelope.ethernet_destination,
        ethernet::IPV6,
    );
    let (header, icmp) = packet.split_at_mut(IPV6_BYTES);
    debug_assert_eq!(icmp.len(), icmp_bytes);
    let mut ipv6 = MutableIpv6Packet::new(header).expect("40 bytes hold an IPv6 header");
    ipv6.set_version(6);
    ipv6.set_payload_length(payload_length);
    ipv6.set_next_header(IpNextHeaderProtocols::Icmpv6);
    ipv6.set_hop_limit(HOP_LIMIT);
    ipv6.set_source(envelope.source);
    ipv6.set_destination(envelope.destination);

    let (message, rest) = icmp.split_at_mut(MESSAGE_BYTES);
    fill(message);
    if let (Some((kind, mac)), Some((option, _end))) =
        (option, rest.split_first_chunk_mut::<OPTION_BYTES>())
    {
        let [kind_byte, units, address @ ..] = option;
        (*kind_byte, *units, *address) = (kind, 1, mac.0);
    }
    let mut icmp = MutableIcmpv6Packet::new(icmp).expect("24 bytes hold an ICMPv6 header");
    let sum = checksum(
        &icmp.to_immutable(),
        &envelope.source,
        &envelope.destination,
    );
    icmp.set_checksum(sum);
    frame
}

/// A message directly behind the IPv6 header: senders of these put no extension header before it,
/// and fragments are forbidden (RFC 6980).
pub(crate) fn parse(frame: &Ethernet<'_>) -> Result<Heard, ParseError> {
    let ipv6 = Ipv6Packet::new(frame.payload).ok_or(ParseError::Truncated)?;
    if ipv6.get_version() != 6 || ipv6.get_next_header() != IpNextHeaderProtocols::Icmpv6 {
        return Err(ParseError::Foreign);
    }
    // The frame may be padded: only what the header counts belongs to the message.
    let icmp_bytes = frame
        .payload
        .get(IPV6_BYTES..)
        .and_then(|rest| rest.get(..usize::from(ipv6.get_payload_length())))
        .ok_or(ParseError::Truncated)?;
    let icmp = Icmpv6Packet::new(icmp_bytes).ok_or(ParseError::Truncated)?;
    let kind = icmp.get_icmpv6_type();
    if kind != Icmpv6Types::NeighborSolicit && kind != Icmpv6Types::NeighborAdvert {
        return Err(ParseError::Foreign);
    }
    let (source, destination) = (ipv6.get_source(), ipv6.get_destination());
    if ipv6.get_hop_limit() != HOP_LIMIT {
        return invalid("the hop limit is 255");
    }
    if icmp.get_icmpv6_code() != Icmpv6Code(0) {
        return invalid("the code is 0");
    }
    let (message, options) = icmp_bytes
        .split_at_checked(MESSAGE_BYTES)
        .ok_or(ParseError::Truncated)?;
    if icmp.get_checksum() != checksum(&icmp, &source, &destination) {
        return invalid("the checksum is right");
    }
    let envelope = Envelope {
        ethernet_source: frame.source,
        ethernet_destination: frame.destination,
        source,
        destination,
    };
    if kind == Icmpv6Types::NeighborSolicit {
        let packet = NeighborSolicitPacket::new(message).ok_or(ParseError::Truncated)?;
        solicitation(envelope, packet.get_target_addr(), options).map(Heard::Solicitation)
    } else {
        let packet = NeighborAdvertPacket::new(message).ok_or(ParseError::Truncated)?;
        debug_assert_eq!(packet.packet().len(), MESSAGE_BYTES);
        advertisement(
            envelope,
            packet.get_target_addr(),
            packet.get_flags(),
            options,
        )
        .map(Heard::Advertisement)
    }
}

/// RFC 4861 section 7.1.1.
fn solicitation(
    envelope: Envelope,
    target: Ipv6Addr,
    options: &[u8],
) -> Result<NeighbourSolicitation, ParseError> {
    if target.is_multicast() {
        return invalid("the target is not a group");
    }
    let source_mac = link_layer_option(options, SOURCE_LINK_LAYER)?;
    if envelope.source.is_unspecified() {
        if envelope.destination != solicited_node(target) {
            return invalid("duplicate address detection goes to the solicited-node group");
        }
        if source_mac.is_some() {
            return invalid("duplicate address detection has no source link-layer option");
        }
    }
    Ok(NeighbourSolicitation {
        ethernet_source: envelope.ethernet_source,
        ethernet_destination: envelope.ethernet_destination,
        source: envelope.source,
        destination: envelope.destination,
        target,
        source_mac,
    })
}

/// RFC 4861 section 7.1.2.
fn advertisement(
    envelope: Envelope,
    target: Ipv6Addr,
    flags: u8,
    options: &[u8],
) -> Result<NeighbourAdvertisement, ParseError> {
    if target.is_multicast() {
        return invalid("the target is not a group");
    }
    let solicited = flags & NeighborAdvertFlags::Solicited != 0;
    if solicited && envelope.destination.is_multicast() {
        return invalid("an answer to everybody is not solicited");
    }
    Ok(NeighbourAdvertisement {
        ethernet_source: envelope.ethernet_source,
        ethernet_destination: envelope.ethernet_destination,
        source: envelope.source,
        destination: envelope.destination,
        target,
        router: flags & NeighborAdvertFlags::Router != 0,
        solicited,
        overriding: flags & NeighborAdvertFlags::Override != 0,
        target_mac: link_layer_option(options, TARGET_LINK_LAYER)?,
    })
}

/// The first link-layer option of this kind. Options are walked here because pnet's iterator
/// computes a length in eight bits, which overflows from length 32 on (`icmpv6.rs`, 0.35).
fn link_layer_option(mut options: &[u8], wanted: u8) -> Result<Option<MacAddress>, ParseError> {
    let mut found = None;
    while let [kind, units, ..] = *options {
        let (option, rest) = match usize::from(units).checked_mul(8) {
            Some(0) | None => return invalid("an option has a length"),
            Some(length) => options
                .split_at_checked(length)
                .ok_or(ParseError::Truncated)?,
        };
        if kind == wanted
            && found.is_none()
            && let [_kind, 1, mac @ ..] = option
        {
            found = mac.first_chunk::<6>().copied().map(MacAddress);
        }
        options = rest;
    }
    if options.is_empty() {
        Ok(found)
    } else {
        Err(ParseError::Truncated)
    }
}

const fn invalid<T>(rule: &'static str) -> Result<T, ParseError> {
    Err(ParseError::Invalid { rule })
}

#[cfg(test)]
mod tests;
