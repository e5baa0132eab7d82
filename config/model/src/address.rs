//! Address families and ranges.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnet::IpNet;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The address whose big-endian number is `bits`; the low 32 bits count for IPv4.
    pub const fn address(self, bits: u128) -> IpAddr {
        match self {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "an IPv4 address has 32 bits"
            )]
            Self::V4 => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
            Self::V6 => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// The address as a big-endian number.
pub(crate) const fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits() as u128,
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// Consecutive addresses of one family, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange {
    family: Family,
    first: u128,
    last: u128,
}

/// Why a text is not a range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseRangeError {
    /// Neither a CIDR nor two addresses with a hyphen between them.
    #[error(
        "{text:?} is neither a CIDR such as 192.0.2.0/24 nor a range such as 192.0.2.10-192.0.2.20"
    )]
    Malformed {
        /// What was given.
        text: String,
    },
    /// The ends are of different families.
    #[error("{text:?} has an IPv4 and an IPv6 end")]
    MixedFamilies {
        /// What was given.
        text: String,
    },
    /// The first address is above the last.
    #[error("{text:?} is reversed: its first address is above its last")]
    Reversed {
        /// What was given.
        text: String,
    },
    /// A CIDR with bits set beyond its prefix length.
    #[error("{text:?} has host bits set: write {network} or a range")]
    HostBits {
        /// What was given.
        text: String,
        /// The network that was probably meant.
        network: IpNet,
    },
}

impl AddressRange {
    /// The range from `first` to `last`; `None` if the families differ or the order is reversed.
    pub fn new(first: IpAddr, last: IpAddr) -> Option<Self> {
        let family = Family::of(first);
        (family == Family::of(last) && bits(first) <= bits(last)).then(|| Self {
            family,
            first: bits(first),
            last: bits(last),
        })
    }

    /// All addresses of a network, its first and last included.
    pub fn of_network(network: IpNet) -> Self {
        Self {
            family: Family::of(network.network()),
            first: bits(network.network()),
            last: bits(network.broadcast()),
        }
    }

    /// The family of every address in it.
    pub const fn family(self) -> Family {
        self.family
    }

    /// The lowest address.
    pub const fn first(self) -> IpAddr {
        self.family.address(self.first)
    }

    /// The highest address.
    pub const fn last(self) -> IpAddr {
        self.family.address(self.last)
    }

    /// The lowest address as a number.
    pub const fn first_bits(self) -> u128 {
        self.first
    }

    /// The highest address as a number.
    pub const fn last_bits(self) -> u128 {
        self.last
    }

    /// How many addresses it holds; `u128::MAX` stands for all of IPv6, one more than fits.
    pub const fn size(self) -> u128 {
        (self.last - self.first).saturating_add(1)
    }

    /// Whether it holds the address.
    pub fn contains(self, address: IpAddr) -> bool {
        let value = bits(address);
        self.family == Family::of(address) && self.first <= value && value <= self.last
    }

    /// What both ranges hold, if anything.
    pub fn intersection(self, other: Self) -> Option<Self> {
        let first = self.first.max(other.first);
        let last = self.last.min(other.last);
        (self.family == other.family && first <= last).then_some(Self {
            family: self.family,
            first,
            last,
        })
    }
}

impl FromStr for AddressRange {
    type Err = ParseRangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || ParseRangeError::Malformed {
            text: text.to_owned(),
        };
        let trimmed = text.trim();
        if let Some((first, last)) = trimmed.split_once('-') {
            let first: IpAddr = first.trim().parse().map_err(|_bad| malformed())?;
            let last: IpAddr = last.trim().parse().map_err(|_bad| malformed())?;
            if Family::of(first) != Family::of(last) {
                return Err(ParseRangeError::MixedFamilies {
                    text: text.to_owned(),
                });
            }
            Self::new(first, last).ok_or_else(|| ParseRangeError::Reversed {
                text: text.to_owned(),
            })
        } else {
            let network: IpNet = trimmed.parse().map_err(|_bad| malformed())?;
            if network.addr() != network.network() {
                return Err(ParseRangeError::HostBits {
                    text: text.to_owned(),
                    network: network.trunc(),
                });
            }
            Ok(Self::of_network(network))
        }
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first())
        } else {
            write!(f, "{}-{}", self.first(), self.last())
        }
    }
}

impl fmt::Debug for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn cidr_and_range_of_the_same_addresses_are_equal() {
        assert_eq!(range("192.0.2.0/30"), range("192.0.2.0-192.0.2.3"));
        assert_eq!(range("2001:db8::/126"), range("2001:db8:: - 2001:db8::3"));
        assert_eq!(range("192.0.2.7/32").size(), 1);
    }

    #[test]
    fn all_of_ipv6_has_a_saturated_size() {
        assert_eq!(range("::/0").size(), u128::MAX);
    }

    #[test]
    fn refusals_name_the_text_and_the_reason() {
        let said = |text: &str| text.parse::<AddressRange>().unwrap_err().to_string();
        assert!(said("192.0.2.9-192.0.2.1").contains("reversed"));
        assert!(said("192.0.2.1-2001:db8::1").contains("IPv4 and an IPv6"));
        assert!(said("192.0.2.1/24").contains("192.0.2.0/24"));
        assert!(said("192.0.2.0/33").contains("192.0.2.0/33"));
        assert!(said("all of them").contains("all of them"));
    }

    #[test]
    fn intersection_is_what_both_hold() {
        assert_eq!(
            range("192.0.2.0/24").intersection(range("192.0.2.200-192.0.3.4")),
            Some(range("192.0.2.200-192.0.2.255"))
        );
        assert_eq!(
            range("192.0.2.0/24").intersection(range("192.0.3.0/24")),
            None
        );
        assert_eq!(range("::/0").intersection(range("0.0.0.0/0")), None);
    }
}
