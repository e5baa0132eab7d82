//! Addresses and ranges of them.

use std::sync::LazyLock;

use schemars::{Schema, SchemaGenerator, json_schema};

use super::with_rules;

/// The first end of a range.
const FIRST: &str = "self.substring(0, self.indexOf('-')).trim()";
/// The last end of a range.
const LAST: &str = "self.substring(self.indexOf('-') + 1).trim()";

static WELL_FORMED: LazyLock<String> =
    LazyLock::new(|| format!("self.contains('-') ? isIP({FIRST}) && isIP({LAST}) : isCIDR(self)"));

/// Whether it is a range with two ends; the rules on ranges look no further where it is not.
static IS_RANGE: LazyLock<String> =
    LazyLock::new(|| format!("self.contains('-') && isIP({FIRST}) && isIP({LAST})"));

static ONE_FAMILY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "!({}) || ip({FIRST}).family() == ip({LAST}).family()",
        *IS_RANGE
    )
});

static IPV4_IN_ORDER: LazyLock<String> = LazyLock::new(|| in_order(4, 32));
static IPV6_IN_ORDER: LazyLock<String> = LazyLock::new(|| in_order(6, 128));

/// A prefix length from 0 to 128 as text. `string(n)` is no good here: its length has no known
/// bound, and what is made of it no known cost.
fn decimal(n: &str) -> String {
    let digit = |d: String| format!("'0123456789'.substring({d}, {d} + 1)");
    format!(
        "({n} < 10 ? '' : {n} < 100 ? {tens} : '1' + {tens_over_100}) + {ones}",
        tens = digit(format!("{n} / 10")),
        tens_over_100 = digit(format!("({n} - 100) / 10")),
        ones = digit(format!("{n} % 10")),
    )
}

/// The ends of a range of this family, whose addresses have this many bits, are in order.
///
/// The language cannot compare addresses, but it can ask for networks. The first end is above the
/// last one if, for some n, both have the same first n bits, after which the first has a 1 and the
/// last a 0: the last one's network of n + 1 bits then begins where the first one's network of n
/// bits begins, and does not contain the first.
fn in_order(family: u8, bits: u8) -> String {
    let lengths: Vec<String> = (0..bits).map(|n| n.to_string()).collect();
    format!(
        "!({is_range} && ip({FIRST}).family() == {family} && ip({LAST}).family() == {family}) || \
         [ip({FIRST})].all(first, [{lengths}].all(n, \
         [cidr({FIRST} + '/' + {n}).masked().ip()].all(start, \
         [cidr({LAST} + '/' + {n_plus_1})].all(half, \
         half.masked().ip() != start || half.containsIP(first)))))",
        is_range = *IS_RANGE,
        lengths = lengths.join(", "),
        n = decimal("n"),
        n_plus_1 = decimal("(n + 1)"),
    )
}

/// `IPPool.spec.addresses`. An entry's longest form is two IPv6 addresses written out.
pub(crate) fn address_ranges(_: &mut SchemaGenerator) -> Schema {
    const ORDER: &str = "expected the first address of the range not to be above the last";
    let entry = with_rules(
        json_schema!({ "type": "string", "maxLength": 81 }),
        [
            (
                WELL_FORMED.as_str(),
                "expected a CIDR such as 192.0.2.0/24 or a range such as 192.0.2.10-192.0.2.20",
            ),
            (
                "!isCIDR(self) || cidr(self) == cidr(self).masked()",
                "expected no host bits in a CIDR, such as 192.0.2.0/24 and not 192.0.2.1/24",
            ),
            (
                ONE_FAMILY.as_str(),
                "expected both ends of the range to be IPv4 or both to be IPv6",
            ),
            (IPV4_IN_ORDER.as_str(), ORDER),
            (IPV6_IN_ORDER.as_str(), ORDER),
        ],
    );
    with_rules(
        json_schema!({ "type": "array", "minItems": 1, "maxItems": 128, "items": entry }),
        [(
            "self.all(a, self.exists_one(b, a == b))",
            "expected each CIDR or range once",
        )],
    )
}

/// `VirtualIP.spec.address`.
pub(crate) fn vip_address(_: &mut SchemaGenerator) -> Schema {
    with_rules(
        json_schema!({ "type": "string", "maxLength": 39 }),
        [
            (
                "isIP(self) && ip.isCanonical(self)",
                "expected an IP address in its shortest form, such as 192.0.2.10 or 2001:db8::a",
            ),
            (
                "self == oldSelf",
                "expected the address never to change: delete the object instead",
            ),
        ],
    )
}

/// On a `VirtualIP`: `192-0-2-10`, or eight groups of four digits. No other spelling of an IPv6
/// address has 39 characters and no dot.
pub(super) const NAMED_AFTER_ADDRESS: &str = "!isIP(self.spec.address) || \
     (ip(self.spec.address).family() == 4 \
     ? self.metadata.name == self.spec.address.replace('.', '-') \
     : self.metadata.name.size() == 39 && !self.metadata.name.contains('.') \
     && isIP(self.metadata.name.replace('-', ':')) \
     && ip(self.metadata.name.replace('-', ':')) == ip(self.spec.address))";
