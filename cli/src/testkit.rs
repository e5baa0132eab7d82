//! A small cluster of fixed objects.

use herald_controller::kinds;
use herald_controller::watch::Kind;
use herald_controller_core::Input;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::picture::Picture;
use crate::read::Objects;

/// 2026-11-30T00:00:00Z.
pub(crate) const NOW: i64 = 1_795_996_800;

fn object<T: DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

/// The picture of these objects.
pub(crate) fn picture(values: &[Value]) -> Picture {
    let mut all = Objects::default();
    let flags = all.flags().clone();
    for value in values {
        let input = match value["kind"].as_str().unwrap() {
            "Service" => {
                all.services.push(object(value));
                kinds::Services(flags.clone()).applied(object(value))
            }
            "VirtualIP" => {
                all.vips.push(object(value));
                kinds::Vips.applied(object(value))
            }
            "IPPool" => kinds::Pools.applied(object(value)),
            "L2Advertisement" => kinds::Advertisements.applied(object(value)),
            "Node" => {
                all.nodes.push(object(value));
                let ignore_exclude = false;
                kinds::Nodes { ignore_exclude }.applied(object(value))
            }
            "Speaker" => {
                all.speakers.push(object(value));
                kinds::Speakers.applied(object(value))
            }
            "Pod" => kinds::SpeakerPods.applied(object(value)),
            "Namespace" => kinds::Namespaces.applied(object(value)),
            "EndpointSlice" => {
                all.slices.push(object(value));
                kinds::Slices.applied(object(value))
            }
            kind => panic!("no kind {kind}"),
        };
        all.inputs.extend(input);
    }
    let is_invalid = |input: &Input| matches!(input, Input::VipInvalid { .. });
    assert!(
        !all.inputs.iter().any(is_invalid),
        "a test writes valid VirtualIPs"
    );
    Picture::new(all, NOW)
}

/// Three nodes with their speakers on one LAN.
pub(crate) fn nodes() -> Vec<Value> {
    (1..=3).flat_map(node).collect()
}

fn node(number: u8) -> [Value; 3] {
    let name = format!("node{number}");
    [
        json!({
            "kind": "Node", "apiVersion": "v1", "metadata": {"name": name},
            "status": {
                "addresses": [{"type": "InternalIP", "address": format!("192.0.2.{number}")}],
                "conditions": [{"type": "Ready", "status": "True"}],
                "nodeInfo": {
                    "kernelVersion": "6.12.1", "architecture": "amd64", "kubeletVersion": "v1.35.4",
                    "bootID": "", "containerRuntimeVersion": "", "kubeProxyVersion": "",
                    "machineID": "", "operatingSystem": "linux", "osImage": "", "systemUUID": "",
                },
            },
        }),
        json!({
            "kind": "Speaker", "apiVersion": "heraldlb.io/v1alpha1", "metadata": {"name": name},
            "spec": {"retire": false},
            "status": {
                "version": env!("CARGO_PKG_VERSION"),
                "segments": [{
                    "name": "192.0.2.0/24", "interface": "eth0", "mac": format!("02:00:00:00:00:0{number}"),
                    "prefixes": [format!("192.0.2.{number}/24")], "carrier": true, "incarnation": 1,
                }],
                "dataPlane": {"mode": "tcx"},
                "conditions": [condition("Ready", "True", "Ready")],
            },
        }),
        json!({
            "kind": "Pod", "apiVersion": "v1", "metadata": {"name": format!("speaker-{number}")},
            "spec": {"nodeName": name, "containers": []},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        }),
    ]
}

pub(crate) fn condition(type_: &str, status: &str, reason: &str) -> Value {
    json!({
        "type": type_, "status": status, "reason": reason, "message": format!("{type_} is {status}"),
        "lastTransitionTime": "2026-11-29T00:00:00Z",
    })
}

pub(crate) fn pool(name: &str, spec: &Value) -> Value {
    json!({
        "kind": "IPPool", "apiVersion": "heraldlb.io/v1alpha1",
        "metadata": {"name": name, "uid": format!("uid-{name}")}, "spec": spec,
    })
}

/// A Service in namespace shop that shows these addresses.
pub(crate) fn service(name: &str, annotations: &Value, addresses: &[&str]) -> Value {
    let ingress: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "kind": "Service", "apiVersion": "v1",
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "resourceVersion": "5",
            "annotations": annotations,
        },
        "spec": {
            "type": "LoadBalancer", "ipFamilies": ["IPv4"], "clusterIPs": ["10.96.0.9"],
            "selector": {"app": name},
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30_080}],
        },
        "status": {"loadBalancer": {"ingress": ingress}},
    })
}

/// The claim of a Service on 192.0.2.`last`, which node `holder` announces.
pub(crate) fn vip(last: u8, pool: &str, service: &str, holder: u8) -> Value {
    let candidate = |number: u8| json!({"node": format!("node{number}"), "incarnation": 1});
    let next = |step: u8| (holder - 1 + step) % 3 + 1;
    json!({
        "kind": "VirtualIP", "apiVersion": "heraldlb.io/v1alpha1",
        "metadata": {
            "name": format!("192-0-2-{last}"), "uid": format!("vip-{last}"), "resourceVersion": "4",
        },
        "spec": {
            "address": format!("192.0.2.{last}"), "pool": pool, "epoch": 7, "phase": "Active",
            "announce": "All",
            "services": [{"namespace": "shop", "name": service, "uid": format!("uid-{service}")}],
            "segments": [{
                "name": "192.0.2.0/24",
                "candidates": [candidate(holder), candidate(next(1)), candidate(next(2))],
            }],
        },
        "status": {
            "segments": [{
                "name": "192.0.2.0/24", "node": format!("node{holder}"), "interface": "eth0",
                "mac": format!("02:00:00:00:00:0{holder}"), "epoch": 7,
                "since": "2026-11-29T23:00:00Z", "reason": "Planned",
            }],
            "forwarding": "dsr", "targets": 3,
            "conditions": [condition("Announced", "True", "Announced")],
        },
    })
}

/// A pod of a Service on each of these nodes.
pub(crate) fn slice(service: &str, nodes: &[u8]) -> Value {
    let endpoint = |number: &u8| {
        json!({
            "addresses": [format!("10.244.{number}.8")], "nodeName": format!("node{number}"),
            "conditions": {"ready": true},
        })
    };
    let endpoints: Vec<Value> = nodes.iter().map(endpoint).collect();
    json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
        "metadata": {
            "name": format!("{service}-1"), "namespace": "shop",
            "labels": {"kubernetes.io/service-name": service},
        },
        "endpoints": endpoints,
    })
}

/// Nodes, pool public, and Service web on 192.0.2.10 that serves.
pub(crate) fn serving() -> Vec<Value> {
    let mut all = nodes();
    all.extend([
        pool("public", &json!({"addresses": ["192.0.2.10-192.0.2.11"]})),
        service("web", &json!({}), &["192.0.2.10"]),
        vip(10, "public", "web", 2),
        slice("web", &[1, 2, 3]),
    ]);
    all
}
