//! What is done to the announcer, and how it is made whole again.

use std::fmt;

use anyhow::Result;
use clap::ValueEnum;
use herald_lab::{Lab, Program};

/// What happens to the announcer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// Its cable is cut behind the switch's port: it sees nothing of it.
    CutSilently,
    /// Its cable is cut: it loses its carrier.
    Cut,
    /// Its power fails.
    Power,
    /// Its speaker is killed; what it has in the kernel works on.
    Kill,
    /// Its speaker is stopped where it is; what it has in the kernel works on.
    Stop,
}

impl Case {
    pub(crate) const ALL: [Self; 5] = [
        Self::CutSilently,
        Self::Cut,
        Self::Power,
        Self::Kill,
        Self::Stop,
    ];

    /// Whether the node's pods go with it.
    pub(crate) fn takes_the_node(self) -> bool {
        matches!(self, Self::CutSilently | Self::Cut | Self::Power)
    }

    pub(crate) fn inflict(self, lab: &Lab, node: &str) -> Result<()> {
        match self {
            Self::CutSilently => lab.cut(node, true)?,
            Self::Cut => lab.cut(node, false)?,
            Self::Power => lab.power_off(node)?,
            Self::Kill => drop(lab.kill(node, Program::Speaker, "KILL")?),
            Self::Stop => drop(lab.freeze_program(node, Program::Speaker)?),
        }
        Ok(())
    }

    pub(crate) fn mend(self, lab: &Lab, node: &str) -> Result<()> {
        match self {
            Self::CutSilently | Self::Cut => lab.heal(node)?,
            Self::Power => lab.power_on(node, false)?,
            // The kubelet has it started anew.
            Self::Kill => {}
            Self::Stop => drop(lab.thaw_program(node, Program::Speaker)?),
        }
        Ok(())
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::CutSilently => "link cut, carrier stays",
            Self::Cut => "link cut, carrier lost",
            Self::Power => "node without power",
            Self::Kill => "speaker SIGKILL",
            Self::Stop => "speaker SIGSTOP",
        })
    }
}
