//! What is left to do for a speaker that was asked to remove everything of Herald's from its node
//! (`Speaker.spec.retire`): it says when that is done, and waits until it is to work again.

use std::time::Duration;

use anyhow::Context as _;
use herald_speaker_core::SpeakerReport;
use tracing::{info, warn};

use crate::convert::observed_speaker;
use crate::forward;
use crate::snapshot::Folder;
use crate::write::Writer;

/// Between two looks at our object, and two attempts.
const EVERY: Duration = Duration::from_secs(5);

/// Removes what outlasts the process (programs, maps, routes, rules, the snapshot), says `report` in our
/// object, and returns when that does not ask us to retire any more.
///
/// # Errors
///
/// If something cannot be removed.
pub(crate) async fn retire(
    data_plane: &forward::Handle,
    folder: &Folder,
    writer: &Writer,
    report: &SpeakerReport,
) -> anyhow::Result<()> {
    data_plane
        .retire()
        .await
        .context("removing the data plane")?;
    folder.clear().context("removing the snapshot")?;
    info!("retired: nothing of Herald's is left on the node");
    loop {
        match writer.own_speaker().await {
            Ok(Some(own)) if own.spec.retire => {
                // An earlier word of ours may have come later.
                if observed_speaker(&own).report != *report
                    && let Err(error) = writer.write_speaker(false, report).await
                {
                    warn!(%error, "cannot say that we are retired: trying again");
                }
            }
            // Who deletes the object asks for nothing any more.
            Ok(_says_no_or_is_deleted) => {
                info!("asked to work again");
                return Ok(());
            }
            Err(error) => warn!(%error, "cannot read our object: trying again"),
        }
        tokio::time::sleep(EVERY).await;
    }
}
