//! What came of the writes.

use std::net::IpAddr;
use std::sync::Arc;

use herald_model::{Instant, ServiceKey};

use super::{Key, Leader};
use crate::io::{ServiceStatus, Write, WriteId, WriteResult};
use crate::observed::{Identity, Version};
use crate::world::World;

/// A write of a Service's status.
#[derive(Clone, Copy)]
struct Sent<'a> {
    key: &'a ServiceKey,
    identity: &'a Identity,
    status: &'a ServiceStatus,
}

impl Leader {
    /// Takes what came of a write. Of a write of another term only what it made is taken.
    pub(crate) fn note_result(
        &mut self,
        now: Instant,
        world: &mut World,
        id: WriteId,
        result: WriteResult,
    ) {
        let Some(write) = self.writing.remove(&id) else {
            if let WriteResult::VipWritten(vip) = result {
                let address = vip.vip.address;
                if world.apply_vip(*vip) {
                    self.look_at(now, world, address);
                }
            }
            return;
        };
        match write {
            Write::CreateVip(vip) | Write::ReplaceVip { vip, .. } => {
                self.claim_result(now, world, id, vip.address, None, result);
            }
            Write::DeleteVip { address, identity } => {
                self.claim_result(now, world, id, address, Some(identity), result);
            }
            Write::ApplyServiceStatus {
                key,
                identity,
                status,
            } => {
                let sent = Sent {
                    key: &key,
                    identity: &identity,
                    status: &status,
                };
                self.status_result(now, world, id, sent, result);
            }
            write @ (Write::ApplyPoolStatus { .. } | Write::ApplyAdvertisementReady { .. }) => {
                if matches!(result, WriteResult::Failed { .. }) {
                    self.outbox.failed(now, id);
                } else {
                    self.outbox.done(id);
                    self.object_written(now, world, write);
                }
            }
            Write::RecordEvent(_) => {
                // An Event that the API server refuses is refused for ever, as when its namespace
                // is being deleted.
                if matches!(result, WriteResult::Failed { refused: false, .. }) {
                    self.outbox.failed(now, id);
                } else if let Some(Key::Event(number)) = self.outbox.done(id) {
                    self.events.remove(&number);
                }
            }
        }
    }

    fn claim_result(
        &mut self,
        now: Instant,
        world: &mut World,
        id: WriteId,
        address: IpAddr,
        deleted: Option<Identity>,
        result: WriteResult,
    ) {
        let mut error = None;
        let mut uncertain = false;
        match result {
            WriteResult::VipWritten(vip) => {
                self.outbox.done(id);
                world.apply_vip(*vip);
                if let Some(claim) = self.claims.get_mut(&address) {
                    claim.contested = false;
                }
            }
            WriteResult::VipDiffers(Some(vip)) => {
                self.outbox.done(id);
                world.apply_vip(*vip);
            }
            WriteResult::VipGone => {
                self.outbox.done(id);
                let uid = deleted
                    .map(|identity| identity.uid)
                    .or_else(|| world.vips.get(&address).map(|vip| vip.identity.uid.clone()));
                if let Some(uid) = uid {
                    world.end_vip(address, &uid);
                }
            }
            WriteResult::Failed {
                message,
                refused: true,
            } => {
                error = Some(Arc::from(message));
                self.outbox.failed(now, id);
            }
            _ => {
                uncertain = true;
                self.outbox.failed(now, id);
            }
        }
        let version = world
            .vips
            .get(&address)
            .map(|vip| vip.identity.version.clone());
        if let Some(claim) = self.claims.get_mut(&address)
            && uncertain
        {
            claim.uncertain = version;
        }
        let holders = self.allocator.holders(address);
        self.dirty_statuses
            .extend(holders.into_iter().map(|holder| holder.key));
        if let Some(claim) = self.claims.get_mut(&address)
            && claim.error != error
        {
            claim.error = error;
            let holders = self.allocator.holders(address);
            self.dirty_statuses
                .extend(holders.into_iter().map(|holder| holder.key));
        }
        self.look_at(now, world, address);
    }

    fn status_result(
        &mut self,
        now: Instant,
        world: &mut World,
        id: WriteId,
        sent: Sent<'_>,
        result: WriteResult,
    ) {
        let Sent { key, identity, .. } = sent;
        // Whatever is not certain to have failed may have taken place; and if the Service differs,
        // what was told of it is old.
        let mut uncertain = Some(identity.version.clone());
        let before = self
            .assignments
            .get(key)
            .filter(|a| a.me.uid == identity.uid);
        let before = before.and_then(|assignment| assignment.uncertain.clone());
        match result {
            WriteResult::ServiceWritten { version, ingress } => {
                uncertain = before.filter(|before| *before == version);
                if uncertain.is_none()
                    && let Some(assignment) = self.assignments.get_mut(key)
                {
                    assignment.contested = false;
                }
                if uncertain.is_some() {
                    // It changed nothing, so that an earlier one may still take place.
                    self.outbox.failed(now, id);
                } else {
                    self.outbox.done(id);
                }
                self.status_written(world, sent, version, ingress);
            }
            WriteResult::FieldsOwned {
                ingress,
                allocated_from,
                message,
            } => {
                // This write has not taken place; of an earlier one that says nothing.
                uncertain = before.filter(|before| *before == identity.version);
                if uncertain.is_some() {
                    self.outbox.failed(now, id);
                } else {
                    self.outbox.done(id);
                }
                if let Some(assignment) = self.assignments.get_mut(key) {
                    let owned = assignment.owned.get_or_insert_default();
                    owned.ingress |= ingress;
                    owned.allocated_from |= allocated_from;
                    owned.message = message;
                }
            }
            WriteResult::ServiceGone => {
                self.outbox.failed(now, id);
                if let Some(observed) = world.services.get_mut(key)
                    && observed.identity.uid == identity.uid
                {
                    observed.ingress.clear();
                }
            }
            _ => {
                self.outbox.failed(now, id);
                let known = world.services.get(key).map(|observed| &observed.identity);
                if known != Some(identity) {
                    // Its new form has come before this result: no other event would hurry it.
                    self.outbox.hurry(&Key::Status(key.clone()));
                }
            }
        }
        if let Some(assignment) = self.assignments.get_mut(key)
            && assignment.me.uid == identity.uid
        {
            assignment.uncertain = uncertain;
        }
        self.mark_service(world, key);
    }

    /// The status is certain.
    fn status_written(
        &mut self,
        world: &mut World,
        sent: Sent<'_>,
        version: Version,
        ingress: Vec<IpAddr>,
    ) {
        let Sent {
            key,
            identity,
            status,
        } = sent;
        let Some(observed) = world.services.get_mut(key) else {
            return;
        };
        if observed.identity.uid != identity.uid {
            return;
        }
        // Of a Service that is not ours only a fence names a pool that was not named before.
        let fenced = status.allocated_from.is_some() && observed.allocated_from.is_none();
        // The write was made conditional on the version, so it came right after what was known.
        if !version.is_before(&observed.identity.version) {
            observed.identity.version = version;
            if status
                .ingress
                .as_ref()
                .is_some_and(|wanted| *wanted != ingress)
                && let Some(assignment) = self.assignments.get_mut(key)
            {
                // What Herald does not name is not taken out if somebody else named it.
                let owned = assignment.owned.get_or_insert_default();
                owned.ingress = true;
                "it shows addresses that Herald did not write".clone_into(&mut owned.message);
            }
            observed.ingress = ingress;
            observed.allocated.clone_from(&status.allocated);
            observed.announced.clone_from(&status.announced);
            observed.allocated_from.clone_from(&status.allocated_from);
        }
        if observed.served().is_none() {
            if fenced {
                self.cleared.remove(key);
            } else {
                self.cleared.insert(key.clone(), identity.uid.clone());
            }
        }
    }
}
