//! Which ports share a table.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use herald_model::{Family, Instant, NodeName, Protocol, ServiceKey};

use super::Compiler;
use crate::layout::{Direct, PortKey};
use crate::{DesiredService, Forwarding, Refused, Spread, Targets};

/// What is in the slots of a table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Nodes(Spread),
    /// Nodes that give flows to pods of theirs, and which node had each slot before.
    NodesOfPods,
    /// Pods of our node.
    Pods,
}

/// The name of what takes slots.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TargetName {
    Node(NodeName),
    Pod(SocketAddr),
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => name.fmt(f),
            Self::Pod(address) => address.fmt(f),
        }
    }
}

/// Weights and numbers of targets.
pub(super) type Weights = BTreeMap<TargetName, (u32, u16)>;

/// The targets of one table: Services with equal ones share it, but for those under `Cluster` only the
/// ports and families of one Service.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct GroupKey<'a> {
    pub(super) kind: Kind,
    owner: Option<&'a ServiceKey>,
    pub(super) targets: Weights,
}

/// The groups so far, and which number each has.
#[derive(Default)]
struct Groups<'a> {
    numbers: BTreeMap<GroupKey<'a>, usize>,
    /// Thousands of Services share one list of targets, which is looked at once.
    seen: BTreeMap<(*const Targets, Family, Kind, Option<&'a ServiceKey>), Option<usize>>,
}

impl<'a> Groups<'a> {
    fn number(&mut self, key: GroupKey<'a>) -> usize {
        let next = self.numbers.len();
        *self.numbers.entry(key).or_insert(next)
    }

    fn in_order(self) -> Vec<GroupKey<'a>> {
        let mut groups: Vec<(usize, GroupKey<'a>)> = self
            .numbers
            .into_iter()
            .map(|(key, number)| (number, key))
            .collect();
        groups.sort_by_key(|&(number, _)| number);
        groups.into_iter().map(|(_, key)| key).collect()
    }
}

/// One Service port that goes to nodes, and which group's table it uses.
pub(super) struct Member<'a> {
    pub(super) key: PortKey,
    pub(super) service: &'a DesiredService,
    /// 0: none.
    pub(super) node_port: u16,
    pub(super) direct: Option<Direct>,
    pub(super) group: usize,
    /// The group of our own pods, if there are any.
    pub(super) pods: Option<usize>,
}

impl<'a> Compiler<'a> {
    /// Sorts the ports into groups that share a table, and those that need none.
    pub(super) fn group(
        &mut self,
        wanted: &BTreeMap<PortKey, &'a DesiredService>,
    ) -> (
        Vec<Member<'a>>,
        Vec<GroupKey<'a>>,
        Vec<(PortKey, &'a DesiredService)>,
    ) {
        let mut members = Vec::new();
        let mut off = Vec::new();
        let mut groups = Groups::default();
        for (&key, &service) in wanted {
            if self.crowded.contains(&service.service) {
                off.push((key, service));
                continue;
            }
            let (node_port, targets, direct) = match &service.forwarding {
                Forwarding::NodePort { node_port, targets } => (*node_port, targets, None),
                Forwarding::Dsr {
                    targets,
                    by_address,
                    node_port,
                } => {
                    let direct = Direct {
                        by_address: *by_address,
                        has_flows: false,
                        to_pods_since: None,
                    };
                    (node_port.unwrap_or(0), targets, Some(direct))
                }
                Forwarding::Pod {
                    targets,
                    by_address,
                    ..
                } => {
                    let direct = Direct {
                        by_address: *by_address,
                        has_flows: false,
                        to_pods_since: Some(self.to_pods_since(key)),
                    };
                    (0, targets, Some(direct))
                }
                Forwarding::Off => {
                    off.push((key, service));
                    continue;
                }
            };
            let rewrites = direct.is_none_or(|direct| direct.to_pods_since.is_some());
            if service.protocol == Protocol::Sctp && rewrites {
                self.out.refused.push(Refused::Protocol {
                    service: service.service.clone(),
                    protocol: service.protocol,
                });
                off.push((key, service));
                continue;
            }
            let kind = match direct {
                Some(direct) if direct.to_pods_since.is_some() => Kind::NodesOfPods,
                _ => Kind::Nodes(targets.spread),
            };
            let group = self.node_group(&mut groups, kind, targets, key, service);
            match group {
                Some(group) => members.push(Member {
                    key,
                    service,
                    node_port,
                    direct,
                    group,
                    pods: self.pod_group(&mut groups, service),
                }),
                None => off.push((key, service)),
            }
        }
        (members, groups.in_order(), off)
    }

    /// Since when a port that is to be in mode `pod` is. In maps that are filled for the first time, for ever:
    /// nothing tells what was there before.
    fn to_pods_since(&self, key: PortKey) -> Instant {
        let before = self.ports.get(&key).and_then(|entry| entry.route?.direct);
        let new = self.config.map_or(Instant::ORIGIN, |_| self.now);
        before
            .and_then(|direct| direct.to_pods_since)
            .unwrap_or(new)
    }

    /// The group of a port's nodes; `None` if none of them takes anything.
    fn node_group(
        &self,
        groups: &mut Groups<'a>,
        kind: Kind,
        targets: &Arc<Targets>,
        key: PortKey,
        service: &'a DesiredService,
    ) -> Option<usize> {
        let family = Family::of(key.address);
        let owner = (kind != Kind::Nodes(Spread::Cluster)).then_some(&service.service);
        let seen = (Arc::as_ptr(targets), family, kind, owner);
        if let Some(group) = groups.seen.get(&seen) {
            return *group;
        }
        let usable = self.usable(targets, family, kind);
        let takes_any = usable.values().any(|(weight, _)| *weight > 0);
        let group = takes_any.then(|| {
            groups.number(GroupKey {
                kind,
                owner,
                targets: usable,
            })
        });
        groups.seen.insert(seen, group);
        group
    }

    /// The group of our own pods that take new flows of a port.
    fn pod_group(&self, groups: &mut Groups<'a>, service: &'a DesiredService) -> Option<usize> {
        let Forwarding::Pod { pods, .. } = &service.forwarding else {
            return None;
        };
        let id = *self.out.service_ids.get(&service.service)?;
        let targets: Weights = pods
            .iter()
            .filter(|pod| pod.takes_new)
            .filter_map(|pod| {
                let number = *self.pod_numbers.get(&(id, pod.address))?;
                Some((TargetName::Pod(pod.address), (1, number)))
            })
            .collect();
        (!targets.is_empty()).then(|| {
            groups.number(GroupKey {
                kind: Kind::Pods,
                owner: Some(&service.service),
                targets,
            })
        })
    }

    /// The nodes of a list that can be targets. One that gives flows to pods and takes no new ones has a
    /// weight of zero.
    fn usable(&self, targets: &Targets, family: Family, kind: Kind) -> Weights {
        targets
            .weights
            .iter()
            .filter_map(|(name, &weight)| {
                let node = self.desired.nodes.get(name)?;
                let has_address = match family {
                    Family::V4 => node.ipv4.is_some(),
                    Family::V6 => node.ipv6.is_some(),
                };
                let number = *self.node_numbers.get(name)?;
                // A frame needs no address of the node, only whoever answers it there does.
                (kind == Kind::NodesOfPods || weight > 0 && has_address)
                    .then(|| (TargetName::Node(name.clone()), (weight, number)))
            })
            .collect()
    }
}
