//! The way to other controllers: openraft's calls, put into bytes and handed to a transport.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use klamm_env::{Env, FsExt};
use openraft::errors::{RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};

use super::addresses::Addresses;
use super::codec::SnapshotNote;
use super::rpc::{Address, Answer, Call, Taken, decode_answer, encode_call};
use super::snapshots::{RaftSnapshot, SnapshotFile};
use super::types::{NodeId, TypeConfig, Vote, Voter, VoterEndpoint};
use crate::runtime::spawn_blocking;

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
}

/// The way to one.
pub(super) struct Peer {
    network: Network,
    node: NodeId,
    voter: Voter,
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &Voter) -> Peer {
        Peer {
            network: self.clone(),
            node: target,
            voter: node.clone(),
        }
    }
}

fn unreachable(error: &io::Error) -> Unreachable<TypeConfig> {
    Unreachable::new(&AnyError::new(error))
}

impl Peer {
    async fn call<A: Answer>(&self, call: &Call, limit: Duration) -> io::Result<A> {
        // It may have moved since this way to it was made.
        let moved = self.network.addresses.get(self.node);
        let voter = moved.as_ref().unwrap_or(&self.voter);
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

    async fn call_unary<A: Answer>(
        &self,
        call: Call,
        option: &RPCOption,
    ) -> Result<A, RPCError<TypeConfig>> {
        let answer = self.call(&call, option.hard_ttl()).await;
        answer.map_err(|error| unreachable(&error).into())
    }
}

impl RaftNetworkV2<TypeConfig> for Peer {
    type SnapshotData = SnapshotFile;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call_unary(Call::Append(rpc), &option).await
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call_unary(Call::Vote(rpc), &option).await
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        self.call_unary(Call::PreVote(rpc), &option).await
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let Taken(_) = self.call_unary(Call::Transfer(req), &option).await?;
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
        let id = snapshot.snapshot.id;
        let failed = |error: io::Error| StreamingError::Unreachable(unreachable(&error));
        let (fs, path) = (Arc::clone(&self.network.env.fs), snapshot.snapshot.path);
        let read = spawn_blocking(move || fs.read(&path)).await;
        let content = read.map_err(io::Error::other).flatten().map_err(failed)?;
        let note = SnapshotNote {
            last: snapshot.meta.last_log_id,
            membership: snapshot.meta.last_membership,
            end_offset: id.end_offset,
            epoch: id.epoch,
        };
        let call = Call::Snapshot {
            vote,
            note,
            content,
        };
        tokio::select! {
            biased;
            answer = self.call(&call, option.hard_ttl()) => answer.map_err(failed),
            closed = cancel => Err(closed.into()),
        }
    }
}
