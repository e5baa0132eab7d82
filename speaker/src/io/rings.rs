//! The observer rings: UDP sockets around [`herald_ring::Ring`], on the thread of layer 2.

use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use herald_model::{Epoch, IfIndex, Instant, MacAddress, SegmentName};
use herald_ring::{
    Authenticator, Config, Counters, Effect, Input, KeyId, Keys, MAX_DATAGRAM_BYTES, Member,
    Profile, Ring, Scope, Standing, Tag,
};
use herald_speaker_core as core;
use herald_speaker_core::{Peer, RingCommand, RingEvent, RingKeys, View};
use herald_wire::{Arp, ArpOperation, Frame, Heard, NeighbourSolicitation};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, info, warn};

use super::sys;
use crate::clock::Clock;

/// When a ring that could not be started is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Datagrams read from one socket before the timers have their turn.
const BATCH: usize = 1_024;
/// Effects of one round: room for a word to each of a thousand members, four times.
const EFFECTS: usize = 4_096;
/// DSCP CS6, what routing protocols use: queues let it pass first.
const TRAFFIC_CLASS: u32 = 0xc0;

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

#[derive(Debug)]
struct Hmac(KeyStore);

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

/// All rings of this node.
pub(crate) struct Rings {
    options: Options,
    clock: Clock,
    inputs: UnboundedSender<core::Input>,
    store: KeyStore,
    keys: Option<Keys>,
    gateways: BTreeMap<IfIndex, IpAddr>,
    segments: BTreeMap<SegmentName, Segment>,
    out: Vec<Effect>,
    /// Questions to kernels.
    frames: Vec<(IfIndex, Frame)>,
}

/// The ring on one segment, as far as it could be started.
struct Segment {
    interface: IfIndex,
    me: Member,
    mac: MacAddress,
    peers: Vec<Peer>,
    macs: BTreeMap<IpAddr, MacAddress>,
    carrier: bool,
    /// What we hold, for a ring that has to begin anew.
    holds: BTreeMap<IpAddr, (Epoch, u8)>,
    running: Option<Running>,
    /// Not before.
    start_at: Option<Instant>,
    is_silenced: bool,
}

struct Running {
    ring: Ring<Hmac>,
    socket: Socket,
    cluster: String,
    told: Option<View>,
    is_changed: bool,
}

impl Rings {
    pub(crate) fn new(
        options: Options,
        clock: Clock,
        store: KeyStore,
        inputs: UnboundedSender<core::Input>,
    ) -> Self {
        Self {
            options,
            clock,
            inputs,
            store,
            keys: None,
            gateways: BTreeMap::new(),
            segments: BTreeMap::new(),
            out: Vec::with_capacity(EFFECTS),
            frames: Vec::new(),
        }
    }

    /// Does what the core wants; packets go out with the next [`Self::run`].
    pub(crate) fn command(&mut self, name: SegmentName, command: RingCommand) {
        let now = self.clock.now();
        if let RingCommand::Start {
            interface,
            me,
            mac,
            peers,
        } = command
        {
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
            };
            self.segments.insert(name, segment);
            return;
        }
        if command == RingCommand::Stop {
            self.segments.remove(&name);
            return;
        }
        let Some(segment) = self.segments.get_mut(&name) else {
            return;
        };
        match command {
            RingCommand::Start { .. } | RingCommand::Stop => {}
            RingCommand::PeersChanged(peers) => {
                segment.macs = macs(&peers);
                segment.peers = peers;
                let members = segment.members();
                segment.handle(now, Input::MembersChanged(&members), &mut self.out);
                if let Some(running) = &mut segment.running {
                    running.is_changed = true;
                }
            }
            RingCommand::CarrierChanged(carrier) => {
                segment.carrier = carrier;
                segment.handle(now, Input::CarrierChanged(carrier), &mut self.out);
            }
            RingCommand::StepDown => segment.handle(now, Input::SteppedDown, &mut self.out),
            RingCommand::HoldChanged {
                vip,
                epoch,
                rank,
                held,
            } => {
                if held {
                    segment.holds.insert(vip, (epoch, rank));
                } else {
                    segment.holds.remove(&vip);
                }
                let input = Input::HoldChanged {
                    vip,
                    epoch,
                    rank,
                    held,
                };
                segment.handle(now, input, &mut self.out);
            }
        }
        self.carry_out(&name);
    }

    /// Lets all rings use these keys.
    pub(crate) fn set_keys(&mut self, keys: RingKeys) {
        self.keys = keys.0;
        let now = self.clock.now();
        let cluster = self.store.load().as_ref().map(|file| file.cluster.clone());
        for segment in self.segments.values_mut() {
            let is_of_another = segment
                .running
                .as_ref()
                .is_some_and(|running| Some(&running.cluster) != cluster.as_ref());
            if is_of_another {
                segment.stop();
            }
            segment.handle(now, Input::KeysChanged(self.keys), &mut self.out);
        }
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

    /// Takes in what the sockets hold, then does what is due.
    pub(crate) fn run(&mut self) {
        self.start_what_can_be();
        let names: usize = self.segments.len();
        for place in 0..names {
            let Some((name, segment)) = self.segments.iter_mut().nth(place) else {
                break;
            };
            let Some(running) = &mut segment.running else {
                continue;
            };
            let mut buffer = [0; MAX_DATAGRAM_BYTES + 1];
            for _ in 0..BATCH {
                match (&running.socket).read(&mut buffer) {
                    Ok(length) => {
                        let bytes = buffer.get(..length).unwrap_or(&buffer);
                        let input = Input::DatagramReceived { bytes };
                        running.ring.handle(self.clock.now(), input, &mut self.out);
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // An ICMP error about something sent earlier.
                    Err(error) => debug!(segment = %name, %error, "cannot receive"),
                }
            }
            running.ring.on_deadline(self.clock.now(), &mut self.out);
            let name = name.clone();
            self.carry_out(&name);
            self.tell_view(&name);
        }
    }

    /// Whether nothing may be answered on an interface until others have confirmed that we are not
    /// taken for dead.
    pub(crate) fn is_silenced(&self, interface: IfIndex) -> bool {
        self.segments
            .values()
            .any(|segment| segment.interface == interface && segment.is_silenced)
    }

    /// The addresses whose kernels' answers are of interest on an interface.
    pub(crate) fn watched(&self, interface: IfIndex) -> impl Iterator<Item = IpAddr> {
        self.segments
            .values()
            .filter(move |segment| segment.interface == interface)
            .flat_map(|segment| {
                let witness = self.witness(segment);
                segment.macs.keys().copied().chain(witness)
            })
    }

    /// A frame came in; perhaps it is the answer of a kernel.
    pub(crate) fn frame_received(&mut self, interface: IfIndex, bytes: &[u8]) {
        let address = match herald_wire::parse(bytes) {
            Ok(Heard::Arp(arp)) if arp.operation == ArpOperation::Reply => {
                IpAddr::V4(arp.sender_ip)
            }
            Ok(Heard::Advertisement(advertisement)) => IpAddr::V6(advertisement.target),
            Ok(_) | Err(_) => return,
        };
        let now = self.clock.now();
        let witnesses: Vec<(SegmentName, bool)> = self
            .segments
            .iter()
            .filter(|(_, segment)| segment.interface == interface)
            .map(|(name, segment)| (name.clone(), self.witness(segment) == Some(address)))
            .collect();
        for (name, is_witness) in witnesses {
            let Some(segment) = self.segments.get_mut(&name) else {
                continue;
            };
            if segment.macs.contains_key(&address) {
                segment.handle(now, Input::KernelAnswered { address }, &mut self.out);
            }
            if is_witness {
                segment.handle(now, Input::WitnessAnswered, &mut self.out);
            }
            self.carry_out(&name);
        }
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
        let now = self.clock.now();
        let (Some(keys), Some(file)) = (self.keys, self.store.load_full()) else {
            return;
        };
        for (name, segment) in &mut self.segments {
            let is_due = segment.start_at.is_none_or(|at| now >= at);
            if segment.running.is_some() || !is_due {
                continue;
            }
            match segment.start(now, name, &self.options, &self.store, &file.cluster) {
                Ok(()) => {
                    info!(segment = %name, node = %segment.me.address, port = self.options.port, "the ring runs");
                    segment.handle(now, Input::KeysChanged(Some(keys)), &mut self.out);
                    if !segment.carrier {
                        segment.handle(now, Input::CarrierChanged(false), &mut self.out);
                    }
                    let holds = std::mem::take(&mut segment.holds);
                    for (vip, (epoch, rank)) in &holds {
                        let input = Input::HoldChanged {
                            vip: *vip,
                            epoch: *epoch,
                            rank: *rank,
                            held: true,
                        };
                        segment.handle(now, input, &mut self.out);
                    }
                    segment.holds = holds;
                }
                Err(error) => {
                    warn!(segment = %name, %error, "cannot take part in the ring");
                    segment.start_at = Some(now + RETRY);
                    let event = RingEvent::Failed {
                        reason: error.to_string().into(),
                    };
                    tell(&self.inputs, name, event);
                }
            }
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
        match effect {
            Effect::MemberDown {
                node,
                incarnation,
                scope,
                timeline,
            } => {
                info!(segment = %name, %node, life = incarnation.0, ?scope, "a speaker is dead");
                running.is_changed = true;
                let event = RingEvent::Down {
                    node,
                    incarnation,
                    scope,
                    timeline,
                };
                tell(&self.inputs, name, event);
            }
            Effect::MemberUp { node, incarnation } => {
                info!(segment = %name, %node, life = incarnation.0, "a speaker is up");
                running.is_changed = true;
            }
            Effect::IncarnationRaised {
                incarnation,
                reason,
            } => {
                info!(segment = %name, life = incarnation.0, ?reason, "this node begins another life");
                running.is_changed = true;
                segment.me.incarnation = incarnation;
                segment.holds.clear();
                segment.is_silenced = false;
            }
            Effect::Silenced { late } => {
                warn!(segment = %name, late_ms = late.as_millis(), "woke late: silent until others confirm us");
                segment.is_silenced = true;
            }
            Effect::Confirmed => {
                info!(segment = %name, "confirmed by others");
                segment.is_silenced = false;
            }
            Effect::QuorumChanged {
                reached,
                base,
                quorum,
            } => {
                info!(segment = %name, reached, base, quorum, "members reached");
                running.is_changed = true;
            }
            Effect::HoldHeard(hold) => tell(&self.inputs, name, RingEvent::Hold(hold)),
            Effect::PeerReported { .. }
            | Effect::Send { .. }
            | Effect::ProbeKernel { .. }
            | Effect::AskWitness => {}
        }
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
        let mut view = View {
            incarnation: running.ring.incarnation(),
            quorum: running.ring.has_quorum(),
            ..View::default()
        };
        let nodes = segment.peers.iter().map(|peer| &peer.member.node);
        for node in nodes.chain([&segment.me.node]) {
            if let Some(incarnation) = running.ring.live(node) {
                view.live.insert(node.clone(), incarnation);
            } else if let Some((incarnation, standing)) = running.ring.standing(node) {
                let scope = match standing {
                    Standing::NodeDown => Scope::Node,
                    Standing::Up | Standing::SpeakerDown => Scope::Speaker,
                };
                view.dead.insert(node.clone(), (incarnation, scope));
            }
        }
        if running.told.as_ref() != Some(&view) {
            running.told = Some(view.clone());
            tell(&self.inputs, name, RingEvent::View(view));
        }
    }
}

impl Segment {
    fn members(&self) -> Vec<Member> {
        let peers = self.peers.iter().map(|peer| peer.member.clone());
        peers.chain([self.me.clone()]).collect()
    }

    fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Vec<Effect>) {
        if let Some(running) = &mut self.running {
            running.ring.handle(now, input, out);
        }
    }

    fn stop(&mut self) {
        self.running = None;
        self.start_at = None;
        self.is_silenced = false;
    }

    fn start(
        &mut self,
        now: Instant,
        name: &SegmentName,
        options: &Options,
        store: &KeyStore,
        cluster: &str,
    ) -> io::Result<()> {
        let socket = open(self.interface, self.me.address, options.port)?;
        let config = Config {
            profile: options.profile,
            cluster: cluster.to_owned(),
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
            cluster: cluster.to_owned(),
            told: None,
            is_changed: true,
        });
        self.is_silenced = false;
        Ok(())
    }
}

/// A socket that hears and sends on this interface only.
fn open(interface: IfIndex, own: IpAddr, port: u16) -> io::Result<Socket> {
    let (domain, any): (Domain, IpAddr) = match own {
        IpAddr::V4(_) => (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
        IpAddr::V6(_) => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    sys::bind_to_interface(&socket, interface)?;
    match own {
        IpAddr::V4(_) => socket.set_tos_v4(TRAFFIC_CLASS)?,
        IpAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_tclass_v6(TRAFFIC_CLASS)?;
        }
    }
    socket.set_recv_buffer_size(1 << 20)?;
    socket.bind(&SockAddr::from(SocketAddr::new(any, port)))?;
    Ok(socket)
}

/// A question to the kernel of a node: to one address, or to all if that is not known.
fn question(mac: MacAddress, own: IpAddr, target: IpAddr, to: Option<MacAddress>) -> Option<Frame> {
    match (own, target) {
        (IpAddr::V4(own), IpAddr::V4(target)) => {
            let mut request = Arp::request(mac, own, target);
            request.ethernet_destination = to.unwrap_or(MacAddress::BROADCAST);
            Some(request.emit())
        }
        (IpAddr::V6(own), IpAddr::V6(target)) => {
            let mut solicitation = NeighbourSolicitation::probe(mac, target);
            solicitation.source = own;
            solicitation.source_mac = Some(mac);
            if let Some(to) = to {
                solicitation.ethernet_destination = to;
                solicitation.destination = target;
            }
            Some(solicitation.emit())
        }
        _families_differ => None,
    }
}

fn macs(peers: &[Peer]) -> BTreeMap<IpAddr, MacAddress> {
    peers
        .iter()
        .map(|peer| (peer.member.address, peer.mac))
        .collect()
}

fn tell(inputs: &UnboundedSender<core::Input>, segment: &SegmentName, event: RingEvent) {
    let input = core::Input::RingSaid {
        segment: segment.clone(),
        event,
    };
    if inputs.send(input).is_err() {
        debug!("nobody listens to the rings any more");
    }
}
