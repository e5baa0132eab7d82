//! The eBPF programs on a LAN of network namespaces, without a cluster.

#[path = "dataplane/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::net::SocketAddr;

use anyhow::Result;
use world::{PORT, VIP4, VIP6, World};

/// How many of so many connections each node took.
fn spread(world: &World, vip: &str, connections: usize) -> Result<BTreeMap<String, usize>> {
    let mut shares = BTreeMap::new();
    for _ in 0..connections {
        let answer = world.connect(vip, PORT, 0)?.ask()?;
        *shares.entry(answer.node).or_default() += 1;
    }
    Ok(shares)
}

#[test]
fn every_node_gets_tcp_connections_the_holder_itself_included() -> Result<()> {
    let world = World::new()?;
    for vip in [VIP4, VIP6] {
        let shares = spread(&world, vip, 30)?;
        assert_eq!(shares.len(), 3, "{shares:?}");
    }
    let counted = world.service(1)?;
    assert_eq!(counted.flows, 60);
    assert!(counted.reply_packets >= 120, "{counted:?}");
    Ok(())
}

#[test]
fn targets_see_the_vip_with_the_clients_port() -> Result<()> {
    let world = World::new()?;
    let answer = world.connect(VIP4, PORT, 45_000)?.ask()?;
    assert_eq!(answer.peer, SocketAddr::new(VIP4.parse()?, 45_000));
    Ok(())
}
