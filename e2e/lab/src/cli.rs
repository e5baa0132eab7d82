use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use herald_lab::{Action, ChartOptions, Family, KubeProxy, Loss, Options, Program};

/// A genuine Kubernetes cluster on one machine: nodes in network namespaces, on a LAN of their own.
#[derive(Debug, Parser)]
#[command(name = "herald-lab", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    /// Name of the lab; several can be up side by side
    #[arg(long, global = true, default_value = "lab")]
    pub(crate) name: String,
    /// Form of what is read from the lab
    #[arg(short, long, global = true, value_enum, default_value = "text")]
    pub(crate) output: Format,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Build the cluster and install Herald; cleans up after a killed run first
    Up(UpArgs),
    /// Remove the cluster, or what is left of it
    Down {
        /// Every lab on this machine
        #[arg(long)]
        all: bool,
    },
    /// Nodes, pods, addresses; what is cut, frozen or off
    Status,
    /// Run kubectl as administrator
    Kubectl {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run Helm as administrator
    Helm {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Path of the administrator's kubeconfig
    Kubeconfig,
    /// Run a command at a place: client, cp, node1, …, lan
    Exec {
        place: String,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// More clients on the LAN
    Client {
        #[command(subcommand)]
        verb: ClientVerb,
    },
    /// Cut the cable of a place: it loses its carrier
    Cut {
        place: String,
        /// It keeps its carrier, and nothing passes
        #[arg(long)]
        silent: bool,
    },
    /// Drop a share of the frames on the link of a place, each way for itself; 0 undoes it
    Loss {
        place: String,
        /// In percent: 5, 0.5
        percent: Loss,
    },
    /// Split the LAN: node1,cp / node2,node3; who is in no part sees all; "gateway" is the bridge
    Partition {
        #[arg(required = true, value_name = "PLACE,… / PLACE,…")]
        parts: Vec<String>,
    },
    /// Undo `cut`, `loss`, `partition` and `kill --hold` at a place, or at all of them
    Heal { place: Option<String> },
    /// Switch a node off, as if its power failed, or on
    Power {
        node: String,
        #[arg(value_enum)]
        to: Power,
        /// Boot with an empty disk
        #[arg(long)]
        new: bool,
    },
    /// Stop all processes of a node, or one program; its kernel goes on
    Freeze {
        node: String,
        program: Option<Program>,
    },
    /// Undo `freeze` of the same
    Thaw {
        node: String,
        program: Option<Program>,
    },
    /// Send a signal to a program on a node: speaker, controller, kube-proxy or kubelet
    Kill {
        node: String,
        program: Program,
        #[arg(long, default_value = "KILL")]
        signal: String,
        /// Keep it from being started again until `heal`
        #[arg(long, conflicts_with = "signal")]
        hold: bool,
    },
    /// Stop, start, freeze or thaw the API server
    Api {
        /// stop, start, freeze or thaw
        action: Action,
    },
    /// Stop, start, freeze or thaw etcd
    Etcd {
        /// stop, start, freeze or thaw
        action: Action,
    },
    /// Load an image (docker-archive) into every node
    Load { image: PathBuf },
    /// Pack and load Herald's binaries anew, upgrade the chart, wait until Ready
    Deploy {
        #[command(flatten)]
        chart: ChartArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ClientVerb {
    /// One more leg on the LAN
    Add {
        #[arg(value_name = "NAME")]
        client: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Power {
    Off,
    On,
}

#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Number of nodes
    #[arg(long, default_value_t = 3)]
    nodes: u8,
    /// Mode of kube-proxy: nftables or iptables
    #[arg(long, default_value = "nftables")]
    kube_proxy: KubeProxy,
    /// Address families: dual, ipv4 or ipv6
    #[arg(long, default_value = "dual")]
    family: Family,
    /// The bare cluster
    #[arg(long)]
    no_herald: bool,
    #[command(flatten)]
    chart: ChartArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ChartArgs {
    /// Values file for Helm; may be repeated, later ones win
    #[arg(long, value_name = "FILE")]
    values: Vec<PathBuf>,
    /// Value for Helm, over the files; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Folder of the chart [default: helm/ of the repository]
    #[arg(long, value_name = "DIR", env = "HERALD_CHART")]
    chart: Option<PathBuf>,
    /// Folder of the static binaries [default: release of the musl target]
    #[arg(long, value_name = "DIR", env = "HERALD_BINARIES")]
    binaries: Option<PathBuf>,
}

impl UpArgs {
    pub(crate) fn options(&self, name: &str) -> Options {
        Options {
            nodes: self.nodes,
            kube_proxy: self.kube_proxy,
            family: self.family,
            herald: !self.no_herald,
            chart: self.chart.options(),
            ..Options::named(name)
        }
    }
}

/// The parts of a LAN, as `partition` takes them: places with commas, parts with slashes.
pub(crate) fn parts(words: &[String]) -> Vec<Vec<String>> {
    let part = |part: &str| {
        let places = part.split([',', ' ']).filter(|place| !place.is_empty());
        places.map(str::to_owned).collect()
    };
    words.join(" ").split('/').map(part).collect()
}

impl ChartArgs {
    pub(crate) fn options(&self) -> ChartOptions {
        ChartOptions {
            chart: self.chart.clone(),
            binaries: self.binaries.clone(),
            values: self.values.clone(),
            set: self.set.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Cli {
        Cli::try_parse_from(line.split(' ')).expect("a valid command line")
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn up_takes_its_options_and_its_name_from_anywhere() {
        let cli = parse(
            "herald-lab up --nodes 5 --kube-proxy iptables --family ipv6 --no-herald --set a=b \
             --set c=d --name other",
        );
        let Verb::Up(args) = &cli.verb else {
            panic!("up")
        };
        let options = args.options(&cli.name);
        assert_eq!(
            (options.name.as_str(), options.nodes, options.herald),
            ("other", 5, false)
        );
        assert_eq!(
            (options.kube_proxy, options.family),
            (KubeProxy::Iptables, Family::Ipv6)
        );
        assert_eq!(options.chart.set, ["a=b", "c=d"]);
    }

    #[test]
    fn the_parts_of_a_lan_may_be_one_word_or_many() {
        for line in [
            "herald-lab partition node1,cp / node2,node3",
            "herald-lab partition node1,cp/node2,node3",
            "herald-lab partition node1 cp / node2, node3",
        ] {
            let Verb::Partition { parts: words } = parse(line).verb else {
                panic!("partition")
            };
            assert_eq!(parts(&words), [["node1", "cp"], ["node2", "node3"]]);
        }
        assert_eq!(parts(&["node1/".to_owned()])[1], Vec::<String>::new());
    }

    #[test]
    fn a_command_keeps_its_own_options_with_and_without_dashes() {
        for line in [
            "herald-lab exec node1 -- ip -o addr",
            "herald-lab exec node1 ip -o addr",
        ] {
            let Verb::Exec { place, command } = parse(line).verb else {
                panic!("exec")
            };
            assert_eq!(
                (place.as_str(), command.join(" ").as_str()),
                ("node1", "ip -o addr")
            );
        }
        let Verb::Kubectl { args } = parse("herald-lab kubectl get pods -A").verb else {
            panic!("kubectl")
        };
        assert_eq!(args, ["get", "pods", "-A"]);
    }
}
