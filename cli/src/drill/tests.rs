use serde_json::{Value, json};

use super::*;
use crate::testkit::{picture, serving};

fn asked() -> args::Drill {
    args::Drill {
        name: String::new(),
        kill: false,
        to: None,
        address: None,
        segment: None,
        port: None,
        yes: true,
        interval: Duration::from_millis(5),
        after: Duration::from_secs(2),
        timeout: Duration::from_secs(30),
    }
}

fn planned(values: &[Value], asked: &args::Drill) -> Result<Plan, String> {
    plan(&picture(values), &ServiceKey::new("shop", "web"), asked)
}

#[test]
fn an_address_moves_to_the_next_candidate_or_where_people_say() {
    let plan = planned(&serving(), &asked()).unwrap();
    assert_eq!(plan.to, "192.0.2.10:80".parse().unwrap());
    assert_eq!(plan.from.as_str(), "node2");
    assert_eq!(plan.act, Act::Move("node3".into()));
    let to = Some("node1".to_owned());
    let plan = planned(&serving(), &args::Drill { to, ..asked() }).unwrap();
    assert_eq!(plan.act, Act::Move("node1".into()));
    let plan = planned(
        &serving(),
        &args::Drill {
            kill: true,
            ..asked()
        },
    )
    .unwrap();
    assert_eq!(plan.act, Act::Kill);
    assert!(plan.sentence().contains("node2"), "{}", plan.sentence());
}

#[test]
fn what_cannot_be_drilled_is_said() {
    let refused = |change: fn(&mut args::Drill), why: &str| {
        let mut asked = asked();
        change(&mut asked);
        let error = planned(&serving(), &asked).unwrap_err();
        assert!(error.contains(why), "{error}");
    };
    refused(
        |it| it.to = Some("node2".into()),
        "node2 announces 192.0.2.10 already",
    );
    refused(|it| it.to = Some("node9".into()), "no speaker on node9");
    refused(|it| it.port = Some(81), "no TCP port 81");
    refused(|it| it.segment = Some("other".into()), "segment other");
    refused(
        |it| it.address = Some("192.0.2.99".parse().unwrap()),
        "no address 192.0.2.99",
    );
    let missing = plan(
        &picture(&serving()),
        &ServiceKey::new("shop", "nothing"),
        &asked(),
    );
    assert_eq!(missing.unwrap_err(), "there is no Service shop/nothing");
}

#[test]
fn nothing_is_drilled_where_nobody_announces() {
    let mut all = serving();
    for value in &mut all {
        if value["kind"] == "VirtualIP" {
            value["status"]["segments"] = json!([]);
        }
    }
    assert_eq!(
        planned(&all, &asked()).unwrap_err(),
        "nobody announces 192.0.2.10"
    );
}

#[test]
fn the_answer_says_how_long_nobody_answered() {
    let answer = |failed, outage_ms| Drill {
        service: "shop/web".into(),
        address: "192.0.2.10".parse().unwrap(),
        port: 80,
        segment: "192.0.2.0/24".into(),
        from: "node2".into(),
        to: "node3".into(),
        kill: false,
        moved_after_ms: 40,
        measured: Measured {
            connections: 500,
            failed,
            outage_ms,
            slowest_ms: 3,
        },
    };
    let well = answer(0, 0);
    assert!(well.is_well());
    assert_eq!(
        well.text(Style::default()),
        "192.0.2.10 moved from node2 to node3 by plan; the API server showed it after 40 ms.\n\
         ✓ 500 connections to port 80: none failed, the slowest took 3 ms\n"
    );
    let lossy = answer(30, 150);
    assert!(!lossy.is_well());
    assert!(
        lossy
            .text(Style::default())
            .contains("30 failed: no answer for 150 ms")
    );
    let value = serde_json::to_value(&lossy).unwrap();
    assert_eq!(value["outageMs"], json!(150));
}
