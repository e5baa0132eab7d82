//! The command line.

#![expect(
    clippy::doc_markdown,
    reason = "these comments are the text of --help, where backticks are noise"
)]

use std::net::SocketAddr;
use std::time::Duration;

use clap::{Parser, Subcommand};
use herald_config::{LogFlags, ServiceFlags};
use herald_controller_core::Rebalancing;

use crate::check::CheckArgs;
use crate::retire::RetireArgs;

/// Gives LoadBalancer Services their addresses and plans which node announces each.
///
/// It watches Services, IPPools and Nodes, claims an address for each Service by creating a
/// VirtualIP object, and then writes the address into the Service's status. Several replicas may
/// run: one works, the others stand by. Nothing is kept on disk: after a restart it reads back what
/// is claimed and changes nothing.
#[derive(Debug, Parser)]
#[command(
    name = "herald-controller",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
pub(crate) struct Args {
    /// Without one, it serves.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

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

    /// Never move an address because its node announces more than another, or is preferred less.
    #[arg(long, env = "HERALD_NO_REBALANCE")]
    pub(crate) no_rebalance: bool,

    /// How long no address is moved for that after a failure, and after this replica began to lead. A
    /// node that failed gets none for so long, at each further failure twice as long, up to twelve
    /// times.
    #[arg(
        long,
        env = "HERALD_REBALANCE_QUIET",
        value_name = "DURATION",
        default_value = "5m",
        value_parser = at_least_a_second
    )]
    pub(crate) rebalance_quiet: Duration,

    /// How often addresses may be moved for that: each time one in a hundred, at least one.
    #[arg(
        long,
        env = "HERALD_REBALANCE_INTERVAL",
        value_name = "DURATION",
        default_value = "1m",
        value_parser = at_least_a_second
    )]
    pub(crate) rebalance_interval: Duration,

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

/// What else it can do: each does one thing, and ends.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Retire(RetireArgs),
    Check(CheckArgs),
}

impl Args {
    pub(crate) const fn rebalancing(&self) -> Rebalancing {
        Rebalancing {
            is_on: !self.no_rebalance,
            quiet: self.rebalance_quiet,
            interval: self.rebalance_interval,
        }
    }
}

pub(crate) fn at_least_a_second(text: &str) -> Result<Duration, &'static str> {
    herald_config::duration(text)
        .filter(|duration| *duration >= Duration::from_secs(1))
        .ok_or("not a duration of at least a second such as 90s, 5m or 1h30m")
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
            "--rebalance-quiet=5s",
            "--rebalance-interval=1m30s",
            "--no-rebalance",
        ])
        .unwrap();
        let expected = Rebalancing {
            is_on: false,
            quiet: Duration::from_secs(5),
            interval: Duration::from_secs(90),
        };
        assert_eq!(args.rebalancing(), expected);
        assert_eq!(args.log.log_format, LogFormat::Json);
        assert!(args.services.serves(None) && args.services.ignore_exclude_label);
    }

    #[test]
    fn subcommands_of_the_chart_are_understood() {
        let line = ["herald-controller", "retire", "--timeout=90s"];
        let Some(Command::Retire(retire)) = Args::try_parse_from(line).unwrap().command else {
            panic!("not the subcommand");
        };
        assert_eq!(retire.timeout, Duration::from_secs(90));
        let line = ["herald-controller", "check", "--timeout=5s"];
        let Some(Command::Check(check)) = Args::try_parse_from(line).unwrap().command else {
            panic!("not the subcommand");
        };
        assert_eq!(check.timeout, Duration::from_secs(5));
        Args::try_parse_from(["herald-controller", "--no-rebalance", "check"]).unwrap_err();
    }

    #[test]
    fn an_empty_command_line_rebalances_as_the_core_does() {
        let args = Args::try_parse_from(["herald-controller"]).unwrap();
        assert_eq!(args.rebalancing(), Rebalancing::default());
        for wrong in ["0s", "500ms", "5", "soon"] {
            let flag = format!("--rebalance-interval={wrong}");
            let error = Args::try_parse_from(["herald-controller", &flag]).unwrap_err();
            assert!(error.to_string().contains("at least a second"), "{error}");
        }
    }
}
