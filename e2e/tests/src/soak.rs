//! Services that come and go while the controller is killed, the API server restarted and its store
//! stopped: no address is given twice, none changes without a reason in the spec, and nobody waits
//! while an address is free.

mod laws;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use herald_lab::{Action, HERALD_NAMESPACE, Program};
use serde_json::json;

use crate::api::{Api, herald};
use crate::cluster::Cluster;
use crate::object::{ingress, text};
use crate::wait::{LONG, eventually, go_on};

use laws::Watch;

/// How much of what happens.
#[derive(Debug, Clone)]
pub struct Plan {
    /// How often a controller is killed.
    pub kills: u32,
    /// How often the API server is killed, and started after a few seconds.
    pub api_restarts: u32,
    /// How often the store of the API server is stopped.
    pub etcd_pauses: u32,
    /// For how long.
    pub etcd_pause: Duration,
    /// What decides about everything that is random.
    pub seed: u64,
}

/// Where it happens.
#[derive(Debug)]
pub struct Ground<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    /// The namespace of the Services; no other has Services of the pool.
    pub namespace: String,
    /// The pool, with as many addresses of each family.
    pub pool: String,
    /// How many.
    pub addresses: usize,
}

/// What happened.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Services created.
    pub created: usize,
    /// Services deleted.
    pub deleted: usize,
    /// States of Services that were looked at.
    pub states: usize,
    /// Controllers killed.
    pub kills: u32,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Kill,
    ApiRestart,
    EtcdPause,
}

/// One fault after the other, each under a stream of creations and deletions, and after each the wait
/// until nobody waits for an address that is free.
///
/// # Errors
///
/// Which law was broken, or what did not come about.
pub fn soak(ground: &Ground<'_>, plan: &Plan, mut tell: impl FnMut(&str)) -> Result<Outcome> {
    let mut random = Random(plan.seed | 1);
    let mut faults = Vec::new();
    for (fault, times) in [
        (Fault::Kill, plan.kills),
        (Fault::ApiRestart, plan.api_restarts),
        (Fault::EtcdPause, plan.etcd_pauses),
    ] {
        faults.extend((0..times).map(|_| fault));
    }
    // Of the first few is each kind.
    for last in (1..faults.len()).rev() {
        faults.swap(last, random.below(last + 1));
    }
    let path = format!("/api/v1/namespaces/{}/services", ground.namespace);
    let mut watch = Watch::new(&path);
    let mut stream = Stream {
        api: ground.cluster.api.clone(),
        path,
        namespace: ground.namespace.clone(),
        alive: Vec::new(),
        most: ground.addresses * 3 / 2,
        random: Random(plan.seed.wrapping_mul(3) | 1),
        outcome: Outcome::default(),
    };
    let began = Instant::now();
    let all = faults.len();
    for (number, fault) in faults.into_iter().enumerate() {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let running = scope.spawn(|| stream.run(&stop));
            let result = ground.strike(fault, plan, &mut random, &mut watch);
            stop.store(true, Ordering::Relaxed);
            running.join().ok().context("the stream has panicked")?;
            result
        })?;
        if matches!(fault, Fault::Kill) {
            stream.outcome.kills += 1;
        }
        let settled = Instant::now();
        ground.settle(&mut watch)?;
        tell(&format!(
            "{:6.1} s  {} of {all}: {fault:?}, settled {:.1} s after it; {} Services created, {} deleted",
            began.elapsed().as_secs_f32(),
            number + 1,
            settled.elapsed().as_secs_f32(),
            stream.outcome.created,
            stream.outcome.deleted,
        ));
    }
    stream.outcome.states = watch.laws.states;
    Ok(stream.outcome)
}

impl Ground<'_> {
    /// Waits, and looks at what the Services show meanwhile.
    fn watch_for(&self, time: Duration, watch: &mut Watch) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            go_on()?;
            watch.pump(&self.cluster.api)?;
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn strike(
        &self,
        fault: Fault,
        plan: &Plan,
        random: &mut Random,
        watch: &mut Watch,
    ) -> Result<()> {
        let lab = &self.cluster.lab;
        let soon = Duration::from_millis(500 + random.next() % 3000);
        self.watch_for(soon, watch)?;
        match fault {
            Fault::Kill => self.kill(random)?,
            Fault::ApiRestart => {
                lab.api(Action::Stop)?;
                let struck = self.watch_for(soon, watch);
                lab.api(Action::Start)?;
                lab.wait_api_ready(LONG)?;
                // They may take a minute to ask it again; that is not what this is about.
                lab.restart_controllers()?;
                struck?;
            }
            Fault::EtcdPause => {
                lab.etcd(Action::Freeze)?;
                let struck = self.watch_for(plan.etcd_pause, watch);
                lab.etcd(Action::Thaw)?;
                lab.wait_api_ready(LONG)?;
                struck?;
            }
        }
        self.watch_for(soon, watch)
    }

    /// Kills a controller, more often than not the one that works.
    fn kill(&self, random: &mut Random) -> Result<()> {
        let leader_wanted = random.below(3) > 0;
        let choice = random.below(2);
        eventually("a controller runs that can be killed", 2 * LONG, || {
            let pods = self.cluster.pods("controller")?;
            let leader = self.cluster.leader()?;
            let leads = |pod: &&serde_json::Value| {
                leader_wanted && leader.starts_with(text(&pod["metadata"]["name"]))
            };
            let any = || pods.get(choice % pods.len().max(1));
            let pod = pods.iter().find(leads).or_else(any).context("no pod")?;
            let node = text(&pod["spec"]["nodeName"]);
            self.cluster.lab.kill(node, Program::Controller, "KILL")?;
            // A container that dies often is started less and less soon; that of a new pod is at once.
            let name = text(&pod["metadata"]["name"]);
            let path = format!("/api/v1/namespaces/{HERALD_NAMESPACE}/pods/{name}");
            self.cluster
                .api
                .delete(&format!("{path}?gracePeriodSeconds=0"))
        })
    }

    /// Waits until nobody waits for an address that is free, and what is claimed is what is shown.
    fn settle(&self, watch: &mut Watch) -> Result<()> {
        let path = format!("/api/v1/namespaces/{}/services", self.namespace);
        let api = &self.cluster.api;
        // A dead leader's Lease has to end first.
        eventually("nobody waits while an address is free", 3 * LONG, || {
            let services = api.list(&path)?;
            let shown: Vec<IpAddr> = services.iter().flat_map(ingress).collect();
            let served = services.iter().filter(|it| !ingress(it).is_empty()).count();
            let expected = services.len().min(self.addresses);
            ensure!(
                served == expected,
                "{served} of {} Services have an address, {expected} could",
                services.len()
            );
            let mut claimed = BTreeSet::new();
            for vip in api.list(&herald("virtualips", ""))? {
                if text(&vip["spec"]["pool"]) == self.pool {
                    claimed.insert(text(&vip["spec"]["address"]).parse()?);
                }
            }
            let different: BTreeSet<IpAddr> = shown.iter().copied().collect();
            ensure!(
                different == claimed,
                "shown are {different:?}, claimed {claimed:?}"
            );
            Ok(())
        })?;
        watch.pump(api)
    }
}

/// Creates and deletes Services, as many as the API server lets it.
struct Stream {
    api: Api,
    path: String,
    namespace: String,
    alive: Vec<String>,
    /// So many at one time: more than there are addresses.
    most: usize,
    random: Random,
    outcome: Outcome,
}

impl Stream {
    fn run(&mut self, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) && go_on().is_ok() {
            let delete = self.random.below(self.most) < self.alive.len();
            // An API server that is away is what this is about.
            let done = if delete { self.delete() } else { self.create() };
            let wait = if done.is_ok() { 20 } else { 200 };
            thread::sleep(Duration::from_millis(wait + self.random.next() % 100));
        }
    }

    fn create(&mut self) -> Result<()> {
        let number = self.outcome.created;
        let name = format!("soak-{number}");
        let (families, policy) = if number.is_multiple_of(3) {
            (json!(["IPv4", "IPv6"]), "RequireDualStack")
        } else {
            (json!(["IPv4"]), "SingleStack")
        };
        // Whether it came about is not known if there was no answer.
        self.outcome.created += 1;
        self.alive.push(name.clone());
        self.api
            .apply(&json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": name, "namespace": self.namespace},
                "spec": {
                    "type": "LoadBalancer",
                    "ipFamilies": families,
                    "ipFamilyPolicy": policy,
                    "ports": [{"name": "http", "port": 80}],
                },
            }))
            .map(drop)
    }

    fn delete(&mut self) -> Result<()> {
        let number = self.random.below(self.alive.len());
        let path = format!("{}/{}", self.path, self.alive[number]);
        self.api.delete(&path)?;
        self.alive.swap_remove(number);
        self.outcome.deleted += 1;
        Ok(())
    }
}

/// xorshift64, <https://www.jstatsoft.org/article/view/v008i14>
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit.max(1)).unwrap_or(u64::MAX);
        usize::try_from(self.next() % limit).unwrap_or_default()
    }
}
