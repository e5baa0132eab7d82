//! Pools and advertisements: what follows from their changes, and what their statuses say.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use herald_model::{AddressRange, Instant, NodeName, PoolName, Uid};

use super::lan::ADDRESS_CONFLICT;
use super::{Key, Known, Leader};
use crate::allocator::Counts;
use crate::io::{Event, Regarding, Write};
use crate::observed::{Condition, ObservedPool, PoolStatus, TextCounts, UserObject};
use crate::outbox::Urgency;
use crate::world::{ClusterUse, World};

/// The status of one pool or advertisement is written at most this often.
const STATUS_EVERY: Duration = Duration::from_secs(1);
/// And this long after a change, as one seldom comes alone.
const STATUS_AFTER: Duration = Duration::from_millis(200);

impl Leader {
    pub(crate) fn pool_applied(
        &mut self,
        world: &World,
        name: &PoolName,
        before: Option<&ObservedPool>,
        was_invalid: bool,
    ) {
        let object = UserObject::Pool(name.clone());
        let Some(observed) = world.pools.get(name) else {
            return;
        };
        let same_pool = before.is_some_and(|before| before.pool == observed.pool);
        let same_labels = before.is_some_and(|before| before.labels == observed.labels);
        if !same_pool {
            let affected = self.allocator.set_pool(observed.pool.clone());
            self.pools_changed(world, affected);
        } else if !same_labels {
            self.advertisements_changed();
        }
        if !same_pool || was_invalid || before.is_none_or(|b| b.status != observed.status) {
            self.object_changed(&object);
        }
    }

    pub(crate) fn pool_deleted(&mut self, world: &World, name: &PoolName) {
        let affected = self.allocator.remove_pool(name);
        let object = UserObject::Pool(name.clone());
        self.written_at.remove(&object);
        self.known_ready.remove(&object);
        self.pools_changed(world, affected);
    }

    /// Pools changed: these addresses may be of another pool or of none, and all pools may have
    /// other overlaps.
    fn pools_changed(&mut self, world: &World, affected: BTreeSet<IpAddr>) {
        for &address in &affected {
            for holder in self.allocator.holders(address) {
                self.mark_service(world, &holder.key);
            }
        }
        self.dirty_claims.extend(affected);
        self.retry_waiting();
        let pools = world.pools.keys().cloned().map(UserObject::Pool);
        self.dirty_objects.extend(pools);
    }

    /// The cluster uses other ranges than before, or says otherwise what for.
    pub(crate) fn cluster_ranges_changed(&mut self, world: &World) {
        let affected = self.bar_cluster_ranges(world);
        self.pools_changed(world, affected);
    }

    /// What the cluster itself uses is never given.
    pub(super) fn bar_cluster_ranges(&mut self, world: &World) -> BTreeSet<IpAddr> {
        self.allocator
            .bar(world.cluster_ranges().map(|(range, _)| range))
    }

    /// Its status may have to be written.
    pub(crate) fn object_changed(&mut self, object: &UserObject) {
        self.dirty_objects.insert(object.clone());
    }

    /// Queues the status of an object, not too soon after the last time.
    pub(super) fn want_object(&mut self, now: Instant, object: UserObject) {
        let soon = now + STATUS_AFTER;
        let last = self.written_at.get(&object);
        let at = last.map_or(soon, |last| soon.max(*last + STATUS_EVERY));
        self.outbox
            .want_at(Key::Object(object), Urgency::Eventually, at);
    }

    /// The write that makes the status of a pool or advertisement what it should be.
    pub(super) fn object_write(
        &self,
        now: Instant,
        world: &World,
        object: &UserObject,
    ) -> Option<Write> {
        match object {
            UserObject::Pool(name) => {
                let known = world.pools.get(name).map(|pool| &pool.status);
                let status = self.pool_status(now, world, name)?;
                let observed_ready = match world.invalid.get(object) {
                    Some(invalid) => invalid.ready.as_ref(),
                    None => known.and_then(|known| known.ready.as_ref()),
                };
                let same = observed_ready == status.ready.as_ref()
                    && known.is_none_or(|known| (&known.v4, &known.v6) == (&status.v4, &status.v6));
                (!same).then(|| Write::ApplyPoolStatus {
                    pool: name.clone(),
                    status,
                })
            }
            UserObject::Advertisement(name) => {
                let known = world.advertisements.get(name);
                let (message, observed) = match (world.invalid.get(object), known) {
                    (Some(invalid), _) => (Some(&*invalid.message), invalid.ready.as_ref()),
                    (None, Some(known)) => (None, known.ready.as_ref()),
                    (None, None) => return None,
                };
                let (status, reason, message) = match message {
                    Some(message) => (false, "Invalid", message),
                    None => (true, "Ready", "in use"),
                };
                let ready = self.condition(now, observed, status, reason, message);
                (observed != Some(&ready)).then(|| Write::ApplyAdvertisementReady {
                    advertisement: name.clone(),
                    ready,
                })
            }
        }
    }

    /// What the status of a pool should say; `None`: there is no such pool.
    pub(crate) fn pool_status(
        &self,
        now: Instant,
        world: &World,
        name: &PoolName,
    ) -> Option<PoolStatus> {
        let known = world.pools.get(name).map(|pool| &pool.status);
        let invalid = world.invalid.get(&UserObject::Pool(name.clone()));
        let observed_ready = match (invalid, known) {
            (Some(invalid), _) => invalid.ready.as_ref(),
            (None, Some(status)) => status.ready.as_ref(),
            (None, None) => return None,
        };
        let counts = self.allocator.counts(name);
        let message = invalid.map(|invalid| &*invalid.message);
        let ready = self.pool_ready(now, world, name, message, observed_ready);
        Some(PoolStatus {
            v4: counts.v4.map(text),
            v6: counts.v6.map(text),
            ready: Some(ready),
        })
    }

    fn pool_ready(
        &self,
        now: Instant,
        world: &World,
        name: &PoolName,
        invalid: Option<&str>,
        observed: Option<&Condition>,
    ) -> Condition {
        if let Some(message) = invalid {
            return self.condition(now, observed, false, "Invalid", message);
        }
        let problems = [
            ("Overlap", self.overlaps_of(name)),
            ("Overlap", self.nodes_in(world, name)),
            ("Overlap", self.gateways_in(world, name)),
            ("Overlap", cluster_ranges_in(world, name)),
            (ADDRESS_CONFLICT, self.conflicts_of(name)),
        ];
        let problems = problems
            .into_iter()
            .filter_map(|(reason, message)| Some((reason, message?)));
        let (reasons, messages): (Vec<&str>, Vec<String>) = problems.unzip();
        match reasons.first() {
            Some(reason) => self.condition(now, observed, false, reason, &messages.join("; ")),
            None => self.condition(now, observed, true, "Ready", "in use"),
        }
    }

    /// What the pool lists but does not serve, in a sentence; `None`: nothing.
    fn overlaps_of(&self, name: &PoolName) -> Option<String> {
        let overlaps = self.allocator.overlaps(name);
        let parts: Vec<String> = overlaps
            .iter()
            .map(|overlap| format!("{} also belongs to pool {}", overlap.range, overlap.pool))
            .collect();
        (!parts.is_empty()).then(|| {
            format!(
                "{}, created earlier: pool {name} serves nothing of it",
                parts.join(", ")
            )
        })
    }

    /// What is wrong with an object, thing by thing; strangers aside, of which is told otherwise.
    fn matters(&self, world: &World, object: &UserObject) -> BTreeSet<String> {
        if let Some(invalid) = world.invalid.get(object) {
            return [invalid.message.to_string()].into();
        }
        let UserObject::Pool(name) = object else {
            return BTreeSet::new();
        };
        let overlaps = self.allocator.overlaps(name).iter();
        let overlaps = overlaps.map(|overlap| format!("{} {}", overlap.range, overlap.pool));
        let nodes = world.nodes.keys().flat_map(|node| {
            let own = world.addresses_of(node).into_iter();
            own.map(move |address| (address, node))
        });
        let nodes = nodes
            .filter(|(address, _)| self.is_in(name, *address))
            .map(|(address, node)| format!("{address} {node}"));
        let speakers = world.speakers.keys();
        let gateways = speakers
            .flat_map(|node| world.gateways_of(node))
            .filter(|gateway| self.is_in(name, *gateway))
            .map(|gateway| gateway.to_string());
        let ranges = common_ranges(world, name).into_iter();
        let ranges = ranges.map(|(common, _, what)| format!("{common} {what}"));
        overlaps
            .chain(nodes)
            .chain(gateways)
            .chain(ranges)
            .collect()
    }

    /// The addresses of nodes that the pool lists, in a sentence; `None`: none.
    fn nodes_in(&self, world: &World, name: &PoolName) -> Option<String> {
        let nodes: Vec<String> = world
            .nodes
            .keys()
            .flat_map(|node| {
                let own = world.addresses_of(node).into_iter();
                own.map(move |address| (address, node))
            })
            .filter(|(address, _)| self.is_in(name, *address))
            .map(|(address, node)| format!("{address} is an address of node {node}"))
            .collect();
        some_of(nodes).map(|nodes| format!("{nodes}: pool {name} does not give it"))
    }

    /// The gateways that the pool lists, in a sentence; `None`: none.
    fn gateways_in(&self, world: &World, name: &PoolName) -> Option<String> {
        let mut nodes_of: BTreeMap<IpAddr, BTreeSet<&NodeName>> = BTreeMap::new();
        for node in world.speakers.keys() {
            for gateway in world.gateways_of(node) {
                if self.is_in(name, gateway) {
                    nodes_of.entry(gateway).or_default().insert(node);
                }
            }
        }
        let gateways = nodes_of.into_iter().map(|(gateway, nodes)| {
            let nodes = nodes.into_iter().map(ToString::to_string).collect();
            let nodes = some_of(nodes).unwrap_or_default();
            format!("{gateway} is the gateway of {nodes}")
        });
        let gateways = some_of(gateways.collect())?;
        Some(format!("{gateways}: pool {name} does not give it"))
    }

    fn is_in(&self, name: &PoolName, address: IpAddr) -> bool {
        let pool = self.allocator.pool_of(address);
        pool.is_some_and(|pool| pool.name == *name)
    }

    /// A condition, with the time of its last change.
    pub(super) fn condition(
        &self,
        now: Instant,
        observed: Option<&Condition>,
        status: bool,
        reason: &str,
        message: &str,
    ) -> Condition {
        let before = observed.filter(|observed| observed.status == status);
        Condition {
            status,
            reason: reason.into(),
            message: message.into(),
            since: before.map_or_else(|| self.unix(now), |observed| observed.since),
        }
    }

    /// The status of a pool or advertisement was written.
    pub(super) fn object_written(&mut self, now: Instant, world: &mut World, write: Write) {
        let (object, ready) = match write {
            Write::ApplyPoolStatus { pool, status } => {
                let ready = status.ready.clone();
                if let Some(known) = world.pools.get_mut(&pool) {
                    known.status = status;
                }
                (UserObject::Pool(pool), ready)
            }
            Write::ApplyAdvertisementReady {
                advertisement,
                ready,
            } => {
                if let Some(known) = world.advertisements.get_mut(&advertisement) {
                    known.ready = Some(ready.clone());
                }
                (UserObject::Advertisement(advertisement), Some(ready))
            }
            _ => return,
        };
        if let Some(invalid) = world.invalid.get_mut(&object) {
            invalid.ready = ready;
        }
        self.written_at.insert(object.clone(), now);
        self.object_shown(world, &object);
        // What changed during the write had to wait.
        self.dirty_objects.insert(object);
    }

    /// Notes in which state an object was found.
    pub(super) fn meet_object(&mut self, world: &World, object: &UserObject) {
        let Some((uid, ready)) = readiness(world, object) else {
            self.known_ready.remove(object);
            return;
        };
        let met = self.known_ready.get(object);
        if met.is_none_or(|known| known.uid != *uid) {
            let known = Known {
                uid: uid.clone(),
                ready: ready.cloned(),
                matters: BTreeSet::new(),
            };
            self.known_ready.insert(object.clone(), known);
        }
    }

    /// The status of an object is what it should be: if people do not know of it, they are told. The
    /// watch may have brought it before the write was answered, or instead of an answer.
    pub(super) fn object_shown(&mut self, world: &World, object: &UserObject) {
        let Some((uid, Some(ready))) = readiness(world, object) else {
            return;
        };
        let shown = Known {
            uid: uid.clone(),
            ready: Some(ready.clone()),
            matters: self.matters(world, object),
        };
        let matters = shown.matters.clone();
        let before = self.known_ready.insert(object.clone(), shown);
        let is_known = before.is_some_and(|before| {
            before.uid == *uid
                && before.ready.is_some_and(|known| {
                    (known.status, &known.reason) == (ready.status, &ready.reason)
                        && (known.message == ready.message || matters.is_subset(&before.matters))
                })
        });
        // Of a stranger is told when it is found.
        if !is_known && !ready.status && &*ready.reason != ADDRESS_CONFLICT {
            self.record(Event {
                regarding: Regarding::Object {
                    object: object.clone(),
                    uid: uid.clone(),
                },
                warning: true,
                reason: Arc::clone(&ready.reason),
                note: ready.message.to_string(),
            });
        }
    }
}

/// An object's uid, and its condition `Ready` as its status shows it; `None`: it is not there.
fn readiness<'a>(
    world: &'a World,
    object: &UserObject,
) -> Option<(&'a Uid, Option<&'a Condition>)> {
    if let Some(invalid) = world.invalid.get(object) {
        return Some((&invalid.uid, invalid.ready.as_ref()));
    }
    match object {
        UserObject::Pool(name) => {
            let pool = world.pools.get(name)?;
            Some((&pool.uid, pool.status.ready.as_ref()))
        }
        UserObject::Advertisement(name) => {
            let advertisement = world.advertisements.get(name)?;
            Some((&advertisement.uid, advertisement.ready.as_ref()))
        }
    }
}

/// What the pool lists of the ranges that the cluster itself uses: each with the range that is used,
/// and what for.
fn common_ranges<'a>(
    world: &'a World,
    name: &PoolName,
) -> Vec<(AddressRange, AddressRange, ClusterUse<'a>)> {
    let pool = world.pools.get(name).map(|pool| &pool.pool);
    let listed = pool.map_or(&[][..], |pool| &pool.ranges);
    world
        .cluster_ranges()
        .flat_map(|(used, what)| {
            let common = listed
                .iter()
                .filter_map(move |range| range.intersection(used));
            common.map(move |common| (common, used, what))
        })
        .collect()
}

/// The same in a sentence; `None`: nothing.
fn cluster_ranges_in(world: &World, name: &PoolName) -> Option<String> {
    let common = common_ranges(world, name)
        .into_iter()
        .map(|(common, used, what)| format!("{common} is of {used}, for {what}"))
        .collect();
    some_of(common).map(|common| format!("{common}: pool {name} gives none of it"))
}

fn text(counts: Counts) -> TextCounts {
    TextCounts {
        total: counts.total.to_string(),
        assigned: counts.assigned.to_string(),
        available: counts.available.to_string(),
    }
}

/// The first few of many sentences: a condition's message is for people. `None`: there are none.
pub(super) fn some_of(all: Vec<String>) -> Option<String> {
    const IN_FULL: usize = 4;
    let more = match all.len().saturating_sub(IN_FULL) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let full: Vec<String> = all.into_iter().take(IN_FULL).collect();
    (!full.is_empty()).then(|| full.join(", ") + &more)
}
