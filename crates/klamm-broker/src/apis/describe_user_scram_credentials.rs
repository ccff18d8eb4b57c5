//! DescribeUserScramCredentials (KIP-554): read off the metadata.

use std::sync::Arc;

use klamm_controller::managers::scram;
use klamm_protocol::messages::{
    DescribeUserScramCredentialsRequest, DescribeUserScramCredentialsResponse,
};

use crate::context::RequestContext;
use crate::dispatch::Api;
use crate::shared::Shared;

impl Api for DescribeUserScramCredentialsRequest {
    async fn handle(
        self,
        broker: Arc<Shared>,
        _: RequestContext,
    ) -> DescribeUserScramCredentialsResponse {
        scram::describe_user_scram_credentials(&broker.image(), &self)
    }
}
