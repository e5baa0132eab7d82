//! Datagrams that nobody sent: they change nothing, answer nothing, and are counted.

use herald_ring::{Counters, Input, Packet, Profile};
use herald_sim::ring::{World, millis};

/// A settled ring, and what node 0 was sent within a second.
fn recorded() -> (World, Vec<Packet>) {
    let mut world = World::new(4, Profile::Fast, 1);
    world.run(millis(5_000));
    world.tape = Some(Vec::new());
    world.run(millis(1_000));
    let tape = world.tape.take().expect("it was put in");
    let packets: Vec<Packet> = tape
        .into_iter()
        .filter(|(to, _)| *to == 0)
        .map(|(_, packet)| packet)
        .collect();
    assert!(packets.len() > 50);
    (world, packets)
}

/// All that a ring knows, but its counters.
fn knowledge(world: &World) -> String {
    let ring = format!("{:?}", world.ring_of(0));
    let (front, _) = ring
        .split_once("counters: ")
        .expect("counters are the last field");
    assert!(front.len() > 1_000);
    front.to_owned()
}

/// Hands node 0 a datagram, and returns what was counted.
fn counted(world: &mut World, bytes: &[u8]) -> Counters {
    let (before, counters) = (knowledge(world), world.ring_of(0).counters());
    world.tell(0, Input::DatagramReceived { bytes });
    assert_eq!(knowledge(world), before);
    let after = world.ring_of(0).counters();
    assert_eq!(after.sent, counters.sent, "it is not answered");
    Counters {
        received: after.received - counters.received,
        malformed: after.malformed - counters.malformed,
        foreign: after.foreign - counters.foreign,
        unknown_key: after.unknown_key - counters.unknown_key,
        forged: after.forged - counters.forged,
        replayed: after.replayed - counters.replayed,
        ..Counters::default()
    }
}

#[test]
fn a_datagram_cut_anywhere_changes_nothing_and_is_counted() {
    let (mut world, packets) = recorded();
    let bytes = packets[0].as_bytes();
    for length in 0..bytes.len() {
        let counted = counted(&mut world, &bytes[..length]);
        assert_eq!(counted.received, 1);
        // Of what still has a header, the last bytes are no tag.
        let refused = counted.malformed + counted.forged;
        assert_eq!((refused, counted.replayed), (1, 0), "{length} bytes");
    }
}

#[test]
fn a_datagram_with_one_bit_changed_changes_nothing_and_is_counted() {
    let (mut world, packets) = recorded();
    let bytes = packets[0].as_bytes();
    let mut sums = [0; 4];
    for bit in 0..bytes.len() * 8 {
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        let counted = counted(&mut world, &changed);
        let refused = [
            counted.malformed,
            counted.foreign,
            counted.unknown_key,
            counted.forged,
        ];
        assert_eq!((refused.iter().sum::<u64>(), counted.replayed), (1, 0));
        for (sum, one) in sums.iter_mut().zip(refused) {
            *sum += one;
        }
    }
    assert!(sums.iter().all(|sum| *sum > 0), "{sums:?}");
}

#[test]
fn a_datagram_received_before_changes_nothing_and_is_counted() {
    let (mut world, packets) = recorded();
    for packet in &packets {
        let expected = Counters {
            received: 1,
            replayed: 1,
            ..Counters::default()
        };
        assert_eq!(counted(&mut world, packet.as_bytes()), expected);
    }
}
