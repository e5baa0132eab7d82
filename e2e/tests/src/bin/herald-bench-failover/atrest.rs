//! What a speaker costs while nothing happens.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use herald_e2e::cost;
use herald_e2e::metrics::Metrics;
use serde_json::{Value, json};

use herald_e2e::bench::group::Measured;
use herald_e2e::bench::stage::{Stage, load, rest};

/// Of the headers before a datagram: Ethernet, IPv4, UDP.
const HEADERS_BYTES: f64 = 14.0 + 20.0 + 8.0;

/// What one speaker cost over a while.
#[derive(Debug, Clone)]
struct Cost {
    node: String,
    sent_per_second: f64,
    received_per_second: f64,
    sent_bytes_per_second: f64,
    cpu_percent: f64,
    rss_mib: f64,
}

/// What is counted at one moment.
struct Sample {
    at: Instant,
    cpu_seconds: f64,
    rss_mib: f64,
    sent: f64,
    received: f64,
    sent_bytes: f64,
}

impl Cost {
    fn between(node: String, before: &Sample, after: &Sample) -> Self {
        let seconds = (after.at - before.at).as_secs_f64();
        let sent = (after.sent - before.sent) / seconds;
        Self {
            node,
            sent_per_second: sent,
            received_per_second: (after.received - before.received) / seconds,
            sent_bytes_per_second: (after.sent_bytes - before.sent_bytes) / seconds
                + sent * HEADERS_BYTES,
            cpu_percent: 100.0 * (after.cpu_seconds - before.cpu_seconds) / seconds,
            rss_mib: after.rss_mib,
        }
    }

    fn json(&self) -> Value {
        json!({
            "node": self.node,
            "sentPerSecond": self.sent_per_second,
            "receivedPerSecond": self.received_per_second,
            "sentBytesPerSecond": self.sent_bytes_per_second,
            "cpuPercent": self.cpu_percent,
            "rssMiB": self.rss_mib,
        })
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {:.0} datagrams/s sent, {:.0} received, {:.1} kB/s sent, {:.2} % CPU, {:.1} MiB",
            self.node,
            self.sent_per_second,
            self.received_per_second,
            self.sent_bytes_per_second / 1000.0,
            self.cpu_percent,
            self.rss_mib,
        )
    }
}

/// All speakers at the same time.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    load: f64,
    costs: Vec<Cost>,
}

impl Measured for Round {
    fn json(&self) -> Value {
        let speakers: Vec<_> = self.costs.iter().map(Cost::json).collect();
        json!({"load": self.load, "speakers": speakers})
    }

    fn load(&self) -> f64 {
        self.load
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for cost in &self.costs {
            write!(f, "{cost}; ")?;
        }
        write!(f, "load {}", self.load)
    }
}

/// The cost of each speaker over so long a time without any Service.
pub(crate) fn measure(stage: Stage<'_>, time: Duration) -> Result<Round> {
    stage.wait_whole()?;
    // What the start has stirred up.
    rest(Duration::from_secs(10))?;
    let nodes = stage.cluster.nodes();
    let all = || -> Result<Vec<Sample>> { nodes.iter().map(|node| sample(stage, node)).collect() };
    let before = all()?;
    rest(time)?;
    let after = all()?;
    let costs = nodes.iter().zip(before.iter().zip(&after));
    let costs = costs.map(|(node, (before, after))| Cost::between(node.clone(), before, after));
    Ok(Round {
        load: load()?,
        costs: costs.collect(),
    })
}

fn sample(stage: Stage<'_>, node: &str) -> Result<Sample> {
    let cost = cost::Cost::of_program(stage.lab(), node, "herald-speaker")?;
    let at = Instant::now();
    let metrics = stage.cluster.speaker_metrics(node)?;
    let datagrams = |result: &str| datagrams(&metrics, result);
    Ok(Sample {
        at,
        cpu_seconds: cost.cpu_seconds,
        rss_mib: cost.rss_mib,
        sent: datagrams("sent"),
        received: datagrams("received"),
        sent_bytes: metrics.sum("herald_speaker_ring_sent_bytes_total", &[]),
    })
}

fn datagrams(metrics: &Metrics, result: &str) -> f64 {
    let label = format!("result=\"{result}\"");
    metrics.sum("herald_speaker_ring_datagrams_total", &[&label])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_on_the_wire() {
        let sample = |at, sent, sent_bytes| Sample {
            at,
            cpu_seconds: 0.0,
            rss_mib: 1.0,
            sent,
            received: 0.0,
            sent_bytes,
        };
        let now = Instant::now();
        let before = sample(now, 0.0, 0.0);
        let after = sample(now + Duration::from_secs(10), 100.0, 10_000.0);
        let cost = Cost::between("node1".to_owned(), &before, &after);
        assert!((cost.sent_bytes_per_second - 1420.0).abs() < 1e-6);
    }
}
