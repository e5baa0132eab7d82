//! The metrics page.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::AtomicU64;

use herald_l2::Counts;
use herald_model::{IfIndex, InterfaceName};
use herald_speaker_core::Overview;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::forward::Counted;
use crate::io::layer2::AllCounts;

type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter<u64, AtomicU64>>;

/// Everything there is to say at one moment.
pub(crate) struct Page<'a> {
    pub(crate) node: &'a str,
    pub(crate) overview: &'a Overview,
    pub(crate) layer2: &'a AllCounts,
    pub(crate) data_plane: Option<&'a Counted>,
}

impl Page<'_> {
    /// The page, in the `OpenMetrics` text format.
    pub(crate) fn render(&self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("herald_speaker");
        self.announced(&mut registry);
        self.layer2(&mut registry);
        self.data_plane(&mut registry);
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
    use herald_dataplane::{Event, ServiceCounters};
    use herald_model::ServiceKey;
    use herald_speaker_core::Announced;

    use super::*;

    #[test]
    fn page_has_every_figure_and_no_series_for_what_is_not_there() {
        let overview = Overview {
            waiting_for: Vec::new(),
            announced: vec![Announced {
                service: ServiceKey::new("ns", "web"),
                address: [192, 0, 2, 10].into(),
                interface: IfIndex(2),
                interface_name: "eth0".into(),
            }],
            vips: 1,
        };
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
        let page = |data_plane| {
            let page = Page {
                node: "node1",
                overview: &overview,
                layer2: &layer2,
                data_plane,
            };
            page.render().unwrap()
        };
        let text = page(Some(&counted));
        for line in [
            r#"herald_speaker_announced{service="ns/web",protocol="layer2",node="node1",ip="192.0.2.10",interface="eth0"} 1"#,
            "herald_speaker_ready 1",
            "herald_speaker_virtualips 1",
            r#"herald_speaker_requests_received_total{ip="192.0.2.10",interface="eth0",protocol="arp"} 3"#,
            r#"herald_speaker_replies_sent_total{ip="192.0.2.10",interface="eth0",protocol="arp"} 2"#,
            r#"herald_speaker_gratuitous_sent_total{ip="192.0.2.10",interface="eth0",protocol="arp"} 14"#,
            "herald_speaker_data_plane_running 1",
            r#"herald_speaker_forwarded_packets_total{service="ns/web"} 5"#,
            r#"herald_speaker_forwarded_bytes_total{service="ns/web"} 300"#,
            r#"herald_speaker_reply_packets_total{service="ns/web"} 4"#,
            r#"herald_speaker_replies_bytes_total{service="ns/web"} 200"#,
            r#"herald_speaker_flows_total{service="ns/web"} 1"#,
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
