//! The figures of all rounds, one row per case and profile.

use std::fmt::Display;
use std::time::Duration;

use anyhow::Result;
use herald_e2e::fault::Fault;

use crate::round::{Round, Takeover};

/// All rounds of one case with one profile.
#[derive(Debug)]
pub(crate) struct Row {
    fault: Fault,
    profile: String,
    rounds: Vec<Round>,
    failed: usize,
}

impl Row {
    pub(crate) fn new(fault: Fault, profile: &str) -> Self {
        Self {
            fault,
            profile: profile.to_owned(),
            rounds: Vec::new(),
            failed: 0,
        }
    }

    pub(crate) fn add(&mut self, round: Result<Round>) {
        match round {
            Ok(round) => self.rounds.push(round),
            Err(_) => self.failed += 1,
        }
    }

    /// Whether each round came to its end, with each stream that could finish.
    pub(crate) fn is_good(&self) -> bool {
        let finished = |round: &Round| round.streams.0 == round.streams.1;
        self.failed == 0 && self.rounds.iter().all(finished)
    }

    fn figures(&self, of: impl Fn(&Round) -> Option<Duration>) -> String {
        figures(&self.rounds.iter().filter_map(of).collect::<Vec<_>>())
    }

    fn said(&self, of: impl Fn(Takeover) -> Duration) -> String {
        self.figures(|round| round.speaker.map(&of))
    }

    fn cells(&self) -> Vec<String> {
        let (all, finished) = self.rounds.iter().fold((0, 0), |sum, round| {
            (sum.0 + round.streams.0, sum.1 + round.streams.1)
        });
        let failed = match self.failed {
            0 => String::new(),
            failed => format!(" + {failed} FAILED"),
        };
        vec![
            self.fault.to_string(),
            self.profile.clone(),
            format!("{}{failed}", self.rounds.len()),
            self.figures(|round| Some(round.quiet)),
            self.figures(|round| Some(round.outage)),
            range(self.rounds.iter().map(|round| round.lost).collect()),
            self.figures(|round| Some(round.settled)),
            self.figures(|round| round.others),
            self.said(|it| it.suspected),
            self.said(|it| it.certified),
            self.said(|it| it.announced),
            self.figures(|round| Some(round.stream_wait)),
            format!("{finished}/{all}"),
        ]
    }
}

/// Least, median and greatest in milliseconds; the upper one of two medians.
fn figures(times: &[Duration]) -> String {
    range(times.iter().map(Duration::as_millis).collect())
}

fn range<T: Ord + Display>(mut all: Vec<T>) -> String {
    all.sort_unstable();
    match (all.first(), all.get(all.len() / 2), all.last()) {
        (Some(least), Some(median), Some(greatest)) => format!("{least}/{median}/{greatest}"),
        _ => "-".to_owned(),
    }
}

/// All rows, below their headings.
pub(crate) fn table(rows: &[Row]) -> String {
    let heading = [
        "CASE",
        "PROFILE",
        "ROUNDS",
        "QUIET",
        "OUTAGE",
        "LOST",
        "SETTLED",
        "NODE'S OWN",
        "SUSPECTED",
        "CERTIFIED",
        "ANNOUNCED",
        "STREAM WAIT",
        "STREAMS",
    ];
    let mut all = vec![heading.map(str::to_owned).to_vec()];
    all.extend(rows.iter().map(Row::cells));
    let widths: Vec<usize> = (0..heading.len())
        .map(|column| {
            let cells = all.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = "milliseconds: least/median/greatest\n".to_owned();
    for row in all {
        for (cell, width) in row.iter().zip(&widths) {
            let filler = " ".repeat(width - cell.chars().count());
            text.extend([cell.as_str(), &filler, "  "]);
        }
        text = text.trim_end().to_owned() + "\n";
    }
    text + "\
QUIET: longest time without an answer in 2 s before the fault. OUTAGE: after it, to any of the flows\n\
that are not with pods of the failed node. LOST: their unanswered questions, of one each millisecond.\n\
SETTLED: from the fault to the last of these.\n\
NODE'S OWN: the same for the flows that were with its pods. SUSPECTED, CERTIFIED, ANNOUNCED: by the\n\
speaker that took over, since the last sign of life of the one before. STREAM WAIT: the longest time a\n\
TCP stream that finished had no answer.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_least_median_and_greatest() {
        let ms = |numbers: &[u64]| {
            let times: Vec<_> = numbers.iter().copied().map(Duration::from_millis).collect();
            figures(&times)
        };
        assert_eq!(ms(&[30, 10, 20]), "10/20/30");
        assert_eq!(ms(&[7]), "7/7/7");
        assert_eq!(ms(&[]), "-");
    }
}
