//! What a node announces and what there is to say of it, for the metrics, the log and the probes of
//! Kubernetes.

use std::net::IpAddr;

use herald_l2::frames_of;
use herald_model::{IfIndex, InterfaceName, MacAddress, SegmentName, ServiceKey};

use super::{Core, Elections, Verified};
use crate::vip::holders;

/// What a core would say of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overview {
    /// Why the speaker is not ready; empty: it is.
    pub waiting_for: Vec<String>,
    /// What this node announces.
    pub announced: Vec<Announced>,
    /// The interfaces on which it can announce.
    pub uplinks: Vec<InterfaceName>,
    /// Addresses known.
    pub vips: usize,
    /// Addresses that strangers on the LAN answer for, and who does.
    pub strangers: Vec<(IpAddr, MacAddress)>,
    /// How often a stranger was heard of for the first time.
    pub conflicts: u64,
    /// What elections came to.
    pub elections: Elections,
    /// What came of asking the LAN for addresses that other nodes had taken over.
    pub verified: Verified,
    /// The interface whose addresses take longest to be announced once, and how many seconds at most;
    /// `None`: they are all announced at once.
    pub slowest_announcement: Option<(InterfaceName, u64)>,
}

/// One address that this node announces for one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// The Service.
    pub service: ServiceKey,
    /// The address.
    pub address: IpAddr,
    /// The segment it is announced on.
    pub segment: SegmentName,
    /// The interface.
    pub interface: IfIndex,
    /// The interface's name.
    pub interface_name: InterfaceName,
}

impl Core {
    /// What there is to say of this node now.
    pub fn overview(&self) -> Overview {
        Overview {
            waiting_for: self.waiting_for(),
            announced: self.announced(),
            uplinks: self.uplinks.values().map(|it| it.name.clone()).collect(),
            vips: self.vips.len(),
            strangers: self.strangers(),
            conflicts: self.conflicts,
            elections: self.elections,
            verified: self.verifying.tally,
            slowest_announcement: self.slowest_announcement(),
        }
    }

    /// The interface on which it takes longest until every address held there is announced once, and how
    /// long, in seconds; `None`: the burst is enough for all. Coarse, so that not every address makes another
    /// sentence.
    pub fn slowest_announcement(&self) -> Option<(InterfaceName, u64)> {
        let name = |index| self.uplinks.values().find(|uplink| uplink.index == index);
        let known = self.frames.iter();
        let known = known.filter_map(|(&index, frames)| Some((&name(index)?.name, *frames)));
        let (interface, frames) = known.max_by_key(|(_, frames)| *frames)?;
        let takes = self.config.pace.time_for(frames);
        let seconds = takes.as_millis().div_ceil(1_000);
        let coarse = seconds.div_ceil(5).saturating_mul(5);
        let coarse = u64::try_from(coarse).unwrap_or(u64::MAX);
        (coarse > 0).then(|| (interface.clone(), coarse))
    }

    /// An address is held by an interface from now on.
    pub(super) fn count_held(&mut self, interface: IfIndex, address: IpAddr) {
        *self.frames.entry(interface).or_default() += u64::from(frames_of(address));
    }

    /// And no longer.
    pub(super) fn count_released(&mut self, interface: IfIndex, address: IpAddr) {
        if let Some(frames) = self.frames.get_mut(&interface) {
            *frames = frames.saturating_sub(u64::from(frames_of(address)));
        }
    }

    fn announced(&self) -> Vec<Announced> {
        let mut announced = Vec::new();
        for (address, vip) in &self.vips {
            for (segment, hold) in vip.holds.iter().filter(|(_, hold)| hold.announced) {
                for service in holders(&vip.observed.vip, &self.services) {
                    announced.push(Announced {
                        service: service.key.clone(),
                        address: *address,
                        segment: segment.clone(),
                        interface: hold.interface,
                        interface_name: hold.interface_name.clone(),
                    });
                }
            }
        }
        announced
    }
}
