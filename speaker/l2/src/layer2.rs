//! Responder and announcer behind one face.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use herald_model::{IfIndex, Instant, MacAddress};
use herald_wire::Frame;

use crate::prober::{Due, Prober};
use crate::{Announcer, Answer, Counts, Pace, Port, Responder};

/// Everything layer 2: told what is held, it answers and announces; told what is wanted, it asks.
#[derive(Debug)]
pub struct Layer2 {
    responder: Responder,
    announcer: Announcer,
    prober: Prober,
    ports: BTreeMap<IfIndex, Port>,
    /// When addresses were last defended.
    defended: BTreeMap<(IfIndex, IpAddr), Instant>,
}

/// Between two defences of one address.
const DEFENCE: Duration = Duration::from_secs(10);

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// An interface can be used, or something about it changed.
    PortSet(Port),
    /// An interface can no longer be used; what was held on it is forgotten.
    PortRemoved(IfIndex),
    /// This node now holds an address on an interface.
    Held {
        /// The interface.
        interface: IfIndex,
        /// The address.
        address: IpAddr,
    },
    /// Somebody else claimed an address that is held here by right: it is announced again, at most
    /// once in ten seconds (RFC 5227 section 2.4).
    Challenged {
        /// The interface.
        interface: IfIndex,
        /// The address.
        address: IpAddr,
    },
    /// This node no longer holds an address on an interface.
    Released {
        /// The interface.
        interface: IfIndex,
        /// The address.
        address: IpAddr,
    },
    /// Ask whether anybody on the LAN uses an address that is not held here; the answer is
    /// [`Effect::ReportProbed`].
    Probe {
        /// The interface.
        interface: IfIndex,
        /// The address.
        address: IpAddr,
    },
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a frame.
    SendFrame {
        /// On which interface.
        interface: IfIndex,
        /// What.
        frame: Frame,
    },
    /// Say that somebody else claims an address held here.
    ReportForeignClaim {
        /// On which interface.
        interface: IfIndex,
        /// The address.
        address: IpAddr,
        /// Who claims it.
        mac: MacAddress,
    },
    /// Say what came of [`Input::Probe`].
    ReportProbed {
        /// On which interface.
        interface: IfIndex,
        /// The address.
        address: IpAddr,
        /// Who uses it; `None`: nobody answered.
        user: Option<MacAddress>,
    },
}

impl Layer2 {
    /// A machine that holds nothing; every interface has a pace of its own for what it announces, and
    /// one for what it asks.
    pub fn new(announcements: Pace, questions: Pace) -> Self {
        Self {
            responder: Responder::new(),
            announcer: Announcer::new(announcements),
            prober: Prober::new(questions),
            ports: BTreeMap::new(),
            defended: BTreeMap::new(),
        }
    }

    /// Takes an input in; what is due at once is among the effects.
    pub fn handle(&mut self, now: Instant, input: Input, out: &mut Vec<Effect>) {
        match input {
            Input::PortSet(port) => {
                let before = self.ports.insert(port.index, port);
                self.responder.set_port(port);
                if before.is_some_and(|before| before.mac != port.mac) {
                    self.announcer.restart(now, port.index);
                }
            }
            Input::PortRemoved(interface) => {
                self.ports.remove(&interface);
                self.defended.retain(|(index, _), _| *index != interface);
                self.responder.remove_port(interface);
                self.announcer.remove(interface);
                self.prober.remove(interface);
            }
            Input::Held { interface, address } => {
                self.prober.end(interface, address);
                if self.ports.contains_key(&interface) {
                    self.responder.hold(interface, address);
                    self.announcer.hold(now, interface, address);
                }
            }
            Input::Challenged { interface, address } => self.defend(now, interface, address),
            Input::Released { interface, address } => self.release(interface, address),
            Input::Probe { interface, address } => {
                if self.ports.contains_key(&interface) {
                    self.prober.begin(interface, address);
                }
            }
        }
        self.on_deadline(now, out);
    }

    /// This node holds none of these any more. Unlike after [`Input::Released`], nothing follows at once: what is
    /// due to be announced may be another one of them.
    pub fn release_all(&mut self, interface: IfIndex, addresses: impl IntoIterator<Item = IpAddr>) {
        for address in addresses {
            self.release(interface, address);
        }
    }

    fn release(&mut self, interface: IfIndex, address: IpAddr) {
        self.defended.remove(&(interface, address));
        self.responder.release(interface, address);
        self.announcer.release(interface, address);
    }

    /// Takes a frame in, as the socket of an interface read it.
    pub fn frame_received(&mut self, interface: IfIndex, bytes: &[u8], out: &mut Vec<Effect>) {
        if !self.prober.is_idle()
            && let Some((address, mac)) = self.responder.somebody_has(interface, bytes)
            && self.prober.end(interface, address)
        {
            out.push(Effect::ReportProbed {
                interface,
                address,
                user: Some(mac),
            });
        }
        match self.responder.frame_received(interface, bytes) {
            Some(Answer::Reply(frame)) => out.push(Effect::SendFrame { interface, frame }),
            Some(Answer::ForeignClaim { address, mac }) => out.push(Effect::ReportForeignClaim {
                interface,
                address,
                mac,
            }),
            None => {}
        }
    }

    fn defend(&mut self, now: Instant, interface: IfIndex, address: IpAddr) {
        let place = (interface, address);
        let is_tired = self
            .defended
            .get(&place)
            .is_some_and(|before| now.saturating_since(*before) < DEFENCE);
        if self.responder.counts(interface, address).is_some() && !is_tired {
            self.defended.insert(place, now);
            self.announcer.again(now, interface, address);
        }
    }

    /// When the next announcement is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        let questions = self.prober.next_deadline();
        self.announcer
            .next_deadline()
            .into_iter()
            .chain(questions)
            .min()
    }

    /// Announces what is due; early calls do nothing.
    pub fn on_deadline(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let (ports, responder) = (&self.ports, &mut self.responder);
        self.announcer.on_deadline(now, |interface, address| {
            if let (Some(port), Some(counts)) = (
                ports.get(&interface),
                responder.counts_mut(interface, address),
            ) {
                announce(port, address, counts, out);
            }
        });
        self.prober
            .on_deadline(now, |interface, address, due| match due {
                Due::Probe => {
                    if let Some(port) = ports.get(&interface) {
                        out.push(Effect::SendFrame {
                            interface,
                            frame: port.probe(address),
                        });
                    }
                }
                Due::Silent => out.push(Effect::ReportProbed {
                    interface,
                    address,
                    user: None,
                }),
            });
    }

    /// What was said of each address that is held, in order.
    pub fn counts(&self) -> BTreeMap<(IfIndex, IpAddr), Counts> {
        self.responder
            .held()
            .map(|(interface, address, counts)| ((interface, address), counts))
            .collect()
    }
}

fn announce(port: &Port, address: IpAddr, counts: &mut Counts, out: &mut Vec<Effect>) {
    let (first, second) = port.announcement(address);
    for frame in std::iter::once(first).chain(second) {
        counts.gratuitous = counts.gratuitous.saturating_add(1);
        out.push(Effect::SendFrame {
            interface: port.index,
            frame,
        });
    }
}

#[cfg(test)]
mod tests;
