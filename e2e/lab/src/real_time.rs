//! Real-time processes in the labs' containers.
//!
//! Where cgroup version 1 meets `CONFIG_RT_GROUP_SCHED`, each cgroup has a real-time budget of its own, of
//! which a new one gets nothing (kernel/sched/rt.c). `SCHED_FIFO` is refused then, and with a share of the
//! 950 ms in a second that all groups divide among them, a speaker with a thousand addresses to take over
//! stands still for seconds. Hardly a cluster runs on such a kernel. So the budgets are lifted while there
//! is a lab, and all is as before when the last one is removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::layout::ROOT;
use crate::lock::Lock;

/// Microseconds of real-time processes in a second, −1: no limit, and no budgets.
const LIMIT: &str = "/proc/sys/kernel/sched_rt_runtime_us";
/// There only where cgroups have budgets.
const BUDGET: &str = "/sys/fs/cgroup/cpu/cpu.rt_runtime_us";
/// The limit as it was, and the lock of who changes it. The names are no lab's.
const SAVED: &str = ".sched_rt_runtime_us";
const LOCK: &str = ".sched_rt_runtime_us.lock";

fn saved() -> PathBuf {
    Path::new(ROOT).join(SAVED)
}

fn lock() -> Result<Lock> {
    Lock::take(&Path::new(ROOT).join(LOCK), || ())
}

/// Lifts the budgets; the lock of the lab that needs it is held.
pub(crate) fn lift() -> Result<()> {
    if !Path::new(BUDGET).exists() {
        return Ok(());
    }
    let lock = lock()?;
    let before = fs::read_to_string(LIMIT).map_err(Error::io("read", Path::new(LIMIT)))?;
    if before.trim() != "-1" {
        fs::write(saved(), before).map_err(Error::io("write", &saved()))?;
        // No lab fails for the want of it: SCHED_FIFO is refused then, as on many machines.
        fs::write(LIMIT, "-1").ok();
    }
    lock.remove();
    Ok(())
}

/// Gives the limit back if no lab is left.
pub(crate) fn give_back() -> Result<()> {
    let lock = lock()?;
    let given_back = match fs::read_to_string(saved()) {
        Ok(before) if !is_needed() => restore(before.trim()),
        _not_lifted_or_needed => Ok(()),
    };
    lock.remove();
    given_back
}

/// The kernel refuses while a real-time process of a group without a budget is not quite gone.
fn restore(before: &str) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match fs::write(LIMIT, before) {
            Ok(()) => break,
            Err(_busy) if Instant::now() < deadline => thread::sleep(Duration::from_millis(100)),
            Err(source) => return Err(Error::io("write", Path::new(LIMIT))(source)),
        }
    }
    fs::remove_file(saved()).map_err(Error::io("remove", &saved()))
}

/// Whether there is a lab, or the lock of one that is to be.
fn is_needed() -> bool {
    let entries = fs::read_dir(ROOT).into_iter().flatten().flatten();
    let mut names = entries.map(|entry| entry.file_name());
    names.any(|name| name != SAVED && name != LOCK)
}
