//! The ingress program on a bench: single frames go in and come out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use anyhow::{Result, ensure};
use herald_dataplane::{
    Compiled, Desired, DesiredNode, DesiredService, DesiredVip, Event, Forwarding, Holder,
    MapContents, Spread, Targets, compile, diff,
};
use herald_e2e::netns::Lan;
use herald_model::{IfIndex, Instant, MacAddress, NodeName, Protocol, ServiceKey};
use herald_speaker::io::bpf::{DataPlane, Options, TestRun};

use crate::frame::{PORT, VIP4, VIP6};

pub(crate) const LOOPBACK: IfIndex = IfIndex(1);
pub(crate) const RANGED_PORT: u16 = 81;
pub(crate) const OFF_PORT: u16 = 82;
/// Ports in mode `dsr`; of the second, clients outside the ranges are dropped.
pub(crate) const DIRECT_PORT: u16 = 83;
pub(crate) const DIRECT_RANGED_PORT: u16 = 84;
pub(crate) const NODE_PORT: u16 = 30_080;
/// Our own on interface 1; the program is to write it, and must not know it as a node's: repeated
/// runs see it as the sender's.
pub(crate) const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 1, 1];
pub(crate) const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
pub(crate) const SEED: u64 = 42;

/// A loaded program that never was attached, and its maps.
pub(crate) struct Bench {
    pub(crate) data_plane: DataPlane,
    pub(crate) contents: MapContents,
    pub(crate) desired: Desired,
    /// What changes from now on does so at this time; the origin: long ago.
    pub(crate) now: Instant,
    // Dropped last: the pins go with it.
    pub(crate) lan: Lan,
}

impl Bench {
    /// Node n2 is the only target; we are n1 and hold the VIPs.
    pub(crate) fn new() -> Result<Self> {
        Self::with(desired(), 1_024)
    }

    /// The same with this wish from the start, and tables for so many flows.
    pub(crate) fn with(desired: Desired, flows: u32) -> Result<Self> {
        Self::start(desired, flows, Instant::ORIGIN)
    }

    /// With this wish from the start, and at this time.
    pub(crate) fn at(desired: Desired, now: Instant) -> Result<Self> {
        Self::start(desired, 1_024, now)
    }

    fn start(desired: Desired, flows: u32, now: Instant) -> Result<Self> {
        let lan = Lan::new(1)?;
        let options = Options {
            pin_root: lan.bpf_folder()?,
            flows,
            ..Options::default()
        };
        let data_plane = DataPlane::open(&options)?;
        let mut bench = Self {
            contents: data_plane.read()?,
            data_plane,
            desired,
            now,
            lan,
        };
        bench.program()?;
        Ok(bench)
    }

    pub(crate) fn program(&mut self) -> Result<Compiled> {
        let compiled = compile(&self.contents, &self.desired, self.now);
        self.data_plane
            .apply(&diff(&self.contents, &compiled.contents))?;
        self.contents = compiled.contents.clone();
        Ok(compiled)
    }

    pub(crate) fn held_by(&mut self, holder: Holder) -> Result<()> {
        for vip in self.desired.vips.values_mut() {
            vip.holders = BTreeMap::from([(LOOPBACK, holder)]);
        }
        self.program()?;
        Ok(())
    }

    /// The targets of every Service.
    pub(crate) fn aim_at(&mut self, nodes: &[u8]) -> Result<()> {
        let new = targets(nodes);
        for vip in self.desired.vips.values_mut() {
            for service in &mut vip.services {
                if let Forwarding::NodePort { targets, .. } | Forwarding::Dsr { targets, .. } =
                    &mut service.forwarding
                {
                    *targets = Arc::clone(&new);
                }
            }
        }
        self.program()?;
        Ok(())
    }

    /// How the direct ports are forwarded from now on.
    pub(crate) fn forward_direct_ports(&mut self, forwarding: &Forwarding) -> Result<()> {
        for vip in self.desired.vips.values_mut() {
            for service in &mut vip.services {
                if [DIRECT_PORT, DIRECT_RANGED_PORT].contains(&service.port) {
                    service.forwarding = forwarding.clone();
                }
            }
        }
        self.program()?;
        Ok(())
    }

    pub(crate) fn run(&mut self, frame: &[u8]) -> Result<TestRun> {
        let data_plane = &mut self.data_plane;
        self.lan.hosts[0].run(|| Ok(data_plane.test_ingress(frame)?))
    }

    pub(crate) fn passes(&mut self, frame: &[u8]) -> Result<()> {
        self.leaves(frame, TestRun::NEXT, None)
    }

    pub(crate) fn drops(&mut self, frame: &[u8], event: Event) -> Result<()> {
        self.leaves(frame, TestRun::DROP, Some(event))
    }

    /// The frame stays as it is, and nothing but this is counted.
    pub(crate) fn leaves(
        &mut self,
        frame: &[u8],
        verdict: i32,
        event: Option<Event>,
    ) -> Result<()> {
        let before = self.data_plane.counters()?.events;
        let result = self.run(frame)?;
        let after = self.data_plane.counters()?.events;
        let counted: Vec<Event> = Event::ALL
            .iter()
            .copied()
            .filter(|event| after[event] > before[event])
            .collect();
        ensure!(
            (result.verdict, counted.as_slice()) == (verdict, event.as_slice()),
            "verdict {} and {counted:?}",
            result.verdict
        );
        ensure!(result.frame == frame, "the frame was changed");
        Ok(())
    }

    /// The frame is sent on as this one.
    pub(crate) fn becomes(&mut self, frame: &[u8], expected: &[u8]) -> Result<()> {
        is_sent_as(&self.run(frame)?, expected)
    }
}

/// Sent on in this form.
pub(crate) fn is_sent_as(result: &TestRun, expected: &[u8]) -> Result<()> {
    ensure!(
        (result.verdict, result.frame.as_slice()) == (TestRun::REDIRECT, expected),
        "verdict {}\nis       {:02x?}\nshould be {expected:02x?}",
        result.verdict,
        result.frame
    );
    Ok(())
}

pub(crate) fn node(number: u8) -> NodeName {
    NodeName::from(format!("n{number}"))
}

pub(crate) fn node4(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, number)
}

pub(crate) fn node6(number: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into())
}

pub(crate) fn targets(nodes: &[u8]) -> Arc<Targets> {
    Arc::new(Targets {
        spread: Spread::Cluster,
        weights: nodes.iter().map(|&number| (node(number), 1)).collect(),
    })
}

/// By MAC address alone: there is no `NodePort`.
pub(crate) fn direct(nodes: &[u8]) -> Forwarding {
    Forwarding::Dsr {
        targets: targets(nodes),
        by_address: false,
        node_port: None,
    }
}

pub(crate) fn desired() -> Desired {
    let nodes = (1..=3).map(|number| {
        let wish = DesiredNode {
            ipv4: Some(node4(number)),
            ipv6: Some(node6(number)),
            is_self: number == 1,
            interface: None,
            macs: BTreeSet::from([MacAddress([2, 0, 0, 0, 0, number])]),
            links: BTreeMap::from([(LOOPBACK, MacAddress([2, 0, 0, 0, 0, number]))]),
        };
        (node(number), wish)
    });
    let mut services = Vec::new();
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        for port in [PORT, RANGED_PORT, OFF_PORT, DIRECT_PORT, DIRECT_RANGED_PORT] {
            let forwarding = match port {
                OFF_PORT => Forwarding::Off,
                DIRECT_PORT | DIRECT_RANGED_PORT => direct(&[2]),
                _ => Forwarding::NodePort {
                    node_port: NODE_PORT - PORT + port,
                    targets: targets(&[2]),
                },
            };
            let ranges: &[&str] = match port {
                RANGED_PORT | DIRECT_RANGED_PORT => &["198.51.100.0/24", "2001:db8:7::/48"],
                _ => &[],
            };
            services.push(DesiredService {
                service: ServiceKey::new("default", format!("s{port}")),
                protocol,
                port,
                forwarding,
                source_ranges: ranges.iter().map(|range| range.parse().unwrap()).collect(),
            });
        }
    }
    let vip = DesiredVip {
        holders: BTreeMap::from([(LOOPBACK, Holder::Me)]),
        services,
    };
    Desired {
        seed: SEED,
        ignores_echo: false,
        interfaces: BTreeMap::from([(LOOPBACK, MacAddress(OUR_MAC))]),
        nodes: nodes.collect(),
        vips: BTreeMap::from([(VIP4.into(), vip.clone()), (VIP6.into(), vip)]),
    }
}
