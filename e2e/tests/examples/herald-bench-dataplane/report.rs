//! All that was measured, for people and as JSON.

use herald_e2e::bench::group::{Group, Measured, machine};
use herald_e2e::bench::table::{aligned, median, milliseconds, range};
use serde_json::{Value, json};

use crate::maps::mib;
use crate::variant::{Round, Way};
use crate::{program, speaker, tables};

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
    pub(crate) tables: Vec<Group<tables::Round>>,
    pub(crate) programs: Vec<Group<program::Round>>,
    pub(crate) speakers: Vec<Group<speaker::Round>>,
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
        fn good<R: Measured>(groups: &[Group<R>]) -> bool {
            groups.iter().all(Group::is_good)
        }
        let mut ways = self.settings.iter().flat_map(|setting| &setting.ways);
        good(&self.tables)
            && good(&self.programs)
            && good(&self.speakers)
            && ways.all(|(_, group)| group.is_good())
    }

    pub(crate) fn json(&self) -> Value {
        fn all<R: Measured>(groups: &[Group<R>]) -> Vec<Value> {
            groups.iter().map(Group::json).collect()
        }
        let settings = self.settings.iter().map(|setting| {
            let ways: Vec<_> = setting.ways.iter().map(|(_, group)| group.json()).collect();
            json!({
                "kubeProxy": setting.kube_proxy,
                "services": setting.services,
                "ways": ways,
            })
        });
        json!({
            "machine": machine(),
            "tables": all(&self.tables),
            "programs": all(&self.programs),
            "speakers": all(&self.speakers),
            "settings": settings.collect::<Vec<_>>(),
        })
    }

    pub(crate) fn text(&self) -> String {
        let parts = [
            self.tables_text(),
            self.programs_text(),
            self.speakers_text(),
            self.ways_text(),
        ];
        let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        format!("{}\n\n{}", machine(), parts.join("\n"))
    }

    fn tables_text(&self) -> String {
        if self.tables.is_empty() {
            return String::new();
        }
        let row = |group: &Group<tables::Round>| {
            let [policy, services, rounds, load] = group.title();
            let changes = group.rounds.iter().flat_map(|it| it.changes.clone());
            let largest = |of: fn(&tables::Round) -> u64| {
                let most = group.rounds.iter().map(of).max();
                most.map_or_else(|| "-".to_owned(), mib)
            };
            [
                policy,
                services,
                rounds,
                load,
                group.times(|it| Some(it.compiled)),
                group.times(|it| Some(it.programmed)),
                milliseconds(&changes.collect::<Vec<_>>()),
                largest(|it| it.memory.tables_bytes),
                largest(|it| it.memory.flows_bytes),
            ]
        };
        let heading = [
            "POLICY",
            "SERVICES",
            "ROUNDS",
            "LOAD",
            "ms TO COMPILE",
            "ms UNTIL WRITTEN",
            "ms A CHANGE",
            "MiB MAPS",
            "MiB FLOWS",
        ];
        aligned(heading, self.tables.iter().map(row).collect())
            + "\
Least/median/greatest. From empty maps, by the speaker's own code, to those of the wish, in the kernel and read\n\
back; then another number of pods for one Service after the other. MAPS, FLOWS: the kernel's memory for them.\n"
    }

    fn programs_text(&self) -> String {
        if self.programs.is_empty() {
            return String::new();
        }
        let row = |group: &Group<program::Round>| {
            let [mode, services, rounds, load] = group.title();
            let cost = |flows: u32| {
                let costs = group.rounds.iter().flat_map(|it| &it.costs);
                let of_these = costs.filter(|(of, _, _)| *of == flows);
                range(of_these.map(|(_, time, _)| time.as_nanos()).collect())
            };
            let [one, thousand, many, million] = program::FLOWS.map(cost);
            let owns = group.rounds.iter().flat_map(|it| &it.costs);
            let own = range(owns.map(|(_, _, own)| own.as_nanos()).collect());
            [
                mode, services, rounds, load, one, thousand, many, million, own,
            ]
        };
        let heading = [
            "MODE",
            "SERVICES",
            "ROUNDS",
            "LOAD",
            "ns 1 FLOW",
            "1,024",
            "65,536",
            "1,048,576",
            "MEASUREMENT",
        ];
        aligned(heading, self.programs.iter().map(row).collect())
            + "\
Least/median/greatest of a packet, over all these Services, without what the measurement itself takes, told\n\
beside. nodeport and pod have room for 131,072 flows. pod: on the node that has the pods; before, it is dsr.\n"
    }

    fn speakers_text(&self) -> String {
        let rows = self.speakers.iter().flat_map(|group| {
            let [_, services, _, load] = group.title();
            group.rounds.iter().flat_map(move |round| {
                let (services, load) = (services.clone(), load.clone());
                let moves = milliseconds(&round.moves);
                round.speakers.iter().map(move |it| {
                    [
                        it.node.clone(),
                        services.clone(),
                        load.clone(),
                        mib(it.grown.now),
                        mib(it.started.now),
                        mib(it.grown.most.max(it.started.most)),
                        mib(it.memory.tables_bytes),
                        mib(it.memory.flows_bytes),
                        moves.clone(),
                    ]
                })
            })
        });
        let rows: Vec<_> = rows.collect();
        if rows.is_empty() {
            return String::new();
        }
        let heading = [
            "SPEAKER",
            "SERVICES",
            "LOAD",
            "MiB RSS",
            "STARTED ANEW",
            "MOST",
            "MiB MAPS",
            "MiB FLOWS",
            "ms TABLE",
        ];
        aligned(heading, rows)
            + "\
RSS: after these Services came one by one; STARTED ANEW: after a start with all of them there. TABLE: from the\n\
request that changes an EndpointSlice to the table in the kernel of all nodes, least/median/greatest.\n"
    }

    fn ways_text(&self) -> String {
        if self.settings.is_empty() {
            return String::new();
        }
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
        aligned(heading, rows.collect())
            + "\
Medians over the rounds, and in parentheses the ratio to the way \"direct\". LOAD: least, median and\n\
greatest. CPU: of all hosts and of the client, kernel and programs. P50, P99: one connection after the\n\
other, until the pod's greeting.\n"
    }
}
