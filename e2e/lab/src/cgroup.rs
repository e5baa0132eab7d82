//! Cgroups: what makes it possible to freeze a node, and to kill all of it at one instant, without
//! pid files and without touching any other process of the machine. Both versions.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::process;

const MOUNT: &str = "/sys/fs/cgroup";
/// Hierarchies that processes enter. kubelet wants cpu and memory to agree; freezer and pids are
/// how we find processes again.
const ENTERED_V1: [&str; 5] = ["cpu", "cpuacct", "memory", "freezer", "pids"];
/// Hierarchies in which kubelet and runc make groups of their own below a node's.
const OTHERS_V1: [&str; 5] = ["cpuset", "devices", "blkio", "systemd", "unified"];
const CONTROLLERS_V2: [&str; 6] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"];
const KILL_TIME: Duration = Duration::from_secs(10);

/// One cgroup: in every hierarchy of version 1, or the one of version 2.
#[derive(Debug, Clone)]
pub(crate) struct Cgroup {
    /// Relative to a hierarchy's root.
    path: String,
    v2: bool,
}

impl Cgroup {
    pub(crate) fn new(path: impl Into<String>) -> Self {
        let v2 = Path::new(MOUNT).join("cgroup.controllers").exists();
        Self {
            path: path.into(),
            v2,
        }
    }

    /// The group of this name below.
    pub(crate) fn child(&self, name: &str) -> Self {
        Self {
            path: format!("{}/{name}", self.path),
            v2: self.v2,
        }
    }

    fn hierarchies(&self, names: &[&str]) -> Vec<PathBuf> {
        let mount = Path::new(MOUNT);
        if self.v2 {
            return vec![mount.to_owned()];
        }
        names
            .iter()
            .map(|name| mount.join(name))
            .filter(|path| path.is_dir())
            .collect()
    }

    fn all_hierarchies(&self) -> Vec<PathBuf> {
        self.hierarchies(&[ENTERED_V1, OTHERS_V1].concat())
    }

    fn dirs(&self, hierarchies: &[PathBuf]) -> Vec<PathBuf> {
        hierarchies
            .iter()
            .map(|hierarchy| hierarchy.join(&self.path))
            .collect()
    }

    /// The folders a process is written into to be in this group.
    pub(crate) fn entered_dirs(&self) -> Vec<PathBuf> {
        self.dirs(&self.hierarchies(&ENTERED_V1))
    }

    /// Makes the group, and those above it, for processes.
    pub(crate) fn create(&self) -> Result<()> {
        self.create_in(&self.hierarchies(&ENTERED_V1))
    }

    /// Makes the group in every hierarchy, with all controllers for those below: a node's.
    pub(crate) fn create_for_kubelet(&self) -> Result<()> {
        self.create_in(&self.all_hierarchies())?;
        if self.v2 {
            self.enable_controllers()
        } else {
            self.fill_cpusets()
        }
    }

    fn create_in(&self, hierarchies: &[PathBuf]) -> Result<()> {
        self.dirs(hierarchies).iter().try_for_each(|dir| {
            fs::create_dir_all(dir).map_err(Error::io("create the cgroup", dir))
        })
    }

    /// Version 2: a group can give what its parents give it.
    fn enable_controllers(&self) -> Result<()> {
        let mut dir = PathBuf::from(MOUNT);
        for part in [""].into_iter().chain(self.path.split('/')) {
            dir.push(part);
            let available = dir.join("cgroup.controllers");
            let available =
                fs::read_to_string(&available).map_err(Error::io("read", &available))?;
            for controller in available.split_whitespace() {
                if CONTROLLERS_V2.contains(&controller) {
                    let file = dir.join("cgroup.subtree_control");
                    fs::write(&file, format!("+{controller}"))
                        .map_err(Error::io("write", &file))?;
                }
            }
        }
        Ok(())
    }

    /// Version 1: a new cpuset has no CPU and no memory, and takes no process.
    fn fill_cpusets(&self) -> Result<()> {
        let root = Path::new(MOUNT).join("cpuset");
        if !root.is_dir() {
            return Ok(());
        }
        for name in ["cpuset.cpus", "cpuset.mems"] {
            let all = root.join(name);
            let all = fs::read_to_string(&all).map_err(Error::io("read", &all))?;
            let mut dir = root.clone();
            for part in self.path.split('/') {
                dir.push(part);
                let file = dir.join(name);
                fs::write(&file, all.trim()).map_err(Error::io("write", &file))?;
            }
        }
        Ok(())
    }

    /// Processes in this group, and with `below` in those below it.
    pub(crate) fn processes(&self, below: bool) -> Vec<u32> {
        let mut found = Vec::new();
        for dir in self.dirs(&self.hierarchies(&["freezer", "pids"])) {
            for dir in if below { tree(&dir) } else { vec![dir] } {
                let list = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
                found.extend(list.lines().filter_map(|pid| pid.parse::<u32>().ok()));
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    pub(crate) fn exists(&self) -> bool {
        self.dirs(&self.all_hierarchies())
            .iter()
            .any(|dir| dir.exists())
    }

    fn freezer(&self) -> PathBuf {
        if self.v2 {
            Path::new(MOUNT).join(&self.path).join("cgroup.freeze")
        } else {
            Path::new(MOUNT)
                .join("freezer")
                .join(&self.path)
                .join("freezer.state")
        }
    }

    /// Stops or continues every process in and below it.
    pub(crate) fn set_frozen(&self, frozen: bool) -> Result<()> {
        let value = match (self.v2, frozen) {
            (true, true) => "1",
            (true, false) => "0",
            (false, true) => "FROZEN",
            (false, false) => "THAWED",
        };
        let file = self.freezer();
        fs::write(&file, value).map_err(Error::io("write", &file))?;
        // Version 1 passes through FREEZING, version 2 tells in cgroup.events.
        let deadline = Instant::now() + Duration::from_secs(2);
        while frozen && !self.all_stopped() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(2));
        }
        Ok(())
    }

    fn all_stopped(&self) -> bool {
        let file = self.freezer();
        let (file, wanted) = if self.v2 {
            (file.with_file_name("cgroup.events"), "frozen 1")
        } else {
            (file, "FROZEN")
        };
        fs::read_to_string(file).is_ok_and(|state| state.lines().any(|line| line == wanted))
    }

    pub(crate) fn is_frozen(&self) -> bool {
        let state = fs::read_to_string(self.freezer()).unwrap_or_default();
        matches!(state.trim(), "1" | "FROZEN" | "FREEZING")
    }

    /// Ends every process in and below it, all at one instant, frozen ones too.
    pub(crate) fn kill(&self) -> Result<()> {
        if !self.exists() {
            return Ok(());
        }
        let deadline = Instant::now() + KILL_TIME;
        // Frozen, none of them can start another one while we read the list.
        self.set_frozen(true).ok();
        loop {
            let pids = self.processes(true);
            if pids.is_empty() {
                break;
            }
            kill_processes(&pids);
            // Of version 1 a frozen process dies only when it is thawed.
            self.thaw_tree();
            if Instant::now() > deadline {
                return Err(Error::LeftOver {
                    name: self.path.clone(),
                    left: describe(&pids),
                });
            }
            thread::sleep(Duration::from_millis(20));
        }
        self.thaw_tree();
        Ok(())
    }

    fn thaw_tree(&self) {
        let (file, value) = if self.v2 {
            ("cgroup.freeze", "0")
        } else {
            ("freezer.state", "THAWED")
        };
        for dir in self.dirs(&self.hierarchies(&["freezer"])) {
            for dir in tree(&dir) {
                fs::write(dir.join(file), value).ok();
            }
        }
    }

    /// Removes the group and those below it. They must be empty.
    pub(crate) fn remove(&self) -> Result<()> {
        for dir in self.dirs(&self.all_hierarchies()) {
            let mut dirs = tree(&dir);
            dirs.reverse();
            for dir in dirs {
                remove_dir(&dir)?;
            }
        }
        Ok(())
    }

    /// Removes the group where nothing is in it and nothing below it.
    pub(crate) fn remove_if_empty(&self) {
        for dir in self.dirs(&self.all_hierarchies()) {
            fs::remove_dir(dir).ok();
        }
    }

    /// Names of the groups right below.
    pub(crate) fn children(&self) -> Vec<String> {
        let mut names = Vec::new();
        for dir in self.dirs(&self.all_hierarchies()) {
            let entries = fs::read_dir(dir).into_iter().flatten().flatten();
            names.extend(
                entries
                    .filter(|entry| entry.path().is_dir())
                    .filter_map(|entry| entry.file_name().into_string().ok()),
            );
        }
        names.sort();
        names.dedup();
        names
    }
}

/// A cgroup stays busy for a moment after its last process.
fn remove_dir(dir: &Path) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(2);
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if Instant::now() > deadline => {
                return Err(Error::io("remove the cgroup", dir)(error));
            }
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// `dir` and every folder below it, parents first.
fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = if dir.is_dir() {
        vec![dir.to_owned()]
    } else {
        Vec::new()
    };
    let mut next = 0;
    while let Some(dir) = found.get(next).cloned() {
        next += 1;
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        found.extend(
            entries
                .map(|entry| entry.path())
                .filter(|path| path.is_dir()),
        );
    }
    found
}

/// SIGKILL. Those that are gone already are no error.
fn kill_processes(pids: &[u32]) {
    signal_processes("KILL", pids).ok();
}

/// Sends a signal, named without SIG.
pub(crate) fn signal_processes(signal: &str, pids: &[u32]) -> Result<()> {
    let mut kill = process::command("sh", ["-c", "kill -s \"$@\"", "kill", signal]);
    kill.args(pids.iter().map(u32::to_string));
    process::run(&mut kill).map(drop)
}

fn describe(pids: &[u32]) -> String {
    let name = |pid: &u32| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let lines: Vec<_> = pids
        .iter()
        .map(|pid| format!("process {pid} {}", name(pid)))
        .collect();
    lines.concat()
}
