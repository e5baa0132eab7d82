//! A genuine Kubernetes cluster on one machine: etcd, API server, controller manager, scheduler,
//! kubelets with containerd and runc, kube-proxy, each node in namespaces and a cgroup of its own,
//! on a LAN that is one bridge. Its cables can be cut or lossy, the LAN be split, its nodes switched
//! off or frozen.
//!
//! The lab decides nothing about Herald: it builds the cluster, installs the chart with Helm, and
//! breaks what it is told to. It keeps these promises:
//!
//! - after `down` nothing of a lab is left: no process, mount, namespace, cgroup or file, also when
//!   `up` was killed;
//! - no process outside the lab's cgroups is ever signalled;
//! - a running lab does not depend on the process that started it.
//!
//! ```no_run
//! use herald_lab::{Lab, Options, Result};
//!
//! fn main() -> Result<()> {
//!     let lab = Lab::up(&Options::named("example").without_herald())?;
//!     lab.kubectl_apply("{apiVersion: v1, kind: Namespace, metadata: {name: test}}")?;
//!     let seen = lab.exec("client", ["arping", "-c", "1", "172.30.0.11"])?.ok()?;
//!     assert!(seen.contains("02:30:00:00:00:01"));
//!     lab.cut("node1", false)?;
//!     lab.heal("node1")?;
//!     Lab::down("example")?;
//!     Ok(())
//! }
//! ```

pub mod address;
mod cgroup;
mod chart;
mod control_plane;
mod daemon;
mod down;
mod error;
mod faults;
mod image;
mod lab;
mod lan;
mod layout;
mod lock;
mod node;
mod options;
mod pki;
mod place;
mod process;
mod ready;
mod real_time;
mod state;
mod status;
mod switch;
mod tools;
mod up;

pub use address::{Family, LanAddress};
pub use chart::{HERALD_NAMESPACE, HERALD_RELEASE, built};
pub use error::{Error, Result};
pub use faults::{Action, Program};
pub use image::Image;
pub use lab::Lab;
pub use lan::Cable;
pub use options::{ChartOptions, KubeProxy, Options};
pub use process::Output;
pub use state::Node;
pub use status::{ComponentState, LegStatus, NodeStatus, PodStatus, ServiceStatus, Status};
pub use switch::Loss;
pub use tools::{ECHO_IMAGE, HELM_VERSION, KUBE_VERSION, prometheus};
pub use up::{Progress, Step};
