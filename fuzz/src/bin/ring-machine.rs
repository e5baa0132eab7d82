//! Whatever members of a ring say, correctly tagged, and whatever befalls them: no ring panics, works
//! without end, or sets itself a deadline that is past.
#![no_main]

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use herald_model::{Epoch, Incarnation, Instant, Tenure};
use herald_ring::{
    Authenticator, Config, Effect, Input, KeyId, Keys, Member, NodeId, Packet, Profile, Ring, Tag,
};
use libfuzzer_sys::fuzz_target;

const NODES: u8 = 4;
const KEY: KeyId = KeyId(1);
/// Where header fields and items begin; `speaker/ring/src/codec.rs` has the table.
const SENDER: usize = 16;
const INCARNATION: usize = 24;
const SEQUENCE: usize = 32;
const ITEMS: usize = 40;
const TAG_BYTES: usize = 16;
/// A round of inputs that sets off more than this never ends.
const MOST: usize = 200_000;

/// Every datagram is tagged correctly, also those of the fuzzer.
struct Anything;

impl Authenticator for Anything {
    fn tag(&self, _: KeyId, _: [&[u8]; 2]) -> Option<Tag> {
        Some(Tag([0; TAG_BYTES]))
    }
}

/// What the fuzzer has left to say.
struct Words<'a>(&'a [u8]);

impl<'a> Words<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn below(&mut self, limit: usize) -> Option<usize> {
        Some(usize::from(self.byte()?) % limit)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.byte()?).min(self.0.len());
        let (front, rest) = self.0.split_at(length);
        self.0 = rest;
        Some(front)
    }
}

struct Net {
    rings: Vec<Ring<Anything>>,
    members: Vec<Member>,
    now: Instant,
    /// On their way.
    sent: VecDeque<(usize, Packet)>,
    /// The last that were sent, to be played again and changed.
    tape: VecDeque<Vec<u8>>,
    /// Who hears nothing.
    deaf: [bool; NODES as usize],
    worked: usize,
}

impl Net {
    fn new() -> Self {
        let members: Vec<Member> = (0..NODES)
            .map(|node| Member {
                node: format!("node{node}").into(),
                address: [10, 0, 0, node].into(),
                incarnation: Incarnation(1),
            })
            .collect();
        let now = Instant::ORIGIN + Duration::from_secs(1);
        let config = Config {
            profile: Profile::Fast,
            cluster: "cluster".to_owned(),
            segment: "10.0.0.0/24".into(),
            first_sequence: 1,
        };
        let rings = (0..).zip(&members);
        let rings = rings.map(|(seed, me)| Ring::new(&config, Anything, me, &members, seed, now));
        let mut net = Self {
            rings: rings.collect(),
            members: members.clone(),
            now,
            sent: VecDeque::new(),
            tape: VecDeque::new(),
            deaf: [false; NODES as usize],
            worked: 0,
        };
        for node in 0..members.len() {
            net.tell(node, Input::KeysChanged(Some(Keys::only(KEY))));
        }
        net.run(Duration::from_millis(400));
        net
    }

    fn tell(&mut self, node: usize, input: Input<'_>) {
        let mut out = Vec::new();
        self.rings[node].handle(self.now, input, &mut out);
        self.carry_out(node, out);
    }

    fn carry_out(&mut self, node: usize, out: Vec<Effect>) {
        self.worked += 1 + out.len();
        assert!(self.worked < MOST, "works without end");
        for effect in out {
            if let Effect::Send { to, packet } = effect {
                self.tape.push_back(packet.as_bytes().to_vec());
                if self.tape.len() > 256 {
                    self.tape.pop_front();
                }
                let to = self.members.iter().position(|it| it.address == to);
                self.sent.extend(to.map(|to| (to, packet)));
            }
        }
        let deadline = self.rings[node].next_deadline();
        assert!(
            deadline.is_none_or(|at| at >= self.now),
            "{deadline:?} is past"
        );
    }

    fn deliver(&mut self) {
        while let Some((to, packet)) = self.sent.pop_front() {
            if !self.deaf[to] {
                let bytes = packet.as_bytes();
                self.tell(to, Input::DatagramReceived { bytes });
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.worked = 0;
        self.deliver();
        loop {
            let due = (0..self.rings.len())
                .filter_map(|node| Some((self.rings[node].next_deadline()?, node)));
            let Some((at, node)) = due.min().filter(|(at, _)| *at <= end) else {
                break;
            };
            self.now = at.max(self.now);
            let mut out = Vec::new();
            self.rings[node].on_deadline(self.now, &mut out);
            self.carry_out(node, out);
            self.deliver();
        }
        self.now = end;
    }

    /// Says something as somebody: a datagram that was sent before, with other items and fields.
    fn forge(&mut self, words: &mut Words<'_>) -> Option<()> {
        let to = words.below(self.rings.len())?;
        let place = words.below(self.tape.len())?;
        let mut datagram = self.tape[place].clone();
        let fields = words.byte()?;
        if fields & 1 != 0 {
            datagram[1] = words.byte()? % 9;
        }
        if fields & 2 != 0 {
            datagram[2] = words.byte()? % 4;
        }
        if fields & 4 != 0 {
            let who = &self.members[words.below(self.members.len())?].node;
            datagram[SENDER..INCARNATION].copy_from_slice(&NodeId::of(who).0.to_be_bytes());
        }
        if fields & 8 != 0 {
            datagram[SEQUENCE - 1] = words.byte()?;
        }
        if fields & 16 != 0 {
            datagram[ITEMS - 1] = words.byte()?;
        }
        // A sequence that is ahead of all others.
        if fields & 32 != 0 {
            datagram[SEQUENCE] = words.byte()? % 2;
        }
        let tag = datagram.split_off(datagram.len() - TAG_BYTES);
        if fields & 64 != 0 {
            datagram.truncate(ITEMS);
            datagram.extend(words.bytes()?);
        } else if fields & 128 != 0 {
            let at = ITEMS + words.below(datagram.len() - ITEMS)?;
            datagram[at] = words.byte()?;
        }
        datagram.extend(tag);
        self.tell(to, Input::DatagramReceived { bytes: &datagram });
        self.deliver();
        Some(())
    }

    fn step(&mut self, words: &mut Words<'_>) -> Option<()> {
        self.worked = 0;
        let what = words.byte()?;
        let node = usize::from(what >> 4) % self.rings.len();
        match what % 16 {
            0..=5 => self.forge(words)?,
            6 | 7 => {
                let millis = u64::from(words.byte()?) * 2;
                self.run(Duration::from_millis(millis));
            }
            // All but one wake late by so much.
            8 => {
                self.now = self.now + Duration::from_millis(u64::from(words.byte()?) * 2);
                self.tell(node, Input::Woken);
            }
            9 => self.deaf[node] = !self.deaf[node],
            10 => {
                let who = words.below(self.members.len())?;
                let address = self.members[who].address;
                self.tell(node, Input::KernelAnswered { address });
            }
            11 => self.tell(node, Input::WitnessAnswered),
            12 => {
                let listed = words.byte()?;
                let life = words.byte()?;
                let mut members = self.members.clone();
                for member in &mut members {
                    member.incarnation = Incarnation(u64::from(life % 4));
                }
                let mut place = 0;
                members.retain(|_| {
                    place += 1;
                    listed >> (place - 1) & 1 != 0
                });
                self.tell(node, Input::MembersChanged(&members));
            }
            13 => {
                let vip = IpAddr::from([192, 0, 2, words.byte()? % 8]);
                let said = words.byte()?;
                let input = Input::HoldChanged {
                    vip,
                    epoch: Epoch(u64::from(said >> 4)),
                    rank: said >> 1 & 3,
                    tenure: match said & 9 {
                        0 => Tenure::LetGo,
                        9 => Tenure::HandingOver {
                            passed_over: said >> 6,
                        },
                        _ => Tenure::Held,
                    },
                };
                self.tell(node, input);
            }
            14 => {
                let carrier = words.byte()? & 1 != 0;
                self.tell(node, Input::CarrierChanged(carrier));
            }
            _ => self.tell(node, Input::SteppedDown),
        }
        Some(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut net = Net::new();
    let mut words = Words(bytes);
    let mut steps = 0;
    while steps < 200 && net.step(&mut words).is_some() {
        steps += 1;
    }
    net.run(Duration::from_millis(300));
});
