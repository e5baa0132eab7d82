//! Which replica leads: a Lease, taken and renewed.
//!
//! `kube-lease-manager` 0.13 was considered first. It goes on saying "leader" while the API server
//! is out of reach, past the end of its own lease, and compares times written by other machines'
//! clocks; both are what this loop is for. Here a replica measures with its own monotonic clock:
//! the holder gives up before its lease can have ended for others, and others count from the
//! moment they last saw the holder renew.
//!
//! The Lease is there to keep two replicas from working against each other; that no address is
//! given twice rests on the claims alone.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// The Lease's name.
const NAME: &str = "herald-controller";
/// A lease that was not renewed for this long is free.
const DURATION: Duration = Duration::from_secs(15);
/// A holder that could not renew for this long stops leading.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often the lease is renewed, or looked at.
const PERIOD: Duration = Duration::from_secs(2);
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(4);

/// Leads, or not, from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leadership {
    /// This replica holds the lease.
    Gained,
    /// It does not, or cannot be sure.
    Lost,
}

/// One replica's part in the election.
pub(crate) struct Election {
    api: Api<Lease>,
    identity: String,
    /// When the request that last renewed our lease was sent; `None`: we do not hold it.
    renewed: Option<Instant>,
    /// The lease as last seen to change, and when.
    seen: Option<(Fingerprint, Instant)>,
}

/// What changes when a holder renews.
type Fingerprint = (Option<String>, Option<MicroTime>);

impl Election {
    pub(crate) const fn new(api: Api<Lease>, identity: String) -> Self {
        Self {
            api,
            identity,
            renewed: None,
            seen: None,
        }
    }

    /// Takes part until told to stop; then gives the lease back, if this replica holds it.
    pub(crate) async fn run(
        mut self,
        tell: mpsc::Sender<Leadership>,
        mut stop: oneshot::Receiver<()>,
    ) {
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut leads = false;
        loop {
            tokio::select! {
                _ = &mut stop => break,
                _ = ticks.tick() => {}
            }
            let began = Instant::now();
            // The request may not outlast the time after which we must stop leading.
            let patience = match self.renewed {
                Some(renewed) => DEADLINE.saturating_sub(renewed.elapsed()).min(PATIENCE),
                None => PATIENCE,
            };
            match tokio::time::timeout(patience, self.step(began)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "lease request failed"
                    );
                }
                Err(_elapsed) => tracing::debug!("lease request took too long"),
            }
            let holds = self
                .renewed
                .is_some_and(|renewed| renewed.elapsed() < DEADLINE);
            if leads != holds {
                leads = holds;
                if !holds {
                    self.renewed = None;
                }
                let news = if holds {
                    Leadership::Gained
                } else {
                    Leadership::Lost
                };
                tracing::info!(identity = self.identity, leads, "leadership changed");
                if tell.send(news).await.is_err() {
                    break;
                }
            }
        }
        if leads {
            self.release().await;
        }
    }

    /// Looks at the lease; renews it if it is ours, takes it if it is free.
    async fn step(&mut self, began: Instant) -> Result<(), kube::Error> {
        let Some(lease) = self.api.get_opt(NAME).await? else {
            return self.create(began).await;
        };
        let spec = lease.spec.unwrap_or_default();
        let fingerprint = (spec.holder_identity.clone(), spec.renew_time.clone());
        if self
            .seen
            .as_ref()
            .is_none_or(|(seen, _)| *seen != fingerprint)
        {
            self.seen = Some((fingerprint, Instant::now()));
        }
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let ours = holder == self.identity;
        let expired = self
            .seen
            .as_ref()
            .is_some_and(|(_, since)| since.elapsed() >= DURATION);
        if !ours && !holder.is_empty() && !expired {
            self.renewed = None;
            return Ok(());
        }
        let transitions = spec
            .lease_transitions
            .unwrap_or(0)
            .saturating_add(i32::from(!ours));
        let acquired = if ours { spec.acquire_time } else { None };
        let now = MicroTime(Timestamp::now());
        let version = lease.metadata.resource_version;
        let patch = json!({
            // Whoever else took it meanwhile has changed the version, and keeps it.
            "metadata": { "resourceVersion": version },
            "spec": {
                "holderIdentity": self.identity,
                "leaseDurationSeconds": DURATION.as_secs(),
                "acquireTime": acquired.unwrap_or_else(|| now.clone()),
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        });
        self.patch(&patch).await?;
        self.renewed = Some(began);
        Ok(())
    }

    async fn create(&mut self, began: Instant) -> Result<(), kube::Error> {
        let now = MicroTime(Timestamp::now());
        let lease = Lease {
            metadata: kube::core::ObjectMeta {
                name: Some(NAME.to_owned()),
                ..kube::core::ObjectMeta::default()
            },
            spec: Some(k8s_openapi::api::coordination::v1::LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
                acquire_time: Some(now.clone()),
                renew_time: Some(now),
                lease_transitions: Some(0),
                ..k8s_openapi::api::coordination::v1::LeaseSpec::default()
            }),
        };
        self.api.create(&PostParams::default(), &lease).await?;
        self.renewed = Some(began);
        Ok(())
    }

    async fn patch(&self, patch: &serde_json::Value) -> Result<Lease, kube::Error> {
        self.api
            .patch(NAME, &PatchParams::default(), &Patch::Merge(patch))
            .await
    }

    /// Lets another replica lead at once.
    async fn release(&self) {
        let release = async {
            let lease = self.api.get(NAME).await?;
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
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "could not give the lease back: it ends by itself");
            }
            Err(_elapsed) => tracing::warn!("could not give the lease back: it ends by itself"),
        }
    }
}
