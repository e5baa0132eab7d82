//! `herald-controller retire`: takes Herald off the nodes before it is uninstalled.
//!
//! The chart runs it before it deletes anything. The order is what matters: speakers are asked to retire
//! while controller and speakers still work; the `DaemonSet` goes only after that, or none would be there to
//! clean its node; with it goes the `Deployment`, while the controller still has the right to give its Lease back; the
//! `Speaker` objects go last, when no speaker is left that would take the end of the request for one to work
//! again. A later installation then finds no request and no holder of the Lease, and works at once.
//!
//! All are asked at the same time. One after the other would hand every address on again and again, up to
//! the last speaker, with the same end.
//!
//! Rights: nodes list; speakers.heraldlb.io list, patch, delete; in its namespace pods list, delete,
//! daemonsets.apps get and delete of that of the speakers, deployments.apps delete of that of the controller.

mod standing;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use herald_api::{Speaker, labels};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::{Client, Error, ResourceExt as _};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::args::at_least_a_second;
use crate::once::{EVERY, Place, SPEAKERS, connect, list_speaker_pods, say};
use standing::{Standing, out_of_reach, standings};

/// How long Herald's Pods may take to end: more than their grace period.
const END: Duration = Duration::from_secs(30);
/// The `Deployment` of the controller.
const CONTROLLER: &str = "herald-controller";
/// The value of [`labels::COMPONENT`] on the Pods of the Job that this runs in.
const OURSELVES: &str = "uninstall";

/// Takes Herald off the nodes, before it is uninstalled.
///
/// Asks every speaker to hand its addresses over and to remove everything of Herald's from its node,
/// waits until they have, deletes the speakers and the controller, and then the Speaker objects, so
/// that a later installation works at once. Pools, and the addresses in Services, stay.
///
/// It does not wait for speakers on nodes that are not Ready, and for no speaker longer than
/// --timeout: then it goes on all the same, and says at the end on which nodes something may be left
/// and how to remove it.
///
/// The chart runs it before `helm uninstall` deletes anything.
///
/// Exit code: 0 when that is done, also if something is left on a node, 1 if the API server did not
/// let it be done, 2 for a wrong command line.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct RetireArgs {
    /// How long to wait for speakers to retire.
    #[arg(
        long,
        env = "HERALD_RETIRE_TIMEOUT",
        value_name = "DURATION",
        default_value = "2m",
        value_parser = at_least_a_second
    )]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    pub(crate) place: Place,
}

/// What it works on.
struct Work {
    speakers: Api<Speaker>,
    nodes: Api<Node>,
    pods: Api<Pod>,
    sets: Api<DaemonSet>,
    deployments: Api<Deployment>,
}

/// Does it.
///
/// # Errors
///
/// If the API server does not let it be done, up to the end of the timeout.
pub(crate) async fn retire(args: RetireArgs) -> anyhow::Result<()> {
    let work = Work::new(&connect().await?, &args.place.namespace);
    let mut patience = Patience::until(Instant::now() + args.timeout);
    let image = loop {
        match work.image().await {
            Ok(image) => break image,
            Err(error) => patience.again("reading the DaemonSet", error).await?,
        }
    };
    let mut found = BTreeMap::new();
    loop {
        match work.ask(&mut found).await {
            Ok(()) if !found.values().any(Standing::is_awaited) || patience.is_over() => break,
            Ok(()) => sleep(EVERY).await,
            Err(error) => patience.again("asking the speakers", error).await?,
        }
    }
    if found.values().any(Standing::is_awaited) {
        say("that took too long: going on");
    }

    let mut patience = Patience::until(Instant::now() + END);
    while let Err(error) = work.delete_programs().await {
        let what = "deleting the DaemonSet and the Deployment";
        patience.again(what, error).await?;
    }
    say("the DaemonSet and the Deployment are deleted");
    loop {
        match work.running().await {
            Ok(running) if running.is_empty() => break,
            Ok(running) if patience.is_over() => {
                say(format_args!("still running: {}", running.join(", ")));
                break;
            }
            Ok(_running) => sleep(EVERY).await,
            Err(error) => patience.again("waiting for the Pods", error).await?,
        }
    }
    let mut patience = Patience::until(Instant::now() + END);
    while let Err(error) = work.delete_speakers().await {
        patience.again("deleting the Speakers", error).await?;
    }
    say("the Speaker objects are deleted");
    while let Err(error) = work.forget_predecessors().await {
        patience.again("deleting a Pod of this Job", error).await?;
    }
    say(summary(&found, image.as_deref()));
    Ok(())
}

impl Work {
    fn new(client: &Client, namespace: &str) -> Self {
        Self {
            speakers: Api::all(client.clone()),
            nodes: Api::all(client.clone()),
            pods: Api::namespaced(client.clone(), namespace),
            sets: Api::namespaced(client.clone(), namespace),
            deployments: Api::namespaced(client.clone(), namespace),
        }
    }

    /// The image of the speakers, while there is a `DaemonSet`.
    async fn image(&self) -> kube::Result<Option<String>> {
        let set = self.sets.get_opt(SPEAKERS).await?;
        let template = set.and_then(|set| Some(set.spec?.template.spec?.containers));
        let mut containers = template.unwrap_or_default().into_iter();
        Ok(containers.next().and_then(|container| container.image))
    }

    /// The `Speaker` objects; none without their definition.
    async fn speakers(&self) -> kube::Result<Vec<Speaker>> {
        match self.speakers.list(&ListParams::default()).await {
            Ok(found) => Ok(found.items),
            Err(Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Looks how far each is, tells what is new, and asks those that were not asked.
    async fn ask(&self, found: &mut BTreeMap<String, Standing>) -> kube::Result<()> {
        let speakers = self.speakers().await?;
        let pods = self.pods.list(&list_speaker_pods()).await?.items;
        let nodes = self.nodes.list(&ListParams::default()).await?.items;
        let now = standings(&speakers, &pods, &nodes);
        for (node, standing) in &now {
            if found.get(node) != Some(standing) {
                say(format_args!("{node}: {standing}"));
            }
        }
        *found = now;
        for speaker in speakers.iter().filter(|speaker| !speaker.spec.retire) {
            let patch = Patch::Merge(json!({"spec": {"retire": true}}));
            let name = speaker.name_any();
            let params = PatchParams::default();
            gone_is_fine(self.speakers.patch(&name, &params, &patch).await)?;
        }
        Ok(())
    }

    async fn delete_programs(&self) -> kube::Result<()> {
        let params = DeleteParams::background();
        gone_is_fine(self.sets.delete(SPEAKERS, &params).await)?;
        gone_is_fine(self.deployments.delete(CONTROLLER, &params).await)
    }

    /// The nodes on which a speaker or a controller still runs. One that is not Ready can't say that none does.
    async fn running(&self) -> kube::Result<Vec<String>> {
        let both = format!("{},{}", labels::CONTROLLER, labels::SPEAKER);
        let pods = self.pods.list(&ours(&both)).await?.items;
        let nodes = self.nodes.list(&ListParams::default()).await?.items;
        let running = standings(&[], &pods, &nodes).into_iter();
        let running = running.filter(|(_node, standing)| standing.is_awaited());
        Ok(running.map(|(node, _standing)| node).collect())
    }

    /// Lets go of Pods of this Job that were on a node which went away: a Job has not succeeded, and Helm waits,
    /// while Kubernetes does not know that each has ended.
    async fn forget_predecessors(&self) -> kube::Result<()> {
        let pods = self.pods.list(&ours(OURSELVES)).await?.items;
        let nodes = self.nodes.list(&ListParams::default()).await?.items;
        for pod in out_of_reach(&pods, &nodes) {
            let params = DeleteParams::default().grace_period(0);
            gone_is_fine(self.pods.delete(pod, &params).await)?;
        }
        Ok(())
    }

    async fn delete_speakers(&self) -> kube::Result<()> {
        for speaker in self.speakers().await? {
            let (name, params) = (speaker.name_any(), DeleteParams::default());
            gone_is_fine(self.speakers.delete(&name, &params).await)?;
        }
        Ok(())
    }
}

/// What selects the Pods of some of Herald's components, separated by commas.
fn ours(components: &str) -> ListParams {
    let name = format!("{}={}", labels::NAME, labels::HERALD);
    let components = format!("{} in ({components})", labels::COMPONENT);
    ListParams::default().labels(&format!("{name},{components}"))
}

fn gone_is_fine<T>(result: kube::Result<T>) -> kube::Result<()> {
    match result {
        Err(Error::Api(status)) if status.code == 404 => Ok(()),
        result => result.map(drop),
    }
}

/// Tries again until a time.
struct Patience {
    until: Instant,
    said: String,
}

impl Patience {
    const fn until(until: Instant) -> Self {
        Self {
            until,
            said: String::new(),
        }
    }

    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Waits for the next attempt, if there may be one.
    async fn again(&mut self, what: &'static str, error: Error) -> anyhow::Result<()> {
        if self.is_over() {
            return Err(error).context(what);
        }
        let text = error.to_string();
        if self.said != text {
            say(format_args!("{what}: {text}: trying again"));
            self.said = text;
        }
        sleep(EVERY).await;
        Ok(())
    }
}

/// What is left, and what to do about it.
fn summary(found: &BTreeMap<String, Standing>, image: Option<&str>) -> String {
    let retired = found.values().filter(|it| **it == Standing::Retired);
    let mut text = format!("{} of {} nodes are clean", retired.count(), found.len());
    let left = found.iter().filter(|(_, it)| **it != Standing::Retired);
    for (node, standing) in left {
        let image = image.unwrap_or("IMAGE-OF-THE-SPEAKER");
        // Writing to a String cannot fail.
        write!(
            text,
            "\n{node} may still have programs, routes, rules and files of Herald's: {standing}. To remove them:\n  \
             kubectl debug node/{node} --profile=sysadmin --image={image} -it -- /herald-speaker cleanup --root=/host"
        )
        .ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_names_what_is_left_and_how_to_remove_it() {
        let found = BTreeMap::from([
            ("node1".to_owned(), Standing::Retired),
            ("node2".to_owned(), Standing::NotReady),
        ]);
        let text = summary(&found, Some("registry/herald-speaker:1"));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "1 of 2 nodes are clean",
                "node2 may still have programs, routes, rules and files of Herald's: the node is not Ready. To remove them:",
                "  kubectl debug node/node2 --profile=sysadmin --image=registry/herald-speaker:1 -it -- /herald-speaker cleanup --root=/host",
            ]
        );
        let clean = BTreeMap::from([("node1".to_owned(), Standing::Retired)]);
        assert_eq!(summary(&clean, None), "1 of 1 nodes are clean");
    }
}
