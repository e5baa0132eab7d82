use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::probe::{Counted, Mode};
use super::*;
use crate::testkit::{NOW, picture, pool, service, serving};

/// A node's settings as they should be, and others.
fn settings(others: &[(&str, u64)]) -> BTreeMap<String, u64> {
    let strict = "net.ipv4.conf.eth0.rp_filter";
    let right = [("net.ipv4.ip_forward", 1), (strict, 1)];
    let all = right.iter().chain(others);
    all.map(|(name, value)| ((*name).to_owned(), *value))
        .collect()
}

fn well_counted() -> Counted {
    Counted {
        up: [("192.0.2.0/24".to_owned(), 3)].into(),
        without_quorum: Vec::new(),
        settings: settings(&[]),
    }
}

/// All of it well.
fn well() -> Probes {
    let nodes = || ["node1", "node2", "node3"].map(str::to_owned).into_iter();
    let counted = well_counted();
    let mode = Mode {
        name: "nftables".to_owned(),
        strict_arp: None,
    };
    Probes {
        server: Some("v1.35.4".to_owned()),
        leader: Some(("controller-1".to_owned(), NOW - 2)),
        heartbeats: nodes().map(|node| (node, NOW * 1_000)).collect(),
        kube_proxy: nodes().map(|node| (node, Ok(()))).collect(),
        modes: nodes().map(|node| (node, mode.clone())).collect(),
        speakers: nodes().map(|node| (node, Ok(counted.clone()))).collect(),
    }
}

/// What is not well.
fn wrong(values: &[Value], probes: &Probes) -> Vec<(&'static str, String, Level)> {
    let found = check(&picture(values), probes).findings.into_iter();
    found
        // No programs of Herald's run in these clusters.
        .filter(|it| !["controller", "speakers"].contains(&it.check))
        .filter(|it| it.level > Level::Info)
        .inspect(|it| assert!(it.remedy.is_some() || it.level == Level::Unknown, "{it:?}"))
        .map(|it| (it.check, it.subject, it.level))
        .collect()
}

fn changed(kind: &str, change: impl Fn(&mut Value)) -> Vec<Value> {
    let mut all = serving();
    let of_kind = all.iter_mut().filter(|it| it["kind"] == kind);
    of_kind.for_each(change);
    all
}

#[test]
fn nothing_is_found_where_all_is_well() {
    assert_eq!(wrong(&serving(), &well()), []);
}

#[test]
fn what_probes_find_is_told() {
    let with = |change: &dyn Fn(&mut Probes)| {
        let mut probes = well();
        change(&mut probes);
        wrong(&serving(), &probes)
    };
    let problem = |check, subject: &str| vec![(check, subject.to_owned(), Level::Problem)];
    assert_eq!(
        with(&|it| it.server = Some("v1.32.1".to_owned())),
        problem("kubernetes", "")
    );
    assert_eq!(
        with(&|it| it.leader = Some((String::new(), NOW - 60))),
        problem("leader", "")
    );
    let refused = Err("connection refused".to_owned());
    assert_eq!(
        with(&|it| it
            .kube_proxy
            .extend([("node2".to_owned(), refused.clone())])),
        problem("kube-proxy", "node2")
    );
    let ipvs = |strict_arp| Mode {
        name: "ipvs".to_owned(),
        strict_arp,
    };
    assert_eq!(
        with(&|it| it.modes = [(String::new(), ipvs(Some(false)))].into()),
        problem("kube-proxy", "")
    );
    assert_eq!(
        with(&|it| it.modes = [(String::new(), ipvs(Some(true)))].into()),
        [("kube-proxy", String::new(), Level::Warning)]
    );
    assert_eq!(
        with(&|it| it
            .heartbeats
            .extend([("node3".to_owned(), (NOW - 90) * 1_000)])),
        [("clock", "node3".to_owned(), Level::Warning)]
    );
    let two = Counted {
        up: [("192.0.2.0/24".to_owned(), 2)].into(),
        ..well_counted()
    };
    assert_eq!(
        with(&|it| it.speakers.extend([("node1".to_owned(), Ok(two.clone()))])),
        problem("ring", "192.0.2.0/24")
    );
    for (setting, value) in [
        ("net.ipv4.ip_forward", 0),
        ("net.bridge.bridge-nf-call-iptables", 1),
    ] {
        let set = Counted {
            settings: settings(&[(setting, value)]),
            ..well_counted()
        };
        assert_eq!(
            with(&|it| it.speakers.extend([("node1".to_owned(), Ok(set.clone()))])),
            problem("sysctl", "node1"),
            "{setting}"
        );
    }
    assert_eq!(
        with(&|it| *it = Probes {
            heartbeats: it.heartbeats.clone(),
            ..Probes::default()
        }),
        [
            ("leader", String::new(), Level::Unknown),
            ("kubernetes", String::new(), Level::Unknown),
            ("kube-proxy", String::new(), Level::Unknown),
            ("sysctl", "node1".to_owned(), Level::Unknown),
            ("sysctl", "node2".to_owned(), Level::Unknown),
            ("sysctl", "node3".to_owned(), Level::Unknown),
            ("ring", "192.0.2.0/24".to_owned(), Level::Unknown),
        ]
    );
}

#[test]
fn what_objects_say_is_told() {
    let probes = well();
    let of = |found: Vec<(&'static str, String, Level)>, check: &str| {
        found
            .into_iter()
            .any(|it| it.0 == check && it.2 == Level::Problem)
    };
    let old = changed("Node", |it| {
        it["status"]["nodeInfo"]["kernelVersion"] = "5.10.0".into();
    });
    assert!(of(wrong(&old, &probes), "kernel"));
    let none = changed("Speaker", |it| {
        it["status"]["dataPlane"]["mode"] = "none".into();
    });
    assert!(of(wrong(&none, &probes), "data plane"));
    let cut = changed("Speaker", |it| {
        it["status"]["segments"][0]["carrier"] = false.into();
    });
    assert!(of(wrong(&cut, &probes), "interface"));
    let two = changed("Speaker", |it| {
        let segments = it["status"]["segments"].as_array_mut().unwrap();
        segments.push(segments[0].clone());
    });
    assert!(of(wrong(&two, &probes), "sysctl"), "rp_filter is strict");
    let mut pending = serving();
    pending.push(service(
        "late",
        &json!({"heraldlb.io/pool": "nowhere"}),
        &[],
    ));
    assert!(of(wrong(&pending, &probes), "services"));
    let mut invalid = serving();
    invalid.push(pool(
        "bad",
        &json!({"addresses": ["192.0.2.30-192.0.2.20"]}),
    ));
    assert!(of(wrong(&invalid, &probes), "object"));
    let mut routed = serving();
    routed.push(pool("routed", &json!({"addresses": ["203.0.113.0/28"]})));
    let expected = [("pool", "routed".to_owned(), Level::Warning)];
    assert_eq!(wrong(&routed, &probes), expected);
}

#[test]
fn what_may_not_be_seen_is_unknown_and_no_problem() {
    let levels = |picture: &Picture| -> Vec<(&'static str, Level)> {
        let found = check(picture, &well()).findings.into_iter();
        found
            .filter(|it| ["controller", "speakers"].contains(&it.check))
            .map(|it| (it.check, it.level))
            .collect()
    };
    let mut hidden = picture(&serving());
    let both = |level| vec![("controller", level), ("speakers", level)];
    assert_eq!(levels(&hidden), both(Level::Problem));
    hidden.objects.installation.is_hidden = true;
    assert_eq!(levels(&hidden), both(Level::Unknown));
}

#[test]
fn findings_read_as_lines_with_their_remedies() {
    let finding = |level, remedy: Option<&str>| Finding {
        check: "ring",
        subject: "192.0.2.0/24".to_owned(),
        level,
        text: "told".to_owned(),
        remedy: remedy.map(str::to_owned),
    };
    let check = Check {
        findings: vec![
            finding(Level::Ok, None),
            finding(Level::Problem, Some("do this")),
        ],
    };
    assert_eq!(
        check.text(Style::default()),
        "\
✓ ring  192.0.2.0/24  told
✗ ring  192.0.2.0/24  told
                      → do this

✗ 1 problem
"
    );
    assert!(!check.is_well());
}
