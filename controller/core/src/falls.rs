//! Nodes that fell, and how long nothing is brought to them because of it.
//!
//! A node that fails again and again would get addresses each time it returns, and lose them each
//! time it falls. After the first fall it is held down for a while, after each further one twice as
//! long. As long a time again without a fall, and it is forgotten.

use std::collections::BTreeMap;
use std::time::Duration;

use herald_model::{Incarnation, Instant, NodeName, SegmentName};

/// The longest time is this many times the first.
const LONGEST: u32 = 12;

/// Who fell where. Kept by the leader alone: the next one knows of none, and moves nothing for a
/// while.
#[derive(Clone, Debug)]
pub(crate) struct Falls {
    first: Duration,
    places: BTreeMap<(SegmentName, NodeName), Fall>,
}

#[derive(Clone, Debug)]
struct Fall {
    at: Instant,
    /// How long the node is held down, and then how long until it is forgotten.
    length: Duration,
    /// The life in which it fell.
    life: Incarnation,
}

impl Falls {
    /// Nobody fell; `first` is the time after a first fall.
    pub(crate) const fn new(first: Duration) -> Self {
        Self {
            first,
            places: BTreeMap::new(),
        }
    }

    /// The others took a node for dead in this life. Whether it is will be seen: the same life may fall
    /// again.
    pub(crate) fn fell(
        &mut self,
        now: Instant,
        segment: &SegmentName,
        node: &NodeName,
        life: Incarnation,
    ) {
        let place = (segment.clone(), node.clone());
        let known = self.places.get(&place);
        let length = known
            .filter(|fall| now < fall.forgotten_at())
            .map_or(self.first, |fall| {
                (fall.length * 2).min(self.first * LONGEST)
            });
        let fall = Fall {
            at: now,
            length,
            life,
        };
        tracing::debug!(%segment, %node, held_down = ?length, "fell");
        self.places.insert(place, fall);
    }

    /// This life of a node is over; if its fall is known already it does not count twice.
    pub(crate) fn ended(
        &mut self,
        now: Instant,
        segment: &SegmentName,
        node: &NodeName,
        life: Incarnation,
    ) {
        let known = self.places.get(&(segment.clone(), node.clone()));
        if known.is_none_or(|fall| fall.life < life) {
            self.fell(now, segment, node, life);
        }
    }

    /// Whether nothing is to be brought to a node.
    pub(crate) fn is_held(&self, now: Instant, segment: &SegmentName, node: &NodeName) -> bool {
        let place = (segment.clone(), node.clone());
        self.places
            .get(&place)
            .is_some_and(|fall| now < fall.held_until())
    }

    /// When the next node is held down no more; `None`: none is.
    pub(crate) fn next_end(&self, now: Instant) -> Option<Instant> {
        let ends = self.places.values().map(Fall::held_until);
        ends.filter(|end| now < *end).min()
    }

    /// Forgets those whose time is over.
    pub(crate) fn forget(&mut self, now: Instant) {
        self.places.retain(|_, fall| now < fall.forgotten_at());
    }
}

impl Fall {
    fn held_until(&self) -> Instant {
        self.at + self.length
    }

    fn forgotten_at(&self) -> Instant {
        self.at + self.length * 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn each_fall_holds_down_twice_as_long_up_to_an_hour_and_quiet_forgets_it() {
        let (segment, node) = ("lan".into(), "n1".into());
        let mut falls = Falls::new(5 * MINUTE);
        let mut now = Instant::ORIGIN + MINUTE;
        for (life, minutes) in [5, 10, 20, 40, 60, 60].into_iter().enumerate() {
            let life = Incarnation(u64::try_from(life).unwrap());
            falls.ended(now, &segment, &node, life);
            let end = now + MINUTE * minutes;
            assert_eq!(falls.next_end(now), Some(end));
            assert!(falls.is_held(end - Duration::from_secs(1), &segment, &node));
            assert!(!falls.is_held(end, &segment, &node));
            now = end;
        }
        assert_eq!(falls.next_end(now), None);
        let long_after = now + 60 * MINUTE;
        falls.ended(long_after, &segment, &node, Incarnation(9));
        assert_eq!(falls.next_end(long_after), Some(long_after + 5 * MINUTE));
        falls.forget(long_after + 10 * MINUTE);
        assert!(falls.places.is_empty());
    }

    #[test]
    fn one_life_ends_once_and_other_nodes_and_segments_are_not_concerned() {
        let (segment, node) = ("lan".into(), "n1".into());
        let mut falls = Falls::new(5 * MINUTE);
        let now = Instant::ORIGIN;
        falls.fell(now, &segment, &node, Incarnation(3));
        falls.ended(now + MINUTE, &segment, &node, Incarnation(3));
        assert_eq!(falls.next_end(now), Some(now + 5 * MINUTE));
        assert!(!falls.is_held(now, &"other".into(), &node));
        assert!(!falls.is_held(now, &segment, &"n2".into()));
        falls.fell(now + MINUTE, &segment, &node, Incarnation(3));
        assert_eq!(falls.next_end(now), Some(now + 11 * MINUTE));
    }
}
