use herald_model::{ForwardingMode, Request, Scope};
use serde_json::{Value, json};

use super::*;

/// A Service as the API server gives it, with `changes` merged in.
fn object(changes: Value) -> ApiService {
    let mut object = json!({
        "metadata": {
            "name": "web",
            "namespace": "shop",
            "uid": "0c9d",
            "creationTimestamp": "2026-01-02T03:04:05Z",
        },
        "spec": {
            "type": "LoadBalancer",
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "ports": [{ "port": 80, "protocol": "TCP", "nodePort": 30080 }],
            "selector": { "app": "web" },
        },
    });
    merge(&mut object, changes);
    serde_json::from_value(object).unwrap()
}

fn merge(into: &mut Value, changes: Value) {
    match (into, changes) {
        (Value::Object(into), Value::Object(changes)) => {
            for (key, value) in changes {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, changes) => *into = changes,
    }
}

fn read(changes: Value) -> Service {
    service(&object(changes), &ServiceFlags::default()).unwrap()
}

fn annotated(annotations: &[(&str, &str)]) -> Service {
    let annotations: serde_json::Map<_, _> = annotations
        .iter()
        .map(|(key, value)| ((*key).to_owned(), json!(value)))
        .collect();
    read(json!({ "metadata": { "annotations": annotations } }))
}

fn invalid(service: &Service) -> &str {
    service.request.invalid.as_deref().unwrap_or("nothing")
}

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn a_plain_service_asks_for_nothing() {
    assert_eq!(
        read(json!({})),
        Service {
            key: ServiceKey::new("shop", "web"),
            uid: "0c9d".into(),
            created: 1_767_323_045,
            labels: herald_model::Labels::new(),
            families: vec![Family::V4],
            ip_family_policy: IpFamilyPolicy::SingleStack,
            request: Request::default(),
            sharing_key: None,
            scope: Scope::External,
            ports: vec![ServicePort {
                name: "".into(),
                protocol: Protocol::Tcp,
                port: 80,
                node_port: Some(30080),
            }],
            traffic_policy: TrafficPolicy::Cluster,
            health_check_node_port: None,
            affinity: SessionAffinity::None,
            source_ranges: vec![],
            publish_not_ready: false,
            selector: [("app".to_owned(), "web".to_owned())].into(),
            forwarding: ForwardingMode::Auto,
            ingress: vec![],
            allocated_from: None,
            deleting: false,
        }
    );
}

#[test]
fn every_field_is_carried_over() {
    let got = read(json!({
        "metadata": {
            "labels": { "tier": "web" },
            "annotations": { "heraldlb.io/allocated-from": "public" },
            "deletionTimestamp": "2026-01-02T03:04:06Z",
        },
        "spec": {
            "ipFamilies": ["IPv6", "IPv4"],
            "ipFamilyPolicy": "RequireDualStack",
            "ports": [
                { "port": 53, "protocol": "UDP", "nodePort": 0 },
                { "port": 53 },
                { "port": 9, "protocol": "SCTP" },
            ],
            "externalTrafficPolicy": "Local",
            "healthCheckNodePort": 31000,
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": { "clientIP": { "timeoutSeconds": 60 } },
            "loadBalancerSourceRanges": ["198.51.100.0/24", "192.0.2.9/24", " 192.0.2.0/24 "],
            "publishNotReadyAddresses": true,
        },
        "status": { "loadBalancer": { "ingress": [
            { "ip": "192.0.2.10" }, { "hostname": "lb.example.com" }, { "ip": "2001:db8::1" },
        ] } },
    }));
    assert_eq!(got.labels["tier"], "web");
    assert_eq!(got.allocated_from, Some("public".into()));
    assert!(got.deleting && got.publish_not_ready);
    assert_eq!(got.families, [Family::V6, Family::V4]);
    assert_eq!(got.ip_family_policy, IpFamilyPolicy::RequireDualStack);
    let ports: Vec<_> = got
        .ports
        .iter()
        .map(|port| (port.protocol, port.port, port.node_port))
        .collect();
    assert_eq!(
        ports,
        [
            (Protocol::Udp, 53, None),
            (Protocol::Tcp, 53, None),
            (Protocol::Sctp, 9, None)
        ]
    );
    assert_eq!(got.traffic_policy, TrafficPolicy::Local);
    assert_eq!(got.health_check_node_port, Some(31000));
    assert_eq!(
        got.affinity,
        SessionAffinity::ClientIp(Duration::from_mins(1))
    );
    assert_eq!(
        got.source_ranges,
        ["192.0.2.0/24", "198.51.100.0/24"].map(|text| text.parse().unwrap())
    );
    assert_eq!(got.ingress, ips(&["192.0.2.10", "2001:db8::1"]));
}

#[test]
fn services_of_other_types_are_not_ours() {
    for type_ in ["ClusterIP", "NodePort", "ExternalName"] {
        let object = object(json!({ "spec": { "type": type_ } }));
        assert_eq!(service(&object, &ServiceFlags::default()), None, "{type_}");
    }
    assert_eq!(
        service(&ApiService::default(), &ServiceFlags::default()),
        None
    );
}

#[test]
fn services_of_a_foreign_class_are_not_ours() {
    let of_class = |class: Value| object(json!({ "spec": { "loadBalancerClass": class } }));
    let default = ServiceFlags::default();
    assert!(service(&of_class(Value::Null), &default).is_some());
    assert!(service(&of_class(json!("heraldlb.io/herald")), &default).is_some());
    assert_eq!(
        service(&of_class(json!("example.com/other")), &default),
        None
    );
    let only_foo = ServiceFlags {
        load_balancer_classes: vec!["foo".to_owned()],
        ..default
    };
    assert!(service(&of_class(json!("foo")), &only_foo).is_some());
    assert_eq!(service(&of_class(Value::Null), &only_foo), None);
    assert_eq!(service(&of_class(json!("bar")), &only_foo), None);
}

#[test]
fn families_come_from_the_cluster_addresses_where_nobody_named_them() {
    let got = read(json!({
        "spec": { "ipFamilies": null, "clusterIPs": ["10.96.0.9", "fd00::9"] },
    }));
    assert_eq!(got.families, [Family::V4, Family::V6]);
}

#[test]
fn affinity_without_a_timeout_has_the_api_servers() {
    let got = read(json!({ "spec": { "sessionAffinity": "ClientIP" } }));
    assert_eq!(
        got.affinity,
        SessionAffinity::ClientIp(Duration::from_hours(3))
    );
}

#[test]
fn the_health_check_port_counts_under_local_only() {
    let got = read(json!({ "spec": { "healthCheckNodePort": 31000 } }));
    assert_eq!(got.health_check_node_port, None);
}

#[test]
fn a_source_range_that_nobody_can_read_never_opens_the_door() {
    let got = read(json!({ "spec": { "loadBalancerSourceRanges": ["everybody"] } }));
    assert_eq!(got.source_ranges, ["0.0.0.0/32".parse().unwrap()]);
    assert_eq!(
        invalid(&got),
        "spec.loadBalancerSourceRanges has \"everybody\"; expected a CIDR such as 192.0.2.0/24"
    );
}

#[test]
fn our_annotations_and_metallbs_mean_the_same() {
    for (pool, addresses, key) in [
        (
            "heraldlb.io/pool",
            "heraldlb.io/addresses",
            "heraldlb.io/sharing-key",
        ),
        (
            "metallb.io/address-pool",
            "metallb.io/loadBalancerIPs",
            "metallb.io/allow-shared-ip",
        ),
        (
            "metallb.universe.tf/address-pool",
            "metallb.universe.tf/loadBalancerIPs",
            "metallb.universe.tf/allow-shared-ip",
        ),
    ] {
        let got = annotated(&[
            (pool, " public"),
            (addresses, "192.0.2.9, 2001:db8::9"),
            (key, "dns"),
        ]);
        assert_eq!(
            got.request,
            Request {
                pool: Some("public".into()),
                addresses: ips(&["192.0.2.9", "2001:db8::9"]),
                invalid: None,
            },
            "{pool}"
        );
        assert_eq!(got.sharing_key.as_deref(), Some("dns"));
    }
}

#[test]
fn empty_annotations_ask_for_nothing() {
    let got = annotated(&[
        ("heraldlb.io/pool", ""),
        ("heraldlb.io/addresses", " "),
        ("heraldlb.io/sharing-key", ""),
        ("heraldlb.io/scope", ""),
        ("heraldlb.io/forwarding", ""),
    ]);
    assert_eq!(got, Service { ..annotated(&[]) });
}

#[test]
fn the_field_of_old_is_a_request_too() {
    let got = read(json!({ "spec": { "loadBalancerIP": "192.0.2.9" } }));
    assert_eq!(got.request.addresses, ips(&["192.0.2.9"]));
    assert_eq!(invalid(&got), "nothing");
}

#[test]
fn an_annotation_and_the_field_of_old_are_never_both_right() {
    for value in ["192.0.2.8", "192.0.2.9"] {
        let got = read(json!({
            "metadata": { "annotations": { "metallb.io/loadBalancerIPs": value } },
            "spec": { "loadBalancerIP": "192.0.2.9" },
        }));
        assert_eq!(
            invalid(&got),
            "annotation metallb.io/loadBalancerIPs and spec.loadBalancerIP (\"192.0.2.9\") are both set; remove one"
        );
    }
}

#[test]
fn two_annotations_of_one_meaning_may_agree_but_not_differ() {
    let got = annotated(&[
        ("heraldlb.io/addresses", "192.0.2.9,2001:db8::9"),
        ("metallb.io/loadBalancerIPs", "2001:db8:0::9, 192.0.2.9"),
        ("heraldlb.io/pool", "a"),
        ("metallb.universe.tf/address-pool", "a"),
    ]);
    assert_eq!(invalid(&got), "nothing");
    for (first, second) in [
        ("heraldlb.io/pool", "metallb.io/address-pool"),
        (
            "metallb.io/address-pool",
            "metallb.universe.tf/address-pool",
        ),
        ("heraldlb.io/sharing-key", "metallb.io/allow-shared-ip"),
    ] {
        let got = annotated(&[(first, "a"), (second, "b")]);
        assert_eq!(
            invalid(&got),
            format!("annotations {first} (\"a\") and {second} (\"b\") differ; remove one")
        );
    }
    let got = annotated(&[
        ("heraldlb.io/addresses", "192.0.2.9"),
        ("metallb.io/loadBalancerIPs", "192.0.2.8"),
    ]);
    assert!(invalid(&got).ends_with("differ; remove one"), "{got:?}");
}

#[test]
fn a_refused_request_names_the_annotation_and_the_value() {
    for (key, value, expected) in [
        (
            "heraldlb.io/addresses",
            "192.0.2",
            "annotation heraldlb.io/addresses has \"192.0.2\"; expected an IP address, or one of each family separated by a comma",
        ),
        (
            "heraldlb.io/addresses",
            "192.0.2.1,",
            "annotation heraldlb.io/addresses has \"\"; expected an IP address, or one of each family separated by a comma",
        ),
        (
            "metallb.universe.tf/loadBalancerIPs",
            "192.0.2.1,192.0.2.2",
            "annotation metallb.universe.tf/loadBalancerIPs has more than one IPv4 address; expected at most one of each family",
        ),
        (
            "heraldlb.io/scope",
            "private",
            "annotation heraldlb.io/scope is \"private\"; expected internal or external",
        ),
        (
            "heraldlb.io/forwarding",
            "fast",
            "annotation heraldlb.io/forwarding is \"fast\"; expected auto, pod, dsr, nodeport or off",
        ),
    ] {
        assert_eq!(invalid(&annotated(&[(key, value)])), expected);
    }
    let got = read(json!({ "spec": { "loadBalancerIP": "web" } }));
    assert!(invalid(&got).starts_with("spec.loadBalancerIP has \"web\""));
}

#[test]
fn every_cloud_vendors_annotation_asks_for_an_internal_address() {
    for (key, value) in [
        ("heraldlb.io/scope", "internal"),
        ("networking.gke.io/load-balancer-type", "Internal"),
        ("cloud.google.com/load-balancer-type", "Internal"),
        (
            "service.beta.kubernetes.io/aws-load-balancer-internal",
            "true",
        ),
        (
            "service.beta.kubernetes.io/aws-load-balancer-internal",
            "0.0.0.0/0",
        ),
        (
            "service.beta.kubernetes.io/aws-load-balancer-scheme",
            "internal",
        ),
        (
            "service.beta.kubernetes.io/azure-load-balancer-internal",
            "true",
        ),
        (
            "service.beta.kubernetes.io/openstack-internal-load-balancer",
            "true",
        ),
        (
            "service.kubernetes.io/ibm-load-balancer-cloud-provider-ip-type",
            "private",
        ),
        (
            "service.beta.kubernetes.io/alibaba-cloud-loadbalancer-address-type",
            "intranet",
        ),
        (
            "service.kubernetes.io/qcloud-loadbalancer-internal-subnetid",
            "subnet-1a2b",
        ),
        (
            "service.beta.kubernetes.io/cce-load-balancer-internal-vpc",
            "true",
        ),
        (
            "service.beta.kubernetes.io/oci-load-balancer-internal",
            "true",
        ),
    ] {
        let got = annotated(&[(key, value)]);
        assert_eq!(got.scope, Scope::Internal, "{key}");
        assert_eq!(invalid(&got), "nothing");
    }
    for (key, value) in [
        (
            "service.beta.kubernetes.io/aws-load-balancer-internal",
            "false",
        ),
        ("service.beta.kubernetes.io/aws-load-balancer-internal", ""),
        (
            "service.beta.kubernetes.io/aws-load-balancer-scheme",
            "internet-facing",
        ),
        ("networking.gke.io/load-balancer-type", "External"),
        (
            "service.kubernetes.io/qcloud-loadbalancer-internal-subnetid",
            "",
        ),
    ] {
        assert_eq!(annotated(&[(key, value)]).scope, Scope::External, "{key}");
    }
}

#[test]
fn our_scope_overrules_a_cloud_vendors() {
    let got = annotated(&[
        ("heraldlb.io/scope", "External"),
        ("networking.gke.io/load-balancer-type", "Internal"),
    ]);
    assert_eq!(got.scope, Scope::External);
}

#[test]
fn every_forwarding_mode_can_be_asked_for() {
    for mode in [
        ForwardingMode::Auto,
        ForwardingMode::Pod,
        ForwardingMode::Dsr,
        ForwardingMode::NodePort,
        ForwardingMode::Off,
    ] {
        let got = annotated(&[("heraldlb.io/forwarding", mode.as_str())]);
        assert_eq!(got.forwarding, mode);
    }
}

#[test]
fn only_the_oldest_spelling_is_deprecated() {
    let with = |key: &str| {
        deprecated_annotations(&object(
            json!({ "metadata": { "annotations": { (key): "a" } } }),
        ))
    };
    assert_eq!(
        with("metallb.universe.tf/address-pool"),
        [("metallb.universe.tf/address-pool", "heraldlb.io/pool")]
    );
    assert_eq!(with("metallb.io/address-pool"), []);
    assert_eq!(with("heraldlb.io/pool"), []);
}

#[test]
fn a_service_that_is_not_ours_says_why() {
    let why = |changes: Value| {
        let object = object(changes);
        let why = not_ours(&object, &ServiceFlags::default());
        assert_eq!(
            why.is_none(),
            service(&object, &ServiceFlags::default()).is_some()
        );
        why.map(|why| why.to_string())
    };
    assert_eq!(why(json!({})), None);
    assert_eq!(
        why(json!({ "spec": { "type": "NodePort" } })).unwrap(),
        "it is of type NodePort, not LoadBalancer"
    );
    assert_eq!(
        why(json!({ "spec": { "type": null } })).unwrap(),
        "it is of type ClusterIP, not LoadBalancer"
    );
    assert_eq!(
        why(json!({ "spec": { "loadBalancerClass": "example.com/lb" } })).unwrap(),
        "its loadBalancerClass is example.com/lb, and Herald serves no class and heraldlb.io/herald"
    );
}
