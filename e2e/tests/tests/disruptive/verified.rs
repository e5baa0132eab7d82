//! Another node looks whether the one that took an address over answers, and the status says so.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use herald_e2e::cluster::Cluster;
use herald_e2e::object::{condition, text};
use herald_e2e::sandbox::backend;
use herald_e2e::wait::{LONG, eventually, same};
use herald_lab::{Lab, Program};

use crate::alone;
use crate::failover::serve;
use crate::takeover::vip;

/// The next question comes a minute after one that the holder did not answer.
const AGAIN: Duration = Duration::from_mins(2);

/// A switch that drops what it does not trust: answers about an IPv4 address; until it is dropped.
pub(crate) struct Distrust<'a>(&'a Lab);

impl<'a> Distrust<'a> {
    pub(crate) fn of(lab: &'a Lab, address: IpAddr) -> Result<Self> {
        let rules = format!(
            "table bridge distrust {{ chain forward {{ type filter hook forward priority 0; \
             arp operation reply arp saddr ip {address} drop; }}; }}"
        );
        lab.exec("lan", ["nft", &rules])?.ok()?;
        Ok(Self(lab))
    }
}

impl Drop for Distrust<'_> {
    fn drop(&mut self) {
        drop(self.0.exec("lan", ["nft", "delete table bridge distrust"]));
    }
}

/// Waits until the status says of the holder, whoever that is, how it was found: its reason.
fn said(cluster: &Cluster, address: IpAddr, limit: Duration, reason: &str) -> Result<String> {
    eventually(&format!("the status says {reason}"), limit, || {
        let vip = vip(cluster, address)?;
        let verified = condition(&vip, "Verified");
        same(&text(&verified["reason"]), &reason)?;
        let holds = reason == "HolderAnswers";
        same(
            &text(&verified["status"]),
            &if holds { "True" } else { "False" },
        )?;
        Ok(text(&verified["message"]).to_owned())
    })
}

#[test]
fn whether_the_new_holder_answers_is_in_the_status_and_a_silent_one_is_asked_again() -> Result<()> {
    alone(|cluster| {
        let lab = &cluster.lab;
        let tested = backend(|it| {
            let address = serve(it)?[0];
            let (old, _) = cluster.announcer(address)?;
            lab.kill_and_hold(&old, Program::Speaker)?;
            let message = said(cluster, address, LONG, "HolderAnswers")?;
            let (new, mac) = cluster.announcer(address)?;
            ensure!(
                message.contains(&new) && message.contains(&mac),
                "{new} with {mac}, but: {message}"
            );
            lab.heal(&old)?;
            cluster.wait_whole()?;

            let distrust = Distrust::of(lab, address)?;
            lab.kill_and_hold(&new, Program::Speaker)?;
            said(cluster, address, LONG, "NobodyAnswers")?;
            let note = it.expect_event_of("web", "Warning", "Unverified", address)?;
            ensure!(note.contains("nobody answered"), "the note: {note:?}");
            drop(distrust);
            said(cluster, address, AGAIN, "HolderAnswers").map(drop)
        });
        lab.heal_all()?;
        tested
    })
}
