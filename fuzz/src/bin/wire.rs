//! Any frame is understood or refused, and what was understood is understood again when it is built.
//!
//! An odd first byte: the rest changes bits of a frame that is right, whose checksum is then put right.
#![no_main]

use herald_model::MacAddress;
use herald_wire::{Arp, Heard, NeighbourAdvertisement, NeighbourSolicitation, parse};
use libfuzzer_sys::fuzz_target;

const MAC: MacAddress = MacAddress([2, 0, 0, 0, 0, 1]);
/// Where things are in an IPv6 frame without extension headers.
const IPV6: usize = 14;
const ADDRESSES: usize = IPV6 + 8;
const ICMPV6: usize = IPV6 + 40;
const CHECKSUM: usize = ICMPV6 + 2;
const NEXT_HEADER: u8 = 58;

fn right(which: u8) -> Vec<u8> {
    let target = [0xfe80, 0, 0, 0, 0, 0, 0, 0x10].into();
    let arp = Arp::request(MAC, [192, 0, 2, 1].into(), [192, 0, 2, 10].into());
    let frame = match which % 3 {
        0 => arp.emit(),
        1 => NeighbourSolicitation::probe(MAC, target).emit(),
        _ => NeighbourAdvertisement::unsolicited(target, MAC, target).emit(),
    };
    frame.as_bytes().to_vec()
}

/// RFC 4443 section 2.3.
fn put_checksum(frame: &mut [u8]) {
    if frame.len() < ICMPV6 + 4 {
        return;
    }
    frame[CHECKSUM..CHECKSUM + 2].fill(0);
    let message = &frame[ICMPV6..];
    let length = u32::try_from(message.len()).unwrap_or(0).to_be_bytes();
    let words = |bytes: &[u8]| -> u64 {
        let pairs = bytes.chunks(2);
        let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0));
        pairs.map(word).sum()
    };
    let mut sum = words(&frame[ADDRESSES..ICMPV6]) + words(&length) + u64::from(NEXT_HEADER);
    sum += words(message);
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap_or(0);
    frame[CHECKSUM..CHECKSUM + 2].copy_from_slice(&sum.to_be_bytes());
}

fn check(bytes: &[u8]) {
    let Ok(heard) = parse(bytes) else {
        return;
    };
    let built = match heard {
        Heard::Arp(arp) => arp.emit(),
        Heard::Solicitation(solicitation) => solicitation.emit(),
        Heard::Advertisement(advertisement) => advertisement.emit(),
    };
    assert_eq!(parse(built.as_bytes()), Ok(heard));
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    let [first, changes @ ..] = bytes else {
        return;
    };
    if first & 1 == 0 {
        return;
    }
    let mut frame = right(first >> 1);
    frame.resize(frame.len().max(changes.len().min(1_514)), 0);
    for (byte, change) in frame.iter_mut().zip(changes) {
        *byte ^= change;
    }
    put_checksum(&mut frame);
    check(&frame);
});
