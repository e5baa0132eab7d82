//! Which object is to be written next.
//!
//! The outbox knows *that* something is to be written to an object, not what: the content is
//! computed when the write begins, so it is always the latest and any number of changes become one
//! write. At most one write is under way for an object. A failed write is tried again for ever,
//! after a time that doubles and is spread by a seeded generator; meanwhile other objects go on.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use herald_model::Instant;

use crate::io::WriteId;

/// How urgent a write is: the lower, the sooner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Somebody waits for it: claims, plans, addresses in a status.
    Now,
    /// Somebody may look at it: who announces.
    Soon,
    /// Counters and Events.
    Eventually,
}

/// The wait after the first failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest wait.
const BACKOFF_LAST: Duration = Duration::from_secs(15);

#[derive(Clone, Debug)]
struct Entry {
    urgency: Urgency,
    failures: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// In the queue, at this position.
    Queued(u64),
    /// Not before this time.
    Waiting(Instant),
    /// Under way; whether it was wanted again since.
    Writing { id: WriteId, again: bool },
}

/// Objects to write, by a key.
#[derive(Debug)]
pub struct Outbox<K> {
    entries: BTreeMap<K, Entry>,
    queue: BTreeSet<(Urgency, u64, K)>,
    waiting: BTreeSet<(Instant, K)>,
    writing: BTreeMap<WriteId, K>,
    limit: usize,
    next: u64,
    random: u64,
}

impl<K: Clone + Ord> Outbox<K> {
    /// An empty outbox with at most `limit` writes under way.
    pub fn new(limit: usize, seed: u64, first: WriteId) -> Self {
        Self {
            entries: BTreeMap::new(),
            queue: BTreeSet::new(),
            waiting: BTreeSet::new(),
            writing: BTreeMap::new(),
            limit,
            next: first.0,
            random: seed,
        }
    }

    /// How many objects are to be written or being written.
    pub fn depth(&self) -> usize {
        self.entries.len()
    }

    /// The id after all that were used.
    pub const fn next_id(&self) -> WriteId {
        WriteId(self.next)
    }

    /// An object is to be written. One that waits after a failure goes on waiting.
    pub fn want(&mut self, key: K, urgency: Urgency) {
        match self.entries.get_mut(&key) {
            None => {
                let position = self.position();
                self.queue.insert((urgency, position, key.clone()));
                let state = State::Queued(position);
                self.entries.insert(
                    key,
                    Entry {
                        urgency,
                        failures: 0,
                        state,
                    },
                );
            }
            Some(entry) => {
                if let State::Queued(position) = entry.state
                    && urgency < entry.urgency
                {
                    self.queue.remove(&(entry.urgency, position, key.clone()));
                    self.queue.insert((urgency, position, key));
                }
                entry.urgency = entry.urgency.min(urgency);
                if let State::Writing { again, .. } = &mut entry.state {
                    *again = true;
                }
            }
        }
    }

    /// An object is to be written, but not before a time. One that is to be written anyway is left
    /// as it is; for one that is being written this is to be asked again when that is done.
    pub fn want_at(&mut self, key: K, urgency: Urgency, at: Instant) {
        if !self.entries.contains_key(&key) {
            self.waiting.insert((at, key.clone()));
            let state = State::Waiting(at);
            self.entries.insert(
                key,
                Entry {
                    urgency,
                    failures: 0,
                    state,
                },
            );
        }
    }

    /// What is known of the object has changed: if it waits after a failure, it waits no more.
    pub fn hurry(&mut self, key: &K) {
        if let Some(entry) = self.entries.get_mut(key)
            && let State::Waiting(at) = entry.state
        {
            self.waiting.remove(&(at, key.clone()));
            self.queue.insert((entry.urgency, self.next, key.clone()));
            entry.state = State::Queued(self.next);
            self.next += 1;
        }
    }

    /// The next object to write, if another write may begin: until [`Self::done`] it is being
    /// written.
    pub fn begin(&mut self, now: Instant) -> Option<(WriteId, K)> {
        self.wake(now);
        if self.writing.len() >= self.limit {
            return None;
        }
        let (_, _, key) = self.queue.pop_first()?;
        let id = WriteId(self.position());
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.state = State::Writing { id, again: false };
        }
        self.writing.insert(id, key.clone());
        Some((id, key))
    }

    /// There was nothing to write after all, or it is written: the object is forgotten unless it
    /// was wanted again. Returns its key if the write was one of this outbox.
    pub fn done(&mut self, id: WriteId) -> Option<K> {
        let key = self.writing.remove(&id)?;
        if let Some(entry) = self.entries.remove(&key)
            && matches!(entry.state, State::Writing { again: true, .. })
        {
            self.want(key.clone(), entry.urgency);
        }
        Some(key)
    }

    /// The write failed: it is tried again later. Returns its key if the write was one of this
    /// outbox.
    pub fn failed(&mut self, now: Instant, id: WriteId) -> Option<K> {
        let key = self.writing.remove(&id)?;
        let jitter = self.jitter();
        if let Some(entry) = self.entries.get_mut(&key) {
            let doubled = BACKOFF_FIRST.saturating_mul(1 << entry.failures.min(10));
            let wait = doubled.min(BACKOFF_LAST).mul_f64(jitter);
            entry.failures = entry.failures.saturating_add(1);
            entry.state = State::Waiting(now + wait);
            self.waiting.insert((now + wait, key.clone()));
        }
        Some(key)
    }

    /// When the next waiting object is due; `None` if none waits, or no more writes may begin.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.writing.len() >= self.limit {
            return None;
        }
        self.waiting.first().map(|(at, _)| *at)
    }

    fn wake(&mut self, now: Instant) {
        while let Some((at, key)) = self.waiting.first().cloned()
            && at <= now
        {
            self.hurry(&key);
        }
    }

    fn position(&mut self) -> u64 {
        let position = self.next;
        self.next += 1;
        position
    }

    /// Between 0.5 and 1.5, by splitmix64.
    fn jitter(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let top = u32::try_from((z ^ (z >> 31)) >> 32).unwrap_or(u32::MAX);
        0.5 + f64::from(top) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::ORIGIN + Duration::from_millis(millis)
    }

    fn outbox(limit: usize) -> Outbox<&'static str> {
        Outbox::new(limit, 1, WriteId(0))
    }

    fn keys(outbox: &mut Outbox<&'static str>, now: Instant) -> Vec<&'static str> {
        std::iter::from_fn(|| outbox.begin(now))
            .map(|(_, key)| key)
            .collect()
    }

    #[test]
    fn urgent_objects_come_first_and_equals_in_order() {
        let mut outbox = outbox(9);
        outbox.want("counter", Urgency::Eventually);
        outbox.want("b", Urgency::Now);
        outbox.want("a", Urgency::Now);
        outbox.want("late", Urgency::Eventually);
        outbox.want("late", Urgency::Now);
        assert_eq!(keys(&mut outbox, at(0)), ["b", "a", "late", "counter"]);
    }

    #[test]
    fn any_number_of_changes_become_one_write_and_one_more_after_it() {
        let mut outbox = outbox(9);
        outbox.want("a", Urgency::Now);
        outbox.want("a", Urgency::Now);
        let (id, _) = outbox.begin(at(0)).unwrap();
        outbox.want("a", Urgency::Now);
        outbox.want("a", Urgency::Now);
        assert_eq!(outbox.begin(at(0)), None);
        outbox.done(id);
        let (id, _) = outbox.begin(at(0)).unwrap();
        outbox.done(id);
        assert_eq!(outbox.begin(at(0)), None);
        assert_eq!(outbox.depth(), 0);
    }

    #[test]
    fn a_failing_object_waits_longer_each_time_and_holds_up_nobody() {
        let mut outbox = outbox(1);
        outbox.want("bad", Urgency::Now);
        let mut now = at(0);
        let mut waits = Vec::new();
        for _ in 0..12 {
            let (id, _) = outbox.begin(now).unwrap();
            outbox.failed(now, id);
            outbox.want("good", Urgency::Eventually);
            let (id, key) = outbox.begin(now).unwrap();
            assert_eq!(key, "good");
            outbox.done(id);
            let due = outbox.next_deadline().unwrap();
            waits.push(due.saturating_since(now));
            now = due;
        }
        let growing = waits.windows(2).take(5).all(|pair| pair[0] < pair[1] * 3);
        assert!(growing, "{waits:?}");
        assert!(waits[0] >= BACKOFF_FIRST / 2 && waits[0] <= BACKOFF_FIRST * 3 / 2);
        assert!(waits[11] >= BACKOFF_LAST / 2 && waits[11] <= BACKOFF_LAST * 3 / 2);
    }

    #[test]
    fn wanting_a_waiting_object_does_not_shorten_its_wait_but_hurrying_does() {
        let mut outbox = outbox(9);
        outbox.want("a", Urgency::Now);
        let (id, _) = outbox.begin(at(0)).unwrap();
        outbox.failed(at(0), id);
        outbox.want("a", Urgency::Now);
        assert_eq!(outbox.begin(at(1)), None);
        outbox.hurry(&"a");
        assert!(outbox.begin(at(1)).is_some());
    }

    #[test]
    fn a_write_beyond_the_limit_waits_for_another_to_end_and_new_ones_overtake_counters() {
        let mut outbox = outbox(2);
        for key in ["counter", "event", "later"] {
            outbox.want(key, Urgency::Eventually);
        }
        let (first, _) = outbox.begin(at(0)).unwrap();
        let (_, second) = outbox.begin(at(0)).unwrap();
        assert_eq!(second, "event");
        outbox.want("new", Urgency::Now);
        assert_eq!(outbox.begin(at(0)), None);
        assert_eq!(outbox.depth(), 4);
        outbox.done(first);
        let (_, key) = outbox.begin(at(0)).unwrap();
        assert_eq!(key, "new");
        assert_eq!(outbox.begin(at(0)), None);
    }

    #[test]
    fn objects_that_fail_together_do_not_come_back_together() {
        let mut outbox = outbox(9);
        for key in ["a", "b"] {
            outbox.want(key, Urgency::Now);
        }
        let ids = [(); 2].map(|()| outbox.begin(at(0)).unwrap().0);
        for id in ids {
            outbox.failed(at(0), id);
        }
        let first = outbox.next_deadline().unwrap();
        assert_eq!(keys(&mut outbox, first).len(), 1);
        assert!(outbox.next_deadline().unwrap() > first);
    }

    #[test]
    fn results_of_another_outbox_are_not_taken() {
        let mut outbox = outbox(9);
        assert_eq!(outbox.done(WriteId(7)), None);
        assert_eq!(outbox.failed(at(0), WriteId(7)), None);
    }

    #[test]
    fn delayed_objects_come_in_time() {
        let mut outbox = outbox(9);
        outbox.want_at("a", Urgency::Eventually, at(1000));
        outbox.want_at("a", Urgency::Eventually, at(5000));
        assert_eq!(outbox.next_deadline(), Some(at(1000)));
        assert_eq!(outbox.begin(at(999)), None);
        assert_eq!(keys(&mut outbox, at(1000)), ["a"]);
    }
}
