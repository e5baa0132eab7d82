//! Who announces an address: a pure function of the plan and of who is alive.
//!
//! Decides who is *elected* for an address on a segment, and in [`hold`] who *holds* it, which is
//! also a question of what happened before. Knows no clock and no network.
//!
//! Invariants: the answer depends on the arguments alone, so every node that knows the same gives
//! the same; the death of a node moves nothing that another node was elected for.
//!
//! ```
//! use herald_elect::elected;
//! use herald_model::{Candidate, Incarnation};
//!
//! let node = |name: &str| Candidate { node: name.into(), incarnation: Incarnation(1) };
//! let plan = [node("node1"), node("node2")];
//! let address = "192.0.2.10".parse()?;
//! let all = elected(address, &plan, |_| true, &[]);
//! assert_eq!(all, Some(&plan[0]));
//! let without_first = elected(address, &plan, |who| who != &plan[0], &[]);
//! assert_eq!(without_first, Some(&plan[1]));
//! # Ok::<(), std::net::AddrParseError>(())
//! ```

#![deny(clippy::iter_over_hash_type, clippy::indexing_slicing)]

pub mod hold;

use std::hash::Hasher as _;
use std::net::IpAddr;

use herald_model::{Candidate, NodeName};
use siphasher::sip::SipHasher24;

/// Who announces `address` on a segment: the first of the plan's `candidates` that is live; only
/// if none is, the one of the `others` that are live with the highest rendezvous score.
///
/// `others` are the eligible nodes in their present lives; whether they are among the candidates
/// does not matter. `None`: nobody is live.
pub fn elected<'a>(
    address: IpAddr,
    candidates: &'a [Candidate],
    is_live: impl Fn(&Candidate) -> bool,
    others: &'a [Candidate],
) -> Option<&'a Candidate> {
    candidates
        .iter()
        .find(|candidate| is_live(candidate))
        .or_else(|| {
            others
                .iter()
                .filter(|other| is_live(other))
                .max_by_key(|other| (score(address, &other.node), &other.node, other.incarnation))
        })
}

/// Who takes an address on from a holder that hands it over: of the plan's live candidates the one after
/// so many that were passed over, after the last the first again; only if none is live, as
/// [`elected`] says.
///
/// `is_live` is not to hold for the one that hands over.
pub fn successor<'a>(
    address: IpAddr,
    candidates: &'a [Candidate],
    is_live: impl Fn(&Candidate) -> bool,
    others: &'a [Candidate],
    passed_over: u8,
) -> Option<&'a Candidate> {
    let live: Vec<&Candidate> = candidates.iter().filter(|who| is_live(who)).collect();
    usize::from(passed_over)
        .checked_rem(live.len())
        .and_then(|place| live.get(place).copied())
        .or_else(|| elected(address, &[], is_live, others))
}

/// The rendezvous score of a node for an address: SipHash-2-4 with a zero key over the address in
/// its 16-byte form and the node's name. Part of the protocol between nodes, so it never changes.
pub fn score(address: IpAddr, node: &NodeName) -> u64 {
    let octets = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    };
    let mut hasher = SipHasher24::new_with_keys(0, 0);
    hasher.write(&octets);
    hasher.write(node.as_str().as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use herald_model::Incarnation;

    use super::*;

    fn node(number: u8, incarnation: u64) -> Candidate {
        Candidate {
            node: format!("node{number}").into(),
            incarnation: Incarnation(incarnation),
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn first_live_candidate_is_elected() {
        let plan = [node(1, 1), node(2, 1), node(3, 1)];
        let others = [node(4, 1)];
        for dead in 0..4 {
            let live = |who: &Candidate| !plan[..dead].contains(who);
            let expected = plan.get(dead).unwrap_or(&others[0]);
            assert_eq!(
                elected(ip("192.0.2.1"), &plan, live, &others),
                Some(expected)
            );
        }
    }

    #[test]
    fn earlier_life_of_a_node_is_not_live() {
        let plan = [node(1, 1), node(2, 1)];
        let now = [node(1, 2), node(2, 1)];
        let live = |who: &Candidate| now.contains(who);
        assert_eq!(
            elected(ip("192.0.2.1"), &plan, live, &now),
            Some(&node(2, 1))
        );
    }

    #[test]
    fn of_those_left_one_after_another_is_asked_to_take_on() {
        let plan = [node(1, 1), node(2, 1), node(3, 1)];
        let live = |who: &Candidate| *who != plan[1];
        for (passed_over, next) in [(0, 0), (1, 2), (2, 0)] {
            let chosen = successor(ip("192.0.2.1"), &plan, live, &[], passed_over);
            assert_eq!(chosen, Some(&plan[next]));
        }
        let others = [node(4, 1)];
        let chosen = successor(ip("192.0.2.1"), &plan, |who| *who == others[0], &others, 7);
        assert_eq!(chosen, Some(&others[0]));
        assert_eq!(
            successor(ip("192.0.2.1"), &plan, |_| false, &others, 0),
            None
        );
    }

    #[test]
    fn nobody_is_elected_when_nobody_lives() {
        let plan = [node(1, 1)];
        assert_eq!(elected(ip("192.0.2.1"), &plan, |_| false, &plan), None);
    }

    #[test]
    fn scores_are_part_of_the_protocol() {
        assert_eq!(score(ip("192.0.2.1"), &"node1".into()), GOLDEN[0]);
        assert_eq!(score(ip("2001:db8::1"), &"node1".into()), GOLDEN[1]);
    }

    const GOLDEN: [u64; 2] = [3_469_855_058_927_334_834, 1_828_372_877_507_050_320];

    #[test]
    fn orphans_spread_and_those_of_the_living_stay() {
        let others: Vec<Candidate> = (0..10).map(|number| node(number, 1)).collect();
        let winner = |address: IpAddr, dead: Option<&Candidate>| {
            elected(address, &[], |who| Some(who) != dead, &others)
                .unwrap()
                .clone()
        };
        let mut load: BTreeMap<NodeName, u32> = BTreeMap::new();
        for last in 0..1_000u16 {
            let address = IpAddr::from([10, 0, last.to_be_bytes()[0], last.to_be_bytes()[1]]);
            let before = winner(address, None);
            let after = winner(address, Some(&others[3]));
            if before != others[3] {
                assert_eq!(before, after);
            }
            *load.entry(before.node).or_default() += 1;
        }
        assert!(
            load.values().all(|load| (60..150).contains(load)),
            "{load:?}"
        );
    }
}
