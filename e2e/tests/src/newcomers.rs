//! New connections all the time, none of which is tried a second time: whether a planned move loses one.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use herald_lab::Lab;

use crate::inside::inside;

/// A connection without the server's greeting after this long has failed. A lost SYN is repeated after a
/// second (`TCP_TIMEOUT_INIT`, include/net/tcp.h), and so fails; what is late as the machine is busy does
/// not.
const PATIENCE: Duration = Duration::from_millis(900);
/// One that takes longer is told of.
const LATE: Duration = Duration::from_millis(300);
/// Each makes one connection at a time, so that some may wait while others go on.
const WORKERS: u32 = 32;

/// Connects until it is finished.
#[derive(Debug)]
pub struct Newcomers {
    place: String,
    made: Arc<Mutex<Made>>,
    stop: Arc<AtomicBool>,
    working: Vec<JoinHandle<()>>,
    began: Instant,
    repeated: u64,
}

/// What came of all connections so far.
#[derive(Debug, Default, Clone)]
struct Made {
    count: u64,
    failed: Vec<(Instant, String)>,
    slowest: Duration,
    late: u64,
}

/// What came of them in the end.
#[derive(Debug, Clone)]
pub struct Tally {
    /// How many were made.
    pub count: u64,
    /// When one failed, since the beginning, and why.
    pub failed: Vec<(Duration, String)>,
    /// The longest that one took that did not fail.
    pub slowest: Duration,
    /// How many of these took more than 300 ms.
    pub late: u64,
    /// For how long they were made.
    pub time: Duration,
    /// Segments that TCP repeated at the place meanwhile, in whatever connection.
    pub repeated: u64,
}

impl Newcomers {
    /// Makes so many a second at a place that is no node, towards an echo server of the lab; fewer when
    /// the machine can't.
    ///
    /// # Errors
    ///
    /// If the place can't be entered.
    pub fn start(lab: &Lab, place: &str, to: SocketAddr, per_second: u32) -> Result<Self> {
        let made = Arc::new(Mutex::new(Made::default()));
        let stop = Arc::new(AtomicBool::new(false));
        let repeated = repeated(lab, place)?;
        let period = Duration::from_secs(1) * WORKERS / per_second;
        // A thread that is started there is there as well.
        let working = inside(lab, place, || {
            let workers = (0..WORKERS).map(|number| {
                let (made, stop) = (Arc::clone(&made), Arc::clone(&stop));
                let first = Instant::now() + period / WORKERS * number;
                thread::spawn(move || work(to, first, period, &made, &stop))
            });
            Ok(workers.collect())
        })?;
        Ok(Self {
            place: place.to_owned(),
            made,
            stop,
            working,
            began: Instant::now(),
            repeated,
        })
    }

    /// Makes no more, and waits for the last.
    ///
    /// # Errors
    ///
    /// If a thread has panicked, or the place is gone.
    pub fn finish(mut self, lab: &Lab) -> Result<Tally> {
        self.stop.store(true, Ordering::Relaxed);
        let time = self.began.elapsed();
        for worker in std::mem::take(&mut self.working) {
            worker
                .join()
                .map_err(|_panic| anyhow!("a thread of the newcomers has panicked"))?;
        }
        let made = lock(&self.made).clone();
        let failed = made.failed.into_iter();
        Ok(Tally {
            count: made.count,
            failed: failed
                .map(|(at, why)| (at.saturating_duration_since(self.began), why))
                .collect(),
            slowest: made.slowest,
            late: made.late,
            time,
            repeated: repeated(lab, &self.place)?.saturating_sub(self.repeated),
        })
    }
}

impl Drop for Newcomers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.working.drain(..) {
            drop(worker.join());
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.time.as_secs_f64();
        let failed = self.failed.len();
        write!(
            f,
            "{} connections in {seconds:.1} s, {failed} failed, {} took more than {} ms, \
             {} ms at most, {} segments repeated",
            self.count,
            self.late,
            LATE.as_millis(),
            self.slowest.as_millis(),
            self.repeated,
        )?;
        for (at, why) in self.failed.iter().take(5) {
            write!(f, "; after {:.3} s: {why}", at.as_secs_f64())?;
        }
        Ok(())
    }
}

fn lock(made: &Mutex<Made>) -> std::sync::MutexGuard<'_, Made> {
    made.lock().unwrap_or_else(PoisonError::into_inner)
}

fn work(to: SocketAddr, first: Instant, period: Duration, made: &Mutex<Made>, stop: &AtomicBool) {
    let mut due = first;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let at = Instant::now();
        let outcome = connect(to);
        let took = at.elapsed();
        let mut made = lock(made);
        made.count += 1;
        match outcome {
            Ok(()) => {
                made.late += u64::from(took > LATE);
                made.slowest = made.slowest.max(took);
            }
            Err(error) => made.failed.push((at, format!("{error:#}"))),
        }
        // What was missed is not made up for: that would be a burst.
        due = (due + period).max(Instant::now());
    }
}

fn connect(to: SocketAddr) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    let stream = TcpStream::connect_timeout(&to, PATIENCE).context("connecting")?;
    let rest = until.saturating_duration_since(Instant::now());
    stream.set_read_timeout(Some(rest.max(Duration::from_millis(1))))?;
    let mut greeting = String::new();
    BufReader::new(&stream)
        .read_line(&mut greeting)
        .context("waiting for the greeting")?;
    ensure!(greeting.contains("node="), "greeted with {greeting:?}");
    Ok(())
}

/// `RetransSegs` of RFC 4022, as the kernel counts it for a network namespace.
fn repeated(lab: &Lab, place: &str) -> Result<u64> {
    let page = lab.exec(place, ["cat", "/proc/net/snmp"])?.ok()?;
    retransmitted(&page).context("no RetransSegs in /proc/net/snmp")
}

fn retransmitted(page: &str) -> Option<u64> {
    let mut lines = page.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let place = lines
        .next()?
        .split(' ')
        .position(|name| name == "RetransSegs")?;
    lines.next()?.split(' ').nth(place)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_repeated_segments_among_all_that_the_kernel_counts() {
        let page = "Ip: Forwarding\nIp: 1\nTcp: RtoAlgorithm OutSegs RetransSegs InErrs\n\
                    Tcp: 1 52 7 0\n";
        assert_eq!(retransmitted(page), Some(7));
        assert_eq!(retransmitted("Tcp: OutSegs\nTcp: 5\n"), None);
    }
}
