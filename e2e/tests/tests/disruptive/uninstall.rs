//! `helm uninstall` by itself leaves nothing on the nodes, and what is installed after it works at once; what it
//! can't clean, `herald-speaker cleanup` does. `helm test` says whether an installation works.

use std::net::IpAddr;
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use herald_e2e::api::herald;
use herald_e2e::cluster::Cluster;
use herald_e2e::object::{condition, text};
use herald_e2e::sandbox::{Sandbox, backend};
use herald_e2e::wait::{LONG, eventually, same};
use herald_lab::{HERALD_NAMESPACE, HERALD_RELEASE, Output, Program, built};

use crate::failover::serve;
use crate::retire::left;
use crate::{alone, install};

/// Runs Helm on the release.
fn helm(cluster: &Cluster, verb: &str, flags: &[&str]) -> Result<Output> {
    let args = [verb, HERALD_RELEASE, "--namespace", HERALD_NAMESPACE];
    Ok(cluster.lab.helm_output(args.iter().chain(flags))?)
}

/// All that Helm said. What a hook's Pod did, it logs as one line.
fn said(output: &Output) -> String {
    format!("{}{}", output.stdout, output.stderr).replace("\\n", "\n")
}

/// What an uninstallation that succeeded said.
fn uninstall(cluster: &Cluster, flags: &[&str]) -> Result<String> {
    let output = helm(cluster, "uninstall", flags)?;
    let said = said(&output);
    ensure!(output.success(), "{said}");
    Ok(said)
}

/// Beside an address that is served: uninstalls Herald in some way, then installs it as it was, whatever came
/// of that, and has the address answer again.
fn without(test: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
    alone(|cluster| {
        backend(|it| {
            let addresses = serve(it)?;
            for node in cluster.nodes() {
                let before = left(cluster, &node)?;
                for part in ["/links/", "anon_inode:bpf", "blackhole", "iif", ".json"] {
                    ensure!(before.contains(part), "no {part} on {node}: {before}");
                }
            }
            let result = test(cluster);
            let again = install_again(cluster, it, &addresses, result.is_ok());
            result?;
            again
        })
    })
}

fn install_again(
    cluster: &Cluster,
    it: &Sandbox,
    addresses: &[IpAddr],
    is_uninstalled: bool,
) -> Result<()> {
    for node in cluster.lab.status()?.nodes.iter().filter(|node| !node.on) {
        cluster.lab.power_on(&node.name, false)?;
    }
    for node in cluster.nodes() {
        cluster.lab.kubectl(["uncordon", &node])?;
    }
    if !is_uninstalled {
        // It may have got half way.
        uninstall(cluster, &["--no-hooks", "--ignore-not-found"])?;
        let all = ["delete", "speakers", "--all"];
        cluster.lab.kubectl(all)?;
    }
    install(cluster, &[])?;
    cluster.wait_whole()?;
    for address in addresses {
        eventually(&format!("{address} answers again"), LONG, || {
            it.client().http(*address, 80, 12).map(drop)
        })?;
    }
    Ok(())
}

/// That no object is left but those of people, and what programs have made for themselves.
fn nothing_left_at_the_api_server(cluster: &Cluster) -> Result<()> {
    same(&cluster.api.list(&herald("speakers", ""))?, &Vec::new())?;
    let kinds = "jobs,pods,daemonsets,deployments,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings";
    let ours = ["-l", "app.kubernetes.io/name=herald", "-o", "name", "-A"];
    eventually("its objects are gone", LONG, || {
        let args = ["get", kinds].into_iter().chain(ours);
        let objects = cluster.lab.kubectl(args)?;
        same(&objects.as_str(), &"")
    })
}

/// Cleans a node by hand, with the program itself.
fn clean_up(cluster: &Cluster, node: &str) -> Result<Output> {
    let program = built("herald-speaker")?;
    let args = [program.as_os_str(), "cleanup".as_ref()];
    Ok(cluster.lab.exec(node, args)?)
}

#[test]
fn an_uninstallation_leaves_nothing_on_the_nodes_and_the_next_installation_works_at_once()
-> Result<()> {
    without(|cluster| {
        let said = uninstall(cluster, &[])?;
        for node in cluster.nodes() {
            ensure!(said.contains(&format!("{node}: retired")), "{said}");
            same(&left(cluster, &node)?.as_str(), &"").context(node)?;
        }
        ensure!(said.contains("3 of 3 nodes are clean"), "{said}");
        nothing_left_at_the_api_server(cluster)
    })
}

#[test]
fn an_uninstallation_does_not_wait_for_a_node_without_power_and_says_how_to_clean_it() -> Result<()>
{
    without(|cluster| {
        let off = cluster.nodes().pop().context("a node")?;
        cluster.lab.power_off(&off)?;
        let said = uninstall_from(cluster, &off)?;
        ensure!(said.contains("2 of 3 nodes are clean"), "{said}");
        for node in cluster.nodes().iter().filter(|node| **node != off) {
            same(&left(cluster, node)?.as_str(), &"").context(node.clone())?;
        }
        same(&cluster.api.list(&herald("speakers", ""))?, &Vec::new())?;
        // Its last line has the end of the quotation.
        let command = said.lines().map(|line| line.trim().trim_end_matches('"'));
        let command = command.filter(|line| line.starts_with("kubectl debug"));
        same(&command.collect(), &vec![debug_command(&off).as_str()]).context(said.clone())
    })
}

/// Uninstalls by a Job whose first Pod is put on a node that is already off, as nobody knows that yet.
fn uninstall_from(cluster: &Cluster, off: &str) -> Result<String> {
    let nodes = cluster.nodes();
    let others: Vec<_> = nodes.iter().filter(|node| *node != off).collect();
    let each = |verb: &str| -> Result<()> {
        for node in &others {
            cluster.lab.kubectl([verb, node])?;
        }
        Ok(())
    };
    each("cordon")?;
    thread::scope(|scope| {
        let uninstalling = scope.spawn(|| uninstall(cluster, &[]));
        let placed = eventually("the Job has a Pod there", LONG, || {
            let pods = cluster.pods("uninstall")?;
            let node = pods.first().map(|pod| text(&pod["spec"]["nodeName"]));
            same(&node, &Some(off))
        });
        each("uncordon")?;
        let said = uninstalling.join();
        placed?;
        said.map_err(|_panicked| anyhow!("the uninstallation panicked"))?
    })
}

/// What people are told to clean a node by.
fn debug_command(node: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "kubectl debug node/{node} --profile=sysadmin --image=lab.local/herald-speaker:{version} -it -- \
         /herald-speaker cleanup --root=/host"
    )
}

/// Runs that command where there is no terminal: what it says.
fn clean_up_from_elsewhere(cluster: &Cluster, node: &str) -> Result<String> {
    let command = debug_command(node);
    let words = command.split(' ').skip(1).filter(|word| *word != "-it");
    cluster.lab.kubectl(words)?;
    let pods = cluster.lab.kubectl(["get", "pods", "-o", "name"])?;
    let pod = pods.lines().find(|pod| pod.contains("node-debugger"));
    let pod = pod.with_context(|| format!("no debugger among {pods:?}"))?;
    let said = eventually("it says that it is done", LONG, || {
        let said = cluster.lab.kubectl(["logs", pod])?;
        ensure!(said.contains("nothing of Herald's is left"), "{said}");
        Ok(said)
    });
    cluster.lab.kubectl(["delete", "--wait=false", pod])?;
    said
}

#[test]
fn what_an_uninstallation_without_hooks_leaves_is_removed_by_hand() -> Result<()> {
    without(|cluster| {
        let nodes = cluster.nodes();
        let refused = clean_up(cluster, &nodes[0])?;
        same(&refused.status.code(), &Some(1))?;
        ensure!(
            refused.stderr.contains("a speaker runs here, process "),
            "{}",
            refused.stderr
        );
        uninstall(cluster, &["--no-hooks"])?;
        no_pod_runs(cluster)?;
        for node in &nodes {
            let before = left(cluster, node)?;
            for part in ["/links/", "blackhole", "iif", ".json"] {
                ensure!(before.contains(part), "no {part} on {node}: {before}");
            }
            let said = if *node == nodes[0] {
                clean_up_from_elsewhere(cluster, node)?
            } else {
                clean_up(cluster, node)?.ok()?
            };
            for part in ["/sys/fs/bpf/herald, ", "/var/lib/herald, ", "routes of"] {
                ensure!(said.contains(part), "it does not name {part}: {said}");
            }
            same(&left(cluster, node)?.as_str(), &"").context(node.clone())?;
            // Nothing to do is no failure.
            clean_up(cluster, node)?.ok()?;
        }
        Ok(())
    })
}

/// Waits until no Pod of Herald's is there.
fn no_pod_runs(cluster: &Cluster) -> Result<()> {
    eventually("no Pod is there", LONG, || {
        let args = ["get", "pods", "-n", HERALD_NAMESPACE, "-o", "name"];
        same(&cluster.lab.kubectl(args)?.as_str(), &"")
    })
}

/// Whether `helm test` passes, and what it says.
fn helm_test(cluster: &Cluster) -> Result<(bool, String)> {
    let output = helm(cluster, "test", &[])?;
    Ok((output.success(), said(&output)))
}

#[test]
fn helm_test_passes_on_a_whole_installation_and_names_a_speaker_that_is_not_well() -> Result<()> {
    alone(|cluster| {
        let (passes, said) = helm_test(cluster)?;
        ensure!(passes && said.contains("all is well"), "{said}");
        let node = cluster.nodes().pop().context("a node")?;
        let broken = (|| {
            install(cluster, &["test.timeout=5s"])?;
            cluster.lab.freeze_program(&node, Program::Speaker)?;
            eventually("its Pod is not ready", LONG, || {
                let pods = cluster.pods("speaker")?;
                let of_node = pods.iter().find(|pod| pod["spec"]["nodeName"] == node);
                let ready = condition(of_node.context("no Pod")?, "Ready");
                same(&text(&ready["status"]), &"False")
            })?;
            helm_test(cluster)
        })();
        cluster.lab.thaw_program(&node, Program::Speaker).ok();
        install(cluster, &[])?;
        let (passes, said) = broken?;
        ensure!(!passes, "it passes: {said}");
        let wrong: Vec<_> = said.lines().filter(|line| line.contains("WRONG")).collect();
        ensure!(
            wrong.len() == 1 && wrong[0].contains(&format!("speaker of {node}: its Pod")),
            "{said}"
        );
        // What failed stays, to be looked at; the next test takes its place, and goes.
        cluster.wait_whole()?;
        let (passes, said) = helm_test(cluster)?;
        ensure!(passes, "{said}");
        let left = ["get", "pods,serviceaccounts,roles,clusterroles", "-A", "-o"];
        let labels = ["name", "-l", "app.kubernetes.io/component=test"];
        eventually("nothing of the test is left", LONG, || {
            let left = cluster.lab.kubectl(left.iter().chain(&labels))?;
            same(&left.as_str(), &"")
        })
    })
}
