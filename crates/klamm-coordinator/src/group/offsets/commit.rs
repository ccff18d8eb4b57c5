//! OffsetCommit (key 8), versions 2-10.

use klamm_protocol::ErrorCode;
use klamm_protocol::group_records::{OffsetCommitKey, OffsetCommitValue};
use klamm_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use klamm_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use klamm_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use crate::group::classic::{ClassicGroup, ClassicState};
use crate::group::consumer::CommitCheck;
use crate::group::record::GroupRecord;
use crate::group::shard::{Group, GroupEffects, GroupResponse, GroupShard};
use crate::group::{RequestContext, java};
use crate::runtime::{Now, ReplyToken};

/// From this version on, a group that does not exist is called so.
const GROUP_NOT_FOUND_FROM: i16 = 9;

impl GroupShard {
    /// Writes offsets. Topics carry their names and, where known, ids.
    pub(in crate::group) fn offset_commit(
        &mut self,
        context: &RequestContext,
        request: &OffsetCommitRequest,
        token: ReplyToken,
        now: Now,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        let allowed = self
            .validate_offset_commit(context, request)
            .and_then(|check| self.check_partitions(request, &check));
        if let Err(error) = allowed {
            out.reply(token, GroupResponse::Refused(error));
            return out;
        }
        self.keep_session(request, now, &mut out);
        let expire_timestamp_ms = match request.retention_time_ms {
            -1 => -1,
            retention_ms => now.wall_ms.saturating_add(retention_ms),
        };
        let topics = request
            .topics
            .iter()
            .map(|topic| self.commit_topic(request, topic, expire_timestamp_ms, now, &mut out))
            .collect();
        self.metrics.offset_commits.add(out.records.len() as u64);
        let response = OffsetCommitResponse {
            topics,
            ..OffsetCommitResponse::default()
        };
        out.deferred = Some((token, GroupResponse::OffsetCommit(Box::new(response))));
        out
    }

    fn validate_offset_commit(
        &self,
        context: &RequestContext,
        request: &OffsetCommitRequest,
    ) -> Result<CommitCheck, ErrorCode> {
        let generation = request.generation_id_or_member_epoch;
        let checked = match self.groups.get(&request.group_id) {
            Some(Group::Classic(group)) => group.validate_offset_commit(
                &request.member_id,
                request.group_instance_id.as_ref(),
                generation,
            ),
            Some(Group::Consumer(group)) => {
                return group.validate_offset_commit(
                    &request.member_id,
                    request.group_instance_id.as_ref(),
                    generation,
                    false,
                    context.api_version,
                );
            }
            Some(Group::Streams(group)) => {
                return group.validate_offset_commit(
                    &request.member_id,
                    request.group_instance_id.as_ref(),
                    generation,
                    false,
                    context.api_version,
                );
            }
            // Share groups keep their progress elsewhere.
            Some(Group::Share(_)) => Err(ErrorCode::GroupIdNotFound),
            // A consumer that only keeps its offsets here: its record will make the group.
            None if generation < 0 => Ok(()),
            None if context.api_version >= GROUP_NOT_FOUND_FROM => Err(ErrorCode::GroupIdNotFound),
            None => Err(ErrorCode::IllegalGeneration),
        };
        checked.map(|()| CommitCheck::Passed)
    }

    /// A member that commits in an old epoch may do so for some partitions and not for others;
    /// one that it may not refuses the whole commit, as in Kafka.
    fn check_partitions(
        &self,
        request: &OffsetCommitRequest,
        check: &CommitCheck,
    ) -> Result<(), ErrorCode> {
        for topic in &request.topics {
            for partition in &topic.partitions {
                if !self.is_too_large(partition) {
                    check.check(&topic.name, topic.topic_id, partition.partition_index)?;
                }
            }
        }
        Ok(())
    }

    fn is_too_large(&self, partition: &OffsetCommitRequestPartition) -> bool {
        let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
        java::utf16_len(metadata) > self.config.offset_metadata_max_size
    }

    /// A commit shows that the member is alive, like a heartbeat.
    fn keep_session(&mut self, request: &OffsetCommitRequest, now: Now, out: &mut GroupEffects) {
        let Some(mut machine) = self.classic(&request.group_id, now, out) else {
            return;
        };
        if matches!(
            machine.group.state(),
            ClassicState::Stable | ClassicState::PreparingRebalance
        ) {
            machine.renew_session(&request.member_id);
        }
    }

    fn commit_topic(
        &self,
        request: &OffsetCommitRequest,
        topic: &OffsetCommitRequestTopic,
        expire_timestamp_ms: i64,
        now: Now,
        out: &mut GroupEffects,
    ) -> OffsetCommitResponseTopic {
        let commit_one = |partition: &OffsetCommitRequestPartition| {
            let metadata = partition.committed_metadata.clone().unwrap_or_default();
            let error = if self.is_too_large(partition) {
                ErrorCode::OffsetMetadataTooLarge
            } else {
                out.records.push(GroupRecord::OffsetCommit {
                    key: OffsetCommitKey {
                        group: request.group_id.clone(),
                        topic: topic.name.clone(),
                        partition: partition.partition_index,
                    },
                    value: Some(OffsetCommitValue {
                        offset: partition.committed_offset,
                        leader_epoch: partition.committed_leader_epoch,
                        metadata,
                        commit_timestamp: now.wall_ms,
                        expire_timestamp: expire_timestamp_ms,
                        topic_id: topic.topic_id,
                        ..OffsetCommitValue::default()
                    }),
                });
                ErrorCode::None
            };
            OffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: error.into(),
                ..OffsetCommitResponsePartition::default()
            }
        };
        OffsetCommitResponseTopic {
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            partitions: topic.partitions.iter().map(commit_one).collect(),
            ..OffsetCommitResponseTopic::default()
        }
    }

    /// A record of an offset makes its group known, as one that only holds offsets.
    pub(in crate::group) fn ensure_group(
        &mut self,
        group_id: &klamm_protocol::ByteStr,
        now: Now,
    ) -> bool {
        if self.groups.contains_key(group_id) {
            return false;
        }
        let group_id = group_id.detached();
        let group = ClassicGroup::new(group_id.clone(), now.wall_ms);
        self.groups
            .insert(group_id, Group::Classic(Box::new(group)));
        true
    }
}
