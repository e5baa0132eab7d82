//! From a wish to the contents of the maps.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use herald_model::{Instant, NodeName, ServiceKey};

use crate::contents::{MapContents, MapName};
use crate::filter::Filters;
use crate::layout::{
    Config, LINKS, LinkEntry, NODES, NodeEntry, PODS, PodEntry, PortKey, Role, Route, SERVICES,
    ServiceEntry, Vip, VipKey, decode_number, encode_address, encode_mac, encode_number,
    encode_range,
};
use crate::{
    Desired, DesiredNode, DesiredPod, DesiredService, DesiredVip, Forwarding, Holder, Refused,
};

mod fit;
mod group;
mod place;

use fit::fit;
use group::{GroupKey, Member, TargetName};

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

/// The contents of the maps that fulfil `desired`, given what is in them.
///
/// `observed` decides only what has no meaning of its own: the numbers of nodes and Services, where
/// tables lie, and the generations of addresses. Numbers and places in use in `observed` are not given
/// to anything else, so that [`diff`](crate::diff) can write first and delete last. What was compiled is
/// compiled to itself, unless something was refused: it may have room once that is carried out.
///
/// `now` is the time by the programs' clock, `CLOCK_MONOTONIC`; what is new in mode `pod` is so from then on.
pub fn compile(observed: &MapContents, desired: &Desired, now: Instant) -> Compiled {
    let (desired, refused) = fit(observed, desired);
    let config = observed
        .get(MapName::Config, &encode_number(0))
        .and_then(Config::decode);
    let mut compiler = Compiler {
        observed,
        desired: &desired,
        now,
        config,
        ports: observed
            .entries(MapName::Services)
            .filter_map(|(key, value)| Some((PortKey::decode(key)?, ServiceEntry::decode(value)?)))
            .collect(),
        node_numbers: BTreeMap::new(),
        pod_numbers: BTreeMap::new(),
        crowded: BTreeSet::new(),
        out: Compiled {
            refused,
            ..Compiled::default()
        },
    };
    compiler.config_and_vips();
    compiler.nodes();
    compiler.services();
    compiler.filters();
    compiler.out
}

struct Compiler<'a> {
    observed: &'a MapContents,
    desired: &'a Desired,
    now: Instant,
    /// What `observed` was made with; `None`: nobody has made it, the maps are new.
    config: Option<Config>,
    /// The Service ports in `observed`.
    ports: BTreeMap<PortKey, ServiceEntry>,
    /// The numbers of the nodes that have one.
    node_numbers: BTreeMap<&'a NodeName, u16>,
    /// The numbers of our node's pods, as endpoints of the Service with this number.
    pod_numbers: BTreeMap<(u32, SocketAddr), u16>,
    /// The Services whose source ranges there is no room for: kube-proxy is to look at them.
    crowded: BTreeSet<&'a ServiceKey>,
    out: Compiled,
}

impl<'a> Compiler<'a> {
    fn put(&mut self, map: MapName, key: Vec<u8>, value: Vec<u8>) {
        self.put_shared(map, key, value.into());
    }

    /// Puts what is there already, if it is the same.
    fn put_shared(&mut self, map: MapName, key: Vec<u8>, value: Arc<[u8]>) {
        let value = match self.observed.shared(map, &key) {
            Some(before) if *before == value => Arc::clone(before),
            _ => value,
        };
        self.out.contents.put(map, key, value);
    }

    fn config_and_vips(&mut self) {
        let before = self.config.unwrap_or_default();
        let mut generation = before.generation;
        for (&address, vip) in &self.desired.vips {
            let known = self.known(address);
            let is_held = |vip: &&Vip| vip.role.is_me();
            let is_wanted = self.is_wanted(vip);
            // One generation for all interfaces: replies may come by another than requests.
            let of_vip = match known.iter().find(is_held) {
                Some(held) => held.generation,
                None if is_wanted => {
                    generation = before.generation.wrapping_add(1);
                    generation
                }
                None => known.iter().map(|vip| vip.generation).max().unwrap_or(0),
            };
            for &interface in self.desired.interfaces.keys() {
                let role = match vip.holders.get(&interface).copied().unwrap_or_default() {
                    Holder::Me => Role::Me,
                    Holder::MeAfter { address } => Role::MeAfter(address),
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
            ignores_echo: self.desired.ignores_echo,
        };
        self.put(MapName::Config, encode_number(0), config.encode());
    }

    fn filters(&mut self) {
        let mut filters = Filters::new();
        if !self.desired.interfaces.is_empty() {
            for &address in self.desired.vips.keys() {
                filters.add_vip(address);
            }
        }
        for name in self.node_numbers.keys() {
            let Some(node) = self.desired.nodes.get(*name) else {
                continue;
            };
            for address in node.addresses() {
                filters.add_address(address);
            }
            for &mac in &node.macs {
                filters.add_mac(mac);
            }
        }
        for (_, address) in self.pod_numbers.keys() {
            filters.add_pod(address.ip());
        }
        self.put(MapName::Filters, encode_number(0), filters.encode());
    }

    /// What is in the maps of an address, by interface.
    fn known(&self, address: IpAddr) -> Vec<Vip> {
        let interfaces = self.desired.interfaces.keys();
        let known = |&interface| {
            let key = VipKey { address, interface }.encode();
            self.observed.get(MapName::Vips, &key).and_then(Vip::decode)
        };
        interfaces.filter_map(known).collect()
    }

    /// Whether we are to hold an address somewhere.
    fn is_wanted(&self, vip: &DesiredVip) -> bool {
        let mut interfaces = self.desired.interfaces.keys();
        interfaces.any(|interface| vip.holders.get(interface).is_some_and(Holder::is_me))
    }

    fn links(&self, node: &DesiredNode) -> Vec<LinkEntry> {
        let links = node.links.iter().filter_map(|(&interface, &target)| {
            Some(LinkEntry {
                interface,
                target,
                source: *self.desired.interfaces.get(&interface)?,
            })
        });
        links.take(LINKS).collect()
    }

    /// Numbers the nodes: one with the addresses of before keeps its number, so that whatever
    /// refers to it stays right; others get numbers that nothing refers to yet.
    fn nodes(&mut self) {
        type Addresses = (Option<Ipv4Addr>, Option<Ipv6Addr>, Vec<LinkEntry>);
        let mut before: BTreeMap<Addresses, BTreeSet<u32>> = BTreeMap::new();
        let mut used = BTreeSet::new();
        for (key, value) in self.observed.entries(MapName::Nodes) {
            if let (Some(number), Some(node)) = (decode_number(key), NodeEntry::decode(value)) {
                used.insert(number);
                before
                    .entry((node.ipv4, node.ipv6, node.links))
                    .or_default()
                    .insert(number);
            }
        }
        let mut fresh = (1..NODES).filter(|number| !used.contains(number));
        let mut numbers: BTreeMap<&NodeName, u32> = BTreeMap::new();
        for (name, node) in &self.desired.nodes {
            let number = before
                .get_mut(&(node.ipv4, node.ipv6, self.links(node)))
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
                links: self.links(node),
            };
            self.put(MapName::Nodes, encode_number(number), entry.encode());
            for address in node.addresses() {
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
        self.fit_ranges(&wanted);
        self.number_pods(&wanted);
        let (mut members, groups, off) = self.group(&wanted);
        self.find_flows(&mut members, &groups);
        let tables = self.place(&members, &groups);
        for member in members {
            if let Some(Some(table)) = tables.get(member.group) {
                let pods = member.pods.and_then(|pods| *tables.get(pods)?);
                if member.pods.is_some() && pods.is_none() {
                    self.out.refused.push(Refused::NoRoomForPods {
                        service: member.service.service.clone(),
                    });
                }
                let route = Route {
                    table: *table,
                    node_port: member.node_port,
                    direct: member.direct,
                    pods,
                };
                self.put_service(member.key, member.service, Some(route));
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
        for id in ids.into_iter().filter(|&id| id < SERVICES) {
            self.put(MapName::Stats, encode_number(id), Vec::new());
        }
    }

    /// Numbers our own pods. One that was there before keeps its number: flows are pinned to it.
    fn number_pods(&mut self, wanted: &BTreeMap<PortKey, &'a DesiredService>) {
        let before: BTreeMap<(u32, SocketAddr), u32> = self
            .observed
            .entries(MapName::Pods)
            .filter_map(|(key, value)| {
                let pod = PodEntry::decode(value)?;
                Some(((pod.service, pod.address), decode_number(key)?))
            })
            .collect();
        let used: BTreeSet<u32> = before.values().copied().collect();
        let mut fresh = (1..PODS).filter(|number| !used.contains(number));
        let mut left_out: BTreeMap<&ServiceKey, BTreeSet<SocketAddr>> = BTreeMap::new();
        for service in wanted.values() {
            let (Forwarding::Pod { pods, .. }, Some(&id)) = (
                &service.forwarding,
                self.out.service_ids.get(&service.service),
            ) else {
                continue;
            };
            if self.crowded.contains(&service.service) {
                continue;
            }
            for &DesiredPod { address, takes_new } in pods.iter() {
                let number = match self.pod_numbers.get(&(id, address)) {
                    Some(&number) => Some(number),
                    None => before
                        .get(&(id, address))
                        .copied()
                        .or_else(|| fresh.next())
                        .and_then(|number| u16::try_from(number).ok()),
                };
                let Some(number) = number else {
                    left_out
                        .entry(&service.service)
                        .or_default()
                        .insert(address);
                    continue;
                };
                self.pod_numbers.insert((id, address), number);
                let entry = PodEntry {
                    address,
                    service: id,
                    takes_new,
                };
                self.put(MapName::Pods, encode_number(number.into()), entry.encode());
            }
        }
        let left_out = left_out
            .into_iter()
            .map(|(service, pods)| Refused::TooManyPods {
                service: service.clone(),
                pods: pods.len(),
            });
        self.out.refused.extend(left_out);
    }

    /// Finds the addresses in mode `dsr` that the flow tables may know flows of: those with a target
    /// that is reached by its `NodePort`, and those held all along that had flows before. A reply
    /// of such a flow may come to any port of the address.
    fn find_flows(&self, members: &mut [Member<'a>], groups: &[GroupKey<'a>]) {
        let has_link = |target: &TargetName| {
            let node = match target {
                TargetName::Node(name) => self.desired.nodes.get(name),
                TargetName::Pod(_) => None,
            };
            node.is_some_and(|node| node.is_self || !self.links(node).is_empty())
        };
        let is_mixed: Vec<bool> = groups
            .iter()
            .map(|group| !group.targets.keys().all(has_link))
            .collect();
        let stays = |address: IpAddr| {
            let vip = self.desired.vips.get(&address);
            let is_held = self.known(address).iter().any(|vip| vip.role.is_me());
            is_held && vip.is_some_and(|vip| self.is_wanted(vip))
        };
        let had_flows = |member: &Member<'_>| {
            let before = self.ports.get(&member.key).and_then(|entry| entry.route);
            before.is_some_and(|route| route.direct.is_none_or(|direct| direct.has_flows))
        };
        let addresses: BTreeSet<IpAddr> = members
            .iter()
            .filter(|member| match member.direct {
                None => true,
                Some(_) => {
                    member.node_port != 0 && is_mixed.get(member.group) == Some(&true)
                        || had_flows(member) && stays(member.key.address)
                }
            })
            .map(|member| member.key.address)
            .collect();
        for member in members {
            if let Some(direct) = &mut member.direct {
                direct.has_flows = addresses.contains(&member.key.address);
            }
        }
    }

    fn put_service(&mut self, key: PortKey, service: &DesiredService, route: Option<Route>) {
        let Some(&id) = self.out.service_ids.get(&service.service) else {
            return;
        };
        let has_ranges = route.is_some() && !service.source_ranges.is_empty();
        if has_ranges {
            for &range in service.source_ranges.iter() {
                self.put(MapName::Ranges, encode_range(id, range), encode_number(1));
            }
        }
        let has_flows = |route: &Route| route.direct.is_none_or(|direct| direct.has_flows);
        if let Some(route) = route.filter(|route| route.node_port != 0 && has_flows(route)) {
            self.put(
                MapName::Services,
                key.encode_node_port(route.node_port),
                vec![0; ServiceEntry::BYTES],
            );
        }
        let entry = ServiceEntry {
            id,
            route,
            has_ranges,
        };
        self.put(MapName::Services, key.encode(), entry.encode());
    }
}

#[cfg(test)]
mod tests;
