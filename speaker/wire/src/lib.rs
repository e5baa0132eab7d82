//! ARP and NDP frames: what the speaker hears and says on layer 2.
//!
//! Decides nothing: it turns bytes into values and values into bytes, over `pnet`'s packet module.
//! It never opens a socket, and it knows neither who holds an address nor what is to be answered.
//!
//! Invariants: parsing never panics, whatever the bytes; a value that was parsed obeys the rules
//! its protocol has for a receiver (RFC 826, RFC 4861 sections 7.1.1 and 7.1.2), so nobody asks
//! again; every frame that is built fits into [`Frame`], which lives on the stack.
//!
//! ```
//! use herald_model::MacAddress;
//! use herald_wire::{Arp, Heard, parse};
//!
//! let mac = MacAddress([2, 0, 0, 0, 0, 1]);
//! let frame = Arp::announcement_request(mac, [192, 0, 2, 10].into()).emit();
//! let Ok(Heard::Arp(arp)) = parse(frame.as_bytes()) else { unreachable!() };
//! assert_eq!(arp.sender_ip, arp.target_ip);
//! assert_eq!(arp.sender_mac, mac);
//! assert_eq!(arp.ethernet_destination, MacAddress::BROADCAST);
//! ```

#![deny(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    clippy::iter_over_hash_type
)]

mod arp;
mod ethernet;
mod frame;
mod ndp;

pub use arp::{Arp, ArpOperation};
pub use frame::Frame;
pub use ndp::{
    ALL_NODES, NeighbourAdvertisement, NeighbourSolicitation, multicast_mac, solicited_node,
};

/// A frame the speaker understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// ARP for IPv4 over Ethernet.
    Arp(Arp),
    /// An IPv6 neighbour solicitation.
    Solicitation(NeighbourSolicitation),
    /// An IPv6 neighbour advertisement.
    Advertisement(NeighbourAdvertisement),
}

/// Why a frame was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The frame ends before its headers do.
    #[error("the frame ends before its headers do")]
    Truncated,
    /// Well-formed perhaps, but neither ARP nor NDP for Ethernet.
    #[error("neither ARP nor a neighbour message")]
    Foreign,
    /// It breaks a rule of its protocol, so a receiver has to discard it.
    #[error("breaks a rule of its protocol: {rule}")]
    Invalid {
        /// The rule.
        rule: &'static str,
    },
}

impl ParseError {
    /// A name for metrics and logs, from a closed set.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::Foreign => "foreign",
            Self::Invalid { .. } => "invalid",
        }
    }
}

/// Reads an Ethernet frame.
///
/// # Errors
///
/// [`ParseError::Truncated`] if it ends too early, [`ParseError::Foreign`] if it is something
/// else, [`ParseError::Invalid`] if a receiver has to discard it.
pub fn parse(bytes: &[u8]) -> Result<Heard, ParseError> {
    let header = ethernet::parse(bytes)?;
    match header.ether_type {
        ethernet::ARP => arp::parse(&header).map(Heard::Arp),
        ethernet::IPV6 => ndp::parse(&header),
        _other => Err(ParseError::Foreign),
    }
}
