//! When a wanted state is written, and when it is tried again.

use std::sync::Arc;
use std::time::Duration;

use herald_model::Instant;

use crate::input::WriteOutcome;

const FIRST_RETRY: Duration = Duration::from_millis(500);
const LONGEST_RETRY: Duration = Duration::from_secs(30);

/// The writing of one object: one write at a time, none that says what was said already.
#[derive(Debug)]
pub(crate) struct Writer<T> {
    /// What was sent last, and the version it was decided for.
    sent: Option<(Arc<str>, T)>,
    in_flight: bool,
    failures: u32,
    failed_at: Option<Instant>,
    retry_at: Option<Instant>,
}

impl<T> Default for Writer<T> {
    fn default() -> Self {
        Self {
            sent: None,
            in_flight: false,
            failures: 0,
            failed_at: None,
            retry_at: None,
        }
    }
}

impl<T: PartialEq + Clone> Writer<T> {
    /// Whether to write `wanted` now that `observed` was seen at this version. Says yes once.
    pub(crate) fn should_write(
        &mut self,
        now: Instant,
        version: &Arc<str>,
        observed: Option<&T>,
        wanted: &T,
    ) -> bool {
        if observed == Some(wanted) {
            self.failures = 0;
            self.retry_at = None;
            // It is seen at a later version than it was decided for.
            if !self.in_flight {
                self.sent = None;
            }
            return false;
        }
        let waits = self.in_flight || self.retry_at.is_some_and(|at| at > now);
        let is_sent = self
            .sent
            .as_ref()
            .is_some_and(|(at, sent)| at == version && sent == wanted);
        if waits || is_sent {
            return false;
        }
        self.in_flight = true;
        self.retry_at = None;
        self.sent = Some((Arc::clone(version), wanted.clone()));
        true
    }

    /// The API server has been heard of: what waits long because it was away is tried again as soon as
    /// after a first failure. Returns when to look again.
    pub(crate) fn hurry(&mut self) -> Option<Instant> {
        let soon = self.failed_at? + FIRST_RETRY;
        if self.retry_at? <= soon {
            return None;
        }
        self.failures = 1;
        self.retry_at = Some(soon);
        self.retry_at
    }

    /// Takes the outcome of a write in; returns when to look again.
    pub(crate) fn written(&mut self, now: Instant, outcome: WriteOutcome) -> Option<Instant> {
        self.in_flight = false;
        match outcome {
            WriteOutcome::Done => {
                self.failures = 0;
                // Something else may be wanted by now.
                Some(now)
            }
            WriteOutcome::Outdated | WriteOutcome::Failed => {
                self.sent = None;
                let wait = FIRST_RETRY
                    .saturating_mul(1 << self.failures.min(10))
                    .min(LONGEST_RETRY);
                self.failures = self.failures.saturating_add(1);
                self.failed_at = Some(now);
                self.retry_at = Some(now + wait);
                self.retry_at
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn what_was_written_is_not_written_again_until_somebody_changes_it() {
        let mut writer = Writer::default();
        let (one, two) = (Arc::from("1"), Arc::from("2"));
        assert!(writer.should_write(at(0), &one, Some(&"old"), &"new"));
        assert!(
            !writer.should_write(at(1), &one, Some(&"old"), &"other"),
            "in flight"
        );
        writer.written(at(2), WriteOutcome::Done);
        assert!(
            !writer.should_write(at(3), &one, Some(&"old"), &"new"),
            "not seen yet"
        );
        assert!(!writer.should_write(at(4), &two, Some(&"new"), &"new"));
        assert!(writer.should_write(at(5), &two, Some(&"edited"), &"new"));
    }

    #[test]
    fn failures_are_retried_later_and_later() {
        let mut writer = Writer::default();
        let version = Arc::from("1");
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..9 {
            assert!(writer.should_write(now, &version, None, &"new"));
            let retry = writer.written(now, WriteOutcome::Failed).unwrap();
            assert!(!writer.should_write(now, &version, None, &"new"));
            waits.push(retry.saturating_since(now).as_millis());
            now = retry;
        }
        assert_eq!(
            waits,
            [
                500, 1_000, 2_000, 4_000, 8_000, 16_000, 30_000, 30_000, 30_000
            ]
        );
    }

    #[test]
    fn who_hears_of_the_api_server_does_not_wait_any_longer() {
        let mut writer = Writer::default();
        let version = Arc::from("1");
        let mut now = at(0);
        for _ in 0..6 {
            assert!(writer.should_write(now, &version, None, &"new"));
            now = writer.written(now, WriteOutcome::Failed).unwrap();
        }
        let failed = now.saturating_since(at(16_000));
        let failed = at(u64::try_from(failed.as_millis()).unwrap());
        assert_eq!(writer.hurry(), Some(failed + FIRST_RETRY));
        assert_eq!(writer.hurry(), None, "once is enough");
        assert!(writer.should_write(failed + FIRST_RETRY, &version, None, &"new"));
    }
}
