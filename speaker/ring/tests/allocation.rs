//! After the start, nothing is allocated: the thread that runs the ring shall never wait for memory.

use std::collections::VecDeque;
use std::time::Duration;

use herald_model::{Incarnation, Instant};
use herald_ring::{
    Authenticator, Config, Effect, Input, KeyId, Keys, Member, Packet, Profile, Ring, Tag,
};

#[path = "counting/allocator.rs"]
mod allocator;

/// Too simple to be safe, and free of allocations.
struct Sum;

impl Authenticator for Sum {
    fn tag(&self, key: KeyId, parts: [&[u8]; 2]) -> Option<Tag> {
        let sum = parts
            .iter()
            .flat_map(|part| part.iter())
            .fold(u64::from(key.0), |sum, byte| {
                sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
            });
        let mut tag = [0; 16];
        tag[..8].copy_from_slice(&sum.to_be_bytes());
        Some(Tag(tag))
    }
}

/// Rings that reach each other at once.
struct Net {
    rings: Vec<Ring<Sum>>,
    members: Vec<Member>,
    now: Instant,
    effects: Vec<Effect>,
    sent: VecDeque<(usize, Packet)>,
    alive: Vec<bool>,
}

impl Net {
    fn new(nodes: u8) -> Self {
        let members: Vec<Member> = (0..nodes)
            .map(|node| Member {
                node: format!("node{node}").into(),
                address: [10, 0, 0, node].into(),
                incarnation: Incarnation(1),
            })
            .collect();
        let now = Instant::ORIGIN + Duration::from_secs(1);
        let config = Config {
            profile: Profile::Fast,
            cluster: "cluster".to_owned(),
            segment: "10.0.0.0/24".into(),
            first_sequence: 1,
        };
        let rings = (0..).zip(&members).map(|(seed, me)| {
            let mut ring = Ring::new(&config, Sum, me, &members, seed, now);
            let keys = Some(Keys::only(KeyId(1)));
            ring.handle(now, Input::KeysChanged(keys), &mut Vec::new());
            ring
        });
        Self {
            rings: rings.collect(),
            members: members.clone(),
            now,
            effects: Vec::with_capacity(1_024),
            sent: VecDeque::with_capacity(4_096),
            alive: vec![true; members.len()],
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let living = (0..self.rings.len()).filter(|node| self.alive[*node]);
            let next = living
                .filter_map(|node| self.rings[node].next_deadline().map(|at| (at, node)))
                .min();
            let Some((at, node)) = next.filter(|(at, _)| *at <= end) else {
                break;
            };
            self.now = at.max(self.now);
            self.rings[node].on_deadline(self.now, &mut self.effects);
            self.carry_out();
            while let Some((to, packet)) = self.sent.pop_front() {
                let input = Input::DatagramReceived {
                    bytes: packet.as_bytes(),
                };
                if self.alive[to] {
                    self.rings[to].handle(self.now, input, &mut self.effects);
                    self.carry_out();
                }
            }
        }
        self.now = end;
    }

    fn carry_out(&mut self) {
        for effect in self.effects.drain(..) {
            if let Effect::Send { to, packet } = effect {
                let mut members = self.members.iter();
                if let Some(to) = members.position(|member| member.address == to) {
                    self.sent.push_back((to, packet));
                }
            }
        }
    }

    fn allocations(&mut self, time: Duration) -> u64 {
        let before = allocator::calls();
        self.run(time);
        allocator::calls() - before
    }
}

#[test]
fn nothing_is_allocated_after_the_start_not_even_when_a_member_dies() {
    for nodes in [3, 20] {
        let mut net = Net::new(nodes);
        net.run(Duration::from_secs(5));
        assert_eq!(net.allocations(Duration::from_mins(1)), 0);
        // Suspicion, pokes, votes, certificate, flood, and who observes whom anew.
        net.alive[1] = false;
        assert_eq!(net.allocations(Duration::from_secs(5)), 0);
        assert_eq!(net.rings[0].live(&net.members[1].node), None);
        net.alive[1] = true;
        assert_eq!(net.allocations(Duration::from_secs(5)), 0);
        assert_eq!(
            net.rings[0].live(&net.members[1].node),
            Some(Incarnation(2))
        );
    }
}
