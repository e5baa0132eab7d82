use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::{Deserialize, Serialize};

use crate::address::{Family, MAX_NODES};
use crate::error::{Error, Result};

/// How kube-proxy programs the nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KubeProxy {
    /// nftables, the default.
    #[default]
    Nftables,
    /// iptables.
    Iptables,
}

impl KubeProxy {
    /// As kube-proxy's `mode` spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

impl FromStr for KubeProxy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        [Self::Nftables, Self::Iptables]
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| {
                Error::InvalidOption(format!("kube-proxy {text:?} is not nftables or iptables"))
            })
    }
}

/// What [`crate::Lab::up`] builds.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the lab: part of every namespace, cgroup and folder.
    pub name: String,
    /// Number of nodes, 1 to [`MAX_NODES`]; they are node1, node2, …
    pub nodes: u8,
    /// kube-proxy's mode on every node.
    pub kube_proxy: KubeProxy,
    /// Address families of LAN, nodes, pods and Services.
    pub family: Family,
    /// Whether the chart is installed.
    pub herald: bool,
    /// Where chart, binaries and values come from.
    pub chart: ChartOptions,
    /// Set from elsewhere (a signal handler) to give up at the next chance with
    /// [`Error::Interrupted`].
    pub interrupt: Arc<AtomicBool>,
}

/// Where the chart and what goes into its image come from.
#[derive(Debug, Clone, Default)]
pub struct ChartOptions {
    /// Folder of the chart. `None`: `$HERALD_CHART`, else `helm/` of the repository.
    pub chart: Option<PathBuf>,
    /// Folder with the static `herald-controller` and `herald-speaker`. `None`:
    /// `$HERALD_BINARIES`, else `release` of the musl target in the target folder.
    pub binaries: Option<PathBuf>,
    /// Values files for Helm, later ones win.
    pub values: Vec<PathBuf>,
    /// `key=value` for Helm, over the files.
    pub set: Vec<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: "lab".to_owned(),
            nodes: 3,
            kube_proxy: KubeProxy::default(),
            family: Family::default(),
            herald: true,
            chart: ChartOptions::default(),
            interrupt: Arc::default(),
        }
    }
}

impl Options {
    /// The defaults under another name.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// Without Herald: the bare cluster.
    #[must_use]
    pub fn without_herald(mut self) -> Self {
        self.herald = false;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        check_name("lab", &self.name)?;
        if !(1..=MAX_NODES).contains(&self.nodes) {
            let nodes = self.nodes;
            return Err(Error::InvalidOption(format!(
                "{nodes} nodes: not 1 to {MAX_NODES}"
            )));
        }
        if let Some(set) = self.chart.set.iter().find(|set| !set.contains('=')) {
            return Err(Error::InvalidOption(format!(
                "--set {set:?}: not key=value"
            )));
        }
        match self.chart.values.iter().find(|file| !file.is_file()) {
            Some(file) => {
                let file = file.display();
                Err(Error::InvalidOption(format!(
                    "--values {file}: there is no such file"
                )))
            }
            None => Ok(()),
        }
    }

    pub(crate) fn interrupted(&self) -> Result<()> {
        if self.interrupt.load(Ordering::Relaxed) {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }
}

/// Names become parts of paths, cgroups and network namespaces, and of interfaces, which have at
/// most 15 characters.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let fits = (1..=15).contains(&name.len())
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-');
    if fits {
        return Ok(());
    }
    Err(Error::InvalidOption(format!(
        "{what} name {name:?}: 1 to 15 of a-z, 0-9 and -, a letter first"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_three_nodes_with_both_families_and_nftables() {
        let options = Options::default();
        options.check().expect("valid");
        assert_eq!(
            (options.name.as_str(), options.nodes, options.herald),
            ("lab", 3, true)
        );
        assert_eq!(
            (options.kube_proxy, options.family),
            (KubeProxy::Nftables, Family::Dual)
        );
    }

    #[test]
    fn refuses_what_has_no_meaning_and_names_it() {
        let refusal = |options: Options| options.check().expect_err("refused").to_string();
        let long = Options::named("a-name-of-16-chr");
        assert!(refusal(long).starts_with("lab name \"a-name-of-16-chr\""));
        assert!(refusal(Options::named("../x")).starts_with("lab name \"../x\""));
        let many = Options {
            nodes: 90,
            ..Options::default()
        };
        assert_eq!(refusal(many), "90 nodes: not 1 to 89");
        let mut set = Options::default();
        set.chart.set = vec!["speaker.mode".to_owned()];
        assert_eq!(refusal(set), "--set \"speaker.mode\": not key=value");
    }

    #[test]
    fn an_interrupt_is_seen() {
        let options = Options::default();
        options.interrupted().expect("not yet");
        options.interrupt.store(true, Ordering::Relaxed);
        assert_eq!(
            options.interrupted().expect_err("now").kind(),
            "interrupted"
        );
    }
}
