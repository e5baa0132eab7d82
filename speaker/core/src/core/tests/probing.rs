use super::*;

/// A claim on an address that is not used yet.
fn new(epoch: u64, planned: &str, version: &str) -> ObservedVip {
    let mut new = observed(vip4(), epoch, planned, version);
    new.vip.phase = Phase::Probing;
    new
}

fn probe() -> Effect {
    Effect::Layer2(herald_l2::Input::Probe {
        interface: ETH0,
        address: vip4(),
    })
}

fn answer(user: Option<MacAddress>) -> Input {
    Input::Probed {
        interface: ETH0,
        address: vip4(),
        user,
    }
}

fn said_of_it(user: Option<&str>, since: i64) -> VipStatus {
    let conflict = match user {
        None => condition(
            ConditionKind::Conflict,
            false,
            "NoConflict",
            "nobody else answers for the address",
            since,
        ),
        Some(mac) => condition(
            ConditionKind::Conflict,
            true,
            "AddressConflict",
            &format!("{mac} answers for the address, and belongs to no node of the cluster"),
            since,
        ),
    };
    VipStatus {
        probed: vec![SEGMENT.into()],
        conditions: vec![conflict],
        ..VipStatus::default()
    }
}

#[test]
fn a_new_address_is_asked_for_by_the_planned_node_and_announced_when_it_is_active() {
    let mut story = Story::ready(DataPlaneMode::None);
    let inputs = [
        applied(service("web", &[])),
        Input::VipApplied(new(3, "node1", "7")),
    ];
    assert_eq!(story.tell(inputs), [probe()]);
    assert_eq!(story.tell([endpoints("web")]), [], "asked once");
    let status = said_of_it(None, EPOCH);
    assert_eq!(story.tell([answer(None)]), [write("7", status.clone())]);
    let mut active = observed(vip4(), 3, "node1", "9");
    active.status = status;
    assert_eq!(
        story.tell([Input::VipApplied(active)]),
        [],
        "no Service shows it yet"
    );
    let effects = story.tell([applied(service("web", &[vip4()]))]);
    assert_eq!(effects[0], held(vip4()));
}

#[test]
fn who_uses_a_new_address_is_named_and_a_node_of_ours_is_no_stranger() {
    let told = |user| {
        let mut story = Story::ready(DataPlaneMode::None);
        story.tell([Input::VipApplied(new(3, "node1", "7"))]);
        (story.tell([answer(Some(user))]), EPOCH)
    };
    let (effects, wall) = told(STRANGER);
    let status = said_of_it(Some(&STRANGER.to_string()), wall);
    assert_eq!(effects, [write("7", status)]);
    let (effects, wall) = told(MAC2);
    assert_eq!(effects, [write("7", said_of_it(None, wall))]);
}

#[test]
fn only_the_planned_node_asks_and_it_asks_anew_under_another_plan() {
    let mut story = Story::ready(DataPlaneMode::None);
    assert_eq!(story.tell([Input::VipApplied(new(3, "node2", "7"))]), []);
    assert_eq!(
        story.tell([Input::VipApplied(new(4, "node1", "8"))]),
        [probe()]
    );
    assert_eq!(
        story.tell([Input::VipApplied(new(5, "node1", "9"))]),
        [probe()]
    );
    let mut answered = new(6, "node1", "10");
    answered.status = said_of_it(None, 0);
    assert_eq!(story.tell([Input::VipApplied(answered)]), [], "known");
    let inputs = [
        Input::VipDeleted(vip4()),
        Input::VipApplied(new(6, "node1", "11")),
    ];
    assert_eq!(story.tell(inputs), [probe()], "another life of the claim");
}
