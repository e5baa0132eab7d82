//! Pools that cannot be right, that change under their Services, and what people change by hand.

use anyhow::{Context as _, Result, ensure};
use herald_e2e::api::herald;
use herald_e2e::object::{condition, ingress, items, text};
use herald_e2e::sandbox::{Sandbox, sandbox};
use herald_e2e::wait::{LONG, eventually, same};
use herald_lab::address::GATEWAY_V4;
use herald_model::VirtualIp;
use serde_json::{Value, json};

/// Waits until a pool is said to overlap with something, in the condition and in an Event, each with
/// all these words.
fn expect_overlap(it: &Sandbox, pool: &str, words: &[&str]) -> Result<()> {
    let name = it.name(pool);
    let says_all = |said: &str| {
        let lacking = words.iter().find(|word| !said.contains(*word));
        ensure!(lacking.is_none(), "{lacking:?} is not in {said:?}");
        Ok(())
    };
    eventually(&format!("pool {pool} says what overlaps"), LONG, || {
        let object = it.cluster.api.get(&herald("ippools", &name))?;
        let ready = condition(&object, "Ready");
        same(
            &(text(&ready["status"]), text(&ready["reason"])),
            &("False", "Overlap"),
        )
        .with_context(|| ready.to_string())?;
        says_all(text(&ready["message"]))
    })?;
    eventually(&format!("an Event about pool {pool}"), LONG, || {
        let events = it
            .cluster
            .api
            .list("/apis/events.k8s.io/v1/namespaces/default/events")?;
        let ours = events.iter().filter(|event| {
            text(&event["regarding"]["name"]) == name && text(&event["reason"]) == "Overlap"
        });
        let notes: Vec<&str> = ours.map(|event| text(&event["note"])).collect();
        let any = notes.iter().any(|note| says_all(note).is_ok());
        ensure!(any, "there are {notes:?}");
        Ok(())
    })
}

fn asks(address: &str) -> Value {
    json!({"metadata": {"annotations": {"heraldlb.io/addresses": address}}})
}

#[test]
fn a_pool_that_overlaps_pods_or_services_of_the_cluster_names_both_and_gives_none_of_it()
-> Result<()> {
    sandbox(|it| {
        let addresses = json!([
            "10.96.200.0-10.96.200.3",
            "10.244.1.250-10.244.2.1",
            it.range_v4(0, 0),
        ]);
        it.pool("a", json!({"addresses": addresses}))?;
        let words = [
            "10.96.200.0-10.96.200.3",
            "ServiceCIDR kubernetes",
            "10.244.1.250-10.244.1.255",
            "node1",
            "10.244.2.0-10.244.2.1",
            "node2",
            &it.name("a"),
        ];
        expect_overlap(it, "a", &words)?;
        it.service("web", json!({}))?;
        it.expect_addresses("web", &[it.v4(0)])?;
        it.service("second", json!({}))?;
        it.expect_pending("second", "PoolExhausted")?;
        for (name, address) in [("service", "10.96.200.1"), ("pod", "10.244.1.251")] {
            it.service(name, asks(address))?;
            it.expect_pending(name, "AddressReserved")?;
        }
        it.pool("a", json!({"addresses": [it.range_v4(0, 1)]}))?;
        eventually("the pool is ready", LONG, || {
            let pool = it.cluster.api.get(&herald("ippools", &it.name("a")))?;
            same(&text(&condition(&pool, "Ready")["status"]), &"True")
        })?;
        it.expect_addresses("second", &[it.v4(1)])
    })
}

#[test]
fn a_pool_that_lists_the_gateway_or_a_node_names_both_and_gives_neither() -> Result<()> {
    sandbox(|it| {
        let node = it.cluster.lab.node("node1")?.address;
        let node = node.v4.context("the lab has IPv4")?.to_string();
        let gateway = GATEWAY_V4.to_string();
        let addresses = json!([
            format!("{gateway}/32"),
            format!("{node}/32"),
            it.range_v4(0, 0)
        ]);
        it.pool("a", json!({"addresses": addresses}))?;
        let gateway_of = format!("{gateway} is the gateway of node1");
        let address_of = format!("{node} is an address of node node1");
        expect_overlap(it, "a", &[&gateway_of, &address_of, &it.name("a")])?;
        it.service("web", json!({}))?;
        it.expect_addresses("web", &[it.v4(0)])?;
        for (name, address) in [("gateway", &gateway), ("node", &node)] {
            it.service(name, asks(address))?;
            it.expect_pending(name, "AddressReserved")?;
        }
        Ok(())
    })
}

#[test]
fn overlapping_pools_the_later_one_names_both_and_the_range_and_serves_nothing_of_it() -> Result<()>
{
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
        let first = herald("ippools", &it.name("a"));
        eventually("the first pool is ready", LONG, || {
            let pool = it.cluster.api.get(&first)?;
            same(&text(&condition(&pool, "Ready")["status"]), &"True")
        })?;
        // Which of two is the later one is told by their ages, in seconds.
        let created =
            text(&it.cluster.api.get(&first)?["metadata"]["creationTimestamp"]).to_owned();
        it.pool(
            "b",
            json!({"addresses": [it.range_v4(2, 5)], "priority": 9}),
        )?;
        let second = it.cluster.api.get(&herald("ippools", &it.name("b")))?;
        ensure!(text(&second["metadata"]["creationTimestamp"]) >= created.as_str());
        expect_overlap(it, "b", &[&it.name("a"), &it.name("b"), &it.range_v4(2, 3)])?;
        it.service("web", json!({}))?;
        it.expect_addresses("web", &[it.v4(4)])?;
        it.service("asks", asks(&it.v4(2).to_string()))?;
        it.expect_addresses("asks", &[it.v4(2)])?;
        let service = it.get_service("asks")?;
        same(
            &text(&service["metadata"]["annotations"]["heraldlb.io/allocated-from"]),
            &it.name("a").as_str(),
        )
    })
}

/// That no Service was ever without an address, nor with another than that of its name: `s3` has the
/// third.
fn kept_throughout(it: &Sandbox, events: &[Value]) -> Result<()> {
    for event in events {
        let service = &event["object"];
        let name = text(&service["metadata"]["name"]);
        let index = name.trim_start_matches('s').parse()?;
        same(&ingress(service), &vec![it.v4(index)]).with_context(|| name.to_owned())?;
    }
    Ok(())
}

#[test]
fn a_split_pool_changes_the_addresses_of_nobody() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 7)]}))?;
        for index in 0..6 {
            let name = format!("s{index}");
            it.service(&name, json!({}))?;
            it.expect_addresses(&name, &[it.v4(index)])?;
        }
        let services = format!("/api/v1/namespaces/{}/services", it.namespace);
        let recording = it.cluster.api.record(&services)?;
        it.pool("b", json!({"addresses": [it.range_v4(4, 7)]}))?;
        expect_overlap(it, "b", &[&it.name("a")])?;
        it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
        for (index, pool) in [(3, "a"), (4, "b"), (5, "b")] {
            eventually(&format!("s{index} is of pool {pool}"), LONG, || {
                let service = it.get_service(&format!("s{index}"))?;
                same(
                    &text(&service["metadata"]["annotations"]["heraldlb.io/allocated-from"]),
                    &it.name(pool).as_str(),
                )
            })?;
        }
        // And back.
        it.pool("a", json!({"addresses": [it.range_v4(0, 7)]}))?;
        it.delete_pool("b")?;
        eventually("s5 is of pool a again", LONG, || {
            let service = it.get_service("s5")?;
            same(
                &text(&service["metadata"]["annotations"]["heraldlb.io/allocated-from"]),
                &it.name("a").as_str(),
            )
        })?;
        ensure!(recording.is_live(), "the watch has ended");
        kept_throughout(it, &recording.events())
    })
}

#[test]
fn a_shrunk_pool_moves_only_those_whose_addresses_it_has_no_more() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 9)]}))?;
        for index in 0..3 {
            let name = format!("s{index}");
            it.service(&name, json!({}))?;
            it.expect_addresses(&name, &[it.v4(index)])?;
        }
        it.service("moves", asks(&it.v4(9).to_string()))?;
        it.expect_addresses("moves", &[it.v4(9)])?;
        it.service("moves", json!({}))?;
        it.pool("a", json!({"addresses": [it.range_v4(0, 4)]}))?;
        it.expect_addresses("moves", &[it.v4(3)])?;
        it.pool("a", json!({"addresses": [it.range_v4(1, 3)]}))?;
        it.expect_addresses("s0", &[])?;
        it.expect_pending("s0", "PoolExhausted")?;
        for (name, index) in [("s1", 1), ("s2", 2), ("moves", 3)] {
            same(&ingress(&it.get_service(name)?), &vec![it.v4(index)])?;
        }
        it.pool("a", json!({"addresses": [it.range_v4(0, 4)]}))?;
        it.expect_addresses("s0", &[it.v4(0)])
    })
}

#[test]
fn a_service_in_a_listed_namespace_gets_that_pool_and_one_elsewhere_an_open_one() -> Result<()> {
    sandbox(|it| {
        // "Open" to whom another namespace's name stands for: other tests' Services are not to come.
        let other = format!("{}-b", it.namespace);
        it.cluster
            .api
            .apply(&herald_e2e::object::namespace(&other))?;
        let result = (|| {
            it.pool(
                "open",
                json!({
                    "addresses": [it.range_v4(4, 7)],
                    "allowed": {"namespaces": [it.namespace, other]},
                }),
            )?;
            it.pool(
                "ours",
                json!({"addresses": [it.range_v4(0, 0)], "priority": 9}),
            )?;
            it.service("here", json!({}))?;
            it.expect_addresses("here", &[it.v4(0)])?;
            it.cluster.api.apply(&json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": "elsewhere", "namespace": other},
                "spec": {
                    "type": "LoadBalancer",
                    "ipFamilies": ["IPv4"],
                    "ipFamilyPolicy": "SingleStack",
                    "ports": [{"name": "http", "port": 80}],
                },
            }))?;
            let path = format!("/api/v1/namespaces/{other}/services/elsewhere");
            eventually("the Service elsewhere has an open address", LONG, || {
                same(&ingress(&it.cluster.api.get(&path)?), &vec![it.v4(4)])
            })?;
            // Full for those in the list: they go to the open one as well.
            it.service("more", json!({}))?;
            it.expect_addresses("more", &[it.v4(5)])
        })();
        it.cluster
            .api
            .delete(&format!("/api/v1/namespaces/{other}"))?;
        result
    })
}

#[test]
fn a_label_taken_from_a_namespace_takes_the_pool_away_and_put_back_gives_it_again() -> Result<()> {
    sandbox(|it| {
        let selectors = json!([{"matchLabels": {"shop": it.namespace}}]);
        let allowed = json!({"namespaces": [], "namespaceSelectors": selectors});
        it.pool(
            "a",
            json!({"addresses": [it.range_v4(0, 3)], "allowed": allowed}),
        )?;
        let label = |value: Value| {
            it.cluster.api.merge(
                &format!("/api/v1/namespaces/{}", it.namespace),
                &json!({"metadata": {"labels": {"shop": value}}}),
            )
        };
        it.service("web", json!({}))?;
        for _ in 0..2 {
            label(it.namespace.as_str().into())?;
            it.expect_addresses("web", &[it.v4(0)])?;
            label(Value::Null)?;
            it.expect_addresses("web", &[])?;
            it.expect_pending("web", "NotAllowed")?;
            it.expect_available("a", "ipv4", 4)?;
        }
        Ok(())
    })
}

#[test]
fn what_is_deleted_or_edited_by_hand_is_restored() -> Result<()> {
    sandbox(|it| {
        let api = &it.cluster.api;
        it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
        it.service("web", json!({}))?;
        it.wait_announced("web")?;
        let pool = herald("ippools", &it.name("a"));
        let counts = json!({"total": "4", "assigned": "1", "available": "3"});
        let counted = || same(&api.get(&pool)?["status"]["ipv4"], &counts);
        eventually("the pool's status is right", LONG, counted)?;
        let wrong = json!({"status": {"ipv4": {"total": "9", "assigned": "9", "available": "0"}}});
        api.merge(&format!("{pool}/status"), &wrong)?;
        eventually("the pool's status is right again", LONG, counted)?;

        let vip = herald("virtualips", &VirtualIp::object_name(it.v4(0)));
        let before = api.get(&vip)?;
        let services = format!("/api/v1/namespaces/{}/services", it.namespace);
        let recording = api.record(&services)?;
        api.delete(&vip)?;
        eventually("the claim is there again", LONG, || {
            let now = api.find(&vip)?.context("it is not")?;
            ensure!(now["metadata"]["uid"] != before["metadata"]["uid"]);
            same(&now["spec"]["services"], &before["spec"]["services"])
        })?;
        it.wait_announced("web")?;
        ensure!(recording.is_live(), "the watch has ended");
        for event in recording.events() {
            same(&ingress(&event["object"]), &vec![it.v4(0)])?;
        }

        let status = format!("{}/status", it.service_path("web"));
        api.merge(
            &status,
            &json!({"status": {"loadBalancer": {"ingress": null}}}),
        )?;
        it.expect_addresses("web", &[it.v4(0)])?;
        let conditions = items(&it.get_service("web")?["status"]["conditions"]).len();
        api.merge(&status, &json!({"status": {"conditions": null}}))?;
        eventually("the conditions are there again", LONG, || {
            let service = it.get_service("web")?;
            same(&items(&service["status"]["conditions"]).len(), &conditions)
        })
    })
}
