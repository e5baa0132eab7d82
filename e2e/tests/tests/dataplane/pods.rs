//! Mode `pod` on the LAN: nobody translates but the program. The pods are the nodes' own servers, as pods in the
//! network of their node are.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Result;
use herald_dataplane::Event;
use herald_speaker::io::bpf::clock;

use crate::spread;
use crate::straight::{client, download_through_a_narrow_router, talks};
use crate::world::{Mode, NODE_PORT, PORT, VIP4, VIP6, World, is_refused};

const BULK_BYTES: usize = 1 << 20;

fn pods() -> Result<World> {
    World::by(Mode::Pods)
}

#[test]
fn every_pod_sees_the_clients_address_and_answers_it_itself() -> Result<()> {
    let world = pods()?;
    for vip in [VIP4, VIP6] {
        let peer = client(world.client(), vip)?;
        let (mut by_tcp, mut by_udp) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..30 {
            let answer = world.connect(vip, PORT, 0)?.ask()?;
            assert_eq!(answer.peer.ip(), peer);
            by_tcp.insert(answer.node);
            let answer = world.ask(vip, 0)?;
            assert_eq!(answer.peer.ip(), peer);
            by_udp.insert(answer.node);
        }
        assert_eq!((by_tcp.len(), by_udp.len()), (3, 3));
    }
    // A SYN that a client repeats counts again.
    let counted = world.service(1)?;
    assert!((60..70).contains(&counted.flows), "{counted:?}");
    for target in 1..=3 {
        assert!(world.event(target, Event::PodChosen)? > 0);
        assert!(world.service(target)?.reply_packets > 0);
    }
    Ok(())
}

#[test]
fn client_whose_neighbour_entry_points_at_another_node_keeps_its_pod() -> Result<()> {
    let world = pods()?;
    for vip in [VIP4, VIP6] {
        let mut open = talks(&world, vip, 12)?;
        for stale in [2, 3] {
            world.point_neighbour(world.client(), stale)?;
            for (talk, node) in &mut open {
                assert_eq!(talk.ask()?.node, *node);
            }
            assert_eq!(spread(&world, vip, 20)?.len(), 3);
        }
        world.point_neighbour(world.client(), 1)?;
    }
    Ok(())
}

#[test]
fn open_connections_survive_the_move_of_the_address() -> Result<()> {
    for vip in [VIP4, VIP6] {
        let mut world = pods()?;
        let mut open = talks(&world, vip, 20)?;
        for holder in [2, 3, 1] {
            world.hold(holder)?;
            for (talk, node) in &mut open {
                assert_eq!(talk.ask()?.node, *node);
                assert_eq!(talk.upload(10_000)?, 10_000);
            }
        }
    }
    Ok(())
}

#[test]
fn open_connections_stay_with_a_pod_that_drains_and_with_one_that_others_join() -> Result<()> {
    for vip in [VIP4, VIP6] {
        let mut world = pods()?;
        world.wish.targets = vec![1];
        world.program()?;
        let mut open = talks(&world, vip, 20)?;
        // All slots of node 1 go to the others, whoever holds the address.
        world.wish.targets = vec![2, 3];
        world.wish.draining = vec![1];
        world.program()?;
        for holder in [2, 1, 3] {
            world.hold(holder)?;
            for (talk, _) in &mut open {
                assert_eq!(talk.ask()?.node, "n1");
                assert_eq!(talk.upload(10_000)?, 10_000);
            }
            let new = spread(&world, vip, 20)?;
            assert_eq!(new.keys().collect::<Vec<_>>(), ["n2", "n3"]);
        }
        assert!(world.event(2, Event::HandedBack)? > 0);
        // And back again.
        let mut later = talks(&world, vip, 20)?;
        world.wish.targets = vec![1];
        world.wish.draining = vec![2, 3];
        world.program()?;
        for (talk, node) in open.iter_mut().chain(&mut later) {
            assert_eq!(talk.ask()?.node, *node);
        }
    }
    Ok(())
}

/// All know the Service but node 2, whose kernel routes what it gets of it.
fn unknown_to_node_2() -> Result<World> {
    let mut world = World::new()?;
    world.now = clock();
    world.lan.hosts[2].run(|| {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1")?;
        Ok(fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1")?)
    })?;
    let vips = std::mem::take(&mut world.wish.vips);
    world.program()?;
    world.wish.vips = vips;
    world.wish.mode = Mode::Pods;
    world.program_only(&[1, 3])?;
    Ok(world)
}

#[test]
fn open_connections_that_a_node_sent_back_survive_that_it_hears_of_the_service() -> Result<()> {
    for vip in [VIP4, VIP6] {
        let mut world = unknown_to_node_2()?;
        let mut open = talks(&world, vip, 20)?;
        assert!(open.iter().all(|(_, node)| node != "n2"));
        world.program_only(&[2])?;
        assert!(spread(&world, vip, 20)?.contains_key("n2"));
        for holder in [1, 3, 2, 1] {
            world.hold(holder)?;
            for (talk, node) in &mut open {
                assert_eq!(talk.ask()?.node, *node);
                assert_eq!(talk.upload(10_000)?, 10_000);
            }
        }
        assert!(world.event(2, Event::HandedBack)? > 0);
    }
    Ok(())
}

#[test]
fn open_connections_survive_that_a_node_hears_of_the_service_later_than_its_kube_proxy()
-> Result<()> {
    for vip in [VIP4, VIP6] {
        let mut world = unknown_to_node_2()?;
        world.translate()?;
        let mut open = talks(&world, vip, 20)?;
        assert!(open.iter().any(|(_, node)| node == "n2"));
        world.program_only(&[2])?;
        for holder in [1, 3, 2, 1] {
            world.hold(holder)?;
            for (talk, node) in &mut open {
                assert_eq!(talk.ask()?.node, *node);
                assert_eq!(talk.upload(10_000)?, 10_000);
            }
        }
    }
    Ok(())
}

#[test]
fn connection_of_a_pod_that_is_gone_is_reset_at_once() -> Result<()> {
    let mut world = pods()?;
    for vip in [VIP4, VIP6] {
        for (targets, others) in [(vec![1], vec![2]), (vec![2], vec![1])] {
            world.wish.targets = targets;
            world.program()?;
            let mut open = talks(&world, vip, 5)?;
            world.wish.targets = others;
            world.program()?;
            for (talk, _) in &mut open {
                let error = talk.ask().unwrap_err();
                let error = error.downcast_ref::<std::io::Error>().unwrap();
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
            }
        }
    }
    Ok(())
}

#[test]
fn open_connections_survive_a_restart_of_the_data_plane() -> Result<()> {
    let mut world = pods()?;
    let mut open = talks(&world, VIP4, 12)?;
    for node in 1..=3 {
        world.restart(node)?;
        let chosen = world.event(node, Event::PodChosen)?;
        for (talk, node) in &mut open {
            assert_eq!(talk.ask()?.node, *node);
        }
        assert_eq!(world.event(node, Event::PodChosen)?, chosen);
    }
    Ok(())
}

#[test]
fn large_transfers_pass_both_ways() -> Result<()> {
    let mut world = pods()?;
    for target in [1, 2] {
        world.wish.targets = vec![target];
        world.program()?;
        for vip in [VIP4, VIP6] {
            let mut talk = world.connect(vip, PORT, 0)?;
            assert_eq!(talk.upload(BULK_BYTES)?, BULK_BYTES);
            assert_eq!(talk.download(BULK_BYTES)?, BULK_BYTES);
        }
    }
    Ok(())
}

#[test]
fn replies_that_are_too_big_for_a_router_are_sent_smaller() -> Result<()> {
    let world = pods()?;
    download_through_a_narrow_router(&world)?;
    for node in 1..=3 {
        assert!(world.event(node, Event::ErrorTranslated)? >= 2);
    }
    Ok(())
}

#[test]
fn client_is_told_when_the_pod_refuses_its_datagram() -> Result<()> {
    let mut world = pods()?;
    // Nobody listens there.
    world.wish.node_port = NODE_PORT + 1;
    for target in [1, 2] {
        world.wish.targets = vec![target];
        world.program()?;
        for vip in [VIP4, VIP6] {
            let error = world.ask(vip, 0).unwrap_err();
            let error = error.downcast_ref::<std::io::Error>().unwrap();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{vip}");
            assert!(is_refused(world.client(), vip, PORT)?);
        }
        assert_eq!(world.event(target, Event::ErrorTranslated)?, 2);
    }
    Ok(())
}
