use herald_model::ServiceKey;
use serde_json::{Value, json};

use super::*;
use crate::testkit::{nodes, picture, pool, service as object, serving, slice, vip};

fn explained(values: &[Value], name: &str) -> Explanation {
    service(&picture(values), &ServiceKey::new("shop", name)).unwrap()
}

/// Outcome, reason and summary of Service web.
fn outcome_of(values: &[Value]) -> (Outcome, String, String) {
    let it = explained(values, "web");
    assert!(it.is_well() || it.remedy.is_some(), "{it:?}");
    (it.outcome, it.reason, it.summary)
}

/// The text of a table has shares in it that depend on hashes.
fn without_shares(text: &str) -> String {
    let line = |line: &str| match line.split_once(" % of the flows") {
        Some((before, after)) => {
            let before = before.trim_end_matches(|c: char| c.is_ascii_digit());
            format!("{before}N % of the flows{after}\n")
        }
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

#[test]
fn a_service_that_serves_is_told_step_by_step() {
    let text = explained(&serving(), "web").text(Style::default());
    assert_eq!(
        without_shares(&text),
        "\
Service shop/web: serving (Serving)
  192.0.2.10 is announced and forwarded

✓ request       any address of any pool; IPv4
                · ports  80/TCP

✓ pools         192.0.2.10 from pool public
                ✓ public  gives 192.0.2.10

✓ claim         192.0.2.10: VirtualIP 192-0-2-10 names the Service, and its status shows 192.0.2.10
                · plan  epoch 7, phase Active

✓ announcement  192.0.2.10: every node may: no L2Advertisement selects pool public

✓ holder        192.0.2.10 on 192.0.2.0/24: node2 announces it on eth0 (02:00:00:00:00:02) for 60m, as planned
                · node1  candidate 3, first for 0 addresses
                ✓ node2  first candidate, first for 1 address
                · node3  candidate 2, first for 0 addresses

✓ forwarding    192.0.2.10: dsr over 3 nodes under Cluster, which answer clients themselves
                · node1  N % of the flows, 1 endpoint
                · node2  N % of the flows, 1 endpoint
                · node3  N % of the flows, 1 endpoint
"
    );
}

#[test]
fn a_pending_service_is_told_with_every_alternative() {
    let mut all = serving();
    all.extend([
        pool(
            "db",
            &json!({"addresses": ["192.0.2.64/30"], "allowed": {"namespaces": ["db"]}}),
        ),
        object("late", &json!({"heraldlb.io/addresses": "192.0.2.10"}), &[]),
    ]);
    let it = explained(&all, "late");
    assert_eq!(
        it.text(Style::default()),
        "\
Service shop/late: pending (AddressInUse)
  address 192.0.2.10 is held by Service shop/web, with which this Service cannot share it
  What to do: ask for another address, or give this Service and shop/web the same heraldlb.io/sharing-key and no port in common

✓ request  exactly 192.0.2.10; IPv4
           · ports  80/TCP

✗ pools    address 192.0.2.10 is held by Service shop/web, with which this Service cannot share it
           · 192.0.2.10  of pool public: held by shop/web
           ✗ 192.0.2.10  can't be shared with shop/web: neither has a sharing key
"
    );
    assert!(!it.is_well());
}

#[test]
fn programs_get_the_same_as_values() {
    let it = explained(&serving(), "web");
    let value = serde_json::to_value(&it).unwrap();
    assert_eq!(value["outcome"], "serving");
    assert_eq!(value["steps"][1]["details"][0]["subject"], "public");
    assert_eq!(value["steps"][1]["level"], "ok");
    let yaml = serde_saphyr::to_string(&it).unwrap();
    let back: Value = serde_saphyr::from_str(&yaml).unwrap();
    assert_eq!(back, value);
}

#[test]
fn colours_change_nothing_but_colours() {
    let text = explained(&serving(), "web").text(Style { color: true });
    assert!(text.contains("\x1b[32mserving\x1b[0m"), "{text:?}");
}

/// The same objects with one changed.
fn changed(kind: &str, change: impl Fn(&mut Value)) -> Vec<Value> {
    let mut all = serving();
    let of_kind = all.iter_mut().filter(|it| it["kind"] == kind);
    of_kind.for_each(change);
    all
}

#[test]
fn what_keeps_an_address_from_serving_is_named() {
    let cases: Vec<(Vec<Value>, Outcome, &str, &str)> = vec![
        (
            changed("VirtualIP", |it| it["status"]["segments"] = json!([])),
            Outcome::Silent,
            "WaitingForSpeaker",
            "node2 is to announce it",
        ),
        (
            changed("IPPool", |it| {
                it["spec"]["advertisement"] = "Explicit".into();
            }),
            Outcome::Silent,
            "NoAdvertisement",
            "has advertisement Explicit",
        ),
        (
            changed("Speaker", |it| {
                it["status"]["segments"][0]["carrier"] = false.into();
            }),
            Outcome::Silent,
            "NoEligibleNode",
            "has no carrier",
        ),
        (
            changed("Speaker", |it| it["status"]["segments"] = json!([])),
            Outcome::Silent,
            "NoEligibleNode",
            "no node has an interface",
        ),
        (
            changed("EndpointSlice", |it| it["endpoints"] = json!([])),
            Outcome::Refusing,
            "NoEndpoints",
            "no pod behind it is ready",
        ),
        (
            changed("VirtualIP", |it| {
                let conditions = it["status"]["conditions"].as_array_mut().unwrap();
                conditions.push(crate::testkit::condition(
                    "Conflict",
                    "True",
                    "AddressConflict",
                ));
            }),
            Outcome::Degraded,
            "AddressConflict",
            "Conflict is True",
        ),
        (
            changed("Service", |it| it["status"] = json!({})),
            Outcome::Pending,
            "StatusPending",
            "does not show 192.0.2.10 yet",
        ),
        (
            changed("VirtualIP", |it| {
                it["spec"]["services"][0]["uid"] = "another".into();
            }),
            Outcome::Pending,
            "ClaimPending",
            "",
        ),
    ];
    for (values, outcome, reason, words) in cases {
        let values: Vec<Value> = if reason == "NoEligibleNode" {
            // Whoever has nothing to announce on has let go.
            let mut values = values;
            let vips = values.iter_mut().filter(|it| it["kind"] == "VirtualIP");
            vips.for_each(|it| it["status"]["segments"] = json!([]));
            values
        } else {
            values
        };
        let seen = outcome_of(&values);
        assert_eq!((seen.0, seen.1.as_str()), (outcome, reason), "{}", seen.2);
        assert!(seen.2.contains(words), "no {words:?} in {:?}", seen.2);
    }
}

#[test]
fn a_status_of_another_controller_is_named_with_its_owner() {
    let all = changed("Service", |it| {
        it["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}});
        it["metadata"]["managedFields"] = json!([{
            "manager": "other-lb", "operation": "Update", "subresource": "status",
            "fieldsType": "FieldsV1", "fieldsV1": {"f:status": {"f:loadBalancer": {"f:ingress": {}}}},
        }]);
    });
    let (outcome, reason, summary) = outcome_of(&all);
    assert_eq!(
        (outcome, reason.as_str()),
        (Outcome::Pending, "StatusOwned")
    );
    assert!(summary.contains("other-lb"), "{summary}");
}

#[test]
fn a_service_that_is_not_ours_says_why() {
    let all = changed("Service", |it| {
        it["spec"]["loadBalancerClass"] = "a.b/c".into();
    });
    let (outcome, reason, summary) = outcome_of(&all);
    assert_eq!(
        (outcome, reason.as_str()),
        (Outcome::NotServed, "OtherClass")
    );
    assert_eq!(
        summary,
        "Herald leaves it alone: its loadBalancerClass is a.b/c, and Herald serves no class and heraldlb.io/herald"
    );
    let all = changed("Service", |it| it["spec"]["type"] = "NodePort".into());
    assert_eq!(outcome_of(&all).1, "NotLoadBalancer");
}

#[test]
fn a_pool_tells_who_has_its_addresses_and_whom_it_refuses() {
    let mut all = serving();
    all.extend([
        vip(11, "public", "shop", 1),
        object("shop", &json!({}), &["192.0.2.11"]),
        slice("shop", &[1]),
        object("late", &json!({}), &[]),
    ]);
    let it = pool_of(&all, "public");
    assert_eq!(
        it.text(Style::default()),
        "\
IPPool public: degraded (Full)
  it has no free IPv4 address
  What to do: add addresses, or delete Services

· serves     external addresses, priority 0

✓ addresses  192.0.2.10-192.0.2.11
             ! IPv4  2 of 2 assigned, none is free

· holders    2 in use
             · 192.0.2.10  shop/web
             · 192.0.2.11  shop/shop

· refuses    1 Service without the address they should have
             ✗ shop/late  pool public is full: 2 of 2 IPv4 addresses assigned

✓ announced  nothing forbids to announce the 2 in use
"
    );
}

fn pool_of(values: &[Value], name: &str) -> Explanation {
    super::pool(&picture(values), &name.into()).unwrap()
}

#[test]
fn a_later_pool_names_the_earlier_one_it_overlaps() {
    let mut all = nodes();
    let mut earlier = pool("a", &json!({"addresses": ["192.0.2.10-192.0.2.19"]}));
    earlier["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
    let mut later = pool("b", &json!({"addresses": ["192.0.2.15-192.0.2.30"]}));
    later["metadata"]["creationTimestamp"] = "2026-02-01T00:00:00Z".into();
    all.extend([earlier, later]);
    let it = pool_of(&all, "b");
    assert_eq!(
        (it.outcome, it.reason.as_str()),
        (Outcome::Degraded, "Overlap")
    );
    let text = it.text(Style::default());
    assert!(
        text.contains("192.0.2.15-192.0.2.19  not served: pool a"),
        "{text}"
    );
    assert_eq!(pool_of(&all, "a").outcome, Outcome::Serving);
}

#[test]
fn a_node_tells_what_it_holds_and_what_keeps_it_from_more() {
    let text = |values: &[Value], name: &str| {
        let it = node(&picture(values), &name.into()).unwrap();
        (it.outcome, it.text(Style::default()))
    };
    let (outcome, told) = text(&serving(), "node2");
    assert_eq!(outcome, Outcome::Serving);
    assert!(
        told.contains("✓ 192.0.2.10  192.0.2.0/24 on eth0"),
        "{told}"
    );
    assert!(
        told.contains("takes traffic: 1 endpoint of 1 Service\n"),
        "{told}"
    );
    let cordoned = changed("Node", |it| it["spec"] = json!({"unschedulable": true}));
    let (outcome, told) = text(&cordoned, "node1");
    assert_eq!(outcome, Outcome::Degraded);
    assert!(
        told.contains("others are planned before it: it is cordoned"),
        "{told}"
    );
    let cut = changed("Speaker", |it| {
        it["status"]["segments"][0]["carrier"] = false.into();
    });
    let (outcome, told) = text(&cut, "node1");
    assert_eq!(outcome, Outcome::NotServed);
    assert!(told.contains("look at the node's cable"), "{told}");
}

#[test]
fn what_is_not_there_is_not_explained() {
    let picture = picture(&serving());
    assert!(service(&picture, &ServiceKey::new("shop", "nobody")).is_none());
    assert!(super::pool(&picture, &"nobody".into()).is_none());
    assert!(node(&picture, &"nobody".into()).is_none());
}
