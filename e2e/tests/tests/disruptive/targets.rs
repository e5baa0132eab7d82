//! A target that goes and comes back under load.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use herald_e2e::cluster::{Cluster, report};
use herald_e2e::newcomers::Newcomers;
use herald_e2e::sandbox::sandbox;
use herald_e2e::wait::{LONG, eventually, same};
use serde_json::json;

use crate::alone;
use crate::moves::serve_each;
use crate::takeover::vip;

const PORT: u16 = 9090;
/// Those in which a node without a pod of the Service takes its traffic.
const MODES: [&str; 2] = ["dsr", "nodeport"];
/// A second to each address: one of each family in each mode.
const NEWCOMERS: u32 = 100;
const TARGET: &str = "node3";
/// A connection that was begun before has failed by then.
const PATIENCE: Duration = Duration::from_secs(1);
/// Of a cluster that nothing happens to, before and after.
const REST: Duration = Duration::from_secs(2);

fn wait_for_targets(cluster: &Cluster, addresses: &[IpAddr], count: u64) -> Result<()> {
    for address in addresses {
        eventually(&format!("{address} has {count} targets"), LONG, || {
            let vip = vip(cluster, *address)?;
            same(&vip["status"]["targets"].as_u64(), &Some(count))
        })?;
    }
    Ok(())
}

#[test]
fn a_target_that_is_back_after_a_power_cut_fails_no_connection() -> Result<()> {
    alone(|cluster| {
        sandbox(|it| {
            let lab = &cluster.lab;
            // The target announces nothing, and has no pods: that those are gone and back is Kubernetes's to notice.
            let node = |operator: &str, key: &str| json!([{"key": key, "operator": operator, "values": [TARGET]}]);
            let others = json!({"matchExpressions": node("NotIn", "kubernetes.io/hostname")});
            it.advertisement(
                "a",
                json!({"preferredNodeSelectors": [{"weight": 100, "preference": others}]}),
            )?;
            let terms = json!({"nodeSelectorTerms": [others]});
            let affinity =
                json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}});
            it.pods("echo", 4, &json!({"affinity": affinity}))?;
            let mut addresses = Vec::new();
            for (address, _) in serve_each(it, &MODES)? {
                ensure!(cluster.announcer(address)?.0 != TARGET);
                addresses.push(address);
            }
            wait_for_targets(cluster, &addresses, 3)?;

            let mut traffic = Vec::new();
            for address in &addresses {
                let to = SocketAddr::new(*address, PORT);
                let newcomers = Newcomers::start(lab, "client", to, NEWCOMERS)?;
                traffic.push((address, Instant::now(), newcomers));
            }
            thread::sleep(REST);
            let off = Instant::now();
            lab.power_off(TARGET)?;
            wait_for_targets(cluster, &addresses, 2)?;
            thread::sleep(PATIENCE);
            let gone = Instant::now();
            lab.power_on(TARGET, false)?;
            wait_for_targets(cluster, &addresses, 3)?;
            thread::sleep(REST);
            cluster.wait_whole()?;

            let mut lost = Vec::new();
            for (address, began, newcomers) in traffic {
                let tally = newcomers.finish(lab)?;
                let failed = |from: Instant, to: Instant| {
                    let times = tally.failed.iter().map(|(at, _)| began + *at);
                    times.filter(|at| (from..to).contains(at)).count()
                };
                let end = Instant::now();
                let at_loss = failed(off, gone);
                report(&format!("{address}: {at_loss} failed by the loss; {tally}"));
                if failed(began, off) + failed(gone, end) > 0 {
                    lost.push(format!("{address}: {tally}"));
                }
            }
            same(&lost, &Vec::new())
        })
    })
}
