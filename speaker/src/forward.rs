//! The thread that has the data plane: eBPF system calls block, so they are kept off the runtime.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use herald_dataplane::{Counters, Desired, MapContents, Refused, compile, diff};
use herald_model::{IfIndex, InterfaceName, ServiceKey};
use herald_speaker_core::{DataPlaneMode, DataPlaneReport, Input};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use crate::io::bpf::{BpfError, DataPlane, Hook, Options};

/// Between two attempts to open a data plane that may yet work.
const RETRY: Duration = Duration::from_secs(30);

/// What the thread is told.
enum Command {
    Apply {
        generation: u64,
        desired: Arc<Desired>,
        names: BTreeMap<IfIndex, InterfaceName>,
    },
    Count(oneshot::Sender<Option<Counted>>),
}

/// Counters, and what the numbers in them stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) counters: Counters,
    pub(crate) services: BTreeMap<ServiceKey, u32>,
}

/// The running thread. Dropping it ends the thread and leaves the programs attached.
#[derive(Clone)]
pub(crate) struct Handle(mpsc::Sender<Command>);

/// Starts the thread; how the data plane runs, and what came of each wish, goes to `inputs`.
pub(crate) fn start(options: Options, inputs: UnboundedSender<Input>) -> io::Result<Handle> {
    let (sender, commands) = mpsc::channel();
    thread::Builder::new()
        .name("data-plane".to_owned())
        .spawn(move || run(&options, &commands, &inputs))?;
    Ok(Handle(sender))
}

impl Handle {
    /// Hands a wish over.
    pub(crate) fn apply(
        &self,
        generation: u64,
        desired: Arc<Desired>,
        names: BTreeMap<IfIndex, InterfaceName>,
    ) {
        let command = Command::Apply {
            generation,
            desired,
            names,
        };
        if self.0.send(command).is_err() {
            warn!("the data plane's thread is gone");
        }
    }

    /// What was counted so far; `None` without a data plane.
    pub(crate) async fn counted(&self) -> Option<Counted> {
        let (sender, receiver) = oneshot::channel();
        self.0.send(Command::Count(sender)).ok()?;
        receiver.await.ok().flatten()
    }
}

fn run(options: &Options, commands: &mpsc::Receiver<Command>, inputs: &UnboundedSender<Input>) {
    let Some(mut runner) = open(options, commands, inputs) else {
        return;
    };
    while let Ok(command) = commands.recv() {
        match command {
            Command::Apply {
                generation,
                desired,
                names,
            } => {
                let outcome = runner.apply(&desired, &names, inputs);
                if let Err(error) = &outcome {
                    warn!(
                        reason = error.kind(),
                        error = error as &dyn Error,
                        "the data plane does not do all it should"
                    );
                    runner.observed = None;
                }
                let outcome = outcome.map_err(|error| herald_config::sentence(&error).into());
                report(
                    inputs,
                    Input::DataPlaneApplied {
                        generation,
                        outcome,
                    },
                );
            }
            Command::Count(sender) => drop(sender.send(runner.counted())),
        }
    }
}

/// Opens the data plane. Where it cannot be had, says so, and tries again if that may help.
fn open(
    options: &Options,
    commands: &mpsc::Receiver<Command>,
    inputs: &UnboundedSender<Input>,
) -> Option<Runner> {
    let mut said = None;
    loop {
        let error = match DataPlane::open(options) {
            Ok(data_plane) => {
                info!(pins = %options.pin_root.display(), "the eBPF programs are loaded");
                report(inputs, known(DataPlaneMode::Tcx, None));
                return Some(Runner {
                    data_plane,
                    attached: BTreeMap::new(),
                    hook: Hook::Tcx,
                    observed: None,
                    services: BTreeMap::new(),
                    refused: Vec::new(),
                });
            }
            Err(error) => error,
        };
        let sentence: Arc<str> = herald_config::sentence(&error).into();
        if said.as_ref() != Some(&sentence) {
            warn!(
                reason = error.kind(),
                error = &error as &dyn Error,
                "no eBPF data plane here, kube-proxy takes the traffic"
            );
            report(
                inputs,
                known(DataPlaneMode::None, Some(Arc::clone(&sentence))),
            );
            said = Some(sentence);
        }
        let wait = error.is_retryable().then_some(RETRY);
        if !idle(commands, wait) {
            return None;
        }
    }
}

/// Answers without a data plane for this long, or for ever; `false`: the program ends.
fn idle(commands: &mpsc::Receiver<Command>, wait: Option<Duration>) -> bool {
    let until = wait.map(|wait| std::time::Instant::now() + wait);
    loop {
        let command = match until {
            None => commands
                .recv()
                .map_err(|_gone| mpsc::RecvTimeoutError::Disconnected),
            Some(until) => {
                commands.recv_timeout(until.saturating_duration_since(std::time::Instant::now()))
            }
        };
        match command {
            Ok(Command::Count(sender)) => drop(sender.send(None)),
            Ok(Command::Apply { generation, .. }) => {
                debug!(generation, "a wish without a data plane");
            }
            Err(mpsc::RecvTimeoutError::Timeout) => return true,
            Err(mpsc::RecvTimeoutError::Disconnected) => return false,
        }
    }
}

struct Runner {
    data_plane: DataPlane,
    attached: BTreeMap<IfIndex, InterfaceName>,
    hook: Hook,
    /// What the maps hold; `None`: to be read.
    observed: Option<MapContents>,
    services: BTreeMap<ServiceKey, u32>,
    refused: Vec<Refused>,
}

impl Runner {
    fn apply(
        &mut self,
        desired: &Desired,
        names: &BTreeMap<IfIndex, InterfaceName>,
        inputs: &UnboundedSender<Input>,
    ) -> Result<(), BpfError> {
        let observed = match self.observed.take() {
            Some(observed) => observed,
            None => self.data_plane.read()?,
        };
        let compiled = compile(&observed, desired);
        self.data_plane
            .apply(&diff(&observed, &compiled.contents))?;
        self.observed = Some(compiled.contents);
        self.services = compiled.service_ids;
        if self.refused != compiled.refused {
            self.refused = compiled.refused;
            for refused in &self.refused {
                warn!(?refused, "the data plane leaves something to kube-proxy");
            }
        }
        // The maps come first: a program finds what it is to do.
        self.attach(names, inputs)
    }

    fn attach(
        &mut self,
        names: &BTreeMap<IfIndex, InterfaceName>,
        inputs: &UnboundedSender<Input>,
    ) -> Result<(), BpfError> {
        let mut worst = Hook::Tcx;
        for (index, name) in names {
            if self.attached.get(index) == Some(name) {
                continue;
            }
            let hook = self.data_plane.attach(*index, name)?;
            info!(interface = %name, hook = hook.as_str(), "the eBPF programs are attached");
            self.attached.insert(*index, name.clone());
            worst = worst.max(hook);
        }
        if worst > self.hook {
            self.hook = worst;
            let reason = "the kernel has no tcx, which came with Linux 6.6";
            report(inputs, known(DataPlaneMode::Clsact, Some(reason.into())));
        }
        let gone: Vec<(IfIndex, InterfaceName)> = self
            .data_plane
            .attached()?
            .into_iter()
            .chain(self.attached.keys().copied())
            .filter(|index| !names.contains_key(index))
            .map(|index| {
                let name = self.attached.get(&index).cloned();
                (index, name.unwrap_or_else(|| InterfaceName::from("")))
            })
            .collect();
        for (index, name) in gone {
            self.data_plane.detach(index, &name)?;
            self.attached.remove(&index);
            info!(interface = %name, %index, "the eBPF programs are detached");
        }
        Ok(())
    }

    fn counted(&self) -> Option<Counted> {
        match self.data_plane.counters() {
            Ok(counters) => Some(Counted {
                counters,
                services: self.services.clone(),
            }),
            Err(error) => {
                debug!(error = &error as &dyn Error, "cannot read counters");
                None
            }
        }
    }
}

fn known(mode: DataPlaneMode, reason: Option<Arc<str>>) -> Input {
    Input::DataPlaneKnown(DataPlaneReport { mode, reason })
}

fn report(inputs: &UnboundedSender<Input>, input: Input) {
    if inputs.send(input).is_err() {
        debug!("nobody listens to the data plane any more");
    }
}
