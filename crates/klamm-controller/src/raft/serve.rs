//! What this node answers the other controllers of the quorum.

use std::io;
use std::path::Path;
use std::sync::Arc;

use klamm_env::{Env, FileExt, OpenMode};
use openraft::raft::SnapshotResponse;

use super::rpc::{self, Address, Call, PieceTaken, Taken, encode_answer, encode_refusal};
use super::snapshots::{INCOMING_PREFIX, SnapshotFile};
use super::{RaftNode, codec, types};
use crate::runtime::spawn_blocking;

/// A snapshot that is being received: which sending of it, and how much is there.
pub(super) type Incoming = (u64, u64);

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

    pub(super) async fn follow_call(&self, call: Call) -> io::Result<Vec<u8>> {
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
                serial,
                position,
                last,
                content,
            } => {
                // Held until it is taken over: the next one would make room for itself.
                let mut incoming = self.incoming.lock().await;
                let file = self
                    .receive_piece(&mut incoming, &note, serial, position, content)
                    .await?;
                if !last {
                    return Ok(encode_answer(&PieceTaken(None)));
                }
                *incoming = None;
                let installed = self.install(vote, note, file).await?;
                encode_answer(&PieceTaken(Some(installed)))
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

    /// Puts a piece of a snapshot from another controller into a file, behind those before it.
    async fn receive_piece(
        &self,
        incoming: &mut Option<Incoming>,
        note: &codec::SnapshotNote,
        serial: u64,
        position: u64,
        content: Vec<u8>,
    ) -> io::Result<SnapshotFile> {
        let follows = incoming
            .as_ref()
            .is_some_and(|(known, end)| *known == serial && *end == position);
        if position > 0 && !follows {
            return Err(codec::corrupt(
                "a piece of a snapshot without those before it",
            ));
        }
        let file = SnapshotFile::incoming(&self.raft_dir, note, serial);
        let (fs, path) = (Arc::clone(&self.env.fs), file.path.clone());
        let end = position + content.len() as u64;
        let before = incoming.take().filter(|(known, _)| *known != serial);
        let raft_dir = self.raft_dir.clone();
        let write = move || {
            if let Some((serial, _)) = before {
                // Given up by who sent it.
                fs.remove_file(&SnapshotFile::incoming_path(&raft_dir, serial))?;
            }
            let mode = match position {
                0 => OpenMode::Truncate,
                _ => OpenMode::Write,
            };
            fs.open(&path, mode)?.write_all_at(&content, position)
        };
        let written = spawn_blocking(write).await;
        written.map_err(io::Error::other)??;
        *incoming = Some((serial, end));
        Ok(file)
    }

    /// Takes over a snapshot that is there as a whole.
    async fn install(
        &self,
        vote: types::Vote,
        note: codec::SnapshotNote,
        file: SnapshotFile,
    ) -> io::Result<SnapshotResponse<types::TypeConfig>> {
        let path = file.path.clone();
        let snapshot = openraft::Snapshot {
            meta: types::SnapshotMeta {
                last_log_id: note.last,
                last_membership: note.membership,
            },
            snapshot: file,
        };
        let installed = self.raft.install_full_snapshot(vote, snapshot).await;
        let fs = Arc::clone(&self.env.fs);
        let removed = spawn_blocking(move || fs.remove_file(&path));
        removed.await.map_err(io::Error::other)??;
        installed.map_err(io::Error::other)
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
