//! `kubectl herald what-if`, compared with what then comes of the change.

use std::collections::BTreeMap;
use std::fs;
use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use herald_e2e::cli;
use herald_e2e::object::{items, text};
use herald_e2e::sandbox::{Sandbox, sandbox};
use herald_e2e::wait::same;
use serde_json::{Value, json};

/// The addresses that a Service of the test's would have: `None` if they do not change.
fn predicted(it: &Sandbox, answer: &Value, name: &str) -> Option<(Vec<IpAddr>, String)> {
    let service = format!("{}/{}", it.namespace, it.service_name(name));
    let changes = items(&answer["services"]).iter();
    let change = changes
        .into_iter()
        .find(|it| it["service"] == service.as_str())?;
    let after = items(&change["after"]);
    let after = after
        .iter()
        .filter_map(|it| text(it).parse().ok())
        .collect();
    Some((after, text(&change["reason"]).to_owned()))
}

#[test]
fn a_deleted_pool_does_what_was_said_of_it() -> Result<()> {
    sandbox(|it| {
        let high = json!({"addresses": [it.range_v4(0, 3)], "priority": 9});
        it.pool("goes", high)?;
        it.pool("stays", json!({"addresses": [it.range_v4(8, 9)]}))?;
        let names = ["s0", "s1", "s2"];
        for (index, name) in (0..).zip(names) {
            it.service(name, json!({}))?;
            it.expect_addresses(name, &[it.v4(index)])?;
        }
        let pool = it.name("goes");
        let (well, answer) = cli::ask(&it.cluster.lab, &["what-if", "--delete-pool", &pool])?;
        ensure!(!well, "two addresses for three Services: {answer}");
        let foreseen: BTreeMap<&str, _> = names
            .into_iter()
            .filter_map(|name| Some((name, predicted(it, &answer, name)?)))
            .collect();
        same(&foreseen.len(), &names.len()).context(answer.to_string())?;
        it.delete_pool("goes")?;
        for (name, (addresses, reason)) in foreseen {
            it.expect_addresses(name, &addresses)?;
            if addresses.is_empty() {
                it.expect_pending(name, &reason)?;
            }
        }
        Ok(())
    })
}

#[test]
fn an_applied_file_does_what_was_said_of_it() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(5, 5)]}))?;
        let file = it
            .cluster
            .lab
            .folder()
            .join(format!("{}.yaml", it.namespace));
        let said = |name: &str| -> Result<_> {
            let service = json!({
                "apiVersion": "v1", "kind": "Service",
                "metadata": {"name": name, "namespace": it.namespace},
                "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]},
            });
            fs::write(&file, service.to_string())?;
            let path = file.display().to_string();
            let (_, answer) = cli::ask(&it.cluster.lab, &["what-if", "--file", &path])?;
            predicted(it, &answer, name).with_context(|| format!("nothing of {name}: {answer}"))
        };
        let result = (|| -> Result<()> {
            let (addresses, _) = said("first")?;
            same(&addresses, &vec![it.v4(5)])?;
            let path = it.service_path("first");
            same(&it.cluster.api.find(&path)?, &None).context("it was only a dry run")?;
            it.service("first", json!({}))?;
            it.expect_addresses("first", &addresses)?;
            let (addresses, reason) = said("second")?;
            same(&addresses, &vec![])?;
            it.service("second", json!({}))?;
            it.expect_pending("second", &reason)
        })();
        fs::remove_file(&file)?;
        result
    })
}

#[test]
fn what_is_not_there_is_named() -> Result<()> {
    sandbox(|it| {
        for (flag, name) in [("--node-down", "node99"), ("--delete-pool", "nowhere")] {
            let output = cli::run(&it.cluster.lab, &["what-if", flag, name])?;
            same(&output.status.code(), &Some(1))?;
            ensure!(output.stderr.contains(name), "it says {:?}", output.stderr);
        }
        Ok(())
    })
}
