//! Which addresses a Service should have.

use std::net::IpAddr;

use herald_model::{ServiceKey, ServiceRef};

use super::Leader;
use super::waiting::Wants;
use crate::allocator::{Ask, Refusal, Terms};
use crate::observed::ObservedService;
use crate::world::World;

impl Leader {
    /// Decides anew what a Service should have.
    pub(super) fn evaluate(&mut self, world: &World, key: &ServiceKey) {
        let observed = world.services.get(key);
        let other_life = self.assignments.get(key).is_some_and(|assignment| {
            observed.is_none_or(|observed| observed.identity.uid != assignment.me.uid)
        });
        if other_life {
            self.forget(key);
        }
        let Some(observed) = observed else {
            return;
        };
        match observed.served() {
            Some(_) => self.decide(world, observed),
            None => self.leave_all(world, observed),
        }
        self.settle_leaving(world, key);
        self.dirty_statuses.insert(key.clone());
    }

    /// A life of a Service is over: no status shows its addresses any more.
    fn forget(&mut self, key: &ServiceKey) {
        self.cleared.remove(key);
        let Some(assignment) = self.assignments.remove(key) else {
            return;
        };
        self.waiting.remove(&(assignment.created, key.clone()));
        for address in assignment.target.iter().chain(&assignment.leaving) {
            self.drop_holder(*address, &assignment.me);
        }
    }

    /// A Service is not ours, or not any more.
    fn leave_all(&mut self, world: &World, observed: &ObservedService) {
        self.adopt_claims(world, &observed.key);
        // What Herald wrote is taken out once; if somebody else wrote the same, it stays.
        let cleared = self.cleared.get(&observed.key) == Some(&observed.identity.uid);
        if observed.is_marked() && !cleared {
            let assignment = self.take_assignment(world, observed);
            self.assignments.insert(observed.key.clone(), assignment);
        }
        if let Some(assignment) = self.assignments.get_mut(&observed.key) {
            let turn = (assignment.created, observed.key.clone());
            self.waiting.remove(&turn);
            assignment.leaving.extend(assignment.target.drain(..));
            assignment.problem = None;
            assignment.missing = None;
        }
    }

    fn decide(&mut self, world: &World, observed: &ObservedService) {
        let key = &observed.key;
        let Some(service) = observed.served() else {
            return;
        };
        self.cleared.remove(key);
        if !self.assignments.contains_key(key) {
            self.adopt_claims(world, key);
            self.adopt_status(world, key);
        }
        let Some(assignment) = self.assignments.get(key) else {
            return;
        };
        let me = assignment.me.clone();
        let before = assignment.target.clone();
        let problem_before = assignment.problem.clone();
        let ask = Ask {
            service,
            namespace: world.namespace_labels(&key.namespace),
            current: &before,
        };
        let (target, problem, missing) = match self.allocator.choose(ask) {
            Ok(choice) => (choice.addresses, None, choice.missing),
            Err(refusal) => {
                let kept = before.iter().copied();
                let kept: Vec<IpAddr> = kept
                    .filter(|address| self.allocator.may_keep(ask, *address))
                    .collect();
                (kept, Some(refusal), None)
            }
        };
        let terms = Terms::of(service);
        for &address in &target {
            self.hold(address, me.clone(), terms.clone());
        }
        if target != before || problem != problem_before {
            tracing::debug!(
                service = %key,
                ?before,
                ?target,
                problem = problem.as_ref().map(Refusal::kind),
                "decided"
            );
        }
        let unsatisfied = problem.is_some() || missing.is_some();
        let Some(assignment) = self.assignments.get_mut(key) else {
            return;
        };
        let turn = (service.created, key.clone());
        if assignment.created != service.created || !unsatisfied {
            self.waiting.remove(&(assignment.created, key.clone()));
        }
        assignment.created = service.created;
        if unsatisfied {
            let wants = Wants::of(service, problem.as_ref(), missing.as_ref());
            self.waiting.insert(turn, wants);
        }
        let left = before.iter().filter(|address| !target.contains(address));
        assignment.leaving.extend(left);
        assignment
            .leaving
            .retain(|address| !target.contains(address));
        assignment.target = target;
        assignment.problem = problem;
        assignment.missing = missing;
    }

    /// Law: nobody waits who would get something if it were asked for now. It costs as much as what
    /// [`super::waiting`] saves, so that it is checked in debug builds only, and not of very many.
    #[cfg(debug_assertions)]
    pub(super) fn check_waiting(&self, world: &World) {
        for (_, key) in self.waiting.all().take(64) {
            let service = world.services.get(key).and_then(ObservedService::served);
            let (Some(service), Some(assignment)) = (service, self.assignments.get(key)) else {
                continue;
            };
            let choice = self.allocator.choose(Ask {
                service,
                namespace: world.namespace_labels(&key.namespace),
                current: &assignment.target,
            });
            let would_get = choice.ok().map(|choice| choice.addresses);
            let has = assignment.problem.is_none().then_some(&assignment.target);
            assert_eq!(
                would_get.as_ref(),
                has,
                "{key} waits in vain: {assignment:?}"
            );
        }
    }

    /// Ends the holds on addresses that the Service's status certainly does not show.
    pub(super) fn settle_leaving(&mut self, world: &World, key: &ServiceKey) {
        let (Some(observed), Some(assignment)) =
            (world.services.get(key), self.assignments.get_mut(key))
        else {
            return;
        };
        if assignment
            .uncertain
            .as_ref()
            .is_some_and(|version| *version != observed.identity.version)
        {
            // The object has moved on: that write is in what was told, or can never take place.
            let version = Some(observed.identity.version.clone());
            assignment.uncertain = version.filter(|_| assignment.contested);
        }
        if assignment.uncertain.is_some() || self.status_under_way(key) {
            return;
        }
        let Some(assignment) = self.assignments.get_mut(key) else {
            return;
        };
        let me: ServiceRef = assignment.me.clone();
        let gone: Vec<IpAddr> = assignment
            .leaving
            .iter()
            .copied()
            .filter(|a| !observed.ingress.contains(a))
            .collect();
        for address in &gone {
            assignment.leaving.remove(address);
        }
        for address in gone {
            self.drop_holder(address, &me);
        }
    }
}
