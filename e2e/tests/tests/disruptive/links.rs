//! What becomes of an address when something about its announcer's interface changes: the name, the MAC
//! address, the programs on it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use herald_e2e::cluster::Cluster;
use herald_e2e::object::{items, text};
use herald_e2e::sandbox::{Sandbox, backend};
use herald_e2e::wait::{LONG, eventually, same};

use crate::alone;
use crate::failover::serve;
use crate::segments::run;
use crate::takeover::vip;

/// Runs commands on a node, whatever becomes of the test.
struct Undo<'a> {
    cluster: &'a Cluster,
    node: String,
    commands: &'static str,
}

impl Undo<'_> {
    fn run(&self, commands: &str) -> Result<()> {
        run(self.cluster, &self.node, commands)
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        self.run(self.commands).ok();
    }
}

/// Asks an address again and again: the longest time without an answer.
fn longest_silence(it: &Sandbox, address: IpAddr, time: Duration) -> Duration {
    let began = Instant::now();
    let (mut last, mut longest) = (began, Duration::ZERO);
    while began.elapsed() < time {
        if it.client().http(address, 80, 1).is_ok() {
            longest = longest.max(last.elapsed());
            last = Instant::now();
        }
    }
    longest.max(last.elapsed())
}

#[test]
fn an_interface_that_gets_another_name_goes_on_announcing() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let address = serve(it)?[0];
            let (node, mac) = cluster.announcer(address)?;
            let undo = Undo {
                cluster,
                node,
                commands: "ip link set lan7 name eth0",
            };
            undo.run("ip link set eth0 name lan7")?;
            let silence = longest_silence(it, address, Duration::from_secs(8));
            ensure!(silence < Duration::from_secs(2), "silent for {silence:?}");
            eventually("the status has the new name", LONG, || {
                let vip = vip(cluster, address)?;
                let entry = &items(&vip["status"]["segments"])[0];
                same(&text(&entry["interface"]), &"lan7")?;
                same(&text(&entry["mac"]), &&*mac)
            })
        })
    })
}

#[test]
fn another_mac_address_is_announced_and_answered_with_at_once() -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let address = serve(it)?[0];
            let (node, mac) = cluster.announcer(address)?;
            let undo = Undo {
                cluster,
                node,
                commands: "ip link set eth0 address $(cat /tmp/mac-of-eth0)",
            };
            undo.run(&format!("echo {mac} > /tmp/mac-of-eth0"))?;
            it.client().http(address, 80, 1)?;
            undo.run("ip link set eth0 address 02:00:5e:00:53:07")?;
            let silence = longest_silence(it, address, Duration::from_secs(8));
            ensure!(silence < Duration::from_secs(3), "silent for {silence:?}");
            // Announced anew, unless the ring has found that life of the node to be over.
            let answers = it.client().one_answer(address)?;
            ensure!(answers != mac, "{answers} still answers");
            Ok(())
        })
    })
}

#[test]
fn programs_that_somebody_takes_off_the_announcers_interface_are_back_within_seconds() -> Result<()>
{
    alone(|cluster| {
        backend(|it| {
            let address = serve(it)?[0];
            let (node, mac) = cluster.announcer(address)?;
            let repairs = || -> Result<f64> {
                let metrics = cluster.speaker_metrics(&node)?;
                Ok(metrics.sum(
                    "herald_speaker_data_plane_repairs_total",
                    &["what=\"programs\""],
                ))
            };
            let before = repairs()?;
            let pins = "ls /sys/fs/bpf/herald/*/links/*gress | wc -l";
            let count = || -> Result<String> {
                let said = cluster.lab.exec(&node, ["sh", "-c", pins])?.ok()?;
                Ok(said.trim().to_owned())
            };
            let all = count()?;
            let remove = "rm /sys/fs/bpf/herald/*/links/*gress";
            cluster.lab.exec(&node, ["sh", "-c", remove])?.ok()?;
            let began = Instant::now();
            eventually("the programs are back", Duration::from_secs(5), || {
                same(&count()?, &all)?;
                ensure!(repairs()? > before, "no repair is counted");
                Ok(())
            })?;
            let after = began.elapsed();
            ensure!(after < Duration::from_millis(2_500), "after {after:?}");
            same(&it.client().one_answer(address)?, &mac)?;
            it.client().http(address, 80, 10).map(drop)
        })
    })
}
