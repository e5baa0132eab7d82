//! The one clock of the speaker.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use herald_model::Instant;

/// Counts from the start of the program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: std::time::Instant,
}

impl Clock {
    /// A clock that starts now.
    pub(crate) fn start() -> Self {
        Self {
            origin: std::time::Instant::now(),
        }
    }

    /// Now, as machines see it.
    pub(crate) fn now(self) -> Instant {
        let nanos = self.origin.elapsed().as_nanos();
        Instant::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// How long until then; zero if it is past.
    pub(crate) fn until(self, then: Instant) -> Duration {
        then.saturating_since(self.now())
    }
}

/// Seconds since 1970.
pub(crate) fn wall() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_secs()).ok())
        .unwrap_or_default()
}
