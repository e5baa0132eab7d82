//! Target tables: which node takes which share of the flows.

use std::collections::BTreeMap;
use std::hash::Hasher;

use siphasher::sip::SipHasher24;

use crate::Spread;

/// Slots of the table that Services under `Cluster` share.
pub const CLUSTER_SLOTS: u32 = 16_384;
/// Slots of a table of one Service's nodes. One size whatever the number of nodes, now or ever: nodes that have
/// seen another history, or none as after a boot, have to choose alike.
pub const LOCAL_SLOTS: u32 = 1_024;
/// The sizes of a table of one node's own pods of a Service, which no other node needs to know.
pub const POD_SLOTS: [u32; 3] = [256, 1_024, 4_096];
/// Slots per pod that such a table has at least when it is made, while sizes go that far.
pub const SLOTS_PER_POD: u32 = 32;

/// The size of a table of nodes.
pub const fn slots_for(spread: Spread) -> u32 {
    match spread {
        Spread::Cluster => CLUSTER_SLOTS,
        Spread::Local => LOCAL_SLOTS,
    }
}

/// The size of a new table for this many pods of one node. It keeps it for as long as it lives.
pub(crate) fn slots_for_pods(pods: usize) -> u32 {
    let wanted = u32::try_from(pods)
        .unwrap_or(u32::MAX)
        .saturating_mul(SLOTS_PER_POD);
    let [small, middle, large] = POD_SLOTS;
    if wanted <= small {
        small
    } else if wanted <= middle {
        middle
    } else {
        large
    }
}

/// Fills a table by weighted rendezvous: a node of weight w draws w numbers for each slot, and the
/// highest number of all takes it.
///
/// The share of a node is therefore w in the sum of weights; a node that leaves gives up its own
/// slots and moves no other, a weight that rises by one only takes slots. All arithmetic is on
/// integers: number `n` of slot `s` is value `s` of the `SplitMix64` sequence that starts at
/// SipHash-2-4 (key: `seed` and zero) of the node's name, a zero byte, and `n` as four bytes,
/// little-endian. Equal numbers go to the lower name.
///
/// `targets` are names and weights; `None` in the result is a table without targets. The same holds of
/// pods, whose names are their addresses and ports as they are written.
pub fn fill<K: ToString, T: Copy>(
    seed: u64,
    slots: u32,
    targets: &BTreeMap<K, (u32, T)>,
) -> Vec<Option<T>> {
    let draws: Vec<(u64, T)> = targets
        .iter()
        .flat_map(|(name, &(weight, target))| {
            let name = name.to_string();
            (0..weight).map(move |number| (start(seed, &name, number), target))
        })
        .collect();
    (1..=u64::from(slots))
        .map(|slot| {
            let step = slot.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut best = None;
            for &(start, target) in &draws {
                let value = mix(start.wrapping_add(step));
                if best.is_none_or(|(highest, _)| value > highest) {
                    best = Some((value, target));
                }
            }
            best.map(|(_, target)| target)
        })
        .collect()
}

fn start(seed: u64, name: &str, number: u32) -> u64 {
    let mut hasher = SipHasher24::new_with_keys(seed, 0);
    hasher.write(name.as_bytes());
    hasher.write(&[0]);
    hasher.write(&number.to_le_bytes());
    hasher.finish()
}

/// The output function of `SplitMix64` (Steele, Lea, Flood, OOPSLA 2014).
const fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
