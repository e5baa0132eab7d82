//! The controller goes and comes back, the chart changes, a pool is open to all.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use herald_e2e::api::herald;
use herald_e2e::cluster::Cluster;
use herald_e2e::object::{ingress, text};
use herald_e2e::sandbox::{none, sandbox};
use herald_e2e::wait::{LONG, eventually, same, throughout};
use herald_lab::{HERALD_NAMESPACE, Program};
use herald_model::VirtualIp;
use serde_json::json;

use crate::{alone, install};

/// The node of the controller that leads, and its pod.
fn leader(cluster: &Cluster) -> Result<(String, String)> {
    let holder = cluster.leader()?;
    let pods = cluster.pods("controller")?;
    let pod = pods
        .iter()
        .find(|pod| holder.starts_with(text(&pod["metadata"]["name"])))
        .with_context(|| format!("the leader {holder} is no pod"))?;
    Ok((
        text(&pod["spec"]["nodeName"]).to_owned(),
        text(&pod["metadata"]["name"]).to_owned(),
    ))
}

#[test]
fn five_restarts_of_the_controller_change_nothing_and_nothing_blinks() -> Result<()> {
    alone(|cluster| {
        sandbox(|it| {
            it.pool(
                "a",
                json!({"addresses": [it.range_v4(0, 1)], "priority": 1}),
            )?;
            it.pool(
                "asked",
                json!({"addresses": [it.range_v4(8, 19)], "autoAssign": false}),
            )?;
            for name in ["s0", "s1", "s2", "s3"] {
                it.service(name, json!({}))?;
                if name < "s2" {
                    it.wait_announced(name)?;
                } else {
                    it.expect_pending(name, "PoolExhausted")?;
                }
            }
            let vips =
                [0, 1].map(|index| herald("virtualips", &VirtualIp::object_name(it.v4(index))));
            let claims = || -> Result<Vec<_>> {
                vips.iter()
                    .map(|path| {
                        let vip = cluster.api.get(path)?;
                        Ok((vip["metadata"]["uid"].clone(), vip["spec"].clone()))
                    })
                    .collect()
            };
            let before = claims()?;
            let events = it.events("s0", "")?.len();
            let recording = cluster
                .api
                .record(&format!("/api/v1/namespaces/{}/services", it.namespace))?;
            for round in 0..5 {
                let old = leader(cluster)?.1;
                cluster.lab.kubectl([
                    "delete",
                    "pods",
                    "-n",
                    HERALD_NAMESPACE,
                    "-l",
                    "app.kubernetes.io/component=controller",
                ])?;
                eventually("another controller leads", LONG, || {
                    ensure!(leader(cluster)?.1 != old, "it is still {old}");
                    Ok(())
                })?;
                // It has seen everything when it has served a newcomer.
                let name = format!("round-{round}");
                let pool =
                    json!({"metadata": {"annotations": {"heraldlb.io/pool": it.name("asked")}}});
                it.service(&name, pool)?;
                it.wait_addresses(&name)?;
                throughout("nothing changes", Duration::from_secs(2), || {
                    same(&claims()?, &before)
                })?;
            }
            ensure!(recording.is_live(), "the watch has ended");
            for event in recording.events() {
                let service = &event["object"];
                let expected = match text(&service["metadata"]["name"]) {
                    "s0" => vec![it.v4(0)],
                    "s1" => vec![it.v4(1)],
                    "s2" | "s3" => vec![],
                    _ => continue,
                };
                same(&ingress(service), &expected)?;
            }
            for (name, index) in [("s0", 0), ("s1", 1)] {
                it.expect_addresses(name, &[it.v4(index)])?;
            }
            same(&it.events("s0", "")?.len(), &events).context("a restart is no change")
        })
    })
}

#[test]
fn the_standby_takes_over_when_the_leader_is_killed() -> Result<()> {
    alone(|cluster| {
        sandbox(|it| {
            it.pool("a", json!({"addresses": [it.range_v4(0, 9)]}))?;
            it.service("before", json!({}))?;
            it.expect_addresses("before", &[it.v4(0)])?;
            let (node, old) = leader(cluster)?;
            cluster.lab.kill_and_hold(&node, Program::Controller)?;
            eventually("the standby leads", LONG, || {
                ensure!(leader(cluster)?.1 != old, "it is still {old}");
                Ok(())
            })?;
            it.service("after", json!({}))?;
            it.expect_addresses("after", &[it.v4(1)])?;
            it.expect_addresses("before", &[it.v4(0)])
        })
    })
}

/// What its watches told it before may be old: it reads all lists anew, or it would take back an address from a
/// part of the pool that it has not heard of.
#[test]
fn a_leader_that_stood_still_leads_again_with_what_another_did_meanwhile() -> Result<()> {
    alone(|cluster| {
        sandbox(|it| {
            let pool = |last| it.pool("a", json!({"addresses": [it.range_v4(0, last)]}));
            pool(0)?;
            it.service("before", json!({}))?;
            it.expect_addresses("before", &[it.v4(0)])?;
            let (old_node, old) = leader(cluster)?;
            cluster.lab.freeze_program(&old_node, Program::Controller)?;
            let (new_node, _) = eventually("another leads", LONG, || {
                let new = leader(cluster)?;
                ensure!(new.1 != old, "it is still {old}");
                Ok(new)
            })?;
            pool(2)?;
            it.service("meanwhile", json!({}))?;
            it.expect_addresses("meanwhile", &[it.v4(1)])?;
            let services = format!("/api/v1/namespaces/{}/services", it.namespace);
            let recording = cluster.api.record(&services)?;

            cluster.lab.kill_and_hold(&new_node, Program::Controller)?;
            cluster.lab.thaw_program(&old_node, Program::Controller)?;
            it.service("after", json!({}))?;
            it.expect_addresses("after", &[it.v4(2)])?;
            same(&leader(cluster)?.1, &old)?;
            // Its watches may have caught up by chance: it is not to rest on that.
            let log = cluster
                .lab
                .kubectl(["logs", "-n", HERALD_NAMESPACE, &old])?;
            let (_, since) = log
                .rsplit_once("leads=true")
                .context("its log does not say that it leads")?;
            ensure!(
                since.contains("every list from the API server is complete"),
                "it leads by what it knew: {since}"
            );
            ensure!(recording.is_live(), "the watch has ended");
            for event in recording.events() {
                let service = &event["object"];
                let expected = match text(&service["metadata"]["name"]) {
                    "before" => it.v4(0),
                    "meanwhile" => it.v4(1),
                    _ => continue,
                };
                same(&ingress(service), &vec![expected])?;
            }
            Ok(())
        })
    })
}

#[test]
fn a_full_pool_for_the_namespace_falls_through_to_an_open_one() -> Result<()> {
    alone(|_| {
        sandbox(|it| {
            // Among pools of one priority the one made for the namespace comes first, whatever its name.
            it.pool("mine", json!({"addresses": [it.range_v4(4, 4)]}))?;
            let everybody = json!({"namespaces": []});
            it.pool(
                "everybodys",
                json!({"addresses": [it.range_v4(0, 3)], "allowed": everybody}),
            )?;
            it.service("first", json!({}))?;
            it.expect_addresses("first", &[it.v4(4)])?;
            it.service("second", json!({}))?;
            it.expect_addresses("second", &[it.v4(0)])
        })
    })
}

#[test]
fn installed_with_another_class_herald_serves_that_class_only() -> Result<()> {
    alone(|cluster| {
        sandbox(|it| {
            it.pool("a", json!({"addresses": [it.range_v4(0, 9)]}))?;
            install(cluster, &["loadBalancerClasses={example.com/foo}"])?;
            let result = (|| -> Result<()> {
                it.service("classless", json!({}))?;
                it.service(
                    "bar",
                    json!({"spec": {"loadBalancerClass": "example.com/bar"}}),
                )?;
                let before = [it.get_service("classless")?, it.get_service("bar")?];
                it.service(
                    "foo",
                    json!({"spec": {"loadBalancerClass": "example.com/foo"}}),
                )?;
                it.expect_addresses("foo", &[it.v4(0)])?;
                it.wait_announced("foo")?;
                for (name, before) in ["classless", "bar"].into_iter().zip(before) {
                    same(&it.get_service(name)?, &before)?;
                    none(&it.events(name, "")?)?;
                }
                Ok(())
            })();
            install(cluster, &[])?;
            result?;
            it.wait_addresses("classless")?;
            // Of a class that is ours no longer: it gives its address back, once.
            it.expect_addresses("foo", &[])
        })
    })
}
