//! SyncGroup (key 14), versions 0-5.

use std::collections::BTreeMap;

use bytes::Bytes;
use klamm_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use klamm_protocol::{ByteStr, ErrorCode};

use super::machine::{ClassicCompletion, Machine};
use super::state::ClassicState;
use crate::group::GroupResponse;
use crate::runtime::ReplyToken;

impl Machine<'_> {
    /// Handles a SyncGroup: followers wait, the leader's assignment is written.
    pub(in crate::group) fn sync(&mut self, request: &SyncGroupRequest, token: ReplyToken) {
        if let Err(error) = self.validate_sync(request) {
            self.refuse_sync(token, error);
            return;
        }
        match self.group.state {
            ClassicState::Empty => self.refuse_sync(token, ErrorCode::UnknownMemberId),
            ClassicState::PreparingRebalance => {
                self.refuse_sync(token, ErrorCode::RebalanceInProgress);
            }
            ClassicState::CompletingRebalance => {
                self.synced(&request.member_id);
                self.park_sync(&request.member_id, token);
                if self.group.is_leader(&request.member_id) {
                    self.write_assignment(request);
                }
            }
            ClassicState::Stable => {
                self.synced(&request.member_id);
                // A late member is told its partitions only now, and works on them from now on. In
                // Kafka its session goes on from when the others were told.
                self.renew_session(&request.member_id);
                let response = self.assignment_for(&request.member_id);
                // What was loaded may not be committed yet: a generation that is told and then lost
                // would be given out again, with another assignment.
                let response = GroupResponse::SyncGroup(Box::new(response));
                self.out.deferred = Some((token, response));
            }
        }
    }

    fn validate_sync(&self, request: &SyncGroupRequest) -> Result<(), ErrorCode> {
        if self.group.is_empty() {
            return Err(ErrorCode::UnknownMemberId);
        }
        self.group
            .validate_member(&request.member_id, request.group_instance_id.as_ref())?;
        if request.generation_id != self.group.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        // Both sides name type and protocol from version 5 on; what is not named cannot differ.
        let differs = |theirs: &Option<ByteStr>, ours: &Option<ByteStr>| match (theirs, ours) {
            (Some(theirs), Some(ours)) => theirs != ours,
            _ => false,
        };
        if differs(&request.protocol_type, &self.group.protocol_type)
            || differs(&request.protocol_name, &self.group.protocol_name)
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn park_sync(&mut self, member_id: &str, token: ReplyToken) {
        let superseded = self
            .group
            .member_mut(member_id)
            .and_then(|member| member.awaiting_sync.replace(token));
        if let Some(superseded) = superseded {
            self.refuse_sync(superseded, ErrorCode::RebalanceInProgress);
        }
    }

    /// Notes that a member sent its SyncGroup, whatever it will be told.
    fn synced(&mut self, member_id: &str) {
        self.group.pending_sync.remove(member_id);
        if self.group.pending_sync.is_empty() {
            self.cancel(super::machine::ClassicTimer::Sync);
        }
    }

    /// Members that the leader forgot get an empty assignment; those it made up get nothing.
    fn write_assignment(&mut self, request: &SyncGroupRequest) {
        let mut assignment: BTreeMap<ByteStr, Bytes> = request
            .assignments
            .iter()
            .map(|assignment| {
                let bytes = Bytes::copy_from_slice(&assignment.assignment);
                (assignment.member_id.detached(), bytes)
            })
            .collect();
        for member in self.group.members() {
            assignment.entry(member.id.clone()).or_default();
        }
        let value = self
            .group
            .to_record(|member| assignment.get(&member.id).cloned().unwrap_or_default());
        let generation = self.group.generation;
        self.write(
            value,
            ClassicCompletion::Assignment {
                generation,
                assignment,
            },
        );
    }

    /// The assignment of a generation is committed, or will not be. Another rebalance may have
    /// begun meanwhile; then it does not matter any more.
    pub(super) fn assignment_written(
        &mut self,
        generation: i32,
        assignment: &BTreeMap<ByteStr, Bytes>,
        error: Option<ErrorCode>,
    ) {
        if self.group.state != ClassicState::CompletingRebalance
            || self.group.generation != generation
        {
            return;
        }
        if let Some(error) = error {
            self.reset_assignments(error);
            self.rebalance_or_complete();
            return;
        }
        let ids: Vec<ByteStr> = self
            .group
            .members()
            .map(|member| member.id.clone())
            .collect();
        for id in &ids {
            if let Some(member) = self.group.member_mut(id) {
                member.assignment = assignment.get(id).cloned().unwrap_or_default();
            }
        }
        self.group
            .transition(ClassicState::Stable, self.now.wall_ms);
        self.metrics.rebalances_completed.increment();
        for id in &ids {
            let parked = self
                .group
                .member_mut(id)
                .and_then(|m| m.awaiting_sync.take());
            if let Some(token) = parked {
                let response = self.assignment_for(id);
                self.reply_sync(token, response);
                // Its session may have run out while it waited, which did not count.
                self.renew_session(id);
            }
        }
    }

    /// Takes the assignments back and tells those who wait for theirs.
    pub(super) fn reset_assignments(&mut self, error: ErrorCode) {
        let ids: Vec<ByteStr> = self
            .group
            .members()
            .map(|member| member.id.clone())
            .collect();
        for id in ids {
            let Some(member) = self.group.member_mut(&id) else {
                continue;
            };
            member.assignment = Bytes::new();
            if let Some(token) = member.awaiting_sync.take() {
                self.refuse_sync(token, error);
                self.renew_session(&id);
            }
        }
    }

    fn assignment_for(&self, member_id: &str) -> SyncGroupResponse {
        SyncGroupResponse {
            protocol_type: self.group.protocol_type.clone(),
            protocol_name: self.group.protocol_name.clone(),
            assignment: self
                .group
                .member(member_id)
                .map(|member| member.assignment.clone())
                .unwrap_or_default(),
            ..SyncGroupResponse::default()
        }
    }
}
