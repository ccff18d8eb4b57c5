//! A transaction shard in a test's hands: requests go in, answers, records and actions come out,
//! and the test moves the clock and decides what becomes of writes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicI16;

use klamm_protocol::{ByteStr, ErrorCode};

use crate::runtime::{
    CoordinatorRecord, Now, RecordOrigin, ReplyToken, Shard, TransactionEnd, WriteOutcome,
};
use crate::transaction::{
    EndRequest, InitProducerId, NO_PRODUCER_ID, Transaction, TransactionAction,
    TransactionCompletion, TransactionCoordinatorConfig, TransactionEffects, TransactionPartition,
    TransactionRecord, TransactionRequest, TransactionResponse, TransactionShard, TransactionUndo,
};

/// The id of tests that need only one.
pub(super) const ID: &str = "id";
/// The first producer id that is given out.
pub(super) const FIRST: i64 = 1_000;

/// What becomes of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writes {
    Commit,
    Hold,
    Fail(ErrorCode),
}

pub(super) type Answer = Result<TransactionResponse, ErrorCode>;

pub(super) struct Bench {
    pub(super) shard: TransactionShard,
    pub(super) now: Now,
    pub(super) writes: Writes,
    /// Everything that was written and committed.
    pub(super) log: Vec<TransactionRecord>,
    /// What the shard wants others to do.
    pub(super) actions: VecDeque<TransactionAction>,
    pub(super) next_producer_id: i64,
    version: i16,
    answers: BTreeMap<ReplyToken, Answer>,
    next_token: u64,
    held: VecDeque<Held>,
}

struct Held {
    records: Vec<TransactionRecord>,
    undos: Vec<TransactionUndo>,
    deferred: Option<(ReplyToken, TransactionResponse)>,
    completion: Option<TransactionCompletion>,
}

impl Bench {
    /// A shard in a cluster of this `transaction.version`.
    pub(super) fn new(version: i16) -> Bench {
        let now = Now {
            wall_ms: 1_700_000_000_000,
            monotonic_ms: 0,
        };
        Bench::over(version, Vec::new(), now, FIRST)
    }

    fn over(version: i16, log: Vec<TransactionRecord>, now: Now, next_producer_id: i64) -> Bench {
        let known = log.len();
        Bench::over_known(version, (log, known), now, next_producer_id)
    }

    /// Over a log of which that many records are known to be committed.
    fn over_known(
        version: i16,
        (mut log, known): (Vec<TransactionRecord>, usize),
        now: Now,
        next_producer_id: i64,
    ) -> Bench {
        let config = Arc::new(TransactionCoordinatorConfig::default());
        let mut shard = TransactionShard::new(config, Arc::new(AtomicI16::new(version)));
        let mut undos = Vec::new();
        for (offset, record) in (0..).zip(&log) {
            let origin = RecordOrigin {
                offset,
                producer_id: -1,
            };
            let encoded = record.encode().unwrap();
            let read = TransactionRecord::decode(Some(encoded.key), encoded.value).unwrap();
            if usize::try_from(offset).unwrap() < known {
                shard.replay_committed(origin, &read, now);
            } else {
                undos.push(shard.replay(origin, &read, now));
            }
        }
        let loaded = shard.loaded(now);
        let held = undos.into_iter().zip(log.drain(known..));
        let held = held.map(|(undo, record)| Held {
            records: vec![record],
            undos: vec![undo],
            deferred: None,
            completion: None,
        });
        let held = held.collect();
        let mut bench = Bench {
            shard,
            now,
            writes: Writes::Commit,
            log,
            actions: VecDeque::new(),
            next_producer_id,
            version,
            answers: BTreeMap::new(),
            next_token: 0,
            held,
        };
        loaded.into_iter().for_each(|out| bench.absorb(out));
        bench.run();
        bench
    }

    /// Another coordinator that knows what is committed and nothing else.
    pub(super) fn reload(self) -> Bench {
        Bench::over(self.version, self.log, self.now, self.next_producer_id)
    }

    /// Another coordinator that read all, and knows of that many records that they are committed.
    /// What it writes is held, and so is what it does not know of.
    pub(super) fn reload_to(&self, known: usize) -> Bench {
        let log = (self.log.clone(), known);
        let mut bench = Bench::over_known(self.version, log, self.now, self.next_producer_id);
        bench.writes = Writes::Hold;
        bench
    }

    fn run(&mut self) {
        while let Some(out) = self.shard.tick(self.now) {
            self.absorb(out);
        }
    }

    pub(super) fn advance_ms(&mut self, ms: u64) {
        let end = self.now.monotonic_ms + ms;
        while let Some(due) = self.shard.next_deadline_ms().filter(|due| *due <= end) {
            self.move_to(due.max(self.now.monotonic_ms));
            self.run();
        }
        self.move_to(end);
    }

    fn move_to(&mut self, monotonic_ms: u64) {
        let passed = monotonic_ms - self.now.monotonic_ms;
        self.now.monotonic_ms = monotonic_ms;
        self.now.wall_ms += i64::try_from(passed).unwrap();
    }

    fn absorb(&mut self, out: TransactionEffects) {
        for (token, response) in out.replies {
            self.answers.insert(token, Ok(response));
        }
        self.actions.extend(out.actions);
        let origin = RecordOrigin {
            offset: 0,
            producer_id: -1,
        };
        let undos = out
            .records
            .iter()
            .map(|record| self.shard.replay(origin, record, self.now))
            .collect();
        self.held.push_back(Held {
            records: out.records,
            undos,
            deferred: out.deferred,
            completion: out.completion,
        });
        match self.writes {
            Writes::Commit => self.commit_held(),
            Writes::Hold => {}
            Writes::Fail(error) => self.fail_held(error),
        }
    }

    /// Everything that was written and held is committed.
    pub(super) fn commit_held(&mut self) {
        while let Some(held) = self.held.pop_front() {
            self.log.extend(held.records);
            held.undos
                .into_iter()
                .for_each(|undo| self.shard.commit(undo));
            if let Some((token, response)) = held.deferred {
                self.answers.insert(token, Ok(response));
            }
            if let Some(completion) = held.completion {
                let outcome = WriteOutcome::Committed;
                let out = self.shard.complete(completion, outcome, self.now);
                self.absorb(out);
            }
        }
        self.run();
    }

    fn fail_held(&mut self, error: ErrorCode) {
        while let Some(held) = self.held.pop_back() {
            let undos = held.undos.into_iter().rev();
            undos.for_each(|undo| self.shard.undo(undo));
            if let Some((token, _)) = held.deferred {
                self.answers.insert(token, Err(error));
            }
            if let Some(completion) = held.completion {
                let outcome = WriteOutcome::Failed(error);
                let out = self.shard.complete(completion, outcome, self.now);
                assert!(out.records.is_empty());
            }
        }
        self.run();
    }

    pub(super) fn send(&mut self, request: TransactionRequest) -> ReplyToken {
        let token = ReplyToken(self.next_token);
        self.next_token += 1;
        let out = self.shard.handle(request, token, self.now);
        self.absorb(out);
        self.run();
        token
    }

    pub(super) fn answer(&mut self, token: ReplyToken) -> Option<Answer> {
        let answer = self.answers.remove(&token)?;
        Some(match answer {
            Ok(TransactionResponse::Refused(error)) => Err(error),
            answer => answer,
        })
    }

    /// Asks, with a producer id to spare if the shard wants one. None if the answer is held.
    pub(super) fn ask(
        &mut self,
        request: impl Fn(Option<i64>) -> TransactionRequest,
    ) -> Option<Answer> {
        let token = self.send(request(None));
        match self.answer(token)? {
            Ok(TransactionResponse::NeedsProducerId) => {
                let spare = self.next_producer_id;
                self.next_producer_id += 1;
                let token = self.send(request(Some(spare)));
                self.answer(token)
            }
            answer => Some(answer),
        }
    }

    /// InitProducerId; the producer id and epoch.
    pub(super) fn init(&mut self, expected: Option<(i64, i16)>) -> Result<(i64, i16), ErrorCode> {
        self.init_id(ID, expected)
    }

    pub(super) fn init_id(
        &mut self,
        id: &str,
        expected: Option<(i64, i16)>,
    ) -> Result<(i64, i16), ErrorCode> {
        let request = InitProducerId {
            transactional_id: id.into(),
            timeout_ms: 60_000,
            expected,
        };
        let answer = self.ask(|spare| TransactionRequest::InitProducerId {
            request: request.clone(),
            spare,
        });
        producer_of(answer.unwrap())
    }

    /// AddPartitionsToTxn with the partitions of one topic.
    pub(super) fn add(
        &mut self,
        producer: (i64, i16),
        partitions: &[i32],
    ) -> Result<(), ErrorCode> {
        let token = self.send_add(ID, producer, partitions, 0);
        match self.answer(token).unwrap()? {
            TransactionResponse::Done => Ok(()),
            other => panic!("no answer to an addition: {other:?}"),
        }
    }

    /// The same of a client of another version, which gets what it asks for.
    pub(super) fn add_as(
        &mut self,
        version: i16,
        producer: (i64, i16),
        partitions: &[i32],
    ) -> Result<(), ErrorCode> {
        let cluster = std::mem::replace(&mut self.version, version);
        let added = self.add(producer, partitions);
        self.version = cluster;
        added
    }

    /// What a broker hears that asks whether a partition was added.
    pub(super) fn verify(
        &mut self,
        producer: (i64, i16),
        partition: i32,
    ) -> Result<ErrorCode, ErrorCode> {
        let token = self.send(TransactionRequest::VerifyPartitions {
            transactional_id: ID.into(),
            producer,
            partitions: topic_partitions(&[partition]),
        });
        match self.answer(token).unwrap()? {
            TransactionResponse::Verified(verdicts) => Ok(verdicts[0].1),
            other => panic!("no verdict but {other:?}"),
        }
    }

    pub(super) fn send_add(
        &mut self,
        id: &str,
        producer: (i64, i16),
        partitions: &[i32],
        patience_ms: i64,
    ) -> ReplyToken {
        self.send(TransactionRequest::AddPartitions {
            transactional_id: id.into(),
            producer,
            partitions: topic_partitions(partitions),
            version: self.version,
            patience_ms,
        })
    }

    /// EndTxn, in the version of the cluster.
    pub(super) fn end(
        &mut self,
        producer: (i64, i16),
        committed: bool,
    ) -> Result<(i64, i16), ErrorCode> {
        self.end_as(self.version, producer, committed)
    }

    pub(super) fn end_as(
        &mut self,
        version: i16,
        producer: (i64, i16),
        committed: bool,
    ) -> Result<(i64, i16), ErrorCode> {
        self.try_end(ID, version, producer, committed).unwrap()
    }

    /// The same; none if the answer is held.
    pub(super) fn try_end(
        &mut self,
        id: &str,
        version: i16,
        (producer_id, producer_epoch): (i64, i16),
        committed: bool,
    ) -> Option<Result<(i64, i16), ErrorCode>> {
        let request = EndRequest {
            producer_id,
            producer_epoch,
            committed,
            version,
        };
        let answer = self.ask(|spare| TransactionRequest::End {
            transactional_id: id.into(),
            request,
            spare,
        });
        answer.map(producer_of)
    }

    /// Takes the next markers that are to be written.
    pub(super) fn markers(
        &mut self,
    ) -> Option<(ByteStr, TransactionEnd, Vec<TransactionPartition>)> {
        match self.actions.pop_front()? {
            TransactionAction::WriteMarkers {
                transactional_id,
                markers,
            } => Some((transactional_id, markers.end, markers.partitions)),
            other => panic!("no markers but {other:?}"),
        }
    }

    /// Reports markers as written, or not.
    pub(super) fn written(
        &mut self,
        id: &ByteStr,
        end: &TransactionEnd,
        outcomes: Vec<(TransactionPartition, ErrorCode)>,
    ) -> TransactionResponse {
        let token = self.send(TransactionRequest::MarkersWritten {
            transactional_id: id.clone(),
            producer: (end.producer_id, end.producer_epoch),
            outcomes,
        });
        self.answer(token).unwrap().unwrap()
    }

    /// Writes all markers there are to write.
    pub(super) fn write_markers(&mut self) {
        while let Some((id, end, partitions)) = self.markers() {
            let outcomes = partitions.into_iter().map(|p| (p, ErrorCode::None));
            self.written(&id, &end, outcomes.collect());
        }
    }

    pub(super) fn state(&self) -> &Transaction {
        self.shard.transaction(ID).unwrap()
    }
}

fn producer_of(answer: Answer) -> Result<(i64, i16), ErrorCode> {
    match answer? {
        TransactionResponse::Producer {
            producer_id,
            producer_epoch,
        } => Ok((producer_id, producer_epoch)),
        other => panic!("no producer but {other:?}"),
    }
}

pub(super) fn topic_partitions(partitions: &[i32]) -> BTreeSet<TransactionPartition> {
    let topic = ByteStr::from_static("t");
    let partitions = partitions.iter();
    partitions
        .map(|partition| (topic.clone(), *partition))
        .collect()
}

/// The answer to an EndTxn of a version without epoch bumps.
pub(super) const NO_PRODUCER: (i64, i16) = (NO_PRODUCER_ID, -1);
