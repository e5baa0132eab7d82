//! The command line.

#![expect(
    clippy::doc_markdown,
    reason = "these comments are the text of --help, where backticks are noise"
)]

use std::net::SocketAddr;

use clap::Parser;
use herald_config::{LogFlags, ServiceFlags};

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
        env = "HERALD_ADMIN_ADDRESS",
        value_name = "IP:PORT",
        default_value = "[::]:7470"
    )]
    pub(crate) admin_address: SocketAddr,

    /// How many writes to the API server may be under way at once.
    #[arg(long, env = "HERALD_WRITES_AT_ONCE", value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) writes_at_once: u16,

    #[command(flatten)]
    pub(crate) log: LogFlags,

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

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use herald_config::LogFormat;

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
        assert_eq!(args.log.log_format, LogFormat::Json);
        assert!(args.services.serves(None) && args.services.ignore_exclude_label);
    }
}
