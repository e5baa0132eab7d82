//! Addresses that move though the nodes that announce them are well.

use std::time::Duration;

use herald_controller_core::testkit::{
    advertised, advertisement, node, pool, speaker, speaker_pod, svc, well,
};
use herald_controller_core::{Input, Rebalancing, Settings};
use herald_model::{Departure, Selector, WeightedSelector};

use super::teller::Story;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);

/// So many Services on some nodes, each announced, told in a second.
fn begun(nodes: &[&str], services: usize, settings: Settings) -> Story {
    let mut story = Story::with(settings);
    for name in nodes {
        story.tell(well(name));
    }
    story.tell([pool("p").range("10.0.0.0/16").applied()]);
    story.lead();
    story.tell((0..services).map(|number| svc(&format!("ns/s{number:04}")).applied()));
    story.follow();
    story.skip();
    story
}

fn cordoned(name: &str, departure: Option<Departure>) -> Input {
    let mut node = node(name);
    node.departure = departure;
    Input::NodeApplied(Box::new(node))
}

/// The speaker of a node in another life.
fn reborn(name: &str, life: u64) -> Input {
    let mut speaker = speaker(name);
    speaker.segments[0].incarnation.0 = life;
    Input::SpeakerApplied(Box::new(speaker))
}

fn loads<const N: usize>(story: &Story, nodes: [&str; N]) -> [usize; N] {
    let loads = story.loads();
    nodes.map(|node| loads.get(node).copied().unwrap_or_default())
}

#[test]
fn a_cordoned_node_hands_over_and_gets_nothing_back_by_itself() {
    let mut story = begun(&["n1", "n2", "n3"], 1, Settings::default());
    let plan = story.plan_of("10.0.0.0");
    let [first, second, third] = &plan[..] else {
        panic!("three nodes, three candidates")
    };
    story.tell([cordoned(first, Some(Departure::Cordoned))]);
    let why = format!("10.0.0.0 is to move from {first} to {second}: {first} is cordoned");
    story.expect(&[
        &format!("replace 10.0.0.0@2 p e2 Active All [ns/s0000] lan:{second},{third},{first}"),
        &format!("event ns/s0000 Normal Moving: {why}"),
    ]);
    story.follow();
    story.tell([cordoned(first, None)]);
    story.live(11 * MINUTE);
    assert_eq!(story.count("replace"), 0);
}

#[test]
fn nothing_moves_when_every_node_is_cordoned_and_new_addresses_are_announced() {
    let nodes = ["n1", "n2", "n3"];
    let mut story = begun(&nodes, 3, Settings::default());
    for node in &nodes[..2] {
        story.tell([cordoned(node, Some(Departure::Cordoned))]);
        story.follow();
    }
    assert_eq!(loads(&story, nodes), [0, 0, 3]);
    story.skip();
    story.tell([cordoned("n3", Some(Departure::Cordoned))]);
    story.live(11 * MINUTE);
    assert_eq!(story.count("replace"), 0);
    story.tell([svc("ns/new").applied()]);
    assert_eq!(story.plan_of("10.0.0.3").len(), 3);
    // The first that stays is there for all.
    story.tell(well("n4"));
    assert_eq!(loads(&story, ["n4"]), [4]);
}

#[test]
fn a_node_that_joined_gets_its_share_one_address_a_minute_and_each_move_says_why() {
    let mut story = begun(&["n1", "n2"], 6, Settings::default());
    assert_eq!(loads(&story, ["n1", "n2"]), [3, 3]);
    story.live(5 * MINUTE);
    story.tell(well("n3"));
    story.skip();
    story.tell([reborn("n3", 1)]);
    assert_eq!(loads(&story, ["n1", "n2", "n3"]), [3, 3, 0], "just looked");
    story.live(MINUTE);
    assert_eq!(loads(&story, ["n1", "n2", "n3"]), [3, 2, 1]);
    let writes = story.writes_now();
    let replaced: Vec<&String> = writes.iter().filter(|l| l.starts_with("replace")).collect();
    assert_eq!(replaced.len(), 1, "{writes:#?}");
    assert!(replaced[0].ends_with("lan:n3,n2,n1"), "{writes:#?}");
    let told = writes.iter().find(|line| line.starts_with("event"));
    let why = "is to move from n2 to n3: n2 announced 3, n3 0";
    assert!(
        told.is_some_and(|line| line.contains("Normal Moving: ") && line.ends_with(why)),
        "{writes:#?}"
    );
    story.live(50 * SECOND);
    assert_eq!(story.count("replace"), 0);
    story.live(10 * SECOND);
    assert_eq!(loads(&story, ["n1", "n2", "n3"]), [2, 2, 2]);
    story.skip();
    story.live(30 * MINUTE);
    assert_eq!(story.count("replace"), 0);
}

#[test]
fn one_address_in_a_hundred_moves_at_a_time() {
    let mut story = begun(&["n1", "n2"], 300, Settings::default());
    story.tell(well("n3"));
    story.live(5 * MINUTE);
    assert_eq!(loads(&story, ["n1", "n2", "n3"]), [149, 148, 3]);
    story.live(MINUTE);
    assert_eq!(loads(&story, ["n3"]), [6]);
    story.live(60 * MINUTE);
    assert_eq!(loads(&story, ["n1", "n2", "n3"]).iter().sum::<usize>(), 300);
    // A tenth of the mean is left.
    let even = loads(&story, ["n1", "n2", "n3"]);
    assert!(
        even.iter().all(|load| (93..=106).contains(load)),
        "{even:?}"
    );
}

#[test]
fn an_address_moves_where_people_ask_for_it_once_and_an_event_says_so() {
    let mut story = begun(&["n1", "n2", "n3"], 1, Settings::default());
    for _ in 0..3 {
        let plan = story.plan_of("10.0.0.0");
        let [first, _, third] = &plan[..] else {
            panic!("three nodes, three candidates")
        };
        story.ask_to_move("10.0.0.0", third);
        assert_eq!(
            story.plan_of("10.0.0.0")[..2],
            [third.clone(), first.clone()]
        );
        let told = format!(
            "event ns/s0000 Normal Moving: 10.0.0.0 is to move from {first} to {third}: its annotation \
             heraldlb.io/move-to asks for that"
        );
        assert!(story.writes_now().contains(&told));
        story.follow();
        story.skip();
        story.live(30 * MINUTE);
        assert_eq!(story.count("replace"), 0);
    }
}

#[test]
fn an_address_moves_as_asked_only_to_a_node_that_may_have_it_and_once_it_is_at_rest() {
    let mut story = begun(&["n1", "n2", "n3"], 1, Settings::default());
    let plan = story.plan_of("10.0.0.0");
    story.tell([cordoned(&plan[1], Some(Departure::Cordoned))]);
    story.follow();
    story.skip();
    for node in ["nobody", &plan[0], &plan[1]] {
        story.ask_to_move("10.0.0.0", node);
        assert_eq!(story.count("replace"), 0, "{node}");
    }
    // Nobody announces it; then that is done first.
    story.announce_none("10.0.0.0");
    story.ask_to_move("10.0.0.0", &plan[2]);
    assert_eq!(story.count("replace"), 0);
    story.announce("10.0.0.0", &plan[0]);
    assert_eq!(story.plan_of("10.0.0.0")[0], plan[2]);
}

#[test]
fn nothing_moves_where_that_is_switched_off() {
    let rebalancing = Rebalancing {
        is_on: false,
        ..Rebalancing::default()
    };
    let settings = Settings {
        rebalancing,
        ..Settings::default()
    };
    let mut story = begun(&["n1"], 4, settings);
    story.tell(well("n2"));
    story.live(20 * MINUTE);
    assert_eq!(loads(&story, ["n1", "n2"]), [4, 0]);
}

#[test]
fn nothing_moves_for_five_minutes_after_a_term_began_or_a_speaker_took_over() {
    let mut story = begun(&["n1", "n2"], 6, Settings::default());
    story.tell(well("n3"));
    story.live(290 * SECOND);
    assert_eq!(loads(&story, ["n3"]), [0]);
    let plan = story.plan_of("10.0.0.0");
    story.announce("10.0.0.0", &plan[1]);
    assert_eq!(story.plan_of("10.0.0.0")[0], plan[1], "the plan follows");
    story.live(298 * SECOND);
    assert_eq!(loads(&story, ["n3"]), [0]);
    story.live(2 * SECOND);
    assert_eq!(loads(&story, ["n3"]), [1]);
    story.live(10 * SECOND);
    story.tell([Input::LeadershipLost, Input::LEADS_FOR_GOOD]);
    story.live(299 * SECOND);
    assert_eq!(loads(&story, ["n3"]), [1]);
    story.live(2 * SECOND);
    assert_eq!(loads(&story, ["n3"]), [2]);
}

#[test]
fn nothing_is_brought_to_nodes_that_are_not_well_or_go() {
    type Spoil = fn() -> Input;
    let cases: [Spoil; 4] = [
        || Input::SpeakerPodApplied(speaker_pod("n2", false)),
        || cordoned("n2", Some(Departure::ScaledDown)),
        || {
            let mut speaker = speaker("n2");
            speaker.segments[0].carrier = false;
            Input::SpeakerApplied(Box::new(speaker))
        },
        || {
            let mut on_n1 = advertisement("on-n1");
            on_n1.node_selectors = vec![Selector::label("node", "n1")];
            advertised(on_n1)
        },
    ];
    for (case, spoil) in cases.into_iter().enumerate() {
        let mut story = begun(&["n1"], 3, Settings::default());
        story.tell([spoil()]);
        story.tell(well("n2").into_iter().take(if case == 2 { 1 } else { 3 }));
        story.tell([
            spoil(),
            Input::SpeakerPodApplied(speaker_pod("n2", case != 0)),
        ]);
        story.follow();
        story.live(10 * MINUTE);
        assert_eq!(loads(&story, ["n1", "n2"]), [3, 0], "case {case}");
    }
}

#[test]
fn an_address_that_is_on_its_way_or_announced_by_nobody_is_not_moved() {
    let mut story = begun(&["n1"], 2, Settings::default());
    story.announce_none("10.0.0.0");
    story.announce_none("10.0.0.1");
    story.tell(well("n2"));
    story.pass(10 * MINUTE);
    assert_eq!(loads(&story, ["n1", "n2"]), [2, 0]);
    story.follow();
    story.pass(MINUTE);
    assert_eq!(loads(&story, ["n1", "n2"]), [1, 1]);
}

#[test]
fn addresses_move_to_nodes_that_are_preferred_when_these_are_back() {
    let mut story = begun(&["n1", "n2", "n3"], 3, Settings::default());
    let mut preferring = advertisement("p");
    preferring.preferred_nodes.push(WeightedSelector {
        weight: 10,
        preference: Selector::label("node", "n3"),
    });
    assert_eq!(loads(&story, ["n1", "n2", "n3"]), [1, 1, 1]);
    story.tell([advertised(preferring)]);
    story.skip();
    story.live(5 * MINUTE);
    let writes = story.writes_now();
    let why = "is to move from n2 to n3: n3 is preferred by 10, n2 by 0";
    assert!(writes.iter().any(|line| line.ends_with(why)), "{writes:#?}");
    story.live(MINUTE);
    assert_eq!(loads(&story, ["n1", "n2", "n3"]), [0, 0, 3]);
    story.live(20 * MINUTE);
    assert_eq!(
        loads(&story, ["n3"]),
        [3],
        "the others have none, and get none"
    );
}

#[test]
fn a_node_that_falls_again_and_again_gets_nothing_for_longer_each_time() {
    let mut story = begun(&["n1"], 8, Settings::default());
    story.tell(well("n2"));
    for (fall, minutes) in [(1, 5), (2, 10), (3, 20)] {
        story.tell([reborn("n2", fall + 1)]);
        story.live((60 * minutes - 1) * SECOND);
        assert_eq!(loads(&story, ["n2"]), [0], "fall {fall}");
        let new = format!("ns/new{fall}");
        story.tell([svc(&new).applied()]);
        assert_eq!(loads(&story, ["n2"]), [0], "no new one, either");
        story.tell([svc(&new).deleted()]);
    }
    story.live(MINUTE);
    assert_eq!(loads(&story, ["n2"]), [1]);
}

#[test]
fn another_life_after_an_end_that_was_announced_is_no_fall() {
    let mut story = begun(&["n1", "n2", "n3"], 3, Settings::default());
    story.live(6 * MINUTE);
    // As in a rolling update whose speaker could hand over nothing.
    let mut ends = speaker("n3");
    ends.stopping = true;
    story.tell([Input::SpeakerApplied(Box::new(ends))]);
    story.follow();
    assert_eq!(loads(&story, ["n3"]), [0]);
    story.tell([reborn("n3", 2)]);
    // As in a reboot after a drain.
    story.tell([cordoned("n3", Some(Departure::Cordoned))]);
    story.tell([reborn("n3", 3)]);
    story.tell([cordoned("n3", None)]);
    story.tell([reborn("n3", 4)]);
    story.live(MINUTE);
    assert_eq!(loads(&story, ["n3"]), [1], "there was no failure");
}

#[test]
fn a_handover_of_a_speaker_that_ends_is_no_failure() {
    let mut story = begun(&["n1", "n2"], 6, Settings::default());
    story.tell(well("n3"));
    story.live(290 * SECOND);
    let plan = story.plan_of("10.0.0.0");
    let mut ends = speaker(&plan[0]);
    ends.stopping = true;
    // The successor said so before the plan was written.
    let taken = story.taken("10.0.0.0", &plan[1]);
    story.tell([Input::SpeakerApplied(Box::new(ends)), taken]);
    story.follow();
    story.live(20 * SECOND);
    assert_eq!(loads(&story, [&plan[0], "n3"]), [0, 1]);
}

#[test]
fn where_an_address_was_not_taken_no_other_is_brought_for_a_while() {
    let mut story = begun(&["n1"], 4, Settings::default());
    story.tell(well("n2"));
    story.follow();
    story.pass(5 * MINUTE);
    assert_eq!(loads(&story, ["n1", "n2"]), [3, 1]);
    // The speakers do not see n2: n1 goes on, as the second candidate.
    let moved = (0..4).map(|last| format!("10.0.0.{last}"));
    for address in moved {
        story.announce(&address, "n1");
    }
    assert_eq!(loads(&story, ["n1", "n2"]), [4, 0]);
    story.skip();
    story.live(298 * SECOND);
    assert_eq!(story.count("event"), 0);
    story.pass(10 * SECOND);
    assert_eq!(loads(&story, ["n1", "n2"]), [3, 1], "it is tried again");
    for last in 0..4 {
        story.announce(&format!("10.0.0.{last}"), "n1");
    }
    story.skip();
    story.live(590 * SECOND);
    assert_eq!(story.count("event"), 0, "later each time");
}
