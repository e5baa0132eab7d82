//! What a process costs.

use anyhow::{Context as _, Result};
use herald_lab::Lab;

/// Ticks of `/proc/PID/stat` in a second, on every Linux.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    /// CPU time since it began, in seconds.
    pub cpu_seconds: f64,
    /// Memory that is resident now, in MiB.
    pub rss_mib: f64,
}

impl Cost {
    /// That of a program on a node.
    ///
    /// # Errors
    ///
    /// If it does not run there.
    pub fn of_program(lab: &Lab, node: &str, file_name: &str) -> Result<Self> {
        let script = format!("cd /proc/$(pidof {file_name}) && cat stat status");
        let said = lab.exec(node, ["sh", "-c", &script])?.ok()?;
        Self::parse(&said).with_context(|| format!("reading {said:?}"))
    }

    /// From a process' `stat` and `status` (proc(5)).
    pub fn parse(text: &str) -> Option<Self> {
        // The name may hold anything, also parentheses; utime and stime are fields 14 and 15.
        let (_, fields) = text.lines().next()?.rsplit_once(") ")?;
        let mut times = fields.split(' ').skip(11).map(str::parse::<f64>);
        let ticks = times.next()?.ok()? + times.next()?.ok()?;
        let rss = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: f64 = rss.split_whitespace().next()?.parse().ok()?;
        Some(Self {
            cpu_seconds: ticks / TICKS_PER_SECOND,
            rss_mib: kib / 1024.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_time_and_memory_of_a_process() {
        let text = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 4 0 99 1 2\n\
            Name:\ta\nVmRSS:\t    2048 kB\nThreads:\t4\n";
        let cost = Cost {
            cpu_seconds: 2.0,
            rss_mib: 2.0,
        };
        assert_eq!(Cost::parse(text), Some(cost));
        assert_eq!(Cost::parse("7 (a) S 1\n"), None);
    }
}
