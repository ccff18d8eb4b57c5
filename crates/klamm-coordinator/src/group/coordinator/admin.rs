//! ListGroups, DescribeGroups, ConsumerGroupDescribe and DeleteGroups: requests that span partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use klamm_protocol::messages::consumer_group_describe_response::DescribedGroup as DescribedConsumerGroup;
use klamm_protocol::messages::delete_groups_response::DeletableGroupResult;
use klamm_protocol::messages::describe_groups_response::DescribedGroup;
use klamm_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DeleteGroupsRequest,
    DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, ListGroupsRequest,
    ListGroupsResponse,
};
use klamm_protocol::{ByteStr, ErrorCode};

use super::{GroupCoordinator, mismatch};
use crate::group::shard::{GroupRequest, GroupResponse};
use crate::group::{RequestContext, errors};

impl GroupCoordinator {
    /// ListGroups (key 16), versions 0-5: the groups of all partitions that are led here. One
    /// partition that is still loading makes the whole answer `COORDINATOR_LOAD_IN_PROGRESS`.
    pub async fn list_groups(&self, request: ListGroupsRequest) -> ListGroupsResponse {
        let refuse = |error: ErrorCode| ListGroupsResponse {
            error_code: error.into(),
            ..ListGroupsResponse::default()
        };
        if let Err(error) = self.check_active() {
            return refuse(error);
        }
        let request = Arc::new(request);
        let mut groups = Vec::new();
        for partition in self.runtime.partitions() {
            let request = GroupRequest::ListGroups(request.clone());
            match self.runtime.submit(partition, request).await {
                Ok(GroupResponse::ListGroups(mut listed)) => groups.append(&mut listed),
                Ok(other) => return refuse(mismatch(&other)),
                // Lost meanwhile: its new leader lists it.
                Err(ErrorCode::NotCoordinator) => {}
                Err(error) => return refuse(errors::client_error(error)),
            }
        }
        ListGroupsResponse {
            groups,
            ..ListGroupsResponse::default()
        }
    }

    /// DescribeGroups (key 15), versions 0-6, in the order of the request.
    pub async fn describe_groups(
        &self,
        context: &RequestContext,
        request: DescribeGroupsRequest,
    ) -> DescribeGroupsResponse {
        let mut described = BTreeMap::new();
        for (partition, group_ids) in self.by_partition(&request.groups) {
            let version = context.api_version;
            let submitted = GroupRequest::DescribeGroups(group_ids.clone(), version);
            let error = match self.submit_to(partition, submitted).await {
                Ok(GroupResponse::DescribeGroups(groups)) => {
                    described.extend(group_ids.into_iter().zip(groups));
                    continue;
                }
                Ok(other) => mismatch(&other),
                Err(error) => error,
            };
            described.extend(group_ids.into_iter().map(|group_id| {
                let group = DescribedGroup {
                    group_id: group_id.clone(),
                    error_code: error.into(),
                    ..DescribedGroup::default()
                };
                (group_id, group)
            }));
        }
        DescribeGroupsResponse {
            groups: in_order(&request.groups, &described),
            ..DescribeGroupsResponse::default()
        }
    }

    /// ConsumerGroupDescribe (key 69), versions 0-1, in the order of the request.
    pub async fn consumer_group_describe(
        &self,
        request: ConsumerGroupDescribeRequest,
    ) -> ConsumerGroupDescribeResponse {
        let refuse = |group_id: ByteStr, error: ErrorCode| DescribedConsumerGroup {
            group_id,
            error_code: error.into(),
            ..DescribedConsumerGroup::default()
        };
        let mut described = BTreeMap::new();
        for (partition, mut group_ids) in self.by_partition(&request.group_ids) {
            group_ids.retain(|group_id| {
                if group_id.is_empty() {
                    let nameless = refuse(ByteStr::default(), ErrorCode::InvalidGroupId);
                    described.insert(group_id.clone(), nameless);
                }
                !group_id.is_empty()
            });
            let submitted = GroupRequest::DescribeConsumerGroups(group_ids.clone());
            let error = match self.submit_to(partition, submitted).await {
                Ok(GroupResponse::DescribeConsumerGroups(groups)) => {
                    described.extend(group_ids.into_iter().zip(groups));
                    continue;
                }
                Ok(other) => mismatch(&other),
                Err(error) => error,
            };
            let refused = group_ids
                .into_iter()
                .map(|id| (id.clone(), refuse(id, error)));
            described.extend(refused);
        }
        ConsumerGroupDescribeResponse {
            groups: in_order(&request.group_ids, &described),
            ..ConsumerGroupDescribeResponse::default()
        }
    }

    /// DeleteGroups (key 42), versions 0-2, in the order of the request, each name once. Answers
    /// when the tombstones are committed.
    pub async fn delete_groups(&self, mut request: DeleteGroupsRequest) -> DeleteGroupsResponse {
        let mut seen = BTreeSet::new();
        let names = &mut request.groups_names;
        names.retain(|group_id| seen.insert(group_id.clone()));
        let mut deleted = BTreeMap::new();
        for (partition, mut group_ids) in self.by_partition(&request.groups_names) {
            for (group_id, error) in self.delete_share_states_of(partition, &group_ids).await {
                group_ids.retain(|other| *other != group_id);
                let result = DeletableGroupResult {
                    group_id: group_id.clone(),
                    error_code: error.into(),
                    ..DeletableGroupResult::default()
                };
                deleted.insert(group_id, result);
            }
            let submitted = GroupRequest::DeleteGroups(group_ids.clone());
            let error = match self.submit_to(partition, submitted).await {
                Ok(GroupResponse::DeleteGroups(results)) => {
                    deleted.extend(group_ids.into_iter().zip(results));
                    continue;
                }
                Ok(other) => mismatch(&other),
                Err(error) => error,
            };
            deleted.extend(group_ids.into_iter().map(|group_id| {
                let result = DeletableGroupResult {
                    group_id: group_id.clone(),
                    error_code: error.into(),
                    ..DeletableGroupResult::default()
                };
                (group_id, result)
            }));
        }
        DeleteGroupsResponse {
            results: in_order(&request.groups_names, &deleted),
            ..DeleteGroupsResponse::default()
        }
    }

    pub(super) fn by_partition(&self, group_ids: &[ByteStr]) -> BTreeMap<i32, Vec<ByteStr>> {
        let mut by_partition: BTreeMap<i32, Vec<ByteStr>> = BTreeMap::new();
        for group_id in group_ids {
            let partition = self.partition_for(group_id);
            by_partition
                .entry(partition)
                .or_default()
                .push(group_id.clone());
        }
        by_partition
    }

    pub(super) async fn submit_to(
        &self,
        partition: i32,
        request: GroupRequest,
    ) -> Result<GroupResponse, ErrorCode> {
        self.check_active()?;
        let response = self.runtime.submit(partition, request).await;
        response.map_err(errors::client_error)
    }
}

pub(super) fn in_order<T: Clone>(group_ids: &[ByteStr], answers: &BTreeMap<ByteStr, T>) -> Vec<T> {
    group_ids
        .iter()
        .filter_map(|group_id| answers.get(group_id).cloned())
        .collect()
}
