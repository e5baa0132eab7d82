//! What Helm makes of the chart's values.

use anyhow::{Context as _, Result, ensure};
use herald_e2e::cluster::cluster;
use herald_e2e::documents::root;
use herald_e2e::object::text;
use herald_e2e::reference::chart_values;
use herald_e2e::wait::same;
use serde_json::{Value, json};

/// What makes the chart leave out nothing.
const ALL: [&str; 4] = [
    "metrics.podMonitor.enabled=true",
    "metrics.prometheusRule.enabled=true",
    "metrics.dashboard.enabled=true",
    "controller.networkPolicy.enabled=true",
];

/// What the chart makes with these values as well, as JSON each.
fn made(values: &[&str]) -> Result<String> {
    let chart = root().join("helm").display().to_string();
    let mut args = vec!["template", "herald", &chart, "--namespace=herald-system"];
    for value in ALL.iter().chain(values) {
        args.extend(["--set-json", value]);
    }
    Ok(cluster()?.lab.helm(args)?)
}

fn objects(made: &str) -> Result<Vec<Value>> {
    let documents = made.split("\n---\n").filter(|text| text.contains("kind:"));
    let parsed = documents.map(|text| {
        serde_saphyr::from_str::<Value>(text).with_context(|| format!("reading {text}"))
    });
    parsed.collect()
}

/// The metadata of the pods that an object makes, or is.
fn pods(object: &Value) -> Option<&Value> {
    match text(&object["kind"]) {
        "Pod" => Some(&object["metadata"]),
        "Deployment" | "DaemonSet" | "Job" => Some(&object["spec"]["template"]["metadata"]),
        _ => None,
    }
}

/// Another value than the chart's own, of the same form.
fn another(path: &str, value: &Value) -> Option<Value> {
    Some(match value {
        // What is switched on for all that is made.
        Value::Bool(_) if ALL.contains(&format!("{path}=true").as_str()) => json!(false),
        Value::Bool(value) => json!(!value),
        Value::Number(number) => json!(number.as_u64()? + 1),
        _ => match path {
            "image.repository" | "image.tag" | "logLevel" | "ring.secretName" => json!("other"),
            "image.pullPolicy" => json!("Always"),
            "imagePullSecrets" => json!([{"name": "other"}]),
            "loadBalancerClasses" => json!(["example.com/other"]),
            "logFormat" => json!("json"),
            "ring.profile" => json!("fast"),
            "ring.witness" => json!("192.0.2.1"),
            "metrics.podMonitor.interval"
            | "uninstall.timeout"
            | "test.timeout"
            | "controller.rebalance.quiet"
            | "controller.rebalance.interval" => json!("77s"),
            "controller.networkPolicy.metricsFrom" => json!([{"namespaceSelector": {}}]),
            "controller.networkPolicy.apiServerPorts" => json!([8443]),
            "speaker.excludeInterfaces" => json!(["other*"]),
            "speaker.kubeProxyHealthz" => json!("http://127.0.0.1:7777/healthz"),
            _ if path.ends_with("abels") || path.ends_with("nnotations") => json!({"a/b": "c"}),
            _ if path.ends_with(".nodeSelector") => json!({"a/b": "c"}),
            _ if path.ends_with(".tolerations") => json!([{"key": "a", "operator": "Exists"}]),
            _ if path.ends_with(".priorityClassName") => json!("other"),
            _ if path.ends_with(".resources") => json!({"limits": {"memory": "77Mi"}}),
            _ => return None,
        },
    })
}

#[test]
fn every_value_of_the_chart_changes_what_is_made() -> Result<()> {
    let usual = made(&[])?;
    let mut idle = Vec::new();
    for (path, value) in chart_values()? {
        let other = another(&path, &value);
        let other = other.with_context(|| format!("which other value may {path} have?"))?;
        if made(&[&format!("{path}={other}")])? == usual {
            idle.push(path);
        }
    }
    same(&idle, &Vec::new())
}

#[test]
fn everything_has_the_labels_and_annotations_that_are_for_everything() -> Result<()> {
    let all = objects(&made(&[
        r#"commonLabels={"team": "net"}"#,
        r#"commonAnnotations={"example.com/note": "all"}"#,
        r#"podLabels={"tier": "edge"}"#,
        r#"podAnnotations={"example.com/pods": "ours"}"#,
        r#"metrics.podMonitor.labels={"team": "own"}"#,
    ])?)?;
    let mut pods_seen = 0;
    for object in &all {
        let metadata = &object["metadata"];
        let name = format!("{} {}", text(&object["kind"]), text(&metadata["name"]));
        // What is said of one goes before what is said of all.
        let team = if object["kind"] == "PodMonitor" {
            "own"
        } else {
            "net"
        };
        let of_pods = pods(object);
        for metadata in [Some(metadata), of_pods].into_iter().flatten() {
            same(&text(&metadata["labels"]["team"]), &team).context(name.clone())?;
            same(&text(&metadata["annotations"]["example.com/note"]), &"all")
                .context(name.clone())?;
            let ours = &metadata["labels"]["app.kubernetes.io/name"];
            same(&text(ours), &"herald").context(name.clone())?;
        }
        if let Some(metadata) = of_pods {
            pods_seen += 1;
            same(&text(&metadata["labels"]["tier"]), &"edge").context(name.clone())?;
            same(&text(&metadata["annotations"]["example.com/pods"]), &"ours").context(name)?;
        }
        // A selector can't be changed by an upgrade.
        let selector = object["spec"]["selector"].to_string();
        ensure!(!selector.contains("team"), "{selector}");
    }
    // Controller, speaker, the Job of helm uninstall, the Pod of helm test.
    same(&pods_seen, &4)?;
    ensure!(all.len() > 20, "the chart makes {} objects", all.len());
    Ok(())
}

#[test]
fn both_programs_go_before_others_and_one_controller_at_a_time_may_be_evicted() -> Result<()> {
    let all = objects(&made(&[])?)?;
    let of = |kind: &str| all.iter().find(|object| object["kind"] == kind);
    for (kind, class) in [
        ("Deployment", "system-cluster-critical"),
        ("DaemonSet", "system-node-critical"),
    ] {
        let object = of(kind).context(kind)?;
        let said = &object["spec"]["template"]["spec"]["priorityClassName"];
        same(&text(said), &class).context(kind)?;
    }
    let budget = of("PodDisruptionBudget").context("no budget")?;
    same(&budget["spec"]["maxUnavailable"], &json!(1))?;
    let chosen = &budget["spec"]["selector"];
    let controller = &of("Deployment").context("no Deployment")?["spec"]["selector"];
    same(chosen, controller)?;
    let one = objects(&made(&["controller.replicas=1"])?)?;
    let is_budget = |object: &Value| object["kind"] == "PodDisruptionBudget";
    ensure!(
        !one.iter().any(is_budget),
        "one replica could not be evicted"
    );
    Ok(())
}
