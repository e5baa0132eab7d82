//! Label selectors.

use schemars::{Schema, SchemaGenerator, json_schema};

use super::with_rules;

/// A label selector: all requirements must hold; the empty one selects everything.
pub(crate) fn selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "description": "Labels with the values they must have.",
                "type": "object",
                "maxProperties": 64,
                "additionalProperties": { "type": "string", "maxLength": 63 },
            },
            "matchExpressions": {
                "description": "What else must hold of labels.",
                "type": "array",
                "maxItems": 64,
                "items": requirement(),
            },
        },
    })
}

/// One requirement on one label.
fn requirement() -> Schema {
    with_rules(
        json_schema!({
            "type": "object",
            "required": ["key", "operator"],
            "properties": {
                "key": {
                    "description": "The label.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 317,
                },
                "operator": {
                    "description": "In and NotIn compare the label's value with `values`; Exists \
                        and DoesNotExist ask whether there is such a label.",
                    "type": "string",
                    "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                },
                "values": {
                    "description": "What to compare with.",
                    "type": "array",
                    "maxItems": 128,
                    "items": { "type": "string", "maxLength": 63 },
                },
            },
        }),
        [
            (
                "!(self.operator in ['In', 'NotIn']) || (has(self.values) && self.values.size() > 0)",
                "expected values with the operators In and NotIn",
            ),
            (
                "!(self.operator in ['Exists', 'DoesNotExist']) || !has(self.values) || \
                 self.values.size() == 0",
                "expected no values with the operators Exists and DoesNotExist",
            ),
        ],
    )
}

/// Label selectors, of which one must match.
pub(crate) fn selectors(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": 64, "items": selector(generator) })
}
