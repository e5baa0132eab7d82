//! A node: its kernel, and the speaker that runs on it.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use herald_model::{IfIndex, Incarnation, Instant, MacAddress, NodeName};
use herald_ring::{Keys, Member, Ring, Scope, Standing};
use herald_speaker_core::{Core, Peer, View};

use super::api::KINDS;
use super::world::Happening;
use crate::ring::Quick;

pub(super) const SEGMENT: &str = "10.0.0.0/16";
pub(super) const ETH0: IfIndex = IfIndex(2);
pub(super) const NEVER: Instant = Instant::from_nanos(u64::MAX);

/// A node.
pub(super) struct Host {
    pub(super) name: NodeName,
    pub(super) boot: u64,
    pub(super) powered: bool,
    pub(super) carrier: bool,
    /// Its speaker does nothing; what arrives waits in `backlog`.
    pub(super) paused: bool,
    pub(super) backlog: Vec<Happening>,
    pub(super) process: Option<Process>,
    /// Processes so far.
    pub(super) generation: u64,
    /// How far the snapshot on its disk goes.
    pub(super) snapshot: [usize; KINDS],
}

/// A speaker.
pub(super) struct Process {
    pub(super) core: Core,
    pub(super) wake: Instant,
    pub(super) positions: [usize; KINDS],
    /// Whether the caches are complete, and whether from the snapshot.
    pub(super) synced: bool,
    pub(super) restored: bool,
    pub(super) keys: Option<Keys>,
    pub(super) segment: Option<Segment>,
    /// What layer 2 answers for.
    pub(super) held: BTreeSet<IpAddr>,
}

/// The ring as the speaker's thread keeps it.
pub(super) struct Segment {
    pub(super) me: Member,
    pub(super) peers: Vec<Peer>,
    pub(super) carrier: bool,
    pub(super) ring: Option<Ring<Quick>>,
    pub(super) wake: Instant,
    pub(super) told: Option<View>,
    pub(super) changed: bool,
    pub(super) silenced: bool,
    pub(super) unseen: Option<Incarnation>,
}

impl Host {
    /// Whether it answers for an address, if asked by somebody who reaches it.
    pub(super) fn answers(&self, address: IpAddr) -> bool {
        self.powered
            && self.carrier
            && !self.paused
            && self.process.as_ref().is_some_and(|process| {
                process.held.contains(&address)
                    && process.segment.as_ref().is_some_and(|it| !it.silenced)
            })
    }
}

impl Segment {
    pub(super) fn members(&self) -> Vec<Member> {
        let peers = self.peers.iter().map(|peer| peer.member.clone());
        peers.chain([self.me.clone()]).collect()
    }

    /// How everybody stands, if that changed.
    pub(super) fn view(&mut self) -> Option<View> {
        let ring = self.ring.as_ref()?;
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let mut view = View {
            incarnation: ring.incarnation(),
            quorum: ring.has_quorum(),
            ..View::default()
        };
        let nodes = self.peers.iter().map(|peer| &peer.member.node);
        for node in nodes.chain([&self.me.node]) {
            if let Some(incarnation) = ring.live(node) {
                view.live.insert(node.clone(), incarnation);
            } else if let Some((incarnation, standing)) = ring.standing(node) {
                let scope = match standing {
                    Standing::NodeDown => Scope::Node,
                    Standing::Up | Standing::SpeakerDown => Scope::Speaker,
                };
                view.dead.insert(node.clone(), (incarnation, scope));
            }
        }
        if self.told.as_ref() == Some(&view) {
            return None;
        }
        self.told = Some(view.clone());
        Some(view)
    }
}

pub(super) fn address(node: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, low(node)))
}

pub(super) fn mac(node: usize) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, low(node)])
}

fn low(node: usize) -> u8 {
    u8::try_from(node + 1).unwrap_or(u8::MAX)
}

pub(super) fn index(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(v4) => usize::from(v4.octets()[3]).saturating_sub(1),
        IpAddr::V6(_) => usize::MAX,
    }
}
