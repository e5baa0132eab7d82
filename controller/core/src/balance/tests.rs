use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Addresses, each on one of the nodes that may announce it.
#[derive(Clone, Debug)]
struct World {
    nodes: Vec<NodeName>,
    /// Nodes that nothing is brought to.
    closed: BTreeSet<NodeName>,
    /// The first candidate of each address, and the nodes it may be on with their preferences.
    addresses: Vec<(NodeName, BTreeMap<NodeName, u32>)>,
}

fn node(number: usize) -> NodeName {
    format!("n{number}").as_str().into()
}

impl World {
    /// Nodes with so many addresses each, which may be anywhere.
    fn even(loads: &[usize]) -> Self {
        let nodes: Vec<NodeName> = (0..loads.len()).map(node).collect();
        let everywhere: BTreeMap<NodeName, u32> = nodes.iter().map(|n| (n.clone(), 0)).collect();
        let on = |(number, load): (usize, &usize)| vec![(node(number), everywhere.clone()); *load];
        Self {
            closed: BTreeSet::new(),
            addresses: loads.iter().enumerate().flat_map(on).collect(),
            nodes,
        }
    }

    fn loads(&self) -> Loads {
        let mut loads = Loads::default();
        for (first, _) in &self.addresses {
            loads.add(&"lan".into(), first);
        }
        loads
    }

    fn sizes(&self) -> Vec<usize> {
        let loads = self.loads();
        self.nodes
            .iter()
            .map(|node| loads.of(&"lan".into(), node))
            .collect()
    }

    fn better(&self, address: usize) -> Option<Step<'_>> {
        let (first, may) = &self.addresses[address];
        let places: Vec<Place<'_>> = may
            .iter()
            .map(|(node, preference)| Place {
                node,
                preference: *preference,
                is_open: !self.closed.contains(node),
            })
            .collect();
        let loads = self.loads();
        better(first, &places, |node| loads.of(&"lan".into(), node))
    }

    /// Makes one move if there is one; why, and who has it now.
    fn step(&mut self) -> Option<(Cause, NodeName)> {
        let world = &*self;
        let all = || 0..world.addresses.len();
        let preferred = all().find_map(|address| {
            let step = world.better(address)?;
            matches!(step.cause, Cause::Preferred { .. }).then_some((address, step))
        });
        let uneven = || {
            let loads = world.loads();
            let nodes = world.nodes.iter();
            let nodes = nodes.map(|node| (loads.of(&"lan".into(), node), node));
            let on = |node: &NodeName, after: Option<&usize>| {
                let (node, after) = (node.clone(), after.copied());
                all()
                    .filter(move |address| world.addresses[*address].0 == node)
                    .filter(move |address| after.is_none_or(|after| after < *address))
            };
            let step = |address: &usize, _: &NodeName| world.better(*address);
            let (address, _, step) = Search::default().next(nodes.collect(), on, step)?;
            Some((address, step))
        };
        let (address, Step { to, cause }) = preferred.or_else(uneven)?;
        let to = to.clone();
        self.addresses[address].0 = to.clone();
        Some((cause, to))
    }
}

fn spread(sizes: &[usize]) -> usize {
    sizes.iter().max().unwrap_or(&0) - sizes.iter().min().unwrap_or(&0)
}

#[test]
fn a_new_node_gets_its_share_and_no_move_is_made_for_one_address() {
    let mut world = World::even(&[6, 6, 0]);
    let mut moves = 0;
    while world.step().is_some() {
        moves += 1;
    }
    assert_eq!((world.sizes(), moves), (vec![4, 4, 4], 4));
    assert_eq!(World::even(&[3, 2, 3]).step(), None);
}

#[test]
fn a_search_looks_at_each_address_once() {
    let nodes = [node(0), node(1)];
    let loads = || vec![(3, &nodes[0]), (0, &nodes[1])];
    let looked = std::cell::RefCell::new(Vec::new());
    let mut search = Search::default();
    let mut next = || {
        let after = |_: &NodeName, after: Option<&u8>| after.map_or(0, |after| after + 1)..5;
        let step = |address: &u8, _: &NodeName| {
            looked.borrow_mut().push(*address);
            let cause = Cause::Uneven { from: 3, to: 0 };
            (address % 2 == 1).then_some(Step {
                to: &nodes[1],
                cause,
            })
        };
        let found = search.next(loads(), after, step);
        found.map(|(address, from, _)| (address, from))
    };
    assert_eq!(next(), Some((1, node(0))));
    assert_eq!(next(), Some((3, node(0))));
    assert_eq!((next(), next()), (None, None));
    assert_eq!(*looked.borrow(), [0, 1, 2, 3, 4]);
}

#[test]
fn a_tenth_of_the_mean_is_not_worth_a_move() {
    assert_eq!(World::even(&[52, 50, 48]).step(), None, "4 of 50");
    assert_eq!(World::even(&[52, 51, 47]).step(), None, "5 of 50");
    let step = World::even(&[53, 50, 47]).step();
    let cause = Cause::Uneven { from: 53, to: 47 };
    assert_eq!(step, Some((cause, node(2))), "6 of 50");
}

#[test]
fn nothing_is_brought_to_a_node_that_is_closed_or_taken_from_one_that_is_not_well() {
    let mut world = World::even(&[6, 0, 2]);
    world.closed.insert(node(1));
    assert_eq!(world.step().map(|(_, to)| to), Some(node(2)));
    for (_, may) in &mut world.addresses {
        may.remove(&node(0));
    }
    world.closed.clear();
    let expected = Cause::Uneven { from: 3, to: 0 };
    assert_eq!(
        world.step(),
        Some((expected, node(1))),
        "node 2 is, node 0 is not"
    );
}

#[test]
fn addresses_move_to_nodes_that_are_preferred_and_never_away_from_them() {
    let mut world = World::even(&[0, 4, 0]);
    for (_, may) in &mut world.addresses[..2] {
        may.insert(node(0), 10);
    }
    let cause = Cause::Preferred { from: 0, to: 10 };
    assert_eq!(world.step(), Some((cause, node(0))));
    assert_eq!(world.step(), Some((cause, node(0))));
    assert_eq!(world.sizes(), [2, 2, 0]);
    let cause = Cause::Uneven { from: 2, to: 0 };
    assert_eq!(world.step(), Some((cause, node(2))));
    assert_eq!((world.step(), world.sizes()), (None, vec![2, 1, 1]));
}

fn world(preferences: u32) -> impl Strategy<Value = World> {
    let address = move |nodes: usize| {
        let may = proptest::option::weighted(0.7, 0..=preferences);
        (0..nodes, proptest::collection::vec(may, nodes))
    };
    (2..6_usize).prop_flat_map(move |nodes| {
        let addresses = proptest::collection::vec(address(nodes), 0..40);
        let closed = proptest::option::of((0..nodes).prop_map(node));
        (addresses, closed).prop_map(move |(addresses, closed)| World {
            nodes: (0..nodes).map(node).collect(),
            closed: closed.into_iter().collect(),
            addresses: addresses
                .into_iter()
                .map(|(first, may)| {
                    let may = may.into_iter().enumerate();
                    let may = may.filter_map(|(at, preference)| Some((node(at), preference?)));
                    let mut may: BTreeMap<NodeName, u32> = may.collect();
                    may.entry(node(first)).or_insert(0);
                    (node(first), may)
                })
                .collect(),
        })
    })
}

proptest! {
    #[test]
    fn from_any_state_each_move_makes_it_more_even_or_leaves_it_and_there_is_an_end(
        mut world in world(0)
    ) {
        let most = world.addresses.len() * world.nodes.len();
        let mut moves = 0;
        loop {
            let before = world.sizes();
            let Some((_, to)) = world.step() else { break };
            let after = world.sizes();
            prop_assert!(spread(&after) <= spread(&before), "{before:?} {after:?}");
            prop_assert!(after.iter().max() <= before.iter().max());
            prop_assert!(!world.closed.contains(&to));
            moves += 1;
            prop_assert!(moves <= most, "{moves} moves");
        }
    }

    #[test]
    fn no_address_moves_to_a_node_that_is_preferred_less_or_may_not_have_it(
        mut world in world(2)
    ) {
        let most = world.addresses.len() * world.nodes.len() * 3;
        let preferences = |world: &World| -> Vec<u32> {
            let of = |(first, may): &(NodeName, BTreeMap<NodeName, u32>)| may[first];
            world.addresses.iter().map(of).collect()
        };
        let mut moves = 0;
        loop {
            let before = preferences(&world);
            if world.step().is_none() {
                break;
            }
            let after = preferences(&world);
            prop_assert!(before.iter().zip(&after).all(|(before, after)| before <= after));
            moves += 1;
            prop_assert!(moves <= most, "{moves} moves");
        }
    }

    #[test]
    fn where_every_address_may_be_anywhere_the_end_is_even(
        loads in proptest::collection::vec(0..30_usize, 2..7)
    ) {
        let mut world = World::even(&loads);
        while world.step().is_some() {}
        let sizes = world.sizes();
        let sum: usize = sizes.iter().sum();
        let gap = spread(&sizes);
        prop_assert!(gap < 2 || gap * 10 * sizes.len() <= sum, "{sizes:?}");
    }
}
