//! Transaction markers: written to the partitions that this broker leads.

use std::sync::Arc;
use std::time::Duration;

use klamm_coordinator::runtime::{BoxFuture, TransactionEnd};
use klamm_coordinator::transaction::{MarkerWriter, TransactionMarkers, TransactionPartition};
use klamm_protocol::{ErrorCode, topic_name};
use klamm_records::control::EndTransactionMarker;
use klamm_records::produce::PreparedBatch;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tracing::{error, info};

use crate::shared::Shared;

/// Writes the markers of the transactions that are coordinated here.
pub(crate) struct Markers(pub(crate) Arc<Shared>);

impl MarkerWriter for Markers {
    fn write<'a>(&'a self, markers: &'a TransactionMarkers) -> BoxFuture<'a, Vec<ErrorCode>> {
        Box::pin(async move {
            let image = self.0.image();
            let mut outcomes = write(&self.0, &markers.end, &markers.partitions).await;
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
