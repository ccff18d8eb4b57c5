use klamm_protocol::frame::encode_response;
use klamm_protocol::messages::api_versions_response::ApiVersion;
use klamm_protocol::messages::{
    ApiVersionsResponse, HeartbeatRequest, HeartbeatResponse, MetadataRequest,
};
use klamm_protocol::{ApiKey, Segment};

use super::*;
use crate::ClientError;

fn bytes(segments: Vec<Segment>) -> Vec<u8> {
    let mut out = Vec::new();
    for segment in segments {
        match segment {
            Segment::Bytes(bytes) => out.extend_from_slice(&bytes),
            Segment::External { .. } => panic!("nothing lies elsewhere"),
        }
    }
    out
}

fn answer(correlation_id: i32) -> Vec<u8> {
    let response = HeartbeatResponse::default();
    bytes(encode_response(correlation_id, ApiKey::Heartbeat, 4, &response).unwrap())
}

fn requests(count: i32) -> Requests {
    let mut requests = Requests::new(Some("me".into()));
    for expected in 0..count {
        let (id, _) = requests
            .send(4, &HeartbeatRequest::default(), true)
            .unwrap();
        assert_eq!(id, expected);
    }
    requests
}

#[test]
fn answers_are_cut_out_wherever_the_reads_end() {
    let stream: Vec<u8> = (0..3).flat_map(answer).collect();
    for cut in 0..stream.len() {
        let (mut requests, mut answers) = (requests(3), Answers::new(1 << 20));
        for piece in [&stream[..cut], &stream[cut..]] {
            answers.spare().unwrap().extend_from_slice(piece);
            while let Some(answer) = answers.next_answer().unwrap() {
                requests.answered(&answer).unwrap();
            }
        }
        assert_eq!(requests.waiting(), 0);
    }
}

#[test]
fn an_answer_out_of_turn_is_an_error() {
    let mut requests = requests(2);
    let late = Answer {
        correlation_id: 1,
        frame: answer(1).into(),
    };
    let error = requests.answered(&late).unwrap_err();
    assert!(
        matches!(
            error,
            ClientError::OutOfOrder {
                found: 1,
                expected: Some(0)
            }
        ),
        "{error}"
    );
    assert_eq!(requests.waiting(), 2);
}

#[test]
fn impossible_lengths_are_errors_and_long_ones_are_not_believed() {
    for len in [-1, (1 << 20) + 1] {
        let mut answers = Answers::new(1 << 20);
        answers
            .spare()
            .unwrap()
            .extend_from_slice(&i32::to_be_bytes(len));
        assert!(matches!(
            answers.next_answer(),
            Err(ClientError::FrameLength { .. })
        ));
        assert!(matches!(
            answers.spare(),
            Err(ClientError::FrameLength { .. })
        ));
    }
    let mut answers = Answers::new(i32::MAX as usize);
    answers
        .spare()
        .unwrap()
        .extend_from_slice(&i32::to_be_bytes(100 << 20));
    assert!(answers.spare().unwrap().capacity() <= 2 << 20);
}

#[test]
fn an_answer_too_short_for_a_header_is_an_error() {
    let mut answers = Answers::new(1 << 20);
    answers
        .spare()
        .unwrap()
        .extend_from_slice(&[0, 0, 0, 2, 7, 7]);
    assert!(matches!(answers.next_answer(), Err(ClientError::Decode(_))));
}

#[test]
fn a_request_without_an_answer_does_not_wait() {
    let mut requests = requests(0);
    requests
        .send(4, &HeartbeatRequest::default(), false)
        .unwrap();
    requests
        .send(4, &HeartbeatRequest::default(), true)
        .unwrap();
    let second = Answer {
        correlation_id: 1,
        frame: answer(1).into(),
    };
    requests.answered(&second).unwrap();
}

#[test]
fn the_highest_common_version_is_taken() {
    let served = |min_version, max_version| {
        VersionTable::of(&ApiVersionsResponse {
            api_keys: vec![ApiVersion {
                api_key: ApiKey::Metadata.code(),
                min_version,
                max_version,
                ..ApiVersion::default()
            }],
            ..ApiVersionsResponse::default()
        })
    };
    let best = |table: VersionTable, max| table.best::<MetadataRequest>(max).ok();
    assert_eq!(best(served(0, 9), i16::MAX), Some(9));
    assert_eq!(best(served(0, 9), 5), Some(5));
    assert_eq!(best(served(0, 99), i16::MAX), Some(13));
    assert_eq!(best(served(90, 99), i16::MAX), None);
    assert_eq!(best(served(6, 9), 5), None);
    assert_eq!(best(VersionTable::default(), 5), None);
}
