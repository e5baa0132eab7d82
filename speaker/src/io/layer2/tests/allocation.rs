//! The thread never waits for memory once all has begun, whatever it hears and tells: musl's
//! allocator has one lock, and whoever holds it may have lost the processor.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use herald_model::{Epoch, Tenure};
use herald_ring::{
    Config, Effect as RingEffect, Input as RingInput, KeyId, Keys, MAX_DATAGRAM_BYTES, Member,
    Profile, Ring,
};
use herald_speaker_core::{Peer, RingEvent};

use super::*;
use crate::io::reports;
use crate::io::rings::tests::{INTERFACE, SEGMENT, mac, member, store};
use crate::io::rings::{Hmac, KeyStore, Options, Witness};

#[path = "../../../../ring/tests/counting/allocator.rs"]
mod allocator;

/// For how long the others may take on a machine that is busy.
const LONG: Duration = Duration::from_mins(1);
const KEYS: Option<Keys> = Some(Keys::only(KeyId(1)));

/// How far the story is.
const ALL_WELL: u8 = 0;
/// The second node holds an address, then by a better right.
const HELD: u8 = 1;
const RENEWED: u8 = 2;
/// The third node has died.
const DEAD: u8 = 3;
const OVER: u8 = 4;

fn config() -> Config {
    Config {
        profile: Profile::Fast,
        cluster: "uid".to_owned(),
        segment: SEGMENT.into(),
        first_sequence: 1,
    }
}

/// One of the other nodes.
struct Other {
    ring: Ring<Hmac>,
    socket: UdpSocket,
    out: Vec<RingEffect>,
}

impl Other {
    fn start(
        place: usize,
        socket: UdpSocket,
        members: &[Member],
        store: &KeyStore,
        now: Instant,
    ) -> Self {
        let auth = Hmac(Arc::clone(store));
        let seed = u128::try_from(place).unwrap();
        let mut other = Self {
            ring: Ring::new(&config(), auth, &members[place], members, seed, now),
            socket,
            out: Vec::new(),
        };
        other
            .ring
            .handle(now, RingInput::KeysChanged(KEYS), &mut other.out);
        other
    }

    fn hold(&mut self, now: Instant, epoch: u64) {
        let hold = RingInput::HoldChanged {
            vip: [192, 0, 2, 10].into(),
            epoch: Epoch(epoch),
            rank: 0,
            tenure: Tenure::Held,
        };
        self.ring.handle(now, hold, &mut self.out);
    }

    fn round(&mut self, clock: Clock, members: &[Member], (ours, port): (SocketAddr, u16)) {
        self.ring
            .handle(clock.now(), RingInput::Woken, &mut self.out);
        let mut buffer = [0; MAX_DATAGRAM_BYTES];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let bytes = &buffer[..length];
            let input = RingInput::DatagramReceived { bytes };
            self.ring.handle(clock.now(), input, &mut self.out);
        }
        self.ring.on_deadline(clock.now(), &mut self.out);
        for effect in self.out.drain(..) {
            if let RingEffect::Send { to, packet } = effect {
                let to = if to == members[0].address {
                    ours
                } else {
                    SocketAddr::new(to, port)
                };
                self.socket.send_to(packet.as_bytes(), to).unwrap();
            }
        }
    }
}

/// Sockets of the two others, at the same port.
fn sockets() -> [UdpSocket; 2] {
    loop {
        let second = UdpSocket::bind("127.0.0.2:0").unwrap();
        let port = second.local_addr().unwrap().port();
        if let Ok(third) = UdpSocket::bind(("127.0.0.3", port)) {
            second.set_nonblocking(true).unwrap();
            third.set_nonblocking(true).unwrap();
            return [second, third];
        }
    }
}

/// A node whose thread the test runs, on a segment with the others.
fn driver(
    members: &[Member],
    port: u16,
    socket: UdpSocket,
    store: &KeyStore,
    clock: Clock,
) -> (Driver, reports::Listener, Handle) {
    let (reporter, listener) = reports::channel();
    let options = Options {
        profile: Profile::Fast,
        port,
        witness: Witness::None,
    };
    let mut rings = Rings::new(options, clock, Arc::clone(store), reporter.clone());
    let peers = [2, 3].into_iter().zip(&members[1..]);
    let start = RingCommand::Start {
        interface: INTERFACE,
        me: members[0].clone(),
        mac: mac(1),
        peers: peers
            .map(|(last, member)| Peer {
                member: member.clone(),
                mac: mac(last),
            })
            .collect(),
    };
    let segment = SegmentName::from(SEGMENT);
    rings.command(&segment, start);
    rings.begin_with(&segment, socket.into());
    rings.set_keys(RingKeys(KEYS));
    let (commands, receiver) = mpsc::channel();
    let (wake, woken) = UnixDatagram::pair().unwrap();
    woken.set_nonblocking(true).unwrap();
    let paces = Paces {
        announcements: Pace::default(),
        questions: Pace::QUESTIONS,
    };
    let driver = Driver::new(paces, clock, rings, reporter, (receiver, woken));
    (driver, listener, Handle { commands, wake })
}

#[test]
fn once_all_has_begun_the_thread_needs_no_memory_even_when_a_node_dies() {
    let clock = Clock::start();
    let store = store("uid", b"a key");
    let ours = UdpSocket::bind("127.0.0.1:0").unwrap();
    ours.set_nonblocking(true).unwrap();
    let others = sockets();
    let port = others[0].local_addr().unwrap().port();
    let mut members = [member(1), member(2), member(3)];
    for (last, member) in (1..).zip(&mut members) {
        member.address = [127, 0, 0, last].into();
    }
    let to = (ours.local_addr().unwrap(), port);
    let (mut driver, mut listener, _handle) = driver(&members, port, ours, &store, clock);

    let stage = Arc::new(AtomicU8::new(ALL_WELL));
    let theirs = thread::spawn({
        let (stage, members, store) = (Arc::clone(&stage), members.clone(), Arc::clone(&store));
        move || {
            let mut place = 0;
            let mut others = others.map(|socket| {
                place += 1;
                Other::start(place, socket, &members, &store, clock.now())
            });
            let mut held = 0;
            loop {
                let stage = stage.load(Ordering::Relaxed);
                if stage == OVER {
                    return;
                }
                while held < stage.min(RENEWED) {
                    held += 1;
                    others[0].hold(clock.now(), u64::from(held));
                }
                let alive = if stage == DEAD { 1 } else { 2 };
                for other in &mut others[..alive] {
                    other.round(clock, &members, to);
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
    });

    let began = clock.now();
    let mut measured = 0;
    let mut views = Vec::new();
    let mut deaths = Vec::new();
    while stage.load(Ordering::Relaxed) != OVER {
        let now = stage.load(Ordering::Relaxed);
        assert!(clock.now().saturating_since(began) < LONG, "at {now}");
        let before = allocator::calls();
        assert!(driver.round());
        let calls = allocator::calls() - before;
        let told: Vec<Input> = std::iter::from_fn(|| listener.next()).collect();
        if now >= RENEWED {
            assert_eq!(calls, 0, "{told:?}");
            measured += 1;
        }
        let mut next = now;
        for input in told {
            let Input::RingSaid { event, .. } = input else {
                continue;
            };
            match event {
                RingEvent::View(view) => views.push(view),
                RingEvent::Down { node, .. } => deaths.push(node),
                RingEvent::Hold(hold) => {
                    let then = if hold.epoch == Epoch(1) {
                        RENEWED
                    } else {
                        DEAD
                    };
                    next = now.max(then);
                }
                RingEvent::Failed { reason } => unreachable!("{reason}"),
            }
        }
        let has_begun = driver.rings.status()[SEGMENT].counters.received > 60;
        if now == ALL_WELL && has_begun && views.last().is_some_and(|view| view.quorum) {
            next = HELD;
        }
        if views.last().is_some_and(|view| view.live.len() == 2) && now == DEAD {
            next = OVER;
        }
        stage.store(next, Ordering::Relaxed);
    }
    theirs.join().unwrap();
    assert_eq!(deaths, [members[2].node.clone()]);
    assert!(measured > 10, "{measured}");
}
