//! Each watched kind, and how its objects become inputs.

use std::net::IpAddr;
use std::sync::Arc;

use herald_api::{IPPool, L2Advertisement, Speaker, VirtualIP, annotations, conditions};
use herald_config::ServiceFlags;
use herald_controller_core::{
    Condition, Holding, Identity, Input, Lan, ObservedAdvertisement, ObservedPool, ObservedService,
    ObservedVip, PoolStatus, Slice, SpeakerPod, TextCounts, UserObject, Version,
};
use herald_model::{
    AdvertisementName, Epoch, MOVE_TO, NamespaceName, NodeName, PoolName, ServiceKey, Uid,
    VirtualIp,
};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition as ApiCondition, ObjectMeta};

use crate::watch::Kind;

fn named(meta: &ObjectMeta) -> Option<Arc<str>> {
    meta.name.as_deref().map(Arc::from)
}

fn uid(meta: &ObjectMeta) -> Uid {
    Uid::from(meta.uid.as_deref().unwrap_or_default())
}

/// The version of an object.
pub fn version(meta: &ObjectMeta) -> Version {
    Version::new(meta.resource_version.as_deref().unwrap_or_default())
}

fn identity(meta: &ObjectMeta) -> Identity {
    Identity {
        uid: uid(meta),
        version: version(meta),
    }
}

fn condition(all: &[ApiCondition], type_: &str) -> Option<Condition> {
    let found = all.iter().find(|condition| condition.type_ == type_)?;
    Some(Condition {
        status: found.status == conditions::TRUE,
        reason: found.reason.as_str().into(),
        message: found.message.as_str().into(),
        since: found.last_transition_time.0.as_second(),
    })
}

/// Services, ours and others.
pub struct Services(
    /// Which are ours.
    pub ServiceFlags,
);

impl Kind for Services {
    type Object = Service;
    type Key = (ServiceKey, Uid);
    const NAME: &'static str = "Service";

    fn key(meta: &ObjectMeta) -> Option<Self::Key> {
        let key = ServiceKey::new(meta.namespace.as_deref()?, meta.name.as_deref()?);
        Some((key, uid(meta)))
    }

    fn applied(&self, object: Service) -> Option<Input> {
        let ingress = ingress(&object);
        let status = object.status.as_ref();
        let all = status
            .and_then(|status| status.conditions.as_deref())
            .unwrap_or_default();
        let annotations = object.metadata.annotations.as_ref();
        let service = herald_config::service(&object, &self.0);
        let deprecated = if service.is_some() {
            herald_config::deprecated_annotations(&object)
        } else {
            Vec::new()
        };
        Some(Input::ServiceApplied(Box::new(ObservedService {
            key: herald_config::service_key(&object),
            identity: identity(&object.metadata),
            ingress,
            allocated: condition(all, conditions::ALLOCATED),
            announced: condition(all, conditions::SERVICE_ANNOUNCED),
            allocated_from: annotations
                .and_then(|annotations| annotations.get(annotations::ALLOCATED_FROM))
                .map(|pool| PoolName::from(pool.as_str())),
            deprecated,
            service: service.map(Arc::new),
        })))
    }

    fn deleted(&self, (key, uid): Self::Key) -> Option<Input> {
        Some(Input::ServiceDeleted { key, uid })
    }
}

/// The addresses in a Service's status.
pub fn ingress(object: &Service) -> Vec<IpAddr> {
    let status = object.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    balancer
        .and_then(|balancer| balancer.ingress.as_ref())
        .into_iter()
        .flatten()
        .filter_map(|ingress| ingress.ip.as_ref()?.parse().ok())
        .collect()
}

/// Pools.
pub struct Pools;

impl Pools {
    fn invalid(meta: &ObjectMeta, message: &str, ready: Option<Condition>) -> Option<Input> {
        Some(Input::ObjectInvalid {
            object: UserObject::Pool(PoolName::new(named(meta)?)),
            uid: uid(meta),
            message: message.into(),
            ready,
        })
    }
}

impl Kind for Pools {
    type Object = IPPool;
    type Key = Arc<str>;
    const NAME: &'static str = "IPPool";

    fn key(meta: &ObjectMeta) -> Option<Self::Key> {
        named(meta)
    }

    fn applied(&self, object: IPPool) -> Option<Input> {
        let status = object.status.clone().unwrap_or_default();
        let ready = condition(&status.conditions, conditions::READY);
        match herald_config::pool(&object) {
            Ok(pool) => {
                let counts = |counts: herald_api::AddressCounts| TextCounts {
                    total: counts.total,
                    assigned: counts.assigned,
                    available: counts.available,
                };
                Some(Input::PoolApplied(Box::new(ObservedPool {
                    uid: uid(&object.metadata),
                    labels: object.metadata.labels.unwrap_or_default(),
                    pool,
                    status: PoolStatus {
                        v4: status.ipv4.map(counts),
                        v6: status.ipv6.map(counts),
                        ready,
                    },
                })))
            }
            Err(error) => {
                let message = herald_config::sentence(&error);
                tracing::warn!(
                    pool = object.metadata.name,
                    error = message,
                    "pool is invalid"
                );
                Self::invalid(&object.metadata, &message, ready)
            }
        }
    }

    fn undecodable(&self, meta: &ObjectMeta, error: &str) -> Option<Input> {
        Self::invalid(meta, error, None)
    }

    fn deleted(&self, key: Self::Key) -> Option<Input> {
        Some(Input::PoolDeleted(PoolName::new(key)))
    }
}

/// Advertisements.
pub struct Advertisements;

impl Advertisements {
    fn invalid(meta: &ObjectMeta, message: &str, ready: Option<Condition>) -> Option<Input> {
        Some(Input::ObjectInvalid {
            object: UserObject::Advertisement(AdvertisementName::new(named(meta)?)),
            uid: uid(meta),
            message: message.into(),
            ready,
        })
    }
}

impl Kind for Advertisements {
    type Object = L2Advertisement;
    type Key = Arc<str>;
    const NAME: &'static str = "L2Advertisement";

    fn key(meta: &ObjectMeta) -> Option<Self::Key> {
        named(meta)
    }

    fn applied(&self, object: L2Advertisement) -> Option<Input> {
        let status = object.status.as_ref();
        let ready = status.and_then(|s| condition(&s.conditions, conditions::READY));
        match herald_config::advertisement(&object) {
            Ok(advertisement) => Some(Input::AdvertisementApplied(Box::new(
                ObservedAdvertisement {
                    uid: uid(&object.metadata),
                    advertisement,
                    ready,
                },
            ))),
            Err(error) => {
                let message = herald_config::sentence(&error);
                let name = object.metadata.name.as_deref();
                tracing::warn!(
                    advertisement = name,
                    error = message,
                    "advertisement is invalid"
                );
                Self::invalid(&object.metadata, &message, ready)
            }
        }
    }

    fn undecodable(&self, meta: &ObjectMeta, error: &str) -> Option<Input> {
        Self::invalid(meta, error, None)
    }

    fn deleted(&self, key: Self::Key) -> Option<Input> {
        Some(Input::AdvertisementDeleted(AdvertisementName::new(key)))
    }
}

/// Claims.
pub struct Vips;

impl Kind for Vips {
    type Object = VirtualIP;
    type Key = (IpAddr, Uid);
    const NAME: &'static str = "VirtualIP";

    fn key(meta: &ObjectMeta) -> Option<Self::Key> {
        let address = VirtualIp::address_of_object(meta.name.as_deref()?)?;
        Some((address, uid(meta)))
    }

    fn applied(&self, object: VirtualIP) -> Option<Input> {
        let (address, _) = Self::key(&object.metadata)?;
        match vip(&object) {
            Ok(vip) => Some(Input::VipApplied(Box::new(vip))),
            Err(error) => {
                let error = herald_config::sentence(&error);
                tracing::warn!(vip = %address, error, "claim cannot be read: address is not given");
                Some(Input::VipInvalid { address })
            }
        }
    }

    fn undecodable(&self, meta: &ObjectMeta, _error: &str) -> Option<Input> {
        let (address, _) = Self::key(meta)?;
        Some(Input::VipInvalid { address })
    }

    fn deleted(&self, (address, uid): Self::Key) -> Option<Input> {
        Some(Input::VipDeleted { address, uid })
    }
}

/// A claim as the core sees it.
///
/// # Errors
///
/// What in its spec cannot be.
pub fn vip(object: &VirtualIP) -> Result<ObservedVip, herald_config::InvalidVirtualIp> {
    let segments = object
        .status
        .as_ref()
        .map(|status| status.segments.as_slice());
    let holdings = segments.unwrap_or_default().iter().filter_map(|segment| {
        Some(Holding {
            segment: segment.name.as_str().into(),
            node: segment.node.as_str().into(),
            interface: segment.interface.as_str().into(),
            mac: segment.mac.parse().ok()?,
            epoch: Epoch(u64::try_from(segment.epoch).ok()?),
            taken_over: segment.reason == conditions::reasons::TAKEN_OVER,
        })
    });
    let status = object.status.as_ref();
    let conflict = status
        .and_then(|status| condition(&status.conditions, conditions::CONFLICT))
        .filter(|conflict| conflict.status);
    let probed = status.map(|status| status.probed.as_slice());
    Ok(ObservedVip {
        identity: identity(&object.metadata),
        vip: herald_config::virtual_ip(object)?,
        holdings: holdings.collect(),
        lan: Lan {
            probed: probed
                .unwrap_or_default()
                .iter()
                .map(|name| name.as_str().into())
                .collect(),
            stranger: conflict.map(|conflict| conflict.message),
        },
        move_to: object
            .metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(MOVE_TO))
            .map(|node| node.as_str().into()),
    })
}

/// Nodes.
pub struct Nodes {
    /// Whether the label that excludes a node from load balancers does not count.
    pub ignore_exclude: bool,
}

impl Kind for Nodes {
    type Object = Node;
    type Key = Arc<str>;
    const NAME: &'static str = "Node";

    fn key(meta: &ObjectMeta) -> Option<Self::Key> {
        named(meta)
    }

    fn applied(&self, object: Node) -> Option<Input> {
        let node = herald_config::node(&object, self.ignore_exclude);
        Some(Input::NodeApplied(Box::new(node)))
    }

    fn deleted(&self, key: Self::Key) -> Option<Input> {
        Some(Input::NodeDeleted(NodeName::new(key)))
    }
}

/// What speakers say of themselves.
pub struct Speakers;

impl Kind for Speakers {
    type Object = Speaker;
    type Key = Arc<str>;
    const NAME: &'static str = "Speaker";

    fn key(meta: &ObjectMeta) -> Option<Self::Key> {
        named(meta)
    }

    fn applied(&self, object: Speaker) -> Option<Input> {
        match herald_config::speaker(&object) {
            Ok(speaker) => Some(Input::SpeakerApplied(Box::new(speaker))),
            Err(error) => {
                let error = herald_config::sentence(&error);
                tracing::warn!(node = object.metadata.name, error, "Speaker cannot be read");
                None
            }
        }
    }

    fn deleted(&self, key: Self::Key) -> Option<Input> {
        Some(Input::SpeakerDeleted(NodeName::new(key)))
    }
}

/// The speakers' Pods.
pub struct SpeakerPods;

impl Kind for SpeakerPods {
    type Object = Pod;
    type Key = Arc<str>;
    const NAME: &'static str = "Pod";

    fn key(meta: &ObjectMeta) -> Option<Self::Key> {
        named(meta)
    }

    fn applied(&self, object: Pod) -> Option<Input> {
        let node = object.spec.as_ref()?.node_name.as_deref()?;
        let conditions = object
            .status
            .as_ref()
            .and_then(|status| status.conditions.as_ref());
        let ready = conditions
            .into_iter()
            .flatten()
            .any(|condition| condition.type_ == "Ready" && condition.status == conditions::TRUE);
        Some(Input::SpeakerPodApplied(SpeakerPod {
            name: named(&object.metadata)?,
            node: NodeName::from(node),
            ready: ready && object.metadata.deletion_timestamp.is_none(),
        }))
    }

    fn deleted(&self, key: Self::Key) -> Option<Input> {
        Some(Input::SpeakerPodDeleted(key))
    }
}

/// Namespaces.
pub struct Namespaces;

impl Kind for Namespaces {
    type Object = Namespace;
    type Key = Arc<str>;
    const NAME: &'static str = "Namespace";

    fn key(meta: &ObjectMeta) -> Option<Self::Key> {
        named(meta)
    }

    fn applied(&self, object: Namespace) -> Option<Input> {
        let name = NamespaceName::new(named(&object.metadata)?);
        Some(Input::NamespaceApplied(
            name,
            object.metadata.labels.unwrap_or_default(),
        ))
    }

    fn deleted(&self, key: Self::Key) -> Option<Input> {
        Some(Input::NamespaceDeleted(NamespaceName::new(key)))
    }
}

/// Ranges of cluster addresses.
pub struct ServiceRanges;

impl Kind for ServiceRanges {
    type Object = ServiceCIDR;
    type Key = Arc<str>;
    const NAME: &'static str = "ServiceCIDR";
    // Since Kubernetes 1.33.
    const WHERE_SERVED: bool = true;

    fn key(meta: &ObjectMeta) -> Option<Self::Key> {
        named(meta)
    }

    fn applied(&self, object: ServiceCIDR) -> Option<Input> {
        let name = named(&object.metadata)?;
        let ranges = herald_config::service_ranges(&object);
        Some(Input::ServiceRangesApplied(name, ranges))
    }

    fn deleted(&self, key: Self::Key) -> Option<Input> {
        Some(Input::ServiceRangesDeleted(key))
    }
}

/// Slices of endpoints.
pub struct Slices;

impl Kind for Slices {
    type Object = EndpointSlice;
    type Key = (ServiceKey, Arc<str>);
    const NAME: &'static str = "EndpointSlice";

    fn key(meta: &ObjectMeta) -> Option<Self::Key> {
        let service = meta
            .labels
            .as_ref()?
            .get(herald_api::labels::SERVICE_NAME)?;
        let key = ServiceKey::new(meta.namespace.as_deref()?, service.as_str());
        Some((key, named(meta)?))
    }

    fn applied(&self, object: EndpointSlice) -> Option<Input> {
        let (service, name) = Self::key(&object.metadata)?;
        let said = herald_config::endpoints_of_slice(&object);
        let endpoints = herald_config::endpoints(service.clone(), [said.as_slice()]).endpoints;
        Some(Input::SliceApplied(Slice {
            service,
            name,
            endpoints,
        }))
    }

    fn deleted(&self, (service, name): Self::Key) -> Option<Input> {
        Some(Input::SliceDeleted { service, name })
    }
}

#[cfg(test)]
mod tests;
