//! Addresses that are left to strangers on the LAN.

use super::*;

const LEFT: &str =
    "a stranger on the LAN answers for it, and its pool wants it left to that machine";

/// An address of a pool that yields, with a status.
fn yielding(epoch: u64, planned: &str, version: &str, status: VipStatus) -> Input {
    let mut seen = observed(vip4(), epoch, planned, version);
    seen.vip.conflict_policy = ConflictPolicy::Yield;
    seen.status = status;
    Input::VipApplied(seen)
}

fn heard(mac: MacAddress) -> Input {
    Input::ForeignClaim {
        interface: ETH0,
        address: vip4(),
        mac,
    }
}

/// What the status says when the address was left to the stranger.
fn left(since: i64) -> VipStatus {
    let conflict = format!(
        "{STRANGER} answers for the address, and belongs to no node of the cluster: nobody announces \
         it until that machine has been silent for a minute"
    );
    VipStatus {
        segments: Vec::new(),
        yielded: vec![SEGMENT.into()],
        conditions: vec![
            condition(
                ConditionKind::Announced,
                false,
                "AddressConflict",
                LEFT,
                since,
            ),
            condition(
                ConditionKind::Conflict,
                true,
                "AddressConflict",
                &conflict,
                since,
            ),
        ],
        ..status(1, since)
    }
}

fn is_taken(effects: &[Effect]) -> bool {
    effects.contains(&held(vip4()))
}

/// node1 has left the address to the stranger, one second after it had taken it, and the status says so.
fn begun() -> Story {
    let mut story = Story::announcing(DataPlaneMode::None);
    let written = || Input::VipStatusWritten {
        address: vip4(),
        outcome: WriteOutcome::Done,
    };
    // Without a data plane the status says something else than that of the story's beginning.
    story.tell([written()]);
    story.tell([yielding(1, "node1", "9", status(1, EPOCH + 1))]);
    story.tell([written()]);
    story.now = 2_000;
    story.tell([heard(STRANGER)]);
    story.tell([written()]);
    let effects = story.tell([yielding(1, "node1", "10", left(EPOCH + 2))]);
    assert_eq!(effects, [], "asked since it was left");
    story
}

#[test]
fn where_the_pool_wants_it_the_holder_leaves_an_address_to_a_stranger_and_says_so() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    story.tell([yielding(1, "node1", "9", status(1, EPOCH + 1))]);
    story.now = 2_000;
    let effects = story.tell([heard(STRANGER)]);
    let note = format!(
        "{STRANGER} answers for 192.0.2.10 too, and belongs to no node of the cluster: find the machine \
         that uses the address, or take it out of the pool. As its pool wants, nobody announces it until \
         that machine has been silent for a minute"
    );
    assert_eq!(
        effects,
        [
            released(vip4()),
            remove_neighbour(vip4()),
            asked(),
            event(EventReason::AddressConflict, &note),
            write("9", left(EPOCH + 2)),
        ]
    );
    assert_eq!(story.ring, [told(1, 0, false)], "others are told");
    let overview = story.core.overview();
    assert_eq!(overview.strangers, [(vip4(), STRANGER)]);
    assert_eq!(overview.conflicts, 1);
    assert_eq!(overview.announced, []);
}

#[test]
fn it_is_taken_again_when_the_stranger_has_been_silent_for_a_minute() {
    let mut story = begun();
    for second in [22, 42] {
        story.now = second * 1_000;
        assert_eq!(story.decide(), [asked()]);
        story.now += 300;
        assert_eq!(story.tell([answered(Some(STRANGER))]), [], "still there");
    }
    for second in [62, 82] {
        story.now = second * 1_000;
        assert_eq!(story.decide(), [asked()]);
        story.now += 300;
        assert_eq!(story.tell([answered(None)]), [], "for how long?");
    }
    story.now = 102_000;
    assert_eq!(story.decide(), [asked()]);
    story.now += 299;
    assert_eq!(story.tell([answered(None)]), [], "a millisecond too early");
    story.now = 122_000;
    assert_eq!(story.decide(), [asked()]);
    story.now += 300;
    let effects = story.tell([answered(None)]);
    assert_eq!(effects[0], held(vip4()));
    let Some(Effect::WriteVipStatus { status: now, .. }) = effects.last() else {
        panic!("{effects:?}");
    };
    assert_eq!(now.yielded, []);
    assert_eq!(now.segments.len(), 1);
    assert!(now.conditions[0].holds && !now.conditions[1].holds);
    let overview = story.core.overview();
    assert_eq!((overview.strangers, overview.conflicts), (vec![], 1));

    let effects = story.tell([heard(STRANGER)]);
    assert_eq!(effects[0], released(vip4()), "and left again");
}

#[test]
fn nobody_else_takes_what_was_left_to_a_stranger_before_it_has_asked_for_a_minute() {
    let mut story = Story::ready(DataPlaneMode::None);
    story.now = 1_000;
    let inputs = [
        endpoints("web"),
        applied(service("web", &[vip4()])),
        yielding(1, "node2", "10", left(EPOCH)),
    ];
    assert_eq!(story.tell(inputs), [], "node2 asks");
    story.now = 100_000;
    assert_eq!(story.decide(), []);
    let moved = yielding(2, "node1", "11", left(EPOCH));
    assert_eq!(story.tell([moved]), [asked()], "now it is for us to ask");
    assert_eq!(story.tell([answered(None)]), []);
    for second in [120, 140, 160] {
        story.now = second * 1_000;
        assert_eq!(story.decide(), [asked()]);
        let effects = story.tell([answered(None)]);
        assert_eq!(is_taken(&effects), second == 160, "{effects:?}");
    }
}

#[test]
fn an_address_that_another_node_holds_is_left_to_nobody() {
    let mut story = Story::ready(DataPlaneMode::None);
    let inputs = [
        endpoints("web"),
        applied(service("web", &[vip4()])),
        yielding(1, "node2", "10", left(EPOCH)),
        claim(vip4(), 1, 0, true),
    ];
    assert_eq!(story.tell(inputs), []);
    let effects = story.tell([view(&[("node1", 1)])]);
    assert!(!is_taken(&effects), "not a candidate: {effects:?}");
    let effects = story.tell([yielding(2, "node1", "11", status(1, EPOCH))]);
    assert!(is_taken(&effects), "{effects:?}");
}

#[test]
fn it_is_taken_at_once_when_the_pool_defends_or_the_stranger_turns_out_to_be_a_node() {
    let mut story = begun();
    let mut defends = observed(vip4(), 1, "node1", "11");
    defends.status = left(EPOCH + 2);
    let effects = story.tell([Input::VipApplied(defends)]);
    assert!(is_taken(&effects), "{effects:?}");

    let mut story = begun();
    let effects = story.tell([speaker("node2", STRANGER, 12, "other", 1)]);
    assert!(is_taken(&effects), "{effects:?}");
}

#[test]
fn a_stranger_is_not_waited_for_when_the_address_is_given_back() {
    let mut story = begun();
    assert_eq!(story.tell([Input::VipDeleted(vip4())]), []);
    story.now += 60_000;
    assert_eq!(story.decide(), []);
    assert_eq!(story.core.overview().strangers, []);
}
