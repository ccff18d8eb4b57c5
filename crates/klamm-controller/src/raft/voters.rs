//! Who votes, and changing it while the quorum runs (KIP-853).
//!
//! A controller that is to vote begins as a learner: it gets the log, and counts for nothing. Once
//! it has what the leader had when it was asked, one entry makes it a voter. Voters are changed one
//! at a time, each change in one entry, so majorities before and after have a node in common.
//!
//! A voter is an id *and* a directory: who lost the disk with the log is another one, even under
//! the same id.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use klamm_protocol::ErrorCode;
use klamm_records::Uuid;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::entry::RaftPayload;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::raft::Precondition;
use openraft::{ChangeMembers, EntryPayload};
use tokio::sync::MutexGuard;

use super::types::{Membership, NodeId, RecordGroup, StoredMembership, TypeConfig, Voter};
use super::{RaftNode, candidacy};
use crate::managers::ApiError;
use crate::runtime::{Moment, timeout};

/// A learner that was not heard of for as long is dropped, as Kafka forgets observers.
const LEARNER_SILENCE_MAX: Duration = Duration::from_secs(300);

/// How long a change waits for the one before it.
const CHANGE_PATIENCE: Duration = Duration::from_secs(3);

/// The voters of a membership; while they are changed in two steps, those before.
pub(super) fn voters_of(membership: &Membership) -> BTreeMap<NodeId, Voter> {
    let config = membership.get_joint_config().first();
    let voter = |id: &NodeId| Some((*id, membership.get_node(id)?.clone()));
    config.into_iter().flatten().filter_map(voter).collect()
}

/// Whether the log keeps these voters, which makes them changeable (`kraft.version` 1): each is
/// known by its directory. Those of `controller.quorum.voters` are not.
pub(super) fn are_kept_in_log(voters: &BTreeMap<NodeId, Voter>) -> bool {
    !voters.is_empty()
        && voters
            .values()
            .all(|voter| voter.directory_id != Uuid::ZERO)
}

/// An id and a directory, as Kafka writes them in messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct VoterKey {
    pub(crate) id: i32,
    pub(crate) directory_id: Uuid,
}

impl fmt::Display for VoterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReplicaKey(id={}, directoryId=", self.id)?;
        if self.directory_id == Uuid::ZERO {
            f.write_str("<undefined>)")
        } else {
            write!(f, "{})", self.directory_id)
        }
    }
}

struct Keys<'a>(&'a BTreeMap<NodeId, Voter>);

impl fmt::Display for Keys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys: Vec<String> = self
            .0
            .iter()
            .map(|(id, voter)| key_of(*id, voter).to_string())
            .collect();
        write!(f, "[{}]", keys.join(", "))
    }
}

fn key_of(id: NodeId, voter: &Voter) -> VoterKey {
    VoterKey {
        id: id.0,
        directory_id: voter.directory_id,
    }
}

/// Why voters are not changed. The messages are Kafka's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VoterError {
    #[error("this controller does not lead the quorum")]
    NotLeader,
    #[error(
        "Request timed out waiting for leader to handle previous {0} voter request",
        if *.adding { "add" } else { "add or remove" }
    )]
    Pending { adding: bool },
    #[error(
        "Request timed out waiting for leader to establish HWM and fence previous voter changes"
    )]
    NothingCommitted,
    #[error("Cluster doesn't support {doing} voter because the kraft.version feature is 0")]
    FixedVoters { doing: &'static str },
    #[error("The voter id for {key} is already part of the set of voters {voters}.")]
    Duplicate { key: VoterKey, voters: String },
    #[error("Cannot remove voter {key} from the set of voters {voters}")]
    NotFound { key: VoterKey, voters: String },
    #[error("Aborted add voter operation for {key} since it is lagging behind")]
    Lagging { key: VoterKey },
    #[error(
        "Invalid upgrade of kraft.version to KRAFT_VERSION_1 because not all of the voters support it"
    )]
    NotAllSupport,
    #[error("the change was not committed: {0}")]
    Refused(String),
}

impl VoterError {
    pub(super) fn not_found(id: NodeId, voter: &Voter, voters: &BTreeMap<NodeId, Voter>) -> Self {
        VoterError::NotFound {
            key: key_of(id, voter),
            voters: Keys(voters).to_string(),
        }
    }
}

impl From<&VoterError> for ApiError {
    fn from(error: &VoterError) -> Self {
        let code = match error {
            VoterError::NotLeader => return ErrorCode::NotController.into(),
            VoterError::Pending { .. }
            | VoterError::NothingCommitted
            | VoterError::Lagging { .. } => ErrorCode::RequestTimedOut,
            VoterError::FixedVoters { .. } => ErrorCode::UnsupportedVersion,
            VoterError::Duplicate { .. } => ErrorCode::DuplicateVoter,
            VoterError::NotFound { .. } => ErrorCode::VoterNotFound,
            VoterError::NotAllSupport => ErrorCode::InvalidUpdateVersion,
            VoterError::Refused(_) => ErrorCode::UnknownServerError,
        };
        ApiError::new(code, error.to_string())
    }
}

type Metrics = openraft::RaftMetrics<TypeConfig>;

/// What became of a controller that asked to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Ask who leads.
    Elsewhere(Option<(NodeId, Voter)>),
    /// It gets the log.
    Learner,
    /// It votes.
    Voter,
    /// Its id is that of a voter with this directory.
    Taken(Uuid),
}

impl RaftNode {
    /// Makes a controller a voter, once it has what there is now. It need not be known before.
    pub(crate) async fn add_voter(
        &self,
        id: i32,
        voter: Voter,
        limit: Duration,
    ) -> Result<(), VoterError> {
        let _changing = self.begin_change(true).await?;
        self.add_voter_locked(NodeId(id), voter, limit).await
    }

    /// Waits until no other change is under way, but not for long.
    pub(super) async fn begin_change(
        &self,
        adding: bool,
    ) -> Result<MutexGuard<'_, ()>, VoterError> {
        let begun = timeout(CHANGE_PATIENCE, self.changing.lock()).await;
        let changing = begun.map_err(|_| VoterError::Pending { adding })?;
        let settled =
            |metrics: &Metrics| metrics.committed_membership_config == metrics.membership_config;
        // If it does not come to that, the change itself says so.
        let wait = self.raft.wait(Some(CHANGE_PATIENCE));
        let _ = wait
            .metrics(settled, "the last change to be committed")
            .await;
        Ok(changing)
    }

    async fn add_voter_locked(
        &self,
        id: NodeId,
        voter: Voter,
        limit: Duration,
    ) -> Result<(), VoterError> {
        let members = self.changeable("adding")?;
        let voters = voters_of(members.membership());
        let key = key_of(id, &voter);
        if voters.contains_key(&id) {
            let voters = Keys(&voters).to_string();
            return Err(VoterError::Duplicate { key, voters });
        }
        if id == self.node && key.directory_id != self.directory_id {
            // There is no such disk, and what this node has is not on it.
            return Err(VoterError::Lagging { key });
        }
        let asked = Moment::now();
        let caught_up = async {
            self.let_in(&members, id, voter).await?;
            let end = self.raft.metrics().borrow_watched().last_log_index;
            // One that is not heard of may have lost what it had.
            let lives = |metrics: &Metrics| {
                let heard = metrics.heartbeat.as_ref();
                let heard = heard.and_then(|all| all.get(&id).copied().flatten());
                heard.is_some_and(|at| at.into_inner() >= asked)
            };
            let has_all = |metrics: &Metrics| {
                let replication = metrics.replication.as_ref();
                let matched = replication.and_then(|all| all.get(&id).copied().flatten());
                let has_all = matched.map(|matched| matched.index) >= end;
                replication.is_none() || (has_all && lives(metrics))
            };
            let wait = self.raft.wait(None);
            let waited = wait.metrics(has_all, "the new voter's log").await;
            waited.map_err(|_| VoterError::NotLeader)?;
            Ok(())
        };
        timeout(limit, caught_up)
            .await
            .map_err(|_| VoterError::Lagging { key })??;
        let members = self.changeable("adding")?;
        let with = voters_of(members.membership()).into_keys().chain([id]);
        self.set_voters(&members, with.collect(), None).await?;
        tracing::info!(%key, "a new voter");
        Ok(())
    }

    /// Takes the vote from a controller. It stays one that follows, unless it leads: then it goes,
    /// hands over the lead, and asks to be let in again.
    pub(crate) async fn remove_voter(&self, key: VoterKey) -> Result<(), VoterError> {
        let _changing = self.begin_change(false).await?;
        self.remove_voter_locked(key).await
    }

    async fn remove_voter_locked(&self, key: VoterKey) -> Result<(), VoterError> {
        let members = self.changeable("removing")?;
        let mut voters = voters_of(members.membership());
        let id = NodeId(key.id);
        let found = voters.get(&id).map(|voter| key_of(id, voter));
        // The last one stays.
        if found != Some(key) || voters.len() == 1 {
            let voters = Keys(&voters).to_string();
            return Err(VoterError::NotFound { key, voters });
        }
        voters.remove(&id);
        let gone = (id == self.node).then_some(id);
        self.set_voters(&members, voters.into_keys().collect(), gone)
            .await?;
        tracing::info!(%key, "no voter any more");
        Ok(())
    }

    /// Notes where a voter listens now: in the log, or as long as this node leads where the voters
    /// are not kept there.
    pub(crate) async fn update_voter(&self, id: i32, voter: Voter) -> Result<(), VoterError> {
        let _changing = self.begin_change(false).await?;
        if self.has_configured_voters() {
            return self.note_configured(NodeId(id), voter);
        }
        let members = self.changeable("updating")?;
        let voters = voters_of(members.membership());
        match voters.get(&NodeId(id)) {
            Some(known) if *known == voter => Ok(()),
            Some(known) if known.directory_id == voter.directory_id => {
                // It may be needed for the majority that commits this.
                self.addresses.note(NodeId(id), voter.clone());
                let nodes = BTreeMap::from([(NodeId(id), voter)]);
                self.change(ChangeMembers::SetNodes(nodes)).await
            }
            _ => Err(VoterError::not_found(NodeId(id), &voter, &voters)),
        }
    }

    /// Lets a controller in that asks for it: as a learner, and as a voter if it wants (KIP-1186).
    pub(super) async fn admit(&self, id: NodeId, voter: Voter, auto_join: bool) -> Admission {
        let elsewhere = || {
            let leader = self.raft.metrics().borrow_watched().current_leader;
            let leader = leader.filter(|leader| *leader != self.node);
            Admission::Elsewhere(leader.and_then(|id| Some((id, self.addresses.get(id)?))))
        };
        if !self.leads() {
            return elsewhere();
        }
        // One change at a time; who asks asks again.
        let Ok(_changing) = self.changing.try_lock() else {
            return Admission::Learner;
        };
        let members = self.members();
        let voters = voters_of(members.membership());
        let directory_id = voter.directory_id;
        if let Some(known) = voters.get(&id) {
            if known.directory_id == directory_id {
                // Where it was before, nobody reached it.
                self.addresses.note(id, voter);
                return Admission::Voter;
            }
            if auto_join && are_kept_in_log(&voters) {
                let removed = self.remove_voter_locked(key_of(id, known)).await;
                note_failure(
                    removed,
                    "the voter that this one replaces is not removed yet",
                );
            }
            return Admission::Taken(known.directory_id);
        }
        if let Err(error) = self.let_in(&members, id, voter.clone()).await {
            note_failure(Err(error), "a controller is not let in yet");
            return elsewhere();
        }
        if auto_join && are_kept_in_log(&voters) {
            let added = self
                .add_voter_locked(id, voter, self.election_timeout)
                .await;
            if added.is_ok() {
                return Admission::Voter;
            }
            note_failure(added, "a controller does not vote yet");
        }
        Admission::Learner
    }

    /// Has the log sent to a node that is no voter, if it is not yet.
    async fn let_in(
        &self,
        members: &StoredMembership,
        id: NodeId,
        voter: Voter,
    ) -> Result<(), VoterError> {
        let known = members.membership().get_node(&id);
        let nodes = BTreeMap::from([(id, voter.clone())]);
        match known {
            Some(known) if *known == voter => Ok(()),
            Some(known) if known.directory_id == voter.directory_id => {
                self.change(ChangeMembers::SetNodes(nodes)).await
            }
            Some(_) => {
                // With another directory it has another log: what is known of the one it had must
                // not be taken for what it has.
                let old = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
                self.change(old).await?;
                self.change(ChangeMembers::AddNodes(nodes)).await
            }
            None => self.change(ChangeMembers::AddNodes(nodes)).await,
        }
    }

    /// The members, if this node may change voters now.
    fn changeable(&self, doing: &'static str) -> Result<StoredMembership, VoterError> {
        if !self.leads() {
            return Err(VoterError::NotLeader);
        }
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.committed_membership_config != metrics.membership_config {
            return Err(VoterError::NothingCommitted);
        }
        let members = StoredMembership::clone(&metrics.membership_config);
        if !are_kept_in_log(&voters_of(members.membership())) {
            return Err(VoterError::FixedVoters { doing });
        }
        Ok(members)
    }

    pub(super) fn members(&self) -> StoredMembership {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        StoredMembership::clone(&metrics.membership_config)
    }

    /// Whether this node votes, as far as it knows itself.
    pub(crate) fn votes(&self) -> bool {
        candidacy::votes(self.members().membership(), self.node, self.directory_id)
    }

    /// Commits other voters, in one entry. Members stay members, but for `gone`.
    async fn set_voters(
        &self,
        members: &StoredMembership,
        voters: BTreeSet<NodeId>,
        gone: Option<NodeId>,
    ) -> Result<(), VoterError> {
        let nodes = members.membership().nodes();
        let nodes: BTreeMap<NodeId, Voter> = nodes
            .filter(|(id, _)| Some(**id) != gone)
            .map(|(id, voter)| (*id, voter.clone()))
            .collect();
        let membership = Membership::new(vec![voters], nodes)
            .map_err(|error| VoterError::Refused(error.to_string()))?;
        let unchanged = Precondition::LastMembershipLogId {
            last_membership_log_id: *members.log_id(),
        };
        let blank = EntryPayload::<RecordGroup, NodeId, Voter>::blank();
        let written = self.raft.append_membership(membership, blank, [unchanged]);
        written.await.map(drop).map_err(refusal)
    }

    pub(super) async fn change(
        &self,
        change: ChangeMembers<NodeId, Voter>,
    ) -> Result<(), VoterError> {
        let changed = self.raft.change_membership(change, true).await;
        changed.map(drop).map_err(refusal)
    }

    /// Drops learners that have not been heard of for long, if this node leads.
    pub(crate) async fn forget_silent_learners(&self) {
        if !self.leads() {
            return;
        }
        let Ok(_changing) = self.changing.try_lock() else {
            return;
        };
        let silent: BTreeSet<NodeId> = {
            let learners = self.status().learners.into_iter();
            learners
                .filter(|(_, learner)| {
                    learner
                        .silence
                        .is_some_and(|silence| silence > LEARNER_SILENCE_MAX)
                })
                .map(|(id, _)| NodeId(id))
                .collect()
        };
        if !silent.is_empty() {
            tracing::info!(?silent, "forgetting controllers that are not heard of");
            let changed = self.change(ChangeMembers::RemoveNodes(silent)).await;
            note_failure(changed, "they are not forgotten yet");
        }
    }
}

fn note_failure(result: Result<(), VoterError>, what: &str) {
    if let Err(error) = result {
        tracing::debug!(%error, "{what}");
    }
}

type WriteRefusal = RaftError<TypeConfig, ClientWriteError<TypeConfig>>;

fn refusal(error: WriteRefusal) -> VoterError {
    match error {
        RaftError::APIError(
            ClientWriteError::ForwardToLeader(_) | ClientWriteError::LogEntryDiscarded(_),
        ) => VoterError::NotLeader,
        RaftError::APIError(
            ClientWriteError::ChangeMembershipError(ChangeMembershipError::InProgress(_))
            | ClientWriteError::PreconditionFailed(_),
        ) => VoterError::Pending { adding: false },
        RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::UncommittedLeaderLog(_),
        )) => VoterError::NothingCommitted,
        // It has stopped, as its disk failed or it was told to.
        RaftError::Fatal(_) => VoterError::NotLeader,
        other => VoterError::Refused(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn membership(configs: &[&[i32]], directory: u8) -> Membership {
        let config = |ids: &&[i32]| ids.iter().map(|id| NodeId(*id)).collect();
        let voter = || Voter {
            directory_id: Uuid::from_bytes([directory; 16]),
            endpoints: Vec::new(),
        };
        let nodes = (1..=5).map(|id| (NodeId(id), voter()));
        Membership::new(
            configs.iter().map(config).collect(),
            nodes.collect::<BTreeMap<_, _>>(),
        )
        .unwrap()
    }

    #[test]
    fn learners_and_those_yet_to_vote_are_no_voters() {
        let ids = |m: &Membership| voters_of(m).into_keys().map(|id| id.0).collect::<Vec<_>>();
        assert_eq!(ids(&membership(&[&[1, 2, 3]], 1)), [1, 2, 3]);
        assert_eq!(ids(&membership(&[&[1, 2], &[2, 3]], 1)), [1, 2]);
        assert!(voters_of(&Membership::default()).is_empty());
    }

    #[test]
    fn voters_without_directories_are_not_kept_in_the_log() {
        assert!(are_kept_in_log(&voters_of(&membership(&[&[1]], 1))));
        assert!(!are_kept_in_log(&voters_of(&membership(&[&[1]], 0))));
        assert!(!are_kept_in_log(&BTreeMap::new()));
    }

    #[test]
    fn who_has_stopped_refers_to_who_leads() {
        let stopped = refusal(RaftError::Fatal(openraft::errors::Fatal::Stopped));
        assert_eq!(ApiError::from(&stopped).code, ErrorCode::NotController);
    }

    #[test]
    fn keys_read_like_kafkas() {
        let key = |directory_id| VoterKey {
            id: 4,
            directory_id,
        };
        let text = key(Uuid::ZERO).to_string();
        assert_eq!(text, "ReplicaKey(id=4, directoryId=<undefined>)");
        let text = key(Uuid::from_bytes([0; 16].map(|_: u8| 1))).to_string();
        assert_eq!(text, "ReplicaKey(id=4, directoryId=AQEBAQEBAQEBAQEBAQEBAQ)");
    }
}
