//! What this node says of itself and of the addresses it holds.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use herald_model::{Family, Instant, Phase, SegmentName, SpeakerSegment};

use super::Core;
use crate::input::{Cache, DataPlaneMode, Effect, Priority, SpeakerReport};
use crate::status::{Condition, ConditionKind, reasons};
use crate::vip::{probing_status, wanted_status, with_finding};

impl Core {
    /// Seconds since 1970, as statuses say when something was.
    pub(super) fn wall(&self, now: Instant) -> i64 {
        let seconds = now.saturating_since(Instant::ORIGIN).as_secs();
        self.config
            .wall_origin
            .saturating_add(i64::try_from(seconds).unwrap_or(i64::MAX))
    }

    /// Writes the statuses of the addresses that something happened to.
    pub(super) fn write_statuses(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.tell_conflicts(out);
        self.tell_refused(out);
        let wall = self.wall(now);
        let error = self.data_plane_error().cloned();
        let opening = self.opening();
        let dirty: BTreeSet<IpAddr> = std::mem::take(&mut self.dirty.vips);
        for address in dirty {
            let wanted = self.vips.get(&address).and_then(|vip| {
                if vip.observed.vip.phase == Phase::Probing && vip.holds.is_empty() {
                    return probing_status(vip, wall);
                }
                if !vip.holds.keys().all(|segment| self.is_life_known(segment)) {
                    return None;
                }
                let plan = self.forwarding_plan(address, vip);
                let plan = plan.without(address, &self.data_plane.refused);
                let me = &self.config.node;
                let spoken_for = self.spoken_for(now, address, &opening);
                let wanted = wanted_status(vip, me, &plan, error.as_deref(), &spoken_for, wall);
                with_finding(vip, wanted, wall)
            });
            let (Some(status), Some(vip)) = (wanted, self.vips.get_mut(&address)) else {
                continue;
            };
            let observed = &vip.observed;
            let version = Arc::clone(&observed.resource_version);
            if vip
                .writer
                .should_write(now, &version, Some(&observed.status), &status)
            {
                out.push(Effect::WriteVipStatus {
                    address,
                    resource_version: version,
                    status,
                });
            }
        }
    }

    /// Whether our object, as the API server has it, names our present life on a segment. Before it does,
    /// the controller would take an entry of ours for one of the last life.
    fn is_life_known(&self, segment: &SegmentName) -> bool {
        let own = self.speakers.get(&self.config.node);
        let reported = own
            .iter()
            .flat_map(|own| &own.report.segments)
            .find(|reported| reported.name == *segment);
        reported.map(|reported| reported.incarnation) == self.incarnations.get(segment).copied()
    }

    /// The segments on which another is known to hold the address, or we may yet hold it.
    fn spoken_for(
        &self,
        now: Instant,
        address: IpAddr,
        opening: &BTreeSet<SegmentName>,
    ) -> BTreeSet<SegmentName> {
        let is_starting = |name: &&SegmentName| {
            let ring = self.rings.get(*name);
            !self.restored.is_empty() || !ring.is_some_and(|ring| ring.may_take(now))
        };
        let starting = self.uplinks.keys().filter(is_starting).cloned();
        let succeeded = self
            .rights
            .range((address, SegmentName::from(""))..)
            .take_while(|((vip, _), _)| *vip == address)
            .filter(|(_, right)| right.hold.other().is_some())
            .map(|((_, name), _)| name.clone());
        opening
            .iter()
            .cloned()
            .chain(starting)
            .chain(succeeded)
            .collect()
    }

    /// Writes our own object when it says something else than what is so.
    pub(super) fn write_report(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let known = [Cache::Speakers, Cache::Nodes, Cache::Links];
        let is_known = known.iter().all(|cache| self.synced.contains(cache))
            && self.data_plane.report.is_some()
            && self.takes_part
            && self.opening().is_empty();
        if !is_known {
            return;
        }
        let own = self.speakers.get(&self.config.node);
        let report = self.report(now);
        let version: Arc<str> =
            own.map_or_else(|| Arc::from(""), |own| Arc::clone(&own.resource_version));
        let observed = own.map(|own| &own.report);
        if self
            .report_writer
            .should_write(now, &version, observed, &report)
        {
            out.push(Effect::WriteSpeaker {
                create: own.is_none(),
                report,
            });
        }
    }

    /// What our own object is to say once nothing of ours is left on the node.
    pub fn retired(&self, now: Instant) -> SpeakerReport {
        let report = self.report(now);
        let message = "nothing of Herald's is left on the node, as spec.retire asks".to_owned();
        let wall = self.wall(now);
        let before = report.conditions;
        let ready = ConditionKind::Ready;
        SpeakerReport {
            key_ids: Vec::new(),
            data_plane: None,
            conditions: vec![Condition::new(
                ready,
                false,
                reasons::RETIRED,
                message,
                &before,
                wall,
            )],
            ..report
        }
    }

    pub(super) fn report(&self, now: Instant) -> SpeakerReport {
        let segments = self
            .open_uplinks()
            .into_iter()
            .filter_map(|(name, uplink)| {
                Some(SpeakerSegment {
                    incarnation: *self.incarnations.get(&name)?,
                    name,
                    interface: uplink.name,
                    mac: uplink.mac,
                    gateways: self.interfaces.gateways(uplink.index),
                    prefixes: uplink.addresses,
                    carrier: uplink.carrier,
                })
            })
            .collect();
        let before = self
            .speakers
            .get(&self.config.node)
            .map(|own| own.report.conditions.as_slice())
            .unwrap_or_default();
        let wall = self.wall(now);
        let (holds, reason, message) = self.readiness();
        let ready = ConditionKind::Ready;
        let ready = Condition::new(ready, holds, reason, message, before, wall);
        let unfit = self.unfit().map(|why| {
            let (kind, reason) = (ConditionKind::TakesTraffic, reasons::NOT_FORWARDING);
            Condition::new(kind, false, reason, why, before, wall)
        });
        SpeakerReport {
            version: Arc::clone(&self.config.version),
            boot_id: Arc::clone(&self.config.boot_id),
            segments,
            key_ids: self.ring_keys.ids(),
            data_plane: self.data_plane.report.clone(),
            ipvs: self.ipvs,
            conditions: std::iter::once(ready).chain(unfit).collect(),
        }
    }

    /// Why other nodes are to send this one nothing: its kernel does not forward what is for pods.
    fn unfit(&self) -> Option<String> {
        let kernel = self.kernel?;
        let families = [
            (Family::V4, kernel.ipv4, "net.ipv4.ip_forward"),
            (Family::V6, kernel.ipv6, "net.ipv6.conf.all.forwarding"),
        ];
        let is_used = |family| {
            self.vips
                .keys()
                .any(|address| Family::of(*address) == family)
        };
        let off: Vec<&str> = families
            .into_iter()
            .filter(|&(family, is_on, _)| !is_on && is_used(family))
            .map(|(_, _, name)| name)
            .collect();
        (!off.is_empty()).then(|| {
            format!(
                "the node's kernel passes nothing on to pods, as {} is 0; other nodes are used instead",
                off.join(" and ")
            )
        })
    }

    fn readiness(&self) -> (bool, &'static str, String) {
        if let Some(stopping) = &self.stopping {
            let message = if stopping.retires {
                "the speaker was asked to retire"
            } else {
                "the speaker was asked to end"
            };
            return (false, reasons::STOPPING, message.to_owned());
        }
        if let Some((index, reason)) = self.failed_ports().next() {
            let name = self
                .uplinks
                .values()
                .find(|uplink| uplink.index == index)
                .map_or_else(|| index.to_string(), |uplink| uplink.name.to_string());
            let message = format!("cannot open a socket on {name}: {reason}");
            return (false, reasons::NO_SEGMENT, message);
        }
        if self.uplinks.is_empty() {
            let message = "no interface is up with an address that is not link-local; see \
                           --exclude-interface for those that are left out"
                .to_owned();
            return (false, reasons::NO_SEGMENT, message);
        }
        if self.ring_keys.0.is_none() {
            let message = "there is no ring key: nothing new is served until the controller has \
                           made the Secret (see --ring-key-secret)"
                .to_owned();
            return (false, reasons::NO_RING_KEY, message);
        }
        if let Some((segment, reason)) = self.failed_rings().next() {
            let message = format!("cannot take part in the ring of {segment}: {reason}");
            return (false, reasons::NO_RING, message);
        }
        if let Some(error) = self.data_plane_error() {
            return (false, reasons::DATA_PLANE_FAILED, error.to_string());
        }
        let work = match &self.data_plane.report {
            Some(report) if report.mode == DataPlaneMode::None => {
                "announces; forwarding is left to kube-proxy"
            }
            _runs_or_will => "announces and forwards",
        };
        let priority = match self.grants.map(|grants| grants.priority) {
            None | Some(Priority::RealTime) => "",
            Some(Priority::Nice) => "; the kernel refused real-time priority, nice -20 is used",
            Some(Priority::Normal) => {
                "; the kernel refused any priority, answers may be late under load"
            }
        };
        let memory = match self.grants.map(|grants| grants.code_is_locked) {
            None | Some(true) => "",
            Some(false) => {
                "; RLIMIT_MEMLOCK is too low for its code, answers may be late when memory is short"
            }
        };
        let pace = match self.slowest_announcement() {
            None => String::new(),
            Some((interface, seconds)) => format!(
                "; the last of its addresses on {interface} is announced {seconds} s after the first, \
                 as announceBurst and announceRate allow no more"
            ),
        };
        let crowd = match self.crowded() {
            None => String::new(),
            Some(what) => format!("; the data plane is full: {what}"),
        };
        let message = format!("{work}{priority}{memory}{pace}{crowd}");
        (true, reasons::READY, message)
    }

    /// What still has to come before the speaker is ready to serve.
    pub fn waiting_for(&self) -> Vec<String> {
        let mut waiting: Vec<String> = Cache::ALL
            .iter()
            .filter(|cache| !self.synced.contains(cache))
            .map(|cache| format!("the list of {}", cache.as_str()))
            .collect();
        if self.data_plane.report.is_none() {
            waiting.push("the data plane".to_owned());
        } else if !self.is_data_plane_ready() {
            waiting.push("the data plane's first state".to_owned());
        }
        if self.synced.contains(&Cache::Speakers) && !self.takes_part && !self.rules_written {
            waiting.push("kube-proxy's first rules since the node booted".to_owned());
        }
        waiting.extend(
            self.failed_ports()
                .map(|(index, reason)| format!("a socket on interface {index}: {reason}")),
        );
        if self.ring_keys.0.is_none() {
            waiting.push("the ring key".to_owned());
        }
        waiting.extend(
            self.failed_rings()
                .map(|(segment, reason)| format!("the ring of {segment}: {reason}")),
        );
        if self.stopping.is_some() {
            waiting.push("the end: it was asked to stop".to_owned());
        }
        waiting
    }
}
