//! The Ethernet header around everything.

use herald_model::MacAddress;
use pnet_base::MacAddr;
use pnet_packet::Packet as _;
use pnet_packet::ethernet::{EtherType, EtherTypes, EthernetPacket, MutableEthernetPacket};

use crate::ParseError;

pub(crate) const ARP: EtherType = EtherTypes::Arp;
pub(crate) const IPV6: EtherType = EtherTypes::Ipv6;
/// Bytes of the header.
pub(crate) const HEADER_BYTES: usize = 14;

/// A frame, taken apart.
pub(crate) struct Ethernet<'a> {
    pub(crate) source: MacAddress,
    pub(crate) destination: MacAddress,
    pub(crate) ether_type: EtherType,
    pub(crate) payload: &'a [u8],
}

pub(crate) fn parse(bytes: &[u8]) -> Result<Ethernet<'_>, ParseError> {
    let packet = EthernetPacket::new(bytes).ok_or(ParseError::Truncated)?;
    debug_assert_eq!(packet.packet().len(), bytes.len());
    Ok(Ethernet {
        source: to_model(packet.get_source()),
        destination: to_model(packet.get_destination()),
        ether_type: packet.get_ethertype(),
        payload: bytes.get(HEADER_BYTES..).unwrap_or_default(),
    })
}

/// Writes the header and returns what follows it. The frame is at least as long as the header.
pub(crate) fn emit(
    bytes: &mut [u8],
    source: MacAddress,
    destination: MacAddress,
    ether_type: EtherType,
) -> &mut [u8] {
    let (header, payload) = bytes.split_at_mut(HEADER_BYTES);
    let mut packet = MutableEthernetPacket::new(header).expect("14 bytes hold an Ethernet header");
    packet.set_source(to_pnet(source));
    packet.set_destination(to_pnet(destination));
    packet.set_ethertype(ether_type);
    payload
}

pub(crate) fn to_model(mac: MacAddr) -> MacAddress {
    MacAddress(mac.octets())
}

pub(crate) fn to_pnet(mac: MacAddress) -> MacAddr {
    MacAddr::from(mac.0)
}
