//! Thousands of Services: every write is made once, and a restart makes none.

use std::collections::BTreeMap;
use std::net::IpAddr;

use herald_controller_core::testkit::{pool, svc, well};
use herald_controller_core::{
    Controller, Effect, Identity, Input, Lan, ObservedService, ObservedVip, Settings, Version,
    Write, WriteResult,
};
use herald_model::{Instant, ServiceKey};

const SERVICES: usize = 2_000;

/// What the API server holds, and how many writes of each kind it got.
#[derive(Default)]
struct Api {
    services: BTreeMap<ServiceKey, ObservedService>,
    vips: BTreeMap<IpAddr, ObservedVip>,
    writes: BTreeMap<&'static str, usize>,
    /// Claims that were made: each is another object.
    lives: usize,
}

impl Api {
    fn write(&mut self, write: Write) -> WriteResult {
        let (kind, result) = match write {
            Write::CreateVip(vip) => {
                self.lives += 1;
                let vip = ObservedVip {
                    identity: Identity {
                        uid: format!("{}-{}", vip.address, self.lives).into(),
                        version: Version::new("1"),
                    },
                    vip,
                    holdings: Vec::new(),
                    lan: Lan::default(),
                    move_to: None,
                };
                self.vips.insert(vip.vip.address, vip.clone());
                ("create", WriteResult::VipWritten(Box::new(vip)))
            }
            Write::ApplyServiceStatus { key, status, .. } => {
                let version = Version::new("2");
                let ingress = status.ingress.clone().unwrap_or_default();
                if let Some(service) = self.services.get_mut(&key) {
                    service.identity.version = version.clone();
                    service.ingress.clone_from(&ingress);
                    service.allocated = status.allocated;
                    service.announced = status.announced;
                    service.allocated_from = status.allocated_from;
                }
                ("status", WriteResult::ServiceWritten { version, ingress })
            }
            Write::ReplaceVip { vip, identity } => {
                let known = self.vips.get_mut(&vip.address).expect("replaced");
                assert_eq!(known.identity, identity);
                let version: u64 = identity.version.as_str().parse().expect("ours");
                known.identity.version = Version::new((version + 1).to_string());
                known.vip = vip;
                ("replace", WriteResult::VipWritten(Box::new(known.clone())))
            }
            Write::DeleteVip { address, .. } => {
                self.vips.remove(&address);
                ("delete", WriteResult::VipGone)
            }
            Write::RecordEvent(_) => ("event", WriteResult::Done),
            Write::ApplyPoolStatus { .. } => ("pool", WriteResult::Done),
            Write::ApplyAdvertisementReady { .. } => ("advertisement", WriteResult::Done),
        };
        *self.writes.entry(kind).or_default() += 1;
        result
    }

    /// A controller that knows all of it and leads, run until it is at rest.
    fn run(&mut self) {
        let mut controller = self.started();
        self.settle(&mut controller);
    }

    /// A controller that knows all of it and leads.
    fn started(&self) -> Controller {
        let mut controller = Controller::new(Settings::default());
        let now = Instant::ORIGIN;
        for node in ["n1", "n2", "n3", "n4", "n5"] {
            for input in well(node) {
                controller.note(now, input);
            }
        }
        controller.note(now, pool("p").range("10.0.0.0/16").applied());
        for service in self.services.values() {
            controller.note(now, Input::ServiceApplied(Box::new(service.clone())));
        }
        for vip in self.vips.values() {
            controller.note(now, Input::VipApplied(Box::new(vip.clone())));
        }
        controller.note(now, Input::Synced);
        controller.note(now, Input::LEADS_FOR_GOOD);
        controller
    }

    /// Takes its writes until it is at rest.
    fn settle(&mut self, controller: &mut Controller) {
        let mut now = Instant::ORIGIN;
        let mut effects = Vec::new();
        loop {
            controller.on_deadline(now, &mut effects);
            if effects.is_empty() {
                match controller.next_deadline() {
                    Some(at) => now = at,
                    None => return,
                }
            }
            for Effect::Write { id, write } in effects.drain(..) {
                let result = self.write(*write);
                controller.note(now, Input::WriteDone { id, result });
            }
        }
    }
}

#[test]
fn thousands_of_services_cost_one_claim_and_one_status_each_and_a_restart_nothing() {
    let mut api = Api::default();
    for number in 0..SERVICES {
        let created = i64::try_from(number / 100).unwrap_or_default();
        let service = svc(&format!("ns/s{number}"))
            .port(80)
            .created(created)
            .observed();
        api.services.insert(service.key.clone(), service);
    }
    api.run();
    let expected = [
        ("create", SERVICES),
        ("status", SERVICES),
        ("event", SERVICES),
        ("pool", 1),
    ];
    assert_eq!(api.writes, BTreeMap::from(expected));
    api.writes.clear();
    api.run();
    // The pool's status is not kept by this API server.
    assert_eq!(api.writes, BTreeMap::from([("pool", 1)]));
}

/// As many wait as have an address, half of them with a key that others have too, and their port. When
/// all who have one go, each address is offered to those whom it helps: to look at everybody for every
/// address would be millions of decisions here, and a hundred million with 10,000: minutes.
#[test]
fn thousands_that_wait_are_served_by_thousands_that_go() {
    const EACH: usize = 2_000;
    let mut api = Api::default();
    let named = |who: &str, number: usize, created: i64| {
        svc(&format!("{who}/s{number}")).port(80).created(created)
    };
    for number in 0..EACH {
        let waits = named("waits", number, 1);
        let waits = match number % 2 {
            0 => waits,
            _ => waits.sharing(&format!("key {}", number % 50)),
        };
        for service in [named("has", number, 0).observed(), waits.observed()] {
            api.services.insert(service.key.clone(), service);
        }
    }
    let mut controller = api.started();
    let now = Instant::ORIGIN;
    let small = pool("p").range("10.0.0.0-10.0.7.207");
    controller.note(now, small.applied());
    api.settle(&mut controller);
    assert_eq!(controller.snapshot().pending, EACH);
    assert_eq!(api.vips.len(), EACH);
    for number in 0..EACH {
        let gone = named("has", number, 0);
        api.services.remove(&gone.clone().observed().key);
        controller.note(now, gone.deleted());
    }
    api.settle(&mut controller);
    assert_eq!(controller.snapshot().pending, 0);
    assert_eq!(api.vips.len(), EACH);
    assert_eq!(api.writes["delete"], EACH);
}
