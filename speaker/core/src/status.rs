//! What a `VirtualIP`'s status says.

use std::sync::Arc;

use herald_model::{Epoch, InterfaceName, MacAddress, NodeName, SegmentName};

/// The whole status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VipStatus {
    /// Who announces it, in the order of the segments' names.
    pub segments: Vec<AnnouncedSegment>,
    /// How its traffic is forwarded.
    pub forwarding: Option<ForwardingState>,
    /// Why it is not forwarded as was asked.
    pub forwarding_reason: Option<Arc<str>>,
    /// How many nodes its traffic is spread over.
    pub targets: Option<u32>,
    /// The segments whose LAN was asked before it was used, in order; the answer is in condition
    /// [`ConditionKind::Conflict`].
    pub probed: Vec<SegmentName>,
    /// The segments on which nobody announces it, as it is left to a stranger, in order.
    pub yielded: Vec<SegmentName>,
    /// Conditions, ordered by kind.
    pub conditions: Vec<Condition>,
}

/// Who announces an address on one segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncedSegment {
    /// The segment.
    pub name: SegmentName,
    /// The node.
    pub node: NodeName,
    /// Its interface in the segment.
    pub interface: InterfaceName,
    /// The MAC address it answers with.
    pub mac: MacAddress,
    /// The version of the plan it acts on.
    pub epoch: Epoch,
    /// Since when, in seconds since 1970.
    pub since: i64,
    /// Why, in one word.
    pub reason: Arc<str>,
}

/// How traffic is forwarded, the best way first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ForwardingState {
    /// Straight to a pod.
    Pod,
    /// By MAC address to a node.
    Dsr,
    /// To a node's `NodePort`.
    NodePort,
    /// By kube-proxy on the announcing node.
    Off,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which.
    pub kind: ConditionKind,
    /// Whether it holds.
    pub holds: bool,
    /// Why, in one word.
    pub reason: Arc<str>,
    /// Why, in a sentence.
    pub message: String,
    /// When it last began or ceased to hold, in seconds since 1970.
    pub since: i64,
}

/// Which condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConditionKind {
    /// On a `VirtualIP`: a node announces it.
    Announced,
    /// On a `VirtualIP`: a stranger answers for it.
    Conflict,
    /// On a `VirtualIP`: its traffic reaches its Services.
    Forwarding,
    /// On a `Speaker`: it can announce and forward.
    Ready,
    /// On a `VirtualIP` that has moved: its new holder answers for it, as another node found.
    Verified,
    /// On a `Speaker`, if it does not hold: nodes may send traffic to its node.
    TakesTraffic,
}

impl Condition {
    /// A condition that has changed now, unless `before` says the same.
    pub(crate) fn new(
        kind: ConditionKind,
        holds: bool,
        reason: &str,
        message: String,
        before: &[Self],
        now: i64,
    ) -> Self {
        let since = before
            .iter()
            .find(|before| before.kind == kind && before.holds == holds)
            .map_or(now, |before| before.since);
        Self {
            kind,
            holds,
            reason: reason.into(),
            message,
            since,
        }
    }
}

/// One-word reasons, as in `herald-api`, which pure crates do not see.
pub(crate) mod reasons {
    pub(crate) const ANNOUNCED: &str = "Announced";
    pub(crate) const WAITING_FOR_SPEAKER: &str = "WaitingForSpeaker";
    pub(crate) const NO_ELIGIBLE_NODE: &str = "NoEligibleNode";
    pub(crate) const NO_ADVERTISEMENT: &str = "NoAdvertisement";
    pub(crate) const FORWARDING: &str = "Forwarding";
    pub(crate) const LEFT_TO_KUBE_PROXY: &str = "LeftToKubeProxy";
    pub(crate) const NO_ENDPOINTS: &str = "NoEndpoints";
    pub(crate) const NO_TARGETS: &str = "NoTargets";
    pub(crate) const DATA_PLANE_FAILED: &str = "DataPlaneFailed";
    pub(crate) const DATA_PLANE_FULL: &str = "DataPlaneFull";
    pub(crate) const ADDRESS_CONFLICT: &str = "AddressConflict";
    pub(crate) const NO_CONFLICT: &str = "NoConflict";
    pub(crate) const READY: &str = "Ready";
    pub(crate) const NO_SEGMENT: &str = "NoSegment";
    pub(crate) const NOT_FORWARDING: &str = "NotForwarding";
    pub(crate) const STOPPING: &str = "Stopping";
    pub(crate) const RETIRED: &str = "Retired";
    pub(crate) const NO_RING_KEY: &str = "NoRingKey";
    pub(crate) const NO_RING: &str = "NoRing";
    pub(crate) const TAKEN_OVER: &str = "TakenOver";
    pub(crate) const PLANNED: &str = "Planned";
    pub(crate) const HOLDER_ANSWERS: &str = "HolderAnswers";
    pub(crate) const ANOTHER_ANSWERS: &str = "AnotherAnswers";
    pub(crate) const NOBODY_ANSWERS: &str = "NobodyAnswers";
}
