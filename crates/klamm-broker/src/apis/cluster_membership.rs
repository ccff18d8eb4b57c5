//! What brokers ask of the controller, on controller listeners: registration, heartbeats, ISR
//! changes, directories of replicas, producer id blocks.

use std::sync::Arc;

use klamm_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, AlterPartitionRequest,
    AlterPartitionResponse, AssignReplicasToDirsRequest, AssignReplicasToDirsResponse,
    BrokerHeartbeatRequest, BrokerHeartbeatResponse, BrokerRegistrationRequest,
    BrokerRegistrationResponse,
};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for BrokerRegistrationRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> BrokerRegistrationResponse {
        broker
            .controller
            .register_broker(self, false)
            .await
            .unwrap_or_else(|refused| BrokerRegistrationResponse {
                error_code: refused.code.into(),
                ..BrokerRegistrationResponse::default()
            })
    }
}

impl Api for BrokerHeartbeatRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> BrokerHeartbeatResponse {
        broker
            .controller
            .broker_heartbeat(self)
            .await
            .unwrap_or_else(|refused| BrokerHeartbeatResponse {
                error_code: refused.code.into(),
                ..BrokerHeartbeatResponse::default()
            })
    }
}

impl Api for AlterPartitionRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> AlterPartitionResponse {
        broker
            .controller
            .alter_partition(self)
            .await
            .unwrap_or_else(|refused| AlterPartitionResponse {
                error_code: refused.code.into(),
                ..AlterPartitionResponse::default()
            })
    }
}

impl Api for AssignReplicasToDirsRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> AssignReplicasToDirsResponse {
        broker
            .controller
            .assign_replicas_to_dirs(self)
            .await
            .unwrap_or_else(|refused| AssignReplicasToDirsResponse {
                error_code: refused.code.into(),
                ..AssignReplicasToDirsResponse::default()
            })
    }
}

impl Api for AllocateProducerIdsRequest {
    async fn handle(self, broker: Arc<Shared>, _: RequestContext) -> AllocateProducerIdsResponse {
        broker
            .controller
            .allocate_producer_ids(self)
            .await
            .unwrap_or_else(|refused| AllocateProducerIdsResponse {
                error_code: refused.code.into(),
                ..AllocateProducerIdsResponse::default()
            })
    }
}
