//! One address of a Service: its claim, who may announce it, who does, and where its traffic goes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use herald_api::{VirtualIP, conditions};
use herald_controller_core::{AddressAccount, NodeAccount, Obstacle, SegmentAccount};
use herald_model::{Announce, NodeName, Phase, SegmentName, Service, TrafficPolicy, VirtualIp};
use herald_speaker_core::{Forwarded, ForwardingState};
use k8s_openapi::api::core::v1::Service as ApiService;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::service::other_owners;
use super::{Outcome, Step, remedy};
use crate::picture::{Picture, held};
use crate::text::{Level, age, count, list, percent};

/// What keeps an address from serving.
pub(super) struct Fault {
    pub(super) outcome: Outcome,
    pub(super) reason: String,
    pub(super) text: String,
    pub(super) remedy: Option<String>,
}

impl Fault {
    fn new(outcome: Outcome, reason: &str, text: String, remedy: &str) -> Self {
        Self {
            outcome,
            reason: reason.to_owned(),
            text,
            remedy: Some(remedy.to_owned()),
        }
    }
}

/// An address of a Service.
#[derive(Clone, Copy)]
pub(super) struct Of<'a> {
    pub(super) picture: &'a Picture,
    pub(super) object: &'a ApiService,
    pub(super) service: &'a Service,
    pub(super) address: IpAddr,
}

impl Of<'_> {
    /// Adds its steps; the first thing that keeps it from serving, if anything does. `in_full`: with the
    /// target table.
    pub(super) fn steps(self, in_full: bool, steps: &mut Vec<Step>) -> Option<Fault> {
        let Self {
            picture, address, ..
        } = self;
        let Some(account) = picture.controller().address_account(address) else {
            let text = format!("the controller has yet to claim {address}");
            steps.push(Step::new("claim", Level::Problem, &text).about(&address));
            let remedy = "look whether the controller works: kubectl herald check";
            return Some(Fault::new(Outcome::Pending, "ClaimPending", text, remedy));
        };
        let (step, claim) = claim(self, &account);
        steps.push(step);
        let (step, announcement) = announcement(picture, address, &account);
        steps.push(step);
        let mut silent = None;
        let mut announcers: BTreeMap<NodeName, SegmentName> = BTreeMap::new();
        for segment in &account.segments {
            let (step, holder, fault) = holder(picture, address, &account, segment);
            steps.push(step);
            silent = silent.or(fault);
            if let Some(holder) = holder {
                announcers.insert(holder, segment.name.clone());
            }
        }
        if account.segments.is_empty() {
            let text = "no node has an interface to announce on";
            let mut step = Step::new("holder", Level::Problem, text).about(&address);
            for (node, obstacle) in &account.absent {
                step.detail(Level::Problem, node, obstacle.to_string());
            }
            steps.push(step);
            let worst = account.absent.first().map(|(_, obstacle)| obstacle);
            let remedy = worst.map_or_else(
                || remedy::of_obstacle(&Obstacle::NoSpeaker),
                remedy::of_obstacle,
            );
            silent = Some(Fault::new(
                Outcome::Silent,
                "NoEligibleNode",
                text.to_owned(),
                &remedy,
            ));
        }
        // One segment on which it is announced is what a client needs; the step of another tells why not there.
        let silent = silent.filter(|_| announcers.is_empty());
        let mut forwarding_fault = None;
        if let Some(announcer) = announcers.keys().next() {
            let (step, fault) = forwarding(self, announcer, in_full);
            steps.push(step);
            forwarding_fault = fault;
        }
        let conflict = picture
            .vip(address)
            .and_then(|vip| condition_of(vip, conditions::CONFLICT))
            .filter(|conflict| conflict.status == conditions::TRUE);
        let conflict = conflict.map(|conflict| {
            let text = format!("{address}: {}", conflict.message);
            let remedy = "find the machine with that MAC address, or take the address out of the pool: docs/conflicts.md";
            Fault::new(Outcome::Degraded, "AddressConflict", text, remedy)
        });
        claim
            .or(announcement)
            .or(silent)
            .or(forwarding_fault)
            .or(conflict)
    }
}

/// Whether the address is the Service's, in the objects that say so.
fn claim(of: Of<'_>, account: &AddressAccount) -> (Step, Option<Fault>) {
    let Of {
        picture,
        object,
        service,
        address,
    } = of;
    let name = VirtualIp::object_name(address);
    let observed = picture.controller().vip(address);
    let sharers = account
        .holders
        .iter()
        .filter(|holder| holder.key != service.key);
    let sharers = list(sharers.map(|holder| &holder.key));
    let fail = |reason: &str, text: String, remedy: &str| {
        let step = Step::new("claim", Level::Problem, &text).about(&address);
        let fault = Fault::new(Outcome::Pending, reason, text, remedy);
        (step, Some(fault))
    };
    let shown = picture
        .controller()
        .service(&service.key)
        .is_some_and(|observed| observed.ingress.contains(&address));
    let is_ours = observed.is_some_and(|observed| {
        let mut services = observed.vip.services.iter();
        services.any(|holder| holder.key == service.key && holder.uid == service.uid)
    });
    if let Some(error) = &account.error {
        let text = format!("the API server refuses VirtualIP {name}: {error}");
        return fail(
            "ClaimRefused",
            text,
            "look at admission policies and the controller's rights",
        );
    }
    match observed {
        Some(_) if !is_ours => fail(
            "ClaimPending",
            format!("VirtualIP {name} does not name the Service yet"),
            "wait a moment; if it stays so, look whether the controller works: kubectl herald check",
        ),
        None => fail(
            "ClaimPending",
            format!("VirtualIP {name} is not there yet"),
            "wait a moment; if it stays so, look whether the controller works: kubectl herald check",
        ),
        Some(observed) if observed.vip.phase == Phase::Probing && !shown => fail(
            "Probing",
            format!("VirtualIP {name} is probing: the LAN is asked whether {address} is free"),
            "wait: it takes a second",
        ),
        Some(_) if !shown => {
            let owners = other_owners(object);
            if owners.is_empty() {
                fail(
                    "StatusPending",
                    format!("the Service's status does not show {address} yet"),
                    "wait a moment; if it stays so, look whether the controller works: kubectl herald check",
                )
            } else {
                fail(
                    "StatusOwned",
                    format!("the Service's status belongs to {}", list(owners)),
                    "take the addresses out of the status that the other controller wrote, and keep it from this Service",
                )
            }
        }
        Some(observed) => {
            let mut text =
                format!("VirtualIP {name} names the Service, and its status shows {address}");
            if !sharers.is_empty() {
                // Writing to a String cannot fail.
                write!(text, "; shared with {sharers}").ok();
            }
            let mut step = Step::new("claim", Level::Ok, text).about(&address);
            let (epoch, phase) = (observed.vip.epoch, observed.vip.phase);
            step.detail(Level::Info, "plan", format!("epoch {epoch}, phase {phase}"));
            (step, None)
        }
    }
}

/// Who may announce it.
fn announcement(
    picture: &Picture,
    address: IpAddr,
    account: &AddressAccount,
) -> (Step, Option<Fault>) {
    let pool = account.pool.as_ref().map_or("", |pool| pool.as_str());
    let listed = |selects: bool| {
        let all = account.advertisements.iter();
        list(
            all.filter(|it| it.selects_pool && it.selects_services == selects)
                .map(|it| &it.name),
        )
    };
    let mut fault = None;
    let (level, text) = match account.announce {
        Announce::All => (
            Level::Ok,
            format!("every node may: no L2Advertisement selects pool {pool}"),
        ),
        Announce::Listed => (
            Level::Ok,
            format!("those may that L2Advertisement {} allows", listed(true)),
        ),
        Announce::None => {
            let others = listed(false);
            let why = if others.is_empty() {
                format!("pool {pool} has advertisement Explicit, and no L2Advertisement selects it")
            } else {
                format!("L2Advertisement {others} selects pool {pool}, but not this Service")
            };
            let remedy = remedy::of_obstacle(&Obstacle::NoAdvertisement);
            let text = format!("nobody may announce {address}: {why}");
            fault = Some(Fault::new(
                Outcome::Silent,
                "NoAdvertisement",
                text,
                &remedy,
            ));
            (Level::Problem, format!("nobody may: {why}"))
        }
    };
    let mut step = Step::new("announcement", level, text).about(&address);
    for it in &account.advertisements {
        let (level, text) = match (it.selects_pool, it.selects_services) {
            (true, true) => (Level::Ok, "selects pool and Service"),
            (true, false) => (Level::Info, "selects the pool, not the Service"),
            (false, _) => (Level::Info, "does not select the pool"),
        };
        step.detail(level, &it.name, text);
    }
    if account.needs_local_endpoint {
        let text = "only nodes with a ready endpoint: kube-proxy takes the traffic, under Local";
        step.detail(Level::Info, "policy", text);
    }
    if !is_on_link(picture, address) {
        let text = "is in no node's subnet: clients need a route to it, and routers must ask for it on the LAN";
        step.detail(Level::Warning, &address, text);
    }
    (step, fault)
}

/// Whether an address is of a subnet that some node is in.
fn is_on_link(picture: &Picture, address: IpAddr) -> bool {
    let speakers = picture.forecast.facts().speakers.values();
    speakers
        .flat_map(|speaker| &speaker.report.segments)
        .flat_map(|segment| &segment.prefixes)
        .any(|prefix| prefix.contains(&address))
}

/// Who announces it on a segment, and what became of each node there.
fn holder(
    picture: &Picture,
    address: IpAddr,
    account: &AddressAccount,
    segment: &SegmentAccount,
) -> (Step, Option<NodeName>, Option<Fault>) {
    let observed = picture.controller().vip(address);
    let status = picture.vip(address).and_then(|vip| vip.status.as_ref());
    let holding = observed.and_then(|observed| held(observed, &segment.name));
    let elected =
        observed.and_then(|observed| picture.forecast.elected(&observed.vip, &segment.name));
    let about = format!("{address} on {}", segment.name);
    let mut fault = None;
    let (level, text) = if let Some((node, _)) = holding {
        let said = status.into_iter().flat_map(|status| &status.segments);
        let entry = said
            .filter(|entry| entry.name == segment.name.as_str())
            .find(|entry| entry.node == node.as_str());
        let how = entry.map_or_else(String::new, |entry| {
            let since = age(picture.now - entry.since.0.as_second());
            let why = match entry.reason.as_str() {
                "Planned" => ", as planned",
                conditions::reasons::TAKEN_OVER => ", taken over from the planned one",
                _ => "",
            };
            format!(" on {} ({}) for {since}{why}", entry.interface, entry.mac)
        });
        let is_well = !picture.forecast.facts().silent.contains(node);
        if is_well {
            (Level::Ok, format!("{node} announces it{how}"))
        } else {
            let text = format!(
                "{node} is said to announce it{how}, but Kubernetes does not take node and speaker to be well"
            );
            let remedy = remedy::of_obstacle(&Obstacle::NodeNotReady);
            fault = Some(Fault::new(
                Outcome::Silent,
                "HolderNotReady",
                format!("{address}: {text}"),
                &remedy,
            ));
            (Level::Warning, text)
        }
    } else {
        let silent = silence(picture, address, account, segment, elected.is_some());
        let text = silent.text.clone();
        fault = Some(Fault {
            text: format!("nobody announces {address}: {}", silent.text),
            ..silent
        });
        (Level::Problem, format!("nobody announces it: {text}"))
    };
    let mut step = Step::new("holder", level, text).about(&about);
    let holder = holding.map(|(node, _)| node);
    for node in &segment.nodes {
        let (level, text) = place(segment, node, holder);
        step.detail(level, &node.node, text);
    }
    for (node, obstacle) in &account.absent {
        step.detail(Level::Info, node, obstacle.to_string());
    }
    let announced = holder.filter(|_| fault.is_none()).cloned();
    (step, announced, fault)
}

/// Why nobody announces it on a segment.
fn silence(
    picture: &Picture,
    address: IpAddr,
    account: &AddressAccount,
    segment: &SegmentAccount,
    is_elected: bool,
) -> Fault {
    let vip = picture.vip(address);
    let status = vip.and_then(|vip| vip.status.as_ref());
    let yielded = status.into_iter().flat_map(|status| &status.yielded);
    let fault = |reason: &str, text: String, remedy: String| Fault {
        outcome: Outcome::Silent,
        reason: reason.to_owned(),
        text,
        remedy: Some(remedy),
    };
    if account.announce == Announce::None {
        let remedy = remedy::of_obstacle(&Obstacle::NoAdvertisement);
        return fault("NoAdvertisement", "nobody may".to_owned(), remedy);
    }
    if yielded
        .into_iter()
        .any(|name| name == segment.name.as_str())
    {
        let condition = vip.and_then(|vip| condition_of(vip, conditions::CONFLICT));
        let said = condition.map_or("a stranger answers for it", |it| it.message.as_str());
        let remedy =
            "find the machine with that MAC address, or set the pool's conflictPolicy to Defend";
        return fault("AddressConflict", said.to_owned(), remedy.to_owned());
    }
    if !segment.nodes.iter().any(NodeAccount::is_eligible) {
        // What speaks against the most nodes is what there is to be done about.
        let mut against: BTreeMap<&Obstacle, usize> = BTreeMap::new();
        for node in &segment.nodes {
            if let Some(obstacle) = node.obstacles.iter().find(|it| it.forbids()) {
                *against.entry(obstacle).or_default() += 1;
            }
        }
        let most = against.into_iter().max_by_key(|(_, nodes)| *nodes);
        let remedy = most.map_or_else(
            || remedy::of_obstacle(&Obstacle::NoSpeaker),
            |(obstacle, _)| remedy::of_obstacle(obstacle),
        );
        let why = most.map_or_else(
            || "there is none".to_owned(),
            |(obstacle, nodes)| format!("of {}: {obstacle}", count(nodes, "node")),
        );
        return fault(
            "NoEligibleNode",
            format!("no node may and can, {why}"),
            remedy,
        );
    }
    if !is_elected {
        let text = "none of the planned nodes is alive, as far as Kubernetes knows".to_owned();
        return fault(
            "NoLiveNode",
            text,
            remedy::of_obstacle(&Obstacle::NodeNotReady),
        );
    }
    let planned = segment
        .candidates
        .first()
        .map_or("nobody", |it| it.node.as_str());
    let text = format!("{planned} is to announce it and has not said so yet");
    let remedy = "wait a moment; if it stays so, look at that node's speaker: kubectl herald check";
    fault("WaitingForSpeaker", text, remedy.to_owned())
}

/// How a node stands to an address.
fn place(
    segment: &SegmentAccount,
    node: &NodeAccount,
    holder: Option<&NodeName>,
) -> (Level, String) {
    let position = segment
        .candidates
        .iter()
        .position(|it| it.node == node.node);
    let flaws = list(&node.obstacles);
    let preferred = match node.preference {
        0 => String::new(),
        weight => format!(", preferred with weight {weight}"),
    };
    let mut text = match position {
        _ if !node.is_eligible() => flaws.clone(),
        Some(0) => "first candidate".to_owned(),
        Some(position) => format!("candidate {}", position + 1),
        None => "could, and is no candidate".to_owned(),
    };
    let is_holder = holder == Some(&node.node);
    if node.is_eligible() {
        text += &preferred;
        write!(text, ", first for {}", count_addresses(node.load)).ok();
        if !flaws.is_empty() {
            write!(text, "; {flaws}").ok();
        }
    }
    let level = if is_holder {
        Level::Ok
    } else if !node.is_eligible() {
        Level::Problem
    } else if node.obstacles.is_empty() {
        Level::Info
    } else {
        Level::Warning
    };
    (level, text)
}

fn count_addresses(number: usize) -> String {
    match number {
        1 => "1 address".to_owned(),
        number => format!("{number} addresses"),
    }
}

/// Where its traffic goes.
fn forwarding(of: Of<'_>, announcer: &NodeName, in_full: bool) -> (Step, Option<Fault>) {
    let Of {
        picture,
        service,
        address,
        ..
    } = of;
    let Some(observed) = picture.controller().vip(address) else {
        let step = Step::new("forwarding", Level::Unknown, "there is no claim");
        return (step.about(&address), None);
    };
    let forwarded = picture.forecast.forwarding(&observed.vip, announcer);
    let endpoints = picture.forecast.endpoints(address, service);
    let failed = picture
        .vip(address)
        .and_then(|vip| condition_of(vip, conditions::FORWARDING))
        .filter(|condition| {
            let failures = [
                conditions::reasons::DATA_PLANE_FAILED,
                conditions::reasons::DATA_PLANE_FULL,
            ];
            failures.contains(&condition.reason.as_str())
        });
    let refuse = |reason: &str, text: &str, remedy: &str| {
        let text = format!("{address} is announced, but {text}");
        Some(Fault::new(Outcome::Refusing, reason, text, remedy))
    };
    let (level, text, fault) = if !forwarded.has_endpoints {
        let text = "no pod behind it is ready";
        let selector = list(
            service
                .selector
                .iter()
                .map(|(key, value)| format!("{key}={value}")),
        );
        let remedy = if selector.is_empty() {
            "give the Service a selector or EndpointSlices".to_owned()
        } else {
            let namespace = &service.key.namespace;
            format!("look at its pods: kubectl get pods -n {namespace} -l {selector}")
        };
        (
            Level::Problem,
            text.to_owned(),
            refuse("NoEndpoints", text, &remedy),
        )
    } else if forwarded.targets == Some(0) {
        let text = "no node that can be used has one of its pods";
        let remedy = "look at the nodes of its pods: only nodes that are Ready and not excluded take traffic";
        (
            Level::Problem,
            text.to_owned(),
            refuse("NoTargets", text, remedy),
        )
    } else if let Some(failed) = failed {
        let remedy = if failed.reason == conditions::reasons::DATA_PLANE_FULL {
            "give Services fewer of what is said, or set heraldlb.io/forwarding: \"off\" on those that can do without"
        } else {
            "look at the log of the announcing node's speaker"
        };
        let fault = refuse(&failed.reason, &failed.message, remedy);
        (Level::Problem, failed.message.clone(), fault)
    } else {
        (Level::Ok, how(&forwarded, service), None)
    };
    let mut step = Step::new("forwarding", level, text).about(&address);
    for reason in &forwarded.reasons {
        step.detail(Level::Warning, "not as asked", reason.clone());
    }
    if in_full {
        table(picture, address, &forwarded, &endpoints, &mut step);
    }
    (step, fault)
}

fn how(forwarded: &Forwarded, service: &Service) -> String {
    let policy = match service.traffic_policy {
        TrafficPolicy::Cluster => "Cluster",
        TrafficPolicy::Local => "Local",
    };
    let targets = usize::try_from(forwarded.targets.unwrap_or_default()).unwrap_or_default();
    let nodes = count(targets, "node");
    match forwarded.state {
        Some(ForwardingState::Dsr) => {
            format!("dsr over {nodes} under {policy}, which answer clients themselves")
        }
        Some(ForwardingState::NodePort) => format!("nodeport over {nodes} under {policy}"),
        Some(ForwardingState::Pod) => "straight to pods".to_owned(),
        Some(ForwardingState::Off) => "kube-proxy on the announcing node takes it".to_owned(),
        None => "the Service has no port".to_owned(),
    }
}

/// The target table of the first port; ports of one Service have the same targets.
fn table(
    picture: &Picture,
    address: IpAddr,
    forwarded: &Forwarded,
    endpoints: &BTreeMap<NodeName, u32>,
    step: &mut Step,
) {
    let slots = forwarded
        .ports
        .first()
        .and_then(|port| picture.forecast.slots(address, &port.forwarding));
    let mut nodes: Vec<&NodeName> = endpoints.keys().collect();
    if let Some(slots) = &slots {
        nodes.extend(slots.by_node().keys());
    }
    nodes.sort_unstable();
    nodes.dedup();
    for node in nodes {
        let pods = endpoints.get(node).copied().unwrap_or_default();
        let pods = count(usize::try_from(pods).unwrap_or_default(), "endpoint");
        let text = match &slots {
            Some(slots) => {
                let share = percent(slots.share(node));
                format!("{share} of the flows, {pods}")
            }
            None => pods,
        };
        step.detail(Level::Info, node, text);
    }
}

/// A condition of a `VirtualIP`.
fn condition_of<'a>(vip: &'a VirtualIP, type_: &str) -> Option<&'a Condition> {
    let conditions = vip.status.as_ref().map(|status| &status.conditions);
    let mut conditions = conditions.into_iter().flatten();
    conditions.find(|condition| condition.type_ == type_)
}
