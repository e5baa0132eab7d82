//! Services that wait, and what ends their waiting.

use std::time::Duration;

use herald_controller_core::Input;
use herald_controller_core::testkit::{ip, pool, svc, well};
use herald_model::{Family, IpFamilyPolicy, TrafficPolicy};

use super::teller::Story;

/// One node, one pool of one address, nothing else.
fn one_address() -> Story {
    let mut story = Story::default();
    story.tell(well("n1"));
    story.tell([pool("one").range("10.0.0.0/32").applied()]);
    story.lead();
    story.skip();
    story
}

fn shown(story: &Story, name: &str) -> Vec<std::net::IpAddr> {
    story.status_of(name).ingress
}

fn reason(story: &Story, name: &str) -> String {
    let allocated = story.status_of(name).allocated.expect("a condition");
    allocated.reason.to_string()
}

#[test]
fn sharer_waiting_for_a_port_is_served_when_its_user_leaves_and_others_stay() {
    let mut story = one_address();
    story.tell([
        svc("ns/a").sharing("x").port(80).applied(),
        svc("ns/c").sharing("x").port(81).created(1).applied(),
        svc("ns/b").sharing("x").port(80).created(2).applied(),
    ]);
    assert_eq!(shown(&story, "ns/c"), ["10.0.0.0"].map(ip));
    assert_eq!(reason(&story, "ns/b"), "PoolExhausted");
    story.tell([svc("ns/a").deleted()]);
    assert_eq!(shown(&story, "ns/b"), ["10.0.0.0"].map(ip));
    assert_eq!(shown(&story, "ns/c"), ["10.0.0.0"].map(ip));
}

#[test]
fn sharer_waiting_for_a_port_is_served_when_its_user_gives_the_port_up() {
    let mut story = one_address();
    story.tell([
        svc("ns/a").sharing("x").port(80).applied(),
        svc("ns/b").sharing("x").port(80).created(1).applied(),
    ]);
    assert_eq!(reason(&story, "ns/b"), "PoolExhausted");
    story.change("ns/a", |service| service.ports[0].port = 8080);
    assert_eq!(shown(&story, "ns/b"), ["10.0.0.0"].map(ip));
}

#[test]
fn address_asked_for_by_name_is_shared_as_soon_as_its_owner_gets_the_key() {
    let mut story = one_address();
    let asks = svc("ns/b").sharing("x").port(81).requests(&["10.0.0.0"]);
    story.tell([
        svc("ns/a").port(80).applied(),
        asks.created(1).applied(),
        svc("ns/c").sharing("x").port(82).created(2).applied(),
    ]);
    assert_eq!(reason(&story, "ns/b"), "AddressInUse");
    assert_eq!(reason(&story, "ns/c"), "PoolExhausted");
    story.change("ns/a", |service| service.sharing_key = Some("x".into()));
    for name in ["ns/a", "ns/b", "ns/c"] {
        assert_eq!(shown(&story, name), ["10.0.0.0"].map(ip), "{name}");
    }
}

#[test]
fn sharer_is_served_when_the_owner_turns_to_its_traffic_policy() {
    let mut story = one_address();
    story.tell([
        svc("ns/a").sharing("x").port(80).applied(),
        svc("ns/b")
            .sharing("x")
            .port(81)
            .with(|service| service.traffic_policy = TrafficPolicy::Local)
            .created(1)
            .applied(),
    ]);
    assert_eq!(reason(&story, "ns/b"), "PoolExhausted");
    story.change("ns/a", |service| {
        service.traffic_policy = TrafficPolicy::Local;
    });
    assert_eq!(shown(&story, "ns/b"), ["10.0.0.0"].map(ip));
}

#[test]
fn of_those_who_could_share_the_oldest_comes_first() {
    let mut story = one_address();
    story.tell([
        svc("ns/a").sharing("x").port(80).applied(),
        svc("ns/stays").sharing("x").port(90).created(1).applied(),
        svc("ns/a-late").sharing("x").port(80).created(3).applied(),
        svc("ns/early").sharing("x").port(80).created(2).applied(),
    ]);
    story.tell([svc("ns/a").deleted()]);
    assert_eq!(shown(&story, "ns/early"), ["10.0.0.0"].map(ip));
    assert_eq!(shown(&story, "ns/a-late"), [] as [std::net::IpAddr; 0]);
}

#[test]
fn rest_goes_on_across_a_change_of_leaders_and_the_address_is_given_again_after_it() {
    let mut story = Story::default();
    let resting = pool("p").range("10.0.0.0/32");
    let resting = resting.with(|pool| pool.reuse_delay = Duration::from_mins(1));
    story.tell([resting.applied()]);
    story.lead();
    story.tell([svc("ns/a").applied()]);
    story.tell([svc("ns/a").deleted(), svc("ns/b").applied()]);
    story.pass(Duration::from_secs(40));
    story.tell([Input::LeadershipLost, Input::LEADS_FOR_GOOD]);
    story.pass(Duration::from_secs(15));
    assert!(shown(&story, "ns/b").is_empty());
    story.pass(Duration::from_secs(10));
    assert_eq!(shown(&story, "ns/b"), ["10.0.0.0"].map(ip));
}

#[test]
fn a_key_does_not_open_a_pool_to_a_namespace_that_it_does_not_allow() {
    let mut story = one_address();
    story.tell([pool("one")
        .range("10.0.0.0/32")
        .namespace("a")
        .namespace("b")
        .applied()]);
    let shares = |name: &str, port| svc(name).sharing("x").port(port);
    story.tell([
        shares("a/one", 80).applied(),
        shares("b/two", 81).applied(),
        shares("c/three", 82).applied(),
    ]);
    assert_eq!(shown(&story, "a/one"), ["10.0.0.0"].map(ip));
    assert_eq!(shown(&story, "b/two"), ["10.0.0.0"].map(ip));
    assert_eq!(reason(&story, "c/three"), "NotAllowed");
}

#[test]
fn of_overlapping_ranges_of_ipv6_the_later_pool_gives_nothing_and_says_so() {
    let mut story = Story::default();
    let six = |name: &str, created, range: &str| pool(name).created(created).range(range).applied();
    story.tell([
        six("old", 1, "fd00::/127"),
        six("young", 2, "fd00::-fd00::2"),
    ]);
    story.lead();
    let said =
        "fd00::-fd00::1 also belongs to pool old, created earlier: pool young serves nothing of it";
    let writes = story.writes();
    assert!(
        writes.contains(&format!("pool young v6=1/0/1 Ready=False/Overlap({said})")),
        "{writes:?}"
    );
    let asks = svc("ns/web").from_pool("young");
    story.tell([asks
        .families(&[Family::V6], IpFamilyPolicy::SingleStack)
        .applied()]);
    assert_eq!(shown(&story, "ns/web"), ["fd00::2"].map(ip));
}

#[test]
fn what_is_measured_is_the_time_without_an_address() {
    let (minute, hour) = (Duration::from_mins(1), Duration::from_hours(1));
    let mut story = one_address();
    story.tell([svc("ns/a").applied(), svc("ns/b").created(1).applied()]);
    assert_eq!(story.waits(), [Duration::ZERO], "a waited for nobody");
    story.pass(minute);
    assert_eq!(story.waits(), []);
    story.tell([svc("ns/a").deleted()]);
    assert_eq!(shown(&story, "ns/b"), ["10.0.0.0"].map(ip));
    assert_eq!(story.waits(), [minute]);
    story.tell([pool("one").range("10.0.0.1/32").applied()]);
    assert_eq!(
        shown(&story, "ns/b"),
        ["10.0.0.1"].map(ip),
        "another instead"
    );
    assert_eq!(story.waits(), [], "it was never without one");
    story.change("ns/b", |service| service.request.pool = Some("two".into()));
    story.pass(hour);
    story.change("ns/b", |service| service.request.pool = None);
    assert_eq!(
        story.waits(),
        [],
        "its old address stays until it has another"
    );
}
