//! `herald-lab`: a genuine Kubernetes cluster on one machine, for tests and for trying things out.
#![expect(clippy::print_stderr, reason = "a command-line tool")]

mod cli;
mod show;

use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::Parser;
use herald_lab::{Action, Error, Lab, Options, Program, Step};
use serde_json::json;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::cli::{Cli, ClientVerb, Format, Power, Verb};

/// Exit code of a shell for a command that Ctrl-C has ended.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("herald-lab: {error:#}");
            match error.downcast_ref::<Error>() {
                Some(Error::Interrupted) => ExitCode::from(INTERRUPTED),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    match &cli.verb {
        Verb::Up(options) => up(cli, &options.options(&cli.name)),
        Verb::Down { all } => down(cli, *all),
        Verb::Status => {
            let status = attach(cli)?.status()?;
            match cli.output {
                Format::Json => json(&serde_json::to_value(&status)?),
                Format::Text => print(&show::status(&status)),
            }
        }
        Verb::Kubectl { args } => become_command(cli, "cp", "kubectl", args),
        Verb::Helm { args } => become_command(cli, "cp", "helm", args),
        Verb::Kubeconfig => {
            let path = attach(cli)?.kubeconfig_path();
            match cli.output {
                Format::Json => json(&json!({"kubeconfig": path})),
                Format::Text => {
                    eprintln!(
                        "# the API server is on the LAN only: works in `herald-lab exec cp -- …`"
                    );
                    print(&format!("{}\n", path.display()))
                }
            }
        }
        Verb::Exec { place, command } => {
            let Some((program, args)) = command.split_first() else {
                bail!("exec: no command")
            };
            become_command(cli, place, program, args)
        }
        Verb::Client {
            verb: ClientVerb::Add { client },
        } => {
            let address = attach(cli)?.add_client(client)?;
            match cli.output {
                Format::Json => json(&serde_json::to_value(&address)?),
                Format::Text => say(&format!("{client} at {}", address.all().join(", "))),
            }
        }
        Verb::Deploy { chart } => {
            let lab = attach(cli)?;
            lab.deploy(&chart.options(), &mut tell)?;
            Ok(())
        }
        Verb::Load { image } => {
            attach(cli)?.load_image(image)?;
            say(&format!("{} loaded into every node", image.display()))
        }
        fault => inject(cli, fault),
    }
}

/// The verbs that break things, and make them whole.
fn inject(cli: &Cli, verb: &Verb) -> Result<()> {
    let lab = attach(cli)?;
    match verb {
        Verb::Cut { place, silent } => {
            lab.cut(place, *silent)?;
            let how = if *silent {
                "silently: it has carrier"
            } else {
                "no carrier"
            };
            say(&format!("{place} cut, {how}"))
        }
        Verb::Loss { place, percent } => {
            lab.lose(place, *percent)?;
            say(&format!("{place} loses {percent} each way"))
        }
        Verb::Partition { parts } => {
            let parts = cli::parts(parts);
            lab.partition(&parts)?;
            let parts: Vec<_> = parts.iter().map(|part| part.join(",")).collect();
            say(&format!("LAN split: {}", parts.join(" / ")))
        }
        Verb::Heal { place: Some(place) } => {
            lab.heal(place)?;
            say(&format!("{place} healed"))
        }
        Verb::Heal { place: None } => {
            lab.heal_all()?;
            say("all healed")
        }
        Verb::Power {
            node,
            to: Power::Off,
            ..
        } => {
            lab.power_off(node)?;
            say(&format!("{node} off"))
        }
        Verb::Power {
            node,
            to: Power::On,
            new,
        } => {
            lab.power_on(node, *new)?;
            say(&format!(
                "{node} boots{}",
                if *new { " with an empty disk" } else { "" }
            ))
        }
        Verb::Freeze { node, program } => {
            let what = match program {
                Some(program) => lab.freeze_program(node, *program).map(|_| on(*program))?,
                None => lab.freeze(node).map(|()| String::new())?,
            };
            say(&format!("{what}{node} frozen"))
        }
        Verb::Thaw { node, program } => {
            let what = match program {
                Some(program) => lab.thaw_program(node, *program).map(|_| on(*program))?,
                None => lab.thaw(node).map(|()| String::new())?,
            };
            say(&format!("{what}{node} thawed"))
        }
        Verb::Kill {
            node,
            program,
            signal,
            hold,
        } => {
            let name = program.file_name();
            if *hold {
                lab.kill_and_hold(node, *program)?;
                return say(&format!(
                    "{name} on {node} killed and held down until heal {node}"
                ));
            }
            let count = lab.kill(node, *program, signal)?;
            say(&format!(
                "{signal} sent to {name} on {node} ({count} process)"
            ))
        }
        Verb::Api { action } => {
            lab.api(*action)?;
            control_plane_done(&lab, "API server", *action)
        }
        Verb::Etcd { action } => {
            lab.etcd(*action)?;
            control_plane_done(&lab, "etcd", *action)
        }
        _ => Ok(()),
    }
}

fn on(program: Program) -> String {
    format!("{} on ", program.file_name())
}

fn control_plane_done(lab: &Lab, what: &str, action: Action) -> Result<()> {
    if action != Action::Start {
        return say(&format!("{what} {action}"));
    }
    let began = Instant::now();
    lab.wait_api_ready(Duration::from_mins(1))?;
    say(&format!(
        "{what} started, API server ready after {:.1} s",
        began.elapsed().as_secs_f32()
    ))
}

fn attach(cli: &Cli) -> Result<Lab> {
    Ok(Lab::attach(&cli.name)?)
}

fn up(cli: &Cli, options: &Options) -> Result<()> {
    stop_on_signals(&options.interrupt)?;
    let began = Instant::now();
    let lab = Lab::up_with(options, &mut tell)?;
    let seconds = began.elapsed().as_secs_f32();
    match cli.output {
        Format::Json => json(&json!({
            "name": lab.name(),
            "seconds": seconds,
            "nodes": lab.nodes(),
            "kubeconfig": lab.kubeconfig_path(),
            "auditLog": lab.audit_log_path(),
        })),
        Format::Text => {
            let name = if lab.name() == "lab" {
                String::new()
            } else {
                format!(" --name {}", lab.name())
            };
            // As it was called: it need not be in the PATH.
            let me = std::env::args().next();
            let me = me.unwrap_or_else(|| "herald-lab".to_owned()) + &name;
            say(&format!(
                "the lab {:?} is up; try\n  {me} status\n  {me} kubectl get nodes\n  \
                 {me} exec node1 -- ip addr",
                lab.name(),
            ))
        }
    }
}

/// The first signal asks `up` to give up and clean up; the second ends us at once.
fn stop_on_signals(interrupt: &Arc<AtomicBool>) -> Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let code = i32::from(INTERRUPTED);
        signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(interrupt))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(interrupt)))
            .context("handling signals")?;
    }
    Ok(())
}

fn down(cli: &Cli, all: bool) -> Result<()> {
    let names = if all {
        Lab::all_names()
    } else {
        vec![cli.name.clone()]
    };
    if names.is_empty() {
        return say("no lab to remove");
    }
    let mut failed = None;
    for name in names {
        match Lab::down(&name) {
            Ok(true) => say(&format!("the lab {name:?} is removed"))?,
            Ok(false) => say(&format!("the lab {name:?}: nothing to remove"))?,
            // The others can still go.
            Err(error) if all => {
                eprintln!("herald-lab: {error}");
                failed = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    failed.map_or(Ok(()), |error| Err(error.into()))
}

/// This process becomes the command: terminal, signals and exit code are the command's own.
fn become_command(cli: &Cli, place: &str, program: &str, args: &[String]) -> Result<()> {
    let words = std::iter::once(program).chain(args.iter().map(String::as_str));
    let error = attach(cli)?.command(place, words)?.exec();
    Err(error).with_context(|| format!("running {program} at {place}"))
}

fn tell(step: &Step) {
    eprintln!("{:6.1} s  {}", step.elapsed.as_secs_f32(), step.text);
}

fn say(text: &str) -> Result<()> {
    print(&format!("{text}\n"))
}

fn json(value: &serde_json::Value) -> Result<()> {
    print(&format!("{}\n", serde_json::to_string_pretty(value)?))
}

fn print(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        // `herald-lab status | head` is no failure.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("writing to stdout"),
    }
}
