//! `kubectl herald` as people and programs call it: formats, colours, exit codes, completion.

use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use herald_e2e::cli::{NOT_WELL, ask, run};
use herald_e2e::cluster::cluster;
use herald_e2e::object::{items, text};
use herald_e2e::sandbox::sandbox;
use herald_e2e::wait::{LONG, eventually, same};
use herald_lab::built;
use serde_json::{Value, json};

#[test]
fn an_answer_is_the_same_in_each_format_and_coloured_on_a_terminal_only() -> Result<()> {
    sandbox(|it| {
        let nowhere =
            json!({"metadata": {"annotations": {"heraldlb.io/pool": it.name("nowhere")}}});
        it.service("late", nowhere)?;
        it.expect_pending("late", "UnknownPool")?;
        let lab = &it.cluster.lab;
        let name = format!("{}/{}", it.namespace, it.service_name("late"));
        let ask = |more: &[&str]| run(lab, &[&["explain", "service", &name], more].concat());
        let text = ask(&[])?;
        same(&text.status.code(), &Some(NOT_WELL))?;
        ensure!(
            text.stdout.contains("pending (UnknownPool)"),
            "{}",
            text.stdout
        );
        ensure!(!text.stdout.contains('\u{1b}'), "{:?}", text.stdout);
        let always = ask(&["--color", "always"])?.stdout;
        ensure!(always.contains("\u{1b}["), "{always:?}");
        let (json, yaml) = (ask(&["-o", "json"])?, ask(&["-o", "yaml"])?);
        let json: Value = serde_json::from_str(&json.stdout)?;
        same(&serde_saphyr::from_str::<Value>(&yaml.stdout)?, &json)?;
        same(&json["reason"], &json!("UnknownPool"))?;

        let program = built("kubectl-herald")?.display().to_string();
        let command = format!("{program} explain service {name}");
        let on_a_terminal = |setting: &str| -> Result<String> {
            let words = ["env", setting, "script", "-qc", &command, "/dev/null"];
            let output = lab.exec("cp", words)?;
            ensure!(output.stdout.contains("UnknownPool"), "{output:?}");
            Ok(output.stdout)
        };
        let coloured = on_a_terminal("TERM=xterm")?;
        ensure!(coloured.contains("\u{1b}["), "{coloured:?}");
        let plain = on_a_terminal("NO_COLOR=1")?;
        ensure!(!plain.contains('\u{1b}'), "{plain:?}");
        Ok(())
    })
}

#[test]
fn a_wrong_command_line_and_a_cluster_that_is_not_there_have_exit_codes_of_their_own() -> Result<()>
{
    let lab = &cluster()?.lab;
    for wrong in [
        &["status", "--nonsense"][..],
        &["what-if"],
        &["what-if", "--node-down", "node1", "--drain", "node1"],
        &["explain"],
        &["drill", "a/b", "--kill", "--to", "node1"],
    ] {
        let output = run(lab, wrong)?;
        same(&output.status.code(), &Some(2)).with_context(|| format!("{wrong:?}"))?;
        ensure!(output.stderr.contains("Usage:"), "{}", output.stderr);
    }
    let nowhere = "/nonexistent/kubeconfig";
    let output = run(lab, &["status", "--kubeconfig", nowhere])?;
    same(&output.status.code(), &Some(1))?;
    ensure!(output.stderr.contains(nowhere), "{}", output.stderr);
    Ok(())
}

#[test]
fn every_verb_is_completed_in_each_shell() -> Result<()> {
    let lab = &cluster()?.lab;
    for (shell, begins) in [
        ("bash", "_kubectl__herald"),
        ("zsh", "#compdef kubectl-herald"),
        ("fish", "complete -c kubectl-herald"),
    ] {
        let output = run(lab, &["completion", shell])?;
        same(&output.status.code(), &Some(0))?;
        for word in [
            begins,
            "status",
            "explain",
            "what-if",
            "check",
            "drill",
            "node-down",
        ] {
            ensure!(output.stdout.contains(word), "no {word} for {shell}");
        }
    }
    // Bash is there to be asked.
    let program = built("kubectl-herald")?.display().to_string();
    let script = format!(
        "source <({program} completion bash); COMP_WORDS=(kubectl-herald wha); COMP_CWORD=1; \
         _kubectl__herald kubectl-herald wha kubectl-herald; echo \"${{COMPREPLY[@]}}\""
    );
    let output = lab.exec("cp", ["bash", "-c", &script])?;
    same(&output.stdout.trim(), &"what-if").with_context(|| output.stderr.clone())
}

#[test]
fn a_watched_status_shows_what_has_changed() -> Result<()> {
    sandbox(|it| {
        let program = built("kubectl-herald")?.display().to_string();
        let words = [
            &program,
            "status",
            "--watch",
            "--interval",
            "1s",
            "-o",
            "yaml",
        ];
        let mut child = it.cluster.lab.spawn("cp", words)?;
        let mut stdout = child.stdout.take().context("no output")?;
        let seen = Arc::new(Mutex::new(String::new()));
        let reader = thread::spawn({
            let seen = Arc::clone(&seen);
            move || {
                let mut some = [0; 4096];
                while let Ok(count @ 1..) = stdout.read(&mut some) {
                    let text = String::from_utf8_lossy(&some[..count]);
                    *seen.lock().unwrap_or_else(PoisonError::into_inner) += &text;
                }
            }
        });
        let shows = |word: &str| {
            let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            ensure!(seen.contains(word), "it shows {} bytes", seen.len());
            Ok(())
        };
        let watched = (|| {
            eventually("it shows the nodes", LONG, || shows("node1"))?;
            let name = it.service_name("late");
            ensure!(shows(&name).is_err(), "it shows what is not there");
            it.service("late", json!({}))?;
            eventually("it shows the new Service", LONG, || shows(&name))
        })();
        child.kill()?;
        child.wait()?;
        ensure!(reader.join().is_ok(), "the reader panicked");
        watched
    })
}

#[test]
fn check_finds_pools_objects_and_services_that_are_wrong() -> Result<()> {
    sandbox(|it| {
        let off = json!({"addresses": ["198.51.100.200-198.51.100.201"], "autoAssign": false});
        it.pool("off", off)?;
        let other = json!({"addresses": ["198.51.100.201-198.51.100.202"], "autoAssign": false});
        it.pool("overlaps", other)?;
        it.pool("full", json!({"addresses": [it.range_v4(0, 0)]}))?;
        it.service("web", json!({}))?;
        it.wait_announced("web")?;
        it.service("late", json!({}))?;
        it.expect_pending("late", "PoolExhausted")?;
        eventually("check finds each of them", LONG, || {
            let (well, answer) = ask(&it.cluster.lab, &["check"])?;
            ensure!(!well, "it says that all is well");
            let finds = |check: &str, level: &str, words: &[&str]| {
                let mut findings = items(&answer["findings"]).iter();
                let is_it = |it: &Value| {
                    let said = format!("{} {}", text(&it["subject"]), text(&it["text"]));
                    it["check"] == check
                        && it["level"] == level
                        && !text(&it["remedy"]).is_empty()
                        && words.iter().all(|word| said.contains(word))
                };
                ensure!(findings.any(is_it), "no {check} with {words:?} in {answer}");
                Ok(())
            };
            finds(
                "pool",
                "warning",
                &[&it.name("off"), "is in no node's subnet"],
            )?;
            finds("pool", "problem", &[&it.name("overlaps"), &it.name("off")])?;
            finds("pool", "warning", &[&it.name("full"), "no free address"])?;
            // Of many it names five, and other tests have some too.
            finds("services", "problem", &["without an address"])?;
            finds("services", "problem", &["nobody takes the traffic"])
        })
    })
}
