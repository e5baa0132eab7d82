use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::cgroup::Cgroup;
use crate::error::{Error, Result};
use crate::layout::tail;
use crate::place::enter_cgroup;

/// Starts a process that outlives this one: in a session and a cgroup of its own, with nothing of
/// our environment. `words` is the command, `log` takes what it writes.
pub(crate) fn start(
    cgroup: &Cgroup,
    words: &[&str],
    environment: &[(&str, &str)],
    log: &Path,
) -> Result<()> {
    let enter = enter_cgroup(cgroup);
    let log_file = || {
        File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(Error::io("open", log))
    };
    let mut daemon = Command::new("setsid");
    daemon
        .arg("--fork")
        .arg(enter.get_program())
        .args(enter.get_args())
        .args(words);
    daemon.env_clear();
    // Not ours: a proxy set there would be used by kubelet and API server.
    daemon.env(
        "PATH",
        "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    );
    daemon.env("HOME", "/root");
    daemon.envs(environment.iter().copied());
    daemon
        .stdin(Stdio::null())
        .stdout(log_file()?)
        .stderr(log_file()?);
    let status = daemon
        .status()
        .map_err(Error::io("run", Path::new("setsid")))?;
    if status.success() && enters(cgroup) {
        return Ok(());
    }
    Err(Error::Command {
        command: words.join(" "),
        status: status.to_string(),
        output: tail(log, 10),
    })
}

/// Waits for the new process to be where it is looked for: it takes a moment to get there.
fn enters(cgroup: &Cgroup) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while cgroup.processes(false).is_empty() {
        if Instant::now() > deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(1));
    }
    true
}
