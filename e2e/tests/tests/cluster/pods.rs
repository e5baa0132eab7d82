//! How Herald itself runs.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, ensure};
use herald_e2e::api::herald;
use herald_e2e::cluster::cluster;
use herald_e2e::object::{condition, items, text};
use herald_e2e::sandbox::sandbox;
use herald_e2e::wait::{LONG, eventually, same};
use serde_json::json;

/// The lines of `/proc/PID/status` of the one process of this name on a node.
fn process_status(node: &str, name: &str) -> Result<String> {
    let script = "for pid in /proc/[0-9]*; do \
        [ \"$(cat $pid/comm 2>/dev/null)\" = \"$0\" ] && cat $pid/status; done; true";
    let shown = cluster()?
        .lab
        .exec(node, ["sh", "-c", script, name])?
        .ok()?;
    ensure!(!shown.is_empty(), "no process {name} on {node}");
    Ok(shown)
}

/// The values of one field of it.
fn field<'a>(status: &'a str, name: &str) -> Vec<&'a str> {
    status
        .lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
        .collect()
}

#[test]
fn a_speaker_has_exactly_the_five_capabilities_of_the_chart() -> Result<()> {
    // NET_ADMIN 12, NET_RAW 13, SYS_NICE 23, PERFMON 38, BPF 39.
    let five = "000000c000803000";
    for node in cluster()?.nodes() {
        let status = process_status(&node, "herald-speaker")?;
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            same(&field(&status, set), &vec![five]).with_context(|| format!("{set} on {node}"))?;
        }
        same(&field(&status, "NoNewPrivs"), &vec!["1"])?;
        // A filter is in force.
        same(&field(&status, "Seccomp"), &vec!["2"])?;
    }
    Ok(())
}

#[test]
fn the_code_of_a_speaker_stays_in_memory_or_its_object_says_that_it_does_not() -> Result<()> {
    let kilobytes = |status: &str, name: &str| -> Result<u64> {
        let value = field(status, name).first().copied().unwrap_or_default();
        let number = value.trim_end_matches(" kB");
        number
            .parse()
            .with_context(|| format!("{name} is {value:?}"))
    };
    for node in cluster()?.nodes() {
        let status = process_status(&node, "herald-speaker")?;
        let (locked, code) = (kilobytes(&status, "VmLck")?, kilobytes(&status, "VmExe")?);
        let speaker = cluster()?.api.get(&herald("speakers", &node))?;
        let ready = text(&condition(&speaker, "Ready")["message"]).to_owned();
        let says_no = ready.contains("RLIMIT_MEMLOCK");
        ensure!(
            (locked >= code) != says_no,
            "{node} has {code} kB of code and locked {locked} kB: {ready:?}"
        );
    }
    Ok(())
}

#[test]
fn the_controller_runs_without_capabilities_and_not_as_root() -> Result<()> {
    let mut seen = 0;
    for pod in cluster()?.pods("controller")? {
        let node = text(&pod["spec"]["nodeName"]);
        let status = process_status(node, "herald-control")
            .or_else(|_| process_status(node, "herald-controll"))?;
        ensure!(
            field(&status, "CapEff")
                .iter()
                .all(|set| *set == "0000000000000000"),
            "{status}"
        );
        ensure!(
            field(&status, "Uid")
                .iter()
                .all(|ids| ids.starts_with("65532")),
            "{status}"
        );
        seen += 1;
    }
    same(&seen, &2)
}

#[test]
fn both_components_have_a_read_only_root() -> Result<()> {
    for component in ["controller", "speaker"] {
        for pod in cluster()?.pods(component)? {
            for container in items(&pod["spec"]["containers"]) {
                let context = &container["securityContext"];
                same(&context["readOnlyRootFilesystem"], &json!(true))?;
                same(&context["allowPrivilegeEscalation"], &json!(false))?;
            }
        }
    }
    Ok(())
}

#[test]
fn each_image_is_smaller_than_20_mb() -> Result<()> {
    for name in ["herald-controller", "herald-speaker"] {
        let image = cluster()?.lab.folder().join(format!("images/{name}.tar"));
        let size = fs::metadata(&image)?.len();
        ensure!(size < 20_000_000, "{name} has {size} bytes");
    }
    Ok(())
}

#[test]
fn every_node_has_a_speaker_object_that_is_ready() -> Result<()> {
    let cluster = cluster()?;
    for node in cluster.lab.nodes() {
        eventually("the Speaker is Ready", LONG, || {
            let speaker = cluster.api.get(&herald("speakers", &node.name))?;
            let status = &speaker["status"];
            same(&text(&condition(&speaker, "Ready")["status"]), &"True")?;
            same(&text(&status["dataPlane"]["mode"]), &"tcx")?;
            let segments = items(&status["segments"]);
            ensure!(segments.len() == 1, "the segments are {segments:?}");
            let segment = &segments[0];
            same(
                &(
                    text(&segment["name"]),
                    text(&segment["interface"]),
                    text(&segment["mac"]),
                ),
                &("172.30.0.0/16", "eth0", node.address.mac.as_str()),
            )?;
            same(&segment["carrier"], &json!(true))
        })?;
    }
    Ok(())
}

#[test]
fn health_and_readiness_are_answered() -> Result<()> {
    let cluster = cluster()?;
    for node in cluster.lab.nodes() {
        for path in ["livez", "readyz", "metrics"] {
            let url = format!("http://{}:7471/{path}", node.address.primary());
            cluster
                .lab
                .exec("cp", ["curl", "-sSf", "--max-time", "5", &url])?
                .ok()?;
        }
    }
    for pod in cluster.pods("controller")? {
        for path in ["livez", "readyz", "metrics"] {
            let url = format!("http://{}:7470/{path}", text(&pod["status"]["podIP"]));
            cluster
                .lab
                .exec("cp", ["curl", "-sSf", "--max-time", "5", &url])?
                .ok()?;
        }
    }
    Ok(())
}

#[test]
fn the_controllers_gauges_say_what_a_pool_holds_and_end_with_it() -> Result<()> {
    sandbox(|it| {
        it.pool(
            "a",
            json!({"addresses": [it.range_v4(0, 9), it.range_v6(0, 3)]}),
        )?;
        it.dual_service("web", json!({}))?;
        it.service("four", json!({}))?;
        let pool = format!("pool=\"{}\"", it.name("a"));
        eventually("the gauges are right", LONG, || {
            let metrics = it.cluster.controller_metrics()?;
            let of = |name: &str, family: &str| {
                let name = format!("herald_controller_{name}");
                metrics.sum(&name, &[&pool, &format!("family=\"{family}\"")])
            };
            same(
                &[
                    of("pool_addresses", "ipv4"),
                    of("pool_addresses_assigned", "ipv4"),
                    of("pool_addresses", "ipv6"),
                    of("pool_addresses_assigned", "ipv6"),
                ],
                &[10.0, 2.0, 4.0, 1.0],
            )
        })?;
        it.delete_pool("a")?;
        eventually("its series are gone", LONG, || {
            let metrics = it.cluster.controller_metrics()?;
            same(
                &metrics.series("herald_controller_pool_addresses", &[&pool]),
                &vec![],
            )
        })
    })
}

#[test]
fn kubectl_shows_what_a_person_looks_for() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 9)]}))?;
        it.service("web", json!({}))?;
        let address = it.wait_announced("web")?.to_string();
        let (node, _) = it.cluster.announcer(it.v4(0))?;
        let lab = &it.cluster.lab;
        eventually("its row is complete", LONG, || {
            let rows = lab.kubectl(["get", "vip"])?;
            let header: Vec<&str> = rows
                .lines()
                .next()
                .unwrap_or_default()
                .split_whitespace()
                .collect();
            same(
                &header,
                &vec![
                    "NAME",
                    "ADDRESS",
                    "SERVICE",
                    "NODE",
                    "INTERFACE",
                    "FORWARDING",
                    "SINCE",
                ],
            )?;
            let row = rows
                .lines()
                .find(|row| row.contains(&address))
                .context("no row")?;
            let cells: BTreeSet<&str> = row.split_whitespace().collect();
            for cell in ["web", node.as_str(), "eth0", "dsr"] {
                ensure!(cells.contains(cell), "no {cell} in {row}");
            }
            Ok(())
        })?;
        lab.kubectl(["get", "pool"])?;
        lab.kubectl(["get", "l2adv"])?;
        lab.kubectl(["get", "herald"]).map(drop).map_err(Into::into)
    })
}
