//! How long it takes until the kernel's tables are right.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use herald_dataplane::Forwarding;
use herald_e2e::bench::group::Measured;
use herald_e2e::bench::stage::load;
use herald_e2e::bench::table::milliseconds;
use herald_e2e::wait::go_on;
use serde_json::{Value, json};

use crate::maps::Memory;
use crate::world::{Kind, World, is_whole, local, vip, wish};

/// Services whose targets change in a round, one after the other.
const CHANGES: u32 = 50;

/// What one round has measured.
#[derive(Debug, Clone)]
pub(crate) struct Round {
    load: f64,
    /// From the wish to the writes that fulfil it, with empty maps.
    pub(crate) compiled: Duration,
    /// Until they were written.
    pub(crate) programmed: Duration,
    writes: usize,
    /// The same for another number of pods of one Service; none under Cluster, where that changes no table.
    pub(crate) changes: Vec<Duration>,
    pub(crate) memory: Memory,
}

impl Measured for Round {
    fn json(&self) -> Value {
        let ms = |time: &Duration| time.as_secs_f64() * 1000.0;
        json!({
            "load": self.load,
            "compiledMs": ms(&self.compiled),
            "programmedMs": ms(&self.programmed),
            "writes": self.writes,
            "changesMs": self.changes.iter().map(ms).collect::<Vec<_>>(),
            "memory": self.memory.json(),
        })
    }

    fn load(&self) -> f64 {
        self.load
    }
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} writes after {} ms, of which {} ms to find them; a change least/median/greatest {} ms; {}; load {}",
            self.writes,
            self.programmed.as_millis(),
            self.compiled.as_millis(),
            milliseconds(&self.changes),
            self.memory,
            self.load,
        )
    }
}

/// One round with maps of its own.
pub(crate) fn play(kind: Kind, services: u32) -> Result<Round> {
    go_on()?;
    let load = load()?;
    let mut wish = wish(kind, services);
    let mut world = World::new()?;
    let began = Instant::now();
    let (result, ops) = world.plan(&wish);
    is_whole(&result)?;
    let compiled = began.elapsed();
    world.write(result, &ops)?;
    let programmed = began.elapsed();
    is_right(&world)?;

    let mut changes = Vec::new();
    let count = if kind == Kind::Cluster { 0 } else { CHANGES };
    for change in 0..count {
        go_on()?;
        // A prime: others each time.
        let number = change * 7_919 % services;
        if let Some(vip) = wish.vips.get_mut(&vip(number).into()) {
            for service in &mut vip.services {
                if let Forwarding::Dsr { targets, .. } = &mut service.forwarding {
                    *targets = local(number, change + 1);
                }
            }
        }
        let began = Instant::now();
        let (result, ops) = world.plan(&wish);
        ensure!(!ops.is_empty(), "nothing is to be written");
        world.write(result, &ops)?;
        changes.push(began.elapsed());
    }
    is_right(&world)?;
    changes.sort_unstable();
    Ok(Round {
        load,
        compiled,
        programmed,
        writes: ops.len(),
        changes,
        memory: Memory::of_this_process()?,
    })
}

/// What the kernel has is what is wanted.
fn is_right(world: &World) -> Result<()> {
    let read = world.data_plane.read()?;
    ensure!(read == world.contents, "the maps hold something else");
    Ok(())
}
