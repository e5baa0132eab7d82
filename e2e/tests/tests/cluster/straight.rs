//! Mode `pod`: straight to a pod, without kube-proxy.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use herald_e2e::client::{Reply, shares};
use herald_e2e::object::with;
use herald_e2e::sandbox::{BACKEND_PODS, Sandbox, backend, sandbox};
use herald_e2e::streams::Streams;
use herald_e2e::wait::{LONG, eventually, same};
use serde_json::{Value, json};

use crate::forwarding::{
    answers, by, event, expect_forwarding, for_the_client_alone, label, local, port, seen, serve,
    serve_http,
};

const STREAMS: usize = 40;

/// That the pods saw the client itself.
fn client_is_seen(it: &Sandbox, replies: &[Reply]) -> Result<()> {
    let own = it.cluster.lab.address("client")?.all();
    let seen = seen(replies);
    ensure!(
        seen.len() == 1 && seen.iter().all(|address| own.contains(address)),
        "the pods saw {seen:?}, the client is {own:?}"
    );
    Ok(())
}

fn cluster_policy() -> Value {
    json!({"spec": {"externalTrafficPolicy": "Cluster"}})
}

#[test]
fn pods_see_the_clients_address_under_every_policy_and_each_gets_its_share() -> Result<()> {
    backend(|it| {
        for (name, policy) in [("cluster", cluster_policy()), ("local", local())] {
            for address in serve_http(it, name, by("pod", policy))? {
                same(&expect_forwarding(it, address, "pod")?.as_str(), &"")?;
                let of_service = label(it, name);
                let counted = || -> Result<(f64, f64, f64)> {
                    let mut sums = (0.0, 0.0, 0.0);
                    for node in it.cluster.nodes() {
                        let metrics = it.cluster.speaker_metrics(&node)?;
                        let of = |name: &str| {
                            let name = format!("herald_speaker_{name}_total");
                            metrics.sum(&name, &[&of_service])
                        };
                        sums.0 += of("flows");
                        sums.1 += of("reply_packets");
                        sums.2 += event(&metrics, "pod_chosen");
                    }
                    Ok(sums)
                };
                let before = counted()?;
                let replies = it.client().http(address, 80, 200)?;
                let after = counted()?;
                client_is_seen(it, &replies)?;
                let nodes = shares(&replies, |reply| &reply.node);
                let pods = shares(&replies, |reply| &reply.pod);
                ensure!(
                    nodes.len() == it.cluster.nodes().len()
                        && pods.len() == BACKEND_PODS
                        && pods.values().all(|&share| share >= 12),
                    "of 200 the nodes got {nodes:?}, the pods {pods:?}"
                );
                // The pods of others are asked side by side, so more flows than ours may be chosen for.
                let rise = (after.0 - before.0, after.1 - before.1, after.2 - before.2);
                ensure!(
                    (200.0..210.0).contains(&rise.0) && rise.1 >= 600.0 && rise.2 >= 200.0,
                    "flows, replies and pods chosen rose by {rise:?}"
                );
            }
        }
        Ok(())
    })
}

#[test]
fn tcp_and_udp_go_to_the_ports_that_the_pods_have() -> Result<()> {
    backend(|it| {
        let ports = json!([
            port("TCP", 53, 9090),
            port("UDP", 53, 9090),
            port("TCP", 80, 8080)
        ]);
        let spec = json!({"spec": {"ports": ports}});
        for address in serve(it, "both", by("pod", spec))? {
            expect_forwarding(it, address, "pod")?;
            answers(it.client(), address)?;
            for protocol in ["tcp", "udp"] {
                let replies = eventually(&format!("{address} answers {protocol}"), LONG, || {
                    it.client().echo(protocol, address, 53, 0, 30)
                })?;
                client_is_seen(it, &replies)?;
                let pods = shares(&replies, |reply| &reply.pod);
                ensure!(pods.len() > 2, "{protocol}: only {pods:?}");
            }
        }
        Ok(())
    })
}

/// Echo pods with a container like this.
fn container(more: Value) -> Value {
    // A list is replaced whole, so this is the container once more.
    let plain = json!({
        "name": "echo",
        "image": herald_lab::ECHO_IMAGE,
        "env": [
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    });
    json!({"containers": [with(plain, more)]})
}

#[test]
fn a_named_port_and_pods_in_the_network_of_their_node_are_served() -> Result<()> {
    sandbox(|it| {
        // Its ports are the node's: no other test uses these.
        let own = json!({
            "args": ["--http", "8980", "--tcp", "8990", "--udp", "none"],
            "ports": [{"name": "say", "containerPort": 8990}],
            "readinessProbe": {"tcpSocket": {"port": 8990}, "periodSeconds": 1},
        });
        let patch = with(container(own), Sandbox::on_node("node2"));
        it.pods("echo", 1, &with(patch, json!({"hostNetwork": true})))?;
        let ports = json!([{"name": "tcp", "port": 81, "targetPort": "say"}]);
        for address in serve(it, "web", by("pod", json!({"spec": {"ports": ports}})))? {
            expect_forwarding(it, address, "pod")?;
            let replies = eventually(&format!("{address} answers"), LONG, || {
                it.client().echo("tcp", address, 81, 0, 10)
            })?;
            client_is_seen(it, &replies)?;
        }
        Ok(())
    })
}

#[test]
fn a_client_keeps_its_pod_by_way_of_any_node_if_the_service_wants_that() -> Result<()> {
    backend(|it| {
        let sticky = json!({"spec": {"sessionAffinity": "ClientIP"}});
        for address in serve_http(it, "sticky", by("pod", sticky))? {
            expect_forwarding(it, address, "pod")?;
            let mut pods = Vec::new();
            for node in it.cluster.lab.nodes() {
                let client = it.client();
                let mac = &node.address.mac;
                client.ip(&format!(
                    "neigh replace {address} lladdr {mac} dev eth0 nud permanent"
                ))?;
                let replies = client.http(address, 80, 10);
                client.ip(&format!("neigh del {address} dev eth0"))?;
                pods.extend(replies?.into_iter().map(|reply| reply.pod));
            }
            pods.sort();
            pods.dedup();
            same(&pods.len(), &1)?;
        }
        Ok(())
    })
}

#[test]
fn source_ranges_hold() -> Result<()> {
    backend(|it| {
        let spec = for_the_client_alone(it)?;
        let other = it.cluster.other_client();
        for address in serve_http(it, "web", by("pod", spec))? {
            expect_forwarding(it, address, "pod")?;
            other.ignored(address, 80)?;
        }
        Ok(())
    })
}

/// Waits until only pods of one node are asked.
fn only(it: &Sandbox, address: IpAddr, port: u16, node: &str) -> Result<()> {
    eventually(&format!("only {node} answers for {address}"), LONG, || {
        let replies = it.client().echo("tcp", address, port, 0, 20)?;
        let nodes = shares(&replies, |reply| &reply.node);
        same(&nodes.keys().map(String::as_str).collect(), &vec![node])
    })
}

#[test]
fn pods_that_terminate_keep_their_streams_and_new_connections_go_elsewhere() -> Result<()> {
    sandbox(|it| {
        // Asked to end, they first serve on.
        let sleep = json!({"lifecycle": {"preStop": {"sleep": {"seconds": 60}}}});
        let grace = with(
            container(sleep),
            json!({"terminationGracePeriodSeconds": 90}),
        );
        it.pods("echo", 2, &with(grace.clone(), Sandbox::on_node("node1")))?;
        let ports = json!([port("TCP", 9090, 9090)]);
        let addresses = serve(it, "web", by("pod", json!({"spec": {"ports": ports}})))?;
        let mut streams = Vec::new();
        for address in addresses {
            expect_forwarding(it, address, "pod")?;
            only(it, address, 9090, "node1")?;
            let to = SocketAddr::new(address, 9090);
            streams.push(Streams::start(&it.cluster.lab, "client", to, STREAMS)?);
        }
        it.pods("echo", 2, &with(grace, Sandbox::on_node("node2")))?;
        for address in addresses {
            only(it, address, 9090, "node2")?;
        }
        for streams in streams {
            for fate in streams.finish(&[])? {
                same(&(fate.node.as_str(), fate.broken), &("node1", None))?;
            }
        }
        Ok(())
    })
}

#[test]
fn what_pod_cannot_do_is_forwarded_by_dsr_and_the_status_says_why() -> Result<()> {
    backend(|it| {
        let [four, _] = serve_http(it, "web", by("pod", json!({})))?;
        expect_forwarding(it, four, "pod")?;
        // An endpoint that is no pod, beside those that are.
        let name = it.service_name("web");
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{name}-outside"),
                "namespace": it.namespace,
                "labels": {
                    "kubernetes.io/service-name": name,
                    "endpointslice.kubernetes.io/managed-by": "herald-e2e",
                },
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
            "endpoints": [{"addresses": ["172.30.0.2"], "conditions": {"ready": true}}],
        });
        it.cluster.api.apply(&slice)?;
        let result = expect_forwarding(it, four, "dsr");
        let path = format!(
            "/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices/{name}-outside",
            it.namespace
        );
        it.cluster.api.delete(&path)?;
        let reason = result?;
        ensure!(reason.contains("172.30.0.2"), "the reason is {reason:?}");
        expect_forwarding(it, four, "pod").map(drop)
    })
}
