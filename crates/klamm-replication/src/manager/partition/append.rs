//! Appending as leader.

use klamm_log::{AppendInfo, AppendOrigin, LogError};
use klamm_protocol::ErrorCode;
use klamm_records::PreparedBatch;

use super::Partition;
use super::core::Then;
use crate::manager::error::log_error_code;
use crate::manager::lock;
use crate::manager::wait::{Outcome, Ticket, Wakes};
use crate::partition::leader::LeaderState;

/// An append that succeeded.
#[derive(Debug)]
pub(crate) struct Appended {
    pub(crate) info: AppendInfo,
    /// Whether the acknowledgement is still to come; the ticket is in the queue then.
    pub(crate) waits: bool,
    /// How the records are acknowledged, unless they wait.
    pub(crate) outcome: Outcome,
}

/// How an append is to be acknowledged.
pub(crate) enum Acks<'a> {
    /// By the leader alone, and the caller does not want to know when.
    Leader,
    /// By the leader alone; the function makes the ticket if that takes time.
    LeaderWatched(&'a mut dyn FnMut() -> Ticket),
    /// By all in-sync replicas, and the caller follows the high watermark by itself.
    AllUnwatched,
    /// By all in-sync replicas; the function makes the ticket if that takes time.
    All(&'a mut dyn FnMut() -> Ticket),
}

impl Partition {
    /// Appends as leader. `expected_epoch` refuses the append if the leader epoch is another.
    pub(crate) fn append(
        &self,
        batches: &mut [PreparedBatch],
        origin: AppendOrigin,
        expected_epoch: Option<i32>,
        acks: Acks<'_>,
        now_ms: i64,
        wakes: &mut Wakes,
    ) -> Result<Appended, ErrorCode> {
        let _role_held = self.hold_role();
        let epoch = {
            let core = lock(&self.core);
            let leader = core
                .role
                .as_leader()
                .ok_or(ErrorCode::NotLeaderOrFollower)?;
            let alone = matches!(acks, Acks::Leader | Acks::LeaderWatched(_));
            if !alone && !leader.has_enough_replicas() {
                return Err(ErrorCode::NotEnoughReplicas);
            }
            if expected_epoch.is_some_and(|expected| expected != leader.epoch()) {
                return Err(ErrorCode::NotLeaderOrFollower);
            }
            leader.epoch()
        };
        let size = batches.iter().map(PreparedBatch::size).sum::<usize>() as u64;
        let info = self
            .log
            .append_as_leader(batches, epoch, now_ms, origin)
            .map_err(|error| self.append_failed(&error))?;
        let mut core = lock(&self.core);
        if !info.duplicate {
            let end_offset = info.last_offset + 1;
            if let Some(leader) = core.role.as_leader_mut() {
                leader.appended(end_offset, now_ms);
            }
            core.log_grew(&self.log, end_offset, size, wakes);
        }
        let (waits, outcome) = match acks {
            Acks::LeaderWatched(ticket) if info.sync_pending => {
                core.await_sync(&self.log, info.last_offset + 1, Then::Done, ticket)
            }
            Acks::All(ticket) if info.sync_pending => {
                core.await_sync(&self.log, info.last_offset + 1, Then::Replicated, ticket)
            }
            Acks::Leader | Acks::LeaderWatched(_) | Acks::AllUnwatched => (false, Outcome::Done),
            Acks::All(ticket) => core.acknowledge(info.last_offset + 1, ticket),
        };
        Ok(Appended {
            info,
            waits,
            outcome,
        })
    }

    fn append_failed(&self, error: &LogError) -> ErrorCode {
        let code = log_error_code(error);
        if error.is_storage_failure() {
            tracing::error!(partition = %self.name, %error, "append failed");
            let others = |leader: &LeaderState| leader.replicas().len() > 1;
            if error.is_disk_full() && lock(&self.core).role.as_leader().is_some_and(others) {
                // Another replica has room. A producer that has sent more before the refusal
                // reaches it must not have later batches taken without this one: they would be out
                // of sequence, and librdkafka then sends again under a new epoch what may be in the
                // log already. With the log, its directory goes offline, as Kafka's does.
                self.log.set_offline();
            }
        } else {
            tracing::debug!(partition = %self.name, %error, "append refused");
        }
        code
    }
}
