//! The objects of `api/fixtures` at a genuine API server, without a controller that acts on them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use herald_e2e::api::herald;
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

/// Applies one document: what the API server says to it, and whether it says yes. A status goes where
/// it belongs.
fn apply(cluster: &Cluster, yaml: &str) -> Result<(bool, String)> {
    if yaml.lines().any(|line| line.starts_with("status:")) {
        let url = format!(
            "{}/status?fieldManager=herald-e2e&force=true&fieldValidation=Strict",
            path(yaml)?
        );
        let content = ("application/apply-patch+yaml", yaml.as_bytes());
        let answer = cluster.api.request("PATCH", &url, Some(content))?;
        let message = text(&answer.body["message"]).to_owned();
        return Ok((answer.status < 300, message));
    }
    let output = cluster.lab.kubectl_with(["apply", "-f", "-"], yaml)?;
    Ok((output.success(), output.stderr))
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
fn try_file(cluster: &Cluster, file: &Path) -> Result<Vec<(bool, String)>> {
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

fn refusal(file: &Path, answers: &[(bool, String)]) -> Result<()> {
    let content = fs::read_to_string(file)?;
    let comment = |key: &str| line(&content, &format!("# {key}")).context("it has no first lines");
    let ((accepted, message), before) = answers.split_last().context("it is empty")?;
    acceptance(before)?;
    ensure!(!accepted, "it is accepted");
    for part in [comment("field")?, comment("message")?] {
        ensure!(
            message.contains(part),
            "the refusal {message:?} lacks {part:?}"
        );
    }
    Ok(())
}

fn acceptance(answers: &[(bool, String)]) -> Result<()> {
    for (accepted, message) in answers {
        ensure!(accepted, "refused: {message}");
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
                // One that ends still tidies up.
                let pods = cluster.lab.kubectl([
                    "get",
                    "pods",
                    "-n",
                    HERALD_NAMESPACE,
                    "-l",
                    "app.kubernetes.io/component=controller",
                    "-o",
                    "name",
                ])?;
                ensure!(pods.trim().is_empty(), "there are {pods}");
                Ok(())
            })?;
            let mut wrong = Vec::new();
            for folder in ["accepted", "refused", "refused-by-schema"] {
                for file in fixtures(folder)? {
                    let answers = try_file(cluster, &file)?;
                    let verdict = if folder == "accepted" {
                        acceptance(&answers)
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
