//! Who holds an address: [`elected`](crate::elected) and what happened before.
//!
//! The elected is who *should* announce; the holder is who does. They differ on purpose: a holder
//! keeps the address until the elected one says that it has taken it, so that nobody is left
//! without an announcer; and an elected one takes nothing from a live holder under the same plan,
//! so that nothing moves by itself when a node returns. A holder that is about to end says that it
//! *hands over*: it goes on until another has taken the address, which under the same plan may be any that is
//! elected without it ([`Hold::handing_over`]).
//!
//! [`Hold`] knows no clock. Whenever something it is told of changes (plan, who is alive, what
//! others hold, whether we can serve), ask it what to do.

use herald_model::{Candidate, Epoch, Tenure};

/// The place of a holder that is none of the candidates.
pub const NO_RANK: u8 = u8::MAX;

/// What a node says of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The plan under which it does.
    pub epoch: Epoch,
    /// Its place among the candidates, 0 first; [`NO_RANK`] if it is none of them.
    pub rank: u8,
    /// Who, in which life.
    pub holder: Candidate,
    /// How it stands to it.
    pub tenure: Tenure,
}

/// What decides over an address on a segment at this moment.
#[derive(Clone, Copy, Debug)]
pub struct Situation<'a> {
    /// This node in its present life.
    pub me: &'a Candidate,
    /// The plan's version.
    pub epoch: Epoch,
    /// The plan's candidates.
    pub candidates: &'a [Candidate],
    /// Whom [`elected`](crate::elected) names; `None` if nobody is live and eligible.
    pub elected: Option<&'a Candidate>,
    /// Whether the address is to be announced at all: active, not withdrawn, its Service exists.
    pub wanted: bool,
    /// Whether we can serve: carrier, data path.
    pub can_serve: bool,
    /// Whether we may take what nobody else is known to hold: started up, with quorum.
    pub may_take: bool,
    /// Whether we are about to end: what we hold is for others to take.
    pub hands_over: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Begin to announce, and tell everybody.
    Take {
        /// The plan under which we hold it.
        epoch: Epoch,
        /// Our place among the candidates.
        rank: u8,
    },
    /// Go on announcing, and tell everybody that it is under this plan now.
    Renew {
        /// The plan under which we hold it.
        epoch: Epoch,
        /// Our place among the candidates.
        rank: u8,
    },
    /// Announce no more; go on forwarding.
    LetGo {
        /// Why.
        reason: Reason,
    },
}

/// Why an address was let go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Another holds it by a better right: a higher epoch, or in the same a higher rank, or any if we
    /// hand it over. It has told everybody, so nothing is to be said.
    Succeeded,
    /// The life in which we held it is over. The others know, so nothing is to be said.
    LifeOver,
    /// It is not to be announced any more. Tell everybody.
    Unwanted,
    /// We can't serve. Step down, which ends this life and so tells everybody.
    CannotServe,
}

/// Whether this node holds an address on a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    mine: Option<Mine>,
    /// The best right of another that we have heard of.
    other: Option<Claim>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mine {
    epoch: Epoch,
    rank: u8,
    me: Candidate,
}

impl Hold {
    /// Whether we hold it.
    pub fn is_held(&self) -> bool {
        self.mine.is_some()
    }

    /// The plan under which we hold it; `None` if we don't.
    pub fn epoch(&self) -> Option<Epoch> {
        self.mine.as_ref().map(|mine| mine.epoch)
    }

    /// Who holds it, as far as we have heard, if it is not us.
    pub fn other(&self) -> Option<&Candidate> {
        self.other
            .as_ref()
            .filter(|claim| claim.tenure.is_held())
            .map(|claim| &claim.holder)
    }

    /// Who hands the address over, as far as we have heard, and how many of those elected without it have
    /// been passed over.
    pub fn handing_over(&self) -> Option<(&Candidate, u8)> {
        let claim = self.other.as_ref()?;
        match claim.tenure {
            Tenure::HandingOver { passed_over } => Some((&claim.holder, passed_over)),
            Tenure::LetGo | Tenure::Held => None,
        }
    }

    /// Another node's claim. Only the best is kept; ask for a [`Self::change`] afterwards.
    pub fn heard(&mut self, claim: Claim) {
        let is_better = self.other.as_ref().is_none_or(|known| {
            known.holder == claim.holder && known.epoch <= claim.epoch
                || known.tenure == Tenure::LetGo
                || claim.right() > known.right()
        });
        if is_better {
            self.other = Some(claim);
        }
    }

    /// A life is over: who held the address in it holds it no more.
    pub fn ended(&mut self, life: &Candidate) {
        self.other.take_if(|claim| claim.holder == *life);
    }

    /// What is to be done, if anything. `None`: all is as it should be.
    pub fn change(&mut self, situation: &Situation<'_>) -> Option<Change> {
        let (epoch, rank) = (situation.epoch, rank_of(situation));
        if let Some(mine) = &mut self.mine {
            if let Some(reason) = mine.reason_to_let_go(situation, self.other.as_ref()) {
                self.mine = None;
                return Some(Change::LetGo { reason });
            }
            if situation.elected == Some(situation.me) && (mine.epoch, mine.rank) < (epoch, rank)
                || mine.epoch < epoch && situation.elected.is_none()
            {
                (mine.epoch, mine.rank) = (epoch, rank);
                return Some(Change::Renew { epoch, rank });
            }
            return None;
        }
        let is_free = self.other.as_ref().is_none_or(|claim| match claim.tenure {
            Tenure::LetGo => true,
            Tenure::HandingOver { .. } => claim.epoch <= epoch,
            Tenure::Held => claim.epoch < epoch,
        });
        let takes = situation.wanted
            && situation.can_serve
            && situation.may_take
            && situation.elected == Some(situation.me)
            && is_free;
        takes.then(|| {
            self.mine = Some(Mine {
                epoch,
                rank,
                me: situation.me.clone(),
            });
            Change::Take { epoch, rank }
        })
    }
}

impl Mine {
    fn reason_to_let_go(&self, situation: &Situation<'_>, other: Option<&Claim>) -> Option<Reason> {
        let tenure = if situation.hands_over {
            Tenure::HandingOver { passed_over: 0 }
        } else {
            Tenure::Held
        };
        let succeeded = other.is_some_and(|claim| {
            claim.tenure.is_held() && claim.right() > right(self.epoch, tenure, self.rank)
        });
        if self.me != *situation.me {
            Some(Reason::LifeOver)
        } else if !situation.wanted {
            Some(Reason::Unwanted)
        } else if !situation.can_serve {
            Some(Reason::CannotServe)
        } else if succeeded {
            Some(Reason::Succeeded)
        } else {
            None
        }
    }
}

impl Claim {
    fn right(&self) -> Right {
        right(self.epoch, self.tenure, self.rank)
    }
}

type Right = (Epoch, bool, std::cmp::Reverse<u8>);

/// The higher epoch wins, then who does not hand over, then the higher rank, which is the lower number.
fn right(epoch: Epoch, tenure: Tenure, rank: u8) -> Right {
    (epoch, tenure == Tenure::Held, std::cmp::Reverse(rank))
}

fn rank_of(situation: &Situation<'_>) -> u8 {
    let mut candidates = situation.candidates.iter();
    let place = candidates.position(|candidate| candidate == situation.me);
    place
        .and_then(|place| u8::try_from(place).ok())
        .unwrap_or(NO_RANK)
}

#[cfg(test)]
mod tests;
