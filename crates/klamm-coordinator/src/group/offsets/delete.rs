//! OffsetDelete (key 47), the offsets of deleted groups, and those of deleted topics.

use klamm_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use klamm_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;

use crate::group::record::GroupRecord;
use crate::group::shard::{Group, GroupEffects, GroupResponse, GroupShard};
use crate::runtime::ReplyToken;

/// A topic that is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedTopic {
    /// Its name.
    pub name: ByteStr,
    /// Its id: offsets of a new topic of the same name stay.
    pub id: Uuid,
}

impl GroupShard {
    /// Deletes offsets of topics that the group does not subscribe to.
    pub(in crate::group) fn offset_delete(
        &mut self,
        request: &OffsetDeleteRequest,
        token: ReplyToken,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        let group_id = &request.group_id;
        let group = match self.groups.get(group_id) {
            None => return refuse(out, token, ErrorCode::GroupIdNotFound),
            // Without subscriptions there is no telling what a member still needs.
            Some(Group::Classic(group)) if !group.is_empty() && !group.uses_consumer_protocol() => {
                return refuse(out, token, ErrorCode::NonEmptyGroup);
            }
            Some(Group::Share(_)) => return refuse(out, token, ErrorCode::GroupIdNotFound),
            Some(group) => group,
        };
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let is_subscribed = group.is_subscribed_to(&topic.name);
            let error = if is_subscribed {
                ErrorCode::GroupSubscribedToTopic
            } else {
                ErrorCode::None
            };
            for partition in &topic.partitions {
                let index = partition.partition_index;
                if !is_subscribed && self.has_offset(group_id, &topic.name, index) {
                    let tombstone = GroupRecord::offset_tombstone(group_id, &topic.name, index);
                    out.records.push(tombstone);
                }
            }
            topics.push(OffsetDeleteResponseTopic {
                name: topic.name.clone(),
                partitions: topic
                    .partitions
                    .iter()
                    .map(|partition| OffsetDeleteResponsePartition {
                        partition_index: partition.partition_index,
                        error_code: error.into(),
                    })
                    .collect(),
            });
        }
        self.metrics.offset_deletions.add(out.records.len() as u64);
        let response = OffsetDeleteResponse {
            topics,
            ..OffsetDeleteResponse::default()
        };
        out.deferred = Some((token, GroupResponse::OffsetDelete(Box::new(response))));
        out
    }

    fn has_offset(&self, group_id: &str, topic: &ByteStr, partition: i32) -> bool {
        self.offsets.get(group_id, topic, partition).is_some()
            || self.pending.has_offset(group_id, topic, partition)
    }

    /// Tombstones for all offsets of a group, those of open transactions included.
    pub(in crate::group) fn offset_tombstones(&self, group_id: &ByteStr) -> Vec<GroupRecord> {
        let mut places = self.pending.partitions_of(group_id);
        for (topic, partitions) in self.offsets.group(group_id).into_iter().flatten() {
            places.extend(
                partitions
                    .keys()
                    .map(|partition| (topic.clone(), *partition)),
            );
        }
        places
            .iter()
            .map(|(topic, partition)| GroupRecord::offset_tombstone(group_id, topic, *partition))
            .collect()
    }

    /// Deletes the offsets of topics that are no more.
    pub(in crate::group) fn topics_deleted(
        &self,
        topics: &[DeletedTopic],
        token: ReplyToken,
    ) -> GroupEffects {
        let mut out = GroupEffects {
            atomic: false,
            ..GroupEffects::default()
        };
        let is_deleted =
            |topic_id: Uuid, deleted: &DeletedTopic| topic_id.is_zero() || topic_id == deleted.id;
        for (group_id, offsets) in self.offsets.groups() {
            for deleted in topics {
                for (partition, offset) in offsets.get(&deleted.name).into_iter().flatten() {
                    if is_deleted(offset.topic_id, deleted) {
                        let name = &deleted.name;
                        let tombstone = GroupRecord::offset_tombstone(group_id, name, *partition);
                        out.records.push(tombstone);
                    }
                }
            }
        }
        for (group_id, topic, partition, offset) in self.pending.all() {
            let gone = topics
                .iter()
                .any(|deleted| deleted.name == *topic && is_deleted(offset.topic_id, deleted));
            if gone {
                let tombstone = GroupRecord::offset_tombstone(group_id, topic, partition);
                out.records.push(tombstone);
            }
        }
        out.records.extend(self.share_topics_deleted(topics));
        out.deferred = Some((token, GroupResponse::Done));
        out
    }
}

fn refuse(mut out: GroupEffects, token: ReplyToken, error: ErrorCode) -> GroupEffects {
    out.reply(token, GroupResponse::Refused(error));
    out
}
