//! What the core is told, and what it says must be true.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use herald_dataplane::{Desired, Refused};
use herald_model::{
    IfIndex, Instant, InterfaceName, MacAddress, Node, NodeName, SegmentName, Service,
    ServiceEndpoints, ServiceKey, SpeakerSegment, VirtualIp,
};
use herald_ring::KeyId;
use ipnet::IpNet;

use crate::ring::{RingCommand, RingEvent, RingKeys};
use crate::status::{Condition, VipStatus};

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A `VirtualIP` is there, in this form.
    VipApplied(ObservedVip),
    /// A `VirtualIP` is gone.
    VipDeleted(IpAddr),
    /// A Service of ours is there, in this form.
    ServiceApplied(Box<Service>),
    /// A Service is gone, or no longer ours.
    ServiceDeleted(ServiceKey),
    /// The endpoints of a Service changed.
    EndpointsApplied(ServiceEndpoints),
    /// A Service has no endpoint slices any more.
    EndpointsDeleted(ServiceKey),
    /// A Node is there, in this form.
    NodeApplied {
        /// The Node.
        node: Node,
        /// The segments its annotations put its interfaces into.
        segments: BTreeMap<InterfaceName, SegmentName>,
    },
    /// A Node is gone.
    NodeDeleted(NodeName),
    /// A `Speaker` object is there, in this form; our own among them.
    SpeakerApplied(ObservedSpeaker),
    /// A `Speaker` object is gone.
    SpeakerDeleted(NodeName),
    /// A cache is complete for the first time.
    Synced(Cache),
    /// A network interface is there, in this form.
    LinkApplied(Link),
    /// A network interface is gone.
    LinkRemoved(IfIndex),
    /// An interface got an address.
    AddressAdded {
        /// The interface.
        interface: IfIndex,
        /// The address and its prefix length.
        address: IpNet,
    },
    /// An interface lost an address.
    AddressRemoved {
        /// The interface.
        interface: IfIndex,
        /// The address and its prefix length.
        address: IpNet,
    },
    /// The next hops of the default routes of each interface are these.
    GatewaysKnown(BTreeMap<IfIndex, Vec<IpAddr>>),
    /// The kernel had a neighbour entry when the speaker started.
    NeighbourFound {
        /// The interface.
        interface: IfIndex,
        /// The neighbour's address.
        address: IpAddr,
        /// Its MAC address.
        mac: MacAddress,
    },
    /// The sockets of an interface are open.
    PortOpened(IfIndex),
    /// The sockets of an interface could not be opened.
    PortFailed {
        /// The interface.
        interface: IfIndex,
        /// Why.
        reason: Arc<str>,
    },
    /// How the data plane can be run here.
    DataPlaneKnown(DataPlaneReport),
    /// What the kernel grants the thread that answers and announces.
    Granted(Grants),
    /// Whether the node's kernel forwards packets; said when it changes.
    KernelForwards(KernelForwarding),
    /// kube-proxy has written its rules since the node booted, or there is no way to know.
    RulesWritten,
    /// A wish was handed to the data plane.
    DataPlaneApplied {
        /// Which one.
        generation: u64,
        /// What there was no room for; or why it failed.
        outcome: Result<Arc<[Refused]>, Arc<str>>,
    },
    /// The data plane has looked at its programs and maps, and put back what somebody had taken away: on
    /// these interfaces it could not, and why. Said when it changes.
    DataPlaneChecked(BTreeMap<IfIndex, Arc<str>>),
    /// A neighbour entry could not be set; it is tried again.
    NeighbourFailed {
        /// The interface.
        interface: IfIndex,
        /// The address.
        address: IpAddr,
    },
    /// A status of a `VirtualIP` was written, or was not.
    VipStatusWritten {
        /// The address.
        address: IpAddr,
        /// What came of it.
        outcome: WriteOutcome,
    },
    /// Our `Speaker` object was written, or was not.
    SpeakerWritten(WriteOutcome),
    /// Somebody else says that it has an address held here.
    ForeignClaim {
        /// On which interface.
        interface: IfIndex,
        /// The address.
        address: IpAddr,
        /// Who.
        mac: MacAddress,
    },
    /// A cache was filled from the snapshot on disk, as the API server could not be reached: what is in
    /// it may be old.
    Restored(Cache),
    /// A cache that was filled from the snapshot was listed anew.
    Renewed(Cache),
    /// Whether anybody else uses an address that was asked for with
    /// [`herald_l2::Input::Probe`].
    Probed {
        /// On which interface.
        interface: IfIndex,
        /// The address.
        address: IpAddr,
        /// Who uses it; `None`: nobody answered.
        user: Option<MacAddress>,
    },
    /// An observer ring says something.
    RingSaid {
        /// On which segment.
        segment: SegmentName,
        /// What.
        event: RingEvent,
    },
    /// The keys in the Secret of the rings, oldest first.
    RingKeysKnown(Vec<KeyId>),
    /// The process was asked to end.
    Stopping,
}

/// What must be true, or be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Hand this to the thread that answers and announces.
    Layer2(herald_l2::Input),
    /// Hand this to the observer ring of a segment; it answers with [`Input::RingSaid`].
    Ring {
        /// The segment.
        segment: SegmentName,
        /// What it is to do.
        command: RingCommand,
    },
    /// Let the rings use these keys.
    SetRingKeys(RingKeys),
    /// Record how long a takeover took.
    TookOver(Takeover),
    /// Let an interface accept the frames of a group, and let switches know.
    JoinGroup {
        /// The interface.
        interface: IfIndex,
        /// The solicited-node group.
        group: Ipv6Addr,
    },
    /// Undo [`Effect::JoinGroup`].
    LeaveGroup {
        /// The interface.
        interface: IfIndex,
        /// The solicited-node group.
        group: Ipv6Addr,
    },
    /// Have a neighbour entry.
    SetNeighbour {
        /// The interface.
        interface: IfIndex,
        /// The address.
        address: IpAddr,
        /// The MAC address it is at.
        mac: MacAddress,
    },
    /// Have a neighbour entry no longer, but leave one that is the kernel's to change or to forget: the
    /// address is at another node now.
    LeaveNeighbour {
        /// The interface.
        interface: IfIndex,
        /// The address.
        address: IpAddr,
        /// That node's MAC address.
        mac: MacAddress,
    },
    /// Have no neighbour entry.
    RemoveNeighbour {
        /// The interface.
        interface: IfIndex,
        /// The address.
        address: IpAddr,
    },
    /// Make the data plane do this; the answer is [`Input::DataPlaneApplied`].
    ApplyDataPlane {
        /// Its number.
        generation: u64,
        /// The whole wish.
        desired: Arc<Desired>,
        /// The names of its interfaces.
        names: BTreeMap<IfIndex, InterfaceName>,
        /// The Services that came here from a dead node, with the last sign of life of that: their first
        /// packet is to be timed.
        taken_over: BTreeMap<ServiceKey, Instant>,
    },
    /// Write our `Speaker` object; the answer is [`Input::SpeakerWritten`].
    WriteSpeaker {
        /// Whether the object has to be created first.
        create: bool,
        /// What it is to say.
        report: SpeakerReport,
    },
    /// Write the status of a `VirtualIP`, provided it is still at this version; the answer is
    /// [`Input::VipStatusWritten`].
    WriteVipStatus {
        /// The address.
        address: IpAddr,
        /// The version it was decided for.
        resource_version: Arc<str>,
        /// The whole status.
        status: VipStatus,
    },
    /// Tell people on a Service.
    EmitEvent {
        /// The Service.
        service: herald_model::ServiceRef,
        /// The address it is about.
        address: IpAddr,
        /// In one word.
        reason: EventReason,
        /// In a sentence.
        note: String,
    },
    /// Ask the API server for everything anew: what the watches said may be old.
    Refresh,
    /// End at once, as a crash would, and hand nothing over.
    Crash,
    /// End: nothing is held any more, or the time is up.
    Exit {
        /// Before that, remove everything of ours from the node; then say [`Core::retired`](crate::Core::retired).
        retires: bool,
    },
}

/// How a takeover went, counted from the last sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Takeover {
    /// When observers began to suspect.
    pub suspected: Duration,
    /// When the death was certified.
    pub certified: Duration,
    /// When this node announced.
    pub announced: Duration,
}

/// The word of an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventReason {
    /// This node announces an address that nobody announced.
    Announced,
    /// This node announces an address that another announced.
    Moved,
    /// A stranger on the LAN answers for an address held here.
    AddressConflict,
    /// Another node took an address over, but does not answer for it.
    Unverified,
    /// The data plane has no room for something of the Service's.
    DataPlaneFull,
}

/// What must be complete before anything is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cache {
    /// `VirtualIP` objects.
    Vips,
    /// Services.
    Services,
    /// Endpoint slices.
    Endpoints,
    /// Nodes.
    Nodes,
    /// `Speaker` objects.
    Speakers,
    /// Interfaces, addresses and neighbours.
    Links,
}

impl Cache {
    /// Every cache.
    pub const ALL: [Self; 6] = [
        Self::Vips,
        Self::Services,
        Self::Endpoints,
        Self::Nodes,
        Self::Speakers,
        Self::Links,
    ];

    /// A word for messages.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vips => "virtualips",
            Self::Services => "services",
            Self::Endpoints => "endpointslices",
            Self::Nodes => "nodes",
            Self::Speakers => "speakers",
            Self::Links => "links",
        }
    }
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index.
    pub index: IfIndex,
    /// Its name.
    pub name: InterfaceName,
    /// Its MAC address; `None` if it is not Ethernet, then nothing is announced there.
    pub mac: Option<MacAddress>,
    /// Whether it is up and has carrier.
    pub carrier: bool,
    /// Whether it is administratively up.
    pub up: bool,
}

/// A `VirtualIP` object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedVip {
    /// Claim and plan.
    pub vip: VirtualIp,
    /// The version of the object.
    pub resource_version: Arc<str>,
    /// What its status says.
    pub status: VipStatus,
}

/// A `Speaker` object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedSpeaker {
    /// The node it is named after.
    pub node: NodeName,
    /// The version of the object.
    pub resource_version: Arc<str>,
    /// Whether people want it to remove everything of Herald's from its node.
    pub retire: bool,
    /// Its annotation `heraldlb.io/crash`: a new value asks for a crash.
    pub crash: Option<Arc<str>>,
    /// What its status says.
    pub report: SpeakerReport,
}

/// What a speaker says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SpeakerReport {
    /// Its version.
    pub version: Arc<str>,
    /// The kernel's boot id.
    pub boot_id: Arc<str>,
    /// Where it can announce.
    pub segments: Vec<SpeakerSegment>,
    /// The ring keys it accepts, the one it sends with first.
    pub key_ids: Vec<KeyId>,
    /// How it forwards; `None` until that is known.
    pub data_plane: Option<DataPlaneReport>,
    /// Whether the node's kube-proxy runs in mode ipvs.
    pub ipvs: bool,
    /// Conditions: [`ConditionKind::Ready`](crate::ConditionKind::Ready) and, if it does not hold,
    /// [`ConditionKind::TakesTraffic`](crate::ConditionKind::TakesTraffic).
    pub conditions: Vec<Condition>,
}

/// How a speaker forwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataPlaneReport {
    /// How the program is attached.
    pub mode: DataPlaneMode,
    /// Why it is not attached in a better way.
    pub reason: Option<Arc<str>>,
}

/// Whether the node's kernel forwards packets, by family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelForwarding {
    /// Of IPv4.
    pub ipv4: bool,
    /// Of IPv6.
    pub ipv6: bool,
}

/// How the program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataPlaneMode {
    /// By a tcx link.
    Tcx,
    /// As a filter of a clsact queueing discipline.
    Clsact,
    /// Not at all.
    None,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// It is written.
    Done,
    /// The object is at another version, or not there.
    Outdated,
    /// It failed; it is tried again.
    Failed,
}

/// What the kernel grants a thread that is not to be late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grants {
    /// How it is scheduled.
    pub priority: Priority,
    /// Whether the program's code stays in memory; else a page may have to be read from disk first.
    pub code_is_locked: bool,
}

/// How the kernel schedules a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// `SCHED_FIFO`: before every ordinary thread of the machine.
    RealTime,
    /// An ordinary thread with the best nice value.
    Nice,
    /// An ordinary thread: answers may be late under load.
    Normal,
}
