//! One method a request. Each takes Kafka's request and gives Kafka's response once the outcome is
//! committed, or an error that stands for the whole request.
//!
//! Who may ask what is decided before: nothing here looks at principals. Requests that say how long
//! they may take (`timeout_ms`) are not decided on after that, and answered with `REQUEST_TIMED_OUT`
//! when it has passed; what was decided by then may yet be committed, as with Kafka.

use std::collections::BTreeSet;

use klamm_metadata::KRAFT_VERSION;
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, AlterClientQuotasRequest,
    AlterClientQuotasResponse, AlterConfigsRequest, AlterConfigsResponse,
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, AlterPartitionRequest,
    AlterPartitionResponse, AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
    AssignReplicasToDirsRequest, AssignReplicasToDirsResponse, BrokerHeartbeatRequest,
    BrokerHeartbeatResponse, BrokerRegistrationRequest, BrokerRegistrationResponse,
    ControllerRegistrationRequest, ControllerRegistrationResponse, CreateAclsRequest,
    CreateAclsResponse, CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest,
    CreateTopicsResponse, DeleteAclsRequest, DeleteAclsResponse, DeleteTopicsRequest,
    DeleteTopicsResponse, ElectLeadersRequest, ElectLeadersResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, UnregisterBrokerRequest,
    UnregisterBrokerResponse, UpdateFeaturesRequest, UpdateFeaturesResponse,
};

use super::Controller;
use crate::managers::{
    ApiError, acls, brokers, configs, controllers, deletion, elections, features, isr, partitions,
    producer_ids, quotas, reassignments, scram, topics,
};

/// Which topics' configs the asker may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Describable {
    /// All of them.
    All,
    /// Those of these topics.
    Topics(BTreeSet<String>),
}

impl Describable {
    fn contains(&self, topic: &str) -> bool {
        match self {
            Describable::All => true,
            Describable::Topics(topics) => topics.contains(topic),
        }
    }
}

type Result<T> = std::result::Result<T, ApiError>;

impl Controller {
    /// Makes topics; the response tells the configs of those that are `describable`.
    pub async fn create_topics(
        &self,
        request: CreateTopicsRequest,
        describable: Describable,
    ) -> Result<CreateTopicsResponse> {
        let see = move |topic: &str| describable.contains(topic);
        let end = self.deadline(request.timeout_ms);
        self.decide_by(end, move |d| {
            Ok(topics::create_topics(&d.context, &request, &see))
        })
        .await
    }

    /// Deletes topics.
    pub async fn delete_topics(
        &self,
        request: DeleteTopicsRequest,
    ) -> Result<DeleteTopicsResponse> {
        let end = self.deadline(request.timeout_ms);
        self.decide_by(end, move |d| {
            Ok(deletion::delete_topics(&d.context, &request))
        })
        .await
    }

    /// Adds partitions to topics.
    pub async fn create_partitions(
        &self,
        request: CreatePartitionsRequest,
    ) -> Result<CreatePartitionsResponse> {
        let end = self.deadline(request.timeout_ms);
        self.decide_by(end, move |d| {
            Ok(partitions::create_partitions(&d.context, &request))
        })
        .await
    }

    /// Notes the directories of replicas.
    pub async fn assign_replicas_to_dirs(
        &self,
        request: AssignReplicasToDirsRequest,
    ) -> Result<AssignReplicasToDirsResponse> {
        self.decide(move |d| partitions::assign_replicas_to_dirs(&d.context, &request))
            .await
    }

    /// Changes in-sync replicas.
    pub async fn alter_partition(
        &self,
        request: AlterPartitionRequest,
    ) -> Result<AlterPartitionResponse> {
        self.decide(move |d| isr::alter_partition(&d.context, &request))
            .await
    }

    /// Elects leaders.
    pub async fn elect_leaders(
        &self,
        request: ElectLeadersRequest,
    ) -> Result<ElectLeadersResponse> {
        let end = self.deadline(request.timeout_ms);
        self.decide_by(end, move |d| elections::elect_leaders(&d.context, &request))
            .await
    }

    /// Starts, changes and cancels reassignments.
    pub async fn alter_partition_reassignments(
        &self,
        request: AlterPartitionReassignmentsRequest,
    ) -> Result<AlterPartitionReassignmentsResponse> {
        let end = self.deadline(request.timeout_ms);
        self.decide_by(end, move |d| {
            Ok(reassignments::alter_partition_reassignments(
                &d.context, &request,
            ))
        })
        .await
    }

    /// Lists reassignments under way. Answered from the image.
    pub fn list_partition_reassignments(
        &self,
        request: &ListPartitionReassignmentsRequest,
    ) -> ListPartitionReassignmentsResponse {
        reassignments::list_partition_reassignments(&self.image(), request)
    }

    /// Registers a broker. `same_process` says that it runs in this process: an earlier process of
    /// that id is then known to be gone, however recently it was heard of.
    pub async fn register_broker(
        &self,
        request: BrokerRegistrationRequest,
        same_process: bool,
    ) -> Result<BrokerRegistrationResponse> {
        self.decide(move |d| {
            brokers::register_broker(&d.context, d.sessions, &request, same_process, d.now)
        })
        .await
    }

    /// Takes a broker's sign of life.
    pub async fn broker_heartbeat(
        &self,
        request: BrokerHeartbeatRequest,
    ) -> Result<BrokerHeartbeatResponse> {
        self.decide(move |d| brokers::heartbeat(&d.context, d.sessions, &request, d.now))
            .await
    }

    /// Fences a broker that is known to be gone, before its session ends. Nothing happens if it has
    /// registered anew since `epoch`, or is fenced already.
    pub async fn fence_broker(&self, id: i32, epoch: i64) -> Result<()> {
        self.decide(move |d| Ok(brokers::fence_gone(&d.context, d.sessions, (id, epoch))))
            .await
    }

    /// Forgets a broker.
    pub async fn unregister_broker(
        &self,
        request: UnregisterBrokerRequest,
    ) -> Result<UnregisterBrokerResponse> {
        self.decide(move |d| brokers::unregister_broker(&d.context, d.sessions, &request))
            .await
    }

    /// Registers a controller.
    pub async fn register_controller(
        &self,
        request: ControllerRegistrationRequest,
    ) -> Result<ControllerRegistrationResponse> {
        self.decide(move |d| controllers::register_controller(&d.context, &request))
            .await
    }

    /// Hands out a block of producer ids.
    pub async fn allocate_producer_ids(
        &self,
        request: AllocateProducerIdsRequest,
    ) -> Result<AllocateProducerIdsResponse> {
        self.decide(move |d| producer_ids::allocate_producer_ids(&d.context, &request))
            .await
    }

    /// Changes single configs.
    pub async fn incremental_alter_configs(
        &self,
        request: IncrementalAlterConfigsRequest,
    ) -> Result<IncrementalAlterConfigsResponse> {
        self.decide(move |d| Ok(configs::incremental_alter_configs(&d.context, &request)))
            .await
    }

    /// Replaces all configs of resources.
    pub async fn alter_configs(
        &self,
        request: AlterConfigsRequest,
    ) -> Result<AlterConfigsResponse> {
        self.decide(move |d| Ok(configs::alter_configs(&d.context, &request)))
            .await
    }

    /// Changes feature levels; `api_version` is the version of the request. Voters that are to be in
    /// the log are moved there first, once all else in the request was found to be right.
    pub async fn update_features(
        &self,
        request: UpdateFeaturesRequest,
        api_version: i16,
    ) -> Result<UpdateFeaturesResponse> {
        let end = self.deadline(request.timeout_ms);
        let level = self.image().features().level(KRAFT_VERSION);
        if level == 0 && features::asks_for_voters_in_log(&request) {
            let trial = UpdateFeaturesRequest {
                validate_only: true,
                ..request.clone()
            };
            let tried = self.decide_by(end, move |d| {
                Ok(features::update_features(&d.context, &trial, api_version))
            });
            let tried = tried.await?;
            if tried.error_code != 0 {
                return Ok(tried);
            }
            match self.keep_voters_in_log(request.validate_only, end).await {
                Ok(()) => {}
                Err(error) if error.code == ErrorCode::NotController => return Err(error),
                Err(error) => return Ok(features::failed(&error)),
            }
        }
        self.decide_by(end, move |d| {
            Ok(features::update_features(&d.context, &request, api_version))
        })
        .await
    }

    /// Changes client quotas.
    pub async fn alter_client_quotas(
        &self,
        request: AlterClientQuotasRequest,
    ) -> Result<AlterClientQuotasResponse> {
        self.decide(move |d| Ok(quotas::alter_client_quotas(&d.context, &request)))
            .await
    }

    /// Changes SCRAM credentials.
    pub async fn alter_user_scram_credentials(
        &self,
        request: AlterUserScramCredentialsRequest,
    ) -> Result<AlterUserScramCredentialsResponse> {
        self.decide(move |d| Ok(scram::alter_user_scram_credentials(&d.context, &request)))
            .await
    }

    /// Adds access control entries.
    pub async fn create_acls(&self, request: CreateAclsRequest) -> Result<CreateAclsResponse> {
        self.decide(move |d| Ok(acls::create_acls(&d.context, &request)))
            .await
    }

    /// Removes access control entries.
    pub async fn delete_acls(&self, request: DeleteAclsRequest) -> Result<DeleteAclsResponse> {
        self.decide(move |d| Ok(acls::delete_acls(&d.context, &request)))
            .await
    }
}
