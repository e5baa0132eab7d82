//! Holds of addresses on the model LAN: told to everybody, repaired, and void with their holder.

use std::net::IpAddr;

use herald_model::{Epoch, Incarnation};
use herald_ring::{Effect, Hold, Input, Profile};
use herald_sim::ring::{Loss, What, World, millis};

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
    world.tell(
        node,
        Input::HoldChanged {
            vip,
            epoch,
            rank,
            held,
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
            held: true,
        };
        assert_eq!(heard(&world, node), [expected], "node {node}");
    }
    world.run(millis(3_000));
    assert!((0..10).all(|node| heard(&world, node).len() <= 1), "once");
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
    let held: Vec<bool> = heard(&world, 0).iter().map(|hold| hold.held).collect();
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
