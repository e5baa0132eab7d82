//! The metrics page.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use herald_l2::Counts;
use herald_model::{IfIndex, InterfaceName, SegmentName};
use herald_speaker_core::{Overview, Takeover};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::forward::Counted;
use crate::io::layer2::AllCounts;
use crate::io::rings::RingStatus;

type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter<u64, AtomicU64>>;

/// How long takeovers took, by stage.
#[derive(Clone, Debug)]
pub(crate) struct Takeovers(Family<Labels, Histogram>);

/// Seconds. The profiles vote after 0.15, 0.3 and 1.2 s.
const TAKEOVER_BUCKETS: [f64; 12] = [
    0.05, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.4, 0.6, 1.2, 2.5, 10.0,
];

impl Default for Takeovers {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| {
            Histogram::new(TAKEOVER_BUCKETS)
        }))
    }
}

impl Takeovers {
    /// One more.
    pub(crate) fn observe(&self, takeover: &Takeover) {
        self.stage("suspected", takeover.suspected);
        self.stage("certified", takeover.certified);
        self.stage("announced", takeover.announced);
    }

    /// A Service that was taken over had its first packet.
    pub(crate) fn forwarded(&self, after: Duration) {
        self.stage("forwarded", after);
    }

    fn stage(&self, stage: &str, time: Duration) {
        self.0
            .get_or_create(&vec![("stage", stage.to_owned())])
            .observe(time.as_secs_f64());
    }
}

/// Everything there is to say at one moment.
pub(crate) struct Page<'a> {
    pub(crate) node: &'a str,
    pub(crate) overview: &'a Overview,
    pub(crate) settings: &'a BTreeMap<String, u8>,
    pub(crate) layer2: &'a AllCounts,
    pub(crate) data_plane: Option<&'a Counted>,
    pub(crate) rings: &'a BTreeMap<SegmentName, RingStatus>,
    pub(crate) takeovers: &'a Takeovers,
}

impl Page<'_> {
    /// The page, in the `OpenMetrics` text format.
    pub(crate) fn render(&self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("herald_speaker");
        self.announced(&mut registry);
        self.settings(&mut registry);
        self.layer2(&mut registry);
        self.data_plane(&mut registry);
        self.rings(&mut registry);
        let mut page = String::new();
        encode(&mut page, &registry)?;
        Ok(page)
    }

    fn announced(&self, registry: &mut Registry) {
        let announced: Family<Labels, Gauge> = Family::default();
        for entry in &self.overview.announced {
            announced
                .get_or_create(&vec![
                    ("service", entry.service.to_string()),
                    ("protocol", "layer2".to_owned()),
                    ("node", self.node.to_owned()),
                    ("ip", entry.address.to_string()),
                    ("segment", entry.segment.to_string()),
                    ("interface", entry.interface_name.to_string()),
                ])
                .set(1);
        }
        registry.register(
            "announced",
            "Addresses that this node announces, by Service",
            announced,
        );
        let ready: Gauge = Gauge::default();
        ready.set(i64::from(self.overview.waiting_for.is_empty()));
        registry.register("ready", "Whether the speaker is ready to serve", ready);
        let known: Gauge = Gauge::default();
        known.set(i64::try_from(self.overview.vips).unwrap_or(i64::MAX));
        registry.register(
            "virtualips",
            "VirtualIP objects that this node knows",
            known,
        );
        let strangers: Family<Labels, Gauge> = Family::default();
        for (address, mac) in &self.overview.strangers {
            strangers
                .get_or_create(&vec![("ip", address.to_string()), ("mac", mac.to_string())])
                .set(1);
        }
        registry.register(
            "conflict",
            "Addresses that a machine on the LAN answers for which is no node of the cluster",
            strangers,
        );
        let slowest: Family<Labels, Gauge> = Family::default();
        if let Some((interface, seconds)) = &self.overview.slowest_announcement {
            slowest
                .get_or_create(&vec![("interface", interface.to_string())])
                .set(i64::try_from(*seconds).unwrap_or(i64::MAX));
        }
        registry.register_with_unit(
            "slowest_announcement",
            "Until the last of the addresses held on an interface can be announced; absent: at once",
            Unit::Seconds,
            slowest,
        );
        let verified = Counters::default();
        let found = self.overview.verified;
        for (answer, count) in [
            ("right", found.right),
            ("wrong", found.wrong),
            ("none", found.silent),
        ] {
            verified
                .get_or_create(&vec![("answer", answer.to_owned())])
                .inc_by(count);
        }
        registry.register(
            "verifications",
            "How the LAN answered when asked for an address that another node had taken over",
            verified,
        );
        let elected = Counters::default();
        let elections = self.overview.elections;
        for (result, count) in [
            ("planned", elections.planned),
            ("taken_over", elections.taken_over),
            ("renewed", elections.renewed),
            ("succeeded", elections.succeeded),
            ("life_over", elections.life_over),
            ("unwanted", elections.unwanted),
            ("cannot_serve", elections.cannot_serve),
        ] {
            elected
                .get_or_create(&vec![("result", result.to_owned())])
                .inc_by(count);
        }
        registry.register(
            "elections",
            "Elections that changed what this node holds, by address and segment",
            elected,
        );
        let conflicts = Counter::<u64, AtomicU64>::default();
        conflicts.inc_by(self.overview.conflicts);
        registry.register(
            "conflicts",
            "How often such a machine was heard of for the first time",
            conflicts,
        );
    }

    fn settings(&self, registry: &mut Registry) {
        let settings: Family<Labels, Gauge> = Family::default();
        for (name, value) in self.settings {
            settings
                .get_or_create(&vec![("name", name.clone())])
                .set(i64::from(*value));
        }
        registry.register(
            "kernel_setting",
            "Settings of the node's kernel that decide whether packets pass, by the name that sysctl knows",
            settings,
        );
    }

    fn layer2(&self, registry: &mut Registry) {
        let [requests, replies, gratuitous] = [(); 3].map(|()| Counters::default());
        let names: BTreeMap<IfIndex, &InterfaceName> = self
            .overview
            .announced
            .iter()
            .map(|entry| (entry.interface, &entry.interface_name))
            .collect();
        for ((interface, address), counts) in self.layer2 {
            let name = names
                .get(interface)
                .map_or_else(|| interface.to_string(), ToString::to_string);
            let labels = vec![
                ("ip", address.to_string()),
                ("interface", name),
                (
                    "protocol",
                    if address.is_ipv4() { "arp" } else { "ndp" }.to_owned(),
                ),
            ];
            let Counts {
                requests: asked,
                replies: answered,
                gratuitous: announced,
            } = counts;
            requests.get_or_create(&labels).inc_by(*asked);
            replies.get_or_create(&labels).inc_by(*answered);
            gratuitous.get_or_create(&labels).inc_by(*announced);
        }
        registry.register(
            "requests_received",
            "ARP requests and neighbour solicitations for addresses announced here",
            requests,
        );
        registry.register("replies_sent", "Answers to them", replies);
        registry.register(
            "gratuitous_sent",
            "Frames that announced an address without being asked",
            gratuitous,
        );
    }

    fn rings(&self, registry: &mut Registry) {
        registry.register_with_unit(
            "takeover",
            "From the last sign of life of a dead holder to each stage of the takeover by this node",
            Unit::Seconds,
            self.takeovers.0.clone(),
        );
        let [members, quorum, life] = [(); 3].map(|()| Family::<Labels, Gauge>::default());
        let [datagrams, bytes, happened] = [(); 3].map(|()| Counters::default());
        for (segment, ring) in self.rings {
            let labels = |more: Option<(&'static str, &str)>| -> Labels {
                std::iter::once(("segment", segment.to_string()))
                    .chain(more.map(|(name, value)| (name, value.to_owned())))
                    .collect()
            };
            let states = ["up", "speaker_down", "node_down"];
            for (state, count) in states.into_iter().zip(ring.members) {
                members
                    .get_or_create(&labels(Some(("state", state))))
                    .set(i64::try_from(count).unwrap_or(i64::MAX));
            }
            quorum
                .get_or_create(&labels(None))
                .set(i64::from(ring.quorum));
            life.get_or_create(&labels(None))
                .set(i64::try_from(ring.incarnation).unwrap_or(i64::MAX));
            let counts = &ring.counters;
            bytes.get_or_create(&labels(None)).inc_by(counts.sent_bytes);
            for (result, count) in [
                ("sent", counts.sent),
                ("received", counts.received),
                ("malformed", counts.malformed),
                ("foreign", counts.foreign),
                ("unknown_key", counts.unknown_key),
                ("forged", counts.forged),
                ("stranger", counts.strangers),
                ("replayed", counts.replayed),
                ("outdated", counts.outdated),
                ("unproved", counts.unproved),
            ] {
                datagrams
                    .get_or_create(&labels(Some(("result", result))))
                    .inc_by(count);
            }
            for (event, count) in [
                ("suspicion", counts.suspicions),
                ("vote", counts.votes),
                ("certificate", counts.certificates),
                ("unsupported", counts.unsupported),
                ("repair", counts.repairs),
                ("stall", counts.stalls),
            ] {
                happened
                    .get_or_create(&labels(Some(("event", event))))
                    .inc_by(count);
            }
        }
        registry.register(
            "ring_members",
            "Speakers on the segment, this one included",
            members,
        );
        registry.register(
            "ring_quorum",
            "Whether enough speakers are reached to take anything over",
            quorum,
        );
        registry.register("ring_incarnation", "The number of this node's life", life);
        registry.register(
            "ring_datagrams",
            "Datagrams sent, received, and of the latter those that were not used, by reason",
            datagrams,
        );
        registry.register_with_unit("ring_sent", "Sent, UDP payload only", Unit::Bytes, bytes);
        registry.register("ring_events", "What happened in the ring", happened);
    }

    fn data_plane(&self, registry: &mut Registry) {
        let running: Gauge = Gauge::default();
        running.set(i64::from(self.data_plane.is_some()));
        registry.register(
            "data_plane_running",
            "Whether the eBPF data plane is loaded",
            running,
        );
        let Some(counted) = self.data_plane else {
            return;
        };
        let [packets, bytes, reply_packets, reply_bytes, flows] =
            [(); 5].map(|()| Counters::default());
        for (service, number) in &counted.services {
            let Some(counts) = counted.counters.services.get(number) else {
                continue;
            };
            let labels = vec![("service", service.to_string())];
            packets.get_or_create(&labels).inc_by(counts.packets);
            bytes.get_or_create(&labels).inc_by(counts.bytes);
            reply_packets
                .get_or_create(&labels)
                .inc_by(counts.reply_packets);
            reply_bytes
                .get_or_create(&labels)
                .inc_by(counts.reply_bytes);
            flows.get_or_create(&labels).inc_by(counts.flows);
        }
        registry.register("forwarded_packets", "Packets sent to targets", packets);
        registry.register_with_unit("forwarded", "Sent to targets", Unit::Bytes, bytes);
        registry.register("reply_packets", "Replies sent to clients", reply_packets);
        registry.register_with_unit("replies", "Sent to clients", Unit::Bytes, reply_bytes);
        registry.register("flows", "New flows", flows);
        let repairs = Counters::default();
        let repaired = counted.repairs;
        for (what, count) in [
            ("programs", repaired.programs),
            ("entries", repaired.entries),
        ] {
            repairs
                .get_or_create(&vec![("what", what.to_owned())])
                .inc_by(count);
        }
        registry.register(
            "data_plane_repairs",
            "How often eBPF programs or map entries that somebody had removed were put back",
            repairs,
        );
        let updates = Counter::<u64, AtomicU64>::default();
        updates.inc_by(counted.updates.wishes);
        registry.register(
            "data_plane_updates",
            "How often the eBPF maps were brought to a new wish",
            updates,
        );
        let entries = Counters::default();
        for (what, count) in [
            ("written", counted.updates.written),
            ("removed", counted.updates.removed),
        ] {
            entries
                .get_or_create(&vec![("what", what.to_owned())])
                .inc_by(count);
        }
        registry.register(
            "data_plane_entries",
            "Entries of eBPF maps written or removed for that, target tables included",
            entries,
        );
        let refused: Family<Labels, Gauge> = Family::default();
        for what in counted.refused.iter() {
            refused
                .get_or_create(&vec![("reason", what.kind().to_owned())])
                .inc();
        }
        registry.register(
            "data_plane_refused",
            "What the eBPF maps have no room for, and kube-proxy is left with, by reason; absent: nothing",
            refused,
        );
        let happened = Counters::default();
        for (event, count) in &counted.counters.events {
            happened
                .get_or_create(&vec![("event", event.as_str().to_owned())])
                .inc_by(*count);
        }
        registry.register(
            "packet_events",
            "What happened to packets for addresses of Herald's",
            happened,
        );
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use herald_dataplane::{Event, Refused, ServiceCounters};
    use herald_model::ServiceKey;
    use herald_speaker_core::Announced;

    use super::*;

    fn overview() -> Overview {
        Overview {
            waiting_for: Vec::new(),
            announced: vec![Announced {
                service: ServiceKey::new("ns", "web"),
                address: [192, 0, 2, 10].into(),
                segment: "192.0.2.0/24".into(),
                interface: IfIndex(2),
                interface_name: "eth0".into(),
            }],
            uplinks: vec!["eth0".into()],
            vips: 1,
            strangers: vec![(
                [192, 0, 2, 10].into(),
                herald_model::MacAddress([2, 0, 0, 0, 0, 0xee]),
            )],
            conflicts: 2,
            elections: herald_speaker_core::Elections {
                taken_over: 4,
                ..herald_speaker_core::Elections::default()
            },
            verified: herald_speaker_core::Verified {
                right: 5,
                wrong: 1,
                silent: 0,
            },
            slowest_announcement: Some(("eth0".into(), 20)),
        }
    }

    #[test]
    fn page_has_every_figure_and_no_series_for_what_is_not_there() {
        let overview = overview();
        let layer2 = AllCounts::from([(
            (IfIndex(2), [192, 0, 2, 10].into()),
            Counts {
                requests: 3,
                replies: 2,
                gratuitous: 14,
            },
        )]);
        let mut counted = Counted::default();
        counted.services.insert(ServiceKey::new("ns", "web"), 7);
        let counters = ServiceCounters {
            packets: 5,
            bytes: 300,
            flows: 1,
            reply_packets: 4,
            reply_bytes: 200,
        };
        counted.counters.services.insert(7, counters);
        counted.counters.events.insert(Event::ALL[0], 9);
        counted.repairs.entries = 2;
        counted.updates.wishes = 6;
        counted.updates.removed = 8;
        let refused = ["web", "db"].map(|name| Refused::NoRoomForTable {
            service: ServiceKey::new("ns", name),
        });
        counted.refused = refused.into();
        let takeovers = Takeovers::default();
        takeovers.observe(&Takeover {
            suspected: Duration::from_millis(110),
            certified: Duration::from_millis(151),
            announced: Duration::from_millis(152),
        });
        let rings = BTreeMap::from([(
            SegmentName::from("192.0.2.0/24"),
            RingStatus {
                counters: herald_ring::Counters {
                    forged: 2,
                    ..herald_ring::Counters::default()
                },
                members: [2, 0, 1],
                quorum: true,
                incarnation: 3,
            },
        )]);
        let settings = BTreeMap::from([("net.ipv4.ip_forward".to_owned(), 1)]);
        let page = |data_plane| {
            let page = Page {
                node: "node1",
                overview: &overview,
                settings: &settings,
                layer2: &layer2,
                data_plane,
                rings: &rings,
                takeovers: &takeovers,
            };
            page.render().unwrap()
        };
        let text = page(Some(&counted));
        for line in [
            r#"herald_speaker_announced{service="ns/web",protocol="layer2",node="node1",ip="192.0.2.10",segment="192.0.2.0/24",interface="eth0"} 1"#,
            "herald_speaker_ready 1",
            "herald_speaker_virtualips 1",
            r#"herald_speaker_conflict{ip="192.0.2.10",mac="02:00:00:00:00:ee"} 1"#,
            "herald_speaker_conflicts_total 2",
            r#"herald_speaker_verifications_total{answer="right"} 5"#,
            r#"herald_speaker_slowest_announcement_seconds{interface="eth0"} 20"#,
            r#"herald_speaker_requests_received_total{ip="192.0.2.10",interface="eth0",protocol="arp"} 3"#,
            r#"herald_speaker_replies_sent_total{ip="192.0.2.10",interface="eth0",protocol="arp"} 2"#,
            r#"herald_speaker_gratuitous_sent_total{ip="192.0.2.10",interface="eth0",protocol="arp"} 14"#,
            "herald_speaker_data_plane_running 1",
            r#"herald_speaker_forwarded_packets_total{service="ns/web"} 5"#,
            r#"herald_speaker_forwarded_bytes_total{service="ns/web"} 300"#,
            r#"herald_speaker_reply_packets_total{service="ns/web"} 4"#,
            r#"herald_speaker_replies_bytes_total{service="ns/web"} 200"#,
            r#"herald_speaker_flows_total{service="ns/web"} 1"#,
            r#"herald_speaker_data_plane_repairs_total{what="entries"} 2"#,
            "herald_speaker_data_plane_updates_total 6",
            r#"herald_speaker_data_plane_entries_total{what="removed"} 8"#,
            r#"herald_speaker_elections_total{result="taken_over"} 4"#,
            r#"herald_speaker_data_plane_refused{reason="table"} 2"#,
            r#"herald_speaker_takeover_seconds_bucket{le="0.2",stage="certified"} 1"#,
            r#"herald_speaker_takeover_seconds_bucket{le="0.15",stage="certified"} 0"#,
            r#"herald_speaker_ring_members{segment="192.0.2.0/24",state="node_down"} 1"#,
            r#"herald_speaker_ring_quorum{segment="192.0.2.0/24"} 1"#,
            r#"herald_speaker_ring_incarnation{segment="192.0.2.0/24"} 3"#,
            r#"herald_speaker_ring_datagrams_total{segment="192.0.2.0/24",result="forged"} 2"#,
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
        let event = format!(
            r#"herald_speaker_packet_events_total{{event="{}"}} 9"#,
            Event::ALL[0].as_str()
        );
        assert!(text.contains(&event), "{text}");
        let without = page(None);
        assert!(without.contains("herald_speaker_data_plane_running 0"));
        assert!(!without.contains("ns/web\"} 5"), "{without}");
    }
}
