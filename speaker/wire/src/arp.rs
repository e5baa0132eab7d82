//! ARP for IPv4 over Ethernet: RFC 826, RFC 5227.

use std::net::Ipv4Addr;

use herald_model::MacAddress;
use pnet_packet::arp::{
    ArpHardwareTypes, ArpOperation as Operation, ArpOperations, ArpPacket, MutableArpPacket,
};
use pnet_packet::ethernet::EtherTypes;

use crate::ethernet::{self, Ethernet, HEADER_BYTES, to_model, to_pnet};
use crate::{Frame, ParseError};

/// Bytes of an ARP packet for IPv4 over Ethernet.
const ARP_BYTES: usize = 28;

/// An ARP packet with its Ethernet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Who sent the frame.
    pub ethernet_source: MacAddress,
    /// Whom the frame is for.
    pub ethernet_destination: MacAddress,
    /// Question or answer.
    pub operation: ArpOperation,
    /// The sender's hardware address (SHA).
    pub sender_mac: MacAddress,
    /// The sender's protocol address (SPA); 0.0.0.0 in a probe.
    pub sender_ip: Ipv4Addr,
    /// The target's hardware address (THA); zero if unknown.
    pub target_mac: MacAddress,
    /// The target's protocol address (TPA).
    pub target_ip: Ipv4Addr,
}

/// Question or answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpOperation {
    /// "Who has it?"
    Request,
    /// "I have it."
    Reply,
}

impl Arp {
    /// A question, broadcast: `sender` asks who has `target_ip`.
    pub const fn request(sender_mac: MacAddress, sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> Self {
        Self {
            ethernet_source: sender_mac,
            ethernet_destination: MacAddress::BROADCAST,
            operation: ArpOperation::Request,
            sender_mac,
            sender_ip,
            target_mac: MacAddress::ZERO,
            target_ip,
        }
    }

    /// The unicast answer to `request`: its target address is at `mac`.
    ///
    /// It goes to the hardware address inside the request, as the kernel's own answers do.
    pub const fn reply_to(request: &Self, mac: MacAddress) -> Self {
        Self {
            ethernet_source: mac,
            ethernet_destination: request.sender_mac,
            operation: ArpOperation::Reply,
            sender_mac: mac,
            sender_ip: request.target_ip,
            target_mac: request.sender_mac,
            target_ip: request.sender_ip,
        }
    }

    /// An announcement in the form of a request: THA is zero (RFC 5227 section 3).
    pub const fn announcement_request(mac: MacAddress, ip: Ipv4Addr) -> Self {
        Self::request(mac, ip, ip)
    }

    /// An announcement in the form of a reply, broadcast.
    ///
    /// THA equals SHA: only then Linux takes a reply as gratuitous and updates an entry that it
    /// changed less than a second ago (`net/ipv4/arp.c`, `arp_is_garp`, Linux 6.18).
    pub const fn announcement_reply(mac: MacAddress, ip: Ipv4Addr) -> Self {
        Self {
            ethernet_source: mac,
            ethernet_destination: MacAddress::BROADCAST,
            operation: ArpOperation::Reply,
            sender_mac: mac,
            sender_ip: ip,
            target_mac: mac,
            target_ip: ip,
        }
    }

    /// The frame.
    pub fn emit(&self) -> Frame {
        let mut frame = Frame::zeroed(HEADER_BYTES + ARP_BYTES);
        let payload = ethernet::emit(
            frame.as_mut_bytes(),
            self.ethernet_source,
            self.ethernet_destination,
            ethernet::ARP,
        );
        let mut packet = writer(payload);
        packet.set_hardware_type(ArpHardwareTypes::Ethernet);
        packet.set_protocol_type(EtherTypes::Ipv4);
        packet.set_hw_addr_len(6);
        packet.set_proto_addr_len(4);
        packet.set_operation(self.operation.to_pnet());
        packet.set_sender_hw_addr(to_pnet(self.sender_mac));
        packet.set_sender_proto_addr(self.sender_ip);
        packet.set_target_hw_addr(to_pnet(self.target_mac));
        packet.set_target_proto_addr(self.target_ip);
        frame
    }
}

fn writer(payload: &mut [u8]) -> MutableArpPacket<'_> {
    MutableArpPacket::new(payload).expect("28 bytes hold an ARP packet for IPv4")
}

impl ArpOperation {
    const fn to_pnet(self) -> Operation {
        match self {
            Self::Request => ArpOperations::Request,
            Self::Reply => ArpOperations::Reply,
        }
    }
}

pub(crate) fn parse(frame: &Ethernet<'_>) -> Result<Arp, ParseError> {
    let packet = ArpPacket::new(frame.payload).ok_or(ParseError::Truncated)?;
    let is_ipv4_over_ethernet = packet.get_hardware_type() == ArpHardwareTypes::Ethernet
        && packet.get_protocol_type() == EtherTypes::Ipv4
        && packet.get_hw_addr_len() == 6
        && packet.get_proto_addr_len() == 4;
    if !is_ipv4_over_ethernet {
        return Err(ParseError::Foreign);
    }
    let operation = match packet.get_operation() {
        ArpOperations::Request => ArpOperation::Request,
        ArpOperations::Reply => ArpOperation::Reply,
        _other => return Err(ParseError::Foreign),
    };
    Ok(Arp {
        ethernet_source: frame.source,
        ethernet_destination: frame.destination,
        operation,
        sender_mac: to_model(packet.get_sender_hw_addr()),
        sender_ip: packet.get_sender_proto_addr(),
        target_mac: to_model(packet.get_target_hw_addr()),
        target_ip: packet.get_target_proto_addr(),
    })
}

#[cfg(test)]
mod tests;
