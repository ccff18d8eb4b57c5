//! Following: the leader's batches in, and what its answers say of this log.

use klamm_log::{LogError, UNKNOWN_LEADER_EPOCH};
use klamm_protocol::ErrorCode;

use super::Partition;
use crate::manager::error::log_error_code;
use crate::manager::follow::{FollowError, FollowerWish};
use crate::manager::lock;
use crate::manager::wait::Wakes;
use crate::partition::{EpochEnd, FollowerState, Role, Truncation};

impl Partition {
    /// Where this replica fetches next; `None` if it does not follow `leader`.
    pub(crate) fn wish(&self, leader: i32) -> Option<FollowerWish> {
        let core = lock(&self.core);
        let follower = as_follower(&core.role).filter(|role| role.leader_id() == Some(leader))?;
        let log_end = self.log.log_end_offset();
        Some(FollowerWish {
            position: follower.next_fetch(log_end, self.log.latest_epoch()),
            log_start_offset: self.log.log_start_offset(),
            high_watermark: follower.high_watermark(),
            throttled: false,
            awaits_sync: !follower.may_fetch(log_end, self.durable_offset()),
        })
    }

    /// Appends what the leader sent for a fetch under `fetch_epoch`, and takes over its high
    /// watermark and the start of its log. Returns how many bytes were new.
    pub(crate) fn follow(
        &self,
        fetch_epoch: i32,
        records: &[u8],
        leader_high_watermark: i64,
        leader_log_start: i64,
        now_ms: i64,
    ) -> Result<u64, FollowError> {
        let _role_held = self.hold_role();
        self.check_following(fetch_epoch)?;
        let (bytes, failure) = self.append_all(fetch_epoch, records, now_ms);
        if let Some(error) = failure.as_ref().filter(|_| bytes == 0) {
            return Err(self.follow_failed(error));
        }
        let mut wakes = Wakes::default();
        {
            let mut core = lock(&self.core);
            let (start, end) = (self.log.log_start_offset(), self.log.log_end_offset());
            self.throttled.set_caught_up(end >= leader_high_watermark);
            if let Role::Follower(follower) = &mut core.role {
                follower.observe_high_watermark(leader_high_watermark, start, end);
            }
            if bytes > 0 {
                core.log_grew(&self.log, end, bytes, &mut wakes);
            } else {
                core.high_watermark_moved(&self.log, &mut wakes);
            }
        }
        wakes.wake();
        if let Some(error) = failure {
            return Err(self.follow_failed(&error));
        }
        // Records that the leader has deleted are deleted here, as far as they are committed here.
        let start = leader_log_start.min(self.log.high_watermark());
        if start > self.log.log_start_offset() {
            self.log
                .delete_records_before(start)
                .map_err(|error| self.follow_failed(&error))?;
        }
        Ok(bytes)
    }

    /// Appends what a fetch brought, segment by segment. Returns how many bytes of it, and what went
    /// wrong behind them.
    fn append_all(&self, fetch_epoch: i32, records: &[u8], now_ms: i64) -> (u64, Option<LogError>) {
        let mut taken = 0;
        while let Some(rest) = records.get(taken..).filter(|rest| !rest.is_empty()) {
            match self.log.append_fetched(rest, fetch_epoch, now_ms) {
                // The end of a batch is missing, or a batch is of an epoch that is not known yet.
                Ok(info) if info.bytes == 0 => break,
                Ok(info) => taken += info.bytes as usize,
                Err(error) => return (taken as u64, Some(error)),
            }
        }
        (taken as u64, None)
    }

    /// Cuts this log where it parts from the leader's, whose largest epoch not above the one that
    /// was fetched with is given with its end.
    pub(crate) fn follow_parted(
        &self,
        fetch_epoch: i32,
        leader: EpochEnd,
    ) -> Result<(), FollowError> {
        let _role_held = self.hold_role();
        let truncation = {
            let core = lock(&self.core);
            let follower = following(&core.role, fetch_epoch)?;
            let local = (leader.epoch >= 0)
                .then(|| self.log.epoch_end_offset(leader.epoch))
                .flatten()
                .map(|end| EpochEnd {
                    epoch: end.epoch,
                    end_offset: end.end_offset,
                })
                .filter(|end| end.epoch != UNKNOWN_LEADER_EPOCH);
            follower.truncation(leader, local, self.log.log_end_offset())
        };
        self.truncate(truncation)
    }

    /// What to do where the leader no longer has, or never had, what was asked for.
    pub(crate) fn follow_out_of_range(
        &self,
        fetch_epoch: i32,
        leader_start: i64,
        leader_end: i64,
    ) -> Result<(), FollowError> {
        let _role_held = self.hold_role();
        let truncation = {
            let core = lock(&self.core);
            let follower = following(&core.role, fetch_epoch)?;
            follower.out_of_range(self.log.log_end_offset(), leader_start, leader_end)
        };
        self.truncate(truncation)
    }

    fn truncate(&self, truncation: Truncation) -> Result<(), FollowError> {
        let done = match truncation {
            Truncation::To(offset) | Truncation::Probe(offset) => {
                if offset < self.log.high_watermark() {
                    tracing::warn!(
                        partition = %self.name, offset, high_watermark = self.log.high_watermark(),
                        "cutting below the high watermark"
                    );
                }
                self.log.truncate_to(offset).map(drop)
            }
            Truncation::RestartAt(offset) => {
                tracing::info!(partition = %self.name, offset, "starting anew at the leader's start");
                self.log.truncate_fully_and_start_at(offset, None)
            }
            Truncation::Nothing => Ok(()),
        };
        done.map_err(|error| self.follow_failed(&error))?;
        let mut wakes = Wakes::default();
        {
            let mut core = lock(&self.core);
            let (start, end) = (self.log.log_start_offset(), self.log.log_end_offset());
            if let Role::Follower(follower) = &mut core.role {
                // A high watermark above the end would promise what is gone.
                let bounded = follower.high_watermark();
                follower.observe_high_watermark(bounded, start, end);
            }
            core.count_from(&self.log);
            core.high_watermark_moved(&self.log, &mut wakes);
        }
        wakes.wake();
        Ok(())
    }

    fn check_following(&self, fetch_epoch: i32) -> Result<(), FollowError> {
        following(&lock(&self.core).role, fetch_epoch).map(drop)
    }

    fn follow_failed(&self, error: &LogError) -> FollowError {
        let code = log_error_code(error);
        tracing::error!(partition = %self.name, %error, "cannot follow");
        if error.is_disk_full() {
            // The leader goes on without this replica as soon as the controller knows, and not only
            // after `replica.lag.time.max.ms`.
            self.log.set_offline();
        }
        FollowError::Log(code)
    }
}

fn as_follower(role: &Role) -> Option<&FollowerState> {
    match role {
        Role::Follower(follower) => Some(follower),
        Role::Leader(_) => None,
    }
}

/// The follower's state, if it is still the one that asked.
fn following(role: &Role, fetch_epoch: i32) -> Result<&FollowerState, FollowError> {
    as_follower(role)
        .filter(|follower| follower.leader_epoch() == fetch_epoch)
        .ok_or(FollowError::Moved)
}

impl From<ErrorCode> for FollowError {
    fn from(code: ErrorCode) -> FollowError {
        FollowError::Leader(code)
    }
}
