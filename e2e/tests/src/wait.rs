//! Waiting for a state, never for a time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Exit code of a shell for a command that Ctrl-C has ended.
pub const INTERRUPTED: u8 = 130;
const PAUSE: Duration = Duration::from_millis(100);

/// What everything of a cluster may take when the machine is busy. A test that is about a time says
/// its own.
pub const LONG: Duration = Duration::from_mins(1);

/// Set from elsewhere (a signal handler) to end all waiting.
pub static INTERRUPT: LazyLock<Arc<AtomicBool>> = LazyLock::new(Arc::default);

/// Whether waiting goes on.
///
/// # Errors
///
/// If it was interrupted.
pub fn go_on() -> Result<()> {
    ensure!(!INTERRUPT.load(Ordering::Relaxed), "interrupted");
    Ok(())
}

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
        go_on()?;
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
        go_on()?;
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

/// The first signal ends all waiting, and the lab is taken down; the second ends us at once.
///
/// # Errors
///
/// If the kernel refuses.
pub fn stop_on_signals() -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let code = i32::from(INTERRUPTED);
        signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&INTERRUPT))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&INTERRUPT)))
            .context("handling signals")?;
    }
    Ok(())
}
