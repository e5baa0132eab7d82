use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::probe::{Counted, Mode};
use super::*;
use crate::testkit::{NOW, condition, picture, pool, service, serving, vip};

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
    let other = changed("Node", |it| {
        it["status"]["nodeInfo"]["architecture"] = "riscv64".into();
    });
    assert!(of(wrong(&other, &probes), "kernel"));
    let ipvs = changed("Speaker", |it| {
        it["status"]["kubeProxyMode"] = "ipvs".into();
    });
    let nodes = ["node1", "node2", "node3"].map(str::to_owned);
    let expected = nodes.map(|node| ("kube-proxy", node, Level::Warning));
    assert_eq!(wrong(&ipvs, &probes), expected);
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
fn what_a_speaker_lacks_is_told_one_by_one() {
    let told = changed("Speaker", |it| {
        let ready = &mut it["status"]["conditions"][0];
        ready["message"] = "announces; forwarding is left to kube-proxy; the kernel refused real-time priority, \
            nice -20 is used; RLIMIT_MEMLOCK is too low for its code, answers may be late when memory is short; \
            the last of its addresses on eth0 is announced 20 s after the first, as announceBurst and announceRate \
            allow no more; the data plane is full: ns/web: there is no room for its 12 source ranges"
            .into();
    });
    let found = check(&picture(&told), &well()).findings.into_iter();
    let of_speaker = found.filter(|it| it.check == "speaker" && it.subject == "node1");
    let remedies: Vec<_> = of_speaker.filter_map(|it| it.remedy).collect();
    let words = [
        "requests.cpu",
        "LimitMEMLOCK",
        "speaker.announceRate",
        "forwarding: \"off\"",
    ];
    assert_eq!(remedies.len(), words.len(), "{remedies:?}");
    for (remedy, word) in remedies.iter().zip(words) {
        assert!(remedy.contains(word), "{remedy}");
    }
}

#[test]
fn what_shows_of_switches_hypervisors_and_clouds_is_told() {
    let probes = well();
    let unseen = changed("VirtualIP", |it| {
        let all = it["status"]["conditions"].as_array_mut().unwrap();
        let mut verified = condition("Verified", "False", "NobodyAnswers");
        verified["message"] = "nobody answered".into();
        all.push(verified);
    });
    let expected = [("switch", "192.0.2.10".to_owned(), Level::Problem)];
    assert_eq!(wrong(&unseen, &probes), expected);
    let rented = changed("Node", |it| {
        it["spec"] = json!({"providerID": "aws:///eu-1a/i-7"});
    });
    let expected = [("cloud", "aws".to_owned(), Level::Warning)];
    assert_eq!(wrong(&rented, &probes), expected);
    let own = changed("Node", |it| {
        it["spec"] = json!({"providerID": "metal3://a/b"});
    });
    assert_eq!(wrong(&own, &probes), []);
    let virtual_ones = changed("Speaker", |it| {
        it["status"]["segments"][0]["mac"] = "bc:24:11:00:00:01".into();
    });
    let found = check(&picture(&virtual_ones), &probes).findings;
    let found = found.iter().find(|it| it.check == "hypervisor").unwrap();
    assert_eq!(found.level, Level::Info);
    assert!(
        found.text.contains("node1, node2, node3: of Proxmox"),
        "{found:?}"
    );
}

#[test]
fn addresses_that_are_too_many_for_a_switch_that_counts_are_told() {
    let frames = |addresses: u8, burst: u64, rate: u64| {
        let mut all = serving();
        for last in 11..10 + addresses {
            let name = format!("web{last}");
            all.push(service(&name, &json!({}), &[&format!("192.0.2.{last}")]));
            all.push(vip(last, "public", &name, 2));
        }
        let mut picture = picture(&all);
        let args = [
            format!("--announce-burst={burst}"),
            format!("--announce-rate={rate}"),
        ];
        let set = json!({
            "metadata": {},
            "spec": {
                "selector": {},
                "template": {"spec": {"containers": [{"name": "speaker", "args": args}]}},
            },
        });
        picture.objects.installation.speaker = serde_json::from_value(set).unwrap();
        let found = check(&picture, &well()).findings.into_iter();
        let mut switch = found.filter(|it| it.check == "switch");
        switch.next().map(|it| (it.level, it.text))
    };
    assert_eq!(frames(1, 2_000, 100), None);
    let (level, text) = frames(2, 2_000, 100).unwrap();
    assert_eq!(level, Level::Info);
    assert!(
        text.contains("2 IPv4 addresses announces them by 16 frames"),
        "{text}"
    );
    assert_eq!(frames(2, 10, 5), None, "the rates allow no more than 15");
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
