//! DescribeCluster (KIP-700, KIP-919): the nodes behind this kind of listener.

use std::sync::Arc;

use klamm_metadata::MetadataImage;
use klamm_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use klamm_protocol::messages::{DescribeClusterRequest, DescribeClusterResponse};
use klamm_protocol::{ByteStr, ErrorCode};

use crate::authorized;
use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

/// `endpoint_type` of clients that talk to brokers.
const BROKERS: i8 = 1;
/// `endpoint_type` of clients that talk to controllers.
const CONTROLLERS: i8 = 2;

impl Api for DescribeClusterRequest {
    const MAY_BE_OVERTAKEN: bool = true;

    async fn handle(self, broker: Arc<Shared>, context: RequestContext) -> DescribeClusterResponse {
        let listener = &context.connection.listener;
        let offered = if broker.is_controller_listener(listener) {
            CONTROLLERS
        } else {
            BROKERS
        };
        if self.endpoint_type != offered {
            return mismatch(self.endpoint_type, offered);
        }
        let image = broker.image();
        let (brokers, controller_id) = if offered == CONTROLLERS {
            (
                controllers(&broker, &image, listener),
                broker.controller.leader().unwrap_or(-1),
            )
        } else {
            let seen = image.cluster().brokers().values();
            let seen = seen.filter(|node| self.include_fenced_brokers || !node.fenced);
            let brokers = seen.filter_map(|node| {
                let endpoint = node.endpoint(listener)?;
                Some(DescribeClusterBroker {
                    broker_id: node.id,
                    host: endpoint.host.as_str().into(),
                    port: endpoint.port.into(),
                    rack: node.rack.as_deref().map(ByteStr::from),
                    is_fenced: node.fenced,
                    ..DescribeClusterBroker::default()
                })
            });
            (
                brokers.collect(),
                broker.some_alive_broker(&image, listener),
            )
        };
        DescribeClusterResponse {
            endpoint_type: offered,
            cluster_id: broker.cluster_id.as_str().into(),
            controller_id,
            brokers,
            cluster_authorized_operations: authorized::if_requested(
                self.include_cluster_authorized_operations,
                authorized::CLUSTER,
            ),
            ..DescribeClusterResponse::default()
        }
    }
}

/// The controllers that have registered, and this one at any rate.
fn controllers(
    broker: &Shared,
    image: &MetadataImage,
    listener: &str,
) -> Vec<DescribeClusterBroker> {
    let node = |broker_id, host: &str, port: u16| DescribeClusterBroker {
        broker_id,
        host: host.into(),
        port: port.into(),
        ..DescribeClusterBroker::default()
    };
    let registered = image.cluster().controllers().values();
    let mut nodes: Vec<_> = registered
        .filter_map(|controller| {
            let mut endpoints = controller.endpoints.iter();
            let endpoint = endpoints.find(|endpoint| endpoint.name == listener)?;
            Some(node(controller.id, &endpoint.host, endpoint.port))
        })
        .collect();
    if nodes.iter().all(|known| known.broker_id != broker.node_id) {
        let mut own = broker.settings.advertised_controller.iter();
        if let Some(own) = own.find(|endpoint| endpoint.name == listener) {
            nodes.push(node(broker.node_id, &own.host, own.port));
        }
    }
    nodes
}

fn mismatch(asked: i8, offered: i8) -> DescribeClusterResponse {
    let (error, message) = if asked == BROKERS || asked == CONTROLLERS {
        let kind = if offered == CONTROLLERS {
            "controller"
        } else {
            "broker"
        };
        (
            ErrorCode::MismatchedEndpointType,
            format!("The request was sent to an endpoint of the wrong type: this is a {kind}."),
        )
    } else {
        (
            ErrorCode::UnsupportedEndpointType,
            format!("Unsupported endpoint type {asked}"),
        )
    };
    DescribeClusterResponse {
        error_code: error.into(),
        error_message: Some(message.into()),
        ..DescribeClusterResponse::default()
    }
}
