//! Why something is as it is, step by step.

mod address;
mod node;
mod pool;
mod remedy;
mod service;

use serde::Serialize;
use std::fmt::Write as _;

use crate::answer::Answer;
use crate::text::{Level, Style};

pub(crate) use node::node;
pub(crate) use pool::pool;
pub(crate) use service::{outcome, service};

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Outcome {
    /// All is as it should be.
    Serving,
    /// It serves, and not all is as was asked.
    Degraded,
    /// Its address is announced, and nobody behind it takes the traffic.
    Refusing,
    /// Nobody announces its address.
    Silent,
    /// It has no address.
    Pending,
    /// It is none of Herald's.
    NotServed,
}

impl Outcome {
    const fn word(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Degraded => "degraded",
            Self::Refusing => "refusing",
            Self::Silent => "silent",
            Self::Pending => "pending",
            Self::NotServed => "not served",
        }
    }

    /// How bad it is.
    pub(crate) const fn level(self) -> Level {
        match self {
            Self::Serving => Level::Ok,
            Self::Degraded => Level::Warning,
            Self::Refusing | Self::Silent | Self::Pending => Level::Problem,
            Self::NotServed => Level::Info,
        }
    }
}

/// An answer to "why".
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Explanation {
    /// What it is about: `Service`, `IPPool`, `Node`.
    pub(crate) kind: &'static str,
    pub(crate) name: String,
    pub(crate) outcome: Outcome,
    /// Why, in one word of a closed set.
    pub(crate) reason: String,
    /// Why, in a sentence.
    pub(crate) summary: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
    pub(crate) steps: Vec<Step>,
}

/// One step of the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Step {
    pub(crate) name: &'static str,
    /// The address it is about; absent if it is about the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) about: Option<String>,
    pub(crate) level: Level,
    pub(crate) text: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) details: Vec<Detail>,
}

/// One thing that was looked at in a step: an alternative, with what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Detail {
    pub(crate) level: Level,
    pub(crate) subject: String,
    pub(crate) text: String,
}

impl Step {
    pub(crate) fn new(name: &'static str, level: Level, text: impl Into<String>) -> Self {
        Self {
            name,
            about: None,
            level,
            text: text.into(),
            details: Vec::new(),
        }
    }

    pub(crate) fn about(mut self, about: &(impl ToString + ?Sized)) -> Self {
        self.about = Some(about.to_string());
        self
    }

    pub(crate) fn detail(
        &mut self,
        level: Level,
        subject: &(impl ToString + ?Sized),
        text: impl Into<String>,
    ) {
        self.details.push(Detail {
            level,
            subject: subject.to_string(),
            text: text.into(),
        });
    }
}

impl Answer for Explanation {
    fn text(&self, style: Style) -> String {
        let word = style.level(self.outcome.level(), self.outcome.word());
        let name = style.heading(&format!("{} {}", self.kind, self.name));
        let mut out = format!("{name}: {word} ({})\n  {}\n", self.reason, self.summary);
        if let Some(remedy) = &self.remedy {
            // Writing to a String cannot fail.
            writeln!(out, "  {} {remedy}", style.heading("What to do:")).ok();
        }
        let names = self.steps.iter().map(|step| step.name.len());
        let width = names.max().unwrap_or_default();
        for step in &self.steps {
            let about = step.about.as_ref().map(|about| format!("{about}: "));
            writeln!(
                out,
                "\n{} {:width$}  {}{}",
                style.mark(step.level),
                step.name,
                about.unwrap_or_default(),
                step.text
            )
            .ok();
            let subjects = step.details.iter().map(|it| it.subject.chars().count());
            let inner = subjects.max().unwrap_or_default();
            for detail in &step.details {
                let gap = inner.saturating_sub(detail.subject.chars().count());
                writeln!(
                    out,
                    "  {:width$}  {} {}{}  {}",
                    "",
                    style.mark(detail.level),
                    detail.subject,
                    " ".repeat(gap),
                    detail.text
                )
                .ok();
            }
        }
        out
    }

    fn is_well(&self) -> bool {
        self.outcome == Outcome::Serving
    }
}

#[cfg(test)]
mod tests;
