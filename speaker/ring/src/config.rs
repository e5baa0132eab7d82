//! What a ring is told once: its pace, its place, its members.

use std::net::IpAddr;
use std::time::Duration;

use herald_model::{Incarnation, NodeName, SegmentName};

/// How fast a silent member is noticed, and how long a pause of a healthy one is forgiven.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// 50 ms × 3: for machines of one's own.
    Fast,
    /// 100 ms × 3: for virtual machines that are moved while they run.
    #[default]
    Default,
    /// 300 ms × 4: for networks with long interruptions.
    Slow,
}

impl Profile {
    /// The time between two heartbeats.
    pub const fn heartbeat(self) -> Duration {
        Duration::from_millis(match self {
            Self::Fast => 50,
            Self::Default => 100,
            Self::Slow => 300,
        })
    }

    /// How many heartbeats may be missing before an observer votes.
    pub const fn multiplier(self) -> u32 {
        match self {
            Self::Fast | Self::Default => 3,
            Self::Slow => 4,
        }
    }

    /// The silence after which an observer votes.
    pub const fn vote_after(self) -> Duration {
        self.heartbeat().saturating_mul(self.multiplier())
    }

    /// The silence after which an observer suspects, and begins to ask.
    pub const fn suspect_after(self) -> Duration {
        self.vote_after()
            .saturating_sub(self.poke_every().saturating_mul(4))
    }

    /// The silence after which an observer finds out who else is heard.
    pub(crate) const fn poll_after(self) -> Duration {
        self.vote_after().saturating_sub(self.poke_every())
    }

    /// Waking later than this after a deadline means that we could hear nobody in between.
    pub(crate) const fn late_after(self) -> Duration {
        self.poke_every().saturating_mul(2)
    }

    /// The time between two pokes of a suspect.
    pub(crate) const fn poke_every(self) -> Duration {
        match self.heartbeat().checked_div(5) {
            Some(time) => time,
            None => Duration::ZERO,
        }
    }
}

/// What stays the same for the life of a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The pace, the same on all members.
    pub profile: Profile,
    /// The cluster's id, such as the uid of its namespace `kube-system`: bound into every tag.
    pub cluster: String,
    /// The segment: bound into every tag.
    pub segment: SegmentName,
    /// The first sequence to use: higher than any that an earlier process used in the same life.
    /// The nanoseconds since the kernel booted will do, for a new boot is a new life, and no
    /// process sends as many datagrams as nanoseconds pass.
    pub first_sequence: u64,
}

/// A speaker on the segment, from its `Speaker` object or from the snapshot on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its node.
    pub node: NodeName,
    /// The node's own address on the segment: where datagrams go, and what its kernel is asked for.
    pub address: IpAddr,
    /// The number of its life as far as known. What it says itself counts more.
    pub incarnation: Incarnation,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_vote_after_the_times_the_budgets_are_made_of() {
        let times = |profile: Profile| {
            [
                profile.heartbeat(),
                profile.suspect_after(),
                profile.vote_after(),
            ]
            .map(|time| time.as_millis())
        };
        assert_eq!(times(Profile::Fast), [50, 110, 150]);
        assert_eq!(times(Profile::Default), [100, 220, 300]);
        assert_eq!(times(Profile::Slow), [300, 960, 1200]);
    }
}
