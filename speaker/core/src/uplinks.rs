//! The node's interfaces, and the segments they are in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use herald_model::{IfIndex, InterfaceName, InterfacePattern, MacAddress, SegmentName};
use ipnet::IpNet;

use crate::input::Link;

/// Where kube-proxy keeps the addresses of Services in mode ipvs (pkg/proxy/ipvs, `DefaultDummyDevice`).
const IPVS: &str = "kube-ipvs0";

/// What is known of the kernel's interfaces.
#[derive(Debug, Default)]
pub(crate) struct Interfaces {
    links: BTreeMap<IfIndex, Link>,
    addresses: BTreeMap<IfIndex, BTreeSet<IpNet>>,
    gateways: BTreeMap<IfIndex, Vec<IpAddr>>,
}

/// An interface that leads into a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Uplink {
    pub(crate) index: IfIndex,
    pub(crate) name: InterfaceName,
    pub(crate) mac: MacAddress,
    pub(crate) carrier: bool,
    /// Addresses with their prefix lengths, without link-local ones.
    pub(crate) addresses: Vec<IpNet>,
    pub(crate) link_local: Option<Ipv6Addr>,
}

impl Interfaces {
    pub(crate) fn set_link(&mut self, link: Link) {
        self.links.insert(link.index, link);
    }

    /// Whether kube-proxy runs in mode ipvs, by the interface that it makes then.
    pub(crate) fn has_ipvs(&self) -> bool {
        self.links.values().any(|link| link.name.as_str() == IPVS)
    }

    pub(crate) fn remove_link(&mut self, index: IfIndex) {
        self.links.remove(&index);
        self.addresses.remove(&index);
    }

    pub(crate) fn add_address(&mut self, interface: IfIndex, address: IpNet) {
        self.addresses.entry(interface).or_default().insert(address);
    }

    pub(crate) fn remove_address(&mut self, interface: IfIndex, address: IpNet) {
        if let Some(addresses) = self.addresses.get_mut(&interface) {
            addresses.remove(&address);
        }
    }

    pub(crate) fn set_gateways(&mut self, gateways: BTreeMap<IfIndex, Vec<IpAddr>>) {
        self.gateways = gateways;
    }

    /// The routers that an interface leads to, without link-local addresses.
    pub(crate) fn gateways(&self, interface: IfIndex) -> Vec<IpAddr> {
        let all = self.gateways.get(&interface).into_iter().flatten();
        all.filter(|gateway| match gateway {
            IpAddr::V4(ip) => !ip.is_link_local(),
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        })
        .copied()
        .collect()
    }

    /// The segments this node is in. Of several interfaces in one segment, the one with carrier
    /// and then the lowest index stands for all: answers from two would move the address to and
    /// fro.
    pub(crate) fn uplinks(
        &self,
        excluded: &[InterfacePattern],
        names: &BTreeMap<InterfaceName, SegmentName>,
    ) -> BTreeMap<SegmentName, Uplink> {
        let mut uplinks: BTreeMap<SegmentName, Uplink> = BTreeMap::new();
        for link in self.links.values() {
            let is_excluded = excluded.iter().any(|pattern| pattern.matches(&link.name));
            let Some(mac) = link.mac.filter(|_| link.up && !is_excluded) else {
                continue;
            };
            let (addresses, link_local) = self.addresses_of(link.index);
            let Some(segment) = names
                .get(&link.name)
                .cloned()
                .or_else(|| segment_name(&addresses))
                .filter(|_| !addresses.is_empty())
            else {
                continue;
            };
            let uplink = Uplink {
                index: link.index,
                name: link.name.clone(),
                mac,
                carrier: link.carrier,
                addresses,
                link_local,
            };
            let is_better = uplinks
                .get(&segment)
                .is_none_or(|other| uplink.carrier && !other.carrier);
            if is_better {
                uplinks.insert(segment, uplink);
            }
        }
        uplinks
    }

    fn addresses_of(&self, index: IfIndex) -> (Vec<IpNet>, Option<Ipv6Addr>) {
        let all = self.addresses.get(&index);
        let (mut addresses, mut link_local) = (Vec::new(), None);
        for address in all.into_iter().flatten() {
            match address.addr() {
                IpAddr::V6(ip) if ip.is_unicast_link_local() => {
                    link_local = link_local.or(Some(ip));
                }
                IpAddr::V4(ip) if ip.is_link_local() => {}
                _global => addresses.push(*address),
            }
        }
        (addresses, link_local)
    }
}

impl Uplink {
    /// Whether an address is in one of its networks.
    pub(crate) fn reaches(&self, address: IpAddr) -> bool {
        self.addresses
            .iter()
            .any(|prefix| !is_host(prefix) && prefix.contains(&address))
    }
}

/// The lowest IPv4, else IPv6, network; a prefix of one address is shared with nobody.
fn segment_name(addresses: &[IpNet]) -> Option<SegmentName> {
    addresses
        .iter()
        .filter(|prefix| !is_host(prefix))
        .map(IpNet::trunc)
        .min()
        .map(|network| SegmentName::from(network.to_string()))
}

fn is_host(prefix: &IpNet) -> bool {
    prefix.prefix_len() == prefix.max_prefix_len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interfaces(links: &[(u32, &str, bool, &[&str])]) -> Interfaces {
        let mut interfaces = Interfaces::default();
        for (index, name, carrier, addresses) in links {
            let index = IfIndex(*index);
            interfaces.set_link(Link {
                index,
                name: (*name).into(),
                mac: Some(MacAddress([2, 0, 0, 0, 0, 1])),
                carrier: *carrier,
                up: true,
            });
            for address in *addresses {
                interfaces.add_address(index, address.parse().unwrap());
            }
        }
        interfaces
    }

    fn segments(interfaces: &Interfaces) -> Vec<(String, String)> {
        let excluded = [InterfacePattern("cni*".into())];
        interfaces
            .uplinks(&excluded, &BTreeMap::new())
            .into_iter()
            .map(|(segment, uplink)| (segment.to_string(), uplink.name.to_string()))
            .collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected
            .iter()
            .map(|(segment, name)| ((*segment).to_owned(), (*name).to_owned()))
            .collect()
    }

    #[test]
    fn segment_is_named_by_its_lowest_ipv4_prefix_else_ipv6() {
        let got = segments(&interfaces(&[
            (
                2,
                "eth0",
                true,
                &["198.51.100.7/24", "192.0.2.7/25", "2001:db8::7/64"],
            ),
            (3, "eth1", true, &["fe80::1/64", "2001:db8:1::7/64"]),
            (4, "eth2", true, &["fe80::2/64", "169.254.1.1/16"]),
            (5, "eth3", true, &["203.0.113.9/32"]),
            (6, "cni0", true, &["10.244.1.1/24"]),
        ]));
        assert_eq!(
            got,
            pairs(&[("192.0.2.0/25", "eth0"), ("2001:db8:1::/64", "eth1")])
        );
    }

    #[test]
    fn of_two_interfaces_in_one_segment_the_one_with_carrier_counts() {
        let links: [(u32, &str, bool, &[&str]); 3] = [
            (2, "eth0", false, &["192.0.2.7/24"]),
            (3, "eth1", true, &["192.0.2.8/24"]),
            (4, "eth2", true, &["192.0.2.9/24"]),
        ];
        let got = segments(&interfaces(&links));
        assert_eq!(got, pairs(&[("192.0.2.0/24", "eth1")]));
    }

    #[test]
    fn annotation_of_the_node_overrides_the_name() {
        let interfaces = interfaces(&[(2, "eth0", true, &["192.0.2.7/24"])]);
        let names = BTreeMap::from([("eth0".into(), "rack7".into())]);
        let uplinks = interfaces.uplinks(&[], &names);
        assert_eq!(
            uplinks.keys().map(SegmentName::as_str).collect::<Vec<_>>(),
            ["rack7"]
        );
    }
}
