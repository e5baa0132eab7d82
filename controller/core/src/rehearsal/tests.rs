use std::net::IpAddr;

use herald_model::{Announce, Departure, Family, IpFamilyPolicy, NodeName, Phase, Selector};

use super::*;
use crate::account::Obstacle;
use crate::allocator::{Disagreement, Refusal};
use crate::testkit::{
    advertised, advertisement, ip, key, node, pool, speaker, speaker_pod, svc, well,
};

/// 2026-11-30.
const NOW: i64 = 1_796_000_000;

fn three() -> Vec<Input> {
    ["n1", "n2", "n3"].into_iter().flat_map(well).collect()
}

fn rehearse(inputs: impl IntoIterator<Item = Input>) -> Rehearsal {
    let mut rehearsal = Rehearsal::new(NOW, three().into_iter().chain(inputs));
    rehearsal.settle();
    rehearsal
}

fn shows(rehearsal: &Rehearsal, name: &str) -> Vec<IpAddr> {
    rehearsal
        .controller()
        .service(&key(name))
        .unwrap()
        .ingress
        .clone()
}

fn problem(rehearsal: &Rehearsal, name: &str) -> Option<Refusal> {
    rehearsal
        .controller()
        .service_account(&key(name))
        .unwrap()
        .problem
}

/// What speaks against each node, on the only segment.
fn obstacles(rehearsal: &Rehearsal, address: &str) -> Vec<(NodeName, Vec<Obstacle>)> {
    let account = rehearsal.controller().address_account(ip(address)).unwrap();
    let nodes = account
        .segments
        .into_iter()
        .flat_map(|segment| segment.nodes);
    nodes.map(|node| (node.node, node.obstacles)).collect()
}

#[test]
fn a_new_service_is_claimed_planned_and_shown() {
    let rehearsal = rehearse([
        pool("public")
            .range("192.0.2.10/31")
            .with(|pool| pool.conflict_probe = true)
            .applied(),
        svc("ns/web").port(80).applied(),
    ]);
    assert_eq!(shows(&rehearsal, "ns/web"), [ip("192.0.2.10")]);
    let vip = &rehearsal.controller().vip(ip("192.0.2.10")).unwrap().vip;
    assert_eq!(vip.phase, Phase::Active);
    assert_eq!(vip.segments[0].candidates.len(), 3);
}

#[test]
fn a_deleted_pool_gives_its_services_to_another_or_leaves_them_pending() {
    let mut rehearsal = rehearse([
        pool("first").range("192.0.2.10/31").priority(9).applied(),
        pool("second").range("192.0.2.20/32").applied(),
        svc("ns/a").created(1).applied(),
        svc("ns/b").created(2).applied(),
    ]);
    assert_eq!(shows(&rehearsal, "ns/b"), [ip("192.0.2.11")]);
    rehearsal.tell(Input::PoolDeleted("first".into()));
    rehearsal.settle();
    assert_eq!(shows(&rehearsal, "ns/a"), [ip("192.0.2.20")]);
    assert_eq!(shows(&rehearsal, "ns/b"), [] as [IpAddr; 0]);
    assert!(matches!(
        problem(&rehearsal, "ns/b"),
        Some(Refusal::Exhausted { .. })
    ));
    assert!(rehearsal.controller().vip(ip("192.0.2.10")).is_none());
}

#[test]
fn what_was_rehearsed_is_at_rest() {
    let inputs = [
        pool("public").range("192.0.2.0/28").applied(),
        svc("ns/a").applied(),
        svc("ns/b").applied(),
    ];
    let first = rehearse(inputs.clone());
    let claims = first.controller().vips().cloned();
    let claims = claims.map(|vip| Input::VipApplied(Box::new(vip)));
    let services = first.controller().services().cloned();
    let services = services.map(|service| Input::ServiceApplied(Box::new(service)));
    let pool = inputs.into_iter().take(1);
    let again = rehearse(pool.chain(services).chain(claims));
    let of = |rehearsal: &Rehearsal| rehearsal.controller().vips().cloned().collect::<Vec<_>>();
    assert_eq!(of(&again), of(&first));
}

#[test]
fn a_cordoned_node_is_first_nowhere() {
    let mut rehearsal = rehearse([
        pool("public").range("192.0.2.0/28").applied(),
        svc("ns/a").applied(),
    ]);
    let first = |rehearsal: &Rehearsal| {
        let vip = rehearsal.controller().vips().next().unwrap();
        vip.vip.segments[0].candidates[0].node.clone()
    };
    let holder = first(&rehearsal);
    let mut leaves = node(holder.as_str());
    leaves.departure = Some(Departure::Cordoned);
    rehearsal.tell(Input::NodeApplied(Box::new(leaves)));
    rehearsal.settle();
    assert_ne!(first(&rehearsal), holder);
}

#[test]
fn every_pool_says_what_it_would_give_or_why_not() {
    let rehearsal = rehearse([
        pool("db")
            .range("192.0.2.0/28")
            .priority(9)
            .namespace("db")
            .applied(),
        pool("inner")
            .range("192.0.3.0/28")
            .priority(8)
            .with(|it| it.scope = herald_model::Scope::Internal)
            .applied(),
        pool("public").range("192.0.4.1/32").applied(),
        pool("six").range("2001:db8::/120").priority(-1).applied(),
        svc("ns/web").applied(),
    ]);
    let account = rehearsal
        .controller()
        .service_account(&key("ns/web"))
        .unwrap();
    let offers: Vec<(&str, Result<usize, &str>)> = account
        .offers
        .iter()
        .map(|offer| {
            let outcome = offer.outcome.as_ref();
            (
                offer.pool.as_str(),
                outcome.map(Vec::len).map_err(Refusal::kind),
            )
        })
        .collect();
    assert_eq!(
        offers,
        [
            ("db", Err("NotAllowed")),
            ("inner", Err("NotAllowed")),
            // Its only address is the Service's own by now.
            ("public", Err("PoolExhausted")),
            ("six", Err("NoAddressOfFamily")),
        ]
    );
    assert_eq!(account.target, [ip("192.0.4.1")]);
    assert_eq!(account.problem, None);
}

#[test]
fn a_service_with_one_of_two_families_says_what_is_missing() {
    let both = [Family::V4, Family::V6];
    let rehearsal = rehearse([
        pool("four").range("192.0.2.0/28").applied(),
        svc("ns/web")
            .families(&both, IpFamilyPolicy::PreferDualStack)
            .applied(),
    ]);
    let account = rehearsal
        .controller()
        .service_account(&key("ns/web"))
        .unwrap();
    assert_eq!(
        account.missing.map(|refusal| refusal.kind()),
        Some("NoAddressOfFamily")
    );
}

#[test]
fn who_would_not_share_an_address_says_why() {
    let asks = |name: &str| svc(name).port(80).requests(&["192.0.2.1"]);
    let cases = [
        (
            asks("ns/b"),
            Disagreement::NoKey {
                ours: None,
                theirs: Some("one".into()),
            },
        ),
        (
            asks("ns/b").sharing("two"),
            Disagreement::OtherKey {
                ours: "two".into(),
                theirs: "one".into(),
            },
        ),
        (
            asks("ns/b").sharing("one"),
            Disagreement::SamePort {
                protocol: herald_model::Protocol::Tcp,
                port: 80,
            },
        ),
        (
            asks("ns/b").sharing("one").with(|it| {
                it.ports.clear();
                it.traffic_policy = herald_model::TrafficPolicy::Local;
            }),
            Disagreement::OtherPods,
        ),
    ];
    for (asker, disagreement) in cases {
        let rehearsal = rehearse([
            pool("public").range("192.0.2.1/32").applied(),
            svc("ns/a").port(80).sharing("one").applied(),
            asker.created(9).applied(),
        ]);
        let account = rehearsal
            .controller()
            .service_account(&key("ns/b"))
            .unwrap();
        let expected = vec![(ip("192.0.2.1"), key("ns/a"), disagreement)];
        assert_eq!(account.disagreements, expected);
        assert!(matches!(account.problem, Some(Refusal::Taken { .. })));
    }
}

#[test]
fn each_node_says_what_speaks_against_it() {
    let mut excluded = node("excluded");
    excluded.excluded = true;
    let mut cut = speaker("n2");
    cut.segments[0].carrier = false;
    let mut cordoned = node("n1");
    cordoned.departure = Some(Departure::Cordoned);
    let rehearsal = rehearse([
        pool("public").range("192.0.2.1/32").applied(),
        svc("ns/web").applied(),
        Input::NodeApplied(Box::new(excluded)),
        Input::SpeakerApplied(Box::new(speaker("excluded"))),
        Input::NodeApplied(Box::new(node("bare"))),
        Input::NodeApplied(Box::new(cordoned)),
        Input::SpeakerApplied(Box::new(cut)),
        Input::SpeakerPodApplied(speaker_pod("n3", false)),
    ]);
    let departure = Departure::Cordoned;
    let interface = "eth0".into();
    assert_eq!(
        obstacles(&rehearsal, "192.0.2.1"),
        [
            ("n1".into(), vec![Obstacle::Departs { departure }]),
            ("n2".into(), vec![Obstacle::NoCarrier { interface }]),
            ("n3".into(), vec![Obstacle::SpeakerNotReady]),
        ]
    );
    let controller = rehearsal.controller();
    let absent = controller.address_account(ip("192.0.2.1")).unwrap().absent;
    assert_eq!(
        absent,
        [
            ("bare".into(), Obstacle::NoSpeaker),
            ("excluded".into(), Obstacle::Excluded)
        ]
    );
    for (name, expected) in [
        ("n1", vec![Obstacle::Departs { departure }]),
        ("bare", vec![Obstacle::NoSpeaker]),
        ("excluded", vec![Obstacle::Excluded]),
        ("nobody", vec![Obstacle::NoNode]),
    ] {
        assert_eq!(controller.node_obstacles(&name.into()), expected);
    }
}

#[test]
fn an_advertisement_says_whom_it_leaves_out() {
    let mut by_node = advertisement("by-node");
    by_node.node_selectors = vec![Selector::label("node", "n1")];
    let mut by_interface = advertisement("by-interface");
    by_interface.node_selectors = vec![Selector::label("node", "n2")];
    by_interface.interfaces = vec![herald_model::InterfacePattern("bond*".to_owned())];
    let mut of_others = advertisement("of-others");
    of_others.pools = ["another".into()].into();
    let rehearsal = rehearse([
        pool("public").range("192.0.2.1/32").applied(),
        svc("ns/web").applied(),
        advertised(by_node),
        advertised(by_interface),
        advertised(of_others),
    ]);
    assert_eq!(
        obstacles(&rehearsal, "192.0.2.1"),
        [
            ("n1".into(), vec![]),
            ("n2".into(), vec![Obstacle::InterfaceNotSelected]),
            ("n3".into(), vec![Obstacle::NodeNotSelected]),
        ]
    );
    let account = rehearsal
        .controller()
        .address_account(ip("192.0.2.1"))
        .unwrap();
    assert_eq!(account.announce, Announce::Listed);
    let counted: Vec<(&str, bool)> = account
        .advertisements
        .iter()
        .map(|it| (it.name.as_str(), it.selects_pool && it.selects_services))
        .collect();
    assert_eq!(
        counted,
        [
            ("by-interface", true),
            ("by-node", true),
            ("of-others", false)
        ]
    );
}

#[test]
fn a_pool_that_only_an_advertisement_announces_says_so() {
    let explicit = pool("public").range("192.0.2.1/32").with(|pool| {
        pool.advertisement = herald_model::AdvertisementPolicy::Explicit;
    });
    let rehearsal = rehearse([explicit.applied(), svc("ns/web").applied()]);
    let account = rehearsal
        .controller()
        .address_account(ip("192.0.2.1"))
        .unwrap();
    assert_eq!(account.announce, Announce::None);
    let nodes = obstacles(&rehearsal, "192.0.2.1");
    assert!(
        nodes
            .iter()
            .all(|(_, it)| *it == [Obstacle::NoAdvertisement]),
        "{nodes:?}"
    );
}
