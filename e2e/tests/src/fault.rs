//! What befalls a node that announces, or is planned for it, and how it is made whole again.

use std::fmt;

use anyhow::Result;
use clap::ValueEnum;
use herald_lab::{Lab, Program};

/// What befalls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// Its cable is cut behind the switch's port: it sees nothing of it.
    CutSilently,
    /// Its cable is cut: it loses its carrier.
    Cut,
    /// Its power fails.
    Power,
    /// Its speaker is killed and kept down: a kubelet may start it anew before anybody found it dead.
    /// What it has in the kernel works on.
    Kill,
    /// Its speaker is stopped where it is; what it has in the kernel works on.
    Stop,
    /// No fault, but planned: its speaker is asked to end.
    Terminate,
}

impl Fault {
    /// Each.
    pub const ALL: [Self; 6] = [
        Self::CutSilently,
        Self::Cut,
        Self::Power,
        Self::Kill,
        Self::Stop,
        Self::Terminate,
    ];

    /// Whether the node's pods can't be reached either.
    pub fn takes_the_node(self) -> bool {
        matches!(self, Self::CutSilently | Self::Cut | Self::Power)
    }

    /// Lets it befall a node.
    ///
    /// # Errors
    ///
    /// If the node is off, or has no speaker.
    pub fn befall(self, lab: &Lab, node: &str) -> Result<()> {
        match self {
            Self::CutSilently => lab.cut(node, true)?,
            Self::Cut => lab.cut(node, false)?,
            Self::Power => lab.power_off(node)?,
            Self::Kill => drop(lab.kill_and_hold(node, Program::Speaker)?),
            Self::Stop => drop(lab.freeze_program(node, Program::Speaker)?),
            Self::Terminate => drop(lab.kill(node, Program::Speaker, "TERM")?),
        }
        Ok(())
    }

    /// Begins to undo it; what was killed or is without power takes a while to be there again.
    ///
    /// # Errors
    ///
    /// If it has not befallen the node.
    pub fn mend(self, lab: &Lab, node: &str) -> Result<()> {
        match self {
            Self::CutSilently | Self::Cut | Self::Kill => lab.heal(node)?,
            Self::Power => lab.power_on(node, false)?,
            Self::Stop => drop(lab.thaw_program(node, Program::Speaker)?),
            // The kubelet starts it again.
            Self::Terminate => {}
        }
        Ok(())
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::CutSilently => "link cut, carrier stays",
            Self::Cut => "link cut, carrier lost",
            Self::Power => "node without power",
            Self::Kill => "speaker SIGKILL",
            Self::Stop => "speaker SIGSTOP",
            Self::Terminate => "speaker SIGTERM",
        })
    }
}
