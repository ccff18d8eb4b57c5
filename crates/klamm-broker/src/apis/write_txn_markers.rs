//! WriteTxnMarkers: transaction coordinators end transactions in the partitions led here, and
//! `kafka-transactions abort` does so for one that hangs.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_coordinator::runtime::TransactionEnd;
use klamm_coordinator::transaction::TransactionPartition;
use klamm_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use klamm_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use klamm_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use klamm_protocol::{ByteStr, ErrorCode};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::markers;
use crate::shared::Shared;

impl Api for WriteTxnMarkersRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> WriteTxnMarkersResponse {
        // Markers of one producer share an answer; a later one of the same partition counts.
        let mut results: BTreeMap<i64, BTreeMap<TransactionPartition, ErrorCode>> = BTreeMap::new();
        for marker in &self.markers {
            let outcomes = write(&broker, marker).await;
            results
                .entry(marker.producer_id)
                .or_default()
                .extend(outcomes);
        }
        let results = results.into_iter();
        WriteTxnMarkersResponse {
            markers: results
                .map(|(producer_id, outcomes)| WritableTxnMarkerResult {
                    producer_id,
                    topics: by_topic(outcomes),
                    ..WritableTxnMarkerResult::default()
                })
                .collect(),
            ..WriteTxnMarkersResponse::default()
        }
    }
}

async fn write(
    broker: &Shared,
    marker: &WritableTxnMarker,
) -> Vec<(TransactionPartition, ErrorCode)> {
    let all = marker.topics.iter().flat_map(|topic| {
        let partitions = topic.partition_indexes.iter();
        partitions.map(|partition| (topic.name.clone(), *partition))
    });
    let (present, absent): (Vec<_>, Vec<_>) =
        all.partition(|(topic, partition)| broker.replicas.offsets(topic, *partition).is_ok());
    let end = TransactionEnd {
        producer_id: marker.producer_id,
        producer_epoch: marker.producer_epoch,
        committed: marker.transaction_result,
        coordinator_epoch: marker.coordinator_epoch,
        transaction_version: marker.transaction_version.into(),
    };
    let outcomes = markers::write(broker, &end, &present).await;
    let absent = absent.into_iter();
    present
        .into_iter()
        .zip(outcomes)
        .chain(absent.map(|partition| (partition, ErrorCode::UnknownTopicOrPartition)))
        .collect()
}

fn by_topic(
    outcomes: BTreeMap<TransactionPartition, ErrorCode>,
) -> Vec<WritableTxnMarkerTopicResult> {
    let mut topics: BTreeMap<ByteStr, Vec<WritableTxnMarkerPartitionResult>> = BTreeMap::new();
    for ((topic, partition_index), outcome) in outcomes {
        let result = WritableTxnMarkerPartitionResult {
            partition_index,
            error_code: outcome.into(),
            ..WritableTxnMarkerPartitionResult::default()
        };
        topics.entry(topic).or_default().push(result);
    }
    topics
        .into_iter()
        .map(|(name, partitions)| WritableTxnMarkerTopicResult {
            name,
            partitions,
            ..WritableTxnMarkerTopicResult::default()
        })
        .collect()
}
