//! What the status of a Service should say.

use std::net::IpAddr;
use std::sync::Arc;

use herald_model::{Announce, ConflictPolicy, Instant, ServiceKey};

use super::lan::{ADDRESS_CONFLICT, said_of};
use super::{Assignment, Key, Leader};
use crate::io::{ServiceStatus, Write};
use crate::observed::{Condition, ObservedService};
use crate::outbox::Urgency;
use crate::world::World;

impl Leader {
    /// Queues the status of a Service if it is not what it should be.
    pub(super) fn refresh_status(&mut self, now: Instant, world: &World, key: &ServiceKey) {
        let Some(observed) = world.services.get(key) else {
            return;
        };
        if let Some(assignment) = self.assignments.get_mut(key)
            && assignment.told.ingress.is_empty()
        {
            assignment.waits_since.get_or_insert(now);
        }
        let Some(wanted) = self.wanted_status(now, world, observed) else {
            return;
        };
        if self.is_shown(observed, &wanted) {
            self.tell(now, observed);
            let done = |assignment: &Assignment| assignment.leaving.is_empty();
            if observed.served().is_none() && self.assignments.get(key).is_some_and(done) {
                self.assignments.remove(key);
            }
            return;
        }
        let addresses = wanted
            .ingress
            .as_ref()
            .is_some_and(|w| *w != observed.ingress);
        let gist = |condition: &Condition| (condition.status, Arc::clone(&condition.reason));
        let said = observed.allocated.as_ref().map(gist) != wanted.allocated.as_ref().map(gist);
        let urgency = if addresses || said {
            Urgency::Now
        } else {
            Urgency::Soon
        };
        self.outbox.want(Key::Status(key.clone()), urgency);
    }

    /// The write that makes the status what it should be.
    pub(super) fn status_write(
        &self,
        now: Instant,
        world: &World,
        key: &ServiceKey,
    ) -> Option<Write> {
        let observed = world.services.get(key)?;
        let mut status = self.wanted_status(now, world, observed)?;
        if self.is_shown(observed, &status) {
            return None;
        }
        self.fence(now, world, observed, &mut status);
        Some(Write::ApplyServiceStatus {
            key: key.clone(),
            identity: observed.identity.clone(),
            status,
        })
    }

    /// Where an earlier write may still take place, makes sure that this one changes something: the
    /// API server gives no new version to an object that a write leaves as it is, and the earlier one
    /// is conditional on the version.
    ///
    /// What is changed is the time of a condition, which may be that of any change of it where the
    /// last transition is not known (as the API conventions have it). A Service without a condition
    /// is not ours: it gets our annotation, which the next write takes out, or loses it.
    fn fence(
        &self,
        now: Instant,
        world: &World,
        observed: &ObservedService,
        status: &mut ServiceStatus,
    ) {
        let Some(assignment) = self.assignments.get(&observed.key) else {
            return;
        };
        if assignment.uncertain.is_none() || !self.says(observed, status) {
            return;
        }
        if let Some(allocated) = &mut status.allocated {
            allocated.since = self.unix(now).max(allocated.since.saturating_add(1));
        } else if status.allocated_from.take().is_none() {
            let left = assignment.leaving.first();
            let claim = left.and_then(|address| world.vips.get(address));
            let pool = claim.map_or_else(|| "none".into(), |claim| claim.vip.pool.clone());
            status.allocated_from = Some(pool);
        }
    }

    pub(super) fn status_under_way(&self, key: &ServiceKey) -> bool {
        self.writing.values().any(
            |write| matches!(write, Write::ApplyServiceStatus { key: other, .. } if other == key),
        )
    }

    /// Whether the status certainly is what it should be.
    fn is_shown(&self, observed: &ObservedService, wanted: &ServiceStatus) -> bool {
        let assignment = self.assignments.get(&observed.key);
        assignment.is_none_or(|assignment| assignment.uncertain.is_none())
            && self.says(observed, wanted)
    }

    /// Whether the status is what it should be, for all that is known.
    fn says(&self, observed: &ObservedService, wanted: &ServiceStatus) -> bool {
        let assignment = self.assignments.get(&observed.key);
        let owned = assignment.and_then(|assignment| assignment.owned.as_ref());
        wanted
            .ingress
            .as_ref()
            .is_none_or(|wanted| *wanted == observed.ingress)
            && wanted.allocated == observed.allocated
            && wanted.announced == observed.announced
            && (owned.is_some_and(|owned| owned.allocated_from)
                || wanted.allocated_from == observed.allocated_from)
    }

    /// What the status should be; `None`: nothing is to be said yet.
    fn wanted_status(
        &self,
        now: Instant,
        world: &World,
        observed: &ObservedService,
    ) -> Option<ServiceStatus> {
        let assignment = self.assignments.get(&observed.key)?;
        if observed.served().is_none() {
            let cleared = self.cleared.get(&observed.key) == Some(&observed.identity.uid);
            if cleared {
                // Whatever is left is not ours.
                return Some(ServiceStatus {
                    ingress: None,
                    allocated: observed.allocated.clone(),
                    announced: observed.announced.clone(),
                    allocated_from: observed.allocated_from.clone(),
                });
            }
            return Some(ServiceStatus {
                ingress: Some(Vec::new()),
                ..ServiceStatus::default()
            });
        }
        let me = &assignment.me;
        let target = &assignment.target;
        let claimed = target
            .iter()
            .all(|address| self.is_certain(world, *address, me));
        let error = target
            .iter()
            .find_map(|a| self.claims.get(a)?.error.clone());
        // Until the new addresses are certain, the old ones stay.
        let mut ingress = if claimed {
            target.clone()
        } else {
            let ours = |a: &&IpAddr| target.contains(a) || assignment.leaving.contains(a);
            observed.ingress.iter().filter(ours).copied().collect()
        };
        let pool = ingress
            .first()
            .and_then(|address| self.allocator.pool_of(*address));
        let mut allocated_from = pool.map(|pool| pool.name.clone());
        let allocated = match (&assignment.problem, claimed, error) {
            (Some(problem), ..) => {
                let kept = match list(&ingress) {
                    Some(addresses) => format!("; until then it keeps {addresses}"),
                    None => String::new(),
                };
                (false, problem.kind(), format!("{problem}{kept}"))
            }
            (None, false, Some(error)) => (
                false,
                "ClaimRefused",
                format!("the API server refused the VirtualIP: {error}"),
            ),
            (None, false, None) => return None,
            (None, true, _) => {
                let from = allocated_from.as_ref().map_or("", |pool| pool.as_str());
                let addresses = list(target).unwrap_or_default();
                let missing = match &assignment.missing {
                    Some(missing) => format!("; no second address: {missing}"),
                    None => String::new(),
                };
                (
                    true,
                    "Allocated",
                    format!("{addresses} from pool {from}{missing}"),
                )
            }
        };
        let mut give_up_ingress = false;
        let (mut holds, mut reason, mut message) = allocated;
        if let Some(owned) = &assignment.owned {
            if owned.allocated_from {
                allocated_from = None;
            }
            if owned.ingress {
                give_up_ingress = true;
                ingress.clear();
                (holds, reason) = (false, "StatusOwned");
                message = format!(
                    "somebody else owns the addresses in the status ({}): Herald writes its own once they are taken out",
                    owned.message
                );
            }
        }
        let announced = self.announced(now, world, observed, assignment);
        Some(ServiceStatus {
            ingress: (!give_up_ingress).then_some(ingress),
            allocated: Some(self.condition(
                now,
                observed.allocated.as_ref(),
                holds,
                reason,
                &message,
            )),
            announced,
            allocated_from,
        })
    }

    /// Condition `heraldlb.io/Announced`; `None` for a Service without an address, and for one
    /// with a new address that is about to be announced, as that would be one write more.
    fn announced(
        &self,
        now: Instant,
        world: &World,
        observed: &ObservedService,
        assignment: &Assignment,
    ) -> Option<Condition> {
        let present = observed.announced.as_ref();
        let say = |status, reason: &str, message: &str| {
            Some(self.condition(now, present, status, reason, message))
        };
        let target = &assignment.target;
        if target.is_empty() {
            return None;
        }
        for address in target {
            let Some(plan) = self.claims.get(address).map(|claim| &claim.plan) else {
                continue;
            };
            if plan.announce == Announce::None {
                return say(
                    false,
                    "NoAdvertisement",
                    &format!(
                        "no L2Advertisement selects {address}, and one is wanted: its pool has advertisement Explicit, or other advertisements select the pool"
                    ),
                );
            }
            if self
                .claims
                .get(address)
                .is_some_and(|claim| claim.is_moving(now))
            {
                return present.cloned();
            }
            if !plan.eligible {
                return say(
                    false,
                    "NoEligibleNode",
                    &format!(
                        "no node may announce {address} now: none is ready with a ready speaker on a network interface that the advertisements allow"
                    ),
                );
            }
        }
        let left = target.iter().find_map(|address| {
            let vip = world.vips.get(address)?;
            let is_left =
                vip.vip.conflict_policy == ConflictPolicy::Yield && vip.holdings.is_empty();
            Some((address, self.strangers.get(address).filter(|_| is_left)?))
        });
        if let Some((address, stranger)) = left {
            return say(false, ADDRESS_CONFLICT, &said_of(*address, stranger));
        }
        match announcers(world, observed, target) {
            Some(announcers) => say(true, "Announced", &announcers),
            None if present.is_some() => {
                let planned: Vec<&str> = target
                    .iter()
                    .filter_map(|address| self.claims.get(address))
                    .flat_map(|claim| &claim.plan.segments)
                    .filter_map(|segment| Some(segment.candidates.first()?.node.as_str()))
                    .collect();
                let message = format!("waiting for {} to announce", planned.join(", "));
                say(false, "WaitingForSpeaker", &message)
            }
            None => None,
        }
    }
}

/// The nodes that announce the addresses of a Service, in a sentence; `None` if one is
/// announced by nobody.
fn announcers(world: &World, observed: &ObservedService, target: &[IpAddr]) -> Option<String> {
    let me = observed.service_ref();
    let mut parts = Vec::new();
    for address in target {
        let vip = world
            .vips
            .get(address)
            .filter(|vip| vip.vip.services.contains(&me))?;
        if vip.holdings.is_empty() {
            return None;
        }
        parts.extend(vip.holdings.iter().map(|holding| {
            format!(
                "{address} by {} on {} ({})",
                holding.node, holding.interface, holding.mac
            )
        }));
    }
    Some(parts.join(", "))
}

fn list(addresses: &[IpAddr]) -> Option<String> {
    let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}
