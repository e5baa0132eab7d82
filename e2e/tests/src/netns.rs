//! Network namespaces for tests of one component without a cluster: a client, a bridge, some nodes.
//!
//! Names begin with `hdp-` and hold the process id, so that what a killed run left is known and
//! removed by the next one. Needs root.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use herald_model::{IfIndex, MacAddress};
use nix::sched::{CloneFlags, setns};

const PREFIX: &str = "hdp-";
/// A BPF file system of the tests' own.
const BPF_MOUNT: &str = "/run/hdp-bpf";
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Runs a command; what it said is in the error.
///
/// # Errors
///
/// If it can't be run or fails.
pub fn run(command: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(command)
        .args(args)
        .output()
        .with_context(|| format!("cannot run {command}"))?;
    ensure!(
        output.status.success(),
        "{command} {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `ip` commands, in order, until one fails.
///
/// # Errors
///
/// If one fails.
fn batch(commands: &[String]) -> Result<()> {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run ip")?;
    let mut stdin = ip.stdin.take().context("asked for a pipe")?;
    stdin.write_all(commands.join("\n").as_bytes())?;
    drop(stdin);
    let output = ip.wait_with_output()?;
    ensure!(
        output.status.success(),
        "ip: {}: {}",
        commands.join("; "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Runs `job` in a network namespace, on a thread of its own. Sockets and processes made there
/// stay there.
fn within<T: Send>(name: &str, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = Path::new("/run/netns").join(name);
    let result = thread::scope(|scope| {
        scope
            .spawn(|| {
                let file =
                    File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
                setns(file, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot enter {}", path.display()))?;
                job()
            })
            .join()
    });
    match result {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A network namespace with one interface, `eth0`, on the LAN's bridge. Removed with its [`Lan`].
#[derive(Clone, Debug)]
pub struct Host {
    name: String,
    /// Its IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Its IPv6 address.
    pub ipv6: Ipv6Addr,
    /// The MAC address of `eth0`.
    pub mac: MacAddress,
    /// The index of `eth0`.
    pub index: IfIndex,
}

impl Host {
    /// Runs `job` in the namespace, on a thread of its own. Sockets made there stay there.
    ///
    /// # Errors
    ///
    /// What `job` returns, or that the namespace can't be entered.
    ///
    /// # Panics
    ///
    /// If `job` does.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        within(&self.name, job)
    }

    /// Runs `ip` in the namespace.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub fn ip(&self, args: &str) -> Result<String> {
        self.run(|| run("ip", &args.split(' ').collect::<Vec<_>>()))
    }

    /// Runs several `ip` commands in the namespace.
    ///
    /// # Errors
    ///
    /// If one fails.
    pub fn ip_batch(&self, commands: &[String]) -> Result<()> {
        self.run(|| batch(commands))
    }

    /// Runs any command in the namespace.
    ///
    /// # Errors
    ///
    /// If it fails.
    pub fn exec(&self, command: &[&str]) -> Result<String> {
        let (&program, args) = command.split_first().context("no command")?;
        self.run(|| run(program, args))
    }
}

/// Some hosts on one bridge, 192.0.2.0/24 and `2001:db8::/64`. Host number n has .n and `::n`.
#[derive(Debug)]
pub struct Lan {
    /// The hosts.
    pub hosts: Vec<Host>,
    id: String,
}

impl Lan {
    /// Builds it, and removes what killed runs left.
    ///
    /// # Errors
    ///
    /// If `ip` fails: without root, for one.
    pub fn new(hosts: u8) -> Result<Self> {
        remove_leftovers()?;
        let id = format!(
            "{PREFIX}{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        let mut lan = Self {
            hosts: Vec::new(),
            id,
        };
        let bridge = lan.bridge();
        run("ip", &["netns", "add", &bridge])?;
        let mut on_bridge = vec![
            "link add br0 type bridge".to_owned(),
            "link set br0 up".to_owned(),
        ];
        for number in 1..=hosts {
            let name = format!("{}-{number}", lan.id);
            let mac = MacAddress([2, 0, 0, 0, 0, number]);
            run("ip", &["netns", "add", &name])?;
            on_bridge.push(format!(
                "link add p{number} type veth peer name eth0 address {mac} netns {name}"
            ));
            on_bridge.push(format!("link set p{number} master br0 up"));
            lan.hosts.push(Host {
                name,
                ipv4: Ipv4Addr::new(192, 0, 2, number),
                ipv6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()),
                mac,
                index: IfIndex(0),
            });
        }
        within(&bridge, || batch(&on_bridge))?;
        for host in &mut lan.hosts {
            let commands = [
                "link set lo up".to_owned(),
                format!("address add {}/24 dev eth0", host.ipv4),
                format!("address add {}/64 dev eth0 nodad", host.ipv6),
                "link set eth0 up".to_owned(),
            ];
            host.index = host.run(|| {
                batch(&commands)?;
                let text = run("ip", &["-o", "link", "show", "eth0"])?;
                let index = text.split(':').next().context("ip says nothing")?;
                Ok(IfIndex(index.parse()?))
            })?;
        }
        Ok(lan)
    }

    /// The namespace with the bridge, whose ports are `p1`, `p2` and so on.
    pub fn bridge(&self) -> String {
        format!("{}-lan", self.id)
    }

    /// A folder of this LAN's own in a BPF file system; removed with it.
    ///
    /// # Errors
    ///
    /// If no such file system can be mounted.
    pub fn bpf_folder(&self) -> Result<PathBuf> {
        let mounts = fs::read_to_string("/proc/mounts")?;
        if !mounts.contains(&format!(" {BPF_MOUNT} bpf ")) {
            fs::create_dir_all(BPF_MOUNT)?;
            run("mount", &["-t", "bpf", "bpf", BPF_MOUNT])?;
        }
        Ok(Path::new(BPF_MOUNT).join(&self.id))
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for host in &self.hosts {
            drop(run("ip", &["netns", "delete", &host.name]));
        }
        drop(run("ip", &["netns", "delete", &self.bridge()]));
        drop(fs::remove_dir_all(Path::new(BPF_MOUNT).join(&self.id)));
    }
}

/// Removes namespaces and pinned maps of processes that are no more.
fn remove_leftovers() -> Result<()> {
    let is_left_over = |name: &str| {
        name.strip_prefix(PREFIX)
            .and_then(|rest| rest.split('-').next())
            .is_some_and(|pid| !Path::new("/proc").join(pid).exists())
    };
    for folder in ["/run/netns", BPF_MOUNT] {
        let Ok(entries) = fs::read_dir(folder) else {
            continue;
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !is_left_over(&name) {
                continue;
            }
            // Another test process may be at it too.
            if folder == BPF_MOUNT {
                drop(fs::remove_dir_all(entry.path()));
            } else {
                drop(run("ip", &["netns", "delete", &name]));
            }
        }
    }
    Ok(())
}
