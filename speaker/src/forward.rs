//! The thread that has the data plane: eBPF system calls block, so they are kept off the runtime.

use std::collections::BTreeMap;
use std::error::Error;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use herald_dataplane::{Compiled, Desired, MapContents, MapName, Refused, compile, diff};
use herald_model::{IfIndex, InterfaceName, ServiceKey};
use herald_speaker_core::{DataPlaneMode, DataPlaneReport, Input};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tracing::{debug, info, warn};

use crate::clock::Clock;
use crate::io::black_holes::BlackHoles;
use crate::io::bpf::{BpfError, DataPlane, Hook, Options, clock};
use crate::io::sys::{Urgency, interface_index, raise_priority};
use crate::metrics::Takeovers;

mod counted;
mod first_packets;

pub(crate) use counted::Counted;
use counted::{Repairs, Updates};
use first_packets::FirstPackets;

/// Between two attempts to open a data plane that may yet work.
const RETRY: Duration = Duration::from_secs(30);

/// Between two looks at the rules and routes: network managers remove what they do not know.
const CHECK: Duration = Duration::from_secs(30);

/// Between two looks at our own programs and entries: no event tells that somebody detached or removed
/// one.
const OWN_CHECK: Duration = Duration::from_secs(1);

/// Entries that are looked at each time; of more, the next ones the next time.
const ENTRIES: usize = 4_096;

/// What the data plane is to do, and for which interfaces.
#[derive(Clone)]
pub(crate) struct Wish {
    pub(crate) desired: Arc<Desired>,
    pub(crate) names: BTreeMap<IfIndex, InterfaceName>,
}

/// The Services that came here from a dead node, with the last sign of life of that.
pub(crate) type TakenOver = BTreeMap<ServiceKey, herald_model::Instant>;

/// What the thread is told.
enum Command {
    Apply {
        generation: u64,
        wish: Wish,
        taken_over: TakenOver,
    },
    Count(oneshot::Sender<Option<Counted>>),
    Retire(oneshot::Sender<anyhow::Result<()>>),
}

/// The running thread. Dropping it ends the thread and leaves the programs attached.
#[derive(Clone)]
pub(crate) struct Handle(mpsc::Sender<Command>);

/// Starts the thread; how the data plane runs, and what came of each wish, goes to `inputs`.
pub(crate) fn start(
    options: Options,
    inputs: UnboundedSender<Input>,
    stopwatch: Stopwatch,
) -> io::Result<Handle> {
    let (sender, commands) = mpsc::channel();
    thread::Builder::new()
        .name("data-plane".to_owned())
        .spawn(move || run(&options, Commands::of(commands), &inputs, stopwatch))?;
    Ok(Handle(sender))
}

/// Times the first packet of what is taken over.
pub(crate) struct Stopwatch {
    clock: Clock,
    takeovers: Takeovers,
    first: FirstPackets,
}

impl Stopwatch {
    pub(crate) fn new(clock: Clock, takeovers: Takeovers) -> Self {
        Self {
            clock,
            takeovers,
            first: FirstPackets::default(),
        }
    }

    /// When to look next.
    fn due(&self) -> Option<Instant> {
        let due = self.first.due()?;
        Some(Instant::now() + self.clock.until(due))
    }
}

impl Handle {
    /// Hands a wish over.
    pub(crate) fn apply(&self, generation: u64, wish: Wish, taken_over: TakenOver) {
        let command = Command::Apply {
            generation,
            wish,
            taken_over,
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

    /// Removes everything of ours from the kernel, and ends the thread.
    pub(crate) async fn retire(&self) -> anyhow::Result<()> {
        const GONE: &str = "the data plane's thread is gone";
        let (sender, receiver) = oneshot::channel();
        self.0.send(Command::Retire(sender)).ok().context(GONE)?;
        receiver.await.context(GONE)?
    }
}

fn run(
    options: &Options,
    mut commands: Commands,
    inputs: &UnboundedSender<Input>,
    stopwatch: Stopwatch,
) {
    carry_out(options, &mut commands, inputs, stopwatch);
    if let Some(answer) = commands.retiring.take() {
        // Who asked may have been ended meanwhile.
        let interfaces = commands.interfaces.values();
        drop(answer.send(remove_all(&options.pin_root, interfaces)));
    }
}

/// Removes what is ours from the kernel, on these interfaces if it is a filter there. No map or program may
/// be open.
///
/// # Errors
///
/// If something cannot be removed.
pub(crate) fn remove_all<'a>(
    pin_root: &Path,
    interfaces: impl Iterator<Item = &'a InterfaceName>,
) -> anyhow::Result<()> {
    BlackHoles::open()?.apply([].into_iter(), [].into_iter())?;
    Ok(DataPlane::remove(pin_root, interfaces)?)
}

/// Carries commands out until the program ends, or everything is to be removed.
fn carry_out(
    options: &Options,
    commands: &mut Commands,
    inputs: &UnboundedSender<Input>,
    stopwatch: Stopwatch,
) {
    let Some(data_plane) = open(options, commands, inputs) else {
        return;
    };
    let mut runner = Runner::of(data_plane, stopwatch);
    // What is taken over is announced when the programs know of it. Loading them takes long, and may.
    raise_priority(Urgency::Second);
    let mut checked = Instant::now();
    loop {
        if checked.elapsed() >= OWN_CHECK {
            runner.check(inputs);
            checked = Instant::now();
        }
        runner.look_for_first_packets();
        let check = checked + OWN_CHECK;
        let look = runner.stopwatch.due();
        let command = match commands.next(Some(look.map_or(check, |look| look.min(check)))) {
            Ok(command) => command,
            Err(mpsc::RecvTimeoutError::Timeout) => continue,
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
        };
        match command {
            Command::Apply {
                generation,
                wish,
                taken_over,
            } => {
                runner.time_first_packets(taken_over);
                let outcome = runner.apply(&wish, inputs);
                runner.wish = Some(wish);
                if let Err(error) = &outcome {
                    warn!(
                        reason = error.kind(),
                        error = error as &dyn Error,
                        "the data plane does not do all it should"
                    );
                    runner.observed = None;
                }
                let outcome = outcome
                    .map(|()| Arc::clone(&runner.refused))
                    .map_err(|error| herald_config::sentence(&error).into());
                report(
                    inputs,
                    Input::DataPlaneApplied {
                        generation,
                        outcome,
                    },
                );
            }
            Command::Count(sender) => drop(sender.send(runner.counted())),
            Command::Retire(answer) => {
                commands.retiring = Some(answer);
                return;
            }
        }
    }
}

/// Opens the data plane. Where it cannot be had, says so, and tries again if that may help.
fn open(
    options: &Options,
    commands: &mut Commands,
    inputs: &UnboundedSender<Input>,
) -> Option<DataPlane> {
    let mut said = None;
    loop {
        let error = match DataPlane::open(options) {
            Ok(data_plane) => {
                info!(pins = %options.pin_root.display(), "the eBPF programs are loaded");
                report(inputs, known(DataPlaneMode::Tcx, None));
                return Some(data_plane);
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
fn idle(commands: &mut Commands, wait: Option<Duration>) -> bool {
    let until = wait.map(|wait| Instant::now() + wait);
    loop {
        match commands.next(until) {
            Ok(Command::Count(sender)) => drop(sender.send(None)),
            Ok(Command::Apply { generation, .. }) => {
                debug!(generation, "a wish without a data plane");
            }
            Ok(Command::Retire(answer)) => {
                commands.retiring = Some(answer);
                return false;
            }
            Err(mpsc::RecvTimeoutError::Timeout) => return true,
            Err(mpsc::RecvTimeoutError::Disconnected) => return false,
        }
    }
}

/// The commands, and what is done with each wish whether there is a data plane or not.
struct Commands {
    receiver: mpsc::Receiver<Command>,
    black_holes: Option<BlackHoles>,
    interfaces: BTreeMap<IfIndex, InterfaceName>,
    addresses: Vec<IpAddr>,
    checked: Instant,
    said: Option<String>,
    /// Who asked that everything be removed.
    retiring: Option<oneshot::Sender<anyhow::Result<()>>>,
}

impl Commands {
    fn of(receiver: mpsc::Receiver<Command>) -> Self {
        Self {
            receiver,
            black_holes: None,
            interfaces: BTreeMap::new(),
            addresses: Vec::new(),
            checked: Instant::now(),
            said: None,
            retiring: None,
        }
    }

    /// The next command, if there is one before this time.
    fn next(&mut self, until: Option<Instant>) -> Result<Command, mpsc::RecvTimeoutError> {
        loop {
            let check = self.checked + CHECK;
            let wake = until.map_or(check, |until| until.min(check));
            let wait = wake.saturating_duration_since(Instant::now());
            match self.receiver.recv_timeout(wait) {
                Ok(command) => {
                    if let Command::Apply { wish, .. } = &command {
                        self.follow(wish);
                    }
                    return Ok(command);
                }
                Err(mpsc::RecvTimeoutError::Timeout) if until != Some(wake) => self.see_to_ends(),
                Err(error) => return Err(error),
            }
        }
    }

    /// Before the data plane has it: no packet is to arrive that could not end.
    fn follow(&mut self, Wish { desired, names }: &Wish) {
        let addresses = || desired.vips_of_targets();
        if &self.interfaces != names || !addresses().eq(self.addresses.iter().copied()) {
            self.interfaces.clone_from(names);
            self.addresses = addresses().collect();
            self.see_to_ends();
        }
    }

    fn see_to_ends(&mut self) {
        self.checked = Instant::now();
        let black_holes = match self.black_holes.take() {
            Some(black_holes) => Ok(black_holes),
            None => BlackHoles::open(),
        };
        let result = black_holes.and_then(|mut black_holes| {
            black_holes.apply(self.interfaces.values(), self.addresses.iter().copied())?;
            self.black_holes = Some(black_holes);
            Ok(())
        });
        let error = result.err().map(|error| error.to_string());
        if let Some(error) = error.as_ref().filter(|_| error != self.said) {
            warn!(
                error,
                "packets that kube-proxy does not take are routed on, and their connections may hang"
            );
        }
        self.said = error;
    }
}

struct Runner {
    data_plane: DataPlane,
    attached: BTreeMap<IfIndex, InterfaceName>,
    hook: Hook,
    /// What the maps hold; `None`: to be read.
    observed: Option<MapContents>,
    services: BTreeMap<ServiceKey, u32>,
    refused: Arc<[Refused]>,
    /// The last wish.
    wish: Option<Wish>,
    /// How many entries were looked at, of those there are.
    looked_at: usize,
    /// What could not be repaired the last time, by interface.
    wrong: BTreeMap<IfIndex, Arc<str>>,
    repairs: Repairs,
    updates: Updates,
    stopwatch: Stopwatch,
}

impl Runner {
    fn of(data_plane: DataPlane, stopwatch: Stopwatch) -> Self {
        Self {
            data_plane,
            attached: BTreeMap::new(),
            hook: Hook::Tcx,
            observed: None,
            services: BTreeMap::new(),
            refused: Arc::default(),
            wish: None,
            looked_at: 0,
            wrong: BTreeMap::new(),
            repairs: Repairs::default(),
            updates: Updates::default(),
            stopwatch,
        }
    }

    /// How many packets of a Service were forwarded; `None`: it is not counted.
    fn packets(&self, service: &ServiceKey) -> Option<u64> {
        let id = self.services.get(service)?;
        self.data_plane.packets(*id).ok()
    }

    /// Before the wish is carried out that brings them here: no packet comes until then.
    fn time_first_packets(&mut self, taken_over: TakenOver) {
        let now = self.stopwatch.clock.now();
        for (service, last_heartbeat) in taken_over {
            // One that we hear of only now is counted from zero.
            let packets = self.packets(&service).unwrap_or_default();
            let first = &mut self.stopwatch.first;
            first.wait_for(service, packets, last_heartbeat, now);
        }
    }

    fn look_for_first_packets(&mut self) {
        let now = self.stopwatch.clock.now();
        let mut first = std::mem::take(&mut self.stopwatch.first);
        for (service, after) in first.look(now, |service| self.packets(service)) {
            debug!(%service, millis = after.as_millis(), "first packet since the takeover");
            self.stopwatch.takeovers.forwarded(after);
        }
        self.stopwatch.first = first;
    }

    /// Puts back what somebody else has taken away; what can't be, the core is told.
    fn check(&mut self, inputs: &UnboundedSender<Input>) {
        let mut wrong = BTreeMap::new();
        for (index, name) in &self.attached {
            match self.data_plane.reattach(*index, name) {
                Ok(false) => {}
                Ok(true) => {
                    self.repairs.programs += 1;
                    warn!(interface = %name, "somebody detached the eBPF programs: attached again");
                }
                // One that is gone, or has another name now, the core hears of from the kernel.
                Err(error) if interface_index(name) == Some(*index) => {
                    wrong.insert(*index, herald_config::sentence(&error).into());
                }
                Err(error) => {
                    debug!(interface = %name, error = &error as &dyn Error, "not attached");
                }
            }
        }
        if let Err(error) = self.check_entries(inputs) {
            let sentence: Arc<str> = herald_config::sentence(&error).into();
            let all = self.attached.keys();
            wrong.extend(all.map(|index| (*index, Arc::clone(&sentence))));
        }
        if self.wrong == wrong {
            return;
        }
        for (index, error) in &wrong {
            warn!(%index, %error, "the data plane can't be repaired");
        }
        self.wrong.clone_from(&wrong);
        report(inputs, Input::DataPlaneChecked(wrong));
    }

    fn check_entries(&mut self, inputs: &UnboundedSender<Input>) -> Result<(), BpfError> {
        // What failed to be written is tried again when the core says so.
        let (Some(contents), Some(wish)) = (&self.observed, self.wish.clone()) else {
            return Ok(());
        };
        let of = |map: MapName| {
            let entries = contents.entries(map);
            entries.map(move |(key, value)| (map, key, value))
        };
        let many = || of(MapName::Services).chain(of(MapName::Vips));
        let count = many().count();
        let start = self.looked_at.checked_rem(count).unwrap_or(0);
        self.looked_at = start.saturating_add(ENTRIES);
        let some = many().chain(many()).skip(start).take(ENTRIES.min(count));
        let few = of(MapName::Config).chain(of(MapName::Filters));
        let Some(map) = self.data_plane.missing(few.chain(some))? else {
            return Ok(());
        };
        self.repairs.entries += 1;
        warn!(%map, "somebody changed an eBPF map of ours: written again");
        self.observed = None;
        self.apply(&wish, inputs)
    }

    fn apply(
        &mut self,
        Wish { desired, names }: &Wish,
        inputs: &UnboundedSender<Input>,
    ) -> Result<(), BpfError> {
        let observed = match self.observed.take() {
            Some(observed) => observed,
            None => self.data_plane.read()?,
        };
        self.updates.wishes += 1;
        let mut compiled = self.write(&observed, desired)?;
        if !compiled.refused.is_empty() {
            // What was there before is gone only now, and has left its room.
            compiled = self.write(&compiled.contents, desired)?;
        }
        self.observed = Some(compiled.contents);
        self.services = compiled.service_ids;
        if *self.refused != *compiled.refused {
            for refused in &compiled.refused {
                let reason = refused.kind();
                warn!(reason, error = refused as &dyn Error, service = ?refused.service(), "the data plane is full");
            }
            self.refused = compiled.refused.into();
        }
        // The maps come first: a program finds what it is to do.
        self.attach(names, inputs)
    }

    fn write(&mut self, observed: &MapContents, desired: &Desired) -> Result<Compiled, BpfError> {
        let compiled = compile(observed, desired, clock());
        let ops = diff(observed, &compiled.contents);
        self.data_plane.apply(&ops)?;
        self.updates.count(&ops);
        Ok(compiled)
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
                repairs: self.repairs,
                updates: self.updates,
                refused: Arc::clone(&self.refused),
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
