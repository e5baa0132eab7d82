//! Why a Service has its address and serves, or does not.

use std::net::IpAddr;

use herald_config::NotOurs;
use herald_controller_core::{Allocator, Offer, Refusal, ServiceAccount};
use herald_model::{
    Family, ForwardingMode, IpFamilyPolicy, Scope, Service, ServiceKey, TrafficPolicy,
};
use k8s_openapi::api::core::v1::Service as ApiService;

use super::address::{self, Fault};
use super::{Explanation, Outcome, Step, remedy};
use crate::picture::Picture;
use crate::text::{Level, list};

/// What became of a Service, why in one word, and in a sentence; `None`: there is none of this name.
pub(crate) fn outcome(picture: &Picture, key: &ServiceKey) -> Option<(Outcome, String, String)> {
    let told = explain(picture, key, false)?;
    Some((told.outcome, told.reason, told.summary))
}

/// Explains a Service; `None`: there is none of this name.
pub(crate) fn service(picture: &Picture, key: &ServiceKey) -> Option<Explanation> {
    explain(picture, key, true)
}

/// `in_full`: with the target tables, which take a while to fill.
fn explain(picture: &Picture, key: &ServiceKey, in_full: bool) -> Option<Explanation> {
    let object = picture.service(key)?;
    let explanation = |outcome, reason: &str, summary: String, remedy, steps| Explanation {
        kind: "Service",
        name: key.to_string(),
        outcome,
        reason: reason.to_owned(),
        summary,
        remedy,
        steps,
    };
    if let Some(why) = herald_config::not_ours(object, picture.objects.flags()) {
        let (reason, remedy) = match &why {
            NotOurs::Type { .. } => (
                "NotLoadBalancer",
                "set spec.type to LoadBalancer if it is to have an address",
            ),
            NotOurs::Class { .. } => (
                "OtherClass",
                "a class can't be changed: create the Service anew with another one, or add this one to the chart's loadBalancerClasses",
            ),
        };
        let steps = vec![Step::new("request", Level::Info, why.to_string())];
        let summary = format!("Herald leaves it alone: {why}");
        let remedy = Some(remedy.to_owned());
        return Some(explanation(
            Outcome::NotServed,
            reason,
            summary,
            remedy,
            steps,
        ));
    }
    let controller = picture.controller();
    let (Some(service), Some(account)) = (
        controller
            .service(key)
            .and_then(|observed| observed.served()),
        controller.service_account(key),
    ) else {
        let summary = "it is being deleted: its address is given back".to_owned();
        return Some(explanation(
            Outcome::NotServed,
            "Deleting",
            summary,
            None,
            Vec::new(),
        ));
    };
    let mut steps = vec![request(service)];
    if let Some(allocator) = controller.allocator() {
        steps.push(pools(allocator, service, &account));
    }
    let mut faults = Vec::new();
    for address in &account.target {
        let of = address::Of {
            picture,
            object,
            service,
            address: *address,
        };
        let fault = of.steps(in_full, &mut steps);
        faults.extend(fault);
    }
    let told = verdict(service, &account, faults);
    Some(explanation(
        told.outcome,
        &told.reason,
        told.text,
        told.remedy,
        steps,
    ))
}

fn verdict(service: &Service, account: &ServiceAccount, faults: Vec<Fault>) -> Fault {
    let of = |outcome, refusal: &Refusal, text: String| Fault {
        outcome,
        reason: refusal.kind().to_owned(),
        text,
        remedy: Some(remedy::of_refusal(refusal)),
    };
    if let Some(problem) = &account.problem {
        if account.target.is_empty() {
            return of(Outcome::Pending, problem, problem.to_string());
        }
        let kept = list(&account.target);
        let text = format!("{problem}; until then it keeps {kept}");
        return of(Outcome::Degraded, problem, text);
    }
    // The worst is told; the steps have all.
    let worst = faults.into_iter().max_by_key(|fault| match fault.outcome {
        Outcome::Pending => 4,
        Outcome::Silent => 3,
        Outcome::Refusing => 2,
        Outcome::Degraded => 1,
        Outcome::Serving | Outcome::NotServed => 0,
    });
    if let Some(fault) = worst {
        return fault;
    }
    if let Some(missing) = &account.missing {
        let text = format!("it has one address only: {missing}");
        return of(Outcome::Degraded, missing, text);
    }
    let clients = if service.source_ranges.is_empty() {
        String::new()
    } else {
        format!(" to clients of {}", list(&service.source_ranges))
    };
    Fault {
        outcome: Outcome::Serving,
        reason: "Serving".to_owned(),
        text: format!(
            "{} is announced and forwarded{clients}",
            list(&account.target)
        ),
        remedy: None,
    }
}

/// What it asks for.
fn request(service: &Service) -> Step {
    if let Some(message) = &service.request.invalid {
        return Step::new("request", Level::Problem, message.to_string());
    }
    let families = match service.families.as_slice() {
        [] => "no family yet".to_owned(),
        families => list(families),
    };
    let policy = match service.ip_family_policy {
        IpFamilyPolicy::SingleStack => "",
        IpFamilyPolicy::PreferDualStack => ", two families if possible",
        IpFamilyPolicy::RequireDualStack => ", two families or none",
    };
    let what = match (service.request.addresses.as_slice(), &service.request.pool) {
        ([], None) => "any address of any pool".to_owned(),
        ([], Some(pool)) => format!("any address of pool {pool}"),
        (addresses, None) => format!("exactly {}", list(addresses)),
        (addresses, Some(pool)) => format!("exactly {}, of pool {pool}", list(addresses)),
    };
    let mut step = Step::new("request", Level::Ok, format!("{what}; {families}{policy}"));
    if service.scope == Scope::Internal {
        step.detail(Level::Info, "scope", "internal");
    }
    if let Some(key) = &service.sharing_key {
        let text = format!("may share its address with Services that have key {key:?}");
        step.detail(Level::Info, "sharing", text);
    }
    if service.traffic_policy == TrafficPolicy::Local {
        step.detail(
            Level::Info,
            "policy",
            "externalTrafficPolicy Local: nodes with its pods only",
        );
    }
    if service.forwarding != ForwardingMode::Auto {
        step.detail(Level::Info, "forwarding", service.forwarding.to_string());
    }
    let ports = service
        .ports
        .iter()
        .map(|port| format!("{}/{}", port.port, port.protocol));
    step.detail(Level::Info, "ports", list(ports));
    step
}

/// What the pools say to it.
fn pools(allocator: &Allocator, service: &Service, account: &ServiceAccount) -> Step {
    let chosen = account
        .target
        .first()
        .and_then(|address| allocator.pool_of(*address));
    let mut step = match (&account.problem, chosen) {
        (Some(problem), _) => Step::new("pools", Level::Problem, problem.to_string()),
        (None, Some(pool)) => {
            let text = format!("{} from pool {}", list(&account.target), pool.name);
            Step::new("pools", Level::Ok, text)
        }
        (None, None) => Step::new("pools", Level::Info, "no address is wanted"),
    };
    let mut is_before = chosen.is_some();
    for Offer { pool, outcome } in &account.offers {
        let is_chosen = chosen.is_some_and(|chosen| chosen.name == *pool);
        is_before &= !is_chosen;
        match outcome {
            _ if is_chosen && account.problem.is_none() => {
                step.detail(Level::Ok, pool, format!("gives {}", list(&account.target)));
            }
            Ok(addresses) if is_before => {
                let text = format!(
                    "would give {} now, but the Service keeps what it has",
                    list(addresses)
                );
                step.detail(Level::Info, pool, text);
            }
            Ok(_) => step.detail(Level::Info, pool, "would do as well, and comes later"),
            Err(refusal) if account.problem.is_some() => {
                step.detail(Level::Problem, pool, refusal.to_string());
            }
            Err(refusal) => step.detail(Level::Info, pool, refusal.to_string()),
        }
    }
    for address in &service.request.addresses {
        requested(allocator, *address, account, &mut step);
    }
    if let Some(missing) = &account.missing {
        step.level = Level::Warning;
        step.detail(Level::Warning, "second", missing.to_string());
    }
    step
}

/// An address that it asks for by name.
fn requested(allocator: &Allocator, address: IpAddr, account: &ServiceAccount, step: &mut Step) {
    let family = Family::of(address);
    let Some(pool) = allocator.pool_of(address) else {
        step.detail(Level::Problem, &address, "is in no pool");
        return;
    };
    let holders = allocator.holders(address);
    let is_had = account.target.contains(&address);
    let level = if is_had { Level::Ok } else { Level::Info };
    let text = match holders.as_slice() {
        [] if allocator.is_taken(address) => "resting, or being given back".to_owned(),
        [] => format!("a free {family} address"),
        holders => format!("held by {}", list(holders.iter().map(|holder| &holder.key))),
    };
    step.detail(level, &address, format!("of pool {}: {text}", pool.name));
    let mut against = account.disagreements.iter();
    let mut of_this = Vec::new();
    of_this.extend(against.by_ref().filter(|(other, ..)| *other == address));
    for (_, holder, disagreement) in of_this {
        let text = format!("can't be shared with {holder}: {disagreement}");
        step.detail(Level::Problem, &address, text);
    }
}

/// The managers that own addresses in the status of a Service, Herald aside.
pub(super) fn other_owners(object: &ApiService) -> Vec<String> {
    let entries = object.metadata.managed_fields.iter().flatten();
    let owns = |fields: &serde_json::Value| !fields["f:status"]["f:loadBalancer"].is_null();
    let mut owners: Vec<String> = entries
        .filter(|entry| {
            entry
                .fields_v1
                .as_ref()
                .is_some_and(|fields| owns(&fields.0))
        })
        .filter_map(|entry| entry.manager.clone())
        .filter(|manager| !manager.starts_with("herald"))
        .collect();
    owners.sort();
    owners.dedup();
    owners
}
