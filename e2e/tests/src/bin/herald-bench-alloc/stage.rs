//! The cluster on which it is measured, and what is measured on it.

use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use herald_e2e::api::herald;
use herald_e2e::bench::stage::rest;
use herald_e2e::cluster::Cluster;
use herald_e2e::cost::Cost;
use herald_e2e::object::{items, namespace, text};
use herald_e2e::wait::{LONG, eventually, go_on};
use herald_lab::{HERALD_NAMESPACE, Program};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::audit::{Audit, Kinds, Window, window};
use crate::bare::{Bare, Target};

pub(crate) const NAMESPACE: &str = "bench";
pub(crate) const POOL: &str = "bench";

const POLL: Duration = Duration::from_millis(500);
/// Nothing takes that long on any machine.
const GIVE_UP: Duration = Duration::from_mins(30);
/// What new Services stir up, as in kube-proxy, is over: the same for Herald and the bare client.
const SETTLED: Duration = Duration::from_secs(15);
/// After so long without a write there will be none.
const QUIET: Duration = Duration::from_secs(5);
/// For how long writes after a restart are looked for once it is over.
const AFTER_RESTART: Duration = Duration::from_secs(15);

/// What the controller did.
#[derive(Debug, Clone)]
pub(crate) struct Assigned {
    pub(crate) window: Window,
    /// All requests until it was quiet, the Lease's among them.
    pub(crate) requests: Kinds,
    pub(crate) controller: Cost,
    /// CPU time of the API server in the same time, in seconds.
    pub(crate) api_cpu_seconds: f64,
    claims: Vec<Value>,
}

/// What a restart took.
#[derive(Debug, Clone)]
pub(crate) struct Restart {
    /// From the start of the process to `/readyz`.
    pub(crate) ready: Duration,
    /// From the same to when it led.
    pub(crate) leads: Duration,
    /// All writes from the kill on, without the Lease's.
    pub(crate) writes: Kinds,
}

/// See the module's documentation.
pub(crate) struct Stage<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) bare: Bare<'a>,
    pub(crate) services: usize,
}

impl Stage<'_> {
    /// Removes what an earlier run may have left.
    pub(crate) fn set(&self) -> Result<()> {
        self.cluster.api.apply(&namespace(NAMESPACE))?;
        self.controllers(0)?;
        self.bare.delete_all(true)
    }

    /// Has a pool for all Services.
    pub(crate) fn pool(&self, probe: bool) -> Result<()> {
        let pool = json!({
            "apiVersion": "heraldlb.io/v1alpha1",
            "kind": "IPPool",
            "metadata": {"name": POOL},
            "spec": {"addresses": ["172.30.64.0/18"], "conflictProbe": probe},
        });
        self.cluster.api.apply(&pool).map(drop)
    }

    /// Has so many controllers. One that is to run need not be ready yet.
    fn controllers(&self, count: usize) -> Result<()> {
        self.cluster.lab.kubectl([
            "scale",
            "deployment/herald-controller",
            "-n",
            HERALD_NAMESPACE,
            &format!("--replicas={count}"),
        ])?;
        let path = format!(
            "/api/v1/namespaces/{HERALD_NAMESPACE}/pods?labelSelector=app.kubernetes.io/component%3Dcontroller"
        );
        eventually("the controllers are as many", LONG, || {
            // Also one that ends still works.
            let there = self.cluster.api.list(&path)?.len();
            ensure!(there == count, "there are {there}");
            Ok(())
        })
    }

    fn controller_node(&self) -> Result<String> {
        let pods = self.cluster.pods("controller")?;
        let pod = pods.first().context("there is no controller")?;
        Ok(text(&pod["spec"]["nodeName"]).to_owned())
    }

    /// Starts a controller that finds Services without addresses: what it does until all is said.
    pub(crate) fn assign(&self) -> Result<Assigned> {
        self.controllers(0)?;
        self.bare.create_services(self.services)?;
        rest(SETTLED)?;
        let mut audit = Audit::from_now(&self.cluster.lab)?;
        let api_before = self.api_server()?.cpu_seconds;
        self.controllers(1)?;
        let began = Instant::now();
        let mut said = Instant::now();
        let window = loop {
            go_on()?;
            thread::sleep(POLL);
            audit.read()?;
            if let Some(window) = window(audit.writes(), self.services) {
                break window;
            }
            let written = audit.writes().filter(|write| write.is_status()).count();
            ensure!(
                began.elapsed() < GIVE_UP,
                "only {written} statuses are written"
            );
            if said.elapsed() > Duration::from_secs(10) {
                said = Instant::now();
                eprintln!("  {written} of {} have an address", self.services);
            }
        };
        wait_quiet(&mut audit)?;
        let controller = Cost::of_program(
            &self.cluster.lab,
            &self.controller_node()?,
            "herald-controller",
        )?;
        let api_cpu_seconds = self.api_server()?.cpu_seconds - api_before;
        let addresses = self.bare.addresses()?;
        let different: BTreeSet<&String> = addresses.iter().collect();
        ensure!(
            addresses.len() == self.services && different.len() == self.services,
            "{} Services have {} addresses",
            addresses.len(),
            different.len()
        );
        let mut requests = Kinds::new();
        for request in &audit.requests {
            *requests.entry(request.kind.clone()).or_default() += 1;
        }
        Ok(Assigned {
            window,
            requests,
            controller,
            api_cpu_seconds,
            claims: self.bare.claims()?,
        })
    }

    /// The same Services, and the bare client that makes the writes which Herald made in its window.
    pub(crate) fn assign_barely(&self, herald: &Assigned) -> Result<Duration> {
        self.controllers(0)?;
        let uids = self.bare.create_services(self.services)?;
        rest(SETTLED)?;
        let targets: Vec<Target> = uids
            .into_iter()
            .zip(&herald.claims)
            .map(|((name, uid), claim)| Target {
                name,
                uid,
                claim: claim.clone(),
            })
            .collect();
        self.bare.assign(&targets, &herald.window.writes)
    }

    /// Kills the controller, which is started again, with everything assigned.
    pub(crate) fn restart(&self) -> Result<Restart> {
        let node = self.controller_node()?;
        let restarts = self.restarts()?;
        let mut audit = Audit::from_now(&self.cluster.lab)?;
        self.cluster.lab.kill(&node, Program::Controller, "KILL")?;
        let (ready, leads) = eventually("the controller works again", 3 * LONG, || {
            ensure!(self.restarts()? > restarts, "it is not there");
            let pods = self.cluster.pods("controller")?;
            let pod = pods.first().context("there is no controller")?;
            let name = text(&pod["metadata"]["name"]);
            let log = self
                .cluster
                .lab
                .kubectl(["logs", "-n", HERALD_NAMESPACE, name])?;
            let started = logged(&log, |line| text(&line["message"]) == "started")?;
            let complete = logged(&log, |line| {
                text(&line["message"]).starts_with("every list")
            })?;
            let leads = logged(&log, |line| line["leads"] == true)?;
            let ready = Duration::try_from(complete.duration_since(started))?;
            anyhow::Ok((ready, Duration::try_from(leads.duration_since(started))?))
        })?;
        rest(AFTER_RESTART)?;
        audit.read()?;
        let mut writes = Kinds::new();
        for write in audit.writes() {
            *writes.entry(write.kind.clone()).or_default() += 1;
        }
        Ok(Restart {
            ready,
            leads,
            writes,
        })
    }

    fn restarts(&self) -> Result<u64> {
        let pods = self.cluster.pods("controller")?;
        let pod = pods.first().context("there is no controller")?;
        let container = items(&pod["status"]["containerStatuses"]).first();
        let container = container.context("its container is not there")?;
        container["restartCount"].as_u64().context("no count")
    }

    /// Deletes all Services, and waits until the controller, if it runs, has given back what they had.
    pub(crate) fn clear(&self, claims_too: bool) -> Result<()> {
        self.bare.delete_all(claims_too)?;
        eventually("no claim is left", GIVE_UP, || {
            let one = self
                .cluster
                .api
                .list(&(herald("virtualips", "") + "?limit=1"))?;
            ensure!(one.is_empty(), "there are");
            Ok(())
        })
    }

    /// What the API server has used so far.
    fn api_server(&self) -> Result<Cost> {
        let program = self.cluster.lab.folder().join("bin/kube-apiserver");
        let program = program.to_string_lossy();
        for process in fs::read_dir("/proc")? {
            let folder = process?.path();
            // It may have ended, or be no process.
            let line = fs::read_to_string(folder.join("cmdline")).unwrap_or_default();
            if line.split('\0').next() == Some(&*program) {
                let read = |name| fs::read_to_string(folder.join(name));
                let said = read("stat")? + &read("status")?;
                return Cost::parse(&said).with_context(|| format!("reading {said:?}"));
            }
        }
        anyhow::bail!("{program} does not run")
    }
}

/// Waits until nothing was written for a while.
fn wait_quiet(audit: &mut Audit) -> Result<()> {
    let began = Instant::now();
    let mut last = (audit.writes().count(), Instant::now());
    while last.1.elapsed() < QUIET {
        go_on()?;
        ensure!(began.elapsed() < GIVE_UP, "it writes and writes");
        thread::sleep(POLL);
        audit.read()?;
        let writes = audit.writes().count();
        if writes != last.0 {
            last = (writes, Instant::now());
        }
    }
    Ok(())
}

/// When the first such line was written to a log in JSON.
fn logged(log: &str, is_it: impl Fn(&Value) -> bool) -> Result<Timestamp> {
    let lines = log
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut found = lines.filter(|line| is_it(line));
    let line = found.next().context("it has not said so")?;
    Ok(text(&line["timestamp"]).parse()?)
}
