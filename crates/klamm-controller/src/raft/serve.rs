//! What this node answers the other controllers of the quorum.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use klamm_env::{Env, FileExt, OpenMode};
use openraft::raft::AppendEntriesResponse;
use tokio::sync::watch;

use super::flusher::lock;
use super::rpc::{self, Address, Call, PieceTaken, Taken, encode_answer, encode_refusal};
use super::snapshots::{INCOMING_PREFIX, SnapshotFile};
use super::{RaftNode, codec, types};
use crate::runtime::{Moment, spawn, spawn_blocking, timeout};

/// How long who sends a snapshot waits at a time for it to be taken over: other calls wait behind that.
const TAKEOVER_PATIENCE: Duration = Duration::from_millis(200);

/// What came of a snapshot, once that is known.
type Outcome = watch::Receiver<Option<Result<types::SnapshotTaken, String>>>;

/// A snapshot that another controller sends. `serial` says which sending of it.
pub(super) enum Incoming {
    /// It is here up to `end`.
    Partial { serial: u64, end: u64 },
    /// It is being taken over, or was.
    Whole { serial: u64, outcome: Outcome },
}

/// A part of a snapshot.
struct Piece {
    serial: u64,
    position: u64,
    last: bool,
    content: Vec<u8>,
}

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
            Call::Append(request) => {
                let answer = raft.append_entries(request).await;
                let answer = answer.map_err(io::Error::other)?;
                if !matches!(answer, AppendEntriesResponse::HigherVote(_)) {
                    *lock(&self.heard) = Moment::now();
                }
                encode_answer(&answer)
            }
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
                let piece = Piece {
                    serial,
                    position,
                    last,
                    content,
                };
                encode_answer(&PieceTaken(self.take_piece(vote, note, piece).await?))
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

    /// Takes a piece of a snapshot, which may be one that is here already, as its sender was not told.
    /// With the last one the whole is taken over, and what comes of that is told as soon as it is known
    /// to whoever sends the last piece again, or nothing but its number.
    async fn take_piece(
        &self,
        vote: types::Vote,
        note: codec::SnapshotNote,
        piece: Piece,
    ) -> io::Result<Option<types::SnapshotTaken>> {
        let mut incoming = self.incoming.lock().await;
        if let Some(Incoming::Whole { serial, outcome }) = &*incoming {
            let (is_the_same, outcome) = (*serial == piece.serial, outcome.clone());
            if is_the_same {
                drop(incoming);
                return outcome_of(outcome).await;
            }
            // One after the other; what became of that one is no concern of this one.
            if matches!(outcome_of(outcome).await, Ok(None)) {
                return Err(io::Error::other("another snapshot is being taken over"));
            }
        }
        let is_last = piece.last;
        let serial = piece.serial;
        let file = self.receive_piece(&mut incoming, &note, piece).await?;
        if !is_last {
            return Ok(None);
        }
        let outcome = self.install(vote, note, file);
        *incoming = Some(Incoming::Whole {
            serial,
            outcome: outcome.clone(),
        });
        drop(incoming);
        outcome_of(outcome).await
    }

    /// Puts a piece of a snapshot from another controller into a file, behind those before it.
    async fn receive_piece(
        &self,
        incoming: &mut Option<Incoming>,
        note: &codec::SnapshotNote,
        piece: Piece,
    ) -> io::Result<SnapshotFile> {
        let Piece {
            serial,
            position,
            content,
            ..
        } = piece;
        let before = match *incoming {
            Some(Incoming::Partial { serial, end }) => Some((serial, end)),
            _ => None,
        };
        let file = SnapshotFile::incoming(&self.raft_dir, note, serial);
        let end = position + content.len() as u64;
        let here = before.filter(|(known, _)| *known == serial);
        let here = here.map(|(_, here)| here);
        if here.is_some_and(|here| end <= here) {
            return Ok(file);
        }
        if position > 0 && here != Some(position) {
            return Err(codec::corrupt(
                "a piece of a snapshot without those before it",
            ));
        }
        *incoming = None;
        let (fs, path) = (Arc::clone(&self.env.fs), file.path.clone());
        let given_up = before.filter(|(known, _)| *known != serial);
        let raft_dir = self.raft_dir.clone();
        let write = move || {
            if let Some((serial, _)) = given_up {
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
        *incoming = Some(Incoming::Partial { serial, end });
        Ok(file)
    }

    /// Takes over a snapshot that is there as a whole, whoever waits for that.
    fn install(&self, vote: types::Vote, note: codec::SnapshotNote, file: SnapshotFile) -> Outcome {
        let (raft, fs) = (self.raft.clone(), Arc::clone(&self.env.fs));
        let (done, outcome) = watch::channel(None);
        spawn(async move {
            let path = file.path.clone();
            let snapshot = openraft::Snapshot {
                meta: types::SnapshotMeta {
                    last_log_id: note.last,
                    last_membership: note.membership,
                },
                snapshot: file,
            };
            let installed = raft.install_full_snapshot(vote, snapshot).await;
            let removed = spawn_blocking(move || fs.remove_file(&path)).await;
            let installed = installed.map_err(|error| error.to_string());
            let outcome = match removed {
                Ok(Ok(())) => installed,
                Ok(Err(error)) => Err(error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            done.send_replace(Some(outcome));
        });
        outcome
    }
}

/// What came of a snapshot that is being taken over, if it does not take long.
async fn outcome_of(mut outcome: Outcome) -> io::Result<Option<types::SnapshotTaken>> {
    let known = outcome.wait_for(Option::is_some);
    match timeout(TAKEOVER_PATIENCE, known).await {
        Err(_) => Ok(None),
        Ok(Err(_)) => Err(io::Error::other("the snapshot was not taken over")),
        Ok(Ok(known)) => match &*known {
            Some(Ok(taken)) => Ok(Some(taken.clone())),
            Some(Err(error)) => Err(io::Error::other(error.clone())),
            None => Ok(None),
        },
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
