//! Roles, followers and ISR: events that come from other brokers.

use std::sync::PoisonError;

use klamm_log::LogError;
use klamm_protocol::ErrorCode;

use super::Partition;
use crate::manager::error::follower_error_code;
use crate::manager::lock;
use crate::manager::metadata::TopicSettings;
use crate::manager::wait::Wakes;
use crate::partition::leader::FollowerRefused;
use crate::partition::{
    AlterOutcome, AlterPartitionError, BrokerLiveness, FollowerFetch, IsrProposal, LocalLog,
    PartitionMetadata, Role, Transition,
};

impl Partition {
    /// Notes a follower's fetch; returns the ISR change to propose, if any.
    pub(crate) fn follower_fetched(
        &self,
        fetch: FollowerFetch,
        names_epoch: bool,
    ) -> Result<Option<IsrProposal>, ErrorCode> {
        let mut wakes = Wakes::default();
        let proposal = {
            let mut core = lock(&self.core);
            let leader = core
                .role
                .as_leader_mut()
                .ok_or(ErrorCode::NotLeaderOrFollower)?;
            let effects = leader
                .follower_fetched(fetch)
                .map_err(|refused| follower_error_code(refused, names_epoch))?;
            if effects.high_watermark.is_some() {
                core.high_watermark_moved(&self.log, &mut wakes);
            }
            self.settle_deletes(&mut core, &mut wakes);
            effects.proposal
        };
        wakes.wake();
        Ok(proposal)
    }

    /// Whether broker `id` holds a replica, as far as this leader knows.
    pub(crate) fn check_follower(&self, id: i32, names_epoch: bool) -> Result<(), ErrorCode> {
        let core = lock(&self.core);
        let leader = core
            .role
            .as_leader()
            .ok_or(ErrorCode::NotLeaderOrFollower)?;
        match leader.follower(id) {
            Some(_) => Ok(()),
            None => Err(follower_error_code(
                FollowerRefused::NotAReplica,
                names_epoch,
            )),
        }
    }

    /// Whether what broker `id` fetches is held to a bandwidth.
    pub(crate) fn throttles(&self, id: i32) -> bool {
        let in_sync = |role: &Role| {
            let leader = role.as_leader();
            leader.is_some_and(|leader| leader.isr().members().contains(&id))
        };
        self.throttled.as_leader() && !self.role(in_sync)
    }

    /// Proposes to drop lagging replicas.
    pub(crate) fn check_lag(&self, now_ms: i64) -> Option<IsrProposal> {
        lock(&self.core).role.as_leader_mut()?.check_lag(now_ms)
    }

    /// Takes the controller's answer to an ISR proposal; returns what to send again.
    pub(crate) fn alter_partition_answered(
        &self,
        proposal: u64,
        answer: Result<&PartitionMetadata, AlterPartitionError>,
        now_ms: i64,
    ) -> Option<IsrProposal> {
        let mut wakes = Wakes::default();
        let again = {
            let mut core = lock(&self.core);
            let leader = core.role.as_leader_mut()?;
            match leader.alter_partition_answered(proposal, answer, now_ms) {
                AlterOutcome::Committed { .. } => {
                    core.high_watermark_moved(&self.log, &mut wakes);
                    None
                }
                AlterOutcome::Retry(again) => Some(again),
                AlterOutcome::Ignored | AlterOutcome::Withdrawn | AlterOutcome::AwaitMetadata => {
                    None
                }
            }
        };
        wakes.wake();
        again
    }

    /// Takes on the role that the metadata gives. `liveness` tells of the other replicas' brokers.
    pub(crate) fn apply(
        &self,
        metadata: &PartitionMetadata,
        liveness: &dyn Fn(i32) -> BrokerLiveness,
        now_ms: i64,
    ) -> Result<Transition, LogError> {
        let _no_appends = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut wakes = Wakes::default();
        let mut core = lock(&self.core);
        let log = LocalLog {
            end_offset: self.log.log_end_offset(),
            durable_offset: self.durable_offset(),
            high_watermark: core.role.high_watermark(),
            min_insync_replicas: core.min_insync_replicas,
            lag_max_ms: self.lag_max_ms,
        };
        let transition = core.role.apply(self.local_id, metadata, log, now_ms);
        if transition == (Transition::Elected { newly: true }) {
            core.count_from(&self.log);
        }
        for &id in &metadata.replicas {
            if let Some(leader) = core.role.as_leader_mut() {
                leader.set_liveness(id, liveness(id));
            }
        }
        match transition {
            Transition::Stale => {}
            Transition::Unchanged => core.high_watermark_moved(&self.log, &mut wakes),
            Transition::Elected { .. } | Transition::Following { .. } => {
                core.interrupt(&mut wakes);
                core.high_watermark_moved(&self.log, &mut wakes);
                core.announce();
            }
        }
        drop(core);
        wakes.wake();
        self.sync_if_behind();
        if let Transition::Elected { .. } = transition {
            // Followers find by this where their logs part from the leader's, so it must be known
            // even before the epoch has its first record.
            self.log.assign_epoch_start(metadata.leader_epoch)?;
        }
        Ok(transition)
    }

    /// Ends the replica's life on this broker: whoever waits is told, nothing is appended any
    /// more. Returns whether it led.
    pub(crate) fn retire(&self) -> bool {
        let _no_appends = self.gate.write().unwrap_or_else(PoisonError::into_inner);
        let mut wakes = Wakes::default();
        let led = {
            let mut core = lock(&self.core);
            let led = core.role.as_leader().is_some();
            core.role = Role::unassigned(core.role.high_watermark());
            core.interrupt(&mut wakes);
            core.announce();
            led
        };
        wakes.wake();
        led
    }

    /// Takes over what the metadata says of broker `id`.
    pub(crate) fn set_liveness(&self, id: i32, liveness: BrokerLiveness) {
        let mut wakes = Wakes::default();
        {
            let mut core = lock(&self.core);
            if let Some(leader) = core.role.as_leader_mut() {
                leader.set_liveness(id, liveness);
                self.settle_deletes(&mut core, &mut wakes);
            }
        }
        wakes.wake();
    }

    /// Takes over changed topic configs.
    pub(crate) fn configure(&self, settings: &TopicSettings, now_ms: i64) {
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = settings.rules;
        self.log.update_config(settings.log.clone());
        self.follow_syncs(settings);
        self.throttled.configure(self.name.partition, settings);
        let mut wakes = Wakes::default();
        {
            let mut core = lock(&self.core);
            core.min_insync_replicas = settings.min_insync_replicas;
            if let Some(leader) = core.role.as_leader_mut() {
                leader.set_min_insync_replicas(settings.min_insync_replicas, now_ms);
                leader.synced(self.durable_offset(), now_ms);
                core.high_watermark_moved(&self.log, &mut wakes);
            }
        }
        wakes.wake();
    }
}
