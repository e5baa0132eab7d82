//! Having an address move.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use herald_api::{Speaker, VirtualIP};
use herald_model::{CRASH, MOVE_TO, NodeName, VirtualIp};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Act, Plan};

/// Between two looks at who announces the address.
const LOOK: Duration = Duration::from_millis(20);

fn annotation(name: &str, value: Option<&str>) -> Patch<Value> {
    Patch::Merge(json!({"metadata": {"annotations": {name: value}}}))
}

/// Asks for the move; who announces the address then, and after which time that was to be seen.
///
/// # Errors
///
/// If the API server refuses, or nothing moves in time. What was asked for is taken back then.
pub(super) async fn carry_out(
    client: &Client,
    plan: &Plan,
    timeout: Duration,
) -> Result<(NodeName, Duration)> {
    let vips: Api<VirtualIP> = Api::all(client.clone());
    let name = VirtualIp::object_name(plan.to.ip());
    let params = PatchParams::default();
    let begun = Instant::now();
    match &plan.act {
        Act::Move(node) => {
            let patch = annotation(MOVE_TO, Some(node.as_str()));
            vips.patch_metadata(&name, &params, &patch)
                .await
                .with_context(|| format!("cannot annotate VirtualIP {name}"))?;
        }
        Act::Kill => {
            let speakers: Api<Speaker> = Api::all(client.clone());
            let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
            // Any value that was not there before.
            let patch = annotation(CRASH, Some(&since.as_nanos().to_string()));
            speakers
                .patch_metadata(plan.from.as_str(), &params, &patch)
                .await
                .with_context(|| format!("cannot annotate Speaker {}", plan.from))?;
        }
    }
    loop {
        let vip = vips.get(&name).await;
        let vip = vip.with_context(|| format!("cannot read VirtualIP {name}"))?;
        let segments = vip.status.iter().flat_map(|status| &status.segments);
        let mut holders = segments.filter(|segment| segment.name == plan.segment.as_str());
        let holder = holders
            .next()
            .map(|segment| NodeName::from(segment.node.as_str()));
        if let Some(holder) = holder.filter(|holder| *holder != plan.from) {
            return Ok((holder, begun.elapsed()));
        }
        if begun.elapsed() > timeout {
            if plan.act != Act::Kill {
                // Else it might still come when nobody expects it any more.
                vips.patch_metadata(&name, &params, &annotation(MOVE_TO, None))
                    .await
                    .with_context(|| format!("cannot take {MOVE_TO} off VirtualIP {name}"))?;
            }
            bail!(
                "{} still announces {} after {} s; `kubectl herald explain service {}` says who else may",
                plan.from,
                plan.to.ip(),
                timeout.as_secs_f64(),
                plan.service
            );
        }
        tokio::time::sleep(LOOK).await;
    }
}
