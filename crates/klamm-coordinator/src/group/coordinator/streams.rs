//! Streams groups: StreamsGroupHeartbeat and StreamsGroupDescribe.

use std::collections::BTreeMap;

use klamm_protocol::messages::create_topics_request::CreatableTopic;
use klamm_protocol::messages::streams_group_describe_response::DescribedGroup;
use klamm_protocol::messages::{
    StreamsGroupDescribeRequest, StreamsGroupDescribeResponse, StreamsGroupHeartbeatRequest,
    StreamsGroupHeartbeatResponse,
};
use klamm_protocol::{ByteStr, ErrorCode};

use super::{GroupCoordinator, mismatch};
use crate::group::RequestContext;
use crate::group::shard::{GroupRequest, GroupResponse};
use crate::group::streams::{check_streams_request, streams_heartbeat_error};

impl GroupCoordinator {
    /// StreamsGroupHeartbeat (key 88). Answers when what it changed is committed. Also returns the
    /// internal topics that the application lacks: the caller is to have them made, and need not
    /// wait for it, as the members ask again.
    pub async fn streams_group_heartbeat(
        &self,
        context: &RequestContext,
        request: StreamsGroupHeartbeatRequest,
    ) -> (StreamsGroupHeartbeatResponse, Vec<CreatableTopic>) {
        let refuse = |error: ErrorCode| {
            let response = StreamsGroupHeartbeatResponse {
                error_code: error.into(),
                ..StreamsGroupHeartbeatResponse::default()
            };
            (response, Vec::new())
        };
        if let Err(error) = self.check_active() {
            return refuse(error);
        }
        if let Err(refusal) = check_streams_request(&request) {
            return (streams_heartbeat_error(refusal), Vec::new());
        }
        let group_id = request.group_id.clone();
        let request = GroupRequest::StreamsHeartbeat(context.clone(), Box::new(request));
        match self.submit(&group_id, request).await {
            Ok(GroupResponse::StreamsHeartbeat(response, missing)) => (*response, missing),
            Ok(other) => refuse(mismatch(&other)),
            Err(error) => refuse(error),
        }
    }

    /// StreamsGroupDescribe (key 89), in the order of the request.
    pub async fn streams_group_describe(
        &self,
        request: StreamsGroupDescribeRequest,
    ) -> StreamsGroupDescribeResponse {
        let refuse = |group_id: ByteStr, error: ErrorCode| DescribedGroup {
            group_id,
            error_code: error.into(),
            ..DescribedGroup::default()
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
            let submitted = GroupRequest::DescribeStreamsGroups(group_ids.clone());
            let error = match self.submit_to(partition, submitted).await {
                Ok(GroupResponse::DescribeStreamsGroups(groups)) => {
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
        StreamsGroupDescribeResponse {
            groups: super::admin::in_order(&request.group_ids, &described),
            ..StreamsGroupDescribeResponse::default()
        }
    }
}
