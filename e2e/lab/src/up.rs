//! From nothing to a cluster whose nodes are Ready, with Herald in it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::address::{LAN_V4, LAN_V6, LanAddress};
use crate::chart;
use crate::control_plane;
use crate::down::{forget, is_running, remove};
use crate::error::{Error, Result};
use crate::lab::Lab;
use crate::lan::{self, Role};
use crate::layout::{Layout, create_dir, write};
use crate::lock::Lock;
use crate::node;
use crate::options::Options;
use crate::pki;
use crate::place::exec_cgroup;
use crate::real_time;
use crate::state::State;
use crate::tools::{self, HELM_VERSION, KUBE_VERSION, Tools};

/// Something that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Since the beginning.
    pub elapsed: Duration,
    /// One line.
    pub text: String,
}

/// Told of each step when it is done.
pub type Progress<'a> = dyn FnMut(&Step) + 'a;

const API_TIME: Duration = Duration::from_mins(3);
const NODES_TIME: Duration = Duration::from_mins(3);
const MULTI_CALL: [&str; 7] = [
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kube-proxy",
    "kubelet",
    "kubectl",
];

impl Lab {
    /// Builds a lab: from nothing, or from what a killed run of the same name has left.
    ///
    /// # Errors
    ///
    /// [`Error::AlreadyUp`]; [`Error::Missing`] names the tool and the remedy; [`Error::NotReady`]
    /// says what isn't and why. Then the lab stays as it is, to be looked at. After
    /// [`Error::Interrupted`] it is gone.
    pub fn up(options: &Options) -> Result<Self> {
        Self::up_with(options, &mut |_| ())
    }

    /// As [`Lab::up`], and tells each step.
    ///
    /// # Errors
    ///
    /// As [`Lab::up`].
    pub fn up_with(options: &Options, progress: &mut Progress<'_>) -> Result<Self> {
        options.check()?;
        tools::require_root()?;
        let layout = Layout::new(&options.name);
        let began = Instant::now();
        let mut step = |text: String| {
            progress(&Step {
                elapsed: began.elapsed(),
                text,
            });
        };
        let lock = Lock::take(&layout.lock_file(), || {
            step(format!(
                "waiting: another herald-lab works on {:?}",
                options.name
            ));
        })?;
        match build(&layout, options, &mut step) {
            // Whatever the error: Ctrl-C has ended the command we were waiting for, too.
            Err(_) if options.interrupted().is_err() => {
                step("interrupted: removing the lab".to_owned());
                remove(&layout)?;
                forget(lock)?;
                Err(Error::Interrupted)
            }
            // Nothing was begun.
            Err(error) if !layout.folder().exists() => forget(lock).and(Err(error)),
            other => other,
        }
    }

    /// The lab of these options: attached to when it is up, built when it isn't.
    ///
    /// # Errors
    ///
    /// As [`Lab::up`]; [`Error::InvalidOption`] when the one that is up was built as another.
    pub fn ensure(options: &Options, progress: &mut Progress<'_>) -> Result<Self> {
        let layout = Layout::new(&options.name);
        match State::load(&layout)? {
            Some(state) if state.complete && is_running(&layout) => {
                let wanted = State::new(options);
                if (state.nodes, state.kube_proxy, state.family)
                    == (wanted.nodes, wanted.kube_proxy, wanted.family)
                {
                    Self::attach(&options.name)
                } else {
                    Err(Error::InvalidOption(format!(
                        "the lab {:?} is up with other nodes, kube-proxy or family",
                        options.name
                    )))
                }
            }
            _ => Self::up_with(options, progress),
        }
    }
}

fn build(layout: &Layout, options: &Options, step: &mut impl FnMut(String)) -> Result<Lab> {
    let tools = Tools::find()?;
    // Before anything is built that would be of no use without it.
    let chart = options
        .herald
        .then(|| chart::check(&options.chart))
        .transpose()?;
    if State::load(layout)?.is_some_and(|state| state.complete) && is_running(layout) {
        return Err(Error::AlreadyUp(options.name.clone()));
    }
    if remove(layout)? {
        step("removed what an earlier run has left".to_owned());
    }
    options.interrupted()?;
    let state = State::new(options);
    let lab = Lab {
        layout: layout.clone(),
        state,
        interrupt: Arc::clone(&options.interrupt),
    };
    prepare(&lab, &tools, options, step)?;
    start(&lab, step)?;
    if let Some(chart) = chart {
        lab.install(&chart, &options.chart)?;
        step(format!(
            "chart installed by helm {HELM_VERSION} into {}",
            chart::HERALD_NAMESPACE
        ));
        lab.wait_herald_ready()?;
        step(format!("everything in {} Ready", chart::HERALD_NAMESPACE));
    }
    let mut lab = lab;
    lab.state.complete = true;
    lab.state.save(layout)?;
    Ok(lab)
}

/// Files only: folder, programs, images, certificates.
fn prepare(
    lab: &Lab,
    tools: &Tools,
    options: &Options,
    step: &mut impl FnMut(String),
) -> Result<()> {
    let layout = &lab.layout;
    let folder = layout.folder();
    create_dir(&folder)?;
    // Private keys are in it.
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))
        .map_err(Error::io("protect", &folder))?;
    lab.state.save(layout)?;
    for dir in ["bin", "images"] {
        create_dir(&layout.path(dir))?;
    }
    for program in MULTI_CALL {
        link(&tools.kube, &layout.bin(program))?;
    }
    link(&tools.helm, &layout.bin("helm"))?;
    step(format!(
        "tools found: kubernetes {KUBE_VERSION}, helm {HELM_VERSION}"
    ));
    options.interrupted()?;
    let base = tools::base_images(|| step("building the test images, once".to_owned()))?;
    for name in ["pause.tar", "echo.tar"] {
        link(&base.join(name), &layout.path("images").join(name))?;
    }
    link(&base.join("lab-echo"), &layout.bin("lab-echo"))?;
    if options.herald {
        chart::pack_images(layout, &options.chart)?;
        step("images of Herald packed".to_owned());
    }
    let nodes: Vec<_> = lab
        .nodes()
        .into_iter()
        .map(|node| (node.name, node.address))
        .collect();
    pki::create(layout, &nodes, lab.state.family)?;
    step("certificates made".to_owned());
    options.interrupted()
}

fn link(to: &Path, at: &Path) -> Result<()> {
    let to = fs::canonicalize(to).map_err(Error::io("find", to))?;
    symlink(to, at).map_err(Error::io("create", at))
}

/// Everything that runs.
fn start(lab: &Lab, step: &mut impl FnMut(String)) -> Result<()> {
    let (layout, state) = (&lab.layout, &lab.state);
    let family = state.family;
    exec_cgroup(layout).create()?;
    real_time::lift()?;
    lan::create(layout, family)?;
    let nodes = lab.nodes();
    let control_plane = LanAddress::control_plane(family);
    lan::add_leg(
        layout,
        "cp",
        &control_plane,
        Role::ControlPlane,
        &nodes,
        family,
    )?;
    for client in &state.clients {
        lan::add_leg(
            layout,
            client,
            &lab.address(client)?,
            Role::Client,
            &nodes,
            family,
        )?;
    }
    let client = lab.address("client")?.all().join(", ");
    step(format!(
        "LAN {} up, client at {client}",
        family.pick(LAN_V4, LAN_V6).replace(',', ", ")
    ));
    lab.check_interrupt()?;
    control_plane::start(layout, state)?;
    // They bring up containerd and load the images while the API server starts.
    for node in &nodes {
        lab.check_interrupt()?;
        node::boot(layout, state, node)?;
    }
    lab.wait_api_ready(API_TIME)?;
    lab.kubectl_with(["create", "-f", "-"], &node::manifest(state))?
        .ok()?;
    write(&layout.path("cp/was-ready"), "")?;
    step(format!(
        "API server ready at {}",
        control_plane.all().join(", ")
    ));
    lab.wait_nodes_ready(NODES_TIME)?;
    lab.wait_kube_proxy(NODES_TIME)?;
    let nodes: Vec<_> = lab
        .nodes()
        .iter()
        .map(|node| format!("{} {}", node.name, node.address.primary()))
        .collect();
    step(format!("nodes Ready, images loaded: {}", nodes.join(", ")));
    Ok(())
}
