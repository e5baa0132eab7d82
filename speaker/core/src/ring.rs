//! What the core and the observer rings say to each other.
//!
//! The rings run on a thread of their own (`herald_ring::Ring`, one for each segment); the core
//! tells them who is to be in them, and hears from them who is alive and who holds what.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use herald_model::{Epoch, IfIndex, Incarnation, MacAddress, NodeName, Tenure};
use herald_ring::{Hold, KeyId, Keys, Member, Scope, Timeline};

/// What a ring is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingCommand {
    /// Take part on a segment. A ring that runs there already ends.
    Start {
        /// The interface in the segment.
        interface: IfIndex,
        /// This node, in its present life there.
        me: Member,
        /// Its MAC address there.
        mac: MacAddress,
        /// The other speakers.
        peers: Vec<Peer>,
    },
    /// Take part no more.
    Stop,
    /// These are the other speakers now.
    PeersChanged(Vec<Peer>),
    /// The interface has carrier, or has lost it.
    CarrierChanged(bool),
    /// We can't serve here: begin a new life.
    StepDown,
    /// Tell everybody how this node stands to an address.
    HoldChanged {
        /// The address.
        vip: IpAddr,
        /// The plan under which it is held.
        epoch: Epoch,
        /// Our place among the candidates.
        rank: u8,
        /// How it does.
        tenure: Tenure,
    },
}

/// Another speaker on the segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// As the ring knows it.
    pub member: Member,
    /// Where its kernel is asked whether it is alive.
    pub mac: MacAddress,
}

/// What a ring says.
#[derive(Clone, Debug, PartialEq)]
pub enum RingEvent {
    /// How everybody stands now; said at the start and after each change.
    View(View),
    /// A life was certified over. A [`Self::View`] without it follows.
    Down {
        /// The node.
        node: NodeName,
        /// Its life.
        incarnation: Incarnation,
        /// How much of it is dead.
        scope: Scope,
        /// When it was noticed.
        timeline: Timeline,
    },
    /// Another node holds an address, or has let go of it.
    Hold(Hold),
    /// The ring can't run here.
    Failed {
        /// Why.
        reason: Arc<str>,
    },
}

/// How the members of a ring stand, as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Our own life.
    pub incarnation: Incarnation,
    /// Whether enough of the last view is reached to take over anything.
    pub quorum: bool,
    /// Who is up, ourselves included, in which life.
    pub live: BTreeMap<NodeName, Incarnation>,
    /// Who is dead: the life that is over, and how much of it.
    pub dead: BTreeMap<NodeName, (Incarnation, Scope)>,
}

/// Which keys the rings use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingKeys(pub Option<Keys>);

impl RingKeys {
    /// Their ids, the one that tags what is sent first.
    pub fn ids(self) -> Vec<KeyId> {
        self.0
            .into_iter()
            .flat_map(|keys| std::iter::once(keys.send).chain(keys.also))
            .collect()
    }
}
