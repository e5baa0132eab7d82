//! What the subcommands that do one thing and end share.

use std::fmt::Display;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use herald_api::{Speaker, conditions, labels};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::ListParams;
use kube::{Client, Config};

/// The `DaemonSet` of the speakers.
pub(crate) const SPEAKERS: &str = "herald-speaker";
/// The Lease of the replica that works.
pub(crate) const LEASE: &str = "herald-controller";
/// Between two looks.
pub(crate) const EVERY: Duration = Duration::from_secs(1);

/// Where Herald is.
#[derive(Debug, Args)]
pub(crate) struct Place {
    /// The namespace Herald is installed in.
    #[arg(
        long,
        env = "POD_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "herald-system"
    )]
    pub(crate) namespace: String,
}

/// A client that gives up before the API server's own limits.
///
/// # Errors
///
/// If neither a Pod's account nor a kubeconfig says where the API server is.
pub(crate) async fn connect() -> anyhow::Result<Client> {
    let mut config = Config::infer()
        .await
        .context("no way to the API server is configured")?;
    config.connect_timeout = Some(Duration::from_secs(5));
    config.read_timeout = Some(Duration::from_secs(55));
    config.write_timeout = Some(Duration::from_secs(15));
    Client::try_from(config).context("cannot make a client for the API server")
}

/// What selects the speakers' Pods.
pub(crate) fn speaker_pods() -> String {
    let name = format!("{}={}", labels::NAME, labels::HERALD);
    format!("{name},{}={}", labels::COMPONENT, labels::SPEAKER)
}

/// The same, to list them.
pub(crate) fn list_speaker_pods() -> ListParams {
    ListParams::default().labels(&speaker_pods())
}

/// What a speaker says of itself, if it has said anything yet.
pub(crate) fn readiness(speaker: &Speaker) -> Option<&Condition> {
    let status = speaker.status.as_ref()?;
    let mut all = status.conditions.iter();
    all.find(|condition| condition.type_ == conditions::READY)
}

/// One line for people.
#[expect(
    clippy::print_stdout,
    reason = "what these subcommands have to say is their output"
)]
pub(crate) fn say(line: impl Display) {
    println!("{line}");
}
