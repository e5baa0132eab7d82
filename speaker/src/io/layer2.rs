//! The thread that answers and announces: packet sockets around [`herald_l2::Layer2`]; the observer
//! rings run on it as well.
//!
//! It is a thread of its own, with the best priority the kernel gives, so that an answer does not
//! wait for anything else the speaker does.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixDatagram;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use herald_l2::{Counts, Effect, Layer2, Pace};
use herald_model::{IfIndex, Incarnation, Instant, MacAddress, SegmentName};
use herald_speaker_core::{Grants, Input, RingCommand, RingKeys};
use herald_wire::Frame;
use socket2::Socket;
use tokio::sync::oneshot;
use tracing::{debug, info, trace, warn};

use super::filter;
use super::reports::Reporter;
use super::rings::{RingStatus, Rings};
use super::sys::{Poller, Urgency, lock_memory, packet_socket, raise_priority};
use crate::clock::Clock;

const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;
/// Frames read from one socket before the others and the timers have their turn.
const BATCH: usize = 64;
/// Frames that may have queued while we were not there.
const QUEUE: usize = 4_096;
/// A stranger's claim is passed on this often.
const CLAIM_INTERVAL: Duration = Duration::from_secs(1);

/// What was said of every address that is held.
pub(crate) type AllCounts = BTreeMap<(IfIndex, IpAddr), Counts>;

/// What the core wants of the thread.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Wish {
    /// For the machine.
    Layer2(herald_l2::Input),
    /// For the ring of a segment.
    Ring(SegmentName, RingCommand),
    /// The rings are to use these keys.
    RingKeys(RingKeys),
    /// The core knows that this node is in this life on a segment: what it is told to hold there
    /// from now on, it is to hold in that life.
    LifeSeen(SegmentName, Incarnation),
}

/// What the thread is told.
#[derive(Debug)]
enum Command {
    /// All that the core wants at a time. Each wake costs a round of the thread, with new filters if an
    /// address is held: a thousand addresses are to cost one.
    Wishes(Vec<Wish>),
    Gateways(BTreeMap<IfIndex, IpAddr>),
    Count(oneshot::Sender<AllCounts>),
    RingStatus(oneshot::Sender<BTreeMap<SegmentName, RingStatus>>),
    /// Answered by the end of the channel.
    Stop(mpsc::Sender<()>),
}

/// How many frames each interface sends that nobody asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paces {
    /// Those that announce addresses.
    pub(crate) announcements: Pace,
    /// Those that ask whether anybody uses an address.
    pub(crate) questions: Pace,
}

/// The running thread.
#[derive(Debug)]
pub(crate) struct Handle {
    commands: mpsc::Sender<Command>,
    wake: UnixDatagram,
}

/// Starts the thread; what it finds goes to `reports`.
///
/// When the thread panics the process ends: nobody would answer, and the other speakers take over
/// only from one that is silent.
pub(crate) fn start(
    paces: Paces,
    clock: Clock,
    rings: Rings,
    reports: Reporter,
) -> io::Result<Handle> {
    let (commands, receiver) = mpsc::channel();
    let (wake, woken) = UnixDatagram::pair()?;
    wake.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    let driver = Driver::new(paces, clock, rings, reports, (receiver, woken));
    thread::Builder::new()
        .name("layer2".to_owned())
        .spawn(move || {
            let end = catch_unwind(AssertUnwindSafe(|| driver.run()));
            if end.is_err() {
                std::process::abort();
            }
        })?;
    Ok(Handle { commands, wake })
}

impl Handle {
    /// Hands over what the core wants, in this order.
    pub(crate) fn wish(&self, wishes: Vec<Wish>) {
        if !wishes.is_empty() {
            self.send(Command::Wishes(wishes));
        }
    }

    /// The next hops of the default routes, by interface.
    pub(crate) fn set_gateways(&self, gateways: BTreeMap<IfIndex, IpAddr>) {
        self.send(Command::Gateways(gateways));
    }

    /// How the rings do.
    pub(crate) async fn ring_status(&self) -> BTreeMap<SegmentName, RingStatus> {
        let (sender, receiver) = oneshot::channel();
        self.send(Command::RingStatus(sender));
        receiver.await.unwrap_or_default()
    }

    /// What was said so far of every address that is held.
    pub(crate) async fn counts(&self) -> AllCounts {
        let (sender, receiver) = oneshot::channel();
        self.send(Command::Count(sender));
        receiver.await.unwrap_or_default()
    }

    /// Ends the thread: nothing is answered any more when this returns.
    pub(crate) fn stop(&self) {
        let (sender, stopped) = mpsc::channel();
        self.send(Command::Stop(sender));
        // Nothing is ever sent: the thread drops its end when it is done.
        let _ended = stopped.recv();
    }

    fn send(&self, command: Command) {
        // Fails only when the thread is gone; then there is nobody to tell.
        if self.commands.send(command).is_ok() {
            // A full queue of wake-ups wakes as well.
            let _woken_already = self.wake.send(&[0]);
        }
    }
}

struct Driver {
    machine: Layer2,
    rings: Rings,
    clock: Clock,
    reports: Reporter,
    commands: mpsc::Receiver<Command>,
    woken: UnixDatagram,
    ports: BTreeMap<IfIndex, Sockets>,
    /// Claims passed on lately.
    claims: Vec<(IpAddr, MacAddress, Instant)>,
    poller: Poller,
    out: Vec<Effect>,
    /// The other one of two vectors that take turns, so that a round allocates nothing.
    spare: Vec<Effect>,
}

struct Sockets {
    arp: Socket,
    neighbour: Socket,
    held: Vec<IpAddr>,
    /// Addresses that are being probed.
    asked: Vec<IpAddr>,
    filters_outdated: bool,
}

impl Driver {
    fn new(
        paces: Paces,
        clock: Clock,
        rings: Rings,
        reports: Reporter,
        (commands, woken): (mpsc::Receiver<Command>, UnixDatagram),
    ) -> Self {
        Self {
            machine: Layer2::new(paces.announcements, paces.questions),
            rings,
            clock,
            reports,
            commands,
            woken,
            ports: BTreeMap::new(),
            claims: Vec::with_capacity(BATCH),
            poller: Poller::default(),
            out: Vec::with_capacity(BATCH),
            spare: Vec::with_capacity(BATCH),
        }
    }

    fn run(mut self) {
        let grants = Grants {
            priority: raise_priority(Urgency::First),
            code_is_locked: lock_memory(),
        };
        info!(?grants, "layer 2 runs");
        self.report(Input::Granted(grants));
        while self.round() {}
    }

    /// Waits until there is something to do, and does it; `false`: to end.
    fn round(&mut self) -> bool {
        if let Err(error) = self.wait() {
            warn!(%error, "cannot wait for frames");
            thread::sleep(Duration::from_millis(10));
            return true;
        }
        if !self.take_commands() {
            return false;
        }
        self.reports.flush();
        // The rings come first: a late wake-up may mean that nothing may be answered. Their timers
        // come last: a kernel that answered while we were late is not silent.
        self.rings.listen();
        self.release_ended();
        self.update_filters();
        self.read_all();
        self.rings.run();
        self.release_ended();
        self.update_filters();
        self.machine.on_deadline(self.clock.now(), &mut self.out);
        self.carry_out();
        true
    }

    /// Waits for frames, datagrams, commands or the next deadline.
    fn wait(&mut self) -> io::Result<()> {
        let frames = self
            .ports
            .values()
            .flat_map(|sockets| [sockets.arp.as_fd(), sockets.neighbour.as_fd()]);
        let descriptors = frames
            .chain([self.woken.as_fd()])
            .chain(self.rings.sockets());
        let deadline = [self.machine.next_deadline(), self.rings.next_deadline()];
        let timeout = deadline
            .into_iter()
            .flatten()
            .min()
            .map(|deadline| self.clock.until(deadline));
        self.poller.wait(descriptors, timeout)
    }

    /// Reads the sockets that had something to read, in the order [`Self::wait`] gave them.
    fn read_all(&mut self) {
        let count = self.ports.len();
        for place in 0..count {
            let Some((interface, sockets)) = self.ports.iter().nth(place) else {
                return;
            };
            let first = place * 2;
            if self.poller.is_readable(first) {
                read(
                    (*interface, &sockets.arp),
                    &mut self.machine,
                    &mut self.rings,
                    &mut self.out,
                );
            }
            if self.poller.is_readable(first + 1) {
                read(
                    (*interface, &sockets.neighbour),
                    &mut self.machine,
                    &mut self.rings,
                    &mut self.out,
                );
            }
        }
    }

    /// Takes in everything it was told; `false`: to end.
    fn take_commands(&mut self) -> bool {
        let mut byte = [0];
        while self.woken.recv(&mut byte).is_ok() {}
        loop {
            match self.commands.try_recv() {
                Ok(Command::Wishes(wishes)) => {
                    for wish in wishes {
                        self.grant(wish);
                    }
                }
                Ok(Command::Gateways(gateways)) => {
                    self.rings.set_gateways(gateways);
                    self.outdate_filters();
                }
                Ok(Command::RingStatus(sender)) => {
                    // The receiver gave up: then nobody wants to know.
                    drop(sender.send(self.rings.status()));
                }
                Ok(Command::Count(sender)) => {
                    // The receiver gave up: then nobody wants to know.
                    drop(sender.send(self.machine.counts()));
                }
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
                Ok(Command::Stop(stopped)) => {
                    self.rings.run();
                    self.carry_out();
                    self.ports.clear();
                    drop(stopped);
                    return false;
                }
            }
        }
    }

    fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Layer2(input) => self.input(input),
            Wish::Ring(segment, command) => {
                let changes_members = matches!(
                    command,
                    RingCommand::Start { .. } | RingCommand::Stop | RingCommand::PeersChanged(_)
                );
                self.rings.command(&segment, command);
                if changes_members {
                    self.outdate_filters();
                }
            }
            Wish::RingKeys(keys) => self.rings.set_keys(keys),
            Wish::LifeSeen(segment, life) => self.rings.life_seen(&segment, life),
        }
    }

    fn outdate_filters(&mut self) {
        for sockets in self.ports.values_mut() {
            sockets.filters_outdated = true;
        }
    }

    /// Where a life of ours has ended, nothing that was held in it may be answered or announced any
    /// more, not even what was asked long ago and is still queued; the core hears of it later.
    fn release_ended(&mut self) {
        for interface in self.rings.take_ended() {
            let Some(sockets) = self.ports.get_mut(&interface) else {
                continue;
            };
            sockets.filters_outdated = true;
            self.machine.release_all(interface, sockets.held.drain(..));
            self.out.retain(|effect| {
                !matches!(effect, Effect::SendFrame { interface: on, .. } if *on == interface)
            });
        }
    }

    fn input(&mut self, input: herald_l2::Input) {
        match input {
            herald_l2::Input::PortSet(port) => self.open(port.index),
            herald_l2::Input::PortRemoved(index) => {
                self.ports.remove(&index);
            }
            // It was to be held in a life that is over.
            herald_l2::Input::Held { interface, .. } if self.rings.is_in_unseen_life(interface) => {
                return;
            }
            herald_l2::Input::Held { interface, address } => {
                if let Some(sockets) = self.ports.get_mut(&interface) {
                    sockets.held.retain(|held| *held != address);
                    sockets.held.push(address);
                    sockets.filters_outdated = true;
                }
            }
            herald_l2::Input::Released { interface, address } => {
                if let Some(sockets) = self.ports.get_mut(&interface) {
                    sockets.held.retain(|held| *held != address);
                    sockets.filters_outdated = true;
                }
            }
            herald_l2::Input::Probe { interface, address } => {
                if let Some(sockets) = self.ports.get_mut(&interface) {
                    sockets.asked.push(address);
                    sockets.filters_outdated = true;
                    // The answer may not come before the filter lets it through.
                    self.update_filters();
                }
            }
            herald_l2::Input::Challenged { .. } => {}
        }
        self.machine.handle(self.clock.now(), input, &mut self.out);
    }

    fn open(&mut self, interface: IfIndex) {
        if let Entry::Vacant(place) = self.ports.entry(interface) {
            match Sockets::open(interface) {
                Ok(sockets) => {
                    debug!(%interface, "sockets are open");
                    place.insert(sockets);
                }
                Err(error) => {
                    warn!(%interface, %error, "cannot open packet sockets");
                    let reason = error.to_string().into();
                    self.report(Input::PortFailed { interface, reason });
                    return;
                }
            }
        }
        self.report(Input::PortOpened(interface));
    }

    fn update_filters(&mut self) {
        for (interface, sockets) in &mut self.ports {
            if !std::mem::take(&mut sockets.filters_outdated) {
                continue;
            }
            let held: Vec<IpAddr> = sockets.held.iter().chain(&sockets.asked).copied().collect();
            let asked: Vec<IpAddr> = self.rings.watched(*interface).collect();
            let neighbour = filter::neighbour(&held, &asked);
            let attached = sockets
                .arp
                .attach_filter(&filter::arp(&held, &asked))
                .and_then(|()| sockets.neighbour.attach_filter(&neighbour));
            if let Err(error) = attached {
                warn!(%interface, %error, "cannot change the filter of a packet socket");
                sockets.filters_outdated = true;
            }
        }
    }

    fn carry_out(&mut self) {
        let mut out = std::mem::replace(&mut self.out, std::mem::take(&mut self.spare));
        for effect in out.drain(..) {
            match effect {
                Effect::SendFrame { interface, frame } => {
                    if !self.rings.is_silenced(interface) {
                        self.send(interface, &frame);
                    }
                }
                Effect::ReportForeignClaim {
                    interface,
                    address,
                    mac,
                } => self.claim(interface, address, mac),
                Effect::ReportProbed {
                    interface,
                    address,
                    user,
                } => {
                    if let Some(sockets) = self.ports.get_mut(&interface) {
                        sockets.asked.retain(|asked| *asked != address);
                        sockets.filters_outdated = true;
                    }
                    self.report(Input::Probed {
                        interface,
                        address,
                        user,
                    });
                }
            }
        }
        self.spare = out;
        let ports = &self.ports;
        for (interface, frame) in self.rings.take_frames() {
            if let Some(sockets) = ports.get(&interface) {
                sockets.send(interface, &frame);
            }
        }
    }

    fn send(&self, interface: IfIndex, frame: &Frame) {
        if let Some(sockets) = self.ports.get(&interface) {
            sockets.send(interface, frame);
        }
    }

    /// Passes a claim on, but not every frame of a flood of them.
    fn claim(&mut self, interface: IfIndex, address: IpAddr, mac: MacAddress) {
        let now = self.clock.now();
        self.claims
            .retain(|(_, _, at)| now.saturating_since(*at) < CLAIM_INTERVAL);
        let is_known = self
            .claims
            .iter()
            .any(|(known, by, _)| (*known, *by) == (address, mac));
        if self.claims.len() < BATCH && !is_known {
            self.claims.push((address, mac, now));
            self.report(Input::ForeignClaim {
                interface,
                address,
                mac,
            });
        }
    }

    fn report(&mut self, input: Input) {
        self.reports.input(input);
    }
}

/// Reads what a socket holds; the rings and the machine look at it in turn.
fn read(
    (interface, mut socket): (IfIndex, &Socket),
    machine: &mut Layer2,
    rings: &mut Rings,
    out: &mut Vec<Effect>,
) {
    let mut buffer = [0; 2_048];
    // Asked while we were not there: somebody else may have answered since.
    let is_silenced = rings.is_silenced(interface);
    let batch = if is_silenced { QUEUE } else { BATCH };
    for _ in 0..batch {
        match socket.read(&mut buffer) {
            Ok(length) => {
                let frame = buffer.get(..length).unwrap_or(&buffer);
                trace!(%interface, ?frame, is_silenced, "received");
                rings.frame_received(interface, frame);
                if !is_silenced {
                    machine.frame_received(interface, frame, out);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                debug!(%interface, %error, "cannot receive");
                return;
            }
        }
    }
}

impl Sockets {
    fn send(&self, interface: IfIndex, frame: &Frame) {
        let bytes = frame.as_bytes();
        let is_arp = bytes.get(12..14) == Some(&ETH_P_ARP.to_be_bytes());
        let socket = if is_arp { &self.arp } else { &self.neighbour };
        trace!(%interface, ?frame, "sending");
        if let Err(error) = socket.send(bytes) {
            debug!(%interface, %error, "cannot send");
        }
    }

    fn open(interface: IfIndex) -> io::Result<Self> {
        Ok(Self {
            arp: packet_socket(interface, ETH_P_ARP, &filter::arp(&[], &[]))?,
            neighbour: packet_socket(interface, ETH_P_IPV6, &filter::neighbour(&[], &[]))?,
            held: Vec::new(),
            asked: Vec::new(),
            filters_outdated: false,
        })
    }
}

#[cfg(test)]
mod tests;
