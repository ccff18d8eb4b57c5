//! openraft's own suite for stores, run against ours; heartbeats whose answers are late.

use std::future::Future;
use std::pin::Pin;
use std::sync::Mutex as StdMutex;

use bytes::Bytes;
use klamm_env::Env;
use openraft::StorageError;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::testing::log::{StoreBuilder, Suite};

use super::rpc::encode_answer;
use super::*;

impl From<u64> for NodeId {
    fn from(id: u64) -> Self {
        NodeId(i32::try_from(id).unwrap())
    }
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, StateMachine, tempfile::TempDir> for Builder {
    async fn build(
        &self,
    ) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<TypeConfig>> {
        // Hundreds of syncs that need no disk.
        let in_memory = tempfile::tempdir_in("/dev/shm");
        let dir = in_memory.or_else(|_| tempfile::tempdir()).unwrap();
        let log_dir = dir.path().join(projection::DIR_NAME);
        let raft_dir = log_dir.join(RAFT_DIR);
        let env = Env::os();
        let projection = Projection::open(&log_dir, &env, MetadataLogOptions::default()).unwrap();
        // As one of several voters: the suite sees to what is committed itself.
        let store = LogStore::open(&raft_dir, &env, false).unwrap();
        let snapshots = SnapshotStore::open(&env, &log_dir, &raft_dir).unwrap();
        let state_machine = StateMachine::new(
            1,
            Arc::default(),
            projection,
            snapshots,
            Addresses::default(),
        );
        Ok((dir, store, state_machine))
    }
}

#[tokio::test(start_paused = true)]
async fn the_store_keeps_openrafts_contract() {
    Suite::test_all(Builder).await.unwrap();
}

/// Answers a call when it is told to.
#[derive(Debug, Default)]
struct Late(StdMutex<Vec<tokio::sync::oneshot::Sender<Bytes>>>);

impl QuorumTransport for Late {
    fn call<'a>(
        &'a self,
        _node: i32,
        _endpoints: &'a [VoterEndpoint],
        _request: Bytes,
        _limit: Duration,
    ) -> Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send + 'a>> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        self.0.lock().unwrap().push(answer);
        Box::pin(async { answered.await.map_err(io::Error::other) })
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_heartbeat_that_was_given_up_counts_for_the_next() {
    let late = Arc::new(Late::default());
    let mut network = Network {
        transport: late.clone(),
        cluster_id: "late".into(),
        env: Env::os(),
        addresses: Addresses::default(),
        snapshot_piece_bytes: 1,
        request_timeout: Duration::from_secs(2),
    };
    let mut peer = network.new_client(NodeId(2), &Voter::default()).await;
    let beat = |term| AppendEntriesRequest {
        vote: Vote {
            leader_id: LeaderId::new(term, NodeId(1)),
            committed: true,
        },
        prev_log_id: None,
        entries: Vec::new(),
        leader_commit: None,
    };
    let option = || RPCOption::new(Duration::from_millis(500));
    let patience = Duration::from_millis(500);
    let yes = encode_answer(&AppendEntriesResponse::<TypeConfig>::Success);
    let answer = |at: usize| late.0.lock().unwrap().remove(at).send(yes.clone().into());
    for _ in 0..2 {
        let given_up = tokio::time::timeout(patience, peer.append_entries(beat(3), option()));
        assert!(given_up.await.is_err());
    }
    // It was given up, and so was the next one.
    answer(0).unwrap();
    let given_up = tokio::time::timeout(patience, peer.append_entries(beat(3), option()));
    assert!(given_up.await.is_err());
    answer(1).unwrap();
    let counted = tokio::time::timeout(patience, peer.append_entries(beat(3), option()));
    let counted = counted.await.unwrap().unwrap();
    assert!(matches!(counted, AppendEntriesResponse::Success));
    // What was said in another term says nothing of this one.
    answer(1).unwrap();
    let given_up = tokio::time::timeout(patience, peer.append_entries(beat(4), option()));
    assert!(given_up.await.is_err());
}
