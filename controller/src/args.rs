//! The command line.

#![expect(
    clippy::doc_markdown,
    reason = "these comments are the text of --help, where backticks are noise"
)]

use std::net::SocketAddr;

use clap::{Parser, ValueEnum};
use herald_config::ServiceFlags;
use tracing_subscriber::EnvFilter;

/// Gives LoadBalancer Services their addresses and plans which node announces each.
///
/// It watches Services, IPPools and Nodes, claims an address for each Service by creating a
/// VirtualIP object, and then writes the address into the Service's status. Several replicas may
/// run: one works, the others stand by. Nothing is kept on disk: after a restart it reads back what
/// is claimed and changes nothing.
#[derive(Debug, Parser)]
#[command(name = "herald-controller", version)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) services: ServiceFlags,

    /// Where /livez, /readyz and /metrics are served.
    #[arg(
        long,
        env = "HERALD_ADMIN_LISTEN",
        value_name = "ADDRESS",
        default_value = "[::]:7470"
    )]
    pub(crate) admin_listen: SocketAddr,

    /// How many writes to the API server may be under way at once.
    #[arg(long, env = "HERALD_WRITES_AT_ONCE", value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) writes_at_once: u16,

    /// What is logged: error, warn, info, debug, trace, or filters by module such as
    /// info,herald_controller_core=debug.
    #[arg(long, env = "HERALD_LOG", value_name = "FILTER", default_value = "info", value_parser = filter)]
    pub(crate) log_level: String,

    /// How log lines look.
    #[arg(
        long,
        env = "HERALD_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text"
    )]
    pub(crate) log_format: LogFormat,

    /// The namespace of the Lease and of the speakers' Pods.
    #[arg(
        long,
        env = "POD_NAMESPACE",
        value_name = "NAMESPACE",
        default_value = "herald-system"
    )]
    pub(crate) namespace: String,

    /// The Secret with the keys that authenticate the speakers to each other, in that namespace. It is
    /// made if it is not there, and never overwritten. To change the key, give it the annotation
    /// heraldlb.io/rotate with a new value.
    #[arg(
        long,
        env = "HERALD_RING_KEY_SECRET",
        value_name = "NAME",
        default_value = "herald-ring"
    )]
    pub(crate) ring_key_secret: String,

    /// This replica's name in the Lease and in Events; must differ between replicas.
    #[arg(
        long,
        env = "POD_NAME",
        value_name = "NAME",
        default_value = "herald-controller"
    )]
    pub(crate) name: String,
}

/// Refuses what is not a filter while there still is somebody to read the refusal.
fn filter(text: &str) -> Result<String, tracing_subscriber::filter::ParseError> {
    EnvFilter::try_new(text).map(|_filter| text.to_owned())
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// For programs: one JSON object a line.
    Json,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn flags_of_the_chart_are_understood() {
        let args = Args::try_parse_from([
            "herald-controller",
            "--log-level=info",
            "--log-format=json",
            "--load-balancer-class=",
            "--load-balancer-class=heraldlb.io/herald",
            "--ignore-exclude-label",
        ])
        .unwrap();
        assert_eq!(args.log_format, LogFormat::Json);
        assert!(args.services.serves(None) && args.services.ignore_exclude_label);
    }
}
