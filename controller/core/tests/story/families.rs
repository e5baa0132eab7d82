//! Services of two families, and what becomes of them when they or their pools change.

use std::net::IpAddr;

use herald_controller_core::testkit::{PoolBuilder, ServiceBuilder, ip, pool, svc, well};
use herald_model::IpFamilyPolicy::{PreferDualStack, RequireDualStack, SingleStack};
use herald_model::{Family, IpFamilyPolicy};

use super::teller::Story;

const BOTH: [Family; 2] = [Family::V4, Family::V6];

fn with_pools(pools: impl IntoIterator<Item = PoolBuilder>) -> Story {
    let mut story = Story::default();
    story.tell(well("n1"));
    story.tell(pools.into_iter().map(PoolBuilder::applied));
    story.lead();
    story.skip();
    story
}

fn dual_pool(name: &str, number: u8) -> PoolBuilder {
    pool(name)
        .range(&format!("10.{number}.0.0/30"))
        .range(&format!("fd00:{number}::/126"))
}

fn dual(name: &str, policy: IpFamilyPolicy) -> ServiceBuilder {
    svc(name).families(&BOTH, policy)
}

fn shown(story: &Story, name: &str) -> Vec<IpAddr> {
    story.status_of(name).ingress
}

fn addresses<const N: usize>(all: [&str; N]) -> Vec<IpAddr> {
    all.map(ip).to_vec()
}

#[test]
fn a_service_that_becomes_single_stack_gives_the_second_address_back_and_keeps_the_first() {
    let mut story = with_pools([dual_pool("p", 0)]);
    story.tell([dual("ns/web", PreferDualStack).applied()]);
    assert_eq!(shown(&story, "ns/web"), addresses(["10.0.0.0", "fd00::"]));
    story.skip();
    story.change("ns/web", |service| {
        service.families = vec![Family::V4];
        service.ip_family_policy = SingleStack;
    });
    assert_eq!(shown(&story, "ns/web"), addresses(["10.0.0.0"]));
    assert_eq!(story.count("delete fd00::"), 1);
    assert_eq!(story.count("delete 10.0.0.0"), 0);
}

#[test]
fn require_that_becomes_prefer_changes_nothing() {
    let mut story = with_pools([dual_pool("p", 0)]);
    story.tell([dual("ns/web", RequireDualStack).applied()]);
    story.skip();
    story.change("ns/web", |service| {
        service.ip_family_policy = PreferDualStack;
    });
    story.expect(&[]);
}

#[test]
fn a_preferring_service_whose_pool_loses_the_first_family_keeps_the_second() {
    let mut story = with_pools([dual_pool("p", 0)]);
    story.tell([dual("ns/web", PreferDualStack).applied()]);
    story.tell([pool("p").range("fd00::/126").applied()]);
    assert_eq!(shown(&story, "ns/web"), addresses(["fd00::"]));
    // It comes back, and the second has stayed.
    story.tell([dual_pool("p", 0).applied()]);
    assert_eq!(shown(&story, "ns/web"), addresses(["10.0.0.0", "fd00::"]));
}

#[test]
fn a_requiring_service_whose_pool_loses_a_family_gets_both_from_another_pool() {
    let mut story = with_pools([dual_pool("p", 0), dual_pool("q", 1)]);
    story.tell([dual("ns/web", RequireDualStack).applied()]);
    assert_eq!(shown(&story, "ns/web"), addresses(["10.0.0.0", "fd00::"]));
    story.tell([pool("p").range("10.0.0.0/30").applied()]);
    assert_eq!(shown(&story, "ns/web"), addresses(["10.1.0.0", "fd00:1::"]));
}

#[test]
fn a_service_of_ipv6_that_becomes_dual_keeps_its_address_in_front() {
    let mut story = with_pools([dual_pool("p", 0)]);
    let six = svc("ns/web").families(&[Family::V6], SingleStack);
    story.tell([six.applied()]);
    story.change("ns/web", |service| {
        service.families = vec![Family::V6, Family::V4];
        service.ip_family_policy = PreferDualStack;
    });
    assert_eq!(shown(&story, "ns/web"), addresses(["fd00::", "10.0.0.0"]));
}

#[test]
fn a_preferring_service_gets_the_second_family_where_there_is_no_other() {
    let mut story = with_pools([pool("p").range("fd00::/126")]);
    story.tell([dual("ns/web", PreferDualStack).applied()]);
    assert_eq!(shown(&story, "ns/web"), addresses(["fd00::"]));
}

#[test]
fn a_second_family_that_was_full_is_added_when_an_address_is_free() {
    let mut story = with_pools([pool("p").range("10.0.0.0/30").range("fd00::/128")]);
    story.tell([
        svc("ns/six").families(&[Family::V6], SingleStack).applied(),
        dual("ns/web", PreferDualStack).created(1).applied(),
        dual("ns/must", RequireDualStack).created(2).applied(),
    ]);
    assert_eq!(shown(&story, "ns/web"), addresses(["10.0.0.0"]));
    assert_eq!(shown(&story, "ns/must"), addresses([]));
    story.tell([svc("ns/six").deleted()]);
    assert_eq!(shown(&story, "ns/web"), addresses(["10.0.0.0", "fd00::"]));
    story.tell([svc("ns/web").deleted()]);
    assert_eq!(shown(&story, "ns/must"), addresses(["10.0.0.0", "fd00::"]));
}

#[test]
fn requested_addresses_of_both_families_change_together() {
    let mut story = with_pools([dual_pool("p", 0)]);
    let asks = dual("ns/web", RequireDualStack).requests(&["10.0.0.1", "fd00::1"]);
    story.tell([
        asks.applied(),
        svc("ns/other").requests(&["10.0.0.2"]).applied(),
    ]);
    story.change("ns/web", |service| {
        service.request.addresses = ["10.0.0.2", "fd00::2"].map(ip).to_vec();
    });
    // One of them is taken: both old ones stay.
    assert_eq!(shown(&story, "ns/web"), addresses(["10.0.0.1", "fd00::1"]));
    story.tell([svc("ns/other").deleted()]);
    assert_eq!(shown(&story, "ns/web"), addresses(["10.0.0.2", "fd00::2"]));
}

#[test]
fn a_pool_and_a_service_that_change_at_once_end_as_one_after_the_other() {
    let mut story = with_pools([dual_pool("p", 0)]);
    story.tell([dual("ns/web", RequireDualStack).applied()]);
    let four = dual("ns/web", PreferDualStack)
        .version(9)
        .shows(&["10.0.0.0", "fd00::"]);
    story.tell([four.applied(), pool("p").range("10.0.0.0/30").applied()]);
    assert_eq!(shown(&story, "ns/web"), addresses(["10.0.0.0"]));
}
