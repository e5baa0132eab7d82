//! The bytes of map keys and values, as `speaker/ebpf/maps.h` declares them.
//!
//! Addresses are 16 bytes, IPv4 as `::ffff:a.b.c.d`; ports are in network byte order; all other
//! numbers are little-endian, as on every machine the programs are built for. The C side asserts the
//! same sizes, and the tests here compare whole values with bytes written down by hand.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;

use herald_model::{IfIndex, MacAddress, Protocol};
use ipnet::IpNet;

/// Slots in one element of the map `blocks`.
pub const SLOTS_PER_BLOCK: usize = 256;
/// Elements of the map `blocks`, 8 MiB of slots.
pub const BLOCKS: u32 = 16_384;
/// Elements of the map `nodes`; number 0 stands for "no node".
pub const NODES: u32 = 8_192;

const KIND_SERVICE: u8 = 0;
const KIND_NODE_PORT: u8 = 1;
const MODE_OFF: u8 = 0;
const MODE_NODE_PORT: u8 = 1;
const SERVICE_HAS_RANGES: u8 = 1;
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

/// `struct config`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Config {
    pub(crate) hash_seed: u32,
    pub(crate) generation: u32,
}

impl Config {
    pub(crate) fn encode(self) -> Vec<u8> {
        [self.hash_seed.to_le_bytes(), self.generation.to_le_bytes()].concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        Some(Self {
            hash_seed: reader.number()?,
            generation: reader.number()?,
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
    Peer(IpAddr),
}

/// `struct vip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Vip {
    pub(crate) role: Role,
    pub(crate) generation: u32,
}

impl Vip {
    pub(crate) fn encode(self) -> Vec<u8> {
        let (role, family, holder) = match self.role {
            Role::Nobody => (ROLE_NOBODY, 0, [0; 16]),
            Role::Me => (ROLE_ME, 0, [0; 16]),
            Role::Peer(IpAddr::V4(address)) => {
                let mut bytes = [0; 16];
                if let Some(first) = bytes.first_chunk_mut() {
                    *first = address.octets();
                }
                (ROLE_PEER, AF_INET, bytes)
            }
            Role::Peer(IpAddr::V6(address)) => (ROLE_PEER, AF_INET6, address.octets()),
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
        let role = match (role, family) {
            (ROLE_NOBODY, _) => Role::Nobody,
            (ROLE_ME, _) => Role::Me,
            (ROLE_PEER, AF_INET) => Role::Peer(Ipv4Addr::from(reader.take::<4>()?).into()),
            (ROLE_PEER, AF_INET6) => Role::Peer(Ipv6Addr::from(reader.take::<16>()?).into()),
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
}

impl TableRef {
    /// The number of blocks.
    #[expect(clippy::cast_possible_truncation, reason = "256 fits")]
    pub(crate) const fn blocks(self) -> u32 {
        self.slots.div_ceil(SLOTS_PER_BLOCK as u32)
    }

    /// The numbers of its blocks.
    pub(crate) fn block_numbers(self) -> Range<u32> {
        self.first_block..self.first_block.saturating_add(self.blocks())
    }
}

/// `struct service`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServiceEntry {
    pub(crate) id: u32,
    /// Table and `NodePort`; `None` is mode off.
    pub(crate) node_port: Option<(TableRef, u16)>,
    pub(crate) has_ranges: bool,
}

impl ServiceEntry {
    pub(crate) const BYTES: usize = 16;

    pub(crate) fn encode(self) -> Vec<u8> {
        let off = TableRef {
            first_block: 0,
            slots: 0,
        };
        let (mode, (table, port)) = self
            .node_port
            .map_or((MODE_OFF, (off, 0)), |to| (MODE_NODE_PORT, to));
        let flags = if self.has_ranges {
            SERVICE_HAS_RANGES
        } else {
            0
        };
        [
            &self.id.to_le_bytes()[..],
            &table.first_block.to_le_bytes(),
            &table.slots.to_le_bytes(),
            &port.to_be_bytes(),
            &[mode, flags],
        ]
        .concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let id = reader.number()?;
        let table = TableRef {
            first_block: reader.number()?,
            slots: reader.number()?,
        };
        let port = reader.port()?;
        let [mode, flags] = reader.take()?;
        let node_port = match mode {
            MODE_OFF => None,
            MODE_NODE_PORT => Some((table, port)),
            _ => return None,
        };
        Some(Self {
            id,
            node_port,
            has_ranges: flags & SERVICE_HAS_RANGES != 0,
        })
    }
}

/// `struct node`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NodeEntry {
    pub(crate) ipv4: Option<Ipv4Addr>,
    pub(crate) ipv6: Option<Ipv6Addr>,
    pub(crate) interface: Option<IfIndex>,
    pub(crate) is_self: bool,
}

impl NodeEntry {
    pub(crate) const BYTES: usize = 28;

    pub(crate) fn encode(self) -> Vec<u8> {
        let flags = NODE_KNOWN | if self.is_self { NODE_IS_SELF } else { 0 };
        [
            &self.ipv4.unwrap_or(Ipv4Addr::UNSPECIFIED).octets()[..],
            &self.ipv6.unwrap_or(Ipv6Addr::UNSPECIFIED).octets(),
            &self.interface.map_or(0, |index| index.0).to_le_bytes(),
            &flags.to_le_bytes(),
        ]
        .concat()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader(bytes);
        let ipv4 = Ipv4Addr::from(reader.take::<4>()?);
        let ipv6 = Ipv6Addr::from(reader.take::<16>()?);
        let interface = reader.number()?;
        let flags = reader.number()?;
        (flags & NODE_KNOWN != 0).then_some(Self {
            ipv4: (!ipv4.is_unspecified()).then_some(ipv4),
            ipv6: (!ipv6.is_unspecified()).then_some(ipv6),
            interface: (interface != 0).then_some(IfIndex(interface)),
            is_self: flags & NODE_IS_SELF != 0,
        })
    }
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
