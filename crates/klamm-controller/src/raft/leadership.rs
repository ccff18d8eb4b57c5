//! Knowing when this node begins and ceases to lead.

use openraft::async_runtime::watch::WatchReceiver;
use openraft::metrics::RaftServerMetrics;
use openraft::{Raft, ServerState};

use super::state_machine::StateMachine;
use super::types::TypeConfig;

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
