use serde_json::json;

use super::*;
use crate::testkit::{picture, service, serving};

#[test]
fn everything_is_shown_at_a_glance() {
    let mut all = serving();
    all.push(service(
        "late",
        &json!({"heraldlb.io/pool": "nowhere"}),
        &[],
    ));
    let status = status(&picture(&all));
    assert_eq!(
        status.text(Style::default()),
        "\
ADDRESSES
  ADDRESS     SERVICE   POOL    NODE   INTERFACE  FORWARDING  TARGETS  SINCE  STATE
  192.0.2.10  shop/web  public  node2  eth0       dsr         3        60m    Serving

PENDING
  SERVICE    REASON       MESSAGE
  shop/late  UnknownPool  pool nowhere does not exist

NODES
  NODE   SPEAKER  SEGMENTS      DATA PLANE  HOLDS  PLANNED  STATE
  node1  0.1.0    192.0.2.0/24  tcx         0      0        Ready
  node2  0.1.0    192.0.2.0/24  tcx         1      1        Ready
  node3  0.1.0    192.0.2.0/24  tcx         0      0        Ready

POOLS
  POOL    IPV4  IPV6  STATE
  public  1/2   -     Ready

✗ 1 problem: kubectl herald explain service|pool|node NAME says why
"
    );
    assert!(!status.is_well());
}

#[test]
fn what_is_only_older_is_no_change() {
    let one = status(&picture(&serving()));
    let mut other = one.clone();
    other.addresses[0].announcers[0].seconds += 5;
    assert_ne!(one, other);
    assert_eq!(one.without_times(), other.without_times());
    assert!(one.is_well());
}
