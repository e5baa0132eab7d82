//! Which frame is answered with what.

use std::net::IpAddr;

use herald_model::{IfIndex, MacAddress};
use herald_wire::{Arp, ArpOperation, Frame, Heard, NeighbourAdvertisement, NeighbourSolicitation};
use rustc_hash::FxHashMap;

use crate::{Counts, Port};

/// Answers for the addresses that are held, and for no other.
#[derive(Debug, Default)]
pub struct Responder {
    ports: FxHashMap<IfIndex, Port>,
    held: FxHashMap<(IfIndex, IpAddr), Counts>,
}

/// What a frame leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Send this on the interface the frame came from.
    Reply(Frame),
    /// Somebody else says that it has one of our addresses.
    ForeignClaim {
        /// The address.
        address: IpAddr,
        /// Who says so.
        mac: MacAddress,
    },
}

impl Responder {
    /// A responder that answers nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes an interface known, or changes what is known of it.
    pub fn set_port(&mut self, port: Port) {
        self.ports.insert(port.index, port);
    }

    /// Forgets an interface and everything held on it.
    pub fn remove_port(&mut self, interface: IfIndex) {
        self.ports.remove(&interface);
        self.held
            .retain(|(index, _address), _counts| *index != interface);
    }

    /// Answers for an address on an interface from now on.
    pub fn hold(&mut self, interface: IfIndex, address: IpAddr) {
        self.held.entry((interface, address)).or_default();
    }

    /// Falls silent for an address on an interface.
    pub fn release(&mut self, interface: IfIndex, address: IpAddr) {
        self.held.remove(&(interface, address));
    }

    /// What was said of an address on an interface; `None` if it is not held there.
    pub fn counts(&self, interface: IfIndex, address: IpAddr) -> Option<Counts> {
        self.held.get(&(interface, address)).copied()
    }

    pub(crate) fn counts_mut(
        &mut self,
        interface: IfIndex,
        address: IpAddr,
    ) -> Option<&mut Counts> {
        self.held.get_mut(&(interface, address))
    }

    /// Everything that is held, in no particular order.
    pub(crate) fn held(&self) -> impl Iterator<Item = (IfIndex, IpAddr, Counts)> {
        self.held
            .iter()
            .map(|((interface, address), counts)| (*interface, *address, *counts))
    }

    /// What a frame that came in on an interface leads to; `None`: nothing.
    pub fn frame_received(&mut self, interface: IfIndex, bytes: &[u8]) -> Option<Answer> {
        let port = *self.ports.get(&interface)?;
        let heard = herald_wire::parse(bytes).ok()?;
        match heard {
            Heard::Arp(arp) => self.arp(port, &arp),
            Heard::Solicitation(solicitation) => self.solicitation(port, &solicitation),
            Heard::Advertisement(advertisement) => {
                let mac = advertisement
                    .target_mac
                    .unwrap_or(advertisement.ethernet_source);
                self.claim(port, IpAddr::V6(advertisement.target), mac)
            }
        }
    }

    /// The address that a frame's sender says it has, or is about to take (RFC 5227 section 2.1.1: another's
    /// probe for the address counts as well).
    pub(crate) fn somebody_has(
        &self,
        interface: IfIndex,
        bytes: &[u8],
    ) -> Option<(IpAddr, MacAddress)> {
        let port = self.ports.get(&interface)?;
        let (address, mac) = match herald_wire::parse(bytes).ok()? {
            Heard::Arp(arp) if arp.sender_ip.is_unspecified() => {
                (IpAddr::V4(arp.target_ip), arp.sender_mac)
            }
            Heard::Arp(arp) => (IpAddr::V4(arp.sender_ip), arp.sender_mac),
            Heard::Advertisement(advertisement) => (
                IpAddr::V6(advertisement.target),
                advertisement
                    .target_mac
                    .unwrap_or(advertisement.ethernet_source),
            ),
            Heard::Solicitation(solicitation) if solicitation.source.is_unspecified() => (
                IpAddr::V6(solicitation.target),
                solicitation.ethernet_source,
            ),
            Heard::Solicitation(_) => return None,
        };
        (mac != port.mac).then_some((address, mac))
    }

    fn arp(&mut self, port: Port, arp: &Arp) -> Option<Answer> {
        if arp.sender_mac == port.mac || !is_for(port, arp.ethernet_destination) {
            return None;
        }
        if !arp.sender_ip.is_unspecified() {
            let claim = self.claim(port, IpAddr::V4(arp.sender_ip), arp.sender_mac);
            if claim.is_some() {
                return claim;
            }
        }
        if arp.operation != ArpOperation::Request || !is_unicast(arp.sender_mac) {
            return None;
        }
        let counts = self.counts_mut(port.index, IpAddr::V4(arp.target_ip))?;
        counts.requests = counts.requests.saturating_add(1);
        counts.replies = counts.replies.saturating_add(1);
        Some(Answer::Reply(Arp::reply_to(arp, port.mac).emit()))
    }

    fn solicitation(&mut self, port: Port, solicitation: &NeighbourSolicitation) -> Option<Answer> {
        if solicitation.ethernet_source == port.mac
            || !is_for(port, solicitation.ethernet_destination)
            || solicitation
                .source_mac
                .is_some_and(|mac| mac == port.mac || !is_unicast(mac))
        {
            return None;
        }
        let target = solicitation.target;
        let counts = self.counts_mut(port.index, IpAddr::V6(target))?;
        counts.requests = counts.requests.saturating_add(1);
        counts.replies = counts.replies.saturating_add(1);
        let answer =
            NeighbourAdvertisement::answer(solicitation, port.mac, port.source_for(target));
        Some(Answer::Reply(answer.emit()))
    }

    fn claim(&self, port: Port, address: IpAddr, mac: MacAddress) -> Option<Answer> {
        let is_ours = self.held.contains_key(&(port.index, address));
        (is_ours && mac != port.mac).then_some(Answer::ForeignClaim { address, mac })
    }
}

/// Whether a frame is for this interface: its own address, or a group. An interface in promiscuous
/// mode sees what is for others too.
fn is_for(port: Port, destination: MacAddress) -> bool {
    destination == port.mac || !is_unicast(destination)
}

/// The lowest bit of the first byte marks groups and broadcast.
const fn is_unicast(mac: MacAddress) -> bool {
    let [first, ..] = mac.0;
    first & 1 == 0
}

#[cfg(test)]
mod tests;
