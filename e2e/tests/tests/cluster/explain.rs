//! `kubectl herald explain`: the true reason for Services that wait, or are silent, on purpose.

use anyhow::{Context as _, Result, ensure};
use herald_e2e::cli;
use herald_e2e::object::{items, text};
use herald_e2e::sandbox::{Sandbox, backend, sandbox};
use herald_e2e::wait::{LONG, eventually, same};
use serde_json::{Value, json};

fn annotated(pairs: &[(&str, &str)]) -> Value {
    let annotations: serde_json::Map<String, Value> = pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), Value::from(*value)))
        .collect();
    json!({"metadata": {"annotations": annotations}})
}

fn explain(it: &Sandbox, name: &str) -> Result<(bool, Value)> {
    let service = format!("{}/{}", it.namespace, it.service_name(name));
    cli::ask(&it.cluster.lab, &["explain", "service", &service])
}

/// What an explanation says of one alternative in one step: all of it.
fn said(answer: &Value, step: &str, subject: &str) -> String {
    let steps = items(&answer["steps"]).iter();
    let details = steps
        .filter(|it| it["name"] == step)
        .flat_map(|it| items(&it["details"]));
    let texts: Vec<&str> = details
        .filter(|detail| detail["subject"] == subject)
        .map(|detail| text(&detail["text"]))
        .collect();
    texts.join("; ")
}

/// Waits until it is explained in this way: all words in the summary.
fn expect(it: &Sandbox, name: &str, outcome: &str, reason: &str, words: &[&str]) -> Result<Value> {
    let expected = format!("Service {name} is explained as {outcome}, {reason}");
    eventually(&expected, LONG, || {
        let (well, answer) = explain(it, name)?;
        let seen = (text(&answer["outcome"]), text(&answer["reason"]));
        same(&seen, &(outcome, reason)).with_context(|| answer.to_string())?;
        let summary = text(&answer["summary"]);
        for word in words {
            ensure!(summary.contains(word), "no {word:?} in {summary:?}");
        }
        ensure!(
            well == (outcome == "serving"),
            "its exit code says otherwise"
        );
        ensure!(
            well || !text(&answer["remedy"]).is_empty(),
            "there is nothing to do about it: {answer}"
        );
        Ok(answer)
    })
}

/// A Service that waits for an address: the controller and the explanation agree why.
fn expect_pending(it: &Sandbox, name: &str, reason: &str, words: &[&str]) -> Result<Value> {
    it.expect_pending(name, reason)?;
    expect(it, name, "pending", reason, words).with_context(|| format!("of {name}"))
}

/// Pools that are used only on request, so that each Service has one reason.
fn pools(it: &Sandbox) -> Result<()> {
    let pool = |name: &str, spec: Value| {
        let on_request = json!({"autoAssign": false});
        it.pool(name, herald_e2e::object::with(on_request, spec))
    };
    pool("full", json!({"addresses": [it.range_v4(0, 0)]}))?;
    pool(
        "rests",
        json!({"addresses": [it.range_v4(1, 1)], "reuseDelay": "1h"}),
    )?;
    pool(
        "theirs",
        json!({"addresses": [it.range_v4(2, 2)], "allowed": {"namespaces": ["kube-system"]}}),
    )?;
    let labelled = json!({"serviceSelectors": [{"matchLabels": {"expose": "lan"}}]});
    pool(
        "labelled",
        json!({"addresses": [it.range_v4(3, 3)], "allowed": labelled}),
    )?;
    pool("four", json!({"addresses": [it.range_v4(4, 7)]}))?;
    pool("other", json!({"addresses": [it.range_v4(8, 9)]}))?;
    pool(
        "inner",
        json!({"addresses": [it.range_v4(10, 11)], "scope": "Internal"}),
    )?;
    pool("six", json!({"addresses": [it.range_v6(0, 3)]}))?;
    pool(
        "buggy",
        json!({"addresses": ["172.30.126.0-172.30.126.2"], "avoidBuggyIPs": true}),
    )?;
    pool("cluster", json!({"addresses": ["10.96.210.0-10.96.210.3"]}))
}

const POOL: &str = "heraldlb.io/pool";
const ADDRESSES: &str = "heraldlb.io/addresses";
const KEY: &str = "heraldlb.io/sharing-key";

#[test]
fn the_reason_why_a_service_waits_is_the_true_one() -> Result<()> {
    sandbox(|it| {
        pools(it)?;
        refused_by_pools(it)?;
        refused_an_address(it)?;
        not_understood(it)?;
        asks_for_what_cannot_be(it)?;
        every_pool_says_its_own_no(it)
    })
}

fn refused_by_pools(it: &Sandbox) -> Result<()> {
    let from = |pool: &str| annotated(&[(POOL, &it.name(pool))]);
    let four = it.name("four");
    it.service("holder", from("full"))?;
    it.expect_addresses("holder", &[it.v4(0)])?;
    it.service("full", from("full"))?;
    expect_pending(it, "full", "PoolExhausted", &["is full: 1 of 1 IPv4"])?;
    it.service("namespace", from("theirs"))?;
    let words = ["allows only namespaces kube-system", &it.namespace];
    expect_pending(it, "namespace", "NotAllowed", &words)?;
    it.service("label", from("labelled"))?;
    expect_pending(
        it,
        "label",
        "NotAllowed",
        &["Services with labels expose=lan"],
    )?;
    it.service("unknown", from("nowhere"))?;
    expect_pending(
        it,
        "unknown",
        "UnknownPool",
        &[&it.name("nowhere"), "does not exist"],
    )?;
    it.service("family", from("six"))?;
    expect_pending(
        it,
        "family",
        "NoAddressOfFamily",
        &["has no IPv4 addresses"],
    )?;
    it.dual_service("dual", from("four"))?;
    expect_pending(it, "dual", "NoAddressOfFamily", &["has no IPv6 addresses"])?;
    it.service("outer", from("inner"))?;
    expect_pending(it, "outer", "NotAllowed", &["is internal but"])?;
    let internal = [(POOL, four.as_str()), ("heraldlb.io/scope", "internal")];
    it.service("inner", annotated(&internal))?;
    expect_pending(it, "inner", "NotAllowed", &["is external but"])?;
    Ok(())
}

/// Of one that another Service has, or had.
fn refused_an_address(it: &Sandbox) -> Result<()> {
    let from = |pool: &str| annotated(&[(POOL, &it.name(pool))]);
    let at = |index: u8| it.v4(index).to_string();
    let four = it.name("four");
    it.service("sharer", annotated(&[(POOL, &four), (KEY, "one")]))?;
    it.expect_addresses("sharer", &[it.v4(4)])?;
    it.service("gone", from("rests"))?;
    it.expect_addresses("gone", &[it.v4(1)])?;
    it.delete_service("gone")?;

    it.service("taken", annotated(&[(ADDRESSES, &at(0))]))?;
    let answer = expect_pending(it, "taken", "AddressInUse", &["holder"])?;
    let why = said(&answer, "pools", &at(0));
    ensure!(why.contains("neither has a sharing key"), "{why:?}");
    it.service("other-key", annotated(&[(ADDRESSES, &at(4)), (KEY, "two")]))?;
    let answer = expect_pending(it, "other-key", "AddressInUse", &["sharer"])?;
    let why = said(&answer, "pools", &at(4));
    ensure!(why.contains("its sharing key is \"one\""), "{why:?}");
    it.service("same-port", annotated(&[(ADDRESSES, &at(4)), (KEY, "one")]))?;
    let answer = expect_pending(it, "same-port", "AddressInUse", &["sharer"])?;
    let why = said(&answer, "pools", &at(4));
    ensure!(why.contains("both want port 80/TCP"), "{why:?}");
    it.service("resting", annotated(&[(ADDRESSES, &at(1))]))?;
    expect_pending(it, "resting", "AddressInUse", &["is resting"])?;
    Ok(())
}

fn not_understood(it: &Sandbox) -> Result<()> {
    let at = |index: u8| it.v4(index).to_string();
    let four = it.name("four");
    let both = json!({"spec": {"loadBalancerIP": at(8)}});
    let asks = annotated(&[(ADDRESSES, &at(9))]);
    it.service("twice", herald_e2e::object::with(both, asks))?;
    expect_pending(it, "twice", "InvalidRequest", &["are both set"])?;
    let differ = [
        (POOL, four.as_str()),
        ("metallb.io/address-pool", "another"),
    ];
    it.service("differ", annotated(&differ))?;
    expect_pending(
        it,
        "differ",
        "InvalidRequest",
        &["metallb.io/address-pool", "differ"],
    )?;
    it.service("nonsense", annotated(&[(ADDRESSES, "somewhere")]))?;
    expect_pending(
        it,
        "nonsense",
        "InvalidRequest",
        &["expected an IP address"],
    )?;
    let two = format!("{},{}", at(8), at(9));
    it.service("two", annotated(&[(ADDRESSES, &two)]))?;
    expect_pending(it, "two", "InvalidRequest", &["more than one IPv4"])?;
    it.service("mode", annotated(&[("heraldlb.io/forwarding", "fast")]))?;
    expect_pending(it, "mode", "InvalidRequest", &["expected auto"])?;
    Ok(())
}

fn asks_for_what_cannot_be(it: &Sandbox) -> Result<()> {
    let at = |index: u8| it.v4(index).to_string();
    let four = it.name("four");
    let six = it.v6(1).to_string();
    it.service("mismatch", annotated(&[(ADDRESSES, &six)]))?;
    expect_pending(it, "mismatch", "InvalidRequest", &["are not one of each"])?;
    it.service("outside", annotated(&[(ADDRESSES, &at(20))]))?;
    expect_pending(it, "outside", "OutsidePools", &[&at(20), "is in no pool"])?;
    it.service(
        "not-there",
        annotated(&[(ADDRESSES, &at(8)), (POOL, &four)]),
    )?;
    expect_pending(
        it,
        "not-there",
        "InvalidRequest",
        &["not in the requested pool"],
    )?;
    let apart = format!("{},{six}", at(8));
    it.dual_service("apart", annotated(&[(ADDRESSES, &apart)]))?;
    expect_pending(it, "apart", "InvalidRequest", &["both must be of one pool"])?;
    it.service("avoided", annotated(&[(ADDRESSES, "172.30.126.0")]))?;
    expect_pending(it, "avoided", "AddressAvoided", &["avoidBuggyIPs"])?;
    it.service("barred", annotated(&[(ADDRESSES, "10.96.210.1")]))?;
    expect_pending(it, "barred", "AddressReserved", &["pods or Services"])?;
    Ok(())
}

fn every_pool_says_its_own_no(it: &Sandbox) -> Result<()> {
    it.service("unasked", json!({}))?;
    let answer = eventually("it waits", LONG, || {
        let (_, answer) = explain(it, "unasked")?;
        same(&text(&answer["outcome"]), &"pending")?;
        Ok(answer)
    })?;
    for (pool, word) in [
        ("four", "autoAssign off"),
        ("theirs", "kube-system"),
        ("labelled", "expose=lan"),
        ("inner", "is internal"),
    ] {
        let why = said(&answer, "pools", &it.name(pool));
        ensure!(why.contains(word), "pool {pool} says {why:?}");
    }
    Ok(())
}

#[test]
fn services_that_are_none_of_heralds_are_said_to_be() -> Result<()> {
    sandbox(|it| {
        it.service(
            "class",
            json!({"spec": {"loadBalancerClass": "example.com/other"}}),
        )?;
        expect(
            it,
            "class",
            "notServed",
            "OtherClass",
            &["example.com/other"],
        )?;
        it.service("plain", json!({"spec": {"type": "ClusterIP"}}))?;
        expect(it, "plain", "notServed", "NotLoadBalancer", &["ClusterIP"])?;
        let service = format!("{}/nobody", it.namespace);
        let output = cli::run(&it.cluster.lab, &["explain", "service", &service])?;
        same(&output.status.code(), &Some(1))?;
        ensure!(
            output.stderr.contains(&service),
            "it says {:?}",
            output.stderr
        );
        Ok(())
    })
}

#[test]
fn the_reason_why_an_address_is_silent_is_the_true_one() -> Result<()> {
    sandbox(|it| {
        let pools = ["explicit", "service", "node", "interface", "local"];
        for (index, name) in (0..).zip(pools) {
            let advertisement = if name == "explicit" {
                "Explicit"
            } else {
                "Default"
            };
            it.pool(
                name,
                json!({
                    "addresses": [it.range_v4(index, index)],
                    "autoAssign": false,
                    "advertisement": advertisement,
                }),
            )?;
        }
        let labelled = |key: &str| json!([{"matchLabels": {key: "of nobody"}}]);
        for (name, limit) in [
            ("service", json!({"serviceSelectors": labelled("label")})),
            ("node", json!({"nodeSelectors": labelled("label")})),
            ("interface", json!({"interfaces": ["nic9"]})),
        ] {
            let of = json!({"poolSelectors": [], "pools": [it.name(name)]});
            it.advertisement(name, herald_e2e::object::with(of, limit))?;
        }
        let from = |pool: &str| annotated(&[("heraldlb.io/pool", &it.name(pool))]);
        for (index, (name, reason, word)) in (0..).zip([
            ("explicit", "NoAdvertisement", "has advertisement Explicit"),
            ("service", "NoAdvertisement", "but not this Service"),
            ("node", "NoEligibleNode", "selects the node"),
            ("interface", "NoEligibleNode", "names its interface"),
        ]) {
            it.service(name, from(name))?;
            it.expect_addresses(name, &[it.v4(index)])?;
            expect(it, name, "silent", reason, &[word])?;
        }
        // kube-proxy takes the traffic where there is a pod, and there is none.
        let local = [
            ("heraldlb.io/pool", it.name("local")),
            ("heraldlb.io/forwarding", "off".to_owned()),
        ];
        let local: Vec<(&str, &str)> = local
            .iter()
            .map(|(key, value)| (*key, value.as_str()))
            .collect();
        let policy = json!({"spec": {"externalTrafficPolicy": "Local"}});
        it.service("local", herald_e2e::object::with(annotated(&local), policy))?;
        it.expect_addresses("local", &[it.v4(4)])?;
        expect(
            it,
            "local",
            "silent",
            "NoEligibleNode",
            &["no ready endpoint"],
        )
        .map(drop)
    })
}

#[test]
fn an_address_without_pods_behind_it_is_said_to_refuse() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 0)]}))?;
        it.service("web", json!({}))?;
        it.wait_announced("web")?;
        expect(
            it,
            "web",
            "refusing",
            "NoEndpoints",
            &["no pod behind it is ready"],
        )
        .map(drop)
    })
}

#[test]
fn a_service_that_serves_is_explained_from_pool_to_target_table() -> Result<()> {
    backend(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
        it.service("web", json!({}))?;
        let address = it.wait_announced("web")?;
        let answer = expect(it, "web", "serving", "Serving", &[&address.to_string()])?;
        let gives = said(&answer, "pools", &it.name("a"));
        same(&gives.as_str(), &format!("gives {address}").as_str())?;
        let (holder, _) = it.cluster.announcer(address)?;
        let holders = items(&answer["steps"])
            .iter()
            .filter(|step| step["name"] == "holder");
        let told: Vec<&str> = holders.map(|step| text(&step["text"])).collect();
        ensure!(
            told.iter()
                .any(|text| text.starts_with(&format!("{holder} announces it"))),
            "{holder} announces it, and it is said: {told:?}"
        );
        for node in it.cluster.nodes() {
            let share = said(&answer, "forwarding", &node);
            ensure!(
                share.contains("of the flows, 2 endpoints"),
                "{node}: {share:?}"
            );
        }

        let (_, status) = cli::ask(&it.cluster.lab, &["status"])?;
        let rows = items(&status["addresses"]);
        let row = rows
            .iter()
            .find(|row| row["address"] == address.to_string().as_str());
        let row = row.with_context(|| format!("{address} is not in {status}"))?;
        same(&text(&row["announcers"][0]["node"]), &holder.as_str())?;
        same(&text(&row["state"]), &"Serving")?;
        let (_, pool) = cli::ask(&it.cluster.lab, &["explain", "pool", &it.name("a")])?;
        let who = said(&pool, "holders", &address.to_string());
        ensure!(who.contains(&it.service_name("web")), "{who:?}");
        let (_, node) = cli::ask(&it.cluster.lab, &["explain", "node", &holder])?;
        let place = said(&node, "holds", &address.to_string());
        ensure!(
            place.contains("eth0"),
            "{holder} holds {address}: {place:?}"
        );
        Ok(())
    })
}
