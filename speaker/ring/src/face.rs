//! What the machine is told and what it wants done.

use std::net::IpAddr;
use std::time::Duration;

use herald_model::{Epoch, Incarnation, Instant, NodeName, Tenure};

use crate::auth::Keys;
use crate::codec::{Report, Standing};
use crate::config::Member;
use crate::packet::Packet;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Input<'a> {
    /// The driver woke. Said first, so that [`Effect::Silenced`] comes before anything is answered.
    Woken,
    /// A datagram came in on the segment.
    DatagramReceived {
        /// The UDP payload.
        bytes: &'a [u8],
    },
    /// The list of speakers on the segment, whole. Whether we are in it does not matter.
    MembersChanged(&'a [Member]),
    /// The keys; `None`: there is none, and nothing is sent or read.
    KeysChanged(Option<Keys>),
    /// A kernel answered ARP or NS for its own address on the segment.
    KernelAnswered {
        /// That address.
        address: IpAddr,
    },
    /// The witness answered.
    WitnessAnswered,
    /// The interface got or lost carrier, or vanished.
    CarrierChanged(bool),
    /// We can't serve on this segment (data path, isolation, …), so we begin a new life: whatever
    /// was planned with the last one is void. [`Effect::IncarnationRaised`] follows.
    SteppedDown,
    /// What our heartbeats are to say of us.
    Reported(Report),
    /// We stand otherwise to an address than before: tell everybody.
    HoldChanged {
        /// The address.
        vip: IpAddr,
        /// The plan under which we hold it.
        epoch: Epoch,
        /// Our place among the candidates, 0 first; 255 if none.
        rank: u8,
        /// How we stand to it.
        tenure: Tenure,
    },
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send the datagram to the ring's port at this address, from the segment's interface.
    Send {
        /// A member's address.
        to: IpAddr,
        /// The UDP payload.
        packet: Packet,
    },
    /// Ask the kernel at this address by unicast ARP or NS; say [`Input::KernelAnswered`] if it
    /// answers. Never more often than every 10 ms per suspect.
    ProbeKernel {
        /// A member's address.
        address: IpAddr,
    },
    /// Ask the witness (default gateway or configured address) by ARP, NS or echo; say
    /// [`Input::WitnessAnswered`] if it answers. Without a witness ignore this.
    AskWitness,
    /// A member's life is over: certified by its observers.
    MemberDown {
        /// Its node.
        node: NodeName,
        /// The life that is over.
        incarnation: Incarnation,
        /// How much of it is dead. [`Scope::Node`] can follow [`Scope::Speaker`].
        scope: Scope,
        /// When it was noticed, for the stopwatch.
        timeline: Timeline,
    },
    /// A member is in a new life, or is heard of for the first time since it was listed.
    MemberUp {
        /// Its node.
        node: NodeName,
        /// Its life. Whatever it held in an earlier one it holds no more.
        incarnation: Incarnation,
    },
    /// Our own life is over; another has begun. Announce nothing any more that was held in
    /// the old one, and store the number before the process ends.
    IncarnationRaised {
        /// The new number.
        incarnation: Incarnation,
        /// Why.
        reason: RaiseReason,
    },
    /// We were stalled long enough to be taken for dead: discard queued ARP and NS, and answer
    /// nothing until [`Effect::Confirmed`] or [`Effect::IncarnationRaised`].
    Silenced {
        /// How late we woke.
        late: Duration,
    },
    /// Most of our observers know us alive in this life: answer again.
    Confirmed,
    /// Whether we reach enough of the last view to take over anything. Keeping needs nothing.
    /// Said when it changes; before it is first said, there is no quorum.
    QuorumChanged {
        /// Members reached, ourselves included.
        reached: u32,
        /// Members of the last view.
        base: u32,
        /// Whether that is more than half, or a witness makes up for it.
        quorum: bool,
    },
    /// A member says something new of itself. Said to its observers only.
    PeerReported {
        /// Its node.
        node: NodeName,
        /// What it says.
        report: Report,
    },
    /// Another member holds an address by a better right than the holder we knew, or let go of it.
    HoldHeard(Hold),
}

/// How much of a node is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Its speaker: it announces no more, and forwards on.
    Speaker,
    /// The node: it neither announces nor takes traffic.
    Node,
}

impl Scope {
    pub(crate) const fn of(standing: Standing) -> Option<Self> {
        match standing {
            Standing::Up => None,
            Standing::SpeakerDown => Some(Self::Speaker),
            Standing::NodeDown => Some(Self::Node),
        }
    }
}

/// When a death was noticed, in our own time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timeline {
    /// The certifying observer last heard of the member.
    pub last_heartbeat: Instant,
    /// It began to suspect it.
    pub suspected: Instant,
    /// The certificate was made, if by us, else received.
    pub certified: Instant,
}

/// Why our life ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RaiseReason {
    /// Our observers certified us dead.
    Certified,
    /// Others remember a later life of ours than we do.
    Behind,
    /// We gave it up: [`Input::SteppedDown`].
    SteppedDown,
}

/// An address and the one that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    /// The address.
    pub vip: IpAddr,
    /// The plan under which it is held.
    pub epoch: Epoch,
    /// The holder's place among the candidates, 0 first; 255 if it is none of them.
    pub rank: u8,
    /// The holder.
    pub node: NodeName,
    /// The holder's life.
    pub incarnation: Incarnation,
    /// How it stands to the address.
    pub tenure: Tenure,
}

/// What has happened since the start, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams sent.
    pub sent: u64,
    /// Their bytes, UDP payload only.
    pub sent_bytes: u64,
    /// Datagrams received.
    pub received: u64,
    /// Of these: could not be read.
    pub malformed: u64,
    /// Of another cluster or segment.
    pub foreign: u64,
    /// Tagged with a key that is not in use.
    pub unknown_key: u64,
    /// With a wrong tag.
    pub forged: u64,
    /// From nobody in the list of members.
    pub strangers: u64,
    /// Received before, or too old to tell.
    pub replayed: u64,
    /// From a life that is over.
    pub outdated: u64,
    /// From a life that has not proved itself to us.
    pub unproved: u64,
    /// Members suspected.
    pub suspicions: u64,
    /// Votes cast against members.
    pub votes: u64,
    /// Certificates made.
    pub certificates: u64,
    /// Statements that our own view of the observers does not bear out.
    pub unsupported: u64,
    /// Datagrams sent to repair another's view.
    pub repairs: u64,
    /// Times we woke too late.
    pub stalls: u64,
}
