//! The driver: one loop that feeds the core and makes its writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail};
use arc_swap::ArcSwap;
use herald_config::ServiceFlags;
use herald_controller_core::{
    Controller, Effect, Input, Settings, Snapshot, Write, WriteId, WriteResult,
};
use herald_model::Instant;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{self, mpsc, oneshot};
use tokio::task::JoinSet;

use crate::admin::{self, Admin};
use crate::args::Args;
use crate::clock::Clock;
use crate::kinds;
use crate::lease::{Elector, Leadership};
use crate::metrics::Metrics;
use crate::once::{connect, speaker_pods};
use crate::ring_keys::Keeper;
use crate::watch::{Kind, Told, Touch, watch};
use crate::write::Writer;

/// How many inputs are taken before the core decides.
const BATCH: usize = 1024;
/// How often the snapshot for metrics is renewed.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(500);

/// What a finished write reports.
type Finished = (WriteId, Write, WriteResult);

/// Runs until a signal or a failure.
///
/// # Errors
///
/// If it cannot start, or a part of it ended that never should.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let rebalancing = args.rebalancing();
    let Args {
        services,
        admin_address,
        writes_at_once,
        namespace,
        name,
        ring_key_secret,
        ..
    } = args;
    let client = connect().await?;

    let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    let admin = Arc::new(Admin {
        ready: AtomicBool::new(false),
        metrics: Metrics::new(Arc::clone(&snapshot)),
    });
    let listener = admin::listen(admin_address).await?;

    // None of these tasks ends by itself: the first to end takes the process down.
    let mut tasks: JoinSet<&'static str> = JoinSet::new();
    {
        let admin = Arc::clone(&admin);
        tasks.spawn(async move {
            admin::serve(listener, admin).await;
            "admin server"
        });
    }
    let (tell, told) = mpsc::channel(BATCH);
    let lists = sync::watch::Sender::new(0);
    let mut watches = Watches {
        lists: lists.clone(),
        client: client.clone(),
        tasks,
        touch: Touch::default(),
        tell,
        count: 0,
    };
    watches.start(services, &namespace);
    let Watches {
        mut tasks, count, ..
    } = watches;

    let clock = Clock::start();
    let leases: Api<Lease> = Api::namespaced(client.clone(), &namespace);
    let (stop_election, stopped) = oneshot::channel();
    let (elect, elected) = mpsc::channel(1);
    let (leading, leads) = sync::watch::channel(false);
    let elector = Elector::new(leases, name.clone(), clock);
    let election = tokio::spawn(elector.run(elect, leading, stopped));
    let writer = Writer::new(client.clone(), name);
    tasks.spawn(Keeper::new(&client, &namespace, ring_key_secret, writer.clone()).run(leads));

    let seed = jiff::Timestamp::now().as_nanosecond();
    let seed = u64::try_from(seed & i128::from(u64::MAX)).unwrap_or_default();
    tracing::info!(seed, version = env!("CARGO_PKG_VERSION"), "started");
    let driver = Driver {
        controller: Controller::new(Settings {
            writes_at_once: usize::from(writes_at_once),
            seed,
            rebalancing,
        }),
        writer,
        writes: JoinSet::new(),
        clock,
        lease: None,
        lists,
        kinds: count,
        incomplete: count,
        admin,
        snapshot,
    };
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let ended = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = tasks.join_next() => Some(ended),
        () = driver.run(told, elected) => bail!("the driver ended"),
    };
    // The driver and its writes are gone by now: the lease is given back last.
    if stop_election.send(()).is_ok() {
        election.await.context("the election failed")?;
    }
    match ended {
        None => {
            tracing::info!("stopped");
            Ok(())
        }
        Some(Some(Ok(part))) => bail!("the {part} ended"),
        Some(Some(Err(error))) => Err(error).context("a task failed"),
        Some(None) => bail!("no task is left"),
    }
}

/// Starts watches.
struct Watches {
    client: Client,
    tasks: JoinSet<&'static str>,
    touch: Touch,
    lists: sync::watch::Sender<u64>,
    tell: mpsc::Sender<Told>,
    count: usize,
}

impl Watches {
    /// Watches all that matters.
    fn start(&mut self, services: ServiceFlags, namespace: &str) {
        let ignore_exclude = services.ignore_exclude_label;
        self.all(kinds::Services(services));
        self.all(kinds::Pools);
        self.all(kinds::Advertisements);
        self.all(kinds::Vips);
        self.all(kinds::Nodes { ignore_exclude });
        self.all(kinds::Speakers);
        self.all(kinds::Namespaces);
        self.all(kinds::ServiceRanges);
        self.all(kinds::Slices);
        let pods = Api::namespaced(self.client.clone(), namespace);
        let speakers = watcher::Config::default().labels(&speaker_pods());
        self.one(kinds::SpeakerPods, pods, speakers);
    }

    /// Watches a kind in all namespaces.
    fn all<K: Kind>(&mut self, kind: K) {
        let api = Api::all(self.client.clone());
        self.one(kind, api, watcher::Config::default());
    }

    fn one<K: Kind>(
        &mut self,
        kind: K,
        api: Api<kube::core::DeserializeGuard<K::Object>>,
        config: watcher::Config,
    ) {
        let (touch, tell) = (self.touch.clone(), self.tell.clone());
        let lists = self.lists.subscribe();
        self.tasks.spawn(async move {
            watch(kind, api, config, touch, lists, tell).await;
            K::NAME
        });
        self.count += 1;
    }
}

struct Driver {
    controller: Controller,
    writer: Writer,
    writes: JoinSet<Finished>,
    clock: Clock,
    /// Until when this replica has the lease, if it has.
    lease: Option<Instant>,
    /// How often all kinds were asked to begin with a list anew.
    lists: sync::watch::Sender<u64>,
    kinds: usize,
    /// Kinds whose list is not complete that was asked for last.
    incomplete: usize,
    admin: Arc<Admin>,
    snapshot: Arc<ArcSwap<Snapshot>>,
}

impl Driver {
    /// Ends only when those who feed it end.
    async fn run(
        mut self,
        mut told: mpsc::Receiver<Told>,
        mut elected: mpsc::Receiver<Leadership>,
    ) {
        let mut effects = Vec::new();
        let mut renew = tokio::time::interval(SNAPSHOT_EVERY);
        renew.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut origin = i64::MIN;
        loop {
            let deadline = self.controller.next_deadline().map(|at| self.clock.at(at));
            let due = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                // Whoever has lost the lease writes nothing more.
                biased;
                leadership = elected.recv() => match leadership {
                    Some(leadership) => self.take_leadership(leadership),
                    None => return,
                },
                _ = renew.tick() => {
                    // A step of the wall clock by more than the measuring error.
                    let now = self.clock.origin();
                    if origin.abs_diff(now) > 1 {
                        origin = now;
                        self.note(Input::WallClockSet { origin });
                    }
                    self.snapshot.store(Arc::new(self.controller.snapshot()));
                    continue;
                }
                Some(finished) = self.writes.join_next() => {
                    self.take_result(finished);
                    while let Some(finished) = self.writes.try_join_next() {
                        self.take_result(finished);
                    }
                }
                first = told.recv() => match first {
                    Some(first) => self.take_told(first, &mut told),
                    None => return,
                },
                () = due => {}
            }
            self.controller.on_deadline(self.clock.now(), &mut effects);
            for waited in self.controller.take_waits() {
                self.admin.metrics.allocated(waited);
            }
            for Effect::Write { id, write } in effects.drain(..) {
                let writer = self.writer.clone();
                self.writes.spawn(async move {
                    let write = *write;
                    let result = writer.write(write.clone()).await;
                    (id, write, result)
                });
            }
        }
    }

    fn note(&mut self, input: Input) {
        self.controller.note(self.clock.now(), input);
    }

    fn take_leadership(&mut self, leadership: Leadership) {
        self.admin
            .metrics
            .set_leader(leadership != Leadership::Lost);
        match leadership {
            Leadership::Until(until) => {
                // What the leader before did, and what it did that for, is to be known first.
                if self.lease.replace(until).is_none() {
                    self.incomplete = self.kinds;
                    self.lists.send_modify(|asked| *asked += 1);
                }
                self.lead();
            }
            Leadership::Lost => {
                self.lease = None;
                self.writes.abort_all();
                self.note(Input::LeadershipLost);
            }
        }
    }

    /// Leads with the lease, once every list is complete that was begun since it was won.
    fn lead(&mut self) {
        if let (Some(until), 0) = (self.lease, self.incomplete) {
            self.note(Input::LeadershipGained { until });
        }
    }

    fn take_told(&mut self, first: Told, more: &mut mpsc::Receiver<Told>) {
        self.take_one(first);
        for _ in 1..BATCH {
            match more.try_recv() {
                Ok(told) => self.take_one(told),
                Err(_none) => return,
            }
        }
    }

    fn take_one(&mut self, told: Told) {
        match told {
            Told::Input(input) => self.note(input),
            Told::Complete(asked) if asked == *self.lists.borrow() => {
                self.incomplete = self.incomplete.saturating_sub(1);
                if self.incomplete == 0 {
                    tracing::info!("every list from the API server is complete");
                    self.admin.ready.store(true, Ordering::Release);
                    self.note(Input::Synced);
                    self.lead();
                }
            }
            // Lists were asked for again meanwhile.
            Told::Complete(_) => {}
        }
    }

    fn take_result(&mut self, finished: Result<Finished, tokio::task::JoinError>) {
        // A write that was stopped because the lease was lost has no result.
        let Ok((id, write, result)) = finished else {
            return;
        };
        self.admin.metrics.count(&write, &result);
        log(&write, &result);
        self.note(Input::WriteDone { id, result });
    }
}

/// One line for each change that people see, and for each failure.
fn log(write: &Write, result: &WriteResult) {
    match (write, result) {
        (
            _,
            WriteResult::Failed {
                message,
                refused: true,
            },
        ) => {
            tracing::error!(
                error = message,
                ?write,
                "the API server refuses a write: trying again"
            );
        }
        (
            _,
            WriteResult::Failed {
                message,
                refused: false,
            },
        ) => {
            tracing::warn!(error = message, "a write failed: trying again");
            tracing::debug!(?write, "failed write");
        }
        (Write::RecordEvent(event), _) => {
            let about = match &event.regarding {
                herald_controller_core::Regarding::Service { key, .. } => key.to_string(),
                herald_controller_core::Regarding::Object { object, .. } => format!("{object:?}"),
            };
            if event.warning {
                tracing::warn!(about, reason = &*event.reason, "{}", event.note);
            } else {
                tracing::info!(about, reason = &*event.reason, "{}", event.note);
            }
        }
        _ => tracing::debug!(?write, ?result, "written"),
    }
}
