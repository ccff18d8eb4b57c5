//! Headers in front of messages, and the frames of stored records.

use bytes::Bytes;
use klamm_protocol::consumer_protocol::ConsumerProtocolSubscription;
use klamm_protocol::frame::{
    decode_request_header, decode_response, encode_request, encode_response,
};
use klamm_protocol::group_records::{GroupRecord, OffsetCommitKey, OffsetCommitValue};
use klamm_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use klamm_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse, HeartbeatRequest,
    HeartbeatResponse, ProduceResponse,
};
use klamm_protocol::metadata::{MetadataRecord, NoOpRecord};
use klamm_protocol::{
    ApiKey, DecodeError, Decoder, EncodeError, Encoder, Message, Records, Segment, record_frame,
};

fn join(segments: Vec<Segment>) -> Bytes {
    let mut whole = Vec::new();
    for segment in segments {
        match segment {
            Segment::Bytes(bytes) => whole.extend_from_slice(&bytes),
            Segment::External { len, token } => whole.resize(whole.len() + len, token as u8),
        }
    }
    Bytes::from(whole)
}

#[test]
fn a_request_reads_back_with_its_header() {
    for version in [3, 4] {
        let request = HeartbeatRequest {
            group_id: "g".into(),
            ..Default::default()
        };
        let mut frame = join(encode_request(7, Some("me"), version, &request).unwrap());
        let size = frame.split_to(4);
        assert_eq!(size[..], i32::try_from(frame.len()).unwrap().to_be_bytes());

        let mut decoder = Decoder::new(frame);
        let header = decode_request_header(&mut decoder).unwrap();
        assert_eq!((header.api_key, header.api_version), (12, version));
        assert_eq!(
            (header.correlation_id, header.client_id),
            (7, Some("me".into()))
        );
        assert_eq!(
            HeartbeatRequest::decode(&mut decoder, version).unwrap(),
            request
        );
        assert_eq!(decoder.remaining(), 0);
    }
}

/// The client id is written the old way in a flexible header too.
#[test]
fn the_client_id_is_never_compact() {
    let frame = join(encode_request(1, Some("x"), 4, &HeartbeatRequest::default()).unwrap());
    assert_eq!(frame[4..16], [0, 12, 0, 4, 0, 0, 0, 1, 0, 1, b'x', 0]);
}

#[test]
fn a_header_of_an_unknown_request_still_gives_the_correlation_id() {
    for bytes in [
        [0x03, 0xe8, 0, 0, 0, 0, 0, 9, 0xff, 0xff],
        [0, 18, 0x7f, 0xff, 0, 0, 0, 9, 0xff, 0xff],
    ] {
        // ApiVersions in a version to come has a flexible header: tagged fields follow.
        let mut bytes = bytes.to_vec();
        bytes.push(0);
        let header = decode_request_header(&mut Decoder::new(Bytes::from(bytes))).unwrap();
        assert_eq!((header.correlation_id, header.client_id), (9, None));
    }
}

#[test]
fn rejects_a_header_cut_short() {
    let frame = join(encode_request(1, Some("x"), 4, &HeartbeatRequest::default()).unwrap());
    for end in 4..16 {
        let cut = frame.slice(4..end);
        assert!(
            decode_request_header(&mut Decoder::new(cut)).is_err(),
            "{end}"
        );
    }
}

#[test]
fn a_response_reads_back() {
    let response = HeartbeatResponse {
        error_code: 27,
        ..Default::default()
    };
    for version in [0, 4] {
        let frame = join(encode_response(5, ApiKey::Heartbeat, version, &response).unwrap());
        let read = decode_response::<HeartbeatRequest>(frame.slice(4..), version).unwrap();
        assert_eq!(read, (5, response.clone()));
    }
}

/// KIP-511: whoever reads the answer may not know flexible headers.
#[test]
fn an_api_versions_response_has_the_oldest_header() {
    let response = ApiVersionsResponse::default();
    let frame = join(encode_response(5, ApiKey::ApiVersions, 3, &response).unwrap());
    assert_eq!(frame[4..10], [0, 0, 0, 5, 0, 0]);
    assert!(decode_response::<ApiVersionsRequest>(frame.slice(4..), 3).is_ok());
}

fn fetch_response(records: Records) -> FetchResponse {
    let partition = PartitionData {
        records: Some(records),
        ..Default::default()
    };
    let topic = FetchableTopicResponse {
        partitions: vec![partition; 2],
        ..Default::default()
    };
    FetchResponse {
        responses: vec![topic],
        ..Default::default()
    }
}

/// Tagged fields before and after the records move what was written, but not the records.
#[test]
fn records_outside_of_memory_become_segments_of_their_own() {
    for version in [11, 12, 16] {
        let plain = fetch_response(Records::Bytes(Bytes::from(vec![7; 5000])));
        let external = fetch_response(Records::External {
            len: 5000,
            token: 7,
        });
        let expected = plain.to_bytes(version).unwrap();

        let segments = encode_response(1, ApiKey::Fetch, version, &external).unwrap();
        let outside = Segment::External {
            len: 5000,
            token: 7,
        };
        assert_eq!(
            segments
                .iter()
                .filter(|segment| **segment == outside)
                .count(),
            2
        );
        let frame = join(segments);
        assert!(frame.ends_with(&expected), "version {version}");
        assert_eq!(
            frame[..4],
            i32::try_from(frame.len() - 4).unwrap().to_be_bytes()
        );
        let (_, read) = decode_response::<FetchRequest>(frame.slice(4..), version).unwrap();
        assert_eq!(read, plain);
        assert_eq!(external.to_bytes(version), Err(EncodeError::External));
    }
}

#[test]
fn large_records_are_not_copied_on_their_way_out() {
    let records = Bytes::from(vec![1; 100_000]);
    let response = fetch_response(Records::Bytes(records.clone()));
    let segments = encode_response(1, ApiKey::Fetch, 16, &response).unwrap();
    let shared = |segment: &&Segment| matches!(segment, Segment::Bytes(bytes) if bytes.as_ptr() == records.as_ptr());
    assert_eq!(segments.iter().filter(shared).count(), 2);
}

/// More than 127 bytes of tagged fields need a length of two bytes, for which room is made.
#[test]
fn long_tagged_fields_read_back() {
    use klamm_protocol::messages::produce_response::NodeEndpoint;
    let endpoint = NodeEndpoint {
        host: "h".repeat(100).into(),
        port: 9092,
        ..Default::default()
    };
    for count in [1, 2, 200] {
        let node_endpoints = vec![endpoint.clone(); count];
        let response = ProduceResponse {
            node_endpoints,
            ..Default::default()
        };
        let bytes = response.to_bytes(10).unwrap();
        assert_eq!(ProduceResponse::from_bytes(bytes, 10).unwrap(), response);
    }
}

#[test]
fn metadata_records_refuse_other_frames() {
    let value = MetadataRecord::from(NoOpRecord::default())
        .encode_value(0)
        .unwrap();
    assert_eq!(value[..], [1, 20, 0, 0]);
    let decode = |bytes: &'static [u8]| MetadataRecord::decode_value(Bytes::from_static(bytes));
    assert_eq!(
        decode(&[0, 20, 0, 0]),
        Err(DecodeError::UnknownFrameVersion { version: 0 })
    );
    assert_eq!(
        decode(&[1, 6, 0, 0]),
        Err(DecodeError::UnknownRecordType { record_type: 6 })
    );
    assert_eq!(
        decode(&[1, 20, 0, 0, 0]),
        Err(DecodeError::TrailingBytes { count: 1 })
    );
    assert!(matches!(
        decode(&[1, 20, 1, 0]),
        Err(DecodeError::UnsupportedVersion { .. })
    ));
    assert!(matches!(
        decode(&[1, 0xff, 0xff, 3]),
        Err(DecodeError::InvalidVarint { .. })
    ));
    assert!(matches!(decode(&[]), Err(DecodeError::Truncated { .. })));
}

#[test]
fn group_records_are_told_apart_by_their_key() {
    let key = OffsetCommitKey {
        group: "g".into(),
        topic: "t".into(),
        partition: 3,
    };
    let value = OffsetCommitValue {
        offset: 9,
        ..Default::default()
    };
    let record = GroupRecord::OffsetCommit(key, Some(value));
    let (key, value) = record.encode(3).unwrap();
    assert_eq!(key[..], [0, 1, 0, 1, b'g', 0, 1, b't', 0, 0, 0, 3]);
    assert_eq!(value.as_ref().unwrap()[..2], [0, 3]);
    assert_eq!(GroupRecord::decode(key.clone(), value), Ok(record.clone()));
    assert_eq!(record.record_type(), 1);

    let tombstone = GroupRecord::decode(key, None).unwrap();
    assert!(matches!(tombstone, GroupRecord::OffsetCommit(_, None)));
    assert_eq!(
        GroupRecord::decode(Bytes::from_static(&[0, 99]), None),
        Err(DecodeError::UnknownRecordType { record_type: 99 })
    );
    assert!(GroupRecord::decode(Bytes::new(), None).is_err());
}

#[test]
fn a_subscription_carries_its_version_in_front() {
    let subscription = ConsumerProtocolSubscription {
        topics: vec!["t".into()],
        ..Default::default()
    };
    let bytes = record_frame::encode_versioned(&subscription, 1).unwrap();
    assert_eq!(
        bytes[..],
        [
            0, 1, 0, 0, 0, 1, 0, 1, b't', 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0
        ]
    );
    assert_eq!(record_frame::decode_versioned(bytes), Ok(subscription));
}

#[test]
fn an_encoder_without_records_gives_one_segment() {
    let mut encoder = Encoder::new();
    assert!(encoder.is_empty());
    encoder.i32(1);
    assert_eq!(encoder.len(), 4);
    assert_eq!(
        encoder.finish(),
        [Segment::Bytes(Bytes::from_static(&[0, 0, 0, 1]))]
    );
}
