//! What was measured, for people and for machines.

use std::fmt::{self, Write as _};
use std::time::Duration;

use serde_json::{Value, json};

use crate::stage::{Assigned, Restart};

/// Assigned per second ÷ the bare client's.
const RATIO: f64 = 0.8;
/// CPU time of the controller ÷ that of the API server.
const CPU: f64 = 0.2;

/// One run of Herald's and the bare client's after it.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) probe: bool,
    pub(crate) herald: Assigned,
    pub(crate) bare: Duration,
}

impl Run {
    fn ratio(&self) -> f64 {
        self.bare.as_secs_f64() / self.herald.window.time.as_secs_f64()
    }

    fn cpu(&self) -> f64 {
        self.herald.controller.cpu_seconds / self.herald.api_cpu_seconds
    }
}

/// What is said in one line.
#[derive(Debug)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    target: Option<(&'static str, f64)>,
}

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) services: u32,
    pub(crate) runs: Vec<Run>,
    pub(crate) restart: Option<Restart>,
}

fn median(mut all: Vec<f64>) -> Option<f64> {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied()
}

impl fmt::Display for Restart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "restart: ready after {:.2} s, leads after {:.2} s, {} writes but for the Lease",
            self.ready.as_secs_f64(),
            self.leads.as_secs_f64(),
            self.writes.values().sum::<usize>()
        )?;
        for (kind, count) in &self.writes {
            writeln!(f, "  {count:7} {kind}")?;
        }
        Ok(())
    }
}

impl Report {
    fn per_second(&self, time: Duration) -> f64 {
        f64::from(self.services) / time.as_secs_f64()
    }

    pub(crate) fn run(&self, run: &Run) -> String {
        let Assigned {
            window,
            requests,
            controller,
            api_cpu_seconds,
            ..
        } = &run.herald;
        let all: usize = requests.values().sum();
        let each = u32::try_from(all).map_or(f64::NAN, f64::from) / f64::from(self.services);
        let probe = if run.probe { "with" } else { "without" };
        let mut text = format!(
            "{} Services, {probe} conflict probing\n  Herald {:.0} a second, the bare client {:.0}, ratio {:.2}\n  \
             controller {:.1} s CPU (API server {api_cpu_seconds:.1} s), {:.1} MiB; {each:.2} requests per Service\n",
            self.services,
            self.per_second(window.time),
            self.per_second(run.bare),
            run.ratio(),
            controller.cpu_seconds,
            controller.rss_mib,
        );
        for (kind, count) in requests {
            let within = window.writes.get(kind).copied().unwrap_or(0);
            // Writing to a String cannot fail.
            writeln!(
                text,
                "  {count:7} {kind}, {within} of them until all were assigned"
            )
            .ok();
        }
        text
    }

    fn figures(&self) -> Vec<Figure> {
        let mut figures = Vec::new();
        let mut add = |name: String, value: Option<f64>, unit, target| {
            figures.extend(value.map(|value| Figure {
                name,
                value,
                unit,
                target,
            }));
        };
        for (name, probe) in [("plain", false), ("probed", true)] {
            let of = |value: &dyn Fn(&Run) -> f64| {
                let runs = self.runs.iter().filter(|run| run.probe == probe);
                median(runs.map(value).collect())
            };
            let rate = of(&|run| self.per_second(run.herald.window.time));
            let memory = of(&|run| run.herald.controller.rss_mib);
            let name = |what: &str| format!("alloc.{name}.{what}");
            add(name("assigned"), rate, "per_s", None);
            add(
                name("vs_bare"),
                of(&Run::ratio),
                "ratio",
                Some((">=", RATIO)),
            );
            add(name("cpu_vs_api"), of(&Run::cpu), "ratio", Some(("<", CPU)));
            add(name("memory"), memory, "MiB", None);
        }
        if let Some(restart) = &self.restart {
            let writes: usize = restart.writes.values().sum();
            let writes = u32::try_from(writes).map_or(f64::NAN, f64::from);
            let ms = |time: Duration| Some(time.as_secs_f64() * 1e3);
            let name = |what: &str| format!("alloc.restart.{what}");
            add(name("ready"), ms(restart.ready), "ms", None);
            add(name("leads"), ms(restart.leads), "ms", None);
            add(name("writes"), Some(writes), "writes", Some(("<=", 0.0)));
        }
        figures
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for run in &self.runs {
            text += &self.run(run);
        }
        if let Some(restart) = &self.restart {
            text += &restart.to_string();
        }
        for figure in self.figures() {
            let Figure {
                name,
                value,
                unit,
                target,
            } = figure;
            write!(text, "figure {name} {value:.2} {unit}").ok();
            if let Some((relation, target)) = target {
                let verdict = if met(value, relation, target) {
                    "ok"
                } else {
                    "short"
                };
                write!(text, " target {relation} {target} {verdict}").ok();
            }
            text.push('\n');
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        let run = |run: &Run| {
            json!({
                "conflictProbe": run.probe,
                "heraldSeconds": run.herald.window.time.as_secs_f64(),
                "bareSeconds": run.bare.as_secs_f64(),
                "ratio": run.ratio(),
                "writesUntilAssigned": run.herald.window.writes,
                "requests": run.herald.requests,
                "controllerCpuSeconds": run.herald.controller.cpu_seconds,
                "controllerRssMiB": run.herald.controller.rss_mib,
                "apiServerCpuSeconds": run.herald.api_cpu_seconds,
            })
        };
        let restart = self.restart.as_ref().map(|restart| {
            json!({
                "readySeconds": restart.ready.as_secs_f64(),
                "leadsSeconds": restart.leads.as_secs_f64(),
                "writes": restart.writes,
            })
        });
        json!({
            "services": self.services,
            "runs": self.runs.iter().map(run).collect::<Vec<_>>(),
            "restart": restart,
        })
    }
}

fn met(value: f64, relation: &str, target: f64) -> bool {
    match relation {
        ">=" => value >= target,
        "<" => value < target,
        _ => value <= target,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_met_or_not_as_its_relation_says() {
        assert!(met(0.8, ">=", 0.8) && !met(0.79, ">=", 0.8));
        assert!(met(0.19, "<", 0.2) && !met(0.2, "<", 0.2));
        assert!(met(0.0, "<=", 0.0) && !met(1.0, "<=", 0.0));
        assert!(!met(f64::NAN, "<=", 0.0));
    }
}
