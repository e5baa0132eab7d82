//! The address plan. Each lab has a LAN of its own, so all labs use the same addresses.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The LAN's IPv4 prefix.
pub const LAN_V4: &str = "172.30.0.0/16";
/// The LAN's IPv6 prefix.
pub const LAN_V6: &str = "fd30::/64";
/// Part of the LAN that nothing else uses: for pools.
pub const POOL_V4: &str = "172.30.64.0/18";
/// Part of the LAN that nothing else uses: for pools.
pub const POOL_V6: &str = "fd30::1:0:0/96";
/// The bridge itself: the nodes' default gateway. It answers ARP and ND and forwards nothing.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(172, 30, 0, 1);
/// The bridge itself, IPv6.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, 1);
/// Cluster IPs of Services, IPv4.
pub const SERVICE_V4: &str = "10.96.0.0/16";
/// Cluster IPs of Services, IPv6.
pub const SERVICE_V6: &str = "fd00:10:96::/112";
/// All pods, IPv4; each node has a /24 of it.
pub const POD_V4: &str = "10.244.0.0/16";
/// All pods, IPv6; each node has a /64 of it.
pub const POD_V6: &str = "fd00:10:244::/48";

/// The most nodes a lab can have: the addresses up to .99 are theirs.
pub const MAX_NODES: u8 = 89;
/// The most clients a lab can have: .100 to .199.
pub const MAX_CLIENTS: u8 = 100;

/// Which address families the cluster and its LAN have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Both, IPv4 first.
    #[default]
    Dual,
    /// IPv4 only.
    Ipv4,
    /// IPv6 only.
    Ipv6,
}

impl Family {
    /// Whether there is IPv4.
    pub fn v4(self) -> bool {
        self != Self::Ipv6
    }

    /// Whether there is IPv6.
    pub fn v6(self) -> bool {
        self != Self::Ipv4
    }

    /// The parts this family has, IPv4 first, comma separated: the form Kubernetes' flags take.
    pub fn pick(self, v4: impl fmt::Display, v6: impl fmt::Display) -> String {
        match self {
            Self::Dual => format!("{v4},{v6}"),
            Self::Ipv4 => v4.to_string(),
            Self::Ipv6 => v6.to_string(),
        }
    }
}

impl FromStr for Family {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "dual" => Ok(Self::Dual),
            "ipv4" => Ok(Self::Ipv4),
            "ipv6" => Ok(Self::Ipv6),
            _ => Err(Error::InvalidOption(format!(
                "family {text:?} is not one of dual, ipv4, ipv6"
            ))),
        }
    }
}

/// Where one leg on the LAN is: its addresses and its MAC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LanAddress {
    /// None in an IPv6 lab.
    pub v4: Option<Ipv4Addr>,
    /// None in an IPv4 lab.
    pub v6: Option<Ipv6Addr>,
    /// Fixed per place, so that it stays the same over a power cycle.
    pub mac: String,
}

impl LanAddress {
    fn new(family: Family, host: u8, mac: String) -> Self {
        Self {
            v4: family.v4().then(|| Ipv4Addr::new(172, 30, 0, host)),
            v6: family
                .v6()
                .then(|| Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 0, 0, same_digits(host))),
            mac,
        }
    }

    /// The control plane's.
    pub fn control_plane(family: Family) -> Self {
        Self::new(family, 2, "02:30:00:00:01:02".to_owned())
    }

    /// That of node `index`, from 1.
    pub fn node(family: Family, index: u8) -> Self {
        Self::new(family, 10 + index, format!("02:30:00:00:00:{index:02x}"))
    }

    /// That of client `index`, from 0.
    pub fn client(family: Family, index: u8) -> Self {
        Self::new(family, 100 + index, format!("02:30:00:00:02:{index:02x}"))
    }

    /// All addresses, IPv4 first, without prefix lengths.
    pub fn all(&self) -> Vec<String> {
        let v4 = self.v4.map(|address| address.to_string());
        let v6 = self.v6.map(|address| address.to_string());
        v4.into_iter().chain(v6).collect()
    }

    /// IPv4 where there is one: the way Kubernetes sees the primary address.
    pub fn primary(&self) -> String {
        self.all().into_iter().next().unwrap_or_default()
    }
}

/// The pods of node `index`, from 1: a /24, a /64, or both.
pub fn pod_cidrs(family: Family, index: u8) -> Vec<String> {
    let v4 = family.v4().then(|| format!("10.244.{index}.0/24"));
    let v6 = family.v6().then(|| format!("fd00:10:244:{index}::/64"));
    v4.into_iter().chain(v6).collect()
}

/// A number whose hexadecimal digits are the decimal ones of `host`: `fd30::11` goes with 172.30.0.11.
fn same_digits(host: u8) -> u16 {
    let host = u16::from(host);
    ((host / 100) << 8) | ((host / 10 % 10) << 4) | (host % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_show_the_same_number() {
        let shown = |address: LanAddress| address.all().join(" ");
        assert_eq!(
            shown(LanAddress::control_plane(Family::Dual)),
            "172.30.0.2 fd30::2"
        );
        assert_eq!(
            shown(LanAddress::node(Family::Dual, 1)),
            "172.30.0.11 fd30::11"
        );
        assert_eq!(
            shown(LanAddress::node(Family::Dual, MAX_NODES)),
            "172.30.0.99 fd30::99"
        );
        assert_eq!(
            shown(LanAddress::client(Family::Dual, 0)),
            "172.30.0.100 fd30::100"
        );
        assert_eq!(
            shown(LanAddress::client(Family::Dual, MAX_CLIENTS - 1)),
            "172.30.0.199 fd30::199"
        );
    }

    #[test]
    fn a_single_family_has_nothing_of_the_other() {
        assert_eq!(LanAddress::node(Family::Ipv4, 2).all(), ["172.30.0.12"]);
        assert_eq!(LanAddress::node(Family::Ipv6, 2).all(), ["fd30::12"]);
        assert_eq!(pod_cidrs(Family::Ipv6, 2), ["fd00:10:244:2::/64"]);
        assert_eq!(Family::Ipv6.pick("4", "6"), "6");
        assert_eq!(Family::Dual.pick("4", "6"), "4,6");
    }

    #[test]
    fn every_mac_is_its_own() {
        let nodes = (1..=MAX_NODES).map(|index| LanAddress::node(Family::Dual, index));
        let clients = (0..MAX_CLIENTS).map(|index| LanAddress::client(Family::Dual, index));
        let all: Vec<_> = nodes.chain(clients).map(|address| address.mac).collect();
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
    }

    #[test]
    fn refuses_an_unknown_family() {
        let error = "both".parse::<Family>().expect_err("not a family");
        assert_eq!(
            error.to_string(),
            "family \"both\" is not one of dual, ipv4, ipv6"
        );
    }
}
