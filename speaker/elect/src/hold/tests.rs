use std::collections::BTreeMap;

use herald_model::{Incarnation, Tenure};

use super::*;
use crate::{elected, successor};

fn life(node: u8, incarnation: u64) -> Candidate {
    Candidate {
        node: format!("node{node}").into(),
        incarnation: Incarnation(incarnation),
    }
}

/// Three nodes, their holds, and a network that delivers at once.
struct Nodes {
    lives: BTreeMap<u8, Candidate>,
    up: BTreeMap<u8, bool>,
    holds: BTreeMap<u8, Hold>,
    epoch: Epoch,
    candidates: Vec<Candidate>,
    wanted: bool,
    serves: BTreeMap<u8, bool>,
    /// Who is about to end, and how many have been passed over since.
    ending: BTreeMap<u8, u8>,
    /// Nodes that hear nothing of each other's claims.
    deaf: bool,
    told: Vec<(u8, Change)>,
}

impl Nodes {
    fn new() -> Self {
        let nodes = || 1..=3_u8;
        let lives: BTreeMap<u8, Candidate> = nodes().map(|node| (node, life(node, 1))).collect();
        let mut all = Self {
            candidates: lives.values().cloned().collect(),
            lives,
            up: nodes().map(|node| (node, true)).collect(),
            holds: nodes().map(|node| (node, Hold::default())).collect(),
            epoch: Epoch(1),
            wanted: true,
            serves: nodes().map(|node| (node, true)).collect(),
            ending: BTreeMap::new(),
            deaf: false,
            told: Vec::new(),
        };
        all.settle();
        all
    }

    fn change(&mut self, node: u8) -> Option<Change> {
        let live: Vec<Candidate> = self
            .lives
            .iter()
            .filter(|(node, _)| self.up[*node])
            .map(|(_, life)| life.clone())
            .collect();
        let address = [192, 0, 2, 10].into();
        let is_live = |who: &Candidate| live.contains(who);
        let chosen = match self.holds[&node].handing_over() {
            Some((old, passed_over)) => successor(
                address,
                &self.candidates,
                |who| is_live(who) && who != old,
                &live,
                passed_over,
            ),
            None => elected(address, &self.candidates, is_live, &live),
        };
        let chosen = chosen.cloned();
        let situation = Situation {
            me: &self.lives[&node],
            epoch: self.epoch,
            candidates: &self.candidates,
            elected: chosen.as_ref(),
            wanted: self.wanted,
            can_serve: self.serves[&node],
            may_take: !self.ending.contains_key(&node),
            hands_over: self.ending.contains_key(&node),
        };
        self.holds.get_mut(&node)?.change(&situation)
    }

    /// Until nothing changes any more.
    fn settle(&mut self) {
        for _ in 0..10 {
            for node in 1..=3 {
                if !self.up[&node] {
                    continue;
                }
                if let Some(change) = self.change(node) {
                    self.told.push((node, change));
                    self.spread(node, change);
                }
            }
        }
    }

    fn spread(&mut self, node: u8, change: Change) {
        let (epoch, rank, tenure) = match change {
            Change::Take { epoch, rank } | Change::Renew { epoch, rank } => {
                (epoch, rank, self.tenure(node))
            }
            Change::LetGo {
                reason: Reason::Unwanted,
            } => (self.epoch, NO_RANK, Tenure::LetGo),
            Change::LetGo { .. } => return,
        };
        let claim = Claim {
            epoch,
            rank,
            holder: self.lives[&node].clone(),
            tenure,
        };
        for (other, hold) in &mut self.holds {
            if *other != node && !self.deaf {
                hold.heard(claim.clone());
            }
        }
    }

    fn tenure(&self, node: u8) -> Tenure {
        let passed_over = self.ending.get(&node);
        passed_over.map_or(Tenure::Held, |passed_over| Tenure::HandingOver {
            passed_over: *passed_over,
        })
    }

    /// The node is asked to end, or the one that should take on what it holds had its time.
    fn end_of(&mut self, node: u8, passed_over: u8) {
        self.ending.insert(node, passed_over);
        let epoch = self.holds[&node].epoch().unwrap();
        let rank = self
            .candidates
            .iter()
            .position(|it| *it == self.lives[&node]);
        let rank = u8::try_from(rank.unwrap()).unwrap();
        self.spread(node, Change::Renew { epoch, rank });
        self.settle();
    }

    /// The others learn that the node's life is over.
    fn certify(&mut self, node: u8) {
        for hold in self.holds.values_mut() {
            hold.ended(&self.lives[&node]);
        }
        self.up.insert(node, false);
        self.settle();
    }

    /// It comes back in its next life.
    fn return_of(&mut self, node: u8) {
        let next = self.lives[&node].incarnation.0 + 1;
        self.lives.insert(node, life(node, next));
        self.up.insert(node, true);
        self.settle();
    }

    fn holders(&self) -> Vec<u8> {
        let holders = self.holds.iter();
        holders
            .filter(|(node, hold)| hold.is_held() && self.up[*node])
            .map(|(node, _)| *node)
            .collect()
    }

    fn take_told(&mut self) -> Vec<(u8, Change)> {
        std::mem::take(&mut self.told)
    }
}

fn take(epoch: u64, rank: u8) -> Change {
    let epoch = Epoch(epoch);
    Change::Take { epoch, rank }
}

fn let_go(reason: Reason) -> Change {
    Change::LetGo { reason }
}

#[test]
fn planned_holder_takes_the_address_and_nobody_else_does() {
    let mut nodes = Nodes::new();
    assert_eq!(nodes.take_told(), [(1, take(1, 0))]);
    assert_eq!(nodes.holders(), [1]);
    assert_eq!(nodes.holds[&2].other(), Some(&life(1, 1)));
}

#[test]
fn a_node_that_returns_gets_nothing_back_by_itself() {
    let mut nodes = Nodes::new();
    nodes.take_told();
    nodes.certify(1);
    assert_eq!(nodes.take_told(), [(2, take(1, 1))]);
    nodes.return_of(1);
    assert_eq!(nodes.take_told(), [(1, let_go(Reason::LifeOver))]);
    assert_eq!(nodes.holders(), [2]);
}

#[test]
fn old_holder_goes_on_until_the_new_one_says_it_has_taken_over() {
    let mut nodes = Nodes::new();
    nodes.take_told();
    nodes.epoch = Epoch(2);
    nodes.candidates = vec![life(3, 1), life(1, 1)];
    nodes.deaf = true;
    nodes.settle();
    assert_eq!(nodes.holders(), [1, 3], "rather two than none");
    nodes.deaf = false;
    nodes.spread(3, take(2, 0));
    nodes.settle();
    assert_eq!(nodes.holders(), [3]);
    assert_eq!(
        nodes.take_told(),
        [(3, take(2, 0)), (1, let_go(Reason::Succeeded))]
    );
}

#[test]
fn who_hands_over_goes_on_until_the_next_has_taken_the_address_under_the_same_plan() {
    let mut nodes = Nodes::new();
    nodes.take_told();
    nodes.deaf = true;
    nodes.end_of(1, 0);
    assert_eq!(nodes.holders(), [1], "nobody knows");
    nodes.deaf = false;
    nodes.end_of(1, 0);
    assert_eq!(
        nodes.take_told(),
        [(2, take(1, 1)), (1, let_go(Reason::Succeeded))]
    );
    assert_eq!(nodes.holders(), [2]);
    assert_eq!(nodes.holds[&3].other(), Some(&life(2, 1)));
}

#[test]
fn one_that_does_not_take_an_address_that_is_handed_over_is_passed_over() {
    let mut nodes = Nodes::new();
    nodes.take_told();
    nodes.serves.insert(2, false);
    nodes.end_of(1, 0);
    assert_eq!(nodes.holders(), [1]);
    nodes.end_of(1, 1);
    assert_eq!(
        nodes.take_told(),
        [(3, take(1, 2)), (1, let_go(Reason::Succeeded))]
    );
}

#[test]
fn a_renewed_hold_of_one_that_ends_is_handed_over_too() {
    let mut nodes = Nodes::new();
    nodes.deaf = true;
    nodes.end_of(1, 0);
    nodes.epoch = Epoch(2);
    nodes.settle();
    assert_eq!(nodes.holds[&1].epoch(), Some(Epoch(2)));
    nodes.deaf = false;
    nodes.end_of(1, 0);
    assert_eq!(nodes.holders(), [2]);
}

#[test]
fn what_is_handed_over_under_a_plan_not_known_here_is_not_taken() {
    let me = life(2, 1);
    let mut hold = Hold::default();
    hold.heard(Claim {
        epoch: Epoch(5),
        rank: 0,
        holder: life(1, 1),
        tenure: Tenure::HandingOver { passed_over: 0 },
    });
    let situation = |epoch| Situation {
        me: &me,
        epoch: Epoch(epoch),
        candidates: std::slice::from_ref(&me),
        elected: Some(&me),
        wanted: true,
        can_serve: true,
        may_take: true,
        hands_over: false,
    };
    assert_eq!(hold.change(&situation(4)), None, "it would not be believed");
    assert_eq!(hold.change(&situation(5)), Some(take(5, 0)));
}

#[test]
fn a_new_plan_with_the_same_holder_renews_the_hold() {
    let mut nodes = Nodes::new();
    nodes.take_told();
    nodes.epoch = Epoch(2);
    nodes.settle();
    let renewed = Change::Renew {
        epoch: Epoch(2),
        rank: 0,
    };
    assert_eq!(nodes.take_told(), [(1, renewed)]);
    assert_eq!(nodes.holds[&1].epoch(), Some(Epoch(2)));
    assert_eq!(nodes.holds[&2].epoch(), None);
}

#[test]
fn a_plan_that_adopts_the_successor_moves_nothing() {
    let mut nodes = Nodes::new();
    nodes.certify(1);
    nodes.take_told();
    nodes.epoch = Epoch(2);
    nodes.candidates = vec![life(2, 1), life(3, 1)];
    nodes.settle();
    let renewed = Change::Renew {
        epoch: Epoch(2),
        rank: 0,
    };
    assert_eq!(nodes.take_told(), [(2, renewed)]);
    assert_eq!(nodes.holders(), [2]);
}

#[test]
fn a_node_behind_the_plan_takes_nothing_from_a_holder_that_is_ahead() {
    let mut hold = Hold::default();
    let me = life(1, 1);
    hold.heard(Claim {
        epoch: Epoch(5),
        rank: 0,
        holder: life(2, 1),
        tenure: Tenure::Held,
    });
    let situation = Situation {
        me: &me,
        epoch: Epoch(4),
        candidates: std::slice::from_ref(&me),
        elected: Some(&me),
        wanted: true,
        can_serve: true,
        may_take: true,
        hands_over: false,
    };
    assert_eq!(hold.change(&situation), None);
    hold.ended(&life(2, 1));
    assert_eq!(hold.change(&situation), Some(take(4, 0)));
}

#[test]
fn of_two_holders_under_one_plan_the_higher_candidate_stays() {
    let mut nodes = Nodes::new();
    nodes.deaf = true;
    // As if a partition had ended: 2 had taken over while 1 went on.
    for node in [2, 3] {
        nodes.holds.get_mut(&node).unwrap().ended(&life(1, 1));
    }
    nodes.up.insert(1, false);
    nodes.settle();
    nodes.up.insert(1, true);
    assert_eq!(nodes.holders(), [1, 2]);
    nodes.deaf = false;
    nodes.spread(1, take(1, 0));
    nodes.spread(2, take(1, 1));
    nodes.settle();
    assert_eq!(nodes.holders(), [1]);
}

#[test]
fn what_is_not_wanted_or_cannot_be_served_is_let_go() {
    let mut nodes = Nodes::new();
    nodes.take_told();
    nodes.wanted = false;
    nodes.settle();
    assert_eq!(nodes.take_told(), [(1, let_go(Reason::Unwanted))]);
    nodes.wanted = true;
    nodes.settle();
    assert_eq!(nodes.take_told(), [(1, take(1, 0))]);
    nodes.serves.insert(1, false);
    nodes.settle();
    assert_eq!(nodes.take_told(), [(1, let_go(Reason::CannotServe))]);
    assert_eq!(nodes.holders(), []);
    // It then steps down, so the others know.
    nodes.certify(1);
    assert_eq!(nodes.holders(), [2]);
}

#[test]
fn the_last_candidates_death_hands_over_to_whoever_is_left() {
    let mut nodes = Nodes::new();
    nodes.candidates.truncate(1);
    nodes.take_told();
    nodes.certify(1);
    let taken = nodes.take_told();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].1, take(1, NO_RANK));
}

#[test]
fn nothing_is_taken_before_it_may_be() {
    let me = life(1, 1);
    let mut situation = Situation {
        me: &me,
        epoch: Epoch(1),
        candidates: std::slice::from_ref(&me),
        elected: Some(&me),
        wanted: true,
        can_serve: true,
        may_take: false,
        hands_over: false,
    };
    let mut hold = Hold::default();
    assert_eq!(hold.change(&situation), None);
    situation.may_take = true;
    assert_eq!(hold.change(&situation), Some(take(1, 0)));
    // What is held is kept without quorum.
    situation.may_take = false;
    assert_eq!(hold.change(&situation), None);
    assert!(hold.is_held());
}

#[test]
fn of_all_that_others_say_the_best_right_is_remembered() {
    let say = |node, epoch, rank, held| Claim {
        epoch: Epoch(epoch),
        rank,
        holder: life(node, 1),
        tenure: if held { Tenure::Held } else { Tenure::LetGo },
    };
    let me = life(1, 1);
    let situation = Situation {
        me: &me,
        epoch: Epoch(7),
        candidates: std::slice::from_ref(&me),
        elected: Some(&me),
        wanted: true,
        can_serve: true,
        may_take: true,
        hands_over: false,
    };
    let mut hold = Hold::default();
    hold.heard(say(2, 7, 1, true));
    // Old news of another, that it holds the address or has let go of it, and of the holder itself.
    for worse in [
        say(3, 6, 0, true),
        say(3, 7, 2, true),
        say(3, 7, 2, false),
        say(3, 6, 0, false),
        say(2, 6, 0, false),
    ] {
        hold.heard(worse.clone());
        assert_eq!(hold.other(), Some(&life(2, 1)), "{worse:?}");
        assert_eq!(hold.change(&situation), None, "{worse:?}");
    }
    hold.heard(say(3, 7, 0, true));
    assert_eq!(hold.other(), Some(&life(3, 1)), "a better right");
    hold.heard(say(3, 7, 0, false));
    assert_eq!(hold.other(), None, "let go by whom it is about");
    assert_eq!(hold.change(&situation), Some(take(7, 0)));
}
