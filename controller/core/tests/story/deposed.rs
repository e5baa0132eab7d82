//! What leaders that lead no more may still write.

use std::time::Duration;

use herald_controller_core::Input;
use herald_controller_core::testkit::{ip, pool, svc, well};

use super::teller::Story;

/// One node, a pool of two, and a Service that shows the first address. The leader before was about
/// to show the second one.
fn interrupted() -> Story {
    let mut story = Story::default();
    story.tell(well("n1"));
    story.tell([pool("p").range("10.0.0.0/31").applied()]);
    story.lead();
    story.tell([svc("ns/one").applied()]);
    story.skip();
    story.tell([Input::LeadershipLost]);
    story.have_claim("10.0.0.1", "p", &["ns/one"]);
    story.pass(Duration::from_secs(10));
    story
}

#[test]
fn address_whose_late_showing_may_arrive_is_not_given_to_another() {
    let mut story = interrupted();
    let claim = story.told_claim("10.0.0.1");
    story.tell([claim, svc("ns/two").created(1).applied()]);
    story.tell([Input::LEADS_FOR_GOOD]);
    assert_eq!(story.status_of("ns/two").ingress, ["10.0.0.1"].map(ip));
    assert!(!story.late_status("ns/one", "2", &["10.0.0.1"]));
    assert_eq!(story.status_of("ns/one").ingress, ["10.0.0.0"].map(ip));
}

#[test]
fn the_same_when_nobody_has_told_of_the_claim_yet() {
    let mut story = interrupted();
    story.tell([svc("ns/two").created(1).applied()]);
    story.tell([Input::LEADS_FOR_GOOD]);
    story.pass(Duration::from_secs(10));
    assert_eq!(story.status_of("ns/two").ingress, ["10.0.0.1"].map(ip));
    assert!(!story.late_status("ns/one", "2", &["10.0.0.1"]));
    assert_eq!(story.status_of("ns/one").ingress, ["10.0.0.0"].map(ip));
}

#[test]
fn the_same_when_the_service_is_not_ours_and_nothing_of_ours_stays_on_it() {
    let mut story = interrupted();
    let claim = story.told_claim("10.0.0.1");
    story.tell([svc("ns/one").version(7).foreign(), claim]);
    story.tell([svc("ns/two").requests(&["10.0.0.1"]).created(1).applied()]);
    story.tell([Input::LEADS_FOR_GOOD]);
    assert_eq!(story.status_of("ns/two").ingress, ["10.0.0.1"].map(ip));
    assert!(!story.late_status("ns/one", "7", &["10.0.0.1"]));
    let status = story.status_of("ns/one");
    assert!(status.ingress.is_empty());
    assert_eq!((status.allocated, status.allocated_from), (None, None));
    story.skip();
    story.pass(Duration::from_mins(1));
    story.expect(&[]);
}

#[test]
fn nothing_is_written_where_no_late_write_is_to_be_feared() {
    let mut story = interrupted();
    story.take_claim("10.0.0.1");
    story.tell([Input::LEADS_FOR_GOOD]);
    story.expect(&[]);
}
