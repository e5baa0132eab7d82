//! From a wish to the contents of the maps.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use herald_model::{Family, NodeName, Protocol, ServiceKey};

use crate::contents::{MapContents, MapName};
use crate::layout::{
    BLOCKS, Config, NODES, NodeEntry, PortKey, Role, SLOTS_PER_BLOCK, ServiceEntry, TableRef, Vip,
    VipKey, decode_number, encode_address, encode_block, encode_mac, encode_number, encode_range,
};
use crate::table::{LOCAL_SLOTS, fill, slots_for};
use crate::{Desired, DesiredService, Forwarding, Holder, Spread, Targets};

/// What [`compile`] makes of a wish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compiled {
    /// The contents of the maps.
    pub contents: MapContents,
    /// The number each Service's counters are kept under.
    pub service_ids: BTreeMap<ServiceKey, u32>,
    /// The wishes that are not fulfilled, and why.
    pub refused: Vec<Refused>,
}

/// A wish that is not fulfilled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Two Services want the same port of an address; the first one has it.
    PortTaken {
        /// The Service that does not have it.
        service: ServiceKey,
        /// The address.
        address: IpAddr,
        /// The protocol.
        protocol: Protocol,
        /// The port.
        port: u16,
    },
    /// A Service in a protocol whose packets can't be translated; it is forwarded as with
    /// [`Forwarding::Off`].
    Protocol {
        /// The Service.
        service: ServiceKey,
        /// The protocol.
        protocol: Protocol,
    },
    /// There is no room for one more target table; the Service is forwarded as with
    /// [`Forwarding::Off`].
    NoRoomForTable {
        /// The Service.
        service: ServiceKey,
    },
    /// There are more nodes than numbers; this one is no target.
    TooManyNodes {
        /// The node.
        node: NodeName,
    },
}

/// The contents of the maps that fulfil `desired`, given what is in them.
///
/// `observed` decides only what has no meaning of its own: the numbers of nodes and Services, where
/// tables lie, and the generations of addresses. Numbers and places in use in `observed` are not given
/// to anything else, so that [`diff`](crate::diff) can write first and delete last. What was compiled is
/// compiled to itself.
pub fn compile(observed: &MapContents, desired: &Desired) -> Compiled {
    let mut compiler = Compiler {
        observed,
        desired,
        ports: observed
            .entries(MapName::Services)
            .filter_map(|(key, value)| Some((PortKey::decode(key)?, ServiceEntry::decode(value)?)))
            .collect(),
        node_numbers: BTreeMap::new(),
        out: Compiled::default(),
    };
    compiler.config_and_vips();
    compiler.nodes();
    compiler.services();
    compiler.out
}

struct Compiler<'a> {
    observed: &'a MapContents,
    desired: &'a Desired,
    /// The Service ports in `observed`.
    ports: BTreeMap<PortKey, ServiceEntry>,
    /// The numbers of the nodes that have one.
    node_numbers: BTreeMap<&'a NodeName, u16>,
    out: Compiled,
}

/// The targets of one table: Services with equal ones share it, under `Local` only the ports and
/// families of one Service.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct GroupKey<'a> {
    spread: Spread,
    owner: Option<&'a ServiceKey>,
    targets: BTreeMap<NodeName, (u32, u16)>,
}

/// One Service port that goes to nodes, and which group's table it uses.
struct Member<'a> {
    key: PortKey,
    service: &'a DesiredService,
    node_port: u16,
    group: usize,
}

impl<'a> Compiler<'a> {
    fn put(&mut self, map: MapName, key: Vec<u8>, value: Vec<u8>) {
        self.out.contents.put(map, key, value);
    }

    fn config_and_vips(&mut self) {
        let before = self
            .observed
            .get(MapName::Config, &encode_number(0))
            .and_then(Config::decode)
            .unwrap_or_default();
        let mut generation = before.generation;
        for (&address, vip) in &self.desired.vips {
            let known: Vec<Vip> = self
                .desired
                .interfaces
                .iter()
                .filter_map(|&interface| {
                    let key = VipKey { address, interface }.encode();
                    self.observed.get(MapName::Vips, &key).and_then(Vip::decode)
                })
                .collect();
            let is_held = |vip: &&Vip| vip.role == Role::Me;
            let is_wanted = self
                .desired
                .interfaces
                .iter()
                .any(|interface| vip.holders.get(interface) == Some(&Holder::Me));
            // One generation for all interfaces: replies may come by another than requests.
            let of_vip = match known.iter().find(is_held) {
                Some(held) => held.generation,
                None if is_wanted => {
                    generation = before.generation.wrapping_add(1);
                    generation
                }
                None => known.iter().map(|vip| vip.generation).max().unwrap_or(0),
            };
            for &interface in &self.desired.interfaces {
                let role = match vip.holders.get(&interface).copied().unwrap_or_default() {
                    Holder::Me => Role::Me,
                    Holder::Peer { address } => Role::Peer(address),
                    Holder::Nobody => Role::Nobody,
                };
                let value = Vip {
                    role,
                    generation: of_vip,
                };
                self.put(
                    MapName::Vips,
                    VipKey { address, interface }.encode(),
                    value.encode(),
                );
            }
        }
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the flow hash has 32 bits of seed"
        )]
        let config = Config {
            hash_seed: (self.desired.seed ^ (self.desired.seed >> 32)) as u32,
            generation,
        };
        self.put(MapName::Config, encode_number(0), config.encode());
    }

    /// Numbers the nodes: one with the addresses of before keeps its number, so that whatever
    /// refers to it stays right; others get numbers that nothing refers to yet.
    fn nodes(&mut self) {
        type Addresses = (Option<Ipv4Addr>, Option<Ipv6Addr>);
        let mut before: BTreeMap<Addresses, BTreeSet<u32>> = BTreeMap::new();
        let mut used = BTreeSet::new();
        for (key, value) in self.observed.entries(MapName::Nodes) {
            if let (Some(number), Some(node)) = (decode_number(key), NodeEntry::decode(value)) {
                used.insert(number);
                before
                    .entry((node.ipv4, node.ipv6))
                    .or_default()
                    .insert(number);
            }
        }
        let mut fresh = (1..NODES).filter(|number| !used.contains(number));
        let mut numbers: BTreeMap<&NodeName, u32> = BTreeMap::new();
        for (name, node) in &self.desired.nodes {
            let number = before
                .get_mut(&(node.ipv4, node.ipv6))
                .and_then(BTreeSet::pop_first)
                .or_else(|| fresh.next());
            if let Some(number) = number {
                numbers.insert(name, number);
            } else {
                self.out
                    .refused
                    .push(Refused::TooManyNodes { node: name.clone() });
            }
        }
        for (name, number) in numbers {
            let Some(node) = self.desired.nodes.get(name) else {
                continue;
            };
            let entry = NodeEntry {
                ipv4: node.ipv4,
                ipv6: node.ipv6,
                interface: node.interface,
                is_self: node.is_self,
            };
            self.put(MapName::Nodes, encode_number(number), entry.encode());
            let addresses = node
                .ipv4
                .map(IpAddr::V4)
                .into_iter()
                .chain(node.ipv6.map(IpAddr::V6));
            for address in addresses {
                self.put(
                    MapName::Addresses,
                    encode_address(address),
                    encode_number(number),
                );
            }
            for &mac in &node.macs {
                self.put(MapName::Macs, encode_mac(mac), encode_number(number));
            }
            if let Ok(number) = u16::try_from(number) {
                self.node_numbers.insert(name, number);
            }
        }
    }

    fn services(&mut self) {
        let wanted = self.wanted_ports();
        self.number_services(&wanted);
        let (members, groups, off) = self.group(&wanted);
        let tables = self.place(&members, &groups);
        for member in members {
            if let Some(Some(table)) = tables.get(member.group) {
                self.put_service(member.key, member.service, Some((*table, member.node_port)));
            } else {
                self.out.refused.push(Refused::NoRoomForTable {
                    service: member.service.service.clone(),
                });
                self.put_service(member.key, member.service, None);
            }
        }
        for (key, service) in off {
            self.put_service(key, service, None);
        }
    }

    fn wanted_ports(&mut self) -> BTreeMap<PortKey, &'a DesiredService> {
        let mut wanted: BTreeMap<PortKey, &DesiredService> = BTreeMap::new();
        for (&address, vip) in &self.desired.vips {
            for service in &vip.services {
                let key = PortKey {
                    address,
                    protocol: service.protocol,
                    port: service.port,
                };
                if let Entry::Vacant(port) = wanted.entry(key) {
                    port.insert(service);
                } else {
                    self.out.refused.push(Refused::PortTaken {
                        service: service.service.clone(),
                        address,
                        protocol: service.protocol,
                        port: service.port,
                    });
                }
            }
        }
        wanted
    }

    /// A Service keeps the number that one of its ports has.
    fn number_services(&mut self, wanted: &BTreeMap<PortKey, &'a DesiredService>) {
        let mut taken: BTreeSet<u32> = self.ports.values().map(|entry| entry.id).collect();
        taken.extend(
            self.observed
                .entries(MapName::Stats)
                .filter_map(|(key, _)| decode_number(key)),
        );
        let mut claimed = BTreeSet::new();
        for (key, service) in wanted {
            let Some(entry) = self.ports.get(key) else {
                continue;
            };
            if !self.out.service_ids.contains_key(&service.service) && claimed.insert(entry.id) {
                self.out
                    .service_ids
                    .insert(service.service.clone(), entry.id);
            }
        }
        let mut fresh = (1..).filter(|id| !taken.contains(id));
        for service in wanted.values() {
            if !self.out.service_ids.contains_key(&service.service)
                && let Some(id) = fresh.next()
            {
                self.out.service_ids.insert(service.service.clone(), id);
            }
        }
        let ids: Vec<u32> = self.out.service_ids.values().copied().collect();
        for id in ids {
            self.put(MapName::Stats, encode_number(id), Vec::new());
        }
    }

    /// Sorts the ports into groups that share a table, and those that need none.
    fn group(
        &mut self,
        wanted: &BTreeMap<PortKey, &'a DesiredService>,
    ) -> (
        Vec<Member<'a>>,
        Vec<GroupKey<'a>>,
        Vec<(PortKey, &'a DesiredService)>,
    ) {
        let mut members = Vec::new();
        let mut off = Vec::new();
        let mut keys: BTreeMap<GroupKey<'a>, usize> = BTreeMap::new();
        // Thousands of Services share one list of targets, which is looked at once.
        let mut seen: BTreeMap<(*const Targets, Family, Option<&ServiceKey>), Option<usize>> =
            BTreeMap::new();
        for (&key, &service) in wanted {
            let Forwarding::NodePort { node_port, targets } = &service.forwarding else {
                off.push((key, service));
                continue;
            };
            if service.protocol == Protocol::Sctp {
                self.out.refused.push(Refused::Protocol {
                    service: service.service.clone(),
                    protocol: service.protocol,
                });
                off.push((key, service));
                continue;
            }
            let family = Family::of(key.address);
            let owner = (targets.spread == Spread::Local).then_some(&service.service);
            let group = *seen
                .entry((Arc::as_ptr(targets), family, owner))
                .or_insert_with(|| {
                    let usable = self.usable(targets, family);
                    let next = keys.len();
                    (!usable.is_empty()).then(|| {
                        *keys
                            .entry(GroupKey {
                                spread: targets.spread,
                                owner,
                                targets: usable,
                            })
                            .or_insert(next)
                    })
                });
            match group {
                Some(group) => members.push(Member {
                    key,
                    service,
                    node_port: *node_port,
                    group,
                }),
                None => off.push((key, service)),
            }
        }
        let mut groups: Vec<(usize, GroupKey<'a>)> =
            keys.into_iter().map(|(key, index)| (index, key)).collect();
        groups.sort_by_key(|&(index, _)| index);
        (
            members,
            groups.into_iter().map(|(_, key)| key).collect(),
            off,
        )
    }

    fn usable(&self, targets: &Targets, family: Family) -> BTreeMap<NodeName, (u32, u16)> {
        targets
            .weights
            .iter()
            .filter_map(|(name, &weight)| {
                let node = self.desired.nodes.get(name)?;
                let has_address = match family {
                    Family::V4 => node.ipv4.is_some(),
                    Family::V6 => node.ipv6.is_some(),
                };
                let number = *self.node_numbers.get(name)?;
                (weight > 0 && has_address).then(|| (name.clone(), (weight, number)))
            })
            .collect()
    }

    /// Finds each group its place and writes its table there. A table is changed in place if nobody
    /// else uses it; so its Services need not be touched.
    fn place(&mut self, members: &[Member<'a>], groups: &[GroupKey<'a>]) -> Vec<Option<TableRef>> {
        let mut candidates: Vec<BTreeSet<TableRef>> =
            groups.iter().map(|_| BTreeSet::new()).collect();
        let mut users: BTreeMap<TableRef, BTreeSet<usize>> = BTreeMap::new();
        let mut free = FreeBlocks::default();
        for entry in self.ports.values() {
            if let Some((table, _)) = entry.node_port {
                free.take(table);
            }
        }
        for member in members {
            let before = self
                .ports
                .get(&member.key)
                .and_then(|entry| entry.node_port);
            if let Some((table, _)) = before {
                users.entry(table).or_default().insert(member.group);
                if let Some(candidates) = candidates.get_mut(member.group) {
                    candidates.insert(table);
                }
            }
        }
        groups
            .iter()
            .zip(candidates)
            .map(|(group, candidates)| {
                let fits = |table: &TableRef| match group.spread {
                    Spread::Cluster => table.slots == slots_for(Spread::Cluster, 0),
                    Spread::Local => LOCAL_SLOTS.contains(&table.slots),
                };
                let is_alone = |table: &TableRef| users.get(table).is_some_and(|of| of.len() == 1);
                let kept = candidates.iter().copied().find(|table| {
                    fits(table)
                        && (is_alone(table) || self.holds(*table, &self.blocks(group, table.slots)))
                });
                let table = match kept {
                    Some(table) => table,
                    None => free.allocate(slots_for(group.spread, group.targets.len()))?,
                };
                let blocks = self.blocks(group, table.slots);
                for (key, block) in block_keys(table).zip(blocks) {
                    self.put(MapName::Blocks, key, block);
                }
                Some(table)
            })
            .collect()
    }

    fn blocks(&self, group: &GroupKey<'a>, slots: u32) -> Vec<Vec<u8>> {
        let slots: Vec<u16> = fill(self.desired.seed, slots, &group.targets)
            .into_iter()
            .map(Option::unwrap_or_default)
            .collect();
        slots.chunks(SLOTS_PER_BLOCK).map(encode_block).collect()
    }

    fn holds(&self, table: TableRef, blocks: &[Vec<u8>]) -> bool {
        block_keys(table)
            .zip(blocks)
            .all(|(key, block)| self.observed.get(MapName::Blocks, &key) == Some(block.as_slice()))
    }

    fn put_service(
        &mut self,
        key: PortKey,
        service: &DesiredService,
        node_port: Option<(TableRef, u16)>,
    ) {
        let Some(&id) = self.out.service_ids.get(&service.service) else {
            return;
        };
        let has_ranges = node_port.is_some() && !service.source_ranges.is_empty();
        if has_ranges {
            for &range in service.source_ranges.iter() {
                self.put(MapName::Ranges, encode_range(id, range), encode_number(1));
            }
        }
        if let Some((_, port)) = node_port {
            self.put(
                MapName::Services,
                key.encode_node_port(port),
                vec![0; ServiceEntry::BYTES],
            );
        }
        let entry = ServiceEntry {
            id,
            node_port,
            has_ranges,
        };
        self.put(MapName::Services, key.encode(), entry.encode());
    }
}

fn block_keys(table: TableRef) -> impl Iterator<Item = Vec<u8>> {
    table.block_numbers().map(encode_number)
}

/// Blocks that no table lies in, first fit.
#[derive(Default)]
struct FreeBlocks {
    /// First block → the block after the last, of tables that must not be written over.
    taken: BTreeMap<u32, u32>,
    /// Size → where the last table of this size ends: there is no room for another before that.
    searched: BTreeMap<u32, u32>,
}

impl FreeBlocks {
    fn take(&mut self, table: TableRef) {
        let end = table.block_numbers().end;
        let known = self.taken.entry(table.first_block).or_default();
        *known = end.max(*known);
    }

    fn allocate(&mut self, slots: u32) -> Option<TableRef> {
        let mut table = TableRef {
            first_block: self.searched.get(&slots).copied().unwrap_or(0),
            slots,
        };
        for (&first, &end) in self.taken.range(table.first_block..) {
            if table.block_numbers().end <= first {
                break;
            }
            table.first_block = table.first_block.max(end);
        }
        let end = table.block_numbers().end;
        (end <= BLOCKS).then(|| {
            self.take(table);
            self.searched.insert(slots, end);
            table
        })
    }
}

#[cfg(test)]
mod tests;
