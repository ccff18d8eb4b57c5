//! Whether this node may stand for election.
//!
//! openraft knows voters by their ids. Here a voter is an id *and* a directory: a node that lost its
//! disk is told of itself as a voter while it gets the log from its beginning, and is not meant. If
//! that was a quorum of one, it would elect itself at once, with next to nothing of the log. So openraft
//! starts no election unless this very directory votes.
//!
//! Once it does, it does in all that this node can come to know later: the log tells of a directory
//! that was lost before it tells of the one that takes its place, and what is committed stays.

use std::time::Duration;

use klamm_records::Uuid;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::{Raft, ServerState};

use super::leadership;
use super::state_machine::StateMachine;
use super::types::{Membership, NodeId, TypeConfig};
use crate::runtime::spawn;

/// Whether these members have the node with that directory as a voter. One that is only configured is
/// known by its id.
pub(super) fn votes(members: &Membership, node: NodeId, directory_id: Uuid) -> bool {
    let own = members.get_node(&node);
    members.voter_ids().any(|id| id == node)
        && own.is_some_and(|own| [Uuid::ZERO, directory_id].contains(&own.directory_id))
}

/// Whether this node votes, as far as it knows by now.
pub(super) fn stands(
    raft: &Raft<TypeConfig, StateMachine>,
    node: NodeId,
    directory_id: Uuid,
) -> bool {
    may_stand(&raft.server_metrics().borrow_watched(), node, directory_id)
}

/// Lets openraft stand for election where this node votes, until it stops. Where it leads without a
/// vote, which it has lost as it led or just before, the lead is handed over.
pub(super) fn watch(
    raft: Raft<TypeConfig, StateMachine>,
    (node, directory_id): (NodeId, Uuid),
    election_timeout: Duration,
) {
    spawn(async move {
        let mut metrics = raft.server_metrics();
        let mut was_deposed = false;
        loop {
            let is_deposed = {
                let metrics = metrics.borrow_watched();
                raft.runtime_config()
                    .elect(may_stand(&metrics, node, directory_id));
                metrics.state == ServerState::Leader && !is_voter(&metrics, node)
            };
            if is_deposed && !was_deposed {
                leadership::hand_over(raft.clone(), node, election_timeout);
            }
            was_deposed = is_deposed;
            if metrics.changed().await.is_err() {
                return;
            }
        }
    });
}

type Metrics = RaftServerMetrics<TypeConfig>;

/// Who votes by the log and, who has just lost its vote may be needed until then, by what is committed.
fn known(metrics: &Metrics) -> impl Iterator<Item = &Membership> {
    let log = &metrics.membership_config;
    let committed = &metrics.committed_membership_config;
    [log, committed].into_iter().map(|it| it.membership())
}

fn may_stand(metrics: &Metrics, node: NodeId, directory_id: Uuid) -> bool {
    known(metrics).any(|members| votes(members, node, directory_id))
}

fn is_voter(metrics: &Metrics, node: NodeId) -> bool {
    known(metrics).any(|members| members.voter_ids().any(|id| id == node))
}
