//! The thread never waits for memory while nothing happens that others have to be told of: musl's
//! allocator has one lock, and whoever holds it may have lost the processor.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::UdpSocket;

use herald_ring::{Config, Ring};

use super::*;

/// For how long the other end may take on a machine that is busy.
const LONG: Duration = Duration::from_mins(1);

struct Counting;

thread_local! {
    /// Of this thread, for the other tests have threads of their own.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.set(ALLOCATIONS.get() + 1);
}

#[expect(
    unsafe_code,
    reason = "counts, and leaves all else to the system's allocator"
)]
// SAFETY: every call is passed on unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The other node, with the same clock.
struct Other {
    ring: Ring<Hmac>,
    socket: UdpSocket,
    out: Vec<Effect>,
}

impl Other {
    fn round(&mut self, now: Instant, to: SocketAddr) {
        let mut buffer = [0; MAX_DATAGRAM_BYTES];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            let bytes = &buffer[..length];
            let input = Input::DatagramReceived { bytes };
            self.ring.handle(now, input, &mut self.out);
        }
        self.ring.on_deadline(now, &mut self.out);
        for effect in self.out.drain(..) {
            if let Effect::Send { packet, .. } = effect {
                self.socket.send_to(packet.as_bytes(), to).unwrap();
            }
        }
    }
}

#[test]
fn a_round_in_which_nothing_is_told_allocates_nothing() {
    let bound = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    };
    let (ours, theirs) = (bound(), bound());
    let to = ours.local_addr().unwrap();
    let mut members = [member(1), member(2)];
    members[1].address = theirs.local_addr().unwrap().ip();

    let (sender, mut inputs) = unbounded_channel();
    let options = Options {
        profile: Profile::Fast,
        port: theirs.local_addr().unwrap().port(),
        witness: Witness::None,
    };
    let store = store("uid", b"a key");
    let mut rings = Rings::new(options, Clock::start(), Arc::clone(&store), sender);
    let name = SegmentName::from(SEGMENT);
    let start = RingCommand::Start {
        interface: INTERFACE,
        me: members[0].clone(),
        mac: mac(1),
        peers: vec![Peer {
            member: members[1].clone(),
            mac: mac(2),
        }],
    };
    rings.command(&name, start);
    let now = rings.clock.now();
    let file = store.load_full().unwrap();
    let segment = rings.segments.get_mut(&name).unwrap();
    segment
        .begin(now, &name, ours.into(), Profile::Fast, &store, &file)
        .unwrap();
    let keys = Some(Keys::only(KeyId(1)));
    rings.set_keys(RingKeys(keys));
    let config = Config {
        profile: Profile::Fast,
        cluster: "uid".to_owned(),
        segment: SEGMENT.into(),
        first_sequence: 1,
    };
    let auth = Hmac(Arc::clone(&store));
    let ring = Ring::new(&config, auth, &members[1], &members, 7, now);
    let mut other = Other {
        ring,
        socket: theirs,
        out: Vec::new(),
    };
    let input = Input::KeysChanged(keys);
    other.ring.handle(now, input, &mut other.out);

    let counters = |rings: &Rings| {
        rings.segments[&name]
            .running
            .as_ref()
            .unwrap()
            .ring
            .counters()
    };
    let (mut quiet, mut measured) = (0, 0);
    while quiet < 30 {
        assert!(rings.clock.now().saturating_since(now) < LONG, "{quiet}");
        other.round(rings.clock.now(), to);
        let (before, received) = (ALLOCATIONS.get(), counters(&rings).received);
        rings.listen();
        rings.run();
        let allocations = ALLOCATIONS.get() - before;
        drop(rings.take_frames());
        let is_told = inputs.try_recv().is_ok();
        // What is used first may be allocated then; after ten heartbeats all has been used.
        if !is_told && received >= 10 {
            assert_eq!(allocations, 0);
            measured += 1;
            quiet += u64::from(counters(&rings).received > received);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(measured > 30 && counters(&rings).sent > 20);
    assert_eq!(counters(&rings).forged, 0);
}
