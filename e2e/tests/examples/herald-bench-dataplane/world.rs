//! The real adapter on real kernel maps, of one node that is nowhere attached; no API server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use herald_dataplane::{
    Compiled, Desired, DesiredNode, DesiredPod, DesiredService, DesiredVip, Forwarding, Holder,
    MapContents, MapOp, Spread, Targets, compile, diff,
};
use herald_e2e::netns::Lan;
use herald_model::{IfIndex, MacAddress, NodeName, Protocol, ServiceKey};
use herald_speaker::io::bpf::{DEFAULT_FLOWS, DataPlane, Options, clock};

pub(crate) const PORT: u16 = 80;
const NODES: u8 = 16;
/// Nodes with pods of a Service under Local.
const NODES_WITH_PODS: u8 = 3;
const LOOPBACK: IfIndex = IfIndex(1);
const SEED: u64 = 42;

/// What all Services of a wish have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// All nodes are targets of all Services, which share one table.
    Cluster,
    /// Three nodes with one to four pods each, others for each Service: a table for each.
    Local,
    /// As `Local`, by `NodePort`, on another node than ours.
    NodePort,
    /// Two pods of our own node take all: what a target does.
    Pod,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Cluster => "Cluster",
            Self::Local => "Local",
            Self::NodePort => "nodeport",
            Self::Pod => "pod",
        }
    }
}

/// The address of a Service: the lower half counts them.
pub(crate) fn vip(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + number)
}

fn node(number: u8) -> NodeName {
    NodeName::from(format!("n{number}"))
}

fn mac(number: u8) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, number])
}

/// The targets of a Service under Local, with so many pods more than usual on the first.
pub(crate) fn local(number: u32, more: u32) -> Arc<Targets> {
    let weights = (0..NODES_WITH_PODS).map(|place| {
        // Neither is our own node, whose packets would go up.
        let at = (number * 7 + u32::from(place) * 5) % u32::from(NODES - 1);
        let name = node(u8::try_from(at).unwrap_or_default() + 2);
        let pods = 1 + (number + u32::from(place)) % 4;
        (name, if place == 0 { pods + more } else { pods })
    });
    Arc::new(Targets {
        spread: Spread::Local,
        weights: weights.collect(),
    })
}

fn own_pods() -> Arc<[DesiredPod]> {
    let pod = |last| DesiredPod {
        address: SocketAddr::from(([10, 244, 1, last], 8_080)),
        takes_new: true,
    };
    Arc::new([pod(1), pod(2)])
}

/// The wish of node n1, which holds all addresses: so many Services with an address and a port each.
pub(crate) fn wish(kind: Kind, services: u32) -> Desired {
    let nodes = (1..=NODES).map(|number| {
        let wish = DesiredNode {
            ipv4: Some(Ipv4Addr::new(192, 0, 2, number)),
            is_self: number == 1,
            macs: BTreeSet::from([mac(number)]),
            links: BTreeMap::from([(LOOPBACK, mac(number))]),
            ..DesiredNode::default()
        };
        (node(number), wish)
    });
    let everywhere = Arc::new(Targets {
        spread: Spread::Cluster,
        weights: (2..=NODES).map(|number| (node(number), 1)).collect(),
    });
    let vips = (0..services).map(|number| {
        let dsr = |targets| Forwarding::Dsr {
            targets,
            by_address: false,
            node_port: None,
        };
        let forwarding = match kind {
            Kind::Cluster => dsr(Arc::clone(&everywhere)),
            Kind::Local => dsr(local(number, 0)),
            Kind::NodePort => Forwarding::NodePort {
                node_port: 30_000 + u16::try_from(number % 2_768).unwrap_or_default(),
                targets: local(number, 0),
            },
            Kind::Pod => Forwarding::Pod {
                targets: Arc::new(Targets {
                    spread: Spread::Local,
                    weights: BTreeMap::from([(node(1), 2)]),
                }),
                by_address: false,
                pods: own_pods(),
            },
        };
        let service = DesiredService {
            service: ServiceKey::new("default", format!("s{number}")),
            protocol: Protocol::Tcp,
            port: PORT,
            forwarding,
            source_ranges: Arc::default(),
        };
        let wish = DesiredVip {
            holders: BTreeMap::from([(LOOPBACK, Holder::Me)]),
            services: vec![service],
        };
        (vip(number).into(), wish)
    });
    Desired {
        seed: SEED,
        ignores_echo: false,
        interfaces: BTreeMap::from([(LOOPBACK, MacAddress([2, 0, 0, 0, 1, 1]))]),
        nodes: nodes.collect(),
        vips: vips.collect(),
    }
}

/// Whether everything that was wished for is to be had.
pub(crate) fn is_whole(compiled: &Compiled) -> Result<()> {
    let refused = &compiled.refused;
    ensure!(
        refused.is_empty(),
        "{} wishes are refused, the first {:?}",
        refused.len(),
        refused.first()
    );
    Ok(())
}

/// A data plane with empty maps of its own.
pub(crate) struct World {
    pub(crate) data_plane: DataPlane,
    pub(crate) contents: MapContents,
    // Dropped last: the pins go with it.
    pub(crate) lan: Lan,
}

impl World {
    pub(crate) fn new() -> Result<Self> {
        let lan = Lan::new(1)?;
        let data_plane = DataPlane::open(&Options {
            pin_root: lan.bpf_folder()?,
            flows: DEFAULT_FLOWS,
            ..Options::default()
        })?;
        Ok(Self {
            contents: data_plane.read()?,
            data_plane,
            lan,
        })
    }

    /// Where its maps are pinned.
    pub(crate) fn pins(&self) -> Result<PathBuf> {
        let mut layouts = fs::read_dir(self.lan.bpf_folder()?)?;
        Ok(layouts.next().context("no maps")??.path())
    }

    /// What is to be written for a wish.
    pub(crate) fn plan(&self, wish: &Desired) -> (Compiled, Vec<MapOp>) {
        let compiled = compile(&self.contents, wish, clock());
        let ops = diff(&self.contents, &compiled.contents);
        (compiled, ops)
    }

    /// Writes it.
    pub(crate) fn write(&mut self, compiled: Compiled, ops: &[MapOp]) -> Result<()> {
        self.data_plane.apply(ops)?;
        self.contents = compiled.contents;
        Ok(())
    }
}
