//! `EndpointSlices`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use herald_api::labels;
use herald_model::{Endpoint, EndpointPort, NodeName, ServiceEndpoints, ServiceKey};
use k8s_openapi::api::discovery::v1::{
    Endpoint as ApiEndpoint, EndpointPort as ApiPort, EndpointSlice,
};

use crate::service::{port_number, protocol};

/// The Service that a slice belongs to; `None` if its label names none.
pub fn service_of_slice(slice: &EndpointSlice) -> Option<ServiceKey> {
    let name = slice.metadata.labels.as_ref()?.get(labels::SERVICE_NAME)?;
    let namespace = slice.metadata.namespace.as_deref()?;
    Some(ServiceKey::new(namespace, name.as_str()))
}

/// What one slice says. As kube-proxy does, only the first address of an endpoint counts; endpoints
/// that are names are left out, and ports without a number.
pub fn endpoints_of_slice(slice: &EndpointSlice) -> Vec<Endpoint> {
    let mut ports: Vec<EndpointPort> = slice.ports.iter().flatten().filter_map(port).collect();
    ports.sort();
    ports.dedup();
    let ports: Arc<[EndpointPort]> = ports.into();
    slice
        .endpoints
        .iter()
        .filter_map(|object| endpoint(object, &ports))
        .collect()
}

/// One value from what all slices of a Service say.
///
/// While the slices are rearranged an endpoint may be in two of them: it then is ready or serving
/// if one says so, terminating only if both do, and has the ports of both.
pub fn endpoints<'a>(
    service: ServiceKey,
    slices: impl IntoIterator<Item = &'a [Endpoint]>,
) -> ServiceEndpoints {
    let mut merged: BTreeMap<(IpAddr, Option<NodeName>), Endpoint> = BTreeMap::new();
    for found in slices.into_iter().flatten() {
        merged
            .entry((found.address, found.node.clone()))
            .and_modify(|known| {
                known.ready |= found.ready;
                known.serving |= found.serving;
                known.terminating &= found.terminating;
                if known.ports != found.ports {
                    let both = known.ports.iter().chain(found.ports.iter()).cloned();
                    let both: BTreeSet<EndpointPort> = both.collect();
                    known.ports = both.into_iter().collect();
                }
            })
            .or_insert_with(|| found.clone());
    }
    ServiceEndpoints {
        service,
        endpoints: merged.into_values().collect(),
    }
}

fn port(object: &ApiPort) -> Option<EndpointPort> {
    Some(EndpointPort {
        name: object.name.as_deref().unwrap_or_default().into(),
        protocol: protocol(object.protocol.as_deref())?,
        port: port_number(object.port?)?,
    })
}

fn endpoint(object: &ApiEndpoint, ports: &Arc<[EndpointPort]>) -> Option<Endpoint> {
    let address = object.addresses.first()?.parse().ok()?;
    let conditions = object.conditions.as_ref();
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    Some(Endpoint {
        address,
        node: object.node_name.as_deref().map(NodeName::from),
        ready,
        serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        ports: Arc::clone(ports),
    })
}

#[cfg(test)]
mod tests {
    use herald_model::Protocol;
    use serde_json::json;

    use super::*;

    fn slice(endpoints: &serde_json::Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "metadata": {
                "name": "web-abc",
                "namespace": "shop",
                "labels": { "kubernetes.io/service-name": "web" },
            },
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{ "name": "http", "port": 8080 }],
        }))
        .unwrap()
    }

    fn got(slices: &[EndpointSlice]) -> Vec<Endpoint> {
        let said: Vec<_> = slices.iter().map(endpoints_of_slice).collect();
        endpoints(
            ServiceKey::new("shop", "web"),
            said.iter().map(Vec::as_slice),
        )
        .endpoints
    }

    fn expected(address: &str, node: Option<&str>, conditions: [bool; 3]) -> Endpoint {
        let [ready, serving, terminating] = conditions;
        Endpoint {
            address: address.parse().unwrap(),
            node: node.map(NodeName::from),
            ready,
            serving,
            terminating,
            ports: Arc::new([port("http", Protocol::Tcp, 8080)]),
        }
    }

    fn port(name: &str, protocol: Protocol, port: u16) -> EndpointPort {
        EndpointPort {
            name: name.into(),
            protocol,
            port,
        }
    }

    #[test]
    fn a_slice_names_its_service() {
        assert_eq!(
            service_of_slice(&slice(&json!([]))),
            Some(ServiceKey::new("shop", "web"))
        );
        assert_eq!(service_of_slice(&EndpointSlice::default()), None);
    }

    #[test]
    fn absent_conditions_have_the_meaning_of_the_api() {
        let slice = slice(&json!([
            { "addresses": ["10.0.0.4"] },
            { "addresses": ["10.0.0.3"], "conditions": {}, "nodeName": "node1" },
            { "addresses": ["10.0.0.2"], "conditions": { "ready": false } },
            { "addresses": ["10.0.0.1"],
              "conditions": { "ready": false, "serving": true, "terminating": true } },
        ]));
        assert_eq!(
            got(&[slice]),
            [
                expected("10.0.0.1", None, [false, true, true]),
                expected("10.0.0.2", None, [false, false, false]),
                expected("10.0.0.3", Some("node1"), [true, true, false]),
                expected("10.0.0.4", None, [true, true, false]),
            ]
        );
    }

    #[test]
    fn an_endpoint_in_two_slices_is_one() {
        let old = slice(&json!([
            { "addresses": ["10.0.0.1"], "nodeName": "node1", "conditions": { "ready": false } },
        ]));
        let new = slice(&json!([
            { "addresses": ["10.0.0.1"], "nodeName": "node1", "conditions": { "ready": true } },
        ]));
        let merged = [expected("10.0.0.1", Some("node1"), [true, true, false])];
        assert_eq!(got(&[old.clone(), new.clone()]), merged);
        assert_eq!(got(&[new, old]), merged);
    }

    #[test]
    fn ports_are_those_of_the_slice_and_of_two_slices_those_of_both() {
        let with = |ports: serde_json::Value| {
            let mut slice = slice(&json!([{ "addresses": ["10.0.0.1"] }]));
            slice.ports = serde_json::from_value(ports).unwrap();
            slice
        };
        let one = with(json!([
            { "name": "dns", "protocol": "UDP", "port": 5353 },
            { "port": 8080 },
            { "name": "any" },
            { "name": "other", "protocol": "QUIC", "port": 1 },
        ]));
        let ports = |slices: &[EndpointSlice]| got(slices)[0].ports.to_vec();
        let (plain, dns) = (
            port("", Protocol::Tcp, 8080),
            port("dns", Protocol::Udp, 5353),
        );
        assert_eq!(
            ports(std::slice::from_ref(&one)),
            [plain.clone(), dns.clone()]
        );
        let other = with(json!([{ "name": "http", "port": 80 }]));
        let http = port("http", Protocol::Tcp, 80);
        assert_eq!(ports(&[one, other]), [plain, dns, http]);
    }

    #[test]
    fn names_and_further_addresses_are_left_out() {
        let slice = slice(&json!([
            { "addresses": ["web.example.com"] },
            { "addresses": ["10.0.0.1", "10.0.0.2"] },
            { "addresses": [] },
        ]));
        assert_eq!(
            got(&[slice]),
            [expected("10.0.0.1", None, [true, true, false])]
        );
    }
}
