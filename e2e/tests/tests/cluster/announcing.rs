//! Who answers for an address on the LAN, and what the LAN is told unasked.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use herald_e2e::api::herald;
use herald_e2e::capture::{Body, Capture, Frame};
use herald_e2e::object::{condition, text};
use herald_e2e::sandbox::{Sandbox, sandbox};
use herald_e2e::wait::{LONG, eventually, same, throughout};
use herald_model::VirtualIp;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(10);

/// A pool of both families.
fn pool(it: &Sandbox, spec: Value) -> Result<()> {
    let addresses = json!({"addresses": [it.range_v4(0, 9), it.range_v6(1, 9)]});
    it.pool("a", herald_e2e::object::with(addresses, spec))
}

/// That nobody answers for an address, now and for a moment.
fn silent(it: &Sandbox, address: IpAddr) -> Result<()> {
    throughout(
        &format!("nobody answers for {address}"),
        Duration::from_millis(1500),
        || same(&it.client().who_has(address)?, &Vec::new()),
    )
}

fn announced_reason(it: &Sandbox, service: &str) -> Result<String> {
    let service = it.get_service(service)?;
    let announced = condition(&service, "heraldlb.io/Announced");
    Ok(format!(
        "{} {}",
        text(&announced["status"]),
        text(&announced["reason"])
    ))
}

fn expect_announced(it: &Sandbox, service: &str, expected: &str) -> Result<()> {
    let what = format!("the condition Announced of {service} is {expected}");
    eventually(&what, LONG, || {
        same(&announced_reason(it, service)?.as_str(), &expected)
    })
}

fn expect_announcer(it: &Sandbox, address: IpAddr, node: &str) -> Result<()> {
    eventually(&format!("{node} announces {address}"), LONG, || {
        same(&it.cluster.announcer(address)?.0.as_str(), &node)
    })
}

#[test]
fn a_question_is_answered_by_exactly_one_node_the_one_that_the_status_names() -> Result<()> {
    sandbox(|it| {
        pool(it, json!({}))?;
        it.dual_service("web", json!({}))?;
        it.wait_announced("web")?;
        for address in [it.v4(0), it.v6(1)] {
            let (node, mac) = it.cluster.announcer(address)?;
            eventually(&format!("only {node} answers"), SOON, || {
                same(&it.client().one_answer(address)?, &mac)
            })?;
            same(&it.cluster.lab.node(&node)?.address.mac, &mac)?;
        }
        expect_announced(it, "web", "True Announced")?;
        for address in [it.v4(0), it.v6(1)] {
            let note = it.expect_event_of("web", "Normal", "Announced", address)?;
            let (holder, mac) = it.cluster.announcer(address)?;
            let expected = format!("{holder} announces {address} on eth0 ({mac})");
            same(&note, &expected)?;
        }
        Ok(())
    })
}

#[test]
fn nobody_answers_after_the_service_is_deleted_and_nothing_is_left_of_it() -> Result<()> {
    sandbox(|it| {
        pool(it, json!({}))?;
        it.dual_service("web", json!({}))?;
        it.wait_announced("web")?;
        let addresses = [it.v4(0), it.v6(1)];
        for address in addresses {
            for node in it.cluster.nodes() {
                let shown = it.cluster.lab.exec(&node, ["ip", "-o", "address"])?.ok()?;
                ensure!(
                    !shown.contains(&format!("{address}/")),
                    "{address} is on an interface of {node}: {shown}"
                );
            }
        }
        it.delete_service("web")?;
        for address in addresses {
            let path = herald("virtualips", &VirtualIp::object_name(address));
            eventually("the VirtualIP is gone", SOON, || {
                same(&it.cluster.api.find(&path)?, &None)
            })?;
        }
        for address in addresses {
            eventually(&format!("nobody answers for {address}"), SOON, || {
                same(&it.client().who_has(address)?, &Vec::new())
            })?;
            silent(it, address)?;
            for node in it.cluster.nodes() {
                let lab = &it.cluster.lab;
                let address = address.to_string();
                for what in ["neigh", "route"] {
                    let shown = lab.exec(&node, ["ip", what, "show", &address])?.ok()?;
                    same(&shown.trim(), &"").with_context(|| format!("{what} of {node}"))?;
                }
                let shown = lab
                    .exec(&node, ["ip", "-6", "neigh", "show", "proxy"])?
                    .ok()?;
                ensure!(!shown.contains(&address), "proxy entry on {node}: {shown}");
            }
        }
        Ok(())
    })
}

#[test]
fn an_address_is_announced_by_gratuitous_arp_in_both_forms_at_once_and_again() -> Result<()> {
    sandbox(|it| {
        pool(it, json!({}))?;
        let capture = Capture::start(&it.cluster.lab, "client")?;
        it.service("web", json!({}))?;
        let address = it.wait_announced("web")?;
        let (_, mac) = it.cluster.announcer(address)?;
        let seen = announcements(&capture, address, 4)?;
        let mut forms = BTreeSet::new();
        for frame in &seen {
            let Body::Arp {
                operation,
                sender,
                target,
            } = &frame.body
            else {
                continue;
            };
            ensure!(frame.source == mac && sender.0 == mac, "{frame:?}");
            // Linux takes a reply to be gratuitous only if it names the sender as the target.
            let meant = if *operation == 1 {
                "00:00:00:00:00:00"
            } else {
                &mac
            };
            same(&target.0.as_str(), &meant)?;
            forms.insert(*operation);
            let early = frame.at.saturating_sub(seen[0].at) < Duration::from_millis(50);
            ensure!(
                early || forms.len() == 2,
                "not both forms at once: {seen:?}"
            );
        }
        same(&forms, &BTreeSet::from([1, 2]))
    })
}

#[test]
fn an_ipv6_address_is_announced_by_neighbour_advertisements_that_override() -> Result<()> {
    sandbox(|it| {
        pool(it, json!({}))?;
        let capture = Capture::start(&it.cluster.lab, "client")?;
        it.service("web", json!({"spec": {"ipFamilies": ["IPv6"]}}))?;
        let address = it.wait_announced("web")?;
        let (_, mac) = it.cluster.announcer(address)?;
        let seen = announcements(&capture, address, 4)?;
        for frame in &seen {
            ensure!(frame.to_all && frame.source == mac, "{frame:?}");
            let Body::Advertisement {
                overrides,
                link_layer,
                hop_limit,
                ..
            } = &frame.body
            else {
                continue;
            };
            ensure!(*overrides && *hop_limit == 255, "{frame:?}");
            same(link_layer, &Some(mac.clone()))?;
        }
        Ok(())
    })
}

/// The announcements of an address when they have gone on for so many seconds.
fn announcements(capture: &Capture, address: IpAddr, seconds: u64) -> Result<Vec<Frame>> {
    let expected = format!("{address} is announced for {seconds} s");
    eventually(&expected, Duration::from_secs(seconds + 10), || {
        let seen = capture.announcements(address);
        let first = seen.first().context("there is none")?;
        let last = seen.last().context("there is none")?;
        ensure!(
            last.at.saturating_sub(first.at) >= Duration::from_millis(seconds * 1000 - 500),
            "only {seen:?}"
        );
        Ok(seen)
    })
}

#[test]
fn a_client_whose_entry_is_younger_than_a_second_follows() -> Result<()> {
    sandbox(|it| {
        pool(it, json!({}))?;
        it.service("web", json!({}))?;
        let address = it.wait_announced("web")?;
        let (old, _) = it.cluster.announcer(address)?;
        let nodes = it.cluster.nodes();
        let new = nodes.iter().find(|node| **node != old).context("one")?;
        let mac = it.cluster.lab.node(new)?.address.mac;
        let capture = Capture::start(&it.cluster.lab, "client")?;
        let selector = json!([{"matchLabels": {"kubernetes.io/hostname": new}}]);
        it.advertisement("one", json!({"nodeSelectors": selector}))?;
        // Made anew all the time: for a second the client's kernel takes no ordinary reply for it.
        let of_new = || {
            let seen = capture.announcements(address);
            seen.into_iter().find(|frame| frame.source == mac)
        };
        let text = address.to_string();
        eventually("the new node announces", LONG, || {
            if of_new().is_some() {
                return Ok(());
            }
            it.client().forget(address)?;
            // Whether anybody answers that does not matter: the entry is made.
            let ping = ["ping", "-c", "1", "-W", "0.2", &text];
            it.cluster.lab.exec("client", ping)?;
            anyhow::bail!("it does not yet")
        })?;
        // The old one may have answered after the first of the new one's announcements, as it goes on until it
        // hears of the new one; those that follow are for that.
        eventually("the client has followed", SOON, || {
            same(&it.client().neighbour(address)?, &Some(mac.clone()))
        })
    })
}

#[test]
fn a_solicitation_is_answered_as_rfc_4861_wants_it() -> Result<()> {
    sandbox(|it| {
        pool(it, json!({}))?;
        it.service("web", json!({"spec": {"ipFamilies": ["IPv6"]}}))?;
        let address = it.wait_announced("web")?;
        let (_, mac) = it.cluster.announcer(address)?;
        let capture = Capture::start(&it.cluster.lab, "client")?;
        same(&it.client().one_answer(address)?, &mac)?;
        let answers = eventually("the answer is seen", SOON, || {
            let answers = capture.answers(address);
            ensure!(!answers.is_empty(), "{:?}", capture.frames());
            Ok(answers)
        })?;
        let Some(Body::Advertisement {
            overrides,
            link_layer,
            hop_limit,
            router,
            ..
        }) = answers.first().map(|frame| &frame.body)
        else {
            anyhow::bail!("no advertisement in {answers:?}")
        };
        ensure!(*overrides && !router && *hop_limit == 255, "{answers:?}");
        same(link_layer, &Some(mac))
    })
}

#[test]
fn a_node_selector_decides_who_announces() -> Result<()> {
    sandbox(|it| {
        pool(it, json!({}))?;
        it.service("web", json!({}))?;
        let address = it.wait_announced("web")?;
        for node in it.cluster.nodes() {
            let selector = json!([{"matchLabels": {"kubernetes.io/hostname": node}}]);
            it.advertisement("one", json!({"nodeSelectors": selector}))?;
            expect_announcer(it, address, &node)?;
            let mac = it.cluster.lab.node(&node)?.address.mac;
            eventually(&format!("only {node} answers"), SOON, || {
                same(&it.client().one_answer(address)?, &mac)
            })?;
        }
        Ok(())
    })
}

#[test]
fn a_label_put_on_a_node_makes_it_announce_and_before_nobody_does() -> Result<()> {
    sandbox(|it| {
        pool(it, json!({}))?;
        let label = it.name("edge");
        let selector = json!([{"matchLabels": {label.clone(): "yes"}}]);
        it.advertisement("edge", json!({"nodeSelectors": selector}))?;
        it.service("web", json!({}))?;
        let address = it.wait_addresses("web")?[0];
        expect_announced(it, "web", "False NoEligibleNode")?;
        it.expect_event("web", "Warning", "NoEligibleNode")?;
        silent(it, address)?;
        let set = |value: Value| {
            let labels = json!({"metadata": {"labels": {label.clone(): value}}});
            it.cluster.api.merge("/api/v1/nodes/node2", &labels)
        };
        set("yes".into())?;
        let announced = expect_announcer(it, address, "node2")
            .and_then(|()| it.client().one_answer(address).map(drop));
        set(Value::Null)?;
        announced
    })
}

#[test]
fn an_explicit_pool_is_silent_until_an_advertisement_selects_it() -> Result<()> {
    sandbox(|it| {
        pool(it, json!({"advertisement": "Explicit"}))?;
        it.service("web", json!({}))?;
        let address = it.wait_addresses("web")?[0];
        expect_announced(it, "web", "False NoAdvertisement")?;
        it.expect_event("web", "Warning", "NoAdvertisement")?;
        silent(it, address)?;
        it.advertisement("all", json!({}))?;
        it.wait_announced("web")?;
        it.client().one_answer(address)?;
        expect_announced(it, "web", "True Announced")
    })
}

#[test]
fn only_the_services_that_an_advertisement_selects_are_answered_for() -> Result<()> {
    sandbox(|it| {
        pool(it, json!({"advertisement": "Explicit"}))?;
        let selector = json!([{"matchLabels": {"expose": "lan"}}]);
        it.advertisement("some", json!({"serviceSelectors": selector}))?;
        it.service("plain", json!({}))?;
        it.service("chosen", json!({"metadata": {"labels": {"expose": "lan"}}}))?;
        let chosen = it.wait_announced("chosen")?;
        it.client().one_answer(chosen)?;
        let plain = it.wait_addresses("plain")?[0];
        expect_announced(it, "plain", "False NoAdvertisement")?;
        silent(it, plain)
    })
}

#[test]
fn interfaces_decide_where_an_address_is_announced() -> Result<()> {
    sandbox(|it| {
        pool(it, json!({}))?;
        it.advertisement("nic", json!({"interfaces": ["eth0"]}))?;
        it.service("web", json!({}))?;
        let address = it.wait_announced("web")?;
        it.client().one_answer(address)?;
        it.advertisement("nic", json!({"interfaces": ["other*"]}))?;
        expect_announced(it, "web", "False NoEligibleNode")?;
        eventually("nobody answers", SOON, || {
            same(&it.client().who_has(address)?, &Vec::new())
        })?;
        it.advertisement("nic", json!({"interfaces": ["other*", "eth?"]}))?;
        it.wait_announced("web")?;
        it.client().one_answer(address).map(drop)
    })
}

#[test]
fn services_that_share_an_address_are_answered_for_by_one_node() -> Result<()> {
    sandbox(|it| {
        pool(it, json!({}))?;
        for (name, port) in [("s80", 80), ("s81", 81)] {
            it.dual_service(
                name,
                json!({
                    "metadata": {"annotations": {"heraldlb.io/sharing-key": "k"}},
                    "spec": {"ports": [{"name": "http", "port": port, "targetPort": 8080}]},
                }),
            )?;
            it.expect_addresses(name, &[it.v4(0), it.v6(1)])?;
        }
        for address in [it.v4(0), it.v6(1)] {
            eventually("it is announced", LONG, || it.cluster.announcer(address))?;
            it.client().one_answer(address)?;
        }
        it.delete_service("s80")?;
        expect_announced(it, "s81", "True Announced")?;
        it.client().one_answer(it.v4(0)).map(drop)
    })
}

#[test]
fn several_addresses_are_spread_over_the_nodes() -> Result<()> {
    sandbox(|it| {
        pool(it, json!({}))?;
        let mut nodes = BTreeSet::new();
        for number in 0..9 {
            let name = format!("s{number}");
            it.service(&name, json!({}))?;
            let address = it.wait_announced(&name)?;
            nodes.insert(it.cluster.announcer(address)?.0);
        }
        same(&nodes.len(), &it.cluster.nodes().len())
    })
}
