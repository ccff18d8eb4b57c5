//! What goes into a group shard and what comes out.

use std::sync::Arc;

use klamm_protocol::messages::delete_groups_response::DeletableGroupResult;
use klamm_protocol::messages::describe_groups_response::DescribedGroup;
use klamm_protocol::messages::leave_group_request::MemberIdentity;
use klamm_protocol::messages::leave_group_response::MemberResponse;
use klamm_protocol::messages::list_groups_response::ListedGroup;
use klamm_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use klamm_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use klamm_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, ListGroupsRequest, OffsetCommitRequest,
    OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use klamm_protocol::{ByteStr, ErrorCode};

use crate::group::RequestContext;
use crate::group::classic::{ClassicCompletion, ClassicGroup, ClassicTimer};
use crate::group::foreign::{ForeignGroup, ForeignKey};
use crate::group::offsets::{DeletedTopic, OffsetUndo};
use crate::group::record::GroupRecord;
use crate::runtime::ReplyToken;

/// What a group shard is asked.
#[derive(Debug)]
pub enum GroupRequest {
    /// Key 11.
    JoinGroup(RequestContext, Box<JoinGroupRequest>),
    /// Key 14.
    SyncGroup(Box<SyncGroupRequest>),
    /// Key 12.
    Heartbeat(Box<HeartbeatRequest>),
    /// Key 13, with the members of any version in one list.
    LeaveGroup(ByteStr, Vec<MemberIdentity>),
    /// Key 8, with the topics' names filled in.
    OffsetCommit(RequestContext, Box<OffsetCommitRequest>),
    /// Key 9, one group; with the topics' names filled in. The flag asks for stable offsets.
    OffsetFetch(Box<OffsetFetchRequestGroup>, bool),
    /// Key 47.
    OffsetDelete(Box<OffsetDeleteRequest>),
    /// Key 42, the groups of this partition.
    DeleteGroups(Vec<ByteStr>),
    /// Key 15, the groups of this partition, and the version of the request.
    DescribeGroups(Vec<ByteStr>, i16),
    /// Key 16.
    ListGroups(Arc<ListGroupsRequest>),
    /// Topics were deleted from the cluster.
    TopicsDeleted(Arc<[DeletedTopic]>),
}

/// What a group shard answers.
#[derive(Debug)]
pub enum GroupResponse {
    /// To a JoinGroup.
    JoinGroup(Box<JoinGroupResponse>),
    /// To a SyncGroup.
    SyncGroup(Box<SyncGroupResponse>),
    /// To a LeaveGroup.
    LeaveGroup(Vec<MemberResponse>),
    /// To an OffsetCommit.
    OffsetCommit(Box<OffsetCommitResponse>),
    /// To an OffsetFetch.
    OffsetFetch(Box<OffsetFetchResponseGroup>),
    /// To an OffsetDelete.
    OffsetDelete(Box<OffsetDeleteResponse>),
    /// To a DeleteGroups.
    DeleteGroups(Vec<DeletableGroupResult>),
    /// To a DescribeGroups.
    DescribeGroups(Vec<DescribedGroup>),
    /// To a ListGroups.
    ListGroups(Vec<ListedGroup>),
    /// Done, nothing to say.
    Done,
    /// The request as a whole is refused.
    Refused(ErrorCode),
}

/// A timer of the shard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupTimer {
    /// One of a classic group's.
    Classic(ByteStr, ClassicTimer),
    /// The next look at expired offsets.
    Expiration,
}

/// What waits for records to be committed.
#[derive(Debug)]
pub enum GroupCompletion {
    /// The record that makes a new classic group known.
    Created(Box<GroupCreation>),
    /// A record of a classic group.
    Classic(ByteStr, ClassicCompletion),
}

/// The making of a group, and what to go back to if it fails.
#[derive(Debug)]
pub struct GroupCreation {
    pub(super) group_id: ByteStr,
    /// The JoinGroup that made it.
    pub(super) token: ReplyToken,
    /// The empty group of another protocol that had the name before.
    pub(super) replaced: Option<ForeignGroup>,
}

/// Takes a replayed record back, or confirms it.
#[derive(Debug)]
pub enum GroupUndo {
    /// An offset, and whether its record made the group.
    Offset(OffsetUndo, Option<ByteStr>),
    /// A group was deleted or set.
    Group(ByteStr, Option<Group>),
    /// Nothing changed.
    Nothing,
}

/// A group of any protocol.
#[derive(Debug)]
pub enum Group {
    /// The classic protocol, and groups that only hold offsets.
    Classic(Box<ClassicGroup>),
    /// Another protocol, not served here.
    Foreign(Box<ForeignGroup>),
}

impl Group {
    pub(in crate::group) fn is_empty(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_empty(),
            Group::Foreign(group) => group.is_empty(),
        }
    }

    /// The records that delete the group, offsets aside.
    pub(in crate::group) fn tombstones(&self, group_id: &ByteStr) -> Vec<GroupRecord> {
        match self {
            Group::Classic(_) => vec![GroupRecord::GroupMetadata {
                group_id: group_id.clone(),
                value: None,
            }],
            Group::Foreign(group) => foreign_tombstones(group_id, group),
        }
    }
}

pub(super) fn foreign_tombstones(group_id: &ByteStr, group: &ForeignGroup) -> Vec<GroupRecord> {
    group
        .keys()
        .map(|key| GroupRecord::Foreign {
            key: ForeignKey {
                kind: i16::from_be_bytes([
                    key.first().copied().unwrap_or(0),
                    key.get(1).copied().unwrap_or(0),
                ]),
                group_id: Some(group_id.clone()),
                member_id: None,
                bytes: key.clone(),
            },
            value: None,
        })
        .collect()
}
