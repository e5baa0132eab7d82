//! What every object has.

use std::error::Error;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// The object's name; objects from an API server always have one.
pub(crate) fn name(meta: &ObjectMeta) -> &str {
    meta.name.as_deref().unwrap_or_default()
}

/// When it was created, seconds since 1970; 0 if nobody said.
pub(crate) fn created(meta: &ObjectMeta) -> i64 {
    meta.creation_timestamp
        .as_ref()
        .map_or(0, |time| time.0.as_second())
}

/// The value of an annotation, spaces around it removed; `None` if absent or empty.
pub(crate) fn annotation<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.annotations
        .as_ref()?
        .get(key)
        .map(|value| value.trim())
        .filter(|value| !value.is_empty())
}

/// An error and its causes as one sentence, for a condition or an Event.
pub fn sentence(error: &(dyn Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| (*error).source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
