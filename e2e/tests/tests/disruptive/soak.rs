//! A minute of `make soak`.

use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use herald_e2e::cluster::report;
use herald_e2e::sandbox::sandbox;
use herald_e2e::soak::{Ground, Plan, soak};
use serde_json::json;

use crate::{API_WAS_STOPPED, alone};

#[test]
fn whatever_fails_no_address_is_given_twice_or_changes_and_nobody_waits_for_a_free_one()
-> Result<()> {
    alone(|cluster| {
        sandbox(|it| {
            let addresses = [it.range_v4(0, 11), it.range_v6(0, 11)];
            it.pool("a", json!({"addresses": addresses}))?;
            let ground = Ground {
                cluster,
                namespace: it.namespace.clone(),
                pool: it.name("a"),
                addresses: 12,
            };
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            let plan = Plan {
                kills: 2,
                api_restarts: 1,
                etcd_pauses: 1,
                etcd_pause: Duration::from_secs(5),
                seed: now.as_secs(),
            };
            API_WAS_STOPPED.store(true, Ordering::Relaxed);
            let outcome = soak(&ground, &plan, report)
                .with_context(|| format!("again with: herald-soak --seed {}", plan.seed))?;
            report(&format!("{outcome:?}"));
            Ok(())
        })
    })
}
