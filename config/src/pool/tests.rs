use std::collections::BTreeSet;
use std::time::Duration;

use herald_api::{Allowed as ApiAllowed, IPPoolSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelectorRequirement, Time};

use super::*;
use crate::sentence;

fn object(addresses: &[&str]) -> IPPool {
    IPPool::new(
        "public",
        IPPoolSpec {
            addresses: addresses.iter().map(ToString::to_string).collect(),
            ..IPPoolSpec::default()
        },
    )
}

fn refusal(object: &IPPool) -> String {
    sentence(&pool(object).unwrap_err())
}

#[test]
fn a_pool_of_addresses_alone_has_the_documented_defaults() {
    let mut object = object(&["192.0.2.0/24", "2001:db8::10-2001:db8::1f"]);
    object.metadata.creation_timestamp = Some(Time("2026-01-02T03:04:05Z".parse().unwrap()));
    assert_eq!(
        pool(&object),
        Ok(Pool {
            name: "public".into(),
            created: 1_767_323_045,
            ranges: vec![
                "192.0.2.0/24".parse().unwrap(),
                "2001:db8::10-2001:db8::1f".parse().unwrap()
            ],
            auto_assign: true,
            avoid_buggy_ips: false,
            scope: Scope::External,
            priority: 0,
            allowed: Allowed::default(),
            advertisement: AdvertisementPolicy::Default,
            conflict_probe: true,
            conflict_policy: ConflictPolicy::Defend,
            reuse_delay: Duration::ZERO,
        })
    );
}

#[test]
fn every_field_is_carried_over() {
    let mut object = object(&["192.0.2.0/24"]);
    let labelled = LabelSelector {
        match_labels: Some([("tier".to_owned(), "db".to_owned())].into()),
        match_expressions: None,
    };
    object.spec = IPPoolSpec {
        addresses: vec!["192.0.2.0/24".to_owned()],
        auto_assign: false,
        avoid_buggy_ips: true,
        scope: ApiScope::Internal,
        priority: -3,
        allowed: ApiAllowed {
            namespaces: vec!["b".to_owned(), "a".to_owned()],
            namespace_selectors: vec![labelled.clone()],
            service_selectors: vec![labelled, LabelSelector::default()],
        },
        advertisement: ApiAdvertisementPolicy::Explicit,
        conflict_probe: false,
        conflict_policy: ApiConflictPolicy::Yield,
        reuse_delay: "1h2m3s4ms".to_owned(),
    };
    let got = pool(&object).unwrap();
    assert!(!got.auto_assign && got.avoid_buggy_ips && !got.conflict_probe);
    assert_eq!(got.conflict_policy, ConflictPolicy::Yield);
    assert_eq!(got.scope, Scope::Internal);
    assert_eq!(got.priority, -3);
    assert_eq!(got.advertisement, AdvertisementPolicy::Explicit);
    assert_eq!(got.reuse_delay, Duration::from_millis(3_723_004));
    assert_eq!(
        got.allowed,
        Allowed {
            namespaces: BTreeSet::from(["a".into(), "b".into()]),
            namespace_selectors: vec![Selector::label("tier", "db")],
            service_selectors: vec![Selector::label("tier", "db"), Selector::default()],
        }
    );
}

#[test]
fn a_refused_address_is_named_with_its_place() {
    for (addresses, expected) in [
        (&[][..], "spec.addresses is empty"),
        (
            &["192.0.2.0/24", "192.0.3.9-192.0.3.1"],
            "spec.addresses[1]: \"192.0.3.9-192.0.3.1\" is reversed",
        ),
        (
            &["192.0.2.1/24"],
            "spec.addresses[0]: \"192.0.2.1/24\" has host bits set: write 192.0.2.0/24",
        ),
        (&["192.0.2"], "spec.addresses[0]: \"192.0.2\" is neither"),
        (
            &["192.0.2.1-2001:db8::1"],
            "spec.addresses[0]: \"192.0.2.1-2001:db8::1\" has an IPv4 and an IPv6 end",
        ),
    ] {
        let got = refusal(&object(addresses));
        assert!(got.starts_with(expected), "{got:?} for {addresses:?}");
    }
}

#[test]
fn entries_of_one_pool_must_not_overlap() {
    assert_eq!(
        refusal(&object(&[
            "192.0.2.128-192.0.2.200",
            "198.51.100.0/24",
            "192.0.2.0/24"
        ])),
        "spec.addresses: \"192.0.2.0/24\" and \"192.0.2.128-192.0.2.200\" have addresses in common"
    );
    assert!(pool(&object(&["192.0.2.0/25", "192.0.2.128/25"])).is_ok());
}

#[test]
fn a_refused_selector_is_named_with_its_place() {
    let mut object = object(&["192.0.2.0/24"]);
    object.spec.allowed.service_selectors = vec![
        LabelSelector::default(),
        LabelSelector {
            match_labels: None,
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "tier".to_owned(),
                operator: "In".to_owned(),
                values: None,
            }]),
        },
    ];
    assert_eq!(
        refusal(&object),
        "spec.allowed.serviceSelectors[1]: matchExpressions on \"tier\" has operator In and no values"
    );
}

#[test]
fn a_time_to_rest_that_is_no_duration_is_refused() {
    let mut object = object(&["192.0.2.0/24"]);
    object.spec.reuse_delay = "soon".to_owned();
    assert!(refusal(&object).starts_with("spec.reuseDelay \"soon\" is not a duration"));
}
