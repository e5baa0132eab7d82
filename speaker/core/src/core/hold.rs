//! Interfaces, and what a hold needs in the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use herald_model::{IfIndex, Incarnation, Instant, SegmentName};

use super::{Core, Port, PortState, REFRESH, RETRY, Timer};
use crate::input::{Effect, EventReason};
use crate::uplinks::Uplink;
use crate::vip::{Hold, holders};

impl Core {
    /// Finds the segments this node is in, and tells layer 2 of interfaces.
    pub(super) fn update_uplinks(&mut self, out: &mut Vec<Effect>) {
        let uplinks = self
            .interfaces
            .uplinks(&self.config.excluded_interfaces, &self.segment_names);
        let told: BTreeMap<IfIndex, herald_l2::Port> = uplinks
            .values()
            .map(|uplink| {
                let port = herald_l2::Port {
                    index: uplink.index,
                    mac: uplink.mac,
                    source: uplink.link_local,
                };
                (uplink.index, port)
            })
            .collect();
        if self.ipvs != self.interfaces.has_ipvs() {
            self.ipvs = !self.ipvs;
            self.dirty.all_vips = true;
        }
        let gone: Vec<IfIndex> = self
            .ports
            .keys()
            .filter(|index| !told.contains_key(index))
            .copied()
            .collect();
        if uplinks != self.uplinks {
            // A node that was cut off comes back with what it knew then; where its address went away for a
            // moment, connections to the API server may be dead without a word.
            self.dirty.stale |= uplinks.iter().any(|(name, uplink)| {
                let before = self.uplinks.get(name).filter(|before| before.carrier);
                let same = |before: &Uplink| {
                    (before.index, &before.addresses) == (uplink.index, &uplink.addresses)
                };
                uplink.carrier && !before.is_some_and(same)
            });
            self.uplinks = uplinks;
            self.dirty.all_vips = true;
            self.data_plane.changed = true;
        }
        for index in gone {
            self.release_interface(index, out);
            self.ports.remove(&index);
            out.push(Effect::Layer2(herald_l2::Input::PortRemoved(index)));
        }
        for (index, port) in told {
            let state = match self.ports.get(&index) {
                Some(before) if before.told == port => continue,
                Some(before) => before.state.clone(),
                None => PortState::Opening,
            };
            self.ports.insert(index, Port { told: port, state });
            out.push(Effect::Layer2(herald_l2::Input::PortSet(port)));
        }
        self.update_incarnations();
    }

    /// The numbers of this node's lives: known once our own object was looked for. Another boot
    /// is another life.
    fn update_incarnations(&mut self) {
        if !self.synced.contains(&crate::Cache::Speakers) {
            return;
        }
        let own = self.speakers.get(&self.config.node);
        let is_same_boot = own.is_some_and(|own| own.report.boot_id == self.config.boot_id);
        let known = |name: &SegmentName| {
            own?.report
                .segments
                .iter()
                .find(|segment| segment.name == *name)
                .map(|segment| segment.incarnation)
        };
        for name in self.uplinks.keys() {
            self.incarnations
                .entry(name.clone())
                .or_insert_with(|| match known(name) {
                    Some(last) if is_same_boot => last,
                    Some(Incarnation(last)) => Incarnation(last.saturating_add(1)),
                    None => Incarnation(1),
                });
        }
    }

    pub(super) fn port_answered(&mut self, index: IfIndex, state: PortState) {
        if let Some(port) = self.ports.get_mut(&index)
            && port.state != state
        {
            port.state = state;
            self.dirty.all_vips = true;
        }
    }

    /// The segments whose sockets are about to be opened.
    pub(super) fn opening(&self) -> BTreeSet<SegmentName> {
        self.uplinks
            .iter()
            .filter(|(_, uplink)| {
                self.ports
                    .get(&uplink.index)
                    .is_none_or(|port| port.state == PortState::Opening)
            })
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// The segments this node can answer on.
    pub(super) fn open_uplinks(&self) -> BTreeMap<SegmentName, Uplink> {
        self.uplinks
            .iter()
            .filter(|(_, uplink)| {
                self.ports
                    .get(&uplink.index)
                    .is_some_and(|port| port.state == PortState::Open)
            })
            .map(|(name, uplink)| (name.clone(), uplink.clone()))
            .collect()
    }

    fn release_interface(&mut self, index: IfIndex, out: &mut Vec<Effect>) {
        let addresses: Vec<IpAddr> = self.vips.keys().copied().collect();
        for address in addresses {
            self.release_where(address, out, |_, hold| hold.interface == index);
        }
    }

    /// Undoes the holds of an address that meet a condition: first the answers, then the rest.
    pub(super) fn release_where(
        &mut self,
        address: IpAddr,
        out: &mut Vec<Effect>,
        condition: impl Fn(&SegmentName, &Hold) -> bool,
    ) {
        let Some(vip) = self.vips.get_mut(&address) else {
            return;
        };
        let released: Vec<(SegmentName, Box<Hold>)> = vip
            .holds
            .extract_if(.., |name, hold| condition(name, hold))
            .collect();
        for (segment, hold) in released {
            let interface = hold.interface;
            self.count_released(interface, address);
            if hold.announced {
                out.push(Effect::Layer2(herald_l2::Input::Released {
                    interface,
                    address,
                }));
            }
            if hold.neighbour.is_some() {
                out.push(match self.mac_of_holder(address, &segment) {
                    // Should it die before our kernel has asked for it, nobody would answer.
                    Some(mac) => Effect::LeaveNeighbour {
                        interface,
                        address,
                        mac,
                    },
                    None => Effect::RemoveNeighbour { interface, address },
                });
            }
            self.leave_group(interface, address, out);
        }
    }

    pub(super) fn join_group(
        &mut self,
        interface: IfIndex,
        address: IpAddr,
        out: &mut Vec<Effect>,
    ) {
        let Some(group) = herald_l2::group_of(address) else {
            return;
        };
        let users = self.groups.entry((interface, group)).or_default();
        if users.is_empty() {
            out.push(Effect::JoinGroup { interface, group });
        }
        users.insert(address);
    }

    fn leave_group(&mut self, interface: IfIndex, address: IpAddr, out: &mut Vec<Effect>) {
        let Some(group) = herald_l2::group_of(address) else {
            return;
        };
        if let Some(users) = self.groups.get_mut(&(interface, group)) {
            users.remove(&address);
            if users.is_empty() {
                self.groups.remove(&(interface, group));
                out.push(Effect::LeaveGroup { interface, group });
            }
        }
    }

    pub(super) fn emit_events(
        &self,
        address: IpAddr,
        reason: EventReason,
        note: &str,
        out: &mut Vec<Effect>,
    ) {
        let Some(vip) = self.vips.get(&address) else {
            return;
        };
        for service in holders(&vip.observed.vip, &self.services) {
            out.push(Effect::EmitEvent {
                service: herald_model::ServiceRef {
                    key: service.key.clone(),
                    uid: service.uid.clone(),
                },
                address,
                reason,
                note: note.to_owned(),
            });
        }
    }

    /// A neighbour entry for an address held here makes replies of our own pods, which go to the
    /// address, reach the egress of the interface, where the data plane translates them.
    pub(super) fn wants_neighbour(&self, address: IpAddr) -> bool {
        let uses_node_ports = |vip: &herald_dataplane::DesiredVip| {
            vip.services
                .iter()
                .any(|service| !matches!(service.forwarding, herald_dataplane::Forwarding::Off))
        };
        self.data_plane_runs()
            && self
                .data_plane
                .desired
                .vips
                .get(&address)
                .is_some_and(uses_node_ports)
    }

    pub(super) fn neighbour_failed(&mut self, now: Instant, interface: IfIndex, address: IpAddr) {
        let Some(vip) = self.vips.get_mut(&address) else {
            return;
        };
        for hold in vip.holds.values_mut() {
            if hold.interface == interface {
                hold.neighbour = None;
            }
        }
        self.timers.insert((now + RETRY, Timer::Vip(address)));
    }

    /// Removes entries that an earlier life of this program left behind: for an address
    /// of ours or of nobody, and to our own MAC address, which no other program has a use for.
    pub(super) fn remove_found_neighbours(&mut self, now: Instant, out: &mut Vec<Effect>) {
        // Until then it is not known what we are to hold.
        let is_settled = self.rings.values().all(|ring| ring.may_take(now));
        if self.data_plane.report.is_none() || !is_settled {
            return;
        }
        for ((interface, address), mac) in std::mem::take(&mut self.found_neighbours) {
            let is_ours = self
                .ports
                .get(&interface)
                .is_some_and(|port| port.told.mac == mac);
            let is_held = self.vips.get(&address).is_some_and(|vip| {
                let mut holds = vip.holds.values();
                holds.any(|hold| hold.interface == interface)
            });
            let is_wanted = is_held && self.wants_neighbour(address);
            if is_ours && !is_wanted {
                out.push(Effect::RemoveNeighbour { interface, address });
            }
        }
    }

    pub(super) fn refresh(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let is_due = self
            .refreshed_at
            .is_none_or(|before| now.saturating_since(before) >= REFRESH);
        if std::mem::take(&mut self.dirty.stale) && is_due && self.is_synced() {
            self.refreshed_at = Some(now);
            out.push(Effect::Refresh);
        }
    }

    pub(super) fn failed_ports(&self) -> impl Iterator<Item = (IfIndex, &Arc<str>)> {
        self.ports
            .iter()
            .filter_map(|(index, port)| match &port.state {
                PortState::Failed { reason } => Some((*index, reason)),
                PortState::Opening | PortState::Open => None,
            })
    }
}
