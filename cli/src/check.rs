//! Whether the cluster is ready for Herald, and Herald for it.

mod cluster;
mod herald;
mod network;
mod nodes;
mod probe;
mod segments;

use serde::Serialize;
use std::fmt::Write as _;

use crate::answer::Answer;
use crate::picture::Picture;
use crate::text::{Level, Style, count};

pub(crate) use probe::{Probes, probe};

/// The answer of `check`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) findings: Vec<Finding>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// What was looked at, in one word of a closed set.
    pub(crate) check: &'static str,
    /// Where: a node, a segment, an object; empty: in the whole.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) subject: String,
    pub(crate) level: Level,
    pub(crate) text: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) remedy: Option<String>,
}

impl Finding {
    pub(crate) fn new(
        check: &'static str,
        subject: &(impl ToString + ?Sized),
        level: Level,
        text: impl Into<String>,
    ) -> Self {
        Self {
            check,
            subject: subject.to_string(),
            level,
            text: text.into(),
            remedy: None,
        }
    }

    pub(crate) fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

/// Looks at everything.
pub(crate) fn check(picture: &Picture, probes: &Probes) -> Check {
    let mut findings = herald::findings(picture, probes);
    findings.extend(cluster::findings(picture, probes));
    findings.extend(nodes::findings(picture, probes));
    findings.extend(segments::findings(picture, probes));
    findings.extend(network::findings(picture));
    Check { findings }
}

impl Check {
    fn count(&self, level: Level) -> usize {
        let found = self.findings.iter();
        found.filter(|finding| finding.level == level).count()
    }
}

impl Answer for Check {
    fn text(&self, style: Style) -> String {
        let width = |part: fn(&Finding) -> &str| {
            let widths = self.findings.iter().map(|it| part(it).chars().count());
            widths.max().unwrap_or_default()
        };
        let (check, subject) = (width(|it| it.check), width(|it| &it.subject));
        let mut out = String::new();
        for finding in &self.findings {
            writeln!(
                out,
                "{} {:check$}  {:subject$}  {}",
                style.mark(finding.level),
                finding.check,
                finding.subject,
                finding.text
            )
            .ok();
            if let Some(remedy) = &finding.remedy {
                writeln!(
                    out,
                    "{:width$}{} {remedy}",
                    "",
                    style.heading("→"),
                    width = check + subject + 6
                )
                .ok();
            }
        }
        let told = [
            (Level::Problem, "problem"),
            (Level::Warning, "warning"),
            (Level::Unknown, "unknown"),
        ];
        let told: Vec<String> = told
            .into_iter()
            .filter(|(level, _)| self.count(*level) > 0)
            .map(|(level, word)| match (word, self.count(level)) {
                ("unknown", number) => format!("{number} unknown"),
                (word, number) => count(number, word),
            })
            .collect();
        let (level, told) = if told.is_empty() {
            (Level::Ok, "all is well".to_owned())
        } else {
            let worst = self.findings.iter().map(|it| it.level).max();
            (worst.unwrap_or(Level::Ok), told.join(", "))
        };
        // Writing to a String cannot fail.
        writeln!(out, "\n{} {told}", style.mark(level)).ok();
        out
    }

    fn is_well(&self) -> bool {
        self.count(Level::Problem) == 0
    }
}

#[cfg(test)]
mod tests;
