//! A round of the comparison in [`crate::lease`]: the same cut, the same client.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use herald_e2e::api::Api;
use herald_e2e::fault::Fault;
use herald_e2e::flows::{FLOWS, Flows, PATIENCE};
use herald_e2e::streams::Streams;
use herald_e2e::wait::{LONG, eventually, same};
use serde_json::{Value, json};

use crate::lease::{Agent, LEASE, path};
use herald_e2e::bench::group::Measured;
use herald_e2e::bench::stage::{CLIENT, PORT, Stage, all_but, load, rest, service};

const NAME: &str = "lease";
const STREAMS: usize = 100;
const GIVE_UP: Duration = Duration::from_mins(1);

/// What one round has measured.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    load: f64,
    pub(crate) outage: Duration,
    pub(crate) lost: usize,
    /// Streams that finished, of all: none was with a pod of the node that was cut off.
    pub(crate) finished: (usize, usize),
}

impl Measured for Round {
    fn json(&self) -> Value {
        json!({
            "load": self.load,
            "udpOutageMs": self.outage.as_secs_f64() * 1000.0,
            "lostQuestions": self.lost,
            "streams": {"couldFinish": self.finished.1, "finished": self.finished.0},
        })
    }

    fn load(&self) -> f64 {
        self.load
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (outage, lost, load) = (self.outage.as_millis(), self.lost, self.load);
        let (finished, all) = self.finished;
        write!(
            f,
            "{outage} ms without an answer, {lost} lost, {finished} of {all} streams finished; load {load}"
        )
    }
}

/// One round, in which all is made whole again in any case.
pub(crate) fn play(stage: Stage<'_>, ways: &[(String, Api)], number: u32) -> Result<Round> {
    stage.wait_whole()?;
    let address = format!("172.30.112.{}", number % 250 + 1);
    let (old, _) = ways.first().context("no node")?;
    stage.cluster.api.delete(&path(&format!("/{LEASE}")))?;
    let mut agents = Vec::new();
    let mut hurt = false;
    let round = measure(stage, ways, &address, &mut agents, &mut hurt);
    drop(agents);
    let mended = if hurt {
        stage.mend(Fault::CutSilently, old)
    } else {
        Ok(())
    };
    let removed = stage.remove(NAME);
    let round = round?;
    mended.and(removed).map(|()| round)
}

fn measure(
    stage: Stage<'_>,
    ways: &[(String, Api)],
    address: &str,
    agents: &mut Vec<Agent>,
    hurt: &mut bool,
) -> Result<Round> {
    let (api, lab) = (&stage.cluster.api, stage.lab());
    let (first, others) = ways.split_first().context("no node")?;
    let (old, _) = first;
    let spec = json!({
        // Not Herald's.
        "loadBalancerClass": "example.com/lease",
        "externalTrafficPolicy": "Cluster",
        "selector": all_but(old),
    });
    stage.apply(NAME, &json!({}), spec)?;
    let status = json!({"status": {"loadBalancer": {"ingress": [{"ip": address}]}}});
    api.merge(&format!("{}/status", service(NAME)), &status)?;
    agents.push(Agent::start(lab, first, address));
    eventually("the first leads", LONG, || {
        let lease = api.get(&path(&format!("/{LEASE}")))?;
        same(&lease["spec"]["holderIdentity"], &json!(old))
    })?;
    agents.extend(others.iter().map(|way| Agent::start(lab, way, address)));
    let to = SocketAddr::new(address.parse()?, PORT);
    let flows = Flows::start(lab, CLIENT, to)?;
    let all = eventually("every flow is answered, and none is lost", LONG, || {
        let record = flows.record();
        let all = record.answered_by(record.until, |_| true);
        ensure!(all.len() == FLOWS, "{} flows are answered", all.len());
        let since = record
            .until
            .checked_sub(PATIENCE * 2)
            .context("too early")?;
        same(&record.settled(&all, since), &Some(Duration::ZERO))?;
        Ok(all)
    })?;
    let streams = Streams::start(lab, CLIENT, to, STREAMS)?;
    // Any moment between two renewals.
    rest(Duration::from_secs(3))?;
    let load = load()?;
    let struck = Instant::now();
    *hurt = true;
    Fault::CutSilently.befall(lab, old)?;
    rest(Duration::from_secs(5))?;
    eventually("every question is answered again", GIVE_UP, || {
        let record = flows.record();
        ensure!(record.lost(&all, struck) > 0, "none was lost yet");
        record.settled(&all, struck).context("not yet")
    })?;
    rest(Duration::from_secs(2))?;
    let record = flows.record();
    drop(flows);
    let fates = streams.finish(&[])?;
    let finished = fates.iter().filter(|fate| fate.broken.is_none()).count();
    Ok(Round {
        load,
        outage: record.silence(&all, struck, record.until),
        lost: record.lost(&all, struck),
        finished: (finished, fates.len()),
    })
}
