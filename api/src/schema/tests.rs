//! The rules, tried on the objects in `fixtures/` without a cluster; `fixtures/README.md` says how
//! they are written. Bounds, enumerations and unknown fields are the API server's own business:
//! the objects in `refused-by-schema/` are tried only there.

use std::fs;
use std::path::{Path, PathBuf};

use kube::core::cel::Validator;
use serde_json::Value;

use crate::{IPPool, L2Advertisement, Speaker, VirtualIP, crds};

/// A file in `fixtures/`.
struct Fixture {
    path: PathBuf,
    /// The value that the refusal has to name; empty if the objects are to be accepted.
    field: String,
    /// What the refusal has to say.
    message: String,
    /// Objects, each an update of the one before.
    objects: Vec<Value>,
}

impl Fixture {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap();
        let header = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key));
            line.unwrap_or_default().trim().to_owned()
        };
        Self {
            field: header("# field:"),
            message: header("# message:"),
            objects: text
                .split("---\n")
                .map(|document| serde_saphyr::from_str(document).unwrap())
                .collect(),
            path,
        }
    }

    /// What the rules say of each object, as an update of the one before.
    fn verdicts(&self) -> Vec<Result<(), String>> {
        let mut old = None;
        self.objects
            .iter()
            .map(|object| {
                let verdict = Validator::new()
                    .validate(&schema_of(object), object, old)
                    .map_err(|errors| errors.to_string());
                old = Some(object);
                verdict
            })
            .collect()
    }
}

fn fixtures(folder: &str) -> Vec<Fixture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(folder);
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    assert!(!paths.is_empty());
    paths.into_iter().map(Fixture::read).collect()
}

fn schema_of(object: &Value) -> Value {
    let crd = crds()
        .into_iter()
        .find(|crd| object["kind"] == crd.spec.names.kind.as_str())
        .unwrap();
    serde_json::to_value(&crd.spec.versions[0].schema).unwrap()["openAPIV3Schema"].take()
}

#[test]
fn accepted_objects_break_no_rule() {
    for fixture in fixtures("accepted") {
        for verdict in fixture.verdicts() {
            assert_eq!(verdict, Ok(()), "{}", fixture.path.display());
        }
    }
}

#[test]
fn accepted_objects_are_read_as_they_are_written() {
    for fixture in fixtures("accepted") {
        for object in fixture.objects {
            let read = match object["kind"].as_str().unwrap() {
                "IPPool" => serde_json::from_value::<IPPool>(object).map(|_| ()),
                "L2Advertisement" => serde_json::from_value::<L2Advertisement>(object).map(|_| ()),
                "Speaker" => serde_json::from_value::<Speaker>(object).map(|_| ()),
                "VirtualIP" => serde_json::from_value::<VirtualIP>(object).map(|_| ()),
                kind => panic!("{kind} is not ours"),
            };
            assert!(read.is_ok(), "{}: {read:?}", fixture.path.display());
        }
    }
}

#[test]
fn refused_objects_are_refused_by_the_rule_they_break() {
    for fixture in fixtures("refused") {
        let path = fixture.path.display();
        let mut verdicts = fixture.verdicts();
        let last = verdicts.pop().unwrap();
        for verdict in verdicts {
            assert_eq!(verdict, Ok(()), "{path}");
        }
        let refusal = last.expect_err(&path.to_string());
        assert!(
            !fixture.field.is_empty() && refusal.contains(&fixture.field),
            "{path} names another field: {refusal}"
        );
        assert!(
            !fixture.message.is_empty() && refusal.contains(&fixture.message),
            "{path} says something else: {refusal}"
        );
    }
}

#[test]
fn every_rule_has_an_object_that_breaks_it() {
    let refused: Vec<_> = fixtures("refused")
        .into_iter()
        .map(|fixture| fixture.message)
        .collect();
    for crd in crds() {
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        let mut messages = Vec::new();
        collect_messages(&schema, &mut messages);
        for message in messages {
            assert!(
                refused.iter().any(|fragment| message.contains(fragment)),
                "{}: no object in fixtures/refused for {message:?}",
                crd.spec.names.kind
            );
        }
    }
}

/// The messages of the rules on a schema and on all below it.
fn collect_messages(schema: &Value, messages: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            let rules = fields.get("x-kubernetes-validations");
            for rule in rules.and_then(Value::as_array).into_iter().flatten() {
                messages.push(rule["message"].as_str().unwrap().to_owned());
            }
            for value in fields.values() {
                collect_messages(value, messages);
            }
        }
        Value::Array(values) => {
            for value in values {
                collect_messages(value, messages);
            }
        }
        _ => {}
    }
}
