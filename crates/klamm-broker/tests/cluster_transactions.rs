//! Transactions whose coordinator is on one broker, and whose partitions are on others.

mod common;

use common::nodes::{Nodes, Roles, wait_for};
use common::produce_error;
use common::transactions::{
    FETCH, ID, Producer, end_request, init_request, produce_one, stable, stable_request,
};
use klamm_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use klamm_protocol::messages::{CreateTopicsRequest, FindCoordinatorRequest};
use klamm_protocol::{ErrorCode, topic_name};

/// From these versions on, brokers add partitions, and each transaction has an epoch.
const PRODUCE: i16 = 12;
const END: i16 = 5;
/// One partition of states, on all nodes.
const STATES: [(&str, &str); 3] = [
    ("transaction.state.log.num.partitions", "1"),
    ("transaction.state.log.replication.factor", "3"),
    ("transaction.state.log.min.isr", "2"),
];

struct Cluster {
    nodes: Nodes,
    /// Topics of one partition with one replica, and where that is: not at the first coordinator.
    topics: Vec<(&'static str, i32)>,
}

/// Whether the same request may be answered better in a moment.
fn is_passing(error: ErrorCode) -> bool {
    matches!(
        error,
        ErrorCode::NotCoordinator
            | ErrorCode::CoordinatorNotAvailable
            | ErrorCode::CoordinatorLoadInProgress
            | ErrorCode::ConcurrentTransactions
            | ErrorCode::NotEnoughReplicas
            | ErrorCode::NotLeaderOrFollower
            | ErrorCode::RequestTimedOut
            | ErrorCode::NetworkException
            | ErrorCode::UnknownTopicOrPartition
    )
}

/// Asks until there is an answer that stays.
fn settled<T>(what: &str, mut ask: impl FnMut() -> Option<(ErrorCode, T)>) -> Result<T, ErrorCode> {
    wait_for(what, || match ask()? {
        (ErrorCode::None, answer) => Some(Ok(answer)),
        (error, _) if is_passing(error) => None,
        (error, _) => Some(Err(error)),
    })
}

fn error(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).unwrap()
}

impl Cluster {
    fn start() -> Cluster {
        let nodes = Nodes::start(&[Roles::Both; 3], &STATES);
        let mut cluster = Cluster {
            nodes,
            topics: Vec::new(),
        };
        // Makes the topic of states.
        let request = FindCoordinatorRequest {
            key_type: 1,
            coordinator_keys: vec![ID.into()],
            ..FindCoordinatorRequest::default()
        };
        let found = settled("a coordinator", || {
            let mut client = cluster.nodes.client(1);
            let answer = cluster.nodes.block_on(client.ask(4, &request));
            Some((error(answer.coordinators[0].error_code), ()))
        });
        assert_eq!(found, Ok(()));
        let coordinator = wait_for("a coordinator", || cluster.coordinator());
        let others = cluster.nodes.running().into_iter();
        let others = others.filter(|id| *id != coordinator);
        cluster.topics = ["t", "u"].into_iter().zip(others).collect();
        cluster.make_topics();
        cluster
    }

    /// A cluster, and a producer with an open transaction that has a record in every topic.
    fn with_open_transaction() -> (Cluster, Producer) {
        let cluster = Cluster::start();
        let producer = cluster.init();
        assert_eq!(cluster.produce(producer, 0), Ok(()));
        (cluster, producer)
    }

    fn make_topics(&self) {
        let topics = self.topics.iter().map(|(name, node)| CreatableTopic {
            name: (*name).into(),
            num_partitions: -1,
            replication_factor: -1,
            assignments: vec![CreatableReplicaAssignment {
                partition_index: 0,
                broker_ids: vec![*node],
                ..CreatableReplicaAssignment::default()
            }],
            ..CreatableTopic::default()
        });
        let request = CreateTopicsRequest {
            topics: topics.collect(),
            timeout_ms: 30_000,
            ..CreateTopicsRequest::default()
        };
        // Whoever decides may just have changed; a request that timed out may have been obeyed.
        wait_for("the topics are made", || {
            let mut client = self.nodes.client(1);
            let answer = self.nodes.block_on(client.ask(7, &request));
            let is_made =
                |code| matches!(error(code), ErrorCode::None | ErrorCode::TopicAlreadyExists);
            let mut topics = answer.topics.iter();
            topics.all(|topic| is_made(topic.error_code)).then_some(())
        });
        self.nodes.wait_for_images("the topics", |image| {
            let mut topics = self.topics.iter();
            topics.all(|(name, _)| image.partition(name, 0).is_some())
        });
    }

    /// The node that coordinates, as all nodes that run know it.
    fn coordinator(&self) -> Option<i32> {
        let running = self.nodes.running();
        let leader = |id: &i32| {
            let image = self.nodes.image(*id);
            Some(image.partition(topic_name::TRANSACTION_STATE, 0)?.leader)
        };
        let known: Vec<_> = running.iter().map(leader).collect();
        let first = known[0]?;
        let is_agreed = known.iter().all(|leader| *leader == Some(first));
        (is_agreed && running.contains(&first)).then_some(first)
    }

    fn init(&self) -> Producer {
        let request = init_request();
        let given = settled("a producer", || {
            let mut client = self.nodes.client(self.coordinator()?);
            let answer = self.nodes.block_on(client.ask(5, &request));
            let producer = (answer.producer_id, answer.producer_epoch);
            Some((error(answer.error_code), producer))
        });
        given.unwrap()
    }

    /// Writes a record into every topic.
    fn produce(&self, producer: Producer, sequence: i32) -> Result<(), ErrorCode> {
        for (topic, node) in &self.topics {
            let request = produce_one(topic, producer, sequence);
            settled("a leader that takes records", || {
                let mut client = self.nodes.client(*node);
                let answer = self.nodes.block_on(client.ask(PRODUCE, &request));
                Some((error(produce_error(&answer)), ()))
            })?;
        }
        Ok(())
    }

    fn end(&self, producer: Producer, committed: bool) -> Result<Producer, ErrorCode> {
        let request = end_request(producer, committed);
        settled("an end", || {
            let mut client = self.nodes.client(self.coordinator()?);
            let answer = self.nodes.block_on(client.ask(END, &request));
            let next = (answer.producer_id, answer.producer_epoch);
            Some((error(answer.error_code), next))
        })
    }

    /// The last stable offset of a topic, and how many transactions below it were aborted.
    fn stable(&self, topic: &str, node: i32) -> (i64, usize) {
        let mut client = self.nodes.client(node);
        let request = stable_request(topic);
        stable(&self.nodes.block_on(client.ask(FETCH, &request)))
    }

    /// Waits until every topic is stable up to `offset`.
    fn wait_for_stable(&self, offset: i64, aborted: usize) {
        for (topic, node) in &self.topics {
            let found = wait_for("markers", || {
                let (stable, aborted) = self.stable(topic, *node);
                (stable == offset).then_some(aborted)
            });
            assert_eq!(found, aborted, "{topic}");
        }
    }
}

#[test]
fn a_transaction_over_other_brokers_ends_at_all_of_them() {
    let (cluster, first) = Cluster::with_open_transaction();
    for (topic, node) in &cluster.topics {
        assert_eq!(cluster.stable(topic, *node), (0, 0));
    }
    let second = cluster.end(first, true).unwrap();
    assert_eq!(second, (first.0, first.1 + 1));
    // A record and the marker.
    cluster.wait_for_stable(2, 0);
    assert_eq!(cluster.produce(second, 0), Ok(()));
    let third = cluster.end(second, false).unwrap();
    cluster.wait_for_stable(4, 1);
    // Who was replaced is refused wherever it writes.
    let other = cluster.init();
    assert!(other.1 > third.1);
    let fenced = cluster.produce(third, 0);
    assert_eq!(fenced, Err(ErrorCode::InvalidProducerEpoch));
    cluster.wait_for_stable(4, 1);
}

#[test]
fn a_transaction_outlives_its_coordinator() {
    let (mut cluster, first) = Cluster::with_open_transaction();
    let gone = wait_for("a coordinator", || cluster.coordinator());
    cluster.nodes.stop(gone);
    let next = wait_for("another coordinator", || cluster.coordinator());
    assert_ne!(next, gone);
    // It goes on where it was, and ends.
    assert_eq!(cluster.produce(first, 1), Ok(()));
    let second = cluster.end(first, true).unwrap();
    assert_eq!(second, (first.0, first.1 + 1));
    cluster.wait_for_stable(3, 0);
    assert_eq!(cluster.produce(second, 0), Ok(()));
    // The first coordinator comes back, and the transaction is aborted for who replaces its producer.
    cluster.nodes.start_nodes(&[gone]);
    let third = cluster.init();
    assert!(third.1 > second.1);
    cluster.wait_for_stable(5, 1);
    let fenced = cluster.end(second, true);
    assert_eq!(fenced, Err(ErrorCode::ProducerFenced));
}
