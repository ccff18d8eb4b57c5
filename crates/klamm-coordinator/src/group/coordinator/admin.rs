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
        let refuse = |group_id, error: ErrorCode| DescribedGroup {
            group_id,
            error_code: error.into(),
            ..DescribedGroup::default()
        };
        let ask = |ids| GroupRequest::DescribeGroups(ids, context.api_version);
        let take = |response| match response {
            GroupResponse::DescribeGroups(groups) => Ok(groups),
            other => Err(other),
        };
        let groups = self
            .described(&request.groups, None, ask, take, refuse)
            .await;
        DescribeGroupsResponse {
            groups,
            ..DescribeGroupsResponse::default()
        }
    }

    /// ConsumerGroupDescribe (key 69), versions 0-1, in the order of the request.
    pub async fn consumer_group_describe(
        &self,
        request: ConsumerGroupDescribeRequest,
    ) -> ConsumerGroupDescribeResponse {
        let refuse = |group_id, error: ErrorCode| DescribedConsumerGroup {
            group_id,
            error_code: error.into(),
            ..DescribedConsumerGroup::default()
        };
        let take = |response| match response {
            GroupResponse::DescribeConsumerGroups(groups) => Ok(groups),
            other => Err(other),
        };
        let nameless = Some(ErrorCode::InvalidGroupId);
        let ask = GroupRequest::DescribeConsumerGroups;
        let groups = self
            .described(&request.group_ids, nameless, ask, take, refuse)
            .await;
        ConsumerGroupDescribeResponse {
            groups,
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

    /// Has groups described by the partitions that they live on, in the order of the request.
    /// `take` takes the descriptions out of an answer, or gives it back; `refuse` stands for a group
    /// that cannot be described. A group without a name is refused with `nameless`, if that is set.
    pub(super) async fn described<T: Clone>(
        &self,
        group_ids: &[ByteStr],
        nameless: Option<ErrorCode>,
        ask: impl Fn(Vec<ByteStr>) -> GroupRequest,
        take: impl Fn(GroupResponse) -> Result<Vec<T>, GroupResponse>,
        refuse: impl Fn(ByteStr, ErrorCode) -> T,
    ) -> Vec<T> {
        let mut described = BTreeMap::new();
        for (partition, mut asked) in self.by_partition(group_ids) {
            if let Some(error) = nameless {
                asked.retain(|id| !id.is_empty());
                described.insert(ByteStr::default(), refuse(ByteStr::default(), error));
            }
            let submitted = self.submit_to(partition, ask(asked.clone())).await;
            let error = match submitted.map(&take) {
                Ok(Ok(groups)) => {
                    described.extend(asked.into_iter().zip(groups));
                    continue;
                }
                Ok(Err(other)) => mismatch(&other),
                Err(error) => error,
            };
            let refused = asked.into_iter().map(|id| (id.clone(), refuse(id, error)));
            described.extend(refused);
        }
        in_order(group_ids, &described)
    }

    fn by_partition(&self, group_ids: &[ByteStr]) -> BTreeMap<i32, Vec<ByteStr>> {
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

fn in_order<T: Clone>(group_ids: &[ByteStr], answers: &BTreeMap<ByteStr, T>) -> Vec<T> {
    group_ids
        .iter()
        .filter_map(|group_id| answers.get(group_id).cloned())
        .collect()
}
