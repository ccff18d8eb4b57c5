//! AlterUserScramCredentials (KIP-554): kept by the controller.

use klamm_controller::{ApiError, Controller};
use klamm_protocol::ByteStr;
use klamm_protocol::messages::alter_user_scram_credentials_response::AlterUserScramCredentialsResult;
use klamm_protocol::messages::{
    AlterUserScramCredentialsRequest, AlterUserScramCredentialsResponse,
};
use std::collections::BTreeSet;

use crate::context::RequestContext;
use crate::controller::ControllerApi;

impl ControllerApi for AlterUserScramCredentialsRequest {
    async fn decide(
        self,
        controller: &Controller,
        _: &RequestContext,
    ) -> Result<AlterUserScramCredentialsResponse, ApiError> {
        controller.alter_user_scram_credentials(self).await
    }

    fn refused(&self, error: &ApiError) -> AlterUserScramCredentialsResponse {
        let deleted = self.deletions.iter().map(|deletion| &deletion.name);
        let upserted = self.upsertions.iter().map(|upsertion| &upsertion.name);
        let users: BTreeSet<ByteStr> = deleted.chain(upserted).cloned().collect();
        let refused = users
            .into_iter()
            .map(|user| AlterUserScramCredentialsResult {
                user,
                error_code: error.code.into(),
                error_message: error.wire_message(),
                ..AlterUserScramCredentialsResult::default()
            });
        AlterUserScramCredentialsResponse {
            results: refused.collect(),
            ..AlterUserScramCredentialsResponse::default()
        }
    }
}
