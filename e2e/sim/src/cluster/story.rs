//! What befalls a cluster, drawn from a seed.

use std::time::Duration;

use super::world::World;
use crate::ring::{Loss, millis};

/// What went wrong, and all that happened before if that was asked for.
#[derive(Clone, Debug, Default)]
pub struct Failure {
    /// What was wrong first; `None`: nothing.
    pub wrong: Option<String>,
    /// Everything that happened.
    pub trace: Vec<String>,
    /// How often an address moved.
    pub moves: u64,
    /// The longest time that an address was without a holder.
    pub longest: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    SpeakerKilled,
    PowerLost,
    Stalled,
    LinkCut,
    CarrierLost,
    Partitioned,
    Stopped,
    Excluded,
    ControllerRestarted,
    Nothing,
}

const FAULTS: [Fault; 10] = [
    Fault::SpeakerKilled,
    Fault::PowerLost,
    Fault::Stalled,
    Fault::LinkCut,
    Fault::CarrierLost,
    Fault::Partitioned,
    Fault::Stopped,
    Fault::Excluded,
    Fault::ControllerRestarted,
    Fault::Nothing,
];

/// Tells the story of a seed.
pub fn tell(seed: u64, trace: bool) -> Failure {
    let nodes = 3 + usize::try_from(seed % 5).unwrap_or(0);
    let vips = 1 + usize::try_from(seed / 5 % 4).unwrap_or(0);
    let mut world = World::new(nodes, vips, seed, trace);
    world.say(|| format!("{nodes} nodes, {vips} addresses"));
    world.run(millis(5_000));
    world.check.is_on = true;
    for _ in 0..=world.lan.below(3) {
        if world.check.failure.is_none() {
            round(&mut world);
        }
    }
    if world.check.failure.is_none() {
        rest(&mut world);
    }
    Failure {
        wrong: world.check.failure.take(),
        trace: world.trace.take().unwrap_or_default(),
        moves: world.check.moves,
        longest: world.check.longest,
    }
}

/// One fault, perhaps while the API server is away, until everything is well again.
fn round(world: &mut World) {
    world.change_lags();
    let node = world.lan.below(world.hosts.len());
    let fault = FAULTS[world.lan.below(FAULTS.len())];
    let outage = world.lan.below(2) == 0;
    world.lan.loss = match world.lan.below(4) {
        0 => Loss::Independent(0.01),
        _ => Loss::None,
    };
    if outage {
        world.say(|| "the API server is gone".to_owned());
        world.api_up = false;
        let before = world.up_to(millis(500));
        world.run(before);
    }
    world.say(|| format!("{fault:?}: node{node}"));
    let time = millis(1_200) + world.up_to(millis(2_500));
    befall(world, fault, node, time);
    let api_first = world.lan.below(2) == 0;
    if outage && api_first {
        api_returns(world);
        let between = world.up_to(millis(1_500));
        world.run(between);
    }
    heal(world, fault, node);
    world.run(millis(2_000));
    if outage && !api_first {
        api_returns(world);
    }
    world.run(millis(3_000));
    world.check.healed(world.now);
    world.lan.loss = Loss::None;
    world.run(millis(4_500));
}

fn api_returns(world: &mut World) {
    world.say(|| "the API server is back".to_owned());
    world.api_up = true;
    world.reconnect();
}

fn befall(world: &mut World, fault: Fault, node: usize, time: Duration) {
    if !matches!(fault, Fault::ControllerRestarted | Fault::Nothing) {
        world.check.touch(node);
    }
    match fault {
        Fault::SpeakerKilled => world.kill(node),
        Fault::PowerLost => {
            world.hosts[node].powered = false;
            world.kill(node);
            world.run(time);
            world.put_node(node, |object| object.ready = false);
            world.put_pod(node, false);
        }
        Fault::Stalled => {
            let long = world.lan.below(2) == 0;
            let stall = if long { time } else { world.up_to(millis(300)) };
            world.pause(node, stall);
        }
        Fault::LinkCut => world.lan.sides[node] = side_of(node),
        Fault::CarrierLost => {
            world.lan.sides[node] = side_of(node);
            world.set_carrier(node, false);
        }
        Fault::Partitioned => {
            let most = (world.hosts.len() - 1) / 2;
            let size = 1 + world.lan.below(most);
            for step in 0..size {
                let cut = (node + step) % world.hosts.len();
                world.check.touch(cut);
                world.lan.sides[cut] = 1;
            }
        }
        Fault::Stopped => world.stop(node),
        Fault::Excluded => world.put_node(node, |object| object.excluded = true),
        Fault::ControllerRestarted => {
            if world.api_up {
                world.lead();
            }
        }
        Fault::Nothing => {}
    }
    world.run(time);
}

fn side_of(node: usize) -> u8 {
    u8::try_from(node).unwrap_or(0).saturating_add(10)
}

fn heal(world: &mut World, fault: Fault, node: usize) {
    world.say(|| format!("healed: {fault:?}"));
    match fault {
        Fault::SpeakerKilled => world.start(node),
        Fault::PowerLost => {
            world.hosts[node].powered = true;
            world.hosts[node].boot += 1;
            world.start(node);
            world.put_node(node, |_| {});
            world.put_pod(node, true);
        }
        Fault::LinkCut | Fault::CarrierLost | Fault::Partitioned => {
            world.lan.sides.fill(0);
            world.reconnect();
            if fault == Fault::CarrierLost {
                world.set_carrier(node, true);
            }
        }
        Fault::Stopped => {
            // It may go on answering for what nobody could take over.
            while world.hosts[node].process.is_some() {
                world.run(millis(100));
            }
            world.run(millis(500));
            world.start(node);
        }
        Fault::Excluded => world.put_node(node, |_| {}),
        Fault::Stalled | Fault::ControllerRestarted | Fault::Nothing => {}
    }
}

/// Until nothing is written any more.
fn rest(world: &mut World) {
    world.flaky = false;
    let mut writes = world.api.writes;
    let mut quiet = 0;
    for _ in 0..40 {
        world.run(millis(1_000));
        quiet = if writes == world.api.writes {
            quiet + 1
        } else {
            0
        };
        writes = world.api.writes;
        if quiet == 6 {
            world.check_rest();
            return;
        }
    }
    world.fail("writes never end".to_owned());
}
