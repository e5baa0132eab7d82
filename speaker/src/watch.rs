//! Watches of the API server, as inputs of the core.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures::StreamExt as _;
use herald_api as api;
use herald_config::{Change, Relist, ServiceFlags, WatchEvent};
use herald_model::{Endpoint, NodeName, PROXY_NAME, ServiceKey, VirtualIp};
use herald_speaker_core::{Cache, Input};
use k8s_openapi::api::core::v1::{Node, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, DefaultBackoff, Event};
use kube::{Api, Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;
use tracing::{Instrument as _, debug, info, info_span, warn};

use crate::io::rings::KeyStore;
use crate::snapshot::{self, Folder, Snapshot};
use crate::{convert, keys};

/// The API server ends a watch after this; a half-open connection is noticed soon after.
const WATCH_SECONDS: u32 = 60;

/// Objects that are asked for at a time. Those of a page are in memory three times: as they came, as text,
/// and with all that the API server knows of who wrote which field.
const PAGE: u32 = 100;

/// The uid of the Node we run on, once it was seen.
#[derive(Clone)]
pub(crate) struct OwnNode {
    name: NodeName,
    uid: Arc<ArcSwapOption<String>>,
}

impl OwnNode {
    pub(crate) fn new(name: NodeName) -> Self {
        Self {
            name,
            uid: Arc::default(),
        }
    }

    fn see(&self, name: &NodeName, object: &Node) {
        if *name == self.name {
            self.uid.store(object.metadata.uid.clone().map(Arc::new));
        }
    }

    /// The owner of our `Speaker` object: the garbage collector removes it with the Node.
    pub(crate) fn as_owner(&self) -> Option<OwnerReference> {
        let uid = self.uid.load_full()?;
        Some(OwnerReference {
            api_version: Node::api_version(&()).into_owned(),
            kind: Node::kind(&()).into_owned(),
            name: self.name.to_string(),
            uid: uid.to_string(),
            ..OwnerReference::default()
        })
    }
}

/// Starts all watches. They go on, whatever happens to the API server, until the set is dropped.
pub(crate) fn start(
    client: &Client,
    flags: &ServiceFlags,
    inputs: &UnboundedSender<Input>,
    refresh: &watch::Receiver<u64>,
    own_node: &OwnNode,
    folder: &Folder,
    keys: RingSecret,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let calls = Calls::with(refresh);
    let send = |inputs: &UnboundedSender<Input>| {
        let inputs = inputs.clone();
        move |input| {
            if inputs.send(input).is_err() {
                debug!("nobody listens to watches any more");
            }
        }
    };

    let mut tell = send(inputs);
    tasks.spawn(follow(
        Memory::new(folder, inputs, "virtualips", Some(Cache::Vips)),
        Api::<api::VirtualIP>::all(client.clone()),
        config(),
        calls.clone(),
        |object| object.metadata.name.clone().unwrap_or_default(),
        move |change| vip_changed(change, &mut tell),
    ));

    let (mut tell, flags_of_services) = (send(inputs), flags.clone());
    tasks.spawn(follow(
        Memory::new(folder, inputs, "services", Some(Cache::Services)),
        Api::<Service>::all(client.clone()),
        // A Service that stops to be a LoadBalancer comes as a deletion.
        config().fields("spec.type=LoadBalancer"),
        calls.clone(),
        herald_config::service_key,
        move |change| service_changed(change, &flags_of_services, &mut tell),
    ));

    let mut tell = send(inputs);
    let mut slices = Slices::default();
    tasks.spawn(follow(
        Memory::new(folder, inputs, "endpointslices", Some(Cache::Endpoints)),
        Api::<EndpointSlice>::all(client.clone()),
        config().labels("kubernetes.io/service-name,!service.kubernetes.io/headless"),
        calls.clone(),
        |object| {
            (
                object.metadata.namespace.clone().unwrap_or_default(),
                object.metadata.name.clone().unwrap_or_default(),
            )
        },
        move |change| slices.changed(change, &mut tell),
    ));

    let (tell, ignore_exclude) = (send(inputs), flags.ignore_exclude_label);
    let own_node = own_node.clone();
    tasks.spawn(follow(
        Memory::new(folder, inputs, "nodes", Some(Cache::Nodes)),
        Api::<Node>::all(client.clone()),
        config(),
        calls.clone(),
        |object| NodeName::from(object.metadata.name.clone().unwrap_or_default()),
        move |change| {
            tell(match change {
                Change::Applied(name, object) => {
                    own_node.see(&name, &object);
                    Input::NodeApplied {
                        node: herald_config::node(&object, ignore_exclude),
                        segments: herald_config::segment_overrides(&object),
                    }
                }
                Change::Deleted(name) => Input::NodeDeleted(name),
                Change::Synced => Input::Synced(Cache::Nodes),
            });
        },
    ));

    let tell = send(inputs);
    tasks.spawn(follow(
        Memory::new(folder, inputs, "speakers", Some(Cache::Speakers)),
        Api::<api::Speaker>::all(client.clone()),
        config(),
        calls.clone(),
        |object| NodeName::from(object.metadata.name.clone().unwrap_or_default()),
        move |change| {
            tell(match change {
                Change::Applied(_, object) => {
                    Input::SpeakerApplied(convert::observed_speaker(&object))
                }
                Change::Deleted(name) => Input::SpeakerDeleted(name),
                Change::Synced => Input::Synced(Cache::Speakers),
            });
        },
    ));

    let tell = send(inputs);
    let RingSecret { name, store } = keys;
    tasks.spawn(follow(
        Memory::new(folder, inputs, "ring-key", None),
        Api::<Secret>::default_namespaced(client.clone()),
        config().fields(&format!("metadata.name={name}")),
        calls.clone(),
        |object| object.metadata.name.clone().unwrap_or_default(),
        move |change| match change {
            Change::Applied(_, secret) => tell(Input::RingKeysKnown(keys::store(&store, &secret))),
            // Whoever deleted it has not told the others to forget it.
            Change::Deleted(name) => warn!(
                secret = name,
                "the ring's Secret is gone, its keys stay in use"
            ),
            Change::Synced => {}
        },
    ));
    tasks
}

/// Where the keys of the rings come from, and where they go.
pub(crate) struct RingSecret {
    /// The name of the Secret.
    pub(crate) name: String,
    /// Shared with the rings.
    pub(crate) store: KeyStore,
}

fn config() -> watcher::Config {
    watcher::Config::default()
        .timeout(WATCH_SECONDS)
        .page_size(PAGE)
}

/// kube's usual backoff, but no wait is long: a node that was cut off is to hear soon what it missed.
struct Prompt(DefaultBackoff);

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

impl Iterator for Prompt {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|wait| wait.min(LONGEST_WAIT))
    }
}

impl Backoff for Prompt {
    fn reset(&mut self) {
        self.0.reset();
    }
}

/// What has watches begin anew.
#[derive(Clone)]
struct Calls {
    /// Counts how often all are to.
    all: watch::Receiver<u64>,
    /// Counts how often one that had failed is back: those that fail still try at once. Services that are
    /// heard of long before their endpoints get no traffic here until then.
    back: watch::Sender<u64>,
}

impl Calls {
    fn with(all: &watch::Receiver<u64>) -> Self {
        Self {
            all: all.clone(),
            back: watch::Sender::new(0),
        }
    }
}

/// How long the first list may take before what is on disk is used.
const PATIENCE: Duration = Duration::from_secs(3);

/// What is kept of one kind of object from one start to the next.
struct Memory<Key> {
    kind: &'static str,
    cache: Option<Cache>,
    snapshot: Snapshot<Key>,
    inputs: UnboundedSender<Input>,
    /// Whether what was told is from disk.
    is_old: bool,
}

impl<Key: Ord + Clone + Send + 'static> Memory<Key> {
    fn new(
        folder: &Folder,
        inputs: &UnboundedSender<Input>,
        kind: &'static str,
        cache: Option<Cache>,
    ) -> Self {
        Self {
            kind,
            cache,
            snapshot: folder.snapshot(kind),
            inputs: inputs.clone(),
            is_old: false,
        }
    }

    fn tell(&self, input: Input) {
        if self.inputs.send(input).is_err() {
            debug!("nobody listens to watches any more");
        }
    }

    /// What is on disk, as a list the API server might have sent.
    fn restore<K: DeserializeOwned>(&mut self, key: impl Fn(&K) -> Key) -> Vec<WatchEvent<Key, K>> {
        let Some(objects) = self.snapshot.load::<K>() else {
            return Vec::new();
        };
        warn!(
            objects = objects.len(),
            "no answer of the API server: using what is on disk"
        );
        self.is_old = true;
        if let Some(cache) = self.cache {
            self.tell(Input::Restored(cache));
        }
        let objects = objects
            .into_iter()
            .map(|object| WatchEvent::InitApply(key(&object), object));
        std::iter::once(WatchEvent::Init)
            .chain(objects)
            .chain([WatchEvent::InitDone])
            .collect()
    }

    /// Remembers what the API server said.
    fn note<K: Serialize>(&mut self, change: &Change<Key, K>) {
        match change {
            Change::Applied(key, object) => self.snapshot.apply(key.clone(), object),
            Change::Deleted(key) => self.snapshot.delete(key),
            Change::Synced => {}
        }
    }

    /// A list of the API server is complete.
    fn listed(&mut self) {
        self.snapshot.complete();
        if let (true, Some(cache)) = (std::mem::take(&mut self.is_old), self.cache) {
            self.tell(Input::Renewed(cache));
        }
    }
}

/// Follows one kind of object for ever; begins anew with a list when it is called.
async fn follow<K, Key>(
    mut memory: Memory<Key>,
    objects: Api<K>,
    config: watcher::Config,
    mut calls: Calls,
    key: impl Fn(&K) -> Key + Send,
    mut changed: impl FnMut(Change<Key, K>) + Send,
) where
    K: Resource + Clone + DeserializeOwned + Serialize + Debug + Send + 'static,
    Key: Ord + Clone + Send + 'static,
{
    let span = info_span!("watch", kind = memory.kind);
    let work = async move {
        let mut relist = Relist::default();
        let mut pending = Vec::new();
        let mut is_failing = false;
        let mut back = calls.back.subscribe();
        // Whether objects of a list have come that is not complete yet.
        let mut is_listing = false;
        let mut is_told = false;
        let begin = || {
            watcher::watcher(objects.clone(), config.clone())
                .backoff(Prompt(DefaultBackoff::default()))
                .boxed()
        };
        let mut events = begin();
        let patience = tokio::time::sleep(PATIENCE);
        tokio::pin!(patience);
        let mut save = tokio::time::interval(snapshot::SETTLE);
        save.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                Ok(()) = calls.all.changed() => {
                    debug!("asking for everything anew");
                    events = begin();
                    is_listing = false;
                    continue;
                }
                Ok(()) = back.changed(), if is_failing => {
                    debug!("another watch is back: trying again");
                    events = begin();
                    is_listing = false;
                    continue;
                }
                () = &mut patience, if !is_told && !is_listing => {
                    is_told = true;
                    for event in memory.restore(&key) {
                        relist.handle(event, &mut pending);
                    }
                    pending.drain(..).for_each(&mut changed);
                    continue;
                }
                _ = save.tick(), if memory.snapshot.is_due() => {
                    memory.snapshot.save().await;
                    continue;
                }
            };
            let event = match event {
                None => return,
                Some(Ok(event)) => event,
                Some(Err(error)) => {
                    is_listing = false;
                    // One line when it begins; the retries are of no interest to anybody.
                    if std::mem::replace(&mut is_failing, true) {
                        debug!(error = &error as &dyn Error, "still not watching");
                    } else {
                        warn!(
                            error = &error as &dyn Error,
                            "the watch broke, trying again"
                        );
                        back.mark_unchanged();
                    }
                    continue;
                }
            };
            let is_healthy = !matches!(event, Event::Init);
            if is_healthy && std::mem::take(&mut is_failing) {
                info!("watching again");
                calls.back.send_modify(|times| *times += 1);
            }
            is_listing = matches!(event, Event::InitApply(_));
            let is_listed = matches!(event, Event::InitDone);
            is_told |= is_listed;
            let event = match event {
                Event::Init => WatchEvent::Init,
                Event::InitApply(object) => WatchEvent::InitApply(key(&object), slim(object)),
                Event::InitDone => WatchEvent::InitDone,
                Event::Apply(object) => WatchEvent::Apply(key(&object), slim(object)),
                Event::Delete(object) => WatchEvent::Delete(key(&object)),
            };
            relist.handle(event, &mut pending);
            for change in pending.drain(..) {
                memory.note(&change);
                changed(change);
            }
            if is_listed {
                memory.listed();
            }
        }
    };
    work.instrument(span).await;
}

/// An object without the names of those who wrote its fields, which are of no use and most of its memory.
fn slim<K: Resource>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

fn vip_changed(change: Change<String, api::VirtualIP>, tell: &mut impl FnMut(Input)) {
    match change {
        Change::Applied(name, object) => match convert::observed_vip(&object) {
            Ok(observed) => tell(Input::VipApplied(observed)),
            // The last form that was understood stays in force.
            Err(error) => warn!(
                vip = name,
                reason = error.kind(),
                error = &error as &dyn Error,
                "a VirtualIP cannot be understood"
            ),
        },
        Change::Deleted(name) => {
            if let Some(address) = VirtualIp::address_of_object(&name) {
                tell(Input::VipDeleted(address));
            }
        }
        Change::Synced => tell(Input::Synced(Cache::Vips)),
    }
}

fn service_changed(
    change: Change<ServiceKey, Service>,
    flags: &ServiceFlags,
    tell: &mut impl FnMut(Input),
) {
    tell(match change {
        Change::Applied(key, object) => match herald_config::service(&object, flags) {
            Some(mut service) => {
                // Who selects by the others is the controller.
                service.labels.retain(|name, _| name == PROXY_NAME);
                service.selector = BTreeMap::new();
                Input::ServiceApplied(Box::new(service))
            }
            None => Input::ServiceDeleted(key),
        },
        Change::Deleted(key) => Input::ServiceDeleted(key),
        Change::Synced => Input::Synced(Cache::Services),
    });
}

/// The slices of each Service: a Service's endpoints are what all of them hold.
#[derive(Default)]
struct Slices {
    services: BTreeMap<SliceKey, ServiceKey>,
    /// What is of use of each; the objects themselves are many times as large.
    slices: BTreeMap<ServiceKey, Vec<(SliceKey, Vec<Endpoint>)>>,
}

/// Namespace and name.
type SliceKey = (String, String);

impl Slices {
    fn changed(&mut self, change: Change<SliceKey, EndpointSlice>, tell: &mut impl FnMut(Input)) {
        match change {
            Change::Applied(key, object) => {
                let service = herald_config::service_of_slice(&object);
                if self.services.get(&key) != service.as_ref() {
                    self.remove(&key, tell);
                }
                if let Some(service) = service {
                    self.services.insert(key.clone(), service.clone());
                    let said = herald_config::endpoints_of_slice(&object);
                    let slices = self.slices.entry(service.clone()).or_default();
                    match slices.iter_mut().find(|(known, _)| *known == key) {
                        Some((_, before)) => *before = said,
                        None => slices.push((key, said)),
                    }
                    self.tell_of(&service, tell);
                }
            }
            Change::Deleted(key) => self.remove(&key, tell),
            Change::Synced => tell(Input::Synced(Cache::Endpoints)),
        }
    }

    fn remove(&mut self, key: &SliceKey, tell: &mut impl FnMut(Input)) {
        let Some(service) = self.services.remove(key) else {
            return;
        };
        if let Some(slices) = self.slices.get_mut(&service) {
            slices.retain(|(known, _)| known != key);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
        self.tell_of(&service, tell);
    }

    fn tell_of(&self, service: &ServiceKey, tell: &mut impl FnMut(Input)) {
        tell(match self.slices.get(service) {
            Some(slices) => {
                let slices = slices.iter().map(|(_, said)| said.as_slice());
                Input::EndpointsApplied(herald_config::endpoints(service.clone(), slices))
            }
            None => Input::EndpointsDeleted(service.clone()),
        });
    }
}
