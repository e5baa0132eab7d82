//! Everything at a glance.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;

use herald_api::{DataPlaneMode, Forwarding, VirtualIP};
use herald_controller_core::{PoolStatus, TextCounts};
use herald_model::{Phase, ServiceKey, VirtualIp};
use serde::Serialize;

use crate::answer::Answer;
use crate::explain::{Outcome, outcome};
use crate::picture::Picture;
use crate::text::{Level, Style, Table, age, count, list};

/// The answer of `status`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Status {
    pub(crate) addresses: Vec<AddressRow>,
    /// Services without the address they should have.
    pub(crate) pending: Vec<Pending>,
    pub(crate) nodes: Vec<NodeRow>,
    pub(crate) pools: Vec<PoolRow>,
    /// What makes the answer less certain.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) notes: Vec<String>,
}

/// An address in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AddressRow {
    pub(crate) address: IpAddr,
    pub(crate) services: Vec<String>,
    pub(crate) pool: String,
    pub(crate) announcers: Vec<Announcer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) forwarding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) targets: Option<i32>,
    pub(crate) level: Level,
    /// In one word: `Serving`, or what is wrong.
    pub(crate) state: String,
}

/// A node that announces an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Announcer {
    pub(crate) node: String,
    pub(crate) interface: String,
    pub(crate) segment: String,
    /// For how long.
    pub(crate) seconds: i64,
}

/// A Service that waits for an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Pending {
    pub(crate) service: String,
    pub(crate) reason: String,
    pub(crate) message: String,
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeRow {
    pub(crate) node: String,
    pub(crate) speaker: String,
    pub(crate) segments: Vec<String>,
    pub(crate) data_plane: String,
    /// How many addresses it announces.
    pub(crate) holds: usize,
    /// For how many it is the first candidate.
    pub(crate) planned: usize,
    pub(crate) level: Level,
    /// What speaks against it.
    pub(crate) obstacles: Vec<String>,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct PoolRow {
    pub(crate) pool: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ipv4: Option<Counts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ipv6: Option<Counts>,
    pub(crate) level: Level,
    pub(crate) state: String,
}

/// Numbers of addresses, as text: those of IPv6 do not fit a JSON number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Counts {
    pub(crate) assigned: String,
    pub(crate) total: String,
    pub(crate) available: String,
}

/// Looks at everything.
pub(crate) fn status(picture: &Picture) -> Status {
    let states = states(picture);
    let guess = picture.objects.installation.guess.iter();
    let guess = guess
        .map(|why| format!("the controller's flags are not known, defaults are assumed: {why}"));
    Status {
        addresses: addresses(picture, &states),
        pending: pending(&states),
        nodes: nodes(picture),
        pools: pools(picture),
        notes: guess.collect(),
    }
}

/// A Service of ours: what became of it, why in a word, and in a sentence.
type State = (Outcome, String, String);

fn states(picture: &Picture) -> BTreeMap<ServiceKey, State> {
    let ours = picture.controller().services();
    let ours = ours.filter(|observed| observed.served().is_some());
    ours.filter_map(|observed| Some((observed.key.clone(), outcome(picture, &observed.key)?)))
        .collect()
}

fn pending(states: &BTreeMap<ServiceKey, State>) -> Vec<Pending> {
    let pending = |(key, (outcome, reason, message)): (&ServiceKey, &State)| {
        (*outcome == Outcome::Pending).then(|| Pending {
            service: key.to_string(),
            reason: reason.clone(),
            message: message.clone(),
        })
    };
    states.iter().filter_map(pending).collect()
}

fn addresses(picture: &Picture, states: &BTreeMap<ServiceKey, State>) -> Vec<AddressRow> {
    let mut rows = Vec::new();
    for vip in &picture.objects.vips {
        let Ok(spec) = herald_config::virtual_ip(vip) else {
            continue;
        };
        let of = spec
            .services
            .iter()
            .filter_map(|holder| states.get(&holder.key));
        let worst = of.max_by_key(|(outcome, ..)| outcome.level());
        let (level, state) = match (spec.phase, worst) {
            (Phase::Resting { .. }, _) => (Level::Info, "Resting".to_owned()),
            (_, Some((outcome, reason, _))) => (outcome.level(), reason.clone()),
            (_, None) => (Level::Warning, "its Service is none of Herald's".to_owned()),
        };
        rows.push(row(picture, vip, &spec, level, state));
    }
    rows.sort_by_key(|row| row.address);
    rows
}

fn row(
    picture: &Picture,
    vip: &VirtualIP,
    spec: &VirtualIp,
    level: Level,
    state: String,
) -> AddressRow {
    let status = vip.status.as_ref();
    let segments = status.map_or(&[][..], |status| &status.segments);
    let announcer = |entry: &herald_api::AnnouncedSegment| Announcer {
        node: entry.node.clone(),
        interface: entry.interface.clone(),
        segment: entry.name.clone(),
        seconds: picture.now - entry.since.0.as_second(),
    };
    let forwarding = status.and_then(|status| status.forwarding);
    AddressRow {
        address: spec.address,
        services: spec
            .services
            .iter()
            .map(|holder| holder.key.to_string())
            .collect(),
        pool: spec.pool.to_string(),
        announcers: segments.iter().map(announcer).collect(),
        forwarding: forwarding.map(|mode| mode_name(mode).to_owned()),
        targets: status.and_then(|status| status.targets),
        level,
        state,
    }
}

const fn mode_name(mode: Forwarding) -> &'static str {
    match mode {
        Forwarding::Pod => "pod",
        Forwarding::Dsr => "dsr",
        Forwarding::NodePort => "nodeport",
        Forwarding::Off => "off",
    }
}

fn nodes(picture: &Picture) -> Vec<NodeRow> {
    let controller = picture.controller();
    let mut holds: BTreeMap<&str, usize> = BTreeMap::new();
    let mut planned: BTreeMap<&str, usize> = BTreeMap::new();
    for observed in controller.vips() {
        for holding in &observed.holdings {
            *holds.entry(holding.node.as_str()).or_default() += 1;
        }
        for segment in &observed.vip.segments {
            if let Some(first) = segment.candidates.first() {
                *planned.entry(first.node.as_str()).or_default() += 1;
            }
        }
    }
    let row = |node: &k8s_openapi::api::core::v1::Node| {
        let name = node.metadata.name.as_deref().unwrap_or_default();
        let obstacles = controller.node_obstacles(&name.into());
        let level = match obstacles
            .iter()
            .map(herald_controller_core::Obstacle::forbids)
            .max()
        {
            None => Level::Ok,
            Some(false) => Level::Warning,
            Some(true) => Level::Problem,
        };
        let status = picture
            .speaker(name)
            .and_then(|speaker| speaker.status.as_ref());
        let mode = status
            .and_then(|status| status.data_plane.as_ref())
            .map(|it| it.mode);
        NodeRow {
            node: name.to_owned(),
            speaker: status
                .map(|status| status.version.clone())
                .unwrap_or_default(),
            segments: status.map_or_else(Vec::new, |status| {
                status
                    .segments
                    .iter()
                    .map(|segment| segment.name.clone())
                    .collect()
            }),
            data_plane: match mode {
                Some(DataPlaneMode::Tcx) => "tcx",
                Some(DataPlaneMode::Clsact) => "clsact",
                Some(DataPlaneMode::None) => "none",
                None => "",
            }
            .to_owned(),
            holds: holds.get(name).copied().unwrap_or_default(),
            planned: planned.get(name).copied().unwrap_or_default(),
            level,
            obstacles: obstacles.iter().map(ToString::to_string).collect(),
        }
    };
    let mut rows: Vec<NodeRow> = picture.objects.nodes.iter().map(row).collect();
    rows.sort_by(|one, other| one.node.cmp(&other.node));
    rows
}

fn pools(picture: &Picture) -> Vec<PoolRow> {
    let counts = |counts: TextCounts| Counts {
        assigned: counts.assigned,
        total: counts.total,
        available: counts.available,
    };
    let row = |name: &herald_model::PoolName| {
        let now = picture.rehearsal.now();
        let PoolStatus { v4, v6, ready } = picture.controller().pool_status(now, name)?;
        let is_full = |counts: &Option<TextCounts>| {
            counts
                .as_ref()
                .is_some_and(|counts| counts.available == "0")
        };
        let (level, state) = match &ready {
            Some(ready) if !ready.status => (Level::Problem, ready.reason.to_string()),
            _ if is_full(&v4) || is_full(&v6) => (Level::Warning, "Full".to_owned()),
            _ => (Level::Ok, "Ready".to_owned()),
        };
        Some(PoolRow {
            pool: name.to_string(),
            ipv4: v4.map(counts),
            ipv6: v6.map(counts),
            level,
            state,
        })
    };
    picture.pool_names().iter().filter_map(row).collect()
}

impl Status {
    /// The same without how long things have been so: what is left changes only if something happens.
    pub(crate) fn without_times(&self) -> Self {
        let mut it = self.clone();
        let announcers = it.addresses.iter_mut().flat_map(|row| &mut row.announcers);
        for announcer in announcers {
            announcer.seconds = 0;
        }
        it
    }

    fn problems(&self) -> usize {
        let levels = self.addresses.iter().map(|it| it.level);
        let levels = levels.chain(self.nodes.iter().map(|it| it.level));
        let levels = levels.chain(self.pools.iter().map(|it| it.level));
        levels.filter(|level| *level == Level::Problem).count() + self.pending.len()
    }
}

/// Adds a table under its title.
fn section(out: &mut String, style: Style, title: &str, table: &Table, nothing: &str) {
    if !out.is_empty() {
        out.push('\n');
    }
    *out += &style.heading(title);
    out.push('\n');
    if table.is_empty() {
        out.extend(["  ", nothing, "\n"]);
    } else {
        *out += &table.lines(style, 2);
    }
}

impl Status {
    fn address_table(&self) -> Table {
        let mut table = Table::new([
            "ADDRESS",
            "SERVICE",
            "POOL",
            "NODE",
            "INTERFACE",
            "FORWARDING",
            "TARGETS",
            "SINCE",
            "STATE",
        ]);
        for row in &self.addresses {
            let of = |part: fn(&Announcer) -> String| list(row.announcers.iter().map(part));
            let cells = [
                row.address.to_string(),
                list(&row.services),
                row.pool.clone(),
                of(|it| it.node.clone()),
                of(|it| it.interface.clone()),
                row.forwarding.clone().unwrap_or_default(),
                row.targets.map(|it| it.to_string()).unwrap_or_default(),
                of(|it| age(it.seconds)),
                row.state.clone(),
            ];
            table.row_with(cells, row.level);
        }
        table
    }

    fn pending_table(&self) -> Table {
        let mut table = Table::new(["SERVICE", "REASON", "MESSAGE"]);
        for row in &self.pending {
            table.row([row.service.clone(), row.reason.clone(), row.message.clone()]);
        }
        table
    }

    fn node_table(&self) -> Table {
        let mut table = Table::new([
            "NODE",
            "SPEAKER",
            "SEGMENTS",
            "DATA PLANE",
            "HOLDS",
            "PLANNED",
            "STATE",
        ]);
        for row in &self.nodes {
            let state = if row.obstacles.is_empty() {
                "Ready".to_owned()
            } else {
                row.obstacles.join(", ")
            };
            let cells = [
                row.node.clone(),
                row.speaker.clone(),
                list(&row.segments),
                row.data_plane.clone(),
                row.holds.to_string(),
                row.planned.to_string(),
                state,
            ];
            table.row_with(cells, row.level);
        }
        table
    }

    fn pool_table(&self) -> Table {
        let mut table = Table::new(["POOL", "IPV4", "IPV6", "STATE"]);
        for row in &self.pools {
            let of = |counts: &Option<Counts>| {
                let counts = counts.as_ref();
                counts.map_or_else(String::new, |it| format!("{}/{}", it.assigned, it.total))
            };
            let cells = [
                row.pool.clone(),
                of(&row.ipv4),
                of(&row.ipv6),
                row.state.clone(),
            ];
            table.row_with(cells, row.level);
        }
        table
    }
}

impl Answer for Status {
    fn text(&self, style: Style) -> String {
        let mut out = String::new();
        let mut add = |title: &str, table: &Table, nothing: &str| {
            section(&mut out, style, title, table, nothing);
        };
        add("ADDRESSES", &self.address_table(), "none is in use");
        if !self.pending.is_empty() {
            add("PENDING", &self.pending_table(), "");
        }
        add("NODES", &self.node_table(), "there is none");
        let nothing = "there is none: create an IPPool";
        add("POOLS", &self.pool_table(), nothing);
        // Writing to a String cannot fail.
        for note in &self.notes {
            writeln!(out, "\n{} {note}", style.mark(Level::Warning)).ok();
        }
        let problems = self.problems();
        if problems > 0 {
            let (mark, text) = (style.mark(Level::Problem), count(problems, "problem"));
            let verb = "kubectl herald explain service|pool|node NAME says why";
            writeln!(out, "\n{mark} {text}: {verb}").ok();
        }
        out
    }

    fn is_well(&self) -> bool {
        self.problems() == 0
    }
}

#[cfg(test)]
mod tests;
