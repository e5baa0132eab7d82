//! What goes into the controller and what comes out.

use std::net::IpAddr;
use std::sync::Arc;

use herald_model::{
    AddressRange, AdvertisementName, Instant, Labels, NamespaceName, Node, NodeName, PoolName,
    ServiceKey, Speaker, Uid, VirtualIp,
};

use crate::observed::{
    Condition, Identity, ObservedAdvertisement, ObservedPool, ObservedService, ObservedVip,
    PoolStatus, Slice, SpeakerPod, UserObject, Version,
};

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The wall clock: the time at the origin of the monotonic one, seconds since 1970.
    WallClockSet {
        /// Seconds since 1970 at [`herald_model::Instant::ORIGIN`].
        origin: i64,
    },
    /// A Service is there, in this form.
    ServiceApplied(Box<ObservedService>),
    /// A Service is gone; `uid` says which life of it.
    ServiceDeleted {
        /// Namespace and name.
        key: ServiceKey,
        /// The life that ended.
        uid: Uid,
    },
    /// A pool is there, in this form.
    PoolApplied(Box<ObservedPool>),
    /// A pool is gone.
    PoolDeleted(PoolName),
    /// An advertisement is there, in this form.
    AdvertisementApplied(Box<ObservedAdvertisement>),
    /// An advertisement is gone.
    AdvertisementDeleted(AdvertisementName),
    /// An object says something that cannot be: its last valid state stays in force.
    ObjectInvalid {
        /// Which object.
        object: UserObject,
        /// Its uid.
        uid: Uid,
        /// What is wrong with it.
        message: Arc<str>,
        /// Its condition `Ready`.
        ready: Option<Condition>,
    },
    /// A claim is there, in this form.
    VipApplied(Box<ObservedVip>),
    /// There is a claim on the address that cannot be read: the address is not to be given.
    VipInvalid {
        /// The address that its name stands for.
        address: IpAddr,
    },
    /// A claim is gone; `uid` says which life of it.
    VipDeleted {
        /// The address.
        address: IpAddr,
        /// The life that ended.
        uid: Uid,
    },
    /// A Node is there, in this form.
    NodeApplied(Box<Node>),
    /// A Node is gone.
    NodeDeleted(NodeName),
    /// A `Speaker` object is there, in this form.
    SpeakerApplied(Box<Speaker>),
    /// A `Speaker` object is gone.
    SpeakerDeleted(NodeName),
    /// A speaker's Pod is there, in this form.
    SpeakerPodApplied(SpeakerPod),
    /// A speaker's Pod is gone.
    SpeakerPodDeleted(Arc<str>),
    /// A Namespace is there, with these labels.
    NamespaceApplied(NamespaceName, Labels),
    /// A Namespace is gone.
    NamespaceDeleted(NamespaceName),
    /// An `EndpointSlice` is there, in this form.
    SliceApplied(Slice),
    /// An `EndpointSlice` is gone.
    SliceDeleted {
        /// The namespace and name of its Service.
        service: ServiceKey,
        /// The slice's name.
        name: Arc<str>,
    },
    /// A `ServiceCIDR` is there, with these ranges.
    ServiceRangesApplied(Arc<str>, Vec<AddressRange>),
    /// A `ServiceCIDR` is gone.
    ServiceRangesDeleted(Arc<str>),
    /// Every kind has been told of completely once.
    Synced,
    /// This replica leads from now on; told again whenever its lease is renewed.
    LeadershipGained {
        /// Then it leads no more: nothing is decided later, though nobody may have said yet that
        /// another has the lease, as when the process stood still.
        until: Instant,
    },
    /// This replica does not lead any more; the driver has stopped the writes that were under way.
    LeadershipLost,
    /// What came of an [`Effect::Write`].
    WriteDone {
        /// Which write.
        id: WriteId,
        /// What came of it.
        result: WriteResult,
    },
}

impl Input {
    /// This replica leads, and no lease ends that.
    pub const LEADS_FOR_GOOD: Self = Self::LeadershipGained {
        until: Instant::from_nanos(u64::MAX),
    };
}

/// Tells writes apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// Something is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make this write once and say what came of it by [`Input::WriteDone`].
    Write {
        /// Which write.
        id: WriteId,
        /// What to write.
        write: Box<Write>,
    },
}

/// A write to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Create the `VirtualIP`.
    CreateVip(VirtualIp),
    /// Replace the spec of the `VirtualIP`, if it is still this one at this version.
    ReplaceVip {
        /// What it must be now.
        identity: Identity,
        /// What it is to be.
        vip: VirtualIp,
    },
    /// Delete the `VirtualIP`, if it is still this one at this version.
    DeleteVip {
        /// Its address.
        address: IpAddr,
        /// What it must be now.
        identity: Identity,
    },
    /// Apply the status of a Service, if it is still this one at this version.
    ApplyServiceStatus {
        /// Namespace and name.
        key: ServiceKey,
        /// What it must be now.
        identity: Identity,
        /// What is to be in it.
        status: ServiceStatus,
    },
    /// Apply the status of a pool.
    ApplyPoolStatus {
        /// The pool.
        pool: PoolName,
        /// What is to be in it.
        status: PoolStatus,
    },
    /// Apply the condition `Ready` of an advertisement.
    ApplyAdvertisementReady {
        /// The advertisement.
        advertisement: AdvertisementName,
        /// The condition.
        ready: Condition,
    },
    /// Record an Event.
    RecordEvent(Event),
}

/// What Herald owns of a Service; what is absent is taken out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceStatus {
    /// The addresses; `None` leaves the list as it is and gives up what Herald owns of it.
    pub ingress: Option<Vec<IpAddr>>,
    /// Condition `heraldlb.io/Allocated`.
    pub allocated: Option<Condition>,
    /// Condition `heraldlb.io/Announced`.
    pub announced: Option<Condition>,
    /// Annotation `heraldlb.io/allocated-from`.
    pub allocated_from: Option<PoolName>,
}

/// The object an Event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Regarding {
    /// A Service.
    Service {
        /// Namespace and name.
        key: ServiceKey,
        /// Its uid.
        uid: Uid,
    },
    /// A pool or an advertisement.
    Object {
        /// Which.
        object: UserObject,
        /// Its uid.
        uid: Uid,
    },
}

/// An Event: something changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is about.
    pub regarding: Regarding,
    /// Whether somebody should look into it.
    pub warning: bool,
    /// In one word of a closed set.
    pub reason: Arc<str>,
    /// In a sentence.
    pub note: String,
}

/// What came of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteResult {
    /// The `VirtualIP` was created or replaced and is now this.
    VipWritten(Box<ObservedVip>),
    /// The `VirtualIP` does not exist: it was deleted, or was not there.
    VipGone,
    /// The `VirtualIP` is not what it must be for this write; it is this, if it was there when
    /// looked for.
    VipDiffers(Option<Box<ObservedVip>>),
    /// The Service's status was written.
    ServiceWritten {
        /// The version it made.
        version: Version,
        /// The addresses that the status shows now: those of other owners stay.
        ingress: Vec<IpAddr>,
    },
    /// The Service is not there at all.
    ServiceGone,
    /// The Service has changed since; its new form will come as [`Input::ServiceApplied`].
    ServiceDiffers,
    /// Somebody else owns fields of the Service that the write would have changed.
    FieldsOwned {
        /// Whether the addresses are among them.
        ingress: bool,
        /// Whether the annotation is among them.
        allocated_from: bool,
        /// What the API server says.
        message: String,
    },
    /// Anything else was written.
    Done,
    /// Nothing is known to have been written. It is tried again, later each time.
    Failed {
        /// What the API server, or the way to it, says.
        message: String,
        /// Whether the API server understood the write and said no to it.
        refused: bool,
    },
}
