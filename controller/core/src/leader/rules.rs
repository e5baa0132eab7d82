//! Who may announce an address: what its pool, its Services and the advertisements say.

use std::net::IpAddr;

use herald_model::{
    Advertisement, AdvertisementPolicy, Announce, ForwardingMode, Protocol, Service, ServiceRef,
    SessionAffinity, TrafficPolicy,
};

use super::Leader;
use crate::observed::ObservedPool;
use crate::placement::Rules;
use crate::world::World;

impl Leader {
    /// What those holders of an address say that are to have it from now on, too. `None`: it is only
    /// being left, or in no pool.
    pub(super) fn rules_of<'a>(
        &self,
        world: &'a World,
        address: IpAddr,
        holders: &[ServiceRef],
    ) -> Option<Vec<Rules<'a>>> {
        let users: Vec<&Service> = holders
            .iter()
            .filter(|holder| {
                let assignment = self.assignments.get(&holder.key);
                assignment.is_some_and(|assignment| assignment.target.contains(&address))
            })
            .filter_map(|holder| world.services.get(&holder.key)?.served())
            .collect();
        let pool = self
            .allocator
            .pool_of(address)
            .and_then(|pool| world.pools.get(&pool.name))?;
        let rules = users.iter().map(|service| rules(world, pool, service));
        (!users.is_empty()).then(|| rules.collect())
    }
}

/// What a Service in a pool says of who may announce it.
fn rules<'a>(world: &'a World, pool: &ObservedPool, service: &Service) -> Rules<'a> {
    let on_pool: Vec<&Advertisement> = world
        .advertisements
        .values()
        .map(|observed| &observed.advertisement)
        .filter(|advertisement| selects_pool(advertisement, pool))
        .collect();
    let nobody_selects = on_pool.is_empty();
    let advertisements: Vec<&Advertisement> = on_pool
        .into_iter()
        .filter(|advertisement| selects_service(advertisement, service))
        .collect();
    let announce = if nobody_selects && pool.pool.advertisement == AdvertisementPolicy::Default {
        Announce::All
    } else if advertisements.is_empty() {
        Announce::None
    } else {
        Announce::Listed
    };
    let only = needs_local_endpoint(world, service)
        .then(|| world.endpoint_nodes(&service.key, service.publish_not_ready));
    Rules {
        announce,
        advertisements,
        only,
    }
}

/// Whether an advertisement is about the addresses of a pool.
pub(super) fn selects_pool(advertisement: &Advertisement, pool: &ObservedPool) -> bool {
    let all = advertisement.pools.is_empty() && advertisement.pool_selectors.is_empty();
    let mut selectors = advertisement.pool_selectors.iter();
    all || advertisement.pools.contains(&pool.pool.name)
        || selectors.any(|selector| selector.matches(&pool.labels))
}

/// Whether an advertisement that is about a pool is about a Service in it.
pub(super) fn selects_service(advertisement: &Advertisement, service: &Service) -> bool {
    let selectors = &advertisement.service_selectors;
    selectors.is_empty() || selectors.iter().any(|s| s.matches(&service.labels))
}

/// Whether only a node with an endpoint can serve the Service: kube-proxy takes its traffic on the
/// announcing node, and drops it there under `Local` without one. `dsr` needs no `NodePort`, and knows
/// affinity and SCTP; what the speakers leave to other proxies they do by themselves.
pub(super) fn needs_local_endpoint(world: &World, service: &Service) -> bool {
    let left_to_kube_proxy = match service.forwarding {
        ForwardingMode::Off => true,
        ForwardingMode::NodePort => {
            service.affinity != SessionAffinity::None
                || service
                    .ports
                    .iter()
                    .any(|port| port.node_port.is_none() || port.protocol == Protocol::Sctp)
        }
        ForwardingMode::Auto => service.proxy_name().is_some() || world.has_ipvs(),
        ForwardingMode::Dsr | ForwardingMode::Pod => false,
    };
    service.traffic_policy == TrafficPolicy::Local && left_to_kube_proxy
}
