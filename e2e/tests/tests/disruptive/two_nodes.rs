//! Two nodes: each is half of all, so that only a witness can say who may take over.

use std::env;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use herald_e2e::api::Api;
use herald_e2e::client::Client;
use herald_e2e::cluster::Cluster;
use herald_e2e::object::{conditions, ingress, namespace};
use herald_e2e::wait::{LONG, eventually, same, throughout};
use herald_lab::{Family, Lab, Options};
use serde_json::json;

const NAMESPACE: &str = "two";

/// A lab of its own, which goes with it.
struct Two {
    cluster: Cluster,
    options: Options,
}

impl Two {
    fn up() -> Result<Self> {
        let name = env::var("HERALD_LAB_NAME").unwrap_or_else(|_| "test".to_owned());
        let options = Options {
            nodes: 2,
            family: Family::Ipv4,
            ..Options::named(&format!("{name}-two"))
        };
        // What a killed run has left is taken down first.
        Lab::down(&options.name)?;
        let lab = Lab::up(&options)?;
        let api = Api::connect(&lab)?;
        let cluster = Cluster { lab, api };
        Ok(Self { cluster, options })
    }

    fn witness(&mut self, witness: &str) -> Result<()> {
        self.options.chart.set = vec![format!("ring.witness={witness}")];
        self.cluster.lab.deploy(&self.options.chart, &mut |_| ())?;
        self.cluster.wait_whole()
    }

    /// A Service without pods: its address is announced all the same.
    fn serve(&self) -> Result<IpAddr> {
        let api = &self.cluster.api;
        api.apply(&namespace(NAMESPACE))?;
        api.apply(&json!({
            "apiVersion": "heraldlb.io/v1alpha1",
            "kind": "IPPool",
            "metadata": {"name": "two"},
            "spec": {"addresses": ["172.30.64.1/32"]},
        }))?;
        api.apply(&json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "web", "namespace": NAMESPACE},
            "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
        }))?;
        let path = format!("/api/v1/namespaces/{NAMESPACE}/services/web");
        eventually("it is announced", LONG, || {
            let service = api.get(&path)?;
            let address = ingress(&service).first().copied();
            let address = address.with_context(|| conditions(&service))?;
            self.cluster.announcer(address).map(|_| address)
        })
    }

    fn client(&self) -> Client<'_> {
        Client::at(&self.cluster.lab, "client")
    }

    fn mac(&self, node: &str) -> Result<String> {
        Ok(self.cluster.lab.node(node)?.address.mac)
    }
}

impl Drop for Two {
    fn drop(&mut self) {
        drop(Lab::down(&self.options.name));
    }
}

#[test]
fn of_two_nodes_one_takes_over_only_with_a_witness() -> Result<()> {
    let mut two = Two::up()?;
    two.witness("none")?;
    let address = two.serve()?;
    let lab = two.cluster.lab.clone();
    let (old, mac) = two.cluster.announcer(address)?;
    let nodes = two.cluster.nodes();
    let other = nodes.iter().find(|node| **node != old).context("two")?;
    same(&two.client().one_answer(address)?, &mac)?;

    lab.cut(&old, true)?;
    eventually("the other one suspects it, without a quorum", LONG, || {
        let metrics = two.cluster.speaker_metrics(other)?;
        let quorum = metrics.series("herald_speaker_ring_quorum", &[]);
        same(&quorum, &vec![0.0])
    })?;
    throughout("nobody takes over", Duration::from_secs(5), || {
        same(&two.client().who_has(address)?, &Vec::new())
    })?;
    lab.heal(&old)?;
    eventually("it answers again, alone", LONG, || {
        same(&two.client().one_answer(address)?, &mac)
    })?;

    two.witness("gateway")?;
    let (old, _) = two.cluster.announcer(address)?;
    let new = nodes.iter().find(|node| **node != old).context("two")?;
    let new = two.mac(new)?;
    lab.cut(&old, true)?;
    eventually("the other one takes over", LONG, || {
        same(&two.client().one_answer(address)?, &new)
    })?;
    lab.heal(&old)?;
    two.cluster.wait_whole()?;
    throughout(
        "the old one gets nothing back",
        Duration::from_secs(3),
        || same(&two.client().one_answer(address)?, &new),
    )?;
    let (holder, _) = two.cluster.announcer(address)?;
    ensure!(holder != old, "the status still names {old}");
    Ok(())
}
