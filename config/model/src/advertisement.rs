//! Who may announce which pools, and where.

use std::collections::BTreeSet;

use crate::{AdvertisementName, InterfaceName, PoolName, Selector};

/// A valid `L2Advertisement`. It limits announcers, never targets; every empty list means "all".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// The object's name.
    pub name: AdvertisementName,
    /// Pools by name.
    pub pools: BTreeSet<PoolName>,
    /// Pools by label.
    pub pool_selectors: Vec<Selector>,
    /// Services by label.
    pub service_selectors: Vec<Selector>,
    /// Nodes by label.
    pub node_selectors: Vec<Selector>,
    /// Nodes that are taken first, by the sum of the weights that match.
    pub preferred_nodes: Vec<WeightedSelector>,
    /// Interfaces by name or glob.
    pub interfaces: Vec<InterfacePattern>,
}

/// A preference for some nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedSelector {
    /// From 1 to 100.
    pub weight: u8,
    /// Which nodes.
    pub preference: Selector,
}

/// The name of an interface, or a glob: `*` stands for any characters, `?` for one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfacePattern(pub String);

impl InterfacePattern {
    /// Whether the name fits the pattern as a whole.
    pub fn matches(&self, name: &InterfaceName) -> bool {
        glob(self.0.as_bytes(), name.as_str().as_bytes())
    }
}

/// Greedy matching with one point to come back to, linear for patterns with one `*` and at worst
/// pattern times name, which the kernel limits to 15 bytes.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n, mut retry) = (0, 0, None);
    while let Some(&byte) = name.get(n) {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(&want) if want == b'?' || want == byte => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((star, from)) = retry else {
                    return false;
                };
                retry = Some((star, from + 1));
                p = star + 1;
                n = from + 1;
            }
        }
    }
    pattern
        .get(p..)
        .is_some_and(|rest| rest.iter().all(|&byte| byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names() {
        let cases = [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth*", "eth0", true),
            ("eth*", "eth", true),
            ("*", "anything", true),
            ("enp?s*", "enp3s0", true),
            ("enp?s*", "enp33s0", false),
            ("*0", "eth10", true),
            ("*1*0", "eth100", true),
            ("", "eth0", false),
        ];
        for (pattern, name, expected) in cases {
            let got = InterfacePattern(pattern.to_owned()).matches(&InterfaceName::from(name));
            assert_eq!(got, expected, "{pattern} on {name}");
        }
    }
}
