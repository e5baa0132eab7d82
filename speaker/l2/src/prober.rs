//! Asking whether anybody uses an address, before it is used here.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use herald_model::{IfIndex, Instant};

/// How often is asked: RFC 5227 section 2.1.1 wants three probes.
const PROBES: u32 = 3;
/// Between two probes, and from the last one to the verdict. RFC 5227 waits a second or two; the
/// LAN of a cluster answers within milliseconds, and somebody waits for the address.
const INTERVAL: Duration = Duration::from_millis(100);
/// Between the first probes of two addresses.
const TURN: Duration = Duration::from_millis(3);

/// The questions that are open.
#[derive(Debug, Default)]
pub(crate) struct Prober {
    open: BTreeMap<(IfIndex, IpAddr), Question>,
}

#[derive(Clone, Copy, Debug)]
struct Question {
    asked: u32,
    next: Instant,
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
    /// Begins to ask, unless that goes on already. Many addresses take turns, so that all together ask
    /// about a thousand times a second.
    pub(crate) fn begin(&mut self, now: Instant, interface: IfIndex, address: IpAddr) {
        let others = u32::try_from(self.open.len()).unwrap_or(u32::MAX);
        self.open
            .entry((interface, address))
            .or_insert_with(|| Question {
                asked: 0,
                next: now + TURN.saturating_mul(others),
            });
    }

    /// Whether nothing is asked.
    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_empty()
    }

    /// Somebody says that it has the address, or the answer is of no interest any more. Returns whether
    /// it was asked for.
    pub(crate) fn end(&mut self, interface: IfIndex, address: IpAddr) -> bool {
        self.open.remove(&(interface, address)).is_some()
    }

    pub(crate) fn remove(&mut self, interface: IfIndex) {
        self.open.retain(|(index, _), _| *index != interface);
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.open.values().map(|question| question.next).min()
    }

    pub(crate) fn on_deadline(&mut self, now: Instant, mut due: impl FnMut(IfIndex, IpAddr, Due)) {
        self.open.retain(|(interface, address), question| {
            if question.next > now {
                return true;
            }
            if question.asked == PROBES {
                due(*interface, *address, Due::Silent);
                return false;
            }
            question.asked = question.asked.saturating_add(1);
            question.next = now + INTERVAL;
            due(*interface, *address, Due::Probe);
            true
        });
    }
}
