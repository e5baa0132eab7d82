//! An address given to Services: the claim on it, and the plan for it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::{
    AdvertisementName, ConflictPolicy, Epoch, Incarnation, NodeName, PoolName, SegmentName,
    ServiceKey, Uid,
};

/// The annotation of a `VirtualIP` that names the node which is to announce it from now on. The next plan takes
/// it away.
pub const MOVE_TO: &str = "heraldlb.io/move-to";

/// The spec of a `VirtualIP`: one per address, and the lock on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualIp {
    /// The address.
    pub address: IpAddr,
    /// The pool it came from.
    pub pool: PoolName,
    /// The version of the plan.
    pub epoch: Epoch,
    /// Where it is in its life.
    pub phase: Phase,
    /// Who announces it.
    pub announce: Announce,
    /// What its pool wants done when a stranger answers for it.
    pub conflict_policy: ConflictPolicy,
    /// The advertisements that decided so; empty under [`Announce::All`].
    pub advertisements: Vec<AdvertisementName>,
    /// The Services that hold it; more than one if they share it.
    pub services: Vec<ServiceRef>,
    /// Who is to announce it, segment by segment.
    pub segments: Vec<VipSegment>,
}

/// One life of one Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceRef {
    /// Namespace and name.
    pub key: ServiceKey,
    /// The object's uid.
    pub uid: Uid,
}

/// Where an address is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Claimed; the LAN is being asked.
    Probing,
    /// In use.
    #[default]
    Active,
    /// Given back or put aside; not to be given again before the time in `until`.
    Resting {
        /// Seconds since 1970.
        until: i64,
    },
}

/// Who announces an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Announce {
    /// Any node, as no advertisement selects it.
    #[default]
    All,
    /// Those whom the listed advertisements allow.
    Listed,
    /// Nobody: its pool wants an advertisement and there is none.
    None,
}

/// The plan for an address on one segment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VipSegment {
    /// The segment.
    pub name: SegmentName,
    /// Up to three candidates, the planned holder first.
    pub candidates: Vec<Candidate>,
}

/// How a node stands to an address that it says something of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tenure {
    /// It has let go of it.
    LetGo,
    /// It holds it until another has taken it: it is about to end.
    HandingOver {
        /// How many of those who should have did not, in the time they had.
        passed_over: u8,
    },
    /// It holds it.
    Held,
}

impl Tenure {
    /// Whether it announces the address.
    pub const fn is_held(self) -> bool {
        !matches!(self, Self::LetGo)
    }
}

/// A node in one of its lives that may hold an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Candidate {
    /// The node.
    pub node: NodeName,
    /// The life of it that was planned with.
    pub incarnation: Incarnation,
}

impl VirtualIp {
    /// The name of the object for an address: `192-0-2-10`; IPv6 as eight expanded groups joined
    /// by hyphens, so that one address has one name.
    pub fn object_name(address: IpAddr) -> String {
        match address {
            IpAddr::V4(address) => {
                let [a, b, c, d] = address.octets();
                format!("{a}-{b}-{c}-{d}")
            }
            IpAddr::V6(address) => address
                .segments()
                .map(|group| format!("{group:04x}"))
                .join("-"),
        }
    }

    /// The address that [`Self::object_name`] made the name from, if it was that.
    pub fn address_of_object(name: &str) -> Option<IpAddr> {
        let address = if name.matches('-').count() == 3 {
            name.replace('-', ".")
                .parse::<Ipv4Addr>()
                .ok()
                .map(IpAddr::V4)
        } else {
            name.replace('-', ":")
                .parse::<Ipv6Addr>()
                .ok()
                .map(IpAddr::V6)
        }?;
        (Self::object_name(address) == name).then_some(address)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Probing => "Probing",
            Self::Active => "Active",
            Self::Resting { .. } => "Resting",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_one_object_name() {
        for (address, name) in [
            ("192.0.2.10", "192-0-2-10"),
            ("2001:db8::a", "2001-0db8-0000-0000-0000-0000-0000-000a"),
            (
                "::ffff:192.0.2.10",
                "0000-0000-0000-0000-0000-ffff-c000-020a",
            ),
        ] {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(VirtualIp::object_name(address), name);
            assert_eq!(VirtualIp::address_of_object(name), Some(address));
        }
        for foreign in ["192-0-2", "192-0-2-010", "2001-db8-0-0-0-0-0-a", "web", ""] {
            assert_eq!(VirtualIp::address_of_object(foreign), None, "{foreign}");
        }
    }
}
