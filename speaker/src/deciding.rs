//! The thread on which the core decides.
//!
//! Between a death and the announcement of an address lie what the rings say, a decision, and what the
//! data plane is told. A node that is busy lets ordinary threads wait for seconds: a container that asks
//! for little gets little of a processor. So this runs before them, apart from what takes long and can
//! wait: reading lists, snapshots, writes to the API server.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use arc_swap::ArcSwap;
use herald_speaker_core::{Core, Input, Overview, SpeakerReport};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::{oneshot, watch};
use tracing::warn;

use crate::admin::LastWords;
use crate::clock::Clock;
use crate::driver::{Driver, write_neighbours};
use crate::forward;
use crate::io::layer2;
use crate::io::netlink::Neighbours;
use crate::io::reports::Listener;
use crate::io::sys::{Urgency, raise_priority};
use crate::metrics::Takeovers;
use crate::write::Writer;

/// How long the last changes in the kernel may take.
const LAST_WRITES: Duration = Duration::from_secs(1);

/// What the [`Driver`] is made of that is not this thread's own.
pub(crate) struct Parts {
    pub(crate) core: Core,
    pub(crate) clock: Clock,
    pub(crate) inputs: UnboundedReceiver<Input>,
    pub(crate) layer2: Arc<layer2::Handle>,
    pub(crate) data_plane: forward::Handle,
    pub(crate) writer: Writer,
    pub(crate) refresh: watch::Sender<u64>,
    /// Who wants to know what there is to say of this node.
    pub(crate) asked: UnboundedReceiver<oneshot::Sender<Overview>>,
    pub(crate) last_words: LastWords,
    /// Why the speaker is not ready; empty: it is.
    pub(crate) waiting_for: Arc<ArcSwap<Vec<String>>>,
    pub(crate) takeovers: Takeovers,
}

/// Runs until the core says that it is over; as [`Driver::run`].
pub(crate) async fn run(
    parts: Parts,
    reports: Listener,
    inputs: UnboundedSender<Input>,
) -> anyhow::Result<Option<SpeakerReport>> {
    let (done, ended) = oneshot::channel();
    thread::Builder::new()
        .name("core".to_owned())
        .spawn(move || {
            raise_priority(Urgency::Second);
            let result = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .context("the runtime of the core cannot be made")
                .and_then(|runtime| runtime.block_on(decide(parts, reports, inputs)));
            // Nobody waits for it when the process is being ended.
            drop(done.send(result));
        })
        .context("the thread of the core cannot be started")?;
    ended.await.context("the thread of the core is gone")?
}

async fn decide(
    parts: Parts,
    reports: Listener,
    inputs: UnboundedSender<Input>,
) -> anyhow::Result<Option<SpeakerReport>> {
    let netlink = Neighbours::open().context("netlink cannot be used")?;
    let (neighbours, written) = write_neighbours(netlink, inputs.clone());
    let reports = tokio::spawn(reports.run(inputs));
    let retired = Driver::new(parts, neighbours).run().await;
    reports.abort();
    // The entries of addresses that others have taken over would swallow the replies of our pods.
    if let Err(_elapsed) = tokio::time::timeout(LAST_WRITES, written).await {
        warn!("not every neighbour entry could be removed");
    }
    Ok(retired)
}
