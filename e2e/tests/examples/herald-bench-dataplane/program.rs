//! What the ingress program takes for a packet, by the number of Services and of flows.

use std::fmt;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use herald_dataplane::Event;
use herald_e2e::bench::group::Measured;
use herald_e2e::bench::stage::load;
use herald_e2e::wait::go_on;
use serde_json::{Value, json};

use crate::turns::{Turn, Turns};
use crate::world::{Kind, PORT, World, is_whole, vip, wish};

pub(crate) const FLOWS: [u32; 4] = [1, 1 << 10, 1 << 16, 1 << 20];
/// With `nodeport` a flow takes a port towards its target, and room in a table; with `pod` room alone.
const MOST_KEPT: u32 = 1 << 16;

/// What one round has measured.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    load: f64,
    /// By the number of flows: what a run takes without the measurement, and what that takes.
    pub(crate) costs: Vec<(u32, Duration, Duration)>,
}

impl Measured for Round {
    fn json(&self) -> Value {
        let costs = self.costs.iter().map(|(flows, time, own)| {
            json!({
                "flows": flows,
                "ns": time.as_nanos(),
                "measurementNs": own.as_nanos(),
            })
        });
        json!({"load": self.load, "costs": costs.collect::<Vec<_>>()})
    }

    fn load(&self) -> f64 {
        self.load
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (flows, time, own) in &self.costs {
            let (time, own) = (time.as_nanos(), own.as_nanos());
            write!(f, "{flows} flows {time} ns (+ {own}); ")?;
        }
        write!(f, "load {}", self.load)
    }
}

/// A program with so many Services that are all in use.
pub(crate) struct Ready {
    // Before the maps that it is on.
    turns: Turns,
    world: World,
    kind: Kind,
    services: u32,
}

impl Ready {
    pub(crate) fn new(kind: Kind, services: u32) -> Result<Self> {
        let mut world = World::new()?;
        let (result, ops) = world.plan(&wish(kind, services));
        is_whole(&result)?;
        world.write(result, &ops)?;
        Ok(Self {
            turns: Turns::load(&world.pins()?)?,
            world,
            kind,
            services,
        })
    }

    pub(crate) fn play(&mut self) -> Result<Round> {
        let load = load()?;
        let frame = frame();
        let host = self.world.lan.hosts.first().context("no host")?;
        let mut costs = Vec::new();
        let most = match self.kind {
            Kind::NodePort | Kind::Pod => MOST_KEPT,
            Kind::Cluster | Kind::Local => u32::MAX,
        };
        for flows in FLOWS.into_iter().filter(|&flows| flows <= most) {
            go_on()?;
            let turn = Turn {
                frame: &frame,
                flows,
                services: self.services,
                goes_up: self.kind == Kind::Pod,
            };
            let own = self.turns.cost(host, turn, true)?;
            // Flows may be new.
            self.turns.cost(host, turn, false)?;
            let time = self.turns.cost(host, turn, false)?;
            let counted = self.world.data_plane.counters()?.events;
            let chosen = counted.get(&Event::PodChosen).copied().unwrap_or_default();
            ensure!(
                self.kind != Kind::Pod || chosen >= flows.into(),
                "a pod was chosen for {chosen} of {flows} flows"
            );
            costs.push((flows, time.saturating_sub(own), own));
        }
        Ok(Round { load, costs })
    }
}

/// A client's frame to the first Service: Ethernet, IPv4, TCP with ACK set. Nobody looks at the sum of TCP.
fn frame() -> Vec<u8> {
    let mut ip = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    ip.extend([10, 0, 0, 0]);
    ip.extend(vip(0).octets());
    let mut frame = vec![0; 6];
    frame.extend([2, 0, 0, 0, 0, 0xc1, 0x08, 0x00]);
    frame.extend(ip);
    frame.extend(40_000_u16.to_be_bytes());
    frame.extend(PORT.to_be_bytes());
    frame.extend([0; 8]);
    frame.extend([0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
    frame
}
