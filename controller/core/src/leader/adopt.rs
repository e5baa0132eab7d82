//! Taking over what is there: at the start of a term, and when a Service is first seen.

use std::collections::BTreeSet;
use std::net::IpAddr;

use herald_model::{Family, Instant, ServiceKey};

use super::{Assignment, Claim, Leader, Plan, Told};
use crate::allocator::{Ask, Terms};
use crate::io::{Event, Regarding};
use crate::observed::{ObservedService, UserObject};
use crate::world::World;

impl Leader {
    /// Reads back every claim, then every status without one, then marks everything to be looked
    /// at.
    pub(super) fn adopt_all(&mut self, now: Instant, world: &World) {
        self.bar_cluster_ranges(world);
        for pool in world.pools.values() {
            self.allocator.set_pool(pool.pool.clone());
        }
        let nodes: BTreeSet<_> = world.nodes.keys().chain(world.speakers.keys()).collect();
        for node in nodes {
            self.reserve_for(world, node);
        }
        for address in world.vips.keys().chain(&world.unreadable_vips) {
            self.claim_seen(now, world, *address);
        }
        let mut by_age: Vec<(i64, &ServiceKey)> = world
            .services
            .values()
            .filter_map(|observed| {
                observed
                    .served()
                    .map(|service| (service.created, &observed.key))
            })
            .collect();
        by_age.sort_unstable();
        for (_, key) in &by_age {
            self.adopt_claims(world, key);
        }
        for (_, key) in &by_age {
            self.adopt_status(world, key);
        }
        for address in world.vips.keys() {
            self.hear_of_strangers(now, world, *address);
        }
        // Claims that name Services which are not ours: their statuses are cleared first.
        for vip in world.vips.values() {
            for service in &vip.vip.services {
                self.adopt_claims(world, &service.key);
                self.mark_service(world, &service.key);
            }
        }
        for (_, key) in by_age {
            self.mark_service(world, key);
        }
        for observed in world
            .services
            .values()
            .filter(|o| o.served().is_none() && o.is_marked())
        {
            self.mark_service(world, &observed.key);
        }
        let pools = world.pools.keys().cloned().map(UserObject::Pool);
        let advertisements = world
            .advertisements
            .keys()
            .cloned()
            .map(UserObject::Advertisement);
        self.dirty_objects.extend(pools.chain(advertisements));
        self.dirty_objects.extend(world.invalid.keys().cloned());
    }

    /// A claim is there: its address is not free.
    pub(super) fn claim_seen(&mut self, now: Instant, world: &World, address: IpAddr) {
        self.allocator.put_aside(address);
        self.dirty_claims.insert(address);
        let observed = world.vips.get(&address);
        let new = !self.claims.contains_key(&address);
        let claim = self.claims.entry(address).or_default();
        if let Some(observed) = observed
            && new
        {
            let vip = &observed.vip;
            let plan = Plan {
                epoch: vip.epoch,
                announce: vip.announce,
                advertisements: vip.advertisements.clone(),
                segments: vip.segments.clone(),
                eligible: true,
            };
            let unknown = vip
                .services
                .iter()
                .any(|s| !world.services.contains_key(&s.key));
            if unknown {
                let until = now + Claim::PATIENCE;
                claim.untouched_until = Some(until);
                self.timers.insert((until, address));
            }
            self.set_plan(address, plan);
        }
    }

    /// Makes a Service holder of the addresses whose claims name it: those that it may have become
    /// its target, the others it leaves.
    pub(super) fn adopt_claims(&mut self, world: &World, key: &ServiceKey) {
        let Some(observed) = world.services.get(key) else {
            return;
        };
        let me = observed.service_ref();
        let mut claimed = world.claims_of(&me);
        claimed.retain(|address| {
            let is_yielded = self.is_yielded(world, *address);
            let released = self.claims.get(address).map(|claim| &claim.released);
            !self.allocator.is_holder(*address, &me)
                && !released.is_some_and(|released| released.contains(&me))
                && (!is_yielded || observed.ingress.contains(address))
        });
        if claimed.is_empty() {
            return;
        }
        // What the status shows is in use: it comes first, in the order in which it is shown.
        claimed.sort_by_key(|address| {
            let shown = observed.ingress.iter().position(|other| other == address);
            (shown.is_none(), shown, *address)
        });
        let mut assignment = self.take_assignment(world, observed);
        for address in claimed {
            let may = observed.served().is_some_and(|service| {
                let ask = Ask {
                    service,
                    namespace: world.namespace_labels(&key.namespace),
                    current: &[],
                };
                let family = Family::of(address);
                !assignment
                    .target
                    .iter()
                    .any(|other| Family::of(*other) == family)
                    && self.allocator.may_adopt(ask, address)
                    && (observed.ingress.contains(&address)
                        || self.allocator.is_asked_for(service, address))
            });
            if may {
                assignment.target.push(address);
            } else {
                assignment.leaving.insert(address);
            }
            self.hold(address, me.clone(), terms_of(observed));
            if !observed.ingress.contains(&address)
                && let Some(claim) = self.claims.get_mut(&address)
            {
                // Whoever led before may have been about to end this claim, or to show it.
                let vip = world.vips.get(&address);
                claim.uncertain = vip.map(|vip| vip.identity.version.clone());
                claim.contested = true;
                assignment.uncertain = Some(observed.identity.version.clone());
                assignment.contested = true;
            }
        }
        self.assignments.insert(key.clone(), assignment);
    }

    /// Gives a Service the addresses that its status shows though no claim names it, if they are
    /// free.
    pub(super) fn adopt_status(&mut self, world: &World, key: &ServiceKey) {
        let Some(observed) = world.services.get(key) else {
            return;
        };
        let Some(service) = observed.served() else {
            return;
        };
        let me = observed.service_ref();
        let mut assignment = self.take_assignment(world, observed);
        for &address in &observed.ingress {
            let family = Family::of(address);
            if self.allocator.is_holder(address, &me)
                || assignment
                    .target
                    .iter()
                    .any(|other| Family::of(*other) == family)
            {
                continue;
            }
            let ask = Ask {
                service,
                namespace: world.namespace_labels(&key.namespace),
                current: &[],
            };
            if self.allocator.may_hold(ask, address) {
                assignment.target.push(address);
                self.hold(address, me.clone(), Terms::of(service));
            } else if let Some(holder) = self.allocator.holders(address).first() {
                self.record(Event {
                    regarding: Regarding::Service {
                        key: key.clone(),
                        uid: me.uid.clone(),
                    },
                    warning: true,
                    reason: "AddressConflict".into(),
                    note: format!(
                        "the status showed {address}, but Service {} holds the claim on it",
                        holder.key
                    ),
                });
            }
        }
        self.assignments.insert(key.clone(), assignment);
    }

    pub(super) fn take_assignment(
        &mut self,
        world: &World,
        observed: &ObservedService,
    ) -> Assignment {
        let claimed = world.claims_of(&observed.service_ref());
        let created = observed
            .served()
            .map_or(i64::MIN, |service| service.created);
        self.assignments
            .remove(&observed.key)
            .unwrap_or_else(|| Assignment {
                me: observed.service_ref(),
                created,
                target: Vec::new(),
                leaving: BTreeSet::new(),
                problem: None,
                missing: None,
                owned: None,
                uncertain: None,
                contested: false,
                told: Told::by(observed, |address| claimed.contains(&address)),
                waits_since: None,
            })
    }
}

/// The terms on which a Service holds what it holds.
pub(super) fn terms_of(observed: &ObservedService) -> Terms {
    observed
        .service
        .as_deref()
        .map_or_else(Terms::none, Terms::of)
}
