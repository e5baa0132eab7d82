//! A Prometheus beside the lab's cluster, with the alerts of the chart.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Child;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::object::{items, text};
use crate::wait::{LONG, eventually};

/// Where it runs: all nodes and pods can be reached from there.
const PLACE: &str = "cp";
const ADDRESS: &str = "127.0.0.1:9090";
/// The rules, from this crate's folder.
const RULES: &str = "../../helm/files/alerts.yaml";

/// A Prometheus that scrapes all speakers and controllers each second. It ends when it is dropped.
pub struct Prometheus<'a> {
    cluster: &'a Cluster,
    folder: PathBuf,
    child: Child,
}

impl<'a> Prometheus<'a> {
    /// Starts it and waits until it has scraped all of them. Its alerts fire at once: they wait for nothing.
    ///
    /// # Errors
    ///
    /// If it is not there, can't be started, or does not reach all of them.
    pub fn start(cluster: &'a Cluster) -> Result<Self> {
        let folder = cluster.lab.folder().join("prometheus");
        drop(fs::remove_dir_all(&folder));
        fs::create_dir_all(&folder)?;
        let rules = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(RULES);
        let rules =
            fs::read_to_string(&rules).with_context(|| format!("reading {}", rules.display()))?;
        let at_once: Vec<&str> = rules
            .lines()
            .filter(|line| !line.trim_start().starts_with("for: "))
            .collect();
        fs::write(folder.join("alerts.yaml"), at_once.join("\n"))?;
        let mut targets = Vec::new();
        for node in cluster.lab.nodes() {
            let address = node.address.all().swap_remove(0);
            targets.push(format!("{address}:7471"));
        }
        for pod in cluster.pods("controller")? {
            targets.push(format!("{}:7470", text(&pod["status"]["podIP"])));
        }
        let count = targets.len();
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["alerts.yaml"],
            "scrape_configs": [{"job_name": "herald", "static_configs": [{"targets": targets}]}],
        });
        fs::write(folder.join("prometheus.yml"), config.to_string())?;
        let child = cluster.lab.spawn(
            PLACE,
            [
                herald_lab::prometheus()?
                    .join("prometheus")
                    .into_os_string(),
                format!("--config.file={}/prometheus.yml", folder.display()).into(),
                format!("--storage.tsdb.path={}/data", folder.display()).into(),
                format!("--web.listen-address={ADDRESS}").into(),
                "--log.level=error".into(),
            ],
        )?;
        let prometheus = Self {
            cluster,
            folder,
            child,
        };
        eventually("Prometheus has scraped all", LONG, || {
            let found = prometheus.query("up == 1")?;
            ensure!(found.len() == count, "{found:?} of {count}");
            Ok(())
        })?;
        Ok(prometheus)
    }

    /// The alerts that fire now.
    ///
    /// # Errors
    ///
    /// If it does not answer.
    pub fn firing(&self) -> Result<BTreeSet<String>> {
        let found = self.get("alerts", &[])?;
        let alerts = items(&found["alerts"]).iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        Ok(firing
            .map(|alert| text(&alert["labels"]["alertname"]).to_owned())
            .collect())
    }

    /// What a query finds.
    ///
    /// # Errors
    ///
    /// If it is none, or Prometheus does not answer.
    pub fn query(&self, query: &str) -> Result<Vec<Value>> {
        let found = self
            .get("query", &["--data-urlencode", &format!("query={query}")])
            .with_context(|| format!("query {query:?}"))?;
        Ok(items(&found["result"]).to_vec())
    }

    fn get(&self, what: &str, more: &[&str]) -> Result<Value> {
        let url = format!("http://{ADDRESS}/api/v1/{what}");
        let curl = ["curl", "-sSf", "--max-time", "5", "-G", &url];
        let curl = curl.iter().chain(more);
        let said = self.cluster.lab.exec(PLACE, curl)?.ok()?;
        let answer: Value = serde_json::from_str(&said)?;
        answer.get("data").cloned().context("no data")
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.folder));
    }
}
