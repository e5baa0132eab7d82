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
    /// Writes of claims are not checked: what would happen without the lock.
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
    pub(crate) fn write(&mut self, write: &Write) -> WriteResult {
        match write {
            Write::CreateVip(vip) => {
                if let Some(there) = self.vips.get(&vip.address)
                    && !self.unlocked
                {
                    return WriteResult::VipDiffers(Some(Box::new(there.clone())));
                }
                let uid = Uid::from(format!("vip-{}", self.next()));
                self.store_vip(uid, vip)
            }
            Write::ReplaceVip { identity, vip } => self.replace_vip(identity, vip),
            Write::DeleteVip { address, identity } => match self.vips.get(address) {
                None => WriteResult::VipGone,
                Some(there) if there.identity != *identity && !self.unlocked => {
                    WriteResult::VipDiffers(Some(Box::new(there.clone())))
                }
                Some(there) => {
                    let dropped = there.vip.services.clone();
                    self.check_unused(*address, &dropped);
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
                if let Some(ingress) = &status.ingress {
                    service.ingress.clone_from(ingress);
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

    fn replace_vip(&mut self, identity: &Identity, vip: &VirtualIp) -> WriteResult {
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
            !replanned || there.vip.epoch < vip.epoch,
            "a plan without its epoch"
        );
        self.store_vip(identity.uid.clone(), vip)
    }

    fn store_vip(&mut self, uid: Uid, vip: &VirtualIp) -> WriteResult {
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

    /// Law: a claim stops naming a Service only when that Service's status does not show the
    /// address.
    fn check_unused(&self, address: IpAddr, dropped: &[ServiceRef]) {
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
        for service in self.services.values().filter(|s| s.service.is_some()) {
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
        for address in &service.ingress {
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
