//! Every command and every object in README.md and docs/ is tried on the cluster, or listed in
//! [`NOT_RUN`] with the reason. What would change the cluster is tried by the API server and not done
//! (`--dry-run=server`), with the names that [`renamed`] puts in for those of the examples.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context as _, Result, bail, ensure};
use herald_e2e::cli::NOT_WELL;
use herald_e2e::cluster::cluster;
use herald_e2e::documents::{Piece, commands, documents, root, source};
use herald_e2e::sandbox::{Sandbox, sandbox};
use herald_e2e::wait::{LONG, eventually};
use serde_json::json;

/// What is not run, by how it begins, and why not.
const NOT_RUN: [(&str, &str); 14] = [
    (
        "for program in controller speaker",
        "needs Docker and a registry; `make images` builds the programs that are in them",
    ),
    (
        "make ",
        "takes minutes to hours; `documents.rs` looks that the target exists",
    ),
    (
        "cargo ",
        "builds for minutes; `documents.rs` looks that package and target exist",
    ),
    (
        "kubectl wait speaker NODE",
        "waits for what is only tried; `disruptive/retire.rs` does it",
    ),
    (
        "kubectl debug node/NODE",
        "would take the data plane away under other tests; `disruptive/uninstall.rs` runs cleanup",
    ),
    (
        "helm rollback",
        "there may be nothing to go back to; `disruptive/moves.rs` does it",
    ),
    (
        "kubectl herald drill shop/web",
        "moves an address, and asks first; `disruptive/drill.rs` says yes",
    ),
    (
        "kubectl logs herald-test",
        "there is such a pod only after a test that failed",
    ),
    (
        "kubectl logs --follow job/herald-uninstall",
        "there is such a Job only while Helm uninstalls; `disruptive/uninstall.rs` looks at it",
    ),
    ("tcpdump -ni ", "goes on until it is stopped"),
    (
        "herald-lab ",
        "is done, one after the other, by `disruptive/first_steps.rs`",
    ),
    // What is no command.
    ("max(0, ", "a formula"),
    ("fast  ", "figures"),
    ("default  ", "figures"),
];
/// Blocks of text that programs write, by their first word.
const OUTPUT: [&str; 3] = ["Moving", "Warning", "✗"];

/// What is in every picture, and in no command or output.
const ARROW: &str = "──▶";

/// Programs that docs call, and where: on a machine of the administrator's, on a node, on a client.
const PLACES: [(&str, &str); 15] = [
    ("kubectl", "cp"),
    ("helm", "cp"),
    ("source", "cp"),
    ("curl", "node1"),
    ("ip", "node1"),
    ("nstat", "node1"),
    ("sysctl", "node1"),
    ("conntrack", "node1"),
    ("tcpdump", "node1"),
    ("bpftool", "node1"),
    ("ss", "node1"),
    ("ping", "client"),
    ("arping", "client"),
    ("ndisc6", "client"),
    ("nc", "client"),
];

/// What a command may end with: `kubectl herald` says that something is not well.
fn may_end_with(command: &str, code: Option<i32>) -> bool {
    code == Some(0) || (command.contains("kubectl herald") && code == Some(NOT_WELL))
}

/// A command with the names of what there is on the cluster for those of the examples.
fn renamed(command: &str, it: &Sandbox, address: &str) -> String {
    let namespace = &it.namespace;
    let pool = it.name("public");
    let pairs = [
        ("default/web", format!("{namespace}/web")),
        ("shop/", format!("{namespace}/")),
        ("-n shop", format!("-n {namespace}")),
        ("--namespace shop", format!("--namespace {namespace}")),
        ("NAMESPACE/NAME", format!("{namespace}/web")),
        ("pool public", format!("pool {pool}")),
        ("--delete-pool public", format!("--delete-pool {pool}")),
        ("172.30.64.10", address.to_owned()),
        ("172-30-64-10", address.replace('.', "-")),
        ("192.0.2.10 ", format!("{address} ")),
        ("node n1 ", "node node1 ".to_owned()),
        ("explain node NODE", "explain node node1".to_owned()),
        ("speaker NODE", "speaker node1".to_owned()),
        // A Service of this name is there already.
        (
            "expose deployment web",
            "expose deployment web --name web-again".to_owned(),
        ),
        // The same of a Deployment and of Herald's namespace.
        (
            "create deployment web",
            "create deployment again".to_owned(),
        ),
        (
            "create namespace herald-system",
            "create namespace herald-again".to_owned(),
        ),
        ("-i eth0 ", "-i eth0 -c 1 ".to_owned()),
    ];
    pairs.iter().fold(command.to_owned(), |text, (from, to)| {
        text.replace(from, to)
    })
}

/// kubectl and helm before the lab's own: what would change something is tried only.
const KUBECTL: &str = r#"#!/bin/bash
try=()
[[ " $* " = *" --help "* ]] && exec KUBECTL "$@"
for word in "$@"; do
    case $word in
    apply | create | delete | patch | label | annotate | expose | scale | cordon | uncordon | drain | taint | set | replace)
        try=(--dry-run=server)
        [ "$word" = apply ] && try+=(--validate=strict)
        break ;;
    get | describe | herald | wait | logs | explain | top | version | events | auth | api-resources) break ;;
    rollout)
        [[ " $* " = *" rollout status "* ]] && break
        echo "documents.rs can't try kubectl $*" >&2
        exit 99 ;;
    exec | edit | run | debug | attach | port-forward | proxy | cp)
        echo "documents.rs can't try kubectl $word" >&2
        exit 99 ;;
    esac
done
exec KUBECTL "$@" "${try[@]}"
"#;
const HELM: &str = r#"#!/bin/bash
[[ " $* " = *" --help "* ]] && exec HELM "$@"
case $1 in
install | upgrade) exec HELM "$@" --dry-run=server ;;
uninstall) exec HELM "$@" --dry-run ;;
template | lint | show | list | status | get | history | test) exec HELM "$@" ;;
esac
echo "documents.rs can't try helm $1" >&2
exit 99
"#;

/// The Prometheus operator's definitions, as far as the chart needs them to be there.
struct Definitions<'a>(&'a Sandbox);

const MONITORING: [(&str, &str); 2] = [
    ("podmonitors", "PodMonitor"),
    ("prometheusrules", "PrometheusRule"),
];

impl<'a> Definitions<'a> {
    fn new(it: &'a Sandbox) -> Result<Self> {
        let these = Self(it);
        for (plural, kind) in MONITORING {
            it.cluster.api.apply(&json!({
                "apiVersion": "apiextensions.k8s.io/v1",
                "kind": "CustomResourceDefinition",
                "metadata": {"name": format!("{plural}.monitoring.coreos.com")},
                "spec": {
                    "group": "monitoring.coreos.com",
                    "scope": "Namespaced",
                    "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind},
                    "versions": [{
                        "name": "v1", "served": true, "storage": true,
                        "schema": {"openAPIV3Schema": {
                            "type": "object", "x-kubernetes-preserve-unknown-fields": true,
                        }},
                    }],
                },
            }))?;
        }
        eventually("the definitions are served", LONG, || {
            it.cluster
                .api
                .list("/apis/monitoring.coreos.com/v1/prometheusrules")?;
            it.cluster
                .api
                .list("/apis/monitoring.coreos.com/v1/podmonitors")
        })?;
        Ok(these)
    }
}

impl Drop for Definitions<'_> {
    fn drop(&mut self) {
        let all = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        for (plural, _) in MONITORING {
            let path = format!("{all}/{plural}.monitoring.coreos.com");
            self.0.cluster.api.delete(&path).ok();
        }
    }
}

/// Where the two are, for as long as the test runs.
struct Wrappers(PathBuf);

impl Drop for Wrappers {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

fn wrappers(it: &Sandbox) -> Result<Wrappers> {
    use std::os::unix::fs::PermissionsExt as _;
    let lab = &it.cluster.lab;
    let folder = Wrappers(lab.folder().join(format!("docs-{}", std::process::id())));
    fs::create_dir_all(&folder.0)?;
    for (name, text) in [("kubectl", KUBECTL), ("helm", HELM)] {
        let program = lab.folder().join("bin").join(name).display().to_string();
        let path = folder.0.join(name);
        fs::write(&path, text.replace(&name.to_uppercase(), &program))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    // Commands that name no namespace are about this one.
    let kubeconfig = folder.0.join("kubeconfig");
    fs::copy(lab.kubeconfig_path(), &kubeconfig)?;
    let kubeconfig = kubeconfig.display().to_string();
    let own = format!("--namespace={}", it.namespace);
    let set = [
        "--kubeconfig",
        &kubeconfig,
        "config",
        "set-context",
        "--current",
        &own,
    ];
    lab.kubectl(set)?;
    Ok(folder)
}

/// Runs a command where it belongs, from the root of the tree.
fn run(it: &Sandbox, wrappers: &Wrappers, place: &str, command: &str) -> Result<Output> {
    let script = format!(
        "export PATH={}:$PATH KUBECONFIG={}; cd {}; {command}",
        wrappers.0.display(),
        wrappers.0.join("kubeconfig").display(),
        root().canonicalize()?.display(),
    );
    let limited = ["timeout", "60", "bash", "-o", "pipefail", "-c", &script];
    Ok(it.cluster.lab.command(place, limited)?.output()?)
}

/// Whether it names a command, such as `kubectl drain` or `helm uninstall --no-hooks`, rather than
/// giving one: it says nothing of what to do it to.
fn is_name(text: &str) -> bool {
    let words = text.strip_prefix("kubectl herald ");
    let words = words.or_else(|| text.split_once(' ').map(|(_, words)| words));
    let mut words = words.unwrap_or_default().split_whitespace();
    words.next().is_some_and(|verb| !verb.starts_with('-')) && words.all(|it| it.starts_with("--"))
}

/// What is wrong with a command; `None` if it does what it is said to do.
fn fault(
    it: &Sandbox,
    wrappers: &Wrappers,
    address: &str,
    command: &Piece,
) -> Result<Option<String>> {
    let text = &command.text;
    let program = text.split_whitespace().next().unwrap_or_default();
    let Some((_, place)) = PLACES.iter().find(|(name, _)| *name == program) else {
        return Ok(Some("is neither run nor in NOT_RUN".to_owned()));
    };
    let renamed = renamed(text, it, address);
    let output = run(it, wrappers, place, &renamed)?;
    if may_end_with(text, output.status.code()) {
        return Ok(None);
    }
    if is_name(text) {
        let help = format!("{renamed} --help");
        if run(it, wrappers, place, &help)?.status.success() {
            return Ok(None);
        }
    }
    let said = String::from_utf8_lossy(&output.stderr) + String::from_utf8_lossy(&output.stdout);
    Ok(Some(format!(
        "run as {renamed:?} ends with {}: {said}",
        output.status
    )))
}

/// Whether it is a name or text, or listed; the entry of [`NOT_RUN`] is used up.
fn is_listed(text: &str, used: &mut BTreeSet<&'static str>) -> bool {
    let listed = NOT_RUN.iter().find(|(start, _)| text.starts_with(start));
    listed.is_some_and(|(start, _)| {
        used.insert(*start);
        true
    })
}

/// An object as docs give it, or a part of one: then over what it takes to be whole.
fn object(file: &str, text: &str) -> Result<Option<String>> {
    if text.starts_with("apiVersion:") {
        return Ok(Some(text.to_owned()));
    }
    if !text.starts_with("spec:") && !text.starts_with("metadata:") {
        return Ok(None);
    }
    let part: serde_json::Value = serde_saphyr::from_str(text)?;
    let named = |name: &str| json!({"metadata": {"name": name}});
    let base = match file {
        "docs/pools.md" => json!({"kind": "IPPool", "spec": {"addresses": ["192.0.2.0/26"]}}),
        "docs/l2-advertisements.md" => json!({"kind": "L2Advertisement", "spec": {}}),
        _ => bail!("of which kind is it? Write all of it, or say it in `object`"),
    };
    let whole = herald_e2e::object::with(json!({"apiVersion": "heraldlb.io/v1alpha1"}), base);
    let whole = herald_e2e::object::with(whole, named("part"));
    Ok(Some(herald_e2e::object::with(whole, part).to_string()))
}

fn refused(it: &Sandbox, wrappers: &Wrappers, object: &str) -> Result<Option<String>> {
    let apply = format!("kubectl apply --server-side -f - <<'OBJECT'\n{object}\nOBJECT\n");
    let output = run(it, wrappers, "cp", &apply)?;
    let said = String::from_utf8_lossy(&output.stderr);
    Ok((!output.status.success()).then(|| format!("the API server does not take it: {said}")))
}

/// The words that a transcript of `kubectl herald` begins its lines with: each is one that the program
/// still has.
fn stale_labels(transcript: &str, source: &str) -> Vec<String> {
    let marks = ['✓', '·', '!', '✗', '→'];
    transcript
        .lines()
        .filter(|line| !line.starts_with("$ "))
        .filter_map(|line| {
            let heading = line.chars().take_while(|it| it.is_uppercase()).count() > 2;
            let marked = line.strip_prefix(marks).map(str::trim_start);
            let text = if heading { Some(line) } else { marked };
            Some(text?.split("  ").next()?.trim().to_owned())
        })
        .filter(|label| !label.contains(|it: char| it.is_ascii_digit()))
        .filter(|label| !label.contains(':') && !source.contains(&format!("\"{label}\"")))
        .filter(|label| !source.contains(&format!("\"{label}\\n")))
        .collect()
}

/// All sources of the command line.
fn cli_source() -> Result<String> {
    fn add(folder: &Path, text: &mut String) -> Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                add(&path, text)?;
            } else {
                *text += &fs::read_to_string(path)?;
            }
        }
        Ok(())
    }
    let mut text = String::new();
    add(&root().join("cli/src"), &mut text)?;
    Ok(text)
}

#[test]
fn every_command_and_object_in_the_docs_is_accepted() -> Result<()> {
    sandbox(|it| {
        it.pods("web", 1, &json!({}))?;
        it.pool("public", json!({"addresses": [it.range_v4(0, 0)]}))?;
        it.service("web", json!({"spec": {"selector": {"app": "web"}}}))?;
        let address = it.wait_announced("web")?.to_string();
        it.service("cart", json!({}))?;
        it.expect_pending("cart", "PoolExhausted")?;
        let _definitions = Definitions::new(it)?;
        let wrappers = wrappers(it)?;
        let cli = cli_source()?;
        let mut wrong = Vec::new();
        let mut used = BTreeSet::new();
        for document in documents()? {
            let mut tried = BTreeSet::new();
            let mut all = Vec::new();
            for block in document.blocks() {
                if let Some(object) = object(&block.file, &block.text)? {
                    let fault = refused(it, &wrappers, &object)?;
                    wrong.extend(fault.map(|why| format!("{}: {why}", block.place())));
                } else if block.text.starts_with("$ ") {
                    let stale = stale_labels(&block.text, &cli);
                    if block.text.starts_with("$ kubectl herald") && !stale.is_empty() {
                        wrong.push(format!(
                            "{}: no such line any more: {stale:?}",
                            block.place()
                        ));
                    }
                    all.extend((block.line..).zip(block.text.lines()).filter_map(
                        |(line, text)| {
                            let text = text.strip_prefix("$ ")?.to_owned();
                            Some(Piece {
                                line,
                                text,
                                ..block.clone()
                            })
                        },
                    ));
                } else if block.text.contains(ARROW) {
                    // There is nothing to run in a picture.
                } else if OUTPUT.iter().any(|word| block.text.starts_with(word)) {
                    let stale = stale_labels(&block.text, &cli);
                    if !stale.is_empty() {
                        wrong.push(format!("{}: nobody says {stale:?}", block.place()));
                    }
                } else {
                    all.extend(commands(&block));
                }
            }
            let is_command = |span: &Piece| {
                let program = span.text.split_whitespace().next().unwrap_or_default();
                span.text.contains(' ') && PLACES.iter().any(|(name, _)| *name == program)
            };
            all.extend(document.spans().into_iter().filter(is_command));
            for command in all {
                if !tried.insert(command.text.clone()) || is_listed(&command.text, &mut used) {
                    continue;
                }
                let fault = fault(it, &wrappers, &address, &command)?;
                wrong.extend(
                    fault.map(|why| format!("{}: {:?} {why}", command.place(), command.text)),
                );
            }
        }
        for (start, _) in NOT_RUN {
            if !used.contains(start) {
                wrong.push(format!("NOT_RUN: no document says {start:?} any more"));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        Ok(())
    })
}

/// Flags that docs name, of whichever program of Herald's, its benchmarks or Kubernetes' tools.
#[test]
fn every_flag_in_the_docs_exists() -> Result<()> {
    // The benchmark is not built here.
    let bench = source("e2e/tests/src/bin/herald-bench-failover/main.rs")?;
    let mut known = String::new();
    for program in ["herald-controller", "herald-speaker", "kubectl-herald"] {
        let path = herald_lab::built(program)?;
        let help = |verb: &str| -> Result<String> {
            let words = [verb, "--help"];
            let output = std::process::Command::new(&path)
                .args(words.iter().filter(|word| !word.is_empty()))
                .output()
                .with_context(|| format!("running {program}"))?;
            ensure!(output.status.success(), "{program} {verb}: {output:?}");
            Ok(String::from_utf8(output.stdout)?)
        };
        let own = help("")?;
        let verbs = own.lines().skip_while(|line| *line != "Commands:").skip(1);
        let verbs = verbs.take_while(|line| !line.is_empty() && !line.contains(" help "));
        for verb in verbs.filter_map(|line| line.split_whitespace().next()) {
            known += &help(verb)?;
        }
        known += &own;
    }
    known += &cluster()?.lab.helm(["upgrade", "--help"])?;
    let mut wrong = Vec::new();
    for document in documents()? {
        for span in document.spans() {
            let Some(flag) = span.text.strip_prefix("--") else {
                continue;
            };
            let flag = flag.split([' ', '=', ',']).next().unwrap_or_default();
            if !known.contains(&format!("--{flag}"))
                && !bench.contains(&format!("{}:", flag.replace('-', "_")))
            {
                wrong.push(format!("{}: there is no --{flag}", span.place()));
            }
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
