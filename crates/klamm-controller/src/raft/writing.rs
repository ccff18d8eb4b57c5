//! Committing records, and ceasing to wait for that.
//!
//! A write ends when its entry is committed, or cut from the log of this node. A leader that has lost
//! its majority sees neither, and nor does one that is no member any more: nobody sends it the log
//! unless it asks to be let in again. One that is about to stop does not ask, so it gives up instead.

use futures_util::StreamExt;
use openraft::errors::ClientWriteError;

use super::RaftNode;
use super::types::RecordGroup;
use crate::runtime::sleep;

/// Why a group of records was not committed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// Another node leads, or none.
    #[error("this controller does not lead the quorum")]
    NotLeader,
    /// The node has stopped, as its disk failed or it was told to. What it had begun to write may be
    /// committed by others yet.
    #[error("the quorum has stopped on this node")]
    Stopped,
}

impl RaftNode {
    /// Commits groups of records in order; each result says whether its group was applied.
    pub(crate) async fn write(&self, groups: Vec<RecordGroup>) -> Vec<Result<(), WriteError>> {
        let count = groups.len();
        let mut results = Vec::with_capacity(count);
        let mut given_up = self.given_up.subscribe();
        tokio::select! {
            biased;
            () = self.write_into(&mut results, groups) => {}
            _ = given_up.wait_for(|given_up| *given_up) => {}
        }
        results.resize_with(count, || Err(WriteError::Stopped));
        results
    }

    async fn write_into(
        &self,
        results: &mut Vec<Result<(), WriteError>>,
        groups: Vec<RecordGroup>,
    ) {
        let Ok(mut written) = self.raft.client_write_many(groups).await else {
            return;
        };
        while let Some(result) = written.next().await {
            results.push(match result {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(
                    ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_),
                )) => Err(WriteError::NotLeader),
                Ok(Err(_)) | Err(_) => Err(WriteError::Stopped),
            });
        }
    }

    /// For a node that is about to stop: from when it does not lead, or not a majority, its writes
    /// end without having been committed. Never returns before that.
    pub(crate) async fn give_up_what_it_cannot_commit(&self) {
        loop {
            sleep(self.election_timeout / 4).await;
            if self.leader() != Some(self.node.0) {
                break;
            }
        }
        self.given_up.send_replace(true);
    }
}
