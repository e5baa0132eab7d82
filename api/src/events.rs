//! Events: one per change, on the object it happened to; their reasons.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};

/// The greatest length of a note, in bytes.
const NOTE_BYTES: usize = 1024;

/// A Service got an address.
pub const ADDRESS_ALLOCATED: &str = "AddressAllocated";
/// A Service gave an address back.
pub const ADDRESS_RELEASED: &str = "AddressReleased";
/// A Service cannot have an address; the note says why and what to do.
pub const ALLOCATION_FAILED: &str = "AllocationFailed";
/// A stranger on the LAN answers for an address.
pub const ADDRESS_CONFLICT: &str = "AddressConflict";
/// A node began to announce an address that nobody announced.
pub const ANNOUNCED: &str = "Announced";
/// An address is to move to another node; the note says why.
pub const MOVING: &str = "Moving";
/// An address moved to another node.
pub const MOVED: &str = "Moved";
/// A node took an address over, but another machine or nobody answers for it on the LAN.
pub const UNVERIFIED: &str = "Unverified";
/// The announcing node's data plane has no room for something of a Service's; the note says what.
pub const DATA_PLANE_FULL: &str = "DataPlaneFull";
/// No node may announce an address.
pub const NO_ELIGIBLE_NODE: &str = "NoEligibleNode";
/// No advertisement selects an address whose pool wants one.
pub const NO_ADVERTISEMENT: &str = "NoAdvertisement";
/// An annotation of an older form was used; the note names the one to write.
pub const DEPRECATED_ANNOTATION: &str = "DeprecatedAnnotation";
/// An object says something that cannot be; its last valid state stays in force.
pub const INVALID: &str = "Invalid";
/// A pool has addresses in common with an earlier one.
pub const OVERLAP: &str = "Overlap";

/// What people are told on an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// The object.
    pub regarding: ObjectReference,
    /// Another one that is concerned.
    pub related: Option<ObjectReference>,
    /// Whether somebody has to do something.
    pub warning: bool,
    /// Why, in one word.
    pub reason: String,
    /// A sentence; what is longer than 1,024 bytes is cut off.
    pub note: String,
}

impl Report {
    /// A new Event each time: one that counts an earlier one up would keep its note, which names
    /// other nodes and times. Events on objects without a namespace live in `default`.
    pub fn event(mut self, reporter: &str, instance: &str, now: MicroTime) -> Event {
        let end = self.note.floor_char_boundary(NOTE_BYTES);
        self.note.truncate(end);
        let about = self.regarding.name.as_deref().unwrap_or_default();
        let namespace = self.regarding.namespace.as_deref().unwrap_or("default");
        Event {
            metadata: ObjectMeta {
                name: Some(format!("{about}.{:x}", now.0.as_nanosecond())),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            },
            action: Some(self.reason.clone()),
            event_time: Some(now),
            note: Some(self.note),
            reason: Some(self.reason),
            regarding: Some(self.regarding),
            related: self.related,
            reporting_controller: Some(reporter.to_owned()),
            reporting_instance: Some(instance.to_owned()),
            type_: Some(if self.warning { "Warning" } else { "Normal" }.to_owned()),
            ..Event::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_that_is_too_long_ends_between_two_characters() {
        let report = Report {
            regarding: ObjectReference {
                name: Some("web".to_owned()),
                ..ObjectReference::default()
            },
            related: None,
            warning: true,
            reason: INVALID.to_owned(),
            note: "é".repeat(2_000) + "e",
        };
        let now = MicroTime("2026-11-25T12:00:00Z".parse().unwrap());
        let event = report.event("reporter", "pod", now);
        assert_eq!(event.note, Some("é".repeat(512)));
        assert_eq!(event.type_.as_deref(), Some("Warning"));
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
        assert!(event.metadata.name.unwrap().starts_with("web."));
    }
}
