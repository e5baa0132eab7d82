//! The thread that answers and announces: packet sockets around [`herald_l2::Layer2`].
//!
//! It is a thread of its own, with the best priority the kernel gives, so that an answer does not
//! wait for anything else the speaker does.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixDatagram;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use herald_l2::{Counts, Effect, Layer2, Pace};
use herald_model::{IfIndex, Instant, MacAddress};
use herald_speaker_core::Input;
use socket2::Socket;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tracing::{debug, info, trace, warn};

use super::filter;
use super::sys::{packet_socket, raise_priority, wait_readable};
use crate::clock::Clock;

const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;
/// Frames read from one socket before the others and the timers have their turn.
const BATCH: usize = 64;
/// A stranger's claim is passed on this often.
const CLAIM_INTERVAL: Duration = Duration::from_secs(1);

/// What was said of every address that is held.
pub(crate) type AllCounts = BTreeMap<(IfIndex, IpAddr), Counts>;

/// What the thread is told.
#[derive(Debug)]
enum Command {
    Input(herald_l2::Input),
    Count(oneshot::Sender<AllCounts>),
    /// Answered by the end of the channel.
    Stop(mpsc::Sender<()>),
}

/// The running thread.
#[derive(Debug)]
pub(crate) struct Handle {
    commands: mpsc::Sender<Command>,
    wake: UnixDatagram,
}

/// Starts the thread; what it finds goes to `inputs`.
pub(crate) fn start(
    pace: Pace,
    clock: Clock,
    inputs: UnboundedSender<Input>,
) -> io::Result<Handle> {
    let (commands, receiver) = mpsc::channel();
    let (wake, woken) = UnixDatagram::pair()?;
    wake.set_nonblocking(true)?;
    woken.set_nonblocking(true)?;
    let driver = Driver {
        machine: Layer2::new(pace),
        clock,
        inputs,
        commands: receiver,
        woken,
        ports: BTreeMap::new(),
        claims: BTreeMap::new(),
        out: Vec::new(),
    };
    thread::Builder::new()
        .name("layer2".to_owned())
        .spawn(move || driver.run())?;
    Ok(Handle { commands, wake })
}

impl Handle {
    /// Tells the machine of the thread something.
    pub(crate) fn tell(&self, input: herald_l2::Input) {
        self.send(Command::Input(input));
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
    clock: Clock,
    inputs: UnboundedSender<Input>,
    commands: mpsc::Receiver<Command>,
    woken: UnixDatagram,
    ports: BTreeMap<IfIndex, Sockets>,
    claims: BTreeMap<(IpAddr, MacAddress), Instant>,
    out: Vec<Effect>,
}

struct Sockets {
    arp: Socket,
    neighbour: Socket,
    held: Vec<IpAddr>,
    filters_outdated: bool,
}

impl Driver {
    fn run(mut self) {
        let priority = raise_priority();
        info!(?priority, "layer 2 runs");
        self.report(Input::PriorityKnown(priority));
        loop {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    warn!(%error, "cannot wait for frames");
                    thread::sleep(Duration::from_millis(10));
                    continue;
                }
            };
            if !self.take_commands() {
                return;
            }
            self.update_filters();
            for (interface, is_arp) in ready {
                self.read(interface, is_arp);
            }
            self.machine.on_deadline(self.clock.now(), &mut self.out);
            self.carry_out();
        }
    }

    /// Waits for frames, commands or the next deadline; returns the sockets that can be read.
    fn wait(&self) -> io::Result<Vec<(IfIndex, bool)>> {
        let mut names = Vec::new();
        let mut descriptors: Vec<BorrowedFd<'_>> = vec![self.woken.as_fd()];
        for (interface, sockets) in &self.ports {
            names.extend([(*interface, true), (*interface, false)]);
            descriptors.extend([sockets.arp.as_fd(), sockets.neighbour.as_fd()]);
        }
        let timeout = self
            .machine
            .next_deadline()
            .map(|deadline| self.clock.until(deadline));
        let readable = wait_readable(&descriptors, timeout)?;
        Ok(readable
            .into_iter()
            .skip(1)
            .zip(names)
            .filter_map(|(is_readable, name)| is_readable.then_some(name))
            .collect())
    }

    /// Takes in everything it was told; `false`: to end.
    fn take_commands(&mut self) -> bool {
        let mut byte = [0];
        while self.woken.recv(&mut byte).is_ok() {}
        loop {
            match self.commands.try_recv() {
                Ok(Command::Input(input)) => self.input(input),
                Ok(Command::Count(sender)) => {
                    // The receiver gave up: then nobody wants to know.
                    drop(sender.send(self.machine.counts()));
                }
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
                Ok(Command::Stop(stopped)) => {
                    self.carry_out();
                    self.ports.clear();
                    drop(stopped);
                    return false;
                }
            }
        }
    }

    fn input(&mut self, input: herald_l2::Input) {
        match input {
            herald_l2::Input::PortSet(port) => self.open(port.index),
            herald_l2::Input::PortRemoved(index) => {
                self.ports.remove(&index);
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
            let attached = sockets
                .arp
                .attach_filter(&filter::arp(&sockets.held))
                .and_then(|()| {
                    sockets
                        .neighbour
                        .attach_filter(&filter::neighbour(&sockets.held))
                });
            if let Err(error) = attached {
                warn!(%interface, %error, "cannot change the filter of a packet socket");
                sockets.filters_outdated = true;
            }
        }
    }

    fn read(&mut self, interface: IfIndex, is_arp: bool) {
        let Some(sockets) = self.ports.get(&interface) else {
            return;
        };
        let mut socket = if is_arp {
            &sockets.arp
        } else {
            &sockets.neighbour
        };
        let mut buffer = [0; 2_048];
        for _ in 0..BATCH {
            match socket.read(&mut buffer) {
                Ok(length) => {
                    let frame = buffer.get(..length).unwrap_or(&buffer);
                    trace!(%interface, ?frame, "received");
                    self.machine.frame_received(interface, frame, &mut self.out);
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

    fn carry_out(&mut self) {
        for effect in std::mem::take(&mut self.out) {
            match effect {
                Effect::SendFrame { interface, frame } => {
                    let Some(sockets) = self.ports.get(&interface) else {
                        continue;
                    };
                    let bytes = frame.as_bytes();
                    let is_arp = bytes.get(12..14) == Some(&ETH_P_ARP.to_be_bytes());
                    let socket = if is_arp {
                        &sockets.arp
                    } else {
                        &sockets.neighbour
                    };
                    trace!(%interface, ?frame, "sending");
                    if let Err(error) = socket.send(bytes) {
                        debug!(%interface, %error, "cannot send");
                    }
                }
                Effect::ReportForeignClaim {
                    interface,
                    address,
                    mac,
                } => self.claim(interface, address, mac),
            }
        }
    }

    /// Passes a claim on, but not every frame of a flood of them.
    fn claim(&mut self, interface: IfIndex, address: IpAddr, mac: MacAddress) {
        let now = self.clock.now();
        self.claims
            .retain(|_, at| now.saturating_since(*at) < CLAIM_INTERVAL);
        if self.claims.len() < BATCH && self.claims.insert((address, mac), now).is_none() {
            self.report(Input::ForeignClaim {
                interface,
                address,
                mac,
            });
        }
    }

    fn report(&self, input: Input) {
        if self.inputs.send(input).is_err() {
            debug!("nobody listens to layer 2 any more");
        }
    }
}

impl Sockets {
    fn open(interface: IfIndex) -> io::Result<Self> {
        Ok(Self {
            arp: packet_socket(interface, ETH_P_ARP, &filter::arp(&[]))?,
            neighbour: packet_socket(interface, ETH_P_IPV6, &filter::neighbour(&[]))?,
            held: Vec::new(),
            filters_outdated: false,
        })
    }
}
