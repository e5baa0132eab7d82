//! All that was measured, for people and as JSON.

use herald_e2e::bench::group::{Group, machine};
use herald_e2e::bench::table::{aligned, median};
use serde_json::{Value, json};

use crate::variant::{Round, Way};

/// What a table shows of a round, in its own unit.
type Figure = fn(&Round) -> f64;

const FIGURES: [(&str, Figure); 6] = [
    ("CONNECTIONS/s", |it| it.connections.per_second),
    ("us CPU EACH", |it| {
        it.connections.cpu_each.as_secs_f64() * 1e6
    }),
    ("us P50", |it| it.alone.median.as_secs_f64() * 1e6),
    ("us P99", |it| it.alone.p99.as_secs_f64() * 1e6),
    ("DATAGRAMS/s", |it| it.datagrams_per_second),
    ("MB/s", |it| it.bytes_per_second / 1e6),
];

/// The rounds of each way, with one mode of kube-proxy and so many Services.
#[derive(Debug)]
pub(crate) struct Setting {
    pub(crate) kube_proxy: &'static str,
    pub(crate) services: usize,
    pub(crate) ways: Vec<(Way, Group<Round>)>,
}

#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) settings: Vec<Setting>,
}

impl Setting {
    /// The median of a figure over the rounds of one way.
    fn median(&self, way: Way, figure: Figure) -> Option<f64> {
        let (_, group) = self.ways.iter().find(|(of, _)| *of == way)?;
        median(group.rounds.iter().map(figure).collect())
    }

    fn row(&self, way: Way, group: &Group<Round>) -> [String; 10] {
        let [case, setting, rounds, load] = group.title();
        let cell = |figure: Figure| {
            let own = self.median(way, figure);
            let direct = self.median(Way::Direct, figure);
            match (own, direct) {
                (Some(own), Some(direct)) => format!("{own:.0} ({:.2})", own / direct),
                (Some(own), None) => format!("{own:.0}"),
                (None, _) => "-".to_owned(),
            }
        };
        let [connections, cpu, p50, p99, datagrams, bulk] = FIGURES.map(|(_, figure)| cell(figure));
        [
            case,
            setting,
            rounds,
            load,
            connections,
            cpu,
            p50,
            p99,
            datagrams,
            bulk,
        ]
    }
}

impl Report {
    pub(crate) fn is_good(&self) -> bool {
        let mut groups = self.settings.iter().flat_map(|setting| &setting.ways);
        groups.all(|(_, group)| group.is_good())
    }

    pub(crate) fn json(&self) -> Value {
        let settings = self.settings.iter().map(|setting| {
            let ways: Vec<_> = setting.ways.iter().map(|(_, group)| group.json()).collect();
            json!({
                "kubeProxy": setting.kube_proxy,
                "services": setting.services,
                "ways": ways,
            })
        });
        json!({"machine": machine(), "settings": settings.collect::<Vec<_>>()})
    }

    pub(crate) fn text(&self) -> String {
        let rows = self.settings.iter().flat_map(|setting| {
            let ways = setting.ways.iter();
            ways.map(|(way, group)| setting.row(*way, group))
        });
        let mut heading = [
            "WAY",
            "KUBE-PROXY, SERVICES",
            "ROUNDS",
            "LOAD",
            "",
            "",
            "",
            "",
            "",
            "",
        ];
        for (cell, (name, _)) in heading[4..].iter_mut().zip(FIGURES) {
            *cell = name;
        }
        format!(
            "{}\n\n{}\
             Medians over the rounds, and in parentheses the ratio to the way \"direct\". LOAD: least, median and\n\
             greatest. CPU: of all hosts and of the client, kernel and programs. P50, P99: one connection after the\n\
             other, until the pod's greeting.\n",
            machine(),
            aligned(heading, rows.collect())
        )
    }
}
