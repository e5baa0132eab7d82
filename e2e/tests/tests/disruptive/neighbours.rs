//! What a client's neighbour table does while an address moves, where nothing may be lost: entries too
//! young to be overwritten, and entries that are asked for again where no multicast gets through.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use herald_e2e::capture::{Body, Capture, Frame};
use herald_e2e::client::Client;
use herald_e2e::cluster::Cluster;
use herald_e2e::wait::{LONG, eventually, same};

use crate::moves::{Busy, terminate, unnoticed};

/// Shorter than the second for which Linux lets nobody overwrite a new ARP entry
/// (`net.ipv4.neigh.*.locktime`).
const OFTEN: Duration = Duration::from_millis(300);

/// Keeps the client from asking its LAN by multicast, until it is dropped.
struct OnlyUnicast<'a>(&'a Cluster);

impl<'a> OnlyUnicast<'a> {
    fn begin(cluster: &'a Cluster) -> Result<Self> {
        let rules = "table ip6 only_unicast { chain out { type filter hook output priority 0; \
                     icmpv6 type nd-neighbor-solicit ip6 daddr ff00::/8 drop; }; }";
        cluster.lab.exec("client", ["nft", rules])?.ok()?;
        Ok(Self(cluster))
    }
}

impl Drop for OnlyUnicast<'_> {
    fn drop(&mut self) {
        let remove = ["nft", "delete table ip6 only_unicast"];
        drop(self.0.lab.exec("client", remove));
    }
}

/// Has the holder of an address end while the client does something with its entry again and again, from
/// before the move until the client knows the new holder and has done it with that entry, too.
fn move_while(
    busy: &Busy<'_>,
    address: IpAddr,
    disturb: impl Fn(Client<'_>) -> Result<()> + Sync,
) -> Result<()> {
    let client = busy.it.client();
    let knows = |node: &str| -> Result<()> {
        let mac = busy.cluster.lab.node(node)?.address.mac;
        eventually(&format!("the client knows {node}"), LONG, || {
            same(&client.neighbour(address)?, &Some(mac.clone()))
        })
    };
    let old = busy.holder(address)?;
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let disturbing = scope.spawn(|| -> Result<()> {
            while !done.load(Ordering::Relaxed) {
                disturb(client)?;
                thread::sleep(OFTEN);
            }
            Ok(())
        });
        let moved = knows(&old)
            .and_then(|()| terminate(busy, &old))
            .and_then(|()| busy.moved(address, &old))
            .and_then(|new| knows(&new))
            // Once more, now that it knows.
            .map(|()| thread::sleep(5 * OFTEN));
        done.store(true, Ordering::Relaxed);
        disturbing
            .join()
            .map_err(|_panic| anyhow!("it has panicked"))??;
        moved
    })
}

#[test]
fn a_client_that_asks_anew_all_the_time_and_locks_each_answer_follows_without_loss() -> Result<()> {
    unnoticed(|busy| {
        let address = *busy.addresses.first().context("no address")?;
        move_while(busy, address, |client| client.forget(address))
    })
}

#[test]
fn an_ipv6_client_that_may_only_ask_by_unicast_follows_without_loss() -> Result<()> {
    unnoticed(|busy| {
        let mut addresses = busy.addresses.iter();
        let address = *addresses.find(|it| it.is_ipv6()).context("no address")?;
        let before = busy.holder(address)?;
        let capture = Capture::start(&busy.cluster.lab, "client")?;
        let only_unicast = OnlyUnicast::begin(busy.cluster)?;
        // NUD_PROBE: RFC 4861, 7.3.2.
        let probe = format!("neigh change {address} dev eth0 nud probe");
        move_while(busy, address, |client| client.ip(&probe).map(drop))?;
        drop(only_unicast);

        let answers = |node: &str| -> Result<usize> {
            let mac = busy.cluster.lab.node(node)?.address.mac;
            let solicited = |frame: &&Frame| {
                matches!(
                    frame.body,
                    Body::Advertisement {
                        solicited: true,
                        ..
                    }
                ) && frame.source == mac
                    && frame.answers(address)
            };
            Ok(capture.frames().iter().filter(solicited).count())
        };
        let after = busy.holder(address)?;
        for node in [&before, &after] {
            let count = answers(node)?;
            ensure!(count > 0, "{node} was asked by nobody, or did not answer");
        }
        Ok(())
    })
}
