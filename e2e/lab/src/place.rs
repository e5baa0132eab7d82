//! Commands at a place of the lab: in its namespaces, and in a cgroup of the lab, so that `down`
//! ends what is left of them.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::cgroup::Cgroup;
use crate::layout::Layout;

/// Enters the cgroups whose `cgroup.procs` come before `--`, then runs the rest.
const ENTER: &str =
    r#"while [ "$1" != -- ]; do echo $$ >"$1" || exit 125; shift; done; shift; exec "$@""#;
/// `$0` of [`ENTER`] tells [`skip_prefix`] how many `--` come before the command itself.
const TO_NAMESPACE: &str = "herald-lab-namespace";
const TO_NODE: &str = "herald-lab-node";

/// Runs in the given cgroup; what to run is appended.
pub(crate) fn enter_cgroup(cgroup: &Cgroup) -> Command {
    enter(cgroup, TO_NAMESPACE)
}

fn enter(cgroup: &Cgroup, name: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", ENTER, name]);
    command.args(
        cgroup
            .entered_dirs()
            .into_iter()
            .map(|dir| dir.join("cgroup.procs")),
    );
    command.arg("--");
    command
}

/// Runs in a place that is just a network namespace: control plane, clients, LAN.
pub(crate) fn in_netns(layout: &Layout, place: &str) -> Command {
    let mut command = enter(&exec_cgroup(layout), TO_NAMESPACE);
    let mut net = std::ffi::OsString::from("--net=");
    net.push(layout.netns_path(place));
    command.arg("nsenter").arg(net).arg("--");
    set_environment(&mut command, layout);
    command
}

/// Runs in all the namespaces of a node; `init` is its process 1.
pub(crate) fn in_node(layout: &Layout, init: u32) -> Command {
    let mut command = enter(&exec_cgroup(layout), TO_NODE);
    command.args(["nsenter", "--target", &init.to_string()]);
    command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--"]);
    // nsenter forks to get into the pid namespace: without this, killing it would leave the command.
    command.args(["setpriv", "--pdeathsig", "KILL", "--"]);
    set_environment(&mut command, layout);
    command
}

/// Commands from outside have a cgroup of their own: a frozen node can still be looked at.
pub(crate) fn exec_cgroup(layout: &Layout) -> Cgroup {
    Cgroup::new(layout.cgroup_of("exec"))
}

fn set_environment(command: &mut Command, layout: &Layout) {
    command.env("PATH", search_path(layout));
    command.env("KUBECONFIG", layout.path("pki/admin.conf"));
    command.env("KUBECACHEDIR", layout.path("cache/kubectl"));
    for (name, folder) in [
        ("HELM_CACHE_HOME", "cache/helm"),
        ("HELM_CONFIG_HOME", "cache/helm-config"),
        ("HELM_DATA_HOME", "cache/helm-data"),
    ] {
        command.env(name, layout.path(folder));
    }
    command.env("CONTAINERD_NAMESPACE", "k8s.io");
    // No way leads from the lab to a proxy of the machine.
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        command.env_remove(name).env_remove(name.to_lowercase());
    }
}

/// The lab's own programs, then the machine's, with the folders root's PATH may lack.
pub(crate) fn search_path(layout: &Layout) -> std::ffi::OsString {
    let mut folders = vec![layout.path("bin")];
    folders.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    for folder in [
        "/usr/local/sbin",
        "/usr/local/bin",
        "/usr/sbin",
        "/usr/bin",
        "/sbin",
        "/bin",
    ] {
        if !folders.iter().any(|have| have.as_os_str() == folder) {
            folders.push(PathBuf::from(folder));
        }
    }
    // A folder with a colon in its name can't have come from PATH, and ours has none.
    env::join_paths(folders).unwrap_or_default()
}

/// Process 1 of a node: the one in the node's own cgroup that is number 1 in its pid namespace.
pub(crate) fn node_init(layout: &Layout, node: &str) -> Option<u32> {
    let depth = namespace_pids("self")?.len() + 1;
    let system = Cgroup::new(layout.cgroup_of(node)).child("system");
    system.processes(false).into_iter().find(|pid| {
        namespace_pids(&pid.to_string())
            .is_some_and(|pids| pids.len() == depth && pids.last().is_some_and(|pid| pid == "1"))
    })
}

fn namespace_pids(pid: &str) -> Option<Vec<String>> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let pids = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    Some(pids.split_whitespace().map(str::to_owned).collect())
}

/// The words of a command without what brings it to its place.
pub(crate) fn skip_prefix<'a>(words: &'a [&'a OsStr]) -> &'a [&'a OsStr] {
    let dashes = match words.get(3).and_then(|word| word.to_str()) {
        Some(TO_NAMESPACE) => 2,
        Some(TO_NODE) => 3,
        _ => return words,
    };
    let ends = words.iter().enumerate().filter(|(_, word)| **word == "--");
    ends.map(|(end, _)| end)
        .nth(dashes - 1)
        .map_or(words, |end| &words[end + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_show_the_command_without_its_prefix() {
        let layout = Layout::new("lab");
        for mut command in [in_netns(&layout, "client"), in_node(&layout, 1)] {
            command.args(["kubectl", "exec", "x", "--", "ls"]);
            let mut words = vec![command.get_program()];
            words.extend(command.get_args());
            assert_eq!(skip_prefix(&words), ["kubectl", "exec", "x", "--", "ls"]);
        }
        assert_eq!(
            skip_prefix(&[OsStr::new("ls"), OsStr::new("--")]),
            ["ls", "--"]
        );
    }
}
