//! An end for packets that kube-proxy does not take.
//!
//! A node that is a target gets packets that are still for the address, and its kube-proxy replaces it. Until
//! kube-proxy knows the address, which takes it up to a second after the controller has published
//! it, the node would route them out to the LAN again, and conntrack would remember that: it would treat all
//! repetitions of the client alike, so that a connection begun in this second hung for good, and so would a later
//! one from the same port for two minutes (`nf_conntrack_tcp_timeout_syn_sent`). A packet that routing drops
//! leaves no entry (`nf_conntrack_confirm` comes after routing), and its repetition is taken.
//!
//! Hence a routing table with a black hole for each address, which only packets from an uplink look
//! up. Those of the node itself and of its pods are routed as ever.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use herald_model::InterfaceName;
use rtnetlink::RouteMessageBuilder;
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::sys::protocols::NETLINK_ROUTE;
use rtnetlink::sys::{Socket, SocketAddr};

/// The number of our routing table: "HE". All that is in it is ours.
pub const TABLE: u32 = 0x4845;

/// Behind the kernel's own table of local addresses, before those of others.
const PRIORITY: u32 = 500;

/// Names us to those who look at routes and rules: "H".
const PROTOCOL: u8 = b'H';

/// The rules and routes of this network namespace. They stay when this is dropped.
#[derive(Debug)]
pub struct BlackHoles {
    socket: Socket,
    sequence: u32,
}

/// What the kernel has, or is to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Contents {
    rules: BTreeSet<(Family, String)>,
    addresses: BTreeSet<IpAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Family {
    V4,
    V6,
}

impl BlackHoles {
    /// Opens a netlink socket.
    ///
    /// # Errors
    ///
    /// If there is none to be had.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // Routes are asked for by table: a node may have a hundred thousand others.
        socket.set_netlink_get_strict_chk(true)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Makes what reaches these interfaces for these addresses, and nothing else, end here.
    ///
    /// # Errors
    ///
    /// What the kernel refused first; the rest is done all the same, as a kernel may have one family only.
    pub fn apply<'a>(
        &mut self,
        interfaces: impl Iterator<Item = &'a InterfaceName>,
        addresses: impl Iterator<Item = IpAddr>,
    ) -> io::Result<()> {
        let wanted = Contents::of(interfaces, addresses);
        let found = self.read()?;
        let mut refused = None;
        let mut note = |result: io::Result<()>| {
            if let Err(error) = result {
                refused.get_or_insert(error);
            }
        };
        // Routes first: a rule that finds none does nothing.
        for address in wanted.addresses.difference(&found.addresses) {
            note(self.add(RouteNetlinkMessage::NewRoute(route(*address))));
        }
        for (family, interface) in wanted.rules.difference(&found.rules) {
            note(self.add(RouteNetlinkMessage::NewRule(rule(*family, interface))));
        }
        for (family, interface) in found.rules.difference(&wanted.rules) {
            note(self.remove(RouteNetlinkMessage::DelRule(rule(*family, interface))));
        }
        for address in found.addresses.difference(&wanted.addresses) {
            note(self.remove(RouteNetlinkMessage::DelRoute(route(*address))));
        }
        refused.map_or(Ok(()), Err)
    }

    /// How many routes and how many rules of ours there are.
    ///
    /// # Errors
    ///
    /// If they cannot be read.
    pub fn count(&mut self) -> io::Result<(usize, usize)> {
        let found = self.read()?;
        Ok((found.addresses.len(), found.rules.len()))
    }

    fn read(&mut self) -> io::Result<Contents> {
        let mut found = Contents::default();
        for family in [Family::V4, Family::V6] {
            let mut request = RuleMessage::default();
            request.header.family = family.number();
            for message in self.list(RouteNetlinkMessage::GetRule(request))? {
                if let RouteNetlinkMessage::NewRule(rule) = message {
                    found
                        .rules
                        .extend(interface_of(&rule).map(|interface| (family, interface)));
                }
            }
            let mut request = RouteMessage::default();
            request.header.address_family = family.number();
            request.attributes = vec![RouteAttribute::Table(TABLE)];
            for message in self.list(RouteNetlinkMessage::GetRoute(request))? {
                if let RouteNetlinkMessage::NewRoute(route) = message {
                    found.addresses.extend(address_of(&route));
                }
            }
        }
        Ok(found)
    }

    fn list(&mut self, request: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        match self.ask(request, NLM_F_DUMP) {
            // No such family here, or no such table yet.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT)
                ) =>
            {
                Ok(Vec::new())
            }
            result => result,
        }
    }

    fn add(&mut self, request: RouteNetlinkMessage) -> io::Result<()> {
        let result = self.ask(request, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
        unless(result, &[libc::EEXIST])
    }

    fn remove(&mut self, request: RouteNetlinkMessage) -> io::Result<()> {
        let result = self.ask(request, NLM_F_ACK);
        unless(result, &[libc::ENOENT, libc::ESRCH])
    }

    /// Sends a request and reads all that answers it.
    fn ask(
        &mut self,
        request: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut buffer = vec![0; message.buffer_len()];
        message.serialize(&mut buffer);
        self.socket.send(&buffer, 0)?;
        let mut found = Vec::new();
        loop {
            let (datagram, _sender) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(io::Error::other)?;
                // Messages begin at multiples of four bytes (NLMSG_ALIGNTO, linux/netlink.h).
                let length = (message.header.length as usize).next_multiple_of(4);
                rest = rest.get(length.max(4)..).unwrap_or_default();
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => found.push(inner),
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io());
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(found),
                    _other => {}
                }
            }
        }
    }
}

impl Contents {
    fn of<'a>(
        interfaces: impl Iterator<Item = &'a InterfaceName>,
        addresses: impl Iterator<Item = IpAddr>,
    ) -> Self {
        let addresses: BTreeSet<IpAddr> = addresses.collect();
        let families: BTreeSet<Family> = addresses.iter().map(Family::of).collect();
        let rules = interfaces
            .flat_map(|interface| {
                families
                    .iter()
                    .map(|family| (*family, interface.to_string()))
            })
            .collect();
        Self { rules, addresses }
    }
}

impl Family {
    fn of(address: &IpAddr) -> Self {
        if address.is_ipv4() {
            Self::V4
        } else {
            Self::V6
        }
    }

    fn number(self) -> AddressFamily {
        match self {
            Self::V4 => AddressFamily::Inet,
            Self::V6 => AddressFamily::Inet6,
        }
    }
}

fn route(address: IpAddr) -> RouteMessage {
    let mut route = match address {
        IpAddr::V4(address) => RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(address, 32)
            .build(),
        IpAddr::V6(address) => RouteMessageBuilder::<Ipv6Addr>::new()
            .destination_prefix(address, 128)
            .build(),
    };
    route.header.table = 0;
    route.header.kind = RouteType::BlackHole;
    route.header.protocol = RouteProtocol::from(PROTOCOL);
    route.attributes.push(RouteAttribute::Table(TABLE));
    route
}

fn address_of(route: &RouteMessage) -> Option<IpAddr> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some((*address).into()),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some((*address).into()),
            _other => None,
        })
}

fn rule(family: Family, interface: &str) -> RuleMessage {
    let mut rule = RuleMessage::default();
    rule.header.family = family.number();
    rule.header.action = RuleAction::ToTable;
    rule.attributes = vec![
        RuleAttribute::Iifname(interface.to_owned()),
        RuleAttribute::Table(TABLE),
        RuleAttribute::Priority(PRIORITY),
        RuleAttribute::Protocol(RouteProtocol::from(PROTOCOL)),
    ];
    rule
}

/// The interface of a rule, if it leads to our table.
fn interface_of(rule: &RuleMessage) -> Option<String> {
    let ours = rule.attributes.contains(&RuleAttribute::Table(TABLE));
    rule.attributes
        .iter()
        .find_map(|attribute| match attribute {
            RuleAttribute::Iifname(name) if ours => Some(name.clone()),
            _other => None,
        })
}

/// Success, unless there is another error than these.
fn unless<T>(result: io::Result<T>, codes: &[i32]) -> io::Result<()> {
    match result {
        Err(error)
            if !error
                .raw_os_error()
                .is_some_and(|code| codes.contains(&code)) =>
        {
            Err(error)
        }
        _done => Ok(()),
    }
}
