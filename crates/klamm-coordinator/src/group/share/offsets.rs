//! Which partitions have share state, as requests change it: made for new partitions, set anew and
//! deleted by administrators, gone with their topics. The states themselves are the share
//! coordinator's.

use std::collections::BTreeMap;

use klamm_protocol::messages::alter_share_group_offsets_response::{
    AlterShareGroupOffsetsResponsePartition, AlterShareGroupOffsetsResponseTopic,
};
use klamm_protocol::messages::delete_share_group_offsets_response::DeleteShareGroupOffsetsResponseTopic;
use klamm_protocol::messages::{AlterShareGroupOffsetsRequest, DeleteShareGroupOffsetsRequest};
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;

use super::group::ShareGroup;
use super::record::RecordsOf;
use super::states::{ShareStates, TopicStates, Topics};
use crate::group::consumer::Refusal;
use crate::group::offsets::DeletedTopic;
use crate::group::record::GroupRecord;
use crate::group::shard::{Group, GroupEffects, GroupResponse, GroupShard};
use crate::runtime::{Now, ReplyToken};

/// Share state that is to be made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OffsetsToInitialize {
    /// The epoch of the state.
    pub state_epoch: i32,
    /// Topics with their names and, for each partition, where to begin; -1 if that is left to
    /// the group's configuration.
    pub topics: BTreeMap<Uuid, (ByteStr, BTreeMap<i32, i64>)>,
}

/// Share state that is to be deleted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeletedOffsets {
    /// Topics with their names and partitions.
    pub topics: BTreeMap<Uuid, (ByteStr, Vec<i32>)>,
    /// What is to be said of topics without any.
    pub refused: Vec<DeleteShareGroupOffsetsResponseTopic>,
}

impl OffsetsToInitialize {
    fn topics(&self) -> Topics {
        let topics = self.topics.iter().map(|(id, (name, partitions))| {
            let topic = TopicStates {
                name: name.clone(),
                partitions: partitions.keys().copied().collect(),
                since_ms: 0,
            };
            (*id, topic)
        });
        topics.collect()
    }
}

impl GroupShard {
    /// The share coordinator has made state, or has not.
    pub(in crate::group) fn share_states_made(
        &self,
        group_id: &ByteStr,
        made: &OffsetsToInitialize,
        ok: bool,
        token: ReplyToken,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        if let Some(group) = self.share_group(group_id) {
            let mut states = group.states.as_deref().cloned().unwrap_or_default();
            if ok {
                states.initialized(&made.topics());
            } else {
                states.not_initialized(&made.topics());
            }
            if group.states.as_deref() != Some(&states) {
                out.records
                    .push(RecordsOf(group.id()).states(Some(&states)));
            }
        }
        out.deferred = Some((token, GroupResponse::Done));
        out
    }

    /// The partitions of a group that have state.
    pub(in crate::group) fn share_states(&self, group_id: &str) -> Option<ShareStates> {
        let group = self.share_group(group_id)?;
        group.states.as_deref().cloned()
    }

    /// AlterShareGroupOffsets: the group must have no members. It comes to be if it is not there.
    pub(in crate::group) fn alter_share_offsets(
        &self,
        request: &AlterShareGroupOffsetsRequest,
        token: ReplyToken,
        now: Now,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        let group_id = request.group_id.detached();
        let fresh;
        let group = match self.groups.get(&group_id) {
            Some(Group::Share(group)) => &**group,
            None => {
                fresh = ShareGroup::new(group_id.clone());
                &fresh
            }
            Some(_) => {
                let refusal = self.no_share_group(&group_id);
                out.reply(token, GroupResponse::ShareRefused(refusal));
                return out;
            }
        };
        if !group.is_empty() {
            let refusal = Refusal::new(ErrorCode::NonEmptyGroup, "The group is not empty.");
            out.reply(token, GroupResponse::ShareRefused(refusal));
            return out;
        }
        let mut altered = OffsetsToInitialize {
            state_epoch: group.epoch,
            ..OffsetsToInitialize::default()
        };
        let responses = self.altered(request, &mut altered);
        if !altered.topics.is_empty() {
            let mut states = group.states.as_deref().cloned().unwrap_or_default();
            let mut topics = altered.topics();
            topics.values_mut().for_each(|t| t.since_ms = now.wall_ms);
            states.begin_initializing(&topics);
            out.records.push(RecordsOf(&group_id).states(Some(&states)));
        }
        out.deferred = Some((token, GroupResponse::AlterShareOffsets(responses, altered)));
        out
    }

    fn altered(
        &self,
        request: &AlterShareGroupOffsetsRequest,
        altered: &mut OffsetsToInitialize,
    ) -> Vec<AlterShareGroupOffsetsResponseTopic> {
        let topics = self.cluster.topics();
        let mut responses = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let name = &topic.topic_name;
            let found = topics.topic_id(name).zip(topics.partition_count(name));
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for asked in &topic.partitions {
                let index = asked.partition_index;
                let known = found.filter(|(_, count)| (0..*count).contains(&index));
                if let Some((id, _)) = known {
                    let entry = altered.topics.entry(id);
                    let (_, offsets) = entry.or_insert_with(|| (name.detached(), BTreeMap::new()));
                    offsets.insert(index, asked.start_offset);
                }
                partitions.push(AlterShareGroupOffsetsResponsePartition {
                    partition_index: index,
                    ..match known {
                        Some(_) => AlterShareGroupOffsetsResponsePartition::default(),
                        None => unknown_partition(),
                    }
                });
            }
            responses.push(AlterShareGroupOffsetsResponseTopic {
                topic_name: name.clone(),
                topic_id: found.map_or(Uuid::ZERO, |(id, _)| id),
                partitions,
                ..AlterShareGroupOffsetsResponseTopic::default()
            });
        }
        responses
    }

    /// DeleteShareGroupOffsets, its first half: says which states are to be deleted, and notes
    /// that they are.
    pub(in crate::group) fn delete_share_offsets(
        &self,
        request: &DeleteShareGroupOffsetsRequest,
        token: ReplyToken,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        let group_id = &request.group_id;
        let Some(group) = self.share_group(group_id) else {
            let refusal = self.no_share_group(group_id);
            out.reply(token, GroupResponse::ShareRefused(refusal));
            return out;
        };
        if !group.is_empty() {
            let refusal = Refusal::new(ErrorCode::NonEmptyGroup, "The group is not empty.");
            out.reply(token, GroupResponse::ShareRefused(refusal));
            return out;
        }
        let topics = self.cluster.topics();
        let mut states = group.states.as_deref().cloned().unwrap_or_default();
        let mut deleted = DeletedOffsets::default();
        for topic in &request.topics {
            let name = &topic.topic_name;
            let Some(id) = topics.topic_id(name) else {
                deleted.refused.push(nothing_to_delete(
                    name,
                    "This server does not host this topic-partition.",
                ));
                continue;
            };
            let partitions: Vec<i32> = if let Some(present) = states.initialized.remove(&id) {
                states.deleting.insert(id, name.detached());
                present.partitions.into_iter().collect()
            } else if states.deleting.contains_key(&id) {
                (0..topics.partition_count(name).unwrap_or(0)).collect()
            } else {
                let message = "There is no offset information to delete.";
                deleted.refused.push(nothing_to_delete(name, message));
                continue;
            };
            deleted.topics.insert(id, (name.detached(), partitions));
        }
        if !deleted.topics.is_empty() {
            out.records
                .push(RecordsOf(group.id()).states(Some(&states)));
        }
        out.deferred = Some((token, GroupResponse::DeleteShareOffsets(deleted)));
        out
    }

    /// The second half: the states of these topics are gone.
    pub(in crate::group) fn share_offsets_deleted(
        &self,
        group_id: &ByteStr,
        topics: &[Uuid],
        token: ReplyToken,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        if let Some(group) = self.share_group(group_id)
            && let Some(states) = &group.states
        {
            let mut states = (**states).clone();
            states.deleting.retain(|id, _| !topics.contains(id));
            out.records
                .push(RecordsOf(group.id()).states(Some(&states)));
        }
        out.deferred = Some((token, GroupResponse::Done));
        out
    }

    /// The first half of deleting groups: for each share group among them that has no members, the
    /// states that have to go before it.
    pub(in crate::group) fn begin_delete_share_groups(
        &self,
        group_ids: &[ByteStr],
        token: ReplyToken,
    ) -> GroupEffects {
        let mut out = GroupEffects::default();
        let mut doomed = Vec::new();
        for group_id in group_ids {
            let Some(group) = self.share_group(group_id).filter(|group| group.is_empty()) else {
                continue;
            };
            let Some(states) = &group.states else {
                continue;
            };
            let mut all = states.all();
            let topics = self.cluster.topics();
            for (id, name) in &states.deleting {
                let count = topics.partition_count(name).unwrap_or(0);
                all.entry(*id).or_insert_with(|| TopicStates {
                    name: name.clone(),
                    partitions: (0..count).collect(),
                    since_ms: 0,
                });
            }
            let deleting = ShareStates {
                deleting: all.iter().map(|(id, t)| (*id, t.name.clone())).collect(),
                ..ShareStates::default()
            };
            out.records
                .push(RecordsOf(group.id()).states(Some(&deleting)));
            let topics = all.into_iter().map(|(id, topic)| {
                let partitions = topic.partitions.into_iter().collect();
                (id, (topic.name, partitions))
            });
            let offsets = DeletedOffsets {
                topics: topics.collect(),
                refused: Vec::new(),
            };
            doomed.push((group.id.clone(), offsets));
        }
        out.deferred = Some((token, GroupResponse::DoomedShareGroups(doomed)));
        out
    }

    /// The records that forget the states of topics that are no more.
    pub(in crate::group) fn share_topics_deleted(
        &self,
        topics: &[DeletedTopic],
    ) -> Vec<GroupRecord> {
        let mut records = Vec::new();
        let is_gone = |id: &Uuid| topics.iter().any(|topic| topic.id == *id);
        for group in self.groups.values() {
            let Group::Share(group) = group else {
                continue;
            };
            let Some(states) = &group.states else {
                continue;
            };
            let mut kept = (**states).clone();
            kept.initializing.retain(|id, _| !is_gone(id));
            kept.initialized.retain(|id, _| !is_gone(id));
            kept.deleting.retain(|id, _| !is_gone(id));
            if kept != **states {
                records.push(RecordsOf(group.id()).states(Some(&kept)));
            }
        }
        records
    }
}

fn unknown_partition() -> AlterShareGroupOffsetsResponsePartition {
    AlterShareGroupOffsetsResponsePartition {
        error_code: ErrorCode::UnknownTopicOrPartition.into(),
        error_message: Some("This server does not host this topic-partition.".into()),
        ..AlterShareGroupOffsetsResponsePartition::default()
    }
}

fn nothing_to_delete(name: &ByteStr, message: &str) -> DeleteShareGroupOffsetsResponseTopic {
    DeleteShareGroupOffsetsResponseTopic {
        topic_name: name.clone(),
        error_code: ErrorCode::UnknownTopicOrPartition.into(),
        error_message: Some(message.into()),
        ..DeleteShareGroupOffsetsResponseTopic::default()
    }
}
