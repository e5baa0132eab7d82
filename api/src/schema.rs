//! Schemas of single fields: bounds, and rules in the API server's expression language.
//!
//! Rules stand on the value they judge, so that the API server names it (`spec.addresses[1]`) and
//! a message only has to say what is expected there. The bounds keep the cost of the rules, which
//! the API server estimates from them, under its limits.

mod address;
mod selector;

use kube::core::{Rule, validate};
use schemars::{Schema, SchemaGenerator, json_schema};

pub(crate) use address::{address_ranges, vip_address};
pub(crate) use selector::{selector, selectors};

/// On a `VirtualIP`: the name says the address, so that one address has one lock.
pub(crate) const NAMED_AFTER_ADDRESS: &str = address::NAMED_AFTER_ADDRESS;

/// The schema with rules added: expression and message.
fn with_rules<'a>(
    mut schema: Schema,
    rules: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Schema {
    for (rule, message) in rules {
        validate(&mut schema, Rule::new(rule).message(message)).expect("a rule is plain JSON");
    }
    schema
}

/// A duration as Go writes it, whole numbers only.
pub(crate) fn duration(_: &mut SchemaGenerator) -> Schema {
    with_rules(
        json_schema!({ "type": "string", "maxLength": 32 }),
        [(
            "self.matches('^([0-9]{1,9}(ms|s|m|h))+$')",
            "expected a duration in whole numbers, such as 0s, 90s, 5m or 1h30m",
        )],
    )
}

/// Names of Namespaces.
pub(crate) fn namespaces(_: &mut SchemaGenerator) -> Schema {
    let namespace = with_rules(
        json_schema!({ "type": "string", "maxLength": 63 }),
        [(
            "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
            "expected the name of a Namespace: lower-case letters, digits and hyphens",
        )],
    );
    json_schema!({ "type": "array", "maxItems": 256, "items": namespace })
}

/// The name of one of our objects.
fn object_name() -> Schema {
    with_rules(
        json_schema!({ "type": "string", "maxLength": 253 }),
        [(
            "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')",
            "expected the name of an object: lower-case letters, digits, hyphens and dots",
        )],
    )
}

/// Names of pools or advertisements.
pub(crate) fn object_names(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": 256, "items": object_name() })
}

/// Names of segments.
pub(crate) fn segment_names(_: &mut SchemaGenerator) -> Schema {
    let name = json_schema!({ "type": "string", "minLength": 1, "maxLength": 253 });
    json_schema!({ "type": "array", "maxItems": 64, "items": name })
}

/// Interface names and globs. The kernel allows neither spaces nor slashes nor colons in a name
/// (`net/core/dev.c`, `dev_valid_name`).
pub(crate) fn interfaces(_: &mut SchemaGenerator) -> Schema {
    let interface = with_rules(
        json_schema!({ "type": "string", "maxLength": 64 }),
        [(
            r"self.matches('^[^/:\\s]+$')",
            "expected the name of an interface or a glob, such as eth0 or bond*",
        )],
    );
    json_schema!({ "type": "array", "maxItems": 64, "items": interface })
}

/// A MAC address.
pub(crate) fn mac(_: &mut SchemaGenerator) -> Schema {
    with_rules(
        json_schema!({ "type": "string", "maxLength": 17 }),
        [(
            "self.matches('^[0-9a-f]{2}(:[0-9a-f]{2}){5}$')",
            "expected a MAC address such as 02:00:00:00:00:01",
        )],
    )
}

/// The addresses of an interface with their prefix lengths.
pub(crate) fn prefixes(_: &mut SchemaGenerator) -> Schema {
    let prefix = with_rules(
        json_schema!({ "type": "string", "maxLength": 43 }),
        [(
            "isCIDR(self)",
            "expected an address with its prefix length, such as 192.0.2.1/24",
        )],
    );
    json_schema!({ "type": "array", "maxItems": 64, "items": prefix })
}

/// The routers that an interface leads to.
pub(crate) fn gateways(_: &mut SchemaGenerator) -> Schema {
    let address = with_rules(
        json_schema!({ "type": "string", "maxLength": 39 }),
        [("isIP(self)", "expected an IP address, such as 192.0.2.1")],
    );
    json_schema!({ "type": "array", "maxItems": 64, "items": address })
}

/// A number that only rises.
pub(crate) fn epoch(_: &mut SchemaGenerator) -> Schema {
    with_rules(
        json_schema!({ "type": "integer", "format": "int64", "minimum": 0 }),
        [("self >= oldSelf", "expected no lower number than before")],
    )
}

#[cfg(test)]
mod tests;
