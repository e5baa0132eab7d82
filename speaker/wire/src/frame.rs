//! A small frame on the stack.

use std::fmt;

/// The longest frame this crate builds: Ethernet, IPv6, a neighbour message with one option.
pub(crate) const MAX_BYTES: usize = 14 + 40 + 24 + 8;

/// A frame ready to be sent, its Ethernet header included. No allocation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    bytes: [u8; MAX_BYTES],
    length_bytes: usize,
}

impl Frame {
    /// A frame of zeros, no longer than [`MAX_BYTES`].
    pub(crate) const fn zeroed(length_bytes: usize) -> Self {
        assert!(length_bytes <= MAX_BYTES, "every frame built here fits");
        Self {
            bytes: [0; MAX_BYTES],
            length_bytes,
        }
    }

    /// The bytes to send.
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length_bytes).unwrap_or(&self.bytes)
    }

    pub(crate) fn as_mut_bytes(&mut self) -> &mut [u8] {
        self.bytes
            .get_mut(..self.length_bytes)
            .expect("the length was checked when the frame was made")
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match crate::parse(self.as_bytes()) {
            Ok(heard) => fmt::Debug::fmt(&heard, f),
            Err(_not_ours) => write!(f, "{:02x?}", self.as_bytes()),
        }
    }
}
