//! How many frames that nobody asked for may be sent.

use std::time::Duration;

use herald_model::Instant;

/// The pace of one interface: a burst, then so many frames a second.
///
/// Switches with dynamic ARP inspection shut a port down that sends more ARP than they allow
/// (15 a second by default with several vendors), so the rate can be lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Frames that may be sent at once after a silence, at least two.
    pub burst_frames: u32,
    /// Frames a second after that, at least one.
    pub frames_per_second: u32,
}

impl Pace {
    /// The pace of the questions whether anybody uses an address: a hundred, then 1,000 a second, as
    /// somebody waits for the answers.
    pub const QUESTIONS: Self = Self {
        burst_frames: 100,
        frames_per_second: 1_000,
    };

    /// How long it takes until the last of so many frames is sent, after a silence: nothing up to the
    /// burst, `(frames - burst) / rate` seconds beyond.
    pub fn time_for(self, frames: u64) -> Duration {
        let late = frames.saturating_sub(u64::from(self.burst_frames.max(2)));
        let nanos = u128::from(late) * 1_000_000_000 / u128::from(self.frames_per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

impl Default for Pace {
    /// A burst of 2,000 frames, then 100 a second.
    fn default() -> Self {
        Self {
            burst_frames: 2_000,
            frames_per_second: 100,
        }
    }
}

/// A token bucket, kept as the time at which it would be full again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    /// Between two frames at the sustained rate.
    interval: Duration,
    /// From empty to full.
    capacity: Duration,
    full_at: Instant,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(pace: Pace) -> Self {
        let interval = Duration::from_secs(1)
            .checked_div(pace.frames_per_second)
            .unwrap_or(Duration::from_secs(1));
        Self {
            interval,
            capacity: interval.saturating_mul(pace.burst_frames.max(2)),
            full_at: Instant::ORIGIN,
        }
    }

    /// When this many frames may be sent, which is in the past if they may now.
    pub(crate) fn ready_at(&self, frames: u32) -> Instant {
        let spare = self
            .capacity
            .saturating_sub(self.interval.saturating_mul(frames));
        Instant::from_nanos(
            self.full_at
                .as_nanos()
                .saturating_sub(u64::try_from(spare.as_nanos()).unwrap_or(u64::MAX)),
        )
    }

    /// Takes this many frames if they may be sent now.
    pub(crate) fn take(&mut self, now: Instant, frames: u32) -> bool {
        if self.ready_at(frames) > now {
            return false;
        }
        let spent = self.interval.saturating_mul(frames);
        let from = self.full_at.max(now).as_nanos();
        self.full_at = Instant::from_nanos(
            from.saturating_add(u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX)),
        );
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn bucket_allows_the_burst_and_then_the_rate() {
        let mut bucket = Bucket::new(Pace {
            burst_frames: 10,
            frames_per_second: 100,
        });
        let start = at(60_000);
        assert_eq!((0..20).filter(|_| bucket.take(start, 1)).count(), 10);
        assert_eq!(bucket.ready_at(1), at(60_010));
        assert_eq!(bucket.ready_at(2), at(60_020));
        let sent = (0..1_000)
            .filter(|tick| bucket.take(at(60_000 + tick), 1))
            .count();
        assert_eq!(sent, 99, "one every 10 ms from the tenth millisecond on");
    }

    #[test]
    fn time_for_many_frames_is_what_the_bucket_takes() {
        for (burst_frames, frames_per_second) in [(2_000, 100), (2, 10), (20, 7)] {
            let pace = Pace {
                burst_frames,
                frames_per_second,
            };
            for frames in [0, 1, 2, 20, 2_000, 4_000_u32] {
                let mut bucket = Bucket::new(pace);
                let start = at(3_600_000);
                let mut now = start;
                for _ in 0..frames {
                    now = now.max(bucket.ready_at(1));
                    assert!(bucket.take(now, 1));
                }
                let took = now.saturating_since(start);
                let said = pace.time_for(u64::from(frames));
                assert!(
                    said.abs_diff(took) < Duration::from_millis(1),
                    "{said:?} {took:?}"
                );
            }
        }
    }

    #[test]
    fn silence_fills_the_bucket_no_further_than_its_burst() {
        let mut bucket = Bucket::new(Pace {
            burst_frames: 4,
            frames_per_second: 1,
        });
        assert_eq!((0..9).filter(|_| bucket.take(at(0), 1)).count(), 4);
        assert_eq!((0..9).filter(|_| bucket.take(at(3_600_000), 1)).count(), 4);
    }
}
