//! The allocator beside the obvious one, over long histories: Services that come, change, share and
//! go; pools that come, grow, shrink, split and go.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use herald_model::{AddressRange, Family, IpFamilyPolicy, Labels, Service, TrafficPolicy};
use proptest::prelude::*;

use super::BOTH;
use crate::allocator::{Allocator, Ask, Counts, Terms, choose};
use crate::testkit::{labels, pool, svc};

/// What a Service wants.
#[derive(Clone, Debug)]
struct Wish {
    families: Vec<Family>,
    policy: IpFamilyPolicy,
    key: Option<u8>,
    port: u16,
    /// Under `Local`, which pods.
    local: Option<u8>,
}

impl Wish {
    fn service(&self, name: u8) -> Service {
        let service = svc(&format!("a/{name}")).families(&self.families, self.policy);
        let service = match self.key {
            Some(key) => service.sharing(&key.to_string()),
            None => service,
        };
        let service = service.port(self.port).with(|service| {
            if let Some(app) = self.local {
                service.traffic_policy = TrafficPolicy::Local;
                service.selector = labels(&[("app", &app.to_string())]);
            }
        });
        service.service()
    }

    fn agrees(&self, other: &Self) -> bool {
        self.key.is_some()
            && self.key == other.key
            && self.local == other.local
            && self.port != other.port
    }
}

/// A pool's ranges as numbers: family, first, last.
type Ranges = Vec<(Family, u8, u8)>;

#[derive(Clone, Debug)]
struct Pool {
    ranges: Ranges,
    created: u8,
    priority: u8,
    avoid: bool,
}

#[derive(Clone, Debug)]
enum Op {
    Wish(u8, Wish),
    Delete(u8),
    /// The claim on an address that nobody holds is deleted.
    Free(Family, u8),
    Reserve(Family, u8),
    Unreserve(Family, u8),
    Bar(Ranges),
    Pool(u8, Pool),
    Remove(u8),
    Grow(u8, u8),
    Shrink(u8, u8),
    /// The upper half of a pool becomes another pool's.
    Split(u8, u8),
}

const NUMBERS: u8 = 32;

/// Addresses around the end of a block of 256, where the avoided ones are.
fn address(family: Family, number: u8) -> IpAddr {
    let first = match family {
        Family::V4 => 0x0a00_00f0,
        Family::V6 => 0xfd00 << 112,
    };
    family.address(first + u128::from(number))
}

fn range((family, first, last): (Family, u8, u8)) -> AddressRange {
    AddressRange::new(address(family, first), address(family, last)).unwrap()
}

/// The obvious allocator: looks at every address every time.
#[derive(Default)]
struct Model {
    pools: BTreeMap<u8, Pool>,
    /// Taken, with who holds it.
    taken: BTreeMap<(Family, u8), BTreeSet<u8>>,
    reserved: Vec<(Family, u8)>,
    barred: Ranges,
    services: BTreeMap<u8, (Wish, Vec<(Family, u8)>)>,
}

impl Model {
    fn owner(&self, (family, number): (Family, u8)) -> Option<u8> {
        let lists = |pool: &Pool| {
            let mut ranges = pool.ranges.iter();
            ranges.any(|&(of, first, last)| of == family && (first..=last).contains(&number))
        };
        let owners = self.pools.iter().filter(|(_, pool)| lists(pool));
        owners
            .min_by_key(|(name, pool)| (pool.created, **name))
            .map(|(name, _)| *name)
    }

    fn usable(&self, at: (Family, u8)) -> bool {
        let (family, number) = at;
        let avoids = self.owner(at).is_some_and(|name| self.pools[&name].avoid);
        // 0xff and 0x100 from 0xf0.
        let buggy = family == Family::V4 && [15, 16].contains(&number);
        let barred = |&(of, first, last): &(Family, u8, u8)| {
            of == family && (first..=last).contains(&number)
        };
        !(avoids && buggy || self.barred.iter().any(barred) || self.reserved.contains(&at))
    }

    fn open_to(&self, at: (Family, u8), me: u8, wish: &Wish) -> bool {
        self.taken.get(&at).is_none_or(|holders| {
            let mut others = holders.iter().filter(|other| **other != me);
            !holders.is_empty() && others.all(|other| self.services[other].0.agrees(wish))
        })
    }

    fn keepable(&self, at: (Family, u8), me: u8, wish: &Wish) -> bool {
        self.owner(at).is_some() && wish.families.contains(&at.0) && self.open_to(at, me, wish)
    }

    fn in_pool(
        &self,
        pool: u8,
        (me, wish): (u8, &Wish),
        families: &[Family],
        kept: &[(Family, u8)],
    ) -> Option<Vec<(Family, u8)>> {
        let of = |&family: &Family| {
            let all = || (0..=u8::MAX).map(|number| (family, number));
            let here = |at: &(Family, u8)| self.owner(*at) == Some(pool);
            let sharable = |at: &(Family, u8)| {
                here(at)
                    && self.taken.get(at).is_some_and(|holders| {
                        let mut keys = holders.iter().map(|holder| self.services[holder].0.key);
                        !holders.contains(&me) && keys.any(|key| key == wish.key)
                    })
                    && self.open_to(*at, me, wish)
            };
            let free =
                |at: &(Family, u8)| here(at) && self.usable(*at) && !self.taken.contains_key(at);
            let kept = kept.iter().copied().find(|(kept, _)| *kept == family);
            kept.or_else(|| all().find(sharable))
                .or_else(|| all().find(free))
        };
        families.iter().map(of).collect()
    }

    fn choose(&self, me: u8) -> Result<Vec<(Family, u8)>, ()> {
        let (wish, have) = &self.services[&me];
        let asker = (me, wish);
        let partial = wish.policy == IpFamilyPolicy::PreferDualStack;
        let keepable: Vec<_> = have
            .iter()
            .copied()
            .filter(|at| self.keepable(*at, me, wish))
            .collect();
        if let Some(pool) = keepable.first().and_then(|at| self.owner(*at)) {
            let kept: Vec<_> = wish
                .families
                .iter()
                .filter_map(|family| {
                    let here =
                        |at: &&(Family, u8)| at.0 == *family && self.owner(**at) == Some(pool);
                    keepable.iter().find(here).copied()
                })
                .collect();
            match self.in_pool(pool, asker, &wish.families, &kept) {
                Some(all) => return Ok(all),
                None if partial => return Ok(kept),
                None => {}
            }
        }
        let mut order: Vec<u8> = self.pools.keys().copied().collect();
        order.sort_by_key(|name| (std::cmp::Reverse(self.pools[name].priority), *name));
        let anywhere = |families: &[Family]| {
            let mut pools = order.iter();
            pools.find_map(|pool| self.in_pool(*pool, asker, families, &[]))
        };
        let one_family = || wish.families.iter().find_map(|family| anywhere(&[*family]));
        anywhere(&wish.families)
            .or_else(|| one_family().filter(|_| partial))
            .ok_or(())
    }

    fn counts(&self, pool: u8, family: Family) -> Option<Counts> {
        let all = (0..=u8::MAX).map(|number| (family, number));
        let mine: Vec<_> = all.filter(|at| self.owner(*at) == Some(pool)).collect();
        let count = |what: &dyn Fn(&(Family, u8)) -> bool| {
            mine.iter().filter(|at| what(at)).count() as u128
        };
        (!mine.is_empty()).then(|| Counts {
            total: count(&|at| self.usable(*at)),
            assigned: count(&|at| {
                self.taken
                    .get(at)
                    .is_some_and(|holders| !holders.is_empty())
            }),
            available: count(&|at| self.usable(*at) && !self.taken.contains_key(at)),
        })
    }
}

/// Both, side by side.
#[derive(Default)]
struct Pair {
    allocator: Allocator,
    model: Model,
}

impl Pair {
    fn set_pool(&mut self, name: u8, new: Pool) {
        let mut built = pool(&name.to_string())
            .created(new.created.into())
            .priority(new.priority.into())
            .with(|pool| pool.avoid_buggy_ips = new.avoid)
            .pool();
        built.ranges = new.ranges.iter().copied().map(range).collect();
        self.allocator.set_pool(built);
        self.model.pools.insert(name, new);
    }

    fn remove_pool(&mut self, name: u8) {
        self.allocator.remove_pool(&name.to_string().into());
        self.model.pools.remove(&name);
    }

    fn reshape(&mut self, name: u8, change: impl FnOnce(&mut Pool)) {
        if let Some(mut pool) = self.model.pools.get(&name).cloned() {
            change(&mut pool);
            if pool.ranges.is_empty() {
                self.remove_pool(name);
            } else {
                self.set_pool(name, pool);
            }
        }
    }

    fn drop_holder(&mut self, at: (Family, u8), name: u8) {
        let me = choose::service_ref(&svc(&format!("a/{name}")).service());
        self.allocator.drop_holder(address(at.0, at.1), &me);
        self.model.taken.get_mut(&at).unwrap().remove(&name);
    }

    fn apply(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Wish(name, wish) => {
                let have = self.model.services.remove(&name).map(|(_, have)| have);
                let service = (wish, have.unwrap_or_default());
                self.model.services.insert(name, service);
                return self.evaluate(name);
            }
            Op::Delete(name) => {
                if let Some((_, have)) = self.model.services.remove(&name) {
                    for at in have {
                        self.drop_holder(at, name);
                    }
                }
                return Ok(());
            }
            Op::Free(family, number) => {
                let at = (family, number);
                if self.model.taken.get(&at).is_some_and(BTreeSet::is_empty) {
                    self.allocator.free(address(family, number));
                    self.model.taken.remove(&at);
                }
            }
            Op::Reserve(family, number) => {
                self.allocator.reserve(address(family, number));
                self.model.reserved.push((family, number));
            }
            Op::Unreserve(family, number) => {
                self.allocator.unreserve(address(family, number));
                let mut reserved = self.model.reserved.iter();
                if let Some(place) = reserved.position(|at| *at == (family, number)) {
                    self.model.reserved.swap_remove(place);
                }
            }
            Op::Bar(ranges) => {
                self.allocator.bar(ranges.iter().copied().map(range));
                self.model.barred = ranges;
            }
            Op::Pool(name, pool) => self.set_pool(name, pool),
            Op::Remove(name) => self.remove_pool(name),
            Op::Grow(name, by) => self.reshape(name, |pool| {
                if let Some((.., last)) = pool.ranges.last_mut() {
                    *last = last.saturating_add(by).min(2 * NUMBERS);
                }
            }),
            Op::Shrink(name, by) => self.reshape(name, |pool| {
                for (_, first, last) in &mut pool.ranges {
                    *last = last.saturating_sub(by).max(*first);
                }
            }),
            Op::Split(name, into) => {
                let half = |(family, first, last): (Family, u8, u8)| {
                    let middle = first.midpoint(last);
                    ((family, first, middle), (family, middle + 1, last))
                };
                if name != into
                    && let Some(pool) = self.model.pools.get(&name).cloned()
                {
                    let (lower, upper): (Ranges, Ranges) =
                        pool.ranges.iter().copied().map(half).unzip();
                    let upper = upper.into_iter().filter(|(_, first, last)| first <= last);
                    let upper = Pool {
                        ranges: upper.collect(),
                        ..pool
                    };
                    self.reshape(name, |pool| pool.ranges = lower);
                    if !upper.ranges.is_empty() {
                        self.set_pool(into, upper);
                    }
                }
            }
        }
        let names: Vec<u8> = self.model.services.keys().copied().collect();
        names.into_iter().try_for_each(|name| self.evaluate(name))
    }

    /// Decides for a Service, in both.
    fn evaluate(&mut self, name: u8) -> Result<(), TestCaseError> {
        let (wish, have) = self.model.services[&name].clone();
        let service = wish.service(name);
        let current: Vec<IpAddr> = have.iter().map(|at| address(at.0, at.1)).collect();
        let ask = Ask {
            service: &service,
            namespace: Some(&Labels::new()),
            current: &current,
        };
        let got = self.allocator.choose(ask);
        let expected = self.model.choose(name);
        let addresses = |of: &[(Family, u8)]| -> Vec<IpAddr> {
            of.iter().map(|at| address(at.0, at.1)).collect()
        };
        prop_assert_eq!(
            got.ok().map(|choice| choice.addresses),
            expected.as_deref().ok().map(addresses),
            "{} with {:?}",
            name,
            have
        );
        let target = expected.unwrap_or_else(|()| {
            let kept = have.iter().copied();
            kept.filter(|at| self.model.keepable(*at, name, &wish))
                .collect()
        });
        for at in &have {
            let keeps = self.allocator.may_keep(ask, address(at.0, at.1));
            prop_assert_eq!(keeps, self.model.keepable(*at, name, &wish), "{:?}", at);
        }
        for &(family, number) in &target {
            let me = choose::service_ref(&service);
            self.allocator
                .hold(address(family, number), me, Terms::of(&service));
            self.model
                .taken
                .entry((family, number))
                .or_default()
                .insert(name);
        }
        for at in have.into_iter().filter(|at| !target.contains(at)) {
            self.drop_holder(at, name);
        }
        self.model.services.insert(name, (wish, target));
        Ok(())
    }

    /// Nobody has what another has who does not agree; and the counts are right.
    fn check(&self) -> Result<(), TestCaseError> {
        for (at, holders) in &self.model.taken {
            for one in holders {
                for other in holders.iter().filter(|other| *other != one) {
                    let agree = self.model.services[one]
                        .0
                        .agrees(&self.model.services[other].0);
                    prop_assert!(agree, "{:?} is given to {} and {}", at, one, other);
                }
            }
        }
        for name in self.model.pools.keys() {
            let counts = self.allocator.counts(&name.to_string().into());
            for family in BOTH {
                let expected = self.model.counts(*name, family);
                prop_assert_eq!(*counts.get(family), expected, "pool {}", name);
            }
        }
        Ok(())
    }
}

fn family() -> impl Strategy<Value = Family> {
    prop_oneof![2 => Just(Family::V4), 1 => Just(Family::V6)]
}

fn wish() -> impl Strategy<Value = Wish> {
    let families = prop_oneof![
        3 => Just((vec![Family::V4], IpFamilyPolicy::SingleStack)),
        1 => Just((vec![Family::V6], IpFamilyPolicy::SingleStack)),
        2 => Just((vec![Family::V6, Family::V4], IpFamilyPolicy::PreferDualStack)),
        2 => Just((BOTH.to_vec(), IpFamilyPolicy::PreferDualStack)),
        2 => Just((BOTH.to_vec(), IpFamilyPolicy::RequireDualStack)),
    ];
    let local = prop::option::weighted(0.3, 0..2_u8);
    (
        families,
        prop::option::weighted(0.6, 0..2_u8),
        80..84_u16,
        local,
    )
        .prop_map(|((families, policy), key, port, local)| Wish {
            families,
            policy,
            key,
            port,
            local,
        })
}

fn ranges(longest: u8, most: usize) -> impl Strategy<Value = Ranges> {
    let one = (family(), 0..NUMBERS, 0..longest)
        .prop_map(|(family, first, len)| (family, first, first + len));
    prop::collection::vec(one, 1..=most)
}

fn op() -> impl Strategy<Value = Op> {
    let at = || (family(), 0..NUMBERS + 8);
    let new = (ranges(8, 3), 0..3_u8, 0..2_u8, any::<bool>());
    let pool = new.prop_map(|(ranges, created, priority, avoid)| Pool {
        ranges,
        created,
        priority,
        avoid,
    });
    prop_oneof![
        10 => (0..10_u8, wish()).prop_map(|(name, wish)| Op::Wish(name, wish)),
        3 => (0..10_u8).prop_map(Op::Delete),
        6 => at().prop_map(|(family, number)| Op::Free(family, number)),
        1 => at().prop_map(|(family, number)| Op::Reserve(family, number)),
        1 => at().prop_map(|(family, number)| Op::Unreserve(family, number)),
        1 => prop_oneof![Just(Vec::new()), ranges(6, 2)].prop_map(Op::Bar),
        2 => (0..4_u8, pool).prop_map(|(name, pool)| Op::Pool(name, pool)),
        1 => (0..4_u8).prop_map(Op::Remove),
        2 => (0..4_u8, 1..6_u8).prop_map(|(name, by)| Op::Grow(name, by)),
        2 => (0..4_u8, 1..6_u8).prop_map(|(name, by)| Op::Shrink(name, by)),
        1 => (0..4_u8, 0..4_u8).prop_map(|(name, into)| Op::Split(name, into)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn equals_the_obvious_allocator_with_sharers_both_families_and_pools_that_change(
        ops in prop::collection::vec(op(), 1..300),
    ) {
        let mut pair = Pair::default();
        for op in ops {
            pair.apply(op)?;
            pair.check()?;
        }
    }
}
