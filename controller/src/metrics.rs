//! What is measured.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use herald_controller_core::{Counts, Snapshot, Write, WriteResult};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Labels of the counter of writes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WriteLabels {
    write: &'static str,
    result: &'static str,
}

/// Labels of the counter of Events.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    reason: String,
}

/// Seconds. Asking the LAN first takes a third of one.
const ALLOCATION_BUCKETS: [f64; 12] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 30.0, 300.0, 3600.0,
];

/// Counters, and the registry they are in.
pub(crate) struct Metrics {
    registry: Registry,
    writes: Family<WriteLabels, Counter>,
    events: Family<EventLabels, Counter>,
    allocations: Histogram,
    is_leader: Gauge,
}

impl Metrics {
    pub(crate) fn new(snapshot: Arc<ArcSwap<Snapshot>>) -> Self {
        let mut registry = Registry::with_prefix("herald_controller");
        let writes = Family::default();
        let events = Family::default();
        let allocations = Histogram::new(ALLOCATION_BUCKETS);
        let is_leader = Gauge::default();
        registry.register(
            "writes",
            "Writes to the API server by what came of them",
            writes.clone(),
        );
        registry.register("events", "Events recorded, by reason", events.clone());
        registry.register_with_unit(
            "allocation",
            "From when this replica led and knew of a Service without an address until its status showed one",
            Unit::Seconds,
            allocations.clone(),
        );
        registry.register(
            "is_leader",
            "1 on the replica that leads, 0 elsewhere",
            is_leader.clone(),
        );
        registry.register_collector(Box::new(Sizes(snapshot)));
        Self {
            registry,
            writes,
            events,
            allocations,
            is_leader,
        }
    }

    /// A Service was given an address after so long.
    pub(crate) fn allocated(&self, after: Duration) {
        self.allocations.observe(after.as_secs_f64());
    }

    /// Counts a write that was made.
    pub(crate) fn count(&self, write: &Write, result: &WriteResult) {
        let labels = WriteLabels {
            write: write_name(write),
            result: result_name(result),
        };
        self.writes.get_or_create(&labels).inc();
        if let (Write::RecordEvent(event), WriteResult::Done) = (write, result) {
            let reason = event.reason.to_string();
            self.events.get_or_create(&EventLabels { reason }).inc();
        }
    }

    pub(crate) fn set_leader(&self, leads: bool) {
        self.is_leader.set(i64::from(leads));
    }

    /// All of it, in the `OpenMetrics` text format.
    ///
    /// # Errors
    ///
    /// If a collector fails; ours do not.
    pub(crate) fn text(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

fn write_name(write: &Write) -> &'static str {
    match write {
        Write::CreateVip(_) => "create_virtualip",
        Write::ReplaceVip { .. } => "replace_virtualip",
        Write::DeleteVip { .. } => "delete_virtualip",
        Write::ApplyServiceStatus { .. } => "apply_service_status",
        Write::ApplyPoolStatus { .. } => "apply_ippool_status",
        Write::ApplyAdvertisementReady { .. } => "apply_l2advertisement_status",
        Write::RecordEvent(_) => "create_event",
    }
}

fn result_name(result: &WriteResult) -> &'static str {
    match result {
        WriteResult::VipWritten(_)
        | WriteResult::VipGone
        | WriteResult::ServiceWritten { .. }
        | WriteResult::Done => "done",
        WriteResult::VipDiffers(_) | WriteResult::ServiceDiffers => "conflict",
        WriteResult::ServiceGone => "gone",
        WriteResult::FieldsOwned { .. } => "owned",
        WriteResult::Failed { refused: true, .. } => "refused",
        WriteResult::Failed { refused: false, .. } => "failed",
    }
}

/// Sizes, read from the snapshot when somebody asks.
#[derive(Debug)]
struct Sizes(Arc<ArcSwap<Snapshot>>);

impl Collector for Sizes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let snapshot = self.0.load();
        for (name, help, value) in [
            ("services", "Services that Herald serves", snapshot.services),
            (
                "pending_services",
                "Services that have not the address they should have; 0 on standby",
                snapshot.pending,
            ),
            (
                "unannounced_addresses",
                "Addresses of Services that no node announces; 0 on standby",
                snapshot.unannounced,
            ),
            (
                "virtual_ips",
                "Claims on addresses, resting ones included",
                snapshot.claims,
            ),
            (
                "outbox_depth",
                "Objects that wait to be written or are being written",
                snapshot.outbox,
            ),
        ] {
            let gauge = ConstGauge::new(u64::try_from(value).unwrap_or(u64::MAX));
            let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            gauge.encode(metric)?;
        }
        for (name, help, value) in [
            (
                "pool_addresses",
                "Addresses of a pool that can be given",
                (|counts| counts.total) as fn(&Counts) -> u128,
            ),
            (
                "pool_addresses_assigned",
                "Addresses of a pool that Services hold",
                |counts| counts.assigned,
            ),
            (
                "pool_addresses_available",
                "Addresses of a pool that can be given now",
                |counts| counts.available,
            ),
        ] {
            let gauge = ConstGauge::new(0.0);
            let mut metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
            for pool in &snapshot.pools {
                for (family, counts) in [("ipv4", &pool.counts.v4), ("ipv6", &pool.counts.v6)] {
                    if let Some(counts) = counts {
                        let labels = [("pool", pool.name.as_str()), ("family", family)];
                        let gauge = ConstGauge::new(approximate(value(counts)));
                        gauge.encode(metric.encode_family(&labels)?)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Numbers of IPv6 addresses are beyond integers of metrics.
#[expect(clippy::cast_precision_loss, reason = "a metric is a float")]
const fn approximate(count: u128) -> f64 {
    count as f64
}
