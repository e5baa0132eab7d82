//! The keys of the observer rings, from their Secret.

use std::collections::BTreeMap;
use std::sync::Arc;

use herald_ring::KeyId;
use k8s_openapi::api::core::v1::Secret;
use ring::hmac;
use tracing::warn;

use crate::io::rings::{KeyFile, KeyStore};

/// A key shorter than this can be guessed.
const SHORTEST: usize = 16;

/// Lets the rings find the keys of a Secret; returns their ids, oldest first. A Secret without a key
/// that can be used changes nothing.
pub(crate) fn store(store: &KeyStore, secret: &Secret) -> Vec<KeyId> {
    let keys = parse(secret);
    if keys.is_empty() {
        warn!("the ring's Secret has no key that can be used");
        return store
            .load()
            .iter()
            .flat_map(|file| file.keys.keys().copied())
            .collect();
    }
    let ids = keys.keys().copied().collect();
    store.store(Some(Arc::new(KeyFile {
        cluster: secret.metadata.uid.clone().unwrap_or_default(),
        keys,
    })));
    ids
}

fn parse(secret: &Secret) -> BTreeMap<KeyId, hmac::Key> {
    let mut keys = BTreeMap::new();
    for (name, value) in secret.data.iter().flatten() {
        match name.parse() {
            Ok(id) if value.0.len() >= SHORTEST => {
                keys.insert(KeyId(id), hmac::Key::new(hmac::HMAC_SHA256, &value.0));
            }
            Ok(_) => warn!(
                entry = name,
                bytes = value.0.len(),
                "a key of the ring is too short, it is not used"
            ),
            Err(_) => warn!(
                entry = name,
                "the name of an entry of the ring's Secret is no number, it is not used"
            ),
        }
    }
    keys
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(uid: &str, entries: &[(&str, &[u8])]) -> Secret {
        let mut secret = Secret::default();
        secret.metadata.uid = Some(uid.to_owned());
        secret.data = Some(
            entries
                .iter()
                .map(|(name, value)| ((*name).to_owned(), ByteString(value.to_vec())))
                .collect(),
        );
        secret
    }

    #[test]
    fn keys_are_ordered_by_number_and_what_cannot_be_one_is_left_out() {
        let store = KeyStore::default();
        let entries: [(&str, &[u8]); 5] = [
            ("10", &[1; 32]),
            ("9", &[2; 32]),
            ("11", &[3; 15]),
            ("key", &[4; 32]),
            ("-1", &[5; 32]),
        ];
        let ids = super::store(&store, &secret("uid", &entries));
        assert_eq!(ids, [KeyId(9), KeyId(10)]);
        assert_eq!(store.load().as_ref().unwrap().cluster, "uid");

        let ids = super::store(&store, &secret("uid", &[]));
        assert_eq!(ids, [KeyId(9), KeyId(10)], "the last ones stay in use");
    }
}
