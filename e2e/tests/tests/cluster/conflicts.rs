//! Addresses of a pool that a machine on the LAN has, which is no node of the cluster.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use herald_e2e::api::herald;
use herald_e2e::capture::{Body, Capture};
use herald_e2e::object::{condition, text};
use herald_e2e::sandbox::sandbox;
use herald_e2e::stranger::Stranger;
use herald_e2e::wait::{LONG, eventually, same, throughout};
use herald_model::VirtualIp;
use serde_json::json;

#[test]
fn an_address_that_a_stranger_uses_is_not_given_and_the_next_one_is() -> Result<()> {
    sandbox(|it| {
        let used = [it.v4(0), it.v6(0)];
        let stranger = Stranger::with(&it.cluster.lab, &used)?;
        let addresses = [it.range_v4(0, 9), it.range_v6(0, 9)];
        it.pool("a", json!({"addresses": addresses}))?;
        it.dual_service("web", json!({}))?;
        it.expect_addresses("web", &[it.v4(1), it.v6(1)])?;
        let note = it.expect_event("web", "Warning", "AddressConflict")?;
        ensure!(
            used.iter()
                .any(|address| note.contains(&address.to_string()))
                && note.contains(&stranger.mac),
            "the note is {note:?}"
        );
        same(&it.events("web", "AddressConflict")?.len(), &2)?;
        for address in used {
            let path = herald("virtualips", &VirtualIp::object_name(address));
            eventually(&format!("{address} is put aside"), LONG, || {
                let vip = it.cluster.api.get(&path)?;
                same(&text(&vip["spec"]["phase"]), &"Resting")?;
                let conflict = condition(&vip, "Conflict");
                same(&text(&conflict["status"]), &"True")?;
                let message = text(&conflict["message"]);
                ensure!(message.contains(&stranger.mac), "it says {message:?}");
                Ok(())
            })?;
        }
        let pool = it.name("a");
        eventually(
            "the pool names the addresses and the stranger",
            LONG,
            || {
                let object = it.cluster.api.get(&herald("ippools", &pool))?;
                let ready = condition(&object, "Ready");
                same(&text(&ready["reason"]), &"AddressConflict")?;
                let message = text(&ready["message"]);
                ensure!(
                    used.iter()
                        .all(|address| message.contains(&address.to_string()))
                        && message.contains(&stranger.mac),
                    "it says {message:?}"
                );
                let events = "/apis/events.k8s.io/v1/namespaces/default/events";
                let mut events = it.cluster.api.list(events)?;
                events.retain(|event| {
                    text(&event["regarding"]["name"]) == pool
                        && text(&event["reason"]) == "AddressConflict"
                        && text(&event["note"]).contains(&stranger.mac)
                });
                same(&events.len(), &2)
            },
        )
    })
}

#[test]
fn an_address_that_a_stranger_uses_and_that_was_asked_for_stays_pending_with_the_reason()
-> Result<()> {
    sandbox(|it| {
        let stranger = Stranger::with(&it.cluster.lab, &[it.v4(3)])?;
        it.pool("a", json!({"addresses": [it.range_v4(0, 9)]}))?;
        let asks = |address: IpAddr| json!({"metadata": {"annotations": {"heraldlb.io/addresses": address.to_string()}}});
        it.service("web", asks(it.v4(3)))?;
        it.expect_pending("web", "AddressConflict")?;
        let note = it.expect_event("web", "Warning", "AddressConflict")?;
        ensure!(note.contains(&stranger.mac), "the note is {note:?}");
        it.service("web", asks(it.v4(4)))?;
        it.expect_addresses("web", &[it.v4(4)])
    })
}

#[test]
fn a_pool_without_the_probe_gives_an_address_that_a_stranger_uses() -> Result<()> {
    sandbox(|it| {
        let _stranger = Stranger::with(&it.cluster.lab, &[it.v4(0)])?;
        let addresses = [it.range_v4(0, 9)];
        it.pool("a", json!({"addresses": addresses, "conflictProbe": false}))?;
        it.service("web", json!({}))?;
        it.expect_addresses("web", &[it.v4(0)])
    })
}

#[test]
fn who_claims_an_address_in_use_is_named_and_answered_at_most_every_ten_seconds() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 9)]}))?;
        it.service("web", json!({}))?;
        let address = it.wait_announced("web")?;
        let (holder, mac) = it.cluster.announcer(address)?;
        // Its first announcements are over.
        let quiet = |capture: &Capture| {
            let seen = capture.announcements(address);
            ensure!(seen.is_empty(), "announced {seen:?}");
            Ok(())
        };
        eventually("the address is announced no more", LONG, || {
            let capture = Capture::start(&it.cluster.lab, "client")?;
            std::thread::sleep(Duration::from_millis(2_500));
            quiet(&capture)
        })?;

        let capture = Capture::start(&it.cluster.lab, "client")?;
        let stranger = Stranger::with(&it.cluster.lab, &[])?;
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(12) {
            stranger.claim(address)?;
        }
        let claims = capture.announcements(address);
        let claims = claims.iter().filter(|frame| frame.source == stranger.mac);
        ensure!(claims.count() >= 5, "hardly any claim is seen");
        let defences: Vec<_> = capture
            .announcements(address)
            .into_iter()
            .filter(|frame| frame.source == mac)
            .filter(|frame| matches!(frame.body, Body::Arp { operation: 1, .. }))
            .collect();
        // One at once, one after ten seconds, and perhaps that of the minute.
        ensure!(
            (2..=3).contains(&defences.len()),
            "announced {} times in 12 s: {defences:?}",
            defences.len()
        );
        same(&it.client().one_answer(address)?, &mac)?;

        let note = it.expect_event_of("web", "Warning", "AddressConflict", address)?;
        ensure!(note.contains(&stranger.mac), "the note is {note:?}");
        let path = herald("virtualips", &VirtualIp::object_name(address));
        eventually("the conflict is in the status", LONG, || {
            let vip = it.cluster.api.get(&path)?;
            let conflict = condition(&vip, "Conflict");
            same(&text(&conflict["status"]), &"True")?;
            ensure!(
                text(&conflict["message"]).contains(&stranger.mac),
                "{conflict}"
            );
            Ok(())
        })?;
        let (ip, by) = (
            format!("ip=\"{address}\""),
            format!("mac=\"{}\"", stranger.mac),
        );
        let metrics = it.cluster.speaker_metrics(&holder)?;
        same(
            &metrics.series("herald_speaker_conflict", &[&ip, &by]),
            &vec![1.0],
        )
    })
}

#[test]
fn where_the_pool_yields_nobody_announces_an_address_until_its_stranger_has_been_silent()
-> Result<()> {
    sandbox(|it| {
        let addresses = [it.range_v4(0, 9)];
        it.pool(
            "a",
            json!({"addresses": addresses, "conflictPolicy": "Yield"}),
        )?;
        it.service("web", json!({}))?;
        let address = it.wait_announced("web")?;
        let (_, mac) = it.cluster.announcer(address)?;
        same(&it.client().one_answer(address)?, &mac)?;

        let stranger = Stranger::with(&it.cluster.lab, &[address])?;
        stranger.claim(address)?;
        let strangers = stranger.mac.clone();
        eventually("only the stranger answers", Duration::from_secs(5), || {
            same(&it.client().one_answer(address)?, &strangers)
        })?;
        let capture = Capture::start(&it.cluster.lab, "client")?;
        let note = it.expect_event_of("web", "Warning", "AddressConflict", address)?;
        ensure!(note.contains(&strangers), "the note is {note:?}");
        let path = herald("virtualips", &VirtualIp::object_name(address));
        eventually("the status says so", LONG, || {
            let vip = it.cluster.api.get(&path)?;
            same(&vip["status"]["segments"], &json!(null))?;
            ensure!(vip["status"]["yielded"][0].is_string(), "{}", vip["status"]);
            let conflict = condition(&vip, "Conflict");
            same(&text(&conflict["status"]), &"True")?;
            let announced = condition(&vip, "Announced");
            same(&text(&announced["reason"]), &"AddressConflict")
        })?;
        eventually("the Service says so", LONG, || {
            let service = it.get_service("web")?;
            let announced = condition(&service, "heraldlb.io/Announced");
            same(&text(&announced["status"]), &"False")?;
            same(&text(&announced["reason"]), &"AddressConflict")
        })?;
        throughout("only the stranger answers", Duration::from_secs(25), || {
            same(&it.client().one_answer(address)?, &strangers)
        })?;
        let of_ours = capture.announcements(address);
        let of_ours: Vec<_> = of_ours.iter().filter(|it| it.source != strangers).collect();
        ensure!(of_ours.is_empty(), "announced all the same: {of_ours:?}");

        drop(stranger);
        let left = Instant::now();
        // Asked every 20 s, and silent for a minute from the last answer on.
        eventually("it is announced again", Duration::from_mins(2), || {
            it.cluster.announcer(address).map(drop)
        })?;
        let after = left.elapsed();
        ensure!(after > Duration::from_secs(38), "after {after:?} already");
        let (_, mac) = it.cluster.announcer(address)?;
        same(&it.client().one_answer(address)?, &mac)?;
        eventually("the conflict is over", LONG, || {
            let vip = it.cluster.api.get(&path)?;
            same(&text(&condition(&vip, "Conflict")["status"]), &"False")?;
            same(&vip["status"]["yielded"], &json!(null))
        })
    })
}
