//! One node asks the LAN for an address that another has taken over.

use super::*;
use crate::status::reasons;

/// node1 held the address, and node2 has taken it under a newer plan.
fn handed_over() -> Story {
    let mut story = Story::announcing(DataPlaneMode::None);
    let mut moved = observed(vip4(), 2, "node2", "9");
    moved.status = status(1, EPOCH + 1);
    let effects = story.tell([Input::VipApplied(moved), claim(vip4(), 2, 0, true)]);
    assert!(effects.contains(&released(vip4())), "{effects:?}");
    story.now += 1_199;
    assert_eq!(story.decide(), [], "it has its time");
    story
}

fn verified(right: u64, wrong: u64, silent: u64) -> Verified {
    Verified {
        right,
        wrong,
        silent,
    }
}

#[test]
fn whoever_does_not_hold_an_address_that_moved_asks_for_it_once_and_is_content_with_its_holder() {
    let mut story = handed_over();
    story.now += 1;
    assert_eq!(story.decide(), [asked()]);
    assert_eq!(story.tell([answered(Some(MAC2))]), []);
    assert_eq!(story.core.overview().verified, verified(1, 0, 0));
    assert_eq!(
        story.tell([answered(None)]),
        [],
        "a question of somebody else"
    );
    assert_eq!(story.tell([claim(vip4(), 2, 0, true)]), [], "said again");
    story.now += 60_000;
    assert_eq!(story.decide(), []);
    assert_eq!(story.core.overview().verified, verified(1, 0, 0));
}

#[test]
fn people_are_told_if_another_machine_answers_or_nobody() {
    for (user, found, tally) in [
        (
            Some(STRANGER),
            format!("{STRANGER} answered instead of {MAC2}"),
            verified(0, 1, 0),
        ),
        (
            None,
            "nobody answered in three times".to_owned(),
            verified(0, 0, 1),
        ),
    ] {
        let mut story = handed_over();
        story.now += 1;
        story.decide();
        let note =
            format!("node2 took 192.0.2.10 over, but when node1 asked the LAN for it, {found}");
        let effects = story.tell([answered(user)]);
        assert_eq!(effects, [event(EventReason::Unverified, &note)]);
        assert_eq!(story.core.overview().verified, tally);
    }
}

fn status_is_written() -> Input {
    Input::VipStatusWritten {
        address: vip4(),
        outcome: WriteOutcome::Done,
    }
}

/// What the LAN answered about node2, which says now that it holds the address.
fn found(user: Option<MacAddress>) -> (Story, ObservedVip, Condition) {
    let mut story = handed_over();
    story.now += 1;
    story.decide();
    story.tell([answered(user), status_is_written()]);
    let mut said = observed(vip4(), 2, "node2", "10");
    said.status = status(2, EPOCH + 1);
    said.status.segments = vec![entry("node2", MAC2, 2, EPOCH + 1)];
    let effects = story.tell([Input::VipApplied(said.clone())]);
    let [Effect::WriteVipStatus { status, .. }] = &*effects else {
        panic!("{effects:?}");
    };
    let verified = status.conditions.last().unwrap().clone();
    assert_eq!(verified.kind, ConditionKind::Verified);
    said.status.conditions.push(verified.clone());
    assert_eq!(*status, said.status, "nothing else is changed");
    said.resource_version = "11".into();
    let effects = story.tell([status_is_written(), Input::VipApplied(said.clone())]);
    assert_eq!(effects, [], "said once");
    (story, said, verified)
}

#[test]
fn what_was_found_is_in_the_status_once_the_holder_has_said_that_it_holds_it() {
    let (_, _, right) = found(Some(MAC2));
    assert!(right.holds);
    assert_eq!(&*right.reason, reasons::HOLDER_ANSWERS);
    let expected =
        format!("node2 took 192.0.2.10 over, and when node1 asked the LAN for it, {MAC2} answered");
    assert_eq!(right.message, expected);
    for (user, reason) in [
        (Some(STRANGER), reasons::ANOTHER_ANSWERS),
        (None, reasons::NOBODY_ANSWERS),
    ] {
        let (_, _, wrong) = found(user);
        assert_eq!((wrong.holds, &*wrong.reason), (false, reason));
    }
}

#[test]
fn a_finding_that_another_node_has_replaced_is_not_said_again() {
    let (mut story, mut said, verified) = found(Some(MAC2));
    let theirs = Condition {
        message: "node3 asked".to_owned(),
        ..verified
    };
    said.status.conditions = vec![theirs];
    said.resource_version = "12".into();
    assert_eq!(story.tell([Input::VipApplied(said)]), []);
    story.now += 60_000;
    assert_eq!(story.decide(), []);
}

#[test]
fn a_holder_that_does_not_answer_is_asked_for_again_until_it_does() {
    let (mut story, _, _) = found(None);
    story.now += 59_000;
    assert_eq!(story.decide(), []);
    story.now += 1_000;
    assert_eq!(story.decide(), [asked()]);
    assert_eq!(story.tell([answered(None)]), [], "people know");
    story.now += 60_000;
    assert_eq!(story.decide(), [asked()]);
    let effects = story.tell([answered(Some(MAC2))]);
    let [Effect::WriteVipStatus { status, .. }] = &*effects else {
        panic!("{effects:?}");
    };
    let verified = status.conditions.last().unwrap();
    assert!(verified.holds, "{verified:?}");
    story.now += 60_000;
    assert!(!story.decide().contains(&asked()));
}

#[test]
fn a_finding_stays_in_the_status_while_its_holder_does() {
    let verified = Condition {
        kind: ConditionKind::Verified,
        holds: true,
        reason: reasons::HOLDER_ANSWERS.into(),
        message: "node3 asked".to_owned(),
        since: EPOCH,
    };
    let says = |story: &mut Story, input| {
        let effects = story.tell([status_is_written(), input]);
        let written = effects.iter().find_map(|effect| match effect {
            Effect::WriteVipStatus { status, .. } => Some(status.conditions.contains(&verified)),
            _another => None,
        });
        written.expect("a status is written")
    };
    // The node that it is about writes something else.
    let mut story = Story::announcing(DataPlaneMode::None);
    let mut seen = observed(vip4(), 1, "node1", "9");
    seen.status = status(1, EPOCH);
    seen.status.targets = Some(77);
    seen.status.conditions.push(verified.clone());
    assert!(says(&mut story, Input::VipApplied(seen)));
    // Another takes the address over.
    let mut story = second();
    let mut seen = observed(vip4(), 1, "node2", "9");
    seen.vip.segments[0]
        .candidates
        .extend([candidate("node1", 1), candidate("node3", 1)]);
    seen.status = status(1, EPOCH);
    seen.status.segments = vec![entry("node2", MAC2, 1, EPOCH)];
    seen.status.conditions.push(verified.clone());
    story.tell([Input::VipApplied(seen)]);
    let death = death_of_node2(&story);
    story.tell(death);
    let generation = story.desired.as_ref().unwrap().0;
    let applied = Input::DataPlaneApplied {
        generation,
        outcome: Ok(Arc::default()),
    };
    assert!(!says(&mut story, applied));
}

#[test]
fn of_those_who_do_not_hold_it_one_asks() {
    let mut askers = 0;
    for (me, other) in [("node1", "node3"), ("node3", "node1")] {
        let config = Config {
            boot_id: "boot".into(),
            wall_origin: EPOCH,
            ..Config::new(me.into())
        };
        let mut story = Story {
            core: Core::new(config),
            ..Story::new()
        };
        story.tell([
            link(true),
            address("192.0.2.11/24"),
            speaker(me, MAC1, 11, "boot", 1),
            speaker("node2", MAC2, 12, "other", 1),
            speaker(other, STRANGER, 13, "other", 1),
            data_plane(DataPlaneMode::None),
        ]);
        story.tell(Cache::ALL.map(Input::Synced));
        story.tell([Input::PortOpened(ETH0)]);
        let live = ["node1", "node2", "node3"].map(|node| (node.into(), Incarnation(1)));
        story.tell([said(RingEvent::View(View {
            incarnation: Incarnation(1),
            quorum: true,
            live: live.into(),
            dead: BTreeMap::new(),
        }))]);
        let by = |node: &str, epoch| {
            said(RingEvent::Hold(herald_ring::Hold {
                vip: vip4(),
                epoch: Epoch(epoch),
                rank: 0,
                node: node.into(),
                incarnation: Incarnation(1),
                tenure: Tenure::Held,
            }))
        };
        story.tell([by(other, 1), by("node2", 2)]);
        story.now += 1_200;
        askers += story.decide().iter().filter(|it| **it == asked()).count();
    }
    assert_eq!(askers, 1);
}

#[test]
fn what_is_new_or_moves_on_is_not_asked_for() {
    let mut story = Story::ready(DataPlaneMode::None);
    story.tell([vip(vip4(), 1, "node2"), claim(vip4(), 1, 0, true)]);
    story.now += 1_200;
    assert_eq!(story.decide(), [], "nobody held it before");

    let mut story = handed_over();
    story.tell([view(&[("node1", 1)])]);
    story.now += 1;
    assert_eq!(story.decide(), [], "its holder is dead");
}
