//! One address for several Services, and several addresses for one.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use herald_e2e::api::herald;
use herald_e2e::object::text;
use herald_e2e::sandbox::{Sandbox, sandbox};
use herald_e2e::wait::{LONG, eventually, same};
use serde_json::{Value, json};

/// A Service with a sharing key and a port.
fn shared(key: &str, protocol: &str, port: u16) -> Value {
    json!({
        "metadata": {"annotations": {"heraldlb.io/sharing-key": key}},
        "spec": {"ports": [{"name": "one", "protocol": protocol, "port": port, "targetPort": 9090}]},
    })
}

/// The same under `Local`, with pods of its own.
fn local(key: &str, port: u16, app: &str) -> Value {
    let mut service = shared(key, "TCP", port);
    service["spec"]["externalTrafficPolicy"] = "Local".into();
    service["spec"]["selector"] = json!({"app": app});
    service
}

fn pool(it: &Sandbox) -> Result<()> {
    it.pool(
        "a",
        json!({"addresses": [it.range_v4(0, 9), it.range_v6(0, 9)]}),
    )
}

#[test]
fn one_key_and_one_port_of_tcp_and_of_udp_are_one_address() -> Result<()> {
    sandbox(|it| {
        pool(it)?;
        it.service("tcp", shared("dns", "TCP", 53))?;
        it.expect_addresses("tcp", &[it.v4(0)])?;
        it.service("udp", shared("dns", "UDP", 53))?;
        it.expect_addresses("udp", &[it.v4(0)])
    })
}

#[test]
fn different_keys_are_different_addresses_until_the_keys_are_equal() -> Result<()> {
    sandbox(|it| {
        pool(it)?;
        it.service("one", shared("one", "TCP", 80))?;
        it.expect_addresses("one", &[it.v4(0)])?;
        it.service("other", shared("other", "TCP", 81))?;
        it.expect_addresses("other", &[it.v4(1)])?;
        // Who alone has an address may change the key in place; then others can come.
        it.service("other", shared("one", "TCP", 81))?;
        it.service("third", shared("one", "TCP", 82))?;
        it.expect_addresses("third", &[it.v4(0)])?;
        it.expect_addresses("other", &[it.v4(1)])
    })
}

#[test]
fn local_services_share_if_their_selectors_are_equal_and_never_with_cluster() -> Result<()> {
    sandbox(|it| {
        pool(it)?;
        it.service("one", local("web", 80, "a"))?;
        it.expect_addresses("one", &[it.v4(0)])?;
        it.service("same", local("web", 81, "a"))?;
        it.expect_addresses("same", &[it.v4(0)])?;
        it.service("other", local("web", 82, "b"))?;
        it.expect_addresses("other", &[it.v4(1)])?;
        it.service("cluster", shared("web", "TCP", 83))?;
        it.expect_addresses("cluster", &[it.v4(2)])?;
        // A sharer that stops to agree leaves, and the others stay.
        it.service("same", local("web", 81, "b"))?;
        it.expect_addresses("same", &[it.v4(1)])?;
        it.expect_addresses("one", &[it.v4(0)])
    })
}

#[test]
fn sharing_services_are_answered_from_one_node() -> Result<()> {
    sandbox(|it| {
        pool(it)?;
        for (name, port) in [("s80", 80), ("s81", 81)] {
            it.dual_service(name, shared("web", "TCP", port))?;
            it.expect_addresses(name, &[it.v4(0), it.v6(0)])?;
            it.wait_announced(name)?;
        }
        for address in [it.v4(0), it.v6(0)] {
            let (_, mac) = it.cluster.announcer(address)?;
            eventually(&format!("only {mac} answers for {address}"), LONG, || {
                same(&it.client().one_answer(address)?, &mac)
            })?;
        }
        Ok(())
    })
}

#[test]
fn a_second_address_comes_when_the_pool_gets_the_family_and_the_first_stays() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
        let prefers = json!({"spec": {"ipFamilyPolicy": "PreferDualStack"}});
        it.dual_service("web", prefers)?;
        it.expect_addresses("web", &[it.v4(0)])?;
        // A pool that has both moves nobody who has an address.
        it.pool(
            "both",
            json!({"addresses": [it.range_v4(8, 9), it.range_v6(8, 9)], "priority": 9}),
        )?;
        it.service("new", json!({}))?;
        it.expect_addresses("new", &[it.v4(8)])?;
        it.expect_addresses("web", &[it.v4(0)])?;
        let recording = it
            .cluster
            .api
            .record(&format!("/api/v1/namespaces/{}/services", it.namespace))?;
        it.pool(
            "a",
            json!({"addresses": [it.range_v4(0, 3), it.range_v6(0, 3)]}),
        )?;
        it.expect_addresses("web", &[it.v4(0), it.v6(0)])?;
        // And back: what is left is kept.
        it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
        it.expect_addresses("web", &[it.v4(0)])?;
        ensure!(recording.is_live(), "the watch has ended");
        for event in recording.events() {
            let service = &event["object"];
            if text(&service["metadata"]["name"]) == "web" {
                let first = herald_e2e::object::ingress(service).first().copied();
                same(&first, &Some(it.v4(0)))?;
            }
        }
        Ok(())
    })
}

#[test]
fn a_service_that_gives_a_family_up_and_takes_it_again_keeps_its_first_address() -> Result<()> {
    sandbox(|it| {
        pool(it)?;
        it.dual_service("web", json!({}))?;
        it.expect_addresses("web", &[it.v4(0), it.v6(0)])?;
        it.service("web", json!({}))?;
        it.expect_addresses("web", &[it.v4(0)])?;
        it.expect_available("a", "ipv6", 10)?;
        for policy in ["PreferDualStack", "RequireDualStack"] {
            it.dual_service("web", json!({"spec": {"ipFamilyPolicy": policy}}))?;
            it.expect_addresses("web", &[it.v4(0), it.v6(0)])?;
        }
        let claim = herald_model::VirtualIp::object_name(it.v6(0));
        it.service("web", json!({}))?;
        it.expect_addresses("web", &[it.v4(0)])?;
        eventually("the claim on the second address is gone", LONG, || {
            let found = it.cluster.api.find(&herald("virtualips", &claim))?;
            same(&found, &None)
        })
    })
}

#[test]
fn gauges_equal_the_numbers_of_the_pool_and_vanish_with_it() -> Result<()> {
    sandbox(|it| {
        it.pool(
            "a",
            json!({"addresses": [it.range_v4(0, 9), it.range_v6(0, 4)]}),
        )?;
        it.dual_service("web", json!({}))?;
        it.expect_addresses("web", &[it.v4(0), it.v6(0)])?;
        let pool = format!("pool=\"{}\"", it.name("a"));
        let gauges = || -> Result<Vec<Vec<f64>>> {
            let metrics = it.cluster.controller_metrics()?;
            let of = |name: &str, family: &str| {
                let name = format!("herald_controller_pool_addresses{name}");
                metrics.series(&name, &[&pool, &format!("family=\"{family}\"")])
            };
            let names = ["", "_assigned", "_available"];
            let families = ["ipv4", "ipv6"];
            Ok(families
                .iter()
                .flat_map(|family| names.map(|name| of(name, family)))
                .collect())
        };
        let expected = [10.0, 1.0, 9.0, 5.0, 1.0, 4.0].map(|number| vec![number]);
        eventually("the gauges are right", LONG, || {
            same(&gauges()?, &expected.to_vec())
        })?;
        it.delete_service("web")?;
        it.delete_pool("a")?;
        eventually("the gauges are gone", LONG, || {
            let left: BTreeSet<_> = gauges()?.into_iter().map(|series| series.len()).collect();
            same(&left, &BTreeSet::from([0]))
        })
    })
}
