//! Services of type `LoadBalancer`, as far as Herald looks at them.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::{Family, Labels, PoolName, Scope, ServiceKey, Uid};

/// A Service that Herald serves: type `LoadBalancer` and of one of our classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub key: ServiceKey,
    /// The object's uid.
    pub uid: Uid,
    /// When it was created, seconds since 1970; pending Services are served in this order.
    pub created: i64,
    /// Its labels.
    pub labels: Labels,
    /// The families of its cluster addresses, the primary one first; empty until it has any.
    pub families: Vec<Family>,
    /// What it says of one or two families.
    pub ip_family_policy: IpFamilyPolicy,
    /// The addresses it asks for, or why what it asks for makes no sense.
    pub request: Request,
    /// Services with the same key may share an address; `None`: never.
    pub sharing_key: Option<Arc<str>>,
    /// The scope it asks for.
    pub scope: Scope,
    /// Its ports.
    pub ports: Vec<ServicePort>,
    /// `externalTrafficPolicy`.
    pub traffic_policy: TrafficPolicy,
    /// `healthCheckNodePort`, under [`TrafficPolicy::Local`].
    pub health_check_node_port: Option<u16>,
    /// `sessionAffinity`.
    pub affinity: SessionAffinity,
    /// `loadBalancerSourceRanges`; empty: everybody.
    pub source_ranges: Vec<IpNet>,
    /// `publishNotReadyAddresses`.
    pub publish_not_ready: bool,
    /// The pod selector, in a form that is equal for equal selectors.
    pub selector: Labels,
    /// How its traffic is to be forwarded, from its annotation.
    pub forwarding: ForwardingMode,
    /// The addresses in its status.
    pub ingress: Vec<IpAddr>,
    /// Annotation `heraldlb.io/allocated-from`, as it stands on the object.
    pub allocated_from: Option<PoolName>,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// kube-proxy leaves Services with this label to the program it names (KEP-2447).
pub const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

impl Service {
    /// The program that does kube-proxy's work for it, if that is another one.
    pub fn proxy_name(&self) -> Option<&str> {
        self.labels.get(PROXY_NAME).map(String::as_str)
    }
}

/// What a Service asks of the allocator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// Only from this pool.
    pub pool: Option<PoolName>,
    /// Exactly these addresses, one per family; empty: any.
    pub addresses: Vec<IpAddr>,
    /// Why the request cannot be understood; such a Service keeps what it has.
    pub invalid: Option<Arc<str>>,
}

/// `ipFamilyPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IpFamilyPolicy {
    /// One family.
    #[default]
    SingleStack,
    /// Two if possible.
    PreferDualStack,
    /// Two, or none.
    RequireDualStack,
}

/// `externalTrafficPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TrafficPolicy {
    /// Any node takes it, to any pod.
    #[default]
    Cluster,
    /// Only nodes with a pod take it, to their own pods.
    Local,
}

/// `sessionAffinity`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SessionAffinity {
    /// Each connection on its own.
    #[default]
    None,
    /// All connections of a client to one pod, for as long as it was seen within this time.
    ClientIp(Duration),
}

/// How a Service's traffic reaches its nodes: annotation `heraldlb.io/forwarding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ForwardingMode {
    /// The best mode the Service and the nodes allow.
    #[default]
    Auto,
    /// Straight to a pod.
    Pod,
    /// By MAC address to a node, which answers the client itself.
    Dsr,
    /// To a node's `NodePort`, with the VIP as source.
    NodePort,
    /// Not by Herald: kube-proxy on the announcing node takes it.
    Off,
}

impl ForwardingMode {
    /// The annotation's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Pod => "pod",
            Self::Dsr => "dsr",
            Self::NodePort => "nodeport",
            Self::Off => "off",
        }
    }
}

impl fmt::Display for ForwardingMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServicePort {
    /// Its name, which endpoints know it by; empty if it is the only one and has none.
    pub name: Arc<str>,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port on the VIP.
    pub port: u16,
    /// The port on every node; `None` if the Service has none.
    pub node_port: Option<u16>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// The number in the IP header.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

impl Service {
    /// Its ports without what does not matter to sharing: two Services may share an address only
    /// if these sets have nothing in common.
    pub fn port_set(&self) -> BTreeSet<(Protocol, u16)> {
        self.ports
            .iter()
            .map(|port| (port.protocol, port.port))
            .collect()
    }
}
