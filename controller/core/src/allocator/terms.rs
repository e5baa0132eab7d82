//! Who may share an address with whom.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use herald_model::{Labels, Protocol, Service, TrafficPolicy};

/// On which terms a Service holds an address: whom it can share it with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Terms {
    /// Only Services with the same key share; `None`: it shares with nobody.
    pub(super) key: Option<Arc<str>>,
    /// No two sharers have a port in common.
    ports: BTreeSet<(Protocol, u16)>,
    /// Under `Local`, the selector: sharers must then have the same pods. `None` under `Cluster`.
    backends: Option<Labels>,
}

impl Terms {
    /// The terms of a Service as it is now.
    pub fn of(service: &Service) -> Self {
        Self {
            key: service.sharing_key.clone(),
            ports: service.port_set(),
            backends: match service.traffic_policy {
                TrafficPolicy::Cluster => None,
                TrafficPolicy::Local => Some(service.selector.clone()),
            },
        }
    }

    /// The terms of a Service of which nothing is known: it shares with nobody.
    pub fn none() -> Self {
        Self {
            key: None,
            ports: BTreeSet::new(),
            backends: None,
        }
    }

    /// The sharing key; `None`: it shares with nobody.
    pub(crate) const fn key(&self) -> Option<&Arc<str>> {
        self.key.as_ref()
    }

    /// Whether two Services may hold one address.
    pub fn agree(&self, other: &Self) -> bool {
        self.disagreement(other).is_none()
    }

    /// Why two Services may not hold one address; `None`: they may.
    pub fn disagreement(&self, other: &Self) -> Option<Disagreement> {
        let (Some(key), Some(theirs)) = (&self.key, &other.key) else {
            return Some(Disagreement::NoKey {
                ours: self.key.clone(),
                theirs: other.key.clone(),
            });
        };
        if key != theirs {
            return Some(Disagreement::OtherKey {
                ours: Arc::clone(key),
                theirs: Arc::clone(theirs),
            });
        }
        if self.backends != other.backends {
            return Some(Disagreement::OtherPods);
        }
        let mut common = self.ports.intersection(&other.ports);
        let (protocol, port) = *common.next()?;
        Some(Disagreement::SamePort { protocol, port })
    }
}

/// Why two Services may not hold one address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// One of them, or both, have no sharing key.
    #[error("{}", Without { ours: ours.as_deref(), theirs: theirs.as_deref() })]
    NoKey {
        /// The key of the one that asks.
        ours: Option<Arc<str>>,
        /// The key of the other.
        theirs: Option<Arc<str>>,
    },
    /// Their sharing keys differ.
    #[error("its sharing key is {theirs:?}, this Service's is {ours:?}")]
    OtherKey {
        /// The key of the one that asks.
        ours: Arc<str>,
        /// The key of the other.
        theirs: Arc<str>,
    },
    /// Under `Local` traffic goes to the nodes of one set of pods.
    #[error("both must have externalTrafficPolicy Cluster, or both Local with the same selector")]
    OtherPods,
    /// They want the same port.
    #[error("both want port {port}/{protocol}")]
    SamePort {
        /// The transport protocol.
        protocol: Protocol,
        /// The first port that both want.
        port: u16,
    },
}

struct Without<'a> {
    ours: Option<&'a str>,
    theirs: Option<&'a str>,
}

impl fmt::Display for Without<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.ours, self.theirs) {
            (None, Some(theirs)) => {
                write!(f, "its sharing key is {theirs:?}, this Service has none")
            }
            (Some(ours), None) => write!(f, "it has no sharing key, this Service's is {ours:?}"),
            _ => f.write_str("neither has a sharing key"),
        }
    }
}
