//! Adding, removing and updating voters (KIP-853).

use std::time::Duration;

use klamm_protocol::messages::controller_registration_request::Listener as OwnListener;
use klamm_protocol::messages::update_raft_voter_request::{KRaftVersionFeature, Listener};
use klamm_protocol::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, RemoveRaftVoterRequest, RemoveRaftVoterResponse,
    UpdateRaftVoterRequest, UpdateRaftVoterResponse, update_raft_voter_response,
};
use klamm_protocol::{ByteStr, ErrorCode};
use klamm_records::Uuid;

use super::Controller;
use crate::managers::ApiError;
use crate::raft::{Voter, VoterEndpoint, VoterKey};
use crate::runtime::timeout;

/// The version of `kraft.version` that keeps voters in the log.
const VOTERS_IN_LOG: i16 = 1;

impl Controller {
    /// Makes a controller a voter once it has caught up. Answers when that is committed.
    ///
    /// # Errors
    /// An error that stands for the whole request.
    pub async fn add_raft_voter(
        &self,
        request: &AddRaftVoterRequest,
    ) -> Result<AddRaftVoterResponse, ApiError> {
        self.check_voter(request.cluster_id.as_deref(), request.voter_id)?;
        let listeners = request.listeners.iter();
        let endpoints: Vec<_> = listeners
            .map(|l| endpoint(&l.name, &l.host, l.port))
            .collect();
        self.check_default_listener("Add", &endpoints)?;
        let voter = Voter {
            directory_id: request.voter_directory_id,
            endpoints,
        };
        let limit = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0));
        let added = self.0.raft.add_voter(request.voter_id, voter, limit).await;
        added.map_err(|error| ApiError::from(&error))?;
        Ok(AddRaftVoterResponse {
            error_message: None,
            ..AddRaftVoterResponse::default()
        })
    }

    /// Takes the vote from a controller. Answers when that is committed.
    ///
    /// # Errors
    /// An error that stands for the whole request.
    pub async fn remove_raft_voter(
        &self,
        request: &RemoveRaftVoterRequest,
    ) -> Result<RemoveRaftVoterResponse, ApiError> {
        self.check_voter(request.cluster_id.as_deref(), request.voter_id)?;
        let key = VoterKey {
            id: request.voter_id,
            directory_id: request.voter_directory_id,
        };
        let removed = self.0.raft.remove_voter(key).await;
        removed.map_err(|error| ApiError::from(&error))?;
        Ok(RemoveRaftVoterResponse {
            error_message: None,
            ..RemoveRaftVoterResponse::default()
        })
    }

    /// Notes where a voter listens by now.
    pub async fn update_raft_voter(
        &self,
        request: &UpdateRaftVoterRequest,
    ) -> UpdateRaftVoterResponse {
        let updated = self.try_update_voter(request).await;
        let status = self.0.raft.status();
        let leader = status
            .leader
            .and_then(|id| Some((id, status.voters.get(&id)?)));
        let address = leader.and_then(|(_, leader)| leader.endpoints.first());
        UpdateRaftVoterResponse {
            error_code: updated
                .map_or_else(|error| in_the_quorum(error.code), |()| ErrorCode::None)
                .into(),
            current_leader: update_raft_voter_response::CurrentLeader {
                leader_id: status.leader.unwrap_or(-1),
                leader_epoch: status.epoch,
                host: address.map_or(ByteStr::EMPTY, |a| a.host.as_str().into()),
                port: address.map_or(0, |a| a.port.into()),
                ..Default::default()
            },
            ..UpdateRaftVoterResponse::default()
        }
    }

    async fn try_update_voter(&self, request: &UpdateRaftVoterRequest) -> Result<(), ApiError> {
        self.check_voter(request.cluster_id.as_deref(), request.voter_id)?;
        let status = self.0.raft.status();
        match request.current_leader_epoch {
            epoch if epoch > status.epoch => return Err(ErrorCode::UnknownLeaderEpoch.into()),
            epoch if epoch < status.epoch => return Err(ErrorCode::FencedLeaderEpoch.into()),
            _ => {}
        }
        let supported = &request.k_raft_version_feature;
        let supported = supported.min_supported_version..=supported.max_supported_version;
        let configured = self.0.raft.has_configured_voters();
        let version = if configured { 0 } else { VOTERS_IN_LOG };
        if !supported.contains(&version) {
            return Err(ErrorCode::InvalidRequest.into());
        }
        let listeners = request.listeners.iter();
        let endpoints: Vec<_> = listeners
            .map(|l| endpoint(&l.name, &l.host, l.port))
            .collect();
        self.check_default_listener("Update", &endpoints)?;
        if configured && !supported.contains(&VOTERS_IN_LOG) {
            // There is nothing to note of one that an upgrade has to wait for.
            return Ok(());
        }
        let voter = Voter {
            directory_id: request.voter_directory_id,
            endpoints,
        };
        let updated = self.0.raft.update_voter(request.voter_id, voter).await;
        updated.map_err(|error| ApiError::from(&error))
    }

    fn check_voter(&self, cluster_id: Option<&str>, id: i32) -> Result<(), ApiError> {
        if cluster_id.is_some_and(|given| given != self.cluster_id()) {
            return Err(ErrorCode::InconsistentClusterId.into());
        }
        if !self.is_active() {
            return Err(ErrorCode::NotController.into());
        }
        if id < 0 {
            return Err(ErrorCode::InvalidRequest.into());
        }
        Ok(())
    }

    /// A voter has to listen where controllers talk to each other: on the first listener of
    /// `controller.listener.names`.
    fn check_default_listener(
        &self,
        what: &str,
        endpoints: &[VoterEndpoint],
    ) -> Result<(), ApiError> {
        let Some(own) = self.0.registration.listeners.first() else {
            return Ok(());
        };
        if endpoints.iter().any(|endpoint| endpoint.name == *own.name) {
            return Ok(());
        }
        let listed: Vec<&str> = endpoints.iter().map(|e| e.name.as_str()).collect();
        let message = format!(
            "{what} voter request didn't include the endpoint ({listed:?}) for the default \
             listener {}",
            &*own.name
        );
        Err(ApiError::new(ErrorCode::InvalidRequest, message))
    }

    /// The request by which this controller, a voter, tells the one that leads where it listens
    /// now, and which directory it has; `None` where that is known, or where this one does not vote.
    pub fn voter_update(&self) -> Option<UpdateRaftVoterRequest> {
        let raft = &self.0.raft;
        let status = raft.status();
        let own = status.voters.get(&self.0.node_id)?;
        let known = &own.endpoints;
        let listeners = &self.0.registration.listeners;
        let same = |l: &OwnListener| known.contains(&endpoint(&l.name, &l.host, l.port));
        let leader = status.leader?;
        let silent = if own.directory_id == Uuid::ZERO {
            // Each leader is told once, and knows of itself.
            leader == self.0.node_id || raft.is_known_in(status.epoch)
        } else {
            let told = known.len() == listeners.len() && listeners.iter().all(same);
            let fixed = self.0.joining.is_none() || own.directory_id != raft.directory_id();
            told || fixed
        };
        if silent {
            return None;
        }
        let listener = |l: &OwnListener| Listener {
            name: l.name.clone(),
            host: l.host.clone(),
            port: l.port,
            ..Listener::default()
        };
        Some(UpdateRaftVoterRequest {
            cluster_id: Some(self.cluster_id().into()),
            current_leader_epoch: status.epoch,
            voter_id: self.0.node_id,
            voter_directory_id: raft.directory_id(),
            listeners: listeners.iter().map(listener).collect(),
            k_raft_version_feature: KRaftVersionFeature {
                min_supported_version: 0,
                max_supported_version: VOTERS_IN_LOG,
                ..KRaftVersionFeature::default()
            },
            ..UpdateRaftVoterRequest::default()
        })
    }

    /// Takes note that the leader of `epoch` has taken [`Controller::voter_update`].
    pub fn voter_is_known_in(&self, epoch: i32) {
        self.0.raft.set_known_in(epoch);
    }

    /// Moves the voters of `controller.quorum.voters` into the log, or only looks whether that can be
    /// done: `kraft.version` 0 to 1. Given up at `end`, as the monotonic clock has it.
    pub(super) async fn keep_voters_in_log(
        &self,
        validate_only: bool,
        end: Duration,
    ) -> Result<(), ApiError> {
        let listeners = self.0.registration.listeners.iter();
        let endpoints = listeners.map(|l| endpoint(&l.name, &l.host, l.port));
        let raft = &self.0.raft;
        let left = end.saturating_sub(self.0.env.clock.monotonic());
        let kept = timeout(
            left,
            raft.keep_voters_in_log(endpoints.collect(), validate_only),
        );
        match kept.await {
            Ok(kept) => kept.map_err(|error| ApiError::from(&error)),
            Err(_) => Err(ErrorCode::RequestTimedOut.into()),
        }
    }
}

fn endpoint(name: &str, host: &str, port: u16) -> VoterEndpoint {
    VoterEndpoint {
        name: name.to_owned(),
        host: host.to_owned(),
        port,
    }
}

/// A controller that does not lead says so in the words of the quorum.
fn in_the_quorum(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::NotController => ErrorCode::NotLeaderOrFollower,
        other => other,
    }
}
