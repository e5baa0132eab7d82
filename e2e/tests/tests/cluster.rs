//! Herald on a genuine cluster. The tests run side by side, each in a namespace and a slice of the
//! addresses of its own; those that disturb others are in `disruptive.rs`.

#[path = "cluster/allocation.rs"]
mod allocation;
#[path = "cluster/announcing.rs"]
mod announcing;
#[path = "cluster/chart.rs"]
mod chart;
#[path = "cluster/cli.rs"]
mod cli;
#[path = "cluster/conflicts.rs"]
mod conflicts;
#[path = "cluster/documents.rs"]
mod documents;
#[path = "cluster/events.rs"]
mod events;
#[path = "cluster/explain.rs"]
mod explain;
#[path = "cluster/forwarding.rs"]
mod forwarding;
#[path = "cluster/metrics.rs"]
mod metrics;
#[path = "cluster/pods.rs"]
mod pods;
#[path = "cluster/pools.rs"]
mod pools;
#[path = "cluster/requests.rs"]
mod requests;
#[path = "cluster/sharing.rs"]
mod sharing;
#[path = "cluster/straight.rs"]
mod straight;
#[path = "cluster/what_if.rs"]
mod what_if;
