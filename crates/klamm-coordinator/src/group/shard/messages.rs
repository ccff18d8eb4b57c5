//! What goes into a group shard and what comes out.

use std::sync::Arc;

use klamm_protocol::messages::alter_share_group_offsets_response::AlterShareGroupOffsetsResponseTopic;
use klamm_protocol::messages::consumer_group_describe_response::DescribedGroup as DescribedConsumerGroup;
use klamm_protocol::messages::create_topics_request::CreatableTopic;
use klamm_protocol::messages::delete_groups_response::DeletableGroupResult;
use klamm_protocol::messages::describe_groups_response::DescribedGroup;
use klamm_protocol::messages::leave_group_request::MemberIdentity;
use klamm_protocol::messages::leave_group_response::MemberResponse;
use klamm_protocol::messages::list_groups_response::ListedGroup;
use klamm_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use klamm_protocol::messages::offset_fetch_response::OffsetFetchResponseGroup;
use klamm_protocol::messages::share_group_describe_response::DescribedGroup as DescribedShareGroup;
use klamm_protocol::messages::streams_group_describe_response::DescribedGroup as DescribedStreamsGroup;
use klamm_protocol::messages::{
    AlterShareGroupOffsetsRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse,
    DeleteShareGroupOffsetsRequest, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    ListGroupsRequest, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest,
    OffsetDeleteResponse, ShareGroupHeartbeatRequest, ShareGroupHeartbeatResponse,
    StreamsGroupHeartbeatRequest, StreamsGroupHeartbeatResponse, SyncGroupRequest,
    SyncGroupResponse, TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;

use crate::group::RequestContext;
use crate::group::classic::{ClassicCompletion, ClassicGroup, ClassicTimer};
use crate::group::consumer::{
    self, ConsumerGroup, ConsumerTimer, ConsumerUndo, DowngradeCompletion,
};
use crate::group::offsets::{DeletedTopic, OffsetUndo, PendingUndo};
use crate::group::record::GroupRecord;
use crate::group::share::{
    self, DeletedOffsets, OffsetsToInitialize, ShareGroup, ShareGroupUndo, ShareStates,
};
use crate::group::streams::{self, StreamsGroup, StreamsTimer, StreamsUndo};
use crate::metrics::GroupProtocol;
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
    /// Key 68, its form checked.
    ConsumerHeartbeat(RequestContext, Box<ConsumerGroupHeartbeatRequest>),
    /// Key 69, the groups of this partition.
    DescribeConsumerGroups(Vec<ByteStr>),
    /// Key 8, with the topics' names filled in.
    OffsetCommit(RequestContext, Box<OffsetCommitRequest>),
    /// Key 28, and what the verification of the transaction gave.
    TxnOffsetCommit(Box<TxnOffsetCommitRequest>, Option<u64>),
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
    /// Key 76, its form checked.
    ShareHeartbeat(RequestContext, Box<ShareGroupHeartbeatRequest>),
    /// Key 77, the groups of this partition.
    DescribeShareGroups(Vec<ByteStr>),
    /// Which partitions of a share group have share state.
    ShareStates(ByteStr),
    /// The share coordinator made state for partitions of a group, or did not.
    ShareStatesMade(ByteStr, Box<OffsetsToInitialize>, bool),
    /// Key 91.
    AlterShareOffsets(Box<AlterShareGroupOffsetsRequest>),
    /// Key 92, the first half.
    DeleteShareOffsets(Box<DeleteShareGroupOffsetsRequest>),
    /// Key 92, the second half: the states of these topics are gone.
    ShareOffsetsDeleted(ByteStr, Vec<Uuid>),
    /// Key 42, what has to go before the share groups among these.
    BeginDeleteShareGroups(Vec<ByteStr>),
    /// Key 88, its form checked.
    StreamsHeartbeat(RequestContext, Box<StreamsGroupHeartbeatRequest>),
    /// Key 89, the groups of this partition.
    DescribeStreamsGroups(Vec<ByteStr>),
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
    /// To a ConsumerGroupHeartbeat.
    ConsumerHeartbeat(Box<ConsumerGroupHeartbeatResponse>),
    /// To a ConsumerGroupDescribe.
    DescribeConsumerGroups(Vec<DescribedConsumerGroup>),
    /// To an OffsetCommit.
    OffsetCommit(Box<OffsetCommitResponse>),
    /// To a TxnOffsetCommit.
    TxnOffsetCommit(Box<TxnOffsetCommitResponse>),
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
    /// To a ShareGroupHeartbeat; with share state that is to be made before it is sent.
    ShareHeartbeat(
        Box<ShareGroupHeartbeatResponse>,
        Option<OffsetsToInitialize>,
    ),
    /// To a ShareGroupDescribe.
    DescribeShareGroups(Vec<DescribedShareGroup>),
    /// Which partitions have share state; none if there is no such share group.
    ShareStates(Option<ShareStates>),
    /// To an AlterShareGroupOffsets; with share state that is to be made before it is sent.
    AlterShareOffsets(
        Vec<AlterShareGroupOffsetsResponseTopic>,
        OffsetsToInitialize,
    ),
    /// To a DeleteShareGroupOffsets: what is to be deleted.
    DeleteShareOffsets(DeletedOffsets),
    /// Share groups, each with what is to be deleted before it.
    DoomedShareGroups(Vec<(ByteStr, DeletedOffsets)>),
    /// To a StreamsGroupHeartbeat; with internal topics that are to be made.
    StreamsHeartbeat(Box<StreamsGroupHeartbeatResponse>, Vec<CreatableTopic>),
    /// To a StreamsGroupDescribe.
    DescribeStreamsGroups(Vec<DescribedStreamsGroup>),
    /// A request about a share group is refused.
    ShareRefused(consumer::Refusal),
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
    /// One of a consumer group's.
    Consumer(ByteStr, ConsumerTimer),
    /// The session of a share group's member.
    ShareSession(ByteStr, ByteStr),
    /// One of a streams group's.
    Streams(ByteStr, StreamsTimer),
    /// The next look at expired offsets.
    Expiration,
    /// The next count of groups, for the metrics.
    Counting,
}

/// What waits for records to be committed.
#[derive(Debug)]
pub enum GroupCompletion {
    /// The record that makes a new classic group known.
    Created(Box<GroupCreation>),
    /// A record of a classic group.
    Classic(ByteStr, ClassicCompletion),
    /// The removal of members from a consumer group. If it fails, these timers are set anew.
    Fenced(ByteStr, Vec<(ConsumerTimer, i32)>),
    /// The records that made a classic group of a consumer group.
    Downgraded(ByteStr, DowngradeCompletion),
    /// The removal of a member from a share group.
    ShareFenced(ByteStr, ByteStr),
    /// The removal of a member from a streams group.
    StreamsFenced(ByteStr, ByteStr),
}

/// The making of a group, and what to go back to if it fails.
#[derive(Debug)]
pub struct GroupCreation {
    pub(super) group_id: ByteStr,
    /// The JoinGroup that made it.
    pub(super) token: ReplyToken,
    /// The empty group of another protocol that had the name before.
    pub(super) replaced: Option<Group>,
}

/// Takes a replayed record back, or confirms it.
#[derive(Debug)]
pub enum GroupUndo {
    /// An offset, and whether its record made the group.
    Offset(OffsetUndo, Option<ByteStr>),
    /// An offset was deleted, and with it those of open transactions.
    Deletion(OffsetUndo, Option<PendingUndo>),
    /// An offset of an open transaction, and whether its record made the group.
    Pending(PendingUndo, bool),
    /// A group was deleted or set.
    Group(ByteStr, Option<Group>),
    /// A classic group with members took the place of another, or of none.
    TakenOver(ByteStr, Option<Group>),
    /// Part of a consumer group changed.
    Consumer(ByteStr, ConsumerUndo),
    /// Part of a share group changed.
    Share(ByteStr, ShareGroupUndo),
    /// Part of a streams group changed.
    Streams(ByteStr, StreamsUndo),
    /// Nothing changed.
    Nothing,
}

/// A group of any protocol.
#[derive(Debug)]
pub enum Group {
    /// The classic protocol, and groups that only hold offsets.
    Classic(Box<ClassicGroup>),
    /// The consumer protocol.
    Consumer(Box<ConsumerGroup>),
    /// Share groups.
    Share(Box<ShareGroup>),
    /// Streams groups.
    Streams(Box<StreamsGroup>),
}

impl Group {
    pub(in crate::group) fn is_empty(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_empty(),
            Group::Consumer(group) => group.is_empty(),
            Group::Share(group) => group.is_empty(),
            Group::Streams(group) => group.is_empty(),
        }
    }

    /// Protocol and state, as metrics name them.
    pub(super) fn protocol_and_state(&self) -> (GroupProtocol, &'static str) {
        match self {
            Group::Classic(group) => (GroupProtocol::Classic, group.state().name()),
            Group::Consumer(group) => (GroupProtocol::Consumer, group.state().name()),
            Group::Share(group) => (GroupProtocol::Share, group.state_name()),
            Group::Streams(group) => (GroupProtocol::Streams, group.state().name()),
        }
    }

    /// Whether a classic member may take the name over.
    pub(super) fn may_become_classic(&self) -> bool {
        match self {
            Group::Classic(_) => true,
            Group::Consumer(group) => group.is_empty(),
            Group::Share(_) => false,
            Group::Streams(group) => group.is_empty(),
        }
    }

    /// Whether a member subscribes to the topic, as far as that can be told.
    pub(in crate::group) fn is_subscribed_to(&self, topic: &str) -> bool {
        match self {
            Group::Classic(group) => group.is_subscribed_to(topic),
            Group::Consumer(group) => group.is_subscribed_to(topic),
            Group::Share(group) => group.is_subscribed_to(topic),
            Group::Streams(group) => group.is_subscribed_to(topic),
        }
    }

    /// The records that delete the group, offsets aside.
    pub(in crate::group) fn tombstones(&self, group_id: &ByteStr) -> Vec<GroupRecord> {
        match self {
            Group::Classic(_) => vec![GroupRecord::GroupMetadata {
                group_id: group_id.clone(),
                value: None,
            }],
            Group::Consumer(group) => consumer::tombstones(group),
            Group::Share(group) => share::share_tombstones(group),
            Group::Streams(group) => streams::streams_tombstones(group),
        }
    }
}
