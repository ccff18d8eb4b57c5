use std::net::SocketAddr;
use std::sync::Arc;

use klamm_env::ManualClock;
use klamm_protocol::ApiKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::http::{HEAD_MAX, Parsed, parse};
use super::{Health, Metrics, OpsServer};

fn metrics() -> (Arc<Metrics>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(1_000));
    (Arc::new(Metrics::new(clock.clone())), clock)
}

/// The value of a line of the page.
fn value(page: &str, line: &str) -> Option<f64> {
    page.lines()
        .find_map(|l| l.strip_prefix(line)?.strip_prefix(' ')?.parse().ok())
}

#[test]
fn a_request_is_counted_by_version_and_timed() {
    let (metrics, clock) = metrics();
    let timer = metrics.request_of_version(ApiKey::Produce, 11);
    let in_flight = "kafka_network_requestmetrics_inflight{request=\"Produce\"}";
    assert_eq!(value(&metrics.render(), in_flight), Some(1.0));
    clock.advance_ms(3);
    timer.handled();
    drop(metrics.request_of_version(ApiKey::Produce, 11));
    let page = metrics.render();
    let requests =
        "kafka_network_requestmetrics_requests_total{request=\"Produce\",version=\"11\"}";
    assert_eq!(value(&page, requests), Some(2.0));
    assert_eq!(value(&page, in_flight), Some(0.0));
    let time = |suffix: &str| {
        value(
            &page,
            &format!("kafka_network_requestmetrics_totaltime_seconds_{suffix}"),
        )
    };
    assert_eq!(time("bucket{request=\"Produce\",le=\"0.0025\"}"), Some(0.0));
    assert_eq!(time("bucket{request=\"Produce\",le=\"0.005\"}"), Some(1.0));
    assert_eq!(time("bucket{request=\"Produce\",le=\"+Inf\"}"), Some(1.0));
    assert_eq!(time("sum{request=\"Produce\"}"), Some(0.003));
    assert_eq!(time("count{request=\"Produce\"}"), Some(1.0));
    assert!(!page.contains("Fetch"));
}

#[test]
fn versions_out_of_range_are_counted_somewhere() {
    let (metrics, _) = metrics();
    metrics
        .request_of_version(ApiKey::Fetch, i16::MAX)
        .handled();
    metrics.request_of_version(ApiKey::Fetch, -1).handled();
    let page = metrics.render();
    let count = "kafka_network_requestmetrics_totaltime_seconds_count{request=\"Fetch\"}";
    assert_eq!(value(&page, count), Some(2.0));
}

#[test]
fn sums_over_topics_survive_their_deletion() {
    let (metrics, _) = metrics();
    metrics.topic("a").messages_in.add(5);
    metrics.topic("b").messages_in.add(2);
    metrics.topic("a").messages_in.add(1);
    let name = "kafka_server_brokertopicmetrics_messagesin_total";
    let page = metrics.render();
    assert_eq!(value(&page, name), Some(8.0));
    assert_eq!(value(&page, &format!("{name}{{topic=\"a\"}}")), Some(6.0));
    metrics.remove_topic("a");
    metrics.remove_topic("never");
    let page = metrics.render();
    assert_eq!(value(&page, name), Some(8.0));
    assert_eq!(value(&page, &format!("{name}{{topic=\"a\"}}")), None);
}

#[test]
fn gauges_are_asked_when_someone_looks() {
    let (metrics, _) = metrics();
    metrics.gauge(
        "kafka_server_replicamanager_partitioncount",
        "Partitions.",
        || 1.0,
    );
    metrics.gauge(
        "kafka_server_replicamanager_partitioncount",
        "Partitions.",
        || 2.5,
    );
    let page = metrics.render();
    assert_eq!(
        value(&page, "kafka_server_replicamanager_partitioncount"),
        Some(2.5)
    );
    assert_eq!(
        page.matches("# TYPE kafka_server_replicamanager_partitioncount gauge")
            .count(),
        1
    );
}

/// Each family is announced once, each line belongs to the family announced last, and every value is
/// a number: what a Prometheus parser insists on.
#[test]
fn the_page_is_well_formed() {
    let (metrics, _) = metrics();
    metrics.connection_opened();
    metrics.connection_closed();
    metrics.request_of_version(ApiKey::Metadata, 13).handled();
    metrics.topic("a.b_c-d").bytes_in.add(1);
    let page = metrics.render();
    let mut families = Vec::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let name = rest.split(' ').next().unwrap().to_owned();
            assert!(!families.contains(&name), "{name} twice");
            families.push(name);
        } else if !line.starts_with('#') {
            let (series, number) = line.rsplit_once(' ').unwrap();
            number.parse::<f64>().unwrap();
            let name = series.split('{').next().unwrap();
            assert!(
                name.starts_with(families.last().unwrap().as_str()),
                "{line}"
            );
        }
    }
    assert_eq!(
        value(
            &page,
            "kafka_server_socketservermetrics_connection_close_total"
        ),
        Some(1.0)
    );
}

#[test]
fn heads_are_read_or_refused() {
    assert_eq!(parse(b"GET /metr"), Parsed::Incomplete);
    let Parsed::Request(get) = parse(b"GET /metrics?x=1 HTTP/1.1\r\nhost: a\r\n\r\n") else {
        panic!()
    };
    assert_eq!((get.path, get.head_only), ("/metrics", false));
    let Parsed::Request(head) = parse(b"HEAD /health HTTP/1.0\n\n") else {
        panic!()
    };
    assert_eq!((head.path, head.head_only), ("/health", true));
    for bad in [
        &b"POST / HTTP/1.1\r\n\r\n"[..],
        b"GET /\r\n\r\n",
        b"GET http://x/ HTTP/1.1\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"\xff / HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
        &[b'a'; HEAD_MAX],
    ] {
        assert!(matches!(parse(bad), Parsed::Refused(_)), "{bad:?}");
    }
}

async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[test]
fn labels_are_escaped() {
    let (metrics, _) = metrics();
    metrics.family("named", "counter", "Help.", || {
        vec![(
            super::metrics::labels(&[("group", "a\"b\\c\nd"), ("x", "y")]),
            2.0,
        )]
    });
    let page = metrics.render();
    assert!(page.contains("# TYPE named counter\n"), "{page}");
    let line = "named{group=\"a\\\"b\\\\c\\nd\",x=\"y\"} 2\n";
    assert!(page.contains(line), "{page}");
}

#[tokio::test]
async fn serves_metrics_and_health() {
    let (metrics, _) = metrics();
    let server = OpsServer::bind(&[("127.0.0.1".into(), 0)], metrics.clone())
        .await
        .unwrap();
    let address = server.local_addrs()[0];
    let health = "GET /health HTTP/1.1\r\nhost: a\r\n\r\n";
    let answer = ask(address, health).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.ends_with("{\"status\":\"starting\"}\n"), "{answer}");
    metrics.set_health(Health::Ready);
    assert!(ask(address, health).await.starts_with("HTTP/1.1 200 "));
    let page = ask(address, "GET /metrics HTTP/1.1\r\n\r\n").await;
    let (head, body) = page.split_once("\r\n\r\n").unwrap();
    assert!(
        head.contains(&format!("content-length: {}", body.len())),
        "{head}"
    );
    assert!(body.contains("\nklamm_ready 1\n"));
    let head = ask(address, "HEAD /live HTTP/1.1\r\n\r\n").await;
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"),
        "{head}"
    );
    assert!(
        ask(address, "GET /nowhere HTTP/1.1\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 404 ")
    );
    assert!(
        ask(address, "PUT / HTTP/1.1\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 405 ")
    );
}

#[tokio::test]
async fn a_taken_port_is_told_by_name() {
    let (metrics, _) = metrics();
    let first = OpsServer::bind(&[("127.0.0.1".into(), 0)], metrics.clone())
        .await
        .unwrap();
    let port = first.local_addrs()[0].port();
    let error = OpsServer::bind(&[("127.0.0.1".into(), port)], metrics)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with(&format!("cannot listen for metrics on 127.0.0.1:{port}: "))
    );
}
