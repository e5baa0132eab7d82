//! Nodes.

use std::collections::BTreeMap;

use herald_api::{annotations, labels};
use herald_model::{AddressRange, Departure, InterfaceName, Node, NodeName, SegmentName};
use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node as ApiNode;
use k8s_openapi::api::networking::v1::ServiceCIDR;

use crate::meta;

/// The node that the object describes. With `ignore_exclude` the label
/// `node.kubernetes.io/exclude-from-external-load-balancers` does not count.
pub fn node(object: &ApiNode, ignore_exclude: bool) -> Node {
    let labels = object.metadata.labels.clone().unwrap_or_default();
    let status = object.status.as_ref();
    let holds = |type_: &str| {
        status
            .and_then(|status| status.conditions.as_ref())
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == type_ && condition.status == "True")
    };
    Node {
        name: NodeName::from(meta::name(&object.metadata)),
        addresses: status
            .and_then(|status| status.addresses.as_ref())
            .into_iter()
            .flatten()
            .filter(|address| address.type_ == "InternalIP")
            .filter_map(|address| address.address.parse().ok())
            .collect(),
        pod_ranges: object
            .spec
            .as_ref()
            .and_then(|spec| spec.pod_cidrs.as_deref())
            .map(ranges)
            .unwrap_or_default(),
        ready: holds("Ready"),
        network_unavailable: holds("NetworkUnavailable"),
        excluded: !ignore_exclude && labels.contains_key(labels::EXCLUDE_NODE),
        out_of_service: is_tainted(object, labels::OUT_OF_SERVICE_TAINT),
        departure: departure(object),
        labels,
    }
}

fn is_tainted(object: &ApiNode, key: &str) -> bool {
    let spec = object.spec.as_ref();
    spec.and_then(|spec| spec.taints.as_ref())
        .into_iter()
        .flatten()
        .any(|taint| taint.key == key)
}

/// Why the node is about to go: what is most certain first.
fn departure(object: &ApiNode) -> Option<Departure> {
    let spec = object.spec.as_ref();
    let is_cordoned = spec.and_then(|spec| spec.unschedulable).unwrap_or_default();
    if object.metadata.deletion_timestamp.is_some() {
        Some(Departure::Deleted)
    } else if is_tainted(object, labels::SHUTDOWN_TAINT) {
        Some(Departure::ShutDown)
    } else if is_tainted(object, labels::SCALED_DOWN_TAINT) {
        Some(Departure::ScaledDown)
    } else if is_cordoned || is_tainted(object, labels::UNSCHEDULABLE_TAINT) {
        Some(Departure::Cordoned)
    } else {
        None
    }
}

/// The ranges that a `ServiceCIDR` gives cluster addresses from.
pub fn service_ranges(object: &ServiceCIDR) -> Vec<AddressRange> {
    let spec = object.spec.as_ref();
    spec.and_then(|spec| spec.cidrs.as_deref())
        .map(ranges)
        .unwrap_or_default()
}

fn ranges(cidrs: &[String]) -> Vec<AddressRange> {
    let networks = cidrs.iter().filter_map(|cidr| cidr.parse::<IpNet>().ok());
    networks.map(AddressRange::of_network).collect()
}

/// The segments that annotations of the Node give its interfaces.
pub fn segment_overrides(object: &ApiNode) -> BTreeMap<InterfaceName, SegmentName> {
    object
        .metadata
        .annotations
        .iter()
        .flatten()
        .filter_map(|(key, value)| {
            let interface = key.strip_prefix(annotations::SEGMENT_PREFIX)?;
            let segment = value.trim();
            (!interface.is_empty() && !segment.is_empty())
                .then(|| (InterfaceName::from(interface), SegmentName::from(segment)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: serde_json::Value) -> ApiNode {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn a_ready_node_is_usable() {
        let object = object(json!({
            "metadata": { "name": "node1", "labels": { "rack": "a" } },
            "spec": { "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd00:1::/64"] },
            "status": {
                "addresses": [
                    { "type": "Hostname", "address": "node1" },
                    { "type": "InternalIP", "address": "192.0.2.1" },
                    { "type": "InternalIP", "address": "2001:db8::1" },
                    { "type": "ExternalIP", "address": "203.0.113.1" },
                ],
                "conditions": [
                    { "type": "Ready", "status": "True" },
                    { "type": "NetworkUnavailable", "status": "False" },
                ],
            },
        }));
        let got = node(&object, false);
        assert!(got.is_usable());
        assert_eq!(
            got,
            Node {
                name: "node1".into(),
                labels: [("rack".to_owned(), "a".to_owned())].into(),
                addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
                pod_ranges: vec![
                    "10.244.1.0/24".parse().unwrap(),
                    "fd00:1::/64".parse().unwrap()
                ],
                ready: true,
                network_unavailable: false,
                excluded: false,
                out_of_service: false,
                departure: None,
            }
        );
    }

    #[test]
    fn a_node_nobody_heard_of_is_not_ready() {
        for conditions in [json!([]), json!([{ "type": "Ready", "status": "Unknown" }])] {
            let object = object(json!({
                "metadata": { "name": "node1" },
                "status": { "conditions": conditions },
            }));
            assert!(!node(&object, false).is_usable());
        }
        assert!(!node(&ApiNode::default(), false).is_usable());
    }

    #[test]
    fn the_exclude_label_counts_whatever_its_value_unless_ignored() {
        let object = object(json!({
            "metadata": { "name": "node1", "labels": { (labels::EXCLUDE_NODE): "" } },
        }));
        assert!(node(&object, false).excluded);
        assert!(!node(&object, true).excluded);
    }

    #[test]
    fn an_unavailable_network_and_the_out_of_service_taint_are_seen() {
        let object = object(json!({
            "metadata": { "name": "node1" },
            "spec": { "taints": [{ "key": labels::OUT_OF_SERVICE_TAINT, "effect": "NoExecute" }] },
            "status": { "conditions": [{ "type": "NetworkUnavailable", "status": "True" }] },
        }));
        let got = node(&object, false);
        assert!(got.out_of_service && got.network_unavailable);
    }

    #[test]
    fn a_node_that_is_about_to_go_says_why_and_stays_usable() {
        let tainted =
            |key: &str| json!({ "spec": { "taints": [{ "key": key, "effect": "NoSchedule" }] } });
        let cases = [
            (
                json!({ "spec": { "unschedulable": true } }),
                Some(Departure::Cordoned),
            ),
            (
                tainted(labels::UNSCHEDULABLE_TAINT),
                Some(Departure::Cordoned),
            ),
            (
                tainted(labels::SCALED_DOWN_TAINT),
                Some(Departure::ScaledDown),
            ),
            (tainted(labels::SHUTDOWN_TAINT), Some(Departure::ShutDown)),
            (
                json!({
                    "metadata": { "deletionTimestamp": "2026-11-25T00:00:00Z" },
                    "spec": { "unschedulable": true },
                }),
                Some(Departure::Deleted),
            ),
            (json!({ "spec": { "unschedulable": false } }), None),
            (tainted("node-role.kubernetes.io/control-plane"), None),
        ];
        for (mut value, expected) in cases {
            value["metadata"]["name"] = "node1".into();
            value["status"]["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
            let node = node(&object(value), false);
            assert_eq!(node.departure, expected);
            assert!(node.is_usable(), "{expected:?}: its pods go on");
        }
    }

    #[test]
    fn a_service_cidr_holds_its_ranges() {
        let object: ServiceCIDR = serde_json::from_value(json!({
            "metadata": { "name": "kubernetes" },
            "spec": { "cidrs": ["10.96.0.0/12", "fd00:96::/112"] },
        }))
        .unwrap();
        let expected = ["10.96.0.0/12", "fd00:96::/112"].map(|text| text.parse().unwrap());
        assert_eq!(service_ranges(&object), expected);
        assert_eq!(service_ranges(&ServiceCIDR::default()), []);
    }

    #[test]
    fn annotations_name_the_segments_of_interfaces() {
        let object = object(json!({
            "metadata": { "name": "node1", "annotations": {
                "heraldlb.io/segment.eth0": "lan-a",
                "heraldlb.io/segment.eth1.100": " lan-b ",
                "heraldlb.io/segment.": "nothing",
                "heraldlb.io/segment.eth2": "",
            } },
        }));
        assert_eq!(
            segment_overrides(&object),
            [
                ("eth0".into(), "lan-a".into()),
                ("eth1.100".into(), "lan-b".into())
            ]
            .into()
        );
    }
}
