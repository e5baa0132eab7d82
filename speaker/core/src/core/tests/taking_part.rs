//! After a boot, a node takes part once it can serve.

use super::*;

/// node1 with an object from a life in this boot, or in another.
fn booted(boot: &str, rings: bool) -> Story {
    let mut story = Story::new();
    story.core.config.awaits_rules = true;
    story.tell([
        link(true),
        address("192.0.2.11/24"),
        node("node1", 11),
        node("node2", 12),
        speaker("node1", MAC1, 11, boot, 1),
        speaker("node2", MAC2, 12, "other", 1),
        data_plane(DataPlaneMode::Tcx),
    ]);
    story.tell(Cache::ALL.map(Input::Synced));
    assert_eq!(takes_part(&story), rings);
    story.tell([Input::PortOpened(ETH0)]);
    story
}

fn takes_part(story: &Story) -> bool {
    let starts = |command: &RingCommand| matches!(command, RingCommand::Start { .. });
    story.ring.iter().any(starts)
}

fn waits_for(story: &Story, what: &str) -> bool {
    let waiting = story.core.overview().waiting_for;
    waiting.iter().any(|it| it.contains(what))
}

#[test]
fn in_the_same_boot_it_waits_for_nothing() {
    booted("boot", true);
}

#[test]
fn in_another_boot_it_waits_for_the_rules_and_then_for_its_own_programs() {
    let mut story = booted("earlier", false);
    assert!(waits_for(&story, "kube-proxy"));
    let told = story.core.speakers["node1"].clone();
    assert_eq!(
        &*told.report.boot_id, "earlier",
        "the object tells of the life before"
    );
    story.tell([Input::RulesWritten]);
    assert!(!takes_part(&story));
    assert!(!waits_for(&story, "kube-proxy"));
    story.applied();
    assert!(takes_part(&story));
}

#[test]
fn in_another_boot_it_waits_for_its_own_programs_and_then_for_the_rules() {
    let mut story = booted("earlier", false);
    story.applied();
    assert!(!takes_part(&story));
    story.tell([Input::RulesWritten]);
    assert!(takes_part(&story));
}

#[test]
fn where_no_program_of_ours_runs_it_waits_for_the_rules_alone() {
    let mut story = booted("earlier", false);
    story.tell([data_plane(DataPlaneMode::None), Input::RulesWritten]);
    assert!(takes_part(&story));
}
