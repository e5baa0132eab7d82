//! The objects of `api/fixtures` at a genuine API server, without a controller that acts on them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use herald_e2e::api::{Answer, herald};
use herald_e2e::cluster::Cluster;
use herald_e2e::object::text;
use herald_e2e::wait::{LONG, eventually};
use herald_lab::HERALD_NAMESPACE;

use crate::alone;

fn fixtures(folder: &str) -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../api/fixtures")
        .join(folder);
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        files.push(entry?.path());
    }
    files.sort();
    ensure!(!files.is_empty(), "{} is empty", folder.display());
    Ok(files)
}

/// The value of a line `KEY: VALUE` at the least indentation it is found at.
fn line<'a>(yaml: &'a str, key: &str) -> Option<&'a str> {
    let start = format!("{key}:");
    yaml.lines()
        .filter(|line| line.trim_start().starts_with(&start))
        .min_by_key(|line| line.len() - line.trim_start().len())
        .map(|line| line.trim_start()[start.len()..].trim().trim_matches('"'))
}

/// Applies one document as `kubectl apply --server-side` does; a status goes where it belongs.
fn apply(cluster: &Cluster, yaml: &str) -> Result<Answer> {
    let path = path(yaml)?;
    let status = yaml.lines().any(|line| line.starts_with("status:"));
    let path = if status { path + "/status" } else { path };
    let url = format!("{path}?fieldManager=herald-e2e&force=true&fieldValidation=Strict");
    let content = ("application/apply-patch+yaml", yaml.as_bytes());
    cluster.api.request("PATCH", &url, Some(content))
}

fn path(yaml: &str) -> Result<String> {
    let plural = match line(yaml, "kind").context("no kind")? {
        "IPPool" => "ippools",
        "L2Advertisement" => "l2advertisements",
        "VirtualIP" => "virtualips",
        "Speaker" => "speakers",
        other => anyhow::bail!("kind {other}"),
    };
    let metadata = yaml.split("metadata:").nth(1).context("no metadata")?;
    let name = line(metadata, "name").context("no name")?;
    Ok(herald(plural, name))
}

/// Applies all documents of a file: the answers to each.
fn try_file(cluster: &Cluster, file: &Path) -> Result<Vec<Answer>> {
    let content = fs::read_to_string(file)?;
    let documents: Vec<&str> = content
        .split("\n---")
        .filter(|document| document.contains("apiVersion"))
        .collect();
    let answers = documents
        .iter()
        .map(|document| apply(cluster, document))
        .collect();
    for document in documents {
        // What was refused is not there.
        if let Ok(path) = path(document) {
            cluster.api.delete(&path)?;
        }
    }
    answers
}

fn refusal(file: &Path, answers: &[Answer]) -> Result<()> {
    let content = fs::read_to_string(file)?;
    let comment = |key: &str| line(&content, &format!("# {key}")).context("it has no first lines");
    let (last, before) = answers.split_last().context("it is empty")?;
    for answer in before {
        ensure!(
            answer.status < 300,
            "an object before the last one is refused: {}",
            text(&answer.body["message"])
        );
    }
    let message = text(&last.body["message"]);
    ensure!(
        last.status >= 400,
        "it is accepted, with status {}",
        last.status
    );
    for part in [comment("field")?, comment("message")?] {
        ensure!(
            message.contains(part),
            "the refusal {message:?} lacks {part:?}"
        );
    }
    Ok(())
}

#[test]
fn every_fixture_is_accepted_or_refused_with_the_field_named() -> Result<()> {
    alone(|cluster| {
        let lab = &cluster.lab;
        let scale = |replicas: &str| {
            lab.kubectl([
                "scale",
                "deployment/herald-controller",
                "-n",
                HERALD_NAMESPACE,
                replicas,
            ])
        };
        scale("--replicas=0")?;
        let result = (|| {
            eventually("no controller runs", LONG, || {
                let pods = cluster.pods("controller")?;
                ensure!(pods.is_empty(), "{} run", pods.len());
                Ok(())
            })?;
            let mut wrong = Vec::new();
            for folder in ["accepted", "refused", "refused-by-schema"] {
                for file in fixtures(folder)? {
                    let answers = try_file(cluster, &file)?;
                    let verdict = if folder == "accepted" {
                        answers
                            .into_iter()
                            .try_for_each(|answer| answer.ok().map(drop))
                    } else {
                        refusal(&file, &answers)
                    };
                    if let Err(error) = verdict {
                        wrong.push(format!("{}: {error:#}", file.display()));
                    }
                }
            }
            ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
            Ok(())
        })();
        scale("--replicas=2")?;
        result
    })
}

#[test]
fn kubectl_names_the_field_that_does_not_exist() -> Result<()> {
    alone(|cluster| {
        let pool = "{apiVersion: heraldlb.io/v1alpha1, kind: IPPool, metadata: {name: wrong}, \
            spec: {addresses: [192.0.2.1-192.0.2.2], autoAsign: false}}";
        let output = cluster.lab.kubectl_with(["apply", "-f", "-"], pool)?;
        ensure!(
            !output.success() && output.stderr.contains("unknown field \"spec.autoAsign\""),
            "kubectl says {}{}",
            output.stdout,
            output.stderr
        );
        Ok(())
    })
}
