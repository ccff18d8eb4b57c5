//! Streams groups: StreamsGroupHeartbeat and StreamsGroupDescribe.

use klamm_protocol::ErrorCode;
use klamm_protocol::messages::create_topics_request::CreatableTopic;
use klamm_protocol::messages::streams_group_describe_response::DescribedGroup;
use klamm_protocol::messages::{
    StreamsGroupDescribeRequest, StreamsGroupDescribeResponse, StreamsGroupHeartbeatRequest,
    StreamsGroupHeartbeatResponse,
};

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
        let refuse = |group_id, error: ErrorCode| DescribedGroup {
            group_id,
            error_code: error.into(),
            ..DescribedGroup::default()
        };
        let take = |response| match response {
            GroupResponse::DescribeStreamsGroups(groups) => Ok(groups),
            other => Err(other),
        };
        let nameless = Some(ErrorCode::InvalidGroupId);
        let ask = GroupRequest::DescribeStreamsGroups;
        let groups = self
            .described(&request.group_ids, nameless, ask, take, refuse)
            .await;
        StreamsGroupDescribeResponse {
            groups,
            ..StreamsGroupDescribeResponse::default()
        }
    }
}
