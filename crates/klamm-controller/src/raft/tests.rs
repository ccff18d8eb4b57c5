//! openraft's own suite for stores, run against ours; heartbeats whose answers are late; snapshots that
//! come at once, or with losses on the way.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex as StdMutex, Weak};

use bytes::Bytes;
use klamm_env::{Env, FsExt};
use openraft::StorageError;
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse};
use openraft::testing::log::{StoreBuilder, Suite};

use super::rpc::{Call, encode_answer};
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

/// A snapshot of nothing up to `end_offset`, in one piece, from the leader of term 5.
fn snapshot_of(dir: &Path, end_offset: i64, membership: &Membership) -> Call {
    let id = checkpoint::CheckpointId {
        end_offset,
        epoch: 5,
    };
    let path = dir.join(id.file_name());
    let env = Env::os();
    checkpoint::write(&*env.fs, dir, id, &MetadataImage::default(), membership).unwrap();
    let last = log_id(5, end_offset.unsigned_abs());
    Call::Snapshot {
        vote: Vote {
            leader_id: LeaderId::new(5, NodeId(2)),
            committed: true,
        },
        note: codec::SnapshotNote {
            last: Some(last),
            membership: StoredMembership::new(Some(last), membership.clone()),
            end_offset,
            epoch: 5,
        },
        serial: end_offset.unsigned_abs(),
        position: 0,
        last: true,
        content: env.fs.read(&path).unwrap(),
    }
}

/// A controller that hears of nobody, and the voters of its quorum.
async fn lonely(dir: &Path) -> (RaftNode, Membership) {
    let patience = Duration::from_secs(600);
    let voters = [1, 2].map(|id| (id, (Uuid::ZERO, Vec::new())));
    let options = RaftOptions {
        node_id: 1,
        metadata_dir: dir.join("metadata"),
        cluster_id: "cluster".to_owned(),
        directory_id: Uuid::ONE,
        voters: Voters::Given(voters.clone().into()),
        transport: Arc::new(Late::default()),
        election_timeout: patience,
        election_backoff_max: patience,
        request_timeout: patience,
        entries_kept: 100,
        snapshot_piece_bytes: 1 << 20,
        log: MetadataLogOptions::default(),
    };
    let node = RaftNode::open(options, &Env::os()).await.unwrap();
    let nodes = members_of(&voters.into());
    let ids = nodes.keys().copied().collect();
    (node, Membership::new(vec![ids], nodes).unwrap())
}

#[tokio::test]
async fn snapshots_that_come_at_once_do_not_remove_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (node, membership) = lonely(dir.path()).await;
    let [one, other] = [40, 50].map(|end| snapshot_of(dir.path(), end, &membership));
    let (one, other) = tokio::join!(node.follow_call(one), node.follow_call(other));
    one.unwrap();
    other.unwrap();
    assert_eq!(node.why_stopped(), "");
    assert_eq!(node.image().offset(), 49);
    node.shutdown().await.unwrap();
}

/// Loses every other request or answer.
#[derive(Debug)]
struct Lossy {
    node: Weak<RaftNode>,
    calls: AtomicUsize,
}

impl QuorumTransport for Lossy {
    fn call<'a>(
        &'a self,
        _node: i32,
        _endpoints: &'a [VoterEndpoint],
        request: Bytes,
        limit: Duration,
    ) -> Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send + 'a>> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        Box::pin(async move {
            let arrives = !number.is_multiple_of(4);
            let node = self.node.upgrade().filter(|_| arrives);
            let answer = match &node {
                Some(node) => Some(node.serve(&request).await),
                None => None,
            };
            match answer {
                Some(answer) if !number.is_multiple_of(2) => Ok(answer.into()),
                _ => {
                    tokio::time::sleep(limit).await;
                    Err(io::ErrorKind::TimedOut.into())
                }
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_arrives_though_pieces_and_answers_are_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (node, membership) = lonely(dir.path()).await;
    let node = Arc::new(node);
    let Call::Snapshot { vote, note, .. } = snapshot_of(dir.path(), 50, &membership) else {
        unreachable!("that is what it is");
    };
    let id = checkpoint::CheckpointId {
        end_offset: note.end_offset,
        epoch: note.epoch,
    };
    let path = dir.path().join(id.file_name());
    let bytes = usize::try_from(std::fs::metadata(&path).unwrap().len()).unwrap();
    let lossy = Arc::new(Lossy {
        node: Arc::downgrade(&node),
        calls: AtomicUsize::new(0),
    });
    let mut network = Network {
        transport: lossy.clone(),
        cluster_id: "cluster".into(),
        env: Env::os(),
        addresses: Addresses::default(),
        snapshot_piece_bytes: bytes.div_ceil(5),
        request_timeout: Duration::from_secs(2),
    };
    let mut peer = network.new_client(NodeId(1), &Voter::default()).await;
    let snapshot = openraft::Snapshot {
        meta: types::SnapshotMeta {
            last_log_id: note.last,
            last_membership: note.membership,
        },
        snapshot: snapshots::SnapshotFile { path, id },
    };
    let limit = Duration::from_secs(60);
    let sent = peer.full_snapshot(
        vote,
        snapshot,
        std::future::pending(),
        RPCOption::new(limit),
    );
    let begun = tokio::time::Instant::now();
    sent.await.unwrap();
    assert!(begun.elapsed() < limit / 2, "{:?}", begun.elapsed());
    assert!(lossy.calls.load(Ordering::Relaxed) >= 10);
    assert_eq!(node.image().offset(), 49);
    node.shutdown().await.unwrap();
}
