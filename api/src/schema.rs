//! Schemas of single fields: bounds, patterns, and rules in the API server's expression language.
//!
//! Rules stand on the value they judge, so that the API server names it (`spec.addresses[1]`) and
//! the message only has to say what is expected there. The bounds keep the cost of the rules, which
//! the API server estimates from them, under its limits.

use kube::core::{Rule, validate};
use schemars::{Schema, SchemaGenerator, json_schema};

/// The schema with rules added.
fn with_rules(mut schema: Schema, rules: impl IntoIterator<Item = Rule>) -> Schema {
    for rule in rules {
        validate(&mut schema, rule).expect("a rule is plain JSON");
    }
    schema
}

/// `IPPool.spec.addresses`.
pub(crate) fn address_ranges(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "minItems": 1,
        "maxItems": 128,
        "items": { "type": "string", "minLength": 1, "maxLength": 96 },
    })
}

/// A duration as Go writes it, whole numbers only.
pub(crate) fn duration(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": 32,
        "pattern": "^([0-9]{1,9}(ms|s|m|h))+$",
    })
}

/// `VirtualIP.spec.address`.
pub(crate) fn vip_address(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 2, "maxLength": 39 })
}

/// The name of an object of ours.
pub(crate) fn object_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "minLength": 1, "maxLength": 253 })
}

/// Names of Namespaces.
pub(crate) fn namespaces(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 256,
        "items": { "type": "string", "minLength": 1, "maxLength": 63 },
    })
}

/// Names of pools.
pub(crate) fn pool_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 256,
        "items": { "type": "string", "minLength": 1, "maxLength": 253 },
    })
}

/// Names of advertisements.
pub(crate) fn advertisement_names(generator: &mut SchemaGenerator) -> Schema {
    pool_names(generator)
}

/// Interface names and globs.
pub(crate) fn interfaces(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": { "type": "string", "minLength": 1, "maxLength": 64 },
    })
}

/// A MAC address.
pub(crate) fn mac(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[0-9a-f]{2}(:[0-9a-f]{2}){5}$" })
}

/// Prefixes of an interface.
pub(crate) fn prefixes(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": { "type": "string", "minLength": 1, "maxLength": 43 },
    })
}

/// A label selector.
pub(crate) fn selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "type": "object",
                "maxProperties": 64,
                "additionalProperties": { "type": "string", "maxLength": 63 },
            },
            "matchExpressions": {
                "type": "array",
                "maxItems": 64,
                "items": requirement(),
            },
        },
    })
}

/// One requirement of a label selector.
fn requirement() -> Schema {
    with_rules(
        json_schema!({
            "type": "object",
            "required": ["key", "operator"],
            "properties": {
                "key": { "type": "string", "minLength": 1, "maxLength": 317 },
                "operator": {
                    "type": "string",
                    "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                },
                "values": {
                    "type": "array",
                    "maxItems": 128,
                    "items": { "type": "string", "maxLength": 63 },
                },
            },
        }),
        [],
    )
}

/// Label selectors, of which one must match.
pub(crate) fn selectors(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 64,
        "items": selector(generator),
    })
}
