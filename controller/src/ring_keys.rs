//! The Secret with the keys of the speakers' observer rings.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use herald_api::{Speaker, annotations, events};
use herald_controller_core::{KeyFault, KeySecret, KeyStep, key_step};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, Error};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::watch;

use crate::write::Writer;

/// How often the leader looks.
const EVERY: Duration = Duration::from_secs(5);
/// Bytes of a key: as many as SHA-256 gives.
const KEY_BYTES: usize = 32;

/// Looks after the Secret while this replica leads.
pub(crate) struct Keeper {
    secrets: Api<Secret>,
    speakers: Api<Speaker>,
    name: String,
    writer: Writer,
    /// What of the Secret was last said to be of no use.
    told: Vec<KeyFault>,
}

impl Keeper {
    pub(crate) fn new(client: &Client, namespace: &str, name: String, writer: Writer) -> Self {
        Self {
            secrets: Api::namespaced(client.clone(), namespace),
            speakers: Api::all(client.clone()),
            name,
            writer,
            told: Vec::new(),
        }
    }

    /// Never ends while the election goes on; returns what has ended.
    pub(crate) async fn run(mut self, mut leads: watch::Receiver<bool>) -> &'static str {
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

    async fn look(&mut self) -> anyhow::Result<()> {
        let present = self.secrets.get_opt(&self.name).await?;
        let seen = present.as_ref().map(seen);
        self.step(present.clone(), seen.as_ref()).await?;
        if let (Some(secret), Some(seen)) = (&present, &seen) {
            self.tell(secret, &seen.faults).await?;
        }
        Ok(())
    }

    /// Takes the next step, if there is one.
    async fn step(&self, present: Option<Secret>, seen: Option<&KeySecret>) -> anyhow::Result<()> {
        let reported: Vec<Vec<u32>> = if seen.is_some_and(|seen| seen.ids.len() > 1) {
            let speakers = self.speakers.list(&ListParams::default()).await?;
            let keys = speakers.items.into_iter();
            keys.map(|speaker| speaker.status.unwrap_or_default().key_ids)
                .collect()
        } else {
            Vec::new()
        };
        let step = key_step(seen, reported.iter().map(Vec::as_slice));
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
            KeyStep::DropOlder(id) => {
                data.retain(|name, _| name.parse().map_or(true, |other: u32| other >= id));
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

    /// Says what of the Secret is of no use, once for each change.
    async fn tell(&mut self, secret: &Secret, faults: &[KeyFault]) -> anyhow::Result<()> {
        if self.told == faults {
            return Ok(());
        }
        let texts: Vec<String> = faults.iter().map(ToString::to_string).collect();
        if !texts.is_empty() {
            let note = texts.join("; ");
            tracing::warn!(secret = self.name, "the ring's keys: {note}");
            let regarding = ObjectReference {
                api_version: Some("v1".to_owned()),
                kind: Some("Secret".to_owned()),
                namespace: secret.metadata.namespace.clone(),
                name: secret.metadata.name.clone(),
                uid: secret.metadata.uid.clone(),
                ..ObjectReference::default()
            };
            self.writer
                .publish(regarding, true, events::INVALID, note)
                .await
                .context("no Event can be made of it")?;
        }
        self.told = faults.to_vec();
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
    KeySecret::read(
        keys.map(|(name, value)| (name.as_str(), value.0.len())),
        asked.is_some() && asked != annotation(annotations::ROTATED),
    )
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
    fn entries_are_read_by_name_and_length() {
        let seen = seen(&secret(&[("1", 32), ("2", 15)], &[]));
        assert_eq!(seen, KeySecret::read([("1", 32), ("2", 15)], false));
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
