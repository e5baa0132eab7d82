//! The command line.

#![expect(
    clippy::doc_markdown,
    reason = "these comments are the text of --help, where backticks are noise"
)]

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use herald_model::ServiceKey;

const EXIT_CODES: &str = "\
Exit codes:
  0  all is well: the Service serves, nothing would break, no problem was found
  1  no answer: the API server can't be reached or refuses, or there is no such object
  2  the command line is wrong
  3  answered, and something is not well: a Service without address or announcer, flows that would
     break, connections that failed in a drill, a problem that check found";

const EXAMPLES: &str = "\
Examples:
  kubectl herald status                            addresses, nodes and pools at a glance
  kubectl herald explain service shop/web          why it has its address, or why it has none
  kubectl herald what-if --node-down node2         who would take over, which flows would break
  kubectl herald drill shop/web                    move its address, and measure
  kubectl herald check                             is the cluster ready for Herald, and Herald for it";

/// Says what Herald does with the addresses of a cluster, and why.
///
/// It reads the API server and decides with the same functions as Herald's controller and speakers. It
/// writes nothing; only drill makes something happen.
#[derive(Debug, Parser)]
#[command(
    name = "kubectl-herald",
    bin_name = "kubectl herald",
    version,
    after_help = EXAMPLES,
    after_long_help = format!("{EXAMPLES}\n\n{EXIT_CODES}"),
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// What is the same for every verb.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The kubeconfig file; without it $KUBECONFIG, else ~/.kube/config, else the cluster that this
    /// runs in.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig; without it the current one.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,

    /// The namespace of Services that are named without one; without it the context's.
    #[arg(long, short, global = true, value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,

    /// How to print the answer.
    #[arg(
        long,
        short,
        global = true,
        value_enum,
        default_value_t = Output::Text,
        value_name = "FORMAT",
        hide_default_value = true
    )]
    pub(crate) output: Output,

    /// Whether to colour the answer; auto: on a terminal, unless $NO_COLOR is set.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN", hide_default_value = true)]
    pub(crate) color: Color,
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For programs and people.
    Yaml,
}

/// When there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless $NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What is asked.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Shows addresses, who holds them, how they are forwarded, nodes and pools.
    #[command(after_help = "\
Examples:
  kubectl herald status
  kubectl herald status --watch
  kubectl herald status -o json | jq '.pending'")]
    Status {
        /// Show it again whenever something changes, until interrupted.
        #[arg(long, short)]
        watch: bool,
        /// How often to look, with --watch.
        #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = at_least_a_second)]
        interval: Duration,
    },
    /// Says why something is as it is, step by step.
    #[command(subcommand)]
    Explain(Explain),
    /// Says what would come of a change, which is not made.
    #[command(
        name = "what-if",
        after_help = "\
Examples:
  kubectl herald what-if --node-down node2       its power fails
  kubectl herald what-if --drain node2           kubectl drain node2
  kubectl herald what-if --delete-pool public    kubectl delete ippool public
  kubectl herald what-if --file web.yaml         kubectl apply -f web.yaml, a Service

--file asks the API server for a dry run, which fills in what the Service does not say: it takes the right
to create or change that Service."
    )]
    WhatIf(WhatIf),
    /// Looks whether the cluster is ready for Herald, and says what to do about what isn't.
    #[command(after_help = "\
Examples:
  kubectl herald check
  kubectl herald check -o json | jq '.findings[] | select(.level == \"problem\")'")]
    Check,
    /// Moves an address on purpose, and measures how long a client has no answer. It asks first.
    #[command(after_help = "\
Examples:
  kubectl herald drill shop/web                    to the next node of its plan
  kubectl herald drill shop/web --to node3         to this node
  kubectl herald drill shop/web --kill             the speaker that announces it crashes
  kubectl herald drill shop/web --yes -o json | jq .outageMs

The client is this program: run it where clients are, on the segment or behind its router. It makes TCP
connections to the address, and counts one that takes 900 ms as failed; exit code 3 says that one did.
It takes the right to patch VirtualIPs, with --kill Speakers: it sets the annotation heraldlb.io/move-to or
heraldlb.io/crash.")]
    Drill(Drill),
    /// Prints the completion script of a shell.
    #[command(after_help = "\
Examples:
  source <(kubectl-herald completion bash)
  kubectl-herald completion zsh > \"${fpath[1]}/_kubectl-herald\"
  kubectl-herald completion fish > ~/.config/fish/completions/kubectl-herald.fish

It completes the command kubectl-herald, which is the same as kubectl herald.")]
    Completion {
        /// The shell.
        #[arg(value_enum)]
        shell: Shell,
    },
}

/// What is explained.
#[derive(Debug, Subcommand)]
pub(crate) enum Explain {
    /// From what a Service asks for to its pool, its address, who announces it, and the target table.
    #[command(
        visible_alias = "svc",
        after_help = "\
Examples:
  kubectl herald explain service shop/web
  kubectl herald explain service web -n shop -o yaml"
    )]
    Service {
        /// The Service: NAMESPACE/NAME, or NAME in the namespace of -n or of the context.
        #[arg(value_name = "NAMESPACE/NAME")]
        name: String,
    },
    /// Which addresses a pool serves, who has them, and whom it refuses.
    #[command(after_help = "\
Examples:
  kubectl herald explain pool public")]
    Pool {
        /// The IPPool.
        name: String,
    },
    /// What a node announces and would announce, and what keeps it from more.
    #[command(after_help = "\
Examples:
  kubectl herald explain node node2")]
    Node {
        /// The node.
        name: String,
    },
}

/// A change.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct WhatIf {
    /// This node dies, without a word.
    #[arg(long, value_name = "NODE")]
    pub(crate) node_down: Option<String>,
    /// This node is cordoned and drained.
    #[arg(long, value_name = "NODE")]
    pub(crate) drain: Option<String>,
    /// This IPPool is deleted.
    #[arg(long, value_name = "POOL")]
    pub(crate) delete_pool: Option<String>,
    /// The Service in this file, YAML or JSON, is applied; - is the standard input.
    #[arg(long, short, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// A move that is made on purpose.
#[derive(Clone, Debug, Args)]
pub(crate) struct Drill {
    /// The Service: NAMESPACE/NAME, or NAME in the namespace of -n or of the context.
    #[arg(value_name = "NAMESPACE/NAME")]
    pub(crate) name: String,
    /// The speaker that announces the address crashes. Without this, it is moved by plan.
    #[arg(long)]
    pub(crate) kill: bool,
    /// The node that is to announce the address; without it, the next one of its plan.
    #[arg(long, value_name = "NODE", conflicts_with = "kill")]
    pub(crate) to: Option<String>,
    /// Which of the Service's addresses; without it the first.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) address: Option<IpAddr>,
    /// On which segment, where it is announced on several; without it the first.
    #[arg(long, value_name = "SEGMENT")]
    pub(crate) segment: Option<String>,
    /// The TCP port to connect to; without it the Service's first.
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Don't ask first.
    #[arg(long, short)]
    pub(crate) yes: bool,
    /// Between the beginnings of two connections.
    #[arg(long, value_name = "DURATION", default_value = "5ms", value_parser = at_least_a_millisecond)]
    pub(crate) interval: Duration,
    /// For how long to go on asking after the move.
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = at_least_a_second)]
    pub(crate) after: Duration,
    /// How long the move may take; then the request is taken back.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = at_least_a_second)]
    pub(crate) timeout: Duration,
}

/// A Service as it is named on the command line.
///
/// # Errors
///
/// What is wrong with the name.
pub(crate) fn service_key(name: &str, default_namespace: &str) -> Result<ServiceKey, String> {
    let mut parts = name.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, None) if !name.is_empty() => {
            Ok(ServiceKey::new(default_namespace, name))
        }
        (Some(namespace), Some(name), None) if !namespace.is_empty() && !name.is_empty() => {
            Ok(ServiceKey::new(namespace, name))
        }
        _ => Err(format!(
            "{name:?} is no Service: expected NAMESPACE/NAME or NAME"
        )),
    }
}

fn at_least_a_second(text: &str) -> Result<Duration, &'static str> {
    herald_config::duration(text)
        .filter(|duration| *duration >= Duration::from_secs(1))
        .ok_or("not a duration of at least a second such as 2s or 1m")
}

fn at_least_a_millisecond(text: &str) -> Result<Duration, &'static str> {
    herald_config::duration(text)
        .filter(|duration| *duration >= Duration::from_millis(1))
        .ok_or("not a duration of at least a millisecond such as 5ms or 1s")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_service_is_named_with_or_without_its_namespace() {
        let key = |namespace, name| Ok(ServiceKey::new(namespace, name));
        assert_eq!(service_key("shop/web", "default"), key("shop", "web"));
        assert_eq!(service_key("web", "default"), key("default", "web"));
        for wrong in ["", "/", "shop/", "/web", "a/b/c"] {
            assert!(service_key(wrong, "default").is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn one_change_at_a_time() {
        let parse = |args: &[&str]| Cli::try_parse_from([&["x", "what-if"], args].concat());
        assert!(parse(&["--node-down", "node1"]).is_ok());
        assert!(parse(&["--file", "-"]).is_ok());
        assert!(parse(&[]).is_err());
        assert!(parse(&["--node-down", "node1", "--drain", "node2"]).is_err());
    }

    #[test]
    fn every_verb_has_examples_in_its_help() {
        fn walk(command: &clap::Command, lacking: &mut Vec<String>) {
            let verbs: Vec<_> = command.get_subcommands().collect();
            if verbs.is_empty() && command.get_after_help().is_none() {
                lacking.push(command.get_name().to_owned());
            }
            for verb in verbs {
                walk(verb, lacking);
            }
        }
        let mut lacking = Vec::new();
        walk(&Cli::command(), &mut lacking);
        assert_eq!(lacking, Vec::<String>::new());
    }
}
