//! The eBPF programs on a LAN of network namespaces, without a cluster.

#[cfg(test)]
#[path = "dataplane/black_holes.rs"]
mod black_holes;
#[cfg(test)]
#[path = "dataplane/datagrams.rs"]
mod datagrams;
#[cfg(test)]
#[path = "dataplane/object.rs"]
mod object;
#[cfg(test)]
#[path = "dataplane/pods.rs"]
mod pods;
#[cfg(test)]
#[path = "dataplane/straight.rs"]
mod straight;
#[cfg(test)]
#[path = "dataplane/tagged.rs"]
mod tagged;
#[cfg(test)]
#[path = "dataplane/upgrade.rs"]
mod upgrade;
#[cfg(test)]
#[path = "dataplane/world.rs"]
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{IpAddr, SocketAddr};

use anyhow::Result;
use herald_dataplane::{Event, MapName, Spread};
use herald_e2e::wait::{LONG, eventually, same};
use herald_speaker::io::bpf::Hook;
use ipnet::IpNet;
use straight::download_through_a_narrow_router;
use world::{
    Mode, NODE_PORT, PORT, VIP4, VIP6, World, ask_from, connect_from, is_refused, only_name,
};

const BULK_BYTES: usize = 4 << 20;

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
    assert!(counted.packets >= 240, "{counted:?}");
    assert!(counted.reply_packets >= 120, "{counted:?}");
    assert_eq!(world.service(2)?.packets, 0);
    Ok(())
}

#[test]
fn every_node_gets_datagrams_the_holder_itself_included() -> Result<()> {
    let world = World::new()?;
    for vip in [VIP4, VIP6] {
        let mut nodes = BTreeSet::new();
        for _ in 0..30 {
            nodes.insert(world.ask(vip, 0)?.node);
        }
        assert_eq!(nodes.len(), 3, "{nodes:?}");
    }
    // Less by the source ports that the client's kernel took twice.
    assert!(world.service(1)?.flows > 40);
    Ok(())
}

#[test]
fn targets_see_the_vip_with_the_clients_port() -> Result<()> {
    let world = World::new()?;
    for vip in [VIP4, VIP6] {
        let expected = SocketAddr::new(vip.parse()?, 45_000);
        assert_eq!(world.connect(vip, PORT, 45_000)?.ask()?.peer, expected);
        assert_eq!(world.ask(vip, 45_000)?.peer, expected);
    }
    Ok(())
}

#[test]
fn datagrams_from_the_service_port_are_answered_by_every_target() -> Result<()> {
    let mut world = World::new()?;
    for target in 1..=3 {
        world.wish.targets = vec![target];
        world.program()?;
        for vip in [VIP4, VIP6] {
            assert_eq!(world.ask(vip, PORT)?.node, format!("n{target}"));
        }
    }
    Ok(())
}

#[test]
fn client_whose_neighbour_entry_points_at_another_node_is_served() -> Result<()> {
    let world = World::new()?;
    for stale in [2, 3] {
        world.point_neighbour(world.client(), stale)?;
        for vip in [VIP4, VIP6] {
            let shares = spread(&world, vip, 20)?;
            assert_eq!(shares.len(), 3, "{shares:?}");
            world.ask(vip, 0)?;
        }
        assert!(world.event(stale, Event::Relayed)? > 0);
        assert_eq!(world.service(stale)?.packets, 0);
    }
    Ok(())
}

#[test]
fn client_outside_the_source_ranges_is_refused_and_one_inside_is_not() -> Result<()> {
    let mut world = World::new()?;
    let allowed: [IpAddr; 2] = [world.client().ipv4.into(), world.client().ipv6.into()];
    world.wish.source_ranges = allowed.map(IpNet::from).to_vec();
    world.program()?;
    for vip in [VIP4, VIP6] {
        world.connect(vip, PORT, 0)?.ask()?;
        assert!(is_refused(world.other_client(), vip, PORT)?);
    }
    assert!(world.event(1, Event::SourceRange)? >= 2);

    world.wish.source_ranges = vec!["192.0.2.0/24".parse()?];
    world.program()?;
    connect_from(world.other_client(), VIP4, PORT, 0)?.ask()?;
    assert!(
        is_refused(world.client(), VIP6, PORT)?,
        "no IPv6 range, no IPv6 client"
    );

    world.wish.source_ranges = Vec::new();
    world.program()?;
    world.connect(VIP6, PORT, 0)?.ask()?;
    Ok(())
}

#[test]
fn open_connection_ends_when_its_client_is_no_longer_allowed() -> Result<()> {
    let mut world = World::new()?;
    let mut talk = world.connect(VIP4, PORT, 0)?;
    talk.ask()?;
    world.wish.source_ranges = vec!["198.51.100.0/24".parse()?];
    world.program()?;
    talk.say("hello?")?;
    assert!(is_refused(world.client(), VIP4, PORT)?);
    assert!(world.event(1, Event::SourceRange)? >= 2);
    Ok(())
}

#[test]
fn unknown_port_is_dropped_and_counted() -> Result<()> {
    let world = World::new()?;
    for vip in [VIP4, VIP6] {
        for port in [PORT + 1, NODE_PORT] {
            assert!(is_refused(world.client(), vip, port)?);
        }
    }
    assert!(world.event(1, Event::UnknownPort)? >= 4);
    Ok(())
}

#[test]
fn open_connections_survive_the_move_of_the_address() -> Result<()> {
    for vip in [VIP4, VIP6] {
        let mut world = World::new()?;
        let mut talks = Vec::new();
        for _ in 0..20 {
            let mut talk = world.connect(vip, PORT, 0)?;
            let answer = talk.ask()?;
            talks.push((talk, answer));
        }
        for holder in [2, 3, 1, 2] {
            world.hold(holder)?;
            for (talk, answer) in &mut talks {
                assert_eq!(talk.ask()?, *answer);
            }
        }
        assert_eq!(world.event(3, Event::FlowAdopted)?, 20);
        assert_eq!(world.service(3)?.flows, 0);
    }
    Ok(())
}

#[test]
fn open_connections_survive_a_restart_of_the_data_plane() -> Result<()> {
    let mut world = World::new()?;
    let mut talks = Vec::new();
    for _ in 0..12 {
        let mut talk = world.connect(VIP4, PORT, 0)?;
        let answer = talk.ask()?;
        talks.push((talk, answer));
    }
    let before = world.service(1)?;
    world.restart(1)?;
    assert!(world.service(1)?.packets >= before.packets);
    for (talk, answer) in &mut talks {
        assert_eq!(talk.ask()?, *answer);
    }
    assert_eq!(world.event(1, Event::FlowAdopted)?, 0);
    Ok(())
}

#[test]
fn programs_of_an_older_layout_are_replaced_and_connections_go_on() -> Result<()> {
    let mut world = World::new()?;
    let mut talks = Vec::new();
    for _ in 0..12 {
        let mut talk = world.connect(VIP4, PORT, 0)?;
        let answer = talk.ask()?;
        talks.push((talk, answer));
    }
    world.upgrade(1)?;
    for (talk, answer) in &mut talks {
        assert_eq!(talk.ask()?, *answer);
    }
    assert_eq!(world.event(1, Event::FlowAdopted)?, 12);
    Ok(())
}

#[test]
fn replies_that_are_too_big_for_a_router_are_sent_smaller() -> Result<()> {
    let world = World::new()?;
    download_through_a_narrow_router(&world)?;
    // Each node was told at least once in each family, itself included.
    assert!(world.event(1, Event::ErrorTranslated)? >= 6);
    Ok(())
}

#[test]
fn two_clients_with_one_source_port_are_both_served_by_one_target() -> Result<()> {
    let mut world = World::new()?;
    for target in [1, 2] {
        world.wish.targets = vec![target];
        world.program()?;
        for vip in [VIP4, VIP6] {
            let port = 41_000 + u16::try_from(target)?;
            let mut first = world.connect(vip, PORT, port)?;
            let mut second = connect_from(world.other_client(), vip, PORT, port)?;
            let (one, other) = (first.ask()?, second.ask()?);
            assert_eq!(one.peer.port(), port);
            assert_ne!(other.peer.port(), port);
            assert_eq!(first.ask()?, one);
            assert_eq!(second.ask()?, other);
        }
    }
    assert_eq!(world.event(1, Event::SourcePortChanged)?, 4);
    Ok(())
}

#[test]
fn large_transfers_pass_both_ways_to_every_target() -> Result<()> {
    let mut world = World::new()?;
    for target in [1, 2] {
        world.wish.targets = vec![target];
        world.program()?;
        for vip in [VIP4, VIP6] {
            let mut talk = world.connect(vip, PORT, 0)?;
            assert_eq!(talk.upload(BULK_BYTES)?, BULK_BYTES);
            assert_eq!(talk.download(BULK_BYTES)?, BULK_BYTES);
        }
    }
    assert_eq!(world.event(1, Event::RewriteFailed)?, 0);
    Ok(())
}

#[test]
fn new_connections_avoid_a_removed_target_and_open_ones_stay() -> Result<()> {
    let mut world = World::new()?;
    let mut talks = Vec::new();
    for _ in 0..12 {
        let mut talk = world.connect(VIP4, PORT, 0)?;
        let answer = talk.ask()?;
        talks.push((talk, answer));
    }
    world.wish.targets = vec![1, 2];
    world.program()?;
    let shares = spread(&world, VIP4, 20)?;
    assert_eq!(shares.keys().collect::<Vec<_>>(), ["n1", "n2"]);
    for (talk, answer) in &mut talks {
        assert_eq!(talk.ask()?, *answer);
    }
    world.wish.spread = Spread::Local;
    world.wish.targets = vec![3];
    world.program()?;
    assert_eq!(spread(&world, VIP6, 5)?.keys().collect::<Vec<_>>(), ["n3"]);
    Ok(())
}

#[test]
fn service_without_targets_or_off_is_left_to_the_stack() -> Result<()> {
    let mut world = World::new()?;
    // What kube-proxy on the holder would see: the VIP itself.
    for vip in [VIP4, VIP6] {
        world.lan.hosts[1].ip(&format!("address add {vip} dev lo"))?;
    }
    for (mode, targets) in [(Mode::NodePort, vec![]), (Mode::Off, vec![1, 2, 3])] {
        world.wish.mode = mode;
        world.wish.targets = targets;
        world.program()?;
        let before = world.event(1, Event::PassedToStack)?;
        for vip in [VIP4, VIP6] {
            assert!(is_refused(world.client(), vip, PORT)?);
        }
        assert!(world.event(1, Event::PassedToStack)? >= before + 2);
    }
    Ok(())
}

#[test]
fn echo_is_answered_by_the_holder_alone() -> Result<()> {
    let world = World::new()?;
    let ping = |vip: &str, more: &[&str]| {
        let command = [&["ping", "-c", "2", "-i", "0.2", "-W", "2"], more, &[vip]].concat();
        world.client().exec(&command)
    };
    for vip in [VIP4, VIP6] {
        ping(vip, &[])?;
        ping(vip, &["-s", "1400"])?;
    }
    assert_eq!(world.event(1, Event::EchoAnswered)?, 8);
    world.point_neighbour(world.client(), 3)?;
    for vip in [VIP4, VIP6] {
        ping(vip, &[])?;
    }
    assert_eq!(world.event(1, Event::EchoAnswered)?, 12);
    assert_eq!(world.event(3, Event::Relayed)?, 4);

    world.point_neighbour(world.client(), 1)?;
    for vip in [VIP4, VIP6] {
        assert!(ping(vip, &["-s", "3000"]).is_err(), "fragments");
    }
    assert!(world.event(1, Event::Fragment)? >= 8);
    Ok(())
}

#[test]
fn frame_that_a_node_handed_on_is_not_handed_on_again() -> Result<()> {
    let mut world = World::new()?;
    world.wish.mistaken = BTreeMap::from([(2, 3), (3, 2)]);
    world.program()?;
    world.point_neighbour(world.client(), 2)?;
    for vip in [VIP4, VIP6] {
        assert!(is_refused(world.client(), vip, PORT)?);
    }
    let relayed = world.event(2, Event::Relayed)?;
    assert!(relayed >= 2);
    world.await_event(3, Event::Loop, relayed)?;
    assert_eq!(world.event(3, Event::Relayed)?, 0);
    Ok(())
}

#[test]
fn reply_that_reaches_the_old_holder_finds_its_client() -> Result<()> {
    let mut world = World::new()?;
    world.wish.targets = vec![3];
    world.program()?;
    let mut talk = world.connect(VIP4, PORT, 0)?;
    talk.ask()?;
    world.hold(2)?;
    // The target missed the announcement: its replies go to the old holder.
    world.point_neighbour(&world.lan.hosts[3], 1)?;
    for _ in 0..3 {
        assert_eq!(talk.ask()?.node, "n3");
    }
    // A flow that the old holder never saw: it hands the reply to the new one.
    assert_eq!(world.connect(VIP4, PORT, 0)?.ask()?.node, "n3");
    assert!(world.event(1, Event::Relayed)? > 0);
    Ok(())
}

#[test]
fn stray_reply_is_dropped_by_the_holder() -> Result<()> {
    let world = World::new()?;
    for vip in [VIP4, VIP6] {
        // From the NodePort of a target to a port of the VIP that is a Service's: nobody asked.
        world.have_send(2, SocketAddr::new(vip.parse()?, PORT))?;
        world.have_send(2, SocketAddr::new(vip.parse()?, 50_000))?;
    }
    world.await_event(1, Event::StrayReply, 4)?;
    assert_eq!(world.service(1)?.packets, 0);
    Ok(())
}

#[test]
fn packet_whose_hop_limit_is_used_up_is_dropped() -> Result<()> {
    let mut world = World::new()?;
    world.wish.targets = vec![2];
    world.program()?;
    world.client().run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
        socket.set_ttl(1)?;
        socket.send_to(b"hello", (VIP4, PORT))?;
        Ok(())
    })?;
    world.await_event(1, Event::Ttl, 1)?;
    Ok(())
}

#[test]
fn address_that_is_given_up_leaves_no_entry_and_its_packets_pass() -> Result<()> {
    let mut world = World::new()?;
    world.connect(VIP4, PORT, 0)?.ask()?;
    let vips = std::mem::take(&mut world.wish.vips);
    world.program()?;
    let before = world.counters(1)?;
    assert!(before.services.is_empty());
    assert!(is_refused(world.client(), VIP4, PORT)?);
    assert_eq!(world.counters(1)?.events, before.events);
    world.wish.vips = vips;
    world.program()?;
    world.connect(VIP4, PORT, 0)?.ask()?;
    Ok(())
}

#[test]
fn programs_work_as_filters_where_there_is_no_tcx() -> Result<()> {
    let mut world = World::on(&[Hook::Clsact])?;
    for vip in [VIP4, VIP6] {
        let shares = spread(&world, vip, 20)?;
        assert_eq!(shares.len(), 3, "{shares:?}");
    }
    let mut talk = world.connect(VIP4, PORT, 0)?;
    let answer = talk.ask()?;
    world.restart(1)?;
    assert_eq!(talk.ask()?, answer);
    let filters = |world: &World| {
        world.lan.hosts[1].exec(&["tc", "filter", "show", "dev", "eth0", "ingress"])
    };
    assert_eq!(filters(&world)?.matches("direct-action").count(), 1);
    world.detach(1)?;
    assert_eq!(filters(&world)?, "");
    Ok(())
}

#[test]
fn detached_programs_leave_everything_alone() -> Result<()> {
    let mut world = World::new()?;
    world.detach(1)?;
    // The kernel lets go of a link some time after its last name is gone.
    eventually("nothing forwards any more", LONG, || {
        same(&is_refused(world.client(), VIP4, PORT)?, &true)
    })?;
    let before = world.service(1)?;
    assert!(is_refused(world.client(), VIP4, PORT)?);
    assert_eq!(world.service(1)?, before);
    world.detach(1)?;
    world.restart(1)?;
    world.connect(VIP4, PORT, 0)?.ask()?;
    Ok(())
}

#[test]
fn what_somebody_takes_away_is_found_and_put_back() -> Result<()> {
    for hook in [Hook::Tcx, Hook::Clsact] {
        let mut world = World::on(&[hook])?;
        same(&world.reattach(1)?, &false)?;
        if hook == Hook::Tcx {
            let pins = world.pins(1)?;
            let links = pins.join(only_name(&pins)?).join("links");
            for link in fs::read_dir(&links)? {
                fs::remove_file(link?.path())?;
            }
        } else {
            world.lan.hosts[1].exec(&["tc", "qdisc", "del", "dev", "eth0", "clsact"])?;
        }
        same(&world.reattach(1)?, &true)?;
        same(&world.reattach(1)?, &false)?;
        world.connect(VIP4, PORT, 0)?.ask()?;

        same(&world.missing(1)?, &None)?;
        for map in [MapName::Vips, MapName::Services, MapName::Filters] {
            same(&world.lose_entry(1, map)?, &Some(map))?;
            world.program()?;
            same(&world.missing(1)?, &None)?;
            world.connect(VIP4, PORT, 0)?.ask()?;
        }
    }
    Ok(())
}

#[test]
fn client_behind_a_router_is_served() -> Result<()> {
    let world = World::new()?;
    // Host 4 is the router, and the client behind it has its addresses there.
    let mut remote = world.other_client().clone();
    let router = (remote.ipv4, remote.ipv6);
    remote.ipv4 = "198.51.100.7".parse()?;
    remote.ipv6 = "2001:db8:7::7".parse()?;
    remote.ip(&format!("address add {}/32 dev lo", remote.ipv4))?;
    remote.ip(&format!("address add {}/128 dev lo nodad", remote.ipv6))?;
    for node in 1..=3 {
        world.lan.hosts[node].ip_batch(&[
            format!("route add 198.51.100.0/24 via {}", router.0),
            format!("route add 2001:db8:7::/64 via {}", router.1),
        ])?;
    }
    for vip in [VIP4, VIP6] {
        let mut nodes = BTreeSet::new();
        for _ in 0..20 {
            nodes.insert(connect_from(&remote, vip, PORT, 0)?.ask()?.node);
        }
        assert_eq!(nodes.len(), 3, "{nodes:?}");
        ask_from(&remote, vip, 0)?;
    }
    Ok(())
}

#[test]
fn address_outside_every_node_prefix_is_served() -> Result<()> {
    let mut world = World::new()?;
    let vips = ["203.0.113.10", "2001:db8:203::10"];
    // Clients and nodes reach it through host 4, which knows the holder.
    let router = world.other_client().clone();
    for forwarding in [
        "net.ipv4.ip_forward=1",
        "net.ipv6.conf.all.forwarding=1",
        "net.ipv4.conf.all.send_redirects=0",
        "net.ipv4.conf.eth0.send_redirects=0",
    ] {
        router.exec(&["sysctl", "-q", forwarding])?;
    }
    router.ip_batch(&[
        "route add 203.0.113.0/24 dev eth0".to_owned(),
        "route add 2001:db8:203::/64 dev eth0".to_owned(),
    ])?;
    for host in &world.lan.hosts[..4] {
        host.exec(&["sysctl", "-q", "net.ipv6.conf.all.accept_redirects=0"])?;
        host.exec(&["sysctl", "-q", "net.ipv6.conf.eth0.accept_redirects=0"])?;
        host.ip_batch(&[
            format!("route add default via {}", router.ipv4),
            format!("route add default via {}", router.ipv6),
        ])?;
    }
    world.wish.vips = vips.to_vec();
    world.program()?;
    world.point_neighbour(&router, 1)?;
    for vip in vips {
        let shares = spread(&world, vip, 20)?;
        assert_eq!(shares.len(), 3, "{shares:?}");
        world.ask(vip, 0)?;
    }
    Ok(())
}

#[test]
fn client_is_told_when_the_target_refuses_its_datagram() -> Result<()> {
    let mut world = World::new()?;
    // A NodePort that nobody listens on, as without endpoints.
    world.wish.node_port = NODE_PORT + 1;
    for target in [1, 2] {
        world.wish.targets = vec![target];
        world.program()?;
        for vip in [VIP4, VIP6] {
            let error = world.ask(vip, 0).unwrap_err();
            let error = error.downcast_ref::<std::io::Error>().unwrap();
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{vip}");
        }
    }
    assert_eq!(world.event(1, Event::ErrorTranslated)?, 4);
    Ok(())
}
