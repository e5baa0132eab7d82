//! The Secret with the ring's keys may be people's own.

use anyhow::{Result, ensure};
use herald_e2e::api::herald;
use herald_e2e::cluster::Cluster;
use herald_e2e::object::text;
use herald_e2e::wait::{LONG, eventually, same};
use herald_lab::HERALD_NAMESPACE;
use serde_json::{Value, json};

use crate::{alone, install};

const NAME: &str = "ring-of-people";

fn path() -> String {
    format!("/api/v1/namespaces/{HERALD_NAMESPACE}/secrets/{NAME}")
}

/// Waits until every speaker sends and accepts these keys only.
fn expect_keys(cluster: &Cluster, expected: &Value) -> Result<()> {
    eventually(&format!("all speakers have keys {expected}"), LONG, || {
        let speakers = cluster.api.list(&herald("speakers", ""))?;
        ensure!(speakers.len() == cluster.nodes().len());
        for speaker in &speakers {
            same(&&speaker["status"]["keyIds"], &expected)?;
        }
        Ok(())
    })
}

fn install_with(cluster: &Cluster, set: &[&str]) -> Result<()> {
    install(cluster, set)?;
    cluster.wait_whole()
}

#[test]
fn a_secret_that_was_there_before_is_used_and_left_as_it_is() -> Result<()> {
    alone(|cluster| {
        cluster.api.apply(&json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": NAME, "namespace": HERALD_NAMESPACE},
            "stringData": {"7": "thirty-two bytes that people made"},
        }))?;
        let version = || -> Result<String> {
            let secret = cluster.api.get(&path())?;
            Ok(text(&secret["metadata"]["resourceVersion"]).to_owned())
        };
        let before = version()?;
        let used = (|| {
            install_with(cluster, &[&format!("ring.secretName={NAME}")])?;
            expect_keys(cluster, &json!([7]))?;
            same(&version()?, &before)
        })();
        let again = install_with(cluster, &[]);
        cluster.api.delete(&path())?;
        used?;
        again?;
        expect_keys(cluster, &json!([1]))
    })
}
