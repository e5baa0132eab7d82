//! What a Service can ask for.

use anyhow::{Result, ensure};
use herald_e2e::object::{condition, ingress, text};
use herald_e2e::sandbox::{Sandbox, sandbox};
use herald_e2e::wait::{LONG, eventually, same};
use serde_json::{Value, json};

fn annotated(name: &str, value: impl Into<String>) -> Value {
    json!({"metadata": {"annotations": {name: value.into()}}})
}

fn warned(it: &Sandbox, name: &str) -> Result<String> {
    it.expect_event(name, "Warning", "AllocationFailed")
}

#[test]
fn a_pool_asked_for_by_annotation_gives_the_address_with_and_without_auto_assign() -> Result<()> {
    sandbox(|it| {
        it.pool(
            "first",
            json!({"addresses": [it.range_v4(0, 3)], "priority": 9}),
        )?;
        for (pool, auto, first) in [("auto", true, 4), ("asked", false, 8)] {
            let addresses = [it.range_v4(first, first + 3), it.range_v6(first, first + 3)];
            it.pool(pool, json!({"addresses": addresses, "autoAssign": auto}))?;
            let name = it.name(pool);
            it.dual_service(pool, annotated("heraldlb.io/pool", &name))?;
            it.expect_addresses(pool, &[it.v4(first), it.v6(first)])?;
            let service = it.get_service(pool)?;
            same(
                &text(&service["metadata"]["annotations"]["heraldlb.io/allocated-from"]),
                &name.as_str(),
            )?;
        }
        Ok(())
    })
}

#[test]
fn a_pool_without_auto_assign_is_never_used_unasked_even_if_it_is_the_only_one() -> Result<()> {
    sandbox(|it| {
        it.pool(
            "a",
            json!({"addresses": [it.range_v4(0, 3)], "autoAssign": false}),
        )?;
        it.service("unasked", json!({}))?;
        it.service("asked", annotated("heraldlb.io/pool", it.name("a")))?;
        it.expect_addresses("asked", &[it.v4(0)])?;
        it.expect_pending("unasked", "NotAllowed")?;
        warned(it, "unasked").map(drop)
    })
}

#[test]
fn requested_addresses_are_given_also_without_auto_assign() -> Result<()> {
    sandbox(|it| {
        let addresses = [it.range_v4(0, 9), it.range_v6(0, 9)];
        it.pool("a", json!({"addresses": addresses, "autoAssign": false}))?;
        it.service(
            "four",
            annotated("heraldlb.io/addresses", it.v4(7).to_string()),
        )?;
        it.expect_addresses("four", &[it.v4(7)])?;
        let both = format!("{},{}", it.v6(5), it.v4(5));
        it.dual_service("both", annotated("heraldlb.io/addresses", both))?;
        it.expect_addresses("both", &[it.v4(5), it.v6(5)])?;
        it.service("field", json!({"spec": {"loadBalancerIP": it.v4(3)}}))?;
        it.expect_addresses("field", &[it.v4(3)])
    })
}

#[test]
fn an_address_outside_all_pools_stays_pending_with_a_warning() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
        let outside = it.v4(9);
        it.service(
            "web",
            annotated("heraldlb.io/addresses", outside.to_string()),
        )?;
        it.expect_pending("web", "OutsidePools")?;
        let note = warned(it, "web")?;
        ensure!(note.contains(&outside.to_string()), "the note is {note:?}");
        it.pool("a", json!({"addresses": [it.range_v4(0, 9)]}))?;
        it.expect_addresses("web", &[outside])
    })
}

#[test]
fn both_forms_of_a_request_at_once_stay_pending_with_a_warning() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
        it.service(
            "web",
            json!({
                "metadata": {"annotations": {"heraldlb.io/addresses": it.v4(1).to_string()}},
                "spec": {"loadBalancerIP": it.v4(2)},
            }),
        )?;
        it.expect_pending("web", "InvalidRequest")?;
        warned(it, "web").map(drop)
    })
}

#[test]
fn an_address_another_service_owns_is_refused_and_its_owner_unaffected() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
        it.service("owner", json!({}))?;
        it.expect_addresses("owner", &[it.v4(0)])?;
        let owner = it.get_service("owner")?;
        it.service(
            "other",
            annotated("heraldlb.io/addresses", it.v4(0).to_string()),
        )?;
        it.expect_pending("other", "AddressInUse")?;
        let note = warned(it, "other")?;
        ensure!(
            note.contains("owner"),
            "the note does not name the owner: {note:?}"
        );
        same(&ingress(&it.get_service("owner")?), &ingress(&owner))
    })
}

#[test]
fn a_changed_request_keeps_the_old_address_until_the_new_one_is_certain() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 9)]}))?;
        it.service(
            "owner",
            annotated("heraldlb.io/addresses", it.v4(4).to_string()),
        )?;
        it.expect_addresses("owner", &[it.v4(4)])?;
        it.service(
            "web",
            annotated("heraldlb.io/addresses", it.v4(2).to_string()),
        )?;
        it.expect_addresses("web", &[it.v4(2)])?;
        let recording = it
            .cluster
            .api
            .record(&format!("/api/v1/namespaces/{}/services", it.namespace))?;
        it.service(
            "web",
            annotated("heraldlb.io/addresses", it.v4(4).to_string()),
        )?;
        warned(it, "web")?;
        same(&ingress(&it.get_service("web")?), &vec![it.v4(2)])?;
        it.service(
            "web",
            annotated("heraldlb.io/addresses", it.v4(6).to_string()),
        )?;
        it.expect_addresses("web", &[it.v4(6)])?;
        ensure!(recording.is_live(), "the watch has ended");
        for event in recording.events() {
            let object = &event["object"];
            ensure!(
                !ingress(object).is_empty(),
                "{} had no address for a moment",
                text(&object["metadata"]["name"])
            );
        }
        Ok(())
    })
}

#[test]
fn addresses_that_another_manager_wrote_stay_until_it_takes_them_out() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
        it.service("web", json!({}))?;
        it.expect_addresses("web", &[it.v4(0)])?;
        let status = format!("/api/v1/namespaces/{}/services/web/status", it.namespace);
        let shows = |addresses: Value| json!({"status": {"loadBalancer": {"ingress": addresses}}});
        let theirs = json!([{"ip": "192.0.2.9"}]);
        it.cluster.api.merge(&status, &shows(theirs))?;
        eventually("the Service says who owns its addresses", LONG, || {
            let service = it.get_service("web")?;
            let allocated = condition(&service, "heraldlb.io/Allocated");
            same(&text(&allocated["reason"]), &"StatusOwned")
        })?;
        let strange: std::net::IpAddr = "192.0.2.9".parse()?;
        same(&ingress(&it.get_service("web")?), &vec![strange])?;
        // Its own address is kept for it.
        it.service("next", json!({}))?;
        it.expect_addresses("next", &[it.v4(1)])?;
        same(&ingress(&it.get_service("web")?), &vec![strange])?;
        it.cluster.api.merge(&status, &shows(Value::Null))?;
        it.expect_addresses("web", &[it.v4(0)])
    })
}

#[test]
fn an_unknown_pool_is_named_and_serves_as_soon_as_it_exists() -> Result<()> {
    sandbox(|it| {
        it.service("web", annotated("heraldlb.io/pool", it.name("later")))?;
        it.expect_pending("web", "UnknownPool")?;
        let note = warned(it, "web")?;
        ensure!(note.contains(&it.name("later")), "the note is {note:?}");
        it.pool("later", json!({"addresses": [it.range_v4(0, 3)]}))?;
        it.expect_addresses("web", &[it.v4(0)])
    })
}

#[test]
fn a_pool_of_another_namespace_is_refused_also_when_asked_for() -> Result<()> {
    sandbox(|it| {
        let elsewhere = json!({"namespaces": ["kube-system"]});
        it.pool(
            "theirs",
            json!({"addresses": [it.range_v4(0, 3)], "allowed": elsewhere}),
        )?;
        it.service("web", annotated("heraldlb.io/pool", it.name("theirs")))?;
        it.expect_pending("web", "NotAllowed")?;
        it.service("unasked", json!({}))?;
        it.expect_pending("unasked", "NotAllowed")
    })
}

#[test]
fn a_label_added_to_a_namespace_makes_the_pool_usable_there() -> Result<()> {
    sandbox(|it| {
        let selectors = json!([{"matchLabels": {"shop": it.namespace}}]);
        let allowed = json!({"namespaces": [], "namespaceSelectors": selectors});
        it.pool(
            "a",
            json!({"addresses": [it.range_v4(0, 3)], "allowed": allowed}),
        )?;
        it.service("web", json!({}))?;
        it.expect_pending("web", "NotAllowed")?;
        it.cluster.api.merge(
            &format!("/api/v1/namespaces/{}", it.namespace),
            &json!({"metadata": {"labels": {"shop": it.namespace}}}),
        )?;
        it.expect_addresses("web", &[it.v4(0)])
    })
}

#[test]
fn a_pool_with_service_selectors_serves_only_what_they_select() -> Result<()> {
    sandbox(|it| {
        let allowed = json!({"serviceSelectors": [{"matchLabels": {"expose": "lan"}}]});
        it.pool(
            "a",
            json!({"addresses": [it.range_v4(0, 3)], "allowed": allowed}),
        )?;
        it.service("plain", json!({}))?;
        it.service(
            "labelled",
            json!({"metadata": {"labels": {"expose": "lan"}}}),
        )?;
        it.expect_addresses("labelled", &[it.v4(0)])?;
        it.expect_pending("plain", "NotAllowed")?;
        it.service("plain", json!({"metadata": {"labels": {"expose": "lan"}}}))?;
        it.expect_addresses("plain", &[it.v4(1)])
    })
}

#[test]
fn annotations_of_metallb_are_understood() -> Result<()> {
    sandbox(|it| {
        it.pool(
            "a",
            json!({"addresses": [it.range_v4(0, 9)], "autoAssign": false}),
        )?;
        for (index, prefix) in [(1, "metallb.io"), (2, "metallb.universe.tf")] {
            let asks = format!("asks-{index}");
            let address = it.v4(index);
            it.service(
                &asks,
                annotated(&format!("{prefix}/loadBalancerIPs"), address.to_string()),
            )?;
            it.expect_addresses(&asks, &[address])?;
            let pool = format!("pool-{index}");
            it.service(
                &pool,
                annotated(&format!("{prefix}/address-pool"), it.name("a")),
            )?;
            it.wait_addresses(&pool)?;
            // Of the older spelling people are told once, and of the newer never.
            for name in [&asks, &pool] {
                if prefix == "metallb.universe.tf" {
                    let note = it.expect_event(name, "Warning", "DeprecatedAnnotation")?;
                    ensure!(note.contains("heraldlb.io/"), "the note is {note:?}");
                }
                let told = it.events(name, "DeprecatedAnnotation")?.len();
                same(&told, &usize::from(prefix == "metallb.universe.tf"))?;
            }
        }
        Ok(())
    })
}

#[test]
fn an_internal_service_gets_an_address_of_an_internal_pool_only() -> Result<()> {
    sandbox(|it| {
        it.pool("outer", json!({"addresses": [it.range_v4(0, 3)]}))?;
        it.service("inner", annotated("heraldlb.io/scope", "internal"))?;
        it.expect_pending("inner", "NotAllowed")?;
        it.pool(
            "inner",
            json!({"addresses": [it.range_v4(4, 7)], "scope": "Internal", "priority": 9}),
        )?;
        it.expect_addresses("inner", &[it.v4(4)])?;
        it.service("outer", json!({}))?;
        it.expect_addresses("outer", &[it.v4(0)])
    })
}

#[test]
fn services_with_one_key_share_an_address_if_their_ports_differ() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
        let port = |port: u16| json!([{"name": "http", "port": port, "targetPort": 8080}]);
        let shared = |number: u16| {
            json!({
                "metadata": {"annotations": {"heraldlb.io/sharing-key": "web"}},
                "spec": {"ports": port(number)},
            })
        };
        it.service("s80", shared(80))?;
        it.expect_addresses("s80", &[it.v4(0)])?;
        it.service("s81", shared(81))?;
        it.expect_addresses("s81", &[it.v4(0)])?;
        it.service("again", shared(81))?;
        it.expect_addresses("again", &[it.v4(1)])?;
        it.service("keyless", json!({"spec": {"ports": port(82)}}))?;
        it.expect_addresses("keyless", &[it.v4(2)])?;
        eventually("the claim lists both", LONG, || {
            let name = herald_model::VirtualIp::object_name(it.v4(0));
            let vip = it
                .cluster
                .api
                .get(&herald_e2e::api::herald("virtualips", &name))?;
            let services = herald_e2e::object::items(&vip["spec"]["services"]);
            let names: Vec<&str> = services.iter().map(|of| text(&of["name"])).collect();
            same(&names, &vec!["s80", "s81"])
        })
    })
}
