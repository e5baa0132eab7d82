//! The cluster that all tests of a run share.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use herald_lab::{HERALD_NAMESPACE, KubeProxy, Lab, Options};
use serde_json::Value;

use crate::api::{Api, herald};
use crate::client::Client;
use crate::metrics::Metrics;
use crate::object::{condition, items, text};
use crate::wait::eventually;

/// A second client on the LAN, beside `client`.
pub const OTHER_CLIENT: &str = "other";

/// A lab with Herald in it, and a way to ask its API server.
#[derive(Debug)]
pub struct Cluster {
    /// The lab.
    pub lab: Lab,
    /// Its API server.
    pub api: Api,
}

/// The cluster of this process. The first call attaches to the lab named by `HERALD_LAB_NAME`
/// (`test`), or brings it up, with kube-proxy in the mode of `HERALD_KUBE_PROXY` (nftables); and
/// brings Herald in it to what is built now. It stays up: `e2e/tests/run.sh` removes it.
///
/// # Errors
///
/// Why there is none; the same for every caller.
pub fn cluster() -> Result<&'static Cluster> {
    static CLUSTER: OnceLock<Result<Cluster, String>> = OnceLock::new();
    CLUSTER
        .get_or_init(|| prepare().map_err(|error| format!("{error:#}")))
        .as_ref()
        .map_err(|error| anyhow!("no cluster to test on: {error}"))
}

/// Values of the chart that Herald is tested with. What happened is in the logs that a failed run leaves,
/// and no address moves but where a test wants it.
pub const CHART: [&str; 2] = ["logLevel=debug", "controller.rebalance.enabled=false"];

/// A line for the reader of the run, whether tests fail or not.
pub fn report(line: &str) {
    // Not through the macro: the test harness would keep it to itself.
    writeln!(io::stderr(), "{line}").ok();
}

fn prepare() -> Result<Cluster> {
    let name = env::var("HERALD_LAB_NAME").unwrap_or_else(|_| "test".to_owned());
    let mode = env::var("HERALD_KUBE_PROXY").unwrap_or_default();
    let kube_proxy = match mode.as_str() {
        "" => KubeProxy::default(),
        mode => mode.parse()?,
    };
    let mut options = Options {
        kube_proxy,
        ..Options::named(&name)
    };
    options.chart.set = CHART.map(str::to_owned).to_vec();
    let mut tell = |step: &herald_lab::Step| {
        let seconds = step.elapsed.as_secs_f32();
        report(&format!("lab {name}: {seconds:5.1} s  {}", step.text));
    };
    let mut lab = Lab::ensure(&options, &mut tell)?;
    lab.deploy(&options.chart, &mut tell)?;
    lab.add_client(OTHER_CLIENT)?;
    let api = Api::connect(&lab)?;
    Ok(Cluster { lab, api })
}

impl Cluster {
    /// Names of the nodes.
    pub fn nodes(&self) -> Vec<String> {
        self.lab.nodes().into_iter().map(|node| node.name).collect()
    }

    /// The pods of a component of Herald's that are not being deleted.
    ///
    /// # Errors
    ///
    /// If they can't be listed.
    pub fn pods(&self, component: &str) -> Result<Vec<Value>> {
        let path = format!(
            "/api/v1/namespaces/{HERALD_NAMESPACE}/pods?labelSelector=app.kubernetes.io/component%3D{component}"
        );
        let mut pods = self.api.list(&path)?;
        pods.retain(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        Ok(pods)
    }

    /// The controller that works: the holder of the lease; its pod's name.
    ///
    /// # Errors
    ///
    /// If nobody holds the lease.
    pub fn leader(&self) -> Result<String> {
        let lease = self.api.get(&format!(
            "/apis/coordination.k8s.io/v1/namespaces/{HERALD_NAMESPACE}/leases/herald-controller"
        ))?;
        let holder = text(&lease["spec"]["holderIdentity"]);
        ensure!(!holder.is_empty(), "nobody holds the lease");
        Ok(holder.to_owned())
    }

    /// What the speaker of a node counts.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn speaker_metrics(&self, node: &str) -> Result<Metrics> {
        let page = self
            .lab
            .exec(
                node,
                [
                    "curl",
                    "--silent",
                    "--show-error",
                    "--fail",
                    "--max-time",
                    "5",
                    "http://127.0.0.1:7471/metrics",
                ],
            )?
            .ok()
            .with_context(|| format!("metrics of the speaker of {node}"))?;
        Ok(Metrics::parse(&page))
    }

    /// What the working controller counts.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn controller_metrics(&self) -> Result<Metrics> {
        let leader = self.leader()?;
        let pods = self.pods("controller")?;
        let pod = pods
            .iter()
            .find(|pod| leader.starts_with(text(&pod["metadata"]["name"])))
            .with_context(|| format!("the leader {leader} is no pod of ours"))?;
        let url = format!("http://{}:7470/metrics", text(&pod["status"]["podIP"]));
        let page = self
            .lab
            .exec("cp", ["curl", "-sSf", "--max-time", "5", &url])?
            .ok()?;
        Ok(Metrics::parse(&page))
    }

    /// The second client. To ask from it who has an address leaves what the first one knows alone.
    pub fn other_client(&self) -> Client<'_> {
        Client::at(&self.lab, OTHER_CLIENT)
    }

    /// Who answers for an address according to its `VirtualIP`: node and MAC address.
    ///
    /// # Errors
    ///
    /// If nobody does; the object is in the message.
    pub fn announcer(&self, address: std::net::IpAddr) -> Result<(String, String)> {
        let name = herald_model::VirtualIp::object_name(address);
        let vip = self.api.get(&herald("virtualips", &name))?;
        let segments = items(&vip["status"]["segments"]);
        ensure!(
            segments.len() == 1,
            "{} segments are announced; spec {}, status {}",
            segments.len(),
            vip["spec"],
            vip["status"]
        );
        Ok((
            text(&segments[0]["node"]).to_owned(),
            text(&segments[0]["mac"]).to_owned(),
        ))
    }

    /// Waits until all of Herald is Ready, the controllers on different nodes, all nodes are, and
    /// each speaker sees all of them.
    ///
    /// # Errors
    ///
    /// What isn't, and why.
    pub fn wait_whole(&self) -> Result<()> {
        let limit = Duration::from_mins(2);
        self.lab.wait_api_ready(limit)?;
        self.lab.wait_nodes_ready(limit)?;
        self.lab.wait_workloads_ready(HERALD_NAMESPACE, limit)?;
        self.spread_controllers(limit)?;
        eventually("every speaker sees all speakers", limit, || {
            let nodes = self.nodes();
            for node in &nodes {
                let metrics = self.speaker_metrics(node)?;
                let up = metrics.series("herald_speaker_ring_members", &["state=\"up\""]);
                let all: f64 = u32::try_from(nodes.len())?.into();
                ensure!(
                    !up.is_empty() && up.iter().all(|up| *up >= all),
                    "{node} sees {up:?}"
                );
            }
            Ok(())
        })
    }

    /// Undoes what was done to nodes, links and programs, and waits as [`Self::wait_whole`] does. The API
    /// server must be there.
    ///
    /// # Errors
    ///
    /// What does not become whole again, and why.
    pub fn mend_nodes(&self) -> Result<()> {
        let lab = &self.lab;
        for node in lab.status()?.nodes {
            if !node.on {
                lab.power_on(&node.name, false)?;
                continue;
            }
            if node.frozen {
                lab.thaw(&node.name)?;
            }
            for program in &node.stopped {
                lab.thaw_program(&node.name, program.parse()?)?;
            }
        }
        lab.heal_all()?;
        self.wait_whole()
    }

    /// Parts controllers that share a node: they were placed while there was no other.
    fn spread_controllers(&self, limit: Duration) -> Result<()> {
        let pods = format!("/api/v1/namespaces/{HERALD_NAMESPACE}/pods");
        let mut moved = BTreeSet::new();
        eventually("two controllers on different nodes", limit, || {
            let mut nodes = BTreeMap::new();
            for pod in self.pods("controller")? {
                let name = text(&pod["metadata"]["name"]).to_owned();
                let ready = &condition(&pod, "Ready")["status"];
                ensure!(ready == "True", "{name} is not ready");
                nodes.insert(text(&pod["spec"]["nodeName"]).to_owned(), name);
            }
            if nodes.len() == 1 {
                let one: Vec<_> = nodes.into_values().collect();
                if moved.insert(one[0].clone()) {
                    self.api.delete(&format!("{pods}/{}", one[0]))?;
                }
                bail!("{} shares its node with another", one[0]);
            }
            Ok(())
        })
    }

    /// The last log lines of every part of Herald, for a failure's report.
    pub fn logs(&self) -> String {
        let mut all = String::new();
        for (pod, node) in self.all_pods() {
            let log = self
                .lab
                .kubectl(["logs", "-n", HERALD_NAMESPACE, &pod, "--tail", "2000"])
                .unwrap_or_else(|error| error.to_string());
            all.extend(["\n##### ", &pod, " on ", &node, "\n", &log]);
        }
        all
    }

    /// What all parts of Herald told in the last `time`, in the order of time: the last lines of it, each
    /// after its pod's node. Of what is for developers, only the plans.
    pub fn story(&self, time: Duration) -> String {
        /// How many lines are read at a glance.
        const LINES: usize = 80;
        const LONGEST: usize = 240;
        let since = format!("--since={}s", time.as_secs() + 1);
        let mut lines = Vec::new();
        for (pod, node) in self.all_pods() {
            // The one before is there if the program was killed.
            for which in ["--previous=true", "--previous=false"] {
                let args = ["logs", "-n", HERALD_NAMESPACE, &pod, &since, which];
                let log = self.lab.kubectl(args).unwrap_or_default();
                let told = log
                    .lines()
                    .filter(|line| !line.contains(" DEBUG ") || line.contains(": planned vip="))
                    .filter_map(|line| line.split_once(' '))
                    .map(|(at, what)| {
                        let what: String = what.trim_start().chars().take(LONGEST).collect();
                        (at.to_owned(), node.clone(), what)
                    });
                lines.extend(told);
            }
        }
        lines.sort();
        let mut story = String::new();
        for (at, node, what) in lines.iter().skip(lines.len().saturating_sub(LINES)) {
            // Writing to a String cannot fail.
            writeln!(story, "  {at} {node} {what}").ok();
        }
        story
    }

    /// Herald's pods, each with its node.
    fn all_pods(&self) -> Vec<(String, String)> {
        ["controller", "speaker"]
            .into_iter()
            .flat_map(|component| self.pods(component).unwrap_or_default())
            .map(|pod| {
                let name = text(&pod["metadata"]["name"]).to_owned();
                (name, text(&pod["spec"]["nodeName"]).to_owned())
            })
            .collect()
    }
}
