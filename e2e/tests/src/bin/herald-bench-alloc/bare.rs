//! The bare client: the same writes as Herald's controller made, through the same library, without
//! watching or deciding anything.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use herald_e2e::inside::inside;
use herald_lab::Lab;
use jiff::Timestamp;
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::audit::Kinds;
use crate::stage::{NAMESPACE, POOL};

const MANAGER: &str = "herald-bench";

/// What is written to one Service, and for it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) uid: String,
    /// The spec of its claim.
    pub(crate) claim: Value,
}

/// How often each kind of write is made for one Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Share {
    updates: usize,
    statuses: usize,
    events: usize,
}

impl Share {
    /// That of Service `number` of `services`, so that the sums are those of the kinds.
    fn of(kinds: &Kinds, number: usize, services: usize) -> Self {
        let of = |kind: &str| {
            let all = kinds.get(kind).copied().unwrap_or(0);
            (number + 1) * all / services - number * all / services
        };
        Self {
            updates: of("update virtualips"),
            statuses: of("patch services/status"),
            events: of("create events"),
        }
    }
}

/// The API server, from a place of the lab, one thread.
pub(crate) struct Bare<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) at_once: usize,
}

fn resource(group: &str, version: &str, kind: &str, plural: &str) -> ApiResource {
    let kind = GroupVersionKind::gvk(group, version, kind);
    ApiResource::from_gvk_with_plural(&kind, plural)
}

struct Apis {
    claims: Api<DynamicObject>,
    services: Api<DynamicObject>,
    events: Api<Event>,
}

impl Apis {
    fn of(client: &Client) -> Self {
        let claims = resource("heraldlb.io", "v1alpha1", "VirtualIP", "virtualips");
        let services = resource("", "v1", "Service", "services");
        Self {
            claims: Api::all_with(client.clone(), &claims),
            services: Api::namespaced_with(client.clone(), NAMESPACE, &services),
            events: Api::namespaced(client.clone(), NAMESPACE),
        }
    }
}

fn object(value: Value) -> Result<DynamicObject> {
    serde_json::from_value(value).context("an object of ours")
}

fn name_of(claim: &Value) -> Result<String> {
    let address = claim["address"]
        .as_str()
        .context("a claim has an address")?;
    Ok(herald_model::VirtualIp::object_name(address.parse()?))
}

impl Bare<'_> {
    /// Runs something that asks the API server.
    fn run<T: Send>(&self, work: impl AsyncFnOnce(Client) -> Result<T> + Send) -> Result<T> {
        let kubeconfig = Kubeconfig::read_from(self.lab.kubeconfig_path())?;
        inside(self.lab, "cp", || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let options = KubeConfigOptions::default();
                let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
                work(Client::try_from(config)?).await
            })
        })
    }

    /// Creates Services that ask for an address: the uid of each, by name.
    pub(crate) fn create_services(&self, count: usize) -> Result<BTreeMap<String, String>> {
        let create = async |api: &Api<DynamicObject>, number: usize| {
            let service = object(json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {"name": format!("s{number}"), "namespace": NAMESPACE},
                "spec": {
                    "type": "LoadBalancer",
                    "allocateLoadBalancerNodePorts": false,
                    "ipFamilies": ["IPv4"],
                    "ipFamilyPolicy": "SingleStack",
                    "ports": [{"name": "http", "port": 80}],
                },
            }))?;
            let made = api.create(&PostParams::default(), &service).await?;
            let metadata = made.metadata;
            anyhow::Ok((
                metadata.name.unwrap_or_default(),
                metadata.uid.unwrap_or_default(),
            ))
        };
        self.run(async |client| {
            let services = Apis::of(&client).services;
            stream::iter(0..count)
                .map(|number| create(&services, number))
                .buffer_unordered(self.at_once)
                .try_collect()
                .await
        })
    }

    /// The specs of all claims.
    pub(crate) fn claims(&self) -> Result<Vec<Value>> {
        self.run(async |client| {
            let claims = Apis::of(&client)
                .claims
                .list(&ListParams::default())
                .await?;
            let specs = claims.items.into_iter();
            Ok(specs.map(|mut claim| claim.data["spec"].take()).collect())
        })
    }

    /// Whether every Service has an address and no two the same: the address of each.
    pub(crate) fn addresses(&self) -> Result<Vec<String>> {
        self.run(async |client| {
            let all = Apis::of(&client)
                .services
                .list(&ListParams::default())
                .await?;
            let address = |service: &DynamicObject| {
                let ingress = &service.data["status"]["loadBalancer"]["ingress"][0]["ip"];
                ingress.as_str().map(str::to_owned)
            };
            Ok(all.items.iter().filter_map(address).collect())
        })
    }

    /// Makes for each Service as many writes as Herald did: from the first to the last status.
    pub(crate) fn assign(&self, targets: &[Target], kinds: &Kinds) -> Result<Duration> {
        self.run(async |client| {
            let apis = Apis::of(&client);
            let began = Instant::now();
            let ended: Vec<Instant> = stream::iter(targets.iter().enumerate())
                .map(|(number, target)| {
                    let share = Share::of(kinds, number, targets.len());
                    assign_one(&apis, target, share)
                })
                .buffer_unordered(self.at_once)
                .try_collect()
                .await?;
            let ended = ended.into_iter().max().context("there are no Services")?;
            Ok(ended - began)
        })
    }

    /// Deletes all Services, and all claims that nobody else will delete.
    pub(crate) fn delete_all(&self, claims_too: bool) -> Result<()> {
        let delete = async |api: &Api<DynamicObject>, name: String| match api
            .delete(&name, &DeleteParams::default())
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            other => other.map(drop).context(name),
        };
        let empty = async |api: Api<DynamicObject>| -> Result<()> {
            let all = api.list_metadata(&ListParams::default()).await?;
            let names = all.items.into_iter().filter_map(|it| it.metadata.name);
            stream::iter(names)
                .map(|name| delete(&api, name))
                .buffer_unordered(self.at_once)
                .try_collect()
                .await
        };
        self.run(async |client| {
            let apis = Apis::of(&client);
            empty(apis.services).await?;
            if claims_too {
                empty(apis.claims).await?;
            }
            Ok(())
        })
    }
}

/// When the last status was written.
async fn assign_one(apis: &Apis, target: &Target, share: Share) -> Result<Instant> {
    let name = name_of(&target.claim)?;
    let mut spec = target.claim.clone();
    spec["services"] = json!([{"namespace": NAMESPACE, "name": target.name, "uid": target.uid}]);
    let phase = |probing: bool| if probing { "Probing" } else { "Active" };
    spec["phase"] = phase(share.updates > 0).into();
    let claim = object(json!({
        "apiVersion": "heraldlb.io/v1alpha1",
        "kind": "VirtualIP",
        "metadata": {"name": name},
        "spec": spec,
    }))?;
    let mut claim = apis.claims.create(&PostParams::default(), &claim).await?;
    for left in (0..share.updates).rev() {
        claim.data["spec"]["phase"] = phase(left > 0).into();
        claim = replace(apis, &name, claim).await?;
    }
    let mut written = Instant::now();
    for number in 0..share.statuses {
        let status = status(target, number);
        let params = PatchParams::apply(MANAGER);
        apis.services
            .patch_status(&target.name, &params, &Patch::Apply(&status))
            .await?;
        written = Instant::now();
    }
    for number in 0..share.events {
        let event = serde_json::from_value(event(target, number))?;
        apis.events.create(&PostParams::default(), &event).await?;
    }
    Ok(written)
}

/// A claim whose status a speaker has written meanwhile is read anew, as by anybody.
async fn replace(apis: &Apis, name: &str, mut claim: DynamicObject) -> Result<DynamicObject> {
    loop {
        match apis
            .claims
            .replace(name, &PostParams::default(), &claim)
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let now = apis.claims.get(name).await?;
                claim.metadata.resource_version = now.metadata.resource_version;
            }
            other => return Ok(other?),
        }
    }
}

/// As Herald's: an address, a condition, an annotation.
fn status(target: &Target, number: usize) -> Value {
    let address = &target.claim["address"];
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": target.name,
            "namespace": NAMESPACE,
            "uid": target.uid,
            "annotations": {"heraldlb.io/allocated-from": POOL},
        },
        "status": {
            "loadBalancer": {"ingress": [{"ip": address, "ipMode": "VIP"}]},
            "conditions": [{
                "type": "heraldlb.io/Allocated",
                "status": "True",
                "reason": "Allocated",
                "message": format!("{address} from pool {POOL}, {number}"),
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
        },
    })
}

fn event(target: &Target, number: usize) -> Value {
    let now = Timestamp::now();
    json!({
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {
            "name": format!("{}.{:x}.{number}", target.name, now.as_nanosecond()),
            "namespace": NAMESPACE,
        },
        "eventTime": format!("{now:.6}"),
        "reportingController": "heraldlb.io/bench",
        "reportingInstance": MANAGER,
        "action": "Allocate",
        "reason": "AddressAllocated",
        "note": format!("assigned {} from pool {POOL}", target.claim["address"]),
        "type": "Normal",
        "regarding": {
            "apiVersion": "v1",
            "kind": "Service",
            "namespace": NAMESPACE,
            "name": target.name,
            "uid": target.uid,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_of_all_services_are_all_writes() {
        let kinds: Kinds = [
            ("update virtualips", 7),
            ("patch services/status", 10),
            ("create events", 23),
        ]
        .map(|(kind, count)| (kind.to_owned(), count))
        .into();
        let shares: Vec<Share> = (0..10)
            .map(|number| Share::of(&kinds, number, 10))
            .collect();
        assert_eq!(shares.iter().map(|share| share.updates).sum::<usize>(), 7);
        assert!(shares.iter().all(|share| share.statuses == 1));
        assert_eq!(shares.iter().map(|share| share.events).sum::<usize>(), 23);
    }
}
