//! Where a lab keeps its things: files, network namespaces, cgroups.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Parent of all labs' folders.
pub(crate) const ROOT: &str = "/var/tmp/herald-lab";
/// Parent of all labs' cgroups, in each hierarchy.
pub(crate) const CGROUP_ROOT: &str = "herald-lab";
/// First part of every network namespace's name. Lab names have no dots, so `herald.a.` is the
/// prefix of no other lab's.
const NETNS_PREFIX: &str = "herald";

/// Names and paths of one lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) name: String,
}

impl Layout {
    pub(crate) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
        }
    }

    pub(crate) fn folder(&self) -> PathBuf {
        Path::new(ROOT).join(&self.name)
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.folder().join(below)
    }

    pub(crate) fn node_dir(&self, node: &str) -> PathBuf {
        self.folder().join("nodes").join(node)
    }

    /// The program of this name in the lab's own `bin`.
    pub(crate) fn bin(&self, program: &str) -> PathBuf {
        self.folder().join("bin").join(program)
    }

    pub(crate) fn lock_file(&self) -> PathBuf {
        Path::new(ROOT).join(format!(".{}.lock", self.name))
    }

    /// Start of the names of all this lab's network namespaces.
    pub(crate) fn netns_prefix(&self) -> String {
        format!("{NETNS_PREFIX}.{}.", self.name)
    }

    pub(crate) fn netns(&self, place: &str) -> String {
        self.netns_prefix() + place
    }

    pub(crate) fn netns_path(&self, place: &str) -> PathBuf {
        Path::new("/run/netns").join(self.netns(place))
    }

    /// The cgroup of all of the lab, relative to a hierarchy's root.
    pub(crate) fn cgroup(&self) -> String {
        format!("{CGROUP_ROOT}/{}", self.name)
    }

    pub(crate) fn cgroup_of(&self, part: &str) -> String {
        format!("{CGROUP_ROOT}/{}/{part}", self.name)
    }

    /// The lab a network namespace belongs to.
    pub(crate) fn lab_of_netns(netns: &str) -> Option<&str> {
        netns
            .strip_prefix(NETNS_PREFIX)?
            .strip_prefix('.')?
            .split('.')
            .next()
    }
}

/// Writes a file by renaming, so that nobody reads half of it.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    fs::write(&new, content).map_err(Error::io("write", &new))?;
    fs::rename(&new, path).map_err(Error::io("write", path))
}

/// As [`write()`], executable.
pub(crate) fn write_program(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    write(path, content)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(Error::io("write", path))
}

pub(crate) fn create_dir(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::io("create", path))
}

/// The last `count` lines of a log; nothing when there is none.
pub(crate) fn tail(path: &Path, count: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    last_lines(&String::from_utf8_lossy(&text), count)
}

pub(crate) fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

/// Puts `values` in the places `{{name}}` of a template of ours.
pub(crate) fn fill(template: &str, values: &[(&str, &str)]) -> String {
    values
        .iter()
        .fold(template.to_owned(), |text, (name, value)| {
            text.replace(&format!("{{{{{name}}}}}"), value)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_does_not_own_the_namespaces_of_one_with_a_longer_name() {
        let netns = Layout::new("a-b").netns("node1");
        assert_eq!(netns, "herald.a-b.node1");
        assert!(!netns.starts_with(&Layout::new("a").netns_prefix()));
        assert_eq!(Layout::lab_of_netns(&netns), Some("a-b"));
        assert_eq!(Layout::lab_of_netns("herald-x"), None);
        assert_eq!(Layout::lab_of_netns("cni-1"), None);
    }

    #[test]
    fn fills_every_place_of_a_template() {
        let filled = fill("{{a}} {b} {{a}}{{c}}", &[("a", "1"), ("c", "2")]);
        assert_eq!(filled, "1 {b} 12");
    }

    #[test]
    fn gives_the_last_lines() {
        assert_eq!(last_lines("1\n2\n3\n", 2), "2\n3");
        assert_eq!(last_lines("1", 2), "1");
        assert_eq!(last_lines("", 2), "");
    }
}
