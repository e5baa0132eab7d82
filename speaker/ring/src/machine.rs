//! The machine of one ring on one segment.

use std::time::Duration;

use herald_model::{Incarnation, Instant, NodeName};

use crate::NodeId;
use crate::auth::Authenticator;
use crate::codec::{Heartbeat, Item, Kind, Poke, Report, Standing, Statement, Voters};
use crate::config::{Config, Member, Profile};
use crate::face::{Counters, Effect, Input, RaiseReason};
use crate::id::Random;
use crate::packet::Packet;
use crate::peers::{Index, Observers, Peers};
use crate::post::Post;
use crate::watch::{Votes, Watch};

mod detect;
mod holds;
mod quorum;
mod receive;
mod repair;
mod sides;
mod silence;
mod view;

use holds::Holds;
use quorum::{Poll, Witness};
use silence::Silence;
use view::{Flood, Pending};

/// A member that was just listed may not be listed everywhere yet.
const JOIN_GRACE: Duration = Duration::from_secs(2);
/// Members to be greeted with each heartbeat, so that they have proved themselves before it counts.
const GREETINGS: usize = 16;
/// Heartbeats after which one of the dead is asked whether it is.
const SEEK_EVERY: u32 = 4;

/// The ring on one segment, as one member runs it.
#[derive(Debug)]
pub struct Ring<A> {
    profile: Profile,
    post: Post<A>,
    random: Random,
    peers: Peers,
    /// Ours.
    observers: Observers,
    watches: Vec<Watch>,
    scratch: Vec<Watch>,
    votes: Votes,
    poll: Poll,
    witness: Witness,
    flood: Flood,
    pending: Pending,
    holds: Holds,
    silence: Option<Silence>,
    report: Report,
    carrier: bool,
    heartbeat_at: Instant,
    greeted: usize,
    beats: u32,
    sought: usize,
    /// Standings have changed, and with them who observes whom.
    rearrange: bool,
    deadline: Option<Instant>,
    counters: Counters,
}

impl<A: Authenticator> Ring<A> {
    /// A ring that begins with the members of the last view: those in the snapshot on disk, else
    /// those the API lists. It has no keys yet, and is silent until it gets some.
    ///
    /// `me` says where we are and in which life; `seed` is from the operating system's random
    /// numbers, and nobody else knows it.
    pub fn new(
        config: &Config,
        auth: A,
        me: &Member,
        members: &[Member],
        seed: u128,
        now: Instant,
    ) -> Self {
        let peers = Peers::new(me, members, now);
        let mut ring = Self {
            profile: config.profile,
            post: Post::new(config, auth, NodeId::of(&me.node)),
            random: Random::new(seed),
            observers: peers.observers_of(peers.me()),
            peers,
            watches: Vec::new(),
            scratch: Vec::new(),
            votes: Votes::new(),
            poll: Poll::new(now),
            witness: Witness::default(),
            flood: Flood::new(),
            pending: Pending::new(),
            holds: Holds::new(),
            silence: None,
            report: Report::default(),
            carrier: true,
            heartbeat_at: now,
            greeted: 0,
            beats: 0,
            sought: 0,
            rearrange: true,
            deadline: None,
            counters: Counters::default(),
        };
        ring.recount();
        ring.make_room();
        ring.rearrange(now, &mut Vec::new());
        ring
    }

    /// Takes an input in, and says what is to be done.
    pub fn handle(&mut self, now: Instant, input: Input<'_>, out: &mut Vec<Effect>) {
        self.forgive_stall(now, out);
        match input {
            Input::Woken => {}
            Input::DatagramReceived { bytes } => self.receive(now, bytes, out),
            Input::MembersChanged(members) => self.change_members(now, members),
            Input::KeysChanged(keys) => {
                let was_mute = self.is_mute();
                self.post.keys = keys;
                self.unmute(now, was_mute);
            }
            Input::KernelAnswered { address } => self.kernel_answered(now, address),
            Input::WitnessAnswered => self.witness_answered(now, out),
            Input::CarrierChanged(carrier) => {
                let was_mute = self.is_mute();
                self.carrier = carrier;
                self.unmute(now, was_mute);
            }
            Input::SteppedDown => {
                let next = Incarnation(self.peers.own().incarnation.0.saturating_add(1));
                self.raise(now, next, RaiseReason::SteppedDown, out);
            }
            Input::Reported(report) => self.report = report,
            Input::HoldChanged {
                vip,
                epoch,
                rank,
                tenure,
            } => self.hold_changed(now, (vip, epoch, rank, tenure)),
        }
        self.settle(now, out);
    }

    /// When [`Self::on_deadline`] is to be called at the latest. `None`: only after an input.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Does what is due. What the sockets hold must have been handed in before. Early calls do
    /// nothing.
    pub fn on_deadline(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.forgive_stall(now, out);
        if !self.is_mute() {
            if now >= self.heartbeat_at {
                self.beat(now, out);
            }
            self.tick_watches(now, out);
            self.tick_poll(now, out);
            self.tick_silence(now, out);
            self.tick_holds(now, out);
        }
        self.settle(now, out);
    }

    /// Our life on the segment.
    pub fn incarnation(&self) -> Incarnation {
        self.peers.own().incarnation
    }

    /// The life in which this node is up, as far as is known; `None` if it is down or no member.
    /// A member just listed is up until it is found to be dead.
    pub fn live(&self, node: &NodeName) -> Option<Incarnation> {
        self.peers
            .by_name(node)
            .filter(|peer| peer.is_up())
            .map(|peer| peer.incarnation)
    }

    /// How this member stands, and in which life.
    pub fn standing(&self, node: &NodeName) -> Option<(Incarnation, Standing)> {
        self.peers
            .by_name(node)
            .map(|peer| (peer.incarnation, peer.standing))
    }

    /// The members that count for quorum: what the snapshot on disk keeps as the last view.
    pub fn last_view(&self) -> impl Iterator<Item = Member> {
        self.peers
            .iter()
            .filter(|peer| peer.in_base)
            .map(|peer| Member {
                node: peer.node.clone(),
                address: peer.address,
                incarnation: peer.incarnation,
            })
    }

    /// Whether most of the last view was reached when it last counted.
    pub fn has_quorum(&self) -> bool {
        self.poll.said.is_some_and(|said| said.quorum)
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    fn is_mute(&self) -> bool {
        !self.carrier || self.post.keys.is_none()
    }

    /// After a time in which nobody could be heard, everybody has another chance.
    fn unmute(&mut self, now: Instant, was_mute: bool) {
        if was_mute && !self.is_mute() {
            self.heartbeat_at = now;
            self.votes.clear();
            for watch in &mut self.watches {
                watch.begin_anew(Duration::ZERO);
                watch.quiet_from = watch.quiet_from.max(now);
            }
        }
    }

    fn change_members(&mut self, now: Instant, members: &[Member]) {
        self.peers.change(members, now, false);
        self.recount();
        // Indices have changed; ids have not.
        self.scratch.clear();
        for watch in self.watches.drain(..) {
            if let Some(index) = self.peers.find(watch.id) {
                self.scratch.push(Watch { index, ..watch });
            }
        }
        std::mem::swap(&mut self.watches, &mut self.scratch);
        if let Some(silence) = &mut self.silence {
            silence.restart();
        }
        self.observers = self.peers.observers_of(self.peers.me());
        self.make_room();
        self.rearrange = true;
    }

    /// Allocates now what may be needed later: at worst, one observes everybody.
    fn make_room(&mut self) {
        let members = self.peers.len();
        self.flood.make_room(members);
        for watches in [&mut self.watches, &mut self.scratch] {
            watches.reserve(members.saturating_sub(watches.len()));
        }
    }

    /// Brings observers, watches and the deadline in line with what has changed.
    fn settle(&mut self, now: Instant, out: &mut Vec<Effect>) {
        while self.rearrange {
            self.rearrange(now, out);
            self.consider_pending(now, out);
        }
        if self.is_mute() {
            self.deadline = None;
            return;
        }
        self.tick_flood(now, out);
        self.check_quorum(out);
        let watches = self
            .watches
            .iter()
            .map(|watch| watch.deadline(self.profile));
        let others = [
            self.flood.deadline(),
            self.holds_deadline(),
            self.poll.next,
            self.witness.next,
            self.silence.as_ref().map(|silence| silence.next),
        ];
        // What is overdue already waits for us while we work, which is not being late.
        self.deadline = watches
            .chain(others.into_iter().flatten())
            .chain([self.heartbeat_at])
            .min()
            .map(|deadline| deadline.max(now));
    }

    /// Finds out anew who observes us and whom we observe.
    fn rearrange(&mut self, now: Instant, out: &mut Vec<Effect>) {
        self.rearrange = false;
        let me = self.peers.me();
        let before = std::mem::replace(&mut self.observers, self.peers.observers_of(me));
        self.scratch.clear();
        for index in self.peers.indices() {
            let peer = self.peers.get(index);
            if index == me
                || peer.standing == Standing::NodeDown
                || !self.peers.observers_of(index).contains(me)
            {
                continue;
            }
            let kernel_only = peer.standing.is_down();
            let known = self
                .watches
                .iter()
                .find(|watch| watch.index == index && watch.kernel_only == kernel_only);
            let grace = if peer.heard_of {
                Duration::ZERO
            } else {
                JOIN_GRACE
            };
            self.scratch.push(
                known
                    .copied()
                    .unwrap_or_else(|| Watch::new(index, peer.id, kernel_only, now + grace)),
            );
        }
        std::mem::swap(&mut self.watches, &mut self.scratch);
        for observer in self.observers.iter() {
            if !before.contains(observer) {
                self.send_heartbeat(observer, out);
            }
        }
        self.confirmed_by_fewer(out);
    }

    /// Sends the heartbeats, and greets some that have not proved themselves yet.
    fn beat(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let heartbeat = self.profile.heartbeat();
        // 0 to 5 % early, so that members do not fall into step.
        let early = heartbeat / 20 * u32::try_from(self.random.below(1_000)).unwrap_or(0) / 1_000;
        self.heartbeat_at = now + heartbeat.saturating_sub(early);
        let item = self.heartbeat();
        if let Some(packet) = self.write(Kind::Heartbeat, &item) {
            for observer in self.observers.iter() {
                self.post_to(observer, &packet, out);
            }
        }
        self.greet(now, out);
        self.beats = self.beats.wrapping_add(1);
        if self.beats.is_multiple_of(SEEK_EVERY) {
            self.seek_lost(now, out);
        }
    }

    fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            view: self.peers.view(),
            holds: self.holds.digest(),
            report: self.report,
        }
    }

    fn send_heartbeat(&mut self, to: Index, out: &mut Vec<Effect>) {
        let item = self.heartbeat();
        self.send(to, Kind::Heartbeat, &item, out);
    }

    fn greet(&mut self, now: Instant, out: &mut Vec<Effect>) {
        let mut left = GREETINGS;
        for _ in 0..self.peers.len().min(4 * GREETINGS) {
            let index = self.peers.at(self.greeted);
            self.greeted = (self.greeted + 1) % self.peers.len();
            let peer = self.peers.get(index);
            let lately = peer
                .poked
                .is_some_and(|poked| now.saturating_since(poked) < self.profile.heartbeat() * 10);
            if !peer.proved && peer.is_up() && !lately && index != self.peers.me() {
                self.challenge(now, index, out);
                left -= 1;
                if left == 0 {
                    break;
                }
            }
        }
    }

    /// Pokes one that has to prove it is alive.
    fn challenge(&mut self, now: Instant, index: Index, out: &mut Vec<Effect>) {
        let fresh = self.random.next().max(1);
        let peer = self.peers.get_mut(index);
        if peer
            .poked
            .is_some_and(|poked| now.saturating_since(poked) < self.profile.poke_every())
        {
            return;
        }
        if peer.nonce == 0 {
            peer.nonce = fresh;
        }
        self.poke(now, index, out);
    }

    fn poke(&mut self, now: Instant, index: Index, out: &mut Vec<Effect>) {
        let peer = self.peers.get_mut(index);
        peer.poked = Some(now);
        let nonce = peer.nonce;
        let item = Poke {
            nonce,
            origin: self.peers.own().id,
            view: self.peers.view(),
        };
        self.send(index, Kind::Poke, &item, out);
    }

    /// Begins a new life.
    fn raise(
        &mut self,
        now: Instant,
        incarnation: Incarnation,
        reason: RaiseReason,
        out: &mut Vec<Effect>,
    ) {
        let me = self.peers.me();
        let id = self.peers.own().id;
        let statement = Statement {
            member: id,
            incarnation,
            voters: Voters::one(id),
            ..Statement::default()
        };
        self.peers.set(me, &statement, true);
        self.peers.own_mut().proved = true;
        self.holds.forget(id, incarnation);
        self.pending.forget(id);
        self.silence = None;
        self.heartbeat_at = now;
        out.push(Effect::IncarnationRaised {
            incarnation,
            reason,
        });
    }

    fn write(&mut self, kind: Kind, item: &impl Item) -> Option<Packet> {
        if !self.carrier {
            return None;
        }
        self.post.one(self.peers.own().incarnation, kind, item)
    }

    fn send(&mut self, to: Index, kind: Kind, item: &impl Item, out: &mut Vec<Effect>) {
        if let Some(packet) = self.write(kind, item) {
            self.post_to(to, &packet, out);
        }
    }

    fn post_to(&mut self, to: Index, packet: &Packet, out: &mut Vec<Effect>) {
        self.counters.sent += 1;
        self.counters.sent_bytes += u64::try_from(packet.as_bytes().len()).unwrap_or(0);
        out.push(Effect::Send {
            to: self.peers.get(to).address,
            packet: packet.clone(),
        });
    }
}
