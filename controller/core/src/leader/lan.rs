//! What the LAN says of an address: asked before it is used, and heard of afterwards.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use herald_model::{Announce, Instant, Phase, ServiceRef};

use super::objects::some_of;
use super::{Claim, Leader, Plan};
use crate::io::{Event, Regarding};
use crate::observed::{ObservedVip, UserObject};
use crate::world::World;

/// The word for it in conditions and Events.
pub(super) const ADDRESS_CONFLICT: &str = "AddressConflict";

impl Claim {
    /// How long the answer of the LAN is waited for.
    const PROBING: Duration = Duration::from_secs(1);

    /// How long an address that a stranger uses is put aside, in seconds.
    const CONFLICT: i64 = 120;
}

impl Leader {
    /// The phase of an address that Services hold.
    pub(super) fn phase(
        &mut self,
        now: Instant,
        world: &World,
        address: IpAddr,
        plan: &Plan,
        holders: &[ServiceRef],
    ) -> Phase {
        let observed = world.vips.get(&address);
        let shown = holders.iter().any(|holder| world.shows(holder, address));
        let wants = self
            .allocator
            .pool_of(address)
            .is_some_and(|pool| pool.conflict_probe);
        let can = plan.announce != Announce::None
            && plan
                .segments
                .iter()
                .any(|planned| !planned.candidates.is_empty());
        let Some(claim) = self.claims.get_mut(&address) else {
            return Phase::Active;
        };
        let is_new = observed.is_none_or(|observed| observed.vip.phase == Phase::Probing);
        if shown || !wants || !can || !is_new {
            claim.probing_until = None;
            return Phase::Active;
        }
        let Some(observed) = observed else {
            // The time counts from when the claim is there.
            claim.probing_until = None;
            return Phase::Probing;
        };
        let until = *claim.probing_until.get_or_insert_with(|| {
            let until = now + Claim::PROBING;
            self.timers.insert((until, address));
            until
        });
        let is_free =
            observed.lan.stranger.is_none() && (now >= until || is_answered(observed, plan));
        if is_free {
            Phase::Active
        } else {
            Phase::Probing
        }
    }

    /// Takes what speakers say of strangers. Of an address that is not used yet the Services look for
    /// another one, and it is put aside.
    pub(super) fn hear_of_strangers(&mut self, now: Instant, world: &World, address: IpAddr) {
        let Some(observed) = world.vips.get(&address) else {
            return;
        };
        let stranger = observed.lan.stranger.clone();
        self.allocator.set_stranger(address, stranger.clone());
        let Some(stranger) = stranger else {
            // Until it is known to be free, what was known holds.
            if observed.vip.phase == Phase::Active && self.strangers.remove(&address).is_some() {
                self.mark_pool_of(address);
            }
            return;
        };
        let before = self.strangers.insert(address, Arc::clone(&stranger));
        if before.as_ref() != Some(&stranger) {
            self.mark_pool_of(address);
            self.tell_pool(world, address, &stranger);
        }
        if observed.vip.phase == Phase::Probing {
            self.yield_to_stranger(now, world, address, &stranger);
        }
    }

    fn yield_to_stranger(&mut self, now: Instant, world: &World, address: IpAddr, stranger: &str) {
        let holders = self.allocator.holders(address);
        if holders.iter().any(|holder| world.shows(holder, address)) {
            return;
        }
        if holders.is_empty() {
            return;
        }
        let until = self.unix(now).saturating_add(Claim::CONFLICT);
        if let Some(claim) = self.claims.get_mut(&address) {
            claim.rests_until = Some(until);
            claim.probing_until = None;
        }
        for holder in holders {
            tracing::debug!(vip = %address, service = %holder.key, stranger, "in use on the LAN");
            // One that is not ours any more gets no other address.
            let mut is_told = true;
            if let Some(assignment) = self.assignments.get_mut(&holder.key) {
                assignment.target.retain(|other| *other != address);
                assignment.leaving.remove(&address);
            }
            let observed = world.services.get(&holder.key);
            if let Some(service) = observed.and_then(|observed| observed.served()) {
                is_told = service.request.addresses.contains(&address);
            }
            self.drop_holder(address, &holder);
            self.mark_service(world, &holder.key);
            // Who asked for it by name is told with the reason why it has no address.
            if !is_told {
                self.record(Event {
                    regarding: Regarding::Service {
                        key: holder.key.clone(),
                        uid: holder.uid.clone(),
                    },
                    warning: true,
                    reason: ADDRESS_CONFLICT.into(),
                    note: format!(
                        "{}; the Service gets another address",
                        said_of(address, stranger)
                    ),
                });
            }
        }
    }

    /// Whether an address was left to a stranger, though its claim may not say so yet.
    pub(super) fn is_yielded(&self, world: &World, address: IpAddr) -> bool {
        let is_new = |vip: &ObservedVip| vip.vip.phase == Phase::Probing;
        self.strangers.contains_key(&address)
            && world.vips.get(&address).is_some_and(is_new)
            && self
                .claims
                .get(&address)
                .is_some_and(|claim| claim.rests_until.is_some())
    }

    fn tell_pool(&mut self, world: &World, address: IpAddr, stranger: &str) {
        let pool = self.allocator.pool_of(address);
        let Some(pool) = pool.and_then(|pool| world.pools.get(&pool.name)) else {
            return;
        };
        let said = said_of(address, stranger);
        let known = pool.status.ready.as_ref();
        if known.is_some_and(|ready| ready.message.contains(&said)) {
            return;
        }
        self.record(Event {
            regarding: Regarding::Object {
                object: UserObject::Pool(pool.pool.name.clone()),
                uid: pool.uid.clone(),
            },
            warning: true,
            reason: ADDRESS_CONFLICT.into(),
            note: format!("{said}; take it out of the pool, or find the machine that uses it"),
        });
    }

    /// The addresses of a pool that strangers use, in a sentence; `None`: there are none.
    pub(super) fn conflicts_of(&self, pool: &herald_model::PoolName) -> Option<String> {
        let parts: Vec<String> = self
            .strangers
            .iter()
            .filter(|(address, _)| {
                let of = self.allocator.pool_of(**address);
                // Of one that nobody wants any more nothing is known.
                self.claims.contains_key(*address) && of.is_some_and(|of| of.name == *pool)
            })
            .map(|(address, stranger)| said_of(*address, stranger))
            .collect();
        some_of(parts)
    }
}

pub(super) fn said_of(address: IpAddr, stranger: &str) -> String {
    format!("{address} is in use on the LAN: {stranger}")
}

/// Whether every node that is planned for the address has asked.
fn is_answered(observed: &ObservedVip, plan: &Plan) -> bool {
    plan.segments
        .iter()
        .filter(|planned| !planned.candidates.is_empty())
        .all(|planned| observed.lan.probed.contains(&planned.name))
}
