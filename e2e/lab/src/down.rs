//! Removing labs: also what is left of killed ones, also twice.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::cgroup::Cgroup;
use crate::control_plane;
use crate::error::{Error, Result};
use crate::lab::Lab;
use crate::lan::{all_netns, remove_netns};
use crate::layout::{CGROUP_ROOT, Layout, ROOT};
use crate::lock::Lock;
use crate::options::check_name;
use crate::process::{command, output, run};
use crate::real_time;
use crate::tools::require_root;

impl Lab {
    /// Removes a lab, or what is left of one. Tells whether there was anything.
    ///
    /// # Errors
    ///
    /// [`Error::LeftOver`] names what it could not remove.
    pub fn down(name: &str) -> Result<bool> {
        check_name("lab", name)?;
        require_root()?;
        let layout = Layout::new(name);
        let lock = Lock::take(&layout.lock_file(), || ())?;
        let removed = remove(&layout);
        forget(lock).and(removed)
    }

    /// Names of all labs on this machine, and of those something is left of.
    pub fn all_names() -> Vec<String> {
        let mut names = BTreeSet::new();
        let entries = fs::read_dir(ROOT).into_iter().flatten().flatten();
        names.extend(entries.filter_map(|entry| entry.file_name().into_string().ok()));
        names.extend(Cgroup::new(CGROUP_ROOT).children());
        names.extend(
            all_netns()
                .iter()
                .filter_map(|netns| Layout::lab_of_netns(netns))
                .map(str::to_owned),
        );
        names
            .into_iter()
            .filter(|name| check_name("lab", name).is_ok())
            .collect()
    }
}

/// Gives back the lock of a lab that is gone, with its file and, after the last one, all labs' folder.
pub(crate) fn forget(lock: Lock) -> Result<()> {
    lock.remove();
    let given_back = real_time::give_back();
    // Fails while another lab is in it.
    fs::remove_dir(ROOT).ok();
    given_back
}

/// Whether its control plane runs. After a reboot of the machine the folder of a lab may be all
/// there is of it.
pub(crate) fn is_running(layout: &Layout) -> bool {
    !control_plane::cgroup(layout).processes(true).is_empty()
}

/// Removes everything of a lab; its lock is held. Tells whether there was anything.
pub(crate) fn remove(layout: &Layout) -> Result<bool> {
    let cgroup = Cgroup::new(layout.cgroup());
    let folder = layout.folder();
    let ours = || {
        let prefix = layout.netns_prefix();
        all_netns()
            .into_iter()
            .filter(|netns| netns.starts_with(&prefix))
            .collect::<Vec<_>>()
    };
    let anything = cgroup.exists() || folder.exists() || !ours().is_empty();
    cgroup.kill()?;
    for netns in ours() {
        remove_netns(&netns)?;
    }
    cgroup.remove()?;
    Cgroup::new(CGROUP_ROOT).remove_if_empty();
    unmount_below(&folder)?;
    remove_tree(&folder)?;
    forget_netns_folder();
    let left: Vec<String> = [
        cgroup
            .exists()
            .then(|| format!("cgroup {}\n", layout.cgroup())),
        folder.exists().then(|| format!("{}\n", folder.display())),
        ours()
            .first()
            .map(|netns| format!("network namespace {netns}\n")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if left.is_empty() {
        return Ok(anything);
    }
    Err(Error::LeftOver {
        name: layout.name.clone(),
        left: left.concat(),
    })
}

/// Only by hand can something have been mounted there outside the nodes' own mount namespaces;
/// deleting through it would be deleting what isn't ours.
fn unmount_below(folder: &Path) -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let below = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|at| Path::new(at).starts_with(folder));
    let below: Vec<&str> = below.collect();
    for at in below.into_iter().rev() {
        run(&mut command("umount", ["-l", at]))?;
    }
    Ok(())
}

fn remove_tree(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(Error::io("remove", folder))?;
    }
    Ok(())
}

/// `ip netns add` mounts a folder for the names; the last one takes it away.
fn forget_netns_folder() {
    let folder = Path::new("/run/netns");
    if folder.is_dir() && all_netns().is_empty() {
        output(&mut command("umount", ["/run/netns"]), None).ok();
        fs::remove_dir(folder).ok();
    }
}
