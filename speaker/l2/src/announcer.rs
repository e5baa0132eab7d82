//! When which address is announced.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use herald_model::{Family, IfIndex, Instant};

use crate::Pace;
use crate::pace::Bucket;

/// After taking an address over, measured from its first announcement.
const REPEATS_V4: [Duration; 6] = [
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// The same, but RFC 4861 section 7.2.6 wants a second between unsolicited advertisements.
const REPEATS_V6: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// In the steady state, one address of each interface is announced this often, in turn, so that
/// switches do not forget behind which port the node is.
const STEADY: Duration = Duration::from_mins(1);

/// Decides when held addresses are announced, interface by interface.
///
/// First announcements go before repeats; a repeat that comes too late is merged with the next.
#[derive(Debug)]
pub struct Announcer {
    pace: Pace,
    interfaces: BTreeMap<IfIndex, Queue>,
}

#[derive(Debug)]
struct Queue {
    bucket: Bucket,
    addresses: BTreeMap<IpAddr, Progress>,
    /// Addresses not announced yet since they are held, in the order they came.
    first: BTreeSet<(Instant, u64, IpAddr)>,
    repeats: BTreeSet<(Instant, IpAddr)>,
    arrivals: u64,
    steady_at: Instant,
    steady_after: Option<IpAddr>,
}

/// How far the announcement of one address is.
#[derive(Clone, Copy, Debug)]
enum Progress {
    /// To be announced for the first time.
    Waiting { since: Instant, arrival: u64 },
    /// Announced first at `start`; the next repeat is due at `due`.
    Repeating { start: Instant, due: Instant },
    /// Announced often enough.
    Settled,
}

impl Announcer {
    /// An announcer that holds nothing yet; every interface has its own pace.
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            interfaces: BTreeMap::new(),
        }
    }

    /// Announces an address from now on. One that is held already is left as it is.
    pub fn hold(&mut self, now: Instant, interface: IfIndex, address: IpAddr) {
        let pace = self.pace;
        let queue = self
            .interfaces
            .entry(interface)
            .or_insert_with(|| Queue::new(now, pace));
        if !queue.addresses.contains_key(&address) {
            queue.restart(now, address);
        }
    }

    /// Stops announcing an address.
    pub fn release(&mut self, interface: IfIndex, address: IpAddr) {
        if let Some(queue) = self.interfaces.get_mut(&interface) {
            queue.forget(address);
        }
    }

    /// Announces an address that is held once more, as soon as the pace allows: behind those that were
    /// not announced at all yet, before all other repeats.
    pub fn again(&mut self, now: Instant, interface: IfIndex, address: IpAddr) {
        if let Some(queue) = self.interfaces.get_mut(&interface) {
            queue.again(now, address);
        }
    }

    /// Forgets an interface.
    pub fn remove(&mut self, interface: IfIndex) {
        self.interfaces.remove(&interface);
    }

    /// Announces everything on an interface anew: its MAC address changed.
    pub fn restart(&mut self, now: Instant, interface: IfIndex) {
        if let Some(queue) = self.interfaces.get_mut(&interface) {
            let held: Vec<IpAddr> = queue.addresses.keys().copied().collect();
            for address in held {
                queue.restart(now, address);
            }
        }
    }

    /// When the next announcement is due.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.interfaces.values().filter_map(Queue::deadline).min()
    }

    /// Calls `announce` for everything that is due and that the pace allows.
    pub fn on_deadline(&mut self, now: Instant, mut announce: impl FnMut(IfIndex, IpAddr)) {
        for (interface, queue) in &mut self.interfaces {
            while let Some(address) = queue.pop(now) {
                announce(*interface, address);
            }
        }
    }
}

impl Queue {
    fn new(now: Instant, pace: Pace) -> Self {
        Self {
            bucket: Bucket::new(pace),
            addresses: BTreeMap::new(),
            first: BTreeSet::new(),
            repeats: BTreeSet::new(),
            arrivals: 0,
            steady_at: now + STEADY,
            steady_after: None,
        }
    }

    fn restart(&mut self, now: Instant, address: IpAddr) {
        self.forget(address);
        let arrival = self.arrivals;
        self.arrivals = arrival.saturating_add(1);
        self.addresses.insert(
            address,
            Progress::Waiting {
                since: now,
                arrival,
            },
        );
        self.first.insert((now, arrival, address));
    }

    fn again(&mut self, now: Instant, address: IpAddr) {
        let start = match self.addresses.get(&address) {
            None | Some(Progress::Waiting { .. }) => return,
            Some(Progress::Repeating { start, due }) => {
                self.repeats.remove(&(*due, address));
                *start
            }
            // None of the repeats of its beginning is left.
            Some(Progress::Settled) => Instant::ORIGIN,
        };
        // Before those that wait for the pace since long.
        let due = self.repeats.first().map_or(now, |(due, _)| now.min(*due));
        self.repeats.insert((due, address));
        let progress = Progress::Repeating { start, due };
        self.addresses.insert(address, progress);
    }

    fn forget(&mut self, address: IpAddr) {
        match self.addresses.remove(&address) {
            Some(Progress::Waiting { since, arrival }) => {
                self.first.remove(&(since, arrival, address));
            }
            Some(Progress::Repeating { due, .. }) => {
                self.repeats.remove(&(due, address));
            }
            Some(Progress::Settled) | None => {}
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let paced =
            |due: Instant, address: IpAddr| due.max(self.bucket.ready_at(frames_of(address)));
        let first = self.first.first().map(|(due, _, ip)| paced(*due, *ip));
        // While first announcements wait for the pace, repeats wait behind them.
        let repeat = || self.repeats.first().map(|(due, ip)| paced(*due, *ip));
        let urgent = first.or_else(repeat);
        let steady =
            (!self.addresses.is_empty()).then(|| self.steady_at.max(self.bucket.ready_at(2)));
        [urgent, steady].into_iter().flatten().min()
    }

    /// The next address to announce now.
    fn pop(&mut self, now: Instant) -> Option<IpAddr> {
        if let Some(&(due, arrival, address)) = self.first.first() {
            if due > now || !self.bucket.take(now, frames_of(address)) {
                return None;
            }
            self.first.remove(&(due, arrival, address));
            self.announced(now, now, address);
            return Some(address);
        }
        if let Some(&(due, address)) = self.repeats.first()
            && due <= now
        {
            if !self.bucket.take(now, frames_of(address)) {
                return None;
            }
            self.repeats.remove(&(due, address));
            if let Some(&Progress::Repeating { start, .. }) = self.addresses.get(&address) {
                self.announced(now, start, address);
            }
            return Some(address);
        }
        self.steady(now)
    }

    /// Plans the next repeat after an announcement.
    fn announced(&mut self, now: Instant, start: Instant, address: IpAddr) {
        let repeats = match Family::of(address) {
            Family::V4 => &REPEATS_V4[..],
            Family::V6 => &REPEATS_V6[..],
        };
        let next = repeats
            .iter()
            .map(|after| start + *after)
            .find(|due| *due > now);
        let progress = match next {
            Some(due) => {
                self.repeats.insert((due, address));
                Progress::Repeating { start, due }
            }
            None => Progress::Settled,
        };
        self.addresses.insert(address, progress);
    }

    fn steady(&mut self, now: Instant) -> Option<IpAddr> {
        if self.steady_at > now || self.addresses.is_empty() || !self.bucket.take(now, 2) {
            return None;
        }
        self.steady_at = now + STEADY;
        let after = self.steady_after;
        let next = self
            .addresses
            .keys()
            .find(|address| after.is_none_or(|after| **address > after))
            .or_else(|| self.addresses.keys().next())
            .copied();
        self.steady_after = next;
        next
    }
}

/// The frames of one announcement of an address: IPv4 is announced in two forms.
pub const fn frames_of(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 1,
    }
}

#[cfg(test)]
mod tests;
