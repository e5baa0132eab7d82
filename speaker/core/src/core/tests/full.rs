//! A data plane that has no room.

use herald_dataplane::Refused;

use super::*;

#[test]
fn what_the_data_plane_has_no_room_for_is_said_once_on_its_service_and_in_the_status() {
    let mut story = Story::ready(DataPlaneMode::Tcx);
    story.tell([
        endpoints("web"),
        applied(service("web", &[vip4()])),
        vip(vip4(), 1, "node1"),
    ]);
    let refused: Arc<[Refused]> = ["other", "web"]
        .map(|name| Refused::NoRoomForRanges {
            service: ServiceKey::new("ns", name),
            ranges: 12,
        })
        .into();
    let answer = |story: &mut Story, refused: &Arc<[Refused]>| {
        let generation = story.desired.as_ref().unwrap().0;
        let outcome = Ok(Arc::clone(refused));
        story.tell([Input::DataPlaneApplied {
            generation,
            outcome,
        }])
    };
    let effects = answer(&mut story, &refused);
    let note = "left to kube-proxy on the announcing node, as its data plane is full: there is no room \
                for its 12 source ranges: all Services together may have 262144";
    let told: Vec<&Effect> = effects
        .iter()
        .filter(|effect| matches!(effect, Effect::EmitEvent { reason, .. } if *reason == EventReason::DataPlaneFull))
        .collect();
    assert_eq!(told, [&event(EventReason::DataPlaneFull, note)]);
    let status = |effects: &[Effect]| {
        let written = effects.iter().find_map(|effect| match effect {
            Effect::WriteVipStatus { status, .. } => Some(status.clone()),
            _ => None,
        });
        written.expect("a status")
    };
    let full = status(&effects);
    let forwarding = &full.conditions[2];
    assert_eq!(
        (
            forwarding.holds,
            &*forwarding.reason,
            forwarding.message.as_str()
        ),
        (false, "DataPlaneFull", note)
    );
    assert_eq!(
        (
            full.forwarding,
            full.targets,
            full.forwarding_reason.as_deref()
        ),
        (Some(ForwardingState::Off), None, Some(note))
    );
    let speaker = story.core.report(at(story.now));
    let ready = &speaker.conditions[0];
    assert!(ready.holds);
    let named = "the data plane is full: ns/other: there is no room for its 12 source ranges: all \
                 Services together may have 262144, and 1 more of the kind";
    assert!(ready.message.ends_with(named), "{}", ready.message);
    // What is wished stays: nodes that have room forward.
    let wished = story.desired_vip(vip4()).unwrap().services[0]
        .forwarding
        .clone();
    assert!(matches!(
        wished,
        Forwarding::Dsr { .. } | Forwarding::NodePort { .. }
    ));

    // The same again is no news; and when there is room it is as it should be.
    story.tell([Input::VipStatusWritten {
        address: vip4(),
        outcome: WriteOutcome::Done,
    }]);
    story.see_status("8", full);
    story.tell([node("node3", 13)]);
    assert_eq!(answer(&mut story, &refused), []);
    story.tell([node("node4", 14)]);
    let effects = answer(&mut story, &Arc::default());
    assert_eq!(effects.len(), 1, "{effects:?}");
    let forwarding = &status(&effects).conditions[2];
    assert_eq!(
        (forwarding.holds, &*forwarding.reason),
        (true, "Forwarding")
    );
}
