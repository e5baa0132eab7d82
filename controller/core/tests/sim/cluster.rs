//! Controllers around one API server, and the things that happen to them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use herald_controller_core::testkit::{
    advertised, advertisement, ip, labels, node, pool, speaker, speaker_pod, svc, well,
};
use herald_controller_core::{
    Controller, Effect, Election, Input, Settings, Terms, Write, WriteId, WriteResult,
};
use herald_model::{
    Departure, Family, Instant, IpFamilyPolicy, Phase, Scope, Selector, ServiceKey, TrafficPolicy,
};

use crate::api::{Api, KINDS, Kind, Seen};

const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];

/// What may happen.
#[derive(Clone, Copy)]
pub(crate) struct Chaos {
    users: bool,
    failures: bool,
}

impl Chaos {
    pub(crate) const EVERYTHING: Self = Self {
        users: true,
        failures: true,
    };
    pub(crate) const USERS: Self = Self {
        users: true,
        failures: false,
    };
    pub(crate) const FAILURES: Self = Self {
        users: false,
        failures: true,
    };
}

/// One replica. Each is told at its own pace.
struct Replica {
    controller: Controller,
    told: BTreeMap<Kind, usize>,
    /// Each with what was known when it was begun.
    writing: Vec<(WriteId, Write, Seen)>,
    leads: bool,
    /// How many changes of namespaces it was told of.
    namespaces: usize,
}

pub(crate) struct Cluster {
    pub(crate) api: Api,
    /// The last word on each node, speaker, Pod and advertisement.
    places: BTreeMap<String, Input>,
    /// One leads, the other follows.
    replicas: [Replica; 2],
    /// The one that follows stood still while the other took the lease, and was not told that it leads no more.
    two_lead: bool,
    /// Whoever leads next goes by what it has been told, which may be less than was written.
    pub(crate) skips_lists: bool,
    /// Writes of deposed leaders that may still arrive.
    late: Vec<(Write, Seen)>,
    now: Instant,
    random: u64,
    seed: u64,
    created: i64,
}

impl Cluster {
    pub(crate) fn new(seed: u64) -> Self {
        let api = Api::default();
        let mut places = BTreeMap::new();
        for name in NODES {
            for (kind, input) in ["node", "speaker", "pod"].into_iter().zip(well(name)) {
                places.insert(format!("{kind} {name}"), input);
            }
        }
        let replicas =
            [true, false].map(|leads| Replica::start(&api, &places, Instant::ORIGIN, seed, leads));
        Self {
            api,
            places,
            replicas,
            two_lead: false,
            skips_lists: false,
            late: Vec::new(),
            now: Instant::ORIGIN,
            random: seed.wrapping_mul(0x2545_f491_4f6c_dd1d) | 1,
            seed,
            created: 0,
        }
    }

    /// A number below the limit, at random by xorshift64.
    fn below(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random >> 32).map_or(0, |top| top % limit)
    }

    fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// One thing happens.
    pub(crate) fn step(&mut self, chaos: Chaos) {
        match self.below(25) {
            0..5 if chaos.users => self.user(),
            5..11 => {
                let replica = self.below(2);
                self.tell_one(replica, chaos.failures);
            }
            22.. => self.announce(chaos.failures),
            20.. => self.answer_of_the_lan(),
            11..17 => self.write_one(chaos.failures),
            17 => self.pass(Duration::from_millis(50)),
            18 if self.one_in(4) => self.pass(Duration::from_mins(1)),
            18 if chaos.failures && self.one_in(6) => self.relist(),
            18 => self.pass(Duration::from_secs(2)),
            _ if chaos.failures && self.one_in(3) => self.depose(),
            _ if chaos.failures => self.late_write(),
            _ => self.decide(),
        }
    }

    fn user(&mut self) {
        let name = format!("ns{}/s{}", self.below(2), self.below(5));
        let key = herald_controller_core::testkit::key(&name);
        match self.below(18) {
            16 => self.api.own_ingress(&key),
            17 => self.api.disown_ingress(&key),
            12.. => self.change_place(),
            0..6 => self.put_service(&name, &key),
            6 | 7 => self.api.delete_service(&key),
            8 => {
                let pool = self.pick(&["a", "b", "c"]);
                self.api.delete_pool(&pool.into());
            }
            _ => self.put_pool(),
        }
    }

    fn put_service(&mut self, name: &str, key: &ServiceKey) {
        self.created += 1;
        let created = match self.api.services.get(key).and_then(|s| s.service.as_ref()) {
            Some(service) => service.created,
            None => self.created,
        };
        let port = self.pick(&[80, 81, 82]);
        let mut builder = svc(name).created(created).port(port);
        builder = match self.below(6) {
            0 => builder.from_pool(self.pick(&["a", "b", "c"])),
            1 => builder.requests(&[&format!("10.0.0.{}", self.below(12))]),
            2 => builder.families(&[Family::V4, Family::V6], IpFamilyPolicy::PreferDualStack),
            3 => builder.families(&[Family::V6, Family::V4], IpFamilyPolicy::RequireDualStack),
            _ => builder,
        };
        if self.one_in(2) {
            builder = builder.sharing(self.pick(&["x", "y"]));
        }
        if self.one_in(4) {
            builder = builder.with(|service| service.traffic_policy = TrafficPolicy::Local);
        }
        if self.one_in(8) {
            builder = builder.with(|service| service.scope = Scope::Internal);
        }
        if self.one_in(3) {
            builder = builder.with(|service| service.labels = labels(&[("expose", "lan")]));
        }
        let ours = !self.one_in(8);
        self.api.put_service(builder.service(), ours);
    }

    fn put_pool(&mut self) {
        let (name, created) = self.pick(&[("a", 0), ("b", 1), ("c", 2)]);
        let first = created * 3;
        let last = first + self.pick(&[0, 1, 2, 3]);
        let mut builder = pool(name)
            .created(created)
            .range(&format!("10.0.0.{first}-10.0.0.{last}"));
        if self.one_in(2) {
            builder = builder.range(&format!("fd00::{first}-fd00::{last}"));
        }
        if self.one_in(4) {
            builder = builder.namespace("ns0");
        }
        if self.one_in(6) {
            builder = builder.service_label("expose", "lan");
        }
        if self.one_in(8) {
            builder = builder.with(|pool| pool.auto_assign = false);
        }
        if self.one_in(8) {
            builder = builder.with(|pool| pool.scope = Scope::Internal);
        }
        if self.one_in(6) {
            builder = builder.with(|pool| {
                let front = Selector::label("tier", "front");
                pool.allowed.namespace_selectors.push(front);
            });
        }
        if self.one_in(4) {
            builder = builder.with(|pool| pool.reuse_delay = Duration::from_secs(5));
        }
        if self.one_in(2) {
            builder = builder.with(|pool| pool.conflict_probe = true);
        }
        let priority = self.pick(&[0, 1, 2]);
        self.api.put_pool(builder.priority(priority).pool());
    }

    /// A node, its speaker or an advertisement changes.
    fn change_place(&mut self) {
        let name = self.pick(&NODES);
        let namespace = self.pick(&["ns0", "ns1"]);
        let (kind, input) = match self.below(9) {
            8 => {
                let tier = self.pick(&["front", "back"]);
                self.api.namespace_changes(namespace);
                let labels = labels(&[("tier", tier)]);
                (
                    "namespace",
                    Input::NamespaceApplied(namespace.into(), labels),
                )
            }
            0 | 1 => {
                let ready = self.one_in(2);
                ("pod", Input::SpeakerPodApplied(speaker_pod(name, ready)))
            }
            2 => ("node", Input::NodeDeleted(name.into())),
            3 | 4 => {
                let mut node = node(name);
                node.excluded = self.one_in(3);
                node.ready = !self.one_in(3);
                node.departure = self.one_in(3).then_some(Departure::Cordoned);
                ("node", Input::NodeApplied(Box::new(node)))
            }
            5 => {
                let mut speaker = speaker(name);
                for segment in &mut speaker.segments {
                    segment.incarnation.0 = self.pick(&[1, 2]);
                    segment.carrier = !self.one_in(3);
                    segment.name = self.pick(&["lan", "lan", "lan2"]).into();
                    segment.prefixes = vec!["10.0.0.1/24".parse().expect("a prefix")];
                }
                ("speaker", Input::SpeakerApplied(Box::new(speaker)))
            }
            6 => ("advertisement", Input::AdvertisementDeleted("some".into())),
            _ => {
                let mut some = advertisement("some");
                if self.one_in(2) {
                    some.pools = ["a".into()].into();
                }
                if self.one_in(2) {
                    some.node_selectors = vec![Selector::label("node", name)];
                }
                ("advertisement", advertised(some))
            }
        };
        let name = match kind {
            "advertisement" => "some",
            "namespace" => namespace,
            _ => name,
        };
        self.places.insert(format!("{kind} {name}"), input.clone());
        self.handle_all(&input);
    }

    /// Speakers say who announces an address: the planned node, or one that took it over.
    fn announce(&mut self, failures: bool) {
        let addresses: Vec<IpAddr> = self.api.vips.keys().copied().collect();
        if !addresses.is_empty() {
            let address = self.pick(&addresses);
            let place = if failures { self.below(3) } else { 0 };
            self.api.announce(address, place);
        }
    }

    /// A speaker says what the LAN of a new address says.
    fn answer_of_the_lan(&mut self) {
        let vips = self.api.vips.iter();
        let new: Vec<IpAddr> = vips
            .filter(|(_, vip)| vip.vip.phase == Phase::Probing)
            .map(|(address, _)| *address)
            .collect();
        if !new.is_empty() {
            let address = self.pick(&new);
            let stranger = self.one_in(4);
            self.api.answer_of_the_lan(address, stranger);
        }
    }

    /// A replica is told of the next change of one kind, or once more of the last.
    fn tell_one(&mut self, replica: usize, failures: bool) {
        let kind = self.pick(&KINDS);
        let again = failures && self.one_in(8);
        let position = self.replicas[replica].told.entry(kind).or_default();
        if again {
            *position = position.saturating_sub(1);
        }
        if let Some(input) = self.api.since(kind, *position).first().cloned() {
            *position += 1;
            self.handle(replica, input);
        }
    }

    /// A replica's watch of a kind broke, and whatever happened since is told of by a list: what is
    /// not in it is gone, what is in it is as it is, and nothing is heard of what was between.
    fn relist(&mut self) {
        let replica = self.below(2);
        let kind = self.pick(&KINDS);
        self.list(replica, kind);
        self.decide();
    }

    /// Nothing is decided before all of a list is told of.
    fn list(&mut self, replica: usize, kind: Kind) {
        let position = self.replicas[replica].told.entry(kind).or_default();
        let inputs = self.api.relist(kind, *position);
        *position = self.api.since(kind, 0).len();
        for input in inputs {
            let controller = &mut self.replicas[replica].controller;
            controller.note(self.now, input);
        }
    }

    fn handle(&mut self, replica: usize, input: Input) {
        let mut effects = Vec::new();
        let told = &mut self.replicas[replica];
        told.controller.handle(self.now, input, &mut effects);
        told.take(effects);
    }

    fn handle_all(&mut self, input: &Input) {
        for replica in 0..2 {
            self.replicas[replica].namespaces = self.api.namespaces.len();
            self.handle(replica, input.clone());
        }
    }

    fn decide(&mut self) {
        for replica in &mut self.replicas {
            let mut effects = Vec::new();
            replica.controller.on_deadline(self.now, &mut effects);
            replica.take(effects);
        }
    }

    fn pass(&mut self, time: Duration) {
        // A claim that names a Service which nobody has told of is left alone for three seconds: that
        // is how far the watch of Services may be behind.
        if time >= Duration::from_secs(1) {
            for replica in 0..2 {
                self.tell_all(replica, Kind::Service);
            }
        }
        self.now = self.now + time;
        self.decide();
    }

    /// A replica is told of all changes of a kind; whether there were any.
    fn tell_all(&mut self, replica: usize, kind: Kind) -> bool {
        let position = self.replicas[replica].told.entry(kind).or_default();
        let inputs = self.api.since(kind, *position).to_vec();
        *position += inputs.len();
        for input in &inputs {
            self.handle(replica, input.clone());
        }
        !inputs.is_empty()
    }

    /// One of the writes under way reaches the API server, or does not.
    fn write_one(&mut self, failures: bool) {
        let first = self.below(2);
        let mut both = [first, 1 - first].into_iter();
        let Some(replica) = both.find(|at| !self.replicas[*at].writing.is_empty()) else {
            return;
        };
        let position = self.below(self.replicas[replica].writing.len());
        let (id, write, seen) = self.replicas[replica].writing.swap_remove(position);
        let unknown = |refused| WriteResult::Failed {
            message: "simulated".to_owned(),
            refused,
        };
        let result = match if failures { self.below(8) } else { 7 } {
            0 => unknown(false),
            1 => unknown(true),
            2 => {
                // It takes place, and nobody hears of it.
                self.api.write(&write, seen);
                unknown(false)
            }
            3 => {
                // Nobody hears of it, and it takes place later.
                self.late.push((write, seen));
                unknown(false)
            }
            _ => self.api.write(&write, seen),
        };
        self.handle(replica, Input::WriteDone { id, result });
    }

    /// A write of a leader that is none any more, or that was given up, arrives after all.
    fn late_write(&mut self) {
        if self.late.is_empty() {
            return;
        }
        let position = self.below(self.late.len());
        let (write, seen) = self.late.swap_remove(position);
        self.api.write(&write, seen);
    }

    /// The lease changes hands, or is lost and got again; or whoever leads crashes, or stands still until
    /// another leads. Writes may still be on their way.
    fn depose(&mut self) {
        self.tell_the_second();
        let old = usize::from(self.replicas[1].leads);
        self.replicas[old].leads = false;
        self.two_lead = self.one_in(3);
        if self.two_lead {
            let until = self.now + Election::DEADLINE;
            self.handle(old, Input::LeadershipGained { until });
            self.now = self.now + Election::DURATION;
            self.lead(1 - old);
            return;
        }
        self.give_up_writes(old);
        let new = match self.below(3) {
            0 => {
                self.replicas[old] =
                    Replica::start(&self.api, &self.places, self.now, self.seed, false);
                1 - old
            }
            1 => {
                self.handle(old, Input::LeadershipLost);
                old
            }
            _ => {
                self.handle(old, Input::LeadershipLost);
                1 - old
            }
        };
        self.lead(new);
    }

    /// It leads once it has new lists of everything.
    fn lead(&mut self, replica: usize) {
        self.replicas[replica].leads = true;
        if !self.skips_lists {
            for kind in KINDS {
                self.list(replica, kind);
            }
        }
        self.handle(replica, Input::LEADS_FOR_GOOD);
    }

    /// What is on its way may arrive yet, and nobody hears of it.
    fn give_up_writes(&mut self, replica: usize) {
        let writing = std::mem::take(&mut self.replicas[replica].writing);
        self.late
            .extend(writing.into_iter().map(|(_, write, seen)| (write, seen)));
    }

    /// Of two that lead for all they were told, the one without the lease hears of it.
    fn tell_the_second(&mut self) {
        if std::mem::take(&mut self.two_lead) {
            let second = usize::from(self.replicas[0].leads);
            self.give_up_writes(second);
            self.handle(second, Input::LeadershipLost);
        }
    }

    /// The controllers start anew; none of their writes is on its way.
    pub(crate) fn restart(&mut self) {
        self.two_lead = false;
        self.replicas = [true, false]
            .map(|leads| Replica::start(&self.api, &self.places, self.now, self.seed, leads));
        self.decide();
    }

    /// Everything arrives, nothing fails, until nothing happens any more.
    pub(crate) fn quiesce(&mut self) {
        self.tell_the_second();
        for (write, seen) in std::mem::take(&mut self.late) {
            self.api.write(&write, seen);
        }
        self.api.leave_to_us();
        for _ in 0..10_000 {
            let mut idle = true;
            for replica in 0..2 {
                for kind in KINDS {
                    idle &= !self.tell_all(replica, kind);
                }
                for (id, write, seen) in std::mem::take(&mut self.replicas[replica].writing) {
                    idle = false;
                    let result = self.api.write(&write, seen);
                    self.handle(replica, Input::WriteDone { id, result });
                }
            }
            for address in self.api.vips.keys().copied().collect::<Vec<_>>() {
                idle &= !self.api.announce(address, 0);
            }
            if idle {
                let deadlines = self.replicas.iter().map(|it| it.controller.next_deadline());
                match deadlines.flatten().min() {
                    Some(at) => {
                        self.now = self.now.max(at);
                        self.decide();
                    }
                    None => return,
                }
            }
        }
        unreachable!("never at rest: {:?}", self.replicas[0].writing);
    }

    /// Laws of a settled state.
    pub(crate) fn check_converged(&self) {
        self.api.check_shared(true);
        let seed = self.seed;
        for service in self.api.services.values() {
            let me = service.service_ref();
            let claims: Vec<IpAddr> = self
                .api
                .vips
                .iter()
                .filter(|(_, vip)| vip.vip.services.contains(&me))
                .map(|(address, _)| *address)
                .collect();
            let mut shown = service.ingress.clone();
            shown.sort_unstable();
            assert_eq!(
                shown, claims,
                "seed {seed}: {me:?} shows other than is claimed"
            );
            let Some(wanted) = &service.service else {
                assert!(shown.is_empty(), "seed {seed}: {me:?} is not ours");
                continue;
            };
            let allocated = service
                .allocated
                .as_ref()
                .expect("a served Service has the condition");
            if allocated.status {
                assert!(!shown.is_empty(), "seed {seed}: {me:?}");
            }
            if !allocated.status && wanted.request.addresses.is_empty() {
                self.check_hopeless(service);
            }
        }
        for (address, vip) in &self.api.vips {
            let holders: Vec<_> = vip
                .vip
                .services
                .iter()
                .map(|s| {
                    self.api.services[&s.key]
                        .service
                        .as_ref()
                        .expect("holders are ours")
                })
                .collect();
            for (place, one) in holders.iter().enumerate() {
                for other in &holders[place + 1..] {
                    assert!(
                        Terms::of(one).agree(&Terms::of(other)),
                        "seed {seed}: {address} is shared by {} and {}",
                        one.key,
                        other.key
                    );
                }
            }
        }
        for replica in &self.replicas {
            assert_eq!(replica.controller.snapshot().outbox, 0);
        }
        self.check_places();
    }

    /// Laws of who announces what: no node that is about to go while another one is well, and, where
    /// every node may announce every address, all about as many.
    fn check_places(&self) {
        let seed = self.seed;
        let is_limited = self.places.contains_key("advertisement some")
            && !matches!(
                self.places.get("advertisement some"),
                Some(Input::AdvertisementDeleted(_))
            );
        if is_limited {
            return;
        }
        for segment in ["lan", "lan2"] {
            let (lasting, going): (Vec<&str>, Vec<&str>) = NODES
                .into_iter()
                .filter(|node| self.is_well(node, segment))
                .partition(|node| !self.departs(node));
            if lasting.is_empty() {
                continue;
            }
            let planned = self.api.vips.values().flat_map(|vip| &vip.vip.segments);
            let firsts: Vec<&str> = planned
                .filter(|planned| planned.name.as_str() == segment)
                .filter_map(|planned| Some(planned.candidates.first()?.node.as_str()))
                .collect();
            let load = |node: &&str| firsts.iter().filter(|first| *first == node).count();
            for node in going {
                assert_eq!(load(&node), 0, "seed {seed}: {node} goes, {lasting:?} stay");
            }
            let loads: Vec<usize> = lasting.iter().map(load).collect();
            let sum: usize = loads.iter().sum();
            let gap = loads.iter().max().unwrap_or(&0) - loads.iter().min().unwrap_or(&0);
            assert!(
                gap < 2 || gap * 10 * loads.len() <= sum,
                "seed {seed}: on {segment} {lasting:?} announce {loads:?}"
            );
        }
    }

    /// Whether a node can announce on a segment and seems to be alive.
    fn is_well(&self, name: &str, segment: &str) -> bool {
        let place = |kind: &str| self.places.get(&format!("{kind} {name}"));
        let node = matches!(
            place("node"),
            Some(Input::NodeApplied(node)) if node.ready && !node.excluded
        );
        let pod = matches!(place("pod"), Some(Input::SpeakerPodApplied(pod)) if pod.ready);
        let speaker = matches!(place("speaker"), Some(Input::SpeakerApplied(speaker)) if speaker
            .segments
            .iter()
            .any(|own| own.carrier && own.name.as_str() == segment));
        node && pod && speaker
    }

    fn departs(&self, name: &str) -> bool {
        matches!(
            self.places.get(&format!("node {name}")),
            Some(Input::NodeApplied(node)) if node.departure.is_some()
        )
    }

    /// A Service without what it should have: no pool that it may use has a free address of each
    /// family.
    fn check_hopeless(&self, service: &herald_controller_core::ObservedService) {
        let reserved = self.places.values().any(|input| match input {
            Input::SpeakerApplied(speaker) => speaker
                .segments
                .iter()
                .any(|segment| !segment.prefixes.is_empty()),
            _ => false,
        });
        let wanted = service.service.as_ref().expect("checked by the caller");
        for pool in self.api.pools.values().map(|pool| &pool.pool) {
            let allowed = pool.allowed.is_open()
                && pool.scope == wanted.scope
                && (pool.auto_assign || wanted.request.pool.is_some());
            let asked = wanted
                .request
                .pool
                .as_ref()
                .is_none_or(|name| *name == pool.name);
            if !allowed || !asked {
                continue;
            }
            let free = |family: Family| {
                let all = (0..12).map(|n| match family {
                    Family::V4 => ip(&format!("10.0.0.{n}")),
                    Family::V6 => ip(&format!("fd00::{n}")),
                });
                let mut all = all.filter(|address| {
                    let listed = |pool: &herald_model::Pool| {
                        pool.ranges.iter().any(|range| range.contains(*address))
                    };
                    let earlier = self
                        .api
                        .pools
                        .values()
                        .any(|other| other.pool.created < pool.created && listed(&other.pool));
                    let own = reserved && [ip("10.0.0.0"), ip("10.0.0.1")].contains(address);
                    listed(pool) && !own && !earlier && !self.api.vips.contains_key(address)
                });
                all.next()
            };
            let all: Vec<_> = wanted.families.iter().map(|family| free(*family)).collect();
            assert!(
                all.contains(&None),
                "seed {}: {} is pending though {} has {all:?}: {:?}",
                self.seed,
                wanted.key,
                pool.name,
                service.allocated
            );
        }
    }
}

impl Replica {
    fn start(
        api: &Api,
        places: &BTreeMap<String, Input>,
        now: Instant,
        seed: u64,
        leads: bool,
    ) -> Self {
        let settings = Settings {
            seed,
            ..Settings::default()
        };
        let mut controller = Controller::new(settings);
        let (inputs, told) = api.list();
        for input in places.values().cloned().chain(inputs) {
            controller.note(now, input);
        }
        controller.note(now, Input::WallClockSet { origin: 1_000_000 });
        controller.note(now, Input::Synced);
        if leads {
            controller.note(now, Input::LEADS_FOR_GOOD);
        }
        Self {
            controller,
            told,
            writing: Vec::new(),
            leads,
            namespaces: api.namespaces.len(),
        }
    }

    /// How far it has been told.
    fn seen(&self) -> Seen {
        let of = |kind| self.told.get(&kind).copied().unwrap_or_default();
        Seen {
            services: of(Kind::Service),
            pools: of(Kind::Pool),
            namespaces: self.namespaces,
        }
    }

    fn take(&mut self, effects: Vec<Effect>) {
        let seen = self.seen();
        for Effect::Write { id, write } in effects {
            self.writing.push((id, *write, seen));
        }
    }
}
