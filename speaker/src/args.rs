//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use herald_config::{LogFlags, ServiceFlags};
use herald_l2::Pace;
use herald_ring::Profile;

use crate::cleanup::CleanupArgs;
use crate::io::bpf;
use crate::io::rings::Witness;
use crate::kube_proxy::{self, Healthz};

/// Announces the addresses of LoadBalancer Services on this node's networks and forwards their
/// traffic.
///
/// Runs on every node, in the host's network, as part of Herald's DaemonSet. It reads VirtualIP
/// objects, which Herald's controller writes, answers ARP and neighbour solicitations for those
/// this node holds, and forwards packets for all of them by an eBPF program. It needs the
/// capabilities NET_ADMIN, NET_RAW, BPF and PERFMON, SYS_NICE for prompt answers under load, and
/// /sys/fs/bpf of the host. Each flag can be given as an environment variable too.
///
/// To see what it does: `kubectl get vip`, `kubectl get speakers`, and /metrics, /readyz and /livez
/// on its admin address.
///
/// SIGTERM: it is no longer ready, goes on answering until other nodes have taken its addresses
/// over, five seconds at most, and ends. The eBPF programs stay and go on forwarding.
///
/// Exit code: 0 after SIGTERM or SIGINT, 1 if it cannot start, 2 for a wrong command line.
#[expect(clippy::doc_markdown, reason = "the text is for people on a terminal")]
#[derive(Debug, Parser)]
#[command(
    name = "herald-speaker",
    version,
    verbatim_doc_comment,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    disable_help_subcommand = true
)]
pub(crate) struct Args {
    /// Without one, it serves.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// The name of the Kubernetes Node this runs on (in a Pod: spec.nodeName).
    // `None` with a subcommand only.
    #[arg(long, env = "NODE_NAME", value_name = "NAME", required = true)]
    pub(crate) node_name: Option<String>,

    /// Announce nothing on interfaces with this name; `*` stands for any characters, `?` for one.
    /// May be repeated. Giving it replaces the default list, which names the interfaces that
    /// container runtimes and CNI plugins make.
    #[arg(
        long,
        env = "HERALD_EXCLUDE_INTERFACE",
        value_name = "GLOB",
        value_delimiter = ',',
        default_values = [
            "lo", "docker*", "cbr*", "dummy*", "virbr*", "lxcbr*", "veth*", "cali*", "tunl*",
            "flannel*", "kube-ipvs*", "cni*", "nodelocaldns", "lxc*", "vxlan*",
        ]
    )]
    pub(crate) exclude_interface: Vec<String>,

    /// Where to serve /livez, /readyz and /metrics.
    #[arg(
        long,
        env = "HERALD_ADMIN_ADDRESS",
        value_name = "IP:PORT",
        default_value = "[::]:7471"
    )]
    pub(crate) admin_address: SocketAddr,

    /// How many frames a second announce addresses on one interface, once a first burst of 2,000
    /// is spent. Switches with dynamic ARP inspection shut a port down that exceeds their limit,
    /// often 15 a second: lower it there.
    #[arg(
        long,
        env = "HERALD_ANNOUNCE_RATE",
        value_name = "FRAMES",
        default_value_t = 100,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub(crate) announce_rate: u32,

    /// How many frames may announce addresses at once, before the rate counts.
    #[arg(
        long,
        env = "HERALD_ANNOUNCE_BURST",
        value_name = "FRAMES",
        default_value_t = 2_000,
        value_parser = clap::value_parser!(u32).range(2..=100_000)
    )]
    pub(crate) announce_burst: u32,

    /// How many frames a second ask on one interface whether anybody uses an address, before it is used,
    /// once the first of them are sent; three are for one address.
    #[arg(
        long,
        env = "HERALD_PROBE_RATE",
        value_name = "FRAMES",
        default_value_t = Pace::QUESTIONS.frames_per_second,
        value_parser = clap::value_parser!(u32).range(1..=100_000)
    )]
    pub(crate) probe_rate: u32,

    /// How many such frames may be sent at once, before the rate counts.
    #[arg(
        long,
        env = "HERALD_PROBE_BURST",
        value_name = "FRAMES",
        default_value_t = Pace::QUESTIONS.burst_frames,
        value_parser = clap::value_parser!(u32).range(2..=100_000)
    )]
    pub(crate) probe_burst: u32,

    /// A folder in a mounted BPF file system, where programs and maps outlast this process.
    #[arg(
        long,
        env = "HERALD_BPF_PINS",
        value_name = "FOLDER",
        default_value = bpf::DEFAULT_PIN_ROOT
    )]
    pub(crate) bpf_pins: PathBuf,

    /// How fast a speaker that falls silent is noticed by the others: fast (150 ms, for machines of
    /// one's own), default (300 ms, for virtual machines that are moved while they run) or slow
    /// (1.2 s, for networks with long interruptions). The same on all nodes.
    #[arg(
        long,
        env = "HERALD_RING_PROFILE",
        value_name = "PROFILE",
        default_value = "default"
    )]
    pub(crate) ring_profile: RingProfile,

    /// The UDP port on which the speakers watch each other, on every network they announce on. The
    /// same on all nodes.
    #[arg(
        long,
        env = "HERALD_RING_PORT",
        value_name = "PORT",
        default_value_t = 7948,
        value_parser = clap::value_parser!(u16).range(1..)
    )]
    pub(crate) ring_port: u16,

    /// The Secret, in the speaker's own namespace, with the keys that authenticate the speakers to
    /// each other. The controller makes it. Without it this speaker serves nothing new.
    #[arg(
        long,
        env = "HERALD_RING_KEY_SECRET",
        value_name = "NAME",
        default_value = "herald-ring"
    )]
    pub(crate) ring_key_secret: String,

    /// Whose answer to ARP or neighbour solicitations makes up for speakers that are not reached, so
    /// that one of two nodes can take over from the other: `gateway` (the next hop of the default
    /// route), `none`, or addresses, of each family one, separated by commas.
    #[arg(
        long,
        env = "HERALD_RING_WITNESS",
        value_name = "gateway|none|IP",
        default_value = "gateway",
        value_parser = witness
    )]
    pub(crate) ring_witness: Witness,

    /// Where kube-proxy on this node tells of its health, `http://IP:PORT/PATH`. After a boot of the node this
    /// speaker takes part only once kube-proxy has written its rules: before, traffic that others send here
    /// would be lost. If nothing answers there for a minute, it is not waited for; nor if this is empty.
    #[arg(
        long,
        env = "HERALD_KUBE_PROXY_HEALTHZ",
        value_name = "URL",
        default_value = "http://127.0.0.1:10256/healthz",
        value_parser = kube_proxy::healthz
    )]
    pub(crate) kube_proxy_healthz: Healthz,

    /// Whether echo requests (ping) to an address are answered by the node that announces it.
    #[arg(long, env = "HERALD_ANSWER_ECHO", value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) answer_echo: bool,

    /// A folder that outlasts this process, for a copy of what the API server last said: a speaker
    /// that starts while it cannot be reached serves from there, after asking the LAN for each
    /// address. Without it such a speaker waits for the API server.
    #[arg(long, env = "HERALD_STATE_DIR", value_name = "FOLDER")]
    pub(crate) state_dir: Option<PathBuf>,

    /// How many flows the forwarding to NodePorts and to pods remembers; each takes about 300 bytes of kernel
    /// memory. Takes effect when the maps are made anew.
    #[arg(
        long,
        env = "HERALD_FLOWS",
        value_name = "NUMBER",
        default_value_t = bpf::DEFAULT_FLOWS,
        value_parser = clap::value_parser!(u32).range(1_024..=16_777_216)
    )]
    pub(crate) flows: u32,

    /// What is logged, and how.
    #[command(flatten)]
    pub(crate) log: LogFlags,

    /// Which Services and Nodes are ours.
    #[command(flatten)]
    pub(crate) services: ServiceFlags,
}

/// What else it can do: it does that, and ends.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Cleanup(CleanupArgs),
}

/// How fast a silent speaker is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum RingProfile {
    Fast,
    Default,
    Slow,
}

impl Args {
    /// How many frames each interface sends to announce addresses.
    pub(crate) const fn announcements(&self) -> Pace {
        Pace {
            burst_frames: self.announce_burst,
            frames_per_second: self.announce_rate,
        }
    }
}

impl From<RingProfile> for Profile {
    fn from(profile: RingProfile) -> Self {
        match profile {
            RingProfile::Fast => Self::Fast,
            RingProfile::Default => Self::Default,
            RingProfile::Slow => Self::Slow,
        }
    }
}

fn witness(text: &str) -> Result<Witness, String> {
    match text {
        "gateway" => Ok(Witness::Gateway),
        "none" => Ok(Witness::None),
        addresses => addresses
            .split(',')
            .map(|address| {
                address.trim().parse().map_err(|_no_address| {
                    format!("{address:?} is not an address, `gateway` or `none`")
                })
            })
            .collect::<Result<_, _>>()
            .map(Witness::Addresses),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn args(line: &[&str]) -> Args {
        let args = Args::try_parse_from(line).unwrap();
        assert!(args.command.is_none());
        args
    }

    #[test]
    fn command_line_is_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn a_speaker_needs_a_node_name_and_cleanup_none_and_nothing_of_the_speakers() {
        Args::try_parse_from(["herald-speaker"]).unwrap_err();
        let line = ["herald-speaker", "cleanup", "--root=/host"];
        let args = Args::try_parse_from(line).unwrap();
        assert!(matches!(args.command, Some(Command::Cleanup(_))));
        let line = ["herald-speaker", "--node-name=node1", "cleanup"];
        Args::try_parse_from(line).unwrap_err();
    }

    #[test]
    fn node_name_is_all_that_must_be_given() {
        let args = args(&["herald-speaker", "--node-name", "node1"]);
        assert_eq!(args.exclude_interface.len(), 15);
        assert_eq!(args.services, ServiceFlags::default());
        assert_eq!(args.admin_address.port(), 7471);
    }

    #[test]
    fn given_exclusions_replace_the_default_ones() {
        let args = args(&[
            "herald-speaker",
            "--node-name=node1",
            "--exclude-interface=wg*",
            "--exclude-interface=lo",
        ]);
        assert_eq!(args.exclude_interface, ["wg*", "lo"]);
    }
}
