//! How a controller that does not vote gets into the quorum: it asks for the log until it gets it.
//!
//! A node whose directory was formatted without it among the voters, or that lost its vote while it
//! was away, has no log that names it. It asks the controllers that it knows, those of
//! `controller.quorum.bootstrap.servers` first, until the one that leads lets it in as a learner.
//! It goes on to ask in long intervals, as it may have been forgotten. So does a voter that hears of no
//! leader for long: it may have lost its vote, and the leader may look for it on another disk.

use std::io;
use std::time::Duration;

use super::RaftNode;
use super::flusher::lock;
use super::rpc::{Address, Call, decode_answer, encode_call};
use super::types::{NodeId, Voter, VoterEndpoint};
use super::voters::Admission;
use crate::runtime::{Moment, sleep};

/// While nobody has let this node in.
const PAUSE: Duration = Duration::from_millis(250);
/// While all is as it should be.
const LONG_PAUSE: Duration = Duration::from_secs(2);
/// After how many times the silence at which it stands for election a voter doubts that it is one.
const SILENCES: u32 = 3;
/// How long to wait for an answer: the leader may commit several entries before it answers.
const PATIENCE: Duration = Duration::from_secs(10);

/// How to get in.
#[derive(Clone, Debug)]
pub(crate) struct Joining {
    /// `controller.quorum.bootstrap.servers`
    pub(crate) bootstrap_servers: Vec<VoterEndpoint>,
    /// Where this node listens.
    pub(crate) endpoints: Vec<VoterEndpoint>,
    /// `controller.quorum.auto.join.enable`: whether it is to vote without being told.
    pub(crate) auto_join: bool,
}

impl RaftNode {
    /// Sees to it that this node gets the log, until the task is ended.
    pub(crate) async fn keep_joined(&self, joining: Joining) {
        let mut next = 0;
        let mut taken = None;
        loop {
            // Who votes and hears of nobody may have lost its vote while it was away.
            if self.votes() && self.hears_of_a_leader() {
                sleep(LONG_PAUSE).await;
                continue;
            }
            let mut ask = joining.bootstrap_servers.get(next).cloned();
            next = (next + 1) % joining.bootstrap_servers.len().max(1);
            let mut pause = PAUSE;
            // Whoever is asked first may know who leads, and that one should not ask further.
            for _ in 0..2 {
                let Some(endpoint) = ask.take() else { break };
                match self.ask_for_admission(&joining, &endpoint).await {
                    Ok(Admission::Elsewhere(leader)) => {
                        ask = leader.and_then(|(_, leader)| leader.endpoints.into_iter().next());
                    }
                    Ok(Admission::Learner | Admission::Voter) => pause = LONG_PAUSE,
                    Ok(Admission::Taken(directory_id)) => {
                        if taken.replace(directory_id) != Some(directory_id) {
                            tracing::warn!(
                                node_id = self.node.0, %directory_id, own = %self.directory_id,
                                "a voter with another directory has this id: it has to be removed first"
                            );
                        }
                    }
                    Err(error) => {
                        let (host, port) = (&endpoint.host, endpoint.port);
                        tracing::debug!(%error, host, port, "not let in from there");
                    }
                }
            }
            if joining.auto_join && pause == LONG_PAUSE {
                // It is a learner, and wants to be more.
                pause = PAUSE;
            }
            sleep(pause).await;
        }
    }

    /// Whether this node leads, or one that does was heard of lately. Whom it followed last it goes on
    /// to name, however long that has been silent.
    fn hears_of_a_leader(&self) -> bool {
        self.leader().is_some_and(|leader| {
            let patience = self.election_timeout * SILENCES;
            leader == self.node.0 || *lock(&self.heard) + patience > Moment::now()
        })
    }

    async fn ask_for_admission(
        &self,
        joining: &Joining,
        endpoint: &VoterEndpoint,
    ) -> io::Result<Admission> {
        let call = Call::Join {
            id: self.node,
            voter: Voter {
                directory_id: self.directory_id,
                endpoints: joining.endpoints.clone(),
            },
            auto_join: joining.auto_join,
        };
        let anybody = Address::of_anybody(&self.cluster_id);
        let request = encode_call(anybody, &call)?;
        let endpoints = std::slice::from_ref(endpoint);
        let answer = self
            .transport
            .call(NodeId::ANYBODY.0, endpoints, request.into(), PATIENCE);
        decode_answer(&answer.await?)
    }
}
