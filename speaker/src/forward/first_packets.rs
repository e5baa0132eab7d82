//! When the first packet of a Service goes through a node that took it over: the end of the outage that
//! clients see, as far as this node can tell.
//!
//! The programs only count: a look at the clock for each packet would cost every packet, to say something
//! once. So the counters are looked at, at first often, then ever less so. A Service nobody talks to
//! is given up.

use std::collections::BTreeMap;
use std::time::Duration;

use herald_model::{Instant, ServiceKey};

/// Between two looks at first, and the most by which the packet of one Service is seen late then.
const CLOSEST: Duration = Duration::from_millis(1);
/// Later, a look per so much of the time that has passed: a packet is seen late by no more than that.
const SHARE: u32 = 8;
/// A packet that comes later says nothing about the takeover.
const GIVE_UP: Duration = Duration::from_secs(10);
/// A look costs a system call. Of many Services each is looked at less often: [`CLOSEST`] for so many.
const AT_ONCE: usize = 64;

/// The Services whose first packet is waited for.
#[derive(Debug, Default)]
pub(crate) struct FirstPackets(BTreeMap<ServiceKey, Awaited>);

#[derive(Clone, Copy, Debug)]
struct Awaited {
    /// What had been counted before.
    packets: u64,
    last_heartbeat: Instant,
    began: Instant,
    due: Instant,
}

impl FirstPackets {
    /// Waits for the next packet of a Service.
    pub(crate) fn wait_for(
        &mut self,
        service: ServiceKey,
        packets: u64,
        last_heartbeat: Instant,
        now: Instant,
    ) {
        let awaited = Awaited {
            packets,
            last_heartbeat,
            began: now,
            due: now + CLOSEST,
        };
        self.0.insert(service, awaited);
    }

    /// When to look next.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.0.values().map(|awaited| awaited.due).min()
    }

    /// Looks at what is due. Returns how long after the last sign of life of the node before it each
    /// Service had its first packet; one that is counted no more is forgotten.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        mut packets: impl FnMut(&ServiceKey) -> Option<u64>,
    ) -> Vec<(ServiceKey, Duration)> {
        let due = self.0.iter().filter(|(_, awaited)| awaited.due <= now);
        let due: Vec<ServiceKey> = due.map(|(key, _)| key.clone()).take(AT_ONCE).collect();
        let turns = u32::try_from(self.0.len().div_ceil(AT_ONCE)).unwrap_or(u32::MAX);
        let closest = CLOSEST * turns;
        let mut seen = Vec::new();
        for key in due {
            let Some(awaited) = self.0.get_mut(&key) else {
                continue;
            };
            let waited = now.saturating_since(awaited.began);
            match packets(&key) {
                Some(count) if count <= awaited.packets && waited < GIVE_UP => {
                    awaited.due = now + (waited / SHARE).max(closest);
                }
                count => {
                    if count.is_some_and(|count| count > awaited.packets) {
                        seen.push((key.clone(), now.saturating_since(awaited.last_heartbeat)));
                    }
                    self.0.remove(&key);
                }
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn key(name: &str) -> ServiceKey {
        ServiceKey::new("default", name)
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn first_packet_is_counted_from_the_last_sign_of_life_and_reported_once() {
        let mut first = FirstPackets::default();
        assert_eq!(first.due(), None);
        first.wait_for(key("web"), 7, at(1_000), at(1_150));
        assert_eq!(first.due(), Some(at(1_151)));
        assert_eq!(first.look(at(1_150), |_| panic!("too early")), []);
        assert_eq!(first.look(at(1_151), |_| Some(7)), []);
        assert_eq!(
            first.look(at(1_152), |_| Some(9)),
            [(key("web"), millis(152))]
        );
        assert_eq!(first.due(), None);
        assert_eq!(first.look(at(1_153), |_| Some(20)), []);
    }

    #[test]
    fn looks_become_rarer_and_end() {
        let mut first = FirstPackets::default();
        first.wait_for(key("web"), 0, at(0), at(100));
        let mut looks = Vec::new();
        while let Some(due) = first.due() {
            looks.push(due);
            assert_eq!(first.look(due, |_| Some(0)), []);
        }
        assert!(looks.len() < 100, "{} looks", looks.len());
        let since = |look: Instant| look.saturating_since(at(100));
        for pair in looks.windows(2) {
            let apart = pair[1].saturating_since(pair[0]);
            assert!(apart <= (since(pair[0]) / 8).max(millis(1)), "{pair:?}");
        }
        let last = since(*looks.last().unwrap());
        assert!(last >= GIVE_UP && last < GIVE_UP * 9 / 8, "{last:?}");
    }

    #[test]
    fn service_that_is_gone_is_forgotten() {
        let mut first = FirstPackets::default();
        first.wait_for(key("web"), 0, at(0), at(100));
        assert_eq!(first.look(at(101), |_| None), []);
        assert_eq!(first.due(), None);
    }

    #[test]
    fn of_many_each_is_looked_at_less_often_and_none_is_forgotten() {
        let count = AT_ONCE * 10;
        let mut first = FirstPackets::default();
        for number in 0..count {
            first.wait_for(key(&format!("web-{number}")), 0, at(0), at(100));
        }
        let mut looks = 0;
        for now in 101..=200 {
            let mut in_this = 0;
            first.look(at(now), |_| {
                in_this += 1;
                Some(0)
            });
            assert!(in_this <= AT_ONCE, "{in_this} at {now}");
            looks += in_this;
        }
        assert!(looks <= AT_ONCE * 100, "{looks} looks in 100 ms");
        let mut seen = 0;
        for now in 201..=230 {
            seen += first.look(at(now), |_| Some(1)).len();
        }
        assert_eq!((seen, first.due()), (count, None));
    }
}
