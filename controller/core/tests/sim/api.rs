//! A small API server: objects with versions, and one log of changes for each kind.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use herald_controller_core::{
    Holding, Identity, Input, Lan, ObservedPool, ObservedService, ObservedVip, PoolStatus, Terms,
    Version, Write, WriteResult,
};
use herald_model::{
    MacAddress, Phase, Pool, PoolName, Service, ServiceKey, ServiceRef, Uid, VirtualIp,
};

/// The kinds whose order of events matters; kinds are told of independently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Service,
    Vip,
    Pool,
}

pub(crate) const KINDS: [Kind; 3] = [Kind::Service, Kind::Vip, Kind::Pool];

/// How far a replica had been told when it began a write.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) services: usize,
    pub(crate) pools: usize,
    pub(crate) namespaces: usize,
}

#[derive(Default)]
pub(crate) struct Api {
    pub(crate) services: BTreeMap<ServiceKey, ObservedService>,
    pub(crate) vips: BTreeMap<IpAddr, ObservedVip>,
    pub(crate) pools: BTreeMap<PoolName, ObservedPool>,
    logs: BTreeMap<Kind, Vec<Input>>,
    counter: u64,
    /// Writes that changed something.
    pub(crate) changes: u64,
    pub(crate) events: Vec<String>,
    /// Lives of Services that would have shared an address at some time.
    agreed: BTreeSet<(Uid, Uid)>,
    /// The namespaces whose labels changed, one after the other.
    pub(crate) namespaces: Vec<String>,
    /// What whoever gave an address to a Service knew.
    given: BTreeMap<(Uid, IpAddr), Seen>,
    /// Services whose addresses another field manager owns.
    owned: BTreeSet<ServiceKey>,
    /// Writes of claims are not checked: what would happen without the lock. Of the laws only that
    /// of addresses shown twice is then.
    pub(crate) unlocked: bool,
}

impl Api {
    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn version(&mut self) -> Version {
        let next = self.next();
        Version::new(next.to_string())
    }

    fn log(&mut self, kind: Kind, input: Input) {
        self.logs.entry(kind).or_default().push(input);
    }

    /// What was logged of a kind, from a position.
    pub(crate) fn since(&self, kind: Kind, position: usize) -> &[Input] {
        self.logs
            .get(&kind)
            .map_or(&[], |log| log.get(position..).unwrap_or(&[]))
    }

    /// Everything as a list would show it, and the positions after it.
    pub(crate) fn list(&self) -> (Vec<Input>, BTreeMap<Kind, usize>) {
        let mut inputs: Vec<Input> = Vec::new();
        inputs.extend(
            self.pools
                .values()
                .map(|p| Input::PoolApplied(Box::new(p.clone()))),
        );
        inputs.extend(
            self.services
                .values()
                .map(|s| Input::ServiceApplied(Box::new(s.clone()))),
        );
        inputs.extend(
            self.vips
                .values()
                .map(|v| Input::VipApplied(Box::new(v.clone()))),
        );
        let positions = KINDS
            .map(|kind| (kind, self.since(kind, 0).len()))
            .into_iter()
            .collect();
        (inputs, positions)
    }

    /// A user creates or changes a Service; `ours`: whether it is Herald's.
    pub(crate) fn put_service(&mut self, mut service: Service, ours: bool) {
        let version = self.version();
        let before = self.services.get(&service.key).cloned();
        let uid = match &before {
            Some(before) => before.identity.uid.clone(),
            None => Uid::from(format!("uid-{}", self.next())),
        };
        service.uid = uid.clone();
        let mut observed = before.unwrap_or_else(|| ObservedService {
            key: service.key.clone(),
            identity: Identity {
                uid: uid.clone(),
                version: version.clone(),
            },
            ingress: Vec::new(),
            allocated: None,
            announced: None,
            allocated_from: None,
            deprecated: Vec::new(),
            service: None,
        });
        observed.identity.version = version;
        observed.service = ours.then(|| Arc::new(service));
        self.note_agreements(&observed);
        self.services.insert(observed.key.clone(), observed.clone());
        self.log(Kind::Service, Input::ServiceApplied(Box::new(observed)));
    }

    pub(crate) fn delete_service(&mut self, key: &ServiceKey) {
        self.owned.remove(key);
        if let Some(service) = self.services.remove(key) {
            let uid = service.identity.uid;
            self.log(
                Kind::Service,
                Input::ServiceDeleted {
                    key: key.clone(),
                    uid,
                },
            );
        }
    }

    pub(crate) fn put_pool(&mut self, pool: Pool) {
        let status = self
            .pools
            .get(&pool.name)
            .map(|p| p.status.clone())
            .unwrap_or_default();
        self.store_pool(ObservedPool {
            uid: format!("uid-{}", pool.name).into(),
            labels: BTreeMap::new(),
            pool,
            status,
        });
    }

    fn store_pool(&mut self, pool: ObservedPool) {
        self.pools.insert(pool.pool.name.clone(), pool.clone());
        self.log(Kind::Pool, Input::PoolApplied(Box::new(pool)));
    }

    pub(crate) fn delete_pool(&mut self, name: &PoolName) {
        if self.pools.remove(name).is_some() {
            self.log(Kind::Pool, Input::PoolDeleted(name.clone()));
        }
    }

    pub(crate) fn delete_vip(&mut self, address: IpAddr) {
        if let Some(vip) = self.vips.remove(&address) {
            let uid = vip.identity.uid;
            self.log(Kind::Vip, Input::VipDeleted { address, uid });
        }
    }

    /// Makes a write, as the real one would.
    pub(crate) fn write(&mut self, write: &Write, seen: Seen) -> WriteResult {
        match write {
            Write::CreateVip(vip) => {
                if let Some(there) = self.vips.get(&vip.address)
                    && !self.unlocked
                {
                    return WriteResult::VipDiffers(Some(Box::new(there.clone())));
                }
                let uid = Uid::from(format!("vip-{}", self.next()));
                self.store_vip(uid, vip, seen)
            }
            Write::ReplaceVip { identity, vip } => self.replace_vip(identity, vip, seen),
            Write::DeleteVip { address, identity } => match self.vips.get(address) {
                None => WriteResult::VipGone,
                Some(there) if there.identity != *identity && !self.unlocked => {
                    WriteResult::VipDiffers(Some(Box::new(there.clone())))
                }
                Some(there) => {
                    let dropped = there.vip.services.clone();
                    self.check_unused(*address, &dropped);
                    self.take(*address, &dropped);
                    self.delete_vip(*address);
                    self.changes += 1;
                    WriteResult::VipGone
                }
            },
            Write::ApplyServiceStatus {
                key,
                identity,
                status,
            } => {
                let Some(there) = self.services.get(key) else {
                    return WriteResult::ServiceGone;
                };
                if there.identity != *identity {
                    return WriteResult::ServiceDiffers;
                }
                let mut service = there.clone();
                match &status.ingress {
                    // What another owns is not changed, and not taken out either.
                    Some(ingress) if self.owned.contains(key) => {
                        if !ingress.is_empty() {
                            return WriteResult::FieldsOwned {
                                ingress: true,
                                allocated_from: false,
                                message: "another owns it".to_owned(),
                            };
                        }
                    }
                    Some(ingress) => service.ingress.clone_from(ingress),
                    None if self.owned.contains(key) => {}
                    None => service.ingress.clear(),
                }
                service.allocated.clone_from(&status.allocated);
                service.announced.clone_from(&status.announced);
                service.allocated_from.clone_from(&status.allocated_from);
                if service == *there {
                    return WriteResult::ServiceWritten {
                        version: identity.version.clone(),
                        ingress: service.ingress,
                    };
                }
                self.check_claimed(&service);
                self.check_reason(there, &service);
                service.identity.version = self.version();
                self.services.insert(key.clone(), service.clone());
                self.changes += 1;
                self.check_shared(false);
                let result = WriteResult::ServiceWritten {
                    version: service.identity.version.clone(),
                    ingress: service.ingress.clone(),
                };
                self.log(Kind::Service, Input::ServiceApplied(Box::new(service)));
                result
            }
            Write::ApplyPoolStatus { pool, status } => {
                if let Some(there) = self.pools.get(pool) {
                    let mut there = there.clone();
                    let status: PoolStatus = status.clone();
                    if there.status != status {
                        there.status = status;
                        self.changes += 1;
                        self.store_pool(there);
                    }
                }
                WriteResult::Done
            }
            Write::ApplyAdvertisementReady { .. } => WriteResult::Done,
            Write::RecordEvent(event) => {
                self.events.push(event.reason.to_string());
                WriteResult::Done
            }
        }
    }

    fn replace_vip(&mut self, identity: &Identity, vip: &VirtualIp, seen: Seen) -> WriteResult {
        let Some(there) = self.vips.get(&vip.address) else {
            return WriteResult::VipGone;
        };
        if there.identity != *identity && !self.unlocked {
            return WriteResult::VipDiffers(Some(Box::new(there.clone())));
        }
        let dropped: Vec<ServiceRef> = there
            .vip
            .services
            .iter()
            .filter(|service| !vip.services.contains(service))
            .cloned()
            .collect();
        self.check_unused(vip.address, &dropped);
        let replanned = there.vip.segments != vip.segments;
        assert!(
            self.unlocked || !replanned || there.vip.epoch < vip.epoch,
            "a plan without its epoch"
        );
        self.take(vip.address, &dropped);
        self.store_vip(identity.uid.clone(), vip, seen)
    }

    fn take(&mut self, address: IpAddr, from: &[ServiceRef]) {
        for service in from {
            self.given.remove(&(service.uid.clone(), address));
        }
    }

    fn store_vip(&mut self, uid: Uid, vip: &VirtualIp, seen: Seen) -> WriteResult {
        for service in &vip.services {
            let given = (service.uid.clone(), vip.address);
            self.given.entry(given).or_insert(seen);
        }
        let known = self.vips.get(&vip.address);
        let known = known.filter(|known| known.identity.uid == uid);
        let lan = known.map(|known| known.lan.clone());
        let holdings = known.map(|known| known.holdings.clone());
        let vip = ObservedVip {
            identity: Identity {
                uid,
                version: self.version(),
            },
            vip: vip.clone(),
            holdings: holdings.unwrap_or_default(),
            lan: lan.unwrap_or_default(),
            move_to: None,
        };
        self.vips.insert(vip.vip.address, vip.clone());
        self.changes += 1;
        self.log(Kind::Vip, Input::VipApplied(Box::new(vip.clone())));
        WriteResult::VipWritten(Box::new(vip))
    }

    /// The speakers say who announces an address: on each segment the candidate at this place, or the
    /// last one. Whether that is new.
    pub(crate) fn announce(&mut self, address: IpAddr, place: usize) -> bool {
        let Some(vip) = self.vips.get(&address) else {
            return false;
        };
        let holdings: Vec<Holding> = vip
            .vip
            .segments
            .iter()
            .filter(|_| vip.vip.phase == Phase::Active)
            .filter_map(|planned| {
                let place = place.min(planned.candidates.len().saturating_sub(1));
                Some(Holding {
                    segment: planned.name.clone(),
                    node: planned.candidates.get(place)?.node.clone(),
                    interface: "eth0".into(),
                    mac: MacAddress::ZERO,
                    epoch: vip.vip.epoch,
                    taken_over: place > 0,
                })
            })
            .collect();
        if vip.holdings == holdings {
            return false;
        }
        let mut vip = vip.clone();
        vip.holdings = holdings;
        vip.identity.version = self.version();
        self.vips.insert(address, vip.clone());
        self.log(Kind::Vip, Input::VipApplied(Box::new(vip)));
        true
    }

    /// The nodes planned for an address that is not used yet have asked the LAN.
    pub(crate) fn answer_of_the_lan(&mut self, address: IpAddr, stranger: bool) {
        let version = self.version();
        let Some(vip) = self.vips.get_mut(&address) else {
            return;
        };
        vip.identity.version = version;
        let segments = vip.vip.segments.iter();
        vip.lan = Lan {
            probed: segments.map(|planned| planned.name.clone()).collect(),
            stranger: stranger.then(|| "somebody answers".into()),
        };
        let vip = vip.clone();
        self.log(Kind::Vip, Input::VipApplied(Box::new(vip)));
    }

    /// Another field manager puts an address of its own into a Service's status.
    pub(crate) fn own_ingress(&mut self, key: &ServiceKey) {
        if self.services.contains_key(key) {
            self.owned.insert(key.clone());
            self.set_ingress(key, vec![IpAddr::from([192, 0, 2, 9])]);
        }
    }

    /// It takes it out again.
    pub(crate) fn disown_ingress(&mut self, key: &ServiceKey) {
        if self.owned.remove(key) {
            self.set_ingress(key, Vec::new());
        }
    }

    /// No other manager owns anything any more.
    pub(crate) fn leave_to_us(&mut self) {
        for key in self.owned.clone() {
            self.disown_ingress(&key);
        }
    }

    fn set_ingress(&mut self, key: &ServiceKey, ingress: Vec<IpAddr>) {
        let version = self.version();
        if let Some(service) = self.services.get_mut(key) {
            service.ingress = ingress;
            service.identity.version = version;
            let service = service.clone();
            self.log(Kind::Service, Input::ServiceApplied(Box::new(service)));
        }
    }

    /// The labels of a namespace change: that may be a reason for its Services to lose an address.
    pub(crate) fn namespace_changes(&mut self, namespace: &str) {
        self.namespaces.push(namespace.to_owned());
    }

    /// What a list says to one who has been told as far as `position`: what is gone, then what is there.
    pub(crate) fn relist(&self, kind: Kind, position: usize) -> Vec<Input> {
        let mut known: BTreeMap<String, Input> = BTreeMap::new();
        let told = self.since(kind, 0).iter().take(position);
        for input in told {
            match input {
                Input::ServiceApplied(it) => {
                    let deleted = Input::ServiceDeleted {
                        key: it.key.clone(),
                        uid: it.identity.uid.clone(),
                    };
                    known.insert(format!("{} {:?}", it.key, it.identity.uid), deleted);
                }
                Input::ServiceDeleted { key, uid } => {
                    known.remove(&format!("{key} {uid:?}"));
                }
                Input::VipApplied(it) => {
                    let deleted = Input::VipDeleted {
                        address: it.vip.address,
                        uid: it.identity.uid.clone(),
                    };
                    known.insert(format!("{} {:?}", it.vip.address, it.identity.uid), deleted);
                }
                Input::VipDeleted { address, uid } => {
                    known.remove(&format!("{address} {uid:?}"));
                }
                Input::PoolApplied(it) => {
                    let name = it.pool.name.clone();
                    known.insert(name.to_string(), Input::PoolDeleted(name));
                }
                Input::PoolDeleted(name) => {
                    known.remove(name.as_str());
                }
                other => unreachable!("not of these kinds: {other:?}"),
            }
        }
        let there = self.list().0.into_iter().filter(|input| {
            matches!(
                (kind, input),
                (Kind::Service, Input::ServiceApplied(_))
                    | (Kind::Vip, Input::VipApplied(_))
                    | (Kind::Pool, Input::PoolApplied(_))
            )
        });
        let there: Vec<Input> = there.collect();
        for input in &there {
            let name = match input {
                Input::ServiceApplied(it) => format!("{} {:?}", it.key, it.identity.uid),
                Input::VipApplied(it) => format!("{} {:?}", it.vip.address, it.identity.uid),
                Input::PoolApplied(it) => it.pool.name.to_string(),
                other => unreachable!("not of these kinds: {other:?}"),
            };
            known.remove(&name);
        }
        known.into_values().chain(there).collect()
    }

    /// Law: an address goes from a status only if there was a reason since what whoever gave it had
    /// been told: the Service, or one that it shares the address with, changed, the labels of its
    /// namespace, or a pool that lists the address.
    fn check_reason(&self, before: &ObservedService, after: &ObservedService) {
        if self.unlocked {
            return;
        }
        let uid = &after.identity.uid;
        for &address in &before.ingress {
            if after.ingress.contains(&address) {
                continue;
            }
            let Some(shown) = self.given.get(&(uid.clone(), address)) else {
                continue;
            };
            // One that waited for what it asks for got it.
            let holds = |service: &ObservedService| {
                let allocated = service.allocated.as_ref();
                allocated.is_some_and(|allocated| allocated.status)
            };
            if !holds(before) && holds(after) {
                continue;
            }
            let lists = |pool: &Pool| pool.ranges.iter().any(|range| range.contains(address));
            let pools: BTreeSet<&PoolName> = self
                .since(Kind::Pool, 0)
                .iter()
                .filter_map(|input| match input {
                    Input::PoolApplied(it) if lists(&it.pool) => Some(&it.pool.name),
                    _ => None,
                })
                .collect();
            let mut changes = self.since(Kind::Pool, shown.pools).iter();
            let of_pool = changes.any(|input| match input {
                Input::PoolApplied(it) => pools.contains(&it.pool.name),
                Input::PoolDeleted(name) => pools.contains(name),
                _ => false,
            });
            let sharers: BTreeSet<&ServiceKey> = self
                .since(Kind::Vip, 0)
                .iter()
                .filter_map(|input| match input {
                    Input::VipApplied(it) if it.vip.address == address => Some(&it.vip.services),
                    _ => None,
                })
                .filter(|services| services.contains(&after.service_ref()))
                .flatten()
                .map(|service| &service.key)
                .collect();
            let earlier = self.since(Kind::Service, 0).iter().take(shown.services);
            let mut said: BTreeMap<&ServiceKey, Option<&Arc<Service>>> = BTreeMap::new();
            for input in earlier {
                if let Input::ServiceApplied(it) = input {
                    said.insert(&it.key, it.service.as_ref());
                }
            }
            let mut changes = self.since(Kind::Service, shown.services).iter();
            let of_service = changes.any(|input| match input {
                Input::ServiceApplied(it) => {
                    (it.key == after.key || sharers.contains(&it.key))
                        && said.insert(&it.key, it.service.as_ref()) != Some(it.service.as_ref())
                }
                _ => false,
            });
            let mut namespaces = self.namespaces.iter().skip(shown.namespaces);
            let of_namespace = namespaces.any(|name| name == after.key.namespace.as_str());
            assert!(
                of_pool || of_service || of_namespace,
                "changed without a reason: {address} taken from {after:?}"
            );
        }
    }

    /// Law: a claim stops naming a Service only when that Service's status does not show the
    /// address.
    fn check_unused(&self, address: IpAddr, dropped: &[ServiceRef]) {
        if self.unlocked {
            return;
        }
        for service in dropped {
            let shown = self.services.get(&service.key).is_some_and(|there| {
                there.identity.uid == service.uid && there.ingress.contains(&address)
            });
            assert!(
                !shown,
                "{address} is taken from {service:?}, whose status shows it"
            );
        }
    }

    /// Law: no address is shown by two Services, unless they share it by agreement: what both say, or
    /// said when they came to share it. `now`: as things are said now, as users may change what they
    /// say at any time, and whoever leads is told of it later.
    pub(crate) fn check_shared(&self, now: bool) {
        let mut shown: BTreeMap<IpAddr, Vec<&ObservedService>> = BTreeMap::new();
        let ours = |service: &&ObservedService| {
            service.service.is_some() && !self.owned.contains(&service.key)
        };
        for service in self.services.values().filter(ours) {
            for address in &service.ingress {
                shown.entry(*address).or_default().push(service);
            }
        }
        for (address, services) in shown {
            for (place, one) in services.iter().enumerate() {
                for other in &services[place + 1..] {
                    let agree = if now {
                        agree(one, other)
                    } else {
                        self.agreed.contains(&pair(one, other))
                    };
                    assert!(
                        agree,
                        "an address shown by two Services: {address} by {} and {}",
                        one.key, other.key
                    );
                }
            }
        }
    }

    /// Notes with whom a Service would share.
    fn note_agreements(&mut self, service: &ObservedService) {
        let others = self.services.values().filter(|other| agree(service, other));
        self.agreed.extend(others.map(|other| pair(service, other)));
    }

    /// Law: a status shows an address only while the claim names that life of the Service, and the LAN
    /// need not be asked any more.
    fn check_claimed(&self, service: &ObservedService) {
        if self.unlocked {
            return;
        }
        let strange = IpAddr::from([192, 0, 2, 9]);
        for address in service.ingress.iter().filter(|a| **a != strange) {
            let me = service.service_ref();
            let claimed = self.vips.get(address).is_some_and(|vip| {
                vip.vip.services.contains(&me) && vip.vip.phase == Phase::Active
            });
            assert!(
                claimed,
                "status of {me:?} shows {address}, which no claim gives it: {:?}",
                self.vips.get(address)
            );
        }
    }
}

/// Two lives, in one order.
fn pair(one: &ObservedService, other: &ObservedService) -> (Uid, Uid) {
    let (one, other) = (&one.identity.uid, &other.identity.uid);
    (one.min(other).clone(), one.max(other).clone())
}

fn agree(one: &ObservedService, other: &ObservedService) -> bool {
    let terms = |service: &ObservedService| service.service.as_deref().map(Terms::of);
    matches!((terms(one), terms(other)), (Some(one), Some(other)) if one.agree(&other))
}
