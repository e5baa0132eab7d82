//! Numbers that all members derive from names alike.

use std::hash::Hasher;

use herald_model::NodeName;
use siphasher::sip::SipHasher13;
use siphasher::sip::SipHasher24;

/// A node in datagrams: a hash of its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u64);

impl NodeId {
    /// The id of the node of this name.
    pub fn of(node: &NodeName) -> Self {
        Self(hash(b"node", &[node.as_str().as_bytes()]))
    }
}

/// `SipHash` 2-4 under a key that is part of the protocol. Never change it: members of different
/// versions must agree.
pub(crate) fn hash(purpose: &[u8], parts: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(0x6865_7261_6c64_2072, 0x696e_6720_7631_0000);
    hasher.write(purpose);
    for part in parts {
        hasher.write(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.write(part);
    }
    hasher.finish()
}

/// Numbers nobody else can guess, as long as nobody else knows the seed.
#[derive(Clone, Debug)]
pub(crate) struct Random {
    keyed: SipHasher13,
    drawn: u64,
}

impl Random {
    pub(crate) fn new(seed: u128) -> Self {
        Self {
            keyed: SipHasher13::new_with_key(&seed.to_le_bytes()),
            drawn: 0,
        }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.drawn = self.drawn.wrapping_add(1);
        let mut hasher = self.keyed;
        hasher.write_u64(self.drawn);
        hasher.finish()
    }

    /// A number below the limit; 0 if the limit is 0.
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        let product = u128::from(self.next()) * u128::from(limit);
        u64::try_from(product >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_the_same_on_every_node_and_in_every_version() {
        let id = |name: &str| NodeId::of(&NodeName::from(name));
        assert_eq!(id("node1"), NodeId(18_270_724_431_070_953_097));
        assert_ne!(id("node1"), id("node2"));
    }

    #[test]
    fn random_numbers_stay_below_the_limit_and_reach_all_of_it() {
        let mut random = Random::new(7);
        let mut seen = [0; 5];
        for _ in 0..500 {
            seen[usize::try_from(random.below(5)).unwrap()] += 1;
        }
        assert!(seen.iter().all(|count| *count > 50), "{seen:?}");
        assert_eq!(random.below(0), 0);
    }
}
