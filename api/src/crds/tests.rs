use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::*;

#[test]
fn crds_in_helm_are_what_the_types_generate() {
    const FIX: &str = "run `cargo run -p herald-api --bin crdgen -- helm/crds`";
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../helm/crds");
    let generated = crd_files().unwrap();
    for (name, text) in &generated {
        let present = fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(present == *text, "helm/crds/{name} is out of date: {FIX}");
    }
    let present: BTreeSet<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected: BTreeSet<String> = generated.into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        present, expected,
        "files in helm/crds; remove what is too many, or {FIX}"
    );
}

#[test]
fn every_kind_is_cluster_scoped_and_has_a_status() {
    for crd in crds() {
        let kind = &crd.spec.names.kind;
        assert_eq!(crd.spec.scope, "Cluster", "{kind}");
        assert_eq!(crd.spec.group, crate::GROUP, "{kind}");
        let [version] = crd.spec.versions.as_slice() else {
            panic!("{kind} has not one version");
        };
        assert_eq!(version.name, crate::VERSION, "{kind}");
        let subresources = version.subresources.as_ref().unwrap();
        assert!(subresources.status.is_some(), "{kind}");
    }
}

#[test]
fn conditions_are_merged_by_their_type() {
    for crd in crds() {
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        let conditions =
            &schema["openAPIV3Schema"]["properties"]["status"]["properties"]["conditions"];
        let kind = crd.spec.names.kind;
        assert_eq!(conditions["x-kubernetes-list-type"], "map", "{kind}");
        assert_eq!(
            conditions["x-kubernetes-list-map-keys"],
            serde_json::json!(["type"]),
            "{kind}"
        );
    }
}

/// Without them the API server takes a rule for too costly, and an object may grow without end.
#[test]
fn every_list_map_and_text_that_people_write_has_a_bound() {
    fn walk(schema: &Value, path: &str, unbounded: &mut Vec<String>) {
        let bound = match schema["type"].as_str() {
            Some("array") => Some("maxItems"),
            Some("string") if schema["enum"].is_null() && schema["format"].is_null() => {
                Some("maxLength")
            }
            Some("object") if !schema["additionalProperties"].is_null() => Some("maxProperties"),
            _ => None,
        };
        if bound.is_some_and(|bound| schema[bound].is_null()) {
            unbounded.push(path.to_owned());
        }
        for (name, property) in schema["properties"].as_object().into_iter().flatten() {
            walk(property, &format!("{path}.{name}"), unbounded);
        }
        for inner in ["items", "additionalProperties"] {
            if schema[inner].is_object() {
                walk(&schema[inner], &format!("{path}.{inner}"), unbounded);
            }
        }
    }
    for crd in crds() {
        let schema = serde_json::to_value(&crd.spec.versions[0].schema).unwrap();
        let mut unbounded = Vec::new();
        let spec = &schema["openAPIV3Schema"]["properties"]["spec"];
        walk(spec, "spec", &mut unbounded);
        assert_eq!(unbounded, [""; 0], "{}", crd.spec.names.kind);
    }
}
