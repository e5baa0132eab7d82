//! What the hash maps have room for. New entries are written before old ones go, so there has to be room for both.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use herald_model::ServiceKey;
use ipnet::IpNet;

use super::Compiler;
use crate::contents::{MapContents, MapName};
use crate::layout::{PORTS, PortKey, RANGES, SERVICE_RANGES, VIPS, VipKey, encode_range};
use crate::{Desired, DesiredService, DesiredVip, Forwarding, Refused};

/// How many entries a map still takes.
fn room(observed: &MapContents, map: MapName, entries: u32) -> usize {
    let entries = usize::try_from(entries).unwrap_or(usize::MAX);
    entries.saturating_sub(observed.count(map))
}

/// The wish without the addresses that there is no room for. Those that were there before come first; of the
/// others, those in the order of addresses, so that nodes agree.
pub(super) fn fit<'a>(
    observed: &MapContents,
    desired: &'a Desired,
) -> (Cow<'a, Desired>, Vec<Refused>) {
    let vips = room(observed, MapName::Vips, VIPS);
    let ports = room(observed, MapName::Services, PORTS);
    let all_ports = desired.vips.values().map(|vip| vip.services.len());
    let all_ports = all_ports.sum::<usize>().saturating_mul(2);
    let all_vips = desired.vips.len().saturating_mul(desired.interfaces.len());
    if all_vips <= vips && all_ports <= ports {
        return (Cow::Borrowed(desired), Vec::new());
    }
    let mut left = (vips, ports);
    let mut refused = Vec::new();
    let new = |(address, vip)| (new_entries(observed, desired, address, vip), address, vip);
    let mut addresses: Vec<_> = desired.vips.iter().map(new).collect();
    let interfaces = desired.interfaces.len();
    addresses.sort_by_key(|&((vips, _), address, _)| (vips == interfaces, address));
    for ((vips, ports), address, vip) in addresses {
        if let (Some(vips), Some(ports)) = (left.0.checked_sub(vips), left.1.checked_sub(ports)) {
            left = (vips, ports);
        } else {
            refused.push((address, vip));
        }
    }
    if refused.is_empty() {
        return (Cow::Borrowed(desired), Vec::new());
    }
    let mut fitting = desired.clone();
    for (address, _) in &refused {
        fitting.vips.remove(address);
    }
    let of_services = |(&address, vip): (&IpAddr, &'a DesiredVip)| {
        let services = vip.services.iter().map(|service| &service.service);
        let services: BTreeSet<&ServiceKey> = services.collect();
        services
            .into_iter()
            .map(move |service| Refused::NoRoomForPorts {
                service: service.clone(),
                address,
            })
    };
    let refused = refused.into_iter().flat_map(of_services).collect();
    (Cow::Owned(fitting), refused)
}

/// How many entries an address needs that are not there yet, in `vips` and in `services`.
fn new_entries(
    observed: &MapContents,
    desired: &Desired,
    &address: &IpAddr,
    vip: &DesiredVip,
) -> (usize, usize) {
    let is_new = |map: MapName, key: &[u8]| observed.get(map, key).is_none();
    let of_vip = desired.interfaces.keys().filter(|&&interface| {
        let key = VipKey { address, interface };
        is_new(MapName::Vips, &key.encode())
    });
    let of_ports = vip.services.iter().flat_map(|service| {
        let key = PortKey {
            address,
            protocol: service.protocol,
            port: service.port,
        };
        let node_port = service.node_port().map(|port| key.encode_node_port(port));
        std::iter::once(key.encode()).chain(node_port)
    });
    let of_ports = of_ports.filter(|key| is_new(MapName::Services, key));
    (of_vip.count(), of_ports.count())
}

impl DesiredService {
    fn node_port(&self) -> Option<u16> {
        match &self.forwarding {
            Forwarding::NodePort { node_port, .. } => Some(*node_port),
            Forwarding::Dsr { node_port, .. } => *node_port,
            Forwarding::Pod { .. } | Forwarding::Off => None,
        }
    }
}

impl<'a> Compiler<'a> {
    /// Finds the Services whose source ranges there is no room for. Those that need the least come first.
    pub(super) fn fit_ranges(&mut self, wanted: &BTreeMap<PortKey, &'a DesiredService>) {
        let mut ranges: BTreeMap<&ServiceKey, BTreeSet<IpNet>> = BTreeMap::new();
        for service in wanted.values() {
            if service.source_ranges.is_empty() || matches!(service.forwarding, Forwarding::Off) {
                continue;
            }
            let of_service = ranges.entry(&service.service).or_default();
            of_service.extend(service.source_ranges.iter().map(IpNet::trunc));
        }
        let new = |(service, ranges): (&'a ServiceKey, BTreeSet<IpNet>)| {
            let id = self.out.service_ids.get(service).copied()?;
            let is_new = |range: &&IpNet| {
                let key = encode_range(id, **range);
                self.observed.get(MapName::Ranges, &key).is_none()
            };
            Some((ranges.iter().filter(is_new).count(), service, ranges.len()))
        };
        let mut services: Vec<_> = ranges.into_iter().filter_map(new).collect();
        services.sort_unstable();
        let mut left = room(self.observed, MapName::Ranges, RANGES);
        for (new, service, ranges) in services {
            let refused = match left.checked_sub(new) {
                _ if ranges > SERVICE_RANGES => Refused::TooManyRanges {
                    service: service.clone(),
                    ranges,
                },
                Some(rest) => {
                    left = rest;
                    continue;
                }
                None => Refused::NoRoomForRanges {
                    service: service.clone(),
                    ranges,
                },
            };
            self.out.refused.push(refused);
            self.crowded.insert(service);
        }
    }
}
