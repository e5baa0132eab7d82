//! Packets for an address that kube-proxy did not take: where the node routes them.

use std::fs;
use std::net::IpAddr;

use anyhow::{Result, ensure};
use herald_e2e::netns::{Host, Lan};
use herald_e2e::wait::same;
use herald_model::InterfaceName;
use herald_speaker::io::black_holes::{BlackHoles, TABLE};

use crate::world::{VIP4, VIP6};

const OTHERS: [&str; 2] = ["192.0.2.101", "2001:db8::101"];

/// A node that forwards, and a way to its pods.
fn node(lan: &Lan) -> Result<&Host> {
    let host = &lan.hosts[0];
    host.run(|| {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        Ok(fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?)
    })?;
    host.ip_batch(&[
        "link add cni0 type bridge".to_owned(),
        "address add 10.244.1.1/24 dev cni0".to_owned(),
        "address add fd00:10:244:1::1/64 dev cni0 nodad".to_owned(),
        "link set cni0 up".to_owned(),
    ])?;
    Ok(host)
}

/// Whether a packet from this source that came by this interface is routed on.
fn is_routed(host: &Host, to: &str, from: &str, by: &str) -> bool {
    host.ip(&format!("route get {to} from {from} iif {by}"))
        .is_ok()
}

fn apply(host: &Host, interfaces: &[&str], addresses: &[&str]) -> Result<()> {
    let names: Vec<InterfaceName> = interfaces
        .iter()
        .copied()
        .map(InterfaceName::from)
        .collect();
    let addresses = addresses
        .iter()
        .map(|address| Ok(address.parse()?))
        .collect::<Result<Vec<IpAddr>>>()?;
    host.run(|| Ok(BlackHoles::open()?.apply(names.iter(), addresses.into_iter())?))
}

/// All rules and routes of the node, without those that come and go by themselves.
fn state(host: &Host) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for args in [
        "-4 rule",
        "-6 rule",
        "-4 route show table all",
        "-6 route show table all",
    ] {
        lines.extend(host.ip(args)?.lines().map(|line| line.trim().to_owned()));
    }
    lines.retain(|line| !line.starts_with("multicast"));
    // Rules of one priority are in the order in which they came.
    lines.sort();
    Ok(lines)
}

#[test]
fn only_what_the_lan_sends_to_an_address_ends() -> Result<()> {
    let lan = Lan::new(2)?;
    let node = node(&lan)?;
    apply(node, &["eth0"], &[VIP4, VIP6])?;
    let (client, pod) = (
        ["192.0.2.2", "2001:db8::2"],
        ["10.244.1.7", "fd00:10:244:1::7"],
    );
    for (family, vip) in [VIP4, VIP6].into_iter().enumerate() {
        ensure!(
            !is_routed(node, vip, client[family], "eth0"),
            "{vip} goes on"
        );
        ensure!(is_routed(node, OTHERS[family], client[family], "eth0"));
        ensure!(
            is_routed(node, vip, pod[family], "cni0"),
            "no way from a pod"
        );
        node.ip(&format!("route get {vip}"))?;
    }
    Ok(())
}

#[test]
fn what_is_ours_follows_the_wish_and_nothing_else_changes() -> Result<()> {
    let lan = Lan::new(2)?;
    let node = node(&lan)?;
    node.ip_batch(&[
        "rule add from 198.51.100.0/24 lookup 7".to_owned(),
        "rule add iif eth0 lookup 7 priority 500".to_owned(),
        "route add blackhole 192.0.2.100 table 7".to_owned(),
    ])?;
    let before = state(node)?;
    apply(node, &["eth0", "cni0"], &[VIP4, VIP6, OTHERS[0]])?;
    let all = state(node)?;
    // Four rules, three routes.
    same(&(all.len() - before.len()), &7)?;
    apply(node, &["eth0", "cni0"], &[VIP4, VIP6, OTHERS[0]])?;
    same(&state(node)?, &all)?;

    // A network manager removes what it does not know.
    node.ip(&format!("rule del iif cni0 lookup {TABLE}"))?;
    node.ip(&format!("-6 route flush table {TABLE}"))?;
    apply(node, &["eth0", "cni0"], &[VIP4, VIP6, OTHERS[0]])?;
    same(&state(node)?, &all)?;

    // Without an address of a family there is no need for its rules.
    apply(node, &["eth0"], &[VIP4])?;
    same(&(state(node)?.len() - before.len()), &2)?;
    apply(node, &["eth0"], &[])?;
    same(&state(node)?, &before)
}

#[test]
fn what_the_kernel_refuses_keeps_nothing_else_from_being_done() -> Result<()> {
    let lan = Lan::new(2)?;
    let node = node(&lan)?;
    // Longer than IFNAMSIZ (linux/if.h), and the first to be asked for.
    let refused = "a-name-longer-than-any";
    let before = state(node)?;
    ensure!(apply(node, &[refused, "eth0"], &[VIP4, VIP6]).is_err());
    // A rule and a route of each family.
    same(&(state(node)?.len() - before.len()), &4)?;
    for (vip, client) in [(VIP4, "192.0.2.2"), (VIP6, "2001:db8::2")] {
        ensure!(!is_routed(node, vip, client, "eth0"), "{vip} goes on");
    }
    Ok(())
}
