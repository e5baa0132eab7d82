//! What a pool serves, who has it, and whom it refuses.

use std::net::IpAddr;

use herald_controller_core::{Controller, Offer, PoolStatus, TextCounts};
use herald_model::{
    AdvertisementPolicy, Allowed, Announce, ConflictPolicy, Family, Phase, Pool, PoolName, Scope,
};

use super::{Explanation, Outcome, Step};
use crate::picture::Picture;
use crate::text::{Level, age, count, list};

/// More Services than these are only counted.
const NAMED: usize = 20;

/// Explains a pool; `None`: there is none of this name.
pub(crate) fn pool(picture: &Picture, name: &PoolName) -> Option<Explanation> {
    let controller = picture.controller();
    let status = controller.pool_status(picture.rehearsal.now(), name)?;
    let ready = status.ready.as_ref();
    let is_ready = ready.is_some_and(|ready| ready.status);
    let mut steps = Vec::new();
    let pool = controller
        .allocator()
        .and_then(|allocator| allocator.pool(name));
    if let Some(pool) = pool {
        steps.push(spec(pool));
        steps.push(addresses(picture, pool, &status));
        steps.push(holders(picture, name));
        steps.push(refused(controller, name));
        steps.push(announced(controller, name));
    }
    let full = full(&status);
    let message = ready
        .map(|ready| ready.message.to_string())
        .unwrap_or_default();
    let (outcome, reason, summary, remedy) = if !is_ready {
        let reason = ready.map_or("Unknown", |ready| &*ready.reason);
        let remedy = match reason {
            "Invalid" => "correct the IPPool: its last valid state stays in force until then",
            "Overlap" => "take out of its addresses what is not its own",
            _ => "find the machines that use these addresses, or take them out of the pool",
        };
        let outcome = if pool.is_some() {
            Outcome::Degraded
        } else {
            Outcome::NotServed
        };
        (outcome, reason, message, Some(remedy.to_owned()))
    } else if !full.is_empty() {
        let text = format!("it has no free {} address", list(&full));
        let remedy = "add addresses, or delete Services".to_owned();
        (Outcome::Degraded, "Full", text, Some(remedy))
    } else {
        (Outcome::Serving, "Ready", "it serves".to_owned(), None)
    };
    Some(Explanation {
        kind: "IPPool",
        name: name.to_string(),
        outcome,
        reason: reason.to_owned(),
        summary,
        remedy,
        steps,
    })
}

/// The families of which nothing is free.
fn full(status: &PoolStatus) -> Vec<Family> {
    let is_full = |counts: &Option<TextCounts>| {
        counts
            .as_ref()
            .is_some_and(|counts| counts.available == "0")
    };
    let all = [(Family::V4, &status.v4), (Family::V6, &status.v6)];
    all.into_iter()
        .filter(|(_, counts)| is_full(counts))
        .map(|(family, _)| family)
        .collect()
}

/// Whom it serves.
fn spec(pool: &Pool) -> Step {
    let scope = match pool.scope {
        Scope::External => "external",
        Scope::Internal => "internal",
    };
    let mut step = Step::new(
        "serves",
        Level::Info,
        format!("{scope} addresses, priority {}", pool.priority),
    );
    if !pool.auto_assign {
        let text = "only Services that name the pool or one of its addresses";
        step.detail(Level::Info, "autoAssign", text);
    }
    let Allowed {
        namespaces,
        namespace_selectors,
        service_selectors,
    } = &pool.allowed;
    let selected = namespace_selectors
        .iter()
        .map(|it| format!("with labels {it}"));
    let named = namespaces.iter().map(ToString::to_string);
    let places: Vec<String> = named.chain(selected).collect();
    if !places.is_empty() {
        step.detail(Level::Info, "namespaces", places.join(" or "));
    }
    if !service_selectors.is_empty() {
        let all: Vec<String> = service_selectors.iter().map(ToString::to_string).collect();
        step.detail(
            Level::Info,
            "Services",
            format!("with labels {}", all.join(" or ")),
        );
    }
    if pool.advertisement == AdvertisementPolicy::Explicit {
        let text = "Explicit: announced only where an L2Advertisement selects it";
        step.detail(Level::Info, "advertisement", text);
    }
    if pool.conflict_policy == ConflictPolicy::Yield {
        step.detail(
            Level::Info,
            "conflictPolicy",
            "Yield: left to strangers that use it",
        );
    }
    if !pool.reuse_delay.is_zero() {
        let seconds = i64::try_from(pool.reuse_delay.as_secs()).unwrap_or(i64::MAX);
        step.detail(Level::Info, "reuseDelay", age(seconds));
    }
    step
}

/// How many there are.
fn addresses(picture: &Picture, pool: &Pool, status: &PoolStatus) -> Step {
    let ranges = list(&pool.ranges);
    let is_ready = status.ready.as_ref().is_some_and(|ready| ready.status);
    let level = if is_ready { Level::Ok } else { Level::Warning };
    let mut step = Step::new("addresses", level, ranges);
    let allocator = picture.controller().allocator();
    for (family, counts) in [(Family::V4, &status.v4), (Family::V6, &status.v6)] {
        let Some(counts) = counts else {
            continue;
        };
        let next = allocator.and_then(|allocator| allocator.next_of(&pool.name, family));
        let (level, next) = match next {
            Some(next) => (Level::Ok, format!("next is {next}")),
            None => (Level::Warning, "none is free".to_owned()),
        };
        let TextCounts {
            total, assigned, ..
        } = counts;
        step.detail(
            level,
            &family,
            format!("{assigned} of {total} assigned, {next}"),
        );
    }
    for overlap in allocator.map_or(&[][..], |allocator| allocator.overlaps(&pool.name)) {
        let text = format!(
            "not served: pool {} was created earlier and has it",
            overlap.pool
        );
        step.detail(Level::Problem, &overlap.range, text);
    }
    if let Some(ready) = status.ready.as_ref().filter(|ready| !ready.status) {
        step.detail(Level::Warning, &ready.reason, ready.message.to_string());
    }
    step
}

/// Who has its addresses.
fn holders(picture: &Picture, name: &PoolName) -> Step {
    let controller = picture.controller();
    let Some(allocator) = controller.allocator() else {
        return Step::new("holders", Level::Unknown, "");
    };
    let is_of = |address: IpAddr| {
        allocator
            .pool_of(address)
            .is_some_and(|pool| pool.name == *name)
    };
    let mut lines = Vec::new();
    for observed in controller.vips().filter(|vip| is_of(vip.vip.address)) {
        let address = observed.vip.address;
        let text = if let Phase::Resting { until } = observed.vip.phase {
            format!("resting for another {}", age(until - picture.now))
        } else {
            let holders = allocator.holders(address);
            list(holders.iter().map(|holder| &holder.key))
        };
        lines.push((address, text));
    }
    let more = lines.len().saturating_sub(NAMED);
    let mut step = Step::new("holders", Level::Info, format!("{} in use", lines.len()));
    for (address, text) in lines.into_iter().take(NAMED) {
        step.detail(Level::Info, &address, text);
    }
    if more > 0 {
        step.detail(
            Level::Info,
            "…",
            format!("and {more} more: kubectl get virtualips"),
        );
    }
    step
}

/// The pending Services that could have an address of it, and what it says to each.
fn refused(controller: &Controller, name: &PoolName) -> Step {
    let mut refused = Vec::new();
    let Some(allocator) = controller.allocator() else {
        return Step::new("refuses", Level::Unknown, "");
    };
    let is_of = |address: &IpAddr| {
        allocator
            .pool_of(*address)
            .is_some_and(|pool| pool.name == *name)
    };
    for observed in controller.services() {
        let (Some(service), Some(account)) =
            (observed.served(), controller.service_account(&observed.key))
        else {
            continue;
        };
        let Some(problem) = account.problem else {
            continue;
        };
        let mut offers = account.offers.into_iter();
        let said = offers.find(|Offer { pool, .. }| pool == name);
        let said = said.and_then(|offer| offer.outcome.err());
        let asked = service.request.addresses.iter().any(is_of);
        refused.extend(
            said.or_else(|| asked.then_some(problem))
                .map(|refusal| (observed.key.clone(), refusal)),
        );
    }
    if refused.is_empty() {
        return Step::new("refuses", Level::Ok, "no Service waits for it");
    }
    let more = refused.len().saturating_sub(NAMED);
    let waiting = count(refused.len(), "Service");
    let text = format!("{waiting} without the address they should have");
    let mut step = Step::new("refuses", Level::Info, text);
    for (key, refusal) in refused.into_iter().take(NAMED) {
        step.detail(Level::Problem, &key, refusal.to_string());
    }
    if more > 0 {
        step.detail(Level::Info, "…", format!("and {more} more"));
    }
    step
}

/// How its addresses are announced, by the rules of those in use.
fn announced(controller: &Controller, name: &PoolName) -> Step {
    let addresses = controller.vips().map(|vip| vip.vip.address);
    let accounts = addresses.filter_map(|address| {
        let account = controller.address_account(address)?;
        (account.pool.as_ref() == Some(name)).then_some((address, account))
    });
    let mut silent = Vec::new();
    let mut all = 0;
    for (address, account) in accounts {
        all += 1;
        if account.announce == Announce::None {
            silent.push(address);
        }
    }
    if silent.is_empty() {
        let text = format!("nothing forbids to announce the {all} in use");
        return Step::new("announced", Level::Ok, text);
    }
    let mut step = Step::new(
        "announced",
        Level::Problem,
        format!(
            "no L2Advertisement selects {} of {all} in use",
            silent.len()
        ),
    );
    for address in silent.into_iter().take(NAMED) {
        step.detail(Level::Problem, &address, "nobody may announce it");
    }
    step
}
