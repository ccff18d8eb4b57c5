//! DeleteRecords: move the start of a log up, on all live replicas.

use std::sync::Arc;

use klamm_protocol::{ErrorCode, topic_name};
use smallvec::SmallVec;

use super::ReplicaManager;
use super::partition::Partition;
use super::wait::{OffsetWaiter, Outcome, Sleeper, Ticket, deadline};

/// What DeleteRecords answers for one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletedRecords {
    /// The verdict.
    pub error: ErrorCode,
    /// The smallest first offset among the live replicas, -1 on an error.
    pub low_watermark: i64,
}

impl ReplicaManager {
    /// Deletes the records before an offset, for each of `wishes` (topic, partition, offset; -1
    /// stands for the high watermark), and waits until the live replicas have followed.
    pub async fn delete_records(
        &self,
        wishes: &[(&str, i32, i64)],
        timeout_ms: i32,
    ) -> Vec<DeletedRecords> {
        let waiter = OffsetWaiter::new(wishes.len());
        let mut answers = Vec::with_capacity(wishes.len());
        let mut waits: SmallVec<[(usize, Arc<Partition>, i64); 2]> = SmallVec::new();
        for (slot, &(topic, partition, offset)) in wishes.iter().enumerate() {
            let answer = match self.delete_now(topic, partition, offset, &waiter, slot) {
                Ok((partition, offset, low_watermark)) => {
                    if low_watermark < offset {
                        waits.push((slot, partition, offset));
                    }
                    DeletedRecords {
                        error: ErrorCode::None,
                        low_watermark,
                    }
                }
                Err(error) => DeletedRecords {
                    error,
                    low_watermark: -1,
                },
            };
            answers.push(answer);
        }
        if waits.is_empty() {
            return answers;
        }
        let waiting = Waiting {
            manager: self,
            waiter,
            waits,
        };
        waiting.wait(timeout_ms).await;
        for (slot, partition, _) in &waiting.waits {
            answers[*slot] = waiting.answer(*slot, partition);
        }
        answers
    }

    fn delete_now(
        &self,
        topic: &str,
        partition: i32,
        offset: i64,
        waiter: &Arc<OffsetWaiter>,
        slot: usize,
    ) -> Result<(Arc<Partition>, i64, i64), ErrorCode> {
        if topic_name::is_internal(topic) {
            return Err(ErrorCode::InvalidTopicException);
        }
        let partition = self.find(topic, partition)?;
        let mut ticket = || Ticket::new(Arc::clone(waiter), slot);
        let (offset, low_watermark) = partition.delete_records(offset, &mut ticket)?;
        Ok((partition, offset, low_watermark))
    }
}

/// A request that waits for low watermarks. Leaves the waiting lists when dropped.
struct Waiting<'a> {
    manager: &'a ReplicaManager,
    waiter: Arc<OffsetWaiter>,
    waits: SmallVec<[(usize, Arc<Partition>, i64); 2]>,
}

impl Waiting<'_> {
    async fn wait(&self, timeout_ms: i32) {
        let inner = &self.manager.0;
        let deadline = deadline(inner.env.clock.monotonic(), timeout_ms);
        let sleeper = Sleeper::Offsets(Arc::clone(&self.waiter));
        let key = inner.timer.insert(deadline, sleeper);
        self.waiter.sleep().await;
        inner.timer.remove(key);
    }

    fn answer(&self, slot: usize, partition: &Partition) -> DeletedRecords {
        let low_watermark = partition.current_low_watermark();
        match self.waiter.outcome(slot) {
            Outcome::Done => DeletedRecords {
                error: ErrorCode::None,
                low_watermark,
            },
            Outcome::NotLeader => DeletedRecords {
                error: ErrorCode::NotLeaderOrFollower,
                low_watermark: -1,
            },
            Outcome::Waiting | Outcome::NotEnoughReplicas => DeletedRecords {
                error: ErrorCode::RequestTimedOut,
                low_watermark,
            },
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        for (slot, partition, offset) in &self.waits {
            if self.waiter.outcome(*slot) == Outcome::Waiting {
                partition.forget(*offset, &self.waiter);
            }
        }
    }
}
