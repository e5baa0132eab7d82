//! A cluster to which exactly what a test says happens.

use std::time::Duration;

use super::world::World;

/// A cluster whose API server is away from the moment that everything has settled until it is said
/// to return: what happens is up to the speakers.
pub struct Cluster {
    world: World,
}

impl Cluster {
    /// So many nodes and addresses, settled.
    pub fn new(nodes: usize, vips: usize, seed: u64) -> Self {
        let mut world = World::new(nodes, vips, seed, false);
        world.flaky = false;
        world.run(Duration::from_secs(5));
        world.api_up = false;
        Self { world }
    }

    /// The nodes planned for an address, in order.
    pub fn candidates(&self, vip: usize) -> Vec<usize> {
        let planned = self.world.api.vips.get(&self.world.vips[vip]);
        let segments = planned.map_or(&[][..], |stored| &stored.spec.segments);
        let candidates = segments.iter().flat_map(|segment| &segment.candidates);
        let numbers = candidates.filter_map(|candidate| {
            let mut hosts = self.world.hosts.iter();
            hosts.position(|host| host.name == candidate.node)
        });
        numbers.collect()
    }

    /// The nodes that answer for an address.
    pub fn holders(&self, vip: usize) -> Vec<usize> {
        let address = self.world.vips[vip];
        (0..self.world.hosts.len())
            .filter(|node| self.world.hosts[*node].answers(address))
            .collect()
    }

    /// The life of a node on the segment; `None` while it is off.
    pub fn life(&mut self, node: usize) -> Option<u64> {
        self.world.ring_of(node).map(|ring| ring.incarnation().0)
    }

    /// The witness answers those on this side; `None`: there is none.
    pub fn set_witness(&mut self, side: Option<u8>) {
        self.world.lan.witness = side;
    }

    /// Only these nodes are on side 1.
    pub fn part(&mut self, others: &[usize]) {
        self.world.lan.sides.fill(0);
        for node in others {
            self.world.lan.sides[*node] = 1;
        }
        if self.world.api_up {
            self.world.reconnect();
        }
    }

    /// The API server is there again, on side 0.
    pub fn return_api(&mut self) {
        self.world.api_up = true;
        self.world.reconnect();
    }

    /// The node loses power.
    pub fn cut_power(&mut self, node: usize) {
        self.world.hosts[node].powered = false;
        self.world.kill(node);
    }

    /// Its speaker is asked to end.
    pub fn stop(&mut self, node: usize) {
        self.world.stop(node);
    }

    /// Its speaker is killed.
    pub fn kill(&mut self, node: usize) {
        self.world.kill(node);
    }

    /// It gets power again.
    pub fn boot(&mut self, node: usize) {
        let host = &mut self.world.hosts[node];
        host.powered = true;
        host.boot += 1;
        self.world.start(node);
    }

    /// Lets time pass.
    pub fn run(&mut self, time: Duration) {
        self.world.run(time);
    }
}
