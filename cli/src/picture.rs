//! What the objects come to: the controller's decisions, and the speakers'.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use herald_api::{DataPlaneMode as ApiMode, Speaker, SpeakerStatus, VirtualIP};
use herald_controller_core::{
    Controller, Holding, Input, ObservedService, ObservedVip, Rehearsal, UserObject,
};
use herald_model::{
    Endpoint, Epoch, NodeName, PoolName, SegmentName, Service, ServiceEndpoints, ServiceKey,
    VirtualIp,
};
use herald_speaker_core::{
    DataPlaneMode, DataPlaneReport, Facts, Forecast, ObservedSpeaker, SpeakerReport,
};
use k8s_openapi::api::core::v1::{Node, Service as ApiService};

use crate::read::Objects;

/// A cluster as it is.
pub(crate) struct Picture {
    pub(crate) objects: Objects,
    pub(crate) rehearsal: Rehearsal,
    pub(crate) forecast: Forecast,
    /// The time, seconds since 1970.
    pub(crate) now: i64,
    /// Where in the lists an object of a name is.
    services: BTreeMap<ServiceKey, usize>,
    vips: BTreeMap<String, usize>,
}

impl Picture {
    /// Decides everything, and lets nothing follow from it.
    pub(crate) fn new(objects: Objects, now: i64) -> Self {
        let rehearsal = Rehearsal::new(now, objects.inputs.iter().cloned());
        let forecast = Forecast::new(facts(&objects, rehearsal.controller()));
        let services = objects.services.iter().map(herald_config::service_key);
        let vips = objects.vips.iter();
        let vips = vips.map(|vip| vip.metadata.name.clone().unwrap_or_default());
        Self {
            services: services.enumerate().map(|(at, key)| (key, at)).collect(),
            vips: vips.enumerate().map(|(at, name)| (name, at)).collect(),
            objects,
            rehearsal,
            forecast,
            now,
        }
    }

    /// The same with a change, and with all that follows from it; `None`: without a change.
    pub(crate) fn after(&self, change: Option<Input>) -> Rehearsal {
        let mut rehearsal = Rehearsal::new(self.now, self.objects.inputs.iter().cloned());
        rehearsal.settle();
        if let Some(change) = change {
            rehearsal.tell(change);
            rehearsal.settle();
        }
        rehearsal
    }

    pub(crate) const fn controller(&self) -> &Controller {
        self.rehearsal.controller()
    }

    /// The Service as the API server has it.
    pub(crate) fn service(&self, key: &ServiceKey) -> Option<&ApiService> {
        self.objects.services.get(*self.services.get(key)?)
    }

    /// The `VirtualIP` of an address as the API server has it.
    pub(crate) fn vip(&self, address: IpAddr) -> Option<&VirtualIP> {
        let name = VirtualIp::object_name(address);
        self.objects.vips.get(*self.vips.get(&name)?)
    }

    /// The pools there are, valid or not.
    pub(crate) fn pool_names(&self) -> BTreeSet<PoolName> {
        let name = |input: &Input| match input {
            Input::PoolApplied(pool) => Some(pool.pool.name.clone()),
            Input::ObjectInvalid {
                object: UserObject::Pool(name),
                ..
            } => Some(name.clone()),
            _ => None,
        };
        self.objects.inputs.iter().filter_map(name).collect()
    }

    pub(crate) fn node(&self, name: &str) -> Option<&Node> {
        let mut nodes = self.objects.nodes.iter();
        nodes.find(|node| node.metadata.name.as_deref() == Some(name))
    }

    pub(crate) fn speaker(&self, name: &str) -> Option<&Speaker> {
        let mut speakers = self.objects.speakers.iter();
        speakers.find(|speaker| speaker.metadata.name.as_deref() == Some(name))
    }
}

/// What the speakers decide with, once statuses show what the controller decided.
pub(crate) fn facts(objects: &Objects, controller: &Controller) -> Facts {
    let ignore_exclude = objects.flags().ignore_exclude_label;
    let nodes: BTreeMap<NodeName, herald_model::Node> = objects
        .nodes
        .iter()
        .map(|node| herald_config::node(node, ignore_exclude))
        .map(|node| (node.name.clone(), node))
        .collect();
    let speakers: BTreeMap<NodeName, ObservedSpeaker> = objects
        .speakers
        .iter()
        .filter_map(observed_speaker)
        .map(|speaker| (speaker.node.clone(), speaker))
        .collect();
    let speaks: BTreeSet<&NodeName> = objects
        .inputs
        .iter()
        .filter_map(|input| match input {
            Input::SpeakerPodApplied(pod) if pod.ready => Some(&pod.node),
            _ => None,
        })
        .collect();
    let is_well =
        |name: &NodeName| speaks.contains(name) && nodes.get(name).is_some_and(|node| node.ready);
    let silent = speakers
        .keys()
        .filter(|name| !is_well(name))
        .cloned()
        .collect();
    Facts {
        silent,
        dead: BTreeSet::new(),
        services: services(controller),
        endpoints: endpoints(objects),
        nodes,
        speakers,
    }
}

/// The Services that are ours, each with the addresses that its status shows by now.
fn services(controller: &Controller) -> BTreeMap<ServiceKey, Service> {
    let shown = |observed: &ObservedService| {
        let service = observed.service.as_deref()?;
        let shown = Service {
            ingress: observed.ingress.clone(),
            ..service.clone()
        };
        Some((observed.key.clone(), shown))
    };
    controller.services().filter_map(shown).collect()
}

fn endpoints(objects: &Objects) -> BTreeMap<ServiceKey, ServiceEndpoints> {
    let mut slices: BTreeMap<ServiceKey, Vec<Vec<Endpoint>>> = BTreeMap::new();
    for slice in &objects.slices {
        if let Some(key) = herald_config::service_of_slice(slice) {
            let said = herald_config::endpoints_of_slice(slice);
            slices.entry(key).or_default().push(said);
        }
    }
    slices
        .into_iter()
        .map(|(key, said)| {
            let all = said.iter().map(Vec::as_slice);
            (key.clone(), herald_config::endpoints(key, all))
        })
        .collect()
}

fn observed_speaker(object: &Speaker) -> Option<ObservedSpeaker> {
    let speaker = herald_config::speaker(object).ok()?;
    let status = object.status.as_ref();
    let data_plane = status.and_then(|status| status.data_plane.as_ref());
    Some(ObservedSpeaker {
        node: speaker.node,
        resource_version: "".into(),
        retire: object.spec.retire,
        crash: None,
        report: SpeakerReport {
            segments: speaker.segments,
            data_plane: data_plane.map(|report| DataPlaneReport {
                mode: match report.mode {
                    ApiMode::Tcx => DataPlaneMode::Tcx,
                    ApiMode::Clsact => DataPlaneMode::Clsact,
                    ApiMode::None => DataPlaneMode::None,
                },
                reason: report.reason.as_deref().map(Into::into),
            }),
            ipvs: status
                .and_then(|status| status.kube_proxy_mode.as_deref())
                .is_some_and(|mode| mode == SpeakerStatus::IPVS),
            ..SpeakerReport::default()
        },
    })
}

/// Who says that it announces an address on a segment, and under which plan.
pub(crate) fn held<'a>(
    vip: &'a ObservedVip,
    segment: &SegmentName,
) -> Option<(&'a NodeName, Epoch)> {
    let mut holdings = vip.holdings.iter();
    let held: &Holding = holdings.find(|holding| holding.segment == *segment)?;
    Some((&held.node, held.epoch))
}
