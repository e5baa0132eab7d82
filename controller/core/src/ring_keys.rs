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
    /// Leave only this key.
    KeepOnly(u32),
}

/// What the Secret says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySecret {
    /// The ids of the keys that can be used.
    pub ids: BTreeSet<u32>,
    /// Somebody asked for a rotation that was not begun yet.
    pub rotate: bool,
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
            KeyStep::KeepOnly(newest)
        } else {
            KeyStep::Nothing
        };
    }
    match newest.checked_add(1) {
        Some(next) if secret.rotate => KeyStep::Add(next),
        _ => KeyStep::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(ids: &[u32], rotate: bool) -> KeySecret {
        KeySecret {
            ids: ids.iter().copied().collect(),
            rotate,
        }
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
    fn old_key_goes_when_every_speaker_sends_with_the_new_one() {
        assert_eq!(step(&[7], true, &[&[7]]), KeyStep::Add(8));
        for still in [&[][..], &[7], &[7, 8]] {
            assert_eq!(step(&[7, 8], false, &[&[8, 7], still]), KeyStep::Nothing);
        }
        assert_eq!(step(&[7, 8], false, &[&[8, 7]]), KeyStep::KeepOnly(8));
        assert_eq!(
            step(&[7, 8], true, &[&[8, 7], &[7, 8]]),
            KeyStep::Nothing,
            "one rotation at a time"
        );
    }
}
