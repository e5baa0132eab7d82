use herald_dataplane::{DesiredVip, Forwarding, Holder};
use herald_model::{
    Announce, Candidate, ConflictPolicy, Endpoint, Epoch, Family, ForwardingMode, IpFamilyPolicy,
    Labels, Phase, Protocol, Request, Scope, ServicePort, ServiceRef, SessionAffinity,
    SpeakerSegment, Tenure, TrafficPolicy, VipSegment, VirtualIp,
};

use herald_elect::hold::NO_RANK;
use herald_ring::{Keys, Timeline};

use super::*;
use crate::input::{DataPlaneMode, DataPlaneReport, EventReason, Link, Priority};
use crate::ring::{RingCommand, RingEvent, View};
use crate::status::{AnnouncedSegment, Condition, ConditionKind, ForwardingState, VipStatus};

mod conflicts;
mod full;
mod probing;
mod settling;
mod stop;
mod taking_part;
mod unfit;
mod verifying;

const ETH0: IfIndex = IfIndex(2);
const MAC1: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
const MAC2: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);
const STRANGER: MacAddress = MacAddress([2, 0, 0, 0, 0, 0xee]);
const SEGMENT: &str = "192.0.2.0/24";
/// Wall clock at the origin.
const EPOCH: i64 = 1_000_000;

fn vip4() -> IpAddr {
    "192.0.2.10".parse().unwrap()
}

fn vip6() -> IpAddr {
    "2001:db8::10".parse().unwrap()
}

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn candidate(node: &str, incarnation: u64) -> Candidate {
    Candidate {
        node: node.into(),
        incarnation: Incarnation(incarnation),
    }
}

fn node(name: &str, last: u8) -> Input {
    Input::NodeApplied {
        node: Node {
            name: name.into(),
            labels: Labels::new(),
            addresses: vec![IpAddr::from([192, 0, 2, last])],
            ready: true,
            network_unavailable: false,
            excluded: false,
            out_of_service: false,
            departure: None,
            pod_ranges: Vec::new(),
        },
        segments: BTreeMap::new(),
    }
}

fn speaker(name: &str, mac: MacAddress, last: u8, boot_id: &str, incarnation: u64) -> Input {
    Input::SpeakerApplied(ObservedSpeaker {
        node: name.into(),
        resource_version: "1".into(),
        retire: false,
        crash: None,
        report: SpeakerReport {
            boot_id: boot_id.into(),
            segments: vec![SpeakerSegment {
                name: SEGMENT.into(),
                interface: "eth0".into(),
                mac,
                prefixes: vec![format!("192.0.2.{last}/24").parse().unwrap()],
                gateways: Vec::new(),
                carrier: true,
                incarnation: Incarnation(incarnation),
            }],
            ..SpeakerReport::default()
        },
    })
}

fn service(name: &str, addresses: &[IpAddr]) -> Service {
    Service {
        key: ServiceKey::new("ns", name),
        uid: format!("uid-{name}").into(),
        created: 0,
        labels: Labels::new(),
        families: vec![Family::V4],
        ip_family_policy: IpFamilyPolicy::SingleStack,
        request: Request::default(),
        sharing_key: None,
        scope: Scope::External,
        ports: vec![ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(30_080),
        }],
        traffic_policy: TrafficPolicy::Cluster,
        health_check_node_port: None,
        affinity: SessionAffinity::None,
        source_ranges: Vec::new(),
        publish_not_ready: false,
        selector: Labels::new(),
        forwarding: ForwardingMode::Auto,
        ingress: addresses.to_vec(),
        allocated_from: None,
        deleting: false,
    }
}

fn applied(service: Service) -> Input {
    Input::ServiceApplied(Box::new(service))
}

fn endpoints(name: &str) -> Input {
    let endpoint = |address: &str| Endpoint {
        address: address.parse().unwrap(),
        node: Some("node2".into()),
        ready: true,
        serving: true,
        terminating: false,
        ports: Arc::default(),
    };
    Input::EndpointsApplied(ServiceEndpoints {
        service: ServiceKey::new("ns", name),
        endpoints: vec![endpoint("10.244.0.1"), endpoint("fd00::1")],
    })
}

fn reference(name: &str) -> ServiceRef {
    ServiceRef {
        key: ServiceKey::new("ns", name),
        uid: format!("uid-{name}").into(),
    }
}

fn observed(address: IpAddr, epoch: u64, holder: &str, version: &str) -> ObservedVip {
    ObservedVip {
        vip: VirtualIp {
            address,
            pool: "pool".into(),
            epoch: Epoch(epoch),
            phase: Phase::Active,
            announce: Announce::All,
            conflict_policy: ConflictPolicy::Defend,
            advertisements: Vec::new(),
            services: vec![reference("web")],
            segments: vec![VipSegment {
                name: SEGMENT.into(),
                candidates: vec![Candidate {
                    node: holder.into(),
                    incarnation: Incarnation(1),
                }],
            }],
        },
        resource_version: version.into(),
        status: VipStatus::default(),
    }
}

fn vip(address: IpAddr, epoch: u64, holder: &str) -> Input {
    Input::VipApplied(observed(address, epoch, holder, "7"))
}

fn data_plane(mode: DataPlaneMode) -> Input {
    Input::DataPlaneKnown(DataPlaneReport { mode, reason: None })
}

fn link(carrier: bool) -> Input {
    Input::LinkApplied(Link {
        index: ETH0,
        name: "eth0".into(),
        mac: Some(MAC1),
        carrier,
        up: true,
    })
}

fn address(text: &str) -> Input {
    Input::AddressAdded {
        interface: ETH0,
        address: text.parse().unwrap(),
    }
}

/// What the ring sees: these are up, the rest is dead, and there is quorum.
fn view(live: &[(&str, u64)]) -> Input {
    let lives: BTreeMap<NodeName, Incarnation> = live
        .iter()
        .map(|(node, life)| (NodeName::from(*node), Incarnation(*life)))
        .collect();
    let dead = ["node1", "node2", "node3"]
        .into_iter()
        .filter(|node| !lives.contains_key(*node))
        .map(|node| (node.into(), (Incarnation(1), herald_ring::Scope::Node)))
        .collect();
    said(RingEvent::View(View {
        incarnation: lives["node1"],
        quorum: true,
        live: lives,
        dead,
    }))
}

fn said(event: RingEvent) -> Input {
    Input::RingSaid {
        segment: SEGMENT.into(),
        event,
    }
}

/// What node2 says of the address.
fn claim(address: IpAddr, epoch: u64, rank: u8, held: bool) -> Input {
    claimed(address, epoch, rank, tenure(held))
}

fn claimed(address: IpAddr, epoch: u64, rank: u8, tenure: Tenure) -> Input {
    said(RingEvent::Hold(herald_ring::Hold {
        vip: address,
        epoch: Epoch(epoch),
        rank,
        node: "node2".into(),
        incarnation: Incarnation(1),
        tenure,
    }))
}

fn told(epoch: u64, rank: u8, held: bool) -> RingCommand {
    RingCommand::HoldChanged {
        vip: vip4(),
        epoch: Epoch(epoch),
        rank,
        tenure: tenure(held),
    }
}

fn tenure(held: bool) -> Tenure {
    if held { Tenure::Held } else { Tenure::LetGo }
}

/// The LAN is asked who has the address.
fn asked() -> Effect {
    Effect::Layer2(herald_l2::Input::Probe {
        interface: ETH0,
        address: vip4(),
    })
}

/// Who answered, if anybody did.
fn answered(user: Option<MacAddress>) -> Input {
    Input::Probed {
        interface: ETH0,
        address: vip4(),
        user,
    }
}

fn held(address: IpAddr) -> Effect {
    Effect::Layer2(herald_l2::Input::Held {
        interface: ETH0,
        address,
    })
}

fn released(address: IpAddr) -> Effect {
    Effect::Layer2(herald_l2::Input::Released {
        interface: ETH0,
        address,
    })
}

fn set_neighbour(address: IpAddr) -> Effect {
    Effect::SetNeighbour {
        interface: ETH0,
        address,
        mac: MAC1,
    }
}

fn remove_neighbour(address: IpAddr) -> Effect {
    Effect::RemoveNeighbour {
        interface: ETH0,
        address,
    }
}

/// It is node2's now.
fn leave_neighbour(address: IpAddr) -> Effect {
    Effect::LeaveNeighbour {
        interface: ETH0,
        address,
        mac: MAC2,
    }
}

fn entry(node: &str, mac: MacAddress, epoch: u64, since: i64) -> AnnouncedSegment {
    AnnouncedSegment {
        name: SEGMENT.into(),
        node: node.into(),
        interface: "eth0".into(),
        mac,
        epoch: Epoch(epoch),
        since,
        reason: "Planned".into(),
    }
}

fn condition(
    kind: ConditionKind,
    holds: bool,
    reason: &str,
    message: &str,
    since: i64,
) -> Condition {
    Condition {
        kind,
        holds,
        reason: reason.into(),
        message: message.to_owned(),
        since,
    }
}

fn status(epoch: u64, since: i64) -> VipStatus {
    VipStatus {
        segments: vec![entry("node1", MAC1, epoch, since)],
        forwarding: Some(ForwardingState::Dsr),
        forwarding_reason: None,
        targets: Some(2),
        probed: Vec::new(),
        yielded: Vec::new(),
        conditions: vec![
            condition(
                ConditionKind::Announced,
                true,
                "Announced",
                "announced by node1 on eth0",
                since,
            ),
            condition(
                ConditionKind::Conflict,
                false,
                "NoConflict",
                "nobody else answers for the address",
                since,
            ),
            condition(
                ConditionKind::Forwarding,
                true,
                "Forwarding",
                "spread over 2 nodes, which answer clients themselves",
                since,
            ),
        ],
    }
}

fn write(version: &str, status: VipStatus) -> Effect {
    Effect::WriteVipStatus {
        address: vip4(),
        resource_version: version.into(),
        status,
    }
}

fn event(reason: EventReason, note: &str) -> Effect {
    Effect::EmitEvent {
        service: reference("web"),
        address: vip4(),
        reason,
        note: note.to_owned(),
    }
}

/// A speaker on node1 of two nodes, both in one segment.
struct Story {
    core: Core,
    now: u64,
    /// The last wish for the data plane.
    desired: Option<(u64, Arc<Desired>)>,
    /// What it said of first packets.
    taken_over: BTreeMap<ServiceKey, Instant>,
    /// What the rings were told by the last inputs.
    ring: Vec<RingCommand>,
    keys: RingKeys,
}

impl Story {
    fn new() -> Self {
        let config = Config {
            boot_id: "boot".into(),
            wall_origin: EPOCH,
            ..Config::new("node1".into())
        };
        Self {
            core: Core::new(config),
            now: 0,
            desired: None,
            taken_over: BTreeMap::new(),
            ring: Vec::new(),
            keys: RingKeys(None),
        }
    }

    /// Everything is known, sockets are open, and there is no address yet.
    fn ready(mode: DataPlaneMode) -> Self {
        Self::new().know_all(mode)
    }

    fn know_all(self, mode: DataPlaneMode) -> Self {
        let mut story = self;
        story.tell([
            link(true),
            address("192.0.2.11/24"),
            address("fe80::1/64"),
            node("node1", 11),
            node("node2", 12),
            speaker("node1", MAC1, 11, "boot", 1),
            speaker("node2", MAC2, 12, "other", 1),
            data_plane(mode),
        ]);
        story.tell(Cache::ALL.map(Input::Synced));
        story.tell([Input::PortOpened(ETH0)]);
        story.tell([
            Input::RingKeysKnown(vec![KeyId(1)]),
            view(&[("node1", 1), ("node2", 1)]),
        ]);
        story.now = 300;
        story.decide();
        story.applied();
        story
    }

    /// The inputs, and what follows. Wishes for the data plane, words to the ring and our own object
    /// are not among the effects: tests that concern them look at them.
    fn tell(&mut self, inputs: impl IntoIterator<Item = Input>) -> Vec<Effect> {
        for input in inputs {
            self.core.handle(at(self.now), input);
        }
        self.decide()
    }

    fn decide(&mut self) -> Vec<Effect> {
        let mut out = Vec::new();
        self.core.on_deadline(at(self.now), &mut out);
        let mut rest = Vec::new();
        self.ring.clear();
        for effect in out {
            match effect {
                Effect::ApplyDataPlane {
                    generation,
                    desired,
                    taken_over,
                    ..
                } => {
                    self.desired = Some((generation, desired));
                    self.taken_over = taken_over;
                }
                Effect::WriteSpeaker { .. } => {}
                Effect::Ring { segment, command } => {
                    if segment.as_str() == SEGMENT {
                        self.ring.push(command);
                    }
                }
                Effect::SetRingKeys(keys) => self.keys = keys,
                other => rest.push(other),
            }
        }
        rest
    }

    /// The data plane does what it was asked to.
    fn applied(&mut self) -> Vec<Effect> {
        let generation = self
            .desired
            .as_ref()
            .map_or(0, |(generation, _)| *generation);
        self.tell([Input::DataPlaneApplied {
            generation,
            outcome: Ok(Arc::default()),
        }])
    }

    fn desired_vip(&self, address: IpAddr) -> Option<&DesiredVip> {
        self.desired.as_ref()?.1.vips.get(&address)
    }

    /// `web` has its address, and node1 is planned to hold it.
    fn announcing(mode: DataPlaneMode) -> Self {
        let mut story = Self::ready(mode);
        story.now = 1_000;
        story.tell([
            endpoints("web"),
            applied(service("web", &[vip4()])),
            vip(vip4(), 1, "node1"),
        ]);
        story.applied();
        story.tell([Input::VipStatusWritten {
            address: vip4(),
            outcome: WriteOutcome::Done,
        }]);
        story.see_status("8", status(1, EPOCH + 1));
        story
    }

    /// The watch delivers what was written.
    fn see_status(&mut self, version: &str, status: VipStatus) -> Vec<Effect> {
        let mut seen = observed(vip4(), 1, "node1", version);
        seen.status = status;
        self.tell([Input::VipApplied(seen)])
    }
}

#[test]
fn address_is_announced_once_the_data_plane_knows_it() {
    let mut story = Story::ready(DataPlaneMode::Tcx);
    story.now = 1_000;
    assert_eq!(
        story.tell([
            endpoints("web"),
            applied(service("web", &[vip4()])),
            vip(vip4(), 1, "node1"),
        ]),
        [],
    );
    let desired = story.desired_vip(vip4()).unwrap();
    assert_eq!(desired.holders, BTreeMap::from([(ETH0, Holder::Me)]));
    assert!(matches!(
        desired.services[0].forwarding,
        Forwarding::Dsr {
            by_address: false,
            node_port: Some(30_080),
            ..
        }
    ));
    assert_eq!(
        story.applied(),
        [
            set_neighbour(vip4()),
            held(vip4()),
            event(
                EventReason::Announced,
                "node1 announces 192.0.2.10 on eth0 (02:00:00:00:00:01)"
            ),
            write("7", status(1, EPOCH + 1)),
        ]
    );
}

#[test]
fn without_a_data_plane_kube_proxy_serves_what_is_announced_at_once() {
    let mut story = Story::ready(DataPlaneMode::None);
    let effects = story.tell([
        endpoints("web"),
        applied(service("web", &[vip4()])),
        vip(vip4(), 1, "node1"),
    ]);
    assert_eq!(effects[0], held(vip4()));
    let Effect::WriteVipStatus { status, .. } = &effects[2] else {
        panic!("{effects:?}");
    };
    assert_eq!(status.forwarding, Some(ForwardingState::Off));
    assert!(
        status
            .forwarding_reason
            .as_ref()
            .unwrap()
            .contains("not available")
    );
}

#[test]
fn nothing_is_decided_before_every_cache_is_complete() {
    for missing in Cache::ALL {
        let mut story = Story::new();
        let mut out = story.tell([
            link(true),
            address("192.0.2.11/24"),
            data_plane(DataPlaneMode::None),
            node("node1", 11),
            applied(service("web", &[vip4()])),
            vip(vip4(), 1, "node1"),
            Input::RingKeysKnown(vec![KeyId(1)]),
        ]);
        let caches = Cache::ALL.into_iter().filter(|cache| *cache != missing);
        out.extend(story.tell(caches.map(Input::Synced)));
        out.extend(story.tell([Input::PortOpened(ETH0)]));
        out.extend(story.tell([view(&[("node1", 1)])]));
        let port = Effect::Layer2(herald_l2::Input::PortSet(herald_l2::Port {
            index: ETH0,
            mac: MAC1,
            source: None,
        }));
        assert_eq!(out, [port], "without {missing:?}");
    }
}

#[test]
fn claim_without_the_service_it_names_is_not_announced() {
    let another_life = Service {
        uid: "another".into(),
        ..service("web", &[vip4()])
    };
    for wrong in [
        another_life,
        service("web", &[]),
        service("other", &[vip4()]),
    ] {
        let mut story = Story::ready(DataPlaneMode::Tcx);
        assert_eq!(story.tell([applied(wrong), vip(vip4(), 1, "node1")]), []);
        assert_eq!(story.desired_vip(vip4()), None);
    }
}

#[test]
fn phases_other_than_active_are_not_announced() {
    let probe = Effect::Layer2(herald_l2::Input::Probe {
        interface: ETH0,
        address: vip4(),
    });
    let phases = [
        (Phase::Probing, vec![probe]),
        (Phase::Resting { until: 5 }, Vec::new()),
    ];
    for (phase, expected) in phases {
        let mut story = Story::ready(DataPlaneMode::Tcx);
        let mut claimed = observed(vip4(), 1, "node1", "7");
        claimed.vip.phase = phase;
        let inputs = [
            applied(service("web", &[vip4()])),
            Input::VipApplied(claimed),
        ];
        assert_eq!(story.tell(inputs), expected);
    }
}

#[test]
fn plan_for_an_earlier_life_of_the_node_is_not_followed() {
    let mut story = Story::new();
    story.tell([
        link(true),
        address("192.0.2.11/24"),
        node("node1", 11),
        speaker("node1", MAC1, 11, "an earlier boot", 1),
        data_plane(DataPlaneMode::None),
    ]);
    story.tell(Cache::ALL.map(Input::Synced));
    story.tell([Input::PortOpened(ETH0), view(&[("node1", 2), ("node2", 1)])]);
    story.now = 300;
    assert_eq!(story.core.incarnations[SEGMENT], Incarnation(2));
    let mut planned = observed(vip4(), 1, "node1", "7");
    planned.vip.segments[0]
        .candidates
        .push(candidate("node2", 1));
    let inputs = [
        applied(service("web", &[vip4()])),
        Input::VipApplied(planned),
    ];
    assert_eq!(story.tell(inputs), [], "node2 is next");

    let mut replanned = observed(vip4(), 2, "node1", "8");
    replanned.vip.segments[0].candidates[0].incarnation = Incarnation(2);
    let effects = story.tell([Input::VipApplied(replanned)]);
    assert_eq!(effects[0], held(vip4()));
}

#[test]
fn deleted_service_leaves_no_residue() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    story.now = 9_000;
    let effects = story.tell([Input::ServiceDeleted(ServiceKey::new("ns", "web"))]);
    assert_eq!(effects[..2], [released(vip4()), remove_neighbour(vip4())]);
    let Effect::WriteVipStatus { status, .. } = &effects[2] else {
        panic!("{effects:?}");
    };
    assert_eq!(status.segments, []);
    assert_eq!(status.forwarding, None);
    assert!(!status.conditions[0].holds);
    assert_eq!(effects.len(), 3);
    assert_eq!(story.desired_vip(vip4()), None);
    story.applied();
    assert_eq!(story.tell([Input::VipDeleted(vip4())]), []);
    assert!(story.core.overview().announced.is_empty());
    assert!(story.core.vips.is_empty() && story.core.claims.is_empty());
}

#[test]
fn address_given_back_is_withdrawn_before_its_claim_is_deleted() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    let effects = story.tell([applied(service("web", &[]))]);
    assert_eq!(effects[..2], [released(vip4()), remove_neighbour(vip4())]);
}

#[test]
fn moved_plan_silences_the_old_holder_once_the_new_one_has_it_and_he_relays() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    let mut moved = observed(vip4(), 2, "node2", "9");
    moved.status = status(1, EPOCH + 1);
    assert_eq!(
        story.tell([Input::VipApplied(moved)]),
        [],
        "nobody is left without an announcer"
    );
    assert_eq!(
        story.tell([claim(vip4(), 2, 0, true)]),
        [released(vip4()), leave_neighbour(vip4())],
        "the successor writes the status"
    );
    assert_eq!(story.ring, [], "the successor has told everybody");
    let peer = Holder::Peer {
        address: "192.0.2.12".parse().unwrap(),
    };
    assert_eq!(
        story.desired_vip(vip4()).unwrap().holders,
        BTreeMap::from([(ETH0, peer)])
    );
}

#[test]
fn taking_over_from_another_node_is_told_as_a_move() {
    let mut story = Story::ready(DataPlaneMode::Tcx);
    let mut taken = observed(vip4(), 2, "node1", "9");
    taken.status.segments = vec![entry("node2", MAC2, 1, EPOCH)];
    story.tell([applied(service("web", &[vip4()])), Input::VipApplied(taken)]);
    let effects = story.applied();
    assert_eq!(effects[..2], [set_neighbour(vip4()), held(vip4())]);
    assert_eq!(
        effects[2],
        event(
            EventReason::Moved,
            "node1 announces 192.0.2.10 on eth0 (02:00:00:00:00:01), node2 did before"
        )
    );
    let Effect::WriteVipStatus { status, .. } = &effects[3] else {
        panic!("{effects:?}");
    };
    assert_eq!(status.segments, [entry("node1", MAC1, 2, EPOCH)]);
}

#[test]
fn what_elections_change_is_counted() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    let mut expected = Elections {
        planned: 1,
        ..Elections::default()
    };
    assert_eq!(story.core.overview().elections, expected);
    story.tell([vip(vip4(), 2, "node1")]);
    expected.renewed = 1;
    assert_eq!(story.core.overview().elections, expected);
    story.tell([vip(vip4(), 3, "node2"), claim(vip4(), 3, 0, true)]);
    expected.succeeded = 1;
    assert_eq!(story.core.overview().elections, expected);
    story.tell([vip(vip4(), 4, "node1")]);
    story.tell([Input::ServiceDeleted(ServiceKey::new("ns", "web"))]);
    (expected.planned, expected.unwanted) = (2, 1);
    assert_eq!(story.core.overview().elections, expected);
}

#[test]
fn restarted_speaker_goes_on_without_a_word() {
    let mut story = Story::ready(DataPlaneMode::Tcx);
    story.now = 60_000;
    let mut before = observed(vip4(), 1, "node1", "9");
    before.status = status(1, EPOCH - 500);
    story.tell([
        endpoints("web"),
        applied(service("web", &[vip4()])),
        Input::VipApplied(before),
    ]);
    assert_eq!(story.applied(), [set_neighbour(vip4()), held(vip4())]);
}

#[test]
fn status_is_left_alone_while_sockets_are_opened() {
    let mut story = Story::new();
    let mut before = observed(vip4(), 1, "node1", "9");
    before.status = status(1, EPOCH - 500);
    story.tell([
        link(true),
        address("192.0.2.11/24"),
        node("node1", 11),
        node("node2", 12),
        data_plane(DataPlaneMode::Tcx),
        endpoints("web"),
        applied(service("web", &[vip4()])),
        Input::VipApplied(before),
    ]);
    assert_eq!(story.tell(Cache::ALL.map(Input::Synced)), []);
}

#[test]
fn higher_epoch_in_the_status_is_never_overwritten() {
    let mut story = Story::ready(DataPlaneMode::None);
    let mut newer = observed(vip4(), 1, "node1", "9");
    newer.status.segments = vec![entry("node2", MAC2, 2, EPOCH)];
    let effects = story.tell([applied(service("web", &[vip4()])), Input::VipApplied(newer)]);
    assert!(
        effects
            .iter()
            .all(|effect| !matches!(effect, Effect::WriteVipStatus { .. })),
        "{effects:?}"
    );
}

#[test]
fn status_edited_by_hand_is_restored() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    let mut edited = status(1, EPOCH + 1);
    edited.segments[0].node = "nobody".into();
    assert_eq!(
        story.see_status("10", edited),
        [write("10", status(1, EPOCH + 1))]
    );
}

#[test]
fn failed_write_is_tried_again_and_a_lost_race_with_the_new_version() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    story.see_status("10", VipStatus::default());
    let failed = |outcome| Input::VipStatusWritten {
        address: vip4(),
        outcome,
    };
    assert_eq!(story.tell([failed(WriteOutcome::Failed)]), []);
    story.now += 499;
    assert_eq!(story.decide(), []);
    story.now += 1;
    let again = story.decide();
    assert!(
        matches!(&again[..], [Effect::WriteVipStatus { resource_version, .. }] if &**resource_version == "10")
    );
    story.tell([failed(WriteOutcome::Outdated)]);
    story.see_status("11", VipStatus::default());
    story.now += 1_000;
    let again = story.decide();
    assert!(
        matches!(&again[..], [Effect::WriteVipStatus { resource_version, .. }] if &**resource_version == "11")
    );
}

#[test]
fn lost_carrier_withdraws_and_returned_carrier_announces_anew() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    let effects = story.tell([link(false)]);
    assert_eq!(effects[..2], [released(vip4()), remove_neighbour(vip4())]);
    assert_eq!(
        story.ring,
        [RingCommand::CarrierChanged(false), RingCommand::StepDown]
    );
    story.tell([view(&[("node1", 2), ("node2", 1)])]);
    story.applied();
    assert_eq!(
        story.tell([link(true)]),
        [Effect::Refresh],
        "nobody else may, so the next life of the same node does"
    );
    assert_eq!(story.ring, [RingCommand::CarrierChanged(true)]);
    assert_eq!(story.applied()[1], held(vip4()));
}

#[test]
fn what_an_address_leads_to_is_looked_at_anew_when_it_is_back() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    let removed = Input::AddressRemoved {
        interface: ETH0,
        address: "192.0.2.11/24".parse().unwrap(),
    };
    assert!(!story.tell([removed]).contains(&Effect::Refresh));
    let effects = story.tell([address("192.0.2.11/24")]);
    assert!(effects.contains(&Effect::Refresh), "{effects:?}");
}

#[test]
fn removed_interface_takes_everything_with_it() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    let effects = story.tell([Input::LinkRemoved(ETH0)]);
    assert_eq!(
        effects[..3],
        [
            released(vip4()),
            remove_neighbour(vip4()),
            Effect::Layer2(herald_l2::Input::PortRemoved(ETH0)),
        ]
    );
}

#[test]
fn one_group_serves_all_addresses_that_end_alike() {
    let mut story = Story::ready(DataPlaneMode::Tcx);
    let twin: IpAddr = "2001:db8::1:0:10".parse().unwrap();
    let mut web = service("web", &[vip6(), twin]);
    web.forwarding = ForwardingMode::Off;
    story.tell([
        endpoints("web"),
        applied(web.clone()),
        vip(vip6(), 1, "node1"),
        vip(twin, 1, "node1"),
    ]);
    let group = "ff02::1:ff00:10".parse().unwrap();
    let effects = story.applied();
    let about_groups = |effects: &[Effect]| -> Vec<Effect> {
        effects
            .iter()
            .filter(|effect| matches!(effect, Effect::JoinGroup { .. } | Effect::LeaveGroup { .. }))
            .cloned()
            .collect()
    };
    let join = Effect::JoinGroup {
        interface: ETH0,
        group,
    };
    assert_eq!(about_groups(&effects), [join]);
    web.ingress = vec![twin];
    assert_eq!(about_groups(&story.tell([applied(web.clone())])), []);
    web.ingress.clear();
    let leave = Effect::LeaveGroup {
        interface: ETH0,
        group,
    };
    assert_eq!(about_groups(&story.tell([applied(web)])), [leave]);
}

#[test]
fn strangers_claim_is_a_conflict_and_is_answered() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    let heard = |mac| Input::ForeignClaim {
        interface: ETH0,
        address: vip4(),
        mac,
    };
    let defence = Effect::Layer2(herald_l2::Input::Challenged {
        interface: ETH0,
        address: vip4(),
    });
    let effects = story.tell([heard(STRANGER)]);
    let [
        Effect::EmitEvent { reason, .. },
        Effect::WriteVipStatus { status, .. },
        last,
    ] = &effects[..]
    else {
        panic!("{effects:?}");
    };
    assert_eq!(*last, defence);
    assert_eq!(*reason, EventReason::AddressConflict);
    assert!(status.conditions[1].holds);
    let written = Input::VipStatusWritten {
        address: vip4(),
        outcome: WriteOutcome::Done,
    };
    let conflicted = status.clone();
    story.tell([written]);
    assert_eq!(story.see_status("12", conflicted), []);
    assert_eq!(
        story.tell([heard(STRANGER)]),
        [defence],
        "one Event for one conflict"
    );
    story.now += 60_001;
    let effects = story.decide();
    assert!(
        matches!(&effects[..], [Effect::WriteVipStatus { status, .. }] if !status.conditions[1].holds),
        "{effects:?}"
    );
}

#[test]
fn peers_claim_is_settled_by_the_ring_else_by_a_fresh_look_and_defended_if_still_ours() {
    let heard = || Input::ForeignClaim {
        interface: ETH0,
        address: vip4(),
        mac: MAC2,
    };
    let defence = || {
        Effect::Layer2(herald_l2::Input::Challenged {
            interface: ETH0,
            address: vip4(),
        })
    };
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    assert_eq!(story.tell([heard()]), [], "the ring will say");
    story.now += 2_000;
    assert_eq!(story.decide(), [defence()]);

    let mut story = Story::announcing(DataPlaneMode::Tcx);
    story.tell([view(&[("node1", 1)])]);
    assert_eq!(story.tell([heard()]), [Effect::Refresh], "the ring can't");
    story.now += 1_000;
    assert_eq!(story.tell([heard()]), [], "not again at once");

    let mut story = Story::announcing(DataPlaneMode::Tcx);
    story.tell([heard()]);
    let mut moved = observed(vip4(), 2, "node2", "9");
    moved.status = status(1, EPOCH + 1);
    story.tell([Input::VipApplied(moved), claim(vip4(), 2, 0, true)]);
    story.now += 5_000;
    assert!(!story.decide().contains(&defence()), "it is not ours");
}

#[test]
fn failing_data_plane_does_not_keep_an_address_silent() {
    let mut story = Story::ready(DataPlaneMode::Tcx);
    story.tell([
        endpoints("web"),
        applied(service("web", &[vip4()])),
        vip(vip4(), 1, "node1"),
    ]);
    let generation = story.desired.as_ref().unwrap().0;
    let effects = story.tell([Input::DataPlaneApplied {
        generation,
        outcome: Err("map is full".into()),
    }]);
    assert_eq!(effects[..2], [set_neighbour(vip4()), held(vip4())]);
    let Effect::WriteVipStatus { status, .. } = &effects[3] else {
        panic!("{effects:?}");
    };
    let forwarding = &status.conditions[2];
    assert_eq!(
        (forwarding.holds, &*forwarding.reason),
        (false, "DataPlaneFailed")
    );
    story.now += 2_000;
    story.decide();
    assert_eq!(
        story.desired.as_ref().unwrap().0,
        generation + 1,
        "tried again"
    );
}

#[test]
fn changes_during_an_apply_are_handed_over_together_after_it() {
    let mut story = Story::ready(DataPlaneMode::Tcx);
    story.tell([applied(service("web", &[vip4()])), vip(vip4(), 1, "node1")]);
    let first = story.desired.clone().unwrap();
    story.tell([endpoints("web")]);
    story.tell([node("node3", 13)]);
    assert_eq!(story.desired, Some(first.clone()), "one at a time");
    assert_eq!(story.applied()[1], held(vip4()));
    let second = story.desired.clone().unwrap();
    assert_eq!(second.0, first.0 + 1);
    assert_eq!(second.1.nodes.len(), 3);
}

#[test]
fn entries_of_an_earlier_life_are_removed_unless_they_are_wanted() {
    let mut story = Story::new();
    let found = |address: &str, mac| Input::NeighbourFound {
        interface: ETH0,
        address: address.parse().unwrap(),
        mac,
    };
    story.tell([
        link(true),
        address("192.0.2.11/24"),
        node("node1", 11),
        found("192.0.2.10", MAC1),
        found("192.0.2.99", MAC1),
        found("192.0.2.1", MAC2),
        data_plane(DataPlaneMode::Tcx),
        endpoints("web"),
        applied(service("web", &[vip4()])),
        vip(vip4(), 1, "node1"),
        Input::Synced(Cache::Links),
        Input::Synced(Cache::Speakers),
    ]);
    story.tell([Input::PortOpened(ETH0), view(&[("node1", 1)])]);
    assert_eq!(story.tell([found("192.0.2.98", MAC2)]), []);
    story.now = 300;
    assert_eq!(
        story.tell(Cache::ALL.map(Input::Synced)),
        [remove_neighbour("192.0.2.99".parse().unwrap())]
    );
}

#[test]
fn own_object_is_written_once_everything_it_says_is_known() {
    let mut story = Story::new();
    let mut out = Vec::new();
    for input in [
        link(true),
        address("192.0.2.11/24"),
        node("node1", 11),
        data_plane(DataPlaneMode::Tcx),
        Input::RingKeysKnown(vec![KeyId(1)]),
        Input::Synced(Cache::Speakers),
        Input::Synced(Cache::Nodes),
        Input::Synced(Cache::Links),
    ] {
        story.core.handle(at(0), input);
        story.core.on_deadline(at(0), &mut out);
    }
    let is_write = |effect: &Effect| matches!(effect, Effect::WriteSpeaker { .. });
    assert!(!out.iter().any(is_write), "sockets are not open yet");
    story.core.handle(at(0), Input::PortOpened(ETH0));
    story.core.on_deadline(at(0), &mut out);
    let Some(Effect::WriteSpeaker { create, report }) = out.into_iter().find(is_write) else {
        panic!("not written");
    };
    assert!(create);
    assert_eq!(report.segments.len(), 1);
    assert_eq!(report.segments[0].incarnation, Incarnation(1));
    assert_eq!(&*report.boot_id, "boot");
    assert!(report.conditions[0].holds);
}

#[test]
fn what_the_kernel_does_not_grant_is_in_the_own_object() {
    let message = |priority, code_is_locked| {
        let mut story = Story::ready(DataPlaneMode::Tcx);
        story.tell([Input::Granted(Grants {
            priority,
            code_is_locked,
        })]);
        let report = story.core.report(at(story.now));
        report.conditions[0].message.clone()
    };
    assert_eq!(message(Priority::RealTime, true), "announces and forwards");
    assert!(message(Priority::Nice, true).contains("real-time"));
    let none = message(Priority::Normal, false);
    assert!(
        none.contains("any priority") && none.contains("RLIMIT_MEMLOCK"),
        "{none}"
    );
}

#[test]
fn after_another_boot_the_life_on_a_segment_is_another() {
    for (boot_id, expected) in [("boot", 4), ("another", 5)] {
        let mut story = Story::new();
        story.tell([
            link(true),
            address("192.0.2.11/24"),
            node("node1", 11),
            speaker("node1", MAC1, 11, boot_id, 4),
        ]);
        story.tell(Cache::ALL.map(Input::Synced));
        assert_eq!(story.core.incarnations[SEGMENT], Incarnation(expected));
    }
}

#[test]
fn sockets_that_cannot_be_opened_are_tried_again() {
    let mut story = Story::new();
    story.tell([link(true), address("192.0.2.11/24")]);
    story.tell(Cache::ALL.map(Input::Synced));
    story.tell([Input::PortFailed {
        interface: ETH0,
        reason: "operation not permitted".into(),
    }]);
    assert!(
        story
            .core
            .overview()
            .waiting_for
            .iter()
            .any(|what| what.contains("not permitted"))
    );
    story.now += 2_000;
    let port = herald_l2::Port {
        index: ETH0,
        mac: MAC1,
        source: None,
    };
    assert_eq!(
        story.decide(),
        [Effect::Layer2(herald_l2::Input::PortSet(port))]
    );
}

#[test]
fn changed_mac_address_is_told_everywhere() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    let other = MacAddress([2, 0, 0, 0, 0, 0x77]);
    let effects = story.tell([Input::LinkApplied(Link {
        index: ETH0,
        name: "eth0".into(),
        mac: Some(other),
        carrier: true,
        up: true,
    })]);
    let port = herald_l2::Port {
        index: ETH0,
        mac: other,
        source: Some("fe80::1".parse().unwrap()),
    };
    let mut expected = status(1, EPOCH + 1);
    expected.segments[0].mac = other;
    assert!(matches!(story.ring[0], RingCommand::Start { mac, .. } if mac == other));
    assert_eq!(
        story.ring[1..],
        [told(1, 0, true)],
        "the new ring knows nothing"
    );
    assert_eq!(
        effects,
        [
            Effect::Layer2(herald_l2::Input::PortSet(port)),
            Effect::SetNeighbour {
                interface: ETH0,
                address: vip4(),
                mac: other,
            },
            write("8", expected),
        ]
    );
}

#[test]
fn holders_of_two_segments_write_one_status_without_contradiction() {
    const FIRST: &str = "10.0.0.0/24";
    let mut story = Story::ready(DataPlaneMode::None);
    let mut seen = observed(vip4(), 3, "node1", "9");
    seen.vip.segments.insert(
        0,
        VipSegment {
            name: FIRST.into(),
            candidates: vec![Candidate {
                node: "node2".into(),
                incarnation: Incarnation(1),
            }],
        },
    );
    let theirs = AnnouncedSegment {
        name: FIRST.into(),
        ..entry("node2", MAC2, 3, EPOCH)
    };
    let gone = AnnouncedSegment {
        name: "198.51.100.0/24".into(),
        ..entry("node2", MAC2, 2, EPOCH)
    };
    seen.status = VipStatus {
        segments: vec![theirs.clone(), gone],
        forwarding: Some(ForwardingState::Dsr),
        targets: Some(7),
        ..VipStatus::default()
    };
    let before = seen.status.clone();
    let effects = story.tell([applied(service("web", &[vip4()])), Input::VipApplied(seen)]);
    let Some(Effect::WriteVipStatus { status, .. }) = effects.last() else {
        panic!("{effects:?}");
    };
    let expected = VipStatus {
        segments: vec![theirs, entry("node1", MAC1, 3, EPOCH)],
        ..before
    };
    assert_eq!(
        *status, expected,
        "what is said of the whole is not ours to say"
    );
}

/// node1, node2 and node3 share a segment; node2 is planned to hold the address and does, node1 is
/// next.
fn second() -> Story {
    let mut story = Story::ready(DataPlaneMode::Tcx);
    story.now = 1_000;
    let mut planned = observed(vip4(), 1, "node2", "7");
    let candidates = &mut planned.vip.segments[0].candidates;
    candidates.extend([candidate("node1", 1), candidate("node3", 1)]);
    planned.status = status(1, EPOCH);
    planned.status.segments = vec![entry("node2", MAC2, 1, EPOCH)];
    let effects = story.tell([
        speaker("node3", STRANGER, 13, "other", 1),
        view(&[("node1", 1), ("node2", 1), ("node3", 1)]),
        endpoints("web"),
        applied(service("web", &[vip4()])),
        Input::VipApplied(planned),
        claim(vip4(), 1, 0, true),
    ]);
    assert_eq!(effects, [], "node2 holds it");
    story.applied();
    story
}

fn death_of_node2(story: &Story) -> [Input; 2] {
    let down = RingEvent::Down {
        node: "node2".into(),
        incarnation: Incarnation(1),
        scope: herald_ring::Scope::Node,
        timeline: Timeline {
            last_heartbeat: at(story.now - 151),
            suspected: at(story.now - 41),
            certified: at(story.now - 1),
        },
    };
    [said(down), view(&[("node1", 1), ("node3", 1)])]
}

#[test]
fn address_of_a_dead_holder_is_taken_over_by_the_next_candidate_and_everybody_is_told() {
    let mut story = second();
    story.now = 9_000;
    let death = death_of_node2(&story);
    assert_eq!(story.tell(death), []);
    let desired = story.desired_vip(vip4()).unwrap();
    assert_eq!(desired.holders, BTreeMap::from([(ETH0, Holder::Me)]));
    let effects = story.applied();
    let stopwatch = Effect::TookOver(crate::input::Takeover {
        suspected: Duration::from_millis(110),
        certified: Duration::from_millis(150),
        announced: Duration::from_millis(151),
    });
    let expected = [set_neighbour(vip4()), stopwatch, held(vip4())];
    assert_eq!(effects[..3], expected);
    assert_eq!(story.ring, [told(1, 1, true)]);
    let note = "node1 announces 192.0.2.10 on eth0 (02:00:00:00:00:01), taken over from node2, \
                151 ms after its last sign of life: suspected after 110 ms, certified after 150 ms";
    assert_eq!(effects[3], event(EventReason::Moved, note));
    let Effect::WriteVipStatus { status, .. } = &effects[4] else {
        panic!("{effects:?}");
    };
    assert_eq!(&*status.segments[0].reason, "TakenOver");
    assert_eq!(
        status.segments[0].epoch,
        Epoch(1),
        "only the controller raises it"
    );
    assert_eq!(status.targets, Some(1), "the dead node takes no traffic");
}

#[test]
fn replies_of_flows_that_a_node_with_a_dead_speaker_goes_on_with_are_handed_to_it() {
    let mut story = second();
    let view = said(RingEvent::View(View {
        incarnation: Incarnation(1),
        quorum: true,
        live: BTreeMap::from(["node1", "node3"].map(|node| (node.into(), Incarnation(1)))),
        dead: BTreeMap::from([(
            "node2".into(),
            (Incarnation(1), herald_ring::Scope::Speaker),
        )]),
    }));
    story.tell([view]);
    let before = Holder::MeAfter {
        address: "192.0.2.12".parse().unwrap(),
    };
    let desired = story.desired_vip(vip4()).unwrap();
    assert_eq!(desired.holders, BTreeMap::from([(ETH0, before)]));
}

#[test]
fn first_packet_is_timed_of_what_comes_from_a_dead_node_and_was_not_counted_here_before() {
    for (holder_of_vip6, is_timed) in [(None, true), (Some("node2"), true), (Some("node1"), false)]
    {
        let mut story = second();
        if let Some(holder) = holder_of_vip6 {
            let mut planned = observed(vip6(), 1, holder, "7");
            let next = candidate("node1", 1);
            planned.vip.segments[0].candidates.push(next);
            story.tell([
                applied(service("web", &[vip4(), vip6()])),
                Input::VipApplied(planned),
                claim(vip6(), 1, 0, holder == "node2"),
            ]);
            story.applied();
        }
        assert_eq!(story.taken_over, BTreeMap::new(), "a plan is no takeover");

        story.now = 9_000;
        let death = death_of_node2(&story);
        story.tell(death);
        let web = ServiceKey::new("ns", "web");
        let last_heartbeat = at(story.now - 151);
        let timed = is_timed.then_some((web, last_heartbeat));
        let expected = BTreeMap::from_iter(timed);
        assert_eq!(story.taken_over, expected, "{holder_of_vip6:?}");

        story.applied();
        let wish = story.desired.as_ref().unwrap().0;
        let changed = Service {
            source_ranges: vec!["198.51.100.0/24".parse().unwrap()],
            ..service("web", &[vip4()])
        };
        story.tell([applied(changed)]);
        assert!(story.desired.as_ref().unwrap().0 > wish, "one more wish");
        assert_eq!(story.taken_over, BTreeMap::new(), "said once");
    }
}

#[test]
fn node_that_is_dead_on_one_segment_takes_the_traffic_of_others() {
    const OTHER: &str = "198.51.100.0/24";
    let elsewhere: IpAddr = "198.51.100.50".parse().unwrap();
    let on_both = |name: &str, mac: MacAddress, last: u8, boot_id: &str| {
        let Input::SpeakerApplied(mut it) = speaker(name, mac, last, boot_id, 1) else {
            panic!("a speaker");
        };
        let mut segment = it.report.segments[0].clone();
        segment.name = OTHER.into();
        segment.interface = "eth1".into();
        segment.prefixes = vec![format!("198.51.100.{last}/24").parse().unwrap()];
        it.report.segments.push(segment);
        Input::SpeakerApplied(it)
    };
    let seen_on = |segment: &str, live: &[(&str, u64)]| {
        let Input::RingSaid { event, .. } = view(live) else {
            panic!("a ring");
        };
        Input::RingSaid {
            segment: segment.into(),
            event,
        }
    };
    let targets = |story: &Story, address| {
        let desired = story.desired_vip(address).unwrap();
        let Forwarding::Dsr { targets, .. } = &desired.services[0].forwarding else {
            panic!("{desired:?}");
        };
        let nodes = targets.weights.keys();
        nodes.map(ToString::to_string).collect::<Vec<_>>()
    };

    let mut story = Story::announcing(DataPlaneMode::Tcx);
    let mut planned = observed(elsewhere, 1, "node1", "7");
    planned.vip.services = vec![reference("db")];
    planned.vip.segments[0].name = OTHER.into();
    story.tell([
        Input::LinkApplied(Link {
            index: IfIndex(3),
            name: "eth1".into(),
            mac: Some(MAC1),
            carrier: true,
            up: true,
        }),
        Input::AddressAdded {
            interface: IfIndex(3),
            address: "198.51.100.11/24".parse().unwrap(),
        },
        on_both("node1", MAC1, 11, "boot"),
        on_both("node2", MAC2, 12, "other"),
        Input::PortOpened(IfIndex(3)),
        endpoints("db"),
        applied(service("db", &[elsewhere])),
        Input::VipApplied(planned),
        seen_on(OTHER, &[("node1", 1), ("node2", 1)]),
    ]);
    story.applied();
    assert_eq!(targets(&story, elsewhere), ["node1", "node2"]);
    for (segment, there, here) in [
        (OTHER, &["node1"][..], &["node1", "node2"][..]),
        (SEGMENT, &["node1"], &["node1"]),
    ] {
        story.tell([seen_on(segment, &[("node1", 1)])]);
        story.applied();
        assert_eq!(targets(&story, elsewhere), there, "dead on {segment}");
        assert_eq!(targets(&story, vip4()), here, "dead on {segment}");
    }
    story.tell([seen_on(OTHER, &[("node1", 1), ("node2", 2)])]);
    story.applied();
    assert_eq!(targets(&story, elsewhere), ["node1", "node2"]);
    assert_eq!(targets(&story, vip4()), ["node1"]);
}

#[test]
fn node_that_returns_gets_nothing_back_and_the_plan_that_adopts_moves_nothing() {
    let mut story = second();
    let death = death_of_node2(&story);
    story.tell(death);
    story.applied();
    assert_eq!(
        story.tell([view(&[("node1", 1), ("node2", 2), ("node3", 1)])]),
        []
    );
    let mut adopted = observed(vip4(), 2, "node1", "9");
    adopted.vip.segments[0]
        .candidates
        .push(candidate("node2", 2));
    story.tell([Input::VipApplied(adopted)]);
    assert_eq!(story.ring, [told(2, 0, true)], "held under the new plan");
    assert!(story.core.vips[&vip4()].holds.contains_key(SEGMENT));
}

#[test]
fn without_quorum_nothing_is_taken_and_nothing_is_given_up() {
    let lonely = || {
        said(RingEvent::View(View {
            incarnation: Incarnation(1),
            quorum: false,
            live: BTreeMap::from([("node1".into(), Incarnation(1))]),
            dead: BTreeMap::new(),
        }))
    };
    let mut story = second();
    assert_eq!(story.tell([lonely()]), []);
    assert_eq!(story.applied(), []);

    let mut story = Story::announcing(DataPlaneMode::Tcx);
    assert_eq!(story.tell([lonely()]), []);
    assert!(story.core.vips[&vip4()].holds.contains_key(SEGMENT));
}

#[test]
fn who_was_certified_dead_falls_silent_and_does_not_touch_what_the_successor_writes() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    let mut shared = observed(vip4(), 1, "node1", "8");
    shared.vip.segments[0]
        .candidates
        .push(candidate("node2", 1));
    shared.status = status(1, EPOCH + 1);
    assert_eq!(story.tell([Input::VipApplied(shared)]), []);
    let next_life = view(&[("node1", 2), ("node2", 1), ("node3", 1)]);
    assert_eq!(
        story.tell([claim(vip4(), 1, 1, true), next_life]),
        [released(vip4()), leave_neighbour(vip4())]
    );
    assert_eq!(story.ring.len(), 0, "{:?}", story.ring);
    assert_eq!(story.applied(), []);
}

#[test]
fn claim_heard_before_its_address_is_known_is_not_forgotten() {
    let mut story = Story::ready(DataPlaneMode::None);
    story.tell([claim(vip4(), 3, 0, true)]);
    let effects = story.tell([applied(service("web", &[vip4()])), vip(vip4(), 3, "node1")]);
    assert_eq!(effects, [], "node2 holds it under the same plan");
    assert_eq!(
        story.tell([claim(vip4(), 3, 0, false)])[0],
        held(vip4()),
        "and has let go of it"
    );
}

#[test]
fn new_key_is_accepted_at_once_and_sent_when_everybody_alive_accepts_it() {
    let mut story = Story::ready(DataPlaneMode::None);
    assert_eq!(story.keys.0, Some(Keys::only(KeyId(1))));
    story.tell([Input::RingKeysKnown(vec![KeyId(1), KeyId(2)])]);
    assert_eq!(
        story.keys.ids(),
        [KeyId(1), KeyId(2)],
        "sent with the old one"
    );
    let Input::SpeakerApplied(mut other) = speaker("node2", MAC2, 12, "other", 1) else {
        unreachable!();
    };
    other.report.key_ids = vec![KeyId(1), KeyId(2)];
    story.tell([Input::SpeakerApplied(other)]);
    assert_eq!(
        story.keys.ids(),
        [KeyId(2), KeyId(1)],
        "sent with the new one"
    );
    story.tell([Input::RingKeysKnown(vec![KeyId(2)])]);
    assert_eq!(story.keys.ids(), [KeyId(2)]);
}

#[test]
fn without_a_key_nothing_is_served_and_it_is_said() {
    let mut story = Story::new();
    story.tell([link(true), address("192.0.2.11/24"), node("node1", 11)]);
    story.tell(Cache::ALL.map(Input::Synced));
    story.tell([Input::PortOpened(ETH0), data_plane(DataPlaneMode::None)]);
    let waiting = story.core.overview().waiting_for;
    assert!(waiting.contains(&"the ring key".to_owned()), "{waiting:?}");
    let inputs = [applied(service("web", &[vip4()])), vip(vip4(), 1, "node1")];
    assert_eq!(story.tell(inputs), []);
}

#[test]
fn what_a_snapshot_says_is_announced_only_after_the_lan_was_asked() {
    let probes = [Effect::Layer2(herald_l2::Input::Probe {
        interface: ETH0,
        address: vip4(),
    })];
    let answer = |user| Input::Probed {
        interface: ETH0,
        address: vip4(),
        user,
    };
    let mut story = Story::ready(DataPlaneMode::None);
    let restored = [
        Input::Restored(Cache::Vips),
        applied(service("web", &[vip4()])),
        vip(vip4(), 1, "node1"),
    ];
    assert_eq!(story.tell(restored), probes);
    assert_eq!(story.tell([endpoints("web")]), [], "asked once");
    assert_eq!(story.tell([answer(Some(STRANGER))]), [], "it is in use");
    story.now += 1_999;
    assert_eq!(story.tell([node("node1", 11), endpoints("web")]), []);
    story.now += 1;
    assert_eq!(story.decide(), probes, "asked again later");
    assert_eq!(story.tell([answer(None)])[0], held(vip4()));

    let mut story = Story::ready(DataPlaneMode::None);
    story.tell([
        Input::Restored(Cache::Vips),
        applied(service("web", &[vip4()])),
        vip(vip4(), 1, "node1"),
    ]);
    assert_eq!(
        story.tell([Input::Renewed(Cache::Vips)])[0],
        held(vip4()),
        "the API server says so itself"
    );
}

#[test]
fn only_node_that_may_takes_the_address_again_in_its_next_life() {
    let mut story = Story::announcing(DataPlaneMode::None);
    let effects = story.tell([view(&[("node1", 2), ("node2", 1)])]);
    assert_eq!(effects[..2], [released(vip4()), held(vip4())]);
    assert_eq!(story.ring, [told(1, NO_RANK, true)]);
}

#[test]
fn status_waits_until_our_object_names_the_life_in_which_we_hold() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    let mut effects = story.tell([view(&[("node1", 2), ("node2", 1)])]);
    effects.extend(story.applied());
    assert!(effects.contains(&held(vip4())));
    let is_write = |effect: &Effect| matches!(effect, Effect::WriteVipStatus { .. });
    assert!(!effects.iter().any(is_write), "{effects:?}");
    let effects = story.tell([speaker("node1", MAC1, 11, "boot", 2)]);
    assert!(effects.iter().any(is_write), "{effects:?}");
}

#[test]
fn nothing_is_taken_from_a_holder_whose_present_life_the_plan_does_not_know_yet() {
    let mut story = Story::ready(DataPlaneMode::None);
    let mut old = observed(vip4(), 8, "node2", "9");
    old.vip.segments[0].candidates.push(candidate("node1", 1));
    let RingEvent::Hold(mut held_by_2) = (match claim(vip4(), 7, 0, true) {
        Input::RingSaid { event, .. } => event,
        other => panic!("{other:?}"),
    }) else {
        unreachable!();
    };
    held_by_2.incarnation = Incarnation(2);
    let inputs = [
        view(&[("node1", 1), ("node2", 2)]),
        said(RingEvent::Hold(held_by_2)),
        applied(service("web", &[vip4()])),
        Input::VipApplied(old.clone()),
    ];
    assert_eq!(
        story.tell(inputs),
        [],
        "node2@1 is dead, but node2@2 holds it"
    );
    old.vip.epoch = Epoch(9);
    old.vip.segments[0].candidates.remove(0);
    assert_eq!(story.tell([Input::VipApplied(old)])[0], held(vip4()));
}

#[test]
fn who_is_to_retire_hands_over_then_has_everything_removed_unless_the_process_is_ended() {
    let retire = || {
        let Input::SpeakerApplied(mut own) = speaker("node1", MAC1, 11, "boot", 1) else {
            unreachable!()
        };
        own.retire = true;
        Input::SpeakerApplied(own)
    };
    for (ended, retires) in [(false, true), (true, false)] {
        let mut story = Story::announcing(DataPlaneMode::Tcx);
        assert_eq!(story.tell([retire()]), [], "nobody has taken over yet");
        let report = story.core.report(at(story.now));
        assert_eq!(report.conditions[0].reason.as_ref(), "Stopping");
        if ended {
            story.tell([Input::Stopping]);
        }
        // Asked again: it is told each time something of the object changes.
        story.tell([vip(vip4(), 2, "node2"), claim(vip4(), 2, 0, true), retire()]);
        assert_eq!(story.applied(), [Effect::Exit { retires }]);
    }
    let mut other = Story::announcing(DataPlaneMode::Tcx);
    let Input::SpeakerApplied(mut node2) = speaker("node2", MAC2, 12, "other", 1) else {
        unreachable!()
    };
    node2.retire = true;
    assert_eq!(other.tell([Input::SpeakerApplied(node2)]), []);
    assert!(
        other.core.stopping.is_none(),
        "that is another node's affair"
    );
}

#[test]
fn more_addresses_than_the_burst_allows_are_said_with_the_time_they_take() {
    let mut story = Story::new();
    story.core.config.pace = Pace {
        burst_frames: 2,
        frames_per_second: 1,
    };
    let mut story = story.know_all(DataPlaneMode::None);
    let service = service("web", &[vip4(), vip6()]);
    story.tell([endpoints("web"), applied(service), vip(vip4(), 1, "node1")]);
    let said = |story: &Story| {
        let report = story.core.report(at(story.now));
        report.conditions[0].message.clone()
    };
    assert_eq!(said(&story), "announces; forwarding is left to kube-proxy");
    story.tell([vip(vip6(), 1, "node1")]);
    assert_eq!(
        said(&story),
        "announces; forwarding is left to kube-proxy; the last of its addresses on eth0 is announced 5 s \
         after the first, as announceBurst and announceRate allow no more",
        "a second, said coarsely"
    );
}

#[test]
fn a_node_whose_data_plane_cannot_be_repaired_steps_down_at_once_and_once_if_others_are_there() {
    let wrong = || Input::DataPlaneChecked([(ETH0, "cannot attach".into())].into());
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    let effects = story.tell([wrong()]);
    assert_eq!(effects[..2], [released(vip4()), remove_neighbour(vip4())]);
    assert_eq!(story.ring, [RingCommand::StepDown]);
    let report = story.core.report(at(story.now));
    assert_eq!(report.conditions[0].message, "cannot attach");
    assert!(!report.conditions[0].holds);
    assert_eq!(story.tell([endpoints("web")]), [], "not again in this life");
    story.tell([view(&[("node1", 2), ("node2", 1)])]);
    assert_eq!(story.tell([wrong()]), [], "known");
    let effects = story.tell([Input::DataPlaneChecked(BTreeMap::new())]);
    assert_eq!(effects, [], "node2 was a candidate of nothing");
    assert!(story.core.report(at(story.now)).conditions[0].holds);

    let mut story = Story::announcing(DataPlaneMode::Tcx);
    story.tell([view(&[("node1", 1)])]);
    let effects = story.tell([wrong()]);
    assert!(!effects.contains(&released(vip4())), "{effects:?}");
    assert_eq!(story.ring, [], "there is nobody else");
}

#[test]
fn an_interface_that_gets_another_name_goes_on_announcing_and_the_status_has_the_name() {
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    let effects = story.tell([Input::LinkApplied(Link {
        index: ETH0,
        name: "lan7".into(),
        mac: Some(MAC1),
        carrier: true,
        up: true,
    })]);
    let [Effect::WriteVipStatus { status, .. }] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!(status.segments[0].interface.as_str(), "lan7");
    assert_eq!(status.segments[0].since, EPOCH + 1, "it is the same hold");
}

/// A wish that takes 50 ms to carry out, and what comes meanwhile.
#[test]
fn changes_wait_a_while_after_a_wish_that_took_long_unless_connections_depend_on_them() {
    let wishes = |story: &Story| story.desired.as_ref().map(|(generation, _)| *generation);
    let gone = || Input::EndpointsDeleted(ServiceKey::new("ns", "web"));
    let mut story = Story::announcing(DataPlaneMode::Tcx);
    let first = wishes(&story).unwrap();
    story.tell([gone()]);
    assert_eq!(wishes(&story), Some(first + 1), "nothing was under way");
    story.now += 50;
    story.applied();
    story.tell([endpoints("web")]);
    assert_eq!(wishes(&story), Some(first + 1));
    story.now += 199;
    story.decide();
    assert_eq!(wishes(&story), Some(first + 1));
    story.now += 1;
    story.decide();
    assert_eq!(wishes(&story), Some(first + 2), "after four times as long");

    story.now += 50;
    story.applied();
    story.tell([gone()]);
    assert_eq!(wishes(&story), Some(first + 2));
    // Another holds the address from now on.
    story.tell([vip(vip4(), 2, "node2"), claim(vip4(), 2, 0, true)]);
    assert_eq!(wishes(&story), Some(first + 3));
}
