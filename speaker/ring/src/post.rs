//! Writes datagrams: header, items, tag.

use herald_model::Incarnation;

use crate::NodeId;
use crate::auth::{Authenticator, Keys};
use crate::codec::{Draft, Header, Item, Kind};
use crate::config::Config;
use crate::id::hash;
use crate::packet::{Packet, Pool};

/// What all our datagrams have in common.
#[derive(Debug)]
pub(crate) struct Post<A> {
    pub(crate) auth: A,
    pub(crate) keys: Option<Keys>,
    /// Cluster id and segment name, each with its length in front: part of what is tagged.
    pub(crate) context: Vec<u8>,
    pub(crate) cluster: u32,
    pub(crate) segment: u32,
    sender: NodeId,
    sequence: u64,
    pool: Pool,
}

impl<A: Authenticator> Post<A> {
    pub(crate) fn new(config: &Config, auth: A, sender: NodeId) -> Self {
        let mut context = b"herald ring 1".to_vec();
        for part in [config.cluster.as_str(), config.segment.as_str()] {
            context.extend_from_slice(&u64::try_from(part.len()).unwrap_or(0).to_be_bytes());
            context.extend_from_slice(part.as_bytes());
        }
        Self {
            auth,
            keys: None,
            context,
            cluster: short_hash(b"cluster", &config.cluster),
            segment: short_hash(b"segment", config.segment.as_str()),
            sender,
            sequence: config.first_sequence,
            pool: Pool::new(),
        }
    }

    /// A datagram with one item. `None` without a key.
    pub(crate) fn one(
        &mut self,
        life: Incarnation,
        kind: Kind,
        item: &impl Item,
    ) -> Option<Packet> {
        self.list(life, kind, |draft| {
            draft.push(item);
        })
    }

    /// A datagram with what `fill` pushes. `None` if that is nothing, or without a key.
    pub(crate) fn list(
        &mut self,
        life: Incarnation,
        kind: Kind,
        fill: impl FnOnce(&mut Draft<'_>),
    ) -> Option<Packet> {
        let key = self.keys?.send;
        let sequence = self.sequence;
        let header = Header {
            key,
            cluster: self.cluster,
            segment: self.segment,
            sender: self.sender,
            incarnation: life,
            sequence,
        };
        let (auth, context) = (&self.auth, &self.context);
        let packet = self.pool.fill(|bytes| {
            let mut draft = Draft::new(bytes, &header, kind)?;
            fill(&mut draft);
            if draft.is_empty() {
                return None;
            }
            draft.seal(auth, key, context)
        })?;
        self.sequence = sequence.saturating_add(1);
        Some(packet)
    }
}

fn short_hash(purpose: &[u8], text: &str) -> u32 {
    let [a, b, c, d, ..] = hash(purpose, &[text.as_bytes()]).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}
