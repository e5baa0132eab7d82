//! Datagrams that are larger than the LAN's MTU.

use std::collections::BTreeSet;

use anyhow::Result;
use herald_dataplane::Event;

use crate::world::{Mode, VIP4, VIP6, World, ask_much};

const DATAGRAMS: usize = 20;

/// Three fragments each way.
const BYTES: usize = 4_000;

fn come_and_go(mode: Mode) -> Result<()> {
    let world = World::by(mode)?;
    for vip in [VIP4, VIP6] {
        for entry in [1, 2] {
            world.point_neighbour(world.client(), entry)?;
            let mut nodes = BTreeSet::new();
            for _ in 0..DATAGRAMS {
                nodes.insert(ask_much(world.client(), vip, BYTES)?.node);
            }
            assert_eq!(nodes.len(), 3, "{vip}: {nodes:?}");
        }
    }
    for node in 1..=3 {
        assert_eq!(world.event(node, Event::Fragment)?, 0);
    }
    Ok(())
}

#[test]
fn datagrams_in_fragments_come_and_go_by_node_ports() -> Result<()> {
    come_and_go(Mode::NodePort)
}

#[test]
fn datagrams_in_fragments_come_and_go_by_dsr() -> Result<()> {
    come_and_go(Mode::Direct)
}

#[test]
fn datagrams_in_fragments_come_and_go_straight_to_pods() -> Result<()> {
    come_and_go(Mode::Pods)
}
