//! Buffers for outgoing datagrams, used over and over.

use std::fmt;
use std::sync::Arc;

/// The largest datagram: it fits the smallest MTU of IPv6 (RFC 8200 section 5), so that no member
/// ever sends fragments.
pub const MAX_DATAGRAM_BYTES: usize = 1_232;

/// A datagram ready to be sent. Cheap to clone: the same one often goes to many members.
#[derive(Clone)]
pub struct Packet(Arc<Buffer>);

struct Buffer {
    bytes: [u8; MAX_DATAGRAM_BYTES],
    length: usize,
}

impl Packet {
    /// The UDP payload.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.bytes.get(..self.0.length).unwrap_or_default()
    }
}

impl PartialEq for Packet {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Packet {}

impl fmt::Debug for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Packet(")?;
        for byte in self.as_bytes() {
            write!(f, "{byte:02x}")?;
        }
        f.write_str(")")
    }
}

/// Packets that the driver has let go are filled again, so that nothing is allocated once it has
/// let go of as many as it ever keeps at a time.
#[derive(Debug)]
pub(crate) struct Pool {
    packets: Vec<Packet>,
    next: usize,
}

/// Packets allocated at the start.
const START: usize = 64;
/// Packets to look at for a free one before a new one is made.
const LOOK_AT: usize = 64;

impl Pool {
    pub(crate) fn new() -> Self {
        let packets = (0..START).map(|_| Self::allocate()).collect();
        Self { packets, next: 0 }
    }

    fn allocate() -> Packet {
        Packet(Arc::new(Buffer {
            bytes: [0; MAX_DATAGRAM_BYTES],
            length: 0,
        }))
    }

    /// A packet with what `fill` writes; it returns how many bytes, or `None` for no packet.
    pub(crate) fn fill(
        &mut self,
        fill: impl FnOnce(&mut [u8; MAX_DATAGRAM_BYTES]) -> Option<usize>,
    ) -> Option<Packet> {
        let slot = self.free_slot();
        let packet = self.packets.get_mut(slot)?;
        let buffer = Arc::get_mut(&mut packet.0)?;
        buffer.length = fill(&mut buffer.bytes)?;
        Some(packet.clone())
    }

    fn free_slot(&mut self) -> usize {
        for _ in 0..LOOK_AT.min(self.packets.len()) {
            let slot = self.next;
            self.next = (slot + 1) % self.packets.len();
            if self
                .packets
                .get_mut(slot)
                .is_some_and(|packet| Arc::get_mut(&mut packet.0).is_some())
            {
                return slot;
            }
        }
        self.packets.push(Self::allocate());
        self.packets.len() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_byte(pool: &mut Pool, byte: u8) -> Packet {
        let packet = pool.fill(|bytes| {
            bytes[0] = byte;
            Some(1)
        });
        packet.unwrap()
    }

    #[test]
    fn packets_still_held_are_never_written_again() {
        let mut pool = Pool::new();
        let held: Vec<Packet> = (0..100).map(|byte| one_byte(&mut pool, byte)).collect();
        for (byte, packet) in (0..).zip(&held) {
            assert_eq!(packet.as_bytes(), [byte]);
        }
        drop(held);
        let before = pool.packets.len();
        for _ in 0..1_000 {
            let packet = one_byte(&mut pool, 1);
            drop(packet);
        }
        assert_eq!(pool.packets.len(), before);
    }
}
