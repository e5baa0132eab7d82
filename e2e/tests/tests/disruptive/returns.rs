//! Nodes that come back: from a freeze into a crowd of questions, while the API server is away, and all
//! of them at once.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use herald_e2e::asking::{Asking, CLIENTS, FIRST_CLIENT};
use herald_e2e::capture::{Body, Capture, Frame};
use herald_e2e::cluster::Cluster;
use herald_e2e::sandbox::backend;
use herald_e2e::wait::{LONG, eventually, same, throughout};
use herald_lab::Program;

use crate::failover::{all_nodes_serve, serve};
use crate::takeover::{adopted, epoch, gets_nothing_back, taken_over, vip};
use crate::{alone, start_api, stop_api};

const FROZEN: Duration = Duration::from_secs(5);

/// Which of the clients a frame answers.
fn client_of(frame: &Frame) -> Option<u32> {
    let Body::Arp { target, .. } = &frame.body else {
        return None;
    };
    let number = u32::from(target.1).checked_sub(u32::from(FIRST_CLIENT))?;
    (number < CLIENTS).then_some(number)
}

/// Waits until each client has had an answer from this MAC address, to a question later than those
/// that `capture` has seen answered until now.
fn all_are_answered(capture: &Capture, address: IpAddr, mac: &str) -> Result<()> {
    let before = capture.frames().len();
    eventually("each client is answered", LONG, || {
        let frames = capture.frames();
        let answered: BTreeSet<u32> = frames
            .iter()
            .skip(before)
            .filter(|frame| frame.answers(address) && frame.source == mac)
            .filter_map(client_of)
            .collect();
        ensure!(answered.len() == CLIENTS as usize, "{} are", answered.len());
        Ok(())
    })
}

#[test]
fn a_speaker_thawed_under_200_asking_clients_answers_none_of_them() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let lab = &cluster.lab;
            let address = serve(it)?[0];
            let (old, mac) = cluster.announcer(address)?;
            let capture = Capture::start(lab, "client")?;
            let asking = Asking::start(lab, address)?;
            all_are_answered(&capture, address, &mac)?;

            lab.freeze_program(&old, Program::Speaker)?;
            let frozen = Instant::now();
            let new = taken_over(it, address, &old)?;
            let new_mac = lab.node(&new)?.address.mac;
            all_are_answered(&capture, address, &new_mac)?;
            // It has a thousand questions to answer by now.
            thread::sleep(FROZEN.saturating_sub(frozen.elapsed()));
            let others = |frame: &Frame| frame.source == new_mac && frame.announces(address);
            let taken = capture
                .frames()
                .iter()
                .find(|&it| others(it))
                .map(|it| it.at);
            let taken = taken.context("nobody was heard to take over")?;
            lab.thaw_program(&old, Program::Speaker)?;
            eventually("all speakers see it again", LONG, || {
                sees_all(cluster, &new)
            })?;
            all_are_answered(&capture, address, &new_mac)?;
            drop(asking);

            let heard: Vec<_> = capture
                .frames()
                .into_iter()
                .filter(|frame| frame.at > taken && frame.source == mac)
                .filter(|frame| frame.answers(address) || frame.announces(address))
                .collect();
            ensure!(heard.is_empty(), "{} of {old}: {heard:?}", heard.len());
            same(&it.client().one_answer(address)?, &new_mac)
        })
    })
}

/// That a speaker sees all others; this asks no API server.
fn sees_all(cluster: &Cluster, node: &str) -> Result<()> {
    let up = cluster
        .speaker_metrics(node)?
        .sum("herald_speaker_ring_members", &["state=\"up\""]);
    let all: u32 = cluster.nodes().len().try_into()?;
    same(&up, &f64::from(all))
}

#[test]
fn an_owner_that_returns_while_the_api_server_is_away_gets_nothing_back() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let lab = &cluster.lab;
            let address = serve(it)?[0];
            let (old, _) = cluster.announcer(address)?;
            let before = epoch(&vip(cluster, address)?)?;
            stop_api(cluster)?;
            lab.cut(&old, true)?;
            let new = taken_over(it, address, &old)?;
            let capture = Capture::start(lab, "client")?;
            lab.heal(&old)?;
            for node in [&new, &old] {
                eventually("it sees all others", LONG, || sees_all(cluster, node))?;
            }
            gets_nothing_back(it, &capture, address, &old, &new)?;
            start_api(cluster)?;
            adopted(it, address, &new, before)?;
            gets_nothing_back(it, &capture, address, &old, &new)
        })
    })
}

#[test]
fn nodes_that_all_lose_power_while_the_api_server_is_away_serve_the_same_addresses_again()
-> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let lab = &cluster.lab;
            let addresses = serve(it)?;
            stop_api(cluster)?;
            for node in cluster.nodes() {
                lab.power_off(&node)?;
            }
            same(&it.client().who_has(addresses[0])?, &Vec::new())?;
            for node in cluster.nodes() {
                lab.power_on(&node, false)?;
            }
            // A kubelet starts no pod before it has heard of it, so nothing can come back yet.
            throughout("nobody answers", Duration::from_secs(2), || {
                same(&it.client().who_has(addresses[0])?, &Vec::new())
            })?;
            start_api(cluster)?;
            cluster.wait_whole()?;
            same(&it.addresses("web")?, &addresses)?;
            for address in &addresses {
                eventually("the status names who answers, alone", LONG, || {
                    let (_, mac) = cluster.announcer(*address)?;
                    same(&it.client().one_answer(*address)?, &mac)
                })?;
                all_nodes_serve(it, *address)?;
            }
            Ok(())
        })
    })
}
