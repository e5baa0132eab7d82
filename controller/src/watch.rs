//! Watches: from the API server's objects to the core's inputs.
//!
//! One task for each kind. An object that cannot be decoded does not stop the others: it is told
//! of as invalid where its kind knows that, else its last form stays.

mod relist;

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use herald_controller_core::Input;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::api::Api;
use kube::core::DeserializeGuard;
use kube::runtime::watcher;
use serde::de::DeserializeOwned;
use tokio::sync::{self, mpsc};

use relist::{Change, Relist};

/// The API server ends each watch after this time, so that a connection that died without a word
/// is noticed within a few seconds more.
const WATCH_SECONDS: u32 = 45;

/// The wait after a watch's first failure, and the longest. Short, as whoever waits for an address
/// after an outage of the API server waits for this.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LAST: Duration = Duration::from_secs(3);

/// The wait before an API server that does not have a kind is asked again: it may be upgraded.
const RETRY_UNSERVED: Duration = Duration::from_mins(5);

/// What a watch tells the driver.
#[derive(Debug)]
pub enum Told {
    /// Something for the core.
    Input(Input),
    /// A kind's first list is complete that was begun after the lists were asked for this many times.
    Complete(u64),
}

/// How one kind of object becomes inputs.
pub trait Kind: Send + Sync + 'static {
    /// The API's type.
    type Object: Resource<DynamicType = ()>
        + Clone
        + Debug
        + DeserializeOwned
        + Send
        + Sync
        + 'static;
    /// What tells objects of the kind apart.
    type Key: Ord + Clone + Send;

    /// The kind's name, for logs.
    const NAME: &'static str;

    /// Whether an API server that does not have the kind is as good as one with no such object.
    const WHERE_SERVED: bool = false;

    /// The object's key; `None`: the object does not matter.
    fn key(meta: &ObjectMeta) -> Option<Self::Key>;

    /// The object is there.
    fn applied(&self, object: Self::Object) -> Option<Input>;

    /// The object is there but cannot be decoded; `None`: its last form stays.
    fn undecodable(&self, _meta: &ObjectMeta, _error: &str) -> Option<Input> {
        None
    }

    /// The object is gone.
    fn deleted(&self, key: Self::Key) -> Option<Input>;
}

/// How many watches are without an answer now; says so once when the first loses touch, and once
/// when the last is back.
#[derive(Clone, Debug, Default)]
pub struct Touch(Arc<AtomicU32>);

impl Touch {
    fn lost(&self, kind: &str, error: &watcher::Error) {
        let first = self.0.fetch_add(1, Ordering::Relaxed) == 0;
        if let watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) = error
        {
            let error = &status.message;
            tracing::error!(kind, error, "the API server refuses a watch: trying again");
        } else if first {
            tracing::warn!(
                kind,
                error = error as &dyn std::error::Error,
                "the API server does not answer: addresses stay as they are, changes wait"
            );
        } else {
            tracing::debug!(kind, error = error as &dyn std::error::Error, "watch lost");
        }
    }

    fn back(&self, kind: &str) {
        if self.0.fetch_sub(1, Ordering::Relaxed) == 1 {
            tracing::info!("the API server answers again");
        } else {
            tracing::debug!(kind, "watch is back");
        }
    }
}

/// Watches one kind for ever, and begins with a list anew whenever `lists` counts up; ends only when nobody
/// listens any more.
pub async fn watch<K: Kind>(
    kind: K,
    api: Api<DeserializeGuard<K::Object>>,
    config: watcher::Config,
    touch: Touch,
    mut lists: sync::watch::Receiver<u64>,
    tell: mpsc::Sender<Told>,
) {
    let config = config.timeout(WATCH_SECONDS);
    let begin = || watcher(api.clone(), config.clone()).boxed();
    let mut asked = *lists.borrow_and_update();
    let mut stream = begin();
    let mut relist = Relist::new();
    let mut in_touch = true;
    let mut wait = RETRY_FIRST;
    let mut unserved = false;
    loop {
        let event = tokio::select! {
            biased;
            changed = lists.changed() => {
                if changed.is_err() {
                    return;
                }
                asked = *lists.borrow_and_update();
                relist.begin_anew();
                stream = begin();
                continue;
            }
            Some(event) = stream.next() => event,
            else => return,
        };
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                if K::WHERE_SERVED && is_unserved(&error) {
                    if !unserved {
                        unserved = true;
                        tracing::info!(kind = K::NAME, "the API server does not have this kind");
                    }
                    if !in_touch {
                        in_touch = true;
                        touch.back(K::NAME);
                    }
                    for change in relist.unserved() {
                        if !tell_of(&kind, change, asked, &tell).await {
                            return;
                        }
                    }
                    // Whoever wants a list need not wait.
                    if let Ok(Ok(())) = tokio::time::timeout(RETRY_UNSERVED, lists.changed()).await
                    {
                        lists.mark_changed();
                    }
                    continue;
                }
                // An expired version is the API server's ordinary way to ask for a new list.
                let expired =
                    matches!(&error, watcher::Error::WatchError(status) if status.code == 410);
                if in_touch && !expired {
                    in_touch = false;
                    touch.lost(K::NAME, &error);
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_LAST);
                continue;
            }
        };
        // A list that only begins proves nothing.
        if !matches!(event, watcher::Event::Init) {
            wait = RETRY_FIRST;
            if !in_touch {
                in_touch = true;
                touch.back(K::NAME);
            }
        }
        for change in relist.handle(event, |object| K::key(object.meta())) {
            if !tell_of(&kind, change, asked, &tell).await {
                return;
            }
        }
    }
}

/// Whether somebody listens still.
async fn tell_of<K: Kind>(
    kind: &K,
    change: Change<K::Key, DeserializeGuard<K::Object>>,
    asked: u64,
    tell: &mpsc::Sender<Told>,
) -> bool {
    let told = match change {
        Change::Applied(object) => input(kind, object).map(Told::Input),
        Change::Deleted(key) => kind.deleted(key).map(Told::Input),
        Change::Complete => Some(Told::Complete(asked)),
    };
    match told {
        Some(told) => tell.send(told).await.is_ok(),
        None => true,
    }
}

/// Whether the API server says that it does not have the kind.
fn is_unserved(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}

fn input<K: Kind>(kind: &K, object: DeserializeGuard<K::Object>) -> Option<Input> {
    match object.0 {
        Ok(object) => kind.applied(object),
        Err(invalid) => {
            tracing::warn!(
                kind = K::NAME,
                namespace = invalid.metadata.namespace,
                name = invalid.metadata.name,
                error = invalid.error,
                "object cannot be decoded: its last valid state stays in force"
            );
            kind.undecodable(&invalid.metadata, &invalid.error)
        }
    }
}
