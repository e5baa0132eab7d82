//! What to do about it.

use herald_controller_core::{Obstacle, Refusal};
use herald_model::Scope;

/// What to do about a refusal.
pub(super) fn of_refusal(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NoClusterAddress => {
            "wait: Kubernetes gives it one; a headless Service (clusterIP: None) gets no address"
                .to_owned()
        }
        Refusal::Invalid { .. } => {
            "correct the annotation or field; the Service keeps what it has until then".to_owned()
        }
        Refusal::FamilyMismatch { .. } => {
            "ask for one address of each of the Service's families, or change spec.ipFamilies"
                .to_owned()
        }
        Refusal::OutsidePools { address } => {
            format!("add {address} to an IPPool, or ask for an address of one")
        }
        Refusal::TwoPools { .. } => "ask for addresses of one pool".to_owned(),
        Refusal::PoolMismatch { pool, .. } => {
            format!("ask for pool {pool}, or for no pool, or for another address")
        }
        Refusal::UnknownPool { pool } => {
            format!("create IPPool {pool}, or correct annotation heraldlb.io/pool")
        }
        Refusal::NoPool => "create an IPPool: docs/pools.md has one to copy".to_owned(),
        Refusal::NotAllowed { pool, .. } => {
            format!("widen spec.allowed of IPPool {pool}, or label the Service or its namespace")
        }
        Refusal::WrongScope { asked, .. } => match asked {
            Scope::Internal => {
                "create an IPPool with scope Internal, or do not ask for an internal address"
                    .to_owned()
            }
            Scope::External => {
                "annotate the Service with heraldlb.io/scope: internal, or use a pool with scope External"
                    .to_owned()
            }
        },
        Refusal::Avoided { pool, .. } => {
            format!("ask for another address, or set avoidBuggyIPs of IPPool {pool} to false")
        }
        Refusal::Reserved { .. } => {
            "ask for another address, and take this one out of the pool".to_owned()
        }
        Refusal::Barred { .. } => {
            "take the cluster's own ranges out of the pool, and ask for another address".to_owned()
        }
        Refusal::Taken {
            holder: Some(holder),
            ..
        } => format!(
            "ask for another address, or give this Service and {holder} the same heraldlb.io/sharing-key and no port in common"
        ),
        Refusal::Taken { holder: None, .. } => {
            "wait until it is free, or ask for another address".to_owned()
        }
        Refusal::Conflict { .. } => {
            "find the machine that uses the address, or ask for another one".to_owned()
        }
        Refusal::Exhausted { pool, .. } => format!(
            "add addresses to IPPool {pool}, or delete Services that hold some: kubectl herald explain pool {pool}"
        ),
        Refusal::NoFamily { pool, family } => format!(
            "add {family} addresses to IPPool {pool}, or change the Service's ipFamilies or ipFamilyPolicy"
        ),
        Refusal::OnlyOnRequest { pool } => {
            format!("annotate the Service with heraldlb.io/pool: {pool}")
        }
        Refusal::NoneFits { reasons } => {
            let nearest = reasons
                .iter()
                .find(|reason| !matches!(reason, Refusal::NotAllowed { .. } | Refusal::WrongScope { .. }))
                .or_else(|| reasons.first());
            nearest.map_or_else(|| "create an IPPool".to_owned(), of_refusal)
        }
    }
}

/// What to do so that some node may announce, given what speaks against the one that is nearest to it.
pub(super) fn of_obstacle(obstacle: &Obstacle) -> String {
    match obstacle {
        Obstacle::NoNode | Obstacle::NoSpeaker | Obstacle::SpeakerNotReady => {
            "look at the speakers: kubectl get pods -n herald-system -l app.kubernetes.io/component=speaker -o wide"
        }
        Obstacle::NoSegment => {
            "give the node an interface with an address, or look at the chart's speaker.excludeInterfaces"
        }
        Obstacle::Excluded => {
            "remove the node label node.kubernetes.io/exclude-from-external-load-balancers, or set the chart's ignoreExcludeLabel"
        }
        Obstacle::OutOfService => {
            "remove the taint node.kubernetes.io/out-of-service once the node is well"
        }
        Obstacle::SpeakerStopping => {
            "wait for the speaker's successor, or set spec.retire of its Speaker object to false"
        }
        Obstacle::NetworkUnavailable => "look at the CNI plugin of the node",
        Obstacle::NoCarrier { .. } => "look at the node's cable or switch port",
        Obstacle::NoAdvertisement => {
            "create an L2Advertisement that selects the pool and the Service, or set the pool's advertisement to Default"
        }
        Obstacle::NodeNotSelected => {
            "widen nodeSelectors of the L2Advertisement, or label a node: docs/l2-advertisements.md"
        }
        Obstacle::InterfaceNotSelected => {
            "correct interfaces of the L2Advertisement: kubectl herald explain node NODE lists those there are"
        }
        Obstacle::NoLocalEndpoint => {
            "run a ready pod, or use externalTrafficPolicy Cluster or forwarding dsr"
        }
        Obstacle::NodeNotReady => "look at the node: kubectl describe node",
        Obstacle::Departs { .. } => "uncordon a node",
    }
    .to_owned()
}
