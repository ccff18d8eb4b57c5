//! Requests as tests write them.

use bytes::Bytes;
use klamm_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use klamm_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use klamm_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use klamm_protocol::messages::{JoinGroupRequest, OffsetCommitRequest, SyncGroupRequest};
use klamm_protocol::{ByteStr, ErrorCode};

use super::GROUP;
use crate::group::{GroupRequest, RequestContext};

pub(in crate::group) fn code(code: i16) -> ErrorCode {
    ErrorCode::from_code(code).expect("a known error code")
}

pub(in crate::group) fn sync_request(
    member_id: &str,
    name: Option<&str>,
    generation: i32,
    given: &[(&str, &str)],
) -> GroupRequest {
    GroupRequest::SyncGroup(Box::new(SyncGroupRequest {
        group_id: GROUP.into(),
        generation_id: generation,
        member_id: member_id.into(),
        group_instance_id: name.map(ByteStr::from),
        assignments: given
            .iter()
            .map(|(id, assignment)| SyncGroupRequestAssignment {
                member_id: (*id).into(),
                assignment: Bytes::copy_from_slice(assignment.as_bytes()),
                ..SyncGroupRequestAssignment::default()
            })
            .collect(),
        ..SyncGroupRequest::default()
    }))
}

/// The metadata of a consumer that subscribes to `topics`, version 0.
pub(in crate::group) fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = vec![0, 0];
    bytes.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        bytes.extend((topic.len() as i16).to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend((-1_i32).to_be_bytes());
    bytes.into()
}

/// A JoinGroup to be.
#[derive(Clone, Debug)]
pub(in crate::group) struct Join {
    pub(in crate::group) version: i16,
    pub(in crate::group) member_id: String,
    pub(in crate::group) instance_id: Option<String>,
    pub(in crate::group) protocol_type: String,
    pub(in crate::group) protocols: Vec<(String, Bytes)>,
    pub(in crate::group) session_timeout_ms: i32,
    pub(in crate::group) rebalance_timeout_ms: i32,
}

impl Join {
    /// A new dynamic member that need not come back with its id (version 3).
    pub(in crate::group) fn old() -> Join {
        Join {
            version: 3,
            member_id: String::new(),
            instance_id: None,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), subscription(&["t"]))],
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 60_000,
        }
    }

    /// A new dynamic member of the newest version.
    pub(in crate::group) fn new() -> Join {
        Join {
            version: 9,
            ..Join::old()
        }
    }

    /// A static member of the newest version.
    pub(in crate::group) fn named(name: &str) -> Join {
        Join {
            instance_id: Some(name.into()),
            ..Join::new()
        }
    }

    pub(in crate::group) fn id(mut self, member_id: &str) -> Join {
        self.member_id = member_id.into();
        self
    }

    pub(in crate::group) fn version(mut self, version: i16) -> Join {
        self.version = version;
        self
    }

    pub(in crate::group) fn protocols(mut self, names: &[&str]) -> Join {
        let metadata = subscription(&["t"]);
        self.protocols = names
            .iter()
            .map(|name| ((*name).to_owned(), metadata.clone()))
            .collect();
        self
    }

    pub(in crate::group) fn subscribed(mut self, topics: &[&str]) -> Join {
        self.protocols = vec![("range".into(), subscription(topics))];
        self
    }

    pub(in crate::group) fn context(&self) -> RequestContext {
        RequestContext {
            api_version: self.version,
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
        }
    }

    pub(in crate::group) fn message(&self) -> JoinGroupRequest {
        JoinGroupRequest {
            group_id: GROUP.into(),
            session_timeout_ms: self.session_timeout_ms,
            rebalance_timeout_ms: self.rebalance_timeout_ms,
            member_id: self.member_id.as_str().into(),
            group_instance_id: self.instance_id.as_deref().map(ByteStr::from),
            protocol_type: self.protocol_type.as_str().into(),
            protocols: self
                .protocols
                .iter()
                .map(|(name, metadata)| JoinGroupRequestProtocol {
                    name: name.as_str().into(),
                    metadata: metadata.clone(),
                    ..JoinGroupRequestProtocol::default()
                })
                .collect(),
            ..JoinGroupRequest::default()
        }
    }

    pub(in crate::group) fn request(&self) -> GroupRequest {
        GroupRequest::JoinGroup(self.context(), Box::new(self.message()))
    }
}

/// An OffsetCommit to be, of partition 0 of topic `t`.
#[derive(Clone, Debug)]
pub(in crate::group) struct Commit {
    pub(in crate::group) version: i16,
    pub(in crate::group) group_id: String,
    pub(in crate::group) member_id: String,
    pub(in crate::group) generation: i32,
    pub(in crate::group) topic: String,
    pub(in crate::group) offset: i64,
    pub(in crate::group) metadata: Option<String>,
    pub(in crate::group) retention_ms: i64,
}

impl Commit {
    /// From outside of the group.
    pub(in crate::group) fn simple(offset: i64) -> Commit {
        Commit {
            version: 9,
            group_id: GROUP.into(),
            member_id: String::new(),
            generation: -1,
            topic: "t".into(),
            offset,
            metadata: None,
            retention_ms: -1,
        }
    }

    /// From a member.
    pub(in crate::group) fn by(member_id: &str, generation: i32, offset: i64) -> Commit {
        Commit {
            member_id: member_id.into(),
            generation,
            ..Commit::simple(offset)
        }
    }

    pub(in crate::group) fn request(&self) -> GroupRequest {
        let context = RequestContext {
            api_version: self.version,
            ..RequestContext::default()
        };
        let partition = OffsetCommitRequestPartition {
            partition_index: 0,
            committed_offset: self.offset,
            committed_leader_epoch: 3,
            committed_metadata: self.metadata.as_deref().map(ByteStr::from),
            ..OffsetCommitRequestPartition::default()
        };
        let topic = OffsetCommitRequestTopic {
            name: self.topic.as_str().into(),
            partitions: vec![partition],
            ..OffsetCommitRequestTopic::default()
        };
        let request = OffsetCommitRequest {
            group_id: self.group_id.as_str().into(),
            generation_id_or_member_epoch: self.generation,
            member_id: self.member_id.as_str().into(),
            retention_time_ms: self.retention_ms,
            topics: vec![topic],
            ..OffsetCommitRequest::default()
        };
        GroupRequest::OffsetCommit(context, Box::new(request))
    }
}
