use serde_json::{Value, json};

use super::*;
use crate::testkit::{picture, pool, service, serving, slice, vip};

/// Service web on node 2, Service shop on node 1.
fn two() -> Vec<Value> {
    let mut all = serving();
    all.extend([
        vip(11, "public", "shop", 1),
        service("shop", &json!({}), &["192.0.2.11"]),
        slice("shop", &[1]),
    ]);
    all
}

fn asked(values: &[Value], change: &Change) -> WhatIf {
    what_if(&picture(values), change).unwrap()
}

#[test]
fn a_dead_node_is_succeeded_by_the_next_candidate_and_takes_its_flows_along() {
    let answer = asked(&two(), &Change::NodeDown("node2".into()));
    let moves: Vec<_> = answer
        .moves
        .iter()
        .map(|it| (it.address.to_string(), it.from.as_deref(), it.to.as_deref()))
        .collect();
    assert_eq!(
        moves,
        [("192.0.2.10".to_owned(), Some("node2"), Some("node3"))]
    );
    let flows: Vec<_> = answer
        .flows
        .iter()
        .map(|it| (it.service.as_str(), it.share))
        .collect();
    let [("shop/web", web), ("shop/shop", shop)] = flows.as_slice() else {
        panic!("{flows:?}");
    };
    // Of web: a third of the slots, then a third of the pods; of shop, whose pod stays, the slots.
    assert!((0.5..0.62).contains(web), "{web}");
    assert!((0.28..0.4).contains(shop), "{shop}");
    assert!(!answer.is_well());
}

#[test]
fn a_drained_node_hands_over_and_only_its_pods_end() {
    let answer = asked(&two(), &Change::Drain("node1".into()));
    assert_eq!(answer.moves.len(), 1);
    assert_ne!(answer.moves[0].to.as_deref(), Some("node1"));
    let share = |service: &str| {
        let mut flows = answer.flows.iter();
        flows.find(|it| it.service == service).map(|it| it.share)
    };
    assert_eq!(share("shop/shop"), Some(1.0), "its only pod");
    assert!((share("shop/web").unwrap() - 1.0 / 3.0).abs() < 1e-9);
}

#[test]
fn a_deleted_pool_says_who_gets_what_and_who_nothing() {
    let mut all = two();
    all.push(pool("rest", &json!({"addresses": ["192.0.2.20/32"]})));
    let answer = asked(&all, &Change::DeletePool("public".into()));
    let services: Vec<_> = answer
        .services
        .iter()
        .map(|it| (it.service.as_str(), it.after.len(), it.reason.as_deref()))
        .collect();
    assert_eq!(
        services,
        [
            ("shop/shop", 1, None),
            ("shop/web", 0, Some("PoolExhausted"))
        ]
    );
    assert!(answer.flows.iter().all(|it| it.share > 0.99));
}

#[test]
fn a_new_service_is_given_an_address_and_a_holder() {
    let values = service("new", &json!({}), &[]);
    let input = {
        let with = picture(&[values]);
        with.objects.inputs[0].clone()
    };
    let answer = asked(
        &serving(),
        &Change::Apply(Box::new(input), "shop/new".to_owned()),
    );
    assert_eq!(
        answer.services[0].after,
        ["192.0.2.11".parse::<IpAddr>().unwrap()]
    );
    assert_eq!(answer.moves[0].from, None);
    assert!(answer.moves[0].to.is_some());
    assert!(answer.is_well(), "{answer:?}");
}

#[test]
fn what_changes_nothing_says_so() {
    let mut all = serving();
    all.push(pool("unused", &json!({"addresses": ["192.0.2.20/32"]})));
    let answer = asked(&all, &Change::DeletePool("unused".into()));
    assert_eq!(
        answer.text(Style::default()),
        "If IPPool unused is deleted:\n\n✓ nothing changes\n"
    );
}

#[test]
fn of_two_speakers_the_witness_decides_and_that_is_said() {
    let mut all = serving();
    all.retain(|it| {
        let name = it["metadata"]["name"].as_str().unwrap();
        name != "node3" && name != "speaker-3"
    });
    let answer = asked(&all, &Change::NodeDown("node2".into()));
    assert!(
        answer.notes.iter().any(|note| note.contains("witness")),
        "{:?}",
        answer.notes
    );
}

#[test]
fn what_is_not_there_is_an_error() {
    let picture = picture(&serving());
    let error = what_if(&picture, &Change::NodeDown("node9".into())).unwrap_err();
    assert_eq!(error, "there is no node node9");
    assert!(what_if(&picture, &Change::DeletePool("nowhere".into())).is_err());
}

#[test]
fn the_answer_reads_as_a_table() {
    let answer = asked(&two(), &Change::DeletePool("public".into()));
    let text = answer.text(Style::default());
    let expected = "\
If IPPool public is deleted:

SERVICES that change
  SERVICE    ADDRESSES NOW  ADDRESSES THEN  WHY NOT ALL
  shop/shop  192.0.2.11     -               there is no IPPool: create one
  shop/web   192.0.2.10     -               there is no IPPool: create one

FLOWS that break
  ADDRESS     SERVICE    BREAK  WHY
  192.0.2.10  shop/web   100 %  the Service does not have the address any more
  192.0.2.11  shop/shop  100 %  the Service does not have the address any more
";
    assert_eq!(text, expected);
}
