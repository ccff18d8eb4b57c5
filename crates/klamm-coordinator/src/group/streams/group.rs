//! The data of a streams group and what can be asked of it. It changes by records alone (`replay`),
//! but for what Kafka keeps in memory only: the configured topology, who asked for a shutdown, and
//! how often the endpoints changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_protocol::{ByteStr, ErrorCode};

use super::configured::ConfiguredTopology;
use super::member::StreamsMember;
use super::tasks::TaskSet;
use super::topology::Topology;
use crate::group::consumer::{CommitCheck, MetadataRefresh, Refusal};

/// The epoch that a group and its assignment have before the first member joins.
const INITIAL_EPOCH: i32 = 1;
/// From this version on, OffsetCommit can tell that an epoch is stale.
const COMMIT_KNOWS_EPOCHS_FROM: i16 = 9;

/// The configurations that a target assignment was made with, by name.
pub(super) type AssignmentConfigs = BTreeMap<ByteStr, ByteStr>;

/// The states of a streams group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamsGroupState {
    /// No members.
    Empty,
    /// Topics are missing or do not fit.
    NotReady,
    /// The target assignment is yet to be made.
    Assigning,
    /// Members are on their way to the target assignment.
    Reconciling,
    /// Every member has what it was given.
    Stable,
}

impl StreamsGroupState {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            StreamsGroupState::Empty => "Empty",
            StreamsGroupState::NotReady => "NotReady",
            StreamsGroupState::Assigning => "Assigning",
            StreamsGroupState::Reconciling => "Reconciling",
            StreamsGroupState::Stable => "Stable",
        }
    }
}

/// Who has a task: a process by its id, in which role, and how many of its members.
type Holders = BTreeMap<(ByteStr, i32), BTreeMap<ByteStr, usize>>;

/// A streams group.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamsGroup {
    pub(super) id: ByteStr,
    pub(super) epoch: i32,
    pub(super) metadata_hash: i64,
    pub(super) validated_topology_epoch: i32,
    pub(super) assignment_configs: AssignmentConfigs,
    pub(super) assignment_epoch: i32,
    pub(super) assignment_timestamp_ms: i64,
    pub(super) members: BTreeMap<ByteStr, Arc<StreamsMember>>,
    pub(super) targets: BTreeMap<ByteStr, Arc<TaskSet>>,
    pub(super) topology: Option<Arc<Topology>>,
    pub(super) configured: Option<Arc<ConfiguredTopology>>,
    pub(super) refresh: Option<MetadataRefresh>,
    pub(super) shutdown_requested_by: Option<ByteStr>,
    pub(super) endpoint_epoch: i32,
    /// The processes that have active tasks, to keep or to give up.
    pub(super) active_held: Holders,
    /// The same of standby tasks, and of warm-up tasks: neither may be where the other is.
    pub(super) standby_held: Holders,
    pub(super) warmup_held: Holders,
}

impl StreamsGroup {
    /// A group without members.
    pub fn new(id: ByteStr) -> Self {
        StreamsGroup {
            id,
            epoch: INITIAL_EPOCH,
            metadata_hash: 0,
            validated_topology_epoch: 0,
            assignment_configs: AssignmentConfigs::new(),
            assignment_epoch: INITIAL_EPOCH,
            assignment_timestamp_ms: 0,
            members: BTreeMap::new(),
            targets: BTreeMap::new(),
            topology: None,
            configured: None,
            refresh: None,
            shutdown_requested_by: None,
            endpoint_epoch: 0,
            active_held: Holders::new(),
            standby_held: Holders::new(),
            warmup_held: Holders::new(),
        }
    }

    /// Name of the group.
    pub fn id(&self) -> &ByteStr {
        &self.id
    }

    /// Grows with every change of members, topology or topics.
    pub fn epoch(&self) -> i32 {
        self.epoch
    }

    /// The group epoch that the target assignment was made for.
    pub fn assignment_epoch(&self) -> i32 {
        self.assignment_epoch
    }

    /// The members, in the order of their ids.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &Arc<StreamsMember>> {
        self.members.values()
    }

    /// A member by its id.
    pub fn member(&self, member_id: &str) -> Option<&Arc<StreamsMember>> {
        self.members.get(member_id)
    }

    /// What the target assignment gives a member.
    pub fn target(&self, member_id: &str) -> Option<&Arc<TaskSet>> {
        self.targets.get(member_id)
    }

    /// The topology, once a member brought it.
    pub fn topology(&self) -> Option<&Arc<Topology>> {
        self.topology.as_ref()
    }

    /// The topology over the topics that the group's records know of. One that was made over others
    /// is left from a heartbeat whose records were not written.
    pub(super) fn configured(&self) -> Option<&Arc<ConfiguredTopology>> {
        let configured = self.configured.as_ref();
        configured.filter(|configured| configured.metadata_hash == self.metadata_hash)
    }

    /// Whether there are no members.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The state.
    pub fn state(&self) -> StreamsGroupState {
        let validated = |topology: &Arc<Topology>| topology.epoch == self.validated_topology_epoch;
        let mut members = self.members();
        if self.is_empty() {
            StreamsGroupState::Empty
        } else if !self.topology.as_ref().is_some_and(validated) {
            StreamsGroupState::NotReady
        } else if self.epoch > self.assignment_epoch {
            StreamsGroupState::Assigning
        } else if members.all(|member| member.is_reconciled_to(self.assignment_epoch)) {
            StreamsGroupState::Stable
        } else {
            StreamsGroupState::Reconciling
        }
    }

    /// Whether the application reads the topic.
    pub fn is_subscribed_to(&self, topic: &str) -> bool {
        let topology = self.topology.as_ref().filter(|_| !self.is_empty());
        topology.is_some_and(|topology| topology.reader_of(topic).is_some())
    }

    /// A member by its id, or the refusal of who asks in its name.
    pub(super) fn known_member(&self, member_id: &str) -> Result<&Arc<StreamsMember>, Refusal> {
        self.member(member_id).ok_or_else(|| {
            Refusal::new(
                ErrorCode::UnknownMemberId,
                format!("Member {member_id} is not a member of group {}.", self.id),
            )
        })
    }

    /// Checks that an OffsetCommit comes from a member, or from outside while there are none.
    /// Each partition is then held against the returned check.
    ///
    /// `is_transactional` is for TxnOffsetCommit, whose producer may not tell of any member.
    pub fn validate_offset_commit(
        &self,
        member_id: &str,
        instance_id: Option<&ByteStr>,
        epoch: i32,
        is_transactional: bool,
        api_version: i16,
    ) -> Result<CommitCheck, ErrorCode> {
        let from_outside = epoch == -1 && member_id.is_empty() && instance_id.is_none();
        if (epoch < 0 && self.is_empty()) || (is_transactional && from_outside) {
            return Ok(CommitCheck::Passed);
        }
        let member = self.member(member_id).ok_or(ErrorCode::UnknownMemberId)?;
        if !is_transactional && api_version < COMMIT_KNOWS_EPOCHS_FROM {
            return Err(ErrorCode::UnsupportedVersion);
        }
        if epoch == member.epoch {
            return Ok(CommitCheck::Passed);
        }
        match &self.topology {
            Some(topology) if epoch < member.epoch => Ok(CommitCheck::OlderTasks {
                topology: topology.clone(),
                member: member.clone(),
                epoch,
            }),
            _ => Err(ErrorCode::StaleMemberEpoch),
        }
    }

    /// Checks that an OffsetFetch that names a member comes from it in its present epoch.
    pub fn validate_offset_fetch(
        &self,
        member_id: Option<&str>,
        epoch: i32,
    ) -> Result<(), ErrorCode> {
        if member_id.is_none() && epoch < 0 {
            return Ok(());
        }
        let member = member_id.and_then(|id| self.member(id));
        let member = member.ok_or(ErrorCode::UnknownMemberId)?;
        if epoch != member.epoch {
            return Err(ErrorCode::StaleMemberEpoch);
        }
        Ok(())
    }

    pub(super) fn needs_refresh(&self, now_wall_ms: i64, image_version: i64) -> bool {
        self.refresh.is_none_or(|refresh| {
            now_wall_ms >= refresh.deadline_ms
                || self.epoch < refresh.epoch
                || refresh.image_version != image_version
        })
    }

    /// Puts a member in, or takes it out, and keeps count of who has what.
    pub(super) fn set_member(
        &mut self,
        member_id: &ByteStr,
        member: Option<Arc<StreamsMember>>,
    ) -> Option<Arc<StreamsMember>> {
        if let Some(member) = &member {
            self.count(member, true);
        }
        let previous = match member {
            Some(member) => self.members.insert(member_id.clone(), member),
            None => self.members.remove(member_id),
        };
        if let Some(previous) = &previous {
            self.count(previous, false);
        }
        if self.members.is_empty() {
            self.shutdown_requested_by = None;
        }
        previous
    }

    fn count(&mut self, member: &StreamsMember, has: bool) {
        let process = &member.process_id;
        for owned in [&member.assigned, &member.pending_revocation] {
            for (subtopology, tasks) in &owned.active {
                for task in tasks.keys() {
                    count_one(&mut self.active_held, subtopology, *task, process, has);
                }
            }
            let others = [
                (&owned.standby, &mut self.standby_held),
                (&owned.warmup, &mut self.warmup_held),
            ];
            for (tasks, held) in others {
                for (subtopology, tasks) in tasks {
                    for task in tasks {
                        count_one(held, subtopology, *task, process, has);
                    }
                }
            }
        }
    }

    /// Whether any process has the active task.
    pub(super) fn is_active_held(&self, subtopology: &ByteStr, task: i32) -> bool {
        let place = (subtopology.clone(), task);
        self.active_held.contains_key(&place)
    }

    /// Whether the process has the task as an active one.
    pub(super) fn is_active_in(&self, subtopology: &ByteStr, task: i32, process: &str) -> bool {
        is_in(&self.active_held, subtopology, task, process)
    }

    /// Whether the process has the task as a standby or warm-up one.
    pub(super) fn is_copied_in(&self, subtopology: &ByteStr, task: i32, process: &str) -> bool {
        is_in(&self.standby_held, subtopology, task, process)
            || is_in(&self.warmup_held, subtopology, task, process)
    }
}

fn is_in(held: &Holders, subtopology: &ByteStr, task: i32, process: &str) -> bool {
    let processes = held.get(&(subtopology.clone(), task));
    processes.is_some_and(|processes| processes.contains_key(process))
}

fn count_one(held: &mut Holders, subtopology: &ByteStr, task: i32, process: &ByteStr, has: bool) {
    let place = (subtopology.clone(), task);
    let processes = held.entry(place.clone()).or_default();
    let count = processes.entry(process.clone()).or_default();
    if has {
        *count += 1;
    } else {
        *count = count.saturating_sub(1);
    }
    if *count == 0 {
        processes.remove(process);
        if processes.is_empty() {
            held.remove(&place);
        }
    }
}
