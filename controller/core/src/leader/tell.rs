//! Events: one for each change of a Service's status, once the change is certain.

use std::net::IpAddr;

use herald_model::Instant;

use super::lan::ADDRESS_CONFLICT;
use super::{Leader, Told};
use crate::allocator::{BEING_GIVEN_BACK, IS_FULL};
use crate::io::{Event, Regarding};
use crate::observed::{Condition, ObservedService};

impl Leader {
    /// The status of a Service is what it should be: tells of what is new in it.
    ///
    /// What is compared is what was told, not what was written: the write's result may be lost, or
    /// come after the change itself was seen.
    pub(super) fn tell(&mut self, now: Instant, observed: &ObservedService) {
        let Some(assignment) = self.assignments.get_mut(&observed.key) else {
            return;
        };
        let ours =
            |address| assignment.target.contains(&address) || assignment.leaving.contains(&address);
        let told = Told::by(observed, ours);
        let shown = told.ingress.clone();
        if assignment.told == told {
            return;
        }
        let before = std::mem::replace(&mut assignment.told, told);
        if !shown.is_empty() {
            let since = assignment.waits_since.take();
            self.waits
                .extend(since.map(|since| now.saturating_since(since)));
        }
        let event = |warning, reason: &str, note: String| Event {
            regarding: Regarding::Service {
                key: observed.key.clone(),
                uid: observed.identity.uid.clone(),
            },
            warning,
            reason: reason.into(),
            note,
        };
        // The first word on a Service is the time to speak of its annotations, once.
        if before.allocated.is_none() && observed.allocated.is_some() {
            for (old, new) in &observed.deprecated {
                let note = format!("annotation {old} is of an old form: write {new} instead");
                self.record(event(true, "DeprecatedAnnotation", note));
            }
        }
        let added = missing(&shown, &before.ingress);
        let removed = missing(&before.ingress, &shown);
        if !added.is_empty() {
            let pool = observed
                .allocated_from
                .as_ref()
                .map_or("", |pool| pool.as_str());
            let instead = if removed.is_empty() {
                String::new()
            } else {
                format!(" instead of {removed}")
            };
            let note = format!("assigned {added} from pool {pool}{instead}");
            self.record(event(false, "AddressAllocated", note));
        } else if !removed.is_empty() {
            let note = match &observed.allocated {
                Some(allocated) => format!("gave back {removed}: {}", allocated.message),
                None => format!("gave back {removed}: the Service is not Herald's any more"),
            };
            self.record(event(false, "AddressReleased", note));
        }
        if let Some(allocated) =
            other_matter(before.allocated.as_ref(), observed.allocated.as_ref())
        {
            let reason = match &*allocated.reason {
                ADDRESS_CONFLICT => ADDRESS_CONFLICT,
                _other => "AllocationFailed",
            };
            self.record(event(true, reason, allocated.message.to_string()));
        }
        if let Some(announced) = news(before.announced.as_ref(), observed.announced.as_ref())
            && matches!(&*announced.reason, "NoEligibleNode" | "NoAdvertisement")
        {
            self.record(event(
                true,
                &announced.reason,
                announced.message.to_string(),
            ));
        }
    }
}

/// What one list has and the other has not, as a text.
fn missing(from: &[IpAddr], other: &[IpAddr]) -> String {
    let gone = from.iter().filter(|address| !other.contains(address));
    gone.map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The condition, if it does not hold now for another reason than before.
fn news<'a>(before: Option<&Condition>, now: Option<&'a Condition>) -> Option<&'a Condition> {
    now.filter(|now| !now.status && before.is_none_or(|before| before.reason != now.reason))
}

/// As [`news`], where one word stands for reasons of one kind: what it is about counts too, but not
/// how many of it there are.
fn other_matter<'a>(
    before: Option<&Condition>,
    now: Option<&'a Condition>,
) -> Option<&'a Condition> {
    let is_known = |now: &Condition| {
        before.is_some_and(|before| {
            before.reason == now.reason
                // Soon it is somebody's again, or the Service's.
                && (now.message.contains(BEING_GIVEN_BACK)
                    || matter(&before.message) == matter(&now.message))
        })
    };
    now.filter(|now| !now.status && !is_known(now))
}

/// What a message is about, without numbers that change by themselves.
fn matter(message: &str) -> Vec<&str> {
    let clauses = message.split("; ").filter(|clause| {
        !clause.starts_with("until then it keeps ") && !clause.ends_with(" more pools")
    });
    let uncounted = |clause: &'_ str| {
        clause
            .find(IS_FULL)
            .map_or(clause.len(), |at| at + IS_FULL.len())
    };
    clauses
        .filter_map(|clause| clause.get(..uncounted(clause)))
        .collect()
}

#[cfg(test)]
mod tests {
    use herald_model::Family;

    use super::*;
    use crate::allocator::Refusal;

    #[test]
    fn what_a_message_is_about_has_no_numbers_that_change_by_themselves() {
        let full = |pool: &str, assigned| Refusal::Exhausted {
            pool: pool.into(),
            family: Family::V4,
            assigned,
            total: 51,
        };
        let none = |pool: &str, one, other| {
            let reasons = vec![full(pool, one), full("b", other)];
            let text = Refusal::NoneFits { reasons }.to_string();
            format!("{text}; until then it keeps 192.0.2.{one}")
        };
        assert_eq!(matter(&none("a", 51, 51)), matter(&none("a", 7, 50)));
        assert_ne!(matter(&none("a", 51, 51)), matter(&none("c", 51, 51)));
        let back = Refusal::Taken {
            address: "192.0.2.1".parse().unwrap(),
            holder: None,
        };
        assert!(back.to_string().contains(BEING_GIVEN_BACK));
    }
}
