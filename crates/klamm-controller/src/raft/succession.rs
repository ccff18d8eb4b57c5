//! What follows when the process of the leader has ended.
//!
//! A leader that dies falls silent, and after a while the others elect another one. Where its process
//! died and its machine did not, there is a quicker sign: connections to it are refused
//! ([`QuorumTransport::gone`]). Who sees that
//!
//! 1. no longer feels bound to it: openraft grants no votes while a leader was heard of lately;
//! 2. asks the others whether they would elect another one, each of them in its turn, so that they do
//!    not all stand at once.
//!
//! It takes a majority that sees the same: the others are bound to the leader until they have seen it
//! themselves. So one node that is mistaken does nothing to a leader that lives, and if a majority is,
//! the quorum has another leader, which is always safe.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use klamm_records::Uuid;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::raft::TransferLeaderRequest;
use openraft::type_config::alias::WatchReceiverOf;
use openraft::{Raft, ServerState};

use super::addresses::Addresses;
use super::candidacy;
use super::network::QuorumTransport;
use super::state_machine::StateMachine;
use super::types::{NodeId, TypeConfig, Vote, VoterEndpoint};
use crate::runtime::{spawn, timeout};

/// By how much those who stand for election do so one after the other: longer than it takes to be
/// elected.
const TURN: Duration = Duration::from_millis(100);
/// How often a node stands before it leaves it to the silence of the leader.
const ATTEMPTS: u32 = 5;

type Metrics = WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>;

/// A leader, as one that follows it knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Followed {
    leader: NodeId,
    vote: Vote,
    endpoints: Vec<VoterEndpoint>,
    /// How many other voters stand before this node.
    turn: u32,
    /// How many there are to take over.
    heirs: u32,
}

/// Sees to it, until the node stops, that a leader is followed by another one when its process ends.
pub(super) fn watch_leader(
    raft: Raft<TypeConfig, StateMachine>,
    me: (NodeId, Uuid),
    transport: Arc<dyn QuorumTransport>,
    addresses: Addresses,
) {
    spawn(async move {
        let mut metrics = raft.server_metrics();
        loop {
            let followed = followed(&metrics, me, &addresses);
            let gone = async {
                match &followed {
                    Some(it) => transport.gone(it.leader.0, &it.endpoints).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = metrics.changed() => {
                    if changed.is_err() || is_over(&metrics) {
                        return;
                    }
                    continue;
                }
                () = gone => {}
            }
            if let Some(followed) = followed
                && !succeed(&raft, &mut metrics, &followed).await
            {
                return;
            }
        }
    });
}

fn is_over(metrics: &Metrics) -> bool {
    metrics.borrow_watched().state == ServerState::Shutdown
}

/// The leader that this node follows with a vote of its own, if it does.
fn followed(
    metrics: &Metrics,
    (node, directory_id): (NodeId, Uuid),
    addresses: &Addresses,
) -> Option<Followed> {
    let metrics = metrics.borrow_watched();
    let leader = metrics.current_leader.filter(|leader| *leader != node)?;
    let membership = metrics.membership_config.membership();
    let heirs: Vec<NodeId> = membership.voter_ids().filter(|id| *id != leader).collect();
    let turn = heirs.iter().filter(|id| **id < node).count();
    let moved = addresses.get(leader);
    let voter = moved.as_ref().or_else(|| membership.get_node(&leader))?;
    candidacy::votes(membership, node, directory_id).then(|| Followed {
        leader,
        vote: metrics.vote,
        endpoints: voter.endpoints.clone(),
        turn: u32::try_from(turn).unwrap_or(u32::MAX),
        heirs: u32::try_from(heirs.len()).unwrap_or(u32::MAX),
    })
}

/// Gives up a leader that is gone, and stands for election in this node's turn. Returns whether the
/// node goes on.
async fn succeed(
    raft: &Raft<TypeConfig, StateMachine>,
    metrics: &mut Metrics,
    followed: &Followed,
) -> bool {
    tracing::info!(leader = %followed.leader, "the process of the controller that leads has ended");
    // As if it had handed the lead to somebody else, which is how openraft lets go of a leader. Should
    // that one have been followed by another meanwhile, nothing comes of it.
    let release = TransferLeaderRequest::new(followed.vote, followed.leader, None);
    if raft.handle_transfer_leader(release).await.is_err() {
        return false;
    }
    let mut pause = TURN * followed.turn;
    for _ in 0..ATTEMPTS {
        if let Ok(goes_on) = timeout(pause, succeeded(metrics, followed.vote)).await {
            return goes_on;
        }
        if raft.trigger().elect(true).await.is_err() {
            return false;
        }
        pause = TURN * followed.heirs;
    }
    // There is no majority for it. Whenever there is, silence brings it about.
    succeeded(metrics, followed.vote).await
}

/// Waits until something came of it that a leader with this vote is gone; returns whether the node
/// goes on.
async fn succeeded(metrics: &mut Metrics, vote: Vote) -> bool {
    loop {
        if is_over(metrics) {
            return false;
        }
        if metrics.borrow_watched().vote != vote {
            return true;
        }
        if metrics.changed().await.is_err() {
            return false;
        }
    }
}
