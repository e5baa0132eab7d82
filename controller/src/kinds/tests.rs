use serde_json::json;

use super::*;
use kube::core::DeserializeGuard;

fn service(status: &serde_json::Value) -> ObservedService {
    let object: Service = serde_json::from_value(json!({
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "12",
            "annotations": {
                "heraldlb.io/allocated-from": "public",
                "metallb.universe.tf/address-pool": "public",
            },
        },
        "spec": {
            "type": "LoadBalancer",
            "clusterIPs": ["10.96.0.9"], "ipFamilies": ["IPv4"],
            "ports": [{ "port": 80 }],
        },
        "status": status,
    }))
    .unwrap();
    match Services(ServiceFlags::default()).applied(object) {
        Some(Input::ServiceApplied(service)) => *service,
        other => panic!("{other:?}"),
    }
}

#[test]
fn service_brings_its_identity_status_and_annotations() {
    let observed = service(&json!({
        "loadBalancer": { "ingress": [
            { "ip": "192.0.2.1", "ipMode": "VIP" }, { "hostname": "elsewhere.example" },
        ] },
        "conditions": [{
            "type": "heraldlb.io/Allocated", "status": "True", "reason": "Allocated",
            "message": "here", "lastTransitionTime": "1970-01-01T00:01:00Z",
        }, {
            "type": "example.com/Other", "status": "True", "reason": "X", "message": "",
            "lastTransitionTime": "1970-01-01T00:02:00Z",
        }],
    }));
    assert_eq!(observed.key, ServiceKey::new("shop", "web"));
    assert_eq!(observed.identity.uid, Uid::from("u1"));
    assert_eq!(observed.identity.version, Version::new("12"));
    assert_eq!(observed.ingress, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
    let expected = Condition {
        status: true,
        reason: "Allocated".into(),
        message: "here".into(),
        since: 60,
    };
    assert_eq!(
        (observed.allocated, observed.announced),
        (Some(expected), None)
    );
    assert_eq!(observed.allocated_from, Some("public".into()));
    assert_eq!(
        observed.deprecated,
        [("metallb.universe.tf/address-pool", "heraldlb.io/pool")]
    );
    assert!(observed.service.is_some());
}

#[test]
fn service_of_another_class_is_told_of_as_not_ours() {
    let object: Service = serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "12" },
        "spec": { "type": "LoadBalancer", "loadBalancerClass": "example.com/other" },
    }))
    .unwrap();
    let Some(Input::ServiceApplied(observed)) = Services(ServiceFlags::default()).applied(object)
    else {
        panic!("it is told of all the same")
    };
    assert_eq!(observed.service, None);
}

#[test]
fn two_lives_of_one_name_have_two_keys() {
    let meta = |uid: &str| ObjectMeta {
        name: Some("web".to_owned()),
        namespace: Some("shop".to_owned()),
        uid: Some(uid.to_owned()),
        ..ObjectMeta::default()
    };
    assert_ne!(Services::key(&meta("u1")), Services::key(&meta("u2")));
}

#[test]
fn claim_that_cannot_be_read_still_blocks_its_address() {
    let object = json!({
        "apiVersion": "heraldlb.io/v1alpha1", "kind": "VirtualIP",
        "metadata": { "name": "192-0-2-1", "uid": "v1" },
        "spec": { "address": 7 },
    });
    let guarded: DeserializeGuard<VirtualIP> = serde_json::from_value(object).unwrap();
    let invalid = guarded.0.unwrap_err();
    let address = "192.0.2.1".parse().unwrap();
    assert_eq!(
        Vips.undecodable(&invalid.metadata, &invalid.error),
        Some(Input::VipInvalid { address })
    );
}

#[test]
fn virtual_ips_with_other_names_are_not_claims() {
    let meta = ObjectMeta {
        name: Some("by-hand".to_owned()),
        ..ObjectMeta::default()
    };
    assert_eq!(Vips::key(&meta), None);
}

#[test]
fn invalid_pool_is_told_of_with_the_field_and_the_reason() {
    let object: IPPool = serde_json::from_value(json!({
        "apiVersion": "heraldlb.io/v1alpha1", "kind": "IPPool",
        "metadata": { "name": "public", "uid": "p1" },
        "spec": { "addresses": ["192.0.2.9-192.0.2.1"] },
    }))
    .unwrap();
    let Some(Input::ObjectInvalid {
        object, message, ..
    }) = Pools.applied(object)
    else {
        panic!("reversed")
    };
    assert_eq!(object, UserObject::Pool("public".into()));
    assert!(
        message.contains("spec.addresses[0]") && message.contains("reversed"),
        "{message}"
    );
}

#[test]
fn speaker_pod_counts_while_it_is_ready_and_not_on_its_way_out() {
    let pod = |ready: &str, deleted: Option<&str>| {
        let object: Pod = serde_json::from_value(json!({
            "metadata": { "name": "speaker-1", "deletionTimestamp": deleted },
            "spec": { "nodeName": "node1", "containers": [] },
            "status": { "conditions": [{ "type": "Ready", "status": ready }] },
        }))
        .unwrap();
        match SpeakerPods.applied(object) {
            Some(Input::SpeakerPodApplied(pod)) => pod.ready,
            other => panic!("{other:?}"),
        }
    };
    assert!(pod("True", None));
    assert!(!pod("False", None));
    assert!(!pod("True", Some("2026-01-01T00:00:00Z")));
}
