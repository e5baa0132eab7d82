//! What would come of a change: the same decisions, on changed inputs.

mod compare;

use std::fmt::Write as _;
use std::net::IpAddr;

use herald_controller_core::{Input, Rehearsal};
use herald_model::{Departure, NodeName, PoolName};
use herald_speaker_core::{Facts, Forecast};
use serde::Serialize;

use crate::answer::Answer;
use crate::picture::{Picture, facts};
use crate::text::{Level, Style, Table, list, percent};

use compare::Side;

/// A change.
pub(crate) enum Change {
    /// A node dies without a word.
    NodeDown(NodeName),
    /// A node is cordoned, and its pods are evicted.
    Drain(NodeName),
    /// A pool is deleted.
    DeletePool(PoolName),
    /// A Service is applied: the input that says it is there.
    Apply(Box<Input>, String),
}

/// The answer of `what-if`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct WhatIf {
    pub(crate) change: String,
    /// Services whose addresses change.
    pub(crate) services: Vec<ServiceChange>,
    /// Addresses that another node would announce, or nobody.
    pub(crate) moves: Vec<Move>,
    /// Who would hold each address that is left, on each segment.
    pub(crate) holders: Vec<Holder>,
    /// Flows that would break, by address and Service.
    pub(crate) flows: Vec<Flows>,
    /// What the figures rest on.
    pub(crate) notes: Vec<String>,
}

/// A Service whose addresses change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ServiceChange {
    pub(crate) service: String,
    pub(crate) before: Vec<IpAddr>,
    pub(crate) after: Vec<IpAddr>,
    /// Why it has not what it should have then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
}

/// An address that moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Move {
    pub(crate) address: IpAddr,
    pub(crate) services: Vec<String>,
    pub(crate) segment: String,
    pub(crate) from: Option<String>,
    /// `None`: nobody would announce it.
    pub(crate) to: Option<String>,
}

/// Who would hold an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Holder {
    pub(crate) address: IpAddr,
    pub(crate) segment: String,
    pub(crate) node: Option<String>,
}

/// Flows that would break.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Flows {
    pub(crate) service: String,
    pub(crate) address: IpAddr,
    /// From 0 to 1.
    pub(crate) share: f64,
    pub(crate) why: String,
}

/// Says what would come of a change.
///
/// # Errors
///
/// If what is to change is not there.
pub(crate) fn what_if(picture: &Picture, change: &Change) -> Result<WhatIf, String> {
    let before = picture.after(None);
    let mut notes = Vec::new();
    let (after, said) = match change {
        Change::NodeDown(node) | Change::Drain(node) if !has_node(picture, node) => {
            return Err(format!("there is no node {node}"));
        }
        Change::NodeDown(node) => {
            notes.extend(quorum(picture, node));
            (picture.after(None), format!("{node} dies without a word"))
        }
        Change::Drain(node) => {
            notes.push(format!(
                "pods on {node} are evicted, and connections with them end; where their successors run is for the scheduler to say"
            ));
            let input = cordoned(picture, node);
            (
                picture.after(input),
                format!("{node} is cordoned and drained"),
            )
        }
        Change::DeletePool(pool) => {
            if !picture.pool_names().contains(pool) {
                return Err(format!("there is no IPPool {pool}"));
            }
            let input = Input::PoolDeleted(pool.clone());
            (
                picture.after(Some(input)),
                format!("IPPool {pool} is deleted"),
            )
        }
        Change::Apply(input, name) => {
            let input = (**input).clone();
            (
                picture.after(Some(input)),
                format!("Service {name} is applied"),
            )
        }
    };
    let dead = match change {
        Change::NodeDown(node) => Some(node),
        _ => None,
    };
    let evicted = match change {
        Change::NodeDown(node) | Change::Drain(node) => Some(node),
        _ => None,
    };
    let mut answer = compare::compare(
        &side(picture, before, None),
        &side(picture, after, dead),
        evicted,
    );
    notes.append(&mut answer.notes);
    Ok(WhatIf {
        change: said,
        notes,
        ..answer
    })
}

fn has_node(picture: &Picture, node: &NodeName) -> bool {
    picture.forecast.facts().nodes.contains_key(node)
}

fn cordoned(picture: &Picture, node: &NodeName) -> Option<Input> {
    let mut node = picture.forecast.facts().nodes.get(node)?.clone();
    node.departure.get_or_insert(Departure::Cordoned);
    Some(Input::NodeApplied(Box::new(node)))
}

/// The world on one side of the change.
fn side(picture: &Picture, rehearsal: Rehearsal, dead: Option<&NodeName>) -> Side {
    let mut facts: Facts = facts(&picture.objects, rehearsal.controller());
    if let Some(node) = dead {
        facts.dead.insert(node.clone());
        facts.silent.insert(node.clone());
    }
    Side {
        forecast: Forecast::new(facts),
        rehearsal,
    }
}

/// What the death of a node takes where few are left: speakers take over only if they are more than half
/// of those that were there, or a witness answers.
fn quorum(picture: &Picture, node: &NodeName) -> Vec<String> {
    let facts = picture.forecast.facts();
    let mut members: std::collections::BTreeMap<&herald_model::SegmentName, Vec<&NodeName>> =
        std::collections::BTreeMap::new();
    for speaker in facts.speakers.values() {
        let lives = !facts.silent.contains(&speaker.node);
        for segment in speaker
            .report
            .segments
            .iter()
            .filter(|it| it.carrier && lives)
        {
            members
                .entry(&segment.name)
                .or_default()
                .push(&speaker.node);
        }
    }
    let two = members
        .into_iter()
        .filter(|(_, nodes)| nodes.len() == 2 && nodes.contains(&node));
    two.map(|(segment, _)| {
        format!(
            "on {segment} one of two speakers is left: it takes over only if the witness (chart value ring.witness) answers"
        )
    })
    .collect()
}

impl Answer for WhatIf {
    fn text(&self, style: Style) -> String {
        let mut out = format!("{}\n", style.heading(&format!("If {}:", self.change)));
        let mut section = |title: &str, table: &Table| {
            // Writing to a String cannot fail.
            write!(out, "\n{}\n{}", style.heading(title), table.lines(style, 2)).ok();
        };
        if !self.services.is_empty() {
            let mut table =
                Table::new(["SERVICE", "ADDRESSES NOW", "ADDRESSES THEN", "WHY NOT ALL"]);
            for row in &self.services {
                let why = row.message.clone().unwrap_or_default();
                let cells = [
                    row.service.clone(),
                    list(&row.before),
                    list(&row.after),
                    why,
                ];
                table.row_with(cells, Level::Problem);
            }
            section("SERVICES that change", &table);
        }
        if !self.moves.is_empty() {
            let mut table = Table::new(["ADDRESS", "SERVICE", "SEGMENT", "NOW", "THEN"]);
            for row in &self.moves {
                let level = if row.to.is_some() {
                    Level::Ok
                } else {
                    Level::Problem
                };
                let to = row.to.clone().unwrap_or_else(|| "nobody".to_owned());
                let from = row.from.clone().unwrap_or_else(|| "nobody".to_owned());
                let services = list(&row.services);
                let cells = [
                    row.address.to_string(),
                    services,
                    row.segment.clone(),
                    from,
                    to,
                ];
                table.row_with(cells, level);
            }
            section("HOLDERS that change", &table);
        }
        if !self.flows.is_empty() {
            let mut table = Table::new(["ADDRESS", "SERVICE", "BREAK", "WHY"]);
            for row in &self.flows {
                let share = percent(row.share);
                let cells = [
                    row.address.to_string(),
                    row.service.clone(),
                    share,
                    row.why.clone(),
                ];
                table.row(cells);
            }
            section("FLOWS that break", &table);
        }
        if self.services.is_empty() && self.moves.is_empty() && self.flows.is_empty() {
            writeln!(out, "\n{} nothing changes", style.mark(Level::Ok)).ok();
        }
        if !self.notes.is_empty() {
            out.push('\n');
        }
        for note in &self.notes {
            writeln!(out, "{} {note}", style.mark(Level::Info)).ok();
        }
        out
    }

    fn is_well(&self) -> bool {
        let loses = |change: &ServiceChange| change.reason.is_some();
        !self.services.iter().any(loses)
            && self.moves.iter().all(|it| it.to.is_some())
            && self.flows.is_empty()
    }
}

#[cfg(test)]
mod tests;
