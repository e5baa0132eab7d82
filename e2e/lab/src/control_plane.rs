//! etcd, API server, controller manager and scheduler, in the namespace `cp`.

use std::fs;
use std::time::Duration;

use crate::address::{LanAddress, SERVICE_V4, SERVICE_V6};
use crate::cgroup::Cgroup;
use crate::daemon;
use crate::error::{Error, Result};
use crate::layout::{Layout, create_dir, tail, write, write_program};
use crate::pki::api_server_url;
use crate::place::in_netns;
use crate::process::output;
use crate::state::State;

/// Name of the namespace.
pub(crate) const PLACE: &str = "cp";
pub(crate) const API_SERVER: &str = "kube-apiserver";
pub(crate) const ETCD: &str = "etcd";
/// Those that only talk to the API server.
pub(crate) const CONTROLLERS: [&str; 2] = ["kube-controller-manager", "kube-scheduler"];
pub(crate) const COMPONENTS: [&str; 4] = [ETCD, API_SERVER, CONTROLLERS[0], CONTROLLERS[1]];

const INIT: &str = include_str!("../control-plane/init.sh");
const AUDIT_POLICY: &str = include_str!("../control-plane/audit-policy.yaml");

pub(crate) fn cgroup(layout: &Layout) -> Cgroup {
    Cgroup::new(layout.cgroup_of(PLACE))
}

/// Starts all of it; its leg on the LAN is there.
pub(crate) fn start(layout: &Layout, state: &State) -> Result<()> {
    for dir in ["cp/log", "cp/hold", "etc"] {
        create_dir(&layout.path(dir))?;
    }
    write(&layout.path("etc/audit-policy.yaml"), AUDIT_POLICY)?;
    let init = layout.path("bin/control-plane-init");
    write_program(&init, INIT)?;
    let cgroup = cgroup(layout);
    let system = cgroup.child("system");
    system.create()?;
    for component in COMPONENTS {
        cgroup.child(component).create()?;
    }
    let dirs: Vec<_> = cgroup
        .entered_dirs()
        .iter()
        .map(|dir| dir.display().to_string())
        .collect();
    let family = state.family;
    daemon::start(
        &system,
        &[
            "nsenter",
            &format!("--net={}", layout.netns_path(PLACE).display()),
            "--",
            "bash",
            &init.display().to_string(),
        ],
        &[
            ("LAB", &layout.folder().display().to_string()),
            ("ADVERTISE", &LanAddress::control_plane(family).primary()),
            ("BIND", if family.v6() { "::" } else { "0.0.0.0" }),
            ("SERVICE_CIDRS", &family.pick(SERVICE_V4, SERVICE_V6)),
            ("CGROUP_DIRS", &dirs.join(" ")),
        ],
        &layout.path("cp/log/init.log"),
    )
}

/// Whether the API server says it is ready.
pub(crate) fn is_ready(layout: &Layout, state: &State, timeout: Duration) -> bool {
    let pki = |name: &str| layout.path("pki").join(name);
    let mut curl = in_netns(layout, PLACE);
    curl.args([
        "curl",
        "-sf",
        "--noproxy",
        "*",
        "--max-time",
        &timeout.as_secs_f32().to_string(),
    ]);
    curl.arg("--cacert").arg(pki("ca.crt"));
    curl.arg("--cert")
        .arg(pki("admin.crt"))
        .arg("--key")
        .arg(pki("admin.key"));
    curl.arg(format!("{}/readyz", api_server_url(state.family)));
    output(&mut curl, None).is_ok_and(|answer| answer.success())
}

/// Last lines of the logs of what has to run before the API server can be ready.
pub(crate) fn last_words(layout: &Layout) -> String {
    let log = |name: &str| {
        let path = layout.path("cp/log").join(format!("{name}.log"));
        format!("{}:\n{}\n", path.display(), tail(&path, 6))
    };
    ["init", ETCD, API_SERVER].into_iter().map(log).collect()
}

/// Keeps a component from running, at once, until [`release`].
pub(crate) fn hold(layout: &Layout, component: &str) -> Result<()> {
    write(&layout.path("cp/hold").join(component), "")?;
    cgroup(layout).child(component).kill()
}

pub(crate) fn release(layout: &Layout, component: &str) -> Result<()> {
    let path = layout.path("cp/hold").join(component);
    if path.exists() {
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
    }
    Ok(())
}

pub(crate) fn is_held(layout: &Layout, component: &str) -> bool {
    layout.path("cp/hold").join(component).exists()
}
