//! Adding, removing and updating voters (KIP-853).

use std::time::Duration;

use klamm_protocol::messages::controller_registration_request::Listener as OwnListener;
use klamm_protocol::messages::update_raft_voter_request::{KRaftVersionFeature, Listener};
use klamm_protocol::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, RemoveRaftVoterRequest, RemoveRaftVoterResponse,
    UpdateRaftVoterRequest, UpdateRaftVoterResponse, update_raft_voter_response,
};
use klamm_protocol::{ByteStr, ErrorCode};

use super::Controller;
use crate::managers::ApiError;
use crate::raft::{Voter, VoterEndpoint, VoterKey};

/// The version of `kraft.version` that keeps voters in the log.
const KRAFT_VERSION: i16 = 1;

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
        if !supported.contains(&KRAFT_VERSION) {
            return Err(ErrorCode::InvalidRequest.into());
        }
        let listeners = request.listeners.iter();
        let endpoints: Vec<_> = listeners
            .map(|l| endpoint(&l.name, &l.host, l.port))
            .collect();
        self.check_default_listener("Update", &endpoints)?;
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
    /// now; `None` where that is known, or where this one does not vote.
    pub fn voter_update(&self) -> Option<UpdateRaftVoterRequest> {
        let raft = &self.0.raft;
        let status = raft.status();
        let own = status.voters.get(&self.0.node_id)?;
        let known = &own.endpoints;
        let listeners = &self.0.registration.listeners;
        let same = |l: &OwnListener| known.contains(&endpoint(&l.name, &l.host, l.port));
        let told = known.len() == listeners.len() && listeners.iter().all(same);
        let fixed = self.0.joining.is_none() || own.directory_id != raft.directory_id();
        if told || fixed || status.leader.is_none() {
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
            voter_directory_id: own.directory_id,
            listeners: listeners.iter().map(listener).collect(),
            k_raft_version_feature: KRaftVersionFeature {
                min_supported_version: 0,
                max_supported_version: KRAFT_VERSION,
                ..KRaftVersionFeature::default()
            },
            ..UpdateRaftVoterRequest::default()
        })
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
