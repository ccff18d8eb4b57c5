//! Produce: validate outside of any lock, append in the order of calls, acknowledge later.
//!
//! ```text
//! prepare (per partition)  ->  append_now (per request)  ->  PendingProduce::wait
//!   look up, validate            append, note who waits        acks=all only
//! ```
//!
//! [`ReplicaManager::append_now`] returns once the batches are in the logs. What remains may be
//! awaited elsewhere, so that a connection reads its next request while replicas acknowledge.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;
use klamm_log::{AppendInfo, AppendOrigin};
use klamm_protocol::{ErrorCode, topic_name};
use klamm_records::produce::{PreparedBatch, ProduceError, ProduceErrorKind, ProduceRules};
use klamm_records::{Scratch, TopicPartition, Uuid, produce};
use smallvec::SmallVec;

use super::partition::{Acks, Partition};
use super::wait::{OffsetWaiter, Outcome, Sleeper, Ticket, Wakes, deadline};
use super::{LeaderHint, ReplicaManager};
use crate::waiters::DeadlineKey;

thread_local! {
    /// Buffers and codec contexts of this thread; validation never awaits.
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch::new());
}

/// A topic as a request names it.
#[derive(Clone, Copy, Debug)]
pub enum TopicRef<'a> {
    /// By name.
    Name(&'a str),
    /// By id.
    Id(Uuid),
}

/// Who produces, and by which version of the request.
#[derive(Clone, Copy, Debug)]
pub struct ProduceContext {
    /// Version of the Produce request.
    pub api_version: i16,
    /// Whether the producer may write to internal topics (`__consumer_offsets` …).
    pub internal_topics_allowed: bool,
}

/// One partition of a produce request, looked up and validated.
#[derive(Debug)]
pub struct Prepared {
    partition: Option<Arc<Partition>>,
    batch: Result<PreparedBatch, ProduceResult>,
    /// What the verification of the transaction gave.
    guard: Option<u64>,
}

impl Prepared {
    /// A partition that the caller refuses for a reason of its own.
    pub fn refused(error: ErrorCode) -> Self {
        Prepared::refused_with(ProduceResult::error(error))
    }

    /// The same with all that is answered.
    pub fn refused_with(result: ProduceResult) -> Self {
        Prepared {
            partition: None,
            batch: Err(result),
            guard: None,
        }
    }

    /// The batch's transaction was verified: see [`ReplicaManager::begin_verification`].
    pub fn verified(self, guard: Option<u64>) -> Self {
        Prepared { guard, ..self }
    }
}

/// What a produce request answers for one partition. The values of an error are those of Kafka:
/// mostly -1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProduceResult {
    /// The verdict.
    pub error: ErrorCode,
    /// Text for the client; only if single records were rejected.
    pub error_message: Option<String>,
    /// Offset of the first record, -1 if none was appended.
    pub base_offset: i64,
    /// Time that the log stamped the records with, -1 if they keep the producer's.
    pub log_append_time_ms: i64,
    /// First offset of the log, -1 if unknown.
    pub log_start_offset: i64,
    /// Records that were rejected, by index in the batch, with the reason.
    pub record_errors: Vec<(i32, String)>,
    /// Who leads the partition, on `NOT_LEADER_OR_FOLLOWER` (KIP-951).
    pub current_leader: Option<LeaderHint>,
}

impl ProduceResult {
    /// An error without any detail.
    pub fn error(error: ErrorCode) -> Self {
        ProduceResult {
            error,
            error_message: None,
            base_offset: -1,
            log_append_time_ms: -1,
            log_start_offset: -1,
            record_errors: Vec::new(),
            current_leader: None,
        }
    }

    fn appended(info: &AppendInfo) -> Self {
        ProduceResult {
            base_offset: info.first_offset,
            log_append_time_ms: info.log_append_time_ms,
            log_start_offset: info.log_start_offset,
            ..ProduceResult::error(ErrorCode::None)
        }
    }
}

impl ReplicaManager {
    /// Looks up a partition and validates the records produced to it, with Kafka's verdicts.
    /// Decompresses if validation demands it, so it takes time, but no lock.
    pub fn prepare(
        &self,
        topic: TopicRef<'_>,
        partition: i32,
        records: Bytes,
        context: ProduceContext,
    ) -> Prepared {
        let refused = |partition, result| Prepared {
            partition,
            batch: Err(result),
            guard: None,
        };
        let found = match topic {
            TopicRef::Name(name) => self.find(name, partition),
            TopicRef::Id(id) => self.find_by_id(id, partition),
        };
        let found = match found {
            Ok(found) => found,
            Err(error) => {
                let mut result = ProduceResult::error(error);
                if error == ErrorCode::NotLeaderOrFollower {
                    result.current_leader = self.leader_hint(topic, partition);
                }
                return refused(None, result);
            }
        };
        let name = found.name();
        if !context.internal_topics_allowed && topic_name::is_internal(&name.topic) {
            return refused(None, ProduceResult::error(ErrorCode::InvalidTopicException));
        }
        if let Some(hint) = found.role(|role| role.as_leader().is_none().then(|| role.into())) {
            let result = ProduceResult {
                current_leader: Some(hint),
                ..ProduceResult::error(ErrorCode::NotLeaderOrFollower)
            };
            return refused(None, result);
        }
        let rules = ProduceRules {
            api_version: context.api_version,
            from_client: true,
            ..found.rules()
        };
        let now_ms = self.0.env.clock.wall_ms();
        let validated =
            SCRATCH.with_borrow_mut(|scratch| produce::validate(records, &rules, scratch, now_ms));
        match validated {
            Ok(batch) => Prepared {
                partition: Some(found),
                batch: Ok(batch),
                guard: None,
            },
            Err(error) => {
                let result = rejected(&error, &found);
                refused(Some(found), result)
            }
        }
    }

    /// Whether appending these would probably wait for a device that does not keep up. Then it is
    /// better done where waiting does no harm, and nothing else of the connection before it.
    pub fn would_stall(&self, prepared: &[Prepared]) -> bool {
        let partitions = prepared.iter().filter_map(|one| one.partition.as_ref());
        partitions
            .map(|partition| partition.log())
            .any(|log| log.is_stalled())
    }

    /// Appends prepared batches, one request's, in order. `acks` is the request's: 0 or 1 for the
    /// leader alone, -1 for all in-sync replicas; anything else is refused.
    ///
    /// Blocks as long as copies into the page cache take.
    pub fn append_now(
        &self,
        prepared: Vec<Prepared>,
        acks: i16,
        timeout_ms: i32,
    ) -> PendingProduce {
        let mut pending = PendingProduce {
            manager: self.clone(),
            results: Vec::with_capacity(prepared.len()),
            waits: SmallVec::new(),
            waiter: None,
            deadline: None,
        };
        if !(-1..=1).contains(&acks) {
            let refused = ProduceResult::error(ErrorCode::InvalidRequiredAcks);
            pending.results = vec![refused; prepared.len()];
            return pending;
        }
        let now_ms = self.0.env.clock.wall_ms();
        let slots = prepared.len();
        let mut wakes = Wakes::default();
        for prepared in prepared {
            let origin = match prepared.guard {
                None => AppendOrigin::Client,
                Some(guard) => AppendOrigin::VerifiedClient { guard },
            };
            let result = match (prepared.partition, prepared.batch) {
                (Some(partition), Ok(batch)) => {
                    let append = Append {
                        batch,
                        origin,
                        acks,
                        now_ms,
                        slots,
                    };
                    pending.append(partition, append, &mut wakes)
                }
                (_, Err(result)) => result,
                // Without a partition there is no batch.
                (None, Ok(_)) => ProduceResult::error(ErrorCode::UnknownServerError),
            };
            pending.results.push(result);
        }
        wakes.wake();
        if let Some(waiter) = &pending.waiter
            && !waiter.is_over()
        {
            let deadline = deadline(self.0.env.clock.monotonic(), timeout_ms);
            let sleeper = Sleeper::Offsets(Arc::clone(waiter));
            pending.deadline = Some(self.0.timer.insert(deadline, sleeper));
        }
        pending
    }
}

/// A produce request whose batches are in the logs and whose acknowledgement may be outstanding.
/// Dropping it gives up the wait; the records stay.
#[derive(Debug)]
pub struct PendingProduce {
    manager: ReplicaManager,
    results: Vec<ProduceResult>,
    /// Results that wait, as index, partition and the offset that the high watermark must reach.
    waits: SmallVec<[(usize, Arc<Partition>, i64); 2]>,
    waiter: Option<Arc<OffsetWaiter>>,
    deadline: Option<DeadlineKey>,
}

/// One batch to be appended.
struct Append {
    batch: PreparedBatch,
    origin: AppendOrigin,
    acks: i16,
    now_ms: i64,
    /// How many partitions the request has.
    slots: usize,
}

impl PendingProduce {
    fn append(
        &mut self,
        partition: Arc<Partition>,
        append: Append,
        wakes: &mut Wakes,
    ) -> ProduceResult {
        let Append {
            batch,
            origin,
            acks,
            now_ms,
            slots,
        } = append;
        let slot = self.results.len();
        let waiter = &mut self.waiter;
        let mut ticket = || {
            let waiter = waiter.get_or_insert_with(|| OffsetWaiter::new(slots));
            Ticket::new(Arc::clone(waiter), slot)
        };
        let acks = match acks {
            -1 => Acks::All(&mut ticket),
            0 => Acks::Leader,
            _ => Acks::LeaderWatched(&mut ticket),
        };
        let appended = partition.append(&mut [batch], origin, None, acks, now_ms, wakes);
        match appended {
            Ok(appended) => {
                let mut result = ProduceResult::appended(&appended.info);
                if appended.waits {
                    let required = appended.info.last_offset + 1;
                    self.waits.push((slot, partition, required));
                } else {
                    result.error = outcome_code(appended.outcome);
                }
                result
            }
            Err(error) => ProduceResult {
                log_start_offset: log_start_offset_of(error, &partition),
                current_leader: (error == ErrorCode::NotLeaderOrFollower)
                    .then(|| partition.role(|role| LeaderHint::from(role))),
                ..ProduceResult::error(error)
            },
        }
    }

    /// Whether [`PendingProduce::wait`] would return at once.
    pub fn is_ready(&self) -> bool {
        self.waiter.as_ref().is_none_or(|waiter| waiter.is_over())
    }

    /// The results, in the order of the request, as they stand: for when
    /// [`PendingProduce::is_ready`]. What is still outstanding counts as timed out.
    pub fn into_results(mut self) -> Vec<ProduceResult> {
        if let Some(waiter) = &self.waiter {
            for (slot, _, _) in &self.waits {
                self.results[*slot].error = outcome_code(waiter.outcome(*slot));
            }
        }
        std::mem::take(&mut self.results)
    }

    /// The results, in the order of the request, once every partition is acknowledged or time is
    /// up.
    pub async fn wait(self) -> Vec<ProduceResult> {
        if let Some(waiter) = &self.waiter {
            waiter.sleep().await;
        }
        self.into_results()
    }
}

impl Drop for PendingProduce {
    fn drop(&mut self) {
        let Some(waiter) = self.waiter.take() else {
            return;
        };
        if let Some(key) = self.deadline.take() {
            self.manager.0.timer.remove(key);
        }
        for (slot, partition, required) in self.waits.drain(..) {
            if waiter.outcome(slot) == Outcome::Waiting {
                partition.forget(required, &waiter);
            }
        }
    }
}

fn outcome_code(outcome: Outcome) -> ErrorCode {
    match outcome {
        Outcome::Waiting => ErrorCode::RequestTimedOut,
        Outcome::Done => ErrorCode::None,
        Outcome::NotEnoughReplicas => ErrorCode::NotEnoughReplicasAfterAppend,
        Outcome::NotLeader => ErrorCode::NotLeaderOrFollower,
    }
}

fn rejected(error: &ProduceError, partition: &Partition) -> ProduceResult {
    let name: &TopicPartition = partition.name();
    let code = match error.kind() {
        ProduceErrorKind::UnknownServerError => ErrorCode::UnknownServerError,
        ProduceErrorKind::CorruptMessage => ErrorCode::CorruptMessage,
        ProduceErrorKind::MessageTooLarge => ErrorCode::MessageTooLarge,
        ProduceErrorKind::InvalidTimestamp => ErrorCode::InvalidTimestamp,
        ProduceErrorKind::UnsupportedCompressionType => ErrorCode::UnsupportedCompressionType,
        ProduceErrorKind::InvalidRecord => ErrorCode::InvalidRecord,
    };
    ProduceResult {
        error_message: error.response_message(name),
        record_errors: error
            .rejected_records()
            .iter()
            .map(|record| (record.batch_index, record.message(name)))
            .collect(),
        log_start_offset: log_start_offset_of(code, partition),
        ..ProduceResult::error(code)
    }
}

/// Kafka tells where the log starts with errors that it did not foresee as a class of their own.
fn log_start_offset_of(error: ErrorCode, partition: &Partition) -> i64 {
    match error {
        ErrorCode::UnknownTopicOrPartition
        | ErrorCode::NotLeaderOrFollower
        | ErrorCode::MessageTooLarge
        | ErrorCode::RecordListTooLarge
        | ErrorCode::CorruptMessage
        | ErrorCode::UnsupportedCompressionType
        | ErrorCode::KafkaStorageError => -1,
        _ => partition.log().log_start_offset(),
    }
}
