//! What controller and speakers count.

use anyhow::{Result, ensure};
use herald_e2e::sandbox::sandbox;
use herald_e2e::wait::{LONG, eventually};
use serde_json::json;

#[test]
fn a_new_address_is_seen_in_what_is_counted() -> Result<()> {
    sandbox(|it| {
        let cluster = it.cluster;
        let waits = || -> Result<[f64; 2]> {
            let counted = cluster.controller_metrics()?;
            let of = |end: &str| {
                let name = format!("herald_controller_allocation_seconds_{end}");
                counted.sum(&name, &[])
            };
            Ok([of("count"), of("sum")])
        };
        let counted = |name: &str, label: &str| -> Result<Vec<f64>> {
            let labels: Vec<&str> = [label].into_iter().filter(|it| !it.is_empty()).collect();
            let nodes = cluster.nodes();
            let of = |node: &String| Ok(cluster.speaker_metrics(node)?.sum(name, &labels));
            nodes.iter().map(of).collect()
        };
        let elections = || counted("herald_speaker_elections_total", r#"result="planned""#);
        let updates = || counted("herald_speaker_data_plane_updates_total", "");
        let written = || {
            counted(
                "herald_speaker_data_plane_entries_total",
                r#"what="written""#,
            )
        };
        let (waits_before, elections_before) = (waits()?, elections()?);
        let (updates_before, written_before) = (updates()?, written()?);
        it.pool("a", json!({"addresses": [it.range_v4(0, 0)]}))?;
        it.service("web", json!({}))?;
        it.wait_announced("web")?;
        let more =
            |now: &[f64], before: &[f64]| now.iter().zip(before).all(|(now, before)| now > before);
        eventually("the wait for it is counted", LONG, || {
            let now = waits()?;
            ensure!(more(&now, &waits_before), "{now:?} after {waits_before:?}");
            Ok(())
        })?;
        eventually("each node has written it to its maps", LONG, || {
            let now = (updates()?, written()?);
            let is_more = more(&now.0, &updates_before) && more(&now.1, &written_before);
            ensure!(
                is_more,
                "{now:?} after {updates_before:?}, {written_before:?}"
            );
            Ok(())
        })?;
        eventually("one node was elected", LONG, || {
            let now = elections()?;
            let all = now.iter().zip(&elections_before);
            ensure!(all.into_iter().any(|(now, before)| now > before), "{now:?}");
            Ok(())
        })
    })
}
