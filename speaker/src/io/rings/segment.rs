//! The ring on one segment.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use herald_model::{Epoch, IfIndex, Incarnation, Instant, MacAddress, SegmentName, Tenure};
use herald_ring::{Authenticator, Config, KeyId, Member, Profile, Ring, Standing, Tag};
use herald_speaker_core::Peer;
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use socket2::Socket;

use super::{KeyFile, KeyStore};
use crate::io::sys;

#[derive(Debug)]
pub(crate) struct Hmac(pub(crate) KeyStore);

impl Authenticator for Hmac {
    fn tag(&self, key: KeyId, [first, second]: [&[u8]; 2]) -> Option<Tag> {
        let file = self.0.load();
        let mut context = hmac::Context::with_key(file.as_ref()?.keys.get(&key)?);
        context.update(first);
        context.update(second);
        let digest = context.sign();
        digest.as_ref().first_chunk().map(|front| Tag(*front))
    }
}

/// The ring on one segment, as far as it could be started.
pub(super) struct Segment {
    pub(super) interface: IfIndex,
    pub(super) me: Member,
    pub(super) mac: MacAddress,
    pub(super) peers: Vec<Peer>,
    pub(super) macs: BTreeMap<IpAddr, MacAddress>,
    pub(super) carrier: bool,
    /// What we hold, for a ring that has to begin anew.
    pub(super) holds: BTreeMap<IpAddr, (Epoch, u8, Tenure)>,
    pub(super) running: Option<Running>,
    /// Not before.
    pub(super) start_at: Option<Instant>,
    pub(super) is_silenced: bool,
    /// A new life that the core has not heard of yet: what it wants is about the last one.
    pub(super) unseen: Option<Incarnation>,
}

pub(super) struct Running {
    pub(super) ring: Ring<Hmac>,
    pub(super) socket: Socket,
    pub(super) cluster: String,
    /// How the peers and we stand, in this order, as others were told. Empty: they are to hear all anew.
    pub(super) told: Vec<Option<(Incarnation, Standing)>>,
    /// Our life and whether there is quorum, as others were told.
    pub(super) told_of_us: Option<(Incarnation, bool)>,
    pub(super) is_changed: bool,
}

impl Segment {
    pub(super) fn members(&self) -> Vec<Member> {
        let peers = self.peers.iter().map(|peer| peer.member.clone());
        peers.chain([self.me.clone()]).collect()
    }

    pub(super) fn begin(
        &mut self,
        now: Instant,
        name: &SegmentName,
        socket: Socket,
        profile: Profile,
        store: &KeyStore,
        file: &KeyFile,
    ) -> io::Result<()> {
        let config = Config {
            profile,
            cluster: file.cluster.clone(),
            segment: name.clone(),
            first_sequence: sys::boot_nanos()?,
        };
        let mut seed = [0; 16];
        SystemRandom::new()
            .fill(&mut seed)
            .map_err(|_unspecified| io::Error::other("no random numbers"))?;
        let ring = Ring::new(
            &config,
            Hmac(Arc::clone(store)),
            &self.me,
            &self.members(),
            u128::from_ne_bytes(seed),
            now,
        );
        self.running = Some(Running {
            ring,
            socket,
            cluster: file.cluster.clone(),
            told: Vec::new(),
            told_of_us: None,
            is_changed: true,
        });
        Ok(())
    }
}

pub(super) fn macs(peers: &[Peer]) -> BTreeMap<IpAddr, MacAddress> {
    peers
        .iter()
        .map(|peer| (peer.member.address, peer.mac))
        .collect()
}
