//! `VirtualIP`, both ways.

use std::net::IpAddr;

use herald_api::{
    Announcers, Candidate as ApiCandidate, ConflictPolicy as ApiConflictPolicy, PlannedSegment,
    ServiceReference, VipPhase, VirtualIP as ApiVirtualIp, VirtualIPSpec,
};
use herald_model::{
    AdvertisementName, Announce, Candidate, ConflictPolicy, Epoch, Incarnation, NodeName, Phase,
    PoolName, SegmentName, ServiceKey, ServiceRef, Uid, VipSegment, VirtualIp,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::meta;
use crate::pool::conflict_policy;

/// Why a claim cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidVirtualIp {
    /// The address is not one.
    #[error("spec.address {text:?} is not an IP address")]
    Address {
        /// What was given.
        text: String,
    },
    /// The object is not named after its address, so it is no lock on it.
    #[error("metadata.name is {name:?}; expected {expected:?}, after spec.address {address}")]
    Name {
        /// The object's name.
        name: String,
        /// What it should be.
        expected: String,
        /// The address.
        address: IpAddr,
    },
    /// The epoch is negative.
    #[error("spec.epoch is {epoch}, below zero")]
    Epoch {
        /// What was given.
        epoch: i64,
    },
    /// It rests, but for how long?
    #[error("spec.until is missing; expected a time, as spec.phase is Resting")]
    Until,
    /// An incarnation is negative.
    #[error("spec.segments[{place}]: the incarnation of {node} is {incarnation}, below zero")]
    Incarnation {
        /// The segment's place in the list.
        place: usize,
        /// The candidate.
        node: NodeName,
        /// What was given.
        incarnation: i64,
    },
}

impl InvalidVirtualIp {
    /// A word for metrics and Events.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Address { .. } => "vip_address",
            Self::Name { .. } => "vip_name",
            Self::Epoch { .. } => "vip_epoch",
            Self::Until => "vip_until",
            Self::Incarnation { .. } => "vip_incarnation",
        }
    }
}

/// The claim and plan that the object holds.
///
/// # Errors
///
/// Every variant of [`InvalidVirtualIp`].
pub fn virtual_ip(object: &ApiVirtualIp) -> Result<VirtualIp, InvalidVirtualIp> {
    let spec = &object.spec;
    let address: IpAddr = spec
        .address
        .parse()
        .map_err(|_not_one| InvalidVirtualIp::Address {
            text: spec.address.clone(),
        })?;
    let (name, expected) = (
        meta::name(&object.metadata),
        VirtualIp::object_name(address),
    );
    if name != expected {
        return Err(InvalidVirtualIp::Name {
            name: name.to_owned(),
            expected,
            address,
        });
    }
    Ok(VirtualIp {
        address,
        pool: PoolName::from(spec.pool.as_str()),
        epoch: u64::try_from(spec.epoch)
            .map(Epoch)
            .map_err(|_negative| InvalidVirtualIp::Epoch { epoch: spec.epoch })?,
        phase: match (spec.phase, &spec.until) {
            (VipPhase::Probing, _) => Phase::Probing,
            (VipPhase::Active, _) => Phase::Active,
            (VipPhase::Resting, Some(until)) => Phase::Resting {
                until: until.0.as_second(),
            },
            (VipPhase::Resting, None) => return Err(InvalidVirtualIp::Until),
        },
        announce: match spec.announce {
            Announcers::All => Announce::All,
            Announcers::Listed => Announce::Listed,
            Announcers::None => Announce::None,
        },
        conflict_policy: conflict_policy(spec.conflict_policy),
        advertisements: spec
            .advertisements
            .iter()
            .map(|name| AdvertisementName::from(name.as_str()))
            .collect(),
        services: spec
            .services
            .iter()
            .map(|service| ServiceRef {
                key: ServiceKey::new(service.namespace.as_str(), service.name.as_str()),
                uid: Uid::from(service.uid.as_str()),
            })
            .collect(),
        segments: spec
            .segments
            .iter()
            .enumerate()
            .map(|(place, object)| segment(place, object))
            .collect::<Result<_, _>>()?,
    })
}

fn segment(place: usize, object: &PlannedSegment) -> Result<VipSegment, InvalidVirtualIp> {
    Ok(VipSegment {
        name: SegmentName::from(object.name.as_str()),
        candidates: object
            .candidates
            .iter()
            .map(|candidate| {
                let node = NodeName::from(candidate.node.as_str());
                match u64::try_from(candidate.incarnation) {
                    Ok(incarnation) => Ok(Candidate {
                        node,
                        incarnation: Incarnation(incarnation),
                    }),
                    Err(_negative) => Err(InvalidVirtualIp::Incarnation {
                        place,
                        node,
                        incarnation: candidate.incarnation,
                    }),
                }
            })
            .collect::<Result<_, _>>()?,
    })
}

/// The way back: the spec as the controller writes it. The object is to be named
/// [`VirtualIp::object_name`].
///
/// Numbers and times beyond what the API can hold become the largest it can.
pub fn virtual_ip_spec(vip: &VirtualIp) -> VirtualIPSpec {
    let (phase, until) = match vip.phase {
        Phase::Probing => (VipPhase::Probing, None),
        Phase::Active => (VipPhase::Active, None),
        Phase::Resting { until } => (VipPhase::Resting, Some(time(until))),
    };
    VirtualIPSpec {
        address: vip.address.to_string(),
        pool: vip.pool.to_string(),
        epoch: number(vip.epoch.0),
        phase,
        until,
        announce: match vip.announce {
            Announce::All => Announcers::All,
            Announce::Listed => Announcers::Listed,
            Announce::None => Announcers::None,
        },
        conflict_policy: match vip.conflict_policy {
            ConflictPolicy::Defend => ApiConflictPolicy::Defend,
            ConflictPolicy::Yield => ApiConflictPolicy::Yield,
        },
        advertisements: vip.advertisements.iter().map(ToString::to_string).collect(),
        services: vip
            .services
            .iter()
            .map(|service| ServiceReference {
                namespace: service.key.namespace.to_string(),
                name: service.key.name.to_string(),
                uid: service.uid.to_string(),
            })
            .collect(),
        segments: vip
            .segments
            .iter()
            .map(|segment| PlannedSegment {
                name: segment.name.to_string(),
                candidates: segment
                    .candidates
                    .iter()
                    .map(|candidate| ApiCandidate {
                        node: candidate.node.to_string(),
                        incarnation: number(candidate.incarnation.0),
                    })
                    .collect(),
            })
            .collect(),
    }
}

fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn time(seconds: i64) -> Time {
    Time(Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX))
}

#[cfg(test)]
mod tests;
