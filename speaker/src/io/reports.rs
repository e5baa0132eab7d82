//! What the thread of layer 2 tells the rest of the speaker.
//!
//! That thread waits for nobody: not for memory, as musl's allocator has one lock and whoever holds it
//! may have lost the processor, and not for a log that is read slowly. It puts words into slots that are
//! there from the start; a task at the other end logs them and hands them on to the core.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};

use herald_model::{Incarnation, NodeName, SegmentName};
use herald_ring::{Effect, Scope, Standing};
use herald_speaker_core::{Input, RingEvent, View};
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tracing::{debug, info, warn};

/// Words under way. Only if others leave so many lie, the next ones need memory.
const SLOTS: usize = 1_024;

/// One thing that is told.
#[derive(Clone, Debug)]
enum Word {
    /// For the core as it is.
    Input(Input),
    Ring(SegmentName, RingWord),
}

/// What a ring tells.
#[derive(Clone, Debug)]
pub(crate) enum RingWord {
    /// The list of members is another one; how each of them stands follows.
    Anew,
    /// How one member stands from now on.
    Member {
        node: NodeName,
        incarnation: Incarnation,
        standing: Standing,
    },
    /// All that has changed was told.
    Complete {
        incarnation: Incarnation,
        quorum: bool,
    },
    /// Neither a datagram nor a question: those are sent by the thread.
    Happened(Effect),
    /// The ring can't run.
    Failed { reason: Arc<str> },
}

/// The thread's end. Of two, each keeps its own words in order.
#[derive(Clone, Debug)]
pub(crate) struct Reporter {
    slots: SyncSender<Word>,
    /// What no slot was free for.
    waiting: VecDeque<Word>,
    wake: Arc<Notify>,
}

/// The other end.
#[derive(Debug)]
pub(crate) struct Listener {
    slots: Receiver<Word>,
    wake: Arc<Notify>,
    views: BTreeMap<SegmentName, View>,
}

/// Both ends.
pub(crate) fn channel() -> (Reporter, Listener) {
    let (sender, receiver) = mpsc::sync_channel(SLOTS);
    let wake = Arc::new(Notify::new());
    let reporter = Reporter {
        slots: sender,
        waiting: VecDeque::with_capacity(1),
        wake: Arc::clone(&wake),
    };
    let listener = Listener {
        slots: receiver,
        wake,
        views: BTreeMap::new(),
    };
    (reporter, listener)
}

impl Reporter {
    /// Tells the core something.
    pub(crate) fn input(&mut self, input: Input) {
        self.tell(Word::Input(input));
    }

    /// Tells what a ring has to say.
    pub(crate) fn ring(&mut self, segment: &SegmentName, word: RingWord) {
        self.tell(Word::Ring(segment.clone(), word));
    }

    fn tell(&mut self, word: Word) {
        self.waiting.push_back(word);
        self.flush();
    }

    /// Puts what waits into the slots that have become free.
    pub(crate) fn flush(&mut self) {
        let mut is_told = false;
        while let Some(word) = self.waiting.pop_front() {
            match self.slots.try_send(word) {
                Ok(()) => is_told = true,
                Err(TrySendError::Full(word)) => {
                    self.waiting.push_front(word);
                    break;
                }
                // The speaker ends.
                Err(TrySendError::Disconnected(_word)) => {}
            }
        }
        if is_told {
            self.wake.notify_one();
        }
    }
}

impl Listener {
    /// Hands everything on for as long as somebody listens.
    pub(crate) async fn run(mut self, inputs: UnboundedSender<Input>) {
        loop {
            self.wake.notified().await;
            while let Some(input) = self.next() {
                if inputs.send(input).is_err() {
                    debug!("nobody listens to layer 2 any more");
                    return;
                }
            }
        }
    }

    /// What the core is told next; `None`: nothing for now.
    pub(crate) fn next(&mut self) -> Option<Input> {
        loop {
            match self.slots.try_recv().ok()? {
                Word::Input(input) => return Some(input),
                Word::Ring(segment, word) => {
                    if let Some(event) = self.ring_said(&segment, word) {
                        return Some(Input::RingSaid { segment, event });
                    }
                }
            }
        }
    }

    fn ring_said(&mut self, segment: &SegmentName, word: RingWord) -> Option<RingEvent> {
        if let RingWord::Happened(effect) = word {
            return happened(segment, effect);
        }
        let view = self.views.entry(segment.clone()).or_default();
        match word {
            RingWord::Anew => {
                view.live.clear();
                view.dead.clear();
            }
            RingWord::Member {
                node,
                incarnation,
                standing,
            } => {
                view.live.remove(&node);
                view.dead.remove(&node);
                match standing {
                    Standing::Up => drop(view.live.insert(node, incarnation)),
                    Standing::SpeakerDown => {
                        view.dead.insert(node, (incarnation, Scope::Speaker));
                    }
                    Standing::NodeDown => {
                        view.dead.insert(node, (incarnation, Scope::Node));
                    }
                }
            }
            RingWord::Complete {
                incarnation,
                quorum,
            } => {
                view.incarnation = incarnation;
                view.quorum = quorum;
                return Some(RingEvent::View(view.clone()));
            }
            RingWord::Failed { reason } => return Some(RingEvent::Failed { reason }),
            RingWord::Happened(_) => {}
        }
        None
    }
}

/// Logs what happened in a ring, and says what the core has to know of it at once.
fn happened(segment: &SegmentName, effect: Effect) -> Option<RingEvent> {
    match effect {
        Effect::MemberDown {
            node,
            incarnation,
            scope,
            timeline,
        } => {
            info!(%segment, %node, life = incarnation.0, ?scope, "a speaker is dead");
            return Some(RingEvent::Down {
                node,
                incarnation,
                scope,
                timeline,
            });
        }
        Effect::HoldHeard(hold) => return Some(RingEvent::Hold(hold)),
        Effect::MemberUp { node, incarnation } => {
            info!(%segment, %node, life = incarnation.0, "a speaker is up");
        }
        Effect::IncarnationRaised {
            incarnation,
            reason,
        } => info!(%segment, life = incarnation.0, ?reason, "this node begins another life"),
        Effect::Silenced { late } => {
            let late_ms = late.as_millis();
            warn!(%segment, late_ms, "woke late: silent until others confirm us");
        }
        Effect::Confirmed => info!(%segment, "confirmed by others"),
        Effect::QuorumChanged {
            reached,
            base,
            quorum,
        } => info!(%segment, reached, base, quorum, "members reached"),
        Effect::PeerReported { .. }
        | Effect::Send { .. }
        | Effect::ProbeKernel { .. }
        | Effect::AskWitness => {}
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_slot_is_free_for_waits_and_keeps_its_place() {
        let (mut reporter, mut listener) = channel();
        let segment = SegmentName::from("192.0.2.0/24");
        let number = u64::try_from(SLOTS).unwrap() * 2 + 10;
        for life in 0..number {
            let incarnation = Incarnation(life);
            let quorum = true;
            reporter.ring(
                &segment,
                RingWord::Complete {
                    incarnation,
                    quorum,
                },
            );
        }
        let mut lives = Vec::new();
        for _ in 0..3 {
            while let Some(input) = listener.next() {
                let Input::RingSaid {
                    event: RingEvent::View(view),
                    ..
                } = input
                else {
                    unreachable!("only views were told");
                };
                lives.push(view.incarnation.0);
            }
            reporter.flush();
        }
        assert!(lives.into_iter().eq(0..number));
    }
}
