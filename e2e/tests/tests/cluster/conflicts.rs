//! Addresses of a pool that a machine on the LAN has, which is no node of the cluster.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use herald_e2e::api::herald;
use herald_e2e::cluster::OTHER_CLIENT;
use herald_e2e::object::{condition, text};
use herald_e2e::sandbox::{Sandbox, sandbox};
use herald_e2e::wait::{LONG, eventually, same};
use herald_lab::Lab;
use herald_model::VirtualIp;
use serde_json::json;

/// A machine on the LAN with addresses of a pool; it loses them when this is dropped.
struct Stranger<'a> {
    lab: &'a Lab,
    mac: String,
    addresses: Vec<IpAddr>,
}

impl<'a> Stranger<'a> {
    fn with(it: &'a Sandbox, addresses: &[IpAddr]) -> Result<Self> {
        let lab = &it.cluster.lab;
        let mut stranger = Self {
            lab,
            mac: lab.address(OTHER_CLIENT)?.mac,
            addresses: Vec::new(),
        };
        for &address in addresses {
            stranger.addresses.push(address);
            stranger.ip("add", address)?;
        }
        Ok(stranger)
    }

    fn ip(&self, what: &str, address: IpAddr) -> Result<()> {
        let (address, more) = match address {
            IpAddr::V4(address) => (format!("{address}/32"), &[][..]),
            // Deprecated, so that what other tests send from there has the address it always had.
            IpAddr::V6(address) => (
                format!("{address}/128"),
                &["nodad", "preferred_lft", "0"][..],
            ),
        };
        let command = ["ip", "address", what, &address, "dev", "eth0"];
        let more = if what == "add" { more } else { &[] };
        self.lab
            .exec(OTHER_CLIENT, command.iter().chain(more))?
            .ok()?;
        Ok(())
    }
}

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        for &address in &self.addresses {
            self.ip("del", address).ok();
        }
    }
}

#[test]
fn an_address_that_a_stranger_uses_is_not_given_and_the_next_one_is() -> Result<()> {
    sandbox(|it| {
        let used = [it.v4(0), it.v6(0)];
        let stranger = Stranger::with(it, &used)?;
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
        let stranger = Stranger::with(it, &[it.v4(3)])?;
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
        let _stranger = Stranger::with(it, &[it.v4(0)])?;
        let addresses = [it.range_v4(0, 9)];
        it.pool("a", json!({"addresses": addresses, "conflictProbe": false}))?;
        it.service("web", json!({}))?;
        it.expect_addresses("web", &[it.v4(0)])
    })
}
