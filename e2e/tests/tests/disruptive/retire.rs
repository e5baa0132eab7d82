//! Before an uninstallation: nothing of Herald's stays on a node.

use anyhow::{Result, ensure};
use herald_e2e::api::herald;
use herald_e2e::cluster::Cluster;
use herald_e2e::object::{condition, text};
use herald_e2e::sandbox::backend;
use herald_e2e::wait::{LONG, eventually, same};
use serde_json::json;

use crate::alone;
use crate::failover::{all_nodes_serve, moved, serve};

/// What of Herald's a node has: pins, programs and maps that a process has open, routes, rules, snapshots.
pub(crate) fn left(cluster: &Cluster, node: &str) -> Result<String> {
    let script = r#"
        find /sys/fs/bpf/herald /var/lib/herald -mindepth 1 2>/dev/null
        for process in /proc/[0-9]*; do
            [ "$(cat "$process/comm" 2>/dev/null)" = herald-speaker ] && ls -l "$process/fd" | grep -o anon_inode:bpf.*
        done
        for family in -4 -6; do
            ip $family route show table 18501 2>/dev/null
            ip $family rule | grep 18501
        done
        true"#;
    Ok(cluster.lab.exec(node, ["sh", "-c", script])?.ok()?)
}

fn retire(cluster: &Cluster, node: &str, retire: bool) -> Result<()> {
    let spec = json!({"spec": {"retire": retire}});
    cluster
        .api
        .merge(&herald("speakers", node), &spec)
        .map(drop)
}

/// The whole story of a node that announces an address, up to where it is asked to work again.
fn story(work_again: impl FnOnce(&Cluster, &str) -> Result<()>) -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let four = serve(it)?[0];
            let (old, _) = cluster.announcer(four)?;
            let before = left(cluster, &old)?;
            for part in ["/links/", "anon_inode:bpf", "blackhole", "iif", ".json"] {
                ensure!(before.contains(part), "there is no {part} in {before}");
            }
            retire(cluster, &old, true)?;
            let result = (|| -> Result<String> {
                let new = moved(it, four, &old, LONG)?;
                eventually("it says that it is done", LONG, || {
                    let speaker = cluster.api.get(&herald("speakers", &old))?;
                    same(&text(&condition(&speaker, "Ready")["reason"]), &"Retired")
                })?;
                same(&left(cluster, &old)?.as_str(), &"")?;
                // Its pods and its kube-proxy go on.
                all_nodes_serve(it, four)?;
                Ok(new)
            })();
            work_again(cluster, &old)?;
            let new = result?;
            cluster.wait_whole()?;
            eventually("it has programs again", LONG, || {
                let now = left(cluster, &old)?;
                ensure!(now.contains("/links/"), "{now}");
                Ok(())
            })?;
            all_nodes_serve(it, four)?;
            same(&cluster.announcer(four)?.0, &new)
        })
    })
}

#[test]
fn a_node_that_is_to_retire_keeps_nothing_of_herald_and_works_again_when_it_is_not() -> Result<()> {
    story(|cluster, node| retire(cluster, node, false))
}

#[test]
fn a_retired_node_whose_speaker_object_is_deleted_works_again() -> Result<()> {
    story(|cluster, node| cluster.api.delete(&herald("speakers", node)))
}
