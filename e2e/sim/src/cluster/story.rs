//! What befalls a cluster, drawn from a seed.

use std::time::Duration;

use herald_model::Departure;

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
    /// Its speaker is killed and there again, perhaps before anybody found it dead.
    SpeakerRestarted,
    PowerLost,
    Stalled,
    LinkCut,
    CarrierLost,
    Partitioned,
    Stopped,
    Excluded,
    /// It is to go, and stays after all.
    Cordoned,
    ControllerRestarted,
    /// Two nodes of at least five lose power at once.
    TwoLost,
    /// Every node loses power, and they come back one by one.
    AllLost,
    /// One speaker after the other is stopped and started.
    Rollout,
    /// A link is cut and whole again, several times.
    Flapping,
    Nothing,
}

const FAULTS: [Fault; 16] = [
    Fault::SpeakerKilled,
    Fault::SpeakerRestarted,
    Fault::PowerLost,
    Fault::Stalled,
    Fault::LinkCut,
    Fault::CarrierLost,
    Fault::Partitioned,
    Fault::Stopped,
    Fault::Excluded,
    Fault::Cordoned,
    Fault::ControllerRestarted,
    Fault::TwoLost,
    Fault::AllLost,
    Fault::Rollout,
    Fault::Flapping,
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
        Fault::SpeakerRestarted => {
            world.kill(node);
            let away = world.up_to(millis(400));
            world.run(away);
            world.start(node);
        }
        Fault::PowerLost => {
            cut_power(world, node);
            world.run(time);
            if world.api_up {
                world.put_node(node, |object| object.ready = false);
                world.put_pod(node, false);
            }
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
        Fault::Excluded => {
            if world.api_up {
                world.put_node(node, |object| object.excluded = true);
            }
        }
        Fault::Cordoned => {
            if world.api_up {
                world.put_node(node, |object| {
                    object.departure = Some(Departure::Cordoned);
                });
            }
        }
        Fault::ControllerRestarted => {
            if world.api_up {
                world.lead();
            }
        }
        Fault::TwoLost => {
            cut_power(world, node);
            if world.hosts.len() >= 5 {
                let other = (node + 1) % world.hosts.len();
                world.check.touch(other);
                cut_power(world, other);
            }
        }
        Fault::AllLost => {
            world.check.has_quorum = false;
            for node in 0..world.hosts.len() {
                world.check.touch(node);
                cut_power(world, node);
            }
        }
        Fault::Rollout => {
            for node in 0..world.hosts.len() {
                world.check.touch(node);
                world.stop(node);
                restart(world, node);
                world.run(millis(1_500));
            }
        }
        Fault::Flapping => {
            for _ in 0..4 {
                world.lan.sides[node] = side_of(node);
                let cut = world.up_to(millis(400));
                world.run(cut);
                world.lan.sides[node] = 0;
                let whole = world.up_to(millis(400));
                world.run(whole);
            }
            world.reconnect();
        }
        Fault::Nothing => {}
    }
    world.run(time);
}

fn cut_power(world: &mut World, node: usize) {
    world.hosts[node].powered = false;
    world.kill(node);
}

fn boot(world: &mut World, node: usize) {
    world.hosts[node].powered = true;
    world.hosts[node].boot += 1;
    world.start(node);
}

/// The speaker starts anew when the last one has ended.
fn restart(world: &mut World, node: usize) {
    // It may go on answering for what nobody could take over.
    while world.hosts[node].process.is_some() {
        world.run(millis(100));
    }
    world.run(millis(500));
    world.start(node);
}

fn side_of(node: usize) -> u8 {
    u8::try_from(node).unwrap_or(0).saturating_add(10)
}

fn heal(world: &mut World, fault: Fault, node: usize) {
    world.say(|| format!("healed: {fault:?}"));
    match fault {
        Fault::SpeakerKilled => world.start(node),
        Fault::PowerLost => {
            boot(world, node);
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
        Fault::Stopped => restart(world, node),
        Fault::TwoLost | Fault::AllLost => {
            for node in 0..world.hosts.len() {
                if !world.hosts[node].powered {
                    let between = world.up_to(millis(600));
                    world.run(between);
                    boot(world, node);
                }
            }
            if fault == Fault::AllLost {
                world.run(millis(4_000));
                world.check.has_quorum = true;
            }
        }
        Fault::Excluded | Fault::Cordoned => world.put_node(node, |_| {}),
        Fault::SpeakerRestarted
        | Fault::Stalled
        | Fault::ControllerRestarted
        | Fault::Rollout
        | Fault::Flapping
        | Fault::Nothing => {}
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
    world.fail("writes never end");
}
