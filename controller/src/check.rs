//! `herald-controller check`: whether the installation works. The chart's `helm test`.
//!
//! It looks at what every installation must have, whatever is served: `kubectl herald check` looks at far more,
//! and needs an account that may see it.
//!
//! Rights: ippools, l2advertisements, speakers, virtualips (heraldlb.io) list; in its namespace pods list, get of
//! the speakers' daemonset and of the lease herald-controller.

mod finding;

use std::fmt::Debug;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use herald_api::{IPPool, L2Advertisement, VirtualIP};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use crate::args::at_least_a_second;
use crate::once::{EVERY, LEASE, Place, SPEAKERS, connect, list_speaker_pods, say};
use finding::{Answer, Seen, findings};

/// Says whether the installation works.
///
/// It does if the API server serves Herald's definitions, a replica of the controller leads, and on
/// every node that the DaemonSet of the speakers is for, one runs and says that it is ready.
/// If not it looks again until --timeout, and then says what is wrong.
///
/// The chart runs it for `helm test`. More is looked at by `kubectl herald check`.
///
/// Exit code: 0 if all is well, 1 if not, 2 for a wrong command line.
#[expect(clippy::doc_markdown, reason = "the text is for people on a terminal")]
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct CheckArgs {
    /// How long all may take to be well.
    #[arg(
        long,
        env = "HERALD_CHECK_TIMEOUT",
        value_name = "DURATION",
        default_value = "1m",
        value_parser = at_least_a_second
    )]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    pub(crate) place: Place,
}

/// Looks until all is well.
///
/// # Errors
///
/// If it isn't in the end.
pub(crate) async fn check(args: CheckArgs) -> anyhow::Result<()> {
    let client = connect().await?;
    let until = Instant::now() + args.timeout;
    loop {
        let findings = findings(&look(&client, &args.place.namespace).await);
        let wrong = findings.iter().filter(|finding| !finding.is_well).count();
        if wrong > 0 && Instant::now() < until {
            sleep(EVERY).await;
            continue;
        }
        for finding in &findings {
            say(finding);
        }
        if wrong > 0 {
            bail!("{wrong} of {} are not well", findings.len());
        }
        say("all is well");
        return Ok(());
    }
}

async fn look(client: &Client, namespace: &str) -> Seen {
    let sets: Api<DaemonSet> = Api::namespaced(client.clone(), namespace);
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    Seen {
        definitions: vec![
            ("IPPool", first::<IPPool>(client).await),
            ("L2Advertisement", first::<L2Advertisement>(client).await),
            ("VirtualIP", first::<VirtualIP>(client).await),
        ],
        speakers: list(client, &ListParams::default()).await,
        lease: leases.get_opt(LEASE).await.map_err(|it| it.to_string()),
        set: sets.get_opt(SPEAKERS).await.map_err(|it| it.to_string()),
        pods: pods
            .list(&list_speaker_pods())
            .await
            .map(|found| found.items)
            .map_err(|error| error.to_string()),
        now: Timestamp::now(),
    }
}

/// Whether a kind is served.
async fn first<K>(client: &Client) -> Answer<()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let one = ListParams::default().limit(1);
    list::<K>(client, &one).await.map(drop)
}

async fn list<K>(client: &Client, which: &ListParams) -> Answer<Vec<K>>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let api: Api<K> = Api::all(client.clone());
    let found = api.list(which).await;
    found
        .map(|found| found.items)
        .map_err(|error| error.to_string())
}
