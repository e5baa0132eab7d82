//! Events: one for each change of a Service's status, once the change is certain.

use std::net::IpAddr;

use super::lan::ADDRESS_CONFLICT;
use super::{Leader, Told};
use crate::io::{Event, Regarding};
use crate::observed::{Condition, ObservedService};

impl Leader {
    /// The status of a Service is what it should be: tells of what is new in it.
    ///
    /// What is compared is what was told, not what was written: the write's result may be lost, or
    /// come after the change itself was seen.
    pub(super) fn tell(&mut self, observed: &ObservedService) {
        let Some(assignment) = self.assignments.get_mut(&observed.key) else {
            return;
        };
        let ours =
            |address| assignment.target.contains(&address) || assignment.leaving.contains(&address);
        let now = Told::by(observed, ours);
        let shown = now.ingress.clone();
        if assignment.told == now {
            return;
        }
        let before = std::mem::replace(&mut assignment.told, now);
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
        if let Some(allocated) = news(before.allocated.as_ref(), observed.allocated.as_ref()) {
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
