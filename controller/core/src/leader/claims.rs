//! Which claims should exist, and with which plan.

use std::net::IpAddr;
use std::time::Duration;

use herald_model::{Announce, Epoch, Instant, Phase, PoolName, ServiceRef, VirtualIp};

use super::{Claim, Key, Leader, Plan};
use crate::io::Write;
use crate::observed::ObservedVip;
use crate::outbox::Urgency;
use crate::placement::{self, Known, Present};
use crate::world::World;

impl Claim {
    /// How long a claim is left alone that names a Service nobody told of: the watch of Services
    /// may only be slower than that of claims.
    pub(super) const PATIENCE: Duration = Duration::from_secs(3);

    /// How long nobody may announce an address before that is said: while it moves, or while the
    /// only speaker starts anew, statuses and Events had better stay as they are.
    pub(super) const GRACE: Duration = Duration::from_secs(3);

    /// Whether it may only be on its way from one node to another.
    pub(super) fn is_moving(&self, now: Instant) -> bool {
        self.unannounced
            .is_some_and(|since| now < since + Self::GRACE)
    }
}

impl Leader {
    /// A watch told that a claim has changed, or is gone.
    pub(crate) fn vip_changed(&mut self, now: Instant, world: &World, address: IpAddr) {
        self.outbox.hurry(&Key::Claim(address));
        self.look_at(now, world, address);
    }

    /// More is known of a claim than before.
    pub(super) fn look_at(&mut self, now: Instant, world: &World, address: IpAddr) {
        self.dirty_claims.insert(address);
        let Some(observed) = world.vips.get(&address) else {
            if world.unreadable_vips.contains(&address) {
                self.claim_seen(now, world, address);
            }
            return;
        };
        self.claim_seen(now, world, address);
        self.take_over(address, observed.vip.epoch);
        for service in &observed.vip.services {
            self.dirty_statuses.insert(service.key.clone());
        }
        self.respect_holders(now, world, address);
        self.hear_of_strangers(now, world, address);
    }

    /// A plan with a higher epoch than ours is there, from another term: epochs go on from it.
    fn take_over(&mut self, address: IpAddr, epoch: Epoch) {
        if let Some(claim) = self.claims.get_mut(&address) {
            claim.plan.epoch = claim.plan.epoch.max(epoch);
        }
    }

    /// The claim may name Services that are not holders of the address for all that was known: whoever
    /// else leads, or led, gave it to them. The older claim wins: if we wanted it for others, they look
    /// for another address. And the statuses of those whom it names may show the address soon, though
    /// they don't yet: they are holders until it is certain that they will not.
    fn respect_holders(&mut self, now: Instant, world: &World, address: IpAddr) {
        let Some(observed) = world.vips.get(&address) else {
            if let Some(claim) = self.claims.get_mut(&address) {
                claim.released.clear();
            }
            return;
        };
        let named = &observed.vip.services;
        let Some(claim) = self.claims.get_mut(&address) else {
            return;
        };
        claim.released.retain(|service| named.contains(service));
        let strangers: Vec<&ServiceRef> = named
            .iter()
            .filter(|service| {
                !claim.released.contains(service) && !self.allocator.is_holder(address, service)
            })
            .collect();
        if strangers.is_empty() {
            return;
        }
        let holders = self.allocator.holders(address);
        let in_use = |service: &ServiceRef| world.shows(service, address);
        let is_ours = holders.iter().any(in_use) && !strangers.iter().any(|s| in_use(s));
        for holder in holders.iter().filter(|_| !is_ours) {
            if world.is_claimed(address, holder) {
                continue;
            }
            tracing::debug!(vip = %address, service = %holder.key, "another claim was earlier");
            if let Some(assignment) = self.assignments.get_mut(&holder.key) {
                assignment.target.retain(|other| *other != address);
            }
            self.drop_holder(address, holder);
            self.mark_service(world, &holder.key);
        }
        for stranger in strangers {
            let known = world.services.get(&stranger.key);
            if known.is_some_and(|known| known.identity.uid == stranger.uid) {
                self.adopt_claims(world, &stranger.key);
                self.mark_service(world, &stranger.key);
            } else if let Some(claim) = self.claims.get_mut(&address) {
                // It may only not have been told of yet.
                let until = now + Claim::PATIENCE;
                claim.untouched_until = Some(until);
                claim.released.insert(stranger.clone());
                self.timers.insert((until, address));
            }
        }
    }

    /// Derives what a claim should be.
    pub(super) fn refresh_claim(&mut self, now: Instant, world: &World, address: IpAddr) {
        if world.unreadable_vips.contains(&address) {
            return;
        }
        let observed = world.vips.get(&address);
        let holders = self.allocator.holders(address);
        let targeted = self.is_target(address, &holders);
        let claim = self.claims.entry(address).or_default();
        let version = observed.map(|observed| &observed.identity.version);
        if claim.uncertain.as_ref() != version {
            // The object has moved on: that write is in what was told, or can never take place.
            claim.contested &= version.is_some();
            claim.uncertain = version.filter(|_| claim.contested).cloned();
        }
        if holders.is_empty() && claim.untouched_until.is_some_and(|until| now < until) {
            claim.wanted = observed.map(|observed| observed.vip.clone());
            return;
        }
        claim.untouched_until = None;
        if holders.is_empty() {
            self.rest_or_end(now, world, address);
        } else if observed.is_none() && !targeted {
            // The claim is gone and all that is left is to clear statuses: it is not made anew.
            claim.wanted = None;
        } else {
            claim.rests_until = None;
            let plan = self.plan(now, world, address, &holders);
            self.set_plan(address, plan.clone());
            let phase = self.phase(now, world, address, &plan, &holders);
            let idle = observed.is_none_or(|observed| observed.holdings.is_empty());
            self.watch_announcing(now, address, idle || !plan.eligible);
            let pool = self.allocator.pool_of(address);
            let conflict_policy = pool
                .map(|pool| pool.conflict_policy)
                .or_else(|| observed.map(|observed| observed.vip.conflict_policy))
                .unwrap_or_default();
            let name = pool
                .map(|pool| pool.name.clone())
                .or_else(|| observed.map(|observed| observed.vip.pool.clone()))
                .unwrap_or_else(|| PoolName::from(""));
            if let Some(claim) = self.claims.get_mut(&address) {
                claim.wanted = Some(VirtualIp {
                    address,
                    pool: name,
                    epoch: plan.epoch,
                    phase,
                    announce: plan.announce,
                    conflict_policy,
                    advertisements: plan.advertisements,
                    services: holders,
                    segments: plan.segments,
                });
            }
        }
        self.outdo(address, observed);
        let wanted = self
            .claims
            .get(&address)
            .and_then(|claim| claim.wanted.as_ref());
        match (wanted, observed.map(|observed| &observed.vip)) {
            (None, None) if self.allocator.holders(address).is_empty() => self.end_claim(address),
            (None, None) => {}
            (Some(wanted), Some(present)) if wanted == present => {}
            _ => self.outbox.want(Key::Claim(address), Urgency::Now),
        }
    }

    /// Notes whether somebody announces an address, and when it is time to say that nobody does.
    fn watch_announcing(&mut self, now: Instant, address: IpAddr, idle: bool) {
        let Some(claim) = self.claims.get_mut(&address) else {
            return;
        };
        let since = idle.then(|| claim.unannounced.unwrap_or(now));
        let changed = std::mem::replace(&mut claim.unannounced, since) != since;
        if changed && let Some(since) = since {
            self.timers.insert((since + Claim::GRACE, address));
        } else if changed || since.is_some_and(|since| now >= since + Claim::GRACE) {
            let holders = self.allocator.holders(address);
            self.dirty_statuses
                .extend(holders.into_iter().map(|holder| holder.key));
        }
    }

    /// Raises the epoch above that of another plan which is there, and where an earlier write may
    /// still take place: a write that changes something makes sure that it does not.
    fn outdo(&mut self, address: IpAddr, observed: Option<&ObservedVip>) {
        let (Some(observed), Some(claim)) = (observed, self.claims.get_mut(&address)) else {
            return;
        };
        let Some(wanted) = &mut claim.wanted else {
            return;
        };
        let other = wanted.segments != observed.vip.segments;
        let fence = claim.uncertain.is_some() && !matches!(wanted.phase, Phase::Resting { .. });
        if (other || fence) && wanted.epoch <= observed.vip.epoch {
            wanted.epoch = Epoch(observed.vip.epoch.0 + 1);
            claim.plan.epoch = wanted.epoch;
        }
    }

    /// Nobody holds the address: it rests if it is to, else its claim ends.
    fn rest_or_end(&mut self, now: Instant, world: &World, address: IpAddr) {
        let unix = self.unix(now);
        let observed = world.vips.get(&address).map(|observed| &observed.vip);
        let pool = self.allocator.pool_of(address);
        let delay = pool.map_or(0, |pool| {
            i64::try_from(pool.reuse_delay.as_secs()).unwrap_or(i64::MAX)
        });
        let Some(claim) = self.claims.get_mut(&address) else {
            return;
        };
        // What rested when this term began goes on resting.
        if let Some(VirtualIp {
            phase: Phase::Resting { until },
            ..
        }) = observed
            && claim.rests_until.is_none()
        {
            claim.rests_until = Some(*until);
        }
        let was_used =
            observed.is_some_and(|vip| vip.phase == Phase::Active && !vip.services.is_empty());
        if claim.rests_until.is_none() && delay > 0 && was_used {
            claim.rests_until = Some(unix.saturating_add(delay));
        }
        let until = claim.rests_until.filter(|until| unix < *until);
        let epoch = claim.plan.epoch;
        claim.wanted = until.map(|until| VirtualIp {
            address,
            pool: observed.map_or_else(|| PoolName::from(""), |vip| vip.pool.clone()),
            epoch,
            phase: Phase::Resting { until },
            announce: Announce::None,
            conflict_policy: observed.map_or_else(Default::default, |vip| vip.conflict_policy),
            advertisements: Vec::new(),
            services: Vec::new(),
            segments: Vec::new(),
        });
        if let Some(until) = until {
            let seconds = u64::try_from(until.saturating_sub(unix)).unwrap_or(1);
            self.timers
                .insert((now + Duration::from_secs(seconds), address));
        }
        let plan = Plan {
            epoch,
            ..Plan::default()
        };
        self.set_plan(address, plan);
    }

    /// There is no claim and there should be none: the address is free, unless a write that may
    /// make one is under way.
    fn end_claim(&mut self, address: IpAddr) {
        if self.claim_under_way(address) {
            return;
        }
        self.set_plan(address, Plan::default());
        tracing::debug!(vip = %address, "free again");
        self.claims.remove(&address);
        self.short.remove(&address);
        self.moves.forget(address);
        self.allocator.free(address);
        self.mark_pool_of(address);
        self.opened(address);
    }

    /// Whether one of the holders is to have the address from now on, too.
    fn is_target(&self, address: IpAddr, holders: &[ServiceRef]) -> bool {
        holders.iter().any(|holder| {
            let assignment = self.assignments.get(&holder.key);
            assignment.is_some_and(|assignment| assignment.target.contains(&address))
        })
    }

    /// The plan for an address that is in use. One that is only being left keeps its plan.
    fn plan(
        &mut self,
        now: Instant,
        world: &World,
        address: IpAddr,
        holders: &[ServiceRef],
    ) -> Plan {
        let present = self
            .claims
            .get(&address)
            .map(|claim| claim.plan.clone())
            .unwrap_or_default();
        let moves = self
            .claims
            .get(&address)
            .map(|claim| claim.moves.clone())
            .unwrap_or_default();
        let Some(rules) = self.rules_of(world, address, holders) else {
            return present;
        };
        let known = world
            .vips
            .get(&address)
            .map_or_else(Known::default, |vip| Known {
                epoch: vip.vip.epoch,
                segments: &vip.vip.segments,
                holdings: &vip.holdings,
            });
        let planned = placement::plan(
            address,
            &rules,
            &world.terrain,
            Present {
                segments: &present.segments,
                known,
                moves: &moves,
            },
            self.ledger(now),
        );
        self.settle_moves(address, known, &planned.segments);
        for (segment, fallen) in &planned.taken_from {
            self.taken_over(now, world, address, segment, fallen);
        }
        self.tell_of_departures(world, address, known, &present.segments, &planned.segments);
        if planned.short {
            self.short.insert(address);
        } else {
            self.short.remove(&address);
        }
        let mut advertisements: Vec<_> = rules
            .iter()
            .filter(|rules| rules.announce == Announce::Listed)
            .flat_map(|rules| &rules.advertisements)
            .map(|advertisement| advertisement.name.clone())
            .collect();
        advertisements.sort_unstable();
        advertisements.dedup();
        let announce = if rules.iter().any(|rules| rules.announce == Announce::None) {
            advertisements.clear();
            Announce::None
        } else if advertisements.is_empty() {
            Announce::All
        } else {
            Announce::Listed
        };
        let epoch = if present.epoch == Epoch::default() {
            first_epoch(self.unix(now))
        } else {
            Epoch(present.epoch.0 + u64::from(planned.segments != present.segments))
        };
        Plan {
            epoch,
            announce,
            advertisements,
            segments: planned.segments,
            eligible: planned.eligible,
        }
    }

    /// Takes a plan and keeps the books on who is planned for what.
    pub(super) fn set_plan(&mut self, address: IpAddr, plan: Plan) {
        let Some(claim) = self.claims.get_mut(&address) else {
            return;
        };
        if claim.plan.eligible != plan.eligible || claim.plan.announce != plan.announce {
            let holders = self.allocator.holders(address);
            self.dirty_statuses
                .extend(holders.into_iter().map(|holder| holder.key));
        }
        if claim.plan.segments == plan.segments {
            claim.plan = plan;
            return;
        }
        tracing::debug!(vip = %address, epoch = %plan.epoch, segments = ?plan.segments, "planned");
        let before = std::mem::replace(&mut claim.plan, plan.clone());
        for segment in &before.segments {
            for (position, candidate) in segment.candidates.iter().enumerate() {
                if position == 0 {
                    self.loads.take(&segment.name, &candidate.node);
                }
                if let Some(addresses) = self.planned_on.get_mut(&candidate.node) {
                    addresses.remove(&address);
                }
            }
        }
        for segment in &plan.segments {
            for (position, candidate) in segment.candidates.iter().enumerate() {
                if position == 0 {
                    self.loads.add(&segment.name, &candidate.node);
                }
                self.planned_on
                    .entry(candidate.node.clone())
                    .or_default()
                    .insert(address);
            }
        }
    }

    /// The write that makes the claim what it should be.
    pub(super) fn claim_write(&self, world: &World, address: IpAddr) -> Option<Write> {
        let wanted = self.claims.get(&address)?.wanted.as_ref();
        match (wanted, world.vips.get(&address)) {
            (None, None) => None,
            (Some(wanted), None) => Some(Write::CreateVip(wanted.clone())),
            (Some(wanted), Some(present)) => (*wanted != present.vip).then(|| Write::ReplaceVip {
                identity: present.identity.clone(),
                vip: wanted.clone(),
            }),
            (None, Some(present)) => Some(Write::DeleteVip {
                address,
                identity: present.identity.clone(),
            }),
        }
    }

    /// Whether the claim on the address is there, names the Service, the LAN need not be asked any
    /// more, and no write that may be under way ends that.
    pub(super) fn is_certain(&self, world: &World, address: IpAddr, me: &ServiceRef) -> bool {
        let ends = |write: &Write| match write {
            Write::ReplaceVip { vip, .. } => vip.address == address && !vip.services.contains(me),
            Write::DeleteVip { address: other, .. } => *other == address,
            _ => false,
        };
        world.is_claimed(address, me)
            && world
                .vips
                .get(&address)
                .is_some_and(|vip| vip.vip.phase == Phase::Active)
            && self
                .claims
                .get(&address)
                .is_some_and(|claim| claim.uncertain.is_none())
            && !self.writing.values().any(ends)
    }

    fn claim_under_way(&self, address: IpAddr) -> bool {
        self.writing.values().any(|write| match write {
            Write::CreateVip(vip) | Write::ReplaceVip { vip, .. } => vip.address == address,
            Write::DeleteVip { address: other, .. } => *other == address,
            _ => false,
        })
    }
}

/// The epoch of an address that is given anew: higher than that of any earlier claim to it, which
/// speakers may remember longer than the API server does. Plans of one address do not follow each
/// other faster than seconds do.
fn first_epoch(unix: i64) -> Epoch {
    /// 2026-01-01, when there was no Herald yet.
    const BEGINNING: i64 = 1_767_225_600;
    Epoch(u64::try_from(unix.saturating_sub(BEGINNING)).map_or(1, |seconds| seconds.max(1)))
}
