//! Who may speak in the ring: keys, and the tag under each datagram.

/// The name of a key. Two keys can be in use at once, while one takes over from the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub u32);

/// What authenticates a datagram: the first 16 bytes of a keyed digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag(pub [u8; 16]);

impl Tag {
    /// Whether both are the same, in a time that does not depend on where they differ.
    pub fn matches(&self, other: &Self) -> bool {
        let difference = self
            .0
            .iter()
            .zip(&other.0)
            .fold(0, |difference, (mine, theirs)| difference | (mine ^ theirs));
        std::hint::black_box(difference) == 0
    }
}

/// Makes and checks tags. The binary does it with HMAC-SHA256; tests with something quick.
pub trait Authenticator {
    /// The tag of the two parts, one after the other. The first names cluster and segment, and is
    /// the same for all messages of a ring. `None` if the key is not at hand.
    fn tag(&self, key: KeyId, parts: [&[u8]; 2]) -> Option<Tag>;

    /// Whether the tag is that of the two parts.
    fn verify(&self, key: KeyId, parts: [&[u8]; 2], tag: &Tag) -> bool {
        self.tag(key, parts)
            .is_some_and(|expected| expected.matches(tag))
    }
}

/// The keys in use: one to send with, and perhaps another that is accepted as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The key that tags what we send. It is accepted too.
    pub send: KeyId,
    /// The other key that is accepted: the next one before all have it, the last one after.
    pub also: Option<KeyId>,
}

impl Keys {
    /// Only this key.
    pub const fn only(key: KeyId) -> Self {
        Self {
            send: key,
            also: None,
        }
    }

    /// Whether datagrams tagged with the key are read.
    pub fn accepts(&self, key: KeyId) -> bool {
        key == self.send || Some(key) == self.also
    }

    /// What to use, given the keys in the Secret (oldest first; of more than two the newest two
    /// count) and the ids that each other speaker says it accepts. `None` if there is no key.
    ///
    /// A new key is accepted as soon as it is there, and sent once all others accept it; the old
    /// one is dropped when it leaves the Secret, which the controller does once all send the new
    /// one. No step is taken because time has passed.
    pub fn choose<'a>(
        secret: &[KeyId],
        others: impl IntoIterator<Item = &'a [KeyId]>,
    ) -> Option<Self> {
        let (newest, older) = secret.split_last()?;
        let Some(older) = older.last() else {
            return Some(Self::only(*newest));
        };
        let all_accept_newest = others.into_iter().all(|accepted| accepted.contains(newest));
        Some(if all_accept_newest {
            Self {
                send: *newest,
                also: Some(*older),
            }
        } else {
            Self {
                send: *older,
                also: Some(*newest),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: KeyId = KeyId(1);
    const NEW: KeyId = KeyId(2);

    #[test]
    fn a_key_is_accepted_by_all_before_anybody_sends_it_and_dropped_last() {
        let before: [&[KeyId]; 2] = [&[OLD], &[OLD, NEW]];
        let after: [&[KeyId]; 2] = [&[OLD, NEW], &[OLD, NEW]];
        let both = |send, also| {
            Some(Keys {
                send,
                also: Some(also),
            })
        };
        assert_eq!(Keys::choose(&[], before), None);
        assert_eq!(Keys::choose(&[OLD], before), Some(Keys::only(OLD)));
        assert_eq!(Keys::choose(&[OLD, NEW], before), both(OLD, NEW));
        assert_eq!(Keys::choose(&[OLD, NEW], after), both(NEW, OLD));
        assert_eq!(Keys::choose(&[NEW], after), Some(Keys::only(NEW)));
        assert_eq!(Keys::choose(&[KeyId(0), OLD, NEW], after), both(NEW, OLD));
    }

    #[test]
    fn a_tag_that_differs_in_one_bit_does_not_match() {
        let tag = Tag([7; 16]);
        assert!(tag.matches(&Tag([7; 16])));
        for byte in 0..16 {
            for bit in 0..8 {
                let mut other = tag;
                other.0[byte] ^= 1 << bit;
                assert!(!tag.matches(&other));
            }
        }
    }
}
