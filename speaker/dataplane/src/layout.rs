//! The bytes of map keys and values, as `speaker/ebpf/maps.h` declares them.
//!
//! Addresses are 16 bytes, IPv4 as `::ffff:a.b.c.d`; ports are in network byte order; all other
//! numbers are little-endian, as on every machine the programs are built for. The C side asserts the
//! same sizes, and the tests here compare whole values with bytes written down by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;

use herald_model::{IfIndex, Instant, MacAddress, Protocol};
use ipnet::IpNet;

/// Slots in one element of the map `blocks`.
pub const SLOTS_PER_BLOCK: usize = 256;
/// Elements of the map `blocks`, 24 MiB of slots: room for the tables of 12,000 Services under Local.
pub const BLOCKS: u32 = 49_152;
/// Elements of the map `nodes`; number 0 stands for "no node".
pub const NODES: u32 = 8_192;
/// Numbers of this node's own pods; 0 stands for "no pod". A pod has one for each Service and port.
pub const PODS: u32 = 65_536;
/// Elements of the map `stats`: a Service whose number is not below is not counted.
pub const SERVICES: u32 = 16_384;
/// Entries of the map `vips`: one for each address and interface.
pub const VIPS: u32 = 65_536;
/// Entries of the map `services`: one for each port of an address, and one for its `NodePort`.
pub const PORTS: u32 = 131_072;
/// Entries of the map `ranges`.
pub const RANGES: u32 = 262_144;
/// Source ranges that one Service may have, so that it can't take the room of all others.
pub const SERVICE_RANGES: usize = 16_384;
/// Segments that a node can be reached on by its MAC address; further ones are not used for that.
pub const LINKS: usize = 4;

const CONFIG_IGNORES_ECHO: u32 = 1;
const CONFIG_IS_WRITTEN: u32 = 2;
const KIND_SERVICE: u8 = 0;
const KIND_NODE_PORT: u8 = 1;
const MODE_OFF: u8 = 0;
const MODE_NODE_PORT: u8 = 1;
const MODE_DSR: u8 = 2;
const MODE_POD: u8 = 3;
const SERVICE_HAS_RANGES: u8 = 1;
const SERVICE_BY_ADDRESS: u8 = 2;
const SERVICE_HAS_FLOWS: u8 = 4;
const NODE_KNOWN: u32 = 1;
const NODE_IS_SELF: u32 = 2;
const ROLE_NOBODY: u32 = 0;
const ROLE_ME: u32 = 1;
const ROLE_PEER: u32 = 2;
const AF_INET: u32 = 2;
const AF_INET6: u32 = 10;

/// Takes fixed-size pieces off the front of a value's bytes.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (piece, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*piece)
    }

    fn number(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn port(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }

    fn address(&mut self) -> Option<IpAddr> {
        self.take::<16>()
            .map(|bytes| Ipv6Addr::from(bytes).to_canonical())
    }
}

fn address_bytes(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// An address as the programs see it: words as the machine reads them.
pub(crate) fn address_words(address: IpAddr) -> [u32; 4] {
    let bytes = address_bytes(address);
    let mut words = bytes.as_chunks::<4>().0.iter().copied();
    std::array::from_fn(|_| words.next().map_or(0, u32::from_le_bytes))
}

/// The last four bytes of a MAC address: those before are a manufacturer's.
pub(crate) fn mac_word(mac: MacAddress) -> u32 {
    let [_, _, third, fourth, fifth, last] = mac.0;
    u32::from_le_bytes([third, fourth, fifth, last])
}

/// `struct config`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) hash_seed: u32,
    pub(crate) generation: u32,
    pub(crate) ignores_echo: bool,
}

impl Config {
    pub(crate) const BYTES: usize = 12;

    pub(crate) fn encode(self) -> Vec<u8> {
        let flags = if self.ignores_echo {
            CONFIG_IGNORES_ECHO
        } else {
            0
        };
        [self.hash_seed, self.generation, CONFIG_IS_WRITTEN | flags]
            .map(u32::to_le_bytes)
            .concat()
    }

    /// `None` also for one that nobody has written yet.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let hash_seed = reader.number()?;
        let generation = reader.number()?;
        let flags = reader.number()?;
        (flags & CONFIG_IS_WRITTEN != 0).then_some(Self {
            hash_seed,
            generation,
            ignores_echo: flags & CONFIG_IGNORES_ECHO != 0,
        })
    }
}

/// `struct vip_key`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct VipKey {
    pub(crate) address: IpAddr,
    pub(crate) interface: IfIndex,
}

impl VipKey {
    pub(crate) fn encode(self) -> Vec<u8> {
        [
            &address_bytes(self.address)[..],
            &self.interface.0.to_le_bytes(),
        ]
        .concat()
    }
}

/// The role in `struct vip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Nobody,
    Me,
    /// We do, and this one did before.
    MeAfter(IpAddr),
    Peer(IpAddr),
}

impl Role {
    pub(crate) const fn is_me(self) -> bool {
        matches!(self, Self::Me | Self::MeAfter(_))
    }
}

/// `struct vip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vip {
    pub(crate) role: Role,
    pub(crate) generation: u32,
}

impl Vip {
    pub(crate) const BYTES: usize = 28;

    pub(crate) fn encode(self) -> Vec<u8> {
        let (role, other) = match self.role {
            Role::Nobody => (ROLE_NOBODY, None),
            Role::Me => (ROLE_ME, None),
            Role::MeAfter(before) => (ROLE_ME, Some(before)),
            Role::Peer(holder) => (ROLE_PEER, Some(holder)),
        };
        let (family, holder) = match other {
            None => (0, [0; 16]),
            Some(IpAddr::V4(address)) => {
                let mut bytes = [0; 16];
                if let Some(first) = bytes.first_chunk_mut() {
                    *first = address.octets();
                }
                (AF_INET, bytes)
            }
            Some(IpAddr::V6(address)) => (AF_INET6, address.octets()),
        };
        [
            &role.to_le_bytes()[..],
            &self.generation.to_le_bytes(),
            &family.to_le_bytes(),
            &holder,
        ]
        .concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let role = reader.number()?;
        let generation = reader.number()?;
        let family = reader.number()?;
        let other: Option<IpAddr> = match family {
            AF_INET => Some(Ipv4Addr::from(reader.take::<4>()?).into()),
            AF_INET6 => Some(Ipv6Addr::from(reader.take::<16>()?).into()),
            _none => None,
        };
        let role = match (role, other) {
            (ROLE_NOBODY, _) => Role::Nobody,
            (ROLE_ME, None) => Role::Me,
            (ROLE_ME, Some(before)) => Role::MeAfter(before),
            (ROLE_PEER, Some(holder)) => Role::Peer(holder),
            _ => return None,
        };
        Some(Self { role, generation })
    }
}

/// `struct service_key` of kind `KIND_SERVICE`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PortKey {
    pub(crate) address: IpAddr,
    pub(crate) protocol: Protocol,
    pub(crate) port: u16,
}

impl PortKey {
    fn bytes(self, port: u16, kind: u8) -> Vec<u8> {
        [
            &address_bytes(self.address)[..],
            &port.to_be_bytes(),
            &[self.protocol.number(), kind],
        ]
        .concat()
    }

    pub(crate) fn encode(self) -> Vec<u8> {
        self.bytes(self.port, KIND_SERVICE)
    }

    /// The key of kind `KIND_NODE_PORT` for the same address and protocol.
    pub(crate) fn encode_node_port(self, node_port: u16) -> Vec<u8> {
        self.bytes(node_port, KIND_NODE_PORT)
    }

    /// `None` also for a key of another kind.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let address = reader.address()?;
        let port = reader.port()?;
        let [protocol, kind] = reader.take()?;
        let protocol = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]
            .into_iter()
            .find(|known| known.number() == protocol)?;
        (kind == KIND_SERVICE).then_some(Self {
            address,
            protocol,
            port,
        })
    }
}

/// Where a target table lies in `blocks`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TableRef {
    pub(crate) first_block: u32,
    pub(crate) slots: u32,
    /// Whether as many slots follow, with whom each belonged to before.
    pub(crate) has_before: bool,
}

impl TableRef {
    /// The number of blocks of its slots, without those before.
    #[expect(clippy::cast_possible_truncation, reason = "256 fits")]
    const fn blocks(self) -> u32 {
        self.slots.div_ceil(SLOTS_PER_BLOCK as u32)
    }

    /// The numbers of its blocks, those of before at the end.
    pub(crate) fn block_numbers(self) -> Range<u32> {
        let blocks = self.blocks() << u32::from(self.has_before);
        self.first_block..self.first_block.saturating_add(blocks)
    }
}

/// `struct service`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServiceEntry {
    pub(crate) id: u32,
    /// `None` is mode off.
    pub(crate) route: Option<Route>,
    pub(crate) has_ranges: bool,
}

/// How a Service's packets reach the nodes of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) table: TableRef,
    /// 0: none.
    pub(crate) node_port: u16,
    /// By MAC address; else to the `NodePort`.
    pub(crate) direct: Option<Direct>,
    /// With [`Direct::to_pods_since`], the table of this node's own pods; `None`: it has none.
    pub(crate) pods: Option<TableRef>,
}

/// The particulars of modes `dsr` and `pod`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Direct {
    /// The client's address alone chooses the target.
    pub(crate) by_address: bool,
    /// The flow tables may know of flows of the same VIP.
    pub(crate) has_flows: bool,
    /// The target gives the flow to one of its own pods, mode `pod`: since when, by the programs' clock.
    /// Zero: for as long as the maps exist.
    pub(crate) to_pods_since: Option<Instant>,
}

impl ServiceEntry {
    pub(crate) const BYTES: usize = 32;

    pub(crate) fn encode(self) -> Vec<u8> {
        let table = self
            .route
            .map_or((0, 0), |route| (route.table.first_block, route.table.slots));
        let pods = self.route.and_then(|route| route.pods);
        let pods = pods.map_or((0, 0), |pods| (pods.first_block, pods.slots));
        let direct = self.route.and_then(|route| route.direct);
        let mode = match (self.route, direct) {
            (None, _) => MODE_OFF,
            (Some(_), None) => MODE_NODE_PORT,
            (Some(_), Some(direct)) if direct.to_pods_since.is_none() => MODE_DSR,
            (Some(_), Some(_)) => MODE_POD,
        };
        let since = direct.and_then(|direct| direct.to_pods_since);
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        let is_direct = |what: fn(&Direct) -> bool| direct.as_ref().is_some_and(what);
        let flags = flag(self.has_ranges, SERVICE_HAS_RANGES)
            | flag(is_direct(|direct| direct.by_address), SERVICE_BY_ADDRESS)
            | flag(is_direct(|direct| direct.has_flows), SERVICE_HAS_FLOWS);
        [
            &self.id.to_le_bytes()[..],
            &table.0.to_le_bytes(),
            &table.1.to_le_bytes(),
            &self.route.map_or(0, |route| route.node_port).to_be_bytes(),
            &[mode, flags],
            &pods.0.to_le_bytes(),
            &pods.1.to_le_bytes(),
            &since.map_or(0, Instant::as_nanos).to_le_bytes(),
        ]
        .concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let id = reader.number()?;
        let (first_block, slots) = (reader.number()?, reader.number()?);
        let node_port = reader.port()?;
        let [mode, flags] = reader.take()?;
        let pods = TableRef {
            first_block: reader.number()?,
            slots: reader.number()?,
            has_before: false,
        };
        let since = Instant::from_nanos(reader.take().map(u64::from_le_bytes)?);
        let direct = match mode {
            MODE_OFF | MODE_NODE_PORT => None,
            MODE_DSR | MODE_POD => Some(Direct {
                by_address: flags & SERVICE_BY_ADDRESS != 0,
                has_flows: flags & SERVICE_HAS_FLOWS != 0,
                to_pods_since: (mode == MODE_POD).then_some(since),
            }),
            _ => return None,
        };
        Some(Self {
            id,
            route: (mode != MODE_OFF).then_some(Route {
                table: TableRef {
                    first_block,
                    slots,
                    has_before: mode == MODE_POD,
                },
                node_port,
                direct,
                pods: (pods.slots > 0).then_some(pods),
            }),
            has_ranges: flags & SERVICE_HAS_RANGES != 0,
        })
    }
}

/// `struct pod`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PodEntry {
    pub(crate) address: SocketAddr,
    /// The Service's number.
    pub(crate) service: u32,
    /// Whether it takes new flows.
    pub(crate) takes_new: bool,
}

impl PodEntry {
    pub(crate) const BYTES: usize = 24;

    pub(crate) fn encode(self) -> Vec<u8> {
        [
            &address_bytes(self.address.ip())[..],
            &self.service.to_le_bytes(),
            &self.address.port().to_be_bytes(),
            &[u8::from(self.takes_new), 0],
        ]
        .concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let address = reader.address()?;
        let service = reader.number()?;
        let port = reader.port()?;
        let [takes_new, _zero] = reader.take()?;
        Some(Self {
            address: SocketAddr::new(address, port),
            service,
            takes_new: takes_new != 0,
        })
    }
}

/// `struct link`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkEntry {
    pub(crate) interface: IfIndex,
    pub(crate) target: MacAddress,
    pub(crate) source: MacAddress,
}

impl LinkEntry {
    const BYTES: usize = 16;

    fn encode(self) -> Vec<u8> {
        [
            &self.interface.0.to_le_bytes()[..],
            &self.target.0,
            &self.source.0,
        ]
        .concat()
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        Some(Self {
            interface: IfIndex(reader.number()?),
            target: MacAddress(reader.take()?),
            source: MacAddress(reader.take()?),
        })
    }
}

/// `struct node`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeEntry {
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
    pub(crate) interface: Option<IfIndex>,
    pub(crate) is_self: bool,
    /// The first [`LINKS`] of them.
    pub(crate) links: Vec<LinkEntry>,
}

impl NodeEntry {
    pub(crate) const BYTES: usize = 28 + LINKS * LinkEntry::BYTES;

    pub(crate) fn encode(&self) -> Vec<u8> {
        let flags = NODE_KNOWN | if self.is_self { NODE_IS_SELF } else { 0 };
        let mut bytes = [
            &self.ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED).octets()[..],
            &self.ipv6.unwrap_or(Ipv6Addr::UNSPECIFIED).octets(),
            &self.interface.map_or(0, |index| index.0).to_le_bytes(),
            &flags.to_le_bytes(),
        ]
        .concat();
        for link in self.links.iter().take(LINKS) {
            bytes.extend(link.encode());
        }
        bytes.resize(Self::BYTES, 0);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let ipv4 = Ipv4Addr::from(reader.take::<4>()?);
        let ipv6 = Ipv6Addr::from(reader.take::<16>()?);
        let interface = reader.number()?;
        let flags = reader.number()?;
        let links = std::iter::from_fn(|| LinkEntry::read(&mut reader))
            .take_while(|link| link.interface != IfIndex(0))
            .collect();
        (flags & NODE_KNOWN != 0).then_some(Self {
            ipv4: (!ipv4.is_unspecified()).then_some(ipv4),
            ipv6: (!ipv6.is_unspecified()).then_some(ipv6),
            interface: (interface != 0).then_some(IfIndex(interface)),
            is_self: flags & NODE_IS_SELF != 0,
            links,
        })
    }
}

/// Stands for nobody in a slot of those before: unlike zeros, which an element may hold that nobody has
/// written, it is always written.
pub(crate) const NOBODY_BEFORE: u16 = u16::MAX;

/// The slots in an element of `blocks`.
pub(crate) fn decode_block(bytes: &[u8]) -> impl Iterator<Item = u16> {
    let (slots, _) = bytes.as_chunks::<2>();
    slots.iter().map(|slot| u16::from_le_bytes(*slot))
}

/// An element of `blocks` from its slots; missing ones are empty.
pub(crate) fn encode_block(slots: &[u16]) -> Vec<u8> {
    let mut bytes: Vec<u8> = slots.iter().flat_map(|slot| slot.to_le_bytes()).collect();
    bytes.resize(SLOTS_PER_BLOCK * 2, 0);
    bytes
}

/// A key of an array, and of the maps keyed by an id.
pub(crate) fn encode_number(number: u32) -> Vec<u8> {
    number.to_le_bytes().to_vec()
}

/// What [`encode_number`] encoded.
pub(crate) fn decode_number(bytes: &[u8]) -> Option<u32> {
    Reader(bytes).number()
}

/// `struct address`.
pub(crate) fn encode_address(address: IpAddr) -> Vec<u8> {
    address_bytes(address).to_vec()
}

/// `struct mac_key`.
pub(crate) fn encode_mac(mac: MacAddress) -> Vec<u8> {
    [&mac.0[..], &[0; 2]].concat()
}

/// `struct range_key`.
pub(crate) fn encode_range(service: u32, range: IpNet) -> Vec<u8> {
    let (is_ipv6, bits) = match range {
        IpNet::V4(range) => (0, 96 + u32::from(range.prefix_len())),
        IpNet::V6(range) => (1, u32::from(range.prefix_len())),
    };
    [
        &(32 + bits).to_le_bytes()[..],
        &(service << 1 | is_ipv6).to_le_bytes(),
        &address_bytes(range.network()),
    ]
    .concat()
}

#[cfg(test)]
mod tests;
