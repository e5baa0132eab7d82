//! Services.

mod request;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use herald_api::annotations;
use herald_model::{
    Family, IpFamilyPolicy, PoolName, Protocol, Service, ServiceKey, ServicePort, SessionAffinity,
    TrafficPolicy, Uid,
};
use ipnet::{IpNet, Ipv4Net};
use k8s_openapi::api::core::v1::{Service as ApiService, ServicePort as ApiPort, ServiceSpec};

use crate::ServiceFlags;
use crate::meta;

pub use request::deprecated_annotations;

/// The key of a Service.
pub fn service_key(object: &ApiService) -> ServiceKey {
    ServiceKey::new(
        object.metadata.namespace.as_deref().unwrap_or_default(),
        meta::name(&object.metadata),
    )
}

/// Why a Service is not ours.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotOurs {
    /// It is of another type.
    #[error("it is of type {type_}, not LoadBalancer")]
    Type {
        /// Its type.
        type_: String,
    },
    /// It is of a class that somebody else serves.
    #[error("{}", Foreign { class: class.as_deref(), served })]
    Class {
        /// Its class; `None`: it has none.
        class: Option<String>,
        /// The classes that we serve; the empty one stands for none.
        served: Vec<String>,
    },
}

struct Foreign<'a> {
    class: Option<&'a str>,
    served: &'a [String],
}

impl fmt::Display for Foreign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.class {
            Some(class) => write!(f, "its loadBalancerClass is {class}")?,
            None => f.write_str("it has no loadBalancerClass")?,
        }
        let named = |class: &String| match class.as_str() {
            "" => "no class".to_owned(),
            class => class.to_owned(),
        };
        let served: Vec<String> = self.served.iter().map(named).collect();
        write!(f, ", and Herald serves {}", served.join(" and "))
    }
}

/// Why the Service that the object describes is not ours; `None`: it is.
pub fn not_ours(object: &ApiService, flags: &ServiceFlags) -> Option<NotOurs> {
    let spec = object.spec.as_ref();
    let type_ = spec.and_then(|spec| spec.type_.as_deref());
    if type_ != Some("LoadBalancer") {
        // What the API server fills in.
        let type_ = type_.unwrap_or("ClusterIP").to_owned();
        return Some(NotOurs::Type { type_ });
    }
    let class = spec.and_then(|spec| spec.load_balancer_class.as_deref());
    (!flags.serves(class)).then(|| NotOurs::Class {
        class: class.map(str::to_owned),
        served: flags.load_balancer_classes.clone(),
    })
}

/// The Service that the object describes; `None` if it is [not ours](not_ours).
pub fn service(object: &ApiService, flags: &ServiceFlags) -> Option<Service> {
    if not_ours(object, flags).is_some() {
        return None;
    }
    let spec = object.spec.as_ref()?;
    let meta = &object.metadata;
    let traffic_policy = match spec.external_traffic_policy.as_deref() {
        Some("Local") => TrafficPolicy::Local,
        _ => TrafficPolicy::Cluster,
    };
    let asked = request::read(meta, spec);
    let (source_ranges, refused_range) = source_ranges(spec);
    let mut request = asked.request;
    request.invalid = request.invalid.or_else(|| refused_range.map(Into::into));
    Some(Service {
        key: service_key(object),
        uid: Uid::from(meta.uid.as_deref().unwrap_or_default()),
        created: meta::created(meta),
        labels: meta.labels.clone().unwrap_or_default(),
        families: families(spec),
        ip_family_policy: match spec.ip_family_policy.as_deref() {
            Some("PreferDualStack") => IpFamilyPolicy::PreferDualStack,
            Some("RequireDualStack") => IpFamilyPolicy::RequireDualStack,
            _ => IpFamilyPolicy::SingleStack,
        },
        request,
        sharing_key: asked.sharing_key,
        scope: asked.scope,
        ports: spec.ports.iter().flatten().filter_map(port).collect(),
        traffic_policy,
        health_check_node_port: (traffic_policy == TrafficPolicy::Local)
            .then(|| spec.health_check_node_port.and_then(port_number))
            .flatten(),
        affinity: affinity(spec),
        source_ranges,
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        selector: spec.selector.clone().unwrap_or_default(),
        forwarding: asked.forwarding,
        ingress: ingress(object),
        allocated_from: meta::annotation(meta, annotations::ALLOCATED_FROM).map(PoolName::from),
        deleting: meta.deletion_timestamp.is_some(),
    })
}

/// The families that the API server gave it, else those of its cluster addresses.
fn families(spec: &ServiceSpec) -> Vec<Family> {
    let given: Vec<Family> = spec
        .ip_families
        .iter()
        .flatten()
        .filter_map(|family| match family.as_str() {
            "IPv4" => Some(Family::V4),
            "IPv6" => Some(Family::V6),
            _ => None,
        })
        .collect();
    if given.is_empty() {
        spec.cluster_ips
            .iter()
            .flatten()
            .filter_map(|address| address.parse().ok())
            .map(Family::of)
            .collect()
    } else {
        given
    }
}

/// A port number; 0 stands for none.
pub(crate) fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|&port| port != 0)
}

/// A protocol by its name in the API; `None`: one that nobody knows.
pub(crate) fn protocol(name: Option<&str>) -> Option<Protocol> {
    match name {
        None | Some("TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

fn port(object: &ApiPort) -> Option<ServicePort> {
    Some(ServicePort {
        name: object.name.as_deref().unwrap_or_default().into(),
        protocol: protocol(object.protocol.as_deref())?,
        port: port_number(object.port)?,
        node_port: object.node_port.and_then(port_number),
    })
}

fn affinity(spec: &ServiceSpec) -> SessionAffinity {
    /// What the API server fills in.
    const DEFAULT_SECONDS: i32 = 10_800;
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return SessionAffinity::None;
    }
    let seconds = spec
        .session_affinity_config
        .as_ref()
        .and_then(|config| config.client_ip.as_ref()?.timeout_seconds)
        .unwrap_or(DEFAULT_SECONDS);
    SessionAffinity::ClientIp(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
}

/// The source ranges, and a sentence about the first that cannot be understood.
///
/// Such texts are left out. If nothing remains nobody is let in, as the empty list would let
/// everybody in.
fn source_ranges(spec: &ServiceSpec) -> (Vec<IpNet>, Option<String>) {
    let nobody = IpNet::V4(Ipv4Net::from(std::net::Ipv4Addr::UNSPECIFIED));
    let texts = spec
        .load_balancer_source_ranges
        .as_deref()
        .unwrap_or_default();
    let mut refused = None;
    let mut ranges: Vec<IpNet> = texts
        .iter()
        .filter_map(|text| {
            let range = text.trim().parse::<IpNet>().ok();
            if range.is_none() && refused.is_none() {
                refused = Some(format!(
                    "spec.loadBalancerSourceRanges has {text:?}; expected a CIDR such as 192.0.2.0/24"
                ));
            }
            range.map(|range| range.trunc())
        })
        .collect();
    if ranges.is_empty() && !texts.is_empty() {
        ranges.push(nobody);
    }
    ranges.sort();
    ranges.dedup();
    (ranges, refused)
}

fn ingress(object: &ApiService) -> Vec<IpAddr> {
    object
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref())
        .into_iter()
        .flatten()
        .filter_map(|ingress| ingress.ip.as_deref()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests;
