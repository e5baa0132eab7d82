//! What there is, and what of it is cut, frozen, off or not ready.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::address::{Family, LanAddress};
use crate::control_plane::{self, API_SERVER, COMPONENTS};
use crate::error::Result;
use crate::faults::Program;
use crate::lab::Lab;
use crate::lan::{self, Cable, Port};
use crate::node;
use crate::options::KubeProxy;
use crate::ready::{condition, items, name, pod_reason};
use crate::switch::{Drops, Loss};

/// All of a lab at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the lab.
    pub name: String,
    /// Whether its `up` has come to its end.
    pub complete: bool,
    /// Mode of kube-proxy.
    pub kube_proxy: KubeProxy,
    /// Address families.
    pub family: Family,
    /// Whether the API server answers; without it there is nothing to say of pods and Services.
    pub api_ready: bool,
    /// etcd, API server, controller manager and scheduler, by name.
    pub components: BTreeMap<String, ComponentState>,
    /// Nodes in order.
    pub nodes: Vec<NodeStatus>,
    /// The parts of the LAN between which nothing passes; empty when it is whole.
    pub partition: Vec<Vec<String>>,
    /// Control plane and clients.
    pub others: Vec<LegStatus>,
    /// Pods of all namespaces.
    pub pods: Vec<PodStatus>,
    /// Services of type `LoadBalancer` of all namespaces.
    pub services: Vec<ServiceStatus>,
}

/// How a component of the control plane is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ComponentState {
    /// It runs.
    Running,
    /// Stopped by us.
    Stopped,
    /// Frozen by us.
    Frozen,
    /// It should run, and doesn't.
    Dead,
}

/// How a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// "node1", …
    pub name: String,
    /// Its `eth0`.
    #[serde(flatten)]
    pub address: LanAddress,
    /// Whether it is switched on.
    pub on: bool,
    /// Whether its processes are stopped.
    pub frozen: bool,
    /// Its cable. `None` when it is off.
    pub cable: Option<Cable>,
    /// What is held down on it.
    pub held: Vec<String>,
    /// The programs on it that are stopped where they are.
    pub stopped: Vec<String>,
    /// What its link loses.
    pub loss: Loss,
    /// Its Ready condition: "True", "False", "Unknown"; "" when the API server is away.
    pub ready: String,
}

/// How a leg on the LAN that is no node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegStatus {
    /// "cp", "client", …
    pub name: String,
    /// Its `eth0`.
    #[serde(flatten)]
    pub address: LanAddress,
    /// Its cable.
    pub cable: Option<Cable>,
    /// What its link loses.
    pub loss: Loss,
}

/// How a pod is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The node it runs on; "" when none.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// Whether it is ready.
    pub ready: bool,
    /// "Running", or why it isn't ready.
    pub reason: String,
    /// Restarts of all its containers.
    pub restarts: i64,
}

/// How a Service of type `LoadBalancer` is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its external addresses.
    pub addresses: Vec<String>,
}

impl Lab {
    /// Looks at everything.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Command`] when the LAN cannot be read. An API server that is away is no error.
    pub fn status(&self) -> Result<Status> {
        let ports = lan::ports(&self.layout)?;
        let drops = Drops::load(&self.layout)?;
        let loss = |leg: &str| drops.loss.get(leg).copied().unwrap_or_default();
        let programs = Program::ALL.map(|(.., file)| file);
        // Frozen, it would let every question wait.
        let api_ready = control_plane::is_ready(&self.layout, &self.state, Duration::from_secs(1));
        let list = |kinds: &str| {
            let asked = api_ready
                .then(|| self.kubectl_json(["get", kinds, "-A", "--request-timeout", "5s"]));
            asked.and_then(Result::ok).unwrap_or_default()
        };
        let objects = list("nodes,pods,services");
        let of_kind = |kind: &'static str| {
            items(&objects)
                .iter()
                .filter(move |object| object["kind"] == kind)
        };
        let ready = |node: &str| {
            let found = of_kind("Node").find(|object| name(object) == node);
            found
                .map(|object| condition(object, "Ready").to_owned())
                .unwrap_or_default()
        };
        let cable = |leg: &str| {
            ports
                .iter()
                .find(|port: &&Port| port.name == leg)
                .map(|port| port.cable)
        };
        let nodes = self.nodes().into_iter().map(|node| NodeStatus {
            on: node::is_on(&self.layout, &node.name),
            frozen: node::cgroup(&self.layout, &node.name).is_frozen(),
            cable: cable(&node.name),
            held: node::held(&self.layout, &node.name),
            stopped: node::stopped(&self.layout, &node.name, &programs),
            loss: loss(&node.name),
            ready: ready(&node.name),
            address: node.address,
            name: node.name,
        });
        let others = ["cp"]
            .into_iter()
            .chain(self.state.clients.iter().map(String::as_str));
        let others = others.map(|leg| {
            let address = self.address(leg)?;
            Ok(LegStatus {
                name: leg.to_owned(),
                address,
                cable: cable(leg),
                loss: loss(leg),
            })
        });
        Ok(Status {
            name: self.name().to_owned(),
            complete: self.state.complete,
            kube_proxy: self.state.kube_proxy,
            family: self.state.family,
            api_ready,
            components: COMPONENTS
                .map(|name| (name.to_owned(), self.component(name)))
                .into(),
            nodes: nodes.collect(),
            partition: drops.partition.clone(),
            others: others.collect::<Result<_>>()?,
            pods: of_kind("Pod").map(pod_status).collect(),
            services: of_kind("Service")
                .filter(|service| service["spec"]["type"] == "LoadBalancer")
                .map(service_status)
                .collect(),
        })
    }

    /// State of the API server's processes; [`Lab::wait_api_ready`] asks the server itself.
    pub fn api_state(&self) -> ComponentState {
        self.component(API_SERVER)
    }

    fn component(&self, name: &str) -> ComponentState {
        let cgroup = control_plane::cgroup(&self.layout).child(name);
        if control_plane::is_held(&self.layout, name) {
            ComponentState::Stopped
        } else if cgroup.is_frozen() {
            ComponentState::Frozen
        } else if cgroup.processes(true).is_empty() {
            ComponentState::Dead
        } else {
            ComponentState::Running
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The `ip` of each entry of a list.
fn ips(list: &Value) -> Vec<String> {
    list.as_array()
        .map_or(&[][..], Vec::as_slice)
        .iter()
        .map(|entry| text(&entry["ip"]))
        .collect()
}

fn pod_status(pod: &Value) -> PodStatus {
    let ready = condition(pod, "Ready") == "True";
    let containers = pod["status"]["containerStatuses"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    PodStatus {
        namespace: text(&pod["metadata"]["namespace"]),
        name: name(pod).to_owned(),
        node: text(&pod["spec"]["nodeName"]),
        addresses: ips(&pod["status"]["podIPs"]),
        ready,
        reason: if pod["metadata"]["deletionTimestamp"].is_string() {
            "Terminating".to_owned()
        } else if ready {
            "Running".to_owned()
        } else {
            pod_reason(pod)
        },
        restarts: containers
            .iter()
            .filter_map(|status| status["restartCount"].as_i64())
            .sum(),
    }
}

fn service_status(service: &Value) -> ServiceStatus {
    ServiceStatus {
        namespace: text(&service["metadata"]["namespace"]),
        name: name(service).to_owned(),
        addresses: ips(&service["status"]["loadBalancer"]["ingress"]),
    }
}
