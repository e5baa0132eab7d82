use super::*;

/// node1 is planned to hold the address, and its ring has said nothing yet.
fn before_the_first_view() -> Story {
    let mut story = Story::new();
    story.tell([
        link(true),
        address("192.0.2.11/24"),
        node("node1", 11),
        node("node2", 12),
        speaker("node1", MAC1, 11, "boot", 1),
        speaker("node2", MAC2, 12, "other", 1),
        data_plane(DataPlaneMode::Tcx),
        endpoints("web"),
        applied(service("web", &[vip4()])),
        vip(vip4(), 1, "node1"),
    ]);
    story.tell(Cache::ALL.map(Input::Synced));
    story.tell([
        Input::PortOpened(ETH0),
        Input::RingKeysKnown(vec![KeyId(1)]),
    ]);
    story.now = 1_000;
    story
}

fn holds(story: &Story) -> bool {
    story.core.vips[&vip4()].holds.contains_key(SEGMENT)
}

#[test]
fn nothing_is_taken_before_those_reached_had_time_to_say_what_they_hold() {
    let mut story = before_the_first_view();
    story.tell([view(&[("node1", 1), ("node2", 1)])]);
    assert!(!holds(&story));
    story.now += 299;
    story.decide();
    assert!(!holds(&story));
    assert_eq!(story.core.next_deadline(), Some(at(1_300)));
    story.now += 1;
    story.decide();
    assert!(holds(&story));
}

#[test]
fn what_one_of_them_turns_out_to_hold_meanwhile_is_left_to_it() {
    let mut story = before_the_first_view();
    story.tell([view(&[("node1", 1), ("node2", 1)])]);
    story.now += 200;
    story.tell([claim(vip4(), 1, 0, true)]);
    story.now += 200;
    story.decide();
    assert!(!holds(&story), "it holds the address under the same plan");
}

#[test]
fn others_are_told_that_an_address_is_let_go_when_it_is_not_wanted_any_more() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    story.tell([Input::ServiceDeleted(ServiceKey::new("ns", "web"))]);
    assert_eq!(story.ring, [told(1, 0, false)]);
    // Not when a life ends with it: that says as much of all it held.
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    story.tell([link(false)]);
    assert!(
        !story.ring.contains(&told(1, 0, false)) && story.ring.contains(&RingCommand::StepDown),
        "{:?}",
        story.ring
    );
}
