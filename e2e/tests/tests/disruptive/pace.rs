//! A thousand addresses move at once: the LAN hears no more of it at a time than was set.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
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

/// How many of the addresses a node announces, by the status.
fn announced_by(cluster: &Cluster, pool: &str, node: &str) -> Result<usize> {
    let vips = cluster.api.list(&herald("virtualips", ""))?;
    let ours = vips.iter().filter(|vip| text(&vip["spec"]["pool"]) == pool);
    let there = ours.filter(|vip| {
        let segments = items(&vip["status"]["segments"]);
        segments.len() == 1 && text(&segments[0]["node"]) == node
    });
    Ok(there.count())
}

fn all_on(cluster: &Cluster, pool: &str, node: &str) -> Result<()> {
    eventually(&format!("{node} announces all"), LIMIT, || {
        let count = announced_by(cluster, pool, node)?;
        ensure!(count == ADDRESSES, "{count} of {ADDRESSES}");
        Ok(())
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
        all_on(cluster, &pool, "node1")?;

        let capture = Capture::start(&cluster.lab, "client")?;
        cluster.lab.kill("node1", Program::Speaker, "KILL")?;
        let mac = cluster.lab.node("node2")?.address.mac;
        let ours = |frame: &Frame| -> Option<IpAddr> {
            let address = frame.announced().filter(|_| frame.source == mac)?;
            matches!(address, IpAddr::V4(it) if it.octets()[2] >= 80 && it.octets()[2] < 88)
                .then_some(address)
        };
        let frames = eventually("node2 has announced each", LIMIT, || {
            let frames = capture.frames();
            let heard: BTreeSet<IpAddr> = frames.iter().filter_map(ours).collect();
            ensure!(heard.len() == ADDRESSES, "{} of {ADDRESSES}", heard.len());
            Ok(frames)
        })?;
        // Its other frames are in the same bucket.
        let times = frames.iter().filter(|frame| frame.source == mac);
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
