//! For comparison: what a client sees when a Kubernetes Lease is the only detector.
//!
//! A stand-in, not kube-vip itself: one agent for each node does leader election as client-go does (15 s
//! lease, 10 s to renew, 2 s between tries) with requests that go from its node to the API server, has the
//! address on the node while it leads, and announces it with gratuitous ARP as kube-vip does. kube-proxy
//! forwards.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use herald_e2e::api::Api;
use herald_lab::{Lab, Output};
use serde_json::{Value, json};

use herald_e2e::bench::stage::NAMESPACE;

pub(crate) const DURATION: Duration = Duration::from_secs(15);
pub(crate) const RENEW_DEADLINE: Duration = Duration::from_secs(10);
pub(crate) const RETRY_PERIOD: Duration = Duration::from_secs(2);
/// client-go waits for up to this many periods more before it tries to acquire.
const JITTER: f64 = 1.2;
pub(crate) const LEASE: &str = "address";

/// client-go gives up a request after half of the time it has to renew.
const ANSWER_TIME: Duration = Duration::from_secs(5);

/// Each node's way to the API server.
pub(crate) fn ways(lab: &Lab) -> Result<Vec<(String, Api)>> {
    let nodes = lab.nodes().into_iter().map(|node| node.name);
    nodes
        .map(|node| {
            let api = Api::connect_from(lab, &node, ANSWER_TIME)?;
            Ok((node, api))
        })
        .collect()
}

/// Path of the lease, or of all leases.
pub(crate) fn path(name: &str) -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases{name}")
}

/// Who may lead, as one node sees it.
#[derive(Debug)]
struct Elector {
    identity: String,
    /// What was seen last, and since when: whose clock says what does not matter.
    observed: Option<(Value, Instant)>,
}

impl Elector {
    fn new(identity: &str) -> Self {
        Self {
            identity: identity.to_owned(),
            observed: None,
        }
    }

    /// What to write over the lease as it is; `None` while another one's lasts.
    fn decide(&mut self, now: Instant, lease: Option<&Value>) -> Option<Value> {
        let Some(lease) = lease else {
            return Some(self.record(&json!({"name": LEASE, "namespace": NAMESPACE}), 0));
        };
        let spec = &lease["spec"];
        if self.observed.as_ref().is_none_or(|(seen, _)| seen != spec) {
            self.observed = Some((spec.clone(), now));
        }
        let holder = spec["holderIdentity"].as_str().unwrap_or_default();
        let since = self.observed.as_ref().map_or(now, |(_, since)| *since);
        if holder != self.identity && !holder.is_empty() && now < since + DURATION {
            return None;
        }
        let renewals = spec["leaseTransitions"].as_u64().unwrap_or_default();
        Some(self.record(&lease["metadata"], renewals + 1))
    }

    /// `renewals` stands for the time of renewal: all that matters is that it changes.
    fn record(&self, metadata: &Value, renewals: u64) -> Value {
        json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": metadata,
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": DURATION.as_secs(),
                "leaseTransitions": renewals,
            },
        })
    }
}

/// One node's part, until it is dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    stop: Arc<AtomicBool>,
    running: Option<JoinHandle<()>>,
}

impl Agent {
    pub(crate) fn start(lab: &Lab, (node, api): &(String, Api), address: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let there = There {
            api: api.clone(),
            lab: lab.clone(),
            node: node.clone(),
            address: address.to_owned(),
            stop: Arc::clone(&stop),
        };
        Self {
            stop,
            running: Some(thread::spawn(move || there.run())),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(running) = self.running.take() {
            drop(running.join());
        }
    }
}

/// Its thread's.
struct There {
    api: Api,
    lab: Lab,
    node: String,
    address: String,
    stop: Arc<AtomicBool>,
}

impl There {
    fn run(&self) {
        let mut elector = Elector::new(&self.node);
        let mut random = u64::from(self.node.bytes().map(u32::from).sum::<u32>());
        while !self.is_stopped() {
            if matches!(self.try_once(&mut elector), Ok(true)) {
                self.lead(&mut elector);
            }
            self.pause(jittered(&mut random));
        }
        // A node may be off.
        self.lose().ok();
    }

    fn lead(&self, elector: &mut Elector) {
        self.announce().ok();
        let mut renewed = Instant::now();
        while !self.is_stopped() && renewed.elapsed() < RENEW_DEADLINE {
            self.pause(RETRY_PERIOD);
            match self.try_once(elector) {
                Ok(true) => renewed = Instant::now(),
                Ok(false) => break,
                Err(_) => {}
            }
        }
        self.lose().ok();
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_stopped() && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Acquires or renews: whether we lead.
    fn try_once(&self, elector: &mut Elector) -> Result<bool> {
        let one = path(&format!("/{LEASE}"));
        let (status, lease) = self.request("GET", &one, None)?;
        let lease = match status {
            200 => Some(lease),
            404 => None,
            other => bail!("the API server answers {other}"),
        };
        let Some(wanted) = elector.decide(Instant::now(), lease.as_ref()) else {
            return Ok(false);
        };
        let (status, _) = if lease.is_some() {
            self.request("PUT", &one, Some(&wanted))?
        } else {
            self.request("POST", &path(""), Some(&wanted))?
        };
        // 409: somebody was faster.
        Ok(status == 200 || status == 201)
    }

    fn request(&self, method: &str, path: &str, body: Option<&Value>) -> Result<(u16, Value)> {
        let body = body.map(|body| body.to_string().into_bytes());
        let content = body.as_deref().map(|body| ("application/json", body));
        let answer = self.api.request(method, path, content)?;
        Ok((answer.status, answer.body))
    }

    fn exec(&self, line: &str) -> Result<Output> {
        Ok(self.lab.exec(&self.node, line.split(' '))?)
    }

    fn announce(&self) -> Result<()> {
        let address = &self.address;
        self.exec(&format!("ip address replace {address}/32 dev lo"))?
            .ok()?;
        self.exec(&format!(
            "arping -U -c 3 -W 0.05 -w 1 -i eth0 -S {address} {address}"
        ))?;
        Ok(())
    }

    fn lose(&self) -> Result<()> {
        let address = &self.address;
        let said = self.exec(&format!("ip address del {address}/32 dev lo"))?;
        ensure!(
            said.success() || said.stderr.contains("not found"),
            "{}",
            said.stderr
        );
        Ok(())
    }
}

/// From one period to 2.2 of them.
fn jittered(random: &mut u64) -> Duration {
    // xorshift64, https://www.jstatsoft.org/article/view/v008i14
    *random ^= *random << 13;
    *random ^= *random >> 7;
    *random ^= *random << 17;
    let thousandth = u32::try_from(*random % 1000).unwrap_or_default();
    RETRY_PERIOD.mul_f64(1.0 + JITTER * f64::from(thousandth) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64, since: Instant) -> Instant {
        since + Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_that_does_not_change_is_taken_after_its_time_and_not_before() {
        let now = Instant::now();
        let first = Elector::new("node1").decide(now, None).expect("free");
        let mut other = Elector::new("node2");
        assert_eq!(other.decide(now, Some(&first)), None);
        assert_eq!(other.decide(after(14, now), Some(&first)), None);
        let renewed = Elector::new("node1")
            .decide(now, Some(&first))
            .expect("its own");
        assert_eq!(other.decide(after(16, now), Some(&renewed)), None);
        assert_eq!(other.decide(after(30, now), Some(&renewed)), None);
        let taken = other.decide(after(31, now), Some(&renewed)).expect("over");
        assert_eq!(taken["spec"]["holderIdentity"], "node2");
    }

    #[test]
    fn the_next_try_is_one_to_two_periods_and_a_fifth_away() {
        let mut random = 1;
        for _ in 0..1000 {
            let time = jittered(&mut random);
            assert!((RETRY_PERIOD..RETRY_PERIOD.mul_f64(2.2)).contains(&time));
        }
    }
}
