//! The addresses of one pool: which it serves, and which of those are free.

use std::collections::BTreeMap;
use std::net::IpAddr;

use herald_model::{AddressRange, Family, Pool, PoolName};

use super::free::{FreeSet, Numbering};

/// One value for each family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerFamily<T> {
    /// For IPv4.
    pub v4: T,
    /// For IPv6.
    pub v6: T,
}

impl<T> PerFamily<T> {
    /// The value for a family.
    pub const fn get(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }

    /// The value for a family, to be changed.
    pub const fn get_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// How many addresses of one family a pool has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All that can be given.
    pub total: u128,
    /// Those that Services hold.
    pub assigned: u128,
    /// Those that can be given now.
    pub available: u128,
}

/// Addresses a pool lists but does not serve, as an earlier pool has them too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The earlier pool.
    pub pool: PoolName,
    /// What both list.
    pub range: AddressRange,
}

/// Whose address is whose: disjoint intervals over all pools, first → (last, pool).
pub(super) type Owners = PerFamily<BTreeMap<u128, (u128, PoolName)>>;

/// A pool with what it serves.
#[derive(Clone, Debug)]
pub(super) struct Space {
    pub(super) pool: Pool,
    /// What it lists without what earlier pools have, in the order of addresses.
    pub(super) served: Vec<AddressRange>,
    /// Of that, what may be given: all but what the cluster itself uses.
    pub(super) open: Vec<AddressRange>,
    pub(super) overlaps: Vec<Overlap>,
    pub(super) free: PerFamily<FreeSet>,
    pub(super) counts: PerFamily<Counts>,
}

impl Space {
    /// A space whose every usable address is free.
    pub(super) fn new(
        pool: Pool,
        served: Vec<AddressRange>,
        open: Vec<AddressRange>,
        overlaps: Vec<Overlap>,
    ) -> Self {
        let mut space = Self {
            pool,
            served,
            open,
            overlaps,
            free: PerFamily::default(),
            counts: PerFamily::default(),
        };
        for range in &space.open {
            let family = range.family();
            let numbering = Numbering::of(family, space.pool.avoid_buggy_ips);
            if let Some((first, last)) = numbering.interval(range.first_bits(), range.last_bits()) {
                space.free.get_mut(family).add(first, last);
            }
        }
        for family in [Family::V4, Family::V6] {
            let free = space.free.get(family).count();
            *space.counts.get_mut(family) = Counts {
                total: free,
                assigned: 0,
                available: free,
            };
        }
        space
    }

    fn numbering(&self, family: Family) -> Numbering {
        Numbering::of(family, self.pool.avoid_buggy_ips)
    }

    /// Whether the pool has anything of the family.
    pub(super) fn has(&self, family: Family) -> bool {
        self.served.iter().any(|range| range.family() == family)
    }

    /// Whether the address, which is in the pool, is one that the pool gives.
    pub(super) fn is_usable(&self, address: IpAddr) -> bool {
        let below = |range: &AddressRange| range.last() < address;
        let at = self.open.partition_point(below);
        self.open
            .get(at)
            .is_some_and(|range| range.contains(address))
            && !self.avoids(address)
    }

    /// Whether the pool avoids the address because of how it ends.
    pub(super) fn avoids(&self, address: IpAddr) -> bool {
        self.numbering(Family::of(address))
            .number(bits(address))
            .is_none()
    }

    /// The lowest free address.
    pub(super) fn lowest(&self, family: Family) -> Option<IpAddr> {
        let number = self.free.get(family).first()?;
        Some(family.address(self.numbering(family).bits(number)))
    }

    /// Makes a free address not free; nothing happens if it was not.
    pub(super) fn take(&mut self, address: IpAddr) {
        let family = Family::of(address);
        if let Some(number) = self.numbering(family).number(bits(address)) {
            self.free.get_mut(family).take(number);
            self.count_free(family);
        }
    }

    /// Makes an address of the pool free again; nothing happens if it was or is never given.
    pub(super) fn give_back(&mut self, address: IpAddr) {
        let family = Family::of(address);
        if self.is_usable(address)
            && let Some(number) = self.numbering(family).number(bits(address))
            && !self.free.get(family).contains(number)
        {
            self.free.get_mut(family).add(number, number);
            self.count_free(family);
        }
    }

    fn count_free(&mut self, family: Family) {
        self.counts.get_mut(family).available = self.free.get(family).count();
    }
}

/// The address as a big-endian number.
pub(super) const fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits() as u128,
        IpAddr::V6(address) => address.to_bits(),
    }
}

/// The pool that serves an address.
pub(super) fn owner(owners: &Owners, address: IpAddr) -> Option<&PoolName> {
    let value = bits(address);
    owners
        .get(Family::of(address))
        .range(..=value)
        .next_back()
        .filter(|(_, (last, _))| value <= *last)
        .map(|(_, (_, pool))| pool)
}

/// Gives the pool what it lists, except what others have already; says what it got and what not.
pub(super) fn settle(owners: &mut Owners, pool: &Pool) -> (Vec<AddressRange>, Vec<Overlap>) {
    let mut served = Vec::new();
    let mut overlaps = Vec::new();
    for range in &pool.ranges {
        let family = range.family();
        let owned = owners.get_mut(family);
        let part = |first: u128, last: u128| {
            AddressRange::new(family.address(first), family.address(last))
        };
        // The last interval that begins before the range may reach into it.
        let from = owned
            .range(..range.first_bits())
            .next_back()
            .filter(|(_, (last, _))| *last >= range.first_bits())
            .map_or_else(|| range.first_bits(), |(&first, _)| first);
        let mut next = Some(range.first_bits());
        let mut won = Vec::new();
        for (&first, (last, other)) in owned.range(from..=range.last_bits()) {
            if let Some(next) = next
                && next < first
            {
                won.extend(part(next, first - 1));
            }
            // A pool whose own ranges overlap has no overlap to speak of.
            if *other != pool.name
                && let Some(range) = part(
                    first.max(range.first_bits()),
                    (*last).min(range.last_bits()),
                )
            {
                overlaps.push(Overlap {
                    pool: other.clone(),
                    range,
                });
            }
            next = last.checked_add(1);
        }
        if let Some(next) = next.filter(|&next| next <= range.last_bits()) {
            won.extend(part(next, range.last_bits()));
        }
        for range in &won {
            owned.insert(range.first_bits(), (range.last_bits(), pool.name.clone()));
        }
        served.extend(won);
    }
    served.sort_unstable();
    (served, overlaps)
}
