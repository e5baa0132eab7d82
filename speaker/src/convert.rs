//! Between what the core says and what the API server stores.

use std::sync::Arc;

use herald_api::{self as api, conditions};
use herald_model::{CRASH, Epoch, NodeName, SegmentName};
use herald_ring::KeyId;
use herald_speaker_core::{
    AnnouncedSegment, Condition, ConditionKind, DataPlaneMode, DataPlaneReport, ForwardingState,
    ObservedSpeaker, ObservedVip, SpeakerReport, VipStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as ApiCondition, ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;

/// A `VirtualIP` object as the core wants it.
pub(crate) fn observed_vip(
    object: &api::VirtualIP,
) -> Result<ObservedVip, herald_config::InvalidVirtualIp> {
    Ok(ObservedVip {
        vip: herald_config::virtual_ip(object)?,
        resource_version: resource_version(&object.metadata),
        status: object.status.as_ref().map(vip_status).unwrap_or_default(),
    })
}

/// A `Speaker` object as the core wants it. A segment that cannot be understood leaves the object
/// without segments.
pub(crate) fn observed_speaker(object: &api::Speaker) -> ObservedSpeaker {
    let status = object.status.clone().unwrap_or_default();
    let name = object.metadata.name.as_deref().unwrap_or_default();
    ObservedSpeaker {
        node: NodeName::from(name),
        resource_version: resource_version(&object.metadata),
        retire: object.spec.retire,
        crash: object
            .metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(CRASH))
            .map(|value| value.as_str().into()),
        report: SpeakerReport {
            version: status.version.into(),
            boot_id: status.boot_id.into(),
            segments: herald_config::speaker(object)
                .map(|speaker| speaker.segments)
                .unwrap_or_default(),
            key_ids: status.key_ids.into_iter().map(KeyId).collect(),
            data_plane: status.data_plane.map(|data_plane| DataPlaneReport {
                mode: match data_plane.mode {
                    api::DataPlaneMode::Tcx => DataPlaneMode::Tcx,
                    api::DataPlaneMode::Clsact => DataPlaneMode::Clsact,
                    api::DataPlaneMode::None => DataPlaneMode::None,
                },
                reason: data_plane.reason.map(Arc::from),
            }),
            ipvs: status.kube_proxy_mode.as_deref() == Some(api::SpeakerStatus::IPVS),
            conditions: conditions_seen(&status.conditions),
        },
    }
}

/// The status of a `Speaker` object.
pub(crate) fn speaker_status(report: &SpeakerReport) -> api::SpeakerStatus {
    api::SpeakerStatus {
        version: report.version.to_string(),
        boot_id: report.boot_id.to_string(),
        segments: report
            .segments
            .iter()
            .map(herald_config::speaker_segment)
            .collect(),
        key_ids: report.key_ids.iter().map(|key| key.0).collect(),
        data_plane: report.data_plane.as_ref().map(|report| api::DataPlane {
            mode: match report.mode {
                DataPlaneMode::Tcx => api::DataPlaneMode::Tcx,
                DataPlaneMode::Clsact => api::DataPlaneMode::Clsact,
                DataPlaneMode::None => api::DataPlaneMode::None,
            },
            reason: report.reason.as_deref().map(|reason| cut(reason, 1_024)),
        }),
        kube_proxy_mode: report.ipvs.then(|| api::SpeakerStatus::IPVS.to_owned()),
        conditions: report.conditions.iter().map(condition).collect(),
    }
}

/// The status of a `VirtualIP` object.
pub(crate) fn vip_status_object(status: &VipStatus) -> api::VirtualIPStatus {
    api::VirtualIPStatus {
        segments: status
            .segments
            .iter()
            .map(|entry| api::AnnouncedSegment {
                name: entry.name.to_string(),
                node: entry.node.to_string(),
                interface: entry.interface.to_string(),
                mac: entry.mac.to_string(),
                epoch: i64::try_from(entry.epoch.0).unwrap_or(i64::MAX),
                since: time(entry.since),
                reason: entry.reason.to_string(),
            })
            .collect(),
        forwarding: status.forwarding.map(|state| match state {
            ForwardingState::Pod => api::Forwarding::Pod,
            ForwardingState::Dsr => api::Forwarding::Dsr,
            ForwardingState::NodePort => api::Forwarding::NodePort,
            ForwardingState::Off => api::Forwarding::Off,
        }),
        forwarding_reason: status
            .forwarding_reason
            .as_deref()
            .map(|reason| cut(reason, 1_024)),
        targets: status
            .targets
            .map(|targets| i32::try_from(targets).unwrap_or(i32::MAX)),
        probed: status.probed.iter().map(ToString::to_string).collect(),
        yielded: status.yielded.iter().map(ToString::to_string).collect(),
        conditions: status.conditions.iter().map(condition).collect(),
    }
}

fn vip_status(status: &api::VirtualIPStatus) -> VipStatus {
    VipStatus {
        // An entry that cannot be understood counts as absent, and is written anew.
        segments: status.segments.iter().filter_map(segment).collect(),
        forwarding: status.forwarding.map(|state| match state {
            api::Forwarding::Pod => ForwardingState::Pod,
            api::Forwarding::Dsr => ForwardingState::Dsr,
            api::Forwarding::NodePort => ForwardingState::NodePort,
            api::Forwarding::Off => ForwardingState::Off,
        }),
        forwarding_reason: status.forwarding_reason.as_deref().map(Arc::from),
        targets: status
            .targets
            .and_then(|targets| u32::try_from(targets).ok()),
        probed: segment_names(&status.probed),
        yielded: segment_names(&status.yielded),
        conditions: conditions_seen(&status.conditions),
    }
}

fn segment_names(names: &[String]) -> Vec<SegmentName> {
    names.iter().map(|name| name.as_str().into()).collect()
}

fn segment(entry: &api::AnnouncedSegment) -> Option<AnnouncedSegment> {
    Some(AnnouncedSegment {
        name: entry.name.as_str().into(),
        node: entry.node.as_str().into(),
        interface: entry.interface.as_str().into(),
        mac: entry.mac.parse().ok()?,
        epoch: Epoch(u64::try_from(entry.epoch).ok()?),
        since: entry.since.0.as_second(),
        reason: entry.reason.as_str().into(),
    })
}

const KINDS: [(ConditionKind, &str); 6] = [
    (ConditionKind::Announced, conditions::ANNOUNCED),
    (ConditionKind::Conflict, conditions::CONFLICT),
    (ConditionKind::Forwarding, conditions::FORWARDING),
    (ConditionKind::Ready, conditions::READY),
    (ConditionKind::Verified, conditions::VERIFIED),
    (ConditionKind::TakesTraffic, conditions::TAKES_TRAFFIC),
];

/// The conditions the core knows, ordered by kind as it orders them.
fn conditions_seen(seen: &[ApiCondition]) -> Vec<Condition> {
    let mut conditions: Vec<Condition> = seen
        .iter()
        .filter_map(|seen| {
            let (kind, _) = KINDS.iter().find(|(_, name)| *name == seen.type_)?;
            Some(Condition {
                kind: *kind,
                holds: seen.status == conditions::TRUE,
                reason: seen.reason.as_str().into(),
                message: seen.message.clone(),
                since: seen.last_transition_time.0.as_second(),
            })
        })
        .collect();
    conditions.sort_by_key(|condition| condition.kind);
    conditions
}

fn condition(condition: &Condition) -> ApiCondition {
    let type_ = KINDS
        .iter()
        .find(|(kind, _)| *kind == condition.kind)
        .map(|(_, name)| (*name).to_owned())
        .unwrap_or_default();
    ApiCondition {
        type_,
        status: if condition.holds {
            conditions::TRUE
        } else {
            conditions::FALSE
        }
        .to_owned(),
        reason: condition.reason.to_string(),
        message: condition.message.clone(),
        last_transition_time: time(condition.since),
        observed_generation: None,
    }
}

fn time(seconds: i64) -> Time {
    Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH))
}

fn resource_version(metadata: &ObjectMeta) -> Arc<str> {
    metadata
        .resource_version
        .as_deref()
        .unwrap_or_default()
        .into()
}

/// The text, no longer than a field may be.
fn cut(text: &str, most_bytes: usize) -> String {
    let end = text.floor_char_boundary(most_bytes);
    text.get(..end).unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use herald_model::{Incarnation, MacAddress, SpeakerSegment};

    use super::*;

    fn condition(kind: ConditionKind, holds: bool) -> Condition {
        Condition {
            kind,
            holds,
            reason: "Reason".into(),
            message: "a message".to_owned(),
            since: 1_700_000_000,
        }
    }

    fn status() -> VipStatus {
        VipStatus {
            segments: vec![AnnouncedSegment {
                name: "192.0.2.0/24".into(),
                node: "node1".into(),
                interface: "eth0".into(),
                mac: MacAddress([2, 0, 0, 0, 0, 1]),
                epoch: Epoch(3),
                since: 1_700_000_000,
                reason: "Planned".into(),
            }],
            forwarding: Some(ForwardingState::NodePort),
            forwarding_reason: Some("why".into()),
            targets: Some(2),
            probed: vec!["192.0.2.0/24".into()],
            yielded: vec!["198.51.100.0/24".into()],
            conditions: vec![
                condition(ConditionKind::Announced, true),
                condition(ConditionKind::Conflict, false),
                condition(ConditionKind::Forwarding, true),
            ],
        }
    }

    #[test]
    fn status_that_is_written_is_read_back_as_it_was() {
        for status in [status(), VipStatus::default()] {
            assert_eq!(vip_status(&vip_status_object(&status)), status);
        }
    }

    #[test]
    fn order_of_conditions_means_nothing() {
        let mut object = vip_status_object(&status());
        object.conditions.reverse();
        assert_eq!(vip_status(&object), status());
    }

    #[test]
    fn entry_that_makes_no_sense_counts_as_absent() {
        let mut object = vip_status_object(&status());
        object.segments[0].mac = "nonsense".to_owned();
        assert_eq!(vip_status(&object).segments, []);
    }

    #[test]
    fn report_that_is_written_is_read_back_as_it_was() {
        let report = SpeakerReport {
            version: "0.1.0".into(),
            boot_id: "boot".into(),
            segments: vec![SpeakerSegment {
                name: "192.0.2.0/24".into(),
                interface: "eth0".into(),
                mac: MacAddress([2, 0, 0, 0, 0, 1]),
                prefixes: vec!["192.0.2.11/24".parse().unwrap()],
                gateways: vec!["192.0.2.254".parse().unwrap()],
                carrier: true,
                incarnation: Incarnation(4),
            }],
            key_ids: vec![KeyId(2), KeyId(1)],
            data_plane: Some(DataPlaneReport {
                mode: DataPlaneMode::Clsact,
                reason: Some("an old kernel".into()),
            }),
            ipvs: true,
            conditions: vec![condition(ConditionKind::Ready, true)],
        };
        let mut object = api::Speaker::new("node1", api::SpeakerSpec::default());
        object.status = Some(speaker_status(&report));
        let observed = observed_speaker(&object);
        assert_eq!(observed.node, "node1".into());
        assert_eq!(observed.report, report);
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        let text = "é".repeat(600);
        assert_eq!(cut(&text, 1_023).len(), 1_022);
        assert_eq!(cut("short", 1_024), "short");
    }
}
