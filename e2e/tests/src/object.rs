//! Reading and making API objects as JSON.

use std::net::IpAddr;

use serde_json::{Value, json};

/// Puts `patch` over `base`, as JSON merge patch does (RFC 7396), except that `null` stays.
pub fn merge(base: &mut Value, patch: Value) {
    match (base, patch) {
        (Value::Object(base), Value::Object(patch)) => {
            for (key, value) in patch {
                merge(base.entry(key).or_insert(Value::Null), value);
            }
        }
        (base, patch) => *base = patch,
    }
}

/// `base` with `patch` over it.
#[must_use]
pub fn with(mut base: Value, patch: Value) -> Value {
    merge(&mut base, patch);
    base
}

/// The items of a JSON list; none if it isn't one.
pub fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A text; "" if it isn't one.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// The addresses in a Service's status, in order.
pub fn ingress(service: &Value) -> Vec<IpAddr> {
    items(&service["status"]["loadBalancer"]["ingress"])
        .iter()
        .filter_map(|entry| text(&entry["ip"]).parse().ok())
        .collect()
}

/// A condition of an object; `Null` without one.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    items(&object["status"]["conditions"])
        .iter()
        .find(|condition| condition["type"] == kind)
        .unwrap_or(&Value::Null)
}

/// The conditions, one a line, for messages.
pub fn conditions(object: &Value) -> String {
    let mut lines = String::new();
    for it in items(&object["status"]["conditions"]) {
        let (kind, status) = (text(&it["type"]), text(&it["status"]));
        let (reason, message) = (text(&it["reason"]), text(&it["message"]));
        lines.extend(["\n  ", kind, "=", status, " ", reason, ": ", message]);
    }
    lines
}

/// A namespace.
pub fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_reaches_into_objects_and_replaces_lists() {
        let base = json!({"a": {"b": 1, "c": [1, 2]}});
        let all = with(base, json!({"a": {"c": [3], "d": 4}}));
        assert_eq!(all, json!({"a": {"b": 1, "c": [3], "d": 4}}));
    }
}
