use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;

use crate::address::{Family, LanAddress, MAX_CLIENTS};
use crate::control_plane::PLACE as CONTROL_PLANE;
use crate::error::{Error, Result};
use crate::lan::{self, LAN, Role};
use crate::layout::{Layout, create_dir};
use crate::lock::Lock;
use crate::node;
use crate::options::{KubeProxy, check_name};
use crate::place::{in_netns, in_node};
use crate::process::{Output, output};
use crate::state::{Node, State};

/// A lab that is up. Dropping it leaves it up; [`Lab::down`] removes it.
///
/// Places, wherever one is asked for: `cp` (the control plane), `node1` and so on, `client` and those
/// added by [`Lab::add_client`], `lan` (the bridge).
#[derive(Debug, Clone)]
pub struct Lab {
    pub(crate) layout: Layout,
    pub(crate) state: State,
    pub(crate) interrupt: Arc<AtomicBool>,
}

impl Lab {
    /// The lab of this name, whoever has started it. One whose `up` failed can be looked at too.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchLab`] when there is none.
    pub fn attach(name: &str) -> Result<Self> {
        check_name("lab", name)?;
        let layout = Layout::new(name);
        let Some(state) = State::load(&layout)? else {
            return Err(Error::NoSuchLab(name.to_owned()));
        };
        Ok(Self {
            layout,
            state,
            interrupt: Arc::default(),
        })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.layout.name
    }

    /// All of its nodes, switched on or not.
    pub fn nodes(&self) -> Vec<Node> {
        self.state.all_nodes()
    }

    /// The node of this name.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPlace`].
    pub fn node(&self, name: &str) -> Result<Node> {
        self.state.node(name)
    }

    /// Address families of the cluster.
    pub fn family(&self) -> Family {
        self.state.family
    }

    /// Mode of kube-proxy.
    pub fn kube_proxy(&self) -> KubeProxy {
        self.state.kube_proxy
    }

    /// Where a place is on the LAN.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPlace`].
    pub fn address(&self, place: &str) -> Result<LanAddress> {
        let family = self.state.family;
        if place == CONTROL_PLANE {
            return Ok(LanAddress::control_plane(family));
        }
        match self.state.clients.iter().position(|client| client == place) {
            Some(index) => Ok(LanAddress::client(
                family,
                u8::try_from(index).unwrap_or(u8::MAX),
            )),
            None => self.state.node(place).map(|node| node.address),
        }
    }

    /// Folder with everything the lab keeps: logs below `cp/log` and `nodes/NODE/log`.
    pub fn folder(&self) -> PathBuf {
        self.layout.folder()
    }

    /// The administrator's kubeconfig. It works at every place of the lab but not outside: the API
    /// server is on the LAN only.
    pub fn kubeconfig_path(&self) -> PathBuf {
        self.layout.path("pki/admin.conf")
    }

    /// The API server's audit log: one JSON object a line, every request at level Metadata.
    pub fn audit_log_path(&self) -> PathBuf {
        self.layout.path("cp/audit.log")
    }

    /// The file that stands for the network namespace of a place, for `setns`: a caller that asks often
    /// has sockets of its own there rather than a process per question.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPlace`].
    pub fn network_namespace(&self, place: &str) -> Result<PathBuf> {
        if place == LAN {
            return Ok(self.layout.netns_path(LAN));
        }
        self.state
            .leg(place)
            .map(|leg| self.layout.netns_path(&leg))
    }

    /// A command at a place, to be given stdio and run by the caller. It has the lab's kubectl, helm
    /// and lab-echo in its PATH, and KUBECONFIG.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPlace`], [`Error::NodeOff`].
    pub fn command<S: AsRef<OsStr>>(
        &self,
        place: &str,
        argv: impl IntoIterator<Item = S>,
    ) -> Result<Command> {
        let mut command = if place == LAN {
            in_netns(&self.layout, LAN)
        } else {
            let leg = self.state.leg(place)?;
            if self.state.node(&leg).is_ok() {
                let init = node::init(&self.layout, &leg)?;
                in_node(&self.layout, init)
            } else {
                in_netns(&self.layout, &leg)
            }
        };
        command.args(argv);
        Ok(command)
    }

    /// Runs a command at a place to its end, whatever its exit code; [`Output::ok`] makes a failure
    /// an error.
    ///
    /// # Errors
    ///
    /// As [`Lab::command`]; [`Error::Command`] when it could not be started.
    pub fn exec<S: AsRef<OsStr>>(
        &self,
        place: &str,
        argv: impl IntoIterator<Item = S>,
    ) -> Result<Output> {
        output(&mut self.command(place, argv)?, None)
    }

    /// Starts a command at a place, with pipes for stdout and stderr and no stdin. Killing the child
    /// kills the command. `down` ends it if nothing else does.
    ///
    /// # Errors
    ///
    /// As [`Lab::exec`].
    pub fn spawn<S: AsRef<OsStr>>(
        &self,
        place: &str,
        argv: impl IntoIterator<Item = S>,
    ) -> Result<Child> {
        let mut command = self.command(place, argv)?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
            .spawn()
            .map_err(Error::io("run a command at", Path::new(place)))
    }

    /// Runs kubectl as administrator; gives its stdout.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when its exit code isn't 0; use [`Lab::kubectl_output`] to expect that.
    pub fn kubectl<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        self.kubectl_output(args)?.ok()
    }

    /// Runs kubectl as administrator, whatever its exit code.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when it could not be started.
    pub fn kubectl_output<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Output> {
        output(self.tool("kubectl")?.args(args), None)
    }

    /// Runs kubectl with `-o json`.
    ///
    /// # Errors
    ///
    /// [`Error::Command`]; [`Error::Json`] when the answer is no JSON.
    pub fn kubectl_json<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Value> {
        let text = output(self.tool("kubectl")?.args(args).args(["-o", "json"]), None)?.ok()?;
        serde_json::from_str(&text).map_err(Error::json("kubectl"))
    }

    /// Applies manifests, YAML or JSON.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] with kubectl's words when the API server refuses one.
    pub fn kubectl_apply(&self, manifests: &str) -> Result<String> {
        self.kubectl_with(["apply", "-f", "-"], manifests)?.ok()
    }

    /// Runs kubectl with `input` at its stdin, whatever its exit code.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when it could not be started.
    pub fn kubectl_with<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: &str,
    ) -> Result<Output> {
        output(self.tool("kubectl")?.args(args), Some(input))
    }

    /// Runs Helm as administrator; gives its stdout.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when its exit code isn't 0; use [`Lab::helm_output`] to expect that.
    pub fn helm<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<String> {
        self.helm_output(args)?.ok()
    }

    /// Runs Helm as administrator, whatever its exit code.
    ///
    /// # Errors
    ///
    /// [`Error::Command`] when it could not be started.
    pub fn helm_output<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
    ) -> Result<Output> {
        output(self.tool("helm")?.args(args), None)
    }

    fn tool(&self, name: &str) -> Result<Command> {
        self.command(CONTROL_PLANE, [self.layout.bin(name)])
    }

    /// One more client: a leg on the LAN. Gives its addresses; also when it is there already.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a name that cannot be one.
    pub fn add_client(&mut self, name: &str) -> Result<LanAddress> {
        check_name("client", name)?;
        let _lock = self.lock()?;
        self.state = State::load(&self.layout)?.unwrap_or_else(|| self.state.clone());
        if self.state.clients.iter().any(|client| client == name) {
            return self.address(name);
        }
        if name == LAN || self.state.leg(name).is_ok() || name.starts_with("node") {
            return Err(Error::InvalidOption(format!(
                "client name {name:?} is taken"
            )));
        }
        if self.state.clients.len() >= usize::from(MAX_CLIENTS) {
            return Err(Error::InvalidOption(format!(
                "a lab has at most {MAX_CLIENTS} clients"
            )));
        }
        self.state.clients.push(name.to_owned());
        let address = self.address(name)?;
        // What a killed attempt may have left.
        lan::remove_leg(&self.layout, name)?;
        lan::add_leg(
            &self.layout,
            name,
            &address,
            Role::Client,
            &[],
            self.state.family,
        )?;
        self.state.save(&self.layout)?;
        Ok(address)
    }

    /// Loads an image (a docker-archive) into every node: those that are off get it when they boot.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it cannot be read; [`Error::Command`] when a node refuses it.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        let images = self.layout.path("images");
        create_dir(&images)?;
        let name = archive
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let copy = images.join(format!("{name}.tar"));
        if !copy.exists() || fs::canonicalize(archive).ok() != fs::canonicalize(&copy).ok() {
            let new = images.join(format!("{name}.new"));
            fs::copy(archive, &new).map_err(Error::io("read", archive))?;
            fs::rename(&new, &copy).map_err(Error::io("write", &copy))?;
        }
        for node in self.nodes() {
            if node::is_on(&self.layout, &node.name) {
                let mut import =
                    self.command(&node.name, ["ctr", "-n", "k8s.io", "images", "import"])?;
                output(import.arg(&copy), None)?.ok()?;
            }
        }
        Ok(())
    }

    /// Held while something is added or switched.
    pub(crate) fn lock(&self) -> Result<Lock> {
        Lock::take(&self.layout.lock_file(), || ())
    }

    pub(crate) fn check_interrupt(&self) -> Result<()> {
        if self.interrupt.load(Ordering::Relaxed) {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    }

    /// A node that isn't Ready, in words.
    pub(crate) fn node_words(&self, node: &str, message: &str) -> String {
        format!(
            "{node}: {message}\n{}",
            node::last_words(&self.layout, node)
        )
    }
}
