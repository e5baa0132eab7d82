//! What each test has for itself on the shared cluster: a namespace, a slice of the addresses.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use herald_lab::{ECHO_IMAGE, HERALD_NAMESPACE};
use herald_model::VirtualIp;
use serde_json::{Value, json};

use crate::api::herald;
use crate::client::Client;
use crate::cluster::{Cluster, cluster};
use crate::object::{condition, conditions, ingress, items, namespace, text, with};
use crate::wait::{LONG, eventually, same};

/// 172.30.64.0 to 172.30.125.255, 32 each; the rest of the pool range is for tests that need certain addresses.
const SLICES: u16 = 62 * 8;
/// How many addresses a slice has.
pub const SLICE: u8 = 32;

/// The namespace with the echo pods that tests of forwarding share: starting pods is what costs most.
const BACKEND: &str = "backend";
/// How many pods [`backend`] has.
pub const BACKEND_PODS: usize = 6;

const LABEL: &str = "herald-e2e";

/// A test's own part of the cluster.
#[derive(Debug)]
pub struct Sandbox {
    /// The shared cluster.
    pub cluster: &'static Cluster,
    /// The namespace of the test's Services.
    pub namespace: String,
    /// The test's own name, a label of all it makes; names of its cluster-scoped objects begin with it.
    id: String,
    slice: u16,
    began: Instant,
}

/// Runs a test in a sandbox named after it, and cleans up. A failure says what the test's objects
/// look like, and where the logs are.
///
/// # Errors
///
/// The test's.
pub fn sandbox(test: impl FnOnce(&Sandbox) -> Result<()>) -> Result<()> {
    run(&Sandbox::new()?, test)
}

/// The same beside six echo pods, two on each node, that all such tests share. Their label is `app:
/// echo`, as [`Sandbox::service`] has it.
///
/// # Errors
///
/// The test's, or that the pods don't become ready.
pub fn backend(test: impl FnOnce(&Sandbox) -> Result<()>) -> Result<()> {
    static READY: Mutex<bool> = Mutex::new(false);
    let mut sandbox = Sandbox::new()?;
    BACKEND.clone_into(&mut sandbox.namespace);
    let mut ready = READY.lock().unwrap_or_else(PoisonError::into_inner);
    if !*ready {
        sandbox.cluster.api.apply(&namespace(BACKEND))?;
        sandbox.pods("echo", BACKEND_PODS, &json!({}))?;
        *ready = true;
    }
    drop(ready);
    run(&sandbox, test)
}

fn run(sandbox: &Sandbox, test: impl FnOnce(&Sandbox) -> Result<()>) -> Result<()> {
    let result = test(sandbox).map_err(|error| {
        let kept = match sandbox.keep_logs(&error) {
            Ok(path) => format!("objects and logs are in {}", path.display()),
            Err(why) => format!("objects and logs could not be kept: {why:#}"),
        };
        // Where the files of a run are not kept, this is all that is left of it.
        let story = sandbox.cluster.story(sandbox.began.elapsed());
        error.context(format!("what Herald told meanwhile:\n{story}{kept}"))
    });
    let cleaned = sandbox.clean_up();
    result?;
    cleaned
}

impl Sandbox {
    fn new() -> Result<Self> {
        let cluster = cluster()?;
        let slice = next_slice(cluster)?;
        // The harness names a test's thread after it.
        let thread = std::thread::current();
        let test = thread
            .name()
            .and_then(|name| name.rsplit("::").next())
            .unwrap_or("test");
        let mut name: String = test.replace('_', "-").chars().take(48).collect();
        name = format!("{}-{slice}", name.trim_end_matches('-'));
        cluster.api.apply(&with(
            namespace(&name),
            json!({"metadata": {"labels": {LABEL: "test"}}}),
        ))?;
        Ok(Self {
            cluster,
            namespace: name.clone(),
            id: name,
            slice,
            began: Instant::now(),
        })
    }

    /// The test's IPv4 addresses, from 0 to [`SLICE`] - 1.
    pub fn v4(&self, index: u8) -> IpAddr {
        let first = u32::from(Ipv4Addr::new(172, 30, 64, 0));
        let offset = u32::from(self.slice) * u32::from(SLICE) + u32::from(index % SLICE);
        Ipv4Addr::from(first + offset).into()
    }

    /// The test's IPv6 addresses, from 0 to [`SLICE`] - 1.
    pub fn v6(&self, index: u8) -> IpAddr {
        Ipv6Addr::new(0xfd30, 0, 0, 0, 0, 1, self.slice, (index % SLICE).into()).into()
    }

    /// A range of the test's IPv4 addresses, both ends included.
    pub fn range_v4(&self, first: u8, last: u8) -> String {
        format!("{}-{}", self.v4(first), self.v4(last))
    }

    /// A range of the test's IPv6 addresses, both ends included.
    pub fn range_v6(&self, first: u8, last: u8) -> String {
        format!("{}-{}", self.v6(first), self.v6(last))
    }

    /// The full name of a pool or advertisement of the test's.
    pub fn name(&self, short: &str) -> String {
        format!("{}-{short}", self.id)
    }

    /// The full name of a Service of the test's: in a shared namespace it needs more than its own.
    pub fn service_name(&self, short: &str) -> String {
        if self.namespace == self.id {
            short.to_owned()
        } else {
            format!("{short}-{}", self.slice)
        }
    }

    /// Applies a pool that serves the test's namespace only, unless `spec` says otherwise.
    ///
    /// # Errors
    ///
    /// If it is refused.
    pub fn pool(&self, short: &str, spec: Value) -> Result<()> {
        let own = json!({"matchLabels": {LABEL: self.id}});
        let base = if self.namespace == self.id {
            json!({"allowed": {"namespaces": [self.namespace]}})
        } else {
            json!({"allowed": {"namespaces": [self.namespace], "serviceSelectors": [own]}})
        };
        let pool = json!({
            "apiVersion": "heraldlb.io/v1alpha1",
            "kind": "IPPool",
            "metadata": {"name": self.name(short), "labels": {LABEL: self.id}},
            "spec": with(base, spec),
        });
        self.cluster.api.apply(&pool).map(drop)
    }

    /// Applies an advertisement of the test's pools.
    ///
    /// # Errors
    ///
    /// If it is refused.
    pub fn advertisement(&self, short: &str, spec: Value) -> Result<()> {
        let base = json!({"poolSelectors": [{"matchLabels": {LABEL: self.id}}]});
        let advertisement = json!({
            "apiVersion": "heraldlb.io/v1alpha1",
            "kind": "L2Advertisement",
            "metadata": {"name": self.name(short), "labels": {LABEL: self.id}},
            "spec": with(base, spec),
        });
        self.cluster.api.apply(&advertisement).map(drop)
    }

    /// Deletes a pool of the test's.
    ///
    /// # Errors
    ///
    /// If the API server refuses.
    pub fn delete_pool(&self, short: &str) -> Result<()> {
        self.cluster
            .api
            .delete(&herald("ippools", &self.name(short)))
    }

    /// Waits until a pool says that so many of its addresses of a family, `ipv4` or `ipv6`, are free. An
    /// address is only once its claim has ended, and the controller has heard of that.
    ///
    /// # Errors
    ///
    /// If it says something else in the end.
    pub fn expect_available(&self, short: &str, family: &str, count: usize) -> Result<()> {
        let path = herald("ippools", &self.name(short));
        let expected = format!("{count} {family} addresses of pool {short} are free");
        eventually(&expected, LONG, || {
            let pool = self.cluster.api.get(&path)?;
            let available = text(&pool["status"][family]["available"]).to_owned();
            same(&available, &count.to_string())
        })
    }

    /// Path of a Service of the test's.
    pub fn service_path(&self, name: &str) -> String {
        let name = self.service_name(name);
        format!("/api/v1/namespaces/{}/services/{name}", self.namespace)
    }

    /// Applies a Service of type `LoadBalancer` for the echo pods, IPv4, port 80, with `patch` over it.
    ///
    /// # Errors
    ///
    /// If it is refused.
    pub fn service(&self, name: &str, patch: Value) -> Result<()> {
        let base = json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": self.service_name(name),
                "namespace": self.namespace,
                "labels": {LABEL: self.id},
            },
            "spec": {
                "type": "LoadBalancer",
                "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack",
                "selector": {"app": "echo"},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            },
        });
        self.cluster.api.apply(&with(base, patch)).map(drop)
    }

    /// The same with an address of each family.
    ///
    /// # Errors
    ///
    /// If it is refused.
    pub fn dual_service(&self, name: &str, patch: Value) -> Result<()> {
        let dual =
            json!({"spec": {"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}});
        self.service(name, with(dual, patch))
    }

    /// Deletes a Service.
    ///
    /// # Errors
    ///
    /// If the API server refuses.
    pub fn delete_service(&self, name: &str) -> Result<()> {
        self.cluster.api.delete(&self.service_path(name))
    }

    /// A Service as it is.
    ///
    /// # Errors
    ///
    /// If there is none.
    pub fn get_service(&self, name: &str) -> Result<Value> {
        self.cluster.api.get(&self.service_path(name))
    }

    /// The addresses in a Service's status; an error with its conditions if there are none.
    ///
    /// # Errors
    ///
    /// If there are none.
    pub fn addresses(&self, name: &str) -> Result<Vec<IpAddr>> {
        let service = self.get_service(name)?;
        let addresses = ingress(&service);
        ensure!(
            !addresses.is_empty(),
            "Service {name} has no address{}",
            conditions(&service)
        );
        Ok(addresses)
    }

    /// Waits until a Service has addresses: which.
    ///
    /// # Errors
    ///
    /// If it gets none.
    pub fn wait_addresses(&self, name: &str) -> Result<Vec<IpAddr>> {
        eventually(&format!("Service {name} has an address"), LONG, || {
            self.addresses(name)
        })
    }

    /// Waits until a Service has its first address and a node announces it: the address.
    ///
    /// # Errors
    ///
    /// If that does not come about.
    pub fn wait_announced(&self, name: &str) -> Result<IpAddr> {
        let addresses = self.wait_addresses(name)?;
        for address in &addresses {
            eventually(&format!("{address} is announced"), LONG, || {
                self.cluster.announcer(*address)
            })?;
        }
        addresses.first().copied().context("there is one")
    }

    /// Waits until a Service has exactly these addresses, in this order.
    ///
    /// # Errors
    ///
    /// If it has others in the end.
    pub fn expect_addresses(&self, name: &str, expected: &[IpAddr]) -> Result<()> {
        eventually(&format!("Service {name} has {expected:?}"), LONG, || {
            let service = self.get_service(name)?;
            same(&ingress(&service), &expected.to_vec()).with_context(|| conditions(&service))
        })
    }

    /// Waits until a Service is said to have no address for this reason, and has none.
    ///
    /// # Errors
    ///
    /// If something else is so.
    pub fn expect_pending(&self, name: &str, reason: &str) -> Result<()> {
        let expected = format!("Service {name} is pending because of {reason}");
        eventually(&expected, LONG, || {
            let service = self.get_service(name)?;
            let allocated = condition(&service, "heraldlb.io/Allocated");
            same(
                &(text(&allocated["status"]), text(&allocated["reason"])),
                &("False", reason),
            )
            .with_context(|| conditions(&service))?;
            ensure!(
                ingress(&service).is_empty(),
                "it has {:?}",
                ingress(&service)
            );
            Ok(())
        })
    }

    /// The Events of Herald's about a Service of the test's, with this reason; "" is any.
    ///
    /// # Errors
    ///
    /// If they can't be listed.
    pub fn events(&self, name: &str, reason: &str) -> Result<Vec<Value>> {
        let of = self.service_name(name);
        let path = format!(
            "/apis/events.k8s.io/v1/namespaces/{}/events",
            self.namespace
        );
        let mut events = self.cluster.api.list(&path)?;
        events.retain(|event| {
            text(&event["regarding"]["name"]) == of
                && text(&event["reportingController"]).contains("herald")
                && (reason.is_empty() || text(&event["reason"]) == reason)
        });
        Ok(events)
    }

    /// Waits for an Event about a Service: its note.
    ///
    /// # Errors
    ///
    /// If it does not come; those that came are in the message.
    pub fn expect_event(&self, name: &str, kind: &str, reason: &str) -> Result<String> {
        self.wait_event(name, kind, reason, |_| true)
    }

    /// Waits for an Event about one of a Service's addresses: its note. Who announces is told for each
    /// address on its own, as one Service's addresses may be on different nodes.
    ///
    /// # Errors
    ///
    /// If it does not come; those that came are in the message.
    pub fn expect_event_of(
        &self,
        name: &str,
        kind: &str,
        reason: &str,
        address: IpAddr,
    ) -> Result<String> {
        let vip = VirtualIp::object_name(address);
        self.wait_event(name, kind, reason, |event| {
            text(&event["related"]["name"]) == vip
        })
    }

    fn wait_event(
        &self,
        name: &str,
        kind: &str,
        reason: &str,
        is_it: impl Fn(&Value) -> bool,
    ) -> Result<String> {
        eventually(&format!("an Event {reason} about {name}"), LONG, || {
            let events = self.events(name, reason)?;
            let event = events
                .iter()
                .find(|event| text(&event["type"]) == kind && is_it(event))
                .with_context(|| {
                    format!(
                        "there are only {:?}",
                        self.events(name, "").map(|all| lines(&all))
                    )
                })?;
            Ok(text(&event["note"]).to_owned())
        })
    }

    /// Runs echo pods, labelled `app: NAME`, spread over the nodes, with `patch` over the pods' spec;
    /// returns when all are ready.
    ///
    /// # Errors
    ///
    /// If they don't become ready.
    pub fn pods(&self, name: &str, replicas: usize, patch: &Value) -> Result<()> {
        self.apply_pods(name, replicas, patch)?;
        let deployment = format!(
            "/apis/apps/v1/namespaces/{}/deployments/{name}",
            self.namespace
        );
        let expected = format!("{replicas} pods of {name} are ready");
        eventually(&expected, Duration::from_mins(2), || {
            let status = &self.cluster.api.get(&deployment)?["status"];
            same(
                &status["readyReplicas"].as_u64().unwrap_or(0),
                &(replicas as u64),
            )
        })
    }

    /// As [`Sandbox::pods`], without waiting.
    ///
    /// # Errors
    ///
    /// If they are refused.
    pub fn apply_pods(&self, name: &str, replicas: usize, patch: &Value) -> Result<()> {
        let env = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
        let labels = json!({"app": name});
        let spec = json!({
            "terminationGracePeriodSeconds": 1,
            // They are to stay where they are, whatever befalls the node.
            "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
            "topologySpreadConstraints": [{
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels},
            }],
            "containers": [{
                "name": "echo",
                "image": ECHO_IMAGE,
                "env": [env("POD", "metadata.name"), env("NODE", "spec.nodeName")],
                "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
            }],
        });
        let deployment = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": self.namespace},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": with(spec, patch.clone())},
            },
        });
        self.cluster.api.apply(&deployment).map(drop)
    }

    /// The node selector of pods that all run on one node.
    pub fn on_node(node: &str) -> Value {
        json!({"nodeSelector": {"kubernetes.io/hostname": node}})
    }

    /// The first client.
    pub fn client(&self) -> Client<'_> {
        Client::at(&self.cluster.lab, "client")
    }

    /// Keeps what there is to know of a failed test: where.
    fn keep_logs(&self, error: &anyhow::Error) -> Result<PathBuf> {
        let folder = std::env::var_os("HERALD_LOGS")
            .map_or_else(|| std::env::temp_dir().join("herald-e2e"), PathBuf::from);
        fs::create_dir_all(&folder)?;
        let time = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let path = folder.join(format!("{}-{time}.log", self.id));
        let lab = &self.cluster.lab;
        let show = |args: &[&str]| lab.kubectl(args).unwrap_or_else(|error| error.to_string());
        let mut text = format!("{error:#}\n");
        let selector = format!("{LABEL}={}", self.id);
        for args in [
            &[
                "get",
                "services,endpointslices,pods",
                "-o",
                "wide",
                "-n",
                &self.namespace,
            ][..],
            &[
                "get",
                "ippools,l2advertisements",
                "-o",
                "wide",
                "-l",
                &selector,
            ],
            &["get", "virtualips,speakers,nodes", "-o", "wide"],
            &["get", "pods,leases", "-A", "-o", "wide"],
            &["events", "-n", &self.namespace],
            &["events", "-n", HERALD_NAMESPACE],
            &["get", "services", "-o", "yaml", "-n", &self.namespace],
            &["get", "virtualips,speakers,ippools", "-o", "yaml"],
        ] {
            // Writing to a String cannot fail.
            write!(text, "\n##### {}\n{}", args.join(" "), show(args)).ok();
        }
        text += &self.cluster.logs();
        fs::write(&path, text)?;
        Ok(path)
    }

    fn clean_up(&self) -> Result<()> {
        let api = &self.cluster.api;
        // Services first: their addresses are to be given back, not to be taken away.
        let services = format!("/api/v1/namespaces/{}/services", self.namespace);
        for service in api.list(&format!("{services}?labelSelector={LABEL}%3D{}", self.id))? {
            api.delete(&format!(
                "{services}/{}",
                text(&service["metadata"]["name"])
            ))?;
        }
        api.delete(&format!("/api/v1/namespaces/{}", self.id))?;
        for plural in ["l2advertisements", "ippools"] {
            let selector = format!("?labelSelector={LABEL}%3D{}", self.id);
            for object in api.list(&(herald(plural, "") + &selector))? {
                api.delete(&herald(plural, text(&object["metadata"]["name"])))?;
            }
        }
        Ok(())
    }
}

/// Events, one a line.
fn lines(events: &[Value]) -> Vec<String> {
    events
        .iter()
        .map(|event| {
            format!(
                "{} {} {}: {}",
                text(&event["type"]),
                text(&event["reason"]),
                text(&event["regarding"]["name"]),
                text(&event["note"])
            )
        })
        .collect()
}

/// The next number, over all processes that test on this lab.
fn next_slice(cluster: &Cluster) -> Result<u16> {
    let path = cluster.lab.folder().join("e2e-slices");
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    file.lock()?;
    let mut number = String::new();
    file.read_to_string(&mut number)?;
    let next: u16 = number.trim().parse().unwrap_or(0);
    file.rewind()?;
    file.set_len(0)?;
    write!(file, "{}", (next + 1) % SLICES)?;
    Ok(next % SLICES)
}

/// That there is no Event.
///
/// # Errors
///
/// Those there are.
pub fn none(events: &[Value]) -> Result<()> {
    ensure!(events.is_empty(), "there are Events: {:?}", lines(events));
    Ok(())
}

/// The names in a `spec.segments[].candidates` list.
pub fn candidates(vip: &Value) -> Vec<&str> {
    items(&vip["spec"]["segments"])
        .iter()
        .flat_map(|segment| items(&segment["candidates"]))
        .map(|candidate| text(&candidate["node"]))
        .collect()
}
