//! The way to other controllers: openraft's calls, put into bytes and handed to a transport.

use std::fmt::Debug;
use std::future::{Future, pending};
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_env::{Env, FileExt, Fs, OpenMode};
use klamm_records::Uuid;
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};
use tokio::sync::oneshot;

use super::addresses::Addresses;
use super::codec::SnapshotNote;
use super::rpc::{Address, Answer, Call, PieceTaken, Taken, decode_answer, encode_call};
use super::snapshots::{RaftSnapshot, SnapshotFile};
use super::types::{NodeId, TypeConfig, Vote, Voter, VoterEndpoint};
use crate::runtime::{Moment, spawn, spawn_blocking};

/// Carries calls to other controllers. What it carries is opaque to it; the other side hands it to
/// [`Controller::serve_quorum`](crate::Controller::serve_quorum).
///
/// Calls may be lost, late or repeated; they must not be changed.
pub trait QuorumTransport: Debug + Send + Sync + 'static {
    /// Calls the controller `node`, which listens at `endpoints`, and waits for its answer, for at
    /// most `limit`. A negative `node` stands for whoever listens there.
    fn call<'a>(
        &'a self,
        node: i32,
        endpoints: &'a [VoterEndpoint],
        request: Bytes,
        limit: Duration,
    ) -> Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send + 'a>>;

    /// Returns once the process of the controller `node` has certainly ended: its machine answers,
    /// and says that nobody listens at `endpoints`. Silence proves nothing. A transport that cannot
    /// tell never returns.
    fn gone<'a>(
        &'a self,
        _node: i32,
        _endpoints: &'a [VoterEndpoint],
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(pending())
    }
}

/// Reaches nobody: all that a quorum of one needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoTransport;

impl QuorumTransport for NoTransport {
    fn call<'a>(
        &'a self,
        _node: i32,
        _endpoints: &'a [VoterEndpoint],
        _request: Bytes,
        _limit: Duration,
    ) -> Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send + 'a>> {
        Box::pin(std::future::ready(Err(io::ErrorKind::NotConnected.into())))
    }
}

/// Makes the ways to other controllers.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) transport: Arc<dyn QuorumTransport>,
    pub(super) cluster_id: Arc<str>,
    pub(super) env: Env,
    pub(super) addresses: Addresses,
    /// How much of a snapshot goes in one call.
    pub(super) snapshot_piece_bytes: usize,
    /// How long the answer to an append is waited for.
    pub(super) request_timeout: Duration,
}

/// The way to one.
pub(super) struct Peer {
    way: Way,
    heartbeat: Option<Heartbeat>,
}

#[derive(Clone)]
struct Way {
    network: Network,
    node: NodeId,
    voter: Voter,
}

/// The last heartbeat, if it was given up before it was answered. openraft waits for one no longer
/// than until the next one is due; but an answer that comes later still says that this leader is
/// followed, and on a machine that is overloaded all come late. So it counts for the next one.
struct Heartbeat {
    vote: Vote,
    answer: oneshot::Receiver<io::Result<AppendEntriesResponse<TypeConfig>>>,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &Voter) -> Peer {
        Peer {
            way: Way {
                network: self.clone(),
                node: target,
                voter: node.clone(),
            },
            heartbeat: None,
        }
    }
}

fn unreachable(error: &io::Error) -> Unreachable<TypeConfig> {
    Unreachable::new(&AnyError::new(error))
}

impl Way {
    /// Whom it leads to. That one may have moved since the way was made. But it stays the same: what is
    /// committed may know of another directory yet than the change that made this way.
    fn target(&self) -> Voter {
        let known = self.network.addresses.get(self.node);
        let of_the_same =
            |moved: &Voter| [Uuid::ZERO, moved.directory_id].contains(&self.voter.directory_id);
        known
            .filter(of_the_same)
            .unwrap_or_else(|| self.voter.clone())
    }

    async fn call<A: Answer>(&self, call: &Call, limit: Duration) -> io::Result<A> {
        let voter = self.target();
        let to = Address {
            cluster_id: &self.network.cluster_id,
            node: self.node,
            directory_id: voter.directory_id,
        };
        let request = encode_call(to, call)?;
        let transport = &self.network.transport;
        let answer = transport
            .call(self.node.0, &voter.endpoints, request.into(), limit)
            .await?;
        decode_answer(&answer)
    }

    /// Sends a snapshot piece by piece, each once the one before is answered, and asks until the whole
    /// has been taken over. A piece is waited for, and so is the end of it all, for `limit` at most.
    async fn send_snapshot(
        &self,
        vote: Vote,
        note: SnapshotNote,
        path: PathBuf,
        limit: Duration,
    ) -> io::Result<SnapshotResponse<TypeConfig>> {
        let env = &self.network.env;
        let (serial, piece_bytes) = (env.rng.next_u64(), self.network.snapshot_piece_bytes);
        let mut position = 0;
        loop {
            let (fs, path) = (Arc::clone(&env.fs), path.clone());
            let read = move || read_piece(&*fs, &path, position, piece_bytes);
            let read = spawn_blocking(read).await;
            let (content, last) = read.map_err(io::Error::other)??;
            let next = position + content.len() as u64;
            let call = Call::Snapshot {
                vote,
                note: note.clone(),
                serial,
                position,
                last,
                content,
            };
            if let PieceTaken(Some(taken)) = self.send_piece(&call, limit).await? {
                return Ok(taken);
            }
            position = next;
            if last {
                break;
            }
        }
        let end = Moment::now() + limit;
        let ask = Call::Snapshot {
            vote,
            note,
            serial,
            position,
            last: true,
            content: Vec::new(),
        };
        while Moment::now() < end {
            if let PieceTaken(Some(taken)) = self.send_piece(&ask, limit).await? {
                return Ok(taken);
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Sends a piece until it is answered: one that is lost on the way must not be waited for as long
    /// as the whole may take.
    async fn send_piece(&self, piece: &Call, limit: Duration) -> io::Result<PieceTaken> {
        let end = Moment::now() + limit;
        loop {
            let answered = self.call(piece, self.network.request_timeout).await;
            match answered {
                Err(error) if error.kind() == io::ErrorKind::TimedOut && Moment::now() < end => {}
                answered => return answered,
            }
        }
    }

    async fn call_unary<A: Answer>(
        &self,
        call: Call,
        option: &RPCOption,
    ) -> Result<A, RPCError<TypeConfig>> {
        let answer = self.call(&call, option.hard_ttl()).await;
        answer.map_err(|error| unreachable(&error).into())
    }
}

impl Peer {
    /// Sends a heartbeat, and takes the answer to it or the late one to that before it.
    async fn beat(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        limit: Duration,
    ) -> io::Result<AppendEntriesResponse<TypeConfig>> {
        let (way, vote) = (self.way.clone(), rpc.vote);
        let (done, answer) = oneshot::channel();
        spawn(async move {
            // Nobody may care.
            let _ = done.send(way.call(&Call::Append(rpc), limit).await);
        });
        let before = self.heartbeat.replace(Heartbeat { vote, answer });
        let Some(Heartbeat { answer, .. }) = &mut self.heartbeat else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let late = async {
            let followed = match before {
                Some(before) if before.vote == vote => before.answer.await,
                _ => return pending().await,
            };
            match followed {
                Ok(Ok(AppendEntriesResponse::Success)) => AppendEntriesResponse::Success,
                _ => pending().await,
            }
        };
        tokio::select! {
            biased;
            answered = answer => {
                self.heartbeat = None;
                answered.map_err(io::Error::other)?
            }
            followed = late => Ok(followed),
        }
    }
}

/// A piece of a file, and whether it is the last one.
fn read_piece(
    fs: &dyn Fs,
    path: &Path,
    position: u64,
    bytes_max: usize,
) -> io::Result<(Vec<u8>, bool)> {
    let file = fs.open(path, OpenMode::Read)?;
    let left = file.len()?.saturating_sub(position);
    let mut piece = vec![0; bytes_max.min(usize::try_from(left).unwrap_or(bytes_max))];
    file.read_exact_at(&mut piece, position)?;
    let last = left == piece.len() as u64;
    Ok((piece, last))
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        // What openraft allows is how often heartbeats are sent.
        let limit = option.hard_ttl().max(self.way.network.request_timeout);
        let answered = if rpc.entries.is_empty() {
            self.beat(rpc, limit).await
        } else {
            self.way.call(&Call::Append(rpc), limit).await
        };
        answered.map_err(|error| unreachable(&error).into())
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.way.call_unary(Call::Vote(rpc), &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.way.call_unary(Call::PreVote(rpc), &option).await
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let Taken(_) = self.way.call_unary(Call::Transfer(req), &option).await?;
        // A node that does not take over is one more candidate once the leader has gone.
        Ok(Ok(()))
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: RaftSnapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let note = SnapshotNote {
            last: snapshot.meta.last_log_id,
            membership: snapshot.meta.last_membership,
            end_offset: snapshot.snapshot.id.end_offset,
            epoch: snapshot.snapshot.id.epoch,
        };
        let sent = self
            .way
            .send_snapshot(vote, note, snapshot.snapshot.path, option.hard_ttl());
        tokio::select! {
            biased;
            answer = sent => {
                answer.map_err(|error| StreamingError::Unreachable(unreachable(&error)))
            }
            closed = cancel => Err(closed.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voter(directory: u8, port: u16) -> Voter {
        let endpoint = VoterEndpoint {
            port,
            ..VoterEndpoint::default()
        };
        Voter {
            directory_id: Uuid::from_bytes([directory; 16]),
            endpoints: vec![endpoint],
        }
    }

    fn way(voter: Voter) -> Way {
        let network = Network {
            transport: Arc::new(NoTransport),
            cluster_id: "cluster".into(),
            env: Env::os(),
            addresses: Addresses::default(),
            snapshot_piece_bytes: 1,
            request_timeout: Duration::from_secs(2),
        };
        Way {
            network,
            node: NodeId(1),
            voter,
        }
    }

    #[test]
    fn a_way_leads_to_where_its_target_is_by_now() {
        let way = way(voter(1, 9090));
        assert_eq!(way.target(), voter(1, 9090));
        way.network.addresses.note(NodeId(1), voter(1, 9091));
        assert_eq!(way.target(), voter(1, 9091));
    }

    #[test]
    fn a_way_does_not_lead_to_another_directory() {
        // The change that made it is not committed yet; what is tells of a disk that was lost.
        let made = way(voter(2, 9090));
        made.network.addresses.note(NodeId(1), voter(1, 9091));
        assert_eq!(made.target(), voter(2, 9090));
        // A voter that was configured had none.
        let configured = way(voter(0, 9090));
        configured.network.addresses.note(NodeId(1), voter(1, 9091));
        assert_eq!(configured.target(), voter(1, 9091));
    }
}
