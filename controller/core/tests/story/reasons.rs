//! What is said when something else is the matter than before, and that it is said once.

use std::time::Duration;

use herald_controller_core::Input;
use herald_controller_core::testkit::{ip, labels, node, pool, speaker, svc, well};
use herald_model::{Operator, Requirement, Scope, Selector};

use super::teller::Story;

/// One node, one pool of four, nothing else.
fn begun() -> Story {
    let mut story = Story::default();
    story.tell(well("n1"));
    story.tell([pool("public").range("10.0.0.0/30").applied()]);
    story.lead();
    story.skip();
    story
}

fn warnings(story: &mut Story, about: &str) -> Vec<String> {
    let start = format!("event {about} Warning ");
    let lines = story.writes().into_iter();
    lines
        .filter_map(|line| line.strip_prefix(&start).map(str::to_owned))
        .collect()
}

#[test]
fn a_namespace_that_nobody_told_of_is_selected_by_nothing() {
    for operator in [
        Operator::NotIn(vec!["back".to_owned()]),
        Operator::DoesNotExist,
    ] {
        let mut story = Story::default();
        let selector = Selector {
            requirements: vec![Requirement {
                key: "tier".to_owned(),
                operator,
            }],
        };
        let restricted = pool("public")
            .range("10.0.0.0/30")
            .with(|pool| pool.allowed.namespace_selectors.push(selector));
        story.tell([restricted.applied()]);
        story.lead();
        story.tell([svc("ns/web").applied()]);
        assert!(story.status_of("ns/web").ingress.is_empty());
        let told = |labels| Input::NamespaceApplied("ns".into(), labels);
        story.tell([told(labels(&[("tier", "front")]))]);
        // `NotIn` matches another value, `DoesNotExist` does not.
        story.tell([told(labels(&[]))]);
        assert_eq!(story.status_of("ns/web").ingress, ["10.0.0.0"].map(ip));
    }
}

#[test]
fn another_reason_in_the_same_word_is_an_event() {
    let mut story = begun();
    story.tell([pool("public")
        .range("10.0.0.0/30")
        .namespace("db")
        .applied()]);
    story.tell([svc("ns/web").applied()]);
    assert_eq!(
        warnings(&mut story, "ns/web"),
        ["AllocationFailed: pool public allows only namespaces db, and ns is none of them"]
    );
    let internal = pool("public").range("10.0.0.0/30");
    story.tell([internal.with(|pool| pool.scope = Scope::Internal).applied()]);
    assert_eq!(
        warnings(&mut story, "ns/web"),
        ["AllocationFailed: pool public is internal but the Service asks for an external address"]
    );
    for name in ["x", "y"] {
        story.change("ns/web", |service| {
            service.request.pool = Some(name.into());
        });
        let said = format!("AllocationFailed: pool {name} does not exist");
        assert_eq!(warnings(&mut story, "ns/web"), [said]);
    }
    for message in ["one", "another"] {
        story.change("ns/web", |service| {
            service.request.invalid = Some(message.into());
        });
        let said = format!("AllocationFailed: {message}");
        assert_eq!(warnings(&mut story, "ns/web"), [said]);
    }
}

#[test]
fn another_holder_of_the_address_asked_for_is_an_event() {
    let mut story = begun();
    let asks = |name: &str, created| svc(name).requests(&["10.0.0.2"]).created(created).applied();
    story.tell([
        asks("ns/first", 1),
        asks("ns/second", 2),
        asks("ns/third", 3),
    ]);
    let held = |by: &str| {
        format!(
            "AllocationFailed: address 10.0.0.2 is held by Service {by}, with which this Service cannot share it"
        )
    };
    assert_eq!(warnings(&mut story, "ns/third"), [held("ns/first")]);
    story.tell([svc("ns/first").deleted()]);
    story.pass(Duration::from_secs(5));
    assert_eq!(warnings(&mut story, "ns/third"), [held("ns/second")]);
}

#[test]
fn other_numbers_alone_are_no_event() {
    let mut story = Story::default();
    story.tell(well("n1"));
    let resting = pool("public").range("10.0.0.0/29");
    story.tell([resting
        .with(|pool| pool.reuse_delay = Duration::from_secs(7))
        .applied()]);
    story.lead();
    let names: Vec<String> = (0..8).map(|number| format!("ns/s{number}")).collect();
    story.tell(
        names
            .iter()
            .map(|name| svc(name).uid(&format!("{name} 0")).applied()),
    );
    story.tell([svc("ns/waits").created(100).applied()]);
    assert_eq!(warnings(&mut story, "ns/waits").len(), 1);
    let mut texts = std::collections::BTreeSet::new();
    for round in 0..1000 {
        let life = |life: usize| {
            let name = &names[round % 8];
            svc(name).uid(&format!("{name} {life}"))
        };
        story.tell([life(round / 8).deleted(), life(round / 8 + 1).applied()]);
        story.pass(Duration::from_secs(3));
        let allocated = story.status_of("ns/waits").allocated.expect("said");
        texts.insert(allocated.message);
        assert_eq!(story.count("event ns/waits"), 0, "round {round}");
        story.writes_now();
    }
    assert!(texts.len() > 1, "the numbers never changed: {texts:?}");
}

#[test]
fn another_thing_that_a_pool_collides_with_is_an_event_and_more_of_the_same_is_not() {
    let mut story = begun();
    let with_gateway = |name: &str| {
        let mut speaker = speaker(name);
        speaker.segments[0].gateways = vec![ip("10.0.0.0")];
        Input::SpeakerApplied(Box::new(speaker))
    };
    story.tell([with_gateway("n1")]);
    assert_eq!(
        warnings(&mut story, "public"),
        ["Overlap: 10.0.0.0 is the gateway of n1: pool public does not give it"]
    );
    story.tell(well("n2"));
    story.tell([with_gateway("n2")]);
    assert_eq!(warnings(&mut story, "public"), [] as [&str; 0]);
    let mut n3 = node("n3");
    n3.addresses = vec![ip("10.0.0.3")];
    story.tell([Input::NodeApplied(Box::new(n3))]);
    let said = warnings(&mut story, "public");
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(
        said[0].contains("10.0.0.3 is an address of node n3"),
        "{said:?}"
    );
    story.tell([Input::NodeDeleted("n3".into())]);
    assert_eq!(warnings(&mut story, "public"), [] as [&str; 0]);
    // Whoever leads next finds it as it is, and is silent.
    story.tell([Input::LeadershipLost, Input::LEADS_FOR_GOOD]);
    assert_eq!(warnings(&mut story, "public"), [] as [&str; 0]);
}

#[test]
fn a_gateway_that_is_asked_for_is_called_one() {
    let mut story = begun();
    let mut speaker = speaker("n1");
    speaker.segments[0].gateways = vec![ip("10.0.0.0")];
    story.tell([Input::SpeakerApplied(Box::new(speaker))]);
    story.skip();
    story.tell([svc("ns/web").requests(&["10.0.0.0"]).applied()]);
    let said = warnings(&mut story, "ns/web");
    assert!(said[0].contains("gateway"), "{said:?}");
}
