//! The story itself. Everything it says was seen; what is not as expected ends it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use herald_e2e::api::{Api, herald};
use herald_e2e::capture::{Body, Capture};
use herald_e2e::client::{Client, shares};
use herald_e2e::cluster::Cluster;
use herald_e2e::object::{conditions, ingress};
use herald_e2e::probe::Probe;
use herald_e2e::wait::{INTERRUPT, LONG, eventually, go_on, same};
use herald_lab::{HELM_VERSION, KUBE_VERSION, KubeProxy, Lab, Options, Program, Step};
use herald_model::VirtualIp;

use crate::tell::{bars, chapter, say, shown};

const POOL: &str = include_str!("pool.yaml");
const SERVICE: &str = include_str!("service.yaml");
const REQUESTS: usize = 200;
const PODS: usize = 6;

/// Tells it all; the summary.
pub(crate) fn tell(name: &str, kube_proxy: KubeProxy) -> Result<String> {
    let mut summary = "\nSummary\n".to_owned();
    let mut note = |line: String| {
        // Writing to a String cannot fail.
        writeln!(summary, "   {line}").ok();
    };
    let began = Instant::now();
    let cluster = bring_up(name, kube_proxy)?;
    note(format!(
        "cluster of {} nodes and the chart: {} s",
        cluster.nodes().len(),
        began.elapsed().as_secs()
    ));
    let (address, took) = create(&cluster)?;
    note(format!(
        "Service web got {address} {} ms after it was created",
        took.as_millis()
    ));
    let announcer = announced(&cluster, address)?;
    note(format!("{announcer} answered for it, and nobody else"));
    note(requests(&cluster, address)?);
    note(failover(&cluster, address, &announcer)?);
    delete(&cluster, address)?;
    note("after the Service was deleted nobody answered".to_owned());
    Ok(summary)
}

fn bring_up(name: &str, kube_proxy: KubeProxy) -> Result<Cluster> {
    println!(
        "Herald on a genuine Kubernetes cluster: {KUBE_VERSION}, three nodes, kube-proxy in {} mode,\n\
         each node in namespaces of its own, all on one LAN with a client that is no node.",
        kube_proxy.as_str()
    );
    chapter(1, "The cluster");
    let options = Options {
        kube_proxy,
        interrupt: Arc::clone(&INTERRUPT),
        ..Options::named(name)
    }
    .without_herald();
    let mut tell = |step: &Step| {
        say(&format!(
            "{:5.1} s  {}",
            step.elapsed.as_secs_f32(),
            step.text
        ));
    };
    let lab = match Lab::up_with(&options, &mut tell) {
        // Left by --keep.
        Err(herald_lab::Error::AlreadyUp(_)) => {
            Lab::down(name)?;
            Lab::up_with(&options, &mut tell)?
        }
        other => other?,
    };
    go_on()?;

    chapter(2, &format!("Herald, by Helm {HELM_VERSION}"));
    say("$ helm install herald ./helm --namespace herald-system --create-namespace");
    lab.deploy(&options.chart, &mut tell)?;
    shown(
        "kubectl get pods -n herald-system -o wide",
        &lab.kubectl([
            "get",
            "pods",
            "-n",
            "herald-system",
            "--sort-by",
            ".metadata.name",
            "-o",
            "custom-columns=NAME:.metadata.name,STATUS:.status.phase,NODE:.spec.nodeName",
        ])?,
    );
    let api = Api::connect(&lab)?;
    Ok(Cluster { lab, api })
}

fn create(cluster: &Cluster) -> Result<(IpAddr, Duration)> {
    chapter(
        3,
        "A pool, and a Service with six pods: all that a user writes",
    );
    shown("kubectl apply -f pool.yaml", POOL);
    cluster.lab.kubectl_apply(POOL)?;
    println!();
    shown("kubectl apply -f web.yaml", SERVICE);
    cluster.lab.kubectl_apply(SERVICE)?;
    let began = Instant::now();
    let path = "/api/v1/namespaces/default/services/web";
    let address = eventually("the Service has an address", LONG, || {
        let service = cluster.api.get(path)?;
        ingress(&service)
            .first()
            .copied()
            .with_context(|| conditions(&service))
    })?;
    let took = began.elapsed();
    eventually("six pods are ready", Duration::from_mins(2), || {
        let web = cluster
            .api
            .get("/apis/apps/v1/namespaces/default/deployments/web")?;
        same(&web["status"]["readyReplicas"].as_u64(), &Some(PODS as u64))
    })?;
    println!();
    shown(
        "kubectl get service web",
        &cluster.lab.kubectl(["get", "service", "web"])?,
    );
    say(&format!("\nThe external address is {address}."));
    Ok((address, took))
}

/// Who answers, seen from the client.
fn announced(cluster: &Cluster, address: IpAddr) -> Result<String> {
    chapter(4, &format!("Who has {address}?"));
    let (node, mac) = eventually("a node announces the address", LONG, || {
        cluster.announcer(address)
    })?;
    shown(
        "kubectl get virtualips",
        &cluster.lab.kubectl(["get", "virtualips"])?,
    );
    say("\nThe client asks the LAN, and hears:\n");
    let client = Client::at(&cluster.lab, "client");
    say(&exchange(cluster, address)?);
    let answered = client.one_answer(address)?;
    ensure!(
        answered == mac,
        "{answered} answers, but the status of the VirtualIP names {mac}"
    );
    say(&format!(
        "\n{node} answers, with the MAC address of its eth0, and no other node does."
    ));
    Ok(node)
}

/// Asks once and gives the frames in words.
fn exchange(cluster: &Cluster, address: IpAddr) -> Result<String> {
    let capture = Capture::start(&cluster.lab, "client")?;
    let client = Client::at(&cluster.lab, "client");
    client.forget(address)?;
    client.ip(&format!("neigh show {address}"))?;
    let argv = ["ping", "-c", "1", "-W", "2", &address.to_string()];
    let ping = cluster.lab.exec("client", argv)?;
    let frames = eventually(
        "question and answer are seen",
        Duration::from_secs(5),
        || {
            let frames = capture.frames();
            ensure!(
                frames.iter().any(|frame| frame.answers(address)),
                "{frames:?}"
            );
            Ok(frames)
        },
    )?;
    let first = frames.first().map(|frame| frame.at).unwrap_or_default();
    let mut told = String::new();
    for frame in frames {
        let Body::Arp {
            operation,
            sender,
            target,
        } = &frame.body
        else {
            continue;
        };
        if ![IpAddr::V4(sender.1), IpAddr::V4(target.1)].contains(&address) {
            continue;
        }
        let what = match operation {
            1 => format!("who has {}? tell {}", target.1, sender.1),
            _ => format!("{} is at {}", sender.1, sender.0),
        };
        let to = if frame.to_all {
            "everybody"
        } else {
            "the client"
        };
        let at = frame.at.saturating_sub(first).as_secs_f64() * 1000.0;
        // Writing to a String cannot fail.
        writeln!(told, "{at:7.2} ms  {} to {to}: ARP, {what}", frame.source).ok();
    }
    let pinged = ping.stdout.lines().find(|line| line.contains("time="));
    if let Some(line) = pinged {
        writeln!(told, "\n$ ping {address}\n{line}").ok();
    }
    Ok(told)
}

fn requests(cluster: &Cluster, address: IpAddr) -> Result<String> {
    chapter(5, &format!("{REQUESTS} requests to http://{address}"));
    let client = Client::at(&cluster.lab, "client");
    eventually("the address answers", LONG, || {
        client.http(address, 80, 12).map(drop)
    })?;
    let counted = |of: &str| -> Result<f64> {
        let mut sum = 0.0;
        for node in cluster.nodes() {
            let metrics = cluster.speaker_metrics(&node)?;
            sum += metrics.sum(
                &format!("herald_speaker_{of}_total"),
                &["service=\"default/web\""],
            );
        }
        Ok(sum)
    };
    let (flows, packets) = (counted("flows")?, counted("forwarded_packets")?);
    let began = Instant::now();
    let replies = client.http(address, 80, REQUESTS)?;
    let took = began.elapsed();
    let (flows, packets) = (
        counted("flows")? - flows,
        counted("forwarded_packets")? - packets,
    );
    let nodes = shares(&replies, |reply| &reply.node);
    let pods = shares(&replies, |reply| &reply.pod);
    say(&format!(
        "{} answers in {:.2} s. By node:\n",
        replies.len(),
        took.as_secs_f32()
    ));
    say(&bars(&nodes));
    say("By pod:\n");
    say(&bars(&pods));
    ensure!(
        nodes.len() == cluster.nodes().len(),
        "only {} nodes got requests",
        nodes.len()
    );
    ensure!(pods.len() == PODS, "only {} pods got requests", pods.len());
    ensure!(
        flows >= 200.0,
        "Herald's program counted {flows} connections only"
    );
    say(&format!(
        "Herald's eBPF program on the announcing node counted {flows} new connections and {packets} packets to pods."
    ));
    Ok(format!(
        "{} requests, all answered, by {} pods on {} nodes",
        replies.len(),
        pods.len(),
        nodes.len()
    ))
}

fn failover(cluster: &Cluster, address: IpAddr, old: &str) -> Result<String> {
    chapter(
        6,
        &format!("The speaker on {old} is killed, and kept from restarting"),
    );
    say("The client goes on asking, 50 times a second.\n");
    let probe = Probe::start(&cluster.lab, "client", address, 80)?;
    eventually("the client has had ten answers", LONG, || {
        let asked = probe.asked();
        let answered = asked.iter().filter(|asked| asked.reply.is_ok()).count();
        ensure!(answered >= 10, "{answered} of {}", asked.len());
        Ok(())
    })?;
    let began = Instant::now();
    say(&format!("$ herald-lab kill {old} speaker --hold"));
    cluster.lab.kill_and_hold(old, Program::Speaker)?;
    let client = Client::at(&cluster.lab, "client");
    let (new, mac) = eventually("another node announces the address", LONG, || {
        let (node, mac) = cluster.announcer(address)?;
        ensure!(node != old, "the status still names {old}");
        Ok((node, mac))
    })?;
    let planned = began.elapsed();
    eventually(&format!("only {new} answers"), LONG, || {
        same(&client.one_answer(address)?, &mac)
    })?;
    client.http(address, 80, 20)?;
    let (longest, lost) = probe.outage();
    let asked = probe.asked().len();
    drop(probe);
    println!();
    shown(
        "kubectl get virtualips",
        &cluster.lab.kubectl(["get", "virtualips"])?,
    );
    say("");
    say(&exchange(cluster, address)?);
    let events = cluster.lab.kubectl([
        "events",
        "--for",
        "service/web",
        "--types",
        "Normal,Warning",
    ]);
    if let Ok(events) = events {
        shown("kubectl events --for service/web", &events);
        println!();
    }
    say(&format!(
        "{new} answers now; it took the address over {:.1} s after the kill. Of the client's {asked} requests\n\
         {lost} were lost; its longest wait for an answer was {} ms.",
        planned.as_secs_f32(),
        longest.as_millis()
    ));
    Ok(format!(
        "speaker on {old} killed: {new} answered {:.1} s later; {lost} of {asked} requests lost, longest gap {} ms",
        planned.as_secs_f32(),
        longest.as_millis()
    ))
}

fn delete(cluster: &Cluster, address: IpAddr) -> Result<()> {
    chapter(7, "The Service is deleted");
    shown(
        "kubectl delete service web",
        &cluster.lab.kubectl(["delete", "service", "web"])?,
    );
    let vip = herald("virtualips", &VirtualIp::object_name(address));
    eventually("the address is given back", LONG, || {
        same(&cluster.api.find(&vip)?, &None)
    })?;
    let client = Client::at(&cluster.lab, "client");
    eventually("nobody answers", Duration::from_secs(10), || {
        same(&client.who_has(address)?, &Vec::new())
    })?;
    let address = address.to_string();
    let asked = cluster.lab.exec(
        "client",
        ["arping", "-c", "2", "-w", "2", "-i", "eth0", &address],
    )?;
    if asked.success() {
        bail!("somebody still answers for {address}:\n{}", asked.stdout);
    }
    shown(&format!("arping -c 2 {address}"), asked.stdout.trim());
    say("\nNobody answers. The address is free again.");
    Ok(())
}
