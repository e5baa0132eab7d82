//! One address: whether it may be announced, where this node holds it, what its status says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use herald_model::{
    Announce, Epoch, IfIndex, Instant, InterfaceName, MacAddress, NodeName, SegmentName, Service,
    ServiceKey, VirtualIp,
};
use herald_ring::Timeline;

use crate::forwarding::Plan;
use crate::input::{ObservedVip, Takeover};
use crate::status::{
    AnnouncedSegment, Condition, ConditionKind, ForwardingState, VipStatus, reasons,
};
use crate::writer::Writer;

/// What the core keeps of one address.
#[derive(Debug)]
pub(crate) struct Vip {
    pub(crate) observed: ObservedVip,
    /// Boxed: a map has room for eleven of them, and there mostly is one.
    pub(crate) holds: BTreeMap<SegmentName, Box<Hold>>,
    pub(crate) writer: Writer<VipStatus>,
    /// Who else answered for it, and when that was last heard.
    pub(crate) conflict: Option<(MacAddress, Instant)>,
    /// A stranger that people have not been told of yet.
    pub(crate) conflict_to_tell: Option<MacAddress>,
    /// The segments on which it is left to a stranger.
    pub(crate) yielded: BTreeMap<SegmentName, Yielded>,
    /// What another node's hold was found to be worth; the status says it while that node holds it.
    pub(crate) finding: Option<Finding>,
    /// Whether the status has said so. Another node may have found something else since: it is said once.
    pub(crate) finding_is_said: bool,
    /// What the LAN was asked before the address is used, and under which plan.
    pub(crate) questions: BTreeMap<SegmentName, (Epoch, Answer)>,
    /// Whether the object is gone.
    pub(crate) deleted: bool,
}

/// That an address is left to a stranger on a segment, as its pool wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Yielded {
    /// Who, if we have heard it ourselves.
    pub(crate) stranger: Option<MacAddress>,
    /// When it was last heard, or we began to ask.
    pub(crate) heard: Instant,
    /// When we asked last; `None`: that is not for us to do.
    pub(crate) asked: Option<Instant>,
    /// Whether the status has said it.
    pub(crate) is_said: bool,
    /// Whether it has been silent for long enough.
    pub(crate) is_free: bool,
}

/// How the LAN answered for an address that another node took over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) segment: SegmentName,
    pub(crate) holder: NodeName,
    /// Whether the holder answered.
    pub(crate) is_right: bool,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

/// What came of asking whether somebody uses an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Not known yet.
    Open,
    /// Nobody does.
    Silent,
    /// Somebody does.
    InUse(MacAddress),
}

/// That this node holds an address on a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hold {
    pub(crate) interface: IfIndex,
    pub(crate) interface_name: InterfaceName,
    pub(crate) mac: MacAddress,
    pub(crate) epoch: Epoch,
    /// Our place among the plan's candidates.
    pub(crate) rank: u8,
    /// Whether the ring knows, of this epoch.
    pub(crate) told: bool,
    /// From whom it was taken over, and when its death was noticed.
    pub(crate) fallen: Option<(NodeName, Option<Timeline>)>,
    /// The address, on the segment, of a node that held it until then and goes on forwarding.
    pub(crate) before: Option<IpAddr>,
    /// Seconds since 1970.
    pub(crate) since: i64,
    /// Whether it is announced; before that, the data plane is waited for.
    pub(crate) announced: bool,
    /// The wish that has to reach the data plane before; `None`: not known yet.
    pub(crate) generation: Option<u64>,
    /// Whether a neighbour entry was asked for.
    pub(crate) neighbour: Option<MacAddress>,
}

impl Hold {
    /// How it was taken over, if it was, and announced now.
    pub(crate) fn takeover(&self, now: Instant) -> Option<Takeover> {
        let (_, timeline) = self.fallen.as_ref()?;
        let timeline = timeline.as_ref()?;
        let after = |then: Instant| then.saturating_since(timeline.last_heartbeat);
        Some(Takeover {
            suspected: after(timeline.suspected),
            certified: after(timeline.certified),
            announced: after(now),
        })
    }
}

impl Vip {
    /// Whether the status says what we found.
    pub(crate) fn says_finding(&self) -> bool {
        let says = |finding: &Finding| {
            let mut conditions = self.observed.status.conditions.iter();
            conditions.any(|condition| {
                condition.kind == ConditionKind::Verified && condition.message == finding.message
            })
        };
        self.finding.as_ref().is_some_and(says)
    }

    pub(crate) fn new(observed: ObservedVip) -> Self {
        Self {
            observed,
            holds: BTreeMap::new(),
            writer: Writer::default(),
            conflict: None,
            conflict_to_tell: None,
            yielded: BTreeMap::new(),
            finding: None,
            finding_is_said: false,
            questions: BTreeMap::new(),
            deleted: false,
        }
    }

    /// The segments on which it is left to a stranger that we have heard, without those that others
    /// speak for.
    fn left(&self, spoken_for: &BTreeSet<SegmentName>) -> BTreeMap<SegmentName, MacAddress> {
        let is_ours =
            |name: &SegmentName| !self.holds.contains_key(name) && !spoken_for.contains(name);
        self.yielded
            .iter()
            .filter(|(name, yielded)| !yielded.is_free && is_ours(name))
            .filter_map(|(name, yielded)| Some((name.clone(), yielded.stranger?)))
            .collect()
    }
}

/// The Services that hold an address: listed in its claim, with that uid, and with the address in
/// their status. In the order of the claim, so that every node gives a port to the same Service.
pub(crate) fn holders<'a>(
    vip: &VirtualIp,
    services: &'a BTreeMap<ServiceKey, Service>,
) -> Vec<&'a Service> {
    vip.services
        .iter()
        .filter_map(|reference| {
            services
                .get(&reference.key)
                .filter(|service| service.uid == reference.uid)
                .filter(|service| service.ingress.contains(&vip.address))
        })
        .collect()
}

/// What the status is to say, or `None` if it is not for this node to say anything.
///
/// A node that holds the address somewhere writes the status: its own segments, and what others
/// wrote of theirs; what is said of the address as a whole is said by the holder of the first
/// segment, so that two never contradict each other in turn. A node that holds it no longer takes its own entries away, unless the plan
/// names a successor, who will replace them, or the segment is spoken for: another is known to hold it
/// there, or this node may as soon as its sockets and its ring are there.
pub(crate) fn wanted_status(
    vip: &Vip,
    me: &NodeName,
    plan: &Plan,
    data_plane_error: Option<&str>,
    spoken_for: &BTreeSet<SegmentName>,
    now: i64,
) -> Option<VipStatus> {
    let (spec, observed) = (&vip.observed.vip, &vip.observed.status);
    let successor = |segment: &SegmentName| {
        spec.segments
            .iter()
            .find(|planned| planned.name == *segment)
            .and_then(|planned| planned.candidates.first())
            .is_some_and(|candidate| candidate.node != *me)
    };
    let left = vip.left(spoken_for);
    let is_abandoned = |entry: &AnnouncedSegment| {
        entry.node == *me
            && entry.epoch <= spec.epoch
            && !vip.holds.contains_key(&entry.name)
            && !spoken_for.contains(&entry.name)
            && (!successor(&entry.name) || left.contains_key(&entry.name))
    };
    let holds = vip.holds.values().any(|hold| hold.announced);
    let is_news = left.keys().any(|name| !observed.yielded.contains(name));
    if !holds && !is_news && !observed.segments.iter().any(is_abandoned) {
        return None;
    }

    let is_planned = |name: &SegmentName| spec.segments.iter().any(|planned| planned.name == *name);
    let mut yielded: BTreeSet<SegmentName> = observed.yielded.iter().cloned().collect();
    yielded.retain(|name| vip.yielded.contains_key(name) && !vip.holds.contains_key(name));
    yielded.extend(left.keys().cloned());
    let mut segments: BTreeMap<SegmentName, AnnouncedSegment> = observed
        .segments
        .iter()
        .filter(|entry| is_planned(&entry.name) && !is_abandoned(entry))
        .map(|entry| (entry.name.clone(), entry.clone()))
        .collect();
    for (name, hold) in vip.holds.iter().filter(|(_, hold)| hold.announced) {
        let is_newer = |entry: &AnnouncedSegment| entry.epoch > hold.epoch;
        if !segments.get(name).is_some_and(is_newer) {
            segments.insert(name.clone(), entry(name, me, hold));
        }
    }
    let segments: Vec<AnnouncedSegment> = segments.into_values().collect();
    // What was found of one holder says nothing about the next.
    let is_as_found = segments.iter().all(|entry| {
        let mut observed = observed.segments.iter();
        observed.any(|before| before.name == entry.name && before.node == entry.node)
    });
    let verified = |condition: &&Condition| condition.kind == ConditionKind::Verified;
    let verified = observed.conditions.iter().find(verified);
    let verified = verified
        .filter(|_| is_as_found && !segments.is_empty())
        .cloned();
    let yielded: Vec<SegmentName> = yielded.into_iter().collect();
    let before = &observed.conditions;
    let conflict = match (left.into_values().min(), vip.conflict) {
        (Some(mac), _) => conflict(Some(mac), true, before, now),
        (None, Some((mac, _heard))) => conflict(Some(mac), false, before, now),
        // Whoever left it to a stranger said to which.
        (None, None) => said_conflict(before)
            .filter(|_| !yielded.is_empty())
            .unwrap_or_else(|| conflict(None, false, before, now)),
    };
    if segments.first().is_some_and(|first| first.node != *me) {
        let mut conditions = before.clone();
        conditions.retain(|condition| condition.kind != ConditionKind::Verified);
        conditions.extend(verified);
        if is_news {
            conditions.retain(|condition| condition.kind != ConditionKind::Conflict);
            conditions.push(conflict);
            conditions.sort_by_key(|condition| condition.kind);
        }
        return Some(VipStatus {
            segments,
            yielded,
            conditions,
            ..observed.clone()
        });
    }
    let mut conditions = conditions(vip, &segments, plan, data_plane_error, now);
    if !segments.is_empty() || !yielded.is_empty() {
        conditions.insert(1, conflict);
    }
    conditions.extend(verified);
    Some(VipStatus {
        segments,
        forwarding: plan.state,
        forwarding_reason: (!plan.reasons.is_empty()).then(|| plan.reasons.join("; ").into()),
        targets: plan.targets,
        probed: Vec::new(),
        yielded,
        conditions,
    })
}

/// The same, or what is observed, with what this node found of another's hold. The holder itself says that
/// it holds the address before anybody says whether it answers.
pub(crate) fn with_finding(vip: &Vip, wanted: Option<VipStatus>, now: i64) -> Option<VipStatus> {
    let observed = &vip.observed.status;
    let Some(finding) = vip.finding.as_ref().filter(|_| !vip.finding_is_said) else {
        return wanted;
    };
    let is_said =
        |entry: &AnnouncedSegment| entry.name == finding.segment && entry.node == finding.holder;
    if !observed.segments.iter().any(is_said) {
        return wanted;
    }
    let verified = Condition::new(
        ConditionKind::Verified,
        finding.is_right,
        finding.reason,
        finding.message.clone(),
        &observed.conditions,
        now,
    );
    if wanted.is_none() && observed.conditions.contains(&verified) {
        return None;
    }
    let mut status = wanted.unwrap_or_else(|| observed.clone());
    status
        .conditions
        .retain(|condition| condition.kind != ConditionKind::Verified);
    status.conditions.push(verified);
    Some(status)
}

/// The condition, if it says that there is a stranger.
fn said_conflict(conditions: &[Condition]) -> Option<Condition> {
    conditions
        .iter()
        .find(|condition| condition.kind == ConditionKind::Conflict && condition.holds)
        .cloned()
}

/// What the status is to say of an address that is not used yet: what came of asking, beside what
/// others said of their segments. `None`: nothing that it does not say.
pub(crate) fn probing_status(vip: &Vip, now: i64) -> Option<VipStatus> {
    let observed = &vip.observed.status;
    let answers = vip.questions.iter();
    let known: BTreeMap<&SegmentName, Answer> = answers
        .map(|(name, (_, answer))| (name, *answer))
        .filter(|(_, answer)| *answer != Answer::Open)
        .collect();
    if known.keys().all(|name| observed.probed.contains(name)) {
        return None;
    }
    let user = known.values().find_map(|answer| match answer {
        Answer::InUse(mac) => Some(*mac),
        Answer::Open | Answer::Silent => None,
    });
    let conflict = match (user, said_conflict(&observed.conditions)) {
        (None, Some(said)) => said,
        (user, _) => conflict(user, false, &observed.conditions, now),
    };
    let mut probed: BTreeSet<SegmentName> = observed.probed.iter().cloned().collect();
    probed.extend(known.into_keys().cloned());
    Some(VipStatus {
        probed: probed.into_iter().collect(),
        conditions: vec![conflict],
        ..observed.clone()
    })
}

fn conflict(user: Option<MacAddress>, is_left: bool, before: &[Condition], now: i64) -> Condition {
    let left = if is_left {
        ": nobody announces it until that machine has been silent for a minute"
    } else {
        ""
    };
    let (holds, reason, message) = match user {
        Some(mac) => (
            true,
            reasons::ADDRESS_CONFLICT,
            format!("{mac} answers for the address, and belongs to no node of the cluster{left}"),
        ),
        None => (
            false,
            reasons::NO_CONFLICT,
            "nobody else answers for the address".to_owned(),
        ),
    };
    Condition::new(ConditionKind::Conflict, holds, reason, message, before, now)
}

fn entry(name: &SegmentName, me: &NodeName, hold: &Hold) -> AnnouncedSegment {
    AnnouncedSegment {
        name: name.clone(),
        node: me.clone(),
        interface: hold.interface_name.clone(),
        mac: hold.mac,
        epoch: hold.epoch,
        since: hold.since,
        reason: match hold.rank {
            0 => reasons::PLANNED,
            _not_planned => reasons::TAKEN_OVER,
        }
        .into(),
    }
}

fn conditions(
    vip: &Vip,
    segments: &[AnnouncedSegment],
    plan: &Plan,
    data_plane_error: Option<&str>,
    now: i64,
) -> Vec<Condition> {
    let before = &vip.observed.status.conditions;
    let new = |kind, (holds, reason, message): (bool, &str, String)| {
        Condition::new(kind, holds, reason, message, before, now)
    };
    let announced = new(ConditionKind::Announced, announced(vip, segments));
    if segments.is_empty() {
        return vec![announced];
    }
    vec![
        announced,
        new(
            ConditionKind::Forwarding,
            forwarding(plan, data_plane_error),
        ),
    ]
}

fn announced(vip: &Vip, segments: &[AnnouncedSegment]) -> (bool, &'static str, String) {
    let spec = &vip.observed.vip;
    if !segments.is_empty() {
        let places: Vec<String> = segments
            .iter()
            .map(|entry| format!("{} on {}", entry.node, entry.interface))
            .collect();
        let message = format!("announced by {}", places.join(", "));
        return (true, reasons::ANNOUNCED, message);
    }
    let (reason, message) = if spec.announce == Announce::None {
        (
            reasons::NO_ADVERTISEMENT,
            "the pool wants an L2Advertisement, and none selects it",
        )
    } else if spec
        .segments
        .iter()
        .all(|planned| planned.candidates.is_empty())
    {
        (reasons::NO_ELIGIBLE_NODE, "no node may announce it")
    } else if vip.yielded.is_empty() {
        (reasons::WAITING_FOR_SPEAKER, "no node announces it now")
    } else {
        (
            reasons::ADDRESS_CONFLICT,
            "a stranger on the LAN answers for it, and its pool wants it left to that machine",
        )
    };
    (false, reason, message.to_owned())
}

fn forwarding(plan: &Plan, data_plane_error: Option<&str>) -> (bool, &'static str, String) {
    if !plan.has_endpoints {
        return (
            false,
            reasons::NO_ENDPOINTS,
            "no Service behind it has an endpoint that is ready".to_owned(),
        );
    }
    if !plan.refused.is_empty() {
        return (false, reasons::DATA_PLANE_FULL, plan.refused.join("; "));
    }
    let (
        Some(state @ (ForwardingState::Pod | ForwardingState::Dsr | ForwardingState::NodePort)),
        Some(targets),
    ) = (plan.state, plan.targets)
    else {
        return (
            true,
            reasons::LEFT_TO_KUBE_PROXY,
            "kube-proxy on the announcing node takes its traffic".to_owned(),
        );
    };
    if targets == 0 {
        return (
            false,
            reasons::NO_TARGETS,
            "endpoints exist, but no node can take their traffic".to_owned(),
        );
    }
    if let Some(error) = data_plane_error {
        return (false, reasons::DATA_PLANE_FAILED, error.to_owned());
    }
    let nodes = match targets {
        1 => "1 node".to_owned(),
        targets => format!("{targets} nodes"),
    };
    let message = match state {
        ForwardingState::Pod => {
            format!("spread over the pods of {nodes}, which answer clients themselves")
        }
        ForwardingState::NodePort => format!("spread over the NodePorts of {nodes}"),
        ForwardingState::Dsr | ForwardingState::Off => {
            format!("spread over {nodes}, which answer clients themselves")
        }
    };
    (true, reasons::FORWARDING, message)
}
