//! Writes: one call, or a call and a look at what is there instead.

use std::net::IpAddr;
use std::time::Duration;

use herald_api::{IPPool, L2Advertisement, VirtualIP, annotations, conditions, events, managers};
use herald_controller_core::{
    Condition, Event, Identity, ObservedVip, PoolStatus, Regarding, ServiceStatus, TextCounts,
    UserObject, Write, WriteResult,
};
use herald_model::{AdvertisementName, PoolName, ServiceKey, VirtualIp};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Service};
use k8s_openapi::api::events::v1::Event as ApiEvent;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Status;
use kube::{Client, Resource};
use serde_json::{Value, json};

use crate::kinds;

/// A write that takes longer counts as failed; what came of it is then not known.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who reports our Events.
const REPORTER: &str = "heraldlb.io/controller";

/// Makes writes.
#[derive(Clone)]
pub(crate) struct Writer {
    client: Client,
    /// This replica's name, for Events.
    instance: String,
}

impl Writer {
    pub(crate) const fn new(client: Client, instance: String) -> Self {
        Self { client, instance }
    }

    /// Makes one write and says what came of it.
    pub(crate) async fn write(&self, write: Write) -> WriteResult {
        match tokio::time::timeout(PATIENCE, self.attempt(write)).await {
            Ok(result) => result,
            Err(_elapsed) => WriteResult::Failed {
                message: format!("no answer within {} s", PATIENCE.as_secs()),
                refused: false,
            },
        }
    }

    async fn attempt(&self, write: Write) -> WriteResult {
        match write {
            Write::CreateVip(vip) => self.create_vip(&vip).await,
            Write::ReplaceVip { identity, vip } => self.replace_vip(&identity, &vip).await,
            Write::DeleteVip { address, identity } => self.delete_vip(address, &identity).await,
            Write::ApplyServiceStatus {
                key,
                identity,
                status,
            } => self.apply_service(&key, &identity, &status).await,
            Write::ApplyPoolStatus { pool, status } => self.apply_pool(&pool, &status).await,
            Write::ApplyAdvertisementReady {
                advertisement,
                ready,
            } => self.apply_advertisement(&advertisement, &ready).await,
            Write::RecordEvent(event) => self.record(event).await,
        }
    }

    fn vips(&self) -> Api<VirtualIP> {
        Api::all(self.client.clone())
    }

    async fn create_vip(&self, vip: &VirtualIp) -> WriteResult {
        let object = vip_object(vip);
        match self.vips().create(&post(), &object).await {
            Ok(object) => written(&object),
            Err(kube::Error::Api(status)) if status.code == 409 => self.look(vip.address).await,
            Err(error) => failed(&error),
        }
    }

    async fn replace_vip(&self, identity: &Identity, vip: &VirtualIp) -> WriteResult {
        let mut object = vip_object(vip);
        object.metadata.uid = Some(identity.uid.to_string());
        object.metadata.resource_version = Some(identity.version.as_str().to_owned());
        let name = VirtualIp::object_name(vip.address);
        match self.vips().replace(&name, &post(), &object).await {
            Ok(object) => written(&object),
            Err(kube::Error::Api(status)) if status.code == 404 => WriteResult::VipGone,
            Err(kube::Error::Api(status)) if status.code == 409 => self.look(vip.address).await,
            Err(error) => failed(&error),
        }
    }

    async fn delete_vip(&self, address: IpAddr, identity: &Identity) -> WriteResult {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(identity.uid.to_string()),
                resource_version: Some(identity.version.as_str().to_owned()),
            }),
            ..DeleteParams::default()
        };
        match self
            .vips()
            .delete(&VirtualIp::object_name(address), &params)
            .await
        {
            Ok(_) => WriteResult::VipGone,
            Err(kube::Error::Api(status)) if status.code == 404 => WriteResult::VipGone,
            Err(kube::Error::Api(status)) if status.code == 409 => self.look(address).await,
            Err(error) => failed(&error),
        }
    }

    /// What is there instead. By a list of one, as `list` is a right the controller has anyway.
    async fn look(&self, address: IpAddr) -> WriteResult {
        let name = VirtualIp::object_name(address);
        let one = ListParams::default().fields(&format!("metadata.name={name}"));
        match self.vips().list(&one).await {
            Ok(list) => match list.items.first() {
                Some(object) => WriteResult::VipDiffers(kinds::vip(object).ok().map(Box::new)),
                None => WriteResult::VipGone,
            },
            Err(error) => failed(&error),
        }
    }

    async fn apply_service(
        &self,
        key: &ServiceKey,
        identity: &Identity,
        status: &ServiceStatus,
    ) -> WriteResult {
        let api: Api<Service> = Api::namespaced(self.client.clone(), key.namespace.as_str());
        let patch = service_patch(key, identity, status);
        // Never forced: what somebody else owns stays theirs.
        let params = PatchParams::apply(managers::CONTROLLER);
        match api
            .patch_status(&key.name, &params, &Patch::Apply(&patch))
            .await
        {
            Ok(object) => WriteResult::ServiceWritten {
                version: kinds::version(&object.metadata),
                ingress: kinds::ingress(&object),
            },
            Err(kube::Error::Api(status)) if status.code == 404 => WriteResult::ServiceGone,
            Err(kube::Error::Api(status)) if status.code == 409 => service_conflict(&status),
            Err(error) => failed(&error),
        }
    }

    async fn apply_pool(&self, pool: &PoolName, status: &PoolStatus) -> WriteResult {
        let api: Api<IPPool> = Api::all(self.client.clone());
        let counts = |counts: &TextCounts| {
            json!({
                "total": counts.total,
                "assigned": counts.assigned,
                "available": counts.available,
            })
        };
        let mut body = json!({
            "conditions": status.ready.iter().map(|c| condition(conditions::READY, c)).collect::<Vec<_>>(),
        });
        for (family, value) in [("ipv4", &status.v4), ("ipv6", &status.v6)] {
            if let Some(value) = value {
                body[family] = counts(value);
            }
        }
        apply_own(&api, pool.as_str(), body).await
    }

    async fn apply_advertisement(
        &self,
        advertisement: &AdvertisementName,
        ready: &Condition,
    ) -> WriteResult {
        let api: Api<L2Advertisement> = Api::all(self.client.clone());
        let body = json!({ "conditions": [condition(conditions::READY, ready)] });
        apply_own(&api, advertisement.as_str(), body).await
    }

    async fn record(&self, event: Event) -> WriteResult {
        let regarding = reference(&event.regarding);
        let made = self.publish(regarding, event.warning, &event.reason, event.note);
        match made.await {
            Ok(()) => WriteResult::Done,
            Err(error) => failed(&error),
        }
    }

    /// Makes an Event.
    ///
    /// # Errors
    ///
    /// What the API server says.
    pub(crate) async fn publish(
        &self,
        regarding: ObjectReference,
        warning: bool,
        reason: &str,
        note: String,
    ) -> Result<(), kube::Error> {
        let report = events::Report {
            regarding,
            related: None,
            warning,
            reason: reason.to_owned(),
            note,
        };
        let event = report.event(REPORTER, &self.instance, MicroTime(Timestamp::now()));
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<ApiEvent> = Api::namespaced(self.client.clone(), namespace);
        api.create(&post(), &event).await?;
        Ok(())
    }
}

fn post() -> PostParams {
    PostParams {
        field_manager: Some(managers::CONTROLLER.to_owned()),
        ..PostParams::default()
    }
}

fn vip_object(vip: &VirtualIp) -> VirtualIP {
    VirtualIP::new(
        &VirtualIp::object_name(vip.address),
        herald_config::virtual_ip_spec(vip),
    )
}

fn written(object: &VirtualIP) -> WriteResult {
    let vip: Result<ObservedVip, _> = kinds::vip(object);
    match vip {
        Ok(vip) => WriteResult::VipWritten(Box::new(vip)),
        Err(error) => WriteResult::Failed {
            message: herald_config::sentence(&error),
            refused: true,
        },
    }
}

/// The status of an object of our own kinds: whoever else wrote it, we know better.
async fn apply_own<K>(api: &Api<K>, name: &str, status: Value) -> WriteResult
where
    K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let patch = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": name },
        "status": status,
    });
    let params = PatchParams::apply(managers::CONTROLLER).force();
    match api.patch_status(name, &params, &Patch::Apply(&patch)).await {
        Ok(_) => WriteResult::Done,
        // Deleted meanwhile: there is nothing to write to.
        Err(kube::Error::Api(status)) if status.code == 404 => WriteResult::Done,
        Err(error) => failed(&error),
    }
}

/// Everything Herald owns of a Service, in one write: the API server takes the annotation along
/// with the status.
fn service_patch(key: &ServiceKey, identity: &Identity, status: &ServiceStatus) -> Value {
    let mut metadata = json!({
        "name": &*key.name,
        "namespace": key.namespace.as_str(),
        "uid": identity.uid.as_str(),
        "resourceVersion": identity.version.as_str(),
    });
    if let Some(pool) = &status.allocated_from {
        metadata["annotations"] = json!({ annotations::ALLOCATED_FROM: pool.as_str() });
    }
    let conditions: Vec<Value> = [
        (conditions::ALLOCATED, &status.allocated),
        (conditions::SERVICE_ANNOUNCED, &status.announced),
    ]
    .into_iter()
    .filter_map(|(type_, value)| Some(condition(type_, value.as_ref()?)))
    .collect();
    let mut body = json!({});
    if !conditions.is_empty() {
        body["conditions"] = conditions.into();
    }
    let ingress: Vec<Value> = status
        .ingress
        .iter()
        .flatten()
        .map(|address| json!({ "ip": address.to_string(), "ipMode": "VIP" }))
        .collect();
    if !ingress.is_empty() {
        body["loadBalancer"] = json!({ "ingress": ingress });
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "status": body,
    })
}

fn condition(type_: &str, condition: &Condition) -> Value {
    let mut message = condition.message.to_string();
    message.truncate(message.floor_char_boundary(32_768));
    let since = Timestamp::from_second(condition.since).unwrap_or(Timestamp::UNIX_EPOCH);
    json!({
        "type": type_,
        "status": if condition.status { conditions::TRUE } else { conditions::FALSE },
        "reason": &*condition.reason,
        "message": message,
        "lastTransitionTime": since.to_string(),
    })
}

/// Limits a text to what the API takes, at a character's end.
fn reference(regarding: &Regarding) -> ObjectReference {
    match regarding {
        Regarding::Service { key, uid } => ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Service".to_owned()),
            namespace: Some(key.namespace.to_string()),
            name: Some(key.name.to_string()),
            uid: Some(uid.to_string()),
            ..ObjectReference::default()
        },
        Regarding::Object { object, uid } => {
            let (api_version, kind, name) = match object {
                UserObject::Pool(name) => (
                    IPPool::api_version(&()),
                    IPPool::kind(&()),
                    name.to_string(),
                ),
                UserObject::Advertisement(name) => (
                    L2Advertisement::api_version(&()),
                    L2Advertisement::kind(&()),
                    name.to_string(),
                ),
            };
            ObjectReference {
                api_version: Some(api_version.into_owned()),
                kind: Some(kind.into_owned()),
                name: Some(name),
                uid: Some(uid.to_string()),
                ..ObjectReference::default()
            }
        }
    }
}

/// A conflict is either about the version or about who owns fields.
fn service_conflict(status: &Status) -> WriteResult {
    let causes = status
        .details
        .as_ref()
        .map(|details| details.causes.as_slice());
    let owned: Vec<&str> = causes
        .unwrap_or_default()
        .iter()
        .filter(|cause| cause.reason == "FieldManagerConflict")
        .map(|cause| cause.field.as_str())
        .collect();
    if owned.is_empty() {
        return WriteResult::ServiceDiffers;
    }
    let ingress = owned.iter().any(|field| field.contains("loadBalancer"));
    let allocated_from = owned.iter().any(|field| field.contains("annotations"));
    tracing::warn!(
        message = status.message,
        "somebody else owns fields of a Service's status"
    );
    if ingress || allocated_from {
        WriteResult::FieldsOwned {
            ingress,
            allocated_from,
            message: status.message.clone(),
        }
    } else {
        WriteResult::Failed {
            message: status.message.clone(),
            refused: true,
        }
    }
}

fn failed(error: &kube::Error) -> WriteResult {
    match error {
        kube::Error::Api(status) => WriteResult::Failed {
            message: status.message.clone(),
            // 401 ends with the next token, 408 and 429 by themselves.
            refused: (400..500).contains(&status.code) && ![401, 408, 429].contains(&status.code),
        },
        error => WriteResult::Failed {
            message: herald_config::sentence(error),
            refused: false,
        },
    }
}

#[cfg(test)]
mod tests {
    use herald_controller_core::Version;

    use super::*;

    fn identity() -> Identity {
        Identity {
            uid: "u1".into(),
            version: Version::new("7"),
        }
    }

    #[test]
    fn status_of_a_service_names_version_addresses_conditions_and_pool() {
        let status = ServiceStatus {
            ingress: Some(vec!["192.0.2.1".parse().unwrap()]),
            allocated: Some(Condition {
                status: true,
                reason: "Allocated".into(),
                message: "192.0.2.1 from pool public".into(),
                since: 0,
            }),
            announced: None,
            allocated_from: Some("public".into()),
        };
        assert_eq!(
            service_patch(&ServiceKey::new("ns", "web"), &identity(), &status),
            json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": {
                    "name": "web", "namespace": "ns", "uid": "u1", "resourceVersion": "7",
                    "annotations": { "heraldlb.io/allocated-from": "public" },
                },
                "status": {
                    "loadBalancer": { "ingress": [{ "ip": "192.0.2.1", "ipMode": "VIP" }] },
                    "conditions": [{
                        "type": "heraldlb.io/Allocated", "status": "True", "reason": "Allocated",
                        "message": "192.0.2.1 from pool public",
                        "lastTransitionTime": "1970-01-01T00:00:00Z",
                    }],
                },
            })
        );
    }

    #[test]
    fn emptied_status_leaves_out_all_that_herald_owned() {
        let status = ServiceStatus {
            ingress: Some(Vec::new()),
            ..ServiceStatus::default()
        };
        let patch = service_patch(&ServiceKey::new("ns", "web"), &identity(), &status);
        assert_eq!(patch["status"], json!({}));
        assert_eq!(patch["metadata"].get("annotations"), None);
    }

    #[test]
    fn conflict_over_fields_is_told_from_conflict_over_the_version() {
        let status = |body: Value| -> Status { serde_json::from_value(body).unwrap() };
        let stale = status(json!({ "code": 409, "reason": "Conflict", "message": "modified" }));
        assert_eq!(service_conflict(&stale), WriteResult::ServiceDiffers);
        let owned = status(json!({
            "code": 409, "reason": "Conflict", "message": "conflict with \"other\"",
            "details": { "causes": [{
                "reason": "FieldManagerConflict",
                "message": "conflict with \"other\"",
                "field": ".status.loadBalancer.ingress",
            }] },
        }));
        assert_eq!(
            service_conflict(&owned),
            WriteResult::FieldsOwned {
                ingress: true,
                allocated_from: false,
                message: "conflict with \"other\"".to_owned(),
            }
        );
    }
}
