//! Those who wait: fetches for bytes, requests for acknowledgements and low watermarks.

use std::sync::Arc;

use klamm_protocol::ErrorCode;
use tokio::sync::watch;

use super::core::Core;
use super::{Partition, ReplicaOffsets};
use crate::fetch_session::FetchPartition;
use crate::manager::error::log_error_code;
use crate::manager::lock;
use crate::manager::wait::{FetchWaiter, OffsetWaiter, Outcome, Ticket, Wakes};
use crate::waiters::{Isolation, WaiterKey};

impl Partition {
    /// Lets a fetch wait for bytes, unless something it would have waited for has happened since
    /// it looked: `seen` are the offsets it saw.
    pub(crate) fn park(
        &self,
        isolation: Isolation,
        wish: &FetchPartition,
        room: u64,
        seen: &ReplicaOffsets,
        waiter: &Arc<FetchWaiter>,
    ) -> Option<WaiterKey> {
        let fetch_offset = wish.fetch_offset;
        let mut core = lock(&self.core);
        let now = self.offsets_of(&core);
        let same = now.bound(isolation) == seen.bound(isolation)
            && now.leader_epoch == seen.leader_epoch
            && now.log_start_offset <= fetch_offset
            && !wish.lacks_high_watermark(now.high_watermark);
        same.then(|| {
            let (known, waiter) = (wish.high_watermark, Arc::clone(waiter));
            core.fetches
                .insert_follower(isolation, fetch_offset, room, known, waiter)
        })
    }

    /// Ends a wait begun with [`Partition::park`].
    pub(crate) fn unpark(&self, key: WaiterKey) {
        lock(&self.core).fetches.remove(key);
    }

    /// Removes the tickets of a request that waits no longer.
    pub(crate) fn forget(&self, required_offset: i64, waiter: &Arc<OffsetWaiter>) {
        let mut core = lock(&self.core);
        core.acks
            .remove(required_offset, |ticket| ticket.belongs_to(waiter));
        core.syncs
            .remove(required_offset, |(ticket, ..)| ticket.belongs_to(waiter));
        core.deletes
            .remove(required_offset, |ticket| ticket.belongs_to(waiter));
    }

    /// Deletes the records below `offset`, -1 for all that are committed. Returns the offset in
    /// absolute terms and the low watermark, and enqueues a ticket if that is still behind.
    pub(crate) fn delete_records(
        &self,
        offset: i64,
        ticket: &mut dyn FnMut() -> Ticket,
    ) -> Result<(i64, i64), ErrorCode> {
        let _role_held = self.hold_role();
        let high_watermark = {
            let core = lock(&self.core);
            let leader = core
                .role
                .as_leader()
                .ok_or(ErrorCode::NotLeaderOrFollower)?;
            leader.high_watermark()
        };
        if !self.log.config().delete {
            return Err(ErrorCode::PolicyViolation);
        }
        let offset = if offset == -1 { high_watermark } else { offset };
        if offset < 0 || offset > high_watermark {
            return Err(ErrorCode::OffsetOutOfRange);
        }
        self.log
            .delete_records_before(offset)
            .map_err(|error| log_error_code(&error))?;
        let mut wakes = Wakes::default();
        let low_watermark = {
            let mut core = lock(&self.core);
            wakes
                .fetches
                .extend(core.fetches.below(offset).map(|waiter| {
                    waiter.disturb();
                    Arc::clone(waiter)
                }));
            self.settle_deletes(&mut core, &mut wakes);
            let low_watermark = self.low_watermark(&core);
            if low_watermark < offset {
                core.deletes.push(offset, ticket());
            }
            low_watermark
        };
        wakes.wake();
        Ok((offset, low_watermark))
    }

    /// The smallest log start offset among the live replicas; -1 if this broker does not lead.
    pub(crate) fn current_low_watermark(&self) -> i64 {
        self.low_watermark(&lock(&self.core))
    }

    fn low_watermark(&self, core: &Core) -> i64 {
        core.role.as_leader().map_or(-1, |leader| {
            leader.low_watermark(self.log.log_start_offset())
        })
    }

    pub(super) fn settle_deletes(&self, core: &mut Core, wakes: &mut Wakes) {
        if core.deletes.is_empty() {
            return;
        }
        let low_watermark = self.low_watermark(core);
        while let Some(ticket) = core.deletes.pop_reached(low_watermark) {
            wakes.offsets.extend(ticket.settle(Outcome::Done));
        }
    }

    /// Follows the high watermark of this replica.
    pub(crate) fn watch(&self) -> watch::Receiver<i64> {
        let mut core = lock(&self.core);
        let now = core.role.high_watermark();
        core.watch
            .get_or_insert_with(|| watch::Sender::new(now))
            .subscribe()
    }
}
