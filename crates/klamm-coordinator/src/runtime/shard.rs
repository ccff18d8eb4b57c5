//! What a coordinator's state machine looks like to the runtime that drives it.

use bytes::Bytes;
use klamm_protocol::ErrorCode;

/// A moment, as both clocks show it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the Unix epoch; goes into records.
    pub wall_ms: i64,
    /// Milliseconds of a clock that never goes back; timeouts are counted on it.
    pub monotonic_ms: u64,
}

impl Now {
    /// The monotonic time `delay_ms` from now; a negative delay counts as none.
    pub fn after_ms(&self, delay_ms: i64) -> u64 {
        self.monotonic_ms
            .saturating_add(u64::try_from(delay_ms).unwrap_or(0))
    }
}

/// Names a request whose answer is still due. A token is answered once; later answers to it are
/// dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyToken(pub u64);

/// Where a record stands in the log, and who wrote it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordOrigin {
    /// Offset of the record; for a record that is not appended yet, the offset it will get.
    pub offset: i64,
    /// The transactional producer that wrote it, or -1.
    pub producer_id: i64,
}

/// How an append ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The high watermark passed the records.
    Committed,
    /// The records are not in the log.
    Failed(ErrorCode),
    /// The records are in the leader's log but were not committed in time. They may yet be.
    TimedOut,
}

impl WriteOutcome {
    /// The error that a client is told, if the records did not commit.
    pub fn error(self) -> Option<ErrorCode> {
        match self {
            WriteOutcome::Committed => None,
            WriteOutcome::Failed(error) => Some(error),
            WriteOutcome::TimedOut => Some(ErrorCode::RequestTimedOut),
        }
    }
}

/// The transactional producer in whose name records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionalProducer {
    /// Id of the producer.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// What the log gave out when the transaction was verified, if it had to be.
    pub guard: Option<u64>,
}

/// What a state machine wants done after an input.
///
/// The runtime first sends `replies`, then appends `records`; once they are committed (or cannot
/// be any more) it runs `completion` and sends `deferred`. Without records, `deferred` waits for
/// whatever was appended before: an answer never shows state that may still be rolled back.
#[derive(Debug)]
pub struct Effects<S: Shard> {
    /// Answers to send at once.
    pub replies: Vec<(ReplyToken, S::Response)>,
    /// Records to append, in order.
    pub records: Vec<S::Record>,
    /// Whether the state changes by replaying the records (and is rolled back if they fail).
    /// Otherwise the state machine changed its state already and mends it in `completion`.
    pub replay: bool,
    /// Whether all records must go into one batch.
    pub atomic: bool,
    /// Answer to send when the records are committed. If they fail, the request is answered with
    /// the error instead.
    pub deferred: Option<(ReplyToken, S::Response)>,
    /// What to run when the fate of the records is known.
    pub completion: Option<S::Completion>,
    /// The transaction that the records belong to; they get a batch of their own then.
    pub transaction: Option<TransactionalProducer>,
    /// What others are to do, at once.
    pub actions: Vec<S::Action>,
}

impl<S: Shard> Default for Effects<S> {
    fn default() -> Self {
        Effects {
            replies: Vec::new(),
            records: Vec::new(),
            replay: true,
            atomic: true,
            deferred: None,
            completion: None,
            transaction: None,
            actions: Vec::new(),
        }
    }
}

impl<S: Shard> Effects<S> {
    /// Answers `token` at once.
    pub fn reply(&mut self, token: ReplyToken, response: S::Response) {
        self.replies.push((token, response));
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.replies.is_empty()
            && self.records.is_empty()
            && self.deferred.is_none()
            && self.completion.is_none()
            && self.actions.is_empty()
    }
}

/// Key and value of a record as bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedRecord {
    /// Key, starting with the record type.
    pub key: Bytes,
    /// Value, starting with its version; none for a tombstone.
    pub value: Option<Bytes>,
}

/// Why a record of the internal topic cannot be read, or a new one not be written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A record without a key; Kafka writes none.
    #[error("a coordinator record without a key")]
    MissingKey,
    /// The bytes do not follow the schema of their type and version.
    #[error("a coordinator record of type {kind} does not follow its schema: {source}")]
    Malformed {
        /// The record type.
        kind: i16,
        /// What is wrong with the bytes.
        source: klamm_protocol::DecodeError,
    },
    /// The values do not fit the schema.
    #[error("a coordinator record of type {kind} cannot be written: {source}")]
    Unwritable {
        /// The record type.
        kind: i16,
        /// What is wrong with the values.
        source: klamm_protocol::EncodeError,
    },
}

/// A record of a coordinator's topic.
pub trait CoordinatorRecord: Sized {
    /// The bytes that Kafka 4.3 writes for this record.
    fn encode(&self) -> Result<EncodedRecord, RecordError>;

    /// Reads what any Kafka version wrote.
    fn decode(key: Option<Bytes>, value: Option<Bytes>) -> Result<Self, RecordError>;
}

/// A coordinator's state machine over one partition of its topic.
///
/// Implementations are pure: time is an argument, randomness is handed in, and what is to be done
/// comes back as [`Effects`]. One driver calls one shard, one call at a time.
pub trait Shard: Send + Sized + 'static {
    /// What clients and the broker ask.
    type Request: Send + 'static;
    /// What they are told.
    type Response: Send + 'static;
    /// The records of its topic.
    type Record: CoordinatorRecord + Send + Sync;
    /// What takes a replayed record back.
    type Undo: Send;
    /// What is left to do when records are committed or lost.
    type Completion: Send;
    /// What it asks others to do, beside answering and writing.
    type Action: Send + 'static;

    /// Handles a request. Its answer goes to `token`, now or later.
    fn handle(&mut self, request: Self::Request, token: ReplyToken, now: Now) -> Effects<Self>;

    /// The next moment at which [`Shard::tick`] has work, in monotonic milliseconds.
    fn next_deadline_ms(&self) -> Option<u64>;

    /// Runs one timer that is due; none if none is.
    fn tick(&mut self, now: Now) -> Option<Effects<Self>>;

    /// The log was replayed to its end: the time to start timers.
    fn loaded(&mut self, now: Now) -> Vec<Effects<Self>>;

    /// Applies a record that is not committed yet. The returned undo goes to either
    /// [`Shard::undo`] or [`Shard::commit`].
    fn replay(&mut self, origin: RecordOrigin, record: &Self::Record, now: Now) -> Self::Undo;

    /// Applies a record that is committed, while loading. The same as a replay and a commit;
    /// a shard that can do it cheaper should.
    fn replay_committed(&mut self, origin: RecordOrigin, record: &Self::Record, now: Now) {
        let undo = self.replay(origin, record, now);
        self.commit(undo);
    }

    /// Applies the marker that ends a producer's transaction. It is in the log, so what is
    /// returned only ever goes to [`Shard::commit`].
    fn replay_marker(&mut self, producer_id: i64, committed: bool) -> Vec<Self::Undo>;

    /// Takes a replayed record back. Called in the reverse order of the replays.
    fn undo(&mut self, undo: Self::Undo);

    /// The record is committed: readers of committed state may see it. Called in order.
    fn commit(&mut self, undo: Self::Undo);

    /// The fate of records is known.
    fn complete(
        &mut self,
        completion: Self::Completion,
        outcome: WriteOutcome,
        now: Now,
    ) -> Effects<Self>;
}
