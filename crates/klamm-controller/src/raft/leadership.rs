//! Knowing when this node begins and ceases to lead.

use std::time::Duration;

use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::{Raft, ServerState};

use super::state_machine::StateMachine;
use super::types::{NodeId, TypeConfig};
use crate::runtime::{sleep, spawn};

/// Follows who leads, as one node sees it.
pub(crate) struct Leadership {
    metrics:
        openraft::type_config::alias::WatchReceiverOf<TypeConfig, RaftServerMetrics<TypeConfig>>,
}

impl Leadership {
    pub(super) fn new(raft: &Raft<TypeConfig, StateMachine>) -> Self {
        Leadership {
            metrics: raft.server_metrics(),
        }
    }

    /// The term in which this node leads now, if it does.
    pub(crate) fn term(&self) -> Option<u64> {
        let metrics = self.metrics.borrow_watched();
        (metrics.state == ServerState::Leader).then_some(metrics.vote.leader_id.term)
    }

    /// Returns when something about it may have changed; `false` once the node has stopped.
    pub(crate) async fn changed(&mut self) -> bool {
        self.metrics.changed().await.is_ok()
            && self.metrics.borrow_watched().state != ServerState::Shutdown
    }
}

/// Sees to it that a leader that has lost its vote does not lead for much longer. openraft hands the
/// lead over, by a watch that now and then does not see that the change is committed: the other voters
/// would go on hearing from this one, and nobody would decide.
pub(super) fn hand_over(
    raft: Raft<TypeConfig, StateMachine>,
    node: NodeId,
    election_timeout: Duration,
) {
    spawn(async move {
        loop {
            sleep(election_timeout).await;
            let next = {
                let metrics = raft.metrics();
                let metrics = metrics.borrow_watched();
                let members = metrics.membership_config.membership();
                let votes = |node: NodeId| members.voter_ids().any(|id| id == node);
                if metrics.state != ServerState::Leader || votes(node) {
                    return;
                }
                let followers = metrics.replication.iter().flatten();
                let followers = followers.filter(|(id, _)| votes(**id));
                let furthest = followers.max_by_key(|(_, matched)| **matched);
                furthest.map(|(id, _)| *id)
            };
            tracing::warn!("leading without a vote: handing the lead over");
            let trigger = raft.trigger();
            if let Some(next) = next
                && trigger.transfer_leader(next).await.is_err()
            {
                return;
            }
            sleep(election_timeout / 4).await;
            if trigger.refresh_server_state(None, None).await.is_err() {
                return;
            }
        }
    });
}
