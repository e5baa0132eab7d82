//! Which address a Service gets, and when it gives it back.

use anyhow::{Context as _, Result, ensure};
use herald_e2e::api::herald;
use herald_e2e::object::{condition, ingress, text};
use herald_e2e::sandbox::{none, sandbox};
use herald_e2e::wait::{LONG, eventually, same};
use herald_model::VirtualIp;
use serde_json::json;

#[test]
fn gives_the_lowest_free_address_and_says_so() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 31)]}))?;
        it.service("web", json!({}))?;
        it.expect_addresses("web", &[it.v4(0)])?;
        let note = it.expect_event("web", "Normal", "AddressAllocated")?;
        ensure!(note.contains(&it.v4(0).to_string()), "the note is {note:?}");
        let service = it.get_service("web")?;
        same(
            &text(&service["status"]["loadBalancer"]["ingress"][0]["ipMode"]),
            &"VIP",
        )?;
        same(
            &text(&condition(&service, "heraldlb.io/Allocated")["status"]),
            &"True",
        )?;
        same(
            &text(&service["metadata"]["annotations"]["heraldlb.io/allocated-from"]),
            &it.name("a").as_str(),
        )?;
        it.service("second", json!({}))?;
        it.expect_addresses("second", &[it.v4(1)])?;
        same(&it.events("web", "AddressAllocated")?.len(), &1)
    })
}

#[test]
fn a_freed_address_is_the_next_one_given() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 31)]}))?;
        for (name, index) in [("first", 0), ("second", 1), ("third", 2)] {
            it.service(name, json!({}))?;
            it.expect_addresses(name, &[it.v4(index)])?;
        }
        it.delete_service("second")?;
        let vip = herald("virtualips", &VirtualIp::object_name(it.v4(1)));
        eventually("the claim of a deleted Service is gone", LONG, || {
            same(&it.cluster.api.find(&vip)?, &None)
        })?;
        it.expect_available("a", "ipv4", 30)?;
        it.service("fourth", json!({}))?;
        it.expect_addresses("fourth", &[it.v4(1)])
    })
}

/// The range spans the end of a /24, in the part of the pool range that no slice is of.
#[test]
fn avoided_addresses_are_never_given_and_do_not_count() -> Result<()> {
    sandbox(|it| {
        let range = "172.30.126.253-172.30.127.2";
        it.pool("a", json!({"addresses": [range], "avoidBuggyIPs": true}))?;
        let expected = [
            "172.30.126.253",
            "172.30.126.254",
            "172.30.127.1",
            "172.30.127.2",
        ];
        for (number, address) in expected.iter().enumerate() {
            let name = format!("s{number}");
            it.service(&name, json!({}))?;
            it.expect_addresses(&name, &[address.parse()?])?;
        }
        it.service("last", json!({}))?;
        it.expect_pending("last", "PoolExhausted")?;
        it.expect_event("last", "Warning", "AllocationFailed")?;
        it.service(
            "asks",
            json!({"metadata": {"annotations": {"heraldlb.io/addresses": "172.30.127.0"}}}),
        )?;
        it.expect_pending("asks", "AddressAvoided")
    })
}

#[test]
fn a_range_and_a_cidr_behave_equally_and_both_ends_are_given() -> Result<()> {
    sandbox(|it| {
        it.pool(
            "range",
            json!({"addresses": [it.range_v4(4, 7)], "autoAssign": false}),
        )?;
        it.pool(
            "cidr",
            json!({"addresses": [format!("{}/30", it.v4(8))], "autoAssign": false}),
        )?;
        for (pool, first) in [("range", 4), ("cidr", 8)] {
            let annotations =
                json!({"metadata": {"annotations": {"heraldlb.io/pool": it.name(pool)}}});
            for index in 0..4 {
                let name = format!("{pool}-{index}");
                it.service(&name, annotations.clone())?;
                it.expect_addresses(&name, &[it.v4(first + index)])?;
            }
            let name = format!("{pool}-over");
            it.service(&name, annotations)?;
            it.expect_pending(&name, "PoolExhausted")?;
        }
        Ok(())
    })
}

#[test]
fn one_address_and_two_services_the_second_gets_it_after_the_first_is_deleted() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(5, 5)]}))?;
        it.service("first", json!({}))?;
        it.expect_addresses("first", &[it.v4(5)])?;
        it.service("second", json!({}))?;
        it.expect_pending("second", "PoolExhausted")?;
        let note = it.expect_event("second", "Warning", "AllocationFailed")?;
        ensure!(
            note.contains(&it.name("a")),
            "the note names no pool: {note:?}"
        );
        it.delete_service("first")?;
        it.expect_addresses("second", &[it.v4(5)])?;
        same(&it.events("second", "AllocationFailed")?.len(), &1)
            .context("one Event for each change, not for each attempt")
    })
}

#[test]
fn all_pools_deleted_empties_every_status() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
        it.pool("b", json!({"addresses": [it.range_v6(0, 3)]}))?;
        it.service("four", json!({}))?;
        it.service("six", json!({"spec": {"ipFamilies": ["IPv6"]}}))?;
        it.expect_addresses("four", &[it.v4(0)])?;
        it.expect_addresses("six", &[it.v6(0)])?;
        it.delete_pool("a")?;
        it.delete_pool("b")?;
        for name in ["four", "six"] {
            it.expect_addresses(name, &[])?;
            it.expect_event(name, "Warning", "AllocationFailed")?;
        }
        let vip = herald("virtualips", &VirtualIp::object_name(it.v4(0)));
        eventually("the claim is gone", LONG, || {
            same(&it.cluster.api.find(&vip)?, &None)
        })?;
        it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
        it.expect_addresses("four", &[it.v4(0)])
    })
}

#[test]
fn one_pool_deleted_moves_its_services_to_the_other_and_leaves_the_others_alone() -> Result<()> {
    sandbox(|it| {
        it.pool(
            "a",
            json!({"addresses": [it.range_v4(0, 3)], "priority": 2}),
        )?;
        it.pool(
            "b",
            json!({"addresses": [it.range_v4(4, 7)], "priority": 1}),
        )?;
        it.service("of-a", json!({}))?;
        it.expect_addresses("of-a", &[it.v4(0)])?;
        let in_b = json!({"metadata": {"annotations": {"heraldlb.io/pool": it.name("b")}}});
        it.service("of-b", in_b)?;
        it.expect_addresses("of-b", &[it.v4(4)])?;
        let recording = it
            .cluster
            .api
            .record(&format!("/api/v1/namespaces/{}/services", it.namespace))?;
        it.delete_pool("a")?;
        it.expect_addresses("of-a", &[it.v4(5)])?;
        ensure!(recording.is_live(), "the watch has ended");
        for event in recording.events() {
            if text(&event["object"]["metadata"]["name"]) == "of-b" {
                same(&ingress(&event["object"]), &vec![it.v4(4)])?;
            }
        }
        Ok(())
    })
}

#[test]
fn a_grown_pool_serves_what_is_pending_without_its_being_touched() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 0)]}))?;
        for name in ["s0", "s1", "s2"] {
            it.service(name, json!({}))?;
        }
        it.expect_addresses("s0", &[it.v4(0)])?;
        it.expect_pending("s1", "PoolExhausted")?;
        it.expect_pending("s2", "PoolExhausted")?;
        it.pool("a", json!({"addresses": [it.range_v4(0, 2)]}))?;
        it.expect_addresses("s1", &[it.v4(1)])?;
        it.expect_addresses("s2", &[it.v4(2)])
    })
}

#[test]
fn pools_of_higher_priority_are_filled_first_and_equal_ones_by_name() -> Result<()> {
    sandbox(|it| {
        it.pool(
            "low",
            json!({"addresses": [it.range_v4(0, 0)], "priority": 10}),
        )?;
        it.pool(
            "high-b",
            json!({"addresses": [it.range_v4(2, 2)], "priority": 20}),
        )?;
        it.pool(
            "high-a",
            json!({"addresses": [it.range_v4(4, 4)], "priority": 20}),
        )?;
        for (name, index) in [("s0", 4), ("s1", 2), ("s2", 0)] {
            it.service(name, json!({}))?;
            it.expect_addresses(name, &[it.v4(index)])?;
        }
        Ok(())
    })
}

#[test]
fn a_service_that_is_no_load_balancer_any_more_gives_its_address_back() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 0)]}))?;
        it.service("web", json!({}))?;
        it.expect_addresses("web", &[it.v4(0)])?;
        it.service("next", json!({}))?;
        it.expect_pending("next", "PoolExhausted")?;
        it.service("web", json!({"spec": {"type": "ClusterIP"}}))?;
        it.expect_addresses("web", &[])?;
        it.expect_addresses("next", &[it.v4(0)])?;
        it.expect_event("web", "Normal", "AddressReleased")?;
        let service = it.get_service("web")?;
        ensure!(
            condition(&service, "heraldlb.io/Allocated").is_null(),
            "a condition of ours stays behind: {}",
            service["status"]
        );
        let annotations = &service["metadata"]["annotations"];
        ensure!(
            annotations["heraldlb.io/allocated-from"].is_null(),
            "an annotation of ours stays behind: {annotations}"
        );
        Ok(())
    })
}

#[test]
fn cluster_ip_node_port_and_external_name_are_never_touched() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
        it.service("cluster-ip", json!({"spec": {"type": "ClusterIP"}}))?;
        it.service("node-port", json!({"spec": {"type": "NodePort"}}))?;
        it.service(
            "headless",
            json!({"spec": {"type": "ClusterIP", "clusterIP": "None"}}),
        )?;
        let names = ["cluster-ip", "node-port", "headless"];
        let before = names.map(|name| it.get_service(name).ok());
        // When it has an address, the controller has seen the others.
        it.service("web", json!({}))?;
        it.expect_addresses("web", &[it.v4(0)])?;
        for (name, before) in names.iter().zip(before) {
            same(&it.get_service(name).ok(), &before)?;
            none(&it.events(name, "")?)?;
        }
        Ok(())
    })
}

#[test]
fn a_service_of_a_foreign_class_is_not_touched_at_all() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
        it.service(
            "foreign",
            json!({"spec": {"loadBalancerClass": "example.com/foo"}}),
        )?;
        let before = it.get_service("foreign")?;
        it.service(
            "ours",
            json!({"spec": {"loadBalancerClass": "heraldlb.io/herald"}}),
        )?;
        it.expect_addresses("ours", &[it.v4(0)])?;
        same(&it.get_service("foreign")?, &before)?;
        none(&it.events("foreign", "")?)
    })
}

#[test]
fn a_service_with_both_families_gets_one_address_of_each_from_one_pool() -> Result<()> {
    sandbox(|it| {
        it.pool(
            "four",
            json!({"addresses": [it.range_v4(0, 3)], "priority": 9}),
        )?;
        it.pool(
            "both",
            json!({"addresses": [it.range_v4(8, 9), it.range_v6(8, 9)]}),
        )?;
        it.dual_service("web", json!({}))?;
        it.expect_addresses("web", &[it.v4(8), it.v6(8)])?;
        it.dual_service(
            "prefer",
            json!({"spec": {"ipFamilyPolicy": "PreferDualStack"}}),
        )?;
        it.expect_addresses("prefer", &[it.v4(9), it.v6(9)])?;
        it.dual_service("over", json!({}))?;
        it.expect_pending("over", "PoolExhausted")
    })
}

#[test]
fn an_ipv6_service_gets_an_ipv6_address() -> Result<()> {
    sandbox(|it| {
        it.pool(
            "a",
            json!({"addresses": [it.range_v4(0, 3), it.range_v6(1, 3)]}),
        )?;
        it.service("web", json!({"spec": {"ipFamilies": ["IPv6"]}}))?;
        it.expect_addresses("web", &[it.v6(1)])
    })
}

#[test]
fn a_pool_counts_its_addresses() -> Result<()> {
    sandbox(|it| {
        let addresses = json!({"addresses": [it.range_v4(0, 9), it.range_v6(0, 31)]});
        it.pool("a", addresses)?;
        it.dual_service("web", json!({}))?;
        it.service("four", json!({}))?;
        let path = herald("ippools", &it.name("a"));
        eventually("the numbers are right", LONG, || {
            let status = &it.cluster.api.get(&path)?["status"];
            same(
                &(&status["ipv4"], &status["ipv6"]),
                &(
                    &json!({"total": "10", "assigned": "2", "available": "8"}),
                    &json!({"total": "32", "assigned": "1", "available": "31"}),
                ),
            )
        })
    })
}
