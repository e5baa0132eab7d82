//! `Speaker`.

use herald_api::{Speaker as ApiSpeaker, SpeakerSegment as ApiSegment, SpeakerStatus, conditions};
use herald_model::{
    Incarnation, InterfaceName, NodeName, ParseMacError, SegmentName, Speaker, SpeakerSegment,
};

use crate::meta;

/// Why what a speaker says of itself cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSpeaker {
    /// A MAC address is not one.
    #[error("status.segments[{place}].mac")]
    Mac {
        /// The segment's place in the list.
        place: usize,
        /// What is wrong with it.
        source: ParseMacError,
    },
    /// A prefix is not one.
    #[error(
        "status.segments[{place}].prefixes has {text:?}, which is not an address with a prefix length"
    )]
    Prefix {
        /// The segment's place in the list.
        place: usize,
        /// What was given.
        text: String,
    },
    /// A gateway is no address.
    #[error("status.segments[{place}].gateways has {text:?}, which is not an IP address")]
    Gateway {
        /// The segment's place in the list.
        place: usize,
        /// What was given.
        text: String,
    },
    /// An incarnation is negative.
    #[error("status.segments[{place}].incarnation is {incarnation}, below zero")]
    Incarnation {
        /// The segment's place in the list.
        place: usize,
        /// What was given.
        incarnation: i64,
    },
}

impl InvalidSpeaker {
    /// A word for metrics and Events.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Mac { .. } => "speaker_mac",
            Self::Prefix { .. } => "speaker_prefix",
            Self::Gateway { .. } => "speaker_gateway",
            Self::Incarnation { .. } => "speaker_incarnation",
        }
    }
}

/// The speaker that the object describes; without a status it has no segments yet.
///
/// # Errors
///
/// Every variant of [`InvalidSpeaker`].
pub fn speaker(object: &ApiSpeaker) -> Result<Speaker, InvalidSpeaker> {
    Ok(Speaker {
        node: NodeName::from(meta::name(&object.metadata)),
        segments: object
            .status
            .iter()
            .flat_map(|status| &status.segments)
            .enumerate()
            .map(|(place, object)| segment(place, object))
            .collect::<Result<_, _>>()?,
        stopping: object
            .status
            .iter()
            .flat_map(|status| &status.conditions)
            .any(|condition| {
                condition.type_ == conditions::READY
                    && condition.status == "False"
                    && [conditions::reasons::STOPPING, conditions::reasons::RETIRED]
                        .contains(&condition.reason.as_str())
            }),
        ipvs: object
            .status
            .as_ref()
            .and_then(|status| status.kube_proxy_mode.as_deref())
            .is_some_and(|mode| mode == SpeakerStatus::IPVS),
    })
}

fn segment(place: usize, object: &ApiSegment) -> Result<SpeakerSegment, InvalidSpeaker> {
    Ok(SpeakerSegment {
        name: SegmentName::from(object.name.as_str()),
        interface: InterfaceName::from(object.interface.as_str()),
        mac: object
            .mac
            .parse()
            .map_err(|source| InvalidSpeaker::Mac { place, source })?,
        prefixes: object
            .prefixes
            .iter()
            .map(|text| {
                text.parse().map_err(|_not_one| InvalidSpeaker::Prefix {
                    place,
                    text: text.clone(),
                })
            })
            .collect::<Result<_, _>>()?,
        gateways: object
            .gateways
            .iter()
            .map(|text| {
                text.parse().map_err(|_not_one| InvalidSpeaker::Gateway {
                    place,
                    text: text.clone(),
                })
            })
            .collect::<Result<_, _>>()?,
        carrier: object.carrier,
        incarnation: u64::try_from(object.incarnation)
            .map(Incarnation)
            .map_err(|_negative| InvalidSpeaker::Incarnation {
                place,
                incarnation: object.incarnation,
            })?,
    })
}

/// The way back: a segment as a speaker writes it to its object.
pub fn speaker_segment(segment: &SpeakerSegment) -> ApiSegment {
    ApiSegment {
        name: segment.name.to_string(),
        interface: segment.interface.to_string(),
        mac: segment.mac.to_string(),
        prefixes: segment.prefixes.iter().map(ToString::to_string).collect(),
        gateways: segment.gateways.iter().map(ToString::to_string).collect(),
        carrier: segment.carrier,
        incarnation: i64::try_from(segment.incarnation.0).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use herald_api::{SpeakerSpec, SpeakerStatus};
    use herald_model::MacAddress;

    use super::*;
    use crate::sentence;

    fn object(segments: Vec<ApiSegment>) -> ApiSpeaker {
        let mut object = ApiSpeaker::new("node1", SpeakerSpec::default());
        object.status = Some(SpeakerStatus {
            segments,
            ..SpeakerStatus::default()
        });
        object
    }

    fn value() -> SpeakerSegment {
        SpeakerSegment {
            name: "192.0.2.0/24".into(),
            interface: "eth0".into(),
            mac: MacAddress([2, 0, 0, 0, 0, 0xab]),
            prefixes: vec![
                "192.0.2.1/24".parse().unwrap(),
                "2001:db8::1/64".parse().unwrap(),
            ],
            gateways: vec!["192.0.2.254".parse().unwrap()],
            carrier: true,
            incarnation: Incarnation(7),
        }
    }

    #[test]
    fn a_segment_reads_as_it_was_written() {
        let object = object(vec![speaker_segment(&value())]);
        assert_eq!(
            speaker(&object),
            Ok(Speaker {
                node: "node1".into(),
                segments: vec![value()],
                stopping: false,
                ipvs: false,
            })
        );
    }

    #[test]
    fn a_speaker_that_was_asked_to_end_says_so_in_its_condition() {
        let condition = |status: &str, reason: &str| {
            let mut object = object(Vec::new());
            let conditions = serde_json::json!([{
                "type": "Ready", "status": status, "reason": reason, "message": "",
                "lastTransitionTime": "2026-11-25T00:00:00Z",
            }]);
            object.status.as_mut().unwrap().conditions =
                serde_json::from_value(conditions).unwrap();
            speaker(&object).unwrap().stopping
        };
        assert!(condition("False", "Stopping"));
        assert!(condition("False", "Retired"));
        assert!(!condition("False", "NoSegment"));
        assert!(!condition("True", "Ready"));
    }

    #[test]
    fn a_speaker_without_status_has_no_segments() {
        let object = ApiSpeaker::new("node1", SpeakerSpec::default());
        assert_eq!(speaker(&object).unwrap().segments, []);
    }

    #[test]
    fn refusals_name_the_field_and_the_value() {
        type Spoil = fn(&mut ApiSegment);
        let cases: [(Spoil, &str); 4] = [
            (
                |segment| segment.mac = "02:00".to_owned(),
                "status.segments[1].mac: \"02:00\" is not a MAC address",
            ),
            (
                |segment| segment.prefixes.push("192.0.2.1".to_owned()),
                "status.segments[1].prefixes has \"192.0.2.1\"",
            ),
            (
                |segment| segment.gateways.push("192.0.2.1/24".to_owned()),
                "status.segments[1].gateways has \"192.0.2.1/24\"",
            ),
            (
                |segment| segment.incarnation = -1,
                "status.segments[1].incarnation is -1",
            ),
        ];
        for (spoil, expected) in cases {
            let mut bad = speaker_segment(&value());
            spoil(&mut bad);
            let error = speaker(&object(vec![speaker_segment(&value()), bad])).unwrap_err();
            assert!(sentence(&error).starts_with(expected), "{error}");
        }
    }
}
