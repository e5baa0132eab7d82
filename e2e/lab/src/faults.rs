//! What can be broken, and how it is made whole again.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::control_plane::{self, API_SERVER, ETCD};
use crate::error::{Error, Result};
use crate::lab::Lab;
use crate::lan;
use crate::node;
use crate::ready::wait;
use crate::switch::{self, Drops, GATEWAY, Loss};

/// A program on a node that can be sent a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// `herald-speaker`, in its pod.
    Speaker,
    /// `herald-controller`, in its pod.
    Controller,
    /// kube-proxy.
    KubeProxy,
    /// The kubelet.
    Kubelet,
}

impl Program {
    pub(crate) const ALL: [(&'static str, Self, &'static str); 4] = [
        ("speaker", Self::Speaker, "herald-speaker"),
        ("controller", Self::Controller, "herald-controller"),
        ("kube-proxy", Self::KubeProxy, "kube-proxy"),
        ("kubelet", Self::Kubelet, "kubelet"),
    ];

    /// Name of its file.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Speaker => "herald-speaker",
            Self::Controller => "herald-controller",
            Self::KubeProxy => "kube-proxy",
            Self::Kubelet => "kubelet",
        }
    }
}

impl FromStr for Program {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL
            .iter()
            .find(|(short, _, file)| [short, file].contains(&&text));
        found.map(|(_, program, _)| *program).ok_or_else(|| {
            let known = Self::ALL.map(|(short, ..)| short).join(", ");
            Error::InvalidOption(format!("program {text:?} is not one of {known}"))
        })
    }
}

/// What can be done to a component of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Kill it, and keep it from coming back.
    Stop,
    /// Let it come back.
    Start,
    /// Stop its processes where they are: connections stay open, nothing answers.
    Freeze,
    /// Let them go on.
    Thaw,
}

impl FromStr for Action {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "stop" => Ok(Self::Stop),
            "start" => Ok(Self::Start),
            "freeze" => Ok(Self::Freeze),
            "thaw" => Ok(Self::Thaw),
            _ => Err(Error::InvalidOption(format!(
                "{text:?} is not stop, start, freeze or thaw"
            ))),
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stop => "stopped",
            Self::Start => "started",
            Self::Freeze => "frozen",
            Self::Thaw => "thawed",
        })
    }
}

impl Lab {
    /// Cuts the cable of a place: it sees its carrier go. With `silent` it sees nothing: the cable is
    /// cut somewhere behind the switch's port.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPlace`]; [`Error::NodeOff`].
    pub fn cut(&self, place: &str, silent: bool) -> Result<()> {
        let leg = self.leg_that_is_on(place)?;
        lan::cut(&self.layout, &leg, silent)
    }

    /// Undoes [`Lab::cut`], [`Lab::lose`] and what [`Lab::kill_and_hold`] holds down there, and takes
    /// the place out of a [`Lab::partition`]. "gateway" can only be in the last one.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPlace`]; [`Error::NodeOff`].
    pub fn heal(&self, place: &str) -> Result<()> {
        if place == GATEWAY {
            return self.change_drops(|drops| drops.forget(place));
        }
        let leg = self.leg_that_is_on(place)?;
        node::release_all(&self.layout, &leg)?;
        lan::heal(&self.layout, &leg)?;
        self.change_drops(|drops| drops.forget(place))
    }

    /// [`Lab::heal`] of every place that is on, and the end of a partition.
    ///
    /// # Errors
    ///
    /// [`Error::Command`].
    pub fn heal_all(&self) -> Result<()> {
        for port in lan::ports(&self.layout)? {
            node::release_all(&self.layout, &port.name)?;
            lan::heal(&self.layout, &port.name)?;
        }
        self.change_drops(|drops| *drops = Drops::default())
    }

    /// Splits the LAN: nothing passes between two of these parts. A place in none of them goes on
    /// seeing all, the client for one; "gateway" is the bridge. Takes the place of an earlier partition.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPlace`]; [`Error::InvalidOption`] for less than two parts, or a place in two.
    pub fn partition(&self, parts: &[Vec<String>]) -> Result<()> {
        switch::check_partition(parts, &self.state.legs())?;
        self.change_drops(|drops| drops.partition = parts.to_vec())
    }

    /// Drops a share of the frames on a place's link, each way for itself, at random.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPlace`].
    pub fn lose(&self, place: &str, loss: Loss) -> Result<()> {
        let leg = self.state.leg(place)?;
        self.change_drops(|drops| {
            drops.loss.remove(&leg);
            if !loss.is_none() {
                drops.loss.insert(leg, loss);
            }
        })
    }

    fn change_drops(&self, change: impl FnOnce(&mut Drops)) -> Result<()> {
        let _lock = self.lock()?;
        let before = Drops::load(&self.layout)?;
        let mut drops = before.clone();
        change(&mut drops);
        if drops == before {
            return Ok(());
        }
        drops.put_in_force(&self.layout)
    }

    fn leg_that_is_on(&self, place: &str) -> Result<String> {
        let leg = self.state.leg(place)?;
        if lan::ports(&self.layout)?
            .iter()
            .any(|port| port.name == leg)
        {
            Ok(leg)
        } else {
            Err(Error::NodeOff(leg))
        }
    }

    /// Switches a node off at once, as when its power fails: nothing is told to anybody. Its disk
    /// stays.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPlace`].
    pub fn power_off(&self, node: &str) -> Result<()> {
        let node = self.state.node(node)?;
        let _lock = self.lock()?;
        node::power_off(&self.layout, &node.name)
    }

    /// Boots a node that is off, with its disk, or with `new` with an empty one. Returns when it has
    /// begun to boot; [`Lab::wait_nodes_ready`] waits for the rest.
    ///
    /// # Errors
    ///
    /// [`Error::NodeOn`]; [`Error::NoSuchPlace`].
    pub fn power_on(&self, node: &str, new: bool) -> Result<()> {
        let node = self.state.node(node)?;
        let _lock = self.lock()?;
        if node::is_on(&self.layout, &node.name) {
            return Err(Error::NodeOn(node.name));
        }
        // The rest of one whose process 1 has died.
        node::power_off(&self.layout, &node.name)?;
        if new {
            node::forget_disk(&self.layout, &node.name)?;
        }
        node::boot(&self.layout, &self.state, &node)
    }

    /// Stops every process of a node where it is, pods included. Its kernel goes on: it answers ARP
    /// and ping, and forwards.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPlace`]; [`Error::NodeOff`].
    pub fn freeze(&self, node: &str) -> Result<()> {
        self.set_frozen(node, true)
    }

    /// Undoes [`Lab::freeze`].
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPlace`]; [`Error::NodeOff`].
    pub fn thaw(&self, node: &str) -> Result<()> {
        self.set_frozen(node, false)
    }

    fn set_frozen(&self, node: &str, frozen: bool) -> Result<()> {
        let node = self.state.node(node)?;
        if !node::is_on(&self.layout, &node.name) {
            return Err(Error::NodeOff(node.name));
        }
        node::cgroup(&self.layout, &node.name).set_frozen(frozen)
    }

    /// Stops a program on a node where it is (SIGSTOP), and gives the number of its processes. Its
    /// connections stay open; what it has in the kernel works on. A kubelet whose probe it misses kills
    /// it in the end.
    ///
    /// # Errors
    ///
    /// As [`Lab::kill`].
    pub fn freeze_program(&self, node: &str, program: Program) -> Result<u32> {
        self.kill(node, program, "STOP")
    }

    /// Undoes [`Lab::freeze_program`].
    ///
    /// # Errors
    ///
    /// As [`Lab::kill`].
    pub fn thaw_program(&self, node: &str, program: Program) -> Result<u32> {
        self.kill(node, program, "CONT")
    }

    /// Sends a signal ("KILL", "TERM", …) to a program on a node, and gives the number of processes
    /// that got it. kubelet and kube-proxy come back after a second; what runs in a pod, when the
    /// kubelet starts it again.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchProcess`] when it doesn't run there; [`Error::NoSuchPlace`].
    pub fn kill(&self, node: &str, program: Program, signal: &str) -> Result<u32> {
        let node = self.state.node(node)?;
        let signal = signal.trim_start_matches("SIG");
        node::signal(&self.layout, &node.name, program.file_name(), signal)
    }

    /// Kills a program on a node and keeps it down: it does not come back, nor does its pod's
    /// container start, until [`Lab::heal`] of that node.
    ///
    /// # Errors
    ///
    /// As [`Lab::kill`].
    pub fn kill_and_hold(&self, node: &str, program: Program) -> Result<u32> {
        let node = self.state.node(node)?;
        // First, or it could be back before we hold it.
        node::hold(&self.layout, &node.name, program.file_name())?;
        let killed = node::signal(&self.layout, &node.name, program.file_name(), "KILL");
        if killed.is_err() {
            node::release(&self.layout, &node.name, program.file_name())?;
        }
        killed
    }

    /// Stops, starts, freezes or thaws the API server.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the lab is going away.
    pub fn api(&self, action: Action) -> Result<()> {
        self.control(API_SERVER, action)
    }

    /// Stops, starts, freezes or thaws etcd.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when the lab is going away.
    pub fn etcd(&self, action: Action) -> Result<()> {
        self.control(ETCD, action)
    }

    fn control(&self, component: &str, action: Action) -> Result<()> {
        let cgroup = control_plane::cgroup(&self.layout).child(component);
        match action {
            Action::Stop => control_plane::hold(&self.layout, component),
            Action::Start => control_plane::release(&self.layout, component),
            Action::Freeze => cgroup.set_frozen(true),
            Action::Thaw => cgroup.set_frozen(false),
        }
    }

    /// Kills controller manager and scheduler; they are back after a second. When an API server was away
    /// they may take a minute to ask it again; with leader election, as elsewhere, they would have ended.
    ///
    /// # Errors
    ///
    /// [`Error::LeftOver`] when they can't be killed.
    pub fn restart_controllers(&self) -> Result<()> {
        let cgroup = control_plane::cgroup(&self.layout);
        control_plane::CONTROLLERS
            .iter()
            .try_for_each(|name| cgroup.child(name).kill())
    }

    /// Waits until the API server says it is ready.
    ///
    /// # Errors
    ///
    /// [`Error::NotReady`] with the last log lines.
    pub fn wait_api_ready(&self, timeout: Duration) -> Result<()> {
        let probe = || {
            self.check_interrupt()?;
            let ready = control_plane::is_ready(&self.layout, &self.state, Duration::from_secs(2));
            Ok(ready.then_some(()))
        };
        wait("the API server", timeout, probe, || {
            control_plane::last_words(&self.layout)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_go_by_their_short_and_their_file_name() {
        for (short, program, file) in Program::ALL {
            assert_eq!(short.parse::<Program>().expect("known"), program);
            assert_eq!(file.parse::<Program>().expect("known"), program);
            assert_eq!(program.file_name(), file);
        }
        let error = "etcd"
            .parse::<Program>()
            .expect_err("on no node")
            .to_string();
        assert!(
            error.ends_with("not one of speaker, controller, kube-proxy, kubelet"),
            "{error}"
        );
    }
}
