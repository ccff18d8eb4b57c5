//! Transaction markers: written to the partitions that this broker leads, and sent to the leaders
//! of the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use klamm_coordinator::runtime::{BoxFuture, TransactionEnd};
use klamm_coordinator::transaction::{MarkerWriter, TransactionMarkers, TransactionPartition};
use klamm_metadata::MetadataImage;
use klamm_protocol::messages::WriteTxnMarkersRequest;
use klamm_protocol::messages::write_txn_markers_request::{
    WritableTxnMarker, WritableTxnMarkerTopic,
};
use klamm_protocol::{ByteStr, ErrorCode, topic_name};
use klamm_records::control::EndTransactionMarker;
use klamm_records::produce::PreparedBatch;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::{debug, error, info};

use crate::shared::Shared;

/// Writes the markers of the transactions that are coordinated here.
pub(crate) struct Markers(pub(crate) Arc<Shared>);

impl MarkerWriter for Markers {
    fn write<'a>(&'a self, markers: &'a TransactionMarkers) -> BoxFuture<'a, Vec<ErrorCode>> {
        Box::pin(async move {
            let image = self.0.image();
            let mut outcomes = write_everywhere(&self.0, markers, &image).await;
            for ((topic, partition), outcome) in markers.partitions.iter().zip(&mut outcomes) {
                if *outcome != ErrorCode::None && image.partition(topic, *partition).is_none() {
                    info!(%topic, partition, "deleted: needs no transaction marker");
                    *outcome = ErrorCode::None;
                }
            }
            outcomes
        })
    }
}

/// Writes all markers, those of each leader's partitions at the same time.
async fn write_everywhere(
    broker: &Arc<Shared>,
    markers: &TransactionMarkers,
    image: &MetadataImage,
) -> Vec<ErrorCode> {
    let mut leaders: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for (place, (topic, partition)) in markers.partitions.iter().enumerate() {
        let leader = image.partition(topic, *partition).map(|found| found.leader);
        leaders.entry(leader.unwrap_or(-1)).or_default().push(place);
    }
    if leaders.keys().all(|leader| *leader == broker.node_id) {
        return write(broker, &markers.end, &markers.partitions).await;
    }
    let mut outcomes = vec![ErrorCode::LeaderNotAvailable; markers.partitions.len()];
    let mut writes = JoinSet::new();
    leaders.remove(&-1);
    for (leader, places) in leaders {
        let partitions: Vec<_> = places
            .iter()
            .map(|place| markers.partitions[*place].clone())
            .collect();
        let (broker, end) = (broker.clone(), markers.end);
        writes.spawn(async move {
            let outcomes = if leader == broker.node_id {
                write(&broker, &end, &partitions).await
            } else {
                send(&broker, leader, &end, &partitions).await
            };
            (places, outcomes)
        });
    }
    while let Some(written) = writes.join_next().await {
        let Ok((places, written)) = written else {
            // A write that panicked: tried again as one that was not made.
            continue;
        };
        for (place, outcome) in places.into_iter().zip(written) {
            outcomes[place] = outcome;
        }
    }
    outcomes
}

/// Has broker `leader` write a marker into `partitions`. The outcomes are in their order.
async fn send(
    broker: &Shared,
    leader: i32,
    end: &TransactionEnd,
    partitions: &[TransactionPartition],
) -> Vec<ErrorCode> {
    let mut topics: BTreeMap<&ByteStr, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in partitions {
        topics.entry(topic).or_default().push(*partition);
    }
    let topics = topics.into_iter();
    let marker = WritableTxnMarker {
        producer_id: end.producer_id,
        producer_epoch: end.producer_epoch,
        transaction_result: end.committed,
        topics: topics
            .map(|(name, partition_indexes)| WritableTxnMarkerTopic {
                name: name.clone(),
                partition_indexes,
                ..WritableTxnMarkerTopic::default()
            })
            .collect(),
        coordinator_epoch: end.coordinator_epoch,
        transaction_version: i8::try_from(end.transaction_version).unwrap_or(0),
        ..WritableTxnMarker::default()
    };
    let request = WriteTxnMarkersRequest {
        markers: vec![marker],
        ..WriteTxnMarkersRequest::default()
    };
    let answer = match broker.marker_line.ask(leader, &request).await {
        Ok(answer) => answer,
        Err(failed) => {
            debug!(leader, error = %failed, "markers cannot be sent");
            return vec![ErrorCode::NetworkException; partitions.len()];
        }
    };
    let mut outcomes = BTreeMap::new();
    for topic in answer.markers.iter().flat_map(|marker| &marker.topics) {
        for result in &topic.partitions {
            let code = ErrorCode::from_code(result.error_code);
            let place = (topic.name.clone(), result.partition_index);
            outcomes.insert(place, code.unwrap_or(ErrorCode::UnknownServerError));
        }
    }
    let outcome_of = |partition| outcomes.get(partition).copied();
    partitions
        .iter()
        .map(|partition| outcome_of(partition).unwrap_or(ErrorCode::UnknownServerError))
        .collect()
}

/// What an append left to do.
enum Written {
    /// Nothing: this is the outcome.
    Over(ErrorCode),
    /// The high watermark must come to this offset.
    Waits(watch::Receiver<i64>, i64),
}

/// Writes a marker into each of `partitions` that is led here and waits until it is committed.
/// The outcomes are in the order of the partitions.
pub(crate) async fn write(
    broker: &Shared,
    end: &TransactionEnd,
    partitions: &[TransactionPartition],
) -> Vec<ErrorCode> {
    let timeout_ms = u64::try_from(broker.config().int("request.timeout.ms")).unwrap_or(0);
    let deadline = Instant::now() + Duration::from_millis(timeout_ms);
    let mut written = Vec::with_capacity(partitions.len());
    for (topic, partition) in partitions {
        written.push(if **topic == *topic_name::CONSUMER_OFFSETS {
            // The coordinator of the groups has to learn of it in its place among its records.
            let ended = broker.groups.end_transaction(*partition, *end).await;
            Written::Over(ended.err().unwrap_or(ErrorCode::None))
        } else {
            append(broker, end, topic, *partition)
        });
    }
    let mut outcomes = Vec::with_capacity(written.len());
    for written in written {
        outcomes.push(match written {
            Written::Over(outcome) => outcome,
            Written::Waits(mut high_watermark, offset) => {
                let committed = high_watermark.wait_for(|at| *at >= offset);
                match timeout_at(deadline, committed).await {
                    Ok(Ok(_)) => ErrorCode::None,
                    Ok(Err(_)) => ErrorCode::NotLeaderOrFollower,
                    Err(_) => ErrorCode::RequestTimedOut,
                }
            }
        });
    }
    outcomes
}

fn append(broker: &Shared, end: &TransactionEnd, topic: &str, partition: i32) -> Written {
    let marker = EndTransactionMarker {
        committed: end.committed,
        coordinator_epoch: end.coordinator_epoch,
    };
    let now_ms = broker.env.clock.wall_ms();
    let batch = marker.to_batch(end.producer_id, end.producer_epoch, now_ms);
    let Some(batch) = batch
        .ok()
        .and_then(|batch| PreparedBatch::trusted(batch).ok())
    else {
        error!(?end, "a transaction marker cannot be built");
        return Written::Over(ErrorCode::UnknownServerError);
    };
    let version = end.transaction_version;
    let appended = broker
        .replicas
        .append_marker(topic, partition, batch, version)
        .and_then(|appended| Ok((appended, broker.replicas.watch(topic, partition)?)));
    match appended {
        Ok((appended, high_watermark)) => Written::Waits(high_watermark, appended.end_offset),
        Err(error) => Written::Over(error),
    }
}
