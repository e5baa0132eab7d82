//! New addresses, and strangers that use them.

use std::time::Duration;

use herald_controller_core::testkit::{pool, svc, well};
use herald_model::ConflictPolicy;

use super::teller::Story;

const STRANGER: &str =
    "02:00:00:00:00:ee answers for the address, and belongs to no node of the cluster";

/// One node, one pool of four whose addresses are asked for, nothing else.
fn begun() -> Story {
    let mut story = Story::default();
    story.tell(well("n1"));
    let public = pool("public").range("10.0.0.0/30");
    story.tell([public.with(|pool| pool.conflict_probe = true).applied()]);
    story.lead();
    story.skip();
    story
}

#[test]
fn a_new_address_is_shown_when_nobody_on_the_lan_answers_for_it() {
    let mut story = begun();
    story.tell([svc("ns/web").port(80).applied()]);
    story.expect_now(&["create 10.0.0.0 public e1 Probing All [ns/web] lan:n1"]);
    story.answer_of_the_lan("10.0.0.0", None);
    story.expect(&[
        "replace 10.0.0.0@2 public e1 Active All [ns/web] lan:n1",
        "status ns/web@1 [10.0.0.0] Allocated=True/Allocated(10.0.0.0 from pool public) from=public",
        "event ns/web Normal AddressAllocated: assigned 10.0.0.0 from pool public",
        "pool public v4=4/1/3 Ready=True/Ready(in use)",
    ]);
}

#[test]
fn a_second_without_an_answer_is_enough() {
    let mut story = begun();
    story.tell([svc("ns/web").applied()]);
    story.pass(Duration::from_millis(999));
    assert_eq!(story.count("replace"), 0);
    story.pass(Duration::from_millis(1));
    assert_eq!(
        story.count("replace 10.0.0.0@1 public e1 Active All [ns/web] lan:n1"),
        1
    );
}

#[test]
fn an_address_that_a_stranger_uses_is_put_aside_and_the_next_one_taken() {
    let mut story = begun();
    story.tell([svc("ns/web").applied()]);
    story.answer_of_the_lan("10.0.0.0", Some(STRANGER));
    story.answer_of_the_lan("10.0.0.1", None);
    let writes = story.writes();
    let told = format!("10.0.0.0 is in use on the LAN: {STRANGER}");
    for expected in [
        "replace 10.0.0.0@2 public e2 Resting(1121) None []",
        "create 10.0.0.1 public e1 Probing All [ns/web] lan:n1",
        "status ns/web@1 [10.0.0.1] Allocated=True/Allocated(10.0.0.1 from pool public) from=public",
        &format!("event ns/web Warning AddressConflict: {told}; the Service gets another address"),
        &format!(
            "event public Warning AddressConflict: {told}; take it out of the pool, or find the machine that uses it"
        ),
        &format!("pool public v4=4/1/2 Ready=False/AddressConflict({told})"),
    ] {
        assert!(
            writes.iter().any(|line| line == expected),
            "{expected} is not in {writes:#?}"
        );
    }
    story.pass(Duration::from_mins(2));
    let writes = story.writes_now();
    assert_eq!(
        writes,
        [
            "delete 10.0.0.0",
            "pool public v4=4/1/3 Ready=True/Ready(in use)"
        ],
        "it may be given again"
    );
}

#[test]
fn an_address_asked_for_by_name_is_waited_for_and_each_thing_is_said_once() {
    let mut story = begun();
    story.tell([svc("ns/web").requests(&["10.0.0.2"]).applied()]);
    story.answer_of_the_lan("10.0.0.2", Some(STRANGER));
    let writes = story.writes();
    let reason = format!(
        "address 10.0.0.2 is in use on the LAN: {STRANGER}; stop that, or ask for another address: it is asked for again every two minutes"
    );
    let status = format!("status ns/web@1 [] Allocated=False/AddressConflict({reason})");
    assert!(writes.contains(&status), "{writes:#?}");
    let event = format!("event ns/web Warning AddressConflict: {reason}");
    assert!(writes.contains(&event), "{writes:#?}");

    for _ in 0..3 {
        story.pass(Duration::from_secs(118));
        assert_eq!(story.count("create"), 0);
        story.pass(Duration::from_secs(1));
        story.answer_of_the_lan("10.0.0.2", Some(STRANGER));
        let writes = story.writes();
        assert_eq!(
            writes
                .iter()
                .filter(|line| line.starts_with("create 10.0.0.2"))
                .count(),
            1,
            "{writes:#?}"
        );
        let said = |line: &&String| line.starts_with("event") || line.starts_with("status");
        assert_eq!(writes.iter().find(said), None, "{writes:#?}");
        assert_eq!(writes.iter().find(|line| line.contains("Ready=True")), None);
    }
    story.pass(Duration::from_mins(2));
    story.answer_of_the_lan("10.0.0.2", None);
    let writes = story.writes();
    let given = |line: &String| line.contains("[10.0.0.2] Allocated=True");
    assert!(writes.iter().any(given), "{writes:#?}");
}

#[test]
fn nobody_asks_where_the_pool_says_so_nobody_can_or_the_address_is_in_use() {
    let mut story = begun();
    story.tell([svc("ns/old").shows(&["10.0.0.3"]).applied()]);
    assert_eq!(story.count("create 10.0.0.3 public e1 Active"), 1);

    let mut story = Story::default();
    let public = pool("public").range("10.0.0.0/30");
    let public = public.with(|pool| pool.conflict_probe = true);
    story.tell([public.clone().applied(), svc("ns/web").applied()]);
    story.lead();
    assert_eq!(
        story.count("create 10.0.0.0 public e1 Active"),
        1,
        "no node"
    );

    let mut story = begun();
    story.tell([svc("ns/web").applied()]);
    let off = public.with(|pool| pool.conflict_probe = false);
    story.tell([off.applied()]);
    assert_eq!(story.count("replace 10.0.0.0@1 public e1 Active"), 1);
}

#[test]
fn a_service_that_is_not_ours_any_more_leaves_an_address_to_a_stranger_once() {
    let mut story = begun();
    story.tell([svc("ns/web").applied()]);
    story.expect_now(&["create 10.0.0.0 public e1 Probing All [ns/web] lan:n1"]);
    let inputs = [
        story.answered("10.0.0.0", Some(STRANGER)),
        story.foreign("ns/web"),
    ];
    story.tell(inputs);
    assert_eq!(
        story.writes_now()[0],
        "replace 10.0.0.0@2 public e2 Resting(1121) None []"
    );
}

#[test]
fn a_service_whose_address_is_left_to_a_stranger_keeps_it_and_says_why_nobody_announces_it() {
    let mut story = Story::default();
    story.tell(well("n1"));
    let public = pool("public").range("10.0.0.0/30");
    story.tell([public.clone().applied()]);
    story.lead();
    story.skip();
    story.tell([svc("ns/web").applied()]);
    story.announce("10.0.0.0", "n1");
    story.skip();

    let yields = public.with(|pool| pool.conflict_policy = ConflictPolicy::Yield);
    story.tell([yields.applied()]);
    assert_eq!(
        story.count("replace 10.0.0.0@2 public e1 Active All yields [ns/web] lan:n1"),
        1,
        "{:#?}",
        story.writes()
    );
    story.answer_of_the_lan("10.0.0.0", Some(STRANGER));
    story.announce_none("10.0.0.0");
    story.pass(Duration::from_secs(3));
    let writes = story.writes();
    let said =
        format!("Announced=False/AddressConflict(10.0.0.0 is in use on the LAN: {STRANGER})");
    let says = |line: &&String| line.contains(&said) && line.contains("[10.0.0.0]");
    assert_eq!(writes.iter().filter(says).count(), 1, "{writes:#?}");

    story.answer_of_the_lan("10.0.0.0", None);
    story.announce("10.0.0.0", "n1");
    story.pass(Duration::from_secs(3));
    let writes = story.writes();
    let says = |line: &&String| line.contains("Announced=True");
    assert_eq!(writes.iter().filter(says).count(), 1, "{writes:#?}");
}
