//! A data plane that is started anew, in the same layout or another, while streams run.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use herald_e2e::wait::{LONG, eventually};

use crate::straight::talks;
use crate::world::{Mode, Talk, VIP4, VIP6, World};

/// Of each family.
const STREAMS: usize = 10;
const BYTES: usize = 10_000;

/// How a node's data plane is started anew.
type Start = fn(&mut World, usize) -> Result<()>;

/// Sends and gets answers from the same node until told to stop.
fn stream(talk: &mut Talk, node: &str, rounds: &AtomicUsize, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        ensure!(talk.upload(BYTES)? == BYTES, "bytes were lost");
        ensure!(talk.ask()?.node == node, "another node answers");
        rounds.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn no_stream_is_lost(mode: Mode, starts: &[Start]) -> Result<()> {
    let mut world = World::by(mode)?;
    let mut open = talks(&world, VIP4, STREAMS)?;
    open.extend(talks(&world, VIP6, STREAMS)?);
    let rounds: Vec<AtomicUsize> = open.iter().map(|_| AtomicUsize::new(0)).collect();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let streams: Vec<_> = open
            .iter_mut()
            .zip(&rounds)
            .map(|((talk, node), rounds)| scope.spawn(|| stream(talk, node, rounds, &stop)))
            .collect();
        let result = start_all(&mut world, starts, &rounds);
        stop.store(true, Ordering::Relaxed);
        for stream in streams {
            stream.join().expect("a stream does not panic")?;
        }
        result
    })
}

/// Every node in each way, the announcer too; all streams go on after each.
fn start_all(world: &mut World, starts: &[Start], rounds: &[AtomicUsize]) -> Result<()> {
    for node in 1..=3 {
        for start in starts {
            start(world, node)?;
            let before: Vec<usize> = rounds
                .iter()
                .map(|round| round.load(Ordering::Relaxed))
                .collect();
            eventually("all streams go on", LONG, || {
                let waiting = rounds
                    .iter()
                    .zip(&before)
                    .filter(|(now, before)| now.load(Ordering::Relaxed) <= **before + 1);
                let waiting = waiting.count();
                ensure!(waiting == 0, "{waiting} streams stand still");
                Ok(())
            })?;
        }
    }
    Ok(())
}

#[test]
fn streams_by_dsr_run_through_restarts_and_upgrades_to_another_layout() -> Result<()> {
    no_stream_is_lost(Mode::Direct, &[World::restart, World::upgrade])
}

#[test]
fn streams_by_node_ports_run_through_restarts() -> Result<()> {
    no_stream_is_lost(Mode::NodePort, &[World::restart])
}

#[test]
fn streams_to_pods_run_through_restarts() -> Result<()> {
    no_stream_is_lost(Mode::Pods, &[World::restart])
}
