//! What a speaker costs while nothing happens.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use herald_e2e::metrics::Metrics;
use serde_json::{Value, json};

use herald_e2e::bench::group::Measured;
use herald_e2e::bench::stage::{Stage, load, rest};

/// Of the headers before a datagram: Ethernet, IPv4, UDP.
const HEADERS_BYTES: f64 = 14.0 + 20.0 + 8.0;
/// Ticks of `/proc/PID/stat` in a second, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

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
    let script = "cd /proc/$(pidof herald-speaker) && cat stat status";
    let said = stage.lab().exec(node, ["sh", "-c", script])?.ok()?;
    let at = Instant::now();
    let (cpu_seconds, rss_mib) = process(&said).with_context(|| format!("reading {said:?}"))?;
    let metrics = stage.cluster.speaker_metrics(node)?;
    let datagrams = |result: &str| datagrams(&metrics, result);
    Ok(Sample {
        at,
        cpu_seconds,
        rss_mib,
        sent: datagrams("sent"),
        received: datagrams("received"),
        sent_bytes: metrics.sum("herald_speaker_ring_sent_bytes_total", &[]),
    })
}

fn datagrams(metrics: &Metrics, result: &str) -> f64 {
    let label = format!("result=\"{result}\"");
    metrics.sum("herald_speaker_ring_datagrams_total", &[&label])
}

/// CPU seconds and MiB of a process, from its `stat` and `status` (proc(5)).
fn process(text: &str) -> Option<(f64, f64)> {
    // The name may hold anything, also parentheses; utime and stime are fields 14 and 15.
    let (_, fields) = text.lines().next()?.rsplit_once(") ")?;
    let mut times = fields.split(' ').skip(11).map(str::parse::<f64>);
    let ticks = times.next()?.ok()? + times.next()?.ok()?;
    let rss = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = rss.split_whitespace().next()?.parse().ok()?;
    Some((ticks / TICKS_PER_SECOND, kib / 1024.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_time_and_memory_of_a_process() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 99 1 2\n\
            Name:\ta\nVmRSS:\t    2048 kB\nThreads:\t4\n";
        assert_eq!(process(text), Some((2.0, 2.0)));
        assert_eq!(process("7 (a) S 1\n"), None);
    }

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
