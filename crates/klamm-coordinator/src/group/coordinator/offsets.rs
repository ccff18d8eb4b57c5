//! OffsetCommit, OffsetFetch and OffsetDelete.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use klamm_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use klamm_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use klamm_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use klamm_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetFetchRequest, OffsetFetchResponse,
};

use super::{GroupCoordinator, mismatch};
use crate::group::shard::{GroupRequest, GroupResponse};
use crate::group::{RequestContext, TopicLookup, errors, versions};

/// From this version on, OffsetCommit and OffsetFetch name topics by their ids.
const TOPIC_IDS_FROM: i16 = 10;

impl GroupCoordinator {
    /// OffsetCommit (key 8), versions 2-10. Answers when the offsets are committed to the log.
    ///
    /// Partitions that `topics` does not know are refused one by one; the others are committed.
    pub async fn offset_commit(
        &self,
        context: &RequestContext,
        mut request: OffsetCommitRequest,
        topics: &dyn TopicLookup,
    ) -> OffsetCommitResponse {
        let mut response = check_commit(&mut request, context.api_version, topics);
        if request.topics.is_empty() {
            return response;
        }
        let group_id = request.group_id.clone();
        let committed = match self.check_active() {
            Err(error) => Err(error),
            Ok(()) => {
                let request = GroupRequest::OffsetCommit(context.clone(), Box::new(request));
                self.submit(&group_id, request).await
            }
        };
        let (committed, error) = match committed {
            Ok(GroupResponse::OffsetCommit(committed)) => (committed.topics, ErrorCode::None),
            Ok(other) => (Vec::new(), mismatch(&other)),
            Err(error) => (Vec::new(), error),
        };
        // What was not refused above was asked for in the same order as it is answered.
        let mut verdicts = committed
            .into_iter()
            .flat_map(|topic| topic.partitions)
            .map(|partition| partition.error_code);
        for topic in &mut response.topics {
            for partition in &mut topic.partitions {
                if partition.error_code == i16::from(ErrorCode::None) {
                    partition.error_code = verdicts.next().unwrap_or(error.into());
                }
            }
        }
        response
    }

    /// OffsetFetch (key 9), versions 1-10.
    pub async fn offset_fetch(
        &self,
        context: &RequestContext,
        request: OffsetFetchRequest,
        topics: &dyn TopicLookup,
    ) -> OffsetFetchResponse {
        let version = context.api_version;
        let require_stable = request.require_stable;
        let mut groups = Vec::new();
        for group in versions::fetch_groups(request, version) {
            let fetched = self
                .fetch_group(group, require_stable, version, topics)
                .await;
            groups.push(fetched);
        }
        versions::fetch_response(groups, version)
    }

    async fn fetch_group(
        &self,
        mut request: OffsetFetchRequestGroup,
        require_stable: bool,
        version: i16,
        topics: &dyn TopicLookup,
    ) -> OffsetFetchResponseGroup {
        let by_id = version >= TOPIC_IDS_FROM;
        let mut refused = Vec::new();
        if by_id && let Some(asked) = &mut request.topics {
            asked.retain_mut(|topic| match topics.topic_name(topic.topic_id) {
                Some(name) => {
                    topic.name = name;
                    true
                }
                None => {
                    let error = ErrorCode::UnknownTopicId;
                    refused.push(versions::fetch_topic_error(topic, error));
                    false
                }
            });
        }
        let fetches_all = request.topics.is_none();
        let asked = request.clone();
        let fetched = match self.check_active() {
            Err(error) => Err(error),
            Ok(()) => {
                let group_id = request.group_id.clone();
                let request = GroupRequest::OffsetFetch(Box::new(request), require_stable);
                self.submit_raw(&group_id, request).await
            }
        };
        let error = match fetched {
            Ok(GroupResponse::OffsetFetch(mut fetched)) => {
                if by_id && fetches_all {
                    // A topic that is no more has no id to name it by.
                    fetched.topics.retain_mut(|topic| {
                        let id = topics.topic_id(&topic.name);
                        topic.topic_id = id.unwrap_or_default();
                        id.is_some()
                    });
                }
                fetched.topics.append(&mut refused);
                return *fetched;
            }
            Ok(other) => mismatch(&other),
            Err(error) if require_stable => errors::stable_fetch_error(error),
            Err(error) => errors::client_error(error),
        };
        versions::fetch_group_error(&asked, error, version)
    }

    /// OffsetDelete (key 47), version 0.
    pub async fn offset_delete(
        &self,
        mut request: OffsetDeleteRequest,
        topics: &dyn TopicLookup,
    ) -> OffsetDeleteResponse {
        let refuse = |error: ErrorCode| OffsetDeleteResponse {
            error_code: error.into(),
            ..OffsetDeleteResponse::default()
        };
        if let Err(error) = self.check_group(&request.group_id) {
            return refuse(error);
        }
        let mut refused = check_delete(&mut request, topics);
        let group_id = request.group_id.clone();
        let request = GroupRequest::OffsetDelete(Box::new(request));
        match self.submit(&group_id, request).await {
            Ok(GroupResponse::OffsetDelete(mut response)) => {
                merge_deleted(&mut response.topics, &mut refused);
                *response
            }
            Ok(other) => refuse(mismatch(&other)),
            Err(error) => refuse(error),
        }
    }
}

/// Takes partitions that do not exist out of the request and gives the others' topics name and
/// id. Returns the whole answer, with the errors of those that were taken out.
fn check_commit(
    request: &mut OffsetCommitRequest,
    version: i16,
    topics: &dyn TopicLookup,
) -> OffsetCommitResponse {
    let mut response = OffsetCommitResponse::default();
    for topic in &mut request.topics {
        let topic_error = if version >= TOPIC_IDS_FROM {
            let name = topics.topic_name(topic.topic_id);
            let error = name.is_none().then_some(ErrorCode::UnknownTopicId);
            topic.name = name.unwrap_or_default();
            error
        } else {
            let id = topics.topic_id(&topic.name);
            topic.topic_id = id.unwrap_or_default();
            id.is_none().then_some(ErrorCode::UnknownTopicOrPartition)
        };
        let name = topic.name.clone();
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        topic.partitions.retain(|partition| {
            let index = partition.partition_index;
            let error = topic_error.unwrap_or(if topics.has_partition(&name, index) {
                ErrorCode::None
            } else {
                ErrorCode::UnknownTopicOrPartition
            });
            partitions.push(OffsetCommitResponsePartition {
                partition_index: index,
                error_code: error.into(),
                ..OffsetCommitResponsePartition::default()
            });
            error == ErrorCode::None
        });
        response.topics.push(OffsetCommitResponseTopic {
            name,
            topic_id: topic.topic_id,
            partitions,
            ..OffsetCommitResponseTopic::default()
        });
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
    response
}

/// Takes partitions that do not exist out of the request and returns their part of the answer.
fn check_delete(
    request: &mut OffsetDeleteRequest,
    topics: &dyn TopicLookup,
) -> Vec<OffsetDeleteResponseTopic> {
    let mut refused = Vec::new();
    for topic in &mut request.topics {
        let mut partitions = Vec::new();
        let name = &topic.name;
        topic.partitions.retain(|partition| {
            let exists = topics.has_partition(name, partition.partition_index);
            if !exists {
                partitions.push(OffsetDeleteResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: ErrorCode::UnknownTopicOrPartition.into(),
                });
            }
            exists
        });
        if !partitions.is_empty() {
            refused.push(OffsetDeleteResponseTopic {
                name: name.clone(),
                partitions,
            });
        }
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
    refused
}

/// One entry per topic, with the partitions of both.
fn merge_deleted(
    topics: &mut Vec<OffsetDeleteResponseTopic>,
    refused: &mut Vec<OffsetDeleteResponseTopic>,
) {
    for mut topic in refused.drain(..) {
        match topics.iter_mut().find(|known| known.name == topic.name) {
            Some(known) => known.partitions.append(&mut topic.partitions),
            None => topics.push(topic),
        }
    }
}
