//! Sockets of our own at a place of the lab: a process per question would cost more than the question.

use std::fs::File;
use std::process::Command;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use herald_lab::Lab;
use nix::sched::{CloneFlags, setns};
use nix::unistd::gettid;

use crate::cluster::report;

/// Runs something in the network namespace of a place that is no node, in a thread that is there for
/// nothing else. What it opens stays there: it can be used from anywhere.
///
/// # Errors
///
/// If the place can't be entered, or what is run fails.
pub fn inside<T: Send>(
    lab: &Lab,
    place: &str,
    run: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let path = lab.network_namespace(place)?;
    let entered = || {
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        setns(file, CloneFlags::CLONE_NEWNET).context("cannot enter a network namespace")?;
        run()
    };
    thread::scope(|scope| scope.spawn(entered).join())
        .map_err(|_panic| anyhow!("a thread at {place} has panicked"))?
}

/// Runs the calling thread ahead of everything that has no real-time priority. A client stands for a machine
/// of its own: that it waits for a processor, as API server, kubelets and pods want it too, is nobody's outage.
pub fn ahead_of_others() {
    let thread = gettid().to_string();
    let said = Command::new("chrt")
        .args(["--fifo", "--pid", "1", &thread])
        .output();
    match said {
        Ok(said) if said.status.success() => {}
        Ok(said) => report(&String::from_utf8_lossy(&said.stderr)),
        Err(error) => report(&format!("chrt: {error}")),
    }
}
