//! The chart's alerts, by the real Prometheus: each fires by its fault, and none when all is well.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use herald_e2e::api::herald;
use herald_e2e::cluster::Cluster;
use herald_e2e::object::{items, text};
use herald_e2e::prometheus::Prometheus;
use herald_e2e::sandbox::{Sandbox, sandbox};
use herald_e2e::stranger::Stranger;
use herald_e2e::wait::{LONG, eventually, same, throughout};
use herald_lab::{HERALD_NAMESPACE, Program};
use serde_json::{Value, json};

use crate::alone;
use crate::verified::Distrust;

/// How often a speaker is declared dead at most until that is too often.
const DEATHS: usize = 20;

/// What `promtool` says of files.
fn promtool(args: &[&str]) -> Result<()> {
    let said = Command::new(herald_lab::prometheus()?.join("promtool"))
        .args(args)
        .output()?;
    let text = String::from_utf8_lossy(&said.stdout) + String::from_utf8_lossy(&said.stderr);
    ensure!(said.status.success(), "promtool {args:?}: {text}");
    Ok(())
}

#[test]
fn alerts_are_as_promtool_wants_them_and_fire_when_they_should() -> Result<()> {
    let here = env!("CARGO_MANIFEST_DIR");
    let rules = format!("{here}/../../helm/files/alerts.yaml");
    promtool(&["check", "rules", &rules])?;
    promtool(&["test", "rules", &format!("{here}/alerts.test.yaml")])
}

/// Waits until these fire, whatever else does.
fn fire(prometheus: &Prometheus<'_>, expected: &[&str]) -> Result<()> {
    eventually(&format!("{expected:?} fire"), LONG, || {
        let firing = prometheus.firing()?;
        let mut expected = expected.iter();
        ensure!(expected.all(|alert| firing.contains(*alert)), "{firing:?}");
        Ok(())
    })
}

/// Waits until none of these fires any more.
fn cease(prometheus: &Prometheus<'_>, expected: &[&str]) -> Result<()> {
    eventually(&format!("{expected:?} fire no more"), LONG, || {
        let firing = prometheus.firing()?;
        let mut expected = expected.iter();
        ensure!(!expected.any(|alert| firing.contains(*alert)), "{firing:?}");
        Ok(())
    })
}

fn allocation(it: &Sandbox, prometheus: &Prometheus<'_>) -> Result<()> {
    it.pool("a", json!({"addresses": [it.range_v4(0, 0)]}))?;
    it.service("web", json!({}))?;
    let address = it.wait_announced("web")?;
    fire(prometheus, &["HeraldPoolNearlyFull"])?;
    it.service("late", json!({}))?;
    fire(prometheus, &["HeraldServicePending"])?;
    it.delete_service("late")?;
    cease(prometheus, &["HeraldServicePending"])?;

    it.advertisement(
        "a",
        json!({"nodeSelectors": [{"matchLabels": {"no": "where"}}]}),
    )?;
    fire(prometheus, &["HeraldAddressNotAnnounced"])?;
    it.cluster
        .api
        .delete(&herald("l2advertisements", &it.name("a")))?;
    cease(prometheus, &["HeraldAddressNotAnnounced"])?;

    let stranger = Stranger::with(&it.cluster.lab, &[])?;
    eventually("HeraldAddressConflict fires", LONG, || {
        stranger.claim(address)?;
        ensure!(prometheus.firing()?.contains("HeraldAddressConflict"));
        Ok(())
    })
}

fn nodes(it: &Sandbox, prometheus: &Prometheus<'_>) -> Result<()> {
    let (cluster, lab) = (it.cluster, &it.cluster.lab);
    let address = it.wait_announced("web")?;

    // Both sides can still be scraped.
    let (holder, _) = cluster.announcer(address)?;
    let others = cluster.nodes().into_iter().filter(|node| *node != holder);
    let others = others.chain(["gateway".to_owned()]).collect();
    lab.partition(&[vec![holder], others])?;
    fire(prometheus, &["HeraldTwoHolders", "HeraldNoQuorum"])?;
    lab.heal_all()?;
    cease(prometheus, &["HeraldTwoHolders", "HeraldNoQuorum"])?;
    cluster.wait_whole()?;

    // The new holder's answers are dropped, and the old one's speaker stays dead.
    let (holder, _) = cluster.announcer(address)?;
    let distrust = Distrust::of(lab, address)?;
    lab.kill_and_hold(&holder, Program::Speaker)?;
    fire(prometheus, &["HeraldSpeakerDown", "HeraldHolderNotSeen"])?;
    drop(distrust);
    lab.heal(&holder)?;
    cease(prometheus, &["HeraldSpeakerDown"])?;
    cluster.wait_whole()?;

    let often = ["HeraldNodeFlapping", "HeraldCertificateStorm"];
    for deaths in 0.. {
        let firing = prometheus.firing()?;
        if often.iter().all(|alert| firing.contains(*alert)) {
            break;
        }
        ensure!(deaths < DEATHS, "after {deaths} deaths {firing:?}");
        lab.freeze_program(&holder, Program::Speaker)?;
        let dead = fire(prometheus, &["HeraldSpeakerDown"]);
        lab.thaw_program(&holder, Program::Speaker)?;
        dead?;
        cease(prometheus, &["HeraldSpeakerDown"])?;
    }

    let retire = |retire: bool| {
        let spec = json!({"spec": {"retire": retire}});
        cluster.api.merge(&herald("speakers", &holder), &spec)
    };
    retire(true)?;
    let fired = fire(
        prometheus,
        &["HeraldSpeakerNotReady", "HeraldDataPlaneNotRunning"],
    );
    retire(false)?;
    fired
}

fn controller(cluster: &Cluster, prometheus: &Prometheus<'_>) -> Result<()> {
    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        let command = [
            "scale",
            "-n",
            HERALD_NAMESPACE,
            "deployment/herald-controller",
        ];
        cluster
            .lab
            .kubectl(command.into_iter().chain([replicas.as_str()]))
    };
    scale("0")?;
    let fired = fire(prometheus, &["HeraldNoController"]);
    scale("2")?;
    fired
}

/// Each alert of the chart has fired by now.
fn none_was_left_out(prometheus: &Prometheus<'_>) -> Result<()> {
    let rules = concat!(env!("CARGO_MANIFEST_DIR"), "/../../helm/files/alerts.yaml");
    let rules: Value = serde_saphyr::from_str(&fs::read_to_string(rules)?)?;
    let rules = items(&rules["groups"]).iter();
    let rules = rules.flat_map(|group| items(&group["rules"]));
    let all: BTreeSet<String> = rules.map(|rule| text(&rule["alert"]).to_owned()).collect();
    let fired = r#"count by (alertname) (last_over_time(ALERTS{alertstate="firing"}[1h]))"#;
    let fired = prometheus.query(fired)?;
    let fired = fired.iter().map(|it| text(&it["metric"]["alertname"]));
    same(&fired.map(str::to_owned).collect(), &all)
}

/// All that the chart asks Prometheus for is there.
fn all_is_known(prometheus: &Prometheus<'_>) -> Result<()> {
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/../../helm/files");
    let dashboard = fs::read_to_string(format!("{files}/dashboard.json"))?;
    let alerts = fs::read_to_string(format!("{files}/alerts.yaml"))?;
    let parsed: Value = serde_json::from_str(&dashboard)?;
    let panels = items(&parsed["panels"]).iter();
    let targets: Vec<_> = panels.flat_map(|panel| items(&panel["targets"])).collect();
    ensure!(!targets.is_empty(), "the dashboard shows nothing");
    for target in targets {
        prometheus.query(text(&target["expr"]))?;
    }
    let both = dashboard + &alerts;
    let words = both.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_');
    let is_ours =
        |word: &&str| word.starts_with("herald_speaker_") || word.starts_with("herald_controller_");
    let names: BTreeSet<&str> = words.filter(is_ours).collect();
    for name in names {
        let found = prometheus.query(&format!("count(last_over_time({name}[1h]))"))?;
        ensure!(!found.is_empty(), "there is no series {name}");
    }
    Ok(())
}

#[test]
fn each_alert_fires_by_its_fault_and_none_when_all_is_well() -> Result<()> {
    alone(|cluster| {
        let prometheus = Prometheus::start(cluster)?;
        // Before it had scraped a controller, it took it that there is none.
        let none = || same(&prometheus.firing()?, &BTreeSet::new());
        eventually("no alert fires", LONG, none)?;
        throughout("no alert fires", Duration::from_secs(3), none)?;
        let tested = sandbox(|it| {
            allocation(it, &prometheus)?;
            nodes(it, &prometheus)
        });
        cluster.lab.heal_all()?;
        tested?;
        controller(cluster, &prometheus)?;
        none_was_left_out(&prometheus)?;
        all_is_known(&prometheus)?;
        cluster.wait_whole()
    })
}
