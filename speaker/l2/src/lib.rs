//! Whom the speaker answers and what it announces on layer 2.
//!
//! Decides which frame is answered with what ([`Responder`]) and when which address is announced
//! ([`Announcer`]); [`Layer2`] is both behind the one face every machine has. It never decides who
//! holds an address: it is told. It opens no socket and reads no clock.
//!
//! Invariants: only an address that is held on that very interface is answered or announced; a
//! release takes effect with the next frame; nothing is allocated to answer a frame; frames that
//! nobody asked for never exceed the pace of their interface; the questions for addresses have one of their own.
//!
//! ```
//! use herald_l2::{Effect, Input, Layer2, Pace, Port};
//! use herald_model::{IfIndex, Instant, MacAddress};
//!
//! let mut layer2 = Layer2::new(Pace::default(), Pace::QUESTIONS);
//! let mut out = Vec::new();
//! let port = Port { index: IfIndex(2), mac: MacAddress([2, 0, 0, 0, 0, 1]), source: None };
//! layer2.handle(Instant::ORIGIN, Input::PortSet(port), &mut out);
//! let address = "192.0.2.10".parse()?;
//! layer2.handle(Instant::ORIGIN, Input::Held { interface: IfIndex(2), address }, &mut out);
//! assert_eq!(out.len(), 2, "announced at once, as a request and as a reply: {out:?}");
//! # Ok::<(), std::net::AddrParseError>(())
//! ```

#![deny(clippy::indexing_slicing, clippy::iter_over_hash_type)]

mod announcer;
mod layer2;
mod pace;
mod prober;
mod responder;

pub use announcer::{Announcer, frames_of};
pub use layer2::{Effect, Input, Layer2};
pub use pace::Pace;
pub use responder::{Answer, Responder};

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use herald_model::{IfIndex, MacAddress};
use herald_wire::{Arp, Frame, NeighbourAdvertisement, NeighbourSolicitation};

/// An interface on which addresses can be announced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its index.
    pub index: IfIndex,
    /// Its MAC address, which every answer names.
    pub mac: MacAddress,
    /// The source of neighbour advertisements: its link-local address. `None`: it has none, then
    /// the announced address itself is the source.
    pub source: Option<Ipv6Addr>,
}

/// What was said of one address on one interface since it is held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests or solicitations for it.
    pub requests: u64,
    /// Answers to them.
    pub replies: u64,
    /// Announcements nobody asked for, in frames.
    pub gratuitous: u64,
}

impl Port {
    fn source_for(&self, address: Ipv6Addr) -> Ipv6Addr {
        self.source.unwrap_or(address)
    }

    /// A question that claims nothing: the sender is unspecified (RFC 5227 section 2.1.1, RFC 4862
    /// section 5.4.2).
    fn probe(&self, address: IpAddr) -> Frame {
        match address {
            IpAddr::V4(address) => Arp::request(self.mac, Ipv4Addr::UNSPECIFIED, address).emit(),
            IpAddr::V6(address) => NeighbourSolicitation::probe(self.mac, address).emit(),
        }
    }

    /// The frames of one announcement: IPv4 as request and as reply, as appliances disagree about
    /// which form counts.
    fn announcement(&self, address: IpAddr) -> (Frame, Option<Frame>) {
        match address {
            IpAddr::V4(address) => (
                Arp::announcement_request(self.mac, address).emit(),
                Some(Arp::announcement_reply(self.mac, address).emit()),
            ),
            IpAddr::V6(address) => {
                let source = self.source_for(address);
                (
                    NeighbourAdvertisement::unsolicited(address, self.mac, source).emit(),
                    None,
                )
            }
        }
    }
}

/// The IPv6 group whose frames an interface has to accept so that solicitations for an address
/// arrive; `None` for IPv4, where they are broadcast.
pub const fn group_of(address: IpAddr) -> Option<Ipv6Addr> {
    match address {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(herald_wire::solicited_node(address)),
    }
}
