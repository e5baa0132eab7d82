//! Which address had better be on another node, so that all have about as many.
//!
//! A step takes an address from a node to one that is preferred more, or, among nodes preferred
//! alike, to one that announces at least two fewer, if that is more than a tenth of what they
//! announce on average. So the greatest number never grows and the least never falls, each step
//! lowers the sum of the squares, and there is an end: nothing goes back and forth.

use std::collections::BTreeMap;

use herald_model::{NodeName, SegmentName};

/// How many addresses each node is the first candidate for, segment by segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loads(BTreeMap<SegmentName, BTreeMap<NodeName, usize>>);

impl Loads {
    /// How many it is for a node.
    pub(crate) fn of(&self, segment: &SegmentName, node: &NodeName) -> usize {
        let nodes = self.0.get(segment);
        nodes
            .and_then(|nodes| nodes.get(node))
            .copied()
            .unwrap_or_default()
    }

    /// A node is the first candidate for one more.
    pub(crate) fn add(&mut self, segment: &SegmentName, node: &NodeName) {
        let nodes = self.0.entry(segment.clone()).or_default();
        *nodes.entry(node.clone()).or_default() += 1;
    }

    /// A node is the first candidate for one fewer.
    pub(crate) fn take(&mut self, segment: &SegmentName, node: &NodeName) {
        if let Some(nodes) = self.0.get_mut(segment)
            && let Some(load) = nodes.get_mut(node)
        {
            *load = load.saturating_sub(1);
            if *load == 0 {
                nodes.remove(node);
            }
            if nodes.is_empty() {
                self.0.remove(segment);
            }
        }
    }
}

/// A node that may announce an address, and is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place<'a> {
    pub(crate) node: &'a NodeName,
    /// The sum of the weights that prefer it.
    pub(crate) preference: u32,
    /// Whether something may be brought to it.
    pub(crate) is_open: bool,
}

/// Where an address had better be, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step<'a> {
    pub(crate) to: &'a NodeName,
    pub(crate) cause: Cause,
}

/// Why an address had better be elsewhere: what speaks for the one node and the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The sums of the weights that prefer them.
    Preferred { from: u32, to: u32 },
    /// How many addresses they announce.
    Uneven { from: usize, to: usize },
    /// People ask for it.
    Asked,
}

/// Where an address that `from` announces had better be; `None`: where it is.
pub(crate) fn better<'a>(
    from: &NodeName,
    places: &[Place<'a>],
    load: impl Fn(&NodeName) -> usize,
) -> Option<Step<'a>> {
    // Where the node itself is not well, it is for the speakers to say what follows.
    let here = places.iter().find(|place| place.node == from)?.preference;
    let least = |preference: u32| {
        let open = places
            .iter()
            .filter(|place| place.is_open && place.node != from && place.preference == preference);
        open.map(|place| (load(place.node), place.node)).min()
    };
    let open = places.iter().filter(|place| place.is_open);
    let best = open.map(|place| place.preference).max()?;
    if best > here {
        let (_, to) = least(best)?;
        let cause = Cause::Preferred {
            from: here,
            to: best,
        };
        return Some(Step { to, cause });
    }
    let (low, to) = least(here)?;
    let high = load(from);
    let alike = places.iter().filter(|place| place.preference == here);
    let loads: Vec<usize> = alike.map(|place| load(place.node)).collect();
    let gap = high.saturating_sub(low);
    let is_worth_it = gap >= 2 && gap * 10 * loads.len() > loads.iter().sum();
    is_worth_it.then_some(Step {
        to,
        cause: Cause::Uneven {
            from: high,
            to: low,
        },
    })
}

/// A search for addresses to move, which looks at each once: the last one seen of each node.
#[derive(Clone, Debug)]
pub(crate) struct Search<A>(BTreeMap<NodeName, A>);

impl<A> Default for Search<A> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<A: Clone> Search<A> {
    /// The next address to move from one of the nodes, which come with their loads, to one that
    /// announces fewer: of the most loaded node that has one.
    ///
    /// `addresses` are those that a node announces, in their order, after a certain one; `step` is what
    /// [`better`] says of one, if it may move.
    pub(crate) fn next<'a, I>(
        &mut self,
        mut nodes: Vec<(usize, &NodeName)>,
        addresses: impl Fn(&NodeName, Option<&A>) -> I,
        step: impl Fn(&A, &NodeName) -> Option<Step<'a>>,
    ) -> Option<(A, NodeName, Step<'a>)>
    where
        I: IntoIterator<Item = A>,
    {
        nodes.sort_unstable_by(|one, other| other.cmp(one));
        let lowest = nodes.last()?.0;
        for (load, node) in nodes {
            if load - lowest < 2 {
                return None;
            }
            let mut seen = None;
            let mut found = None;
            for address in addresses(node, self.0.get(node)) {
                let step = step(&address, node);
                seen = Some(address);
                found = step.filter(|step| matches!(step.cause, Cause::Uneven { .. }));
                if found.is_some() {
                    break;
                }
            }
            if let Some(address) = seen {
                self.0.insert(node.clone(), address.clone());
                if let Some(step) = found {
                    return Some((address, node.clone(), step));
                }
            }
        }
        None
    }
}

#[cfg(test)]
mod tests;
