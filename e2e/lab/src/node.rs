//! A node: containerd, kubelet and kube-proxy in namespaces and a cgroup of their own.

use std::fs;
use std::io::ErrorKind;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::address::{POD_V4, POD_V6, pod_cidrs};
use crate::cgroup::{Cgroup, signal_processes};
use crate::daemon;
use crate::error::{Error, Result};
use crate::lan::{self, Role};
use crate::layout::{Layout, create_dir, fill, tail, write, write_program};
use crate::place::node_init;
use crate::state::{Node, State};

const INIT: &str = include_str!("../node/init.sh");
const CONTAINERD: &str = include_str!("../node/containerd.toml");
const KUBELET: &str = include_str!("../node/kubelet.yaml");
const KUBE_PROXY: &str = include_str!("../node/kube-proxy.yaml");
const CNI: &str = include_str!("../node/cni.conflist");
const RUNC: &str = include_str!("../node/runc-lab.sh");

pub(crate) fn cgroup(layout: &Layout, node: &str) -> Cgroup {
    Cgroup::new(layout.cgroup_of(node))
}

/// Boots a node whose leg, cgroup and processes are not there. Its disk may be.
pub(crate) fn boot(layout: &Layout, state: &State, node: &Node) -> Result<()> {
    write_files(layout, state, node)?;
    let nodes = state.all_nodes();
    lan::add_leg(
        layout,
        &node.name,
        &node.address,
        Role::Node,
        &nodes,
        state.family,
    )?;
    let cgroup = cgroup(layout, &node.name);
    cgroup.create_for_kubelet()?;
    let system = cgroup.child("system");
    system.create()?;
    let dir = layout.node_dir(&node.name);
    let init = layout.path("bin/node-init");
    daemon::start(
        &system,
        &[
            "nsenter",
            &format!("--net={}", layout.netns_path(&node.name).display()),
            "--",
            "unshare",
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child",
            "--uts",
            "--ipc",
            "bash",
            &init.display().to_string(),
        ],
        &[
            ("LAB", &layout.folder().display().to_string()),
            ("NODE", &node.name),
            ("NODE_IPS", &node.address.all().join(",")),
        ],
        &dir.join("log/init.log"),
    )
}

fn write_files(layout: &Layout, state: &State, node: &Node) -> Result<()> {
    let dir = layout.node_dir(&node.name);
    for name in ["log", "etc", "varlog", "hold", "etc-upper", "etc-work"] {
        create_dir(&dir.join(name))?;
    }
    let ranges: Vec<_> = pod_cidrs(state.family, node.index)
        .iter()
        .map(|cidr| json!([{"subnet": cidr}]))
        .collect();
    let everywhere = state.family.pick("0.0.0.0/0", "::/0");
    let routes: Vec<_> = everywhere
        .split(',')
        .map(|dst| json!({"dst": dst}))
        .collect();
    let healthz = if state.family.v4() {
        "0.0.0.0:10256"
    } else {
        "[::]:10256"
    };
    let values: &[(&str, &str)] = &[
        ("node", &node.name),
        ("node_dir", &dir.display().to_string()),
        ("pki", &layout.path("pki").display().to_string()),
        ("cgroup", &format!("/{}", layout.cgroup_of(&node.name))),
        ("kube_proxy", state.kube_proxy.as_str()),
        ("pod_cidrs", &state.family.pick(POD_V4, POD_V6)),
        ("healthz", healthz),
        ("ranges", &json!(ranges).to_string()),
        ("routes", &json!(routes).to_string()),
    ];
    let etc = dir.join("etc");
    for (name, template) in [
        ("containerd.toml", CONTAINERD),
        ("kubelet.yaml", KUBELET),
        ("kube-proxy.yaml", KUBE_PROXY),
        ("cni.conflist", CNI),
        ("resolv.conf", ""),
    ] {
        write(&etc.join(name), fill(template, values))?;
    }
    write_program(&etc.join("runc-lab"), fill(RUNC, values))?;
    write_program(&layout.path("bin/node-init"), INIT)
}

/// The Node objects. Made before the kubelets register, so that each node has the pod addresses
/// that go with its number.
pub(crate) fn manifest(state: &State) -> String {
    let node = |node: Node| {
        let cidrs = pod_cidrs(state.family, node.index);
        json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name},
            "spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs},
        })
    };
    let items: Vec<_> = state.all_nodes().into_iter().map(node).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// Power gone: every process at one instant, the network namespace with its programs and rules, the
/// mounts. The disk stays.
pub(crate) fn power_off(layout: &Layout, node: &str) -> Result<()> {
    // First: what dies closes its connections, and a node without power says no farewell.
    lan::silence(layout, node)?;
    let cgroup = cgroup(layout, node);
    cgroup.kill()?;
    lan::remove_leg(layout, node)?;
    cgroup.remove()
}

/// An empty disk for the next boot.
pub(crate) fn forget_disk(layout: &Layout, node: &str) -> Result<()> {
    let dir = layout.node_dir(node);
    if dir.exists() {
        fs::remove_dir_all(&dir).map_err(Error::io("remove", &dir))?;
    }
    Ok(())
}

/// Process 1 of a node that is on; one that has only just begun to boot is waited for.
pub(crate) fn init(layout: &Layout, node: &str) -> Result<u32> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match node_init(layout, node) {
            Some(pid) => return Ok(pid),
            None if is_on(layout, node) && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(10));
            }
            None => return Err(Error::NodeOff(node.to_owned())),
        }
    }
}

pub(crate) fn is_on(layout: &Layout, node: &str) -> bool {
    !cgroup(layout, node)
        .child("system")
        .processes(false)
        .is_empty()
}

/// Why a node does not become Ready, as far as it can tell itself.
pub(crate) fn last_words(layout: &Layout, node: &str) -> String {
    let dir = layout.node_dir(node).join("log");
    let log = |name: &str, lines| {
        let path = dir.join(name);
        match tail(&path, lines) {
            text if text.is_empty() => String::new(),
            text => format!("{}:\n{text}\n", path.display()),
        }
    };
    let on = if is_on(layout, node) {
        ""
    } else {
        "process 1 of the node is gone\n"
    };
    format!("{on}{}{}", log("init.log", 5), log("kubelet.log", 5))
}

/// Sends a signal to the processes of a program on a node, and only there.
pub(crate) fn signal(layout: &Layout, node: &str, program: &str, signal: &str) -> Result<u32> {
    let pids: Vec<u32> = cgroup(layout, node)
        .processes(true)
        .into_iter()
        .filter(|pid| program_of(*pid).as_deref() == Some(program))
        .collect();
    if pids.is_empty() {
        return Err(Error::NoSuchProcess {
            process: program.to_owned(),
            place: node.to_owned(),
        });
    }
    signal_processes(signal, &pids)?;
    Ok(u32::try_from(pids.len()).unwrap_or(u32::MAX))
}

/// Those of these programs that run on a node and are stopped where they are.
pub(crate) fn stopped(layout: &Layout, node: &str, programs: &[&str]) -> Vec<String> {
    let is_stopped = |pid: u32| {
        // The name before the state may have any character, a bracket too.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(')')
            .next()
            .is_some_and(|rest| rest.starts_with(" T"))
    };
    let mut stopped: Vec<_> = cgroup(layout, node)
        .processes(true)
        .into_iter()
        .filter(|pid| is_stopped(*pid))
        .filter_map(program_of)
        .filter(|program| programs.contains(&program.as_str()))
        .collect();
    stopped.sort();
    stopped.dedup();
    stopped
}

/// Last part of the first word of the command line: the components are one file under many names.
fn program_of(pid: u32) -> Option<String> {
    let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let first = String::from_utf8_lossy(words.split(|byte| *byte == 0).next()?).into_owned();
    first.rsplit('/').next().map(str::to_owned)
}

/// Keeps a program from being started on a node until [`release`].
pub(crate) fn hold(layout: &Layout, node: &str, program: &str) -> Result<()> {
    write(&layout.node_dir(node).join("hold").join(program), "")
}

/// Programs that are kept from being started on a node.
pub(crate) fn held(layout: &Layout, node: &str) -> Vec<String> {
    let entries = fs::read_dir(layout.node_dir(node).join("hold"))
        .into_iter()
        .flatten()
        .flatten();
    let mut held: Vec<_> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    held.sort();
    held
}

pub(crate) fn release(layout: &Layout, node: &str, program: &str) -> Result<()> {
    let path = layout.node_dir(node).join("hold").join(program);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io("remove", &path)(error)),
        _ => Ok(()),
    }
}

pub(crate) fn release_all(layout: &Layout, node: &str) -> Result<()> {
    held(layout, node)
        .iter()
        .try_for_each(|program| release(layout, node, program))
}
