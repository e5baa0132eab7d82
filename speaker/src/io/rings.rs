//! The observer rings: UDP sockets around [`herald_ring::Ring`], on the thread of layer 2.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use herald_model::{IfIndex, Incarnation, Instant, SegmentName};
use herald_ring::{Counters, Effect, Input, KeyId, Keys, MAX_DATAGRAM_BYTES, Profile, Standing};
use herald_speaker_core::{RingCommand, RingKeys};
use herald_wire::Frame;
use ring::hmac;
use socket2::SockAddr;
use tracing::{debug, info, warn};

use crate::clock::Clock;
use crate::io::reports::{Reporter, RingWord};

mod segment;
mod socket;

#[cfg(test)]
pub(crate) use segment::Hmac;
use segment::{Running, Segment, macs};
use socket::{answering, open, question};

/// When a ring that could not be started is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Datagrams read from one socket before the timers have their turn.
const BATCH: usize = 1_024;
/// Effects of one round: room for a word to each of a thousand members, four times.
const EFFECTS: usize = 4_096;
/// Questions of one round.
const FRAMES: usize = 256;

/// How the rings are run.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How fast a silent member is noticed.
    pub(crate) profile: Profile,
    /// The UDP port, the same on all nodes.
    pub(crate) port: u16,
    /// Who tells for this side of an interruption.
    pub(crate) witness: Witness,
}

/// Who makes up for members that are not reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Witness {
    /// The next hop of the default route.
    Gateway,
    /// Nobody.
    None,
    /// The first of these addresses that is in a network of the segment's family.
    Addresses(Vec<IpAddr>),
}

/// The keys of the rings, and the id of the cluster that is bound into every tag.
#[derive(Debug)]
pub(crate) struct KeyFile {
    /// The uid of the Secret: another Secret is another cluster.
    pub(crate) cluster: String,
    /// The keys by id.
    pub(crate) keys: BTreeMap<KeyId, hmac::Key>,
}

/// The keys as last seen, shared with the task that watches the Secret.
pub(crate) type KeyStore = Arc<ArcSwapOption<KeyFile>>;

/// Counters of a ring and how its members stand.
#[derive(Clone, Debug)]
pub(crate) struct RingStatus {
    /// What has happened.
    pub(crate) counters: Counters,
    /// Members up, with a dead speaker, and dead; ourselves included.
    pub(crate) members: [u64; 3],
    /// Whether anything may be taken over.
    pub(crate) quorum: bool,
    /// Our life.
    pub(crate) incarnation: u64,
}

/// All rings of this node.
pub(crate) struct Rings {
    options: Options,
    clock: Clock,
    reports: Reporter,
    store: KeyStore,
    keys: Option<Keys>,
    gateways: BTreeMap<IfIndex, IpAddr>,
    segments: BTreeMap<SegmentName, Segment>,
    out: Vec<Effect>,
    /// Questions to kernels.
    frames: Vec<(IfIndex, Frame)>,
    /// Where a life of ours has ended.
    ended: Vec<IfIndex>,
}

impl Rings {
    pub(crate) fn new(options: Options, clock: Clock, store: KeyStore, reports: Reporter) -> Self {
        Self {
            options,
            clock,
            reports,
            store,
            keys: None,
            gateways: BTreeMap::new(),
            segments: BTreeMap::new(),
            out: Vec::with_capacity(EFFECTS),
            frames: Vec::with_capacity(FRAMES),
            ended: Vec::new(),
        }
    }

    /// Does what the core wants.
    pub(crate) fn command(&mut self, name: &SegmentName, command: RingCommand) {
        match command {
            RingCommand::Start {
                interface,
                me,
                mac,
                peers,
            } => {
                let segment = Segment {
                    interface,
                    me,
                    mac,
                    macs: macs(&peers),
                    peers,
                    carrier: true,
                    holds: BTreeMap::new(),
                    running: None,
                    start_at: None,
                    is_silenced: false,
                    unseen: None,
                };
                self.segments.insert(name.clone(), segment);
            }
            RingCommand::Stop => {
                self.segments.remove(name);
            }
            RingCommand::PeersChanged(peers) => {
                let Some(segment) = self.segments.get_mut(name) else {
                    return;
                };
                segment.macs = macs(&peers);
                segment.peers = peers;
                let members = segment.members();
                if let Some(running) = &mut segment.running {
                    running.is_changed = true;
                    running.told.clear();
                }
                self.handle(name, Input::MembersChanged(&members));
            }
            RingCommand::CarrierChanged(carrier) => {
                if let Some(segment) = self.segments.get_mut(name) {
                    segment.carrier = carrier;
                }
                self.handle(name, Input::CarrierChanged(carrier));
            }
            RingCommand::StepDown => self.handle(name, Input::SteppedDown),
            RingCommand::HoldChanged {
                vip,
                epoch,
                rank,
                tenure,
            } => {
                if let Some(segment) = self.segments.get_mut(name) {
                    if tenure.is_held() {
                        segment.holds.insert(vip, (epoch, rank, tenure));
                    } else {
                        segment.holds.remove(&vip);
                    }
                }
                let input = Input::HoldChanged {
                    vip,
                    epoch,
                    rank,
                    tenure,
                };
                self.handle(name, input);
            }
        }
    }

    /// Lets all rings use these keys.
    pub(crate) fn set_keys(&mut self, keys: RingKeys) {
        self.keys = keys.0;
        self.for_each(|rings, name| rings.handle(name, Input::KeysChanged(keys.0)));
    }

    /// The core knows that we are in this life: what it wants from now on is about it.
    pub(crate) fn life_seen(&mut self, name: &SegmentName, life: Incarnation) {
        if let Some(segment) = self.segments.get_mut(name) {
            segment.unseen.take_if(|unseen| *unseen <= life);
        }
    }

    /// Whether a life has ended on an interface and the core does not know yet.
    pub(crate) fn is_in_unseen_life(&self, interface: IfIndex) -> bool {
        self.on(interface).any(|segment| segment.unseen.is_some())
    }

    /// Where a life of ours has ended since the last call: what was held there is held no more.
    pub(crate) fn take_ended(&mut self) -> Vec<IfIndex> {
        std::mem::take(&mut self.ended)
    }

    /// The next hops of the default routes.
    pub(crate) fn set_gateways(&mut self, gateways: BTreeMap<IfIndex, IpAddr>) {
        self.gateways = gateways;
    }

    /// The sockets to wait for.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.segments
            .values()
            .filter_map(|segment| Some(segment.running.as_ref()?.socket.as_fd()))
    }

    /// When [`Self::run`] is to be called at the latest.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let due = |segment: &Segment| match &segment.running {
            Some(running) => running.ring.next_deadline(),
            None => self.keys.map(|_| segment.start_at.unwrap_or_default()),
        };
        self.segments.values().filter_map(due).min()
    }

    /// The frames that are to be sent.
    pub(crate) fn take_frames(&mut self) -> impl Iterator<Item = (IfIndex, Frame)> {
        self.frames.drain(..)
    }

    /// Notes how late it is, and takes in what the sockets hold.
    pub(crate) fn listen(&mut self) {
        self.reports.flush();
        self.start_what_can_be();
        self.for_each(|rings, name| {
            rings.handle(name, Input::Woken);
            rings.receive(name);
            rings.carry_out(name);
        });
    }

    /// Does what is due. All that queued while nobody looked must have been taken in before, or what
    /// we were late for is held against others.
    pub(crate) fn run(&mut self) {
        self.for_each(|rings, name| {
            if let Some(running) = running(&mut rings.segments, name) {
                running.ring.on_deadline(rings.clock.now(), &mut rings.out);
            }
            rings.carry_out(name);
            rings.tell_view(name);
        });
    }

    fn receive(&mut self, name: &SegmentName) {
        let mut buffer = [0; MAX_DATAGRAM_BYTES + 1];
        let Some(running) = running(&mut self.segments, name) else {
            return;
        };
        for _ in 0..BATCH {
            match (&running.socket).read(&mut buffer) {
                Ok(length) => {
                    let bytes = buffer.get(..length).unwrap_or(&buffer);
                    let input = Input::DatagramReceived { bytes };
                    running.ring.handle(self.clock.now(), input, &mut self.out);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                // An ICMP error about something sent earlier.
                Err(error) => debug!(segment = %name, %error, "cannot receive"),
            }
        }
    }

    /// Visits each segment; allocates nothing.
    fn for_each(&mut self, mut visit: impl FnMut(&mut Self, &SegmentName)) {
        for place in 0..self.segments.len() {
            if let Some(name) = self.segments.keys().nth(place).cloned() {
                visit(self, &name);
            }
        }
    }

    /// Hands an input to a ring, if it runs, and does what it wants.
    fn handle(&mut self, name: &SegmentName, input: Input<'_>) {
        if let Some(running) = running(&mut self.segments, name) {
            running.ring.handle(self.clock.now(), input, &mut self.out);
        }
        self.carry_out(name);
    }

    fn on(&self, interface: IfIndex) -> impl Iterator<Item = &Segment> {
        self.segments
            .values()
            .filter(move |segment| segment.interface == interface)
    }

    /// Whether nothing may be answered on an interface until others have confirmed that we are not
    /// taken for dead.
    pub(crate) fn is_silenced(&self, interface: IfIndex) -> bool {
        self.on(interface).any(|segment| segment.is_silenced)
    }

    /// The addresses whose kernels' answers are of interest on an interface.
    pub(crate) fn watched(&self, interface: IfIndex) -> impl Iterator<Item = IpAddr> {
        self.on(interface).flat_map(|segment| {
            let witness = self.witness(segment);
            segment.macs.keys().copied().chain(witness)
        })
    }

    /// A frame came in; perhaps it is the answer of a kernel.
    pub(crate) fn frame_received(&mut self, interface: IfIndex, bytes: &[u8]) {
        let Some(address) = answering(bytes) else {
            return;
        };
        self.for_each(|rings, name| {
            let Some(segment) = rings
                .segments
                .get(name)
                .filter(|segment| segment.interface == interface)
            else {
                return;
            };
            let is_member = segment.macs.contains_key(&address);
            let is_witness = rings.witness(segment) == Some(address);
            if is_member {
                rings.handle(name, Input::KernelAnswered { address });
            }
            if is_witness {
                rings.handle(name, Input::WitnessAnswered);
            }
        });
    }

    /// How each ring does.
    pub(crate) fn status(&self) -> BTreeMap<SegmentName, RingStatus> {
        self.segments
            .iter()
            .filter_map(|(name, segment)| {
                let running = segment.running.as_ref()?;
                let mut members = [0; 3];
                for member in segment.members() {
                    let standing = running.ring.standing(&member.node);
                    let [up, speaker_down, node_down] = &mut members;
                    let count = match standing.map(|(_, standing)| standing) {
                        Some(Standing::Up) | None => up,
                        Some(Standing::SpeakerDown) => speaker_down,
                        Some(Standing::NodeDown) => node_down,
                    };
                    *count += 1;
                }
                let status = RingStatus {
                    counters: running.ring.counters(),
                    members,
                    quorum: running.ring.has_quorum(),
                    incarnation: running.ring.incarnation().0,
                };
                Some((name.clone(), status))
            })
            .collect()
    }

    /// A ring begins when the keys are there, with all members that are known by then.
    fn start_what_can_be(&mut self) {
        if let (Some(keys), Some(file)) = (self.keys, self.store.load_full()) {
            self.for_each(|rings, name| rings.start(name, keys, &file));
        }
    }

    fn start(&mut self, name: &SegmentName, keys: Keys, file: &KeyFile) {
        let now = self.clock.now();
        let Some(segment) = self.segments.get_mut(name) else {
            return;
        };
        if segment
            .running
            .take_if(|running| running.cluster != file.cluster)
            .is_some()
        {
            info!(segment = %name, "another Secret has the keys: the ring begins anew");
            segment.is_silenced = false;
        }
        if segment.running.is_some() || segment.start_at.is_some_and(|at| now < at) {
            return;
        }
        let started =
            open(segment.interface, segment.me.address, self.options.port).and_then(|socket| {
                segment.begin(now, name, socket, self.options.profile, &self.store, file)
            });
        if let Err(error) = started {
            warn!(segment = %name, %error, "cannot take part in the ring");
            segment.start_at = Some(now + RETRY);
            let reason = error.to_string().into();
            self.reports.ring(name, RingWord::Failed { reason });
            return;
        }
        info!(segment = %name, address = %segment.me.address, port = self.options.port, "the ring runs");
        let carrier = segment.carrier;
        let holds = segment.holds.clone();
        self.handle(name, Input::KeysChanged(Some(keys)));
        if !carrier {
            self.handle(name, Input::CarrierChanged(false));
        }
        for (vip, (epoch, rank, tenure)) in holds {
            let input = Input::HoldChanged {
                vip,
                epoch,
                rank,
                tenure,
            };
            self.handle(name, input);
        }
    }

    fn witness(&self, segment: &Segment) -> Option<IpAddr> {
        let family = segment.me.address.is_ipv4();
        match &self.options.witness {
            Witness::None => None,
            Witness::Gateway => self
                .gateways
                .get(&segment.interface)
                .copied()
                .filter(|gateway| gateway.is_ipv4() == family),
            Witness::Addresses(all) => all
                .iter()
                .find(|address| address.is_ipv4() == family)
                .copied(),
        }
    }

    fn carry_out(&mut self, name: &SegmentName) {
        let Some(segment) = self.segments.get(name) else {
            self.out.clear();
            return;
        };
        let witness = self.witness(segment);
        let (interface, mac, own) = (segment.interface, segment.mac, segment.me.address);
        let mut out = std::mem::take(&mut self.out);
        for effect in out.drain(..) {
            match effect {
                Effect::Send { to, packet } => self.send(name, to, packet.as_bytes()),
                Effect::ProbeKernel { address } => {
                    let segment = self.segments.get(name);
                    let peer = segment.and_then(|segment| segment.macs.get(&address));
                    let frame = peer.and_then(|peer| question(mac, own, address, Some(*peer)));
                    self.frames.extend(frame.map(|frame| (interface, frame)));
                }
                Effect::AskWitness => {
                    let frame = witness.and_then(|witness| question(mac, own, witness, None));
                    self.frames.extend(frame.map(|frame| (interface, frame)));
                }
                other => self.note(name, other),
            }
        }
        self.out = out;
    }

    /// What others have to know of.
    fn note(&mut self, name: &SegmentName, effect: Effect) {
        let Some(segment) = self.segments.get_mut(name) else {
            return;
        };
        let Some(running) = &mut segment.running else {
            return;
        };
        match &effect {
            Effect::MemberDown { .. } | Effect::MemberUp { .. } | Effect::QuorumChanged { .. } => {
                running.is_changed = true;
            }
            Effect::IncarnationRaised { incarnation, .. } => {
                running.is_changed = true;
                segment.me.incarnation = *incarnation;
                segment.holds.clear();
                segment.is_silenced = false;
                segment.unseen = Some(*incarnation);
                self.ended.push(segment.interface);
            }
            Effect::Silenced { .. } => segment.is_silenced = true,
            Effect::Confirmed => segment.is_silenced = false,
            Effect::HoldHeard(_) => {}
            Effect::PeerReported { .. }
            | Effect::Send { .. }
            | Effect::ProbeKernel { .. }
            | Effect::AskWitness => return,
        }
        self.reports.ring(name, RingWord::Happened(effect));
    }

    fn send(&self, name: &SegmentName, to: IpAddr, bytes: &[u8]) {
        let running = self
            .segments
            .get(name)
            .and_then(|segment| segment.running.as_ref());
        let Some(running) = running else {
            return;
        };
        let to = SockAddr::from(SocketAddr::new(to, self.options.port));
        if let Err(error) = running.socket.send_to(bytes, &to) {
            debug!(segment = %name, %error, "cannot send");
        }
    }

    /// Tells what has changed about how members stand.
    fn tell_view(&mut self, name: &SegmentName) {
        let Some(segment) = self.segments.get_mut(name) else {
            return;
        };
        let Some(running) = &mut segment.running else {
            return;
        };
        if !std::mem::take(&mut running.is_changed) {
            return;
        }
        let mut is_news = false;
        if running.told.is_empty() {
            running.told.resize(segment.peers.len() + 1, None);
            self.reports.ring(name, RingWord::Anew);
            is_news = true;
        }
        let nodes = segment.peers.iter().map(|peer| &peer.member.node);
        for (node, told) in nodes.chain([&segment.me.node]).zip(&mut running.told) {
            let stands = running.ring.standing(node);
            if *told == stands {
                continue;
            }
            *told = stands;
            is_news = true;
            if let Some((incarnation, standing)) = stands {
                let word = RingWord::Member {
                    node: node.clone(),
                    incarnation,
                    standing,
                };
                self.reports.ring(name, word);
            }
        }
        let (incarnation, quorum) = (running.ring.incarnation(), running.ring.has_quorum());
        is_news |= running.told_of_us.replace((incarnation, quorum)) != Some((incarnation, quorum));
        if is_news {
            let word = RingWord::Complete {
                incarnation,
                quorum,
            };
            self.reports.ring(name, word);
        }
    }
}

fn running<'a>(
    segments: &'a mut BTreeMap<SegmentName, Segment>,
    name: &SegmentName,
) -> Option<&'a mut Running> {
    segments.get_mut(name)?.running.as_mut()
}

#[cfg(test)]
pub(crate) mod tests;
