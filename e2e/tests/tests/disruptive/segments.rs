//! Nodes with more than one interface, and with a bridge in between.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use herald_e2e::client::Client;
use herald_e2e::cluster::{Cluster, report};
use herald_e2e::object::text;
use herald_e2e::probe::Probe;
use herald_e2e::sandbox::{Sandbox, backend};
use herald_e2e::wait::{LONG, eventually, same};
use serde_json::json;

use crate::alone;
use crate::failover::all_nodes_serve;
use crate::takeover::{epoch, vip};

/// A second LAN, a switch with a cable to `eth1` of each node and of the client.
pub(crate) struct SecondLan<'a> {
    cluster: &'a Cluster,
}

impl<'a> SecondLan<'a> {
    const NETWORK: &'static str = "10.30.0";

    pub(crate) fn lay(cluster: &'a Cluster) -> Result<Self> {
        let lan = Self { cluster };
        lan.run(
            "lan",
            "ip link add second type bridge forward_delay 0 mcast_snooping 0; ip link set second up",
        )?;
        let places = cluster.nodes().into_iter().chain(["client".to_owned()]);
        for (place, last) in places.zip(11..) {
            let netns = netns(cluster, &place)?;
            lan.run(
                "lan",
                &format!(
                    "ip link add {place}-2 type veth peer name eth1 netns {netns}
                     ip link set {place}-2 master second up"
                ),
            )?;
            let address = format!("{}.{last}/24", Self::NETWORK);
            lan.run(
                &place,
                &format!("ip addr add {address} dev eth1; ip link set eth1 up"),
            )?;
        }
        Ok(lan)
    }

    /// The MAC address that the client has for an address, after it asked anew.
    fn answers(&self, address: IpAddr) -> Result<String> {
        let client = Client::at(&self.cluster.lab, "client");
        client.ip(&format!("neigh flush to {address} dev eth1"))?;
        client.http(address, 80, 1)?;
        let shown = client.ip(&format!("neigh show {address} dev eth1"))?;
        let mut fields = shown.split_whitespace().skip_while(|it| *it != "lladdr");
        Ok(fields.nth(1).context(shown.clone())?.to_owned())
    }

    pub(crate) fn run(&self, place: &str, commands: &str) -> Result<()> {
        run(self.cluster, place, commands)
    }
}

impl Drop for SecondLan<'_> {
    fn drop(&mut self) {
        for place in self
            .cluster
            .nodes()
            .into_iter()
            .chain(["client".to_owned()])
        {
            self.run("lan", &format!("ip link del {place}-2")).ok();
        }
        self.run("lan", "ip link del second").ok();
    }
}

/// Runs commands at a place.
pub(crate) fn run(cluster: &Cluster, place: &str, commands: &str) -> Result<()> {
    cluster.lab.exec(place, ["sh", "-ec", commands])?.ok()?;
    Ok(())
}

/// The name of the network namespace of a place.
fn netns(cluster: &Cluster, place: &str) -> Result<String> {
    let path = cluster.lab.network_namespace(place)?;
    let name = path.file_name().context("a namespace without a name")?;
    Ok(name.to_string_lossy().into_owned())
}

/// A Service with an address that is announced on one interface.
fn serve_on(it: &Sandbox, name: &str, interface: &str, range: &str) -> Result<IpAddr> {
    it.pool(name, json!({"addresses": [range]}))?;
    it.advertisement(
        name,
        json!({"pools": [it.name(name)], "poolSelectors": [], "interfaces": [interface]}),
    )?;
    it.service(
        name,
        json!({
            "metadata": {"annotations": {"heraldlb.io/pool": it.name(name)}},
            // A node without traffic of the data plane's is not made up for by kube-proxy elsewhere.
            "spec": {"externalTrafficPolicy": "Local"},
        }),
    )?;
    let address = it.wait_announced(name)?;
    eventually(&format!("{address} answers on {interface}"), LONG, || {
        it.client().http(address, 80, 12)?;
        let entry = &vip(it.cluster, address)?["status"]["segments"][0];
        same(&text(&entry["interface"]), &interface)
    })?;
    Ok(address)
}

#[test]
fn of_two_interfaces_one_that_goes_down_takes_only_its_own_addresses_along() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let lan = SecondLan::lay(cluster)?;
            let range = format!("{0}.200-{0}.203", SecondLan::NETWORK);
            let first = serve_on(it, "first", "eth0", &it.range_v4(0, 3))?;
            let second = serve_on(it, "second", "eth1", &range)?;
            all_nodes_serve(it, second)?;
            let (node, mac) = cluster.announcer(second)?;
            same(&lan.answers(second)?, &mac)?;
            let elsewhere = cluster.announcer(first)?;
            let before = epoch(&vip(cluster, first)?)?;

            let probe = Probe::start(&cluster.lab, "client", second, 80)?;
            lan.run("lan", &format!("ip link set {node}-2 down"))?;
            let other = eventually("another node announces it", LONG, || {
                let (holder, mac) = cluster.announcer(second)?;
                ensure!(holder != node, "it is still {holder}");
                same(&lan.answers(second)?, &mac)?;
                Ok(holder)
            })?;
            let (outage, lost) = probe.outage();
            report(&format!(
                "{second}: {node}, then {other}; longest time without an answer {} ms, {lost} requests lost",
                outage.as_millis()
            ));
            // The node is well: where its other interface leads it serves as before.
            same(&cluster.announcer(first)?, &elsewhere)?;
            same(&epoch(&vip(cluster, first)?)?, &before)?;
            all_nodes_serve(it, first)?;

            lan.run("lan", &format!("ip link set {node}-2 up"))?;
            all_nodes_serve(it, second)?;
            same(&lan.answers(second)?, &cluster.announcer(second)?.1)
        })
    })
}

/// A node whose addresses are on a bridge, `eth0` being its port, as hypervisors have it. The bridge hands
/// nothing to netfilter: else kube-proxy's rules would be applied to what comes in before the node has taken it
/// in, and even kube-proxy alone would reach no pod of another node.
struct Bridged<'a> {
    cluster: &'a Cluster,
    node: String,
    mac: String,
    /// Addresses and routes as they were, as commands.
    before: String,
}

impl<'a> Bridged<'a> {
    /// The other port, and the switch's port at the other end of its cable.
    const SPARE: &'static str = "spare";

    /// Commands that give what is on one interface to another one.
    fn hand_over(addresses: &str, routes: &str, from: &str, to: &str) -> String {
        let flush = format!("ip addr flush dev {from} scope global");
        let addresses = addresses
            .lines()
            .map(|it| format!("ip addr add {it} dev {to} nodad"));
        let routes = routes.lines().map(|it| format!("ip route replace {it}"));
        let commands = std::iter::once(flush).chain(addresses).chain(routes);
        commands.collect::<Vec<_>>().join("\n")
    }

    fn build(cluster: &'a Cluster, node: &str) -> Result<Self> {
        let show = |commands: &str| -> Result<String> {
            Ok(cluster.lab.exec(node, ["sh", "-ec", commands])?.ok()?)
        };
        let addresses = show("ip -o addr show dev eth0 scope global | awk '{ print $4 }'")?;
        // Those via other nodes and the gateway; the rest comes with the addresses.
        let routes = show(
            "(ip -4 route show dev eth0; ip -6 route show dev eth0) | grep via | sed 's/ proto [a-z]*//; s/ pref medium//'",
        )?;
        let it = Self {
            cluster,
            node: node.to_owned(),
            mac: cluster.lab.node(node)?.address.mac,
            before: Self::hand_over(&addresses, &routes, "br0", "eth0"),
        };
        let commands = format!(
            "ip link add br0 address {} type bridge forward_delay 0 mcast_snooping 0
             sysctl -q net.ipv6.conf.br0.accept_dad=0 net.ipv6.conf.br0.accept_ra=0 net.ipv4.conf.br0.rp_filter=0
             sysctl -q net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0
             ip link set eth0 master br0
             ip link set br0 up
             {}",
            it.mac,
            Self::hand_over(&addresses, &routes, "eth0", "br0")
        );
        run(cluster, node, &commands)?;
        Ok(it)
    }

    /// The cable goes out of one port and another one into another: both at once would be a loop.
    fn replace_port(&self) -> Result<()> {
        let (spare, netns) = (Self::SPARE, netns(self.cluster, &self.node)?);
        let cable = format!(
            "ip link add {spare} type veth peer name {spare} netns {netns}
             ip link set {spare} master br0 up"
        );
        run(self.cluster, "lan", &cable)?;
        let ports = format!(
            "ip link set eth0 down nomaster
             ip link set {spare} master br0 up"
        );
        run(self.cluster, &self.node, &ports)
    }

    /// Behind which of its ports the switch knows the node.
    fn port_of_switch(&self) -> Result<String> {
        let shown = self
            .cluster
            .lab
            .exec("lan", ["bridge", "fdb", "show", "br", "br0"])?
            .ok()?;
        let entry = shown.lines().find(|line| line.starts_with(&self.mac));
        let mut fields = entry.context(shown.clone())?.split_whitespace();
        let port = fields
            .find(|field| *field == "dev")
            .and_then(|_| fields.next());
        Ok(port.context("no port")?.to_owned())
    }
}

impl Drop for Bridged<'_> {
    fn drop(&mut self) {
        let commands = format!(
            "ip link set eth0 nomaster up
             {}
             ip link del br0
             sysctl -q net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1
             ip link del {} 2>/dev/null || true",
            self.before,
            Self::SPARE
        );
        run(self.cluster, &self.node, &commands).ok();
    }
}

#[test]
fn a_bridge_as_uplink_announces_and_goes_on_when_another_port_replaces_its_first() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let nodes = cluster.nodes();
            let node = nodes.first().context("no node")?;
            let bridged = Bridged::build(cluster, node)?;
            it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
            let only = json!([{"matchLabels": {"kubernetes.io/hostname": node}}]);
            it.advertisement("a", json!({"pools": [it.name("a")], "nodeSelectors": only}))?;
            it.service("web", json!({}))?;
            let address = it.wait_addresses("web")?[0];
            let serves = |when: &str| {
                eventually(&format!("{node} serves on br0 {when}"), LONG, || {
                    let (holder, mac) = cluster.announcer(address)?;
                    same(&holder, node)?;
                    let entry = &vip(cluster, address)?["status"]["segments"][0];
                    same(&text(&entry["interface"]), &"br0")?;
                    same(&it.client().one_answer(address)?, &mac)?;
                    it.client().http(address, 80, 12)?;
                    same(&mac, &bridged.mac)
                })
            };
            serves("with its first port")?;
            let setting = "name=\"net.bridge.bridge-nf-call-iptables\"";
            let told = cluster.speaker_metrics(node)?;
            let told = told.series("herald_speaker_kernel_setting", &[setting]);
            same(&told, &vec![0.0])?;
            same(&bridged.port_of_switch()?, node)?;
            bridged.replace_port()?;
            serves("with another port")?;
            same(&bridged.port_of_switch()?, &Bridged::SPARE.to_owned())?;
            all_nodes_serve(it, address)
        })
    })
}
