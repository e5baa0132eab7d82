//! Asking whether anybody uses an address, before it is used here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use herald_model::{IfIndex, Instant};

use crate::pace::{Bucket, Pace};

/// How often is asked: RFC 5227 section 2.1.1 wants three probes.
const PROBES: u32 = 3;
/// Between two probes, and from the last one to the verdict. RFC 5227 waits a second or two; the
/// LAN of a cluster answers within milliseconds, and somebody waits for the address.
const INTERVAL: Duration = Duration::from_millis(100);

/// The questions that are open.
#[derive(Debug)]
pub(crate) struct Prober {
    /// How many questions each interface sends, apart from what it announces.
    pace: Pace,
    interfaces: BTreeMap<IfIndex, Asking>,
}

/// The questions on one interface. One that has begun is finished before another begins: of more than
/// can be asked within the time somebody waits, some are then answered rather than none.
#[derive(Debug)]
struct Asking {
    bucket: Bucket,
    /// How often was asked for an address, and when it is its turn again.
    begun: BTreeMap<IpAddr, (u32, Instant)>,
    turns: BTreeSet<(Instant, IpAddr)>,
    /// Those not asked for yet, in order; what is no longer in `open` is of no interest any more.
    waiting: VecDeque<IpAddr>,
    open: BTreeSet<IpAddr>,
}

/// What is due for an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Ask.
    Probe,
    /// Nobody answered.
    Silent,
}

impl Prober {
    pub(crate) fn new(pace: Pace) -> Self {
        Self {
            pace,
            interfaces: BTreeMap::new(),
        }
    }

    /// Begins to ask, unless that goes on already.
    pub(crate) fn begin(&mut self, interface: IfIndex, address: IpAddr) {
        let pace = self.pace;
        let asking = self
            .interfaces
            .entry(interface)
            .or_insert_with(|| Asking::new(pace));
        if asking.open.insert(address) {
            asking.waiting.push_back(address);
        }
    }

    /// Whether nothing is asked.
    pub(crate) fn is_idle(&self) -> bool {
        self.interfaces
            .values()
            .all(|asking| asking.open.is_empty())
    }

    /// Somebody says that it has the address, or the answer is of no interest any more. Returns whether
    /// it was asked for.
    pub(crate) fn end(&mut self, interface: IfIndex, address: IpAddr) -> bool {
        let asking = self.interfaces.get_mut(&interface);
        asking.is_some_and(|asking| asking.end(address))
    }

    pub(crate) fn remove(&mut self, interface: IfIndex) {
        self.interfaces.remove(&interface);
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.interfaces.values().filter_map(Asking::deadline).min()
    }

    pub(crate) fn on_deadline(&mut self, now: Instant, mut due: impl FnMut(IfIndex, IpAddr, Due)) {
        for (interface, asking) in &mut self.interfaces {
            while let Some((address, what)) = asking.next(now) {
                due(*interface, address, what);
            }
        }
    }
}

impl Asking {
    fn new(pace: Pace) -> Self {
        Self {
            bucket: Bucket::new(pace),
            begun: BTreeMap::new(),
            turns: BTreeSet::new(),
            waiting: VecDeque::new(),
            open: BTreeSet::new(),
        }
    }

    fn end(&mut self, address: IpAddr) -> bool {
        if let Some((_, turn)) = self.begun.remove(&address) {
            self.turns.remove(&(turn, address));
        } else {
            self.waiting.retain(|other| *other != address);
        }
        self.open.remove(&address)
    }

    fn deadline(&self) -> Option<Instant> {
        let token = self.bucket.ready_at(1);
        let turn = self.turns.first().map(|(turn, address)| {
            let is_last = self
                .begun
                .get(address)
                .is_some_and(|(asked, _)| *asked >= PROBES);
            if is_last { *turn } else { (*turn).max(token) }
        });
        let first = self.waiting.front().map(|_| token);
        turn.into_iter().chain(first).min()
    }

    /// What is due, if anything is; to be asked again until nothing is.
    fn next(&mut self, now: Instant) -> Option<(IpAddr, Due)> {
        if let Some(&(turn, address)) = self.turns.first()
            && turn <= now
        {
            let asked = self.begun.get(&address).map_or(0, |(asked, _)| *asked);
            if asked >= PROBES {
                self.end(address);
                return Some((address, Due::Silent));
            }
            if !self.bucket.take(now, 1) {
                return None;
            }
            self.turns.remove(&(turn, address));
            return Some(self.ask(now, address, asked));
        }
        if self.waiting.is_empty() || !self.bucket.take(now, 1) {
            return None;
        }
        let address = self.waiting.pop_front()?;
        Some(self.ask(now, address, 0))
    }

    fn ask(&mut self, now: Instant, address: IpAddr, asked: u32) -> (IpAddr, Due) {
        let turn = now + INTERVAL;
        self.begun.insert(address, (asked.saturating_add(1), turn));
        self.turns.insert((turn, address));
        (address, Due::Probe)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LAN: IfIndex = IfIndex(2);

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(60_000_000_000 + millis * 1_000_000)
    }

    fn vip(number: u32) -> IpAddr {
        Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    /// Runs it to a time: each thing that was due, with the time in milliseconds.
    fn run(prober: &mut Prober, until: u64) -> Vec<(u64, IpAddr, Due)> {
        let mut seen = Vec::new();
        while let Some(deadline) = prober.next_deadline()
            && deadline <= at(until)
        {
            let millis = deadline.max(at(0)).saturating_since(at(0)).as_millis();
            let millis = u64::try_from(millis).unwrap();
            prober.on_deadline(deadline.max(at(0)), |_, address, due| {
                seen.push((millis, address, due));
            });
        }
        seen
    }

    #[test]
    fn a_burst_is_asked_for_at_the_pace_and_what_has_begun_is_finished_first() {
        let mut prober = Prober::new(Pace::QUESTIONS);
        for number in 0..3_000 {
            prober.begin(LAN, vip(number));
        }
        let seen = run(&mut prober, 1_000);
        let sent: Vec<u64> = seen
            .iter()
            .filter(|(.., due)| *due == Due::Probe)
            .map(|(millis, ..)| *millis)
            .collect();
        assert_eq!(sent.iter().filter(|millis| **millis == 0).count(), 100);
        assert!(sent.len() <= 1_101, "{} in a second", sent.len());
        let answered = seen.iter().filter(|(.., due)| *due == Due::Silent).count();
        assert!(answered >= 200, "{answered} answered within a second");
    }

    #[test]
    fn what_is_of_no_interest_any_more_takes_nobodys_turn() {
        let mut prober = Prober::new(Pace::QUESTIONS);
        for number in 0..3_000 {
            prober.begin(LAN, vip(number));
        }
        for number in 0..2_999 {
            assert!(prober.end(LAN, vip(number)));
        }
        assert!(!prober.end(LAN, vip(0)));
        let last = vip(2_999);
        let probe = |millis| (millis, last, Due::Probe);
        assert_eq!(
            run(&mut prober, 9_000),
            [probe(0), probe(100), probe(200), (300, last, Due::Silent)]
        );
        assert!(prober.is_idle());
    }
}
