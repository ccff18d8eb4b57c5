//! Preparing and completing a generation, and what happens when time is up.

use klamm_protocol::{ByteStr, ErrorCode};

use super::group::JoinTimer;
use super::machine::{ClassicCompletion, ClassicTimer, Machine};
use super::state::ClassicState;
use crate::group::errors;
use crate::runtime::WriteOutcome;

impl Machine<'_> {
    /// Starts a rebalance, or goes on with the one that is under way.
    pub(super) fn rebalance_or_complete(&mut self) {
        if self
            .group
            .state
            .may_become(ClassicState::PreparingRebalance)
        {
            self.prepare_rebalance();
        } else {
            self.maybe_complete_join();
        }
    }

    /// Makes everybody rejoin. An empty group first waits a while for more members, so that the
    /// start of an application makes one rebalance instead of one per instance.
    pub(in crate::group) fn prepare_rebalance(&mut self) {
        if self.group.state == ClassicState::CompletingRebalance {
            self.reset_assignments(ErrorCode::RebalanceInProgress);
        }
        self.group.pending_sync.clear();
        self.cancel(ClassicTimer::Sync);
        let is_initial = self.group.state == ClassicState::Empty;
        self.group
            .transition(ClassicState::PreparingRebalance, self.now.wall_ms);
        if is_initial {
            let delay_ms = self.config.initial_rebalance_delay_ms;
            let remaining_ms = self
                .group
                .rebalance_timeout_ms()
                .saturating_sub(delay_ms)
                .max(0);
            self.group.new_member_added = false;
            let timer = JoinTimer::Initial {
                delay_ms,
                remaining_ms,
            };
            self.schedule_join(timer, delay_ms);
        } else if self.group.has_all_members_joined() {
            self.complete_join();
        } else {
            let timeout_ms = self.group.rebalance_timeout_ms();
            self.schedule_join(JoinTimer::Rebalance, timeout_ms);
        }
    }

    /// Completes the join phase if nobody is left to wait for. The first rebalance always waits
    /// for its timer.
    pub(super) fn maybe_complete_join(&mut self) {
        if self.group.state == ClassicState::PreparingRebalance
            && self.group.previous_state != Some(ClassicState::Empty)
            && self.group.has_all_members_joined()
        {
            self.complete_join();
        }
    }

    /// Forms the next generation of those who joined. Static members stay even if they did not.
    pub(super) fn complete_join(&mut self) {
        self.cancel_join();
        let missing: Vec<ByteStr> = self
            .group
            .members()
            .filter(|member| !member.is_awaiting_join() && member.instance_id.is_none())
            .map(|member| member.id.clone())
            .collect();
        for id in &missing {
            if let Some(member) = self.remove(id) {
                self.abandon(&member, ErrorCode::UnknownMemberId);
            }
        }
        if !self.group.elect_joined_leader() && self.group.member_count() > 0 {
            // Only absent static members are left: wait on until they come or expire.
            let timeout_ms = self.group.rebalance_timeout_ms();
            self.schedule_join(JoinTimer::Rebalance, timeout_ms);
            return;
        }
        self.group.start_generation(self.now.wall_ms);
        if self.group.is_empty() {
            self.write_group(ClassicCompletion::Emptied);
            return;
        }
        let ids: Vec<ByteStr> = self
            .group
            .members()
            .map(|member| member.id.clone())
            .collect();
        for id in ids {
            if let Some(token) = self.group.take_join(&id) {
                let response = self.generation_for(&id);
                self.reply_join(token, response);
            }
            self.renew_session(&id);
            if let Some(member) = self.group.member_mut(&id) {
                member.is_new = false;
            }
            self.group.pending_sync.insert(id);
        }
        let timeout_ms = self.group.rebalance_timeout_ms();
        self.schedule(ClassicTimer::Sync, timeout_ms);
    }

    /// A timer of the group fired.
    pub(in crate::group) fn timer_fired(&mut self, timer: ClassicTimer) {
        match timer {
            ClassicTimer::Heartbeat(member_id) => self.session_expired(&member_id),
            ClassicTimer::Join => self.join_phase_over(),
            ClassicTimer::Sync => self.sync_phase_over(),
        }
    }

    fn session_expired(&mut self, member_id: &ByteStr) {
        if self.group.is_pending(member_id) {
            self.group.remove(member_id);
            // Unlike a join, a departure ends even the initial delay, as in Kafka.
            if self.group.state == ClassicState::PreparingRebalance
                && self.group.has_all_members_joined()
            {
                self.complete_join();
            }
            return;
        }
        let expired = self
            .group
            .member(member_id)
            .is_some_and(|member| !member.has_satisfied_heartbeat());
        if !expired {
            return;
        }
        self.metrics.members_expired.increment();
        if let Some(member) = self.group.remove(member_id) {
            self.abandon(&member, ErrorCode::UnknownMemberId);
        }
        match self.group.state {
            ClassicState::Stable | ClassicState::CompletingRebalance => {
                self.rebalance_or_complete();
            }
            ClassicState::PreparingRebalance if self.group.has_all_members_joined() => {
                self.complete_join();
            }
            ClassicState::PreparingRebalance | ClassicState::Empty => {}
        }
    }

    fn join_phase_over(&mut self) {
        match self.group.join_timer.take() {
            Some(JoinTimer::Initial {
                delay_ms,
                remaining_ms,
            }) if self.group.new_member_added && remaining_ms != 0 => {
                self.group.new_member_added = false;
                let next_delay_ms = self.config.initial_rebalance_delay_ms.min(remaining_ms);
                let timer = JoinTimer::Initial {
                    delay_ms: next_delay_ms,
                    remaining_ms: remaining_ms.saturating_sub(delay_ms).max(0),
                };
                self.schedule_join(timer, next_delay_ms);
            }
            Some(_) if self.group.state == ClassicState::PreparingRebalance => {
                self.complete_join();
            }
            _ => {}
        }
    }

    fn sync_phase_over(&mut self) {
        let waited_for = matches!(
            self.group.state,
            ClassicState::CompletingRebalance | ClassicState::Stable
        );
        if !waited_for || self.group.pending_sync.is_empty() {
            return;
        }
        let silent: Vec<ByteStr> = self.group.pending_sync.iter().cloned().collect();
        for id in &silent {
            if let Some(member) = self.remove(id) {
                self.abandon(&member, ErrorCode::UnknownMemberId);
            }
        }
        self.prepare_rebalance();
    }

    /// The log was read to its end: sessions start now, and a group that is larger than the limit
    /// allows by now is made to rejoin.
    pub(in crate::group) fn loaded(&mut self) {
        let ids: Vec<ByteStr> = self
            .group
            .members()
            .map(|member| member.id.clone())
            .collect();
        for id in ids {
            self.renew_session(&id);
        }
        if self.group.member_count() > self.config.max_size {
            self.prepare_rebalance();
        }
    }

    /// The fate of a record of this group is known.
    pub(in crate::group) fn written(
        &mut self,
        completion: ClassicCompletion,
        outcome: WriteOutcome,
    ) {
        let error = outcome.error().map(errors::client_error);
        match completion {
            ClassicCompletion::Assignment {
                generation,
                assignment,
            } => self.assignment_written(generation, &assignment, error),
            ClassicCompletion::StaticMember(replacement) => match error {
                None => self.static_member_replaced(&replacement),
                Some(error) => self.static_member_not_replaced(*replacement, error),
            },
            ClassicCompletion::Emptied => {
                // Should the coordinator move now, the last generation comes back and expires.
                if let Some(error) = error {
                    tracing::warn!(group = %self.group.id, %error, "an empty generation was not written");
                }
            }
        }
    }
}
