//! Ranges that are never given, as the cluster itself uses them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use herald_model::{AddressRange, Family};

use super::space::{PerFamily, bits};

/// Disjoint ranges that do not touch: first → last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Barred(PerFamily<BTreeMap<u128, u128>>);

impl Barred {
    /// The union of ranges, which may overlap.
    pub(super) fn of(ranges: impl IntoIterator<Item = AddressRange>) -> Self {
        let mut sorted: Vec<AddressRange> = ranges.into_iter().collect();
        sorted.sort_unstable();
        let mut all: PerFamily<BTreeMap<u128, u128>> = PerFamily::default();
        for range in sorted {
            let merged = all.get_mut(range.family());
            match merged.last_entry() {
                Some(mut before) if range.first_bits() <= before.get().saturating_add(1) => {
                    let last = range.last_bits().max(*before.get());
                    before.insert(last);
                }
                _ => {
                    merged.insert(range.first_bits(), range.last_bits());
                }
            }
        }
        Self(all)
    }

    pub(super) fn contains(&self, address: IpAddr) -> bool {
        let value = bits(address);
        let before = self.0.get(Family::of(address)).range(..=value).next_back();
        before.is_some_and(|(_, last)| value <= *last)
    }

    /// The parts of a range that are not barred, in order.
    pub(super) fn rest_of(&self, range: AddressRange) -> Vec<AddressRange> {
        let family = range.family();
        let barred = self.0.get(family);
        let reaching_in = barred.range(..range.first_bits()).next_back();
        let inside = barred.range(range.first_bits()..=range.last_bits());
        let mut rest = Vec::new();
        let mut next = Some(range.first_bits());
        for (&first, &last) in reaching_in.into_iter().chain(inside) {
            if last < range.first_bits() {
                continue;
            }
            if let (Some(from), Some(to)) = (next, first.checked_sub(1)) {
                rest.extend(part(family, from, to));
            }
            next = last.checked_add(1);
        }
        if let Some(from) = next.filter(|&next| next <= range.last_bits()) {
            rest.extend(part(family, from, range.last_bits()));
        }
        rest
    }
}

/// `None` if it is empty.
fn part(family: Family, first: u128, last: u128) -> Option<AddressRange> {
    AddressRange::new(family.address(first), family.address(last))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> AddressRange {
        text.parse().unwrap()
    }

    #[test]
    fn whole_families_are_barred_without_overflow() {
        let barred = Barred::of([range("::/0"), range("255.255.255.0/24")]);
        assert_eq!(barred.rest_of(range("2001:db8::/64")), []);
        assert_eq!(barred.rest_of(range("::/0")), []);
        assert_eq!(
            barred.rest_of(range("255.255.254.0/23")),
            [range("255.255.254.0/24")]
        );
        assert_eq!(Barred::default().rest_of(range("::/0")), [range("::/0")]);
    }

    proptest! {
        #[test]
        fn what_is_left_of_a_range_is_what_no_barred_range_holds(
            barred in prop::collection::vec((0..40_u128, 0..9_u128), 0..6),
            (first, len) in (0..40_u128, 0..40_u128),
        ) {
            let of = |first: u128, len: u128| part(Family::V4, first, first + len).unwrap();
            let ranges: Vec<AddressRange> = barred.iter().map(|(first, len)| of(*first, *len)).collect();
            let barred = Barred::of(ranges.iter().copied());
            let whole = of(first, len);
            let rest = barred.rest_of(whole);
            for number in 0..90 {
                let address = Family::V4.address(number);
                let held = ranges.iter().any(|range| range.contains(address));
                prop_assert_eq!(barred.contains(address), held);
                let left = rest.iter().filter(|range| range.contains(address)).count();
                prop_assert_eq!(left, usize::from(whole.contains(address) && !held));
            }
            prop_assert!(rest.is_sorted());
        }
    }
}
