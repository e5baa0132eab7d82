//! `kubectl herald`: what Herald does with the addresses of a cluster, and why.
//!
//! It lists what the API server holds, and answers with the functions that decide: the controller's
//! ([`herald_controller_core::Rehearsal`]) and the speakers' ([`herald_speaker_core::Forecast`]). It
//! writes nothing, but for `drill`; `what-if --file` makes a dry run.
//!
//! What it asks of the API server:
//!
//! | kind | verbs | why |
//! |---|---|---|
//! | services, nodes, namespaces, servicecidrs, endpointslices | list | what the controller and the speakers watch |
//! | ippools, l2advertisements, virtualips, speakers (heraldlb.io) | list | the same |
//! | pods, deployments, daemonsets of Herald's | list | whether they are ready, and with which flags |
//! | leases, configmaps, nodes/proxy, pods/proxy | get, list | `check`; what is refused is said to be unknown |
//! | services | patch, as a dry run | `what-if --file` |
//! | virtualips, speakers (heraldlb.io) | get, patch | `drill` |

mod answer;
mod args;
mod check;
mod connect;
mod drill;
mod explain;
mod file;
mod installation;
mod picture;
mod read;
mod status;
#[cfg(test)]
mod testkit;
mod text;
mod what_if;

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use clap::{CommandFactory as _, Parser as _};

use answer::{give, print, render};
use args::{Cli, Explain, Global, Output, Verb};
use connect::{Connection, connect};
use picture::Picture;
use read::read;
use status::Status;
use text::Style;
use what_if::Change;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match start(cli) {
        Ok(code) => code,
        Err(error) => {
            // Where that can't be written either, the exit code says it.
            writeln!(std::io::stderr(), "error: {}", said(&error)).ok();
            ExitCode::FAILURE
        }
    }
}

/// An error and its causes in a sentence. Of what the API server says its message will do; some causes
/// repeat what was said.
fn said(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain() {
        let (text, is_last) = match cause.downcast_ref::<kube::Error>() {
            Some(kube::Error::Api(status)) => (status.message.clone(), true),
            _ => (cause.to_string(), false),
        };
        if !sentence.contains(&text) {
            let separator = if sentence.is_empty() { "" } else { ": " };
            sentence.extend([separator, &text]);
        }
        if is_last {
            break;
        }
    }
    sentence
}

fn start(cli: Cli) -> Result<ExitCode> {
    if let Verb::Completion { shell } = cli.verb {
        let mut script = Vec::new();
        let mut command = Cli::command().bin_name("kubectl-herald");
        clap_complete::generate(shell, &mut command, "kubectl-herald", &mut script);
        print(&String::from_utf8(script)?)?;
        return Ok(ExitCode::SUCCESS);
    }
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?
        .block_on(run(cli))
}

async fn run(Cli { global, verb }: Cli) -> Result<ExitCode> {
    let connection = connect(&global).await?;
    match verb {
        Verb::Status {
            watch: true,
            interval,
        } => watch(&connection, &global, interval).await,
        Verb::Status { .. } => give(&status::status(&look(&connection).await?), &global),
        Verb::Explain(what) => explain(&connection, &global, &what).await,
        Verb::WhatIf(change) => {
            let picture = look(&connection).await?;
            let change = match change {
                args::WhatIf {
                    node_down: Some(node),
                    ..
                } => Change::NodeDown(node.into()),
                args::WhatIf {
                    drain: Some(node), ..
                } => Change::Drain(node.into()),
                args::WhatIf {
                    delete_pool: Some(pool),
                    ..
                } => Change::DeletePool(pool.into()),
                args::WhatIf { file, .. } => {
                    let file = file.context("no change is given")?;
                    file::service(&connection, &picture.objects, &file).await?
                }
            };
            let answer = what_if::what_if(&picture, &change).map_err(|why| anyhow!(why))?;
            give(&answer, &global)
        }
        Verb::Check => {
            let picture = look(&connection).await?;
            let probes = Box::pin(check::probe(&connection.client, &picture)).await;
            give(&check::check(&picture, &probes), &global)
        }
        Verb::Drill(asked) => {
            let key = args::service_key(&asked.name, &connection.namespace);
            let key = key.map_err(|why| anyhow!(why))?;
            let plan = drill::plan(&look(&connection).await?, &key, &asked);
            let plan = plan.map_err(|why| anyhow!(why))?;
            give(&drill::drill(&connection, &plan, &asked).await?, &global)
        }
        Verb::Completion { .. } => Ok(ExitCode::SUCCESS),
    }
}

async fn look(connection: &Connection) -> Result<Picture> {
    let objects = read(&connection.client).await?;
    Ok(Picture::new(objects, jiff::Timestamp::now().as_second()))
}

async fn explain(connection: &Connection, global: &Global, what: &Explain) -> Result<ExitCode> {
    let picture = look(connection).await?;
    let (found, asked) = match what {
        Explain::Service { name } => {
            let key = args::service_key(name, &connection.namespace).map_err(|why| anyhow!(why))?;
            (explain::service(&picture, &key), format!("Service {key}"))
        }
        Explain::Pool { name } => {
            let pool = name.as_str().into();
            (explain::pool(&picture, &pool), format!("IPPool {name}"))
        }
        Explain::Node { name } => {
            let node = name.as_str().into();
            (explain::node(&picture, &node), format!("node {name}"))
        }
    };
    give(
        &found.with_context(|| format!("there is no {asked}"))?,
        global,
    )
}

/// Shows the status again whenever it changes, until interrupted. Once it was shown, an API server that is
/// away is waited for.
async fn watch(connection: &Connection, global: &Global, interval: Duration) -> Result<ExitCode> {
    let style = answer::style(global);
    let mut shown = None;
    let mut is_away = false;
    loop {
        let picture = tokio::select! {
            picture = look(connection) => picture,
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
        };
        match picture {
            Ok(picture) => {
                is_away = false;
                show(&status::status(&picture), &mut shown, style, global)?;
            }
            Err(error) if shown.is_none() => return Err(error),
            Err(error) if !is_away => {
                is_away = true;
                writeln!(std::io::stderr(), "error: {}; trying again", said(&error)).ok();
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            _ = tokio::signal::ctrl_c() => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Shows a status unless it was shown.
fn show(status: &Status, shown: &mut Option<Status>, style: Style, global: &Global) -> Result<()> {
    // What is older by a second is no change.
    let without_times = status.without_times();
    if shown.as_ref() == Some(&without_times) {
        return Ok(());
    }
    let text = render(status, global)?;
    if global.output != Output::Text {
        print(&text)?;
    } else if style.color {
        print(&format!("\x1b[H\x1b[2J{text}"))?;
    } else {
        print(&format!("{text}\n"))?;
    }
    *shown = Some(without_times);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_a_sentence_that_says_nothing_twice() {
        let refused = kube::Error::Api(Box::new(kube::core::Status::failure(
            "pods is forbidden",
            "Forbidden",
        )));
        let error = anyhow::Error::new(refused).context("cannot list Pod");
        assert_eq!(said(&error), "cannot list Pod: pods is forbidden");
        let error = anyhow!("no such file").context("cannot read it: no such file");
        assert_eq!(said(&error), "cannot read it: no such file");
    }
}
