//! The Secret with the keys of the speakers' observer rings.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use herald_api::{Speaker, annotations};
use herald_controller_core::{KeySecret, KeyStep, key_step};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, Error};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::watch;

/// How often the leader looks.
const EVERY: Duration = Duration::from_secs(5);
/// Bytes of a key: as many as SHA-256 gives.
const KEY_BYTES: usize = 32;
/// A shorter one can be guessed; speakers do not use it.
const SHORTEST: usize = 16;

/// Looks after the Secret while this replica leads.
pub(crate) struct Keeper {
    secrets: Api<Secret>,
    speakers: Api<Speaker>,
    name: String,
}

impl Keeper {
    pub(crate) fn new(client: &Client, namespace: &str, name: String) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            speakers: Api::all(client.clone()),
            name,
        }
    }

    /// Never ends while the election goes on; returns what has ended.
    pub(crate) async fn run(self, mut leads: watch::Receiver<bool>) -> &'static str {
        let mut failing = false;
        while leads.wait_for(|leads| *leads).await.is_ok() {
            match self.look().await {
                Ok(()) => failing = false,
                // Once is enough: it is tried again and again.
                Err(error) if !std::mem::replace(&mut failing, true) => {
                    tracing::warn!(
                        error = format!("{error:#}"),
                        secret = self.name,
                        "the ring's keys"
                    );
                }
                Err(_) => {}
            }
            tokio::time::sleep(EVERY).await;
        }
        "keeper of the ring's keys"
    }

    async fn look(&self) -> anyhow::Result<()> {
        let present = self.secrets.get_opt(&self.name).await?;
        let seen = present.as_ref().map(seen);
        let reported: Vec<Vec<u32>> = if seen.as_ref().is_some_and(|seen| seen.ids.len() > 1) {
            let speakers = self.speakers.list(&ListParams::default()).await?;
            let keys = speakers.items.into_iter();
            keys.map(|speaker| speaker.status.unwrap_or_default().key_ids)
                .collect()
        } else {
            Vec::new()
        };
        let step = key_step(seen.as_ref(), reported.iter().map(Vec::as_slice));
        let mut secret = present.unwrap_or_else(|| self.fresh());
        let data = secret.data.get_or_insert_default();
        match step {
            KeyStep::Nothing => return Ok(()),
            KeyStep::Create(id) => {
                data.insert(id.to_string(), key()?);
                return match self.secrets.create(&PostParams::default(), &secret).await {
                    Err(Error::Api(status)) if status.code == 409 => Ok(()),
                    created => {
                        created.context("it cannot be made")?;
                        tracing::info!(secret = self.name, "made the ring's first key");
                        Ok(())
                    }
                };
            }
            KeyStep::Add(id) => {
                data.insert(id.to_string(), key()?);
                let annotations = secret.metadata.annotations.get_or_insert_default();
                if let Some(asked) = annotations.get(annotations::ROTATE).cloned() {
                    annotations.insert(annotations::ROTATED.to_owned(), asked);
                }
                tracing::info!(
                    secret = self.name,
                    id,
                    "a rotation of the ring's keys begins"
                );
            }
            KeyStep::KeepOnly(id) => {
                data.retain(|name, _| name.parse() == Ok(id));
                tracing::info!(
                    secret = self.name,
                    id,
                    "all speakers use the new key, the old one goes"
                );
            }
        }
        // It names the version it was decided for: a change in between is looked at again.
        self.secrets
            .replace(&self.name, &PostParams::default(), &secret)
            .await
            .context("it cannot be changed")?;
        Ok(())
    }

    fn fresh(&self) -> Secret {
        let labels = [("app.kubernetes.io/name", "herald")];
        Secret {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
                ..ObjectMeta::default()
            },
            type_: Some("Opaque".to_owned()),
            data: Some(BTreeMap::new()),
            ..Secret::default()
        }
    }
}

fn seen(secret: &Secret) -> KeySecret {
    let keys = secret.data.iter().flatten();
    let annotation = |name| {
        let all = secret.metadata.annotations.as_ref()?;
        all.get(name)
    };
    let asked = annotation(annotations::ROTATE);
    KeySecret {
        ids: keys
            .filter(|(_, value)| value.0.len() >= SHORTEST)
            .filter_map(|(name, _)| name.parse().ok())
            .collect(),
        rotate: asked.is_some() && asked != annotation(annotations::ROTATED),
    }
}

fn key() -> anyhow::Result<ByteString> {
    let mut key = vec![0; KEY_BYTES];
    SystemRandom::new()
        .fill(&mut key)
        .ok()
        .context("no random numbers")?;
    Ok(ByteString(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(entries: &[(&str, usize)], annotations: &[(&str, &str)]) -> Secret {
        let data = entries
            .iter()
            .map(|(name, bytes)| ((*name).to_owned(), ByteString(vec![7; *bytes])));
        let annotations = annotations
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Secret {
            metadata: ObjectMeta {
                annotations: Some(annotations.collect()),
                ..ObjectMeta::default()
            },
            data: Some(data.collect()),
            ..Secret::default()
        }
    }

    #[test]
    fn what_speakers_would_not_use_is_no_key() {
        let seen = seen(&secret(&[("1", 32), ("2", 15), ("note", 32)], &[]));
        assert_eq!(seen.ids, [1].into());
        assert!(!seen.rotate);
    }

    #[test]
    fn rotation_is_asked_for_by_a_new_value_of_the_annotation() {
        let asked = [(annotations::ROTATE, "november")];
        let done = [
            (annotations::ROTATE, "november"),
            (annotations::ROTATED, "november"),
        ];
        let again = [
            (annotations::ROTATE, "december"),
            (annotations::ROTATED, "november"),
        ];
        assert!(seen(&secret(&[], &asked)).rotate);
        assert!(!seen(&secret(&[], &done)).rotate);
        assert!(seen(&secret(&[], &again)).rotate);
    }
}
