//! Who leads the quorum and how far its members are, as this node knows it; and giving up the lead.

use std::collections::BTreeMap;
use std::time::Duration;

use klamm_records::Uuid;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::{Instant, ServerState};

use super::flusher::lock;
use super::types::{TypeConfig, VoterEndpoint, epoch_of};
use super::voters::voters_of;
use super::{NodeId, RaftNode};

type Metrics = openraft::RaftMetrics<TypeConfig>;

/// What a node knows of the quorum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QuorumStatus {
    pub(crate) leader: Option<i32>,
    pub(crate) epoch: i32,
    pub(crate) voters: BTreeMap<i32, QuorumMember>,
    /// Controllers that get the log and do not vote.
    pub(crate) learners: BTreeMap<i32, QuorumMember>,
}

/// A member, and what the leader knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QuorumMember {
    pub(crate) directory_id: Uuid,
    pub(crate) endpoints: Vec<VoterEndpoint>,
    /// Index of the last entry that it has; only the leader knows.
    matched: Option<u64>,
    /// The offset behind what it has of the metadata log; -1 if that is not known.
    pub(crate) end_offset: i64,
    /// When it was last seen to have all there is, in milliseconds of the epoch; -1 for never.
    pub(crate) caught_up_ms: i64,
    /// How long ago it was last heard of; only the leader knows.
    pub(crate) silence: Option<Duration>,
}

impl RaftNode {
    pub(crate) fn status(&self) -> QuorumStatus {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.membership();
        let heard = |id: &NodeId| {
            let heartbeats = metrics.heartbeat.as_ref()?;
            heartbeats.get(id).copied().flatten()
        };
        let matched = |id: &NodeId| {
            let matched = metrics.replication.as_ref()?.get(id).copied().flatten()?;
            Some(matched.index)
        };
        let mut caught_up = lock(&self.caught_up);
        let now_ms = self.env.clock.wall_ms();
        let end = metrics.last_log_index;
        let voters = voters_of(members);
        let all = members.nodes().map(|(id, voter)| {
            let matched = if *id == self.node { end } else { matched(id) };
            if matched.is_some() && matched == end {
                caught_up.insert(id.0, now_ms);
            }
            let member = QuorumMember {
                directory_id: voter.directory_id,
                endpoints: voter.endpoints.clone(),
                matched,
                end_offset: matched.map_or(-1, |index| self.published.end_offset_at(index)),
                caught_up_ms: caught_up.get(&id.0).copied().unwrap_or(-1),
                silence: heard(id).map(|at| at.elapsed()),
            };
            (id.0, member)
        });
        let (voters, learners) = all.partition(|(id, _)| voters.contains_key(&NodeId(*id)));
        QuorumStatus {
            leader: self.leader_of(&metrics),
            epoch: epoch_of(metrics.current_term),
            voters,
            learners,
        }
    }

    /// Who leads. A leader that has not heard of a majority for too long may have been replaced, and
    /// does not take itself for one; once it hears again it either leads on or learns who does.
    pub(crate) fn leader(&self) -> Option<i32> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        self.leader_of(&metrics)
    }

    /// Whether this node leads and may change who votes. One that is no member any more leads until
    /// another one is elected, but openraft forbids it to change members.
    pub(super) fn leads(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.membership();
        members.get_node(&self.node).is_some() && self.leader_of(&metrics) == Some(self.node.0)
    }

    fn leader_of(&self, metrics: &Metrics) -> Option<i32> {
        if metrics.state == ServerState::Shutdown {
            // What it knew last is of no use to anybody.
            return None;
        }
        let leader = metrics.current_leader?;
        let isolated = leader == self.node && self.is_isolated(metrics);
        (!isolated).then_some(leader.0)
    }

    /// Whether this node, which leads, has not heard of a majority for too long.
    fn is_isolated(&self, metrics: &Metrics) -> bool {
        let members = metrics.membership_config.membership();
        // Who is a majority by itself need not hear of anybody.
        if members.voter_ids().eq([self.node]) {
            return false;
        }
        match metrics.last_quorum_acked {
            Some(at) => at.elapsed() > self.election_timeout * 3 / 2,
            // It was elected just now, or it has lost its vote and nobody tells it who took over.
            None => !members.voter_ids().any(|id| id == self.node),
        }
    }

    /// Why the node has stopped, if it has.
    pub(crate) fn why_stopped(&self) -> String {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        match &metrics.running_state {
            Ok(()) => String::new(),
            Err(fatal) => fatal.to_string(),
        }
    }

    /// Returns when this node no longer leads.
    pub(crate) async fn until_led_by_another(&self) {
        let mut metrics = self.raft.server_metrics();
        while metrics.borrow_watched().state == ServerState::Leader {
            if metrics.changed().await.is_err() {
                return;
            }
        }
    }

    /// Hands the lead, if this node has it, to the one that is furthest of those heard of lately,
    /// and waits until another leads, for at most `limit`.
    pub(crate) async fn resign(&self, limit: Duration) {
        let status = self.status();
        if self.alone || status.leader != Some(self.node.0) {
            return;
        }
        let others = status.voters.iter().filter(|(id, _)| **id != self.node.0);
        let lately = others.filter(|(_, voter)| {
            voter
                .silence
                .is_some_and(|silence| silence <= self.election_timeout)
        });
        let Some((next, _)) = lately.max_by_key(|(_, voter)| voter.matched) else {
            return;
        };
        let next = NodeId(*next);
        if self.raft.trigger().transfer_leader(next).await.is_ok() {
            let led_by_another = |metrics: &Metrics| {
                metrics.state != ServerState::Leader
                    && metrics
                        .current_leader
                        .is_some_and(|leader| leader != self.node)
            };
            // If it does not come to that, the others elect one of them once this node has gone.
            let wait = self.raft.wait(Some(limit));
            let _ = wait.metrics(led_by_another, "another leads").await;
        }
    }
}
