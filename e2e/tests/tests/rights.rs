//! What Herald may do, against what it did. Runs last: it looks back at all requests of the run.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{BufRead as _, BufReader};

use anyhow::{Context as _, Result, ensure};
use herald_e2e::cluster::{Cluster, cluster};
use herald_e2e::object::{items, text};
use herald_e2e::sandbox::sandbox;
use herald_e2e::wait::{LONG, eventually, same};
use herald_lab::HERALD_NAMESPACE;
use serde_json::{Value, json};

const COMPONENTS: [&str; 2] = ["controller", "speaker"];
/// Requests of the tests in a speaker's name say so.
const OUR_AGENT: &str = "herald-e2e";

/// One verb on one kind of object; `namespaced` if granted in Herald's namespace only.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    verb: String,
    resource: String,
    group: String,
    namespaced: bool,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            verb,
            resource,
            group,
            namespaced,
        } = self;
        let dot = if group.is_empty() { "" } else { "." };
        let place = if *namespaced { " in its namespace" } else { "" };
        write!(f, "{verb} {resource}{dot}{group}{place}")
    }
}

/// What the chart's roles grant to a component.
fn granted(cluster: &Cluster, component: &str) -> Result<BTreeSet<Right>> {
    let root = "/apis/rbac.authorization.k8s.io/v1";
    let name = format!("herald-{component}");
    let roles = [
        (format!("{root}/clusterroles/{name}"), false),
        (
            format!("{root}/namespaces/{HERALD_NAMESPACE}/roles/{name}"),
            true,
        ),
    ];
    let mut rights = BTreeSet::new();
    for (path, namespaced) in roles {
        let Some(role) = cluster.api.find(&path)? else {
            continue;
        };
        for rule in items(&role["rules"]) {
            for group in items(&rule["apiGroups"]) {
                for resource in items(&rule["resources"]) {
                    for verb in items(&rule["verbs"]) {
                        rights.insert(Right {
                            verb: text(verb).to_owned(),
                            resource: text(resource).to_owned(),
                            group: text(group).to_owned(),
                            namespaced,
                        });
                    }
                }
            }
        }
    }
    ensure!(!rights.is_empty(), "{name} has no role");
    Ok(rights)
}

/// A component's requests in the audit log.
fn requests(cluster: &Cluster, component: &str) -> Result<Vec<Value>> {
    let user = format!("system:serviceaccount:{HERALD_NAMESPACE}:herald-{component}");
    let path = cluster.lab.audit_log_path();
    let file = File::open(&path).with_context(|| path.display().to_string())?;
    let mut requests = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line?;
        // Most lines are others'; parsing them all would take long.
        if !line.contains(&user) {
            continue;
        }
        // The last one may be half written.
        let Ok(event) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        if text(&event["user"]["username"]) == user
            && !text(&event["userAgent"]).starts_with(OUR_AGENT)
        {
            requests.push(event);
        }
    }
    ensure!(!requests.is_empty(), "{user} has asked for nothing");
    Ok(requests)
}

/// What a request asked for; `None` for one that no role is about.
fn asked(event: &Value, namespaced: bool) -> Option<Right> {
    let object = &event["objectRef"];
    let resource = text(&object["resource"]);
    let subresource = text(&object["subresource"]);
    if resource.is_empty() {
        return None;
    }
    let slash = if subresource.is_empty() { "" } else { "/" };
    Some(Right {
        verb: text(&event["verb"]).to_owned(),
        resource: format!("{resource}{slash}{subresource}"),
        group: text(&object["apiGroup"]).to_owned(),
        namespaced,
    })
}

/// Whether a request was refused, and whether its right is why.
#[derive(Debug, PartialEq, Eq)]
enum Refusal<'a> {
    /// It was not, as far as rights go.
    No,
    /// Because of a right that lacks, or in a way not known here.
    About(&'a str),
    /// An API server that has just started does not even know its own roles yet.
    RolesUnknown,
    /// It had the right. What it wanted to write could not be.
    NotAboutRights,
}

fn refusal(status: &Value) -> Refusal<'_> {
    let code = status["code"].as_u64().unwrap_or(0);
    if code != 401 && code != 403 {
        return Refusal::No;
    }
    let message = text(&status["message"]);
    if message.contains("\"system:discovery\" not found") {
        return Refusal::RolesUnknown;
    }
    // The same status says "Forbidden" for both: only one that does without the words of RBAC, and
    // gives another cause, is not about rights.
    let by_rbac = message.contains("User \"") && message.contains("\" cannot ");
    let terminating = items(&status["details"]["causes"])
        .iter()
        .any(|cause| text(&cause["reason"]) == "NamespaceTerminating");
    if code == 403 && terminating && !by_rbac {
        return Refusal::NotAboutRights;
    }
    Refusal::About(message)
}

#[test]
fn only_a_refusal_known_to_have_another_cause_is_not_about_rights() {
    let status = |code: u64, message: &str, cause: &str| {
        let causes = json!([{"reason": cause, "message": "namespace x is being terminated"}]);
        json!({"code": code, "message": message, "details": {"causes": causes}})
    };
    let lacking = "events.events.k8s.io is forbidden: User \"u\" cannot create resource \"events\"";
    let ending = "events.events.k8s.io \"e\" is forbidden: unable to create new content in \
        namespace x because it is being terminated";
    let starting = format!("{lacking}: RBAC: clusterrole \"system:discovery\" not found");
    for (status, expected) in [
        (status(200, "", ""), Refusal::No),
        (status(404, "not found", ""), Refusal::No),
        (status(403, lacking, ""), Refusal::About(lacking)),
        (
            status(401, "Unauthorized", ""),
            Refusal::About("Unauthorized"),
        ),
        (
            status(403, "quota exceeded", "Quota"),
            Refusal::About("quota exceeded"),
        ),
        (
            status(403, ending, "NamespaceTerminating"),
            Refusal::NotAboutRights,
        ),
        (status(403, ending, ""), Refusal::About(ending)),
        (status(403, &starting, ""), Refusal::RolesUnknown),
    ] {
        assert_eq!(refusal(&status), expected, "{status}");
    }
}

/// Another key for the observer rings, while all of them run: accepted everywhere, then sent, then the old
/// one goes.
fn rotate_the_ring_key(cluster: &Cluster) -> Result<()> {
    let path = format!("/api/v1/namespaces/{HERALD_NAMESPACE}/secrets/herald-ring");
    let keys = || -> Result<Vec<String>> {
        let secret = cluster.api.get(&path)?;
        let data = secret["data"].as_object().context("it has no data")?;
        Ok(data.keys().cloned().collect())
    };
    let [before] = &keys()?[..] else {
        anyhow::bail!("not one key: {:?}", keys()?);
    };
    let next = (before.parse::<u32>()? + 1).to_string();
    let change = json!({"metadata": {"annotations": {"heraldlb.io/rotate": next}}});
    cluster.api.merge(&path, &change)?;
    eventually("only the next key is left", LONG, || {
        same(&keys()?, &vec![next.clone()])
    })
}

/// Has every right used at least once, also when nothing else has run on this cluster.
fn use_everything() -> Result<()> {
    rotate_the_ring_key(cluster()?)?;
    sandbox(|it| {
        it.pool(
            "a",
            json!({"addresses": [it.range_v4(0, 3), it.range_v6(0, 3)]}),
        )?;
        it.advertisement("b", json!({}))?;
        it.dual_service("web", json!({}))?;
        it.wait_announced("web")?;
        it.expect_event("web", "Normal", "AddressAllocated")?;
        it.expect_event("web", "Normal", "Announced")?;
        // New plans for the same address; the second time round the Event is one of a series.
        let (first, _) = it.cluster.announcer(it.v4(0))?;
        let nodes = it.cluster.nodes();
        let second = nodes
            .iter()
            .find(|node| **node != first)
            .context("there is one node only")?;
        for node in [second, &first, second] {
            let only = json!([{"matchLabels": {"kubernetes.io/hostname": node}}]);
            it.advertisement("b", json!({"nodeSelectors": only}))?;
            eventually(&format!("{node} announces"), LONG, || {
                same(&it.cluster.announcer(it.v4(0))?.0, node)
            })?;
        }
        it.delete_service("web")?;
        let vip = herald_model::VirtualIp::object_name(it.v4(0));
        eventually("its claim is gone", LONG, || {
            let path = herald_e2e::api::herald("virtualips", &vip);
            same(&it.cluster.api.find(&path)?, &None)
        })
    })
}

#[test]
fn nothing_granted_is_unused_and_nothing_used_is_missing() -> Result<()> {
    use_everything()?;
    let cluster = cluster()?;
    let mut wrong = Vec::new();
    for component in COMPONENTS {
        let granted = granted(cluster, component)?;
        let mut unused = granted.clone();
        let mut allowed = BTreeSet::new();
        let mut refused = Vec::new();
        for event in requests(cluster, component)? {
            let code = event["responseStatus"]["code"].as_u64().unwrap_or(0);
            let in_namespace = text(&event["objectRef"]["namespace"]) == HERALD_NAMESPACE;
            let Some(right) = asked(&event, false) else {
                continue;
            };
            let object = &event["objectRef"];
            // No role can name what is yet to be created, and the log does where it was.
            let name = match &right {
                Right { verb, .. } if verb == "create" => "",
                _ => text(&object["name"]),
            };
            let what = (
                right.clone(),
                text(&object["namespace"]).to_owned(),
                name.to_owned(),
            );
            match refusal(&event["responseStatus"]) {
                Refusal::No | Refusal::NotAboutRights => {
                    allowed.insert(what);
                }
                Refusal::RolesUnknown => continue,
                Refusal::About(message) => {
                    let said = format!("{component}: {right} is answered with {code}: {message}");
                    refused.push((what, said));
                    continue;
                }
            }
            // A patch that creates the object is allowed to those only who may create it as well.
            if code == 201 && right.verb == "patch" {
                unused.remove(&Right {
                    verb: "create".to_owned(),
                    ..right.clone()
                });
            }
            if unused.remove(&right) || granted.contains(&right) {
                continue;
            }
            let namespaced = Right {
                namespaced: true,
                ..right.clone()
            };
            if !(in_namespace && granted.contains(&namespaced)) {
                wrong.push(format!("{component}: {right} is used, and not of its role"));
            }
            unused.remove(&namespaced);
        }
        // What was allowed at any other time is a right it has: an API server that has just started does
        // not know all roles yet, and an uninstallation without hooks takes them from programs that end.
        let lacking = refused
            .into_iter()
            .filter(|(what, _)| !allowed.contains(what));
        wrong.extend(lacking.map(|(_, said)| said));
        wrong.extend(
            unused
                .iter()
                .map(|right| format!("{component}: {right} is granted, and never used")),
        );
    }
    wrong.sort();
    wrong.dedup();
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Writes in the name of the speaker of a node, with a token of its pod: the status, and what is said.
fn as_speaker(cluster: &Cluster, node: &str, path: &str, body: &Value) -> Result<(u16, String)> {
    let pods = cluster.pods("speaker")?;
    let pod = pods
        .iter()
        .find(|pod| text(&pod["spec"]["nodeName"]) == node)
        .with_context(|| format!("no speaker on {node}"))?;
    let name = text(&pod["metadata"]["name"]);
    let token = cluster.lab.kubectl([
        "create",
        "token",
        "herald-speaker",
        "-n",
        HERALD_NAMESPACE,
        "--bound-object-kind=Pod",
        &format!("--bound-object-name={name}"),
    ])?;
    let server = cluster.lab.address("cp")?.all().swap_remove(0);
    let said = cluster
        .lab
        .exec(
            "cp",
            [
                "curl",
                "--silent",
                "--insecure",
                "--user-agent",
                OUR_AGENT,
                "--request",
                "PATCH",
                "--header",
                &format!("Authorization: Bearer {}", token.trim()),
                "--header",
                "Content-Type: application/merge-patch+json",
                "--data",
                &body.to_string(),
                "--write-out",
                "\n%{http_code}",
                &format!("https://{server}:6443{path}"),
            ],
        )?
        .ok()?;
    let (body, code) = said.rsplit_once('\n').context("curl says nothing")?;
    Ok((code.parse()?, body.to_owned()))
}

#[test]
fn a_speaker_cannot_write_the_speaker_of_another_node_nor_name_it_as_holder() -> Result<()> {
    sandbox(|it| {
        it.pool("a", json!({"addresses": [it.range_v4(0, 3)]}))?;
        it.service("web", json!({}))?;
        let address = it.wait_announced("web")?;
        let (holder, mac) = it.cluster.announcer(address)?;
        let nodes = it.cluster.nodes();
        let foreign = nodes
            .iter()
            .find(|node| **node != holder)
            .context("three nodes")?;
        let third = nodes
            .iter()
            .find(|node| **node != holder && *node != foreign)
            .context("three nodes")?;
        let path = |node: &str| herald_e2e::api::herald("speakers", node) + "/status";
        let version = json!({"status": {"version": "forged"}});
        let (code, said) = as_speaker(it.cluster, foreign, &path(&holder), &version)?;
        ensure!(
            code == 403 && said.contains("writes only the Speaker"),
            "{code}: {said}"
        );
        let vip = herald_model::VirtualIp::object_name(address);
        let object = herald_e2e::api::herald("virtualips", &vip);
        let epoch = it.cluster.api.get(&object)?["spec"]["epoch"]
            .as_u64()
            .context("no epoch")?;
        let path = object + "/status";
        let forged = json!({"status": {"segments": [{
            "name": "172.30.0.0/16", "node": third, "interface": "eth0", "mac": mac,
            "epoch": epoch + 99, "since": "2026-01-01T00:00:00Z",
        }]}});
        let (code, said) = as_speaker(it.cluster, foreign, &path, &forged)?;
        ensure!(
            code == 403 && said.contains("only its own node as holder"),
            "{code}: {said}"
        );
        Ok(())
    })
}
