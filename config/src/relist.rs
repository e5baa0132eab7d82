//! From the events of a watch to changes of a set, without losing a deletion.
//!
//! A watch begins with a list and begins anew whenever the API server says so. What is missing
//! from a finished list is gone; a list that was broken off says nothing at all. `Relist` keeps
//! the keys it has told of, stages a list until it is complete, and only then tells what is new
//! and what is gone.

use std::collections::{BTreeMap, BTreeSet};

/// What a watch says, in kube-runtime's terms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent<K, V> {
    /// A list begins; an unfinished one before it is void.
    Init,
    /// An object of the list.
    InitApply(K, V),
    /// The list is complete.
    InitDone,
    /// An object was added or changed.
    Apply(K, V),
    /// An object was deleted.
    Delete(K),
}

/// What became of the set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<K, V> {
    /// The object is there, in this form. After a list this comes for unchanged objects as well.
    Applied(K, V),
    /// The object is gone.
    Deleted(K),
    /// The set is complete; said once, after the first finished list.
    Synced,
}

/// The keys of one kind of object, as far as they were told of.
#[derive(Clone, Debug)]
pub struct Relist<K, V> {
    known: BTreeSet<K>,
    staged: Option<BTreeMap<K, V>>,
    synced: bool,
}

impl<K, V> Default for Relist<K, V> {
    fn default() -> Self {
        Self {
            known: BTreeSet::new(),
            staged: None,
            synced: false,
        }
    }
}

impl<K: Ord + Clone, V> Relist<K, V> {
    /// Takes one event and appends what follows from it, in the order to apply it.
    pub fn handle(&mut self, event: WatchEvent<K, V>, changes: &mut Vec<Change<K, V>>) {
        match event {
            WatchEvent::Init => self.staged = Some(BTreeMap::new()),
            WatchEvent::InitApply(key, value) => {
                self.staged.get_or_insert_default().insert(key, value);
            }
            WatchEvent::InitDone => {
                let staged = self.staged.take().unwrap_or_default();
                let gone: Vec<K> = self
                    .known
                    .iter()
                    .filter(|key| !staged.contains_key(key))
                    .cloned()
                    .collect();
                for key in gone {
                    self.known.remove(&key);
                    changes.push(Change::Deleted(key));
                }
                for (key, value) in staged {
                    self.known.insert(key.clone());
                    changes.push(Change::Applied(key, value));
                }
                if !self.synced {
                    self.synced = true;
                    changes.push(Change::Synced);
                }
            }
            WatchEvent::Apply(key, value) => {
                self.known.insert(key.clone());
                changes.push(Change::Applied(key, value));
            }
            WatchEvent::Delete(key) => {
                self.known.remove(&key);
                changes.push(Change::Deleted(key));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Event = WatchEvent<&'static str, u8>;

    fn changes(events: impl IntoIterator<Item = Event>) -> Vec<Change<&'static str, u8>> {
        let mut relist = Relist::default();
        let mut changes = Vec::new();
        for event in events {
            relist.handle(event, &mut changes);
        }
        changes
    }

    const LIST: [Event; 4] = [
        Event::Init,
        Event::InitApply("a", 1),
        Event::InitApply("b", 1),
        Event::InitDone,
    ];

    #[test]
    fn the_first_list_is_told_when_it_is_complete() {
        assert_eq!(changes(LIST.into_iter().take(3)), []);
        assert_eq!(
            changes(LIST),
            [
                Change::Applied("a", 1),
                Change::Applied("b", 1),
                Change::Synced
            ]
        );
    }

    #[test]
    fn what_is_missing_from_a_later_list_is_deleted() {
        let again = [Event::Init, Event::InitApply("a", 2), Event::InitDone];
        assert_eq!(
            changes(LIST.into_iter().chain(again))[3..],
            [Change::Deleted("b"), Change::Applied("a", 2)]
        );
    }

    #[test]
    fn an_aborted_relist_neither_deletes_nor_forgets_a_deletion() {
        let aborted = [Event::Init, Event::InitApply("a", 2)];
        assert_eq!(changes(LIST.into_iter().chain(aborted.clone()))[3..], []);
        let then = [Event::Init, Event::InitApply("a", 3), Event::InitDone];
        assert_eq!(
            changes(LIST.into_iter().chain(aborted).chain(then))[3..],
            [Change::Deleted("b"), Change::Applied("a", 3)]
        );
    }

    #[test]
    fn an_object_that_left_and_came_back_during_an_aborted_relist_is_kept() {
        let events = [
            Event::Delete("b"),
            Event::Init,
            Event::Init,
            Event::InitApply("a", 1),
        ];
        let done = [Event::InitApply("b", 2), Event::InitDone];
        assert_eq!(
            changes(LIST.into_iter().chain(events).chain(done))[3..],
            [
                Change::Deleted("b"),
                Change::Applied("a", 1),
                Change::Applied("b", 2)
            ]
        );
    }
}
