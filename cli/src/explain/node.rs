//! What a node announces and would announce, and what keeps it from more.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use herald_api::{DataPlaneMode, Speaker, conditions};
use herald_controller_core::Obstacle;
use herald_model::NodeName;

use super::{Explanation, Outcome, Step, remedy};
use crate::picture::Picture;
use crate::text::{Level, count, list};

/// More addresses than these are only counted.
const NAMED: usize = 20;

/// Explains a node; `None`: there is none of this name.
pub(crate) fn node(picture: &Picture, name: &NodeName) -> Option<Explanation> {
    picture.node(name.as_str())?;
    let speaker = picture.speaker(name.as_str());
    let standing = Standing::of(picture, name);
    let mut steps = vec![kubernetes(picture, name)];
    steps.push(speaker.map_or_else(no_speaker, said));
    steps.extend(speaker.map(segments));
    steps.push(standing.holds());
    steps.push(standing.planned());
    steps.extend(standing.kept_from());
    steps.push(targets(picture, name));
    let worst = standing.worst();
    let (outcome, reason, summary) = match &worst {
        Some(obstacle) if obstacle.forbids() => (
            Outcome::NotServed,
            "CannotAnnounce",
            format!("it announces nothing new: {obstacle}"),
        ),
        Some(obstacle) => (
            Outcome::Degraded,
            "ComesLast",
            format!("others are planned before it: {obstacle}"),
        ),
        None => (
            Outcome::Serving,
            "Ready",
            format!("it announces {}", addresses(standing.held.len())),
        ),
    };
    Some(Explanation {
        kind: "Node",
        name: name.to_string(),
        outcome,
        reason: reason.to_owned(),
        summary,
        remedy: worst.as_ref().map(remedy::of_obstacle),
        steps,
    })
}

/// How a node stands to every address there is.
#[derive(Default)]
struct Standing {
    /// By address: the segments on which it announces it.
    held: Vec<(IpAddr, String)>,
    /// By address: its place among the candidates.
    planned: Vec<(IpAddr, usize)>,
    /// What keeps it from announcing, with the addresses.
    kept_from: BTreeMap<Obstacle, Vec<IpAddr>>,
    /// What is so of the node itself.
    own: Vec<Obstacle>,
}

impl Standing {
    fn of(picture: &Picture, name: &NodeName) -> Self {
        let mut it = Self::default();
        let controller = picture.controller();
        it.own = controller.node_obstacles(name);
        for observed in controller.vips() {
            let address = observed.vip.address;
            let held = observed.holdings.iter().filter(|held| held.node == *name);
            it.held.extend(
                held.map(|held| (address, format!("{} on {}", held.segment, held.interface))),
            );
            let Some(account) = controller.address_account(address) else {
                continue;
            };
            for segment in &account.segments {
                let place = segment.candidates.iter().position(|it| it.node == *name);
                it.planned.extend(place.map(|place| (address, place)));
                let nodes = segment.nodes.iter().filter(|node| node.node == *name);
                for obstacle in nodes.flat_map(|node| &node.obstacles) {
                    if !it.own.contains(obstacle) {
                        let all = it.kept_from.entry(obstacle.clone()).or_default();
                        all.push(address);
                    }
                }
            }
        }
        it
    }

    /// What is so of the node itself that is worst.
    fn worst(&self) -> Option<Obstacle> {
        let forbids = self.own.iter().find(|it| it.forbids());
        forbids.or_else(|| self.own.first()).cloned()
    }

    fn holds(&self) -> Step {
        let text = format!("announces {}", addresses(self.held.len()));
        let mut step = Step::new("holds", Level::Info, text);
        for (address, place) in self.held.iter().take(NAMED) {
            step.detail(Level::Ok, &address, place.clone());
        }
        rest(self.held.len(), &mut step);
        step
    }

    fn planned(&self) -> Step {
        let at = |wanted: usize| {
            self.planned
                .iter()
                .filter(|(_, place)| *place == wanted)
                .count()
        };
        let text = format!(
            "first candidate for {}, second for {}, third for {}",
            addresses(at(0)),
            at(1),
            at(2)
        );
        Step::new("planned", Level::Info, text)
    }

    fn kept_from(&self) -> Option<Step> {
        if self.kept_from.is_empty() {
            return None;
        }
        let mut step = Step::new(
            "kept from",
            Level::Info,
            "addresses that it may not announce",
        );
        for (obstacle, all) in &self.kept_from {
            let named = list(all.iter().take(3));
            let more = match all.len().saturating_sub(3) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            step.detail(
                Level::Info,
                &addresses(all.len()),
                format!("{obstacle}: {named}{more}"),
            );
        }
        Some(step)
    }
}

fn rest(all: usize, step: &mut Step) {
    let more = all.saturating_sub(NAMED);
    if more > 0 {
        step.detail(Level::Info, "…", format!("and {more} more"));
    }
}

fn addresses(number: usize) -> String {
    match number {
        1 => "1 address".to_owned(),
        number => format!("{number} addresses"),
    }
}

/// What Kubernetes says of it.
fn kubernetes(picture: &Picture, name: &NodeName) -> Step {
    let against = picture.controller().node_obstacles(name);
    let step = match against
        .iter()
        .find(|it| it.forbids())
        .or_else(|| against.first())
    {
        None => Step::new(
            "node",
            Level::Ok,
            "Ready, with a ready speaker, and it stays",
        ),
        Some(obstacle) => {
            let level = if obstacle.forbids() {
                Level::Problem
            } else {
                Level::Warning
            };
            Step::new("node", level, list(&against))
        }
    };
    let info = picture
        .node(name.as_str())
        .and_then(|node| node.status.as_ref()?.node_info.as_ref());
    let Some(info) = info else {
        return step;
    };
    let mut step = step;
    let kernel = format!("{}, {}", info.kernel_version, info.architecture);
    step.detail(Level::Info, "kernel", kernel);
    step.detail(Level::Info, "kubelet", info.kubelet_version.clone());
    step
}

fn no_speaker() -> Step {
    Step::new(
        "speaker",
        Level::Problem,
        "there is no Speaker object: none has run on it",
    )
}

/// What its speaker says of itself.
fn said(speaker: &Speaker) -> Step {
    let Some(status) = &speaker.status else {
        return Step::new("speaker", Level::Problem, "it has not said anything yet");
    };
    let ready = status
        .conditions
        .iter()
        .find(|it| it.type_ == conditions::READY);
    let mut step = match ready {
        Some(ready) if ready.status == conditions::TRUE => Step::new(
            "speaker",
            Level::Ok,
            format!("version {}, ready", status.version),
        ),
        Some(ready) => {
            let text = format!("{}: {}", ready.reason, ready.message);
            Step::new("speaker", Level::Problem, text)
        }
        None => Step::new(
            "speaker",
            Level::Unknown,
            "it does not say whether it is ready",
        ),
    };
    let (level, text) = match &status.data_plane {
        None => (Level::Warning, "not set up yet".to_owned()),
        Some(report) => {
            let why = report
                .reason
                .as_ref()
                .map_or_else(String::new, |why| format!(": {why}"));
            match report.mode {
                DataPlaneMode::Tcx => (Level::Ok, format!("eBPF, by tcx{why}")),
                DataPlaneMode::Clsact => (Level::Info, format!("eBPF, by clsact{why}")),
                DataPlaneMode::None => (Level::Problem, format!("kube-proxy forwards{why}")),
            }
        }
    };
    step.detail(level, "data plane", text);
    step
}

/// Where it can announce.
fn segments(speaker: &Speaker) -> Step {
    let all = speaker
        .status
        .as_ref()
        .map_or(&[][..], |status| &status.segments);
    let level = if all.is_empty() {
        Level::Problem
    } else {
        Level::Ok
    };
    let text = match all.len() {
        0 => "it has no interface to announce on".to_owned(),
        number => count(number, "segment"),
    };
    let mut step = Step::new("segments", level, text);
    for segment in all {
        let (level, carrier) = if segment.carrier {
            (Level::Ok, "")
        } else {
            (Level::Problem, ", no carrier")
        };
        let prefixes = list(&segment.prefixes);
        let text = format!(
            "{} ({}), {prefixes}{carrier}",
            segment.interface, segment.mac
        );
        step.detail(level, &segment.name, text);
    }
    step
}

/// Which traffic goes to it.
fn targets(picture: &Picture, name: &NodeName) -> Step {
    let facts = picture.forecast.facts();
    let is_usable = facts
        .nodes
        .get(name)
        .is_some_and(herald_model::Node::is_usable);
    let mut services = BTreeSet::new();
    let mut endpoints = 0;
    for observed in picture.controller().vips() {
        for service in picture.forecast.holders(&observed.vip) {
            let of = picture.forecast.endpoints(observed.vip.address, service);
            let here = of.get(name).copied().unwrap_or_default();
            if here > 0 && services.insert(&service.key) {
                endpoints += usize::try_from(here).unwrap_or_default();
            }
        }
    }
    if is_usable {
        let text = format!(
            "takes traffic: {} of {}",
            count(endpoints, "endpoint"),
            count(services.len(), "Service")
        );
        Step::new("target", Level::Ok, text)
    } else {
        let text = "takes no traffic: it is not Ready, has no network, or is excluded";
        Step::new("target", Level::Problem, text)
    }
}
