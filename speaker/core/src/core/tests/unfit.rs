//! Nodes whose kernels pass nothing on.

use super::*;
use crate::input::KernelForwarding;

fn kernel(ipv4: bool, ipv6: bool) -> Input {
    Input::KernelForwards(KernelForwarding { ipv4, ipv6 })
}

/// What our own object says of traffic.
fn said(story: &Story) -> Option<Condition> {
    let conditions = story.core.report(at(story.now)).conditions;
    assert_eq!(conditions[0].kind, ConditionKind::Ready);
    assert!(conditions[0].holds);
    conditions.into_iter().nth(1)
}

/// A speaker's object that says whether its node takes traffic.
fn saying(name: &str, mac: MacAddress, last: u8, takes_traffic: bool) -> Input {
    let Input::SpeakerApplied(mut it) = speaker(name, mac, last, "boot", 1) else {
        panic!("a speaker");
    };
    it.report.conditions.push(condition(
        ConditionKind::TakesTraffic,
        takes_traffic,
        "NotForwarding",
        "",
        1,
    ));
    Input::SpeakerApplied(it)
}

fn targets(story: &Story) -> Vec<&str> {
    let desired = story.desired_vip(vip4()).unwrap();
    let Forwarding::Dsr { targets, .. } = &desired.services[0].forwarding else {
        panic!("{desired:?}");
    };
    targets.weights.keys().map(NodeName::as_str).collect()
}

#[test]
fn a_node_says_that_its_kernel_does_not_forward_a_family_that_is_in_use() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    assert_eq!(said(&story), None, "nothing is known");
    for (input, setting) in [
        (kernel(true, true), None),
        (kernel(false, true), Some("net.ipv4.ip_forward is 0")),
        (kernel(true, false), None),
    ] {
        story.tell([input]);
        let condition = said(&story);
        let of = |condition: &Condition| {
            (
                condition.kind,
                condition.holds,
                condition.reason.to_string(),
            )
        };
        let expected = (
            ConditionKind::TakesTraffic,
            false,
            "NotForwarding".to_owned(),
        );
        assert_eq!(condition.as_ref().map(of), setting.map(|_| expected));
        let message = condition
            .map(|condition| condition.message)
            .unwrap_or_default();
        assert!(message.contains(setting.unwrap_or_default()), "{message}");
    }
    story.tell([vip(vip6(), 1, "node1")]);
    let message = said(&story).expect("IPv6 is in use").message;
    assert!(
        message.contains("net.ipv6.conf.all.forwarding is 0"),
        "{message}"
    );
    // Told once a difference is seen, and taken back.
    story.tell([kernel(true, true)]);
    assert_eq!(said(&story), None);
}

#[test]
fn nodes_that_say_so_get_no_traffic_unless_all_do() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    assert_eq!(targets(&story), ["node1", "node2"]);
    for (node1, node2, expected) in [
        (true, false, &["node1"][..]),
        (true, true, &["node1", "node2"]),
        (false, true, &["node2"]),
        (false, false, &["node1", "node2"]),
    ] {
        story.tell([
            saying("node1", MAC1, 11, node1),
            saying("node2", MAC2, 12, node2),
        ]);
        story.applied();
        assert_eq!(targets(&story), expected);
    }
    // Of the two that are left the one that says so is not used, dead or not.
    story.tell([
        saying("node1", MAC1, 11, true),
        saying("node2", MAC2, 12, false),
        view(&[("node1", 1)]),
    ]);
    story.applied();
    assert_eq!(targets(&story), ["node1"]);
    // The only other one is dead: then ours is used, whatever it says.
    story.tell([
        saying("node1", MAC1, 11, false),
        saying("node2", MAC2, 12, true),
    ]);
    story.applied();
    assert_eq!(targets(&story), ["node1"]);
}
