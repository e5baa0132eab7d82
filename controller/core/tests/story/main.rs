//! Stories: what is told, and every write that follows, in order.

mod deposed;
mod families;
mod foreign;
mod lan;
mod moves;
mod reasons;
mod teller;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use herald_controller_core::testkit::{
    advertised, advertisement, ip, key, labels, node, pool, speaker, speaker_pod, svc, well,
};
use herald_controller_core::{Condition, Input, PoolStatus, TextCounts, UserObject, WriteResult};
use herald_model::IpFamilyPolicy::PreferDualStack;
use herald_model::{
    AdvertisementPolicy, Endpoint, Family, ForwardingMode, Incarnation, Selector, TrafficPolicy,
};

use teller::Story;

fn failed(refused: bool) -> WriteResult {
    WriteResult::Failed {
        message: "no".to_owned(),
        refused,
    }
}

/// A story that has begun: one node, one pool of four, nothing else.
fn begun() -> Story {
    let mut story = Story::default();
    story.tell(well("n1"));
    story.tell([pool("public").range("10.0.0.0/30").applied()]);
    story.lead();
    story.skip();
    story
}

#[test]
fn service_gets_the_lowest_address_claim_first_then_status_then_event() {
    let mut story = begun();
    story.tell([svc("ns/web").port(80).applied()]);
    story.expect(&[
        "create 10.0.0.0 public e1 Active All [ns/web] lan:n1",
        "status ns/web@1 [10.0.0.0] Allocated=True/Allocated(10.0.0.0 from pool public) from=public",
        "event ns/web Normal AddressAllocated: assigned 10.0.0.0 from pool public",
        "pool public v4=4/1/3 Ready=True/Ready(in use)",
    ]);
}

#[test]
fn standby_writes_nothing_and_takes_over_warm() {
    let mut story = Story::default();
    story.tell(well("n1"));
    story.tell([
        pool("public").range("10.0.0.0/30").applied(),
        svc("ns/web").applied(),
    ]);
    story.tell([Input::Synced]);
    story.expect(&[]);
    story.tell([Input::LEADS_FOR_GOOD]);
    assert_eq!(story.count("create"), 1);
}

#[test]
fn leader_that_lost_its_lease_begins_no_write() {
    let mut story = begun();
    story.tell([Input::LeadershipLost, svc("ns/web").applied()]);
    story.pass(Duration::from_mins(1));
    story.expect(&[]);
}

#[test]
fn releases_address_when_service_deleted() {
    let mut story = begun();
    story.tell([svc("ns/web").applied()]);
    story.skip();
    story.tell([svc("ns/web").deleted()]);
    story.expect(&[
        "delete 10.0.0.0",
        "pool public v4=4/0/4 Ready=True/Ready(in use)",
    ]);
}

#[test]
fn service_of_another_type_is_cleared_before_its_claim_goes() {
    let mut story = begun();
    story.tell([svc("ns/web").applied()]);
    story.skip();
    story.become_foreign("ns/web");
    story.expect(&[
        "status ns/web@3 []",
        "delete 10.0.0.0",
        "event ns/web Normal AddressReleased: gave back 10.0.0.0: the Service is not Herald's any more",
        "pool public v4=4/0/4 Ready=True/Ready(in use)",
    ]);
}

#[test]
fn services_that_never_were_ours_are_not_touched() {
    let mut story = begun();
    story.tell([svc("ns/other").shows(&["10.0.0.1"]).foreign()]);
    story.expect(&[]);
}

#[test]
fn changed_request_keeps_the_old_address_until_the_new_one_is_certain() {
    let mut story = begun();
    story.tell([svc("ns/web").applied()]);
    story.skip();
    story.answer("create 10.0.0.2", failed(false));
    story.change("ns/web", |service| {
        service.request.addresses = vec![ip("10.0.0.2")];
    });
    story.expect_now(&["create 10.0.0.2 public e1 Active All [ns/web] lan:n1"]);
    story.pass(Duration::from_secs(1));
    story.expect(&[
        "create 10.0.0.2 public e1 Active All [ns/web] lan:n1",
        "status ns/web@3 [10.0.0.2] Allocated=True/Allocated(10.0.0.2 from pool public) from=public",
        "delete 10.0.0.0",
        "event ns/web Normal AddressAllocated: assigned 10.0.0.2 from pool public instead of 10.0.0.0",
    ]);
}

#[test]
fn request_that_cannot_be_met_is_said_once_and_the_address_stays() {
    let mut story = begun();
    story.tell([svc("ns/web").applied()]);
    story.skip();
    story.change("ns/web", |service| {
        service.request.addresses = vec![ip("1.2.3.4")];
    });
    let reason = "address 1.2.3.4 is in no pool: add it to an IPPool or request another one; until then it keeps 10.0.0.0";
    story.expect(&[
        &format!("status ns/web@3 [10.0.0.0] Allocated=False/OutsidePools({reason}) from=public"),
        &format!("event ns/web Warning AllocationFailed: {reason}"),
    ]);
    story.tell([pool("other").range("10.5.0.0/30").applied()]);
    story.expect(&["pool other v4=4/0/4 Ready=True/Ready(in use)"]);
}

#[test]
fn pending_services_are_served_in_the_order_of_creation_when_an_address_is_free() {
    let mut story = Story::default();
    story.tell(well("n1"));
    story.tell([pool("one").range("10.0.0.0/32").applied()]);
    story.lead();
    story.tell([svc("ns/first").created(1).applied()]);
    story.tell([
        svc("ns/a-third").created(3).applied(),
        svc("ns/second").created(2).applied(),
    ]);
    story.skip();
    story.tell([svc("ns/first").deleted()]);
    let writes = story.writes();
    assert_eq!(
        writes[..2],
        [
            "delete 10.0.0.0",
            "create 10.0.0.0 one e1 Active All [ns/second] lan:n1",
        ]
    );
    assert!(
        !writes.iter().any(|write| write.contains("a-third")),
        "{writes:?}"
    );
}

#[test]
fn pool_grown_serves_pending_services_without_touching_them() {
    let mut story = Story::default();
    story.tell([pool("p").range("10.0.0.0/32").applied()]);
    story.lead();
    story.tell([svc("ns/a").applied(), svc("ns/b").created(1).applied()]);
    story.skip();
    story.tell([pool("p").range("10.0.0.0/31").applied()]);
    assert_eq!(story.writes()[0], "create 10.0.0.1 p e1 Active All [ns/b]");
}

#[test]
fn services_of_a_deleted_pool_get_addresses_elsewhere_or_give_theirs_up() {
    let mut story = begun();
    story.tell([pool("spare").range("10.1.0.0/32").priority(-1).applied()]);
    story.tell([svc("ns/a").applied(), svc("ns/b").created(1).applied()]);
    story.skip();
    story.tell([pool("public").deleted()]);
    story.expect(&[
        "create 10.1.0.0 spare e1 Active All [ns/a] lan:n1",
        "status ns/b@2 [] Allocated=False/PoolExhausted(pool spare is full: 1 of 1 IPv4 addresses assigned)",
        "delete 10.0.0.1",
        "status ns/a@2 [10.1.0.0] Allocated=True/Allocated(10.1.0.0 from pool spare) from=spare",
        "event ns/b Normal AddressReleased: gave back 10.0.0.1: pool spare is full: 1 of 1 IPv4 addresses assigned",
        "event ns/b Warning AllocationFailed: pool spare is full: 1 of 1 IPv4 addresses assigned",
        "delete 10.0.0.0",
        "event ns/a Normal AddressAllocated: assigned 10.1.0.0 from pool spare instead of 10.0.0.0",
        "pool spare v4=1/1/0 Ready=True/Ready(in use)",
    ]);
}

#[test]
fn address_taken_by_another_claim_is_left_and_the_next_one_taken() {
    let mut story = begun();
    let other = svc("ns/other").shows(&["10.0.0.0"]);
    story.have_claim("10.0.0.0", "public", &["ns/other"]);
    story.tell([other.applied(), svc("ns/web").created(1).applied()]);
    let writes = story.writes();
    assert!(
        writes
            .iter()
            .any(|w| w.starts_with("create 10.0.0.1 public")),
        "{writes:?}"
    );
    assert!(
        !writes.iter().any(|w| w.starts_with("delete 10.0.0.0")),
        "{writes:?}"
    );
}

#[test]
fn status_without_claim_gets_one_and_is_not_touched() {
    let mut story = begun();
    story.tell([svc("ns/web").shows(&["10.0.0.2"]).applied()]);
    let writes = story.writes();
    assert_eq!(
        writes[0],
        "create 10.0.0.2 public e1 Active All [ns/web] lan:n1"
    );
    assert!(
        writes[1].starts_with("status ns/web@1 [10.0.0.2] Allocated=True"),
        "{writes:?}"
    );
}

#[test]
fn two_statuses_with_one_address_the_older_keeps_it_and_the_loser_says_so() {
    let mut story = Story::default();
    story.tell([
        pool("p").range("10.0.0.0/30").applied(),
        svc("ns/old").created(1).shows(&["10.0.0.3"]).applied(),
        svc("ns/a-new").created(2).shows(&["10.0.0.3"]).applied(),
    ]);
    story.lead();
    let writes = story.writes();
    let has = |text: &str| writes.iter().any(|write| write.starts_with(text));
    assert!(
        has("create 10.0.0.3 p e1 Active All [ns/old]"),
        "{writes:?}"
    );
    assert!(has("status ns/a-new@1 [10.0.0.0]"), "{writes:?}");
    assert!(
        has("event ns/a-new Warning AddressConflict: the status showed 10.0.0.3"),
        "{writes:?}"
    );
}

#[test]
fn failed_status_write_is_tried_again_until_it_succeeds() {
    let mut story = begun();
    for _ in 0..3 {
        story.answer("status ns/web", failed(false));
    }
    story.tell([svc("ns/web").applied()]);
    story.pass(Duration::from_secs(30));
    assert_eq!(story.count("status ns/web"), 4);
    assert_eq!(story.count("event ns/web"), 1);
}

#[test]
fn refused_claim_is_said_in_the_condition() {
    let mut story = begun();
    story.answer("create 10.0.0.0", failed(true));
    story.tell([svc("ns/web").applied()]);
    assert_eq!(
        story.writes_now()[1],
        "status ns/web@1 [] Allocated=False/ClaimRefused(the API server refused the VirtualIP: no)"
    );
}

#[test]
fn freed_address_rests_as_long_as_its_pool_says() {
    let mut story = Story::default();
    let resting = pool("p")
        .range("10.0.0.0/32")
        .with(|pool| pool.reuse_delay = Duration::from_mins(1));
    story.tell([resting.applied()]);
    story.lead();
    story.tell([svc("ns/a").applied()]);
    story.skip();
    story.tell([svc("ns/a").deleted(), svc("ns/b").applied()]);
    let writes = story.writes();
    assert!(
        writes[0].starts_with("replace 10.0.0.0@1 p e1 Resting(1061) None []"),
        "{writes:?}"
    );
    story.pass(Duration::from_secs(58));
    assert_eq!(story.count("create"), 0);
    story.pass(Duration::from_secs(2));
    let writes = story.writes_now();
    assert_eq!(
        writes[..2],
        ["delete 10.0.0.0", "create 10.0.0.0 p e1 Active All [ns/b]"]
    );
}

#[test]
fn address_moves_when_its_speaker_ends_and_does_not_move_back() {
    let mut story = Story::default();
    for name in ["n1", "n2", "n3"] {
        story.tell(well(name));
    }
    story.tell([pool("p").range("10.0.0.0/30").applied()]);
    story.lead();
    story.tell([svc("ns/web").applied()]);
    let plan = story.plan_of("10.0.0.0");
    story.skip();
    let first = plan[0].clone();
    let mut ends = speaker(&first);
    ends.stopping = true;
    story.tell([Input::SpeakerApplied(Box::new(ends))]);
    story.expect(&[&format!(
        "replace 10.0.0.0@1 p e2 Active All [ns/web] lan:{},{}",
        plan[1], plan[2]
    )]);
    story.tell([Input::SpeakerApplied(Box::new(speaker(&first)))]);
    story.expect(&[&format!(
        "replace 10.0.0.0@2 p e3 Active All [ns/web] lan:{},{},{first}",
        plan[1], plan[2]
    )]);
}

#[test]
fn address_stays_where_it_is_when_its_speaker_only_seems_dead() {
    let mut story = Story::default();
    for name in ["n1", "n2", "n3"] {
        story.tell(well(name));
    }
    story.tell([pool("p").range("10.0.0.0/30").applied()]);
    story.lead();
    story.tell([svc("ns/web").applied()]);
    let plan = story.plan_of("10.0.0.0");
    story.skip();
    story.tell([Input::SpeakerPodApplied(speaker_pod(&plan[0], false))]);
    let mut lost = node(&plan[0]);
    lost.ready = false;
    story.tell([Input::NodeApplied(Box::new(lost))]);
    story.expect(&[]);
    story.announce("10.0.0.0", &plan[1]);
    assert_eq!(story.plan_of("10.0.0.0")[0], plan[1], "the plan follows");
}

#[test]
fn node_that_stalled_gets_nothing_back_though_nobody_is_heard_of_yet_who_took_over() {
    let mut story = Story::default();
    for name in ["n1", "n2", "n3"] {
        story.tell(well(name));
    }
    story.tell([pool("p").range("10.0.0.0/30").applied()]);
    story.lead();
    story.tell([svc("ns/web").applied()]);
    let plan = story.plan_of("10.0.0.0");
    story.announce("10.0.0.0", &plan[0]);
    story.skip();
    let mut reborn = speaker(&plan[0]);
    for segment in &mut reborn.segments {
        segment.incarnation = Incarnation(segment.incarnation.0 + 1);
    }
    story.tell([Input::SpeakerApplied(Box::new(reborn))]);
    story.expect(&[&format!(
        "replace 10.0.0.0@2 p e2 Active All [ns/web] lan:{},{},{}",
        plan[1], plan[2], plan[0]
    )]);
    story.announce("10.0.0.0", &plan[1]);
    story.pass(Duration::from_mins(1));
    assert_eq!(story.count("replace"), 0);
}

#[test]
fn nodes_that_are_not_ready_after_an_outage_of_the_api_server_keep_their_addresses() {
    let mut story = Story::default();
    let names = ["n1", "n2", "n3", "n4", "n5"];
    for name in names {
        story.tell(well(name));
    }
    story.tell([pool("p").range("10.0.0.0/30").applied()]);
    story.lead();
    story.tell([svc("ns/web").applied()]);
    let plan = story.plan_of("10.0.0.0");
    let holder = plan[0].clone();
    story.announce("10.0.0.0", &holder);
    for ready in [false, true] {
        // One after the other, the holder first: all others seem better off for a while.
        for name in std::iter::once(holder.as_str()).chain(names) {
            let mut node = node(name);
            node.ready = ready;
            story.tell([Input::NodeApplied(Box::new(node))]);
            assert_eq!(story.plan_of("10.0.0.0")[0], holder);
        }
        story.pass(Duration::from_mins(1));
        assert_eq!(story.plan_of("10.0.0.0")[0], holder);
    }
}

#[test]
fn node_that_is_excluded_hands_over_and_no_node_at_all_is_said() {
    let mut story = begun();
    story.tell([svc("ns/web").applied()]);
    story.skip();
    let mut excluded = node("n1");
    excluded.excluded = true;
    story.tell([Input::NodeApplied(Box::new(excluded))]);
    story.expect(&["replace 10.0.0.0@1 public e2 Active All [ns/web]"]);
    story.pass(Duration::from_secs(2));
    let message = "no node may announce 10.0.0.0 now: none is ready with a ready speaker on a network interface that the advertisements allow";
    story.expect(&[
        &format!("status ns/web@2 [10.0.0.0] Allocated=True/Allocated(10.0.0.0 from pool public) Announced=False/NoEligibleNode({message}) from=public"),
        &format!("event ns/web Warning NoEligibleNode: {message}"),
    ]);
}

#[test]
fn explicit_pool_without_advertisement_is_announced_by_nobody_and_says_so() {
    let mut story = Story::default();
    story.tell(well("n1"));
    let explicit = pool("p")
        .range("10.0.0.0/30")
        .with(|pool| pool.advertisement = AdvertisementPolicy::Explicit);
    story.tell([explicit.applied()]);
    story.lead();
    story.tell([svc("ns/web").applied()]);
    assert_eq!(story.count("create 10.0.0.0 p e1 Active None [ns/web]"), 1);
    assert_eq!(story.count("event ns/web Warning NoAdvertisement"), 1);
    story.skip();
    story.tell([advertised(advertisement("all"))]);
    let writes = story.writes();
    assert_eq!(
        writes[0],
        "replace 10.0.0.0@1 p e2 Active Listed(all) [ns/web] lan:n1"
    );
}

#[test]
fn unlabelled_service_of_an_advertised_pool_is_silent() {
    let mut story = begun();
    let mut selective = advertisement("web-only");
    selective.service_selectors = vec![Selector::label("app", "web")];
    story.tell([advertised(selective)]);
    story.skip();
    story.tell([svc("ns/other").applied()]);
    assert_eq!(
        story.count("create 10.0.0.0 public e1 Active None [ns/other]"),
        1
    );
    let web = svc("ns/web").with(|service| service.labels = labels(&[("app", "web")]));
    story.tell([web.applied()]);
    assert_eq!(
        story.count("create 10.0.0.1 public e1 Active Listed(web-only) [ns/web] lan:n1"),
        1
    );
}

#[test]
fn local_service_left_to_kube_proxy_is_announced_only_where_its_pods_are() {
    let mut story = begun();
    story.tell(well("n2"));
    story.skip();
    let local = svc("ns/web").port(80).with(|service| {
        service.traffic_policy = TrafficPolicy::Local;
        service.forwarding = ForwardingMode::Off;
    });
    story.tell([local.applied()]);
    assert_eq!(
        story.count("create 10.0.0.0 public e1 Active All [ns/web]"),
        1
    );
    story.skip();
    story.tell([Input::SliceApplied(herald_controller_core::Slice {
        service: key("ns/web"),
        name: "web-1".into(),
        endpoints: vec![Endpoint {
            address: ip("10.244.0.9"),
            node: Some("n2".into()),
            ready: true,
            serving: true,
            terminating: false,
            ports: Arc::default(),
        }],
    })]);
    let writes = story.writes();
    assert_eq!(
        writes[0],
        "replace 10.0.0.0@1 public e2 Active All [ns/web] lan:n2"
    );
}

#[test]
fn local_service_that_speakers_leave_to_another_proxy_is_announced_only_where_its_pods_are() {
    let local = || {
        svc("ns/web").port(80).with(|service| {
            service.traffic_policy = TrafficPolicy::Local;
        })
    };
    let mut story = begun();
    let labelled = local().with(|service| {
        let name = herald_model::PROXY_NAME.to_owned();
        service.labels.insert(name, "mesh".to_owned());
    });
    story.tell([labelled.applied()]);
    let nowhere = "create 10.0.0.0 public e1 Active All [ns/web]";
    assert_eq!(story.count(nowhere), 1);

    let mut story = begun();
    story.tell([local().applied()]);
    assert_eq!(story.count(&format!("{nowhere} lan:n1")), 1);
    story.skip();
    let ipvs = herald_model::Speaker {
        ipvs: true,
        ..speaker("n1")
    };
    story.tell([Input::SpeakerApplied(Box::new(ipvs))]);
    let writes = story.writes();
    assert_eq!(
        writes[0],
        "replace 10.0.0.0@1 public e2 Active All [ns/web]"
    );
}

#[test]
fn local_service_without_node_ports_is_announced_anywhere_unless_it_needs_one() {
    for (forwarding, announced) in [
        (ForwardingMode::Auto, " lan:n1"),
        (ForwardingMode::Dsr, " lan:n1"),
        (ForwardingMode::NodePort, ""),
    ] {
        let mut story = begun();
        let local = svc("ns/web").port(80).with(|service| {
            service.traffic_policy = TrafficPolicy::Local;
            service.forwarding = forwarding;
            service.ports[0].node_port = None;
        });
        story.tell([local.applied()]);
        let expected = format!("create 10.0.0.0 public e1 Active All [ns/web]{announced}");
        assert_eq!(story.count(&expected), 1, "{forwarding:?}");
    }
}

#[test]
fn sharers_are_in_one_claim_and_leave_it_one_by_one() {
    let mut story = begun();
    story.tell([svc("ns/a").sharing("x").port(80).applied()]);
    story.tell([svc("ns/b").sharing("x").port(81).applied()]);
    assert_eq!(
        story.count("replace 10.0.0.0@1 public e1 Active All [ns/a,ns/b] lan:n1"),
        1
    );
    story.skip();
    story.tell([svc("ns/a").deleted()]);
    story.expect(&["replace 10.0.0.0@2 public e1 Active All [ns/b] lan:n1"]);
}

#[test]
fn second_family_is_added_when_the_pool_gets_it_and_the_first_stays() {
    let mut story = begun();
    let dual = svc("ns/web").families(&[Family::V4, Family::V6], PreferDualStack);
    story.tell([dual.applied()]);
    story.skip();
    story.tell([pool("public")
        .range("10.0.0.0/30")
        .range("fd00::/126")
        .applied()]);
    story.expect(&[
        "create fd00:: public e1 Active All [ns/web] lan:n1",
        "status ns/web@2 [10.0.0.0,fd00::] Allocated=True/Allocated(10.0.0.0, fd00:: from pool public) from=public",
        "event ns/web Normal AddressAllocated: assigned fd00:: from pool public",
        "pool public v4=4/1/3 v6=4/1/3 Ready=True/Ready(in use)",
    ]);
}

#[test]
fn restart_leaves_addresses_in_the_order_in_which_they_are_shown() {
    let mut story = begun();
    let dual = pool("public").range("10.0.0.0/30").range("fd00::/126");
    story.tell([dual.applied()]);
    story.tell([svc("ns/web")
        .families(&[Family::V6, Family::V4], PreferDualStack)
        .applied()]);
    story.change("ns/web", |service| {
        service.request.addresses = vec![ip("1.2.3.4")];
    });
    assert_eq!(
        story.status_of("ns/web").ingress,
        ["fd00::", "10.0.0.0"].map(ip)
    );
    story.skip();
    story.tell([Input::LeadershipLost, Input::LEADS_FOR_GOOD]);
    story.writes();
    assert_eq!(
        story.status_of("ns/web").ingress,
        ["fd00::", "10.0.0.0"].map(ip)
    );
}

#[test]
fn invalid_pool_keeps_its_last_valid_state_and_says_so() {
    let mut story = begun();
    story.tell([Input::ObjectInvalid {
        object: UserObject::Pool("public".into()),
        uid: "uid-public".into(),
        message: "spec.addresses[0]: reversed".into(),
        ready: None,
    }]);
    story.expect(&[
        "pool public v4=4/0/4 Ready=False/Invalid(spec.addresses[0]: reversed)",
        "event public Warning Invalid: spec.addresses[0]: reversed",
    ]);
    story.tell([svc("ns/web").applied()]);
    assert_eq!(story.count("create 10.0.0.0 public"), 1);
}

#[test]
fn pool_that_lists_an_address_of_a_node_says_so_and_does_not_give_it() {
    let mut story = begun();
    let mut n2 = node("n2");
    n2.addresses = vec![ip("10.0.0.0")];
    story.tell([Input::NodeApplied(Box::new(n2))]);
    let said = "10.0.0.0 is an address of node n2: pool public does not give it";
    story.expect(&[
        &format!("pool public v4=3/0/3 Ready=False/Overlap({said})"),
        &format!("event public Warning Overlap: {said}"),
    ]);
    story.tell([svc("ns/web").applied()]);
    assert_eq!(story.count("create 10.0.0.1 "), 1);
    story.tell([Input::NodeDeleted("n2".into())]);
    let writes = story.writes();
    let last = writes.last().map(String::as_str);
    assert_eq!(last, Some("pool public v4=4/1/3 Ready=True/Ready(in use)"));
}

#[test]
fn pool_that_lists_a_gateway_says_so_and_does_not_give_it() {
    let mut story = begun();
    let mut speaker = speaker("n1");
    speaker.segments[0].gateways = vec![ip("10.0.0.0"), ip("192.0.2.1")];
    story.tell([Input::SpeakerApplied(Box::new(speaker.clone()))]);
    let said = "10.0.0.0 is the gateway of n1: pool public does not give it";
    story.expect(&[
        &format!("pool public v4=3/0/3 Ready=False/Overlap({said})"),
        &format!("event public Warning Overlap: {said}"),
    ]);
    story.tell([svc("ns/web").applied()]);
    assert_eq!(story.count("create 10.0.0.1 "), 1);
    speaker.segments[0].gateways.clear();
    story.tell([Input::SpeakerApplied(Box::new(speaker))]);
    let writes = story.writes();
    let last = writes.last().map(String::as_str);
    assert_eq!(last, Some("pool public v4=4/1/3 Ready=True/Ready(in use)"));
}

#[test]
fn pool_that_overlaps_ranges_of_the_cluster_says_so_and_gives_none_of_them() {
    let mut story = Story::default();
    let on_node = |ranges: &[&str]| {
        let mut node = node("n1");
        node.pod_ranges = ranges.iter().map(|text| text.parse().unwrap()).collect();
        Input::NodeApplied(Box::new(node))
    };
    let ranges = vec!["10.0.0.0/31".parse().unwrap()];
    story.tell(well("n1"));
    story.tell([
        on_node(&["10.0.0.2/32", "fd00::/64"]),
        Input::ServiceRangesApplied("kubernetes".into(), ranges),
        pool("public").range("10.0.0.0/29").applied(),
    ]);
    story.lead();
    let said = "10.0.0.0-10.0.0.1 is of 10.0.0.0-10.0.0.1, for Services' cluster addresses (ServiceCIDR kubernetes), \
        10.0.0.2 is of 10.0.0.2, for pods on node n1: pool public gives none of it";
    story.expect(&[
        &format!("pool public v4=5/0/5 Ready=False/Overlap({said})"),
        &format!("event public Warning Overlap: {said}"),
    ]);
    story.tell([svc("ns/web").applied()]);
    assert_eq!(story.status_of("ns/web").ingress, ["10.0.0.3"].map(ip));
    story.tell([svc("ns/asks").requests(&["10.0.0.1"]).applied()]);
    story.skip();
    // A range that comes later: who has an address of it keeps it, nobody else gets one.
    story.tell([
        on_node(&["10.0.0.3/32"]),
        Input::ServiceRangesDeleted("kubernetes".into()),
    ]);
    assert_eq!(story.status_of("ns/web").ingress, ["10.0.0.3"].map(ip));
    assert_eq!(story.status_of("ns/asks").ingress, ["10.0.0.1"].map(ip));
    story.tell([
        svc("ns/web").deleted(),
        svc("ns/a").applied(),
        svc("ns/b").applied(),
        svc("ns/c").applied(),
    ]);
    for (name, address) in [
        ("ns/a", "10.0.0.0"),
        ("ns/b", "10.0.0.2"),
        ("ns/c", "10.0.0.4"),
    ] {
        assert_eq!(story.status_of(name).ingress, [address].map(ip), "{name}");
    }
}

#[test]
fn what_is_wrong_with_a_pool_is_told_though_the_watch_is_faster_than_the_answer() {
    let mut story = begun();
    let mut n2 = node("n2");
    n2.addresses = vec![ip("10.0.0.0")];
    // It is written, but no answer comes.
    story.answer("pool public", failed(false));
    story.tell([Input::NodeApplied(Box::new(n2))]);
    let said = "10.0.0.0 is an address of node n2: pool public does not give it";
    let Input::PoolApplied(mut shown) = pool("public").range("10.0.0.0/30").applied() else {
        unreachable!();
    };
    let count = |count: u8| count.to_string();
    shown.status = PoolStatus {
        v4: Some(TextCounts {
            total: count(3),
            assigned: count(0),
            available: count(3),
        }),
        v6: None,
        ready: Some(Condition {
            status: false,
            reason: "Overlap".into(),
            message: said.into(),
            since: 1000,
        }),
    };
    story.pass(Duration::from_millis(250));
    story.tell([Input::PoolApplied(shown.clone())]);
    story.pass(Duration::from_secs(5));
    assert_eq!(
        story.count(&format!("event public Warning Overlap: {said}")),
        1
    );
    // Whoever leads next finds it as it is, and is silent.
    story.tell([Input::LeadershipLost, Input::LEADS_FOR_GOOD]);
    story.tell([Input::PoolApplied(shown)]);
    story.pass(Duration::from_secs(5));
    assert_eq!(story.count("event public"), 1);
}

#[test]
fn condition_of_an_unchanged_service_keeps_its_time() {
    let mut story = begun();
    story.tell([svc("ns/web").applied()]);
    story.skip();
    story.pass(Duration::from_secs(100));
    story.change("ns/web", |service| {
        service.request.pool = Some("nope".into());
    });
    let status = story.status_of("ns/web");
    assert_eq!(
        status.allocated,
        Some(Condition {
            status: false,
            reason: "UnknownPool".into(),
            message: "pool nope does not exist; until then it keeps 10.0.0.0".into(),
            since: 1102,
        })
    );
    story.pass(Duration::from_secs(100));
    story.change("ns/web", |service| {
        service.request.pool = Some("nor this".into());
    });
    assert_eq!(
        story.status_of("ns/web").allocated.map(|c| c.since),
        Some(1102)
    );
}

#[test]
fn who_announces_is_shown_and_the_speakers_tell_of_moves() {
    let mut story = begun();
    story.tell([svc("ns/web").applied()]);
    story.skip();
    story.announce("10.0.0.0", "n1");
    story.expect(&[
        "status ns/web@2 [10.0.0.0] Allocated=True/Allocated(10.0.0.0 from pool public) Announced=True/Announced(10.0.0.0 by n1 on eth0 (02:00:00:00:00:01)) from=public",
    ]);
    story.announce("10.0.0.0", "n2");
    story.expect(&[
        "status ns/web@3 [10.0.0.0] Allocated=True/Allocated(10.0.0.0 from pool public) Announced=True/Announced(10.0.0.0 by n2 on eth0 (02:00:00:00:00:01)) from=public",
    ]);
}

#[test]
fn move_within_the_grace_writes_the_new_announcer_only() {
    let mut story = begun();
    story.tell([svc("ns/web").applied()]);
    story.announce("10.0.0.0", "n1");
    story.skip();
    story.announce_none("10.0.0.0");
    story.pass(Duration::from_secs(2));
    story.announce("10.0.0.0", "n1");
    story.expect(&[]);
    story.announce_none("10.0.0.0");
    story.pass(Duration::from_secs(3));
    let announced = story.status_of("ns/web").announced.expect("said before");
    assert_eq!(
        (announced.status, &*announced.reason),
        (false, "WaitingForSpeaker")
    );
}

#[test]
fn speaker_that_vanishes_leaves_the_plan_of_others_alone() {
    let mut story = Story::default();
    for name in ["n1", "n2", "n3", "n4"] {
        story.tell(well(name));
    }
    story.tell([pool("p").range("10.0.0.0/30").applied()]);
    story.lead();
    story.tell([svc("ns/web").applied()]);
    let plan = story.plan_of("10.0.0.0");
    story.skip();
    let unplanned = ["n1", "n2", "n3", "n4"]
        .into_iter()
        .find(|n| !plan.contains(&(*n).to_owned()));
    story.tell([Input::SpeakerDeleted(
        speaker(unplanned.expect("three of four")).node,
    )]);
    story.expect(&[]);
}
