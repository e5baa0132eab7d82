use super::*;

fn handed_over(passed_over: u8) -> RingCommand {
    RingCommand::HoldChanged {
        vip: vip4(),
        epoch: Epoch(1),
        rank: 0,
        tenure: Tenure::HandingOver { passed_over },
    }
}

fn holds(story: &Story) -> bool {
    story.core.vips[&vip4()].holds.contains_key(SEGMENT)
}

#[test]
fn stopping_speaker_answers_until_others_have_taken_over() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    assert_eq!(story.tell([Input::Stopping]), []);
    assert!(!story.core.overview().waiting_for.is_empty(), "not ready");
    let mut moved = observed(vip4(), 2, "node2", "9");
    moved.status = status(1, EPOCH + 1);
    assert_eq!(story.tell([Input::VipApplied(moved)]), []);
    assert_eq!(
        story.tell([claim(vip4(), 2, 0, true)]),
        [released(vip4()), leave_neighbour(vip4())]
    );
    assert_eq!(story.applied(), [Effect::Exit { retires: false }]);
}

#[test]
fn stopping_speaker_does_not_wait_for_ever_and_forwarding_goes_on() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    let mut shared = observed(vip4(), 1, "node1", "8");
    shared.vip.segments[0]
        .candidates
        .push(candidate("node2", 1));
    shared.status = status(1, EPOCH + 1);
    story.tell([Input::VipApplied(shared)]);
    let before = story.desired.clone();
    assert_eq!(story.tell([Input::Stopping]), []);
    story.now += 5_000;
    assert_eq!(story.decide(), []);
    assert_eq!(story.ring, [handed_over(1), RingCommand::StepDown]);
    assert_eq!(story.desired, before);
    let effects = story.tell([view(&[("node1", 2), ("node2", 1)])]);
    assert_eq!(effects[..2], [released(vip4()), remove_neighbour(vip4())]);
    let peer = Holder::Peer {
        address: "192.0.2.12".parse().unwrap(),
    };
    let desired = story.desired_vip(vip4()).unwrap();
    assert_eq!(desired.holders, BTreeMap::from([(ETH0, peer)]), "relayed");
    story.now += 300;
    assert_eq!(story.decide(), [Effect::Exit { retires: false }]);
}

#[test]
fn stopping_speaker_hands_over_to_one_after_another_without_the_controller() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    story.tell([Input::Stopping]);
    assert_eq!(story.ring, [handed_over(0)]);
    story.now += 499;
    story.decide();
    assert_eq!(story.ring, []);
    story.now += 1;
    story.decide();
    assert_eq!(story.ring, [handed_over(1)]);
    let effects = story.tell([claim(vip4(), 1, 2, true)]);
    assert_eq!(effects[..2], [released(vip4()), leave_neighbour(vip4())]);
    assert_eq!(story.ring, [], "who succeeds us has told everybody");
}

#[test]
fn process_ends_when_the_kernel_knows_who_holds_what_it_held() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    let mut planned = observed(vip4(), 1, "node1", "8");
    let candidates = &mut planned.vip.segments[0].candidates;
    candidates.push(candidate("node2", 1));
    planned.status = status(1, EPOCH + 1);
    story.tell([Input::VipApplied(planned), Input::Stopping]);
    let effects = story.tell([claim(vip4(), 1, 1, true)]);
    assert!(!effects.contains(&Effect::Exit { retires: false }));
    let peer = Holder::Peer {
        address: "192.0.2.12".parse().unwrap(),
    };
    let desired = story.desired_vip(vip4()).unwrap();
    assert_eq!(desired.holders, BTreeMap::from([(ETH0, peer)]), "relayed");
    assert_eq!(story.applied(), [Effect::Exit { retires: false }]);
}

#[test]
fn next_candidate_takes_an_address_that_is_handed_over_at_once_and_those_behind_it_do_not() {
    let mut story = second();
    let hands_over = |passed_over| claimed(vip4(), 1, 0, Tenure::HandingOver { passed_over });
    story.tell([hands_over(0)]);
    assert!(holds(&story), "node1 is the next");
    let before = Holder::MeAfter {
        address: "192.0.2.12".parse().unwrap(),
    };
    let desired = story.desired_vip(vip4()).unwrap();
    assert_eq!(desired.holders, BTreeMap::from([(ETH0, before)]));
    story.applied();
    assert_eq!(story.ring, [told(1, 1, true)]);

    let mut story = second();
    story.tell([hands_over(1)]);
    assert!(!holds(&story), "node1 had its time");
    story.tell([hands_over(2)]);
    assert!(holds(&story), "so had node3");
}

/// Our own object, with what its annotation says.
fn asked(crash: Option<&str>) -> Input {
    let Input::SpeakerApplied(mut own) = speaker("node1", MAC1, 11, "boot", 1) else {
        panic!("not a speaker")
    };
    own.crash = crash.map(Into::into);
    Input::SpeakerApplied(own)
}

#[test]
fn each_new_value_of_an_annotation_makes_the_process_crash_and_hand_nothing_over() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    assert_eq!(story.tell([asked(None)]), []);
    assert_eq!(story.tell([asked(Some("1"))]), [Effect::Crash]);
    assert_eq!(story.ring, []);
}

#[test]
fn what_made_the_process_before_crash_is_not_meant_for_this_one() {
    // The snapshot may be older than the crash.
    for snapshot in [None, Some("0"), Some("1")] {
        let mut story = Story::announcing(DataPlaneMode::Tcx);
        story.tell([Input::Restored(Cache::Speakers), asked(snapshot)]);
        story.tell([asked(Some("1")), Input::Renewed(Cache::Speakers)]);
        for value in [Some("1"), None, Some("1")] {
            assert!(!story.tell([asked(value)]).contains(&Effect::Crash));
        }
        assert_eq!(story.tell([asked(Some("2"))]), [Effect::Crash]);
    }
}
