//! The Lease at the API server: looked at, made, taken, renewed, given back.
//!
//! `kube-lease-manager` 0.13 was considered first. It goes on saying "leader" while the API server
//! is out of reach, past the end of its own lease, and compares times written by other machines'
//! clocks; both are what a Lease is for. The decisions are in
//! [`herald_controller_core::Election`].

use std::time::Duration;

use herald_controller_core::{Bid, Election, LeaseView};
use herald_model::Instant;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::once::LEASE;

/// How long giving it back may take.
const PATIENCE: Duration = Duration::from_secs(4);

/// Leads, or not, from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leadership {
    /// This replica holds the lease, and leads until then.
    Until(Instant),
    /// It does not, or cannot be sure.
    Lost,
}

/// Takes part in the election.
pub(crate) struct Elector {
    api: Api<Lease>,
    identity: String,
    clock: Clock,
    election: Election,
}

impl Elector {
    pub(crate) fn new(api: Api<Lease>, identity: String, clock: Clock) -> Self {
        let election = Election::new(identity.as_str());
        Self {
            api,
            identity,
            clock,
            election,
        }
    }

    /// Takes part until told to stop; then gives the lease back, if this replica holds it.
    pub(crate) async fn run(
        mut self,
        tell: mpsc::Sender<Leadership>,
        leading: watch::Sender<bool>,
        mut stop: oneshot::Receiver<()>,
    ) {
        let mut ticks = tokio::time::interval(Election::PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut leads = None;
        loop {
            tokio::select! {
                _ = &mut stop => break,
                _ = ticks.tick() => {}
            }
            let began = self.clock.now();
            // After standing still, perhaps for longer than another has led: it begins anew.
            if leads.is_some_and(|until| began >= until) {
                leads = None;
                if !self.say(None, &tell, &leading).await {
                    break;
                }
            }
            let patience = self.election.patience(began);
            match tokio::time::timeout(patience, self.look(began)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "lease request failed"),
                Err(_elapsed) => tracing::debug!("lease request took too long"),
            }
            let until = self.election.leads_until(self.clock.now());
            if leads != until {
                leads = until;
                if !self.say(leads, &tell, &leading).await {
                    break;
                }
            }
        }
        if leads.is_some() {
            self.release().await;
        }
    }

    /// Says until when this replica leads; whether somebody listens still.
    async fn say(
        &self,
        until: Option<Instant>,
        tell: &mpsc::Sender<Leadership>,
        leading: &watch::Sender<bool>,
    ) -> bool {
        let leads = until.is_some();
        if leading.send_replace(leads) != leads {
            tracing::info!(identity = self.identity, leads, "leadership changed");
        }
        let news = until.map_or(Leadership::Lost, Leadership::Until);
        tell.send(news).await.is_ok()
    }

    /// Looks at the lease and does what follows.
    async fn look(&mut self, began: Instant) -> Result<(), kube::Error> {
        let lease = self.api.get_opt(LEASE).await?;
        let view = lease.as_ref().map(|lease| {
            let spec = lease.spec.as_ref();
            LeaseView {
                holder: spec
                    .and_then(|spec| spec.holder_identity.as_deref())
                    .map(Into::into),
                renewed: spec
                    .and_then(|spec| spec.renew_time.as_ref())
                    .map(|time| time.0.to_string().into()),
            }
        });
        let bid = self.election.look(self.clock.now(), view);
        let now = MicroTime(Timestamp::now());
        match bid {
            Bid::Wait => return Ok(()),
            Bid::Create => self.create(now).await?,
            Bid::Renew | Bid::Take => {
                let Lease { metadata, spec } = lease.unwrap_or_default();
                let spec = spec.unwrap_or_default();
                let taken = bid == Bid::Take;
                let acquired = spec.acquire_time.filter(|_| !taken);
                let transitions = spec.lease_transitions.unwrap_or_default();
                self.patch(&json!({
                    // Whoever else took it meanwhile has changed the version, and keeps it.
                    "metadata": { "resourceVersion": metadata.resource_version },
                    "spec": {
                        "holderIdentity": self.identity,
                        "leaseDurationSeconds": Election::DURATION.as_secs(),
                        "acquireTime": acquired.unwrap_or_else(|| now.clone()),
                        "renewTime": now,
                        "leaseTransitions": transitions.saturating_add(i32::from(taken)),
                    },
                }))
                .await?;
            }
        }
        self.election.won(began);
        Ok(())
    }

    async fn create(&self, now: MicroTime) -> Result<(), kube::Error> {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(LEASE.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(Election::DURATION.as_secs()).ok(),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(0),
                ..LeaseSpec::default()
            }),
        };
        self.api
            .create(&PostParams::default(), &lease)
            .await
            .map(drop)
    }

    async fn patch(&self, patch: &serde_json::Value) -> Result<(), kube::Error> {
        self.api
            .patch(LEASE, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map(drop)
    }

    /// Lets another replica lead at once.
    async fn release(&self) {
        let release = async {
            let lease = self.api.get(LEASE).await?;
            let holder = lease.spec.and_then(|spec| spec.holder_identity);
            if holder.as_deref() == Some(self.identity.as_str()) {
                self.patch(&json!({
                    "metadata": { "resourceVersion": lease.metadata.resource_version },
                    "spec": { "holderIdentity": "" },
                }))
                .await?;
            }
            Ok::<(), kube::Error>(())
        };
        match tokio::time::timeout(PATIENCE, release).await {
            Ok(Ok(())) => tracing::info!("gave the lease back"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "could not give the lease back: it ends by itself");
            }
            Err(_elapsed) => tracing::warn!("could not give the lease back: it ends by itself"),
        }
    }
}
