//! Builders for tests: `svc("ns/web").port(80).applied()` is the input of a Service.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use herald_model::{
    Advertisement, AdvertisementPolicy, Allowed, ConflictPolicy, Family, ForwardingMode,
    Incarnation, InterfaceName, IpFamilyPolicy, Labels, MacAddress, Node, NodeName, Pool, Protocol,
    Request, Scope, SegmentName, Selector, Service, ServiceKey, ServicePort, SessionAffinity,
    Speaker, SpeakerSegment, TrafficPolicy,
};

use crate::io::Input;
use crate::observed::{
    Identity, ObservedAdvertisement, ObservedPool, ObservedService, PoolStatus, SpeakerPod, Version,
};

/// An address from its text.
///
/// # Panics
///
/// If the text is not an address: the test is wrong.
pub fn ip(text: &str) -> IpAddr {
    text.parse().expect("a test writes addresses that are ones")
}

/// A key from `namespace/name`.
///
/// # Panics
///
/// If there is no slash in it: the test is wrong.
pub fn key(text: &str) -> ServiceKey {
    let (namespace, name) = text.split_once('/').expect("a test writes namespace/name");
    ServiceKey::new(namespace, name)
}

/// Labels from pairs.
pub fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// A Service of one family, with a uid made of its key, that asks for nothing in particular.
pub fn svc(text: &str) -> ServiceBuilder {
    ServiceBuilder {
        observed: ObservedService {
            key: key(text),
            identity: Identity {
                uid: format!("uid-{text}").into(),
                version: Version::new("1"),
            },
            ingress: Vec::new(),
            allocated: None,
            announced: None,
            allocated_from: None,
            deprecated: Vec::new(),
            service: None,
        },
        service: Service {
            key: key(text),
            uid: format!("uid-{text}").into(),
            created: 0,
            labels: Labels::new(),
            families: vec![Family::V4],
            ip_family_policy: IpFamilyPolicy::SingleStack,
            request: Request::default(),
            sharing_key: None,
            scope: Scope::External,
            ports: Vec::new(),
            traffic_policy: TrafficPolicy::Cluster,
            health_check_node_port: None,
            affinity: SessionAffinity::None,
            source_ranges: Vec::new(),
            publish_not_ready: false,
            selector: Labels::new(),
            forwarding: ForwardingMode::Auto,
            ingress: Vec::new(),
            allocated_from: None,
            deleting: false,
        },
    }
}

/// See [`svc`].
#[derive(Clone, Debug)]
pub struct ServiceBuilder {
    observed: ObservedService,
    service: Service,
}

impl ServiceBuilder {
    /// Changes anything that has no method of its own.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Service)) -> Self {
        change(&mut self.service);
        self
    }

    /// Changes anything around the Service that has no method of its own.
    #[must_use]
    pub fn around(mut self, change: impl FnOnce(&mut ObservedService)) -> Self {
        change(&mut self.observed);
        self
    }

    /// Adds a TCP port, with a node port.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.with(|service| {
            service.ports.push(ServicePort {
                name: "".into(),
                protocol: Protocol::Tcp,
                port,
                node_port: Some(30_000 + port % 2_000),
            });
        })
    }

    /// Another uid than the one made of the key.
    #[must_use]
    pub fn uid(mut self, uid: &str) -> Self {
        self.observed.identity.uid = uid.into();
        self.with(|service| service.uid = uid.into())
    }

    /// Its version.
    #[must_use]
    pub fn version(self, version: u64) -> Self {
        self.around(|observed| observed.identity.version = Version::new(version.to_string()))
    }

    /// When it was created, seconds since 1970.
    #[must_use]
    pub fn created(self, created: i64) -> Self {
        self.with(|service| service.created = created)
    }

    /// The addresses it asks for.
    #[must_use]
    pub fn requests(self, addresses: &[&str]) -> Self {
        let addresses = addresses.iter().map(|text| ip(text)).collect();
        self.with(|service| service.request.addresses = addresses)
    }

    /// The pool it asks for.
    #[must_use]
    pub fn from_pool(self, pool: &str) -> Self {
        self.with(|service| service.request.pool = Some(pool.into()))
    }

    /// Its sharing key.
    #[must_use]
    pub fn sharing(self, key: &str) -> Self {
        self.with(|service| service.sharing_key = Some(key.into()))
    }

    /// Its families and its policy.
    #[must_use]
    pub fn families(self, families: &[Family], policy: IpFamilyPolicy) -> Self {
        self.with(|service| {
            service.families = families.to_vec();
            service.ip_family_policy = policy;
        })
    }

    /// The addresses in its status.
    #[must_use]
    pub fn shows(mut self, addresses: &[&str]) -> Self {
        self.observed.ingress = addresses.iter().map(|text| ip(text)).collect();
        self.service.ingress.clone_from(&self.observed.ingress);
        self
    }

    /// The Service itself.
    pub fn service(self) -> Service {
        self.service
    }

    /// The Service as it is observed.
    pub fn observed(mut self) -> ObservedService {
        self.observed.service = Some(Arc::new(self.service));
        self.observed
    }

    /// The input that says it is there.
    pub fn applied(self) -> Input {
        Input::ServiceApplied(Box::new(self.observed()))
    }

    /// The input that says it is there, but not ours.
    pub fn foreign(self) -> Input {
        Input::ServiceApplied(Box::new(self.observed))
    }

    /// The input that says it is gone.
    pub fn deleted(self) -> Input {
        Input::ServiceDeleted {
            key: self.observed.key,
            uid: self.observed.identity.uid,
        }
    }
}

/// A pool without addresses, open to all.
pub fn pool(name: &str) -> PoolBuilder {
    PoolBuilder {
        labels: Labels::new(),
        pool: Pool {
            name: name.into(),
            created: 0,
            ranges: Vec::new(),
            auto_assign: true,
            avoid_buggy_ips: false,
            scope: Scope::External,
            priority: 0,
            allowed: Allowed::default(),
            advertisement: AdvertisementPolicy::Default,
            conflict_probe: false,
            conflict_policy: ConflictPolicy::Defend,
            reuse_delay: Duration::ZERO,
        },
    }
}

/// See [`pool`].
#[derive(Clone, Debug)]
pub struct PoolBuilder {
    labels: Labels,
    pool: Pool,
}

impl PoolBuilder {
    /// Changes anything that has no method of its own.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Pool)) -> Self {
        change(&mut self.pool);
        self
    }

    /// Adds a CIDR or a range.
    ///
    /// # Panics
    ///
    /// If the text is neither: the test is wrong.
    #[must_use]
    pub fn range(self, text: &str) -> Self {
        let range = text.parse().expect("a test writes ranges that are ones");
        self.with(|pool| pool.ranges.push(range))
    }

    /// Its priority.
    #[must_use]
    pub fn priority(self, priority: i32) -> Self {
        self.with(|pool| pool.priority = priority)
    }

    /// When it was created, seconds since 1970.
    #[must_use]
    pub fn created(self, created: i64) -> Self {
        self.with(|pool| pool.created = created)
    }

    /// Limits it to a namespace.
    #[must_use]
    pub fn namespace(self, namespace: &str) -> Self {
        self.with(|pool| {
            pool.allowed.namespaces.insert(namespace.into());
        })
    }

    /// Limits it to Services with a label.
    #[must_use]
    pub fn service_label(self, key: &str, value: &str) -> Self {
        self.with(|pool| {
            let selectors = &mut pool.allowed.service_selectors;
            selectors.push(Selector::label(key, value));
        })
    }

    /// The pool itself.
    pub fn pool(self) -> Pool {
        self.pool
    }

    /// The input that says it is there.
    pub fn applied(self) -> Input {
        Input::PoolApplied(Box::new(ObservedPool {
            uid: format!("uid-{}", self.pool.name).into(),
            labels: self.labels,
            pool: self.pool,
            status: PoolStatus::default(),
        }))
    }

    /// The input that says it is gone.
    pub fn deleted(self) -> Input {
        Input::PoolDeleted(self.pool.name)
    }
}

/// An advertisement of everything, by everybody, everywhere.
pub fn advertisement(name: &str) -> Advertisement {
    Advertisement {
        name: name.into(),
        pools: [].into(),
        pool_selectors: Vec::new(),
        service_selectors: Vec::new(),
        node_selectors: Vec::new(),
        preferred_nodes: Vec::new(),
        interfaces: Vec::new(),
    }
}

/// The input that says an advertisement is there.
pub fn advertised(advertisement: Advertisement) -> Input {
    Input::AdvertisementApplied(Box::new(ObservedAdvertisement {
        uid: format!("uid-{}", advertisement.name).into(),
        advertisement,
        ready: None,
    }))
}

/// A node that is well, labelled with its name under `node`.
pub fn node(name: &str) -> Node {
    Node {
        name: name.into(),
        labels: labels(&[("node", name)]),
        addresses: Vec::new(),
        ready: true,
        network_unavailable: false,
        excluded: false,
        out_of_service: false,
        departure: None,
        pod_ranges: Vec::new(),
    }
}

/// A speaker with `eth0` in the segment `lan`.
pub fn speaker(name: &str) -> Speaker {
    Speaker {
        node: name.into(),
        segments: vec![SpeakerSegment {
            name: SegmentName::from("lan"),
            interface: InterfaceName::from("eth0"),
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            prefixes: Vec::new(),
            gateways: Vec::new(),
            carrier: true,
            incarnation: Incarnation(1),
        }],
        stopping: false,
        ipvs: false,
    }
}

/// A speaker's Pod.
pub fn speaker_pod(node: &str, ready: bool) -> SpeakerPod {
    SpeakerPod {
        name: format!("speaker-{node}").into(),
        node: NodeName::from(node),
        ready,
    }
}

/// The inputs of a node that is well, with its speaker.
pub fn well(name: &str) -> [Input; 3] {
    [
        Input::NodeApplied(Box::new(node(name))),
        Input::SpeakerApplied(Box::new(speaker(name))),
        Input::SpeakerPodApplied(speaker_pod(name, true)),
    ]
}
