//! Classic BPF filters: only frames about addresses that are held here, and answers of those asked
//! by the observer ring, wake the speaker.

use std::net::IpAddr;

use socket2::SockFilter;

/// `BPF_LD | BPF_W | BPF_ABS` and so on: `linux/bpf_common.h`.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_EQUAL: u16 = 0x35;
const RETURN: u16 = 0x06;
/// `SKF_AD_OFF + SKF_AD_PKTTYPE`: for whom the frame is, as the kernel sees it.
const PACKET_TYPE: u32 = 0xffff_f004;
/// `PACKET_OTHERHOST`, the first that is not for us.
const OTHER_HOST: u32 = 3;
/// `PACKET_OUTGOING`, what we send ourselves.
const OUTGOING: u32 = 4;
/// More addresses than this are checked as one range, as a jump reaches 255 instructions far.
const MOST_SINGLE: usize = 75;

/// One instruction: what to do, how far to jump if so and if not, and the operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Instruction {
    code: u16,
    if_true: u8,
    if_false: u8,
    operand: u32,
}

impl Instruction {
    const fn new(code: u16, if_true: u8, if_false: u8, operand: u32) -> Self {
        Self {
            code,
            if_true,
            if_false,
            operand,
        }
    }
}

fn for_kernel(program: Vec<Instruction>) -> Vec<SockFilter> {
    program
        .into_iter()
        .map(|one| SockFilter::new(one.code, one.if_true, one.if_false, one.operand))
        .collect()
}

/// A program that is built forwards: every check that fails leads to "drop".
struct Program(Vec<Op>);

enum Op {
    Load(u16, u32),
    /// Goes on if the loaded value is this; else drops the frame.
    Require(u32),
    /// Goes on if the loaded value is below this; else drops the frame.
    RequireBelow(u32),
    /// Goes on if the loaded value is at least this; else drops the frame.
    RequireAtLeast(u32),
    /// Keeps the frame if the loaded value is this; else goes on.
    Keep(u32),
    /// Keeps the frame if the loaded value is within; else goes on.
    KeepWithin(u32, u32),
}

impl Op {
    const fn length(&self) -> usize {
        match self {
            Self::KeepWithin(..) => 2,
            _one => 1,
        }
    }
}

impl Program {
    fn keys(&mut self, offset: u32, keys: &[u32]) {
        self.0.push(Op::Load(LOAD_WORD, offset));
        if keys.len() <= MOST_SINGLE {
            self.0.extend(keys.iter().map(|key| Op::Keep(*key)));
        } else if let (Some(lowest), Some(highest)) = (keys.iter().min(), keys.iter().max()) {
            self.0.push(Op::KeepWithin(*lowest, *highest));
        }
    }

    /// The checks, then "drop", then "keep".
    fn build(self) -> Vec<Instruction> {
        let length: usize = self.0.iter().map(Op::length).sum();
        let (drop, keep) = (length, length + 1);
        let mut out: Vec<Instruction> = Vec::with_capacity(length + 2);
        for op in self.0 {
            let here = out.len();
            let to = |target: usize| {
                u8::try_from(target - here - 1).expect("a filter is shorter than a jump reaches")
            };
            match op {
                Op::Load(code, offset) => out.push(Instruction::new(code, 0, 0, offset)),
                Op::Require(value) => {
                    out.push(Instruction::new(JUMP_EQUAL, 0, to(drop), value));
                }
                Op::RequireBelow(value) => {
                    out.push(Instruction::new(JUMP_GREATER_EQUAL, to(drop), 0, value));
                }
                Op::RequireAtLeast(value) => {
                    out.push(Instruction::new(JUMP_GREATER_EQUAL, 0, to(drop), value));
                }
                Op::Keep(value) => {
                    out.push(Instruction::new(JUMP_EQUAL, to(keep), 0, value));
                }
                Op::KeepWithin(lowest, highest) => {
                    out.push(Instruction::new(JUMP_GREATER_EQUAL, 0, 1, lowest));
                    out.push(Instruction::new(JUMP_GREATER, 0, to(keep) - 1, highest));
                }
            }
        }
        out.push(Instruction::new(RETURN, 0, 0, 0));
        out.push(Instruction::new(RETURN, 0, 0, 0xffff));
        out
    }
}

/// ARP for IPv4 over Ethernet whose target or sender is held, and answers of those asked.
pub(crate) fn arp(held: &[IpAddr], asked: &[IpAddr]) -> Vec<SockFilter> {
    for_kernel(arp_program(held, asked))
}

fn arp_program(held: &[IpAddr], asked: &[IpAddr]) -> Vec<Instruction> {
    const OPERATION: u32 = 20;
    const REPLY: u32 = 2;
    const SENDER: u32 = 28;
    const TARGET: u32 = 38;
    let keys = |addresses: &[IpAddr]| -> Vec<u32> {
        let key = |address: &IpAddr| match address {
            IpAddr::V4(address) => Some(address.to_bits()),
            IpAddr::V6(_) => None,
        };
        addresses.iter().filter_map(key).collect()
    };
    let (held, asked) = (keys(held), keys(asked));
    let mut program = Program(vec![
        Op::Load(LOAD_WORD, PACKET_TYPE),
        Op::RequireBelow(OTHER_HOST),
        Op::Load(LOAD_WORD, 14),
        Op::Require(0x0001_0800),
        Op::Load(LOAD_HALF, 18),
        Op::Require(0x0604),
    ]);
    program.keys(TARGET, &held);
    program.keys(SENDER, &held);
    program.0.push(Op::Load(LOAD_HALF, OPERATION));
    program.0.push(Op::Require(REPLY));
    program.keys(SENDER, &asked);
    program.build()
}

/// Neighbour solicitations and advertisements whose target ends like one of those held, and
/// advertisements of those asked.
///
/// Those for other hosts are among them: the data plane may call a unicast solicitation for one of
/// our addresses so, to keep the kernel from forwarding it. The responder looks at the Ethernet
/// address.
pub(crate) fn neighbour(held: &[IpAddr], asked: &[IpAddr]) -> Vec<SockFilter> {
    for_kernel(neighbour_program(held, asked))
}

fn neighbour_program(held: &[IpAddr], asked: &[IpAddr]) -> Vec<Instruction> {
    const TYPE: u32 = 54;
    const SOLICITATION: u32 = 135;
    const ADVERTISEMENT: u32 = 136;
    const TARGET_END: u32 = 74;
    let keys = |addresses: &[IpAddr]| -> Vec<u32> {
        let key = |address: &IpAddr| match address {
            IpAddr::V4(_) => None,
            IpAddr::V6(address) => {
                let [.., a, b, c, d] = address.octets();
                Some(u32::from_be_bytes([a, b, c, d]))
            }
        };
        addresses.iter().filter_map(key).collect()
    };
    let (held, asked) = (keys(held), keys(asked));
    let mut program = Program(vec![
        Op::Load(LOAD_WORD, PACKET_TYPE),
        Op::RequireBelow(OUTGOING),
        // Next header ICMPv6, hop limit 255.
        Op::Load(LOAD_HALF, 20),
        Op::Require(0x3aff),
        Op::Load(LOAD_BYTE, TYPE),
        Op::RequireBelow(ADVERTISEMENT + 1),
        Op::RequireAtLeast(SOLICITATION),
    ]);
    program.keys(TARGET_END, &held);
    program.0.push(Op::Load(LOAD_BYTE, TYPE));
    program.0.push(Op::Require(ADVERTISEMENT));
    program.keys(TARGET_END, &asked);
    program.build()
}

#[cfg(test)]
mod tests;
