//! A small API server: objects with versions, and one log of changes for each kind.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use herald_controller_core as controller;
use herald_controller_core::{
    Holding, Identity, ObservedService, Slice, SpeakerPod, Version, Write, WriteResult,
};
use herald_model::{
    Node, NodeName, ServiceEndpoints, ServiceKey, Speaker as SpeakerFacts, VirtualIp,
};
use herald_speaker_core as speaker;
use herald_speaker_core::{
    Cache, ConditionKind, ObservedSpeaker, SpeakerReport, VipStatus, WriteOutcome,
};

/// The kinds that are told of independently.
pub(super) const KINDS: usize = 6;
/// Which log tells of what, in the order of [`Change`].
pub(super) const CACHES: [Cache; 5] = [
    Cache::Vips,
    Cache::Services,
    Cache::Endpoints,
    Cache::Nodes,
    Cache::Speakers,
];

/// The new form of an object.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Vip(Stored),
    Service(ObservedService),
    Endpoints(ServiceEndpoints),
    Node(Node),
    Speaker(ObservedSpeaker),
    Pod(SpeakerPod),
}

/// A `VirtualIP`.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) version: u64,
    pub(super) spec: VirtualIp,
    pub(super) status: VipStatus,
}

#[derive(Default)]
pub(super) struct Api {
    pub(super) vips: BTreeMap<IpAddr, Stored>,
    pub(super) speakers: BTreeMap<NodeName, ObservedSpeaker>,
    services: BTreeMap<ServiceKey, ObservedService>,
    logs: [Vec<Change>; KINDS],
    revision: u64,
    /// Writes that arrived, whatever came of them.
    pub(super) writes: u64,
}

impl Change {
    fn kind(&self) -> usize {
        match self {
            Self::Vip(_) => 0,
            Self::Service(_) => 1,
            Self::Endpoints(_) => 2,
            Self::Node(_) => 3,
            Self::Speaker(_) => 4,
            Self::Pod(_) => 5,
        }
    }

    pub(super) fn for_speaker(&self) -> Option<speaker::Input> {
        Some(match self {
            Self::Vip(vip) => speaker::Input::VipApplied(speaker::ObservedVip {
                vip: vip.spec.clone(),
                resource_version: vip.version.to_string().into(),
                status: vip.status.clone(),
            }),
            Self::Service(observed) => {
                let mut service = observed.service.as_deref()?.clone();
                service.ingress.clone_from(&observed.ingress);
                speaker::Input::ServiceApplied(Box::new(service))
            }
            Self::Endpoints(endpoints) => speaker::Input::EndpointsApplied(endpoints.clone()),
            Self::Node(node) => speaker::Input::NodeApplied {
                node: node.clone(),
                segments: BTreeMap::new(),
            },
            Self::Speaker(speaker) => speaker::Input::SpeakerApplied(speaker.clone()),
            Self::Pod(_) => return None,
        })
    }

    pub(super) fn for_controller(&self) -> controller::Input {
        match self {
            Self::Vip(vip) => controller::Input::VipApplied(Box::new(vip.for_controller())),
            Self::Service(service) => {
                let mut service = service.clone();
                if let Some(inner) = &mut service.service {
                    Arc::make_mut(inner).ingress.clone_from(&service.ingress);
                }
                controller::Input::ServiceApplied(Box::new(service))
            }
            Self::Endpoints(endpoints) => controller::Input::SliceApplied(Slice {
                service: endpoints.service.clone(),
                name: "slice".into(),
                endpoints: endpoints.endpoints.clone(),
            }),
            Self::Node(node) => controller::Input::NodeApplied(Box::new(node.clone())),
            Self::Speaker(speaker) => {
                let stopping = speaker.report.conditions.iter().any(|condition| {
                    condition.kind == ConditionKind::Ready && &*condition.reason == "Stopping"
                });
                controller::Input::SpeakerApplied(Box::new(SpeakerFacts {
                    node: speaker.node.clone(),
                    segments: speaker.report.segments.clone(),
                    stopping,
                    ipvs: speaker.report.ipvs,
                }))
            }
            Self::Pod(pod) => controller::Input::SpeakerPodApplied(pod.clone()),
        }
    }
}

impl Stored {
    fn identity(&self) -> Identity {
        Identity {
            uid: format!("uid-{}", self.spec.address).into(),
            version: Version::new(self.version.to_string()),
        }
    }

    fn for_controller(&self) -> controller::ObservedVip {
        let holdings = self.status.segments.iter().map(|entry| Holding {
            segment: entry.name.clone(),
            node: entry.node.clone(),
            interface: entry.interface.clone(),
            mac: entry.mac,
            epoch: entry.epoch,
            taken_over: &*entry.reason == "TakenOver",
        });
        let conditions = self.status.conditions.iter();
        let mut conflicts = conditions
            .filter(|condition| condition.kind == ConditionKind::Conflict && condition.holds);
        controller::ObservedVip {
            identity: self.identity(),
            vip: self.spec.clone(),
            holdings: holdings.collect(),
            lan: controller::Lan {
                probed: self.status.probed.iter().cloned().collect(),
                stranger: conflicts
                    .next()
                    .map(|condition| condition.message.as_str().into()),
            },
            move_to: None,
        }
    }
}

impl Api {
    /// How long the logs are.
    pub(super) fn ends(&self) -> [usize; KINDS] {
        std::array::from_fn(|kind| self.logs[kind].len())
    }

    pub(super) fn between(&self, kind: usize, from: usize, to: usize) -> &[Change] {
        self.logs[kind].get(from..to).unwrap_or_default()
    }

    pub(super) fn put(&mut self, change: Change) {
        if let Change::Service(service) = &change {
            self.services.insert(service.key.clone(), service.clone());
        }
        self.logs[change.kind()].push(change);
    }

    pub(super) fn write_speaker(
        &mut self,
        node: &NodeName,
        create: bool,
        report: SpeakerReport,
    ) -> WriteOutcome {
        self.writes += 1;
        let known = self.speakers.get(node);
        if known.is_none() && !create {
            return WriteOutcome::Outdated;
        }
        if known.is_none_or(|known| known.report != report) {
            self.revision += 1;
            let speaker = ObservedSpeaker {
                node: node.clone(),
                resource_version: self.revision.to_string().into(),
                retire: false,
                crash: None,
                report,
            };
            self.speakers.insert(node.clone(), speaker.clone());
            self.put(Change::Speaker(speaker));
        }
        WriteOutcome::Done
    }

    pub(super) fn write_vip_status(
        &mut self,
        address: IpAddr,
        version: &str,
        status: VipStatus,
    ) -> WriteOutcome {
        self.writes += 1;
        let Some(there) = self
            .vips
            .get(&address)
            .filter(|there| there.version.to_string() == version)
        else {
            return WriteOutcome::Outdated;
        };
        if there.status != status {
            self.store_vip(there.spec.clone(), status);
        }
        WriteOutcome::Done
    }

    fn store_vip(&mut self, spec: VirtualIp, status: VipStatus) -> WriteResult {
        self.revision += 1;
        let stored = Stored {
            version: self.revision,
            spec,
            status,
        };
        self.vips.insert(stored.spec.address, stored.clone());
        let written = WriteResult::VipWritten(Box::new(stored.for_controller()));
        self.put(Change::Vip(stored));
        written
    }

    /// Makes a write of the controller, as the real one would.
    pub(super) fn write(&mut self, write: &Write) -> WriteResult {
        self.writes += 1;
        match write {
            Write::CreateVip(vip) => match self.vips.get(&vip.address) {
                Some(there) => WriteResult::VipDiffers(Some(Box::new(there.for_controller()))),
                None => self.store_vip(vip.clone(), VipStatus::default()),
            },
            Write::ReplaceVip { identity, vip } => match self.vips.get(&vip.address) {
                None => WriteResult::VipGone,
                Some(there) if there.identity() != *identity => {
                    WriteResult::VipDiffers(Some(Box::new(there.for_controller())))
                }
                Some(there) => self.store_vip(vip.clone(), there.status.clone()),
            },
            Write::ApplyServiceStatus {
                key,
                identity,
                status,
            } => {
                let Some(there) = self.services.get(key) else {
                    return WriteResult::ServiceGone;
                };
                if there.identity != *identity {
                    return WriteResult::ServiceDiffers;
                }
                let mut service = there.clone();
                if let Some(ingress) = &status.ingress {
                    service.ingress.clone_from(ingress);
                }
                service.allocated.clone_from(&status.allocated);
                service.announced.clone_from(&status.announced);
                service.allocated_from.clone_from(&status.allocated_from);
                if service != *there {
                    self.revision += 1;
                    service.identity.version = Version::new(self.revision.to_string());
                    self.put(Change::Service(service.clone()));
                }
                WriteResult::ServiceWritten {
                    version: service.identity.version,
                    ingress: service.ingress,
                }
            }
            Write::DeleteVip { .. } => WriteResult::Failed {
                message: "no Service ends here".to_owned(),
                refused: true,
            },
            Write::RecordEvent(_)
            | Write::ApplyPoolStatus { .. }
            | Write::ApplyAdvertisementReady { .. } => WriteResult::Done,
        }
    }
}
