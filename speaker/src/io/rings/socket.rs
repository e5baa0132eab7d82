//! What a ring needs of the network: its socket, and questions to kernels and their answers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use herald_model::{IfIndex, MacAddress};
use herald_wire::{Arp, ArpOperation, Frame, Heard, NeighbourSolicitation};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::io::sys;

/// Receive buffer of a socket: what a thousand members send within a second of ours asleep.
const BUFFER_BYTES: usize = 1 << 20;
/// DSCP CS6, what routing protocols use: queues let it pass first.
const TRAFFIC_CLASS: u32 = 0xc0;
/// `TC_PRIO_INTERACTIVE`, the same for the queues of this node.
const PRIORITY: u32 = 6;

/// A socket that hears and sends on this interface only.
pub(super) fn open(interface: IfIndex, own: IpAddr, port: u16) -> io::Result<Socket> {
    let (domain, any): (Domain, IpAddr) = match own {
        IpAddr::V4(_) => (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
        IpAddr::V6(_) => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    sys::bind_to_interface(&socket, interface)?;
    match own {
        IpAddr::V4(_) => socket.set_tos_v4(TRAFFIC_CLASS)?,
        IpAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_tclass_v6(TRAFFIC_CLASS)?;
        }
    }
    // The traffic class changes it, so it comes after.
    socket.set_priority(PRIORITY)?;
    sys::set_receive_buffer(&socket, BUFFER_BYTES)?;
    socket.bind(&SockAddr::from(SocketAddr::new(any, port)))?;
    Ok(socket)
}

/// A question to the kernel of a node: to one address, or to all if that is not known.
pub(super) fn question(
    mac: MacAddress,
    own: IpAddr,
    target: IpAddr,
    to: Option<MacAddress>,
) -> Option<Frame> {
    match (own, target) {
        (IpAddr::V4(own), IpAddr::V4(target)) => {
            let mut request = Arp::request(mac, own, target);
            request.ethernet_destination = to.unwrap_or(MacAddress::BROADCAST);
            Some(request.emit())
        }
        (IpAddr::V6(own), IpAddr::V6(target)) => {
            let mut solicitation = NeighbourSolicitation::probe(mac, target);
            solicitation.source = own;
            solicitation.source_mac = Some(mac);
            if let Some(to) = to {
                solicitation.ethernet_destination = to;
                solicitation.destination = target;
            }
            Some(solicitation.emit())
        }
        _families_differ => None,
    }
}

/// Whose answer a frame is; `None`: it is none.
pub(super) fn answering(frame: &[u8]) -> Option<IpAddr> {
    match herald_wire::parse(frame).ok()? {
        Heard::Arp(arp) if arp.operation == ArpOperation::Reply => Some(arp.sender_ip.into()),
        Heard::Advertisement(advertisement) => Some(advertisement.target.into()),
        Heard::Arp(_) | Heard::Solicitation(_) => None,
    }
}
