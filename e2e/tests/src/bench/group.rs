//! Rounds of one case, for people and as JSON.

use std::fmt::Display;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use super::table::{milliseconds, range};

/// What one round has measured.
pub trait Measured: Display {
    /// All of it.
    fn json(&self) -> Value;
    /// What else the machine did, as [`load`](super::stage::load) has it.
    fn load(&self) -> f64;
    /// Whether all came about as it had to; how long it took is another matter.
    fn is_good(&self) -> bool {
        true
    }
}

/// All rounds of one case with one profile.
#[derive(Debug)]
pub struct Group<R> {
    /// What is measured.
    pub case: String,
    /// With which setting.
    pub profile: String,
    /// Those that came to their end.
    pub rounds: Vec<R>,
    failures: Vec<String>,
}

impl<R: Measured> Group<R> {
    /// Without any round yet.
    pub fn new(case: &str, profile: &str) -> Self {
        Self {
            case: case.to_owned(),
            profile: profile.to_owned(),
            rounds: Vec::new(),
            failures: Vec::new(),
        }
    }

    /// Notes a round.
    pub fn add(&mut self, round: Result<R>) {
        match round {
            Ok(round) => self.rounds.push(round),
            Err(error) => self.failures.push(format!("{error:#}")),
        }
    }

    /// Whether none failed.
    pub fn is_good(&self) -> bool {
        self.failures.is_empty() && self.rounds.iter().all(R::is_good)
    }

    /// All its rounds.
    pub fn json(&self) -> Value {
        let rounds: Vec<_> = self.rounds.iter().map(R::json).collect();
        json!({
            "case": self.case,
            "profile": self.profile,
            "rounds": rounds,
            "failures": self.failures,
        })
    }

    /// The first columns of every table.
    pub fn title(&self) -> [String; 4] {
        let failed = match self.failures.len() {
            0 => String::new(),
            failed => format!(" + {failed} FAILED"),
        };
        let rounds = format!("{}{failed}", self.rounds.len());
        let load = range(self.rounds.iter().map(R::load).collect());
        [self.case.clone(), self.profile.clone(), rounds, load]
    }

    /// Least, median and greatest of a time of each round.
    pub fn times(&self, of: impl Fn(&R) -> Option<Duration>) -> String {
        milliseconds(&self.rounds.iter().filter_map(of).collect::<Vec<_>>())
    }
}

/// When and on what this was measured.
#[must_use]
pub fn machine() -> String {
    let date = Command::new("date").args(["-u", "+%F %R UTC"]).output();
    let date = date.map(|it| String::from_utf8_lossy(&it.stdout).trim().to_owned());
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.unwrap_or_default().trim_matches([' ', '\t', ':']);
    let date = date.unwrap_or_default();
    format!("{date}, {cpus} processors {model}, Linux {}", kernel.trim())
}
