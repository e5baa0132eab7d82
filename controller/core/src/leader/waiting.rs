//! Services that have not what they should have, and whose turn it is when an address opens.
//!
//! An address opens when it becomes free, when a Service that holds it with others leaves, or when
//! what its holders say of sharing changes. Who waits for it is then looked at in the order of
//! creation, for as long as there is something to be had: those who get nothing by it are not
//! looked at, however many they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use herald_model::{Family, IpFamilyPolicy, PoolName, Service, ServiceKey};

use crate::allocator::{Allocator, Refusal, Terms};

/// A Service in the order in which those who wait are served.
pub(super) type Turn = (i64, ServiceKey);

/// What may help a Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wants {
    /// The addresses it asks for by name.
    addresses: BTreeSet<IpAddr>,
    /// The pools that serve it and are full.
    pools: BTreeSet<(PoolName, Family)>,
    /// The terms on which it would share.
    terms: Option<Terms>,
}

impl Wants {
    /// What may help a Service that is refused what it should have, and that has not all of it.
    pub(super) fn of(
        service: &Service,
        problem: Option<&Refusal>,
        missing: Option<&Refusal>,
    ) -> Self {
        let mut pools = BTreeSet::new();
        for refusal in [problem, missing].into_iter().flatten() {
            refusal.each(&mut |refusal| {
                if let Refusal::Exhausted { pool, family, .. } = refusal {
                    pools.insert((pool.clone(), *family));
                }
            });
        }
        if let Some(problem) = problem
            && service.ip_family_policy == IpFamilyPolicy::PreferDualStack
        {
            // One address is better than none, of whichever family.
            problem.each(&mut |refusal| {
                if let Refusal::Exhausted { pool, .. } | Refusal::NoFamily { pool, .. } = refusal {
                    let families = service.families.iter();
                    pools.extend(families.map(|family| (pool.clone(), *family)));
                }
            });
        }
        Self {
            addresses: service.request.addresses.iter().copied().collect(),
            pools,
            terms: service.sharing_key.is_some().then(|| Terms::of(service)),
        }
    }
}

/// Something that may be had again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Opening {
    /// An address, by those who ask for it by name.
    Address(IpAddr),
    /// Addresses of a pool.
    Pool(PoolName, Family),
    /// An address that others hold.
    Share(IpAddr),
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    all: BTreeMap<Turn, Wants>,
    by_address: BTreeMap<IpAddr, BTreeSet<Turn>>,
    by_pool: BTreeMap<(PoolName, Family), BTreeSet<Turn>>,
    /// By sharing key, then by all terms: those who wait on equal terms are looked at as one.
    by_terms: BTreeMap<Arc<str>, BTreeMap<Terms, BTreeSet<Turn>>>,
    /// What has opened, each with whose turn it may be.
    turns: BTreeSet<(Turn, Opening)>,
    openings: BTreeMap<Opening, Turn>,
}

impl Waiting {
    /// A Service waits from now on, or for something else than before.
    pub(super) fn insert(&mut self, turn: Turn, wants: Wants) {
        if self.all.get(&turn) == Some(&wants) {
            return;
        }
        self.remove(&turn);
        for address in &wants.addresses {
            let waiting = self.by_address.entry(*address).or_default();
            waiting.insert(turn.clone());
        }
        for pool in &wants.pools {
            let waiting = self.by_pool.entry(pool.clone()).or_default();
            waiting.insert(turn.clone());
        }
        if let Some((key, terms)) = wants.terms.as_ref().and_then(|t| Some((t.key()?, t))) {
            let of_key = self.by_terms.entry(Arc::clone(key)).or_default();
            let waiting = of_key.entry(terms.clone()).or_default();
            waiting.insert(turn.clone());
        }
        self.all.insert(turn, wants);
    }

    /// A Service does not wait any more.
    pub(super) fn remove(&mut self, turn: &Turn) {
        let Some(wants) = self.all.remove(turn) else {
            return;
        };
        for address in &wants.addresses {
            remove_from(&mut self.by_address, address, turn);
        }
        for pool in &wants.pools {
            remove_from(&mut self.by_pool, pool, turn);
        }
        if let Some((key, terms)) = wants.terms.as_ref().and_then(|t| Some((t.key()?, t)))
            && let Some(of_key) = self.by_terms.get_mut(key)
        {
            remove_from(of_key, terms, turn);
            if of_key.is_empty() {
                self.by_terms.remove(key);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Everybody who waits, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = &Turn> {
        self.all.keys()
    }

    /// An address may be had that could not be had before, at least by some.
    pub(super) fn open(&mut self, allocator: &Allocator, address: IpAddr) {
        if self.all.is_empty() {
            return;
        }
        let pool = allocator.pool_of(address).map(|pool| pool.name.clone());
        let of_pool = pool.map(|pool| Opening::Pool(pool, Family::of(address)));
        let openings = [Opening::Address(address), Opening::Share(address)];
        for opening in openings.into_iter().chain(of_pool) {
            if let Some(turn) = self.openings.remove(&opening) {
                self.turns.remove(&(turn, opening.clone()));
            }
            let first = self.candidate(allocator, &opening, Bound::Unbounded);
            self.schedule(opening, first);
        }
    }

    /// Whose turn it is to be looked at; `None`: nobody can be helped any more.
    pub(super) fn next(&mut self, allocator: &Allocator) -> Option<ServiceKey> {
        while let Some((turn, opening)) = self.turns.pop_first() {
            self.openings.remove(&opening);
            // Since it was found, it or what it waits for may have changed.
            let now = self.candidate(allocator, &opening, Bound::Included(&turn));
            if now.as_ref() == Some(&turn) {
                let after = self.candidate(allocator, &opening, Bound::Excluded(&turn));
                self.schedule(opening, after);
                return Some(turn.1);
            }
            self.schedule(opening, now);
        }
        None
    }

    fn schedule(&mut self, opening: Opening, turn: Option<Turn>) {
        if let Some(turn) = turn {
            self.turns.insert((turn.clone(), opening.clone()));
            self.openings.insert(opening, turn);
        }
    }

    /// The first from a turn on whom an opening may help as things are now.
    fn candidate(
        &self,
        allocator: &Allocator,
        opening: &Opening,
        from: Bound<&Turn>,
    ) -> Option<Turn> {
        let first = |waiting: &BTreeSet<Turn>| {
            let mut rest = waiting.range((from, Bound::Unbounded));
            rest.next().cloned()
        };
        match opening {
            Opening::Address(address) => {
                let waiting = self.by_address.get(address)?;
                (!allocator.is_taken(*address)).then(|| first(waiting))?
            }
            Opening::Pool(pool, family) => {
                let waiting = self.by_pool.get(&(pool.clone(), *family))?;
                allocator.next_of(pool, *family)?;
                first(waiting)
            }
            Opening::Share(address) => {
                let holders = || allocator.terms_on(*address);
                let of_key = self.by_terms.get(holders().next()?.key()?)?;
                let agree = |terms: &Terms| holders().all(|holder| holder.agree(terms));
                let willing = of_key.iter().filter(|(terms, _)| agree(terms));
                willing.filter_map(|(_, waiting)| first(waiting)).min()
            }
        }
    }
}

fn remove_from<K: Ord>(index: &mut BTreeMap<K, BTreeSet<Turn>>, key: &K, turn: &Turn) {
    if let Some(waiting) = index.get_mut(key) {
        waiting.remove(turn);
        if waiting.is_empty() {
            index.remove(key);
        }
    }
}
