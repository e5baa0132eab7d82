//! A client that makes connections all the time, each tried once.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior};

/// A connection that takes longer has failed. A SYN that is lost is repeated after a second at the earliest
/// (`TCP_TIMEOUT_INIT`, include/net/tcp.h): what is answered sooner was not lost.
const PATIENCE: Duration = Duration::from_millis(900);
/// How long the first answer may take to come.
const FIRST: Duration = Duration::from_secs(5);

/// One connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attempt {
    /// When it was begun, since the first one.
    at: Duration,
    /// How long it took; `None`: it failed.
    took: Option<Duration>,
}

/// What came of all connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Measured {
    pub(crate) connections: usize,
    pub(crate) failed: usize,
    /// The longest time from a connection that was answered to the next one, if one failed in between.
    pub(crate) outage_ms: u128,
    /// Of those that were answered.
    pub(crate) slowest_ms: u128,
}

impl Measured {
    fn of(mut attempts: Vec<Attempt>) -> Self {
        attempts.sort_by_key(|attempt| attempt.at);
        let mut outage = Duration::ZERO;
        let mut answered = None;
        let mut has_failed = false;
        for attempt in &attempts {
            if attempt.took.is_none() {
                has_failed = true;
                continue;
            }
            if has_failed {
                outage = outage.max(attempt.at.saturating_sub(answered.unwrap_or_default()));
            }
            answered = Some(attempt.at);
            has_failed = false;
        }
        if has_failed && let Some(last) = attempts.last() {
            outage = outage.max(last.at.saturating_sub(answered.unwrap_or_default()));
        }
        let took = attempts.iter().filter_map(|attempt| attempt.took);
        Self {
            connections: attempts.len(),
            failed: attempts
                .iter()
                .filter(|attempt| attempt.took.is_none())
                .count(),
            outage_ms: outage.as_millis(),
            slowest_ms: took.max().unwrap_or_default().as_millis(),
        }
    }
}

/// Asks until it is finished.
pub(super) struct Probe {
    attempts: Arc<Mutex<Vec<Attempt>>>,
    asking: JoinHandle<()>,
}

impl Probe {
    pub(super) fn start(to: SocketAddr, interval: Duration) -> Self {
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let all = Arc::clone(&attempts);
        let asking = tokio::spawn(async move {
            let begun = Instant::now();
            let mut ticks = tokio::time::interval(interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let all = Arc::clone(&all);
                tokio::spawn(async move {
                    let at = begun.elapsed();
                    let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(to)).await;
                    let took =
                        matches!(connected, Ok(Ok(_))).then(|| begun.elapsed().saturating_sub(at));
                    let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
                    all.push(Attempt { at, took });
                });
            }
        });
        Self { attempts, asking }
    }

    fn attempts(&self) -> Vec<Attempt> {
        let attempts = self.attempts.lock();
        attempts.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many were answered, and none failed.
    pub(super) async fn until_answered(&self, number: usize) -> Result<()> {
        let begun = Instant::now();
        loop {
            let attempts = self.attempts();
            let failed = attempts.iter().filter(|it| it.took.is_none()).count();
            if failed > 0 {
                bail!("{failed} of {} connections failed", attempts.len());
            }
            if attempts.len() >= number {
                return Ok(());
            }
            if begun.elapsed() > FIRST {
                bail!("{} of {number} connections were answered", attempts.len());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Begins no more, and waits for those that are under way.
    pub(super) async fn finish(self) -> Measured {
        self.asking.abort();
        tokio::time::sleep(PATIENCE).await;
        Measured::of(self.attempts())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(attempts: &[(u64, Option<u64>)]) -> Measured {
        let attempts = attempts.iter().map(|&(at, took)| Attempt {
            at: Duration::from_millis(at),
            took: took.map(Duration::from_millis),
        });
        Measured::of(attempts.collect())
    }

    #[test]
    fn outage_is_the_longest_time_between_two_answers_with_a_failure_in_between() {
        let all = [
            (0, Some(1)),
            (50, Some(3)),
            (60, None),
            (70, None),
            (80, Some(2)),
            (90, None),
            (95, Some(1)),
        ];
        let found = measured(&all);
        assert_eq!((found.connections, found.failed), (7, 3));
        assert_eq!((found.outage_ms, found.slowest_ms), (30, 3));
        // They end in another order than they began.
        let mut shuffled = all;
        shuffled.reverse();
        assert_eq!(measured(&shuffled), found);
    }

    #[test]
    fn what_never_came_back_lasts_to_the_end_and_what_did_not_fail_is_none() {
        assert_eq!(
            measured(&[(0, Some(1)), (5, None), (90, None)]).outage_ms,
            90
        );
        assert_eq!(measured(&[(0, Some(1)), (80, Some(1))]).outage_ms, 0);
        assert_eq!(measured(&[]), Measured::default());
    }
}
