//! What an instance asks, and asks again until it knows.

use std::collections::BTreeMap;
use std::future::Future;

use bytes::Bytes;
use klamm_coordinator::RequestContext;
use klamm_env::Rng as _;
use klamm_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use klamm_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use klamm_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use klamm_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest,
    InitProducerIdResponse, OffsetFetchRequest, TxnOffsetCommitRequest,
};
use klamm_protocol::{ByteStr, ErrorCode, topic_name};
use klamm_records::{BatchBuilder, BatchOptions};

use super::super::broker::Broker;
use super::super::groups::client::error;
use super::super::markers::Ids;
use super::super::partition::Place;
use super::super::world::{Answer, DATA, World};
use super::fences::{self, Serving};
use super::group;
use crate::Address;

/// How long a transaction may be open.
pub(super) const TIMEOUT_MS: i32 = 5_000;
/// How long a coordinator may wait for the end of a transaction before the next.
const PATIENCE_MS: i64 = 100;
/// How often something is tried.
const TRIES: usize = 40;

/// An instance's way to brokers.
pub(super) struct Requests {
    pub(super) world: World,
    pub(super) processor: usize,
    pub(super) id: ByteStr,
    /// 1 for clients that add partitions by themselves, 2 for those that leave it to brokers.
    pub(super) version: i16,
    pub(super) producer: (i64, i16),
    /// Which requests for the id were there when it was given.
    pub(super) mark: u64,
    sequences: BTreeMap<i32, i32>,
    address: Address,
}

/// Whether the same request may succeed in a moment.
pub(super) fn is_passing(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::ConcurrentTransactions
            | ErrorCode::RequestTimedOut
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::NetworkException
            | ErrorCode::UnstableOffsetCommit
    )
}

impl Requests {
    pub(super) fn new(world: &World, processor: usize, version: i16) -> Requests {
        Requests {
            world: world.clone(),
            processor,
            id: format!("tx-{processor}").as_str().into(),
            version,
            producer: (-1, -1),
            mark: 0,
            sequences: BTreeMap::new(),
            address: world.address(),
        }
    }

    /// Asks the leader of a partition until the answer says more than to try again. The last word
    /// otherwise.
    async fn insist<T, F>(
        &self,
        what: &'static str,
        place: Place,
        tries: usize,
        verdict: impl Fn(&T) -> ErrorCode,
        serve: impl Fn(Broker) -> F + Clone + Send + Sync + 'static,
    ) -> Result<T, ErrorCode>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let mut last = ErrorCode::NetworkException;
        for _ in 0..tries {
            let to = self.world.leader(place);
            // What has an epoch of its own in each transaction bears repetition by the network.
            let asked = (place, self.version < 2);
            let call = self
                .world
                .call((self.address, to), what, asked, serve.clone());
            // Before KIP-890 a coordinator that does not know yet that it was deposed tells a client
            // that partitions are in its transaction, Kafka's as well, when they were in the last one.
            let counts = |genuine| genuine || self.version >= 2;
            match call.await {
                Some(Answer { answer, genuine }) if counts(genuine) => {
                    last = verdict(&answer);
                    self.world.note(format_args!(
                        "{} of {} as {:?} is told by {to}, genuine {genuine}, of {what}: {last:?}",
                        self.address, self.id, self.producer
                    ));
                    if !genuine {
                        fences::deposed(&self.world, &self.id, last);
                    }
                    if last == ErrorCode::None {
                        return Ok(answer);
                    }
                    if !is_passing(last) {
                        return Err(last);
                    }
                }
                _ => last = ErrorCode::NetworkException,
            }
            self.world.sleep_ms(5 + self.world.rng.below(120)).await;
        }
        Err(last)
    }

    fn coordinator(&self) -> Place {
        World::place_of(topic_name::TRANSACTION_STATE, &self.id)
    }

    fn group_place(&self) -> Place {
        World::place_of(topic_name::CONSUMER_OFFSETS, &group(self.processor))
    }

    /// InitProducerId: takes the id over, or goes on as the producer that one is (KIP-360).
    pub(super) async fn init(&mut self, goes_on: bool) -> Result<(), ErrorCode> {
        let (producer_id, producer_epoch) = match goes_on {
            true => self.producer,
            false => (-1, -1),
        };
        let request = InitProducerIdRequest {
            transactional_id: Some(self.id.clone()),
            transaction_timeout_ms: TIMEOUT_MS,
            producer_id,
            producer_epoch,
            ..InitProducerIdRequest::default()
        };
        let (world, id) = (self.world.clone(), self.id.clone());
        let serve = move |broker: Broker| {
            let (request, ids) = (request.clone(), Ids(world.clone()));
            let serving = Serving::new(&world, &id);
            let (world, id) = (world.clone(), id.clone());
            async move {
                let answer = broker.transactions.init_producer_id(request, 5, &ids).await;
                let mark = world.transactions().asked_for.mark(&id);
                drop(serving);
                (answer, mark)
            }
        };
        let place = self.coordinator();
        let verdict = |answer: &(InitProducerIdResponse, u64)| error(answer.0.error_code);
        let (answer, mark) = self.insist("init", place, TRIES, verdict, serve).await?;
        self.mark = mark;
        self.producer = (answer.producer_id, answer.producer_epoch);
        self.sequences.clear();
        Ok(())
    }

    /// OffsetFetch of stable offsets: how far the processor is.
    pub(super) async fn offset(&mut self, tries: usize) -> Option<i64> {
        let topic = OffsetFetchRequestTopics {
            name: DATA.into(),
            partition_indexes: vec![0],
            ..OffsetFetchRequestTopics::default()
        };
        let request = OffsetFetchRequest {
            groups: vec![OffsetFetchRequestGroup {
                group_id: group(self.processor).as_str().into(),
                topics: Some(vec![topic]),
                member_epoch: -1,
                ..OffsetFetchRequestGroup::default()
            }],
            require_stable: true,
            ..OffsetFetchRequest::default()
        };
        let place = self.group_place();
        let world = self.world.clone();
        let serve = move |broker: Broker| {
            let (request, world) = (request.clone(), world.clone());
            async move {
                let context = RequestContext {
                    api_version: 8,
                    ..RequestContext::default()
                };
                let topics = world.lookup();
                let fetched = broker.groups.offset_fetch(&context, request, &topics).await;
                let group = fetched.groups.into_iter().next().unwrap_or_default();
                let found = group.topics.into_iter().flat_map(|topic| topic.partitions);
                let found = found.into_iter().next();
                match error(group.error_code) {
                    // One that was deposed and does not know tells of the past, here as in Kafka.
                    ErrorCode::None if !broker.leads(&world, place) => {
                        Err(ErrorCode::NotCoordinator)
                    }
                    ErrorCode::None => match found {
                        Some(found) if found.error_code != 0 => Err(error(found.error_code)),
                        Some(found) => Ok(found.committed_offset),
                        None => Err(ErrorCode::UnknownServerError),
                    },
                    error => Err(error),
                }
            }
        };
        let verdict = |answer: &Result<i64, ErrorCode>| answer.err().unwrap_or(ErrorCode::None);
        let found = self
            .insist("fetch offset", place, tries, verdict, serve)
            .await;
        let offset = found.ok()?.ok()?;
        Some(offset.max(0))
    }

    /// AddPartitionsToTxn, of clients that add them.
    pub(super) async fn add_partitions(&mut self, outputs: i32) -> Result<(), ErrorCode> {
        let request = AddPartitionsToTxnRequest {
            v3_and_below_transactional_id: self.id.clone(),
            v3_and_below_producer_id: self.producer.0,
            v3_and_below_producer_epoch: self.producer.1,
            v3_and_below_topics: vec![AddPartitionsToTxnTopic {
                name: DATA.into(),
                partitions: (0..outputs).collect(),
                ..AddPartitionsToTxnTopic::default()
            }],
            ..AddPartitionsToTxnRequest::default()
        };
        let world = self.world.clone();
        let serve = move |broker: Broker| {
            let (request, topics) = (request.clone(), world.lookup());
            async move {
                let transactions = &broker.transactions;
                let answer = transactions
                    .add_partitions_to_txn(request, 3, PATIENCE_MS, &topics)
                    .await;
                let results = answer.results_by_topic_v3_and_below;
                let mut results = results.iter().flat_map(|t| &t.results_by_partition);
                results
                    .next()
                    .map_or(ErrorCode::None, |r| error(r.partition_error_code))
            }
        };
        let place = self.coordinator();
        self.insist("add partitions", place, TRIES, |answer| *answer, serve)
            .await
            .map(drop)
    }

    /// AddOffsetsToTxn, likewise.
    pub(super) async fn add_offsets(&mut self) -> Result<(), ErrorCode> {
        let request = AddOffsetsToTxnRequest {
            transactional_id: self.id.clone(),
            producer_id: self.producer.0,
            producer_epoch: self.producer.1,
            group_id: group(self.processor).as_str().into(),
            ..AddOffsetsToTxnRequest::default()
        };
        let offsets = self.group_place().1;
        let serve = move |broker: Broker| {
            let request = request.clone();
            async move {
                let transactions = &broker.transactions;
                let answer = transactions
                    .add_offsets_to_txn(request, 3, offsets, PATIENCE_MS)
                    .await;
                error(answer.error_code)
            }
        };
        let place = self.coordinator();
        self.insist("add offsets", place, TRIES, |answer| *answer, serve)
            .await
            .map(drop)
    }

    /// Produce of one record.
    pub(super) async fn produce(&mut self, output: i32, value: &str) -> Result<(), ErrorCode> {
        self.produce_once_or_more(output, value, TRIES).await
    }

    /// The same, of a client that soon gives up.
    pub(super) async fn try_produce(&mut self, output: i32, value: &str) -> Result<(), ErrorCode> {
        self.produce_once_or_more(output, value, 1).await
    }

    async fn produce_once_or_more(
        &mut self,
        output: i32,
        value: &str,
        tries: usize,
    ) -> Result<(), ErrorCode> {
        let sequence = self.sequences.entry(output).or_default();
        let options = BatchOptions {
            producer_id: self.producer.0,
            producer_epoch: self.producer.1,
            base_sequence: *sequence,
            transactional: true,
            ..BatchOptions::default()
        };
        let mut builder = BatchBuilder::new(options);
        let appended = builder.append(1, None, Some(value.as_bytes()), []);
        let batch: Bytes = appended
            .and_then(|_| builder.build())
            .map_err(|_| ErrorCode::CorruptMessage)?;
        *sequence += 1;
        let (world, place) = (self.world.clone(), (DATA, output));
        let id = (self.id.clone(), self.version);
        let serve = move |broker: Broker| {
            let (world, batch, id) = (world.clone(), batch.clone(), id.clone());
            async move { broker.produce(&world, place, batch, id).await }
        };
        let verdict = |answer: &Result<i64, ErrorCode>| answer.err().unwrap_or(ErrorCode::None);
        self.insist("produce", place, tries, verdict, serve)
            .await
            .map(drop)
    }

    /// TxnOffsetCommit: the processor is as far as `offset`, if the transaction commits.
    pub(super) async fn commit_offset(&mut self, offset: i64) -> Result<(), ErrorCode> {
        let request = TxnOffsetCommitRequest {
            transactional_id: self.id.clone(),
            group_id: group(self.processor).as_str().into(),
            producer_id: self.producer.0,
            producer_epoch: self.producer.1,
            generation_id: -1,
            topics: vec![TxnOffsetCommitRequestTopic {
                name: DATA.into(),
                partitions: vec![TxnOffsetCommitRequestPartition {
                    partition_index: 0,
                    committed_offset: offset,
                    ..TxnOffsetCommitRequestPartition::default()
                }],
                ..TxnOffsetCommitRequestTopic::default()
            }],
            ..TxnOffsetCommitRequest::default()
        };
        let (world, version) = (self.world.clone(), self.version);
        let serve = move |broker: Broker| {
            let (world, request) = (world.clone(), request.clone());
            async move {
                let answer = broker.commit_in_transaction(&world, request, version).await;
                let mut results = answer.topics.iter().flat_map(|t| &t.partitions);
                results
                    .next()
                    .map_or(ErrorCode::None, |r| error(r.error_code))
            }
        };
        let place = self.group_place();
        self.insist("commit offset", place, TRIES, |answer| *answer, serve)
            .await
            .map(drop)
    }

    /// EndTxn.
    pub(super) async fn end(&mut self, committed: bool) -> Result<(), ErrorCode> {
        self.world.note(format_args!(
            "{} of {} as {:?} ends it, commits {committed}",
            self.address, self.id, self.producer
        ));
        let request = EndTxnRequest {
            transactional_id: self.id.clone(),
            producer_id: self.producer.0,
            producer_epoch: self.producer.1,
            committed,
            ..EndTxnRequest::default()
        };
        let api_version = if self.version >= 2 { 5 } else { 3 };
        let world = self.world.clone();
        let serve = move |broker: Broker| {
            let (request, ids) = (request.clone(), Ids(world.clone()));
            async move {
                broker
                    .transactions
                    .end_txn(request, api_version, &ids)
                    .await
            }
        };
        let place = self.coordinator();
        let answer = self
            .insist(
                "end",
                place,
                TRIES,
                |answer| error(answer.error_code),
                serve,
            )
            .await?;
        if self.version >= 2 {
            self.producer = (answer.producer_id, answer.producer_epoch);
            self.sequences.clear();
        }
        Ok(())
    }
}
