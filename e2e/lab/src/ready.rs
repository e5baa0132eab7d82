//! Waiting for Kubernetes, and saying what it is that isn't there.

use std::fmt::Write as _;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::control_plane::PLACE as CONTROL_PLANE;
use crate::error::{Error, Result};
use crate::lab::Lab;
use crate::layout::{last_lines, tail};
use crate::state::Node;

/// Asks `probe` until it gives something; then, or when `timeout` is over, it is done. `detail` says
/// what is known about the cause.
pub(crate) fn wait<T>(
    what: &str,
    timeout: Duration,
    mut probe: impl FnMut() -> Result<Option<T>>,
    detail: impl FnOnce() -> String,
) -> Result<T> {
    const PAUSE: Duration = Duration::from_millis(200);
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            return Err(Error::NotReady {
                what: what.to_owned(),
                seconds: timeout.as_secs(),
                detail: detail(),
            });
        }
        thread::sleep(PAUSE);
    }
}

/// Status of a condition of an object: "True", "False", "Unknown", or "" without one.
pub(crate) fn condition<'a>(object: &'a Value, name: &str) -> &'a str {
    let conditions = object["status"]["conditions"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let found = conditions
        .iter()
        .find(|condition| condition["type"] == name);
    found
        .and_then(|condition| condition["status"].as_str())
        .unwrap_or_default()
}

fn condition_message(object: &Value, name: &str) -> String {
    let conditions = object["status"]["conditions"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let found = conditions
        .iter()
        .find(|condition| condition["type"] == name);
    found
        .and_then(|condition| condition["message"].as_str())
        .unwrap_or_default()
        .to_owned()
}

pub(crate) fn items(list: &Value) -> &[Value] {
    list["items"].as_array().map_or(&[], Vec::as_slice)
}

pub(crate) fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

/// Of a list of nodes those that are not Ready, with the reason.
pub(crate) fn nodes_not_ready(list: &Value) -> Vec<(String, String)> {
    let nodes = items(list)
        .iter()
        .filter(|node| condition(node, "Ready") != "True");
    nodes
        .map(|node| (name(node).to_owned(), condition_message(node, "Ready")))
        .collect()
}

/// Of a list of Deployments, `DaemonSets` and Pods whatever is not complete, in words. An empty
/// answer means all is up to date and available.
pub(crate) fn workloads_not_ready(list: &Value) -> Vec<String> {
    items(list).iter().filter_map(workload_lacks).collect()
}

fn workload_lacks(object: &Value) -> Option<String> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let number = |value: &Value| value.as_i64().unwrap_or(0);
    let seen = number(&status["observedGeneration"]) >= number(&object["metadata"]["generation"]);
    let (kind, wanted, updated, available) = match object["kind"].as_str()? {
        "Deployment" => (
            "Deployment",
            spec["replicas"].as_i64().unwrap_or(1),
            number(&status["updatedReplicas"]),
            number(&status["availableReplicas"]),
        ),
        "DaemonSet" => (
            "DaemonSet",
            number(&status["desiredNumberScheduled"]),
            number(&status["updatedNumberScheduled"]),
            number(&status["numberAvailable"]),
        ),
        _ => return None,
    };
    // Of a DaemonSet that nobody has looked at yet, none is wanted.
    let nothing = kind == "DaemonSet" && wanted == 0;
    // Old replicas that still run count as available.
    let old = kind == "Deployment" && number(&status["replicas"]) > wanted;
    if seen && !nothing && !old && updated >= wanted && available >= wanted {
        return None;
    }
    let name = name(object);
    Some(format!(
        "{kind} {name}: {available} of {wanted} available, {updated} up to date"
    ))
}

impl Lab {
    /// Waits until every node of the lab is Ready.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] names the nodes that aren't, their reasons and last log lines.
    pub fn wait_nodes_ready(&self, timeout: Duration) -> Result<()> {
        let wanted = self.nodes().len();
        let probe = || {
            self.check_interrupt()?;
            // The API server may be away for a moment.
            let Ok(list) = self.kubectl_json(["get", "nodes"]) else {
                return Ok(None);
            };
            let all = items(&list).len() == wanted;
            Ok((all && nodes_not_ready(&list).is_empty()).then_some(()))
        };
        wait("every node", timeout, probe, || {
            match self.kubectl_json(["get", "nodes"]) {
                Ok(list) => nodes_not_ready(&list)
                    .into_iter()
                    .fold(String::new(), |text, (node, message)| {
                        text + &self.node_words(&node, &message)
                    }),
                Err(error) => error.to_string(),
            }
        })
    }

    /// Waits until kube-proxy on every node says it is healthy: a node can be Ready before its rules
    /// are there.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] names the nodes where it isn't, with its last log lines.
    pub fn wait_kube_proxy(&self, timeout: Duration) -> Result<()> {
        let unhealthy = || -> Vec<Node> {
            let nodes = self.nodes().into_iter();
            nodes
                .filter(|node| !self.kube_proxy_is_healthy(node))
                .collect()
        };
        let probe = || {
            self.check_interrupt()?;
            Ok(unhealthy().is_empty().then_some(()))
        };
        wait("kube-proxy", timeout, probe, || {
            let words = unhealthy().into_iter().map(|node| {
                let log = self.layout.node_dir(&node.name).join("log/kube-proxy.log");
                format!("{}: {}:\n{}\n", node.name, log.display(), tail(&log, 5))
            });
            words.collect::<Vec<_>>().concat()
        })
    }

    fn kube_proxy_is_healthy(&self, node: &Node) -> bool {
        let address = node.address.primary();
        let host = if address.contains(':') {
            format!("[{address}]")
        } else {
            address
        };
        let url = format!("http://{host}:10256/healthz");
        self.exec(
            CONTROL_PLANE,
            ["curl", "-gsf", "--noproxy", "*", "--max-time", "2", &url],
        )
        .is_ok_and(|answer| answer.success())
    }

    /// Waits until every Deployment and `DaemonSet` of a namespace is up to date and available.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] names each pod that isn't ready, its reason, events and last log lines.
    pub fn wait_workloads_ready(&self, namespace: &str, timeout: Duration) -> Result<()> {
        let workloads =
            || self.kubectl_json(["get", "deployments,daemonsets", "--namespace", namespace]);
        let probe = || {
            self.check_interrupt()?;
            let Ok(list) = workloads() else {
                return Ok(None);
            };
            Ok(workloads_not_ready(&list).is_empty().then_some(()))
        };
        let what = format!("everything in {namespace}");
        wait(&what, timeout, probe, || match workloads() {
            Ok(list) => {
                let lacking = workloads_not_ready(&list).join("\n");
                format!("{lacking}\n{}", self.pods_not_ready(namespace))
            }
            Err(error) => error.to_string(),
        })
    }

    /// Each pod of a namespace that isn't ready: its reason, events and last log lines.
    pub fn pods_not_ready(&self, namespace: &str) -> String {
        let list = match self.kubectl_json(["get", "pods", "--namespace", namespace]) {
            Ok(list) => list,
            Err(error) => return error.to_string(),
        };
        let mut text = String::new();
        for pod in items(&list)
            .iter()
            .filter(|pod| condition(pod, "Ready") != "True")
        {
            let node = pod["spec"]["nodeName"].as_str().unwrap_or("no node");
            // Writing to a String cannot fail.
            writeln!(text, "pod {} on {node}: {}", name(pod), pod_reason(pod)).ok();
            let events = self.kubectl([
                "get",
                "events",
                "--namespace",
                namespace,
                "--no-headers",
                "--field-selector",
                &format!(
                    "involvedObject.name={},type=Warning,reason!=MissingClusterDNS",
                    name(pod)
                ),
                "-o",
                "custom-columns=R:.reason,M:.message",
            ]);
            let logs = |more: &[&str]| {
                let mut args = vec![
                    "logs",
                    name(pod),
                    "--namespace",
                    namespace,
                    "--tail",
                    "8",
                    "--all-containers",
                ];
                args.extend(more);
                self.kubectl(args)
            };
            let log = match logs(&[]) {
                Ok(log) if !log.trim().is_empty() => log,
                _ => logs(&["--previous"]).unwrap_or_default(),
            };
            for part in [events.unwrap_or_default(), log] {
                for line in last_lines(&part, 10).lines() {
                    writeln!(text, "  {line}").ok();
                }
            }
        }
        text
    }
}

/// Why a pod is not ready, in a few words.
pub(crate) fn pod_reason(pod: &Value) -> String {
    let status = &pod["status"];
    let containers = ["initContainerStatuses", "containerStatuses"]
        .into_iter()
        .flat_map(|list| status[list].as_array().map_or(&[][..], Vec::as_slice));
    for container in containers {
        for state in [
            &container["state"]["waiting"],
            &container["state"]["terminated"],
        ] {
            let Some(reason) = state["reason"].as_str() else {
                continue;
            };
            if reason == "Completed" {
                continue;
            }
            let message = state["message"].as_str().unwrap_or_default();
            let last = &container["lastState"]["terminated"];
            let exit = last["exitCode"]
                .as_i64()
                .map_or_else(String::new, |code| format!(" (last exit code {code})"));
            return format!("{reason}{exit} {message}").trim().to_owned();
        }
    }
    for name in ["PodScheduled", "Ready"] {
        if condition(pod, name) == "False" {
            let phase = status["phase"].as_str().unwrap_or_default();
            return format!("{phase} {}", condition_message(pod, name))
                .trim()
                .to_owned();
        }
    }
    status["phase"].as_str().unwrap_or("unknown").to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn list(items: &[Value]) -> Value {
        json!({"items": items})
    }

    #[test]
    fn a_daemon_set_nobody_looked_at_is_not_ready() {
        let new = json!({"kind": "DaemonSet", "metadata": {"name": "speaker", "generation": 1}});
        assert_eq!(
            workloads_not_ready(&list(&[new])),
            ["DaemonSet speaker: 0 of 0 available, 0 up to date"]
        );
    }

    #[test]
    fn a_deployment_is_ready_when_all_of_its_replicas_are_new_and_available() {
        let deployment = |updated: i64, replicas: i64| {
            json!({
                "kind": "Deployment", "metadata": {"name": "controller", "generation": 2},
                "spec": {"replicas": 2},
                "status": {"observedGeneration": 2, "replicas": replicas,
                    "updatedReplicas": updated, "availableReplicas": 2},
            })
        };
        let lacking = |object| workloads_not_ready(&list(&[object]));
        assert!(lacking(deployment(2, 2)).is_empty());
        assert_eq!(lacking(deployment(2, 3)).len(), 1);
        assert_eq!(
            lacking(deployment(1, 2)),
            ["Deployment controller: 2 of 2 available, 1 up to date"]
        );
    }

    #[test]
    fn the_reason_of_a_crash_loop_has_its_exit_code() {
        let pod = json!({"status": {"phase": "Running", "containerStatuses": [{
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}},
            "lastState": {"terminated": {"exitCode": 101}},
        }]}});
        assert_eq!(
            pod_reason(&pod),
            "CrashLoopBackOff (last exit code 101) back-off 10s"
        );
    }

    #[test]
    fn a_pod_no_node_takes_says_why() {
        let pod = json!({"status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}]}});
        assert_eq!(pod_reason(&pod), "Pending 0/3 nodes are available");
    }

    #[test]
    fn waiting_ends_with_what_is_known() {
        let never = || Ok(None::<()>);
        let error = wait("it", Duration::ZERO, never, || "a\nb".to_owned()).expect_err("never");
        assert_eq!(error.to_string(), "it is not ready after 0 s\n    a\n    b");
    }
}
