//! Loads the eBPF programs, attaches them to uplinks, reads and writes their maps.
//!
//! Everything lives in a folder of the BPF file system, named after the version of the layout: the maps,
//! so that flows, tables and counters outlast the process, and the links, so that the programs
//! stay attached. [`DataPlane::open`] finds all that again; programs are replaced in place by
//! [`DataPlane::attach`], and no packet is lost over it. Dropping a [`DataPlane`] changes nothing;
//! [`DataPlane::detach`] does.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use aya::maps::Map;
use aya::programs::{ProgramError, SchedClassifier, TcAttachType, TestRun as _, TestRunOptions};
use aya::{Ebpf, EbpfLoader};
use herald_dataplane::{Counters, MapContents, MapName, MapOp};
use herald_model::{IfIndex, Instant, InterfaceName};
use nix::time::{ClockId, clock_gettime};

mod batch;
mod error;
mod hooks;
mod maps;

pub use error::BpfError;
use hooks::{attach_clsact, attach_tcx, clsact_link};

/// Where the BPF file system keeps our maps and links, unless told otherwise.
pub const DEFAULT_PIN_ROOT: &str = "/sys/fs/bpf/herald";

/// The version of the maps' layout, to be raised with each change of `ebpf/maps.h`. Another layout gets
/// another folder; where its programs are attached, those of the older ones go.
const LAYOUT: &str = "v8";

/// Flows that are remembered, unless told otherwise.
pub const DEFAULT_FLOWS: u32 = 131_072;

/// How often a program that somebody detached is attached again before that counts as impossible.
const ATTEMPTS: u32 = 10;
/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(30);

/// The time by the clock that the programs read, for [`herald_dataplane::compile`]. The origin, which stands for no
/// time there, should the kernel not tell.
pub fn clock() -> Instant {
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    Instant::ORIGIN + time
}

/// What [`DataPlane::open`] needs to know.
#[derive(Clone, Debug)]
pub struct Options {
    /// A folder in a mounted BPF file system; made if it is not there.
    pub pin_root: PathBuf,
    /// How many flows are remembered in modes `nodeport` and `pod`; takes about 300 bytes of kernel memory
    /// each, at once. Without effect while older maps are found.
    pub flows: u32,
    /// The hooks to try, the best first.
    pub hooks: Vec<Hook>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pin_root: DEFAULT_PIN_ROOT.into(),
            flows: DEFAULT_FLOWS,
            hooks: vec![Hook::Tcx, Hook::Clsact],
        }
    }
}

/// Where in the kernel the programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Hook {
    /// A tcx link, Linux 6.6 and later.
    Tcx,
    /// A filter of qdisc clsact.
    Clsact,
}

impl Hook {
    /// The hook's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

/// What came of [`DataPlane::test_ingress`] or [`DataPlane::test_egress`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestRun {
    /// What the program returned.
    pub verdict: i32,
    /// The frame as the program left it.
    pub frame: Vec<u8>,
}

impl TestRun {
    /// The verdict of a program that did not act.
    pub const NEXT: i32 = -1;
    /// The verdict that drops the frame.
    pub const DROP: i32 = 2;
    /// The verdict that sends the frame out.
    pub const REDIRECT: i32 = 7;
}

/// One of the two programs.
#[derive(Clone, Copy)]
struct Direction {
    program: &'static str,
    suffix: &'static str,
    attach: TcAttachType,
}

impl Direction {
    /// The name of its pinned link.
    fn link_name(self, index: IfIndex) -> String {
        format!("{index}-{}", self.suffix)
    }
}

/// Egress first, and last to go: what ingress sends to our own stack comes back there.
const EGRESS: Direction = Direction {
    program: "herald_egress",
    suffix: "egress",
    attach: TcAttachType::Egress,
};
const INGRESS: Direction = Direction {
    program: "herald_ingress",
    suffix: "ingress",
    attach: TcAttachType::Ingress,
};

/// The loaded programs and their maps.
pub struct DataPlane {
    pin_root: PathBuf,
    folder: PathBuf,
    hooks: Vec<Hook>,
    ebpf: Ebpf,
    maps: BTreeMap<MapName, Map>,
    events: Map,
    /// The elements of `stats` that are in use.
    counted: BTreeSet<u32>,
    /// At which hook we attached the programs, by interface.
    attached_at: BTreeMap<IfIndex, Hook>,
}

/// How often a program is offered to the kernel; as often as by libbpf.
const OFFERS: u32 = 5;

/// Loads a program. While a signal or a freezer wants the thread, the verifier gives up with EAGAIN
/// (kernel/bpf/verifier.c, `do_check`), which says nothing about the program.
///
/// # Errors
///
/// If the kernel refuses it.
pub fn load(program: &mut SchedClassifier) -> Result<(), ProgramError> {
    let mut left = OFFERS;
    loop {
        left -= 1;
        match program.load() {
            Err(ProgramError::LoadError { io_error, .. })
                if left > 0 && io_error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
}

impl DataPlane {
    /// Loads the programs, on the maps of before if there are any.
    ///
    /// # Errors
    ///
    /// [`BpfError::PinFolder`] if the folder can't be made, [`BpfError::Object`],
    /// [`BpfError::Missing`] and [`BpfError::Program`] if the kernel does not take the object,
    /// [`BpfError::Map`] if the maps of before can't be read.
    pub fn open(options: &Options) -> Result<Self, BpfError> {
        let folder = options.pin_root.join(LAYOUT);
        let links = folder.join("links");
        fs::create_dir_all(&links).map_err(|source| BpfError::PinFolder {
            call: "create",
            path: links,
            source,
        })?;
        let object = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/herald.o"));
        let mut ebpf = EbpfLoader::new()
            .btf(None)
            .default_map_pin_directory(&folder)
            .map_max_entries("vips", herald_dataplane::VIPS)
            .map_max_entries("services", herald_dataplane::PORTS)
            .map_max_entries("ranges", herald_dataplane::RANGES)
            .map_max_entries("blocks", herald_dataplane::BLOCKS)
            .map_max_entries("nodes", herald_dataplane::NODES)
            .map_max_entries("stats", herald_dataplane::SERVICES)
            .map_max_entries("flows", options.flows)
            .map_max_entries("replies", options.flows)
            .load(object)
            .map_err(|source| BpfError::Object {
                source: Box::new(source),
            })?;
        for direction in [EGRESS, INGRESS] {
            load(program(&mut ebpf, direction)?).map_err(|source| BpfError::Program {
                program: direction.program,
                source: Box::new(source),
            })?;
        }
        let mut maps = BTreeMap::new();
        for name in MapName::ALL {
            maps.insert(name, take_map(&mut ebpf, name.as_str())?);
        }
        let events = take_map(&mut ebpf, "events")?;
        let mut data_plane = Self {
            pin_root: options.pin_root.clone(),
            folder,
            hooks: options.hooks.clone(),
            ebpf,
            maps,
            events,
            counted: BTreeSet::new(),
            attached_at: BTreeMap::new(),
        };
        let contents = data_plane.read()?;
        data_plane.counted = contents.referenced(MapName::Stats);
        Ok(data_plane)
    }

    /// Attaches both programs to an interface, or, where an older process did, replaces them there.
    /// Doing it again does no harm.
    ///
    /// # Errors
    ///
    /// [`BpfError::Attach`] if no hook takes them, or the link can't be pinned.
    pub fn attach(&mut self, index: IfIndex, interface: &InterfaceName) -> Result<Hook, BpfError> {
        let hooks = self.hooks.clone();
        self.attach_one(EGRESS, index, interface, &hooks)?;
        let (hook, _is_new) = self.attach_one(INGRESS, index, interface, &hooks)?;
        self.attached_at.insert(index, hook);
        self.remove_older(index)?;
        Ok(hook)
    }

    /// Attaches both programs to an interface again if somebody detached one since [`Self::attach`].
    /// Returns whether somebody had.
    ///
    /// # Errors
    ///
    /// As of [`Self::attach`].
    pub fn reattach(
        &mut self,
        index: IfIndex,
        interface: &InterfaceName,
    ) -> Result<bool, BpfError> {
        let mut is_new = false;
        if let Some(hook) = self.attached_at.get(&index).copied() {
            for direction in [EGRESS, INGRESS] {
                is_new |= self.reattach_one(direction, index, interface, hook)?;
            }
        }
        Ok(is_new)
    }

    /// Never at another hook: a link whose last name is gone lets go of its program only a moment later, and
    /// until then the kernel does not take the same program a second time.
    fn reattach_one(
        &mut self,
        direction: Direction,
        index: IfIndex,
        interface: &InterfaceName,
        hook: Hook,
    ) -> Result<bool, BpfError> {
        let mut attempts = 0;
        loop {
            match self.attach_one(direction, index, interface, &[hook]) {
                Ok((_hook, is_new)) => return Ok(is_new),
                Err(error) if attempts >= ATTEMPTS => return Err(error),
                Err(_perhaps_still_attached) => attempts += 1,
            }
            thread::sleep(PAUSE);
        }
    }

    /// Detaches both programs from an interface.
    ///
    /// # Errors
    ///
    /// [`BpfError::PinFolder`] if a link is there and can't be removed.
    pub fn detach(&mut self, index: IfIndex, interface: &InterfaceName) -> Result<(), BpfError> {
        self.attached_at.remove(&index);
        for direction in [INGRESS, EGRESS] {
            let path = self.link_path(direction, index);
            match fs::remove_file(&path) {
                Ok(()) => {}
                // Then it is a filter, or nothing; a filter that is not there is no error.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if let Ok(link) = clsact_link(direction, interface) {
                        drop(link);
                    }
                }
                Err(source) => {
                    return Err(BpfError::PinFolder {
                        call: "remove",
                        path,
                        source,
                    });
                }
            }
        }
        Ok(())
    }

    /// Removes everything of ours from the kernel, also what older versions left. Nothing may be open.
    ///
    /// # Errors
    ///
    /// [`BpfError::PinFolder`] if something is there and can't be removed.
    pub fn remove<'a>(
        pin_root: &Path,
        interfaces: impl Iterator<Item = &'a InterfaceName>,
    ) -> Result<(), BpfError> {
        for interface in interfaces {
            for direction in [INGRESS, EGRESS] {
                // A filter that is not there is no error.
                drop(clsact_link(direction, interface));
            }
        }
        match fs::remove_dir_all(pin_root) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(BpfError::PinFolder {
                call: "remove",
                path: pin_root.to_owned(),
                source,
            }),
            _gone => Ok(()),
        }
    }

    /// The interfaces that have a pinned link, from this process or an older one. Filters of clsact
    /// are not among them.
    ///
    /// # Errors
    ///
    /// [`BpfError::PinFolder`] if the folder can't be read.
    pub fn attached(&self) -> Result<BTreeSet<IfIndex>, BpfError> {
        let path = self.folder.join("links");
        let unreadable = |source| BpfError::PinFolder {
            call: "read",
            path: path.clone(),
            source,
        };
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(&path).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            let index = name
                .to_str()
                .and_then(|name| name.split_once('-')?.0.parse().ok());
            found.extend(index.map(IfIndex));
        }
        Ok(found)
    }

    /// What the speaker's maps hold; of arrays, what something refers to.
    ///
    /// # Errors
    ///
    /// [`BpfError::Map`] if one can't be read.
    pub fn read(&self) -> Result<MapContents, BpfError> {
        let mut contents = MapContents::default();
        let is_array = |name: MapName| name.is_array() || name == MapName::Stats;
        let (arrays, hashes): (Vec<_>, Vec<_>) =
            self.maps.iter().partition(|&(&name, _)| is_array(name));
        // Hashes first, as they say which elements of arrays are in use.
        for (&name, map) in hashes.into_iter().chain(arrays) {
            maps::read(name, map, &mut contents)?;
        }
        Ok(contents)
    }

    /// The first of these entries that the kernel does not have, or has with another value.
    ///
    /// # Errors
    ///
    /// [`BpfError::Map`] if one can't be read.
    pub fn missing<'a>(
        &self,
        entries: impl Iterator<Item = (MapName, &'a [u8], &'a [u8])>,
    ) -> Result<Option<MapName>, BpfError> {
        for (name, key, value) in entries {
            let map = self.maps.get(&name).ok_or(BpfError::Missing {
                name: name.as_str(),
            })?;
            if !maps::has(name, map, key, value)? {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Carries writes out, in their order, and stops at the first that fails.
    ///
    /// # Errors
    ///
    /// [`BpfError::Map`] with the map; what was done before it is done: [`Self::read`] tells.
    pub fn apply(&mut self, ops: &[MapOp]) -> Result<(), BpfError> {
        for op in ops {
            let (MapOp::Put { map: name, .. } | MapOp::Delete { map: name, .. }) = op;
            let map = self.maps.get_mut(name).ok_or(BpfError::Missing {
                name: name.as_str(),
            })?;
            maps::write(map, op)?;
            maps::note_counted(op, &mut self.counted);
        }
        Ok(())
    }

    /// All counters, summed over CPUs.
    ///
    /// # Errors
    ///
    /// [`BpfError::Map`] if they can't be read.
    pub fn counters(&self) -> Result<Counters, BpfError> {
        let stats = self
            .maps
            .get(&MapName::Stats)
            .ok_or(BpfError::Missing { name: "stats" })?;
        maps::counters(stats, &self.counted, &self.events)
    }

    /// The packets of one Service, by its number.
    ///
    /// # Errors
    ///
    /// [`BpfError::Map`] if they can't be read.
    pub fn packets(&self, service: u32) -> Result<u64, BpfError> {
        let stats = self
            .maps
            .get(&MapName::Stats)
            .ok_or(BpfError::Missing { name: "stats" })?;
        maps::counted(stats, service).map(|counters| counters.packets)
    }

    /// Runs the ingress program on a frame that comes by interface 1, the loopback device of this
    /// network namespace, which every frame for MAC address zero is for. Nothing is sent.
    ///
    /// # Errors
    ///
    /// [`BpfError::Program`] if the kernel does not do it: for a frame below 14 bytes, for one.
    pub fn test_ingress(&mut self, frame: &[u8]) -> Result<TestRun, BpfError> {
        self.test(INGRESS, frame)
    }

    /// Runs the egress program on a frame that leaves by interface 1. Nothing is sent.
    ///
    /// # Errors
    ///
    /// As of [`Self::test_ingress`].
    pub fn test_egress(&mut self, frame: &[u8]) -> Result<TestRun, BpfError> {
        self.test(EGRESS, frame)
    }

    fn test(&mut self, direction: Direction, frame: &[u8]) -> Result<TestRun, BpfError> {
        let mut out = vec![0; frame.len()];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        };
        let result = program(&mut self.ebpf, direction)?
            .test_run(options)
            .map_err(|source| BpfError::Program {
                program: direction.program,
                source: Box::new(source),
            })?;
        Ok(TestRun {
            verdict: result.return_value.cast_signed(),
            frame: out,
        })
    }

    /// Runs the ingress program so many times on one frame, as [`Self::test_ingress`] does once; each
    /// run gets what the last one left. The mean time of a run.
    ///
    /// # Errors
    ///
    /// [`BpfError::Program`] if the kernel does not do it.
    pub fn time_ingress(&mut self, frame: &[u8], runs: u32) -> Result<Duration, BpfError> {
        let options = TestRunOptions {
            data_in: Some(frame),
            repeat: runs,
            ..TestRunOptions::new()
        };
        let result = program(&mut self.ebpf, INGRESS)?
            .test_run(options)
            .map_err(|source| BpfError::Program {
                program: INGRESS.program,
                source: Box::new(source),
            })?;
        Ok(result.duration)
    }

    fn link_path(&self, direction: Direction, index: IfIndex) -> PathBuf {
        self.folder.join("links").join(direction.link_name(index))
    }

    /// Removes what other layouts have on an interface, and all of those that are on none any more.
    fn remove_older(&self, index: IfIndex) -> Result<(), BpfError> {
        let failed = |call, path: &Path| {
            let path = path.to_owned();
            move |source| BpfError::PinFolder { call, path, source }
        };
        let root = &self.pin_root;
        for entry in fs::read_dir(root).map_err(failed("read", root))? {
            let older = entry.map_err(failed("read", root))?.path();
            if older == self.folder {
                continue;
            }
            let links = older.join("links");
            for direction in [INGRESS, EGRESS] {
                let link = links.join(direction.link_name(index));
                if link.exists() {
                    fs::remove_file(&link).map_err(failed("remove", &link))?;
                }
            }
            let is_unused = fs::read_dir(&links).map_or(true, |mut links| links.next().is_none());
            if is_unused {
                fs::remove_dir_all(&older).map_err(failed("remove", &older))?;
            }
        }
        Ok(())
    }

    fn attach_one(
        &mut self,
        direction: Direction,
        index: IfIndex,
        interface: &InterfaceName,
        hooks: &[Hook],
    ) -> Result<(Hook, bool), BpfError> {
        let path = self.link_path(direction, index);
        let classifier = program(&mut self.ebpf, direction)?;
        let mut tried = Vec::new();
        for &hook in hooks {
            let result = match hook {
                Hook::Tcx => attach_tcx(classifier, direction, interface, &path),
                Hook::Clsact => attach_clsact(classifier, direction, interface),
            };
            match result {
                Ok(is_new) => return Ok((hook, is_new)),
                Err(error) => tried.push(format!("{}: {}", hook.as_str(), chain(&*error))),
            }
        }
        Err(BpfError::Attach {
            program: direction.program,
            interface: interface.clone(),
            tried,
        })
    }
}

fn program(ebpf: &mut Ebpf, direction: Direction) -> Result<&mut SchedClassifier, BpfError> {
    ebpf.program_mut(direction.program)
        .and_then(|program| program.try_into().ok())
        .ok_or(BpfError::Missing {
            name: direction.program,
        })
}

fn take_map(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, BpfError> {
    ebpf.take_map(name).ok_or(BpfError::Missing { name })
}

/// An error and its causes in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
