//! Feeds a controller, answers its writes, and notes them as lines.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use herald_controller_core::testkit::{ip, key};
use herald_controller_core::{
    Condition, Controller, Effect, Holding, Identity, Input, Lan, ObservedService, ObservedVip,
    PoolStatus, Regarding, ServiceStatus, Settings, UserObject, Version, Write, WriteResult,
};
use herald_model::{
    AdvertisementName, Announce, ConflictPolicy, Epoch, Instant, MacAddress, Phase, Service,
    ServiceKey, ServiceRef, VirtualIp,
};

/// One run of a controller, with an API server that does what it is asked unless told otherwise.
pub(crate) struct Story {
    controller: Controller,
    now: Instant,
    services: BTreeMap<ServiceKey, ObservedService>,
    vips: BTreeMap<IpAddr, ObservedVip>,
    /// How many claims there were.
    lives: usize,
    answers: Vec<(String, WriteResult)>,
    lines: Vec<String>,
}

impl Default for Story {
    fn default() -> Self {
        Self::with(Settings::default())
    }
}

impl Story {
    pub(crate) fn with(settings: Settings) -> Self {
        let mut story = Self {
            controller: Controller::new(settings),
            now: Instant::ORIGIN,
            services: BTreeMap::new(),
            vips: BTreeMap::new(),
            lives: 0,
            answers: Vec::new(),
            lines: Vec::new(),
        };
        story.tell([Input::WallClockSet { origin: 1000 }]);
        story
    }

    pub(crate) fn lead(&mut self) {
        self.tell([Input::Synced, Input::LEADS_FOR_GOOD]);
    }

    /// Tells of all inputs, then answers writes until there is none.
    pub(crate) fn tell(&mut self, inputs: impl IntoIterator<Item = Input>) {
        for input in inputs {
            match &input {
                Input::ServiceApplied(service) => {
                    self.services
                        .insert(service.key.clone(), (**service).clone());
                }
                Input::ServiceDeleted { key, .. } => {
                    self.services.remove(key);
                }
                _ => {}
            }
            self.controller.note(self.now, input);
        }
        self.settle();
    }

    /// How long those waited that were given an address since this was last asked.
    pub(crate) fn waits(&mut self) -> Vec<Duration> {
        self.controller.take_waits()
    }

    /// Time passes, deadline by deadline.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.controller.next_deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.settle();
        }
        self.now = end;
    }

    fn settle(&mut self) {
        loop {
            let mut effects = Vec::new();
            self.controller.on_deadline(self.now, &mut effects);
            if effects.is_empty() {
                return;
            }
            for Effect::Write { id, write } in effects {
                let line = line(&write);
                let planned = self
                    .answers
                    .iter()
                    .position(|(start, _)| line.starts_with(start));
                self.lines.push(line);
                let result = match planned {
                    Some(place) => self.answers.remove(place).1,
                    None => self.write(*write),
                };
                self.controller
                    .note(self.now, Input::WriteDone { id, result });
            }
        }
    }

    fn write(&mut self, write: Write) -> WriteResult {
        match write {
            Write::CreateVip(vip) if self.vips.contains_key(&vip.address) => {
                WriteResult::VipDiffers(self.vips.get(&vip.address).cloned().map(Box::new))
            }
            Write::CreateVip(vip) => self.store(vip, 1),
            Write::ReplaceVip { identity, vip } => {
                let version: u64 = identity.version.as_str().parse().expect("stored by us");
                self.store(vip, version + 1)
            }
            Write::DeleteVip { address, .. } => {
                self.vips.remove(&address);
                WriteResult::VipGone
            }
            Write::ApplyServiceStatus { key, status, .. } => self.store_status(&key, status),
            _ => WriteResult::Done,
        }
    }

    fn store(&mut self, vip: VirtualIp, version: u64) -> WriteResult {
        let known = self.vips.get(&vip.address);
        let holdings = known.map(|vip| vip.holdings.clone());
        let lan = known.map(|vip| vip.lan.clone());
        let uid = known.map(|vip| vip.identity.uid.clone());
        self.lives += usize::from(uid.is_none());
        let vip = ObservedVip {
            identity: Identity {
                uid: uid.unwrap_or_else(|| format!("uid-{}", self.lives).into()),
                version: Version::new(version.to_string()),
            },
            vip,
            holdings: holdings.unwrap_or_default(),
            lan: lan.unwrap_or_default(),
            // A claim is replaced whole.
            move_to: None,
        };
        self.vips.insert(vip.vip.address, vip.clone());
        WriteResult::VipWritten(Box::new(vip))
    }

    fn store_status(&mut self, key: &ServiceKey, status: ServiceStatus) -> WriteResult {
        let Some(service) = self.services.get_mut(key) else {
            return WriteResult::ServiceGone;
        };
        let before = service.clone();
        if let Some(ingress) = status.ingress {
            service.ingress = ingress;
        }
        service.allocated = status.allocated;
        service.announced = status.announced;
        service.allocated_from = status.allocated_from;
        // A write that changes nothing makes no version.
        if *service != before {
            next_version(service);
        }
        WriteResult::ServiceWritten {
            version: service.identity.version.clone(),
            ingress: service.ingress.clone(),
        }
    }

    /// The next write whose line starts so is answered so.
    pub(crate) fn answer(&mut self, start: &str, result: WriteResult) {
        self.answers.push((start.to_owned(), result));
    }

    /// A user changes a Service.
    pub(crate) fn change(&mut self, name: &str, change: impl FnOnce(&mut Service)) {
        let mut service = self.services[&key(name)].clone();
        let mut inner = (**service.service.as_ref().expect("ours")).clone();
        change(&mut inner);
        service.service = Some(inner.into());
        next_version(&mut service);
        self.tell([Input::ServiceApplied(Box::new(service))]);
    }

    /// Another field manager writes the addresses in a Service's status.
    pub(crate) fn other_manager(&mut self, name: &str, ingress: &[&str]) {
        let mut service = self.services[&key(name)].clone();
        service.ingress = ingress.iter().map(|text| ip(text)).collect();
        next_version(&mut service);
        self.tell([Input::ServiceApplied(Box::new(service))]);
    }

    /// A user changes a Service's type.
    pub(crate) fn become_foreign(&mut self, name: &str) {
        let input = self.foreign(name);
        self.tell([input]);
    }

    /// The same, not told yet.
    pub(crate) fn foreign(&self, name: &str) -> Input {
        let mut service = self.services[&key(name)].clone();
        service.service = None;
        next_version(&mut service);
        Input::ServiceApplied(Box::new(service))
    }

    /// There is a claim that nobody told of yet.
    pub(crate) fn have_claim(&mut self, address: &str, pool: &str, services: &[&str]) {
        let vip = VirtualIp {
            address: ip(address),
            pool: pool.into(),
            epoch: Epoch(1),
            phase: Phase::Active,
            announce: Announce::All,
            conflict_policy: ConflictPolicy::Defend,
            advertisements: Vec::new(),
            services: services
                .iter()
                .map(|name| ServiceRef {
                    key: key(name),
                    uid: format!("uid-{name}").into(),
                })
                .collect(),
            segments: Vec::new(),
        };
        self.store(vip, 1);
    }

    /// There was none after all.
    pub(crate) fn take_claim(&mut self, address: &str) {
        self.vips.remove(&ip(address));
    }

    /// The claim as it is, not told yet.
    pub(crate) fn told_claim(&self, address: &str) -> Input {
        Input::VipApplied(Box::new(self.vips[&ip(address)].clone()))
    }

    /// A write of a leader that leads no more, made conditional on a version, arrives; whether it
    /// takes place.
    pub(crate) fn late_status(&mut self, name: &str, version: &str, ingress: &[&str]) -> bool {
        let key = key(name);
        if self.services[&key].identity.version.as_str() != version {
            return false;
        }
        let status = ServiceStatus {
            ingress: Some(ingress.iter().map(|text| ip(text)).collect()),
            ..ServiceStatus::default()
        };
        self.store_status(&key, status);
        true
    }

    /// A node says that it announces an address.
    pub(crate) fn announce(&mut self, address: &str, node: &str) {
        self.set_announcers(address, &[node]);
    }

    /// Nobody says any more that it announces an address.
    pub(crate) fn announce_none(&mut self, address: &str) {
        self.set_announcers(address, &[]);
    }

    /// Every address is announced as planned.
    pub(crate) fn follow(&mut self) {
        for address in self.vips.keys().copied().collect::<Vec<_>>() {
            let address = address.to_string();
            let plan = self.plan_of(&address);
            let vip = &self.vips[&ip(&address)];
            let is_new = |holding: &Holding| {
                holding.node.as_str() != plan[0] || holding.epoch != vip.vip.epoch
            };
            if vip.holdings.first().is_none_or(is_new) {
                self.announce(&address, &plan[0]);
            }
        }
    }

    /// Time passes, and the speakers follow every second.
    pub(crate) fn live(&mut self, time: Duration) {
        for _ in 0..time.as_secs() {
            self.pass(Duration::from_secs(1));
            self.follow();
        }
    }

    /// How many addresses each node is planned for.
    pub(crate) fn loads(&self) -> BTreeMap<String, usize> {
        let mut loads = BTreeMap::new();
        for address in self.vips.keys() {
            let plan = self.plan_of(&address.to_string());
            *loads.entry(plan[0].clone()).or_default() += 1;
        }
        loads
    }

    fn set_announcers(&mut self, address: &str, nodes: &[&str]) {
        let input = self.announced(address, nodes);
        self.tell([input]);
    }

    /// A node says that it took an address over, not told yet.
    pub(crate) fn taken(&mut self, address: &str, node: &str) -> Input {
        self.announced(address, &[node])
    }

    fn announced(&mut self, address: &str, nodes: &[&str]) -> Input {
        let vip = self.vips.get_mut(&ip(address)).expect("claimed");
        let plan = vip.vip.segments.first();
        let first = plan.and_then(|plan| Some(plan.candidates.first()?.node.clone()));
        let holding = |node: &&str| Holding {
            segment: "lan".into(),
            node: (*node).into(),
            interface: "eth0".into(),
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            epoch: vip.vip.epoch,
            taken_over: first != Some((*node).into()),
        };
        vip.holdings = nodes.iter().map(holding).collect();
        let version: u64 = vip.identity.version.as_str().parse().expect("stored by us");
        vip.identity.version = Version::new((version + 1).to_string());
        Input::VipApplied(Box::new(vip.clone()))
    }

    /// The planned node has asked the LAN for an address: who uses it.
    /// Somebody annotates a claim: the address is to move to a node.
    pub(crate) fn ask_to_move(&mut self, address: &str, node: &str) {
        let vip = self.vips.get_mut(&ip(address)).expect("no claim");
        let version: u64 = vip.identity.version.as_str().parse().expect("stored by us");
        vip.identity.version = Version::new((version + 1).to_string());
        vip.move_to = Some(node.into());
        let told = Input::VipApplied(Box::new(vip.clone()));
        self.tell([told]);
    }

    pub(crate) fn answer_of_the_lan(&mut self, address: &str, stranger: Option<&str>) {
        let input = self.answered(address, stranger);
        self.tell([input]);
    }

    /// The same, not told yet.
    pub(crate) fn answered(&mut self, address: &str, stranger: Option<&str>) -> Input {
        let vip = self.vips.get_mut(&ip(address)).expect("claimed");
        vip.lan = Lan {
            probed: ["lan".into()].into(),
            stranger: stranger.map(Into::into),
        };
        let version: u64 = vip.identity.version.as_str().parse().expect("stored by us");
        vip.identity.version = Version::new((version + 1).to_string());
        Input::VipApplied(Box::new(vip.clone()))
    }

    pub(crate) fn status_of(&self, name: &str) -> ObservedService {
        self.services[&key(name)].clone()
    }

    /// The nodes planned for an address on its only segment.
    pub(crate) fn plan_of(&self, address: &str) -> Vec<String> {
        let segments = &self.vips[&ip(address)].vip.segments;
        assert_eq!(segments.len(), 1);
        segments[0]
            .candidates
            .iter()
            .map(|candidate| candidate.node.to_string())
            .collect()
    }

    /// The lines since the last look.
    pub(crate) fn writes_now(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines)
    }

    /// The lines since the last look, and of the next second: statuses of pools come later.
    pub(crate) fn writes(&mut self) -> Vec<String> {
        self.pass(Duration::from_secs(1));
        self.writes_now()
    }

    pub(crate) fn skip(&mut self) {
        self.writes();
    }

    pub(crate) fn expect(&mut self, lines: &[&str]) {
        assert_eq!(self.writes(), lines);
    }

    pub(crate) fn expect_now(&mut self, lines: &[&str]) {
        assert_eq!(self.writes_now(), lines);
    }

    /// How many lines since the last look start so.
    pub(crate) fn count(&self, start: &str) -> usize {
        self.lines
            .iter()
            .filter(|line| line.starts_with(start))
            .count()
    }
}

fn next_version(service: &mut ObservedService) {
    let version: u64 = service.identity.version.as_str().parse().expect("a number");
    service.identity.version = Version::new((version + 1).to_string());
}

fn line(write: &Write) -> String {
    match write {
        Write::CreateVip(vip) => format!("create {} {}", vip.address, claim(vip)),
        Write::ReplaceVip { identity, vip } => {
            format!(
                "replace {}@{} {}",
                vip.address,
                identity.version.as_str(),
                claim(vip)
            )
        }
        Write::DeleteVip { address, .. } => format!("delete {address}"),
        Write::ApplyServiceStatus {
            key,
            identity,
            status,
        } => {
            format!(
                "status {key}@{}{}",
                identity.version.as_str(),
                service_status(status)
            )
        }
        Write::ApplyPoolStatus { pool, status } => format!("pool {pool}{}", pool_status(status)),
        Write::ApplyAdvertisementReady {
            advertisement,
            ready,
        } => {
            format!(
                "advertisement {advertisement}{}",
                condition("Ready", Some(ready))
            )
        }
        Write::RecordEvent(event) => {
            let about = match &event.regarding {
                Regarding::Service { key, .. } => key.to_string(),
                Regarding::Object {
                    object: UserObject::Pool(name),
                    ..
                } => name.to_string(),
                Regarding::Object {
                    object: UserObject::Advertisement(name),
                    ..
                } => name.to_string(),
            };
            let kind = if event.warning { "Warning" } else { "Normal" };
            format!("event {about} {kind} {}: {}", event.reason, event.note)
        }
    }
}

fn claim(vip: &VirtualIp) -> String {
    let phase = match vip.phase {
        Phase::Resting { until } => format!("Resting({until})"),
        phase => phase.to_string(),
    };
    let announce = match vip.announce {
        Announce::Listed => {
            let names: Vec<&str> = vip
                .advertisements
                .iter()
                .map(AdvertisementName::as_str)
                .collect();
            format!("Listed({})", names.join(","))
        }
        announce => format!("{announce:?}"),
    };
    let policy = match vip.conflict_policy {
        ConflictPolicy::Defend => "",
        ConflictPolicy::Yield => " yields",
    };
    let services: Vec<String> = vip.services.iter().map(|s| s.key.to_string()).collect();
    let mut text = format!(
        "{} e{} {phase} {announce}{policy} [{}]",
        vip.pool,
        vip.epoch,
        services.join(",")
    );
    for segment in &vip.segments {
        let nodes: Vec<&str> = segment.candidates.iter().map(|c| c.node.as_str()).collect();
        let _ = write!(text, " {}:{}", segment.name, nodes.join(","));
    }
    text
}

fn service_status(status: &ServiceStatus) -> String {
    let mut text = String::new();
    if let Some(ingress) = &status.ingress {
        let addresses: Vec<String> = ingress.iter().map(ToString::to_string).collect();
        let _ = write!(text, " [{}]", addresses.join(","));
    }
    text += &condition("Allocated", status.allocated.as_ref());
    text += &condition("Announced", status.announced.as_ref());
    if let Some(pool) = &status.allocated_from {
        let _ = write!(text, " from={pool}");
    }
    text
}

fn pool_status(status: &PoolStatus) -> String {
    let mut text = String::new();
    for (family, counts) in [("v4", &status.v4), ("v6", &status.v6)] {
        if let Some(counts) = counts {
            let _ = write!(
                text,
                " {family}={}/{}/{}",
                counts.total, counts.assigned, counts.available
            );
        }
    }
    text + &condition("Ready", status.ready.as_ref())
}

fn condition(name: &str, condition: Option<&Condition>) -> String {
    condition.map_or_else(String::new, |condition| {
        let status = if condition.status { "True" } else { "False" };
        format!(
            " {name}={status}/{}({})",
            condition.reason, condition.message
        )
    })
}
