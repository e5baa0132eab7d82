use std::io;
use std::path::{Path, PathBuf};

/// What a lab operation returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a lab operation did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tool, module or file the lab needs isn't on this machine.
    #[error("{what} is missing: {remedy}")]
    Missing {
        /// The tool, with the package it comes from where there is one.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// An option has no meaning, alone or with the others.
    #[error("{0}")]
    InvalidOption(String),
    /// No lab of this name is up.
    #[error("no lab named {0:?} is up; `herald-lab up --name {0}` starts one")]
    NoSuchLab(String),
    /// `up` of a lab that is already up.
    #[error("the lab {0:?} is up already; `herald-lab down --name {0}` removes it")]
    AlreadyUp(String),
    /// The name is no place in this lab.
    #[error("no place named {name:?} in this lab; there are {known}")]
    NoSuchPlace {
        /// As it was asked for.
        name: String,
        /// The names there are, comma separated.
        known: String,
    },
    /// The node is switched off.
    #[error("{0} is off; `herald-lab power {0} on` boots it")]
    NodeOff(String),
    /// The node is switched on already.
    #[error("{0} is on")]
    NodeOn(String),
    /// No such process runs there.
    #[error("no process {process} on {place}")]
    NoSuchProcess {
        /// Name of the program.
        process: String,
        /// Where it was looked for.
        place: String,
    },
    /// A command could not be started or ended with a failure.
    #[error("`{command}` failed ({status}){}", indented(output))]
    Command {
        /// As it was run, shortened.
        command: String,
        /// Exit status, in words.
        status: String,
        /// What it wrote to stderr, else to stdout.
        output: String,
    },
    /// Something did not come about in time.
    #[error("{what} is not ready after {seconds} s{}", indented(detail))]
    NotReady {
        /// What was waited for.
        what: String,
        /// How long, in seconds.
        seconds: u64,
        /// What is known about the cause: reasons, events, last log lines.
        detail: String,
    },
    /// `down` could not remove everything.
    #[error("of the lab {name:?} there is left:{}", indented(left))]
    LeftOver {
        /// Name of the lab.
        name: String,
        /// One item a line.
        left: String,
    },
    /// The caller's interrupt flag was set.
    #[error("interrupted")]
    Interrupted,
    /// Reading or writing a file failed.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// A verb: "read", "write", "create", …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Something else than the JSON that was expected.
    #[error("unexpected JSON from {from}")]
    Json {
        /// Where it came from.
        from: String,
        /// The cause.
        #[source]
        source: serde_json::Error,
    },
}

impl Error {
    /// A closed set of words, for tests and `-o json`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Missing { .. } => "missing",
            Self::InvalidOption(_) => "invalid-option",
            Self::NoSuchLab(_) => "no-such-lab",
            Self::AlreadyUp(_) => "already-up",
            Self::NoSuchPlace { .. } => "no-such-place",
            Self::NodeOff(_) => "node-off",
            Self::NodeOn(_) => "node-on",
            Self::NoSuchProcess { .. } => "no-such-process",
            Self::Command { .. } => "command",
            Self::NotReady { .. } => "not-ready",
            Self::LeftOver { .. } => "left-over",
            Self::Interrupted => "interrupted",
            Self::Io { .. } => "io",
            Self::Json { .. } => "json",
        }
    }

    /// Whether the same call may succeed a moment later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Command { .. } | Self::NotReady { .. })
    }

    /// For `map_err` on file operations.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn json(from: &str) -> impl FnOnce(serde_json::Error) -> Self {
        move |source| Self::Json {
            from: from.to_owned(),
            source,
        }
    }
}

/// Further lines of a message, below it.
fn indented(text: &str) -> String {
    text.trim()
        .lines()
        .fold(String::new(), |all, line| all + "\n    " + line)
}
