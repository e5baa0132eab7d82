//! The clocks, as the core wants them.

use herald_model::Instant;

/// The core's monotonic clock, with an origin of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock(tokio::time::Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(tokio::time::Instant::now())
    }

    pub(crate) fn now(self) -> Instant {
        Instant::ORIGIN + self.0.elapsed()
    }

    /// The same moment on the runtime's clock.
    pub(crate) fn at(self, instant: Instant) -> tokio::time::Instant {
        self.0 + instant.saturating_since(Instant::ORIGIN)
    }

    /// Seconds since 1970 at the origin.
    pub(crate) fn origin(self) -> i64 {
        let elapsed = i64::try_from(self.0.elapsed().as_secs()).unwrap_or_default();
        jiff::Timestamp::now().as_second().saturating_sub(elapsed)
    }
}
