//! New TCP connections all the time while a node goes, with a Service of policy Cluster: which fail.

use std::fmt;
use std::io::{BufRead as _, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use herald_e2e::fault::Fault;
use herald_e2e::inside::inside;
use herald_e2e::wait::{LONG, eventually};
use herald_lab::Lab;
use serde_json::{Value, json};

use herald_e2e::bench::group::Measured;
use herald_e2e::bench::stage::{CLIENT, PORT, Stage, load, rest};

/// Between two attempts.
const PERIOD: Duration = Duration::from_millis(10);
/// An attempt without the server's greeting after this long has failed; a SYN is repeated after a second.
const PATIENCE: Duration = Duration::from_millis(900);
/// When endpoints of a dead node go is Kubernetes' affair: after 40 s and some by default.
const GIVE_UP: Duration = Duration::from_mins(2);
const SECOND: Duration = Duration::from_secs(1);

/// When an attempt began, and whether it failed.
type Attempt = (Instant, bool);

/// What was seen in one round.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    old: String,
    load: f64,
    /// Of each second since the fault, the percentage of attempts that failed; the last is 0.
    pub(crate) failed: Vec<f64>,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (old, load) = (&self.old, self.load);
        let seconds = self.failed.len() - 1;
        let each: Vec<_> = self.failed.iter().map(|it| format!("{it:.0}")).collect();
        let each = each.join(" ");
        write!(
            f,
            "{old} goes, none fails after {seconds} s, percent failed in each second: {each}; load {load}"
        )
    }
}

impl Measured for Round {
    fn json(&self) -> Value {
        json!({"from": self.old, "load": self.load, "failedPercentBySecond": self.failed})
    }

    fn load(&self) -> f64 {
        self.load
    }
}

/// Tries until it is dropped.
struct Trying {
    attempts: Arc<Mutex<Vec<Attempt>>>,
    stop: Arc<AtomicBool>,
    starting: Option<JoinHandle<()>>,
}

impl Trying {
    fn start(lab: &Lab, to: SocketAddr) -> Result<Self> {
        let attempts = Arc::new(Mutex::new(Vec::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let starting = {
            let (attempts, stop) = (Arc::clone(&attempts), Arc::clone(&stop));
            // A thread that is started there is there as well.
            inside(lab, CLIENT, move || {
                Ok(thread::spawn(move || try_all(to, &attempts, &stop)))
            })?
        };
        Ok(Self {
            attempts,
            stop,
            starting: Some(starting),
        })
    }

    /// All that have come to their end.
    fn attempts(&self) -> Vec<Attempt> {
        let mut all = self
            .attempts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        all.sort();
        all
    }
}

impl Drop for Trying {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(starting) = self.starting.take() {
            drop(starting.join());
        }
    }
}

fn try_all(to: SocketAddr, attempts: &Arc<Mutex<Vec<Attempt>>>, stop: &AtomicBool) {
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let at = Instant::now();
        let attempts = Arc::clone(attempts);
        thread::spawn(move || {
            let failed = connect(to).is_err();
            let mut attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner);
            attempts.push((at, failed));
        });
        // What was missed is not made up for: that would be a burst.
        due = at.max(due) + PERIOD;
    }
}

fn connect(to: SocketAddr) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    let rest = until.saturating_duration_since(Instant::now());
    stream.set_read_timeout(Some(rest.max(Duration::from_millis(1))))?;
    let mut greeting = String::new();
    BufReader::new(&stream).read_line(&mut greeting)?;
    ensure!(greeting.contains("node="), "greeted with {greeting:?}");
    Ok(())
}

/// The percentage of failures in each whole second since a moment, up to the first without one: `None` if
/// there is none yet.
fn by_second(attempts: &[Attempt], since: Instant, now: Instant) -> Option<Vec<f64>> {
    let mut shares = Vec::new();
    for number in 0.. {
        let from = since + SECOND * number;
        // Those of the last second may not have come to their end.
        if now < from + SECOND + PATIENCE * 2 {
            return None;
        }
        let of_it = attempts
            .iter()
            .filter(|(at, _)| (from..from + SECOND).contains(at));
        let (mut all, mut failed) = (0.0, 0.0);
        for (_, has_failed) in of_it {
            all += 1.0;
            failed += if *has_failed { 1.0 } else { 0.0 };
        }
        shares.push(100.0 * failed / f64::max(all, 1.0));
        if failed == 0.0 && all > 0.0 {
            return Some(shares);
        }
    }
    None
}

/// One round, in which all is made whole again in any case.
pub(crate) fn play(stage: Stage<'_>) -> Result<Round> {
    let name = "connections";
    stage.wait_whole()?;
    let (address, old) = stage.serve(name, json!({"externalTrafficPolicy": "Cluster"}))?;
    let mut hurt = false;
    let round = measure(stage, SocketAddr::new(address, PORT), &old, &mut hurt);
    let mended = if hurt {
        stage.mend(Fault::CutSilently, &old)
    } else {
        Ok(())
    };
    let removed = stage.remove(name);
    let round = round?;
    mended.and(removed).map(|()| round)
}

fn measure(stage: Stage<'_>, to: SocketAddr, old: &str, hurt: &mut bool) -> Result<Round> {
    let trying = Trying::start(stage.lab(), to)?;
    eventually("no connection fails for two seconds", LONG, || {
        let now = Instant::now();
        let lately = now
            .checked_sub(PATIENCE + SECOND * 2)
            .context("too early")?;
        let attempts = trying.attempts();
        let (first, _) = attempts.first().context("none yet")?;
        ensure!(*first <= lately, "not for so long yet");
        let failed = attempts
            .iter()
            .filter(|(at, failed)| *failed && *at >= lately);
        match failed.count() {
            0 => Ok(()),
            count => Err(anyhow!("{count} of {}", attempts.len())),
        }
    })?;
    let load = load()?;
    let struck = Instant::now();
    *hurt = true;
    Fault::CutSilently.befall(stage.lab(), old)?;
    rest(SECOND)?;
    let failed = eventually("a second without a failure", GIVE_UP, || {
        by_second(&trying.attempts(), struck, Instant::now()).context("not yet")
    })?;
    Ok(Round {
        old: old.to_owned(),
        load,
        failed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_counted_up_to_the_first_without_a_failure() {
        let since = Instant::now();
        let at = |ms| since + Duration::from_millis(ms);
        let attempts = [
            (at(100), true),
            (at(900), false),
            (at(1100), true),
            (at(1200), false),
            (at(1300), false),
            (at(1400), false),
            (at(2500), false),
            (at(3500), true),
        ];
        let seen = by_second(&attempts, since, at(10_000));
        assert_eq!(seen, Some(vec![50.0, 25.0, 0.0]));
        assert_eq!(by_second(&attempts, since, at(2900)), None);
        // A second in which nobody tried shows nothing.
        assert_eq!(by_second(&[(at(100), true)], since, at(10_000)), None);
    }
}
