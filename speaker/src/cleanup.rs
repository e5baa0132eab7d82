//! `herald-speaker cleanup`: what a speaker does when it retires, without a speaker.
//!
//! For nodes that no speaker cleans: those that were off while Herald was uninstalled, or whose speakers were
//! not asked to.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use herald_model::InterfaceName;

use crate::forward;
use crate::io::black_holes::{BlackHoles, TABLE};
use crate::io::bpf;
use crate::snapshot::Folder;

/// The program's name, as the kernel has it.
const PROGRAM: &str = "herald-speaker";
/// The subcommand's.
const CLEANUP: &str = "cleanup";

/// Removes everything of Herald's from the node this runs on.
///
/// That is what a speaker removes when it is asked to retire: eBPF programs and maps, the routing
/// table 18501 and the rules that lead to it, and the snapshot. For a node on which no speaker does
/// it. It asks no API server, and needs CAP_NET_ADMIN, the network and /sys/fs/bpf of the node and,
/// to see whether a speaker runs, its processes. From elsewhere:
///
///   kubectl debug node/NODE --profile=sysadmin --image=IMAGE-OF-THE-SPEAKER -it \
///     -- /herald-speaker cleanup --root=/host
///
/// It refuses while a speaker runs, which would put everything back: set spec.retire of its Speaker
/// object instead.
///
/// Exit code: 0 if nothing is left, 1 if something is or a speaker runs, 2 for a wrong command line.
#[expect(clippy::doc_markdown, reason = "the text is for people on a terminal")]
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct CleanupArgs {
    /// Where the node's file system is.
    #[arg(long, value_name = "FOLDER", default_value = "/")]
    root: PathBuf,

    /// The speaker's folder in the BPF file system, below --root.
    #[arg(long, env = "HERALD_BPF_PINS", value_name = "FOLDER", default_value = bpf::DEFAULT_PIN_ROOT)]
    bpf_pins: PathBuf,

    /// The speaker's folder for the snapshot, below --root.
    #[arg(
        long,
        env = "HERALD_STATE_DIR",
        value_name = "FOLDER",
        default_value = "/var/lib/herald"
    )]
    state_dir: PathBuf,

    /// Also if a speaker runs.
    #[arg(long)]
    force: bool,
}

/// Removes it, and says what there was.
///
/// # Errors
///
/// If a speaker runs, or something is left.
#[expect(clippy::print_stdout, reason = "people read it on a terminal")]
pub(crate) fn cleanup(args: &CleanupArgs) -> anyhow::Result<()> {
    let running = speakers().context("looking for speakers")?;
    if let [first, ..] = running.as_slice() {
        ensure!(
            args.force,
            "a speaker runs here, process {first}, and would put everything back: set spec.retire of the node's \
             Speaker object, or remove Herald from the node; --force removes all the same"
        );
    }
    let pins = below(&args.root, &args.bpf_pins);
    let state = below(&args.root, &args.state_dir);
    let before = found(&pins, &state)?;
    let interfaces = interfaces().context("listing interfaces")?;
    forward::remove_all(&pins, interfaces.iter()).context("removing the data plane")?;
    remove_state(&state).with_context(|| format!("removing {}", state.display()))?;
    for part in &before {
        println!("removed: {part}");
    }
    let left = found(&pins, &state)?;
    if !left.is_empty() {
        bail!("still there: {}", left.join("; "));
    }
    println!("nothing of Herald's is left on this node");
    Ok(())
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// What there is of Herald's, for people. Filters of clsact are not told from others.
fn found(pins: &Path, state: &Path) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    let count = BlackHoles::open().and_then(|mut it| it.count());
    let (routes, rules) = count.context("reading routes and rules")?;
    if routes + rules > 0 {
        found.push(format!(
            "{routes} routes of table {TABLE} and {rules} rules that lead to it"
        ));
    }
    for (folder, what) in [
        (pins, "pinned maps and programs"),
        (state, "files of the snapshot"),
    ] {
        let files = files(folder).with_context(|| format!("reading {}", folder.display()))?;
        if files > 0 {
            found.push(format!("{}, {files} {what}", folder.display()));
        }
    }
    Ok(found)
}

/// How many files are in a folder and those below.
fn files(folder: &Path) -> io::Result<usize> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        entries => entries?,
    };
    let mut count = 0;
    for entry in entries {
        let entry = entry?;
        count += if entry.file_type()?.is_dir() {
            files(&entry.path())?
        } else {
            1
        };
    }
    Ok(count)
}

fn remove_state(folder: &Path) -> io::Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    Folder::open(Some(folder.to_owned()))?.clear()?;
    match fs::remove_dir(folder) {
        // Something is mounted there: it is empty now, and not ours to unmount.
        Err(error) if error.kind() == ErrorKind::ResourceBusy => Ok(()),
        result => result,
    }
}

/// The interfaces of this network namespace. `/sys/class/net` may be that of another one.
fn interfaces() -> io::Result<Vec<InterfaceName>> {
    Ok(interfaces_of(&fs::read_to_string("/proc/self/net/dev")?))
}

/// Two lines of headings, then one for each interface, which begins with its name.
fn interfaces_of(table: &str) -> Vec<InterfaceName> {
    let lines = table.lines().skip(2);
    lines
        .filter_map(|line| line.trim_start().split_once(':'))
        .map(|(name, _counters)| InterfaceName::from(name))
        .collect()
}

/// The processes that are speakers.
fn speakers() -> io::Result<Vec<u32>> {
    let own = std::process::id();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let pid = path.file_name().and_then(OsStr::to_str);
        let Some(pid) = pid.and_then(|name| name.parse().ok()) else {
            continue;
        };
        // One that has just ended is none.
        let (Ok(name), Ok(line)) = (fs::read(path.join("comm")), fs::read(path.join("cmdline")))
        else {
            continue;
        };
        if pid != own && is_speaker(&name, &line) {
            found.push(pid);
        }
    }
    Ok(found)
}

/// Whether a process is a speaker that serves, by its name and its command line. What is dead and
/// was not waited for has no command line.
fn is_speaker(name: &[u8], line: &[u8]) -> bool {
    let subcommand = line.split(|byte| *byte == 0).nth(1).map(OsStr::from_bytes);
    name.trim_ascii_end() == PROGRAM.as_bytes()
        && !line.is_empty()
        && subcommand != Some(OsStr::new(CLEANUP))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_under_the_speakers_name_is_one_unless_it_cleans_up_or_is_dead() {
        let is = |line: &[u8]| is_speaker(b"herald-speaker\n", line);
        assert!(is(b"/herald-speaker\0--log-level=info\0"));
        assert!(is(b"/herald-speaker\0"));
        assert!(!is(b"/herald-speaker\0cleanup\0--root=/host\0"));
        assert!(!is(b""), "a zombie");
        assert!(!is_speaker(b"herald-control\n", b"/herald-controller\0"));
    }

    #[test]
    fn paths_are_below_the_root() {
        let below = |root: &str| below(Path::new(root), Path::new("/var/lib/herald"));
        assert_eq!(below("/"), Path::new("/var/lib/herald"));
        assert_eq!(below("/host"), Path::new("/host/var/lib/herald"));
    }

    #[test]
    fn interfaces_are_those_of_the_kernels_table() {
        let table = "Inter-|   Receive                |  Transmit\n \
                     face |bytes    packets errs drop|bytes    packets\n    \
                     lo:  123 4 0 0 0 0 0 0 123 4\n  \
                     eth0.7: 5 6 0 0 0 0 0 0 5 6\n";
        let names = ["lo", "eth0.7"].map(InterfaceName::from);
        assert_eq!(interfaces_of(table), names);
    }
}
