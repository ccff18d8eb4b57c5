//! What this node answers the other controllers of the quorum.

use std::io;
use std::path::Path;
use std::sync::Arc;

use klamm_env::{Env, FileExt, OpenMode};

use super::rpc::{self, Address, Call, Taken, encode_answer, encode_refusal};
use super::snapshots::{INCOMING_PREFIX, SnapshotFile};
use super::{RaftNode, codec, types};
use crate::runtime::spawn_blocking;

impl RaftNode {
    /// Answers another controller.
    pub(crate) async fn serve(&self, request: &[u8]) -> Vec<u8> {
        let me = Address {
            cluster_id: &self.cluster_id,
            node: self.node,
            directory_id: self.directory_id,
        };
        let served = match rpc::decode_call(me, request) {
            Ok(call) => self.follow_call(call).await,
            Err(error) => Err(error),
        };
        served.unwrap_or_else(|error| encode_refusal(&error))
    }

    async fn follow_call(&self, call: Call) -> io::Result<Vec<u8>> {
        let raft = &self.raft;
        Ok(match call {
            Call::Append(request) => encode_answer(
                &raft
                    .append_entries(request)
                    .await
                    .map_err(io::Error::other)?,
            ),
            Call::Vote(request) => {
                encode_answer(&raft.vote(request).await.map_err(io::Error::other)?)
            }
            Call::PreVote(request) => {
                encode_answer(&raft.pre_vote(request).await.map_err(io::Error::other)?)
            }
            Call::Snapshot {
                vote,
                note,
                content,
            } => {
                let (file, meta) = self.receive_snapshot(note, content).await?;
                let path = file.path.clone();
                let snapshot = openraft::Snapshot {
                    meta,
                    snapshot: file,
                };
                let installed = raft.install_full_snapshot(vote, snapshot).await;
                let fs = Arc::clone(&self.env.fs);
                let removed = spawn_blocking(move || fs.remove_file(&path));
                removed.await.map_err(io::Error::other)??;
                encode_answer(&installed.map_err(io::Error::other)?)
            }
            Call::Transfer(request) => {
                let taken = raft.handle_transfer_leader(request).await;
                encode_answer(&Taken(taken.map_err(io::Error::other)?.is_ok()))
            }
            Call::Join {
                id,
                voter,
                auto_join,
            } => encode_answer(&self.admit(id, voter, auto_join).await),
        })
    }

    /// Puts a snapshot from another controller into a file.
    async fn receive_snapshot(
        &self,
        note: codec::SnapshotNote,
        content: Vec<u8>,
    ) -> io::Result<(SnapshotFile, types::SnapshotMeta)> {
        let file = SnapshotFile::incoming(&self.raft_dir, &note, self.env.rng.next_u64());
        let meta = types::SnapshotMeta {
            last_log_id: note.last,
            last_membership: note.membership,
        };
        let (fs, path) = (Arc::clone(&self.env.fs), file.path.clone());
        let written = spawn_blocking(move || {
            fs.open(&path, OpenMode::Truncate)?
                .write_all_at(&content, 0)
        });
        written.await.map_err(io::Error::other)??;
        Ok((file, meta))
    }
}

/// Removes snapshots that a crash left half received.
pub(super) fn remove_incoming(env: &Env, raft_dir: &Path) -> io::Result<()> {
    for entry in env.fs.read_dir(raft_dir)? {
        if entry.name.starts_with(INCOMING_PREFIX) {
            env.fs.remove_file(&raft_dir.join(&entry.name))?;
        }
    }
    Ok(())
}
