//! How a client's packets reach pods, and which don't.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::net::IpAddr;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use herald_e2e::api::herald;
use herald_e2e::client::{Client, Reply, shares};
use herald_e2e::cluster::OTHER_CLIENT;
use herald_e2e::metrics::Metrics;
use herald_e2e::object::{condition, text, with};
use herald_e2e::sandbox::{BACKEND_PODS, Sandbox, backend, sandbox};
use herald_e2e::wait::{LONG, eventually, same};
use herald_model::VirtualIp;
use serde_json::{Value, json};

/// A Service of the echo pods, announced in both families; its addresses, IPv4 first.
pub(crate) fn serve(it: &Sandbox, name: &str, patch: Value) -> Result<[IpAddr; 2]> {
    it.pool(
        "a",
        json!({"addresses": [it.range_v4(0, 9), it.range_v6(0, 9)]}),
    )?;
    it.dual_service(name, patch)?;
    it.wait_announced(name)?;
    let addresses: [IpAddr; 2] = it
        .wait_addresses(name)?
        .try_into()
        .map_err(|other| anyhow::anyhow!("not two addresses: {other:?}"))?;
    Ok(addresses)
}

/// As [`serve`], and waits until the first answer: kube-proxy on every node needs its moment.
pub(crate) fn serve_http(it: &Sandbox, name: &str, patch: Value) -> Result<[IpAddr; 2]> {
    let addresses = serve(it, name, patch)?;
    for address in addresses {
        answers(it.client(), address)?;
    }
    Ok(addresses)
}

/// Waits until questions are answered, several in a row.
pub(crate) fn answers(client: Client<'_>, address: IpAddr) -> Result<()> {
    eventually(&format!("{address} answers"), LONG, || {
        client.http(address, 80, 12).map(drop)
    })
}

fn forwarding(it: &Sandbox, address: IpAddr) -> Result<(String, String)> {
    let path = herald("virtualips", &VirtualIp::object_name(address));
    let status = &it.cluster.api.get(&path)?["status"];
    Ok((
        text(&status["forwarding"]).to_owned(),
        text(&status["forwardingReason"]).to_owned(),
    ))
}

pub(crate) fn expect_forwarding(it: &Sandbox, address: IpAddr, mode: &str) -> Result<String> {
    eventually(&format!("{address} is forwarded by {mode}"), LONG, || {
        let (have, reason) = forwarding(it, address)?;
        same(&have.as_str(), &mode)?;
        Ok(reason)
    })
}

pub(crate) fn label(it: &Sandbox, name: &str) -> String {
    format!("service=\"{}/{}\"", it.namespace, it.service_name(name))
}

/// The patch, and that mode asked for.
pub(crate) fn by(mode: &str, patch: Value) -> Value {
    with(
        json!({"metadata": {"annotations": {"heraldlb.io/forwarding": mode}}}),
        patch,
    )
}

pub(crate) fn local() -> Value {
    json!({"spec": {"externalTrafficPolicy": "Local"}})
}

/// Whom the pods saw.
pub(crate) fn seen(replies: &[Reply]) -> BTreeSet<String> {
    replies.iter().map(|reply| reply.client.clone()).collect()
}

fn on_announcer(it: &Sandbox, address: IpAddr) -> Result<Metrics> {
    it.cluster
        .speaker_metrics(&it.cluster.announcer(address)?.0)
}

pub(crate) fn event(metrics: &Metrics, name: &str) -> f64 {
    metrics.sum(
        "herald_speaker_packet_events_total",
        &[&format!("event=\"{name}\"")],
    )
}

#[test]
fn every_pod_and_every_node_gets_its_share_and_the_program_carries_it() -> Result<()> {
    backend(|it| {
        for (mode, asked) in [("dsr", "auto"), ("nodeport", "nodeport")] {
            let addresses = serve_http(it, mode, by(asked, json!({})))?;
            for address in addresses {
                same(&expect_forwarding(it, address, mode)?.as_str(), &"")?;
                carries(it, mode, address)?;
            }
        }
        Ok(())
    })
}

fn carries(it: &Sandbox, mode: &str, address: IpAddr) -> Result<()> {
    let (announcer, _) = it.cluster.announcer(address)?;
    let others: Vec<String> = it
        .cluster
        .nodes()
        .into_iter()
        .filter(|node| *node != announcer)
        .collect();
    let of_service = label(it, mode);
    let from_nodes = || -> Result<Vec<(f64, f64)>> {
        let counted = |node: &String| {
            let metrics = it.cluster.speaker_metrics(node)?;
            let labels = [of_service.as_str()];
            let replies = metrics.sum("herald_speaker_reply_packets_total", &labels);
            Ok((event(&metrics, "from_node"), replies))
        };
        others.iter().map(counted).collect()
    };
    let before = (on_announcer(it, address)?, from_nodes()?);
    let replies = it.client().http(address, 80, 200)?;
    let after = (on_announcer(it, address)?, from_nodes()?);
    let nodes = shares(&replies, |reply| &reply.node);
    let pods = shares(&replies, |reply| &reply.pod);
    ensure!(
        nodes.len() == it.cluster.nodes().len() && nodes.values().all(|&share| share >= 30),
        "of 200 the nodes got {nodes:?}"
    );
    ensure!(
        pods.len() == BACKEND_PODS && pods.values().all(|&share| share >= 8),
        "of 200 the pods got {pods:?}"
    );
    let rise = |name: &str| {
        let name = format!("herald_speaker_{name}_total");
        let labels = [of_service.as_str()];
        after.0.sum(&name, &labels) - before.0.sum(&name, &labels)
    };
    // A connection of an HTTP request has at least SYN, ACK, request and FIN of the client's.
    let (flows, to, back) = (
        rise("flows"),
        rise("forwarded_packets"),
        rise("reply_packets"),
    );
    // A SYN that a client repeats after a reset counts again: kube-proxy's NAT now and then takes a port
    // that is in TIME-WAIT at the pod.
    ensure!(
        (200.0..210.0).contains(&flows) && to >= 800.0,
        "the program counted {flows} flows, {to} packets; there is {}",
        after.0.names()
    );
    if mode == "nodeport" {
        ensure!(back >= 600.0, "only {back} replies");
        return Ok(());
    }
    // Each node takes its share from the announcer, and answers by itself.
    let mut answered = vec![back];
    for ((before, after), node) in before.1.iter().zip(&after.1).zip(&others) {
        let taken = after.0 - before.0;
        ensure!(
            taken >= 120.0,
            "{node} took {taken} of the client's packets"
        );
        answered.push(after.1 - before.1);
    }
    ensure!(
        answered.iter().all(|&replies| replies >= 90.0),
        "the nodes sent {answered:?} replies"
    );
    Ok(())
}

#[test]
fn dsr_shows_pods_the_clients_address_and_shows_the_bridge_no_client_elsewhere() -> Result<()> {
    sandbox(|it| {
        it.pods("echo", 2, &Sandbox::on_node("node3"))?;
        let other = json!([{"matchLabels": {"kubernetes.io/hostname": "node1"}}]);
        it.advertisement("other", json!({"nodeSelectors": other}))?;
        let mine = it.cluster.lab.address("client")?;
        let addresses = serve_http(it, "web", local())?;
        // Only what moves or ages is told; the entry was refreshed just now.
        let moves = it.cluster.lab.spawn("lan", ["bridge", "monitor", "fdb"])?;
        for address in addresses {
            expect_forwarding(it, address, "dsr")?;
            same(&it.cluster.announcer(address)?.0.as_str(), &"node1")?;
            let replies = it.client().http(address, 80, 40)?;
            let nodes = shares(&replies, |reply| &reply.node);
            same(&nodes.keys().map(String::as_str).collect(), &vec!["node3"])?;
            same(&shares(&replies, |reply| &reply.pod).len(), &2)?;
            let seen = seen(&replies);
            ensure!(
                seen.len() == 1 && mine.all().iter().any(|own| seen.contains(own)),
                "the pods saw {seen:?}, the client is {:?}",
                mine.all()
            );
        }
        let told = stop(moves)?;
        let known = it.cluster.lab.exec("lan", ["bridge", "fdb"])?.ok()?;
        ensure!(
            known.contains(&mine.mac) && !told.contains(&mine.mac),
            "the client {} was seen elsewhere:\n{told}",
            mine.mac
        );
        Ok(())
    })
}

/// Ends a program, and gives what it said.
fn stop(mut program: Child) -> Result<String> {
    program.kill()?;
    let mut said = String::new();
    program
        .stdout
        .take()
        .context("no output")?
        .read_to_string(&mut said)?;
    program.wait()?;
    Ok(said)
}

#[test]
fn dsr_keeps_affinity_and_needs_no_node_port() -> Result<()> {
    backend(|it| {
        let sticky = json!({"spec": {
            "sessionAffinity": "ClientIP",
            "allocateLoadBalancerNodePorts": false,
        }});
        for address in serve_http(it, "sticky", sticky)? {
            same(&expect_forwarding(it, address, "dsr")?.as_str(), &"")?;
            // By way of any node, and from any port.
            for node in it.cluster.lab.nodes() {
                let client = it.client();
                let mac = &node.address.mac;
                client.ip(&format!(
                    "neigh replace {address} lladdr {mac} dev eth0 nud permanent"
                ))?;
                let replies = client.http(address, 80, 10);
                client.ip(&format!("neigh del {address} dev eth0"))?;
                same(&shares(&replies?, |reply| &reply.pod).len(), &1)?;
            }
        }
        Ok(())
    })
}

#[test]
fn affinity_lasts_for_its_timeout_and_no_longer() -> Result<()> {
    const TIMEOUT: Duration = Duration::from_secs(2);
    backend(|it| {
        let sticky = json!({"spec": {
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": TIMEOUT.as_secs()}},
        }});
        for address in serve_http(it, "sticky", sticky)? {
            expect_forwarding(it, address, "dsr")?;
            let one_pod = || {
                let replies = it.client().http(address, 80, 10)?;
                let pods = shares(&replies, |reply| &reply.pod);
                same(&pods.len(), &1)?;
                pods.into_keys().next().context("no pod")
            };
            let first = one_pod()?;
            let mut asked = Instant::now();
            // Each connection begins it anew; then one of three pods is chosen, this one perhaps.
            eventually("another pod has the client", LONG, || {
                ensure!(asked.elapsed() > TIMEOUT, "it lasts");
                let next = one_pod();
                asked = Instant::now();
                ensure!(next.as_ref().ok() != Some(&first), "it is {first} again");
                Ok(next)
            })??;
        }
        Ok(())
    })
}

#[test]
fn a_target_on_the_announcer_itself_replies_too() -> Result<()> {
    sandbox(|it| {
        it.pods("echo", 1, &Sandbox::on_node("node1"))?;
        let here = json!([{"matchLabels": {"kubernetes.io/hostname": "node1"}}]);
        it.advertisement("here", json!({"nodeSelectors": here}))?;
        for mode in ["dsr", "nodeport"] {
            for address in serve_http(it, mode, by(mode, local()))? {
                expect_forwarding(it, address, mode)?;
                same(&it.cluster.announcer(address)?.0.as_str(), &"node1")?;
                same(&it.client().http(address, 80, 30)?.len(), &30)?;
                let counted = on_announcer(it, address)?;
                let flows = counted.sum("herald_speaker_flows_total", &[&label(it, mode)]);
                ensure!(
                    flows >= 30.0,
                    "{mode}: not through our program: {flows} flows"
                );
            }
        }
        Ok(())
    })
}

#[test]
fn under_local_only_nodes_with_a_ready_pod_get_traffic_whoever_announces() -> Result<()> {
    sandbox(|it| {
        it.pods("echo", 2, &Sandbox::on_node("node3"))?;
        let other = json!([{"matchLabels": {"kubernetes.io/hostname": "node1"}}]);
        it.advertisement("other", json!({"nodeSelectors": other}))?;
        for address in serve_http(it, "web", by("nodeport", local()))? {
            expect_forwarding(it, address, "nodeport")?;
            same(&it.cluster.announcer(address)?.0.as_str(), &"node1")?;
            let replies = it.client().http(address, 80, 40)?;
            let nodes = shares(&replies, |reply| &reply.node);
            same(&nodes.keys().map(String::as_str).collect(), &vec!["node3"])?;
            same(&shares(&replies, |reply| &reply.pod).len(), &2)?;
            same(&seen(&replies), &BTreeSet::from([address.to_string()]))?;
        }
        Ok(())
    })
}

#[test]
fn a_client_whose_neighbour_entry_points_to_another_node_is_served() -> Result<()> {
    backend(|it| {
        let mut addresses = Vec::new();
        for mode in ["dsr", "nodeport"] {
            addresses.extend(serve_http(it, mode, by(mode, json!({})))?);
        }
        for address in addresses {
            let (announcer, _) = it.cluster.announcer(address)?;
            for node in it.cluster.lab.nodes() {
                let mac = &node.address.mac;
                let client = it.client();
                client.ip(&format!(
                    "neigh replace {address} lladdr {mac} dev eth0 nud permanent"
                ))?;
                let served = client.http(address, 80, 20);
                client.ip(&format!("neigh del {address} dev eth0"))?;
                let served = served
                    .with_context(|| format!("by way of {}, announcer {announcer}", node.name))?;
                same(&served.len(), &20)?;
            }
        }
        Ok(())
    })
}

pub(crate) fn port(protocol: &str, port: u16, target: u16) -> Value {
    json!({"name": format!("{}-{port}", protocol.to_lowercase()), "protocol": protocol, "port": port, "targetPort": target})
}

#[test]
fn tcp_and_udp_on_one_port_both_work() -> Result<()> {
    backend(|it| {
        let ports = json!([port("TCP", 53, 9090), port("UDP", 53, 9090)]);
        for address in serve(it, "both", json!({"spec": {"ports": ports}}))? {
            for protocol in ["tcp", "udp"] {
                let replies = eventually(&format!("{address} answers {protocol}"), LONG, || {
                    it.client().echo(protocol, address, 53, 0, 20)
                })?;
                let nodes = shares(&replies, |reply| &reply.node);
                ensure!(nodes.len() > 1, "{protocol}: only {nodes:?}");
            }
        }
        Ok(())
    })
}

#[test]
fn datagrams_in_fragments_come_and_go_in_every_mode() -> Result<()> {
    backend(|it| {
        for mode in ["dsr", "nodeport", "pod"] {
            let spec = json!({"spec": {"ports": [port("UDP", 53, 9090)]}});
            for address in serve(it, mode, by(mode, spec))? {
                expect_forwarding(it, address, mode)?;
                let replies = eventually(&format!("{address} answers"), LONG, || {
                    it.client().datagrams(address, 53, 4_000, 20)
                })?;
                let nodes = shares(&replies, |reply| &reply.node);
                ensure!(nodes.len() > 1, "{mode}: only {nodes:?}");
            }
        }
        Ok(())
    })
}

#[test]
fn udp_from_the_source_port_that_is_the_services_port_is_served() -> Result<()> {
    backend(|it| {
        // Each test has a port of its own: the client's is taken while it is in use.
        let ports = json!([port("UDP", 5353, 9090)]);
        for address in serve(it, "dns", json!({"spec": {"ports": ports}}))? {
            let replies = eventually(&format!("{address} answers"), LONG, || {
                it.client().echo("udp", address, 5353, 5353, 5)
            })?;
            same(&replies.len(), &5)?;
        }
        Ok(())
    })
}

/// A spec whose source ranges are the first client's addresses.
pub(crate) fn for_the_client_alone(it: &Sandbox) -> Result<Value> {
    let own = it.cluster.lab.address("client")?;
    let ranges: Vec<String> = own
        .all()
        .iter()
        .map(|address| format!("{address}/{}", if address.contains(':') { 128 } else { 32 }))
        .collect();
    Ok(json!({"spec": {"loadBalancerSourceRanges": ranges}}))
}

#[test]
fn a_client_outside_the_source_ranges_is_refused() -> Result<()> {
    backend(|it| {
        let spec = for_the_client_alone(it)?;
        let other = Client::at(&it.cluster.lab, OTHER_CLIENT);
        for address in serve_http(it, "web", spec)? {
            let before = event(&on_announcer(it, address)?, "source_range");
            other.ignored(address, 80)?;
            let after = event(&on_announcer(it, address)?, "source_range");
            ensure!(after > before, "the program dropped nothing for its range");
            it.client().http(address, 80, 10)?;
        }
        it.dual_service("web", json!({"spec": {"loadBalancerSourceRanges": []}}))?;
        for address in it.wait_addresses("web")? {
            answers(other, address)?;
        }
        Ok(())
    })
}

#[test]
fn ports_that_no_service_has_are_dropped_and_pings_are_answered() -> Result<()> {
    backend(|it| {
        for address in serve_http(it, "web", json!({}))? {
            let before = event(&on_announcer(it, address)?, "unknown_port");
            it.client().ignored(address, 81)?;
            // Ports that the node itself serves.
            it.client().ignored(address, 7471)?;
            it.client().ignored(address, 10250)?;
            let after = event(&on_announcer(it, address)?, "unknown_port");
            ensure!(
                after >= before + 3.0,
                "the program dropped {}",
                after - before
            );
            let argv = ["ping", "-c", "2", "-W", "2", &address.to_string()];
            it.cluster.lab.exec("client", argv)?.ok()?;
        }
        Ok(())
    })
}

#[test]
fn off_leaves_it_to_kube_proxy_which_keeps_the_clients_address_under_local() -> Result<()> {
    sandbox(|it| {
        it.pods("echo", 2, &Sandbox::on_node("node2"))?;
        let client = it.cluster.lab.address("client")?.all();
        for address in serve_http(it, "web", by("off", local()))? {
            expect_forwarding(it, address, "off")?;
            same(&it.cluster.announcer(address)?.0.as_str(), &"node2")?;
            let replies = seen(&it.client().http(address, 80, 10)?);
            ensure!(
                replies.len() == 1 && client.contains(replies.iter().next().context("one")?),
                "the pods saw {replies:?}, the client is {client:?}"
            );
            let flows =
                on_announcer(it, address)?.sum("herald_speaker_flows_total", &[&label(it, "web")]);
            ensure!(flows < 1.0, "our program forwarded {flows} flows");
        }
        Ok(())
    })
}

#[test]
fn what_node_ports_cannot_do_is_left_to_kube_proxy_and_the_status_says_why() -> Result<()> {
    backend(|it| {
        let affinity = json!({"spec": {"sessionAffinity": "ClientIP"}});
        let without = json!({"spec": {"allocateLoadBalancerNodePorts": false}});
        for (name, patch) in [("affinity", affinity), ("portless", without)] {
            let addresses = serve_http(it, name, by("nodeport", patch))?;
            for address in addresses {
                let reason = expect_forwarding(it, address, "off")?;
                ensure!(!reason.is_empty(), "{name}: no reason is said");
            }
            if name == "affinity" {
                let replies = it.client().http(addresses[0], 80, 20)?;
                same(&shares(&replies, |reply| &reply.pod).len(), &1)?;
            }
        }
        Ok(())
    })
}

#[test]
fn a_service_with_too_many_source_ranges_is_not_forwarded_and_others_are() -> Result<()> {
    backend(|it| {
        let [address, _] = serve_http(it, "web", json!({}))?;
        let ranges: Vec<String> = (0..=16_384)
            .map(|number| {
                format!(
                    "10.{}.{}.{}/32",
                    number >> 16,
                    number >> 8 & 255,
                    number & 255
                )
            })
            .collect();
        // Not kube-proxy's, which would be busy with them.
        let crowded = json!({
            "metadata": {
                "annotations": {"heraldlb.io/forwarding": "dsr"},
                "labels": {"service.kubernetes.io/service-proxy-name": "none"},
            },
            "spec": {"loadBalancerSourceRanges": ranges},
        });
        it.service("crowded", crowded)?;
        let refused = it.wait_announced("crowded")?;
        let reason = expect_forwarding(it, refused, "off")?;
        ensure!(reason.contains("16385 source ranges"), "{reason}");
        let note = it.expect_event("crowded", "Warning", "DataPlaneFull")?;
        ensure!(note.contains("16385 source ranges"), "{note}");
        let path = herald("virtualips", &VirtualIp::object_name(refused));
        let vip = it.cluster.api.get(&path)?;
        let said = condition(&vip, "Forwarding");
        same(
            &(text(&said["status"]), text(&said["reason"])),
            &("False", "DataPlaneFull"),
        )?;
        for node in it.cluster.nodes() {
            let metrics = it.cluster.speaker_metrics(&node)?;
            let label = ["reason=\"ranges_of_service\""];
            same(
                &metrics.sum("herald_speaker_data_plane_refused", &label),
                &1.0,
            )?;
        }
        expect_forwarding(it, address, "dsr")?;
        answers(it.client(), address)?;
        it.delete_service("crowded")?;
        for node in it.cluster.nodes() {
            eventually(&format!("{node} has room"), LONG, || {
                let metrics = it.cluster.speaker_metrics(&node)?;
                same(&metrics.sum("herald_speaker_data_plane_refused", &[]), &0.0)
            })?;
        }
        Ok(())
    })
}

#[test]
fn a_service_of_another_proxy_is_left_to_it_and_the_status_says_so() -> Result<()> {
    backend(|it| {
        let labelled = json!({"metadata": {"labels": {
            "service.kubernetes.io/service-proxy-name": "mesh",
        }}});
        it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
        it.service("web", labelled)?;
        let address = it.wait_announced("web")?;
        let reason = expect_forwarding(it, address, "off")?;
        ensure!(reason.contains("mesh"), "the reason is {reason:?}");
        Ok(())
    })
}

fn never_ready() -> Value {
    // A list is replaced whole, so this is the container once more.
    json!({"containers": [{
        "name": "echo",
        "image": herald_lab::ECHO_IMAGE,
        "env": [
            {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
        "readinessProbe": {"tcpSocket": {"port": 1}, "periodSeconds": 1},
    }]})
}

#[test]
fn pods_that_are_not_ready_get_traffic_only_if_the_service_publishes_them() -> Result<()> {
    sandbox(|it| {
        it.apply_pods("echo", 2, &never_ready())?;
        let [four, six] = serve(it, "web", json!({}))?;
        let path = herald("virtualips", &VirtualIp::object_name(four));
        eventually("the status says that there is no endpoint", LONG, || {
            let vip = it.cluster.api.get(&path)?;
            let forwarding = condition(&vip, "Forwarding");
            same(&text(&forwarding["reason"]), &"NoEndpoints")
        })?;
        // Still answered for, and refused at once by kube-proxy.
        it.client().one_answer(four)?;
        for address in [four, six] {
            let to = format!("{}:80", herald_e2e::client::host(address));
            // As soon as kube-proxy has heard of the Service. It refuses by an ICMP error, of which a kernel
            // sends few to a client whose packets it routes back to the LAN: this client has none.
            eventually(&format!("{to} refuses"), LONG, || {
                let said = it
                    .cluster
                    .lab
                    .exec(OTHER_CLIENT, ["lab-echo", "tcp", &to])?;
                ensure!(said.stderr.contains("refused"), "{}", said.stderr);
                Ok(())
            })?;
        }
        it.dual_service("web", json!({"spec": {"publishNotReadyAddresses": true}}))?;
        for address in [four, six] {
            answers(it.client(), address)?;
        }
        Ok(())
    })
}

#[test]
fn under_local_traffic_follows_the_pods() -> Result<()> {
    sandbox(|it| {
        it.pods("echo", 1, &Sandbox::on_node("node1"))?;
        let [four, _] = serve_http(it, "web", local())?;
        it.pods("echo", 1, &Sandbox::on_node("node2"))?;
        eventually("only node2 answers", LONG, || {
            let replies = it.client().http(four, 80, 20)?;
            let nodes = shares(&replies, |reply| &reply.node);
            same(&nodes.keys().map(String::as_str).collect(), &vec!["node2"])
        })
    })
}

#[test]
fn services_that_share_an_address_each_get_their_own_port() -> Result<()> {
    backend(|it| {
        let shared = |ports: Value| {
            with(
                json!({"metadata": {"annotations": {"heraldlb.io/sharing-key": "k"}}}),
                json!({"spec": {"ports": ports}}),
            )
        };
        let first = serve_http(it, "http", shared(json!([port("TCP", 80, 8080)])))?;
        let second = serve(
            it,
            "echo",
            shared(json!([port("UDP", 80, 9090), port("TCP", 81, 9090)])),
        )?;
        same(&first, &second)?;
        for address in first {
            it.client().http(address, 80, 5)?;
            for (protocol, port) in [("udp", 80), ("tcp", 81)] {
                eventually(&format!("{address} answers {protocol}"), LONG, || {
                    it.client().echo(protocol, address, port, 0, 5)
                })?;
            }
        }
        Ok(())
    })
}

#[test]
fn clients_inside_the_cluster_reach_the_address_too() -> Result<()> {
    backend(|it| {
        for address in serve_http(it, "web", json!({}))? {
            for node in it.cluster.nodes() {
                Client::at(&it.cluster.lab, &node).http(address, 80, 5)?;
            }
        }
        Ok(())
    })
}

#[test]
fn the_announcing_node_is_in_the_metrics_and_no_other() -> Result<()> {
    backend(|it| {
        let [four, six] = serve_http(it, "web", json!({}))?;
        for address in [four, six] {
            let (announcer, _) = it.cluster.announcer(address)?;
            it.client().one_answer(address)?;
            let ip = format!("ip=\"{address}\"");
            for node in it.cluster.nodes() {
                let metrics = it.cluster.speaker_metrics(&node)?;
                let shown = metrics.series(
                    "herald_speaker_announced",
                    &[
                        &ip,
                        &label(it, "web"),
                        "protocol=\"layer2\"",
                        &format!("node=\"{node}\""),
                    ],
                );
                let expected = if node == announcer { vec![1.0] } else { vec![] };
                same(&shown, &expected).with_context(|| node.clone())?;
                if node == announcer {
                    for name in ["requests_received", "replies_sent", "gratuitous_sent"] {
                        let count = metrics.sum(&format!("herald_speaker_{name}_total"), &[&ip]);
                        ensure!(
                            count >= 1.0,
                            "{name} is {count}; there is {}",
                            metrics.names()
                        );
                    }
                }
            }
        }
        it.delete_service("web")?;
        eventually("its series are gone", LONG, || {
            for node in it.cluster.nodes() {
                let metrics = it.cluster.speaker_metrics(&node)?;
                let of_service = label(it, "web");
                same(
                    &metrics.series("herald_speaker_announced", &[&of_service]),
                    &vec![],
                )?;
            }
            Ok(())
        })
    })
}
