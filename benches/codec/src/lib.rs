//! Messages of the size that brokers see, for the benchmark of klamm-protocol beside
//! [`kafka_protocol`]. Both read the same bytes and write the same bytes; a test says so.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable};
use klamm_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use klamm_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use klamm_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use klamm_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use klamm_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use klamm_protocol::messages::{
    FetchRequest, FetchResponse, MetadataResponse, OffsetCommitRequest, ProduceRequest,
};
use klamm_protocol::{ByteStr, Message, Records};
use klamm_records::Uuid;

fn topic(number: u8) -> ByteStr {
    format!("orders-by-region-{number}").into()
}

fn topic_id(number: u8) -> Uuid {
    Uuid::from_bytes([number + 100; 16])
}

/// Version 11: ten topics of ten partitions, one batch of `len` bytes each.
pub fn produce_request(len: usize) -> ProduceRequest {
    let records = Bytes::from(vec![7; len]);
    let partition = |index| PartitionProduceData {
        index,
        records: Some(Records::Bytes(records.clone())),
        ..Default::default()
    };
    let topic = |number| TopicProduceData {
        name: topic(number),
        partition_data: (0..10).map(partition).collect(),
        ..Default::default()
    };
    let topic_data = (0..10).map(topic).collect();
    ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data,
        ..Default::default()
    }
}

/// Version 16: ten topics of ten partitions.
pub fn fetch_request() -> FetchRequest {
    let partition = |partition| FetchPartition {
        partition,
        current_leader_epoch: 5,
        fetch_offset: 1_000_000,
        partition_max_bytes: 1 << 20,
        ..Default::default()
    };
    let topic = |number| FetchTopic {
        topic_id: topic_id(number),
        partitions: (0..10).map(partition).collect(),
        ..Default::default()
    };
    let topics = (0..10).map(topic).collect();
    FetchRequest {
        max_wait_ms: 500,
        min_bytes: 1,
        topics,
        ..Default::default()
    }
}

/// Version 16: ten topics of ten partitions, `len` bytes of records each.
pub fn fetch_response(len: usize) -> FetchResponse {
    let records = Bytes::from(vec![7; len]);
    let partition = |partition_index| PartitionData {
        partition_index,
        high_watermark: 1_000_000,
        last_stable_offset: 1_000_000,
        log_start_offset: 0,
        aborted_transactions: None,
        records: Some(Records::Bytes(records.clone())),
        ..Default::default()
    };
    let topic = |number| FetchableTopicResponse {
        topic_id: topic_id(number),
        partitions: (0..10).map(partition).collect(),
        ..Default::default()
    };
    FetchResponse {
        session_id: 9,
        responses: (0..10).map(topic).collect(),
        ..Default::default()
    }
}

/// Version 12: a hundred topics of twelve partitions on three brokers.
pub fn metadata_response() -> MetadataResponse {
    let broker = |node_id| MetadataResponseBroker {
        node_id,
        host: "broker.example.org".into(),
        port: 9092,
        rack: Some("eu-1a".into()),
        ..Default::default()
    };
    let partition = |partition_index| MetadataResponsePartition {
        partition_index,
        leader_id: 1,
        leader_epoch: 5,
        replica_nodes: vec![1, 2, 3],
        isr_nodes: vec![1, 2, 3],
        ..Default::default()
    };
    let topic = |number| MetadataResponseTopic {
        name: Some(topic(number)),
        topic_id: topic_id(number),
        partitions: (0..12).map(partition).collect(),
        ..Default::default()
    };
    MetadataResponse {
        brokers: (1..=3).map(broker).collect(),
        cluster_id: Some("vPeOCWypqUOSepEvx0cbog".into()),
        controller_id: 1,
        topics: (0..100).map(topic).collect(),
        ..Default::default()
    }
}

/// Version 8: five topics of twenty partitions.
pub fn offset_commit_request() -> OffsetCommitRequest {
    let partition = |partition_index| OffsetCommitRequestPartition {
        partition_index,
        committed_offset: 1_000_000,
        committed_metadata: Some(ByteStr::EMPTY),
        ..Default::default()
    };
    let topic = |number| OffsetCommitRequestTopic {
        name: topic(number),
        partitions: (0..20).map(partition).collect(),
        ..Default::default()
    };
    OffsetCommitRequest {
        group_id: "billing".into(),
        generation_id_or_member_epoch: 4,
        member_id: "consumer-1-0f3b6b5e-9f4c-4d4b-8a0e-6d9d3c1f2a77".into(),
        topics: (0..5).map(topic).collect(),
        ..Default::default()
    }
}

/// Reads with klamm-protocol.
pub fn decode_ours<M: Message>(bytes: &Bytes, version: i16) -> M {
    M::from_bytes(bytes.clone(), version).expect("bytes that it wrote")
}

/// Writes with klamm-protocol, to the segments that a socket takes.
pub fn encode_ours<M: Message>(message: &M, version: i16) -> Vec<klamm_protocol::Segment> {
    let mut encoder = klamm_protocol::Encoder::with_capacity(256);
    message
        .encode(&mut encoder, version)
        .expect("a message of that version");
    encoder.finish()
}

/// Reads with kafka-protocol.
pub fn decode_theirs<M: Decodable>(bytes: &Bytes, version: i16) -> M {
    M::decode(&mut bytes.clone(), version).expect("bytes of that version")
}

/// Writes with kafka-protocol.
pub fn encode_theirs<M: Encodable>(message: &M, version: i16) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(256);
    message
        .encode(&mut buffer, version)
        .expect("a message of that version");
    buffer
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages as theirs;

    fn same<M: Message, T: Encodable + Decodable>(message: &M, version: i16) {
        let bytes = message.to_bytes(version).unwrap();
        let read: T = decode_theirs(&bytes, version);
        assert_eq!(encode_theirs(&read, version), bytes);
    }

    #[test]
    fn both_codecs_read_and_write_the_same_bytes() {
        same::<_, theirs::ProduceRequest>(&produce_request(1000), 11);
        same::<_, theirs::FetchRequest>(&fetch_request(), 16);
        same::<_, theirs::FetchResponse>(&fetch_response(1000), 16);
        same::<_, theirs::MetadataResponse>(&metadata_response(), 12);
        same::<_, theirs::OffsetCommitRequest>(&offset_commit_request(), 8);
    }
}
