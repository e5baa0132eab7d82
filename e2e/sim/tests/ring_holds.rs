//! Holds of addresses on the model LAN: told to everybody, repaired, and void with their holder.

use std::net::IpAddr;

use herald_model::{Epoch, Incarnation, Instant, Tenure};
use herald_ring::codec::{Body, Frame};
use herald_ring::{Config, Effect, Hold, Input, Keys, Profile, Ring};
use herald_sim::ring::{Loss, Quick, What, World, key, millis};

fn world(nodes: usize, seed: u64) -> World {
    let mut world = World::new(nodes, Profile::Fast, seed);
    world.run(millis(5_000));
    world.records.clear();
    world
}

fn vip(last: u16) -> IpAddr {
    let [high, low] = last.to_be_bytes();
    [192, 0, high, low].into()
}

fn hold(world: &mut World, node: usize, vip: IpAddr, epoch: u64, rank: u8, held: bool) {
    let epoch = Epoch(epoch);
    let tenure = if held { Tenure::Held } else { Tenure::LetGo };
    world.tell(
        node,
        Input::HoldChanged {
            vip,
            epoch,
            rank,
            tenure,
        },
    );
}

/// What a node has heard, in order.
fn heard(world: &World, node: usize) -> Vec<Hold> {
    let own = world.records.iter().filter(|record| record.node == node);
    own.filter_map(|record| match &record.what {
        What::Other(Effect::HoldHeard(hold)) => Some(hold.clone()),
        _ => None,
    })
    .collect()
}

#[test]
fn everybody_hears_of_a_hold_within_a_millisecond() {
    let mut world = world(10, 1);
    let holder = world.members(10)[3].node.clone();
    hold(&mut world, 3, vip(1), 7, 0, true);
    world.run(millis(8));
    for node in (0..10).filter(|node| *node != 3) {
        let expected = Hold {
            vip: vip(1),
            epoch: Epoch(7),
            rank: 0,
            node: holder.clone(),
            incarnation: Incarnation(1),
            tenure: Tenure::Held,
        };
        assert_eq!(heard(&world, node), [expected], "node {node}");
    }
    world.run(millis(3_000));
    assert!((0..10).all(|node| heard(&world, node).len() <= 1), "once");
}

#[test]
fn what_is_held_from_one_moment_on_is_told_at_once_and_together() {
    let members = World::new(4, Profile::Fast, 1).members(4);
    let mut now = Instant::ORIGIN + millis(5_000);
    let config = Config {
        profile: Profile::Fast,
        cluster: "cluster".to_owned(),
        segment: "192.0.2.0/24".into(),
        first_sequence: 1,
    };
    let mut ring = Ring::new(&config, Quick, &members[0], &members, 7, now);
    let mut out = Vec::new();
    ring.handle(now, Input::KeysChanged(Some(Keys::only(key(1)))), &mut out);
    for last in 0..200 {
        let hold = Input::HoldChanged {
            vip: vip(last),
            epoch: Epoch(7),
            rank: 0,
            tenure: Tenure::Held,
        };
        // The driver looks at its clock each time.
        now = now + std::time::Duration::from_micros(2);
        ring.handle(now, hold, &mut out);
        assert_eq!(ring.next_deadline(), Some(now), "nobody is to wait");
    }
    let mut told = [0; 5];
    for (telling, after) in [0, 15, 15, 170, 800].into_iter().enumerate() {
        let until = now + millis(after);
        while let Some(at) = ring.next_deadline().filter(|at| *at <= until) {
            now = now.max(at);
            ring.on_deadline(now, &mut out);
        }
        now = until;
        let datagrams = out.drain(..).filter(|effect| match effect {
            Effect::Send { packet, .. } => {
                let frame = Frame::decode(packet.as_bytes()).unwrap();
                matches!(frame.body(), Ok(Body::Holds(_)))
            }
            _other => false,
        });
        told[telling] = datagrams.count();
    }
    // Three others, and eight datagrams take 200 holds.
    assert_eq!(told, [24; 5]);
}

#[test]
fn a_better_right_replaces_a_worse_one_and_never_the_reverse() {
    let mut world = world(4, 2);
    hold(&mut world, 1, vip(1), 7, 0, true);
    world.run(millis(50));
    hold(&mut world, 2, vip(1), 7, 1, true);
    world.run(millis(50));
    assert_eq!(heard(&world, 0).len(), 1, "a lower rank in the same epoch");
    hold(&mut world, 2, vip(1), 8, 0, true);
    world.run(millis(50));
    let epochs: Vec<u64> = heard(&world, 0).iter().map(|hold| hold.epoch.0).collect();
    assert_eq!(epochs, [7, 8]);
    assert_eq!(heard(&world, 1).last().unwrap().epoch, Epoch(8));
}

#[test]
fn what_is_let_go_may_be_held_by_another_under_the_same_plan() {
    let mut world = world(4, 3);
    hold(&mut world, 1, vip(1), 7, 0, true);
    world.run(millis(50));
    hold(&mut world, 1, vip(1), 7, 0, false);
    world.run(millis(50));
    hold(&mut world, 2, vip(1), 7, 1, true);
    world.run(millis(50));
    let held: Vec<bool> = heard(&world, 0)
        .iter()
        .map(|hold| hold.tenure.is_held())
        .collect();
    assert_eq!(held, [true, false, true]);
}

#[test]
fn a_thousand_holds_missed_in_a_partition_are_repaired() {
    let mut world = world(5, 4);
    world.lan.loss = Loss::Independent(0.05);
    world.lan.sides = vec![0, 0, 0, 0, 1];
    for last in 0..1_000 {
        hold(&mut world, usize::from(last % 3), vip(last), 2, 0, true);
    }
    world.run(millis(3_000));
    assert_eq!(heard(&world, 4), []);
    assert_eq!(heard(&world, 3).len(), 1_000);
    world.lan.sides.fill(0);
    world.run(millis(8_000));
    assert_eq!(heard(&world, 4).len(), 1_000);
}

#[test]
fn the_holds_of_the_dead_are_void() {
    let mut world = world(4, 5);
    hold(&mut world, 1, vip(1), 7, 0, true);
    world.run(millis(50));
    world.kill(1);
    world.run(millis(400));
    world.records.clear();
    // So another may hold the address under the same plan, by a lower rank.
    hold(&mut world, 2, vip(1), 7, 1, true);
    world.run(millis(50));
    assert_eq!(heard(&world, 0).len(), 1);
    // And the dead one, when it returns, hears of it.
    let members = world.members(4);
    world.start(1, Incarnation(2), &members);
    world.run(millis(2_000));
    assert_eq!(heard(&world, 1).len(), 1);
    assert_eq!(heard(&world, 0).len(), 1);
}
