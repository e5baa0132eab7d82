//! Deterministic simulation: users, failures, restarts, deposed leaders.
//!
//! Every seed is one history. The laws are checked by the API server at each write (see `api.rs`),
//! and the end of each history must be a state in which nothing more is written, addresses are spread
//! evenly and none is on a node that is about to go.

mod api;
mod cluster;
mod seeds;

use std::collections::BTreeMap;

use cluster::{Chaos, Cluster};
use seeds::each_seed;

#[test]
fn laws_hold_and_everything_converges_under_users_failures_and_restarts() {
    each_seed(
        "laws_hold_and_everything_converges_under_users_failures_and_restarts",
        0..1000,
        |seed| {
            let mut cluster = Cluster::new(seed);
            for _ in 0..400 {
                cluster.step(Chaos::EVERYTHING);
            }
            cluster.quiesce();
            cluster.check_converged();
        },
    );
}

#[test]
fn addresses_never_change_without_a_user_whatever_fails() {
    each_seed(
        "addresses_never_change_without_a_user_whatever_fails",
        1000..1150,
        |seed| {
            let mut cluster = Cluster::new(seed);
            for _ in 0..150 {
                cluster.step(Chaos::USERS);
            }
            cluster.quiesce();
            let before = statuses(&cluster);
            for _ in 0..300 {
                cluster.step(Chaos::FAILURES);
                assert_eq!(statuses(&cluster), before, "seed {seed}");
            }
            cluster.quiesce();
            assert_eq!(statuses(&cluster), before, "seed {seed}");
            cluster.check_converged();
        },
    );
}

#[test]
fn restart_of_a_settled_controller_writes_nothing() {
    each_seed(
        "restart_of_a_settled_controller_writes_nothing",
        2000..2100,
        |seed| {
            let mut cluster = Cluster::new(seed);
            for _ in 0..200 {
                cluster.step(Chaos::USERS);
            }
            cluster.quiesce();
            let (changes, events) = (cluster.api.changes, cluster.api.events.len());
            for _ in 0..5 {
                cluster.restart();
                cluster.quiesce();
            }
            assert_eq!(cluster.api.changes, changes, "seed {seed}");
            assert_eq!(cluster.api.events.len(), events, "seed {seed}");
        },
    );
}

#[test]
fn claims_deleted_by_hand_come_back_and_statuses_stay() {
    each_seed(
        "claims_deleted_by_hand_come_back_and_statuses_stay",
        3000..3050,
        |seed| {
            let mut cluster = Cluster::new(seed);
            for _ in 0..150 {
                cluster.step(Chaos::USERS);
            }
            cluster.quiesce();
            let before = statuses(&cluster);
            let addresses: Vec<_> = cluster.api.vips.keys().copied().collect();
            for address in &addresses {
                cluster.api.delete_vip(*address);
            }
            cluster.quiesce();
            assert_eq!(statuses(&cluster), before, "seed {seed}");
            assert_eq!(
                cluster.api.vips.keys().copied().collect::<Vec<_>>(),
                addresses
            );
        },
    );
}

/// What the claim is good for should lists be older than what was written: then some histories show an
/// address on two Services when nobody checks who claims what, and none of them with the claim.
#[test]
fn without_the_lock_on_claims_an_address_is_shown_by_two_services() {
    let law = "an address shown by two Services";
    let ends = |seed: u64, unlocked: bool| {
        let history = std::panic::catch_unwind(|| {
            let mut cluster = Cluster::new(seed);
            cluster.skips_lists = true;
            cluster.api.unlocked = unlocked;
            for _ in 0..400 {
                cluster.step(Chaos::EVERYTHING);
            }
        });
        match history {
            Ok(()) => String::new(),
            Err(panic) => match panic.downcast::<String>() {
                Ok(text) => *text,
                Err(_) => "no text".to_owned(),
            },
        }
    };
    let broken: Vec<u64> = (0..2000)
        .filter(|seed| ends(*seed, true).starts_with(law))
        .take(3)
        .collect();
    assert!(!broken.is_empty());
    for seed in broken {
        let end = ends(seed, false);
        assert!(!end.starts_with(law), "seed {seed}, with the lock: {end}");
    }
}

fn statuses(cluster: &Cluster) -> BTreeMap<String, Vec<std::net::IpAddr>> {
    let services = cluster.api.services.values();
    services
        .map(|service| (service.key.to_string(), service.ingress.clone()))
        .collect()
}
