use std::collections::BTreeMap;

use herald_model::IpFamilyPolicy::{PreferDualStack, RequireDualStack};
use herald_model::{Labels, Protocol, Scope, Selector, TrafficPolicy};
use proptest::prelude::*;

use super::*;
use crate::testkit::{PoolBuilder, ServiceBuilder, ip, labels, pool, svc};

mod history;

const BOTH: [Family; 2] = [Family::V4, Family::V6];

fn allocator(pools: impl IntoIterator<Item = PoolBuilder>) -> Allocator {
    let mut allocator = Allocator::default();
    for builder in pools {
        allocator.set_pool(builder.pool());
    }
    allocator
}

/// Chooses for a Service that has `current`, with a namespace labelled `tier=front`.
fn choose_with(
    allocator: &Allocator,
    service: ServiceBuilder,
    current: &[&str],
) -> Result<Choice, Refusal> {
    let current: Vec<IpAddr> = current.iter().map(|text| ip(text)).collect();
    allocator.choose(Ask {
        service: &service.service(),
        namespace: Some(&labels(&[("tier", "front")])),
        current: &current,
    })
}

fn choose(allocator: &Allocator, service: ServiceBuilder) -> Result<Choice, Refusal> {
    choose_with(allocator, service, &[])
}

fn chosen(allocator: &Allocator, service: ServiceBuilder) -> Vec<String> {
    let choice = choose(allocator, service).unwrap();
    choice.addresses.iter().map(ToString::to_string).collect()
}

/// Chooses and holds.
fn give(allocator: &mut Allocator, service: ServiceBuilder) -> Vec<String> {
    let given = chosen(allocator, service.clone());
    let service = service.service();
    for address in &given {
        let me = choose::service_ref(&service);
        allocator.hold(ip(address), me, Terms::of(&service));
    }
    given
}

fn said(result: Result<Choice, Refusal>) -> (&'static str, String) {
    let refusal = result.unwrap_err();
    (refusal.kind(), refusal.to_string())
}

fn counts(allocator: &Allocator, name: &str) -> (u128, u128, u128) {
    let counts = allocator.counts(&name.into()).v4.unwrap();
    (counts.total, counts.assigned, counts.available)
}

#[test]
fn gives_the_lowest_free_address_and_both_ends_of_a_range() {
    let mut allocator = allocator([pool("p").range("10.0.0.4-10.0.0.6").range("10.0.0.1/32")]);
    let given: Vec<_> = ["a/1", "a/2", "a/3", "a/4"]
        .map(|name| give(&mut allocator, svc(name)))
        .concat();
    assert_eq!(given, ["10.0.0.1", "10.0.0.4", "10.0.0.5", "10.0.0.6"]);
    assert_eq!(
        said(choose(&allocator, svc("a/5"))),
        (
            "PoolExhausted",
            "pool p is full: 4 of 4 IPv4 addresses assigned".to_owned()
        )
    );
    allocator.free(ip("10.0.0.4"));
    assert_eq!(chosen(&allocator, svc("a/5")), ["10.0.0.4"]);
}

#[test]
fn pool_that_avoids_buggy_addresses_gives_254_of_256() {
    let mut allocator = allocator([pool("p")
        .range("10.0.0.0/24")
        .with(|pool| pool.avoid_buggy_ips = true)]);
    let given: Vec<String> = (0..254)
        .flat_map(|n| give(&mut allocator, svc(&format!("a/{n}"))))
        .collect();
    assert_eq!(given.first().unwrap(), "10.0.0.1");
    assert_eq!(given.last().unwrap(), "10.0.0.254");
    assert_eq!(said(choose(&allocator, svc("a/more"))).0, "PoolExhausted");
    assert_eq!(
        said(choose(&allocator, svc("a/x").requests(&["10.0.0.255"]))).0,
        "AddressAvoided"
    );
}

#[test]
fn a_slash_16_fills_with_every_address_once() {
    let mut allocator = allocator([pool("p").range("10.1.0.0/16")]);
    let service = svc("a/b").service();
    for number in 0..65_536_u32 {
        let choice = allocator
            .choose(Ask {
                service: &service,
                namespace: Some(&Labels::new()),
                current: &[],
            })
            .unwrap();
        let expected = Family::V4.address(u128::from(0x0a01_0000 + number));
        assert_eq!(choice.addresses, [expected]);
        allocator.put_aside(expected);
    }
    assert_eq!(counts(&allocator, "p"), (65_536, 0, 0));
}

#[test]
fn higher_priority_comes_first_then_restricted_pools_then_names() {
    let mut allocator = allocator([
        pool("a").range("10.0.1.0/32"),
        pool("b").range("10.0.2.0/32"),
        pool("pinned").range("10.0.3.0/32").namespace("ns"),
        pool("high").range("10.0.4.0/32").priority(7),
        pool("manual")
            .range("10.0.5.0/32")
            .priority(9)
            .with(|pool| pool.auto_assign = false),
    ]);
    let given: Vec<_> = ["ns/1", "ns/2", "ns/3", "ns/4"]
        .map(|name| give(&mut allocator, svc(name)))
        .concat();
    assert_eq!(given, ["10.0.4.0", "10.0.3.0", "10.0.1.0", "10.0.2.0"]);
    assert_eq!(
        chosen(&allocator, svc("ns/5").from_pool("manual")),
        ["10.0.5.0"]
    );
    let (kind, message) = said(choose(&allocator, svc("ns/5")));
    assert_eq!(kind, "PoolExhausted");
    assert!(message.contains("autoAssign off") && message.contains("pool pinned is full"));
}

#[test]
fn a_restriction_that_matches_nothing_allows_nothing() {
    let restricted = |selector: Selector| {
        allocator([pool("p")
            .range("10.0.0.0/24")
            .with(|pool| pool.allowed.namespace_selectors.push(selector))])
    };
    assert!(choose(&restricted(Selector::label("tier", "front")), svc("ns/a")).is_ok());
    let (kind, message) = said(choose(
        &restricted(Selector::label("tier", "back")),
        svc("ns/a"),
    ));
    assert_eq!(kind, "NotAllowed");
    assert_eq!(
        message,
        "pool p allows only namespaces with labels tier=back, and ns is none of them"
    );
    let labelled = allocator([pool("p").range("10.0.0.0/24").service_label("app", "web")]);
    let (kind, message) = said(choose(&labelled, svc("ns/a")));
    assert_eq!(kind, "NotAllowed");
    assert_eq!(message, "pool p allows only Services with labels app=web");
    let web = svc("ns/a").with(|service| service.labels = labels(&[("app", "web")]));
    assert!(choose(&labelled, web).is_ok());
}

#[test]
fn no_selector_of_namespaces_allows_one_that_nobody_told_of() {
    use herald_model::{Operator, Requirement};
    let requirement = |operator| Requirement {
        key: "tier".to_owned(),
        operator,
    };
    for operator in [
        Operator::NotIn(vec!["back".to_owned()]),
        Operator::DoesNotExist,
    ] {
        let selector = Selector {
            requirements: vec![requirement(operator)],
        };
        let allocator = allocator([pool("p")
            .range("10.0.0.0/24")
            .with(|pool| pool.allowed.namespace_selectors.push(selector))]);
        let service = svc("ns/a").service();
        let of = |namespace| {
            allocator.choose(Ask {
                service: &service,
                namespace,
                current: &[],
            })
        };
        assert_eq!(said(of(None)).0, "NotAllowed");
        assert!(of(Some(&Labels::new())).is_ok());
    }
}

#[test]
fn scopes_must_agree_whether_asked_by_pool_address_or_not_at_all() {
    let internal = pool("p")
        .range("10.0.0.0/24")
        .with(|pool| pool.scope = Scope::Internal);
    let allocator = allocator([internal]);
    for service in [
        svc("a/b"),
        svc("a/b").from_pool("p"),
        svc("a/b").requests(&["10.0.0.9"]),
    ] {
        let inside = service
            .clone()
            .with(|service| service.scope = Scope::Internal);
        assert!(choose(&allocator, inside).is_ok());
        assert_eq!(said(choose(&allocator, service)).0, "NotAllowed");
    }
}

#[test]
fn requested_addresses_are_given_or_refused_with_a_reason() {
    let mut allocator = allocator([
        pool("p").range("10.0.0.0/24").range("fd00::/120"),
        pool("q").range("10.1.0.0/24").range("fd01::/120"),
    ]);
    give(&mut allocator, svc("a/owner").requests(&["10.0.0.7"]));
    allocator.put_aside(ip("10.0.0.8"));
    allocator.reserve(ip("10.0.0.9"));
    let dual = || svc("a/b").families(&BOTH, PreferDualStack);
    let cases = [
        (svc("a/b").requests(&["10.9.0.1"]), "OutsidePools"),
        (svc("a/b").requests(&["10.0.0.7"]), "AddressInUse"),
        (svc("a/b").requests(&["10.0.0.8"]), "AddressInUse"),
        (svc("a/b").requests(&["10.0.0.9"]), "AddressReserved"),
        (svc("a/b").requests(&["fd00::1"]), "InvalidRequest"),
        (
            svc("a/b").requests(&["10.0.0.1"]).from_pool("q"),
            "InvalidRequest",
        ),
        (svc("a/b").from_pool("nope"), "UnknownPool"),
        (dual().requests(&["10.0.0.1"]), "InvalidRequest"),
        (dual().requests(&["10.0.0.1", "fd01::1"]), "InvalidRequest"),
    ];
    for (service, kind) in cases {
        let result = choose(&allocator, service.clone());
        assert_eq!(said(result).0, kind, "{:?}", service.service().request);
    }
    assert_eq!(
        chosen(&allocator, dual().requests(&["fd00::1", "10.0.0.1"])),
        ["10.0.0.1", "fd00::1"]
    );
    assert!(
        said(choose(&allocator, svc("a/b").requests(&["10.0.0.7"])))
            .1
            .contains("a/owner")
    );
}

#[test]
fn what_a_service_has_it_keeps_whatever_would_be_chosen_now() {
    let mut allocator = allocator([pool("p").range("10.0.0.0/24")]);
    give(&mut allocator, svc("a/b").requests(&["10.0.0.7"]));
    let now = choose_with(&allocator, svc("a/b"), &["10.0.0.7"]).unwrap();
    assert_eq!(now.addresses, [ip("10.0.0.7")]);
    allocator.reserve(ip("10.0.0.7"));
    allocator.set_pool(pool("better").range("10.1.0.0/24").priority(9).pool());
    let now = choose_with(&allocator, svc("a/b"), &["10.0.0.7"]).unwrap();
    assert_eq!(now.addresses, [ip("10.0.0.7")]);
    allocator.remove_pool(&"p".into());
    let now = choose_with(&allocator, svc("a/b"), &["10.0.0.7"]).unwrap();
    assert_eq!(now.addresses, [ip("10.1.0.0")]);
}

#[test]
fn sharers_need_one_key_different_ports_and_equal_backends() {
    let mut allocator = allocator([pool("p").range("10.0.0.0/24")]);
    let local = |service: ServiceBuilder, app: &str| {
        service.with(|service| {
            service.traffic_policy = TrafficPolicy::Local;
            service.selector = labels(&[("app", app)]);
        })
    };
    let x = |name: &str, port| svc(name).sharing("x").port(port);
    assert_eq!(give(&mut allocator, x("a/1", 80)), ["10.0.0.0"]);
    assert_eq!(give(&mut allocator, x("b/2", 81)), ["10.0.0.0"]);
    assert_eq!(
        give(&mut allocator, x("a/3", 80)),
        ["10.0.0.1"],
        "same port"
    );
    assert_eq!(
        give(&mut allocator, svc("a/4").sharing("y").port(83)),
        ["10.0.0.2"],
        "other key"
    );
    assert_eq!(
        give(&mut allocator, local(x("a/5", 84), "w")),
        ["10.0.0.3"],
        "Local, Cluster"
    );
    assert_eq!(
        give(&mut allocator, local(x("a/6", 85), "w")),
        ["10.0.0.3"],
        "equal selectors"
    );
    assert_eq!(
        give(&mut allocator, local(x("a/7", 86), "v")),
        ["10.0.0.4"],
        "other selector"
    );
    assert_eq!(
        give(&mut allocator, svc("a/8").port(87)),
        ["10.0.0.5"],
        "no key"
    );
    let udp = x("a/9", 80).with(|service| {
        for port in &mut service.ports {
            port.protocol = Protocol::Udp;
        }
    });
    assert_eq!(give(&mut allocator, udp), ["10.0.0.0"], "other protocol");
    assert_eq!(counts(&allocator, "p").1, 6);
}

#[test]
fn a_sharer_that_changes_to_disagree_leaves_and_the_only_user_changes_in_place() {
    let mut allocator = allocator([pool("p").range("10.0.0.0/24")]);
    give(&mut allocator, svc("a/1").sharing("x").port(80));
    let alone = choose_with(&allocator, svc("a/1").sharing("y").port(80), &["10.0.0.0"]);
    assert_eq!(alone.unwrap().addresses, [ip("10.0.0.0")]);
    give(&mut allocator, svc("a/2").sharing("x").port(81));
    let changed = choose_with(&allocator, svc("a/2").sharing("x").port(80), &["10.0.0.0"]);
    assert_eq!(changed.unwrap().addresses, [ip("10.0.0.1")]);
}

#[test]
fn dual_stack_takes_both_addresses_from_one_pool() {
    let pools = || {
        [
            pool("a").range("10.0.0.0/24").priority(9),
            pool("b").range("10.1.0.0/32").range("fd01::/128"),
        ]
    };
    let mut allocator = allocator(pools());
    let require = |name: &str| svc(name).families(&BOTH, RequireDualStack);
    let prefer = |name: &str| svc(name).families(&[Family::V6, Family::V4], PreferDualStack);
    assert_eq!(chosen(&allocator, prefer("a/p")), ["fd01::", "10.1.0.0"]);
    assert_eq!(give(&mut allocator, require("a/r")), ["10.1.0.0", "fd01::"]);
    assert_eq!(said(choose(&allocator, require("a/r2"))).0, "PoolExhausted");
    // The primary family first, then the other.
    let one = choose(&allocator, prefer("a/p")).unwrap();
    assert_eq!(
        (one.addresses, &one.pool),
        (vec![ip("10.0.0.0")], &"a".into())
    );
    assert!(one.missing.is_some());
}

#[test]
fn the_second_family_is_added_from_the_same_pool_only_and_the_first_stays() {
    let mut allocator = allocator([pool("a").range("10.0.0.0/24")]);
    let prefer = || svc("a/p").families(&BOTH, PreferDualStack);
    give(&mut allocator, prefer());
    allocator.set_pool(
        pool("dual")
            .range("10.1.0.0/24")
            .range("fd01::/120")
            .priority(9)
            .pool(),
    );
    let stays = choose_with(&allocator, prefer(), &["10.0.0.0"]).unwrap();
    assert_eq!(stays.addresses, [ip("10.0.0.0")]);
    allocator.set_pool(pool("a").range("10.0.0.0/24").range("fd00::/120").pool());
    let grown = choose_with(&allocator, prefer(), &["10.0.0.0"]).unwrap();
    assert_eq!(grown.addresses, [ip("10.0.0.0"), ip("fd00::")]);
    assert_eq!(grown.missing, None);
}

#[test]
fn the_later_pool_serves_nothing_of_an_overlap() {
    let mut allocator = allocator([
        pool("new")
            .created(2)
            .range("10.0.0.0-10.0.0.9")
            .priority(9),
        pool("old")
            .created(1)
            .range("10.0.0.2-10.0.0.3")
            .range("10.0.0.8-10.0.0.12"),
    ]);
    assert_eq!(counts(&allocator, "new").0, 6);
    assert_eq!(counts(&allocator, "old").0, 7);
    let overlaps: Vec<String> = allocator
        .overlaps(&"new".into())
        .iter()
        .map(|overlap| format!("{} {}", overlap.pool, overlap.range))
        .collect();
    assert_eq!(overlaps, ["old 10.0.0.2-10.0.0.3", "old 10.0.0.8-10.0.0.9"]);
    assert_eq!(allocator.overlaps(&"old".into()), []);
    assert_eq!(
        allocator.pool_of(ip("10.0.0.3")).unwrap().name,
        "old".into()
    );
    allocator.put_aside(ip("10.0.0.3"));
    let affected = allocator.remove_pool(&"old".into());
    assert_eq!(affected, BTreeSet::from([ip("10.0.0.3")]));
    assert_eq!(counts(&allocator, "new"), (10, 0, 9));
    assert_eq!(allocator.overlaps(&"new".into()), []);
}

#[test]
fn addresses_of_nodes_are_never_given_and_no_reason_is_lost() {
    let mut allocator = allocator([pool("p").range("10.0.0.0/30")]);
    for address in ["10.0.0.0", "10.0.0.0", "10.0.0.1"] {
        allocator.reserve(ip(address));
    }
    assert_eq!(chosen(&allocator, svc("a/b")), ["10.0.0.2"]);
    assert_eq!(counts(&allocator, "p"), (2, 0, 2));
    allocator.unreserve(ip("10.0.0.0"));
    assert_eq!(chosen(&allocator, svc("a/b")), ["10.0.0.2"]);
    allocator.unreserve(ip("10.0.0.0"));
    assert_eq!(chosen(&allocator, svc("a/b")), ["10.0.0.0"]);
    assert_eq!(counts(&allocator, "p"), (3, 0, 3));
}

/// What happens to an address in the model below.
#[derive(Clone, Debug)]
enum Op {
    Give,
    Free(u8),
    Reserve(u8),
    Unreserve(u8),
    Pool {
        name: u8,
        first: u8,
        len: u8,
        avoid: bool,
    },
    Remove(u8),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => Just(Op::Give),
        4 => (0..48_u8).prop_map(Op::Free),
        1 => (0..32_u8).prop_map(Op::Reserve),
        1 => (0..32_u8).prop_map(Op::Unreserve),
        2 => (0..3_u8, 0..40_u8, 0..16_u8, any::<bool>())
            .prop_map(|(name, first, len, avoid)| Op::Pool { name, first, len, avoid }),
        1 => (0..3_u8).prop_map(Op::Remove),
    ]
}

/// Addresses around the end of a block of 256, where the avoided ones are.
fn address(number: u8) -> IpAddr {
    Family::V4.address(0x0a00_00f0 + u128::from(number))
}

/// The obvious allocator: looks at every address every time.
#[derive(Default)]
struct Model {
    pools: BTreeMap<u8, (u8, u8, bool)>,
    taken: BTreeSet<u8>,
    reserved: Vec<u8>,
}

impl Model {
    fn pool_of(&self, number: u8) -> Option<(&u8, bool)> {
        let mut owners = self.pools.iter();
        owners
            .find(|(_, (first, len, _))| (*first..=first + len).contains(&number))
            .map(|(name, (_, _, avoid))| (name, *avoid))
    }

    fn lowest(&self) -> Option<IpAddr> {
        let free = |name: &u8, number: &u8| {
            // 0xff and 0x100 from 0xf0.
            let buggy = [15, 16].contains(number);
            self.pool_of(*number)
                .is_some_and(|(owner, avoid)| owner == name && !(avoid && buggy))
                && !self.taken.contains(number)
                && !self.reserved.contains(number)
        };
        self.pools
            .keys()
            .find_map(|name| (0..64).find(|n| free(name, n)))
            .map(address)
    }
}

proptest! {
    /// The allocator does what the obvious one does, after any history; and one that is told of
    /// the outcome in any order is the same.
    #[test]
    fn equals_the_obvious_allocator_and_its_own_readoption(
        ops in prop::collection::vec(op(), 1..120),
        seed in any::<u64>(),
    ) {
        let mut allocator = Allocator::default();
        let mut model = Model::default();
        let build = |name: u8, first: u8, len: u8, avoid: bool| {
            let range = format!("{}-{}", address(first), address(first + len));
            pool(&name.to_string())
                .created(name.into())
                .range(&range)
                .with(|pool| pool.avoid_buggy_ips = avoid)
                .pool()
        };
        let me = |number: u8| svc(&format!("a/{number}"));
        for op in ops {
            match op {
                Op::Give => {
                    let got = choose(&allocator, svc("a/new")).ok().map(|c| c.addresses[0]);
                    prop_assert_eq!(got, model.lowest());
                    if let Some(got) = got {
                        let number = u8::try_from(space::bits(got) - 0x0a00_00f0).unwrap();
                        let service = me(number).service();
                        allocator.hold(got, choose::service_ref(&service), Terms::of(&service));
                        prop_assert!(model.taken.insert(number), "given twice");
                    }
                }
                Op::Free(number) => {
                    allocator.free(address(number));
                    model.taken.remove(&number);
                }
                Op::Reserve(number) => {
                    allocator.reserve(address(number));
                    model.reserved.push(number);
                }
                Op::Unreserve(number) => {
                    allocator.unreserve(address(number));
                    if let Some(place) = model.reserved.iter().position(|n| *n == number) {
                        model.reserved.swap_remove(place);
                    }
                }
                Op::Pool { name, first, len, avoid } => {
                    allocator.set_pool(build(name, first, len, avoid));
                    model.pools.insert(name, (first, len, avoid));
                }
                Op::Remove(name) => {
                    allocator.remove_pool(&name.to_string().into());
                    model.pools.remove(&name);
                }
            }
        }
        // Once more, in another order.
        let mut again = Allocator::default();
        let mut order: Vec<u8> = model.taken.iter().copied().collect();
        let places = order.len().max(1);
        for place in 0..order.len() {
            order.swap(place, usize::try_from(seed % 1009).unwrap() % places);
        }
        for (name, (first, len, avoid)) in model.pools.iter().rev() {
            again.set_pool(build(*name, *first, *len, *avoid));
        }
        for number in &model.reserved {
            again.reserve(address(*number));
        }
        for number in order {
            let service = me(number).service();
            again.hold(address(number), choose::service_ref(&service), Terms::of(&service));
        }
        for name in model.pools.keys() {
            let name = name.to_string().into();
            prop_assert_eq!(allocator.counts(&name), again.counts(&name));
        }
        prop_assert_eq!(choose(&allocator, svc("a/new")), choose(&again, svc("a/new")));
    }
}
