use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn object(vip: &VirtualIp) -> ApiVirtualIp {
    ApiVirtualIp::new(&VirtualIp::object_name(vip.address), virtual_ip_spec(vip))
}

/// What a watch sees of an object that was written.
fn over_the_wire(object: &ApiVirtualIp) -> ApiVirtualIp {
    serde_json::from_str(&serde_json::to_string(object).unwrap()).unwrap()
}

fn vip() -> VirtualIp {
    VirtualIp {
        address: "192.0.2.10".parse().unwrap(),
        pool: "public".into(),
        epoch: Epoch(3),
        phase: Phase::Resting {
            until: 1_767_323_045,
        },
        announce: Announce::Listed,
        conflict_policy: ConflictPolicy::Yield,
        advertisements: vec!["lan".into()],
        services: vec![ServiceRef {
            key: ServiceKey::new("shop", "web"),
            uid: "0c9d".into(),
        }],
        segments: vec![VipSegment {
            name: "192.0.2.0/24".into(),
            candidates: vec![Candidate {
                node: "node1".into(),
                incarnation: Incarnation(2),
            }],
        }],
    }
}

#[test]
fn a_claim_looks_as_documented_on_the_wire() {
    let object = serde_json::to_value(object(&vip())).unwrap();
    assert_eq!(object["metadata"]["name"], "192-0-2-10");
    assert_eq!(
        object["spec"],
        serde_json::json!({
            "address": "192.0.2.10",
            "pool": "public",
            "epoch": 3,
            "phase": "Resting",
            "until": "2026-01-02T03:04:05Z",
            "announce": "Listed",
            "conflictPolicy": "Yield",
            "advertisements": ["lan"],
            "services": [{ "namespace": "shop", "name": "web", "uid": "0c9d" }],
            "segments": [{
                "name": "192.0.2.0/24",
                "candidates": [{ "node": "node1", "incarnation": 2 }],
            }],
        })
    );
}

#[test]
fn a_claim_that_is_not_named_after_its_address_is_refused() {
    let mut object = object(&vip());
    object.metadata.name = Some("192-0-2-11".to_owned());
    assert_eq!(
        virtual_ip(&object).unwrap_err().to_string(),
        "metadata.name is \"192-0-2-11\"; expected \"192-0-2-10\", after spec.address 192.0.2.10"
    );
}

#[test]
fn refusals_name_the_field_and_the_value() {
    type Spoil = fn(&mut VirtualIPSpec);
    let cases: [(Spoil, &str); 4] = [
        (
            |spec| spec.address = "192.0.2".to_owned(),
            "spec.address \"192.0.2\" is not an IP address",
        ),
        (|spec| spec.epoch = -1, "spec.epoch is -1, below zero"),
        (|spec| spec.until = None, "spec.until is missing"),
        (
            |spec| spec.segments[0].candidates[0].incarnation = -4,
            "spec.segments[0]: the incarnation of node1 is -4, below zero",
        ),
    ];
    for (spoil, expected) in cases {
        let mut object = object(&vip());
        spoil(&mut object.spec);
        let got = virtual_ip(&object).unwrap_err().to_string();
        assert!(got.starts_with(expected), "{got}");
    }
}

#[test]
fn numbers_beyond_the_api_become_its_largest() {
    let mut vip = vip();
    vip.epoch = Epoch(u64::MAX);
    vip.phase = Phase::Resting { until: i64::MAX };
    let read = virtual_ip(&over_the_wire(&object(&vip))).unwrap();
    assert_eq!(read.epoch, Epoch(u64::MAX >> 1));
    assert!(matches!(read.phase, Phase::Resting { until } if until > 250_000_000_000));
}

fn addresses() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<[u8; 4]>().prop_map(IpAddr::from),
        any::<[u8; 16]>().prop_map(IpAddr::from),
        Just("::".parse().unwrap()),
        Just("::ffff:192.0.2.1".parse().unwrap()),
    ]
}

fn phases() -> impl Strategy<Value = Phase> {
    prop_oneof![
        Just(Phase::Probing),
        Just(Phase::Active),
        // Years 1970 to 9999, which RFC 3339 can write.
        (0..253_402_207_200_i64).prop_map(|until| Phase::Resting { until }),
    ]
}

fn segments() -> impl Strategy<Value = VipSegment> {
    let candidate =
        ("[a-z0-9.-]{1,12}", 0..=u64::MAX >> 1).prop_map(|(node, incarnation)| Candidate {
            node: node.into(),
            incarnation: Incarnation(incarnation),
        });
    ("[ -~]{1,20}", vec(candidate, 0..=3)).prop_map(|(name, candidates)| VipSegment {
        name: name.into(),
        candidates,
    })
}

fn vips() -> impl Strategy<Value = VirtualIp> {
    let service =
        ("[a-z]{1,8}", "[a-z]{1,8}", "[0-9a-f-]{1,36}").prop_map(|(namespace, name, uid)| {
            ServiceRef {
                key: ServiceKey::new(namespace, name),
                uid: uid.into(),
            }
        });
    let announce = prop_oneof![
        Just(Announce::All),
        Just(Announce::Listed),
        Just(Announce::None)
    ];
    let policy = prop_oneof![Just(ConflictPolicy::Defend), Just(ConflictPolicy::Yield)];
    (
        (
            addresses(),
            "[a-z]{1,8}",
            0..=u64::MAX >> 1,
            phases(),
            (announce, policy),
        ),
        vec("[a-z]{1,8}", 0..3),
        vec(service, 0..3),
        vec(segments(), 0..3),
    )
        .prop_map(
            |((address, pool, epoch, phase, who), advertisements, services, segments)| {
                let (announce, conflict_policy) = who;
                VirtualIp {
                    address,
                    pool: pool.into(),
                    epoch: Epoch(epoch),
                    phase,
                    announce,
                    conflict_policy,
                    advertisements: advertisements.into_iter().map(Into::into).collect(),
                    services,
                    segments,
                }
            },
        )
}

proptest! {
    #[test]
    fn a_claim_reads_as_it_was_written(vip in vips()) {
        prop_assert_eq!(virtual_ip(&over_the_wire(&object(&vip))), Ok(vip));
    }
}
