//! The LAN: one bridge in a namespace of its own; nodes, control plane and clients are legs on it.
//! `eth0` of each leg is a veth whose peer is the bridge's port, named after the leg.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::address::{Family, GATEWAY_V4, GATEWAY_V6, LanAddress, pod_cidrs};
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::process::{command, run, run_with};
use crate::state::Node;

/// Name of the namespace with the bridge.
pub(crate) const LAN: &str = "lan";

/// What a leg's cable is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cable {
    /// As it should be.
    Plugged,
    /// Cut: the leg sees no carrier.
    NoCarrier,
    /// Cut somewhere the leg cannot see: it has carrier, and nothing passes.
    Silent,
}

/// What a leg does besides being there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Forwards, and has the LAN's gateway as its default route.
    Node,
    /// Knows where the pods are.
    ControlPlane,
    /// Knows the LAN only.
    Client,
}

/// Makes the bridge. It is a switch that also answers as the gateway, and forwards nothing: a node
/// needs a default route, for a cluster IP must be routable before it is translated.
pub(crate) fn create(layout: &Layout, family: Family) -> Result<()> {
    let netns = layout.netns(LAN);
    add_netns(&netns)?;
    // Each new namespace has br_netfilter on; a switch looks at no IP.
    sysctl(
        &netns,
        &[
            "net.bridge.bridge-nf-call-iptables=0",
            "net.bridge.bridge-nf-call-ip6tables=0",
            "net.bridge.bridge-nf-call-arptables=0",
            "net.ipv6.conf.default.disable_ipv6=1",
            "net.ipv4.ip_forward=0",
        ],
    )?;
    ip(
        &netns,
        &[
            "link set lo up".to_owned(),
            "link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0".to_owned(),
        ],
    )?;
    sysctl(
        &netns,
        &[
            "net.ipv6.conf.br0.disable_ipv6=0",
            "net.ipv6.conf.br0.accept_dad=0",
        ],
    )?;
    let mut batch = Vec::new();
    if family.v4() {
        batch.push(format!("addr add {GATEWAY_V4}/16 dev br0"));
    }
    if family.v6() {
        batch.push(format!("addr add {GATEWAY_V6}/64 dev br0 nodad"));
    }
    batch.push("link set br0 up".to_owned());
    ip(&netns, &batch)
}

/// Makes the namespace of `place` with its leg on the LAN.
pub(crate) fn add_leg(
    layout: &Layout,
    place: &str,
    address: &LanAddress,
    role: Role,
    nodes: &[Node],
    family: Family,
) -> Result<()> {
    let netns = layout.netns(place);
    let lan = layout.netns(LAN);
    add_netns(&netns)?;
    let mac = &address.mac;
    ip(
        &lan,
        &[
            format!("link add {place} type veth peer name eth0 netns {netns} address {mac}"),
            format!("link set {place} master br0 up"),
        ],
    )?;
    let forward = u8::from(role == Role::Node);
    sysctl(
        &netns,
        &[
            // The machine's own values would be inherited.
            &format!("net.ipv4.ip_forward={forward}"),
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.default.rp_filter=0",
            "net.ipv4.conf.eth0.rp_filter=0",
            &format!("net.ipv6.conf.all.forwarding={forward}"),
            "net.ipv6.conf.all.accept_dad=0",
            "net.ipv6.conf.default.accept_dad=0",
            "net.ipv6.conf.eth0.accept_dad=0",
            "net.ipv6.conf.all.accept_ra=0",
            "net.ipv6.conf.eth0.accept_ra=0",
        ],
    )?;
    let mut batch = vec!["link set lo up".to_owned(), "link set eth0 up".to_owned()];
    if let Some(v4) = address.v4 {
        batch.push(format!("addr add {v4}/16 dev eth0"));
    }
    if let Some(v6) = address.v6 {
        batch.push(format!("addr add {v6}/64 dev eth0 nodad"));
    }
    if role == Role::Node {
        for gateway in gateways(family) {
            batch.push(format!("route add default via {gateway}"));
        }
    }
    if role != Role::Client {
        batch.extend(pod_routes(place, nodes, family));
    }
    ip(&netns, &batch)
}

fn gateways(family: Family) -> Vec<String> {
    let v4 = family.v4().then(|| GATEWAY_V4.to_string());
    v4.into_iter()
        .chain(family.v6().then(|| GATEWAY_V6.to_string()))
        .collect()
}

/// Where the pods of the other nodes are. The control plane has them too: the API server reaches
/// webhooks in pods.
fn pod_routes(place: &str, nodes: &[Node], family: Family) -> Vec<String> {
    let others = nodes.iter().filter(|node| node.name != place);
    let routes = others.flat_map(|node| {
        let via = node.address.all().into_iter();
        pod_cidrs(family, node.index).into_iter().zip(via)
    });
    routes
        .map(|(cidr, via)| format!("route replace {cidr} via {via}"))
        .collect()
}

/// Takes the leg away at once, whatever still holds its namespace.
pub(crate) fn remove_leg(layout: &Layout, place: &str) -> Result<()> {
    if ports(layout)?.iter().any(|port| port.name == place) {
        ip(&layout.netns(LAN), &[format!("link del {place}")])?;
    }
    remove_netns(&layout.netns(place))
}

/// Cuts a leg's cable.
pub(crate) fn cut(layout: &Layout, place: &str, silent: bool) -> Result<()> {
    if silent {
        // A port that is disabled, rather than out of the bridge: there the namespace itself would
        // go on answering ARP for the gateway.
        return set_port_state(layout, place, "disabled");
    }
    ip(&layout.netns(LAN), &[format!("link set {place} down")])
}

/// Lets nothing of a leg's pass any more, if there is one.
pub(crate) fn silence(layout: &Layout, place: &str) -> Result<()> {
    if ports(layout)?.iter().any(|port| port.name == place) {
        cut(layout, place, true)?;
    }
    Ok(())
}

/// Makes a leg's cable whole.
pub(crate) fn heal(layout: &Layout, place: &str) -> Result<()> {
    ip(&layout.netns(LAN), &[format!("link set {place} up")])?;
    set_port_state(layout, place, "forwarding")
}

fn set_port_state(layout: &Layout, place: &str, state: &str) -> Result<()> {
    let netns = layout.netns(LAN);
    run(&mut command(
        "bridge",
        ["-n", &netns, "link", "set", "dev", place, "state", state],
    ))
    .map(drop)
}

/// One port of the bridge.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) cable: Cable,
}

/// All legs that are on the LAN, with the state of their cables.
pub(crate) fn ports(layout: &Layout) -> Result<Vec<Port>> {
    if !layout.netns_path(LAN).exists() {
        return Ok(Vec::new());
    }
    let netns = layout.netns(LAN);
    let json = run(&mut command(
        "bridge",
        ["-n", &netns, "-j", "-d", "link", "show"],
    ))?;
    parse_ports(&json)
}

fn parse_ports(json: &str) -> Result<Vec<Port>> {
    let links: Vec<Value> = if json.trim().is_empty() {
        Vec::new()
    } else {
        serde_json::from_str(json).map_err(Error::json("bridge link show"))?
    };
    let port = |link: &Value| {
        let up = link["flags"].as_array()?.iter().any(|flag| flag == "UP");
        let cable = match (up, link["state"].as_str()?) {
            (false, _) => Cable::NoCarrier,
            (true, "disabled") => Cable::Silent,
            (true, _) => Cable::Plugged,
        };
        Some(Port {
            name: link["ifname"].as_str()?.to_owned(),
            cable,
        })
    };
    Ok(links.iter().filter_map(port).collect())
}

fn add_netns(netns: &str) -> Result<()> {
    run(&mut command("ip", ["netns", "add", netns])).map(drop)
}

pub(crate) fn remove_netns(netns: &str) -> Result<()> {
    if !Path::new("/run/netns").join(netns).exists() {
        return Ok(());
    }
    run(&mut command("ip", ["netns", "del", netns])).map(drop)
}

/// Names of all network namespaces that have one.
pub(crate) fn all_netns() -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Commands of `ip`, without the word itself, in one go.
fn ip(netns: &str, commands: &[String]) -> Result<()> {
    run_with(
        &mut command("ip", ["-n", netns, "-batch", "-"]),
        &(commands.join("\n") + "\n"),
    )
    .map(drop)
}

fn sysctl(netns: &str, settings: &[&str]) -> Result<()> {
    let net = format!("--net=/run/netns/{netns}");
    let mut sysctl = command("nsenter", [&net, "--", "sysctl", "-qw"]);
    run(sysctl.args(settings)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use crate::state::State;

    #[test]
    fn a_node_has_a_route_to_the_pods_of_every_other() {
        let options = Options {
            nodes: 2,
            ..Options::default()
        };
        let nodes = State::new(&options).all_nodes();
        assert_eq!(
            pod_routes("node1", &nodes, Family::Dual),
            [
                "route replace 10.244.2.0/24 via 172.30.0.12",
                "route replace fd00:10:244:2::/64 via fd30::12"
            ]
        );
        assert_eq!(pod_routes("cp", &nodes, Family::Dual).len(), 4);
    }

    #[test]
    fn tells_the_two_kinds_of_cut_cable_apart() {
        let json = r#"[
            {"ifname":"cp","flags":["BROADCAST","UP","LOWER_UP"],"state":"forwarding"},
            {"ifname":"node1","flags":["BROADCAST","MULTICAST"],"state":"disabled"},
            {"ifname":"node2","flags":["BROADCAST","UP","LOWER_UP"],"state":"disabled"}]"#;
        let ports = parse_ports(json).expect("JSON");
        let cables: Vec<_> = ports
            .iter()
            .map(|port| (port.name.as_str(), port.cable))
            .collect();
        assert_eq!(
            cables,
            [
                ("cp", Cable::Plugged),
                ("node1", Cable::NoCarrier),
                ("node2", Cable::Silent)
            ]
        );
    }
}
