//! Waiting for a state, never for a time.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};

const PAUSE: Duration = Duration::from_millis(100);

/// What everything of a cluster may take when the machine is busy. A test that is about a time says
/// its own.
pub const LONG: Duration = Duration::from_mins(1);

/// Asks `probe` until it succeeds. Its last error says what was there instead.
///
/// # Errors
///
/// When `limit` is over: what was expected, and the probe's last error.
pub fn eventually<T>(
    expected: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<T>,
) -> Result<T> {
    let began = Instant::now();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(last) if began.elapsed() >= limit => {
                return Err(last.context(format!("not within {} s: {expected}", limit.as_secs())));
            }
            Err(_) => thread::sleep(PAUSE),
        }
    }
}

/// Asks `probe` again and again for some time: it must succeed each time.
///
/// # Errors
///
/// At its first error.
pub fn throughout(
    expected: &str,
    time: Duration,
    mut probe: impl FnMut() -> Result<()>,
) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        probe().with_context(|| {
            format!(
                "no longer after {} ms: {expected}",
                began.elapsed().as_millis()
            )
        })?;
        thread::sleep(PAUSE);
    }
    Ok(())
}

/// The error of a probe that saw something else.
///
/// # Errors
///
/// If they differ.
pub fn same<T: PartialEq + std::fmt::Debug>(seen: &T, expected: &T) -> Result<()> {
    if seen == expected {
        Ok(())
    } else {
        Err(anyhow!("expected {expected:?}, there is {seen:?}"))
    }
}
