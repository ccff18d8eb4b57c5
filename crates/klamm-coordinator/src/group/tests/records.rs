//! Bytes that Kafka 4.3.1 wrote into `__consumer_offsets`, and ours.

use bytes::Bytes;
use klamm_protocol::ByteStr;
use klamm_protocol::group_records::{GroupMetadataValue, OffsetCommitKey, OffsetCommitValue};
use klamm_records::Uuid;

use crate::group::GroupRecord;
use crate::group::classic::ClassicGroup;
use crate::runtime::{CoordinatorRecord, RecordError};

fn hex(text: &str) -> Bytes {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn decode(key: &str, value: Option<&str>) -> GroupRecord {
    GroupRecord::decode(Some(hex(key)), value.map(hex)).unwrap()
}

/// Decodes what Kafka wrote and checks that it is written the same way.
#[track_caller]
fn round_trip(key: &str, value: Option<&str>) -> GroupRecord {
    let record = decode(key, value);
    let encoded = record.encode().unwrap();
    assert_eq!(encoded.key, hex(key));
    assert_eq!(encoded.value, value.map(hex));
    record
}

#[test]
fn an_offset_is_written_with_its_topic_id() {
    let record = round_trip(
        "000100016700017400000000",
        Some(
            "0004000000000000000500000007036d64000001a20435138a010010af2086c3404e4e1898d853a4f42a66f4",
        ),
    );
    let GroupRecord::OffsetCommit { key, value } = record else {
        panic!("an offset, not {record:?}");
    };
    assert_eq!(key.group, "g");
    assert_eq!((&*key.topic, key.partition), ("t", 0));
    let value = value.unwrap();
    assert_eq!((value.offset, value.leader_epoch), (5, 7));
    assert_eq!(value.metadata, "md");
    assert_eq!(value.commit_timestamp, 0x1a2_0435_138a);
    assert_eq!(value.topic_id.to_string(), "ryCGw0BOThiY2FOk9Cpm9A");
}

#[test]
fn an_offset_with_a_retention_is_written_in_the_version_that_has_one() {
    let record = round_trip(
        "000100046772657400017400000001",
        Some("000100000000000000060000000001a2043513fb000001a20435fe5b"),
    );
    let GroupRecord::OffsetCommit {
        value: Some(value), ..
    } = record
    else {
        panic!("an offset, not {record:?}");
    };
    assert_eq!(value.expire_timestamp - value.commit_timestamp, 60_000);
}

#[test]
fn a_deleted_offset_and_a_deleted_group_have_no_value() {
    round_trip("000100016700017400000000", None);
    round_trip("00020000", None);
}

#[test]
fn a_group_without_a_generation_is_written_as_kafka_does() {
    let value = "0003000000000000ffffffff000001a20435136d00000000";
    round_trip("0002000167", Some(value));
    let group = ClassicGroup::new(ByteStr::from("g"), 0x1a2_0435_136d);
    let record = GroupRecord::GroupMetadata {
        group_id: "g".into(),
        value: Some(group.to_empty_record()),
    };
    assert_eq!(record.encode().unwrap().value, Some(hex(value)));
}

#[test]
fn a_generation_with_a_static_member_is_written_as_kafka_does() {
    let record = round_trip(
        "0002000173",
        Some(concat!(
            "00030008636f6e73756d657200000001000572616e67650027",
            "69312d35366563376439372d313334312d346133392d396261352d653031396539303536366131",
            "000001a2043514c9000000010027",
            "69312d35366563376439372d313334312d346133392d396261352d653031396539303536366131",
            "00026931000570726f6265000a2f3132372e302e302e310000ea6000002710",
            "00000017000300000001000174ffffffff00000000ffffffffffff0000000107"
        )),
    );
    let GroupRecord::GroupMetadata {
        value: Some(value), ..
    } = record
    else {
        panic!("a group, not {record:?}");
    };
    let group = ClassicGroup::from_record("s".into(), &value);
    assert_eq!(group.generation(), 1);
    assert_eq!(group.state().name(), "Stable");
    assert!(group.is_subscribed_to("t") && !group.is_subscribed_to("u"));
    let id = "i1-56ec7d97-1341-4a39-9ba5-e019e90566a1";
    assert_eq!(group.static_member_id("i1").unwrap(), id);
    assert_eq!(group.leader().unwrap(), id);
    let member = group.member(id).unwrap();
    assert_eq!(member.assignment, Bytes::from_static(&[7]));
    assert_eq!(member.client_host, "/127.0.0.1");
    assert_eq!(
        (member.rebalance_timeout_ms, member.session_timeout_ms),
        (60_000, 10_000)
    );
}

#[test]
fn an_empty_generation_keeps_its_number_and_protocol_type() {
    let record = round_trip(
        "0002000173",
        Some("00030008636f6e73756d657200000002ffffffff000001a2043514f300000000"),
    );
    let GroupRecord::GroupMetadata {
        value: Some(value), ..
    } = record
    else {
        panic!("a group, not {record:?}");
    };
    let group = ClassicGroup::from_record("s".into(), &value);
    assert!(group.is_empty());
    assert_eq!(group.generation(), 2);
    assert_eq!(group.protocol_type().unwrap(), "consumer");
    assert_eq!(group.protocol_name(), None);
    assert_eq!(group.state_timestamp_ms(), Some(0x1a2_0435_14f3));
}

#[test]
fn offsets_of_kafka_0_8_are_read() {
    let key = "000000016700017400000002";
    let value = "0000000000000000000500026d640000000000000009";
    let GroupRecord::OffsetCommit {
        key,
        value: Some(value),
    } = decode(key, Some(value))
    else {
        panic!("an offset");
    };
    assert_eq!(
        key,
        OffsetCommitKey {
            group: "g".into(),
            topic: "t".into(),
            partition: 2,
        }
    );
    assert_eq!(
        value,
        OffsetCommitValue {
            offset: 5,
            metadata: "md".into(),
            commit_timestamp: 9,
            topic_id: Uuid::ZERO,
            ..OffsetCommitValue::default()
        }
    );
}

#[test]
fn records_of_unknown_types_are_passed_over_and_keep_their_bytes() {
    // Type 18 was given up before it was ever written.
    for key in ["0063ff", "0012000167"] {
        let record = round_trip(key, Some("0000aa"));
        assert!(matches!(record, GroupRecord::Unknown { .. }), "{record:?}");
    }
}

#[test]
fn rejects_what_is_no_record() {
    assert_eq!(
        GroupRecord::decode(None, None),
        Err(RecordError::MissingKey)
    );
    for (key, value) in [
        ("", None),
        ("00", None),
        ("000100", None),
        ("0002000567", None),
        ("0002000167", Some("00")),
        ("0002000167", Some("0063")),
        ("0005", Some("00")),
    ] {
        let decoded = GroupRecord::decode(Some(hex(key)), value.map(hex));
        assert!(
            matches!(decoded, Err(RecordError::Malformed { .. })),
            "{key}: {decoded:?}"
        );
    }
}

#[test]
fn a_record_whose_leader_is_no_member_gets_another() {
    let value = GroupMetadataValue {
        protocol_type: "consumer".into(),
        protocol: Some("range".into()),
        generation: 3,
        leader: Some("gone".into()),
        members: vec![
            klamm_protocol::group_records::group_metadata_value::MemberMetadata {
                member_id: "m".into(),
                ..Default::default()
            },
        ],
        ..GroupMetadataValue::default()
    };
    let group = ClassicGroup::from_record("g".into(), &value);
    assert_eq!(group.leader().unwrap(), "m");
    // Metadata of no consumer: the subscriptions are unknown, so every topic may be subscribed.
    assert!(!group.knows_subscriptions());
    assert!(group.is_subscribed_to("anything"));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_a_record_or_an_error(
        kind in 0_i16..30,
        key in proptest::collection::vec(proptest::num::u8::ANY, 0..40),
        value in proptest::option::of(proptest::collection::vec(proptest::num::u8::ANY, 0..80)),
    ) {
        let key: Bytes = kind.to_be_bytes().into_iter().chain(key).collect();
        let value = value.map(Bytes::from);
        if let Ok(record) = GroupRecord::decode(Some(key), value) {
            let encoded = record.encode().unwrap();
            let again = GroupRecord::decode(Some(encoded.key), encoded.value).unwrap();
            assert_eq!(kind_of(&again), kind_of(&record));
        }
    }

    #[test]
    fn offsets_survive_being_written(
        offset: i64,
        leader_epoch in -1_i32..1_000,
        metadata in "\\PC{0,20}",
        commit_timestamp in 0_i64..i64::MAX / 2,
        id: [u8; 16],
    ) {
        let record = GroupRecord::OffsetCommit {
            key: OffsetCommitKey { group: "g".into(), topic: "t".into(), partition: 1 },
            value: Some(OffsetCommitValue {
                offset,
                leader_epoch,
                metadata: metadata.as_str().into(),
                commit_timestamp,
                topic_id: Uuid::from_bytes(id),
                ..OffsetCommitValue::default()
            }),
        };
        let encoded = record.encode().unwrap();
        let again = GroupRecord::decode(Some(encoded.key), encoded.value).unwrap();
        assert_eq!(again, record);
    }
}

fn kind_of(record: &GroupRecord) -> std::mem::Discriminant<GroupRecord> {
    std::mem::discriminant(record)
}
