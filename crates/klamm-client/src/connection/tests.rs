//! Against a broker of a few lines on loopback.

use bytes::BytesMut;
use klamm_protocol::ApiKey;
use klamm_protocol::frame::{RequestHeader, decode_request_header, encode_response};
use klamm_protocol::messages::api_versions_response::ApiVersion;
use klamm_protocol::messages::{HeartbeatRequest, HeartbeatResponse, MetadataRequest};
use tokio::net::TcpListener;

use super::*;

/// What the broker does with a request: the pieces to send, or the end of the connection.
type Serve = Box<dyn FnMut(RequestHeader) -> Option<Vec<u8>> + Send>;

async fn broker(mut serve: Serve) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    #[expect(clippy::disallowed_methods, reason = "the other side of the test")]
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut buffer = BytesMut::new();
        loop {
            while buffer.len() >= 4 {
                let len = u32::from_be_bytes(*buffer.first_chunk().unwrap()) as usize;
                if buffer.len() < 4 + len {
                    break;
                }
                let frame = buffer.split_to(4 + len).freeze().slice(4..);
                let header = decode_request_header(&mut Decoder::new(frame)).unwrap();
                match serve(header) {
                    Some(answer) => stream.write_all(&answer).await.unwrap(),
                    None => return,
                }
            }
            if stream.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
    });
    port
}

fn bytes<M: Message>(header: &RequestHeader, version: i16, message: &M) -> Vec<u8> {
    let key = ApiKey::from_code(header.api_key).unwrap();
    let segments = encode_response(header.correlation_id, key, version, message).unwrap();
    segments
        .iter()
        .flat_map(|segment| match segment {
            Segment::Bytes(bytes) => bytes.to_vec(),
            Segment::External { .. } => panic!("nothing lies elsewhere"),
        })
        .collect()
}

fn versions() -> ApiVersionsResponse {
    let range = |key: ApiKey, max_version| ApiVersion {
        api_key: key.code(),
        min_version: 0,
        max_version,
        ..ApiVersion::default()
    };
    ApiVersionsResponse {
        api_keys: vec![range(ApiKey::ApiVersions, 3), range(ApiKey::Heartbeat, 2)],
        ..ApiVersionsResponse::default()
    }
}

fn usual(header: &RequestHeader) -> Vec<u8> {
    match ApiKey::from_code(header.api_key) {
        Some(ApiKey::ApiVersions) => bytes(header, header.api_version, &versions()),
        _ => bytes(
            header,
            header.api_version,
            &HeartbeatResponse {
                error_code: 27,
                ..HeartbeatResponse::default()
            },
        ),
    }
}

async fn open(port: u16) -> Result<Connection, ClientError> {
    let options = ConnectOptions {
        client_id: Some("test".into()),
        request_timeout: Duration::from_secs(60),
        ..ConnectOptions::default()
    };
    Connection::open("127.0.0.1", port, options).await
}

#[tokio::test]
async fn versions_are_agreed_on() {
    let port = broker(Box::new(|header| {
        assert_eq!(header.client_id.as_deref(), Some("test"));
        if header.api_key == ApiKey::Heartbeat.code() {
            assert_eq!(header.api_version, 2);
        }
        Some(usual(&header))
    }))
    .await;
    let broker = open(port).await.unwrap();
    assert_eq!(broker.versions().range(ApiKey::Heartbeat), Some((0, 2)));
    let answer = broker.request(&HeartbeatRequest::default()).await.unwrap();
    assert_eq!(answer.error_code, 27);
    let unknown = broker.request(&MetadataRequest::default()).await;
    assert!(matches!(
        unknown,
        Err(ClientError::NoCommonVersion(ApiKey::Metadata))
    ));
}

#[tokio::test]
async fn a_broker_too_old_for_the_newest_question_is_asked_again() {
    let port = broker(Box::new(|header| {
        if header.api_version > 3 {
            let refused = ApiVersionsResponse {
                error_code: ErrorCode::UnsupportedVersion.code(),
                ..versions()
            };
            return Some(bytes(&header, 0, &refused));
        }
        Some(usual(&header))
    }))
    .await;
    let broker = open(port).await.unwrap();
    assert_eq!(broker.versions().range(ApiKey::ApiVersions), Some((0, 3)));
}

#[tokio::test]
async fn requests_overlap_and_each_gets_its_own_answer() {
    let mut held: Vec<RequestHeader> = Vec::new();
    let port = broker(Box::new(move |header| {
        if header.api_key == ApiKey::ApiVersions.code() {
            return Some(usual(&header));
        }
        held.push(header);
        // Nothing until three are there: whoever waited for each in turn would never see it.
        if held.len() < 3 {
            return Some(Vec::new());
        }
        let answers = held.drain(..).flat_map(|header| {
            bytes(
                &header,
                header.api_version,
                &HeartbeatResponse {
                    throttle_time_ms: header.correlation_id,
                    ..HeartbeatResponse::default()
                },
            )
        });
        Some(answers.collect())
    }))
    .await;
    let broker = open(port).await.unwrap();
    let request = HeartbeatRequest::default();
    let (one, two, three) = tokio::join!(
        broker.request(&request),
        broker.request(&request),
        broker.request(&request),
    );
    let ids = [one, two, three].map(|answer| answer.unwrap().throttle_time_ms);
    assert!(ids[0] < ids[1] && ids[1] < ids[2], "{ids:?}");
}

#[tokio::test]
async fn a_connection_that_breaks_fails_those_who_wait_and_those_who_come() {
    let port = broker(Box::new(|header| {
        (header.api_key == ApiKey::ApiVersions.code()).then(|| usual(&header))
    }))
    .await;
    let broker = open(port).await.unwrap();
    let failed = broker.request(&HeartbeatRequest::default()).await;
    assert!(
        matches!(failed, Err(ClientError::Closed | ClientError::Io(_))),
        "{failed:?}"
    );
    let failed = broker.request(&HeartbeatRequest::default()).await;
    assert!(matches!(failed, Err(ClientError::Closed)), "{failed:?}");
    assert!(broker.is_closed());
}

#[tokio::test]
async fn nonsense_closes_the_connection() {
    let port = broker(Box::new(|header| {
        if header.api_key == ApiKey::ApiVersions.code() {
            return Some(usual(&header));
        }
        Some(b"HTTP/1.1 400 Bad Request\r\n".to_vec())
    }))
    .await;
    let broker = open(port).await.unwrap();
    let failed = broker.request(&HeartbeatRequest::default()).await;
    assert!(matches!(failed, Err(ClientError::Closed)), "{failed:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_late_ends_the_connection() {
    let port = broker(Box::new(|header| {
        if header.api_key == ApiKey::ApiVersions.code() {
            return Some(usual(&header));
        }
        Some(Vec::new())
    }))
    .await;
    let broker = open(port).await.unwrap();
    let failed = broker.request(&HeartbeatRequest::default()).await;
    assert!(
        matches!(failed, Err(ClientError::TimedOut(_))),
        "{failed:?}"
    );
    assert!(broker.is_closed());
}

#[tokio::test]
async fn nobody_there_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    assert!(matches!(open(port).await, Err(ClientError::Io(_))));
}

#[tokio::test]
async fn a_private_request_goes_and_comes_back_as_it_is() {
    let port = broker(Box::new(|header| {
        if header.api_key != 30_000 {
            return Some(usual(&header));
        }
        assert_eq!(header.api_version, 7);
        let mut answer = 9_i32.to_be_bytes().to_vec();
        answer.extend(header.correlation_id.to_be_bytes());
        answer.extend(b"later");
        Some(answer)
    }))
    .await;
    let connection = open(port).await.unwrap();
    let body = Bytes::from_static(b"sooner");
    let answer = connection.request_private(30_000, 7, body, Duration::from_secs(30));
    assert_eq!(&answer.await.unwrap()[..], b"later");
    // Ordinary requests go on behind it.
    let answer = connection.request(&HeartbeatRequest::default()).await;
    assert_eq!(answer.unwrap().error_code, 27);
}
