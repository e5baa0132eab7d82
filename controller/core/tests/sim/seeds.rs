//! Histories by seed, and how to see one again.

use std::panic::RefUnwindSafe;
use std::thread;

/// The variable that names the one seed to run.
const SEED: &str = "HERALD_SIM_SEED";

/// How many histories run at once.
const THREADS: u64 = 2;

/// Runs a history for each seed, or for the one that the environment names. The first that breaks a
/// law, wherever that is noticed, says how to run it alone.
pub(crate) fn each_seed(
    test: &str,
    seeds: std::ops::Range<u64>,
    history: impl Fn(u64) + Sync + RefUnwindSafe,
) {
    if let Some(seed) = only() {
        return history(seed);
    }
    thread::scope(|scope| {
        let run = |share: u64| {
            let (seeds, history) = (seeds.clone(), &history);
            move || {
                for seed in seeds.filter(|seed| seed % THREADS == share) {
                    let _again = Again { test, seed };
                    history(seed);
                }
            }
        };
        let threads: Vec<_> = (0..THREADS).map(|share| scope.spawn(run(share))).collect();
        for thread in threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
}

#[expect(
    clippy::disallowed_methods,
    reason = "which seed to run is no part of what is tested"
)]
fn only() -> Option<u64> {
    let text = std::env::var(SEED).ok()?;
    Some(text.parse().expect("a seed is a number"))
}

/// Says how to run a history again if it does not end well.
struct Again<'a> {
    test: &'a str,
    seed: u64,
}

impl Drop for Again<'_> {
    #[expect(
        clippy::print_stderr,
        reason = "a failing test says what it has to say"
    )]
    fn drop(&mut self) {
        if thread::panicking() {
            let Self { test, seed } = self;
            eprintln!(
                "to see it again: {SEED}={seed} cargo test -p herald-controller-core --test sim -- --exact {test}"
            );
        }
    }
}
