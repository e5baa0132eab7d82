//! Why something could not be done.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use herald_model::InterfaceName;

/// Why the data plane can't do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum BpfError {
    /// The folder for maps and links can't be used.
    #[error("cannot {call} {}; is a BPF file system mounted there?", path.display())]
    PinFolder {
        /// What was tried.
        call: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The maps could not be made, or the object is not what this kernel takes.
    #[error("cannot load the eBPF object")]
    Object {
        /// Why not.
        #[source]
        source: Box<EbpfError>,
    },
    /// The object has no such map or program: it is not the one this binary was built with.
    #[error("the eBPF object has no {name} of the expected type")]
    Missing {
        /// Its name.
        name: &'static str,
    },
    /// The kernel refuses a program.
    #[error("the kernel refuses the program {program}")]
    Program {
        /// Its name.
        program: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// No hook takes the program.
    #[error("cannot attach {program} to {interface}; {}", tried.join("; "))]
    Attach {
        /// The program.
        program: &'static str,
        /// The interface.
        interface: InterfaceName,
        /// Each hook that was tried, and what it said.
        tried: Vec<String>,
    },
    /// A map can't be read or written.
    #[error("cannot {call} map {map}")]
    Map {
        /// What was tried.
        call: &'static str,
        /// The map.
        map: &'static str,
        /// Why not; "argument list too long" means that the map is full.
        #[source]
        source: MapError,
    },
    /// Many elements of a map can't be read at once.
    #[error("cannot read many elements of map {map} at once")]
    Batch {
        /// The map.
        map: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A key or value has not the size that the map has.
    #[error("an entry for map {map} has {bytes} bytes")]
    EntrySize {
        /// The map.
        map: &'static str,
        /// Bytes of key or value.
        bytes: usize,
    },
}

impl BpfError {
    /// The kind of the error, a metric label.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::PinFolder { .. } => "pin_folder",
            Self::Object { .. } => "object",
            Self::Missing { .. } => "missing",
            Self::Program { .. } => "program",
            Self::Attach { .. } => "attach",
            Self::Map { .. } => "map",
            Self::Batch { .. } => "batch",
            Self::EntrySize { .. } => "entry_size",
        }
    }

    /// Whether the same call may succeed later: writes to a map that was full may, a kernel
    /// that lacks something does not get it.
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Map { .. } | Self::Attach { .. })
    }
}
