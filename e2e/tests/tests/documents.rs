//! What README.md and docs/ name exists, and what exists is named in them. What they tell to run is
//! run by `cluster/documents.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use herald_e2e::documents::{Document, Piece, commands, documents, root, source};
use herald_e2e::object::{items, text};
use herald_e2e::reference::made;
use serde_json::Value;

fn none(wrong: &[String]) -> Result<()> {
    ensure!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    Ok(())
}

fn yaml(path: &str) -> Result<Value> {
    serde_saphyr::from_str(&source(path)?).with_context(|| format!("reading {path}"))
}

/// All that all documents set as code: each command of a block by itself, and the words in the text.
fn code() -> Result<Vec<Piece>> {
    let mut all = Vec::new();
    for document in documents()? {
        all.extend(document.blocks().iter().flat_map(commands));
        all.extend(document.spans());
    }
    Ok(all)
}

/// The words that documents set as code, outside of blocks.
fn words() -> Result<Vec<Piece>> {
    Ok(documents()?.iter().flat_map(Document::spans).collect())
}

/// Values of constants `NAME: &str = "…"` of a source file, those of tests left out.
fn constants(path: &str) -> Result<BTreeSet<String>> {
    let source = source(path)?;
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let values: BTreeSet<String> = source
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub const "))
        .filter_map(|line| line.split_once(": &str = \""))
        .filter_map(|(_, value)| value.strip_suffix("\";"))
        .map(str::to_owned)
        .collect();
    ensure!(values.len() > 5, "{path} is not written as it was");
    Ok(values)
}

/// What is not in `words` of `expected`, each as a message.
fn missing<'a>(
    what: &str,
    expected: impl IntoIterator<Item = &'a String>,
    words: &[Piece],
) -> Vec<String> {
    let said: BTreeSet<&str> = words.iter().map(|word| word.text.as_str()).collect();
    expected
        .into_iter()
        .filter(|word| !said.contains(word.as_str()))
        .map(|word| format!("{what} {word} is in no document"))
        .collect()
}

#[test]
fn every_make_target_in_the_docs_exists() -> Result<()> {
    let makefile = source("Makefile")?;
    let mut wrong = Vec::new();
    for piece in code()? {
        for line in piece.text.lines() {
            let Some(rest) = line.strip_prefix("make ") else {
                continue;
            };
            let target = rest.split_whitespace().next().unwrap_or_default();
            if !makefile.contains(&format!("\n{target}:")) {
                wrong.push(format!("{}: there is no target {target}", piece.place()));
            }
        }
    }
    none(&wrong)
}

#[test]
fn every_cargo_command_in_the_docs_names_what_is_there() -> Result<()> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(root())
        .output()?;
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages: BTreeMap<&str, BTreeSet<&str>> = items(&metadata["packages"])
        .iter()
        .map(|package| {
            let targets = items(&package["targets"]).iter();
            let names = targets.map(|target| text(&target["name"])).collect();
            (text(&package["name"]), names)
        })
        .collect();
    let mut wrong = Vec::new();
    for piece in code()? {
        if !piece.text.starts_with("cargo ") {
            continue;
        }
        let mut words = piece.text.split_whitespace();
        let mut targets = None;
        while let Some(word) = words.next() {
            match word {
                "-p" | "--package" => {
                    let name = words.next().unwrap_or_default();
                    targets = packages.get(name);
                    if targets.is_none() {
                        wrong.push(format!("{}: there is no package {name}", piece.place()));
                    }
                }
                "--bin" | "--test" | "--example" => {
                    let name = words.next().unwrap_or_default();
                    if !targets.is_some_and(|targets| targets.contains(name)) {
                        wrong.push(format!("{}: there is no {word} {name}", piece.place()));
                    }
                }
                "--path" => {
                    let path = words.next().unwrap_or_default();
                    if !root().join(path).join("Cargo.toml").exists() {
                        wrong.push(format!("{}: there is no crate {path}", piece.place()));
                    }
                }
                "--" => break,
                _ => {}
            }
        }
    }
    none(&wrong)
}

/// The anchor that GitHub gives a heading.
fn anchor(heading: &str) -> String {
    heading
        .trim_start_matches('#')
        .trim()
        .to_lowercase()
        .chars()
        .filter_map(|it| match it {
            ' ' => Some('-'),
            it if it.is_alphanumeric() || it == '-' || it == '_' => Some(it),
            _ => None,
        })
        .collect()
}

#[test]
fn every_link_in_the_docs_leads_somewhere() -> Result<()> {
    let mut wrong = Vec::new();
    for document in documents()? {
        let folder = Path::new(&document.name)
            .parent()
            .unwrap_or_else(|| Path::new(""));
        for (number, line) in (1..).zip(document.text.lines()) {
            for link in line.split("](").skip(1) {
                let link = link.split(')').next().unwrap_or_default();
                if link.starts_with("http") {
                    continue;
                }
                let (path, part) = link.split_once('#').unwrap_or((link, ""));
                let path = if path.is_empty() {
                    root().join(&document.name)
                } else {
                    root().join(folder).join(path)
                };
                let there = if part.is_empty() {
                    path.exists()
                } else {
                    let text = fs::read_to_string(&path).unwrap_or_default();
                    text.lines()
                        .any(|it| it.starts_with('#') && anchor(it) == part)
                };
                if !there {
                    wrong.push(format!("{}:{number}: {link} leads nowhere", document.name));
                }
            }
        }
    }
    none(&wrong)
}

#[test]
fn every_document_can_be_reached_from_the_readme() -> Result<()> {
    let readme = source("README.md")?;
    let lost: Vec<String> = documents()?
        .iter()
        .filter(|it| it.name != "README.md" && !readme.contains(&format!("({}", it.name)))
        .map(|it| format!("README.md does not lead to {}", it.name))
        .collect();
    none(&lost)
}

/// Every path of the chart's values, branches and leaves.
fn values(prefix: &str, value: &Value, all: &mut BTreeSet<String>) {
    let Value::Object(map) = value else { return };
    for (key, value) in map {
        let path = format!("{prefix}{key}");
        values(&format!("{path}."), value, all);
        all.insert(path);
    }
}

#[test]
fn every_chart_value_in_the_docs_exists() -> Result<()> {
    let mut all = BTreeSet::new();
    let chart = yaml("helm/values.yaml")?;
    values("", &chart, &mut all);
    let mut wrong = Vec::new();
    // A first word of a value's path, then a dot, is a value and nothing else.
    let tops: Vec<String> = ["image.", "ring.", "metrics.", "controller.", "speaker."]
        .map(str::to_owned)
        .into();
    for piece in words()? {
        let word = piece.text.split([':', '=', ' ']).next().unwrap_or_default();
        let is_path = tops.iter().any(|top| {
            word.strip_prefix(top.as_str())
                .is_some_and(|it| !it.is_empty())
        });
        if is_path && !all.contains(word) {
            wrong.push(format!("{}: there is no value {word}", piece.place()));
        }
    }
    for piece in code()? {
        for set in piece.text.split("--set ").skip(1) {
            let key = set.split('=').next().unwrap_or_default();
            let key = key.trim_start_matches('\'');
            if !all.contains(key) {
                wrong.push(format!("{}: there is no value {key}", piece.place()));
            }
        }
    }
    none(&wrong)
}

#[test]
fn the_documents_that_are_made_are_as_they_would_be_made_now() -> Result<()> {
    for (path, text) in made()? {
        let changed = source(path).ok().as_deref() != Some(text.as_str());
        ensure!(!changed, "{path} is not what `make docs` makes of it now");
    }
    Ok(())
}

/// The names under which a source file registers metrics, with their units.
fn registered(path: &str) -> Result<BTreeSet<String>> {
    let source = source(path)?;
    let source = source.split("#[cfg(test)]").next().unwrap_or_default();
    let mut names = BTreeSet::new();
    for (call, unit) in [("register(", false), ("register_with_unit(", true)] {
        for rest in source.split(&format!(".{call}")).skip(1) {
            let arguments = rest.split(");").next().unwrap_or_default();
            let Some(name) = arguments.split('"').nth(1) else {
                continue;
            };
            let unit = match arguments {
                it if unit && it.contains("Unit::Seconds") => "_seconds",
                it if unit && it.contains("Unit::Bytes") => "_bytes",
                _ => "",
            };
            names.insert(format!("{name}{unit}"));
        }
    }
    // A collector's: `("name", "help", …)`.
    if let Some((_, collector)) = source.split_once("impl Collector for") {
        for rest in collector.split('(').skip(1) {
            let Some(name) = rest.trim_start().strip_prefix('"') else {
                continue;
            };
            let Some((name, after)) = name.split_once('"') else {
                continue;
            };
            if after.trim_start_matches([',', ' ', '\n']).starts_with('"') {
                names.insert(name.to_owned());
            }
        }
    }
    ensure!(
        names.len() > 5,
        "{path} is not written as it was: {names:?}"
    );
    Ok(names)
}

/// The words in the first column of the table whose head begins so.
fn column(document: &Document, head: &str) -> Result<BTreeSet<String>> {
    let (_, table) = document
        .text
        .split_once(head)
        .with_context(|| format!("{} has no table {head:?}", document.name))?;
    let rows = table
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    let words = rows.filter_map(|row| row.split('|').nth(1));
    Ok(words
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect())
}

fn document(name: &str) -> Result<Document> {
    let all = documents()?;
    all.into_iter()
        .find(|it| it.name == name)
        .with_context(|| format!("there is no {name}"))
}

fn differ(what: &str, there: &BTreeSet<String>, said: &BTreeSet<String>) -> Vec<String> {
    let undocumented = there.difference(said);
    let undocumented = undocumented.map(|it| format!("{what} {it} is not documented"));
    let gone = said.difference(there);
    let gone = gone.map(|it| format!("there is no {what} {it}"));
    undocumented.chain(gone).collect()
}

#[test]
fn the_tables_of_metrics_are_those_of_the_programs() -> Result<()> {
    let operations = document("docs/operations.md")?;
    let mut wrong = Vec::new();
    let mut full = BTreeSet::new();
    for (program, head) in [
        ("controller", "| controller, `herald_controller_` |"),
        ("speaker", "| speaker, `herald_speaker_` |"),
    ] {
        let there = registered(&format!("{program}/src/metrics.rs"))?;
        wrong.extend(differ(program, &there, &column(&operations, head)?));
        full.extend(there.iter().map(|name| format!("herald_{program}_{name}")));
    }
    for piece in code()? {
        for word in piece
            .text
            .split(|it: char| !it.is_alphanumeric() && it != '_')
        {
            // The name of a crate, in a filter of logs, is none.
            let ours = (word.starts_with("herald_speaker_")
                || word.starts_with("herald_controller_"))
                && !word.ends_with("_core");
            let base = ["_total", "_bucket", "_count", "_sum"]
                .iter()
                .fold(word, |word, end| word.strip_suffix(end).unwrap_or(word));
            if ours && !word.ends_with('_') && !full.contains(base) {
                wrong.push(format!("{}: there is no metric {word}", piece.place()));
            }
        }
    }
    none(&wrong)
}

#[test]
fn the_table_of_alerts_is_that_of_the_rules() -> Result<()> {
    let rules = yaml("helm/files/alerts.yaml")?;
    let there = items(&rules["groups"])
        .iter()
        .flat_map(|group| items(&group["rules"]))
        .map(|rule| text(&rule["alert"]).to_owned())
        .collect();
    let said = column(&document("docs/operations.md")?, "| alert | severity |")?;
    none(&differ("alert", &there, &said))
}

#[test]
fn every_event_of_a_packet_is_documented() -> Result<()> {
    let source = source("speaker/dataplane/src/counters.rs")?;
    let names: BTreeSet<String> = source
        .lines()
        .filter_map(|line| line.trim().strip_suffix("\","))
        .filter_map(|line| line.split_once(" = \""))
        .map(|(_, name)| name.to_owned())
        .collect();
    ensure!(names.len() > 15, "counters.rs is not written as it was");
    let words = document("docs/forwarding.md")?.spans();
    none(&missing("packet event", &names, &words))
}

#[test]
fn every_annotation_is_documented_and_every_one_in_the_docs_exists() -> Result<()> {
    // Those that the pure crates act on are with the vocabulary.
    let mut sources = String::new();
    for folder in ["api/src", "config/model/src"] {
        add(&root().join(folder), &mut sources)?;
    }
    let named = sources.lines().filter(|line| line.contains("pub const "));
    let mut known: BTreeSet<String> = named
        .filter_map(|line| line.split_once(": &str = \"heraldlb.io/"))
        .filter_map(|(_, name)| name.strip_suffix("\";"))
        .map(|name| format!("heraldlb.io/{name}"))
        .collect();
    known.extend(constants("api/src/annotations.rs")?);
    let mut wrong = missing(
        "annotation",
        known.iter().filter(|it| !it.ends_with('.')),
        &words()?,
    );
    let mut all = known.clone();
    all.extend(constants("api/src/conditions.rs")?);
    all.insert("heraldlb.io/v1alpha1".to_owned());
    all.insert("heraldlb.io/herald".to_owned());
    for document in documents()? {
        let after = document.text.split("heraldlb.io/").skip(1);
        for rest in after {
            let end = rest.find(|it: char| !it.is_alphanumeric() && it != '-' && it != '.');
            let name = rest[..end.unwrap_or(rest.len())].trim_end_matches('.');
            let name = format!("heraldlb.io/{name}");
            let prefixed = all
                .iter()
                .any(|it| it.ends_with('.') && name.starts_with(it));
            if !all.contains(&name) && !prefixed {
                wrong.push(format!("{}: there is no {name}", document.name));
            }
        }
    }
    none(&wrong)
}

#[test]
fn the_tables_of_conditions_and_events_are_those_of_the_code() -> Result<()> {
    let annotations = document("docs/annotations.md")?;
    let status = ["True", "False", "Unknown"].map(str::to_owned);
    let mut all = constants("api/src/conditions.rs")?;
    for word in status {
        all.remove(&word);
    }
    let types = column(&annotations, "| condition | on |")?;
    let reasons = column(&annotations, "| reason | of |")?;
    let source = source("api/src/conditions.rs")?;
    let (before, _) = source.split_once("pub mod reasons").context("reasons")?;
    let is_type = |it: &&String| before.contains(&format!("\"{it}\""));
    let is_reason = |it: &&String| source[before.len()..].contains(&format!("\"{it}\""));
    let own = |keep: &dyn Fn(&&String) -> bool| all.iter().filter(keep).cloned().collect();
    let mut wrong = differ("condition", &own(&is_type), &types);
    wrong.extend(differ("reason", &own(&is_reason), &reasons));
    // Those that decide don't see that file, and have words of their own.
    let mut given = String::new();
    for folder in ["controller/core/src", "speaker/core/src"] {
        add(&root().join(folder), &mut given)?;
    }
    let unused = all.iter().filter(is_reason);
    let unused = unused.filter(|reason| !given.contains(&format!("\"{reason}\"")));
    wrong.extend(unused.map(|reason| format!("reason {reason} is given by nobody")));
    let events = constants("api/src/events.rs")?;
    let said = column(&annotations, "| Event | on |")?;
    wrong.extend(differ("Event", &events, &said));
    none(&wrong)
}

/// All sources of a folder, without tests.
fn add(folder: &Path, text: &mut String) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|it| it.to_str());
        if name.is_some_and(|it| it.starts_with("test")) {
            continue;
        }
        if path.is_dir() {
            add(&path, text)?;
        } else {
            let source = fs::read_to_string(&path)?;
            *text += source.split("#[cfg(test)]").next().unwrap_or_default();
        }
    }
    Ok(())
}

/// Words in humps that docs set as code, and that are not Herald's.
const OTHERS: [&str; 12] = [
    // MetalLB's
    "IPAddressPool",
    // Kubernetes'
    "NetworkPolicy",
    "PreferDualStack",
    "RequireDualStack",
    "RuntimeDefault",
    "ServiceCIDR",
    "ToBeDeletedByClusterAutoscaler",
    "ValidatingAdmissionPolicy",
    // Types of ours, and an algorithm
    "Forecast",
    "Rehearsal",
    "SipHash",
    // The kernel's
    "VmRSS",
];

#[test]
fn every_word_in_humps_is_one_that_is_still_said() -> Result<()> {
    let mut known: BTreeSet<String> = OTHERS.map(str::to_owned).into();
    known.extend(constants("api/src/conditions.rs")?);
    known.extend(constants("api/src/events.rs")?);
    let mut said = source("helm/files/alerts.yaml")?;
    for crd in ["ippools", "l2advertisements", "speakers", "virtualips"] {
        said += &source(&format!("helm/crds/{crd}.yaml"))?;
    }
    let words_of = said.split(|it: char| !it.is_alphanumeric());
    known.extend(words_of.map(str::to_owned));
    // The command line's own.
    let mut cli = String::new();
    add(&root().join("cli/src"), &mut cli)?;
    let mut wrong = Vec::new();
    for piece in words()? {
        let word = piece.text.trim_end_matches('s');
        let humps = word.chars().filter(|it| it.is_uppercase()).count();
        let is_name = word.chars().all(char::is_alphanumeric)
            && word.starts_with(char::is_uppercase)
            && word.contains(char::is_lowercase)
            && humps > 1;
        let is_known = known.contains(word)
            || known.contains(&piece.text)
            || cli.contains(&format!("\"{}\"", piece.text));
        if is_name && !is_known {
            wrong.push(format!("{}: who says {}?", piece.place(), piece.text));
        }
    }
    none(&wrong)
}

#[test]
fn the_table_of_capabilities_is_that_of_the_chart() -> Result<()> {
    let chart = source("helm/templates/speaker/daemonset.yaml")?;
    let added = chart.split("add: [").nth(1).context("add: [")?;
    let added = added.split(']').next().unwrap_or_default();
    let there = added.split(", ").map(str::to_owned).collect();
    let said = column(&document("docs/security.md")?, "| capability |")?;
    none(&differ("capability", &there, &said))
}

/// Every path of fields below `schema`, without lists' brackets.
fn fields(prefix: &str, schema: &Value, all: &mut BTreeSet<String>) {
    if let Some(properties) = schema["properties"].as_object() {
        for (name, field) in properties {
            let path = format!("{prefix}{name}");
            fields(&format!("{path}."), field, all);
            all.insert(path);
        }
    }
    if !schema["items"].is_null() {
        fields(prefix, &schema["items"], all);
    }
}

#[test]
fn the_tables_of_fields_are_those_of_the_definitions() -> Result<()> {
    let mut wrong = Vec::new();
    let mut every = BTreeSet::new();
    for (file, table) in [
        ("ippools", Some(("docs/pools.md", "| field | default |"))),
        (
            "l2advertisements",
            Some(("docs/l2-advertisements.md", "| field | meaning")),
        ),
        ("speakers", None),
        ("virtualips", None),
    ] {
        let crd = yaml(&format!("helm/crds/{file}.yaml"))?;
        let kind = text(&crd["spec"]["names"]["kind"]).to_owned();
        let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let mut paths = BTreeSet::new();
        fields("", schema, &mut paths);
        if let Some((file, head)) = table {
            let spec = schema["properties"]["spec"]["properties"].as_object();
            let there = spec.into_iter().flatten().map(|(name, _)| name.clone());
            let said = column(&document(file)?, head)?;
            wrong.extend(differ(&format!("field of {kind}"), &there.collect(), &said));
        }
        every.extend(paths.iter().map(|path| format!("{kind}.{path}")));
        every.insert(kind);
    }
    // `Kind.spec.…` is one of ours, in whatever document.
    let kinds = ["IPPool.", "L2Advertisement.", "VirtualIP.", "Speaker."];
    for piece in words()? {
        let word = piece.text.replace("[]", "");
        if kinds.iter().any(|kind| word.starts_with(kind)) && !every.contains(&word) {
            wrong.push(format!("{}: there is no field {word}", piece.place()));
        }
    }
    none(&wrong)
}
