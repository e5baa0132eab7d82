//! Writes to the API server.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;

use herald_api::{self as api, events, managers};
use herald_model::{NodeName, ServiceRef, VirtualIp};
use herald_speaker_core::{EventReason, Input, SpeakerReport, VipStatus, WriteOutcome};
use k8s_openapi::api::core::v1::{ObjectReference, Service};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource as _};
use serde_json::json;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, warn};

use crate::convert;
use crate::watch::OwnNode;

/// Writes under way at a time: a takeover of a thousand addresses is not to flood the API server.
const AT_ONCE: usize = 8;

/// Writes statuses and Events; each in a task of its own, which reports what came of it.
#[derive(Clone)]
pub(crate) struct Writer {
    client: Client,
    node: NodeName,
    own_node: OwnNode,
    permits: Arc<Semaphore>,
    inputs: UnboundedSender<Input>,
    /// Where they run: not on the thread that wants them.
    runtime: Handle,
}

impl Writer {
    pub(crate) fn new(
        client: Client,
        node: NodeName,
        own_node: OwnNode,
        inputs: UnboundedSender<Input>,
    ) -> Self {
        Self {
            client,
            node,
            own_node,
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            inputs,
            runtime: Handle::current(),
        }
    }

    /// Writes the status of a `VirtualIP`, provided it is still at this version.
    pub(crate) fn vip_status(
        &self,
        address: IpAddr,
        resource_version: Arc<str>,
        status: VipStatus,
    ) {
        let writer = self.clone();
        self.runtime.spawn(async move {
            let _permit = writer.permits.acquire().await;
            let name = VirtualIp::object_name(address);
            let written = writer.write_vip_status(&name, &resource_version, &status);
            // Boxed: a request takes kilobytes, and thousands may wait for their turn.
            let written = Box::pin(written).await;
            let outcome = outcome("VirtualIP", &name, written);
            writer.report(Input::VipStatusWritten { address, outcome });
        });
    }

    async fn write_vip_status(
        &self,
        name: &str,
        resource_version: &str,
        status: &VipStatus,
    ) -> kube::Result<()> {
        let patch = json!({
            "apiVersion": api::VirtualIP::api_version(&()),
            "kind": api::VirtualIP::kind(&()),
            "metadata": {"name": name, "resourceVersion": resource_version},
            "status": convert::vip_status_object(status),
        });
        let objects: Api<api::VirtualIP> = Api::all(self.client.clone());
        objects
            .patch_status(name, &applied_by_us(), &Patch::Apply(patch))
            .await?;
        Ok(())
    }

    /// Writes our own `Speaker` object.
    pub(crate) fn speaker(&self, create: bool, report: SpeakerReport) {
        let writer = self.clone();
        self.runtime.spawn(async move {
            let name = writer.node.to_string();
            let written = writer.write_speaker(create, &report).await;
            let outcome = outcome("Speaker", &name, written);
            writer.report(Input::SpeakerWritten(outcome));
        });
    }

    /// Our own `Speaker` object, if there is one.
    pub(crate) async fn own_speaker(&self) -> kube::Result<Option<api::Speaker>> {
        let objects: Api<api::Speaker> = Api::all(self.client.clone());
        // A speaker may list these objects, and may not get one.
        let own = ListParams::default().fields(&format!("metadata.name={}", self.node));
        Ok(objects.list(&own).await?.items.into_iter().next())
    }

    /// Writes it, and waits until it is written.
    pub(crate) async fn write_speaker(
        &self,
        create: bool,
        report: &SpeakerReport,
    ) -> kube::Result<()> {
        let objects: Api<api::Speaker> = Api::all(self.client.clone());
        if create {
            let owners: Vec<_> = self.own_node.as_owner().into_iter().collect();
            // Whether to retire is for people to say: that field is not ours.
            let object = json!({
                "apiVersion": api::Speaker::api_version(&()),
                "kind": api::Speaker::kind(&()),
                "metadata": {"name": self.node.as_str(), "ownerReferences": owners},
                "spec": {},
            });
            objects
                .patch(self.node.as_str(), &applied_by_us(), &Patch::Apply(object))
                .await?;
        }
        let object = json!({
            "apiVersion": api::Speaker::api_version(&()),
            "kind": api::Speaker::kind(&()),
            "metadata": {"name": self.node.as_str()},
            "status": convert::speaker_status(report),
        });
        objects
            .patch_status(self.node.as_str(), &applied_by_us(), &Patch::Apply(object))
            .await?;
        Ok(())
    }

    /// Tells people on a Service. An Event that is lost is lost: it is a courtesy.
    pub(crate) fn event(
        &self,
        service: &ServiceRef,
        address: IpAddr,
        reason: EventReason,
        note: String,
    ) {
        let (reason, warning) = match reason {
            EventReason::Announced => (events::ANNOUNCED, false),
            EventReason::Moved => (events::MOVED, false),
            EventReason::AddressConflict => (events::ADDRESS_CONFLICT, true),
            EventReason::Unverified => (events::UNVERIFIED, true),
            EventReason::DataPlaneFull => (events::DATA_PLANE_FULL, true),
        };
        let report = events::Report {
            regarding: ObjectReference {
                api_version: Some(Service::api_version(&()).into_owned()),
                kind: Some(Service::kind(&()).into_owned()),
                namespace: Some(service.key.namespace.to_string()),
                name: Some(service.key.name.to_string()),
                uid: Some(service.uid.to_string()),
                ..ObjectReference::default()
            },
            related: Some(ObjectReference {
                api_version: Some(api::VirtualIP::api_version(&()).into_owned()),
                kind: Some(api::VirtualIP::kind(&()).into_owned()),
                name: Some(VirtualIp::object_name(address)),
                ..ObjectReference::default()
            }),
            warning,
            reason: reason.to_owned(),
            note,
        };
        let now = MicroTime(Timestamp::now());
        let event = report.event(managers::SPEAKER, self.node.as_str(), now);
        let events: Api<Event> =
            Api::namespaced(self.client.clone(), service.key.namespace.as_str());
        let permits = Arc::clone(&self.permits);
        self.runtime.spawn(async move {
            let _permit = permits.acquire().await;
            let params = PostParams::default();
            // Boxed as well.
            let created = Box::pin(events.create(&params, &event)).await;
            if let Err(error) = created {
                debug!(error = &error as &dyn Error, "an Event was lost");
            }
        });
    }

    fn report(&self, input: Input) {
        if self.inputs.send(input).is_err() {
            debug!("nobody listens to writes any more");
        }
    }
}

/// Forced: nobody else is to write a status, and what was edited by hand is restored.
fn applied_by_us() -> PatchParams {
    PatchParams::apply(managers::SPEAKER).force()
}

fn outcome(kind: &'static str, name: &str, written: kube::Result<()>) -> WriteOutcome {
    match written {
        Ok(()) => {
            debug!(kind, name, "written");
            WriteOutcome::Done
        }
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
            debug!(kind, name, code = status.code, "it has changed meanwhile");
            WriteOutcome::Outdated
        }
        Err(error) => {
            warn!(
                kind,
                name,
                error = &error as &dyn Error,
                "cannot write, trying again"
            );
            WriteOutcome::Failed
        }
    }
}
