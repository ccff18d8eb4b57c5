//! openraft's own suite for stores, run against ours.

use klamm_env::Env;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

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
