//! docs/first-steps.md, done as written on the lab, from the first command to the last.

use anyhow::{Context as _, Result, bail, ensure};
use herald_e2e::cli::NOT_WELL;
use herald_e2e::cluster::Cluster;
use herald_e2e::documents::{commands, documents};
use herald_lab::Output;

use crate::alone;

const PAGE: &str = "docs/first-steps.md";
/// The node that the page takes for the one that announces.
const HOLDER: &str = "node3";

/// Does what `herald-lab` would do with these words.
fn herald_lab(cluster: &Cluster, command: &str) -> Result<Option<Output>> {
    let lab = &cluster.lab;
    let (verb, rest) = command.split_once(' ').unwrap_or((command, ""));
    let shell = |line: &str| ["sh".to_owned(), "-c".to_owned(), line.to_owned()];
    match verb {
        "kubectl" => Ok(Some(lab.exec("cp", shell(&format!("kubectl {rest}")))?)),
        "exec" => {
            let (place, line) = rest.split_once(" -- ").context("exec PLACE -- COMMAND")?;
            Ok(Some(lab.exec(place, shell(line))?))
        }
        "power" => {
            match rest.split_once(' ') {
                Some((node, "off")) => lab.power_off(node)?,
                Some((node, "on")) => lab.power_on(node, false)?,
                _ => bail!("power NODE on|off"),
            }
            Ok(None)
        }
        _ => bail!("the test can't do {verb:?}"),
    }
}

#[test]
fn first_steps_lead_where_they_say() -> Result<()> {
    alone(|cluster| {
        let page = documents()?.into_iter().find(|it| it.name == PAGE);
        let blocks = page.context(PAGE)?.blocks();
        let steps: Vec<_> = blocks
            .iter()
            .flat_map(commands)
            .filter_map(|step| {
                Some((
                    step.place(),
                    step.text.strip_prefix("herald-lab ")?.to_owned(),
                ))
            })
            .collect();
        let mut holder = HOLDER.to_owned();
        let mut clients = Vec::new();
        let done = steps.iter().try_for_each(|(place, step)| -> Result<()> {
            let step = step.replace(HOLDER, &holder);
            let said = herald_lab(cluster, &step).with_context(|| place.clone())?;
            let Some(said) = said else { return Ok(()) };
            let not_well = step.contains("kubectl herald") && said.status.code() == Some(NOT_WELL);
            let text = if not_well {
                said.stdout
            } else {
                said.ok().with_context(|| format!("{place}: {step}"))?
            };
            if step.contains("get virtualips") {
                let of = cluster.announcer("172.30.64.10".parse()?)?;
                ensure!(text.contains(&of.0), "{text}");
                holder = of.0;
            }
            if step.contains("curl") {
                let client = text
                    .split_whitespace()
                    .find_map(|it| it.strip_prefix("client="));
                clients.push(client.with_context(|| text.clone())?.to_owned());
            }
            if step.contains("events") {
                ensure!(text.contains("Moved"), "{text}");
            }
            if step.contains("get service") {
                ensure!(text.contains("172.30.64.10"), "{text}");
            }
            Ok(())
        });
        // Whatever came of it, nobody else is to have these addresses.
        for step in ["delete service,deployment web", "delete ippool default"] {
            herald_lab(cluster, &format!("kubectl {step} --ignore-not-found"))?;
        }
        done?;
        ensure!(steps.len() > 12, "{} steps", steps.len());
        ensure!(
            clients.len() == 3
                && clients[0] != "172.30.0.100"
                && clients[1..] == ["172.30.0.100"; 2],
            "the page says otherwise: {clients:?}"
        );
        Ok(())
    })
}
