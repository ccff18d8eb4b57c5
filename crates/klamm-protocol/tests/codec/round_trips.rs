//! Values of any kind written and read back.

use bytes::Bytes;
use klamm_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, PartitionData,
};
use klamm_protocol::messages::metadata_response::{MetadataResponseBroker, MetadataResponseTopic};
use klamm_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use klamm_protocol::messages::{FetchResponse, MetadataResponse, ProduceRequest};
use klamm_protocol::{
    ByteStr, Decoder, Encoder, Message, Records, UnknownTag, UnknownTags, VersionRange,
};
use klamm_records::Uuid;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

fn text() -> impl Strategy<Value = ByteStr> {
    prop_oneof![".{0,12}", "[a-z]{120,140}"].prop_map(ByteStr::from)
}

fn data(len: usize) -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..len).prop_map(Bytes::from)
}

fn records() -> impl Strategy<Value = Records> {
    prop_oneof![
        data(40),
        (1000_usize..1100).prop_map(|len| Bytes::from(vec![7; len]))
    ]
    .prop_map(Records::Bytes)
}

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<[u8; 16]>().prop_map(Uuid::from_bytes)
}

/// Tags above all known ones, in rising order.
fn unknown_tags() -> impl Strategy<Value = Option<Box<UnknownTags>>> {
    proptest::collection::btree_map(10..u32::MAX, data(200), 0..3).prop_map(|tags| {
        let tags: Vec<UnknownTag> = tags
            .into_iter()
            .map(|(tag, data)| UnknownTag { tag, data })
            .collect();
        (!tags.is_empty()).then(|| Box::new(UnknownTags(tags)))
    })
}

prop_compose! {
    fn produce_request()(
        transactional_id in option::of(text()),
        acks in any::<i16>(),
        timeout_ms in any::<i32>(),
        topics in vec((text(), vec((any::<i32>(), option::of(records())), 0..3)), 0..3),
    ) -> ProduceRequest {
        let topic = |(name, partitions): (ByteStr, Vec<(i32, Option<Records>)>)| TopicProduceData {
            name,
            partition_data: partitions
                .into_iter()
                .map(|(index, records)| PartitionProduceData { index, records, ..Default::default() })
                .collect(),
            ..Default::default()
        };
        let topic_data = topics.into_iter().map(topic).collect();
        ProduceRequest { transactional_id, acks, timeout_ms, topic_data, ..Default::default() }
    }
}

prop_compose! {
    fn partition_data()(
        partition_index in any::<i32>(),
        error_code in any::<i16>(),
        high_watermark in any::<i64>(),
        diverging in option::of(any::<(i32, i64)>()),
        aborted in option::of(vec(any::<(i64, i64)>(), 0..3)),
        records in option::of(records()),
        unknown_tags in unknown_tags(),
    ) -> PartitionData {
        PartitionData {
            partition_index,
            error_code,
            high_watermark,
            diverging_epoch: diverging
                .map(|(epoch, end_offset)| EpochEndOffset { epoch, end_offset, unknown_tags: None })
                .unwrap_or_default(),
            aborted_transactions: aborted.map(|list| {
                list.into_iter()
                    .map(|(producer_id, first_offset)| AbortedTransaction {
                        producer_id,
                        first_offset,
                        unknown_tags: None,
                    })
                    .collect()
            }),
            records,
            unknown_tags,
            ..Default::default()
        }
    }
}

prop_compose! {
    fn fetch_response()(
        topics in vec((uuid(), vec(partition_data(), 0..3)), 0..3),
        session_id in any::<i32>(),
        unknown_tags in unknown_tags(),
    ) -> FetchResponse {
        let topic = |(topic_id, partitions)| FetchableTopicResponse {
            topic_id,
            partitions,
            ..Default::default()
        };
        let responses = topics.into_iter().map(topic).collect();
        FetchResponse { responses, session_id, unknown_tags, ..Default::default() }
    }
}

prop_compose! {
    fn metadata_response()(
        brokers in vec((any::<i32>(), text(), any::<i32>(), option::of(text())), 0..3),
        cluster_id in option::of(text()),
        topics in vec((option::of(text()), uuid(), any::<bool>()), 0..4),
        unknown_tags in unknown_tags(),
    ) -> MetadataResponse {
        MetadataResponse {
            brokers: brokers
                .into_iter()
                .map(|(node_id, host, port, rack)| MetadataResponseBroker {
                    node_id, host, port, rack, unknown_tags: None,
                })
                .collect(),
            cluster_id,
            topics: topics
                .into_iter()
                .map(|(name, topic_id, is_internal)| MetadataResponseTopic {
                    name, topic_id, is_internal, ..Default::default()
                })
                .collect(),
            unknown_tags,
            ..Default::default()
        }
    }
}

/// Writes and reads the message in some versions and expects it back.
fn returns<M: Message>(message: &M, versions: VersionRange) -> Result<(), TestCaseError> {
    for version in versions {
        let bytes = message.to_bytes(version).unwrap();
        let mut decoder = Decoder::new(bytes);
        prop_assert_eq!(&M::decode(&mut decoder, version).unwrap(), message);
        prop_assert_eq!(decoder.remaining(), 0);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn produce_requests_return(request in produce_request()) {
        // With names, which version 13 replaces by ids.
        returns(&request, VersionRange::new(3, 12))?;
    }

    #[test]
    fn fetch_responses_return(response in fetch_response()) {
        returns(&response, VersionRange::new(13, 18))?;
    }

    #[test]
    fn metadata_responses_return(response in metadata_response()) {
        returns(&response, VersionRange::new(12, 13))?;
    }

    #[test]
    fn numbers_return(a in any::<(bool, i8, i16, u16)>(), b in any::<(i32, u32, i64, u32)>(), id in uuid()) {
        let mut e = Encoder::new();
        e.bool(a.0);
        e.i8(a.1);
        e.i16(a.2);
        e.u16(a.3);
        e.i32(b.0);
        e.u32(b.1);
        e.i64(b.2);
        e.unsigned_varint(b.3);
        e.uuid(id);
        let mut d = Decoder::new(e.into_bytes().unwrap());
        prop_assert_eq!((d.bool().unwrap(), d.i8().unwrap(), d.i16().unwrap(), d.u16().unwrap()), a);
        let read = (d.i32().unwrap(), d.u32().unwrap(), d.i64().unwrap(), d.unsigned_varint().unwrap());
        prop_assert_eq!(read, b);
        prop_assert_eq!(d.uuid().unwrap(), id);
        prop_assert_eq!(d.remaining(), 0);
    }

    #[test]
    fn floats_return(value in any::<f64>()) {
        let mut e = Encoder::new();
        e.f64(value);
        let mut d = Decoder::new(e.into_bytes().unwrap());
        prop_assert_eq!(d.f64().unwrap().to_bits(), value.to_bits());
    }

    #[test]
    fn what_has_a_length_returns(
        flexible in any::<bool>(),
        string in option::of(text()),
        bytes in option::of(data(300)),
        numbers in option::of(vec(any::<i32>(), 0..200)),
        names in option::of(vec(text(), 0..20)),
        content in option::of(records()),
    ) {
        let mut e = Encoder::new();
        e.set_flexible(flexible);
        e.nullable_string(string.as_ref()).unwrap();
        e.legacy_nullable_string(string.as_ref()).unwrap();
        e.nullable_bytes(bytes.as_ref()).unwrap();
        e.nullable_list(numbers.as_ref(), Encoder::i32).unwrap();
        e.nullable_strings(names.as_ref()).unwrap();
        e.nullable_records(content.as_ref()).unwrap();
        let mut d = Decoder::new(e.into_bytes().unwrap());
        d.set_flexible(flexible);
        prop_assert_eq!(d.nullable_string().unwrap(), string.clone());
        prop_assert_eq!(d.legacy_nullable_string().unwrap(), string);
        prop_assert_eq!(d.nullable_bytes().unwrap(), bytes);
        prop_assert_eq!(d.nullable_list(Decoder::i32).unwrap(), numbers);
        prop_assert_eq!(d.nullable_list(Decoder::string).unwrap(), names);
        prop_assert_eq!(d.nullable_records().unwrap(), content);
        prop_assert_eq!(d.remaining(), 0);
    }
}
