//! A consumer, as a client library would write it.

use std::collections::BTreeMap;

use bytes::Bytes;
use klamm_coordinator::RequestContext;
use klamm_coordinator::group::{GroupRequest, GroupResponse};
use klamm_coordinator::runtime::ReplyToken;
use klamm_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use klamm_protocol::messages::leave_group_request::MemberIdentity;
use klamm_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use klamm_protocol::messages::{
    HeartbeatRequest, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest,
};
use klamm_protocol::{ByteStr, ErrorCode};

use super::Flaw;
use super::host::{Answer, Host};

/// The group's name.
pub const GROUP: &str = "g";
/// Partitions that the leader hands out.
pub const PARTITIONS: usize = 6;
const SESSION_TIMEOUT_MS: i32 = 6_000;
const REBALANCE_TIMEOUT_MS: i32 = 4_000;

/// Where a member stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not in the group, or about to join again.
    Out,
    /// Waits for the answer to its JoinGroup.
    Joining(ReplyToken),
    /// Waits for the answer to its SyncGroup.
    Syncing(ReplyToken),
    /// Has its assignment.
    Stable,
    /// Waits for the answer to a heartbeat.
    Beating(ReplyToken),
}

/// A member that got its assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The generation.
    pub generation: i32,
    /// The member: its name if it is static, for its id changes within a generation.
    pub member: String,
    /// What it got.
    pub partitions: Vec<u8>,
}

/// A consumer.
#[derive(Clone, Debug)]
pub struct Member {
    /// Which one it is.
    pub index: usize,
    /// Its name, if it is a static member.
    pub instance: Option<String>,
    /// Its id, empty before the coordinator gave it one.
    pub member_id: String,
    /// The generation it is in.
    pub generation: i32,
    /// Where it stands.
    pub phase: Phase,
    /// The assignment it works on.
    pub partitions: Vec<u8>,
    /// Does nothing for now; it may wake up as a zombie.
    pub asleep: bool,
}

impl Member {
    pub(super) fn new(index: usize, is_static: bool) -> Member {
        Member {
            index,
            instance: is_static.then(|| format!("static-{index}")),
            member_id: String::new(),
            generation: -1,
            phase: Phase::Out,
            partitions: Vec::new(),
            asleep: false,
        }
    }

    fn instance(&self) -> Option<ByteStr> {
        self.instance.as_deref().map(ByteStr::from)
    }

    pub(super) fn context(&self) -> RequestContext {
        RequestContext {
            api_version: 9,
            client_id: format!("client-{}", self.index).as_str().into(),
            client_host: "/127.0.0.1".into(),
        }
    }

    /// Does the next thing that a consumer does. Gives what it was assigned, if that is news.
    pub(super) fn step(&mut self, host: &mut Host, flaw: Flaw) -> Option<Assigned> {
        if self.asleep {
            return None;
        }
        match self.phase {
            Phase::Out => self.join(host),
            Phase::Joining(token) => {
                if let Some(answer) = host.answers.remove(&token) {
                    self.joined(answer, host, flaw);
                }
            }
            Phase::Syncing(token) => {
                if let Some(answer) = host.answers.remove(&token) {
                    return self.synced(answer);
                }
            }
            Phase::Stable => self.heartbeat(host),
            Phase::Beating(token) => {
                if let Some(answer) = host.answers.remove(&token) {
                    self.phase = Phase::Stable;
                    if let Err(error) = answer {
                        self.refused(error);
                    }
                }
            }
        }
        None
    }

    fn join(&mut self, host: &mut Host) {
        let request = JoinGroupRequest {
            group_id: GROUP.into(),
            session_timeout_ms: SESSION_TIMEOUT_MS,
            rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
            member_id: self.member_id.as_str().into(),
            group_instance_id: self.instance(),
            protocol_type: "consumer".into(),
            protocols: vec![JoinGroupRequestProtocol {
                name: "range".into(),
                metadata: Bytes::from_static(b"\0\0\0\0\0\0\0\0\0\0"),
                ..JoinGroupRequestProtocol::default()
            }],
            ..JoinGroupRequest::default()
        };
        let what = format!("{} joins as {:?}", self.index, self.member_id);
        let token = host.send(
            what,
            GroupRequest::JoinGroup(self.context(), Box::new(request)),
        );
        self.phase = Phase::Joining(token);
    }

    fn joined(&mut self, answer: Answer, host: &mut Host, flaw: Flaw) {
        self.phase = Phase::Out;
        let response = match answer {
            Ok(GroupResponse::JoinGroup(response)) => response,
            Ok(_) => return,
            Err(error) => return self.refused(error),
        };
        match ErrorCode::from_code(response.error_code) {
            Some(ErrorCode::None) => {
                self.member_id = response.member_id.to_string();
                self.generation = response.generation_id;
                self.sync(&response, host, flaw);
            }
            Some(ErrorCode::MemberIdRequired) => self.member_id = response.member_id.to_string(),
            Some(error) => self.refused(error),
            None => {}
        }
    }

    fn sync(&mut self, joined: &JoinGroupResponse, host: &mut Host, flaw: Flaw) {
        let mut assignments = Vec::new();
        if joined.leader == joined.member_id && !joined.skip_assignment {
            let mut given: BTreeMap<ByteStr, Vec<u8>> = BTreeMap::new();
            for partition in 0..PARTITIONS {
                let place = partition % joined.members.len().max(1);
                if let Some(member) = joined.members.get(place) {
                    given
                        .entry(member.member_id.clone())
                        .or_default()
                        .push(partition as u8);
                }
            }
            if flaw == Flaw::LeadersShare {
                for partitions in given.values_mut() {
                    partitions.push(0);
                }
            }
            assignments = given
                .into_iter()
                .map(|(member_id, partitions)| SyncGroupRequestAssignment {
                    member_id,
                    assignment: partitions.into(),
                    ..SyncGroupRequestAssignment::default()
                })
                .collect();
        }
        let request = SyncGroupRequest {
            group_id: GROUP.into(),
            generation_id: self.generation,
            member_id: self.member_id.as_str().into(),
            group_instance_id: self.instance(),
            protocol_type: Some("consumer".into()),
            protocol_name: Some("range".into()),
            assignments,
            ..SyncGroupRequest::default()
        };
        let what = format!("{} syncs in {}", self.index, self.generation);
        let token = host.send(what, GroupRequest::SyncGroup(Box::new(request)));
        self.phase = Phase::Syncing(token);
    }

    fn synced(&mut self, answer: Answer) -> Option<Assigned> {
        self.phase = Phase::Out;
        let response = match answer {
            Ok(GroupResponse::SyncGroup(response)) => response,
            Ok(_) => return None,
            Err(error) => {
                self.refused(error);
                return None;
            }
        };
        match ErrorCode::from_code(response.error_code) {
            Some(ErrorCode::None) => {
                self.phase = Phase::Stable;
                self.partitions = response.assignment.to_vec();
                Some(Assigned {
                    generation: self.generation,
                    member: self.instance.clone().unwrap_or(self.member_id.clone()),
                    partitions: self.partitions.clone(),
                })
            }
            Some(error) => {
                self.refused(error);
                None
            }
            None => None,
        }
    }

    fn heartbeat(&mut self, host: &mut Host) {
        let request = HeartbeatRequest {
            group_id: GROUP.into(),
            generation_id: self.generation,
            member_id: self.member_id.as_str().into(),
            group_instance_id: self.instance(),
            ..HeartbeatRequest::default()
        };
        let what = format!("{} beats", self.index);
        let token = host.send(what, GroupRequest::Heartbeat(Box::new(request)));
        self.phase = Phase::Beating(token);
    }

    pub(super) fn leave(&mut self, host: &mut Host) {
        if self.member_id.is_empty() || self.instance.is_some() {
            return;
        }
        let identity = MemberIdentity {
            member_id: self.member_id.as_str().into(),
            ..MemberIdentity::default()
        };
        let what = format!("{} leaves", self.index);
        host.send(what, GroupRequest::LeaveGroup(GROUP.into(), vec![identity]));
        self.start_over();
    }

    /// The process starts anew: it knows its name and nothing else.
    pub(super) fn start_over(&mut self) {
        *self = Member::new(self.index, self.instance.is_some());
    }

    /// What a consumer does about an error.
    pub(super) fn refused(&mut self, error: ErrorCode) {
        match error {
            ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId => self.start_over(),
            ErrorCode::IllegalGeneration => {
                self.generation = -1;
                self.phase = Phase::Out;
            }
            ErrorCode::RebalanceInProgress => self.phase = Phase::Out,
            // The coordinator is elsewhere or busy: ask again where one stands.
            _ => {
                if !matches!(self.phase, Phase::Stable) {
                    self.phase = Phase::Out;
                }
            }
        }
    }
}
