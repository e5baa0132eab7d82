//! Everything that decides, listed from the API server.

use anyhow::{Context as _, Result};
use herald_api::{Speaker, VirtualIP, labels};
use herald_config::ServiceFlags;
use herald_controller::kinds;
use herald_controller::watch::Kind;
use herald_controller_core::Input;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, ListParams};
use kube::core::DeserializeGuard;
use kube::{Client, Resource};

use crate::installation::{Installation, installation};

/// What the API server holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    /// What is installed.
    pub(crate) installation: Installation,
    /// All of it as the controller takes it.
    pub(crate) inputs: Vec<Input>,
    pub(crate) services: Vec<Service>,
    pub(crate) vips: Vec<VirtualIP>,
    pub(crate) speakers: Vec<Speaker>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) slices: Vec<EndpointSlice>,
}

impl Objects {
    /// Which Services and nodes are ours.
    pub(crate) const fn flags(&self) -> &ServiceFlags {
        &self.installation.flags
    }
}

/// Lists everything.
///
/// # Errors
///
/// If the API server can't be reached, refuses, or does not know Herald's kinds.
pub(crate) async fn read(client: &Client) -> Result<Objects> {
    let installation = installation(client).await?;
    let flags = installation.flags.clone();
    let ignore_exclude = flags.ignore_exclude_label;
    let pods = match &installation.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let speaker_pods = ListParams::default().labels(&format!(
        "{}={},{}={}",
        labels::NAME,
        labels::HERALD,
        labels::COMPONENT,
        labels::SPEAKER
    ));
    let all = ListParams::default();
    let mut inputs = Vec::new();
    // One after the other: what is listed later is newer, and a claim is made before a status shows it.
    let services = list(&kinds::Services(flags), &every(client), &all, &mut inputs).await?;
    let vips = list(&kinds::Vips, &every(client), &all, &mut inputs).await?;
    list(&kinds::Pools, &every(client), &all, &mut inputs).await?;
    list(&kinds::Advertisements, &every(client), &all, &mut inputs).await?;
    let nodes = kinds::Nodes { ignore_exclude };
    let nodes = list(&nodes, &every(client), &all, &mut inputs).await?;
    let speakers = list(&kinds::Speakers, &every(client), &all, &mut inputs).await?;
    list(&kinds::SpeakerPods, &pods, &speaker_pods, &mut inputs).await?;
    list(&kinds::Namespaces, &every(client), &all, &mut inputs).await?;
    list(&kinds::ServiceRanges, &every(client), &all, &mut inputs).await?;
    let slices = list(&kinds::Slices, &every(client), &all, &mut inputs).await?;
    Ok(Objects {
        installation,
        inputs,
        services,
        vips,
        speakers,
        nodes,
        slices,
    })
}

fn every<T>(client: &Client) -> Api<T>
where
    T: Resource<DynamicType = ()>,
{
    Api::all(client.clone())
}

/// Lists a kind: its objects, and `inputs` as the controller takes them.
async fn list<K: Kind>(
    kind: &K,
    api: &Api<DeserializeGuard<K::Object>>,
    params: &ListParams,
    inputs: &mut Vec<Input>,
) -> Result<Vec<K::Object>> {
    let found = match api.list(params).await {
        Ok(found) => found,
        Err(kube::Error::Api(status)) if status.code == 404 && K::WHERE_SERVED => {
            return Ok(Vec::new());
        }
        Err(kube::Error::Api(status)) if status.code == 404 => {
            return Err(kube::Error::Api(status)).with_context(|| {
                format!(
                    "the API server does not know {}: is Herald installed?",
                    K::NAME
                )
            });
        }
        Err(error) => return Err(error).with_context(|| format!("cannot list {}", K::NAME)),
    };
    let mut objects = Vec::new();
    for guard in found.items {
        match guard.0 {
            Ok(object) => {
                inputs.extend(kind.applied(object.clone()));
                objects.push(object);
            }
            Err(invalid) => inputs.extend(kind.undecodable(&invalid.metadata, &invalid.error)),
        }
    }
    Ok(objects)
}
