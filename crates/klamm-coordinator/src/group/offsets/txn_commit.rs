//! TxnOffsetCommit (key 28), versions 0-5: offsets that count once their transaction commits.

use klamm_protocol::ErrorCode;
use klamm_protocol::group_records::{OffsetCommitKey, OffsetCommitValue};
use klamm_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use klamm_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use klamm_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use crate::group::consumer::CommitCheck;
use crate::group::java;
use crate::group::record::GroupRecord;
use crate::group::shard::{Group, GroupEffects, GroupResponse, GroupShard};
use crate::runtime::{Now, ReplyToken, TransactionalProducer};

impl GroupShard {
    /// Writes offsets in a producer's name. `guard` is what the verification of its transaction
    /// gave.
    pub(in crate::group) fn txn_offset_commit(
        &self,
        request: &TxnOffsetCommitRequest,
        guard: Option<u64>,
        token: ReplyToken,
        now: Now,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        let allowed = self
            .validate_txn_offset_commit(request)
            .and_then(|check| self.check_txn_partitions(request, &check));
        if let Err(error) = allowed {
            out.reply(token, GroupResponse::Refused(error));
            return out;
        }
        let topics = request.topics.iter();
        let topics = topics
            .map(|topic| self.txn_commit_topic(request, topic, now, &mut out))
            .collect();
        out.transaction = Some(TransactionalProducer {
            producer_id: request.producer_id,
            producer_epoch: request.producer_epoch,
            guard,
        });
        self.metrics.offset_commits.add(out.records.len() as u64);
        let response = TxnOffsetCommitResponse {
            topics,
            ..TxnOffsetCommitResponse::default()
        };
        out.deferred = Some((token, GroupResponse::TxnOffsetCommit(Box::new(response))));
        out
    }

    fn validate_txn_offset_commit(
        &self,
        request: &TxnOffsetCommitRequest,
    ) -> Result<CommitCheck, ErrorCode> {
        let generation = request.generation_id;
        let instance_id = request.group_instance_id.as_ref();
        let checked = match self.groups.get(&request.group_id) {
            Some(Group::Classic(group)) => {
                group.validate_txn_offset_commit(&request.member_id, instance_id, generation)
            }
            Some(Group::Consumer(group)) => {
                let member_id = &request.member_id;
                return group
                    .validate_offset_commit(member_id, instance_id, generation, true, 0)
                    .map_err(unstale);
            }
            Some(Group::Streams(group)) => {
                let member_id = &request.member_id;
                return group
                    .validate_offset_commit(member_id, instance_id, generation, true, 0)
                    .map_err(unstale);
            }
            // Share groups keep their progress elsewhere.
            Some(Group::Share(_)) => Err(ErrorCode::GroupIdNotFound),
            // The record will make the group.
            None if generation < 0 => Ok(()),
            None => Err(ErrorCode::IllegalGeneration),
        };
        checked.map(|()| CommitCheck::Passed)
    }

    /// As for a plain commit; topics come by their names here.
    fn check_txn_partitions(
        &self,
        request: &TxnOffsetCommitRequest,
        check: &CommitCheck,
    ) -> Result<(), ErrorCode> {
        if matches!(check, CommitCheck::Passed) {
            return Ok(());
        }
        let topics = self.cluster.topics();
        for topic in &request.topics {
            let id = topics.topic_id(&topic.name);
            let id = id.ok_or(ErrorCode::IllegalGeneration)?;
            let name = &topic.name;
            for partition in &topic.partitions {
                if !self.has_too_much_metadata(partition) {
                    check
                        .check(name, id, partition.partition_index)
                        .map_err(unstale)?;
                }
            }
        }
        Ok(())
    }

    fn has_too_much_metadata(&self, partition: &TxnOffsetCommitRequestPartition) -> bool {
        let metadata = partition.committed_metadata.as_deref().unwrap_or_default();
        java::utf16_len(metadata) > self.config.offset_metadata_max_size
    }

    fn txn_commit_topic(
        &self,
        request: &TxnOffsetCommitRequest,
        topic: &TxnOffsetCommitRequestTopic,
        now: Now,
        out: &mut GroupEffects,
    ) -> TxnOffsetCommitResponseTopic {
        let commit_one = |partition: &TxnOffsetCommitRequestPartition| {
            let metadata = partition.committed_metadata.clone().unwrap_or_default();
            let error = if self.has_too_much_metadata(partition) {
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
                        ..OffsetCommitValue::default()
                    }),
                });
                ErrorCode::None
            };
            TxnOffsetCommitResponsePartition {
                partition_index: partition.partition_index,
                error_code: error.into(),
                ..TxnOffsetCommitResponsePartition::default()
            }
        };
        TxnOffsetCommitResponseTopic {
            name: topic.name.clone(),
            partitions: topic.partitions.iter().map(commit_one).collect(),
            ..TxnOffsetCommitResponseTopic::default()
        }
    }
}

/// TxnOffsetCommit knows no epochs of members.
fn unstale(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::StaleMemberEpoch => ErrorCode::IllegalGeneration,
        error => error,
    }
}
