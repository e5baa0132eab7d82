//! Reading back why things are as they are.

use std::net::IpAddr;

use herald_model::{Announce, NodeName, SegmentName, Service, ServiceKey};

use super::rules::{needs_local_endpoint, selects_pool, selects_service};
use super::{Claim, Leader};
use crate::account::{
    AddressAccount, AdvertisementAccount, NodeAccount, SegmentAccount, ServiceAccount,
};
use crate::allocator::{Allocator, Ask};
use crate::observed::{ObservedAdvertisement, ObservedService};
use crate::placement::{Rules, standings};
use crate::world::World;

impl Leader {
    pub(crate) const fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// How a Service came to its addresses; `None`: it is not ours.
    pub(crate) fn service_account(
        &self,
        world: &World,
        key: &ServiceKey,
    ) -> Option<ServiceAccount> {
        let service = world.services.get(key)?.served()?;
        let assignment = self.assignments.get(key)?;
        let ask = Ask {
            service,
            namespace: world.namespace_labels(&key.namespace),
            current: &assignment.target,
        };
        let of = |address: &IpAddr| {
            let all = self.allocator.disagreements(*address, service).into_iter();
            let address = *address;
            all.map(move |(holder, disagreement)| (address, holder, disagreement))
        };
        let owned = assignment.owned.as_ref().filter(|owned| owned.ingress);
        Some(ServiceAccount {
            target: assignment.target.clone(),
            leaving: assignment.leaving.iter().copied().collect(),
            problem: assignment.problem.clone(),
            missing: assignment.missing.clone(),
            offers: self.allocator.offers(ask),
            disagreements: service.request.addresses.iter().flat_map(of).collect(),
            owned: owned.map(|owned| owned.message.clone()),
        })
    }

    /// Who may announce an address, and what is planned; `None`: there is no claim on it.
    pub(crate) fn address_account(&self, world: &World, address: IpAddr) -> Option<AddressAccount> {
        let claim = self.claims.get(&address)?;
        let holders = self.allocator.holders(address);
        let services: Vec<&Service> = holders
            .iter()
            .filter_map(|holder| world.services.get(&holder.key))
            .filter_map(ObservedService::served)
            .collect();
        let pool = self.allocator.pool_of(address);
        let observed_pool = pool.and_then(|pool| world.pools.get(&pool.name));
        let advertisement = |observed: &ObservedAdvertisement| {
            let it = &observed.advertisement;
            AdvertisementAccount {
                name: it.name.clone(),
                selects_pool: observed_pool.is_some_and(|pool| selects_pool(it, pool)),
                selects_services: services.iter().all(|service| selects_service(it, service)),
            }
        };
        let rules = self.rules_of(world, address, &holders);
        let announce = rules.as_ref().map_or(claim.plan.announce, |rules| {
            let mut all = rules.iter().map(|rules| rules.announce);
            all.find(|announce| *announce != Announce::All)
                .unwrap_or_default()
        });
        let segment = |name| self.segment_account(world, claim, rules.as_deref(), name);
        let absent = |node: &NodeName| Some((node.clone(), world.absence(node)?));
        Some(AddressAccount {
            pool: pool.map(|pool| pool.name.clone()),
            holders: holders.clone(),
            phase: claim.wanted.as_ref().map(|wanted| wanted.phase),
            announce,
            advertisements: world.advertisements.values().map(advertisement).collect(),
            needs_local_endpoint: services
                .iter()
                .any(|service| needs_local_endpoint(world, service)),
            segments: world.terrain.names().into_iter().map(segment).collect(),
            absent: world.nodes.keys().filter_map(absent).collect(),
            error: claim.error.as_deref().map(str::to_owned),
        })
    }

    fn segment_account(
        &self,
        world: &World,
        claim: &Claim,
        rules: Option<&[Rules<'_>]>,
        name: SegmentName,
    ) -> SegmentAccount {
        let planned = claim.plan.segments.iter().find(|s| s.name == name);
        let standings = standings(rules.unwrap_or_default(), &world.terrain, &name);
        let nodes = standings.into_iter().map(|standing| {
            let flaws = world.flaws(standing.node, standing.interface);
            NodeAccount {
                node: standing.node.clone(),
                interface: standing.interface.clone(),
                preference: standing.preference,
                load: self.loads.of(&name, standing.node),
                obstacles: standing.objection.into_iter().chain(flaws).collect(),
            }
        });
        SegmentAccount {
            candidates: planned.map_or_else(Vec::new, |planned| planned.candidates.clone()),
            nodes: nodes.collect(),
            name,
        }
    }
}
