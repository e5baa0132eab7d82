//! What must be on the machine, and where the parts the setup built are.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, Result};
use crate::image::{Image, sha256};
use crate::layout::Layout;
use crate::layout::{create_dir, write, write_program};
use crate::place::search_path;
use crate::process::{command, output, run};

/// Version of every Kubernetes component.
pub const KUBE_VERSION: &str = "v1.35.4";
/// Version of Helm.
pub const HELM_VERSION: &str = "v4.3.1";
/// The test server's image: answers with pod, node and client address over HTTP (8080), TCP and UDP
/// (9090). Give its container POD and NODE from the downward API.
pub const ECHO_IMAGE: &str = "lab.local/echo:1";
/// The image of every pod's sandbox.
pub(crate) const PAUSE_IMAGE: &str = "lab.local/pause:1";

const KUBE_MAIN: &str = include_str!("../kube/main.go");
const KUBE_MOD: &str = include_str!("../kube/go.mod");
const ECHO_SOURCES: [(&str, &str); 5] = [
    ("go.mod", include_str!("../images/echo/go.mod")),
    ("main.go", include_str!("../images/echo/main.go")),
    ("serve.go", include_str!("../images/echo/serve.go")),
    ("client.go", include_str!("../images/echo/client.go")),
    ("arp.go", include_str!("../images/echo/arp.go")),
];
const PAUSE_SOURCE: &str = include_str!("../images/pause/pause.c");

/// Commands (or files) and the Debian package each comes from.
const COMMANDS: [(&str, &str); 18] = [
    ("ip", "iproute2"),
    ("bridge", "iproute2"),
    ("nft", "nftables"),
    ("iptables", "iptables"),
    ("conntrack", "conntrack"),
    ("containerd", "containerd"),
    ("ctr", "containerd"),
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("nsenter", "util-linux"),
    ("unshare", "util-linux"),
    ("setsid", "util-linux"),
    ("setpriv", "util-linux"),
    ("sysctl", "procps"),
    ("jq", "jq"),
    ("openssl", "openssl"),
    ("curl", "curl"),
    ("bash", "bash"),
];
const SETUP: &str = "`make setup` installs it";

/// What the setup built, outside the tree.
#[derive(Debug)]
pub(crate) struct Tools {
    pub(crate) kube: PathBuf,
    pub(crate) helm: PathBuf,
}

impl Tools {
    /// Looks for everything the lab runs.
    pub(crate) fn find() -> Result<Self> {
        for (name, package) in COMMANDS {
            require_command(name, package)?;
        }
        require_modules()?;
        let kube = env::var_os("HERALD_KUBE").map_or_else(
            || cache().map(|cache| cache.join(kube_folder()).join("kube")),
            |path| Ok(path.into()),
        )?;
        require_file(&kube, &format!("Kubernetes {KUBE_VERSION}"))?;
        let helm = cache()?.join(format!("helm-{HELM_VERSION}/helm"));
        require_file(&helm, &format!("Helm {HELM_VERSION}"))?;
        Ok(Self { kube, helm })
    }
}

fn missing(what: String, remedy: &str) -> Error {
    Error::Missing {
        what,
        remedy: remedy.to_owned(),
    }
}

/// Namespaces, cgroups and mounts take it.
pub(crate) fn require_root() -> Result<()> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    if uid.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0") {
        return Ok(());
    }
    Err(missing(
        "root".to_owned(),
        "namespaces, cgroups and mounts take it; use sudo -E",
    ))
}

fn require_command(name: &str, package: &str) -> Result<()> {
    if find_program(name) {
        return Ok(());
    }
    Err(missing(format!("{name} (package {package})"), SETUP))
}

fn find_program(name: &str) -> bool {
    env::split_paths(&search_path(&Layout::new(""))).any(|dir| dir.join(name).is_file())
}

fn require_file(path: &Path, what: &str) -> Result<()> {
    if path.is_file() {
        return Ok(());
    }
    Err(missing(
        format!("{what} ({})", path.display()),
        "`make setup` gets it once",
    ))
}

/// Loaded on demand where they are modules.
fn require_modules() -> Result<()> {
    let loaded = || Path::new("/proc/sys/net/bridge/bridge-nf-call-iptables").exists();
    if !loaded() {
        for module in ["br_netfilter", "overlay", "veth", "nf_conntrack"] {
            // Built in, most of them: what counts is whether they work.
            output(&mut command("modprobe", ["-q", module]), None).ok();
        }
    }
    if loaded() {
        return Ok(());
    }
    Err(missing(
        "the kernel module br_netfilter".to_owned(),
        "`modprobe br_netfilter` loads it",
    ))
}

/// As setup.sh has it.
fn cache() -> Result<PathBuf> {
    let set = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    Ok(cache
        .ok_or_else(|| missing("HOME".to_owned(), "set it"))?
        .join("herald"))
}

/// The folder with `prometheus` and `promtool`, which tests of metrics and alerts run.
///
/// # Errors
///
/// [`Error::Missing`] if they are not there.
pub fn prometheus() -> Result<PathBuf> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        let mut lines = release.lines();
        let value = lines.find_map(|line| line.strip_prefix(name));
        value.unwrap_or_default().trim_matches('"').to_owned()
    };
    let (id, version) = (field("ID="), field("VERSION_ID="));
    let folder = cache()?.join(format!("prometheus-{id}{version}"));
    require_file(&folder.join("promtool"), "Prometheus")?;
    Ok(folder)
}

fn kube_folder() -> String {
    let key = sha256([KUBE_MAIN, KUBE_MOD].concat().as_bytes());
    format!("kube-{KUBE_VERSION}-{}", &key[..12])
}

/// Folder with `pause.tar`, `echo.tar` and the program `lab-echo`; built when it isn't there.
pub(crate) fn base_images(building: impl FnOnce()) -> Result<PathBuf> {
    let sources: String = ECHO_SOURCES.iter().map(|(_, source)| *source).collect();
    let key = sha256(format!("1{sources}{PAUSE_SOURCE}").as_bytes());
    let cache = cache()?;
    let dir = cache.join(format!("images-{}", &key[..12]));
    if dir.join("complete").exists() {
        return Ok(dir);
    }
    building();
    // Two labs may build at once, each in a folder of its own.
    let work = cache.join(format!("images-build-{}", std::process::id()));
    let built = build_base_images(&work, &dir);
    fs::remove_dir_all(&work).ok();
    built.map(|()| dir)
}

fn build_base_images(work: &Path, dir: &Path) -> Result<()> {
    require_command("go", "golang, 1.25 or later")?;
    require_command("musl-gcc", "musl-tools")?;
    create_dir(work)?;
    create_dir(dir)?;
    for (name, source) in ECHO_SOURCES {
        write(&work.join(name), source)?;
    }
    write(&work.join("pause.c"), PAUSE_SOURCE)?;
    let go = ["build", "-trimpath", "-ldflags", "-s -w", "-o", "echo", "."];
    run(Command::new("go")
        .args(go)
        .current_dir(work)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-buildvcs=false")
        .env("GOWORK", "off"))?;
    let musl = ["-static", "-Os", "-s", "-o", "pause", "pause.c"];
    run(Command::new("musl-gcc").args(musl).current_dir(work))?;
    let built = |name: &str| {
        let path = work.join(name);
        fs::read(&path).map_err(Error::io("read", &path))
    };
    let (echo, pause) = (built("echo")?, built("pause")?);
    Image::new(PAUSE_IMAGE)
        .program("/pause", pause)
        .entrypoint(&["/pause"])
        .write_to(&dir.join("pause.tar"))?;
    Image::new(ECHO_IMAGE)
        .program("/echo", echo.clone())
        .entrypoint(&["/echo"])
        .write_to(&dir.join("echo.tar"))?;
    write_program(&dir.join("lab-echo"), echo)?;
    write(&dir.join("complete"), "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setup_builds_the_versions_the_lab_looks_for() {
        let setup = include_str!("../setup.sh");
        assert!(setup.contains(&format!("\nKUBE_VERSION={KUBE_VERSION}\n")));
        assert!(setup.contains(&format!("\nHELM_VERSION={HELM_VERSION}\n")));
        assert!(KUBE_MOD.contains(&format!("k8s.io/kubernetes {KUBE_VERSION}\n")));
    }

    #[test]
    fn a_missing_tool_is_named_with_its_package() {
        let error = require_command("no-such-tool", "some-package").expect_err("missing");
        assert_eq!(
            error.to_string(),
            "no-such-tool (package some-package) is missing: `make setup` installs it"
        );
    }
}
