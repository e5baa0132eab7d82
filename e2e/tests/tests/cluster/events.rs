//! Events tell of changes that people see, and of nothing else.

use std::time::Duration;

use anyhow::{Context as _, Result};
use herald_e2e::api::herald;
use herald_e2e::object::text;
use herald_e2e::sandbox::sandbox;
use herald_e2e::wait::{LONG, eventually, same, throughout};
use herald_model::VirtualIp;
use serde_json::{Value, json};

const CHANGES: usize = 1_000;

/// The endpoints of a Service: on each node as many as is said.
fn endpoints(nodes: &[String], counts: &[usize]) -> Value {
    let of_node = |(node, count): (&String, &usize)| -> Vec<Value> {
        let number = nodes
            .iter()
            .position(|other| other == node)
            .unwrap_or_default();
        let endpoint = |last: usize| {
            json!({
                "addresses": [format!("10.244.{}.{}", number + 1, 200 + last)],
                "nodeName": node,
                "conditions": {"ready": true},
            })
        };
        (0..*count).map(endpoint).collect()
    };
    nodes.iter().zip(counts).flat_map(of_node).collect()
}

#[test]
fn a_thousand_changes_of_endpoints_are_no_event() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 0)]}))?;
        let local = json!({"spec": {"externalTrafficPolicy": "Local"}});
        it.service("web", local)?;
        let nodes = it.cluster.nodes();
        let name = it.service_name("web");
        let slices = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices",
            it.namespace
        );
        // Nobody else looks after a slice of this manager's.
        it.cluster.api.apply(&json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{name}-ours"),
                "namespace": it.namespace,
                "labels": {
                    "kubernetes.io/service-name": name,
                    "endpointslice.kubernetes.io/managed-by": "events.rs",
                },
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints(&nodes, &[1, 1, 1]),
        }))?;
        let address = it.wait_announced("web")?;
        let vip = VirtualIp::object_name(address);
        let targets = |expected: u64| {
            eventually(&format!("{expected} targets"), LONG, || {
                let vip = it.cluster.api.get(&herald("virtualips", &vip))?;
                same(&vip["status"]["targets"].as_u64(), &Some(expected))
            })
        };
        targets(3)?;
        it.expect_event_of("web", "Normal", "Announced", address)?;
        let told = || -> Result<Vec<String>> {
            let events = it.events("web", "")?;
            Ok(events
                .iter()
                .map(|event| text(&event["note"]).to_owned())
                .collect())
        };
        let (before, holder) = (told()?, it.cluster.announcer(address)?);
        let path = format!("{slices}/{name}-ours");
        for change in 0..CHANGES {
            // One node is left out in turn, and the others change their weights.
            let counts = [0, 1, 2].map(|node| match (change + node) % 3 {
                0 => 0,
                other => 1 + (change / 3 + other) % 3,
            });
            let now = json!({"endpoints": endpoints(&nodes, &counts)});
            it.cluster
                .api
                .merge(&path, &now)
                .with_context(|| format!("change {change}"))?;
        }
        targets(2)?;
        let all = json!({"endpoints": endpoints(&nodes, &[1, 1, 1])});
        it.cluster.api.merge(&path, &all)?;
        targets(3)?;
        throughout("nothing is told", Duration::from_secs(3), || {
            same(&told()?, &before)
        })?;
        same(&it.cluster.announcer(address)?, &holder)
    })
}
