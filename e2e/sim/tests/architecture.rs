//! The rules that no compiler checks: who may import whom, what pure crates may touch, how long a
//! file may get. A failure names every offender and the rule, so that one run is enough.

#![cfg(test)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Where code of each kind may be imported. One line per crate: its name, its kind, and the crates
/// of this workspace that its code (not its tests) may use.
const TABLE: &[(&str, Kind, &[&str])] = &[
    ("herald-model", Kind::Pure, &[]),
    ("herald-wire", Kind::Pure, &["herald-model"]),
    ("herald-l2", Kind::Pure, &["herald-model", "herald-wire"]),
    ("herald-elect", Kind::Pure, &["herald-model"]),
    ("herald-ring", Kind::Pure, &["herald-model"]),
    ("herald-dataplane", Kind::Pure, &["herald-model"]),
    ("herald-controller-core", Kind::Pure, &["herald-model"]),
    (
        "herald-speaker-core",
        Kind::Pure,
        &[
            "herald-model",
            "herald-l2",
            "herald-elect",
            "herald-ring",
            "herald-dataplane",
        ],
    ),
    ("herald-api", Kind::Api, &[]),
    ("herald-config", Kind::Api, &["herald-model", "herald-api"]),
    (
        "herald-controller",
        Kind::Binary,
        &[
            "herald-model",
            "herald-api",
            "herald-config",
            "herald-controller-core",
        ],
    ),
    (
        "herald-speaker",
        Kind::Binary,
        &[
            "herald-model",
            "herald-api",
            "herald-config",
            "herald-speaker-core",
            // Its drivers run these machines; what they are told comes from speaker-core.
            "herald-l2",
            "herald-ring",
            "herald-wire",
            "herald-dataplane",
        ],
    ),
    (
        "herald-cli",
        Kind::Binary,
        &[
            "herald-model",
            "herald-api",
            "herald-config",
            "herald-controller-core",
            "herald-speaker-core",
            // How the controller reads objects: what is explained is what it decides with.
            "herald-controller",
        ],
    ),
    ("herald-lab", Kind::Test, &["herald-api"]),
    (
        "herald-e2e",
        Kind::Test,
        &["herald-model", "herald-api", "herald-lab"],
    ),
    (
        "herald-sim",
        Kind::Test,
        &[
            "herald-model",
            "herald-l2",
            "herald-ring",
            "herald-speaker-core",
            "herald-controller-core",
        ],
    ),
];

/// What a crate may depend on besides crates of this workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Decides, and knows no clock, socket, task or Kubernetes client.
    Pure,
    /// Knows Kubernetes objects as data, and no client that runs.
    Api,
    /// Touches the world.
    Binary,
    /// Runs only in tests and on a developer's machine.
    Test,
}

/// What any pure crate may use.
const PURE: &[&str] = &[
    "bytes",
    "ipnet",
    "prefix-trie",
    "rustc-hash",
    "siphasher",
    "thiserror",
    "tracing",
];
/// What one pure crate may use besides, and no other.
const PURE_BESIDES: &[(&str, &str)] =
    &[("herald-wire", "pnet_base"), ("herald-wire", "pnet_packet")];
/// What one crate of Kubernetes objects may use besides, and no other: the flags of all programs say
/// what is logged.
const API_BESIDES: &[(&str, &str)] = &[("herald-config", "tracing-subscriber")];
/// What a pure crate may use behind a feature: record and replay.
const PURE_OPTIONAL: &[&str] = &["serde"];
/// What the crates of Kubernetes objects may use: data and its checks, no runtime.
const API: &[&str] = &[
    "clap",
    "ipnet",
    "jiff",
    "k8s-openapi",
    "kube",
    "schemars",
    "serde",
    "serde_json",
    "serde-saphyr",
    "thiserror",
    "tracing",
];

/// What the sources of pure crates never name: everything that is not a function of its input.
const IMPURE_PATHS: &[&str] = &[
    "std::env::",
    "std::fs",
    "std::io::",
    "std::os::",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "SystemTime",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "RandomState",
];

/// Lines before its tests at which a file is to be split.
const LINES: usize = 600;
/// Files that are longer for a reason.
const LONG_FILES: &[(&str, &str)] = &[];

/// One dependency, as a manifest says it.
struct Dependency {
    name: String,
    optional: bool,
    of_tests: bool,
}

/// One crate of the workspace.
struct Package {
    name: String,
    folder: PathBuf,
    dependencies: Vec<Dependency>,
}

fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors()
        .nth(2)
        .expect("e2e/sim is two folders below the workspace")
        .to_owned()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key]
        .as_str()
        .expect("cargo metadata names its fields as documented")
}

fn packages() -> Vec<Package> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo runs, as it runs this test");
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let package = |package: &Value| Package {
        name: text(package, "name").to_owned(),
        folder: Path::new(text(package, "manifest_path"))
            .parent()
            .unwrap()
            .to_owned(),
        dependencies: package["dependencies"]
            .as_array()
            .unwrap()
            .iter()
            .map(|dependency| Dependency {
                name: text(dependency, "name").to_owned(),
                optional: dependency["optional"] == true,
                of_tests: dependency["kind"] == "dev",
            })
            .collect(),
    };
    metadata["packages"]
        .as_array()
        .unwrap()
        .iter()
        .map(package)
        .collect()
}

fn row(name: &str) -> Option<(Kind, &'static [&'static str])> {
    TABLE
        .iter()
        .find(|(crate_name, ..)| *crate_name == name)
        .map(|&(_, kind, imports)| (kind, imports))
}

/// The Rust sources below a folder, without what a build left.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A source without its tests: up to the first `#[cfg(test)]` that opens a module of this file.
fn without_tests(source: &str) -> &str {
    source
        .find("\n#[cfg(test)]\nmod tests {")
        .map_or(source, |tests| &source[..tests])
}

fn is_test_file(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "tests")
        || path
            .components()
            .any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "benches")))
}

/// Fails with all of them, one a line.
fn assert_none(offences: &BTreeSet<String>, rule: &str) {
    let list = offences.iter().fold(String::new(), |mut list, offence| {
        let _infallible = write!(list, "\n  {offence}");
        list
    });
    assert!(offences.is_empty(), "{rule}:{list}");
}

#[test]
fn every_crate_has_a_row_in_the_import_table() {
    let real: BTreeSet<String> = packages().into_iter().map(|package| package.name).collect();
    let table: BTreeSet<String> = TABLE.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(real, table);
    assert_eq!(table.len(), TABLE.len(), "a crate has two rows");
}

#[test]
fn crate_edges_match_the_import_table() {
    let packages = packages();
    let members: BTreeSet<&str> = packages
        .iter()
        .map(|package| package.name.as_str())
        .collect();
    let mut offences = BTreeSet::new();
    for package in &packages {
        let Some((_, imports)) = row(&package.name) else {
            continue; // The test above says so.
        };
        for dependency in &package.dependencies {
            if members.contains(dependency.name.as_str())
                && !dependency.of_tests
                && !imports.contains(&dependency.name.as_str())
            {
                offences.insert(format!("{} imports {}", package.name, dependency.name));
            }
        }
    }
    assert_none(&offences, "imports that the table does not allow");
}

#[test]
fn import_table_has_no_cycle_and_leads_from_the_model_upwards() {
    let mut placed: BTreeMap<&str, Kind> = BTreeMap::new();
    for (name, kind, imports) in TABLE {
        for import in *imports {
            let below = placed.get(import);
            assert!(below.is_some(), "{name} comes before {import} in the table");
            if *kind == Kind::Pure {
                assert_eq!(below, Some(&Kind::Pure), "{name} is pure, {import} is not");
            }
        }
        placed.insert(name, *kind);
    }
}

#[test]
fn pure_crates_depend_only_on_what_pure_crates_may_use() {
    let mut offences = BTreeSet::new();
    for package in packages() {
        let Some((kind, imports)) = row(&package.name) else {
            continue;
        };
        for dependency in package.dependencies.iter().filter(|it| !it.of_tests) {
            let name = dependency.name.as_str();
            let allowed = imports.contains(&name)
                || match kind {
                    Kind::Pure => {
                        PURE.contains(&name)
                            || PURE_BESIDES.contains(&(package.name.as_str(), name))
                            || (dependency.optional && PURE_OPTIONAL.contains(&name))
                    }
                    Kind::Api => {
                        API.contains(&name) || API_BESIDES.contains(&(package.name.as_str(), name))
                    }
                    Kind::Binary | Kind::Test => true,
                };
            if !allowed {
                offences.insert(format!("{} depends on {name}", package.name));
            }
        }
    }
    assert_none(
        &offences,
        "dependencies that such a crate may not have (see PURE and API)",
    );
}

#[test]
fn pure_crates_name_no_clock_socket_file_or_process() {
    let mut offences = BTreeSet::new();
    for package in packages() {
        if !matches!(row(&package.name), Some((Kind::Pure, _))) {
            continue;
        }
        for path in sources(&package.folder.join("src")) {
            if is_test_file(&path) {
                continue;
            }
            let source = fs::read_to_string(&path).unwrap();
            for (number, line) in without_tests(&source).lines().enumerate() {
                let code = line.split("//").next().unwrap_or_default();
                for impure in IMPURE_PATHS.iter().filter(|it| code.contains(**it)) {
                    offences.insert(format!("{}:{} {impure}", path.display(), number + 1));
                }
            }
        }
    }
    assert_none(&offences, "a pure crate decides from its input alone");
}

#[test]
fn pure_crates_ban_the_clock_in_their_own_clippy_toml() {
    let mut offences = BTreeSet::new();
    for package in packages() {
        if !matches!(row(&package.name), Some((Kind::Pure, _))) {
            continue;
        }
        let lints = fs::read_to_string(package.folder.join("clippy.toml")).unwrap_or_default();
        for banned in [
            "std::time::Instant::now",
            "std::time::SystemTime::now",
            "std::env::var",
        ] {
            if !lints.contains(banned) {
                offences.insert(format!("{} lacks {banned}", package.name));
            }
        }
    }
    assert_none(&offences, "clippy.toml of a pure crate bans");
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let mut offences = BTreeSet::new();
    for package in packages() {
        let manifest = fs::read_to_string(package.folder.join("Cargo.toml")).unwrap();
        if !manifest.contains("[lints]\nworkspace = true") {
            offences.insert(package.name);
        }
    }
    assert_none(&offences, "no `[lints] workspace = true`");
}

#[test]
fn no_file_is_too_long_to_be_read() {
    let mut offences = BTreeSet::new();
    let root = root();
    for path in sources(&root) {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        let lines = without_tests(&fs::read_to_string(&path).unwrap())
            .lines()
            .count();
        let reasoned = LONG_FILES.iter().any(|(file, _)| *file == name);
        if is_test_file(&path) || reasoned == (lines > LINES) {
            continue;
        }
        offences.insert(format!("{name}: {lines} lines, in LONG_FILES: {reasoned}"));
    }
    assert_none(
        &offences,
        "more than 600 lines before the tests, or in LONG_FILES without need",
    );
}

#[test]
fn the_chart_installs_the_version_that_the_workspace_builds() {
    let root = root();
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let chart = fs::read_to_string(root.join("helm/Chart.yaml")).unwrap();
    let field = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.map(|rest| rest.trim().trim_matches('"').to_owned())
    };
    let built = field(&manifest, "version =");
    assert!(built.is_some());
    assert_eq!(field(&chart, "appVersion:"), built);
    assert_eq!(field(&chart, "version:"), built);
}
