//! The decision: which addresses, or why none.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use herald_model::{Family, IpFamilyPolicy, Labels, PoolName, Service, ServiceRef};

use super::allowed::limit;
use super::space::{Space, owner};
use super::{Allocator, Refusal, Terms};

/// Who asks for what.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The Service.
    pub service: &'a Service,
    /// The labels of its namespace; `None`: nobody has told of it, and no selector selects it.
    pub namespace: Option<&'a Labels>,
    /// The addresses it has, which it keeps if it can.
    pub current: &'a [IpAddr],
}

/// What a Service gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The pool that all its addresses are of.
    pub pool: PoolName,
    /// In the order of the Service's families.
    pub addresses: Vec<IpAddr>,
    /// Why it has not one of each family, under `PreferDualStack`.
    pub missing: Option<Refusal>,
}

/// What a pool says to a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The pool.
    pub pool: PoolName,
    /// The addresses it would give, in the order of the Service's families, or why it gives none.
    pub outcome: Result<Vec<IpAddr>, Refusal>,
}

/// An [`Ask`] with what is derived from it.
struct Asker<'a> {
    ask: Ask<'a>,
    me: ServiceRef,
    terms: Terms,
}

impl Allocator {
    /// Decides which addresses a Service should have. What it has and may keep, it keeps.
    ///
    /// # Errors
    ///
    /// Why it cannot have what it should have.
    pub fn choose(&self, ask: Ask<'_>) -> Result<Choice, Refusal> {
        let service = ask.service;
        if let Some(message) = &service.request.invalid {
            return Err(Refusal::Invalid {
                message: Arc::clone(message),
            });
        }
        if service.families.is_empty() {
            return Err(Refusal::NoClusterAddress);
        }
        let asker = Asker {
            ask,
            me: service_ref(service),
            terms: Terms::of(service),
        };
        if service.request.addresses.is_empty() {
            self.choose_any(&asker)
        } else {
            self.choose_requested(&asker)
        }
    }

    /// What each pool says to a Service, in the order in which [`Self::choose`] tries them; what the
    /// Service has is not looked at. None: it asks for certain addresses, or for what makes no sense.
    pub fn offers(&self, ask: Ask<'_>) -> Vec<Offer> {
        let service = ask.service;
        let request = &service.request;
        if request.invalid.is_some() || !request.addresses.is_empty() || service.families.is_empty()
        {
            return Vec::new();
        }
        let asker = Asker {
            ask,
            me: service_ref(service),
            terms: Terms::of(service),
        };
        let offer = |space: &Space| Offer {
            pool: space.pool.name.clone(),
            outcome: self.offer(space, &asker),
        };
        match (self.candidates(&asker), &request.pool) {
            (Ok(spaces), _) => spaces.into_iter().map(offer).collect(),
            (Err(refusal), Some(pool)) => vec![Offer {
                pool: pool.clone(),
                outcome: Err(refusal),
            }],
            (Err(_), None) => Vec::new(),
        }
    }

    /// Whether a Service that has an address may go on having it, whatever it now asks for: its
    /// pool still serves the address and allows the Service, and the other holders agree.
    pub fn may_keep(&self, ask: Ask<'_>, address: IpAddr) -> bool {
        let asker = Asker {
            ask,
            me: service_ref(ask.service),
            terms: Terms::of(ask.service),
        };
        self.keepable(&asker, address)
    }

    /// Whether a Service may be made holder of an address that its status shows: as
    /// [`Self::may_keep`], and the address is not one that is never given.
    pub fn may_hold(&self, ask: Ask<'_>, address: IpAddr) -> bool {
        !self.reserved.contains_key(&address)
            && !self.barred.contains(address)
            && self.may_keep(ask, address)
    }

    /// Whether a Service may go on having an address that a claim says it has: as
    /// [`Self::may_keep`], where an address that nobody holds yet is no obstacle.
    pub fn may_adopt(&self, ask: Ask<'_>, address: IpAddr) -> bool {
        let me = service_ref(ask.service);
        self.suits(ask, address) && self.agreed(address, &me, &Terms::of(ask.service)).is_ok()
    }

    /// Whether an address is one that a Service asks for, by name or by what its pool is.
    pub(crate) fn is_asked_for(&self, service: &Service, address: IpAddr) -> bool {
        let request = &service.request;
        let named = request.addresses.is_empty() || request.addresses.contains(&address);
        named
            && self.space_of(address).is_some_and(|space| {
                let wanted = request.pool.as_ref();
                space.pool.scope == service.scope
                    && wanted.is_none_or(|name| *name == space.pool.name)
            })
    }

    fn keepable(&self, asker: &Asker<'_>, address: IpAddr) -> bool {
        self.suits(asker.ask, address) && self.open_to(address, &asker.me, &asker.terms).is_ok()
    }

    /// Whether the address is in a pool that allows the Service, and of one of its families.
    fn suits(&self, ask: Ask<'_>, address: IpAddr) -> bool {
        self.space_of(address).is_some_and(|space| {
            limit(&space.pool.allowed, ask).is_none()
                && ask.service.families.contains(&Family::of(address))
        })
    }

    fn space_of(&self, address: IpAddr) -> Option<&Space> {
        self.spaces.get(owner(&self.owners, address)?)
    }

    /// Exactly the addresses that the Service names.
    fn choose_requested(&self, asker: &Asker<'_>) -> Result<Choice, Refusal> {
        let service = asker.ask.service;
        let requested = &service.request.addresses;
        let in_order: Vec<IpAddr> = service
            .families
            .iter()
            .filter_map(|family| {
                requested
                    .iter()
                    .find(|a| Family::of(**a) == *family)
                    .copied()
            })
            .collect();
        if in_order.len() != service.families.len() || in_order.len() != requested.len() {
            return Err(Refusal::FamilyMismatch {
                addresses: requested.clone(),
                families: service.families.clone(),
            });
        }
        let mut of: Option<(IpAddr, &Space)> = None;
        for &address in &in_order {
            let space = self
                .space_of(address)
                .ok_or(Refusal::OutsidePools { address })?;
            let pool = &space.pool.name;
            if let Some((first, other)) = of
                && other.pool.name != *pool
            {
                return Err(Refusal::TwoPools {
                    first: (first, other.pool.name.clone()),
                    second: (address, pool.clone()),
                });
            }
            of = Some((address, space));
            if let Some(requested) = service.request.pool.as_ref().filter(|name| *name != pool) {
                return Err(Refusal::PoolMismatch {
                    address,
                    pool: pool.clone(),
                    requested: requested.clone(),
                });
            }
            serves(space, asker.ask)?;
            if asker.ask.current.contains(&address) {
                // What it has is not taken back because of rules that came later.
                self.open_to(address, &asker.me, &asker.terms)?;
                continue;
            }
            if self.barred.contains(address) {
                return Err(Refusal::Barred { address });
            }
            if space.avoids(address) {
                return Err(Refusal::Avoided {
                    address,
                    pool: pool.clone(),
                });
            }
            if self.reserved.contains_key(&address) {
                return Err(Refusal::Reserved { address });
            }
            self.open_to(address, &asker.me, &asker.terms)?;
        }
        let (_, space) = of.ok_or(Refusal::NoClusterAddress)?;
        Ok(Choice {
            pool: space.pool.name.clone(),
            addresses: in_order,
            missing: None,
        })
    }

    /// From the pool that the Service names, or from any that serves it.
    fn choose_any(&self, asker: &Asker<'_>) -> Result<Choice, Refusal> {
        let service = asker.ask.service;
        let partial = service.ip_family_policy == IpFamilyPolicy::PreferDualStack;
        // With what it has a pool needs less for the rest: what it lacks even so is the reason.
        let mut lacking: Option<(&PoolName, Refusal)> = None;
        if let Some((space, kept)) = self.kept(asker) {
            match self.in_pool(space, asker, &service.families, &kept) {
                Ok(addresses) => return Ok(choice(space, addresses, None)),
                Err(missing) if partial => return Ok(choice(space, kept, Some(missing))),
                Err(reason) => lacking = Some((&space.pool.name, reason)),
            }
        }
        let candidates = self.candidates(asker)?;
        let mut reasons = Vec::new();
        for space in &candidates {
            let known = lacking.take_if(|(name, _)| **name == space.pool.name);
            match known.map_or_else(|| self.offer(space, asker), |(_, reason)| Err(reason)) {
                Ok(addresses) => return Ok(choice(space, addresses, None)),
                Err(reason) => reasons.push(reason),
            }
        }
        if partial && service.families.len() > 1 {
            for family in &service.families {
                for (space, missing) in candidates.iter().zip(&reasons) {
                    if serves(space, asker.ask).is_ok()
                        && let Ok(addresses) =
                            self.in_pool(space, asker, std::slice::from_ref(family), &[])
                    {
                        return Ok(choice(space, addresses, Some(missing.clone())));
                    }
                }
            }
        }
        Err(match reasons.len() {
            0 => Refusal::NoPool,
            1 => reasons.remove(0),
            _ => Refusal::NoneFits { reasons },
        })
    }

    /// One address of each family from a pool, if it serves the asker.
    fn offer(&self, space: &Space, asker: &Asker<'_>) -> Result<Vec<IpAddr>, Refusal> {
        serves(space, asker.ask)?;
        self.in_pool(space, asker, &asker.ask.service.families, &[])
    }

    /// What the Service has and may keep under its present request, all of one pool.
    fn kept(&self, asker: &Asker<'_>) -> Option<(&Space, Vec<IpAddr>)> {
        let service = asker.ask.service;
        let current = asker.ask.current.iter().copied();
        let mut keepable = current.filter(|&address| self.keepable(asker, address));
        let first = keepable.next()?;
        let space = self.space_of(first)?;
        let wanted = service.request.pool.as_ref();
        if wanted.is_some_and(|name| *name != space.pool.name) || space.pool.scope != service.scope
        {
            return None;
        }
        let same_pool = |&address: &IpAddr| owner(&self.owners, address) == Some(&space.pool.name);
        let mut kept = vec![first];
        kept.extend(keepable.filter(same_pool));
        // In the order of the families, one of each.
        let ordered: Vec<IpAddr> = service
            .families
            .iter()
            .filter_map(|family| kept.iter().find(|a| Family::of(**a) == *family).copied())
            .collect();
        Some((space, ordered))
    }

    /// The pools to try, in order.
    ///
    /// Higher priority first. Among equals a pool that is limited to some Services precedes those
    /// that are open to all, as whoever limits a pool to them wants them to use it; then by name.
    fn candidates(&self, asker: &Asker<'_>) -> Result<Vec<&Space>, Refusal> {
        if let Some(name) = &asker.ask.service.request.pool {
            return match self.spaces.get(name) {
                Some(space) => Ok(vec![space]),
                None => Err(Refusal::UnknownPool { pool: name.clone() }),
            };
        }
        let mut candidates: Vec<&Space> = self.spaces.values().collect();
        candidates.sort_by_key(|space| {
            let pool = &space.pool;
            (
                -i64::from(pool.priority),
                pool.allowed.is_open(),
                &pool.name,
            )
        });
        Ok(candidates)
    }

    /// One address of each family from a pool that serves the asker; of families of which it has
    /// one in `kept`, that one.
    fn in_pool(
        &self,
        space: &Space,
        asker: &Asker<'_>,
        families: &[Family],
        kept: &[IpAddr],
    ) -> Result<Vec<IpAddr>, Refusal> {
        families
            .iter()
            .map(|&family| {
                if let Some(&address) = kept.iter().find(|a| Family::of(**a) == family) {
                    return Ok(address);
                }
                if let Some(address) = self.sharable(space, asker, family) {
                    return Ok(address);
                }
                if !space.has(family) {
                    return Err(Refusal::NoFamily {
                        pool: space.pool.name.clone(),
                        family,
                    });
                }
                let counts = space.counts.get(family);
                space.lowest(family).ok_or_else(|| Refusal::Exhausted {
                    pool: space.pool.name.clone(),
                    family,
                    assigned: counts.assigned,
                    total: counts.total,
                })
            })
            .collect()
    }

    /// The lowest address that others hold and would share.
    fn sharable(&self, space: &Space, asker: &Asker<'_>, family: Family) -> Option<IpAddr> {
        let addresses: &BTreeSet<IpAddr> = self.shared.get(asker.terms.key.as_ref()?)?;
        addresses.iter().copied().find(|&address| {
            Family::of(address) == family
                && owner(&self.owners, address) == Some(&space.pool.name)
                && !self.is_holder(address, &asker.me)
                && self.open_to(address, &asker.me, &asker.terms).is_ok()
        })
    }
}

fn choice(space: &Space, addresses: Vec<IpAddr>, missing: Option<Refusal>) -> Choice {
    Choice {
        pool: space.pool.name.clone(),
        addresses,
        missing,
    }
}

/// Whether the pool serves the asker at all.
fn serves(space: &Space, ask: Ask<'_>) -> Result<(), Refusal> {
    let pool = &space.pool;
    if let Some(only) = limit(&pool.allowed, ask) {
        return Err(Refusal::NotAllowed {
            pool: pool.name.clone(),
            only,
        });
    }
    if pool.scope != ask.service.scope {
        return Err(Refusal::WrongScope {
            pool: pool.name.clone(),
            pool_scope: pool.scope,
            asked: ask.service.scope,
        });
    }
    let request = &ask.service.request;
    if !pool.auto_assign && request.pool.is_none() && request.addresses.is_empty() {
        return Err(Refusal::OnlyOnRequest {
            pool: pool.name.clone(),
        });
    }
    Ok(())
}

/// One life of a Service, as claims name it.
pub(crate) fn service_ref(service: &Service) -> ServiceRef {
    ServiceRef {
        key: service.key.clone(),
        uid: service.uid.clone(),
    }
}
