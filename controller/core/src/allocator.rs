//! Which address a Service gets.
//!
//! The allocator knows the pools, the addresses that are taken, by whom and on which terms, and
//! those that are never given. [`Allocator::choose`] decides and changes nothing; the caller then
//! [holds](Allocator::hold) what was chosen. An address is taken from the first hold until it is
//! [freed](Allocator::free): losing its last holder does not make it free, as its claim has to be
//! deleted first.
//!
//! Every operation on one address takes time logarithmic in the number of gaps in its pool.

mod allowed;
mod barred;
mod choose;
mod free;
mod refusal;
mod space;
mod terms;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use herald_model::{AddressRange, Family, Pool, PoolName, Service, ServiceKey, ServiceRef};

pub use choose::{Ask, Choice, Offer};
pub use refusal::Refusal;
pub(crate) use refusal::{BEING_GIVEN_BACK, IS_FULL};
pub use space::{Counts, Overlap, PerFamily};
pub use terms::{Disagreement, Terms};

use barred::Barred;
use space::{Owners, Space};

/// An address that is not free.
#[derive(Clone, Debug, Default)]
struct Taken {
    /// By name, so that a claim looks the same whoever came first; empty: it rests, or its claim is
    /// being deleted.
    holders: Vec<(ServiceRef, Terms)>,
    /// The stranger on the LAN that uses it, in a sentence.
    stranger: Option<Arc<str>>,
}

/// Pools, and what became of their addresses.
#[derive(Clone, Debug, Default)]
pub struct Allocator {
    spaces: BTreeMap<PoolName, Space>,
    owners: Owners,
    taken: BTreeMap<IpAddr, Taken>,
    /// Never given; with the number of reasons.
    reserved: BTreeMap<IpAddr, u32>,
    /// Never given, by ranges.
    barred: Barred,
    /// Addresses with a holder of that key.
    shared: BTreeMap<Arc<str>, BTreeSet<IpAddr>>,
}

impl Allocator {
    /// Adds a pool or changes it; returns the taken addresses whose pool changed.
    pub fn set_pool(&mut self, pool: Pool) -> BTreeSet<IpAddr> {
        let mut pools = self.pools();
        pools.insert(pool.name.clone(), pool);
        self.rebuild(pools)
    }

    /// Removes a pool; returns the taken addresses whose pool changed.
    pub fn remove_pool(&mut self, name: &PoolName) -> BTreeSet<IpAddr> {
        let mut pools = self.pools();
        if pools.remove(name).is_none() {
            return BTreeSet::new();
        }
        self.rebuild(pools)
    }

    /// Says which ranges are never given; who holds an address of them keeps it. Returns the taken
    /// addresses of pools for which that changed something.
    pub fn bar(&mut self, ranges: impl IntoIterator<Item = AddressRange>) -> BTreeSet<IpAddr> {
        let barred = Barred::of(ranges);
        if barred == self.barred {
            return BTreeSet::new();
        }
        self.barred = barred;
        self.rebuild(self.pools())
    }

    fn pools(&self) -> BTreeMap<PoolName, Pool> {
        self.spaces
            .iter()
            .map(|(name, space)| (name.clone(), space.pool.clone()))
            .collect()
    }

    /// Divides the addresses among the pools anew and rebuilds those for which that changed
    /// something.
    fn rebuild(&mut self, pools: BTreeMap<PoolName, Pool>) -> BTreeSet<IpAddr> {
        let mut affected = BTreeSet::new();
        let mut by_age: Vec<Pool> = pools.into_values().collect();
        by_age.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        let mut owners = Owners::default();
        let mut before = std::mem::take(&mut self.spaces);
        for pool in by_age {
            let (served, overlaps) = space::settle(&mut owners, &pool);
            let open: Vec<AddressRange> = served
                .iter()
                .flat_map(|range| self.barred.rest_of(*range))
                .collect();
            let name = pool.name.clone();
            let space = match before.remove(&name) {
                Some(old) if old.pool == pool && old.served == served && old.open == open => {
                    Space { overlaps, ..old }
                }
                old => {
                    if let Some(old) = old {
                        self.collect_taken(&old, &mut affected);
                    }
                    let space = self.occupied(Space::new(pool, served, open, overlaps));
                    self.collect_taken(&space, &mut affected);
                    space
                }
            };
            self.spaces.insert(name, space);
        }
        for old in before.into_values() {
            self.collect_taken(&old, &mut affected);
        }
        self.owners = owners;
        affected
    }

    /// Takes out of a new space what is taken or reserved.
    fn occupied(&self, mut space: Space) -> Space {
        for range in space.served.clone() {
            for (&address, taken) in self.taken.range(range.first()..=range.last()) {
                space.take(address);
                if !taken.holders.is_empty() {
                    space.counts.get_mut(Family::of(address)).assigned += 1;
                }
            }
            for &address in self
                .reserved
                .range(range.first()..=range.last())
                .map(|(a, _)| a)
            {
                if space.is_usable(address) {
                    space.counts.get_mut(Family::of(address)).total -= 1;
                    space.take(address);
                }
            }
        }
        space
    }

    fn collect_taken(&self, space: &Space, into: &mut BTreeSet<IpAddr>) {
        for range in &space.served {
            into.extend(
                self.taken
                    .range(range.first()..=range.last())
                    .map(|(a, _)| *a),
            );
        }
    }

    /// The pool that serves an address.
    pub fn pool_of(&self, address: IpAddr) -> Option<&Pool> {
        let name = space::owner(&self.owners, address)?;
        self.spaces.get(name).map(|space| &space.pool)
    }

    /// A pool by its name.
    pub fn pool(&self, name: &PoolName) -> Option<&Pool> {
        self.spaces.get(name).map(|space| &space.pool)
    }

    /// How many addresses a pool has of each family; `None` for a family it has none of.
    pub fn counts(&self, name: &PoolName) -> PerFamily<Option<Counts>> {
        let of = |family| {
            let space = self.spaces.get(name)?;
            space.has(family).then(|| *space.counts.get(family))
        };
        PerFamily {
            v4: of(Family::V4),
            v6: of(Family::V6),
        }
    }

    /// The address that a pool would give next; `None`: it has none of the family that is free.
    pub fn next_of(&self, name: &PoolName, family: Family) -> Option<IpAddr> {
        self.spaces.get(name)?.lowest(family)
    }

    /// What a pool lists but does not serve.
    pub fn overlaps(&self, name: &PoolName) -> &[Overlap] {
        self.spaces.get(name).map_or(&[], |space| &space.overlaps)
    }

    /// Makes a Service a holder of an address, or changes the terms on which it is one; whether that
    /// changed anything.
    ///
    /// The caller has made sure that it may be: by [`Self::choose`] or [`Self::may_hold`].
    pub fn hold(&mut self, address: IpAddr, holder: ServiceRef, terms: Terms) -> bool {
        let holders = self.taken.get(&address).map(|taken| &taken.holders);
        if holders.is_some_and(|holders| {
            let mut holders = holders.iter();
            holders.any(|(other, theirs)| *other == holder && *theirs == terms)
        }) {
            return false;
        }
        self.drop_key(address, &holder);
        if let Some(key) = &terms.key {
            self.shared
                .entry(Arc::clone(key))
                .or_default()
                .insert(address);
        }
        self.put_aside(address);
        let taken = self.taken.entry(address).or_default();
        if let Some(entry) = taken.holders.iter_mut().find(|(other, _)| *other == holder) {
            entry.1 = terms;
            return true;
        }
        taken.holders.push((holder, terms));
        taken.holders.sort_by(|(one, _), (other, _)| one.cmp(other));
        if taken.holders.len() == 1 {
            self.count_assigned(address, 1);
        }
        true
    }

    /// Ends a Service's hold. The address stays taken.
    pub fn drop_holder(&mut self, address: IpAddr, holder: &ServiceRef) {
        self.drop_key(address, holder);
        if let Some(taken) = self.taken.get_mut(&address) {
            let before = taken.holders.len();
            taken.holders.retain(|(other, _)| other != holder);
            if before > 0 && taken.holders.is_empty() {
                self.count_assigned(address, -1);
            }
        }
    }

    /// Forgets the sharing key of a holder, unless another holder has the same.
    fn drop_key(&mut self, address: IpAddr, holder: &ServiceRef) {
        let Some(taken) = self.taken.get(&address) else {
            return;
        };
        let key_of = |(_, terms): &(ServiceRef, Terms)| terms.key.clone();
        let Some(key) = taken
            .holders
            .iter()
            .find(|(other, _)| other == holder)
            .and_then(key_of)
        else {
            return;
        };
        let others = taken.holders.iter().filter(|(other, _)| other != holder);
        if !others.filter_map(key_of).any(|other| other == key)
            && let Some(addresses) = self.shared.get_mut(&key)
        {
            addresses.remove(&address);
            if addresses.is_empty() {
                self.shared.remove(&key);
            }
        }
    }

    /// Takes an address without a holder.
    pub fn put_aside(&mut self, address: IpAddr) {
        if self.taken.contains_key(&address) {
            return;
        }
        self.taken.insert(address, Taken::default());
        if let Some(space) = self.space_of_mut(address) {
            space.take(address);
        }
    }

    /// Says which stranger on the LAN uses a taken address; `None`: none.
    pub fn set_stranger(&mut self, address: IpAddr, stranger: Option<Arc<str>>) {
        if let Some(taken) = self.taken.get_mut(&address) {
            taken.stranger = stranger;
        }
    }

    /// Makes an address free; its holders, if any, lose it.
    pub fn free(&mut self, address: IpAddr) {
        for holder in self.holders(address) {
            self.drop_holder(address, &holder);
        }
        if self.taken.remove(&address).is_some()
            && !self.reserved.contains_key(&address)
            && let Some(space) = self.space_of_mut(address)
        {
            space.give_back(address);
        }
    }

    /// Adds a reason never to give an address. Who holds it keeps it.
    pub fn reserve(&mut self, address: IpAddr) {
        let reasons = self.reserved.entry(address).or_default();
        *reasons += 1;
        if *reasons == 1
            && let Some(space) = self.space_of_mut(address)
            && space.is_usable(address)
        {
            space.counts.get_mut(Family::of(address)).total -= 1;
            space.take(address);
        }
    }

    /// Removes a reason never to give an address.
    pub fn unreserve(&mut self, address: IpAddr) {
        let Some(reasons) = self.reserved.get_mut(&address) else {
            return;
        };
        *reasons -= 1;
        if *reasons > 0 {
            return;
        }
        self.reserved.remove(&address);
        let taken = self.taken.contains_key(&address);
        if let Some(space) = self.space_of_mut(address)
            && space.is_usable(address)
        {
            space.counts.get_mut(Family::of(address)).total += 1;
            if !taken {
                space.give_back(address);
            }
        }
    }

    fn space_of_mut(&mut self, address: IpAddr) -> Option<&mut Space> {
        let name = space::owner(&self.owners, address)?;
        self.spaces.get_mut(name)
    }

    fn count_assigned(&mut self, address: IpAddr, change: i8) {
        if let Some(space) = self.space_of_mut(address) {
            let assigned = &mut space.counts.get_mut(Family::of(address)).assigned;
            *assigned = assigned.saturating_add_signed(change.into());
        }
    }

    /// Who holds an address, by name.
    pub fn holders(&self, address: IpAddr) -> Vec<ServiceRef> {
        self.taken.get(&address).map_or_else(Vec::new, |taken| {
            taken
                .holders
                .iter()
                .map(|(holder, _)| holder.clone())
                .collect()
        })
    }

    /// The terms of those who hold an address.
    pub(crate) fn terms_on(&self, address: IpAddr) -> impl Iterator<Item = &Terms> {
        let holders = self.taken.get(&address).into_iter();
        holders.flat_map(|taken| taken.holders.iter().map(|(_, terms)| terms))
    }

    /// Whether a Service is a holder of an address.
    pub fn is_holder(&self, address: IpAddr, holder: &ServiceRef) -> bool {
        self.taken
            .get(&address)
            .is_some_and(|taken| taken.holders.iter().any(|(other, _)| other == holder))
    }

    /// Whether an address is not free because somebody has it, it rests, or its claim is there.
    pub fn is_taken(&self, address: IpAddr) -> bool {
        self.taken.contains_key(&address)
    }

    /// The other holders of an address that would not share it with a Service, each with the reason.
    pub fn disagreements(
        &self,
        address: IpAddr,
        service: &Service,
    ) -> Vec<(ServiceKey, Disagreement)> {
        let (me, terms) = (choose::service_ref(service), Terms::of(service));
        let holders = self.taken.get(&address).into_iter();
        holders
            .flat_map(|taken| &taken.holders)
            .filter(|(holder, _)| *holder != me)
            .filter_map(|(holder, theirs)| Some((holder.key.clone(), terms.disagreement(theirs)?)))
            .collect()
    }

    /// Whether the address is free or its holders agree with these terms.
    fn open_to(&self, address: IpAddr, asker: &ServiceRef, terms: &Terms) -> Result<(), Refusal> {
        let Some(taken) = self.taken.get(&address) else {
            return Ok(());
        };
        let refused = |holder: Option<ServiceKey>| Refusal::Taken { address, holder };
        if taken.holders.is_empty() {
            return Err(match &taken.stranger {
                Some(stranger) => Refusal::Conflict {
                    address,
                    stranger: Arc::clone(stranger),
                },
                None => refused(None),
            });
        }
        self.agreed(address, asker, terms)
    }

    /// Whether the other holders of the address, if there are any, agree with these terms.
    fn agreed(&self, address: IpAddr, asker: &ServiceRef, terms: &Terms) -> Result<(), Refusal> {
        let refused = |holder: Option<ServiceKey>| Refusal::Taken { address, holder };
        self.taken
            .get(&address)
            .into_iter()
            .flat_map(|taken| &taken.holders)
            .find(|(holder, theirs)| holder != asker && !theirs.agree(terms))
            .map_or(Ok(()), |(holder, _)| Err(refused(Some(holder.key.clone()))))
    }
}

#[cfg(test)]
mod tests;
