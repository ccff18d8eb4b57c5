//! ListConfigResources (KIP-1142), which grew out of ListClientMetricsResources.

use std::sync::Arc;

use klamm_metadata::{ConfigResource, ResourceType};
use klamm_protocol::ErrorCode;
use klamm_protocol::messages::list_config_resources_response::ConfigResource as Listed;
use klamm_protocol::messages::{ListConfigResourcesRequest, ListConfigResourcesResponse};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

/// The types Kafka lists, and all of them if the request names none.
const LISTED: [ResourceType; 5] = [
    ResourceType::Topic,
    ResourceType::Broker,
    ResourceType::BrokerLogger,
    ResourceType::ClientMetrics,
    ResourceType::Group,
];

impl Api for ListConfigResourcesRequest {
    async fn handle(
        self,
        broker: Arc<Shared>,
        context: RequestContext,
    ) -> ListConfigResourcesResponse {
        // Version 0 is ListClientMetricsResources, which has no choice of types.
        let asked: Vec<ResourceType> = match (context.api_version, &self.resource_types[..]) {
            (0, _) => vec![ResourceType::ClientMetrics],
            (_, []) => LISTED.to_vec(),
            (_, ids) => ids.iter().map(|id| ResourceType::from_id(*id)).collect(),
        };
        if asked.iter().any(|kind| !LISTED.contains(kind)) {
            return ListConfigResourcesResponse {
                error_code: ErrorCode::UnsupportedVersion.into(),
                ..ListConfigResourcesResponse::default()
            };
        }
        let resources = asked.iter().flat_map(|kind| names(&broker, *kind));
        ListConfigResourcesResponse {
            config_resources: resources
                .map(|resource| Listed {
                    resource_name: resource.name.as_str().into(),
                    resource_type: resource.resource_type.id(),
                    ..Listed::default()
                })
                .collect(),
            ..ListConfigResourcesResponse::default()
        }
    }
}

fn names(broker: &Shared, kind: ResourceType) -> Vec<ConfigResource> {
    let image = broker.image();
    match kind {
        ResourceType::Topic => image
            .topics()
            .iter()
            .map(|topic| ConfigResource::topic(topic.name()))
            .collect(),
        ResourceType::Broker | ResourceType::BrokerLogger => {
            let ids = image.brokers().map(|node| node.id.to_string());
            ids.map(|id| ConfigResource::new(kind, id)).collect()
        }
        _ => {
            let set = image.configs().iter().map(|(resource, _)| resource);
            set.filter(|resource| resource.resource_type == kind)
                .cloned()
                .collect()
        }
    }
}
