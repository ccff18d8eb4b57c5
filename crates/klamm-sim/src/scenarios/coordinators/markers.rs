//! What brokers do for transactions outside of the coordinators: markers, writes of producers that
//! have to be verified first.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use klamm_coordinator::runtime::{BoxFuture, TransactionEnd};
use klamm_coordinator::transaction::{
    MarkerWriter, ProducerIdSource, TransactionMarkers, TransactionPartition,
};
use klamm_env::{Clock as _, Rng as _};
use klamm_log::AppendOrigin;
use klamm_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};
use klamm_protocol::{ByteStr, ErrorCode, topic_name};
use klamm_records::BatchHeader;
use klamm_records::control::EndTransactionMarker;
use tokio::sync::watch;

use super::super::Violation;
use super::Flaw;
use super::broker::Broker;
use super::partition::{Place, code};
use super::transactions::fences;
use super::world::{Answer, DATA, REQUEST_TIMEOUT, World};

/// Producer ids, which the controller gives.
pub(super) struct Ids(pub(super) World);

impl ProducerIdSource for Ids {
    fn next(&self) -> BoxFuture<'_, Result<i64, ErrorCode>> {
        Box::pin(async move {
            self.0.sleep_ms(self.0.rng.below(5)).await;
            if !self.0.is_calm() && self.0.rng.one_in(30) {
                return Err(ErrorCode::CoordinatorLoadInProgress);
            }
            Ok(self.0.producer_id())
        })
    }
}

/// Sends markers to the leaders.
pub(super) struct Markers {
    pub(super) world: World,
    pub(super) broker: i32,
}

fn place(partition: &TransactionPartition) -> Place {
    let topic = if *partition.0 == *topic_name::CONSUMER_OFFSETS {
        topic_name::CONSUMER_OFFSETS
    } else {
        DATA
    };
    (topic, partition.1)
}

impl MarkerWriter for Markers {
    fn write<'a>(&'a self, markers: &'a TransactionMarkers) -> BoxFuture<'a, Vec<ErrorCode>> {
        Box::pin(async move {
            let mut outcomes = Vec::new();
            for partition in &markers.partitions {
                outcomes.push(self.send(markers.end, place(partition)).await);
            }
            outcomes
        })
    }
}

impl Markers {
    async fn send(&self, end: TransactionEnd, place: Place) -> ErrorCode {
        let world = &self.world;
        let is_lost = match world.flaw {
            Flaw::MarkersLost => world.rng.one_in(4),
            Flaw::OffsetMarkersLost => place.0 == topic_name::CONSUMER_OFFSETS,
            _ => false,
        };
        if is_lost {
            return ErrorCode::None;
        }
        let own = world.nodes.get(&self.broker).and_then(|node| node.broker());
        let Some(own) = own else {
            return ErrorCode::NotLeaderOrFollower;
        };
        let leader = own.term(place).map_or(self.broker, |term| term.leader);
        if leader == self.broker {
            return own.write_marker(world, end, place).await;
        }
        let serving = world.clone();
        let serve = move |broker: Broker| {
            let world = serving.clone();
            async move { broker.write_marker(&world, end, place).await }
        };
        // Before KIP-890 the transactions of a producer share an epoch, and a marker that comes late,
        // after it was sent again, ends the one that follows: in Kafka, too, which is what the second
        // version mends.
        let once = end.transaction_version < 2;
        let asked = world.call((self.broker, leader), "markers", (place, once), serve);
        asked
            .await
            .map_or(ErrorCode::NetworkException, |answer| answer.answer)
    }
}

impl Broker {
    /// Writes a marker into a partition that is led here and waits until it is committed.
    async fn write_marker(&self, world: &World, end: TransactionEnd, place: Place) -> ErrorCode {
        if place.0 == topic_name::CONSUMER_OFFSETS {
            let ended = self.groups.end_transaction(place.1, end).await;
            return ended.err().unwrap_or(ErrorCode::None);
        }
        let marker = EndTransactionMarker {
            committed: end.committed,
            coordinator_epoch: end.coordinator_epoch,
        };
        let now_ms = self.clock.wall_ms();
        let batch = marker.to_batch(end.producer_id, end.producer_epoch, now_ms);
        let Ok(batch) = batch else {
            return ErrorCode::UnknownServerError;
        };
        let origin = AppendOrigin::TxnMarkers {
            transaction_version: end.transaction_version,
        };
        let written = self.append(world, place, batch, origin).await;
        written.err().unwrap_or(ErrorCode::None)
    }

    /// Appends to a partition of data that is led here and waits until it is committed.
    async fn append(
        &self,
        world: &World,
        place: Place,
        batch: Bytes,
        origin: AppendOrigin,
    ) -> Result<i64, ErrorCode> {
        let (partition, term) = world
            .partition(place)
            .zip(self.own_term(place))
            .ok_or(ErrorCode::NotLeaderOrFollower)?;
        let appended = partition.append(&term, batch, origin).await?;
        committed(world, term.watch(), appended.last_offset + 1).await?;
        Ok(appended.base_offset)
    }

    /// Produce: verifies where that is needed, and appends.
    pub(super) async fn produce(
        &self,
        world: &World,
        place: Place,
        batch: Bytes,
        (transactional_id, version): (ByteStr, i16),
    ) -> Result<i64, ErrorCode> {
        let term = self.own_term(place).ok_or(ErrorCode::NotLeaderOrFollower)?;
        let partition = world
            .partition(place)
            .ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let header = BatchHeader::parse(&batch).map_err(|_| ErrorCode::CorruptMessage)?;
        let mut origin = AppendOrigin::Client;
        let producer = (header.producer_id, header.producer_epoch);
        if header.attributes.is_transactional() {
            // A leader that was deposed verifies in a log of its own; it changes nothing.
            let Some(log) = partition.log(&term) else {
                return Err(ErrorCode::NotLeaderOrFollower);
            };
            let bumps = version >= 2;
            let now_ms = self.clock.wall_ms();
            let begun =
                log.begin_verification(producer.0, producer.1, header.base_sequence, bumps, now_ms);
            if let Some(guard) = begun.map_err(|error| code(&error))? {
                origin = AppendOrigin::VerifiedClient { guard };
                let asked = (ByteStr::from_static(DATA), place.1);
                self.ask(world, &transactional_id, producer, asked, version)
                    .await?;
            }
        }
        if world.flaw == Flaw::ZombiesWrite {
            origin = AppendOrigin::Replication;
        }
        let before = partition.truth().log_end_offset();
        let is_fenced = world.transactions().is_fenced(&transactional_id, producer);
        let result = self.append(world, place, batch, origin).await;
        if is_fenced && result.is_ok_and(|offset| offset >= before) && !term.is_over() {
            let detail = format!("{transactional_id} wrote as {producer:?} after it was fenced");
            world.check(Err(Violation::new("fencing", detail)));
        }
        result
    }

    /// Asks the coordinator to add a partition to a transaction, or whether it was added.
    async fn ask(
        &self,
        world: &World,
        id: &ByteStr,
        producer: (i64, i16),
        partition: TransactionPartition,
        version: i16,
    ) -> Result<(), ErrorCode> {
        let place = World::place_of(topic_name::TRANSACTION_STATE, id);
        let leader = self.term(place).map_or(self.id, |term| term.leader);
        let asked_id = id.clone();
        let id = id.clone();
        let serve = move |broker: Broker| {
            let (id, partition) = (id.clone(), partition.clone());
            async move {
                let partitions = BTreeSet::from([partition]);
                let transactions = &broker.transactions;
                if version >= 2 {
                    return transactions.add(&id, producer, partitions, 2, 0).await;
                }
                match transactions.verify(&id, producer, partitions).await {
                    Ok(verdicts) => verdicts
                        .first()
                        .map_or(ErrorCode::UnknownServerError, |(_, code)| *code),
                    Err(error) => error,
                }
            }
        };
        let asked = if leader == self.id {
            let answer = serve(self.clone()).await;
            let genuine = self.leads(world, place);
            Some(Answer { answer, genuine })
        } else {
            let call = world.call((self.id, leader), "verify", (place, false), serve);
            call.await
        };
        let Some(Answer { answer, genuine }) = asked else {
            return Err(ErrorCode::NetworkException);
        };
        if !genuine {
            fences::deposed(world, &asked_id, answer);
        }
        match answer {
            ErrorCode::None => Ok(()),
            error => Err(error),
        }
    }

    /// TxnOffsetCommit.
    pub(super) async fn commit_in_transaction(
        &self,
        world: &World,
        request: TxnOffsetCommitRequest,
        version: i16,
    ) -> TxnOffsetCommitResponse {
        let context = klamm_coordinator::RequestContext {
            api_version: if version >= 2 { 5 } else { 3 },
            ..klamm_coordinator::RequestContext::default()
        };
        let topics = world.lookup();
        let verify = async |request: &TxnOffsetCommitRequest| {
            let group = self.groups.partition_for(&request.group_id);
            let place = (topic_name::CONSUMER_OFFSETS, group);
            let term = self.own_term(place).ok_or(ErrorCode::NotLeaderOrFollower)?;
            let log = world.partition(place).and_then(|found| found.log(&term));
            let log = log.ok_or(ErrorCode::NotLeaderOrFollower)?;
            let producer = (request.producer_id, request.producer_epoch);
            let now_ms = self.clock.wall_ms();
            let begun = log.begin_verification(producer.0, producer.1, -1, version >= 2, now_ms);
            let guard = begun.map_err(|error| code(&error))?;
            if guard.is_some() {
                let partition = (ByteStr::from_static(topic_name::CONSUMER_OFFSETS), group);
                let id = &request.transactional_id;
                self.ask(world, id, producer, partition, version).await?;
            }
            Ok(guard)
        };
        self.groups
            .txn_offset_commit(&context, request, &topics, verify)
            .await
    }
}

/// Waits for a high watermark.
pub(super) async fn committed(
    world: &World,
    mut high_watermark: watch::Receiver<i64>,
    end: i64,
) -> Result<(), ErrorCode> {
    let late = world
        .executor
        .sleep(REQUEST_TIMEOUT + Duration::from_secs(1));
    tokio::select! {
        biased;
        reached = high_watermark.wait_for(|at| *at >= end) => match reached {
            Ok(_) => Ok(()),
            Err(_) => Err(ErrorCode::NotLeaderOrFollower),
        },
        () = late => Err(ErrorCode::RequestTimedOut),
    }
}
