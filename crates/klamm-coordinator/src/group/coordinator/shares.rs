//! Share groups: ShareGroupHeartbeat, ShareGroupDescribe, and the requests about their offsets,
//! which the share coordinator keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use klamm_protocol::messages::delete_share_group_offsets_response::DeleteShareGroupOffsetsResponseTopic;
use klamm_protocol::messages::delete_share_group_state_request::{
    DeleteStateData, PartitionData as DeletePartition,
};
use klamm_protocol::messages::describe_share_group_offsets_request::DescribeShareGroupOffsetsRequestGroup;
use klamm_protocol::messages::describe_share_group_offsets_response::{
    DescribeShareGroupOffsetsResponseGroup, DescribeShareGroupOffsetsResponsePartition,
    DescribeShareGroupOffsetsResponseTopic,
};
use klamm_protocol::messages::initialize_share_group_state_request::{
    InitializeStateData, PartitionData as InitializePartition,
};
use klamm_protocol::messages::read_share_group_state_summary_request::{
    PartitionData as SummaryPartition, ReadStateSummaryData,
};
use klamm_protocol::messages::read_share_group_state_summary_response::PartitionResult as Summary;
use klamm_protocol::messages::share_group_describe_response::DescribedGroup;
use klamm_protocol::messages::{
    AlterShareGroupOffsetsRequest, AlterShareGroupOffsetsResponse, DeleteShareGroupOffsetsRequest,
    DeleteShareGroupOffsetsResponse, DeleteShareGroupStateRequest,
    DescribeShareGroupOffsetsRequest, DescribeShareGroupOffsetsResponse,
    InitializeShareGroupStateRequest, ReadShareGroupStateSummaryRequest, ShareGroupDescribeRequest,
    ShareGroupDescribeResponse, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse,
};
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;

use super::{GroupCoordinator, mismatch};
use crate::group::consumer::Refusal;
use crate::group::shard::{GroupRequest, GroupResponse};
use crate::group::share::{self, DeletedOffsets, OffsetsToInitialize, share_heartbeat_error};
use crate::group::{RequestContext, TopicLookup};
use crate::runtime::BoxFuture;
use crate::share_state::SharePersister;

/// Tells how far partitions go.
pub trait EndOffsets: Send + Sync {
    /// The offset behind the last record that consumers may see.
    fn latest<'a>(
        &'a self,
        topic: &'a str,
        partition: i32,
    ) -> BoxFuture<'a, Result<i64, ErrorCode>>;
}

impl GroupCoordinator {
    /// Sets the way to the share coordinators; without it requests about share groups' offsets and
    /// members are answered with `COORDINATOR_NOT_AVAILABLE`. Only the first call counts.
    pub fn set_share_persister(&self, persister: Arc<dyn SharePersister>) {
        // A second one would be a fault of the program, which the first survives.
        let _ = self.persister.0.set(persister);
    }

    fn persister(&self) -> Result<&dyn SharePersister, ErrorCode> {
        let persister = self.persister.0.get();
        persister
            .map(|persister| &**persister)
            .ok_or(ErrorCode::CoordinatorNotAvailable)
    }

    /// ShareGroupHeartbeat (key 76). Answers when what it changed is committed and share state that
    /// it calls for is made.
    pub async fn share_group_heartbeat(
        &self,
        context: &RequestContext,
        request: ShareGroupHeartbeatRequest,
    ) -> ShareGroupHeartbeatResponse {
        let refuse = |error: ErrorCode| ShareGroupHeartbeatResponse {
            error_code: error.into(),
            ..ShareGroupHeartbeatResponse::default()
        };
        if let Err(error) = self.check_active() {
            return refuse(error);
        }
        if let Err(refusal) = share::check_share_request(&request) {
            return share_heartbeat_error(refusal);
        }
        let group_id = request.group_id.clone();
        let request = GroupRequest::ShareHeartbeat(context.clone(), Box::new(request));
        match self.submit(&group_id, request).await {
            Ok(GroupResponse::ShareHeartbeat(response, None)) => *response,
            Ok(GroupResponse::ShareHeartbeat(response, Some(wanted))) => {
                match self.make_states(&group_id, wanted).await {
                    Ok(()) => *response,
                    Err(error) => refuse(error),
                }
            }
            Ok(other) => refuse(mismatch(&other)),
            Err(error) => refuse(error),
        }
    }

    /// Has share state made and notes that it is, or that it could not be.
    async fn make_states(
        &self,
        group_id: &ByteStr,
        wanted: OffsetsToInitialize,
    ) -> Result<(), ErrorCode> {
        let topics = wanted.topics.iter().map(|(id, (_, partitions))| {
            let partitions = partitions
                .iter()
                .map(|(partition, offset)| InitializePartition {
                    partition: *partition,
                    state_epoch: wanted.state_epoch,
                    start_offset: *offset,
                    ..InitializePartition::default()
                });
            InitializeStateData {
                topic_id: *id,
                partitions: partitions.collect(),
                ..InitializeStateData::default()
            }
        });
        let request = InitializeShareGroupStateRequest {
            group_id: group_id.clone(),
            topics: topics.collect(),
            ..InitializeShareGroupStateRequest::default()
        };
        let response = self.persister()?.initialize(request).await;
        let results = response.results.iter().flat_map(|topic| &topic.partitions);
        let made = first_error(results.map(|result| result.error_code));
        if let Err(error) = made {
            tracing::warn!(group = %group_id, ?error, "share state was not made");
        }
        let note = GroupRequest::ShareStatesMade(group_id.clone(), Box::new(wanted), made.is_ok());
        match self.submit(group_id, note).await {
            Ok(_) => made,
            Err(error) => made.and(Err(error)),
        }
    }

    /// ShareGroupDescribe (key 77), in the order of the request.
    pub async fn share_group_describe(
        &self,
        request: ShareGroupDescribeRequest,
    ) -> ShareGroupDescribeResponse {
        let refuse = |group_id, error: ErrorCode| DescribedGroup {
            group_id,
            error_code: error.into(),
            ..DescribedGroup::default()
        };
        let take = |response| match response {
            GroupResponse::DescribeShareGroups(groups) => Ok(groups),
            other => Err(other),
        };
        let nameless = Some(ErrorCode::InvalidGroupId);
        let ask = GroupRequest::DescribeShareGroups;
        let groups = self
            .described(&request.group_ids, nameless, ask, take, refuse)
            .await;
        ShareGroupDescribeResponse {
            groups,
            ..ShareGroupDescribeResponse::default()
        }
    }

    /// DescribeShareGroupOffsets (key 90): of the topics named, or of all that the group reads.
    pub async fn describe_share_group_offsets(
        &self,
        request: DescribeShareGroupOffsetsRequest,
        topics: &dyn TopicLookup,
        ends: &dyn EndOffsets,
    ) -> DescribeShareGroupOffsetsResponse {
        let mut groups = Vec::with_capacity(request.groups.len());
        for group in request.groups {
            let group_id = group.group_id.clone();
            let described = self.describe_share_offsets(group, topics, ends).await;
            groups.push(match described {
                Ok(topics) => DescribeShareGroupOffsetsResponseGroup {
                    group_id,
                    topics,
                    ..DescribeShareGroupOffsetsResponseGroup::default()
                },
                Err(error) => DescribeShareGroupOffsetsResponseGroup {
                    group_id,
                    error_code: error.into(),
                    ..DescribeShareGroupOffsetsResponseGroup::default()
                },
            });
        }
        DescribeShareGroupOffsetsResponse {
            groups,
            ..DescribeShareGroupOffsetsResponse::default()
        }
    }

    async fn describe_share_offsets(
        &self,
        group: DescribeShareGroupOffsetsRequestGroup,
        topics: &dyn TopicLookup,
        ends: &dyn EndOffsets,
    ) -> Result<Vec<DescribeShareGroupOffsetsResponseTopic>, ErrorCode> {
        self.check_active()?;
        let mut unknown = Vec::new();
        let mut wanted: BTreeMap<Uuid, (ByteStr, Vec<i32>)> = BTreeMap::new();
        match group.topics {
            Some(named) => {
                for topic in named {
                    match topics.topic_id(&topic.topic_name) {
                        Some(id) => {
                            wanted.insert(id, (topic.topic_name, topic.partitions));
                        }
                        None => unknown.push(DescribeShareGroupOffsetsResponseTopic {
                            topic_name: topic.topic_name,
                            partitions: topic.partitions.into_iter().map(unknown_offset).collect(),
                            ..DescribeShareGroupOffsetsResponseTopic::default()
                        }),
                    }
                }
            }
            None => {
                let request = GroupRequest::ShareStates(group.group_id.clone());
                let states = match self.submit(&group.group_id, request).await? {
                    GroupResponse::ShareStates(states) => states.unwrap_or_default(),
                    other => return Err(mismatch(&other)),
                };
                for (id, topic) in states.initialized {
                    if let Some(name) = topics.topic_name(id) {
                        wanted.insert(id, (name, topic.partitions.into_iter().collect()));
                    }
                }
            }
        }
        if wanted.is_empty() {
            return Ok(unknown);
        }
        let asked = wanted.iter().map(|(id, (_, partitions))| {
            let partitions = partitions.iter().map(|partition| SummaryPartition {
                partition: *partition,
                ..SummaryPartition::default()
            });
            ReadStateSummaryData {
                topic_id: *id,
                partitions: partitions.collect(),
                ..ReadStateSummaryData::default()
            }
        });
        let request = ReadShareGroupStateSummaryRequest {
            group_id: group.group_id,
            topics: asked.collect(),
            ..ReadShareGroupStateSummaryRequest::default()
        };
        let summaries = self.persister()?.summary(request).await;
        let mut described = Vec::with_capacity(summaries.results.len());
        for topic in summaries.results {
            let Some((name, _)) = wanted.get(&topic.topic_id) else {
                continue;
            };
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for summary in topic.partitions {
                partitions.push(described_offset(name, summary, ends).await);
            }
            described.push(DescribeShareGroupOffsetsResponseTopic {
                topic_name: name.clone(),
                topic_id: topic.topic_id,
                partitions,
                ..DescribeShareGroupOffsetsResponseTopic::default()
            });
        }
        described.append(&mut unknown);
        Ok(described)
    }

    /// AlterShareGroupOffsets (key 91): sets where a group without members goes on.
    pub async fn alter_share_group_offsets(
        &self,
        request: AlterShareGroupOffsetsRequest,
    ) -> AlterShareGroupOffsetsResponse {
        let refuse = |refusal: Refusal| AlterShareGroupOffsetsResponse {
            error_code: refusal.error.into(),
            error_message: Some(refusal.message.into()),
            ..AlterShareGroupOffsetsResponse::default()
        };
        let plainly = |error: ErrorCode| AlterShareGroupOffsetsResponse {
            error_code: error.into(),
            ..AlterShareGroupOffsetsResponse::default()
        };
        if let Err(error) = self.check_group(&request.group_id) {
            return plainly(error);
        }
        let group_id = request.group_id.clone();
        let request = GroupRequest::AlterShareOffsets(Box::new(request));
        let (responses, wanted) = match self.submit(&group_id, request).await {
            Ok(GroupResponse::AlterShareOffsets(responses, wanted)) => (responses, wanted),
            Ok(GroupResponse::ShareRefused(refusal)) => return refuse(refusal),
            Ok(other) => return plainly(mismatch(&other)),
            Err(error) => return plainly(error),
        };
        if !wanted.topics.is_empty()
            && let Err(error) = self.make_states(&group_id, wanted).await
        {
            return plainly(error);
        }
        AlterShareGroupOffsetsResponse {
            responses,
            ..AlterShareGroupOffsetsResponse::default()
        }
    }

    /// DeleteShareGroupOffsets (key 92): forgets topics of a group without members.
    pub async fn delete_share_group_offsets(
        &self,
        request: DeleteShareGroupOffsetsRequest,
    ) -> DeleteShareGroupOffsetsResponse {
        let plainly = |error: ErrorCode| DeleteShareGroupOffsetsResponse {
            error_code: error.into(),
            ..DeleteShareGroupOffsetsResponse::default()
        };
        if let Err(error) = self.check_group(&request.group_id) {
            return plainly(error);
        }
        let group_id = request.group_id.clone();
        let request = GroupRequest::DeleteShareOffsets(Box::new(request));
        let deleted = match self.submit(&group_id, request).await {
            Ok(GroupResponse::DeleteShareOffsets(deleted)) => deleted,
            Ok(GroupResponse::ShareRefused(refusal)) => {
                return DeleteShareGroupOffsetsResponse {
                    error_message: Some(refusal.message.into()),
                    ..plainly(refusal.error)
                };
            }
            Ok(other) => return plainly(mismatch(&other)),
            Err(error) => return plainly(error),
        };
        let errors = match self.delete_states(&group_id, &deleted).await {
            Ok(errors) => errors,
            Err(error) => return plainly(error),
        };
        let gone: Vec<Uuid> = deleted
            .topics
            .keys()
            .filter(|id| !errors.contains_key(*id))
            .copied()
            .collect();
        if !gone.is_empty() {
            let note = GroupRequest::ShareOffsetsDeleted(group_id.clone(), gone);
            if let Err(error) = self.submit(&group_id, note).await {
                return plainly(error);
            }
        }
        let mut responses = deleted.refused;
        for (id, (name, _)) in deleted.topics {
            let error = errors.get(&id).copied().unwrap_or(ErrorCode::None);
            responses.push(DeleteShareGroupOffsetsResponseTopic {
                topic_name: name,
                topic_id: id,
                error_code: error.into(),
                ..DeleteShareGroupOffsetsResponseTopic::default()
            });
        }
        DeleteShareGroupOffsetsResponse {
            responses,
            ..DeleteShareGroupOffsetsResponse::default()
        }
    }

    /// Has share state deleted. Returns the topics of which some could not be.
    async fn delete_states(
        &self,
        group_id: &ByteStr,
        deleted: &DeletedOffsets,
    ) -> Result<BTreeMap<Uuid, ErrorCode>, ErrorCode> {
        if deleted.topics.is_empty() {
            return Ok(BTreeMap::new());
        }
        let topics = deleted.topics.iter().map(|(id, (_, partitions))| {
            let partitions = partitions.iter().map(|partition| DeletePartition {
                partition: *partition,
                ..DeletePartition::default()
            });
            DeleteStateData {
                topic_id: *id,
                partitions: partitions.collect(),
                ..DeleteStateData::default()
            }
        });
        let request = DeleteShareGroupStateRequest {
            group_id: group_id.clone(),
            topics: topics.collect(),
            ..DeleteShareGroupStateRequest::default()
        };
        let response = self.persister()?.delete(request).await;
        let errors = response.results.iter().filter_map(|topic| {
            let codes = topic.partitions.iter().map(|result| result.error_code);
            first_error(codes)
                .err()
                .map(|error| (topic.topic_id, error))
        });
        Ok(errors.collect())
    }

    /// Deletes the share state of those of the groups that are share groups without members.
    /// Returns the groups that have to stay because that failed.
    pub(super) async fn delete_share_states_of(
        &self,
        partition: i32,
        group_ids: &[ByteStr],
    ) -> BTreeMap<ByteStr, ErrorCode> {
        let mut failed = BTreeMap::new();
        let request = GroupRequest::BeginDeleteShareGroups(group_ids.to_vec());
        // A coordinator that cannot tell refuses the deletion itself as well.
        let Ok(GroupResponse::DoomedShareGroups(doomed)) = self.submit_to(partition, request).await
        else {
            return failed;
        };
        for (group_id, deleted) in doomed {
            let error = match self.delete_states(&group_id, &deleted).await {
                Ok(errors) => errors.into_values().next(),
                Err(error) => Some(error),
            };
            // What belongs to a deleted topic goes with that.
            if let Some(error) = error.filter(|e| *e != ErrorCode::UnknownTopicOrPartition) {
                failed.insert(group_id, error);
            }
        }
        failed
    }
}

fn first_error(mut codes: impl Iterator<Item = i16>) -> Result<(), ErrorCode> {
    let failed = codes.find(|code| *code != 0);
    match failed {
        None => Ok(()),
        Some(code) => Err(ErrorCode::from_code(code).unwrap_or(ErrorCode::UnknownServerError)),
    }
}

fn unknown_offset(partition: i32) -> DescribeShareGroupOffsetsResponsePartition {
    DescribeShareGroupOffsetsResponsePartition {
        partition_index: partition,
        start_offset: -1,
        error_code: ErrorCode::UnknownTopicOrPartition.into(),
        error_message: Some("This server does not host this topic-partition.".into()),
        ..DescribeShareGroupOffsetsResponsePartition::default()
    }
}

async fn described_offset(
    topic: &str,
    summary: Summary,
    ends: &dyn EndOffsets,
) -> DescribeShareGroupOffsetsResponsePartition {
    let described = DescribeShareGroupOffsetsResponsePartition {
        partition_index: summary.partition,
        start_offset: -1,
        error_code: summary.error_code,
        error_message: summary.error_message,
        ..DescribeShareGroupOffsetsResponsePartition::default()
    };
    if summary.error_code != 0 {
        return described;
    }
    let described = DescribeShareGroupOffsetsResponsePartition {
        start_offset: summary.start_offset,
        leader_epoch: summary.leader_epoch,
        ..described
    };
    if summary.start_offset == -1 || summary.delivery_complete_count == -1 {
        return described;
    }
    match ends.latest(topic, summary.partition).await {
        Ok(end) => DescribeShareGroupOffsetsResponsePartition {
            lag: end - summary.start_offset - i64::from(summary.delivery_complete_count),
            ..described
        },
        Err(error) => DescribeShareGroupOffsetsResponsePartition {
            partition_index: summary.partition,
            error_code: error.into(),
            ..DescribeShareGroupOffsetsResponsePartition::default()
        },
    }
}
