//! What the programs remember, and for how long, by a clock that the test sets.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::maps::Array;
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use herald_dataplane::{Event, Holder};
use herald_model::Protocol;
use herald_speaker::io::bpf::{TestRun, load};

use crate::bench::{Bench, NODE_PORT, PEER_MAC, is_sent_as, node4, node6};
use crate::direct::{framed, other_client};
use crate::frame::{CLIENT_PORT, Frame};
use crate::object::object;

const TICK: Duration = Duration::from_nanos(1);
/// As docs/forwarding.md says.
const CLOSED: Duration = Duration::from_secs(10);
const UDP: Duration = Duration::from_mins(5);
const TCP: Duration = Duration::from_mins(124);
const FRAGMENTS: Duration = Duration::from_mins(1);
const HANDOVER: Duration = Duration::from_secs(5);

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// The programs of `ageing.c`, on the maps of a bench.
struct Aged {
    ebpf: Ebpf,
    bench: Bench,
    now: Duration,
}

impl Aged {
    /// Node 2 is the only target.
    fn new() -> Result<Self> {
        let bench = Bench::new()?;
        let mut layouts = std::fs::read_dir(bench.lan.bpf_folder()?)?;
        let pins = layouts.next().context("no maps")??.path();
        let mut ebpf = EbpfLoader::new()
            .default_map_pin_directory(&pins)
            .load(&object("ageing.c")?)?;
        load(program(&mut ebpf)?)?;
        let now = Duration::from_hours(100);
        Ok(Self { ebpf, bench, now })
    }

    /// What comes of a frame now.
    fn run(&mut self, frame: &[u8]) -> Result<TestRun> {
        let clock = self.ebpf.map_mut("clock").context("no clock")?;
        let mut clock: Array<_, u64> = clock.try_into()?;
        clock.set(0, u64::try_from(self.now.as_nanos())?, 0)?;
        let mut out = vec![0; frame.len()];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        };
        let program = program(&mut self.ebpf)?;
        let result = self.bench.lan.hosts[0].run(|| Ok(program.test_run(options)?))?;
        Ok(TestRun {
            verdict: result.return_value.cast_signed(),
            frame: out,
        })
    }

    fn becomes(&mut self, frame: &[u8], expected: &[u8]) -> Result<()> {
        is_sent_as(&self.run(frame)?, expected)
    }

    /// Whether a client's first packet leaves with the client's own port.
    fn keeps_port(&mut self, frame: &Frame) -> Result<bool> {
        let changed = || {
            self.bench
                .data_plane
                .counters()
                .map(|all| all.events[&Event::SourcePortChanged])
        };
        let before = changed()?;
        let result = self.run(&frame.bytes())?;
        ensure!(
            result.verdict == TestRun::REDIRECT,
            "verdict {}",
            result.verdict
        );
        let is_kept = result.frame == to_target(frame).bytes();
        let changed = self.bench.data_plane.counters()?.events[&Event::SourcePortChanged];
        assert_eq!(changed - before, u64::from(!is_kept));
        Ok(is_kept)
    }
}

fn program(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier> {
    let program = ebpf.program_mut("herald_ingress").context("no program")?;
    Ok(program.try_into()?)
}

fn target(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => node4(2).into(),
        IpAddr::V6(_) => node6(2).into(),
    }
}

/// A client's frame as node 2 gets it.
fn to_target(frame: &Frame) -> Frame {
    frame.sent_on((frame.to.0, frame.from.1), (target(frame.to.0), NODE_PORT))
}

/// The target's answer.
fn reply(frame: &Frame) -> Frame {
    let mut reply = Frame::between(
        frame.protocol,
        (target(frame.to.0), NODE_PORT),
        (frame.to.0, frame.from.1),
    );
    reply.mac = PEER_MAC;
    reply
}

/// A frame with other TCP flags; its checksum does not matter to the programs.
fn flagged(frame: &Frame, flags: u8) -> Vec<u8> {
    let mut bytes = frame.bytes();
    let network = if frame.to.0.is_ipv4() { 20 } else { 40 };
    bytes[14 + network + 13] = flags;
    bytes
}

fn clients(protocol: Protocol) -> [Frame; 2] {
    [Frame::v4(protocol), Frame::v6(protocol)]
}

/// The same from further clients.
fn others(frame: &Frame) -> [Frame; 2] {
    let third = match frame.from.0 {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::new(198, 51, 100, 9)),
        IpAddr::V6(_) => Ipv6Addr::new(0x2001, 0xdb8, 7, 0, 0, 0, 0, 9).into(),
    };
    [other_client(frame.from.0), third].map(|client| {
        let mut other = frame.clone();
        other.from.0 = client;
        other
    })
}

/// What two hosts send after the first packet, and how long the source port stays taken.
type Story = (&'static str, Protocol, fn(&Frame) -> Vec<Vec<u8>>, Duration);

const STORIES: [Story; 6] = [
    ("datagram", Protocol::Udp, |_| vec![], UDP),
    (
        "established",
        Protocol::Tcp,
        |client| vec![flagged(client, ACK), flagged(&reply(client), ACK)],
        TCP,
    ),
    (
        "client closed",
        Protocol::Tcp,
        |client| vec![flagged(client, FIN | ACK)],
        TCP,
    ),
    (
        "both closed",
        Protocol::Tcp,
        |client| {
            vec![
                flagged(client, FIN | ACK),
                flagged(&reply(client), FIN | ACK),
            ]
        },
        CLOSED,
    ),
    (
        "client reset",
        Protocol::Tcp,
        |client| vec![flagged(client, RST)],
        CLOSED,
    ),
    (
        "target reset",
        Protocol::Tcp,
        |client| vec![flagged(&reply(client), RST | ACK)],
        CLOSED,
    ),
];

#[test]
fn a_source_port_is_taken_for_as_long_as_its_flow_may_live_and_free_after() -> Result<()> {
    let mut aged = Aged::new()?;
    for (port, (name, protocol, more, idle)) in (CLIENT_PORT..).zip(STORIES) {
        for mut client in clients(protocol) {
            // Each story has clients of its own.
            client.from.1 = port;
            ensure!(aged.keeps_port(&client)?, "{name}");
            for frame in more(&client) {
                let verdict = aged.run(&frame)?.verdict;
                ensure!(verdict == TestRun::REDIRECT, "{name}: verdict {verdict}");
            }
            let [second, third] = others(&client);
            aged.now += idle;
            ensure!(!aged.keeps_port(&second)?, "{name}: free too early");
            aged.now += TICK;
            ensure!(aged.keeps_port(&third)?, "{name}: taken for too long");
        }
    }
    Ok(())
}

#[test]
fn a_client_that_goes_on_keeps_its_port_and_one_that_opens_anew_has_it_again() -> Result<()> {
    let mut aged = Aged::new()?;
    for client in clients(Protocol::Tcp) {
        aged.now += TCP * 2;
        ensure!(aged.keeps_port(&client)?);
        aged.now += TCP;
        aged.run(&flagged(&client, ACK))?;
        aged.now += TCP;
        let [second, third] = others(&client);
        ensure!(!aged.keeps_port(&second)?, "it sent something since");

        // Closed, and opened anew at once: established once more.
        aged.run(&flagged(&client, RST))?;
        aged.run(&flagged(&client, SYN))?;
        aged.now += CLOSED + TICK;
        ensure!(!aged.keeps_port(&third)?, "it was opened anew");
    }
    Ok(())
}

#[test]
fn a_holder_that_gave_an_address_up_translates_replies_for_five_seconds_more() -> Result<()> {
    let mut aged = Aged::new()?;
    for client in [clients(Protocol::Tcp), clients(Protocol::Udp)].concat() {
        aged.bench.held_by(Holder::Me)?;
        aged.now += TCP * 2;
        ensure!(aged.keeps_port(&client)?);
        aged.bench.held_by(Holder::Peer {
            address: node4(3).into(),
        })?;
        let reply = reply(&client);
        let to_client = reply.sent_on(client.to, client.from).bytes();
        aged.now += HANDOVER.saturating_sub(TICK);
        aged.becomes(&reply.bytes(), &to_client)?;
        aged.now += TICK;
        // The new holder knows.
        let handed_on = reply.sent_on(reply.from, reply.to).bytes();
        aged.becomes(&reply.bytes(), &handed_on)?;
    }
    Ok(())
}

#[test]
fn the_ports_of_a_datagrams_first_fragment_are_known_for_a_minute() -> Result<()> {
    let mut aged = Aged::new()?;
    for mut client in clients(Protocol::Udp) {
        client.to.1 = crate::bench::DIRECT_PORT;
        let cut = |frame: &Frame| frame.fragments(77, 16);
        let [first, later] = cut(&client);
        let [first_out, later_out] =
            cut(&client.sent_on(client.from, client.to)).map(|bytes| framed(2, &bytes));
        aged.becomes(&first, &first_out)?;
        aged.now += FRAGMENTS.saturating_sub(TICK);
        aged.becomes(&later, &later_out)?;
        aged.now += TICK;
        assert_eq!(aged.run(&later)?.verdict, TestRun::DROP);
    }
    Ok(())
}
