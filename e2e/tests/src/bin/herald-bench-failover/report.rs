//! All that was measured, for people and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use herald_e2e::bench::group::{Group, Measured, machine};
use herald_e2e::bench::table::{aligned, range};
use serde_json::{Value, json};

use crate::{atrest, compare, connections, heal, many, round};

/// All groups there are.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) faults: Vec<Group<round::Round>>,
    pub(crate) streams: Vec<Group<round::Round>>,
    pub(crate) connections: Vec<Group<connections::Round>>,
    pub(crate) many: Vec<Group<many::Round>>,
    pub(crate) heal: Vec<Group<heal::Round>>,
    pub(crate) lease: Vec<Group<compare::Round>>,
    pub(crate) rest: Vec<Group<atrest::Round>>,
}

impl Report {
    /// Whether each round came to its end as it had to.
    pub(crate) fn is_good(&self) -> bool {
        fn good<R: Measured>(groups: &[Group<R>]) -> bool {
            groups.iter().all(Group::is_good)
        }
        good(&self.faults)
            && good(&self.streams)
            && good(&self.connections)
            && good(&self.many)
            && good(&self.heal)
            && good(&self.lease)
            && good(&self.rest)
    }

    pub(crate) fn json(&self) -> Value {
        fn all<R: Measured>(groups: &[Group<R>]) -> Vec<Value> {
            groups.iter().map(Group::json).collect()
        }
        json!({
            "machine": machine(),
            "faults": all(&self.faults),
            "streams": all(&self.streams),
            "connections": all(&self.connections),
            "many": all(&self.many),
            "heal": all(&self.heal),
            "lease": all(&self.lease),
            "rest": all(&self.rest),
        })
    }

    pub(crate) fn text(&self) -> String {
        let parts = [
            self.faults_text(),
            self.streams_text(),
            self.connections_text(),
            self.many_text(),
            self.heal_text(),
            self.lease_text(),
            self.rest_text(),
        ];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        format!(
            "{}\nmilliseconds, load: least/median/greatest\n\n{}",
            machine(),
            parts.join("\n")
        )
    }

    fn faults_text(&self) -> String {
        if self.faults.is_empty() {
            return String::new();
        }
        let row = |group: &Group<round::Round>| {
            let said = |of: fn(round::Takeover) -> Duration| group.times(|it| it.speaker.map(of));
            let lost = range(group.rounds.iter().map(|it| it.lost).collect());
            let streams = |of: fn(&round::Verdict) -> usize| -> usize {
                group.rounds.iter().map(|it| of(&it.streams)).sum()
            };
            let [case, profile, rounds, load] = group.title();
            [
                case,
                profile,
                rounds,
                load,
                group.times(|it| Some(it.quiet)),
                group.times(|it| Some(it.outage)),
                group.times(|it| Some(it.tcp_outage)),
                lost,
                group.times(|it| Some(it.settled)),
                group.times(|it| it.others),
                said(|it| it.suspected),
                said(|it| it.certified),
                said(|it| it.announced),
                group.times(|it| it.forwarded),
                group.times(|it| Some(it.streams.longest)),
                format!("{}/{}", streams(|it| it.finished), streams(|it| it.all)),
            ]
        };
        let heading = [
            "CASE",
            "PROFILE",
            "ROUNDS",
            "LOAD",
            "QUIET",
            "UDP OUTAGE",
            "TCP OUTAGE",
            "LOST",
            "SETTLED",
            "NODE'S OWN",
            "SUSPECTED",
            "CERTIFIED",
            "ANNOUNCED",
            "FORWARDED",
            "STREAM WAIT",
            "STREAMS",
        ];
        aligned(heading, self.faults.iter().map(row).collect())
            + "\
QUIET: longest time without an answer in 2 s before the fault. OUTAGE: after it, to any of the flows or\n\
streams that are not with pods of the failed node. LOST: their unanswered questions, of one each\n\
millisecond. SETTLED: from the fault to the last of these. NODE'S OWN: the same for the flows that were\n\
with its pods. SUSPECTED, CERTIFIED, ANNOUNCED, FORWARDED (the first packet): by the speaker that took\n\
over, since the last sign of life of the one before. STREAM WAIT: the longest time a TCP stream that\n\
finished had no answer.\n"
    }

    fn streams_text(&self) -> String {
        if self.streams.is_empty() {
            return String::new();
        }
        let row = |group: &Group<round::Round>| {
            let sum = |of: fn(&round::Verdict) -> usize| -> usize {
                group.rounds.iter().map(|it| of(&it.streams)).sum()
            };
            let [case, profile, rounds, load] = group.title();
            let good = group
                .rounds
                .iter()
                .filter(|it| it.streams.is_as_predicted());
            [
                case,
                profile,
                rounds,
                load,
                format!("{}/{}", sum(|it| it.finished), sum(|it| it.all)),
                format!("{}/{}", sum(|it| it.lost), sum(|it| it.predicted)),
                format!("{}/{}", good.count(), group.rounds.len()),
                group.times(|it| Some(it.streams.longest)),
            ]
        };
        let heading = [
            "STREAMS, LINK CUT",
            "PROFILE",
            "ROUNDS",
            "LOAD",
            "FINISHED",
            "LOST/PREDICTED",
            "AS PREDICTED",
            "STREAM WAIT",
        ];
        aligned(heading, self.streams.iter().map(row).collect())
    }

    fn connections_text(&self) -> String {
        let mut text = String::new();
        for group in &self.connections {
            let [case, profile, rounds, _] = group.title();
            // Writing to a String cannot fail.
            writeln!(text, "{case}, {profile}, rounds: {rounds}").ok();
            for round in &group.rounds {
                writeln!(text, "  {round}").ok();
            }
        }
        text
    }

    fn many_text(&self) -> String {
        if self.many.is_empty() {
            return String::new();
        }
        let row = |group: &Group<many::Round>| {
            let of = |times: fn(&many::Round) -> &[Duration], last: bool| {
                group.times(|round| {
                    let times = times(round);
                    let index = if last {
                        times.len().saturating_sub(1)
                    } else {
                        times.len() / 2
                    };
                    times.get(index).copied()
                })
            };
            let [case, profile, rounds, load] = group.title();
            [
                case,
                profile,
                rounds,
                load,
                of(|it| &it.announced, false),
                of(|it| &it.announced, true),
                of(|it| &it.answered, false),
                of(|it| &it.answered, true),
            ]
        };
        let heading = [
            "ADDRESSES ON THE NODE, LINK CUT",
            "PROFILE",
            "ROUNDS",
            "LOAD",
            "MEDIAN ANNOUNCED",
            "LAST ANNOUNCED",
            "MEDIAN ANSWERED",
            "LAST ANSWERED",
        ];
        aligned(heading, self.many.iter().map(row).collect())
    }

    fn heal_text(&self) -> String {
        if self.heal.is_empty() {
            return String::new();
        }
        let row = |group: &Group<heal::Round>| {
            let [case, profile, rounds, load] = group.title();
            let answers = group.rounds.iter().map(|it| it.answers).collect();
            [
                case,
                profile,
                rounds,
                load,
                group.times(|it| Some(it.heard)),
                range(answers),
                group.times(|it| Some(it.announced)),
            ]
        };
        let heading = [
            "THE LAN IS WHOLE AGAIN",
            "PROFILE",
            "ROUNDS",
            "LOAD",
            "OTHER HEARD UNTIL",
            "ITS ANSWERS",
            "ANNOUNCED ANEW",
        ];
        aligned(heading, self.heal.iter().map(row).collect())
            + "\
OTHER HEARD UNTIL: the last frame for the address from the one that gave way. ANNOUNCED ANEW: the first\n\
announcement to all by the one that went on.\n"
    }

    fn lease_text(&self) -> String {
        if self.lease.is_empty() {
            return String::new();
        }
        let row = |group: &Group<compare::Round>| {
            let (finished, all) = group.rounds.iter().fold((0, 0), |sum, round| {
                (sum.0 + round.finished.0, sum.1 + round.finished.1)
            });
            let [case, _, rounds, load] = group.title();
            let lost = range(group.rounds.iter().map(|it| it.lost).collect());
            let outage = group.times(|it| Some(it.outage));
            [
                case,
                rounds,
                load,
                outage,
                lost,
                format!("{finished}/{all}"),
            ]
        };
        let heading = [
            "FOR COMPARISON, LINK CUT",
            "ROUNDS",
            "LOAD",
            "UDP OUTAGE",
            "LOST",
            "STREAMS",
        ];
        aligned(heading, self.lease.iter().map(row).collect())
    }

    fn rest_text(&self) -> String {
        let mut text = String::new();
        for group in &self.rest {
            let [case, profile, ..] = group.title();
            for round in &group.rounds {
                writeln!(text, "{case}, {profile}: {round}").ok();
            }
        }
        text
    }
}
