//! A thousand addresses move at once: the LAN hears no more of it at a time than was set.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use herald_e2e::api::herald;
use herald_e2e::capture::{Capture, Frame};
use herald_e2e::cluster::{Cluster, report};
use herald_e2e::object::{items, text};
use herald_e2e::sandbox::sandbox;
use herald_e2e::wait::eventually;
use herald_lab::Program;
use serde_json::json;

use crate::{alone, install};

const ADDRESSES: usize = 1_000;
const BURST: usize = 100;
const RATE: u32 = 200;
/// A frame may wait for its turn on a busy machine, and those after it do not wait for it.
const LATE: Duration = Duration::from_secs(1);
const LIMIT: Duration = Duration::from_mins(5);

/// Waits until one node announces all of a pool's addresses, as their plans are alike: which.
fn holder_of_all(cluster: &Cluster, pool: &str) -> Result<String> {
    eventually("one node announces all", LIMIT, || {
        let vips = cluster.api.list(&herald("virtualips", ""))?;
        let ours = vips.iter().filter(|vip| text(&vip["spec"]["pool"]) == pool);
        let mut holders: BTreeMap<&str, usize> = BTreeMap::new();
        for segment in ours.flat_map(|vip| items(&vip["status"]["segments"])) {
            *holders.entry(text(&segment["node"])).or_default() += 1;
        }
        let all = holders.iter().find(|(_, count)| **count == ADDRESSES);
        let (node, _) = all.with_context(|| format!("{holders:?}"))?;
        Ok((*node).to_owned())
    })
}

/// The first moment at which more frames had been sent than the bucket holds, with how many too many.
fn too_fast(times: &[Duration]) -> Option<(Duration, usize)> {
    // A bucket that is filled at the rate and emptied frame by frame; the last may have been late.
    let mut full_at = Duration::ZERO;
    let interval = Duration::from_secs(1) / RATE;
    let capacity = interval * u32::try_from(BURST).ok()? + LATE;
    for (number, &at) in times.iter().enumerate() {
        full_at = full_at.max(at) + interval;
        if full_at > at + capacity {
            return Some((at, number));
        }
    }
    None
}

#[test]
fn a_thousand_addresses_that_move_at_once_are_announced_at_the_pace_that_is_set() -> Result<()> {
    alone(|cluster| {
        let set = [
            format!("speaker.announceBurst={BURST}"),
            format!("speaker.announceRate={RATE}"),
        ];
        let set: Vec<&str> = set.iter().map(String::as_str).collect();
        install(cluster, &set)?;
        let tested = cluster.wait_whole().and_then(|()| all_move(cluster));
        cluster.lab.heal_all()?;
        install(cluster, &[])?;
        cluster.wait_whole()?;
        tested
    })
}

fn all_move(cluster: &Cluster) -> Result<()> {
    sandbox(|it| {
        let pool = it.name("many");
        it.pool("many", json!({"addresses": ["172.30.80.0/21"]}))?;
        let prefer = |weight: u32, node: &str| {
            let preference = json!({"matchLabels": {"kubernetes.io/hostname": node}});
            json!({"weight": weight, "preference": preference})
        };
        it.advertisement(
            "many",
            json!({
                "preferredNodeSelectors": [prefer(100, "node1"), prefer(50, "node2")],
            }),
        )?;
        for number in 0..ADDRESSES {
            it.service(&format!("many-{number}"), json!({}))?;
        }
        let old = holder_of_all(cluster, &pool)?;

        let capture = Capture::start(&cluster.lab, "client")?;
        let old_mac = cluster.lab.node(&old)?.address.mac;
        // One that is back before its peers miss it keeps what it has.
        cluster.lab.kill_and_hold(&old, Program::Speaker)?;
        let is_ours = |address: &IpAddr| matches!(address, IpAddr::V4(it) if it.octets()[..2] == [172, 30] && (80..88).contains(&it.octets()[2]));
        let frames = eventually("each is announced anew", LIMIT, || {
            let mut frames = capture.frames();
            frames.retain(|frame| frame.source != old_mac);
            let heard: BTreeSet<IpAddr> = frames.iter().filter_map(Frame::announced).collect();
            let count = heard.iter().filter(|it| is_ours(it)).count();
            ensure!(count == ADDRESSES, "{count} of {ADDRESSES}");
            Ok(frames)
        })?;
        let new = frames.iter().find(|it| it.announced().is_some());
        let new = &new.context("nothing was heard")?.source;
        let times = frames.iter().filter(|frame| frame.source == *new);
        let times: Vec<Duration> = times
            .filter(|frame| frame.announced().is_some())
            .map(|frame| frame.at)
            .collect();
        let took = times.last().zip(times.first());
        let took = took.map(|(last, first)| last.saturating_sub(*first));
        report(&format!("{} frames in {took:?}", times.len()));
        ensure!(
            too_fast(&times).is_none(),
            "more than {BURST} and {RATE} a second, by time and number: {:?}",
            too_fast(&times)
        );
        // A test of the test: so many do not fit into the burst.
        ensure!(times.len() > 2 * BURST, "only {} frames", times.len());
        Ok(())
    })
}
