//! From the events of a watch to changes of a set, without losing a deletion.
//!
//! A watch begins with a list, and begins anew whenever the API server says so. What is missing
//! from a finished list is gone; a list that was broken off says nothing. The keys that were told
//! of outlive any number of broken lists.

use std::collections::{BTreeMap, BTreeSet};

use kube::runtime::watcher::Event;

/// What became of the set.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Change<K, V> {
    /// The object is there, in this form.
    Applied(V),
    /// The object is gone.
    Deleted(K),
    /// The set is complete; said once, after the first finished list since the last beginning.
    Complete,
}

/// The keys of one kind of object, as far as they were told of.
#[derive(Debug)]
pub(crate) struct Relist<K, V> {
    known: BTreeSet<K>,
    staged: BTreeMap<K, V>,
    complete: bool,
}

impl<K: Ord + Clone, V> Relist<K, V> {
    pub(crate) const fn new() -> Self {
        Self {
            known: BTreeSet::new(),
            staged: BTreeMap::new(),
            complete: false,
        }
    }

    /// Waits for a list that begins now, and says when it is complete. What was told stays until then.
    pub(crate) fn begin_anew(&mut self) {
        self.staged.clear();
        self.complete = false;
    }

    /// Takes one event; what follows from it, in the order to apply it. Objects without a key are
    /// not of the set.
    pub(crate) fn handle(
        &mut self,
        event: Event<V>,
        key: impl Fn(&V) -> Option<K>,
    ) -> Vec<Change<K, V>> {
        match event {
            Event::Init => {
                self.staged.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                if let Some(key) = key(&object) {
                    self.staged.insert(key, object);
                }
                Vec::new()
            }
            Event::InitDone => self.swap(),
            Event::Apply(object) => match key(&object) {
                Some(key) => {
                    self.known.insert(key);
                    vec![Change::Applied(object)]
                }
                None => Vec::new(),
            },
            Event::Delete(object) => match key(&object) {
                Some(key) => {
                    self.known.remove(&key);
                    vec![Change::Deleted(key)]
                }
                None => Vec::new(),
            },
        }
    }

    /// The API server does not have the kind: there is nothing to wait for. What was told stays.
    pub(crate) fn unserved(&mut self) -> Vec<Change<K, V>> {
        if std::mem::replace(&mut self.complete, true) {
            Vec::new()
        } else {
            vec![Change::Complete]
        }
    }

    /// The staged list is complete: it is the set now.
    fn swap(&mut self) -> Vec<Change<K, V>> {
        let staged = std::mem::take(&mut self.staged);
        let keys: BTreeSet<K> = staged.keys().cloned().collect();
        let before = std::mem::replace(&mut self.known, keys);
        let gone = before.into_iter().filter(|key| !self.known.contains(key));
        let mut changes: Vec<Change<K, V>> = gone.map(Change::Deleted).collect();
        changes.extend(staged.into_values().map(Change::Applied));
        if !self.complete {
            self.complete = true;
            changes.push(Change::Complete);
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Object = (&'static str, u8);

    fn changes(events: Vec<Event<Object>>) -> Vec<Change<&'static str, Object>> {
        let mut relist = Relist::new();
        events
            .into_iter()
            .flat_map(|event| relist.handle(event, |(key, _)| Some(*key)))
            .collect()
    }

    fn list(objects: &[Object]) -> Vec<Event<Object>> {
        let mut events = vec![Event::Init];
        events.extend(objects.iter().copied().map(Event::InitApply));
        events.push(Event::InitDone);
        events
    }

    fn aborted(objects: &[Object]) -> Vec<Event<Object>> {
        let mut events = list(objects);
        events.pop();
        events
    }

    #[test]
    fn first_list_is_told_when_it_is_complete() {
        assert_eq!(changes(aborted(&[("a", 1), ("b", 1)])), []);
        assert_eq!(
            changes(list(&[("a", 1), ("b", 1)])),
            [
                Change::Applied(("a", 1)),
                Change::Applied(("b", 1)),
                Change::Complete
            ]
        );
    }

    #[test]
    fn a_kind_that_is_not_served_is_complete_and_may_come_later() {
        let mut relist: Relist<&str, Object> = Relist::new();
        assert_eq!(relist.unserved(), [Change::Complete]);
        assert_eq!(relist.unserved(), []);
        let events = list(&[("a", 1)]).into_iter();
        let later = events.flat_map(|event| relist.handle(event, |(key, _)| Some(*key)));
        assert_eq!(later.collect::<Vec<_>>(), [Change::Applied(("a", 1))]);
        assert_eq!(relist.unserved(), [], "what was told stays");
        relist.begin_anew();
        assert_eq!(relist.unserved(), [Change::Complete]);
    }

    #[test]
    fn list_that_was_asked_for_is_told_of_when_it_is_complete() {
        let mut relist = Relist::new();
        let mut told = |events: Vec<Event<Object>>, anew: bool| -> Vec<_> {
            if anew {
                relist.begin_anew();
            }
            let events = events.into_iter();
            events
                .flat_map(|event| relist.handle(event, |(key, _)| Some(*key)))
                .collect()
        };
        told(list(&[("a", 1), ("b", 1)]), false);
        assert_eq!(told(aborted(&[("a", 2)]), false), []);
        // Of the list before nothing counts.
        assert_eq!(
            told(list(&[("b", 2)]), true),
            [
                Change::Deleted("a"),
                Change::Applied(("b", 2)),
                Change::Complete
            ]
        );
        assert_eq!(told(list(&[("b", 2)]), false), [Change::Applied(("b", 2))]);
    }

    #[test]
    fn aborted_relist_neither_deletes_nor_forgets_a_deletion() {
        let start = list(&[("a", 1), ("b", 1)]);
        let broken = [start.clone(), aborted(&[("a", 2)]), aborted(&[])].concat();
        assert_eq!(changes(broken.clone()).len(), 3);
        assert_eq!(
            changes([broken, list(&[("a", 3)])].concat())[3..],
            [Change::Deleted("b"), Change::Applied(("a", 3))]
        );
    }

    #[test]
    fn object_of_a_broken_list_that_is_not_in_the_next_is_never_told() {
        let events = [aborted(&[("ghost", 1)]), list(&[("a", 1)])].concat();
        assert_eq!(
            changes(events),
            [Change::Applied(("a", 1)), Change::Complete]
        );
    }

    #[test]
    fn deletion_between_two_broken_lists_is_told_once() {
        let events = [
            list(&[("a", 1), ("b", 1)]),
            vec![Event::Delete(("b", 1))],
            aborted(&[("a", 1)]),
            list(&[("a", 1)]),
        ];
        assert_eq!(
            changes(events.concat())[3..],
            [Change::Deleted("b"), Change::Applied(("a", 1))]
        );
    }
}
