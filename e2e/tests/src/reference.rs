//! Documents that are made from what they are about: the chart's values, and the fields of the objects.

use std::fmt::Write as _;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::documents::source;
use crate::object::{items, text};

/// The kinds, by the file of each's definition.
const KINDS: [&str; 4] = ["ippools", "l2advertisements", "virtualips", "speakers"];

/// Each of these documents: its path from the root of the tree, and what it has to say.
///
/// # Errors
///
/// If what it is made from can't be read, or does not say what a value is.
pub fn made() -> Result<[(&'static str, String); 2]> {
    Ok([("docs/values.md", values()?), ("docs/fields.md", fields()?)])
}

/// A value's path.
type Path = Vec<String>;

/// A value of the chart, or a group of them.
struct Entry {
    path: Path,
    comment: String,
    /// `None`: its parts have entries of their own.
    default: Option<Value>,
}

/// The values of the chart that are set as a whole, and their defaults.
///
/// # Errors
///
/// As of [`made`].
pub fn chart_values() -> Result<Vec<(String, Value)>> {
    let entries = entries()?.into_iter();
    let values = entries.filter_map(|entry| Some((entry.path.join("."), entry.default?)));
    Ok(values.collect())
}

fn entries() -> Result<Vec<Entry>> {
    const FILE: &str = "helm/values.yaml";
    let source = source(FILE)?;
    let tree: Value = serde_saphyr::from_str(&source).with_context(|| format!("reading {FILE}"))?;
    let comments = comments(&source);
    let unsaid = unsaid(&tree, &comments, &mut Vec::new());
    ensure!(unsaid.is_empty(), "{FILE} does not say what {unsaid:?} are");
    let default = |path: &Path| {
        let is_whole = !comments.iter().any(|(other, _)| is_below(other, path));
        let value = path.iter().fold(&tree, |value, key| &value[key.as_str()]);
        is_whole.then(|| value.clone())
    };
    let entry = |(path, comment): &(Path, String)| Entry {
        path: path.clone(),
        comment: comment.clone(),
        default: default(path),
    };
    Ok(comments.iter().map(entry).collect())
}

fn values() -> Result<String> {
    let mut out = "\
# Values of the chart

Each with its default. `make docs` makes this page from `helm/values.yaml`, which `helm show values ./helm` prints; a value that does not exist or has the wrong form is refused.
[Operations](operations.md#values-of-the-chart) names those that are set most often.

| value | default | |
|---|---|---|
"
    .to_owned();
    for entry in entries()? {
        let path = entry.path.join(".");
        let default = entry.default.map(|value| format!("`{value}`"));
        let default = default.unwrap_or_default();
        let comment = linked(&escaped(&entry.comment));
        // Writing to a String cannot fail.
        writeln!(out, "| `{path}` | {default} | {comment} |").ok();
    }
    Ok(out)
}

/// The values that have a comment right before them, in the order of the file.
fn comments(source: &str) -> Vec<(Path, String)> {
    let mut found = Vec::new();
    let mut path: Vec<(usize, &str)> = Vec::new();
    let mut comment: Vec<&str> = Vec::new();
    for line in source.lines() {
        let said = line.trim_start();
        let depth = line.len() - said.len();
        if let Some(words) = said.strip_prefix('#') {
            comment.push(words.trim());
            continue;
        }
        let is_item = said.starts_with("- ");
        if let Some((key, _)) = said.split_once(':').filter(|_| !is_item) {
            path.retain(|(other, _)| *other < depth);
            path.push((depth, key));
            if !comment.is_empty() {
                let path = path.iter().map(|(_, key)| (*key).to_owned());
                found.push((path.collect(), comment.join(" ")));
            }
        }
        comment.clear();
    }
    found
}

fn is_below(path: &[String], above: &[String]) -> bool {
    path.len() > above.len() && path.starts_with(above)
}

/// The values of which no comment says what they are: neither one of their own, nor that of a whole that
/// they are parts of.
fn unsaid(value: &Value, comments: &[(Path, String)], path: &mut Path) -> Vec<String> {
    let parts = comments.iter().any(|(other, _)| is_below(other, path));
    if let (true, Value::Object(map)) = (parts, value) {
        let mut all = Vec::new();
        for (key, value) in map {
            path.push(key.clone());
            all.extend(unsaid(value, comments, path));
            path.pop();
        }
        return all;
    }
    let is_said = comments.iter().any(|(other, _)| other == path);
    if is_said {
        Vec::new()
    } else {
        vec![path.join(".")]
    }
}

fn fields() -> Result<String> {
    let mut out = "\
# Fields of the objects

Of group `heraldlb.io`, version `v1alpha1`, all of the whole cluster. `make docs` makes this page from the definitions in `helm/crds`, as `kubectl explain ippool.spec` tells it.
People write the `spec` of an [IPPool](pools.md) and of an [L2Advertisement](l2-advertisements.md), and `spec.retire` of a `Speaker`; all else Herald writes.
"
    .to_owned();
    for file in KINDS {
        let definition = source(&format!("helm/crds/{file}.yaml"))?;
        let definition: Value = serde_saphyr::from_str(&definition)?;
        let spec = &definition["spec"];
        let schema = &spec["versions"][0]["schema"]["openAPIV3Schema"];
        // Writing to a String cannot fail.
        writeln!(
            out,
            "\n## {}\n\n{}\n\n| field | form | |\n|---|---|---|",
            text(&spec["names"]["kind"]),
            words(schema)
        )
        .ok();
        rows("", schema, &mut out);
    }
    Ok(out)
}

/// A row for each field of an object, and for those of the objects in it. What is the same everywhere in
/// Kubernetes is not taken apart.
fn rows(above: &str, schema: &Value, out: &mut String) {
    let required: Vec<&str> = items(&schema["required"]).iter().map(text).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let is_list = field["type"] == "array";
        let of = if is_list { &field["items"] } else { field };
        let is_known = name == "conditions" || of["properties"].get("matchLabels").is_some();
        let path = format!("{above}{name}{}", if is_list { "[]" } else { "" });
        let form = form(field, required.contains(&name.as_str()));
        // Writing to a String cannot fail.
        writeln!(out, "| `{path}` | {form} | {} |", escaped(&words(field))).ok();
        if !is_known {
            rows(&format!("{path}."), of, out);
        }
    }
}

fn words(schema: &Value) -> String {
    let words = text(&schema["description"]).split_whitespace();
    words.collect::<Vec<_>>().join(" ")
}

/// What can be written there.
fn form(field: &Value, is_required: bool) -> String {
    let of = if field["type"] == "array" {
        &field["items"]
    } else {
        field
    };
    let mut parts: Vec<String> = items(&of["enum"]).iter().map(code).collect();
    if parts.is_empty() {
        let name = match (text(&of["type"]), text(&of["format"])) {
            (_, "date-time") => "time",
            ("object", _) if of["properties"].get("matchLabels").is_some() => "label selector",
            (name, _) => name,
        };
        parts.push(name.to_owned());
    }
    let mut form = parts.join(", ");
    for (bound, word) in [("minimum", "at least"), ("maximum", "at most")] {
        if let Some(number) = of[bound].as_f64() {
            form.extend([", ", word, " ", &number.to_string()]);
        }
    }
    if let Some(most) = field["maxItems"].as_u64() {
        form.extend(["; at most ", &most.to_string()]);
    }
    if !field["default"].is_null() {
        form.extend(["; default ", &code(&field["default"])]);
    } else if is_required {
        form += "; required";
    }
    form
}

fn code(value: &Value) -> String {
    match value {
        Value::String(word) => format!("`{word}`"),
        other => format!("`{other}`"),
    }
}

/// As text in a table. What is between backticks is left alone, but for what ends a cell.
fn escaped(words: &str) -> String {
    let parts = words.split('`').enumerate().map(|(index, part)| {
        let part = part.replace('|', "\\|");
        if index % 2 == 1 {
            part
        } else {
            part.replace('*', "\\*").replace('<', "&lt;")
        }
    });
    parts.collect::<Vec<_>>().join("`")
}

/// With links to the documents that it names.
fn linked(words: &str) -> String {
    let words = words.split(' ').map(|word| {
        let name = word
            .strip_prefix("docs/")
            .and_then(|it| it.split_once(".md"));
        name.map_or_else(
            || word.to_owned(),
            |(name, end)| format!("[{name}]({name}.md){end}"),
        )
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: &str = "\
# Of a ring
# with two lines.
ring:
  # Its port.
  port: 7
  secret: a

# A list.
taints:
  - key: a
    operator: b
# Parts are not taken apart.
labels:
  a.b/c: \"1\"
";

    #[test]
    fn a_comment_is_of_the_value_right_after_it() {
        let path = |keys: &[&str]| -> Path { keys.iter().map(|&key| key.to_owned()).collect() };
        let expected = [
            (path(&["ring"]), "Of a ring with two lines.".to_owned()),
            (path(&["ring", "port"]), "Its port.".to_owned()),
            (path(&["taints"]), "A list.".to_owned()),
            (path(&["labels"]), "Parts are not taken apart.".to_owned()),
        ];
        assert_eq!(comments(VALUES), expected);
    }

    #[test]
    fn a_value_that_no_comment_is_about_is_found() {
        let tree = serde_saphyr::from_str(VALUES).unwrap();
        let found = unsaid(&tree, &comments(VALUES), &mut Vec::new());
        assert_eq!(found, ["ring.secret"]);
    }

    #[test]
    fn what_markdown_would_take_for_its_own_is_escaped_but_for_code() {
        assert_eq!(escaped("a* | <b> `c* <d>|`"), "a\\* \\| &lt;b> `c* <d>\\|`");
        let linked = linked("docs/moves.md says when, see docs/pools.md.");
        assert_eq!(
            linked,
            "[moves](moves.md) says when, see [pools](pools.md)."
        );
    }
}
