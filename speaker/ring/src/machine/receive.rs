//! Datagrams that come in.

use herald_model::{Incarnation, Instant};

use super::Ring;
use crate::auth::Authenticator;
use crate::codec::{Answer, Body, Frame, Heartbeat, Kind, Poke, Relayed};
use crate::face::{Effect, RaiseReason};
use crate::peers::Index;

impl<A: Authenticator> Ring<A> {
    pub(super) fn receive(&mut self, now: Instant, datagram: &[u8], out: &mut Vec<Effect>) {
        self.counters.received += 1;
        if self.is_mute() {
            return;
        }
        let Ok(frame) = Frame::decode(datagram) else {
            self.counters.malformed += 1;
            return;
        };
        let header = frame.header;
        if (header.cluster, header.segment) != (self.post.cluster, self.post.segment) {
            self.counters.foreign += 1;
            return;
        }
        if !self.post.keys.is_some_and(|keys| keys.accepts(header.key)) {
            self.counters.unknown_key += 1;
            return;
        }
        if !frame.is_authentic(&self.post.auth, &self.post.context) {
            self.counters.forged += 1;
            return;
        }
        let Some(sender) = self
            .peers
            .find(header.sender)
            .filter(|sender| *sender != self.peers.me())
        else {
            self.counters.strangers += 1;
            return;
        };
        let Ok(body) = frame.body() else {
            self.counters.malformed += 1;
            return;
        };
        let life = (header.incarnation, header.sequence);
        if self.is_fresh(now, sender, life, &body, out) {
            self.act(now, sender, body, out);
        }
    }

    /// Whether the datagram is no replay, and from the sender's present life. If that can't be
    /// known yet, the sender is challenged; what may be answered without knowing, is answered.
    fn is_fresh(
        &mut self,
        now: Instant,
        sender: Index,
        (incarnation, sequence): (Incarnation, u64),
        body: &Body<'_>,
        out: &mut Vec<Effect>,
    ) -> bool {
        let peer = self.peers.get_mut(sender);
        if incarnation < peer.incarnation || incarnation < peer.listed {
            self.counters.outdated += 1;
            if let Body::Poke(poke) = body {
                // So that it can believe what we tell it.
                self.answer(sender, poke, out);
            } else {
                self.tell_later_life(now, sender, out);
            }
            return false;
        }
        if incarnation == peer.incarnation && peer.proved {
            let new = peer.received.note(sequence);
            self.counters.replayed += u64::from(!new);
            return new;
        }
        match body {
            Body::Answer(answer)
                if answer.nonce != 0
                    && (answer.nonce == peer.nonce || answer.nonce == self.poll.nonce) =>
            {
                self.prove(now, sender, (incarnation, sequence), out);
                return true;
            }
            // Who asked for the answer checks its nonce.
            Body::Answer(answer) if answer.origin != self.peers.own().id => {
                self.relay(sender, incarnation, answer, out);
            }
            Body::Poke(poke) => self.answer(sender, poke, out),
            _ => {}
        }
        self.counters.unproved += 1;
        self.challenge(now, sender, out);
        false
    }

    fn act(&mut self, now: Instant, sender: Index, body: Body<'_>, out: &mut Vec<Effect>) {
        if let Body::Poke(poke) = &body {
            self.answer(sender, poke, out);
        }
        if !self.peers.get(sender).is_up() {
            match &body {
                Body::Answer(answer) => self.contradicted(now, sender, answer, out),
                _ => self.tell_standing(now, sender, out),
            }
            return;
        }
        self.heard(now, sender, out);
        self.regain(now);
        let id = self.peers.get(sender).id;
        match body {
            Body::Heartbeat(heartbeat) => self.heartbeat_received(now, sender, heartbeat, out),
            Body::Poke(poke) => self.compare_views(now, sender, poke.view, false, out),
            Body::Answer(answer) => self.answered(now, sender, &answer, out),
            Body::Ask(ask) => {
                let item = Poke {
                    nonce: ask.nonce,
                    origin: id,
                    view: self.peers.view(),
                };
                if let Some(target) = self.peers.find(ask.target)
                    && target != self.peers.me()
                {
                    self.send(target, Kind::Poke, &item, out);
                }
            }
            Body::Relayed(relayed) => self.relayed(now, &relayed, out),
            Body::Votes(votes) => {
                for vote in votes {
                    self.voted(now, id, &vote, out);
                }
            }
            Body::Statements(_) if self.is_tainted(now, sender) => {}
            Body::Statements(statements) => {
                for statement in statements {
                    self.consider(now, &statement, id, out);
                }
                self.consider_pending(now, out);
            }
            Body::Holds(records) => {
                for record in records {
                    self.hold_received(now, &record, out);
                }
            }
        }
        if self.poll.next.is_some() {
            self.certify_all(now, out);
        }
    }

    fn heartbeat_received(
        &mut self,
        now: Instant,
        sender: Index,
        heartbeat: Heartbeat,
        out: &mut Vec<Effect>,
    ) {
        let peer = self.peers.get_mut(sender);
        if peer.report != heartbeat.report {
            peer.report = heartbeat.report;
            out.push(Effect::PeerReported {
                node: peer.node.clone(),
                report: heartbeat.report,
            });
        }
        self.compare_views(now, sender, heartbeat.view, true, out);
        self.compare_holds(now, sender, heartbeat.holds, out);
    }

    fn answer(&mut self, sender: Index, poke: &Poke, out: &mut Vec<Effect>) {
        let peer = self.peers.get(sender);
        let item = Answer {
            nonce: poke.nonce,
            origin: poke.origin,
            view: self.peers.view(),
            incarnation: peer.incarnation.max(peer.listed),
            standing: peer.standing,
            live: self.peers.live(),
        };
        self.send(sender, Kind::Answer, &item, out);
    }

    fn answered(&mut self, now: Instant, sender: Index, answer: &Answer, out: &mut Vec<Effect>) {
        if answer.origin != self.peers.own().id && answer.nonce != 0 {
            let incarnation = self.peers.get(sender).incarnation;
            self.relay(sender, incarnation, answer, out);
        }
        let own = self.peers.own().incarnation;
        if answer.incarnation > own {
            let next = Incarnation(answer.incarnation.0.saturating_add(1));
            self.raise(now, next, RaiseReason::Behind, out);
            return;
        }
        self.heard_of_ourselves(sender, (answer.incarnation, answer.standing), out);
        self.compare_views(now, sender, answer.view, false, out);
    }

    /// Passes an answer on to who asked us to poke.
    fn relay(
        &mut self,
        sender: Index,
        incarnation: Incarnation,
        answer: &Answer,
        out: &mut Vec<Effect>,
    ) {
        let item = Relayed {
            target: self.peers.get(sender).id,
            incarnation,
            nonce: answer.nonce,
        };
        if let Some(origin) = self.peers.find(answer.origin)
            && origin != self.peers.me()
        {
            self.send(origin, Kind::Relayed, &item, out);
        }
    }

    /// One that we could not reach ourselves answered another.
    fn relayed(&mut self, now: Instant, relayed: &Relayed, out: &mut Vec<Effect>) {
        let Some(target) = self.peers.find(relayed.target) else {
            return;
        };
        let peer = self.peers.get(target);
        let is_answer = relayed.nonce != 0 && relayed.nonce == peer.nonce;
        if is_answer && peer.is_up() && relayed.incarnation == peer.incarnation {
            self.heard(now, target, out);
        }
    }

    /// Others know a later life of the sender's than it does.
    fn tell_later_life(&mut self, now: Instant, sender: Index, out: &mut Vec<Effect>) {
        let pace = self.profile.poke_every() * 2;
        let live = self.peers.live();
        let peer = self.peers.get_mut(sender);
        if peer
            .told
            .is_some_and(|told| now.saturating_since(told) < pace)
        {
            return;
        }
        peer.told = Some(now);
        let item = Answer {
            nonce: 0,
            origin: peer.id,
            view: 0,
            incarnation: peer.incarnation.max(peer.listed),
            standing: peer.standing,
            live,
        };
        self.send(sender, Kind::Answer, &item, out);
    }
}
