//! What all measurements share: a pod on each node, pools, and that all is made whole again.

use std::fs;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use crate::api::herald;
use crate::cluster::Cluster;
use crate::fault::Fault;
use crate::object::{conditions, ingress, items, namespace, text, with};
use crate::wait::{LONG, eventually, go_on, same};
use anyhow::{Context as _, Result, ensure};
use herald_lab::{Action, ECHO_IMAGE, HERALD_NAMESPACE, Lab};
use serde_json::{Value, json};

/// Where all pods and Services of benchmarks are.
pub const NAMESPACE: &str = "bench";
/// The place in the lab that measures.
pub const CLIENT: &str = "client";
/// Of the echo pods and of all Services.
pub const PORT: u16 = 9090;
const POOL: &str = "bench";

/// A pod on each node and a pool, which all rounds share.
#[derive(Debug, Clone, Copy)]
pub struct Stage<'a> {
    /// Where it is.
    pub cluster: &'a Cluster,
}

/// The label of the pods that are not on this node.
fn elsewhere(node: &str) -> String {
    format!("not-{node}")
}

/// A Service's selector of the pods on all nodes.
pub fn everywhere() -> Value {
    json!({"app": "echo"})
}

/// A Service's selector of the pods on all nodes but one.
pub fn all_but(node: &str) -> Value {
    with(everywhere(), json!({elsewhere(node): "yes"}))
}

impl<'a> Stage<'a> {
    /// Has pods and pool made, and what an earlier run left removed.
    ///
    /// # Errors
    ///
    /// If the API server refuses, or what is broken can't be mended.
    pub fn set(cluster: &'a Cluster) -> Result<Self> {
        let stage = Self { cluster };
        // An earlier run may have been killed.
        stage.mend_all()?;
        cluster.api.apply(&namespace(NAMESPACE))?;
        stage.remove_all()?;
        for node in cluster.nodes() {
            cluster.api.apply(&stage.pod(&node))?;
        }
        cluster.api.apply(&json!({
            "apiVersion": "heraldlb.io/v1alpha1",
            "kind": "IPPool",
            "metadata": {"name": POOL},
            "spec": {
                "addresses": ["172.30.64.0/24"],
                // The client knows the addresses of the last rounds.
                "reuseDelay": "10m",
                "allowed": {"namespaces": [NAMESPACE]},
            },
        }))?;
        Ok(stage)
    }

    fn pod(self, node: &str) -> Value {
        let name = format!("echo-{node}");
        let env = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let mut labels = with(everywhere(), json!({"on": node}));
        for other in self.cluster.nodes() {
            if other != node {
                labels = with(labels, json!({elsewhere(&other): "yes"}));
            }
        }
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": "echo", "on": node}},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "nodeSelector": {"kubernetes.io/hostname": node},
                        "terminationGracePeriodSeconds": 1,
                        // They are to stay where they are, whatever befalls the node.
                        "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
                        "containers": [{
                            "name": "echo",
                            "image": ECHO_IMAGE,
                            "env": [env("POD", "metadata.name"), env("NODE", "spec.nodeName")],
                            "readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1},
                        }],
                    },
                },
            },
        })
    }

    /// The lab that the cluster is in.
    pub fn lab(self) -> &'a Lab {
        &self.cluster.lab
    }

    /// Waits until all nodes, pods and speakers are as they should be.
    ///
    /// # Errors
    ///
    /// If they are not after two minutes.
    pub fn wait_whole(self) -> Result<()> {
        self.cluster.wait_whole()?;
        let limit = Duration::from_mins(2);
        self.lab().wait_workloads_ready(NAMESPACE, limit)?;
        eventually("every speaker says it is ready", limit, || {
            for node in self.cluster.nodes() {
                let speaker = self.cluster.api.get(&herald("speakers", &node))?;
                let ready = crate::object::condition(&speaker, "Ready");
                same(&text(&ready["status"]), &"True").with_context(|| conditions(&speaker))?;
            }
            Ok(())
        })
    }

    /// Has a Service of the echo pods, with `spec` over its own.
    ///
    /// # Errors
    ///
    /// If the API server refuses.
    pub fn apply(self, name: &str, annotations: &Value, spec: Value) -> Result<()> {
        let port = |protocol: &str| json!({"name": protocol.to_lowercase(), "protocol": protocol, "port": PORT});
        let base = json!({
            "type": "LoadBalancer",
            "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack",
            "externalTrafficPolicy": "Local",
            "selector": everywhere(),
            "ports": [port("UDP"), port("TCP")],
        });
        let service = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": NAMESPACE, "annotations": annotations},
            "spec": with(base, spec),
        });
        self.cluster.api.apply(&service).map(drop)
    }

    /// The same, waiting until its address is announced: the address and who announces it.
    ///
    /// # Errors
    ///
    /// If it is not within a minute.
    pub fn serve(self, name: &str, spec: Value) -> Result<(IpAddr, String)> {
        self.apply(name, &json!({}), spec)?;
        let path = service(name);
        let address = eventually("the Service has an address", LONG, || {
            let service = self.cluster.api.get(&path)?;
            let address = ingress(&service).first().copied();
            address.with_context(|| conditions(&service))
        })?;
        let (node, _) = eventually("it is announced", LONG, || self.cluster.announcer(address))?;
        Ok((address, node))
    }

    /// Removes a Service.
    ///
    /// # Errors
    ///
    /// If it is still there after a minute.
    pub fn remove(self, name: &str) -> Result<()> {
        let path = service(name);
        self.cluster.api.delete(&path)?;
        eventually("the Service is gone", LONG, || {
            same(&self.cluster.api.find(&path)?, &None)
        })
    }

    /// Removes every Service there is.
    ///
    /// # Errors
    ///
    /// If one is still there after five minutes.
    pub fn remove_all(self) -> Result<()> {
        let path = service("");
        let all = self.cluster.api.list(path.trim_end_matches('/'))?;
        for it in &all {
            self.cluster
                .api
                .delete(&service(text(&it["metadata"]["name"])))?;
        }
        eventually("no Service is left", Duration::from_mins(5), || {
            let left = self.cluster.api.list(path.trim_end_matches('/'))?.len();
            ensure!(left == 0, "{left} are left");
            Ok(())
        })
    }

    /// Undoes a fault.
    ///
    /// # Errors
    ///
    /// If the cluster does not become whole again.
    pub fn mend(self, fault: Fault, node: &str) -> Result<()> {
        fault.mend(self.lab(), node)?;
        self.cluster.wait_whole()?;
        if matches!(fault, Fault::Kill | Fault::Stop) {
            // A container that dies often is started less and less soon; that of a new pod is at once.
            let pods = self.cluster.pods("speaker")?;
            let on_node = |pod: &&Value| {
                let restarted = items(&pod["status"]["containerStatuses"])
                    .iter()
                    .any(|container| container["restartCount"].as_u64() > Some(0));
                text(&pod["spec"]["nodeName"]) == node && restarted
            };
            if let Some(pod) = pods.iter().find(on_node) {
                let name = text(&pod["metadata"]["name"]);
                let args = ["delete", "pod", "--namespace", HERALD_NAMESPACE, name];
                self.lab().kubectl(args)?;
            }
        }
        Ok(())
    }

    /// Undoes whatever a round that failed may have left.
    ///
    /// # Errors
    ///
    /// If the cluster does not become whole again.
    pub fn mend_all(self) -> Result<()> {
        self.lab().api(Action::Thaw)?;
        self.lab().api(Action::Start)?;
        self.cluster.mend_nodes()
    }
}

/// Path of a Service.
pub fn service(name: &str) -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/services/{name}")
}

/// Lets the load go on for so long.
///
/// # Errors
///
/// If a signal came.
pub fn rest(time: Duration) -> Result<()> {
    let until = Instant::now() + time;
    while Instant::now() < until {
        go_on()?;
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// How many processes wanted a processor, on average over the last minute: what else the machine did.
///
/// # Errors
///
/// If the kernel does not say.
pub fn load() -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("reading the load")?;
    let first = text.split(' ').next().context("no load")?;
    first.parse().context("a load that is no number")
}
