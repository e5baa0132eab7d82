//! Maps of the kernel's that are full.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::Result;
use herald_dataplane::{DesiredService, Event, Holder, MapName, RANGES, Refused, SERVICE_RANGES};
use herald_model::{Protocol, ServiceKey};
use herald_speaker::io::bpf::TestRun;
use ipnet::IpNet;

use crate::bench::{Bench, DIRECT_RANGED_PORT, LOOPBACK, direct};
use crate::frame::{CLIENT4, Frame, VIP4};

const FIRST_PORT: u16 = 1_000;

/// A Service with as many source ranges as one may have, the client's address among them.
fn ranged(port: u16) -> Result<DesiredService> {
    let others =
        (1..u32::try_from(SERVICE_RANGES)?).map(|number| Ipv4Addr::from(0x0a00_0000 + number));
    let ranges = others
        .chain([CLIENT4])
        .map(|address| IpNet::from(IpAddr::from(address)));
    Ok(DesiredService {
        service: ServiceKey::new("default", format!("full{port}")),
        protocol: Protocol::Tcp,
        port,
        forwarding: direct(&[2]),
        source_ranges: ranges.collect(),
    })
}

#[test]
fn a_full_map_of_source_ranges_leaves_one_service_to_kube_proxy_and_stops_nobody_else() -> Result<()>
{
    let mut bench = Bench::new()?;
    let count = u16::try_from(usize::try_from(RANGES)? / SERVICE_RANGES)?;
    let last = FIRST_PORT + count - 1;
    let vip = bench.desired.vips.get_mut(&VIP4.into()).expect("its vip");
    for port in FIRST_PORT..=last {
        vip.services.push(ranged(port)?);
    }
    let compiled = bench.program()?;
    let refused = Refused::NoRoomForRanges {
        service: ServiceKey::new("default", format!("full{last}")),
        ranges: SERVICE_RANGES,
    };
    assert_eq!(compiled.refused, [refused]);

    let to = |port: u16| {
        let mut frame = Frame::v4(Protocol::Tcp);
        frame.to.1 = port;
        frame
    };
    for port in [DIRECT_RANGED_PORT, FIRST_PORT, last - 1] {
        let frame = to(port);
        assert_eq!(
            bench.run(&frame.bytes())?.verdict,
            TestRun::REDIRECT,
            "{port}"
        );
        let mut stranger = frame;
        stranger.from.0 = Ipv4Addr::new(203, 0, 113, 1).into();
        bench.drops(&stranger.bytes(), Event::SourceRange)?;
    }
    let crowded = to(last).bytes();
    bench.leaves(&crowded, TestRun::NEXT, Some(Event::PassedToStack))?;

    // What is programmed after it is programmed all the same.
    bench.held_by(Holder::Nobody)?;
    let vips = bench.contents.entries(MapName::Vips);
    let vips = vips.map(|(key, value)| (MapName::Vips, key, value));
    assert_eq!(bench.data_plane.missing(vips)?, None);

    // Another one goes, and there is room once that is written.
    let vip = bench.desired.vips.get_mut(&VIP4.into()).expect("its vip");
    vip.services.retain(|service| service.port != FIRST_PORT);
    vip.holders = BTreeMap::from([(LOOPBACK, Holder::Me)]);
    bench.program()?;
    assert_eq!(bench.program()?.refused, []);
    assert_eq!(bench.run(&crowded)?.verdict, TestRun::REDIRECT);
    Ok(())
}

#[test]
fn all_counters_read_at_once_are_those_read_one_by_one() -> Result<()> {
    let mut bench = Bench::new()?;
    let vip = bench.desired.vips.get_mut(&VIP4.into()).expect("its vip");
    vip.services = (1..=10_000)
        .map(|port| DesiredService {
            service: ServiceKey::new("default", format!("many{port}")),
            protocol: Protocol::Tcp,
            port,
            forwarding: direct(&[2]),
            source_ranges: Arc::from([]),
        })
        .collect();
    let ids = bench.program()?.service_ids;
    let mut frame = Frame::v4(Protocol::Tcp);
    for port in [1, 8_500, 10_000, 10_000] {
        frame.to.1 = port;
        assert_eq!(bench.run(&frame.bytes())?.verdict, TestRun::REDIRECT);
    }
    let counted = bench.data_plane.counters()?.services;
    // Those of the address of IPv6 are there, too.
    assert!(counted.len() > 10_000);
    for (key, id) in ids {
        let packets = bench.data_plane.packets(id)?;
        assert_eq!(counted[&id].packets, packets, "{key}");
    }
    let all: u64 = counted.values().map(|of| of.packets).sum();
    assert_eq!(all, 4);
    Ok(())
}
