//! The keys of the speakers' observer rings: when one is made, and when one is dropped.
//!
//! A rotation takes no step because time has passed: the new key is added, every speaker accepts it,
//! then sends with it, and only when all do, the old one goes. A speaker that is down, but whose
//! object is still there, holds the last step up.

use std::collections::BTreeSet;

/// What is to be done with the Secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyStep {
    /// All is as it should be.
    Nothing,
    /// There is no Secret: make it, with this key.
    Create(u32),
    /// Add this key.
    Add(u32),
    /// Remove the keys older than this one.
    DropOlder(u32),
}

/// A shorter key can be guessed; speakers do not use it.
const SHORTEST_BYTES: usize = 16;

/// What of the Secret is of no use. It is said, and never mended: whoever wrote it knows what for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// It has no key at all, so that speakers take over nothing.
    #[error(
        "it has no key: an entry is named by a number and holds at least {SHORTEST_BYTES} random bytes"
    )]
    NoKey,
    /// The name of an entry is not a number.
    #[error(
        "entry {entry:?} is not used: its name is no number from 0 to {}",
        u32::MAX
    )]
    Name {
        /// The entry's name.
        entry: String,
    },
    /// A key is too short.
    #[error("entry {entry:?} is not used: {bytes} bytes, fewer than {SHORTEST_BYTES}")]
    Short {
        /// The entry's name.
        entry: String,
        /// How long it is.
        bytes: usize,
    },
}

/// What the Secret says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeySecret {
    /// The ids of the keys that can be used.
    pub ids: BTreeSet<u32>,
    /// The highest id that an entry has, also one that can't be used.
    highest: Option<u32>,
    /// Somebody asked for a rotation that was not begun yet.
    pub rotate: bool,
    /// What is of no use.
    pub faults: Vec<KeyFault>,
}

impl KeySecret {
    /// Reads the names and lengths of the entries.
    pub fn read<'a>(entries: impl IntoIterator<Item = (&'a str, usize)>, rotate: bool) -> Self {
        let mut secret = Self {
            rotate,
            ..Self::default()
        };
        for (entry, bytes) in entries {
            let Ok(id) = entry.parse() else {
                let entry = entry.to_owned();
                secret.faults.push(KeyFault::Name { entry });
                continue;
            };
            secret.highest = secret.highest.max(Some(id));
            if bytes < SHORTEST_BYTES {
                let entry = entry.to_owned();
                secret.faults.push(KeyFault::Short { entry, bytes });
            } else {
                secret.ids.insert(id);
            }
        }
        if secret.ids.is_empty() {
            secret.faults.push(KeyFault::NoKey);
        }
        secret
    }
}

/// The next step, given the Secret, if there is one, and the keys each speaker accepts, the one it
/// sends with first.
pub fn key_step<'a>(
    secret: Option<&KeySecret>,
    speakers: impl IntoIterator<Item = &'a [u32]>,
) -> KeyStep {
    let Some(secret) = secret else {
        return KeyStep::Create(1);
    };
    let Some(newest) = secret.ids.last().copied() else {
        // Never made anew behind the back of whoever emptied it: speakers may still have its keys.
        return KeyStep::Nothing;
    };
    if secret.ids.len() > 1 {
        let all_send = speakers
            .into_iter()
            .all(|keys| keys.first() == Some(&newest));
        return if all_send {
            KeyStep::DropOlder(newest)
        } else {
            KeyStep::Nothing
        };
    }
    match secret.highest.and_then(|id| id.checked_add(1)) {
        Some(next) if secret.rotate => KeyStep::Add(next),
        _ => KeyStep::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(ids: &[u32], rotate: bool) -> KeySecret {
        let entries: Vec<String> = ids.iter().map(ToString::to_string).collect();
        KeySecret::read(entries.iter().map(|entry| (entry.as_str(), 32)), rotate)
    }

    fn step(ids: &[u32], rotate: bool, speakers: &[&[u32]]) -> KeyStep {
        key_step(Some(&secret(ids, rotate)), speakers.iter().copied())
    }

    #[test]
    fn secret_that_is_missing_is_made_and_one_that_was_emptied_is_not() {
        assert_eq!(key_step(None, []), KeyStep::Create(1));
        assert_eq!(step(&[], true, &[]), KeyStep::Nothing);
        assert_eq!(step(&[1], false, &[&[1], &[]]), KeyStep::Nothing);
    }

    #[test]
    fn what_is_of_no_use_is_named_and_never_written_over() {
        let entries = [("1", 32), ("2", 15), ("note", 32), ("-1", 32)];
        let secret = KeySecret::read(entries, true);
        assert_eq!(secret.ids, [1].into());
        let faults: Vec<String> = secret.faults.iter().map(ToString::to_string).collect();
        assert_eq!(
            faults,
            [
                "entry \"2\" is not used: 15 bytes, fewer than 16",
                "entry \"note\" is not used: its name is no number from 0 to 4294967295",
                "entry \"-1\" is not used: its name is no number from 0 to 4294967295",
            ]
        );
        assert_eq!(key_step(Some(&secret), []), KeyStep::Add(3));
        assert_eq!(KeySecret::read([], false).faults, [KeyFault::NoKey]);
        let last = KeySecret::read([("4294967295", 32)], true);
        assert_eq!(key_step(Some(&last), []), KeyStep::Nothing);
    }

    #[test]
    fn old_key_goes_when_every_speaker_sends_with_the_new_one() {
        assert_eq!(step(&[7], true, &[&[7]]), KeyStep::Add(8));
        for still in [&[][..], &[7], &[7, 8]] {
            assert_eq!(step(&[7, 8], false, &[&[8, 7], still]), KeyStep::Nothing);
        }
        assert_eq!(step(&[7, 8], false, &[&[8, 7]]), KeyStep::DropOlder(8));
        assert_eq!(
            step(&[7, 8], true, &[&[8, 7], &[7, 8]]),
            KeyStep::Nothing,
            "one rotation at a time"
        );
    }
}
