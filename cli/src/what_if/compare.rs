//! What differs between two worlds.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use herald_controller_core::{Controller, ObservedVip, Rehearsal, ServiceAccount};
use herald_model::{NodeName, SegmentName, Service, ServiceKey, TrafficPolicy, VirtualIp};
use herald_speaker_core::{Forecast, ForwardingState};

use super::{Flows, Holder, Move, ServiceChange, WhatIf};
use crate::picture::held;
use crate::text::percent;

/// A world, with what follows from it.
pub(super) struct Side {
    pub(super) rehearsal: Rehearsal,
    pub(super) forecast: Forecast,
}

/// Who holds an address, by segment.
type Holders = BTreeMap<SegmentName, Option<NodeName>>;

impl Side {
    const fn controller(&self) -> &Controller {
        self.rehearsal.controller()
    }

    /// Who holds an address in the end.
    fn holders(&self, observed: &ObservedVip) -> Holders {
        let vip = &observed.vip;
        let planned = vip.segments.iter().map(|segment| &segment.name);
        let said = observed.holdings.iter().map(|holding| &holding.segment);
        let names: BTreeSet<&SegmentName> = planned.chain(said).collect();
        let holder = |name: &SegmentName| {
            let holder = self.forecast.holder(vip, name, held(observed, name));
            (name.clone(), holder)
        };
        names.into_iter().map(holder).collect()
    }
}

/// Compares two worlds; `evicted` is a node whose pods end.
pub(super) fn compare(before: &Side, after: &Side, evicted: Option<&NodeName>) -> WhatIf {
    let mut answer = WhatIf {
        services: services(before.controller(), after.controller()),
        ..WhatIf::default()
    };
    for observed in after.controller().vips() {
        let address = observed.vip.address;
        let known = before.controller().vip(address);
        let now = known.map(|known| before.holders(known)).unwrap_or_default();
        for (segment, then) in after.holders(observed) {
            let was = now.get(&segment).cloned().flatten();
            if was != then {
                answer.moves.push(Move {
                    address,
                    services: holders_of(&observed.vip),
                    segment: segment.to_string(),
                    from: was.map(|node| node.to_string()),
                    to: then.as_ref().map(ToString::to_string),
                });
            }
            answer.holders.push(Holder {
                address,
                segment: segment.to_string(),
                node: then.map(|node| node.to_string()),
            });
        }
    }
    let judge = Judge {
        before,
        after,
        evicted,
    };
    for observed in before.controller().vips() {
        for service in before.forecast.holders(&observed.vip) {
            judge.judge(observed, service, &mut answer);
        }
    }
    answer
}

fn holders_of(vip: &VirtualIp) -> Vec<String> {
    vip.services
        .iter()
        .map(|holder| holder.key.to_string())
        .collect()
}

fn services(before: &Controller, after: &Controller) -> Vec<ServiceChange> {
    let keys: BTreeSet<&ServiceKey> = before
        .services()
        .chain(after.services())
        .map(|observed| &observed.key)
        .collect();
    let change = |key: &ServiceKey| {
        let (was, is) = (before.service_account(key), after.service_account(key));
        let target = |account: &Option<ServiceAccount>| {
            account
                .as_ref()
                .map_or_else(Vec::new, |account| account.target.clone())
        };
        let problem = |account: &Option<ServiceAccount>| {
            let account = account.as_ref()?;
            account.problem.clone().or_else(|| account.missing.clone())
        };
        let now = problem(&is);
        if target(&was) == target(&is) && problem(&was) == now {
            return None;
        }
        Some(ServiceChange {
            service: key.to_string(),
            before: target(&was),
            after: target(&is),
            reason: now.as_ref().map(|refusal| refusal.kind().to_owned()),
            message: now.map(|refusal| refusal.to_string()),
        })
    };
    keys.into_iter().filter_map(change).collect()
}

/// Says which flows break.
struct Judge<'a> {
    before: &'a Side,
    after: &'a Side,
    evicted: Option<&'a NodeName>,
}

impl Judge<'_> {
    fn judge(&self, observed: &ObservedVip, service: &Service, answer: &mut WhatIf) {
        let address = observed.vip.address;
        let holder = self.before.holders(observed).into_values().flatten().next();
        let Some(holder) = holder else {
            return; // It has no flows.
        };
        let (share, why) = self.share(observed, service, &holder, &mut answer.notes);
        if share > 0.0 {
            answer.flows.push(Flows {
                service: service.key.to_string(),
                address,
                share,
                why,
            });
        }
    }

    /// The share of the flows of a Service on an address that break, and why.
    fn share(
        &self,
        observed: &ObservedVip,
        service: &Service,
        holder: &NodeName,
        notes: &mut Vec<String>,
    ) -> (f64, String) {
        let address = observed.vip.address;
        let all = |why: &str| (1.0, why.to_owned());
        let then = self.after.controller().vip(address);
        let Some(then) = then.filter(|then| {
            let holders = self.after.forecast.holders(&then.vip);
            holders.iter().any(|other| other.key == service.key)
        }) else {
            return all("the Service does not have the address any more");
        };
        let Some(next) = self.after.holders(then).into_values().flatten().next() else {
            return all("nobody announces it any more");
        };
        let now = self.before.forecast.forwarding(&observed.vip, holder);
        let later = self.after.forecast.forwarding(&then.vip, &next);
        if now.state == Some(ForwardingState::NodePort) && next != *holder {
            let note = "with nodeport, connections whose source port had to be changed do not outlive a move: docs/forwarding.md";
            if !notes.iter().any(|other| other == note) {
                notes.push(note.to_owned());
            }
        }
        let ours = now.ports.iter().filter(|port| port.service == service.key);
        let mut worst = (0.0, String::new());
        for port in ours {
            let mut others = later.ports.iter();
            let is_same = (port.protocol, port.port);
            let Some(port_later) = others.find(|it| (it.protocol, it.port) == is_same) else {
                return all("a port is gone");
            };
            let table = self.before.forecast.slots(address, &port.forwarding);
            let table_later = self.after.forecast.slots(address, &port_later.forwarding);
            let found = match (&table, &table_later) {
                (Some(table), Some(table_later)) => self.by_table(
                    address,
                    service,
                    table.moved(table_later),
                    self.evicted.map_or(0.0, |node| table.share(node)),
                ),
                (None, None) if next != *holder => {
                    all("kube-proxy on the announcing node alone knows the connections")
                }
                (None, None) => self.by_kube_proxy(address, service, holder),
                _ => all("it is forwarded in another way"),
            };
            if found.0 > worst.0 {
                worst = found;
            }
        }
        worst
    }

    /// The share of its endpoints that are on the node whose pods end.
    fn evicted_endpoints(&self, address: IpAddr, service: &Service) -> f64 {
        let Some(node) = self.evicted else {
            return 0.0;
        };
        let endpoints = self.before.forecast.endpoints(address, service);
        let all: u32 = endpoints.values().sum();
        let here = endpoints.get(node).copied().unwrap_or_default();
        if all == 0 {
            0.0
        } else {
            f64::from(here) / f64::from(all)
        }
    }

    /// Where every node has the table: what moves in it, and connections with pods that end.
    fn by_table(
        &self,
        address: IpAddr,
        service: &Service,
        moved: f64,
        slots_of_evicted: f64,
    ) -> (f64, String) {
        let pods = self.evicted_endpoints(address, service);
        let share = match service.traffic_policy {
            // The target's kube-proxy takes any pod, of whichever node.
            TrafficPolicy::Cluster => 1.0 - (1.0 - moved) * (1.0 - pods),
            TrafficPolicy::Local => moved.max(slots_of_evicted),
        };
        let mut reasons = Vec::new();
        if moved > 0.0 {
            reasons.push(format!("{} of the slots change their node", percent(moved)));
        }
        if pods > 0.0 {
            reasons.push(format!("{} of the pods end", percent(pods)));
        }
        (share, reasons.join(", "))
    }

    /// Where kube-proxy on the announcing node takes the traffic, and goes on to.
    fn by_kube_proxy(
        &self,
        address: IpAddr,
        service: &Service,
        holder: &NodeName,
    ) -> (f64, String) {
        let share = match service.traffic_policy {
            TrafficPolicy::Cluster => self.evicted_endpoints(address, service),
            TrafficPolicy::Local if self.evicted == Some(holder) => 1.0,
            TrafficPolicy::Local => 0.0,
        };
        (share, format!("{} of the pods end", percent(share)))
    }
}
