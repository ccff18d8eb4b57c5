//! What brokers and controllers ask of the active controller, on controller listeners:
//! registration, heartbeats, ISR changes, directories of replicas, producer id blocks.

use klamm_controller::{ApiError, Controller};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, AlterPartitionRequest,
    AlterPartitionResponse, AssignReplicasToDirsRequest, AssignReplicasToDirsResponse,
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest,
    BrokerRegistrationResponse, ControllerRegistrationRequest, ControllerRegistrationResponse,
};

use crate::context::RequestContext;
use crate::controller::{ControllerApi, code};

impl ControllerApi for BrokerRegistrationRequest {
    async fn decide(
        self,
        controller: &Controller,
        context: &RequestContext,
    ) -> Result<BrokerRegistrationResponse, ApiError> {
        controller.register_broker(self, context.in_process).await
    }

    fn refused(&self, error: &ApiError) -> BrokerRegistrationResponse {
        BrokerRegistrationResponse {
            error_code: error.code.into(),
            ..BrokerRegistrationResponse::default()
        }
    }

    fn error_code(response: &BrokerRegistrationResponse) -> ErrorCode {
        code(response.error_code)
    }
}

impl ControllerApi for BrokerHeartbeatRequest {
    async fn decide(
        self,
        controller: &Controller,
        _: &RequestContext,
    ) -> Result<BrokerHeartbeatResponse, ApiError> {
        controller.broker_heartbeat(self).await
    }

    fn refused(&self, error: &ApiError) -> BrokerHeartbeatResponse {
        BrokerHeartbeatResponse {
            error_code: error.code.into(),
            ..BrokerHeartbeatResponse::default()
        }
    }

    fn error_code(response: &BrokerHeartbeatResponse) -> ErrorCode {
        code(response.error_code)
    }
}

impl ControllerApi for AlterPartitionRequest {
    async fn decide(
        self,
        controller: &Controller,
        _: &RequestContext,
    ) -> Result<AlterPartitionResponse, ApiError> {
        controller.alter_partition(self).await
    }

    fn refused(&self, error: &ApiError) -> AlterPartitionResponse {
        AlterPartitionResponse {
            error_code: error.code.into(),
            ..AlterPartitionResponse::default()
        }
    }

    fn error_code(response: &AlterPartitionResponse) -> ErrorCode {
        code(response.error_code)
    }
}

impl ControllerApi for AssignReplicasToDirsRequest {
    async fn decide(
        self,
        controller: &Controller,
        _: &RequestContext,
    ) -> Result<AssignReplicasToDirsResponse, ApiError> {
        controller.assign_replicas_to_dirs(self).await
    }

    fn refused(&self, error: &ApiError) -> AssignReplicasToDirsResponse {
        AssignReplicasToDirsResponse {
            error_code: error.code.into(),
            ..AssignReplicasToDirsResponse::default()
        }
    }

    fn error_code(response: &AssignReplicasToDirsResponse) -> ErrorCode {
        code(response.error_code)
    }
}

impl ControllerApi for AllocateProducerIdsRequest {
    async fn decide(
        self,
        controller: &Controller,
        _: &RequestContext,
    ) -> Result<AllocateProducerIdsResponse, ApiError> {
        controller.allocate_producer_ids(self).await
    }

    fn refused(&self, error: &ApiError) -> AllocateProducerIdsResponse {
        AllocateProducerIdsResponse {
            error_code: error.code.into(),
            ..AllocateProducerIdsResponse::default()
        }
    }

    fn error_code(response: &AllocateProducerIdsResponse) -> ErrorCode {
        code(response.error_code)
    }
}

impl ControllerApi for ControllerRegistrationRequest {
    async fn decide(
        self,
        controller: &Controller,
        _: &RequestContext,
    ) -> Result<ControllerRegistrationResponse, ApiError> {
        controller.register_controller(self).await
    }

    fn refused(&self, error: &ApiError) -> ControllerRegistrationResponse {
        ControllerRegistrationResponse {
            error_code: error.code.into(),
            error_message: error.wire_message(),
            ..ControllerRegistrationResponse::default()
        }
    }

    fn error_code(response: &ControllerRegistrationResponse) -> ErrorCode {
        code(response.error_code)
    }
}
