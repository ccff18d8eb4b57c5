//! OffsetFetch (key 9), one group of it; the facade splits and joins versions 1-10.

use klamm_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use klamm_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;

use super::store::CommittedOffset;
use crate::group::shard::{Group, GroupEffects, GroupResponse, GroupShard};
use crate::runtime::ReplyToken;

/// What stands for an offset where there is none.
const NO_OFFSET: i64 = -1;

impl GroupShard {
    /// Reads offsets of one group. A plain read sees what is committed, at once; a stable one
    /// sees the newest, waits until it is committed, and refuses partitions that an open
    /// transaction may change.
    pub(in crate::group) fn offset_fetch(
        &self,
        request: &OffsetFetchRequestGroup,
        require_stable: bool,
        token: ReplyToken,
    ) -> GroupEffects {
        let (member_id, epoch) = (request.member_id.as_deref(), request.member_epoch);
        let allowed = match self.groups.get(&request.group_id) {
            Some(Group::Consumer(group)) => group.validate_offset_fetch(member_id, epoch),
            Some(Group::Streams(group)) => group.validate_offset_fetch(member_id, epoch),
            _ => Ok(()),
        };
        if let Err(error) = allowed {
            let mut out = GroupEffects::default();
            out.reply(token, GroupResponse::Refused(error));
            return out;
        }
        let topics = match &request.topics {
            Some(topics) => topics
                .iter()
                .map(|topic| {
                    let partitions = topic.partition_indexes.iter().map(|partition| {
                        let (group, id) = (&request.group_id, topic.topic_id);
                        self.fetch_one(group, &topic.name, id, *partition, require_stable)
                    });
                    response_topic(&topic.name, topic.topic_id, partitions.collect())
                })
                .collect(),
            None => self.fetch_all(&request.group_id, require_stable),
        };
        let response = GroupResponse::OffsetFetch(Box::new(OffsetFetchResponseGroup {
            group_id: request.group_id.clone(),
            topics,
            ..OffsetFetchResponseGroup::default()
        }));
        let mut out = GroupEffects::default();
        if require_stable {
            out.deferred = Some((token, response));
        } else {
            out.reply(token, response);
        }
        out
    }

    fn fetch_all(&self, group_id: &ByteStr, stable: bool) -> Vec<OffsetFetchResponseTopics> {
        let mut topics = Vec::new();
        for (topic, partitions) in self.offsets.partitions_of(group_id) {
            let fetched: Vec<_> = partitions
                .into_iter()
                .filter(|partition| self.visible(group_id, &topic, *partition, stable).is_some())
                .map(|partition| self.fetch_one(group_id, &topic, Uuid::ZERO, partition, stable))
                .collect();
            if !fetched.is_empty() {
                topics.push(response_topic(&topic, Uuid::ZERO, fetched));
            }
        }
        topics
    }

    fn visible(
        &self,
        group_id: &str,
        topic: &ByteStr,
        partition: i32,
        stable: bool,
    ) -> Option<&CommittedOffset> {
        if stable {
            self.offsets.get(group_id, topic, partition)
        } else {
            self.offsets.get_committed(group_id, topic, partition)
        }
    }

    fn fetch_one(
        &self,
        group_id: &str,
        topic: &ByteStr,
        topic_id: Uuid,
        partition: i32,
        stable: bool,
    ) -> OffsetFetchResponsePartitions {
        let none = OffsetFetchResponsePartitions {
            partition_index: partition,
            committed_offset: NO_OFFSET,
            committed_leader_epoch: -1,
            metadata: Some(ByteStr::default()),
            ..OffsetFetchResponsePartitions::default()
        };
        if stable && self.pending.has_offset(group_id, topic, partition) {
            return OffsetFetchResponsePartitions {
                error_code: ErrorCode::UnstableOffsetCommit.into(),
                ..none
            };
        }
        match self.visible(group_id, topic, partition, stable) {
            Some(offset) if is_for(offset, topic_id) => OffsetFetchResponsePartitions {
                committed_offset: offset.offset,
                committed_leader_epoch: offset.leader_epoch,
                metadata: Some(offset.metadata.clone()),
                ..none
            },
            _ => none,
        }
    }
}

/// An offset of a topic that was deleted and made again does not count for the new one.
fn is_for(offset: &CommittedOffset, topic_id: Uuid) -> bool {
    topic_id.is_zero() || offset.topic_id.is_zero() || offset.topic_id == topic_id
}

fn response_topic(
    name: &ByteStr,
    topic_id: Uuid,
    partitions: Vec<OffsetFetchResponsePartitions>,
) -> OffsetFetchResponseTopics {
    OffsetFetchResponseTopics {
        name: name.clone(),
        topic_id,
        partitions,
        ..OffsetFetchResponseTopics::default()
    }
}
