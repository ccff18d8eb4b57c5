//! Starting and stopping: what is refused, and what a refused start leaves alone.
#![expect(
    clippy::disallowed_methods,
    reason = "looks at what the broker left behind"
)]

mod common;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Client, start, try_start, try_start_in};
use klamm_broker::BrokerError;
use klamm_metadata::LeaderRecoveryState;
use klamm_protocol::messages::metadata_request::MetadataRequestTopic;
use klamm_protocol::messages::{DescribeTopicPartitionsRequest, MetadataRequest};

const PATIENCE: Duration = Duration::from_secs(20);

/// Or the next broker in the process would find the threads of this one at its files.
#[test]
fn nothing_goes_on_in_the_directories_of_a_broker_that_is_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let env = klamm_env::Env::os();
    let files = Arc::downgrade(&env.fs);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let broker = runtime.block_on(try_start_in(dir.path(), &[], env));
    drop(broker.unwrap());
    runtime.shutdown_timeout(PATIENCE);
    let begun = Instant::now();
    while files.strong_count() > 0 {
        assert!(begun.elapsed() < PATIENCE, "somebody holds on to the files");
        std::thread::yield_now();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_what_is_not_there_yet() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [&[(&str, &str)]; 2] = [
        &[
            ("listeners", "SSL://127.0.0.1:0"),
            ("security.inter.broker.protocol", "SSL"),
        ],
        &[(
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        )],
    ];
    for case in cases {
        let refused = try_start(dir.path(), case).await;
        assert!(
            matches!(refused, Err(BrokerError::Unsupported { .. })),
            "{case:?}: {refused:?}"
        );
    }
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing was touched"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_a_port_in_use_before_it_touches_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listeners = format!("PLAINTEXT://{}", other.local_addr().unwrap());
    let refused = try_start(dir.path(), &[("listeners", &listeners)]).await;
    assert!(matches!(refused, Err(BrokerError::Bind(_))), "{refused:?}");
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "nothing was touched"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_the_directory_of_another_cluster_or_node() {
    let dir = tempfile::tempdir().unwrap();
    start(dir.path(), &[]).await.shutdown().await;
    let refused = try_start(dir.path(), &[("node.id", "7")]).await;
    assert!(matches!(refused, Err(BrokerError::Logs(_))), "{refused:?}");
    start(dir.path(), &[]).await.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_names_the_real_port() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    let metadata = client.ask(9, &MetadataRequest::default()).await;
    let ports: BTreeMap<i32, i32> = metadata
        .brokers
        .iter()
        .map(|broker| (broker.node_id, broker.port))
        .collect();
    let port = broker.address("PLAINTEXT").unwrap().port();
    assert_eq!(ports, BTreeMap::from([(broker.node_id(), i32::from(port))]));
    assert_eq!(metadata.controller_id, broker.node_id());
    broker.shutdown().await;
}

/// A broker that was killed is the only replica there is: it leads again, and what it had
/// acknowledged is there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_leads_again_and_has_recovered() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path(), &[]).await;
    let mut client = Client::connect(&broker).await;
    client
        .ask(
            9,
            &MetadataRequest {
                topics: Some(vec![topic("t")]),
                ..MetadataRequest::default()
            },
        )
        .await;
    client.produce("t", &["a"]).await;
    // What a kill leaves behind: the files as they are now.
    let copy = copy_running(dir.path());
    broker.shutdown().await;

    let broker = start(copy.path(), &[]).await;
    let image = broker.metadata();
    let partition = image.partition("t", 0).unwrap();
    assert_eq!(
        partition.leader_recovery_state,
        LeaderRecoveryState::Recovered
    );
    let mut client = Client::connect(&broker).await;
    assert_eq!(client.produce("t", &["b"]).await, 1);
    let quorum = client
        .ask(0, &DescribeTopicPartitionsRequest::default())
        .await;
    let partition = &quorum
        .topics
        .iter()
        .find(|t| t.name.as_deref() == Some("t"))
        .unwrap()
        .partitions[0];
    assert_eq!(
        (partition.leader_id, &partition.isr_nodes[..]),
        (1, &[1][..])
    );
    broker.shutdown().await;
}

fn topic(name: &str) -> MetadataRequestTopic {
    MetadataRequestTopic {
        name: Some(name.into()),
        ..MetadataRequestTopic::default()
    }
}

/// What a kill at this moment would leave of `from`. The broker goes on writing meanwhile, and what was
/// listed may have been renamed or removed before it is copied: then the listing was of no one moment,
/// and is made again.
fn copy_running(from: &Path) -> tempfile::TempDir {
    for _ in 0..100 {
        let copy = tempfile::tempdir().unwrap();
        match copy_dir(from, copy.path()) {
            Ok(()) => return copy,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => panic!("copying {}: {error}", from.display()),
        }
    }
    panic!("{} never stands still", from.display());
}

fn copy_dir(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
