//! Other field managers that own the addresses in a Service's status.

use herald_controller_core::WriteResult;
use herald_controller_core::testkit::{ip, pool, svc, well};

use super::teller::Story;

fn begun() -> Story {
    let mut story = Story::default();
    story.tell(well("n1"));
    story.tell([pool("public").range("10.0.0.0/30").applied()]);
    story.lead();
    story.skip();
    story
}

fn owned() -> WriteResult {
    WriteResult::FieldsOwned {
        ingress: true,
        allocated_from: false,
        message: "conflict with \"other\"".to_owned(),
    }
}

fn reason(story: &Story) -> String {
    let allocated = story.status_of("ns/web").allocated.expect("said");
    allocated.reason.to_string()
}

#[test]
fn addresses_that_another_manager_wrote_before_stay_until_it_takes_them_out() {
    let mut story = begun();
    story.answer("status ns/web", owned());
    story.tell([svc("ns/web").shows(&["192.0.2.9"]).applied()]);
    assert_eq!(story.status_of("ns/web").ingress, ["192.0.2.9"].map(ip));
    assert_eq!(reason(&story), "StatusOwned");
    assert_eq!(story.count("event ns/web Warning AllocationFailed"), 1);
    story.other_manager("ns/web", &[]);
    assert_eq!(story.status_of("ns/web").ingress, ["10.0.0.0"].map(ip));
    assert_eq!(reason(&story), "Allocated");
}

#[test]
fn addresses_that_another_manager_wrote_over_ours_stay_and_ours_is_kept_for_the_service() {
    let mut story = begun();
    story.tell([svc("ns/web").applied()]);
    story.skip();
    story.answer("status ns/web", owned());
    story.other_manager("ns/web", &["192.0.2.9"]);
    assert_eq!(story.status_of("ns/web").ingress, ["192.0.2.9"].map(ip));
    assert_eq!(reason(&story), "StatusOwned");
    story.tell([svc("ns/next").created(1).applied()]);
    assert_eq!(story.status_of("ns/next").ingress, ["10.0.0.1"].map(ip));
    assert_eq!(story.count("delete 10.0.0.0"), 0);
    story.other_manager("ns/web", &[]);
    assert_eq!(story.status_of("ns/web").ingress, ["10.0.0.0"].map(ip));
    assert_eq!(reason(&story), "Allocated");
}
