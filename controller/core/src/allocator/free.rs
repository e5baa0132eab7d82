//! Free addresses of one family, as intervals.

#![deny(clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;

use herald_model::Family;

/// Numbers the usable addresses of a pool without gaps.
///
/// Where addresses that end in .0 and .255 are avoided, they have no number: what is never given
/// is never walked over either, so that a full pool answers as fast as an empty one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Numbering {
    /// Every address is its own number.
    Plain,
    /// 254 numbers for each block of 256 addresses.
    SkipEnds,
}

/// Usable addresses in a block of 256 without its first and last.
const USABLE: u128 = 254;

impl Numbering {
    pub(super) const fn of(family: Family, avoid_buggy_ips: bool) -> Self {
        match family {
            Family::V4 if avoid_buggy_ips => Self::SkipEnds,
            Family::V4 | Family::V6 => Self::Plain,
        }
    }

    /// The number of an address; `None` if it is never given.
    pub(super) const fn number(self, bits: u128) -> Option<u128> {
        match self {
            Self::Plain => Some(bits),
            Self::SkipEnds => match bits & 0xff {
                0 | 0xff => None,
                octet => Some(
                    (bits >> 8)
                        .saturating_mul(USABLE)
                        .saturating_add(octet.saturating_sub(1)),
                ),
            },
        }
    }

    /// The address with this number.
    pub(super) const fn bits(self, number: u128) -> u128 {
        match self {
            Self::Plain => number,
            Self::SkipEnds => ((number / USABLE) << 8)
                .saturating_add(number % USABLE)
                .saturating_add(1),
        }
    }

    /// The numbers of the usable addresses from `first` to `last`, if there are any.
    pub(super) fn interval(self, first: u128, last: u128) -> Option<(u128, u128)> {
        let (from, to) = match self {
            Self::Plain => (first, last),
            Self::SkipEnds => {
                let block = |bits: u128| (bits >> 8).saturating_mul(USABLE);
                let from = match first & 0xff {
                    0 => block(first),
                    octet => block(first).saturating_add(octet.saturating_sub(1)),
                };
                let to = match last & 0xff {
                    0 => block(last).checked_sub(1)?,
                    0xff => block(last).saturating_add(USABLE.saturating_sub(1)),
                    octet => block(last).saturating_add(octet.saturating_sub(1)),
                };
                (from, to)
            }
        };
        (from <= to).then_some((from, to))
    }
}

/// A set of numbers as disjoint intervals that do not touch: first → last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct FreeSet {
    intervals: BTreeMap<u128, u128>,
    count: u128,
}

impl FreeSet {
    /// How many numbers it holds; saturates one below the size of all of IPv6.
    pub(super) const fn count(&self) -> u128 {
        self.count
    }

    /// The lowest number.
    pub(super) fn first(&self) -> Option<u128> {
        self.intervals.keys().next().copied()
    }

    pub(super) fn contains(&self, number: u128) -> bool {
        self.around(number).is_some()
    }

    /// Adds numbers of which it holds none yet.
    pub(super) fn add(&mut self, first: u128, last: u128) {
        self.count = self
            .count
            .saturating_add(last.saturating_sub(first).saturating_add(1));
        let mut from = first;
        let mut to = last;
        if let Some((&before, &end)) = self.intervals.range(..first).next_back()
            && end.checked_add(1) == Some(first)
        {
            from = before;
        }
        if let Some(next) = last.checked_add(1)
            && let Some(end) = self.intervals.remove(&next)
        {
            to = end;
        }
        self.intervals.insert(from, to);
    }

    /// Takes one number out; whether it was there.
    pub(super) fn take(&mut self, number: u128) -> bool {
        let Some((first, last)) = self.around(number) else {
            return false;
        };
        self.count = self.count.saturating_sub(1);
        self.intervals.remove(&first);
        if first < number {
            self.intervals.insert(first, number.saturating_sub(1));
        }
        if number < last {
            self.intervals.insert(number.saturating_add(1), last);
        }
        true
    }

    /// The interval that holds the number.
    fn around(&self, number: u128) -> Option<(u128, u128)> {
        self.intervals
            .range(..=number)
            .next_back()
            .filter(|&(_, &last)| number <= last)
            .map(|(&first, &last)| (first, last))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbering_skips_the_ends_of_each_block_and_comes_back() {
        let skip = Numbering::SkipEnds;
        let usable: Vec<u128> = (0x0a00_00fd..=0x0a00_0102)
            .filter(|&bits| skip.number(bits).is_some())
            .collect();
        assert_eq!(usable, [0x0a00_00fd, 0x0a00_00fe, 0x0a00_0101, 0x0a00_0102]);
        for bits in usable {
            assert_eq!(skip.bits(skip.number(bits).unwrap()), bits);
        }
        assert_eq!(skip.interval(0xff, 0x100), None);
        assert_eq!(skip.interval(0, 0), None);
        assert_eq!(skip.interval(0, 0xff), Some((0, 253)));
    }

    #[test]
    fn all_of_ipv6_is_one_interval() {
        let mut free = FreeSet::default();
        free.add(0, u128::MAX);
        assert!(free.take(u128::MAX));
        assert!(free.take(0));
        assert_eq!(free.first(), Some(1));
        free.add(u128::MAX, u128::MAX);
        free.add(0, 0);
        assert_eq!(free.intervals, BTreeMap::from([(0, u128::MAX)]));
    }

    proptest! {
        #[test]
        fn behaves_as_a_set_and_keeps_intervals_apart(ops in prop::collection::vec(0_u128..40, 0..200)) {
            let mut free = FreeSet::default();
            let mut model = BTreeSet::new();
            for number in ops {
                if model.remove(&number) {
                    prop_assert!(free.take(number));
                } else {
                    prop_assert!(!free.take(number));
                    free.add(number, number);
                    model.insert(number);
                }
                prop_assert_eq!(free.first(), model.first().copied());
                prop_assert_eq!(free.count(), model.len() as u128);
            }
            for number in 0..40 {
                prop_assert_eq!(free.contains(number), model.contains(&number));
            }
            let apart = free.intervals.iter().zip(free.intervals.iter().skip(1))
                .all(|((_, &last), (&first, _))| last.saturating_add(1) < first);
            prop_assert!(apart);
        }
    }
}
